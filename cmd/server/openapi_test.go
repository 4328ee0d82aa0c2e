package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/notebookd/notebookd/gen/openapi"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// examplesDir has the examples of the OpenAPI document.
const examplesDir = "../../internal/tools/openapi/examples"

// apiDocument is the OpenAPI document as JSON schemas, in which nothing may be that it
// does not name.
type apiDocument struct {
	compiler *jsonschema.Compiler
	t        *testing.T
}

func newAPIDocument(t *testing.T) *apiDocument {
	t.Helper()
	var doc map[string]any
	if err := yaml.Unmarshal(openapi.YAML, &doc); err != nil {
		t.Fatal(err)
	}
	// Schemas have JSON's numbers, not YAML's.
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	schemas := whole.(map[string]any)["components"].(map[string]any)["schemas"].(map[string]any)
	for name, schema := range schemas {
		if fields := schema.(map[string]any); fields["properties"] != nil && fields["additionalProperties"] == nil {
			fields["additionalProperties"] = false
		} else if fields["properties"] == nil && name != "GoogleProtobufAny" {
			t.Errorf("%s has no fields", name)
		}
	}
	d := &apiDocument{compiler: jsonschema.NewCompiler(), t: t}
	d.compiler.DefaultDraft(jsonschema.Draft4) // which is nearest to OpenAPI 3.0
	if err := d.compiler.AddResource("document.json", whole); err != nil {
		t.Fatal(err)
	}
	return d
}

// check wants an answer to be what the document says of it.
func (d *apiDocument) check(schema, answer string) {
	d.t.Helper()
	compiled, err := d.compiler.Compile("document.json#/components/schemas/" + schema)
	if err != nil {
		d.t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(answer))
	if err != nil {
		d.t.Fatalf("%v: %s", err, answer)
	}
	if err := compiled.Validate(value); err != nil {
		d.t.Errorf("the document says otherwise of %s: %v\n%s", schema, err, answer)
	}
}

// streamed reads a watch until a line of it is the last one that is wanted.
func (p *process) streamed(t *testing.T, path, accept string, last func(line string) bool) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, accept) {
		t.Errorf("%s as %s comes as %q", path, accept, got)
	}
	var lines []string
	for in := bufio.NewReader(resp.Body); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v after %q", path, err, lines)
		}
		if lines = append(lines, line); last(line) {
			return lines
		}
	}
}

// varies is what is another time in each run.
var varies = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z|"(?:resumeToken|nextPageToken|pollInterval|etag)": ?"[^"]*"|id: \S+|retry: \d+|imageChanges/[\w-]+|"remaining": ?\d+`)

// TestOpenAPI: the answers of a server are what the document says, and its examples are
// such answers.
func TestOpenAPI(t *testing.T) {
	p, _ := startSimulated(t, cloudsim.Config{Seed: 1})
	document := newAPIDocument(t)

	good := func(method, path, body string) string {
		t.Helper()
		code, answer := p.do(t, method, path, body)
		if code != http.StatusOK {
			t.Fatalf("%s %s: %d: %s", method, path, code, answer)
		}
		return answer
	}
	recorded := map[string]bool{}
	record := func(file, answer string) {
		t.Helper()
		if strings.HasSuffix(file, ".json") {
			var lines bytes.Buffer
			if err := json.Indent(&lines, []byte(answer), "", "  "); err != nil {
				t.Fatalf("%v: %s", err, answer)
			}
			answer = strings.TrimRight(lines.String(), "\n") + "\n"
		}
		recorded[file] = true
		path := filepath.Join(examplesDir, file)
		if *update {
			if err := os.WriteFile(path, []byte(answer), 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := varies.ReplaceAllString(string(want), "…"), varies.ReplaceAllString(answer, "…"); a != b {
			t.Errorf("the example %s is not what the server answers (- the example, + the answer). Write the examples anew with -update, then run make proto.\n%s",
				file, cmp.Diff(strings.Split(a, "\n"), strings.Split(b, "\n")))
		}
	}

	// A plan and a change first, so that history has something to tell.
	const (
		notebook = "/v1/clouds/core/locations/xb3/notebooks/nb-eiguqichl5hc"
		change   = `{"image": "xb3-dockerhub.coreshub.cn/aicp/public/pytorch:2.6.0-cuda12.4-jupyter", "imageType": "official", ` +
			`"requestId": "5f0c6a52-8f3b-4c7e-9d1a-2b6f4e8c0a17", "reason": "the old one has no CUDA 12"}`
	)
	plan := good(http.MethodPost, "/v1/clouds/scnet/locations/11250/notebooks/1896050410550136833:changeImage",
		`{"image": "image.ac.com:5000/dcu/admin/base/jupyterlab-pytorch:2.5.1-py3.10", "validateOnly": true}`)
	document.check("ChangeImageResponse", plan)
	document.check("ChangeImageRequest", change)
	record("NotebookService_ChangeImage.request.json", change)
	changed := good(http.MethodPost, notebook+":changeImage", change)
	document.check("ChangeImageResponse", changed)
	record("NotebookService_ChangeImage.json", changed)
	name := regexp.MustCompile(`imageChanges/[\w-]+`).FindString(changed)

	for id, call := range map[string]struct{ path, schema string }{
		"CallerService_GetCaller":             {"/v1/caller", "GetCallerResponse"},
		"CloudService_ListClouds":             {"/v1/clouds", "ListCloudsResponse"},
		"CloudService_GetCloud":               {"/v1/clouds/core", "GetCloudResponse"},
		"NotebookService_List":                {"/v1/notebooks?pageSize=2", "ListResponse"},
		"NotebookService_ListOfCloud":         {"/v1/clouds/scnet/notebooks?pageSize=2&filter=state%20%3D%20STOPPED", "ListResponse"},
		"NotebookService_ListOfLocation":      {"/v1/clouds/core/locations/xb3/notebooks?pageSize=2&orderBy=create_time%20desc", "ListResponse"},
		"ImageChangeService_ListImageChanges": {"/v1/imageChanges", "ListImageChangesResponse"},
		"ImageChangeService_GetImageChange":   {"/v1/" + name, "GetImageChangeResponse"},
		"":                                    {"/v1/notebooks?pageSize=1000", "ListResponse"},
	} {
		answer := good(http.MethodGet, call.path, "")
		document.check(call.schema, answer)
		if id != "" {
			record(id+".json", answer)
		}
	}

	for path, file := range map[string]string{
		"/v1/notebooks?filter=state%20%3D%20RUNING": "Status.json",
		"/v1/clouds/none":                   "",
		"/v1/notebooks?pageToken=x":         "",
		"/v1/notebooks:watch?resumeToken=x": "",
		"/v1/none":                          "",
		notebook + ":changeImage":           "",
	} {
		code, answer := p.get(t, path)
		if code < 400 {
			t.Errorf("%s: %d: %s", path, code, answer)
		}
		document.check("Status", answer)
		if file != "" {
			record(file, answer)
		}
	}

	// One line, and one event, of each kind.
	for id, watch := range map[string]struct{ parent, first string }{
		"NotebookService_Watch":           {"notebooks", `"notebook":`},
		"NotebookService_WatchOfCloud":    {"clouds/scnet/notebooks", `"location":`},
		"NotebookService_WatchOfLocation": {"clouds/core/locations/xb3/notebooks", `"bookmark":`},
	} {
		shown := ""
		lines := p.streamed(t, "/v1/"+watch.parent+":watch", "application/x-ndjson", func(line string) bool { return strings.Contains(line, "SNAPSHOT_END") })
		for _, line := range lines {
			document.check("WatchLine", line)
			if shown == "" && strings.Contains(line, watch.first) {
				shown = line
			}
		}
		record(id+".json", shown)
		events := p.streamed(t, "/v1/"+watch.parent+":watch?snapshot=SNAPSHOT_SKIP", "text/event-stream", func() func(string) bool {
			ends := false
			return func(line string) bool {
				ends = ends || strings.Contains(line, "SNAPSHOT_END")
				return ends && line == "\n"
			}
		}())
		for i, line := range events {
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				document.check("WatchResponse", data)
				var compact bytes.Buffer // where spaces are is another thing in each build
				if err := json.Compact(&compact, []byte(data)); err != nil {
					t.Fatal(err)
				}
				events[i] = "data: " + compact.String() + "\n"
			}
		}
		record(id+".txt", strings.Join(events, ""))
	}

	files, err := os.ReadDir(examplesDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !recorded[f.Name()] {
			t.Errorf("%s is recorded by nothing", f.Name())
		}
	}
}
