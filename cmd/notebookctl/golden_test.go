package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/notebookd/notebookd/internal/upstream/cloudsim"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

const (
	firstName  = "clouds/core/locations/xb3/notebooks/nb-eiguqichl5hc"
	scnetFirst = "1896050410550136833"
	torch      = "xb3-dockerhub.coreshub.cn/aicp/public/pytorch:2.6.0-cuda12.4-jupyter"
	tensorflow = "xb3-dockerhub.coreshub.cn/aicp/public/tensorflow:2.16.1-gpu-jupyter"
)

// masks hide what differs from run to run. Runs of blanks are one, since the widths
// of columns depend on what is hidden.
var masks = []struct {
	form *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?( [+-]\d{4}|Z)?`), "TIME"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`\d+ (second|minute|hour|day)s?`), "SPAN"},
	{regexp.MustCompile(`\d+ (秒|分钟|小时|天)`), "SPAN"},
	{regexp.MustCompile(`(\s)-?\d+[smhd](\s|$)`), "${1}AGE$2"},
	{regexp.MustCompile(`(\s)-?\d+[smhd](\s|$)`), "${1}AGE$2"},
	{regexp.MustCompile(`\d+(\.\d+)?s\b`), "SECONDS"},
	{regexp.MustCompile(`\d+, 20000/h`), "BUDGET"},
	{regexp.MustCompile(`(could be made|当前可用) \d+`), "$1 N"},
	{regexp.MustCompile(`\d+ calls an hour, \d+ could`), "N calls an hour, N could"},
	{regexp.MustCompile(`(etag:?\s+)\S+`), "${1}ETAG"},
	{regexp.MustCompile(`go1\.\S+`), "GO"},
	{regexp.MustCompile(`commit \S+ of \S+`), "COMMIT"},
	{regexp.MustCompile(`notebookctl (devel|v\d\S*)`), "notebookctl VERSION"},
	{regexp.MustCompile(`(\S)  +`), "$1  "},
}

var lateReads = regexp.MustCompile(`(?m)^(note: what is shown of|提示：\S+ 的数据已过时).*\n`)

func mask(text, home string) string {
	text = strings.ReplaceAll(text, home, "HOME")
	for _, m := range masks {
		text = m.form.ReplaceAllString(text, m.with)
	}
	return text
}

// goldenRuns are runs of the program whose output is compared with files, in both
// languages. They change nothing in the clouds.
var goldenRuns = []struct {
	name string
	runs [][]string
}{
	{"help", [][]string{
		{}, {"help"}, {"list", "--help"}, {"watch", "-h"}, {"get", "-h"}, {"change-image", "-h"}, {"clouds", "-h"}, {"history", "-h"}, {"context", "-h"},
		{"context", "list", "-h"}, {"context", "use", "-h"}, {"help", "context", "set"}, {"context", "delete", "-h"}, {"context", "show", "-h"},
		{"completion", "-h"}, {"version", "-h"}, {"help", "nothing"}, {"version"},
	}},
	{"usage", [][]string{
		{"lits"}, {"--nothing"}, {"list", "-z"}, {"list", "--limit"}, {"list", "--limit", "x"}, {"list", "--limit", "-1"}, {"list", "a", "b"}, {"get"},
		{"list", "-o", "xml"}, {"list", "-w", "--limit", "3"}, {"list", "--for", "3s"}, {"list", "--max-staleness", "-1s"}, {"clouds", "--for", "1s"},
		{"history", "--limit", "-1"}, {"list", "--timeout", "0s"}, {"list", "--lang", "fr"}, {"completion", "tcsh"}, {"context", "sit"},
		{"context", "use", "nothing"}, {"--context", "nothing", "list"}, {"change-image", firstName}, {"change-image", firstName, "--image", "a", "--previous"},
		{"change-image", firstName, "--image", "a", "--yes", "ALL"}, {"change-image", firstName, "--image", "a", "--request-id", "1"},
		{"change-image", firstName, "--image", "a", "--registry-password-file", "f"}, {"change-image", firstName, "--image", "a", "--registry-user", "u"},
		{"change-image", firstName, "--image", "a", "--wait", "-1s"}, {"get", ""}, {"context", "set", "a/b"},
		{"context", "set", "a", "--token-file", "x", "--token-stdin"}, {"--server", "https://a:1", "list"},
	}},
	{"list", [][]string{
		{"list"}, {"list", "core/xb3", "-o", "wide"}, {"ls", "scnet", "--no-headers"}, {"list", "clouds/core/locations/xb2", "-o", "name"},
		{"list", "--filter", "state = RUNNING", "--order-by", "create_time desc", "--limit", "2"}, {"list", "--filter", "display_name = nothing"},
		{"list", "--filter", "display_name = nothing", "-o", "json"}, {"list", "core/xb3", "--max-staleness", "0s", "--limit", "1", "-o", "yaml"},
		{"list", "core/xb3", "--limit", "1", "-o", "json"},
		{"list", "--filter", "state = RUNS"}, {"list", "--filter", "displayName = \"笔记\" AND (state = RUNNING"}, {"list", "--order-by", "size"}, {"list", "nowhere"}, {"list", "NOWHERE"},
	}},
	{"get", [][]string{
		{"get", firstName}, {"get", "core/xb3/nb-eiguqichl5hc", "-o", "name"}, {"get", "nb-eigu", "-o", "yaml"}, {"get", scnetFirst},
		{"get", "容器实例-"}, {"get", "nb-eiguqichlxxx"}, {"get", "zzz"}, {"get", "core/xb3/nb-nothing"},
	}},
	{"clouds", [][]string{
		{"clouds"}, {"clouds", "-o", "wide"}, {"clouds", "-o", "name"}, {"clouds", "core"}, {"clouds", "scnet/11250"}, {"clouds", "scnet/20091"}, {"clouds", "core/nowhere"}, {"clouds", "nowhere"},
	}},
	{"plan", [][]string{
		{"change-image", firstName, "--image", torch, "--image-type", "official", "--plan"},
		{"change-image", firstName, "--image", torch, "--plan"},
		{"change-image", firstName, "--image", tensorflow, "--image-type", "official"},
		{"change-image", firstName, "--previous"},
		{"change-image", firstName, "--image", torch, "--image-type", "official", "--plan", "--etag", "old"},
		{"change-image", scnetFirst, "--image", "image.ac.com:5000/dcu/admin/base/jupyterlab-pytorch:2.5.1-py3.10", "--plan"},
		{"change-image", scnetFirst, "--image", "image.ac.com:5000/dcu/admin/base/jupyterlab-pytorch:2.5.1-py3.10", "--yes", "NOTEBOOK_ID_CHANGES,NOTEBOOK_RUNNING"},
		{"change-image", scnetFirst, "--image", "nothing:1", "--plan"},
		{"history"}, {"history", firstName}, {"history", "imageChanges/nothing"}, {"history", "--filter", "phase = DONE"}, {"history", firstName, "--filter", "phase = DONE"},
	}},
	{"context", [][]string{
		{"context", "list"}, {"context", "set", "prod", "--server", "notebookd.example", "--ca", "/etc/ca.pem", "--token-env", "MY_TOKEN"},
		{"context", "set", "local", "--server", "localhost", "--plaintext"}, {"context", "list"}, {"context", "use", "local"}, {"context", "show", "prod"}, {"context", "show"},
		{"context", "delete", "prod"}, {"context", "list"}, {"context", "delete", "prod"}, {"--server", "127.0.0.1:1", "list"},
	}},
}

// TestGolden compares what the program says with what was looked at and found good.
func TestGolden(t *testing.T) {
	t.Parallel()
	fleet := simulate(t, cloudsim.Config{Notebooks: 4})
	s := serve(t, fleet, "")
	for _, lang := range []string{"en", "zh"} {
		for _, group := range goldenRuns {
			t.Run(group.name+"."+lang, func(t *testing.T) {
				c := s.caller(t).with("LANG", map[string]string{"en": "C.UTF-8", "zh": "zh_CN.UTF-8"}[lang])
				if group.name == "context" {
					c = c.with("NOTEBOOKCTL_SERVER", "")
				}
				var out bytes.Buffer
				for _, args := range group.runs {
					r := c.run(t, args...)
					fmt.Fprintf(&out, "$ notebookctl %s\n%s", strings.Join(args, " "), r.stdout)
					// A machine that is busy with other tests may read late.
					if told := lateReads.ReplaceAllString(r.stderr, ""); told != "" {
						fmt.Fprintf(&out, "--- stderr\n%s", told)
					}
					fmt.Fprintf(&out, "--- exit %d\n\n", r.code)
				}
				got := mask(out.String(), c.env["HOME"])
				file := filepath.Join("testdata", group.name+"."+lang+".txt")
				if *update {
					if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
					t.Errorf("%s (-want +got):\n%s", file, diff)
				}
			})
		}
	}
	t.Run("machines", func(t *testing.T) { machineForms(t, s) })
	t.Run("completion", func(t *testing.T) { completions(t, s) })
	t.Run("terminal", func(t *testing.T) { terminals(t, s) })
}

// machineForms: what machines read is the API's own JSON, in every form and the same
// in both languages.
func machineForms(t *testing.T, s *server) {
	t.Helper()
	c := s.caller(t)
	for _, args := range [][]string{
		{"list", "-o", "json", "--limit", "3"}, {"list", "-o", "yaml"}, {"list", "-o", "name"}, {"get", firstName, "-o", "json"}, {"history", "-o", "json"},
		{"change-image", firstName, "--image", torch, "--image-type", "official", "--plan", "-o", "name"},
	} {
		en, zh := c.want(t, 0, args...), c.with("LC_ALL", "zh_CN.UTF-8").want(t, 0, args...)
		times := regexp.MustCompile(`"?\d{4}-\d\d-\d\dT\S+`)
		if x, y := times.ReplaceAllString(en.stdout, "TIME"), times.ReplaceAllString(zh.stdout, "TIME"); x != y {
			t.Errorf("%q differs by language:\n%s\n%s", args, x, y)
		}
	}
	var list notebookv1.ListResponse
	if err := protojson.Unmarshal([]byte(c.want(t, 0, "list", "-o", "json").stdout), &list); err != nil {
		t.Fatal(err)
	}
	if n := len(list.GetNotebooks()); n != 16 || int(list.GetTotalSize()) != n || len(list.GetFreshness()) != 5 {
		t.Errorf("%d notebooks of %d, %d freshness", n, list.GetTotalSize(), len(list.GetFreshness()))
	}
	var clouds notebookv1.ListCloudsResponse
	if err := protojson.Unmarshal([]byte(c.want(t, 0, "clouds", "-o", "json").stdout), &clouds); err != nil || len(clouds.GetClouds()) != 2 {
		t.Errorf("%v: %d clouds", err, len(clouds.GetClouds()))
	}
	var location notebookv1.Location
	if err := protojson.Unmarshal([]byte(c.want(t, 0, "clouds", "core/xb3", "-o", "json").stdout), &location); err != nil || location.GetName() != "clouds/core/locations/xb3" {
		t.Errorf("%v: location %q", err, location.GetName())
	}
	var plan notebookv1.ChangeImageResponse
	planned := c.want(t, 0, "change-image", firstName, "--image", torch, "--image-type", "official", "--plan", "-o", "json").stdout
	if err := protojson.Unmarshal([]byte(planned), &plan); err != nil || plan.GetChange().GetPhase() != notebookv1.ImageChange_PHASE_PLANNED {
		t.Errorf("%v: %s", err, planned)
	}
	// YAML is the same object.
	var fromYAML, fromJSON any
	if err := yaml.Unmarshal([]byte(c.want(t, 0, "get", firstName, "-o", "yaml").stdout), &fromYAML); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(c.want(t, 0, "get", firstName, "-o", "json").stdout), &fromJSON); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(fromYAML)
	if err != nil {
		t.Fatal(err)
	}
	var normal any
	if err := json.Unmarshal(again, &normal); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fromJSON, normal); diff != "" {
		t.Errorf("YAML differs from JSON (-json +yaml):\n%s", diff)
	}
}

// completions: what a shell asks for.
func completions(t *testing.T, s *server) {
	t.Helper()
	c := s.caller(t)
	c.want(t, 0, "context", "set", "prod", "--server", "a:1")
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"get", "nb-eig"}, []string{"nb-eiguqichl5hc\t容器实例-1 (stopped)"}},
		{[]string{"get", "clouds/core/locations/xb3/notebooks/nb-eig"}, []string{firstName}},
		{[]string{"get", "core/xb3/"}, []string{"core/xb3/nb-eiguqichl5hc"}},
		{[]string{"get", "cor"}, []string{"core/xb3/nb-eiguqichl5hc"}},
		{[]string{"list", ""}, []string{"core\tcoreshub", "core/xb2\tNorthwest 2 (live)", "scnet/20091\t华中一区【A区】 (disabled)"}},
		{[]string{"clouds", "clouds/sc"}, []string{"clouds/scnet\t", "clouds/scnet/locations/11250"}},
		{[]string{"list", "--filter", ""}, []string{"cloud\n", "state\n", "image.uri", "resources.accelerator.count"}},
		{[]string{"list", "--filter", "state = RUNNING (im"}, []string{"state = RUNNING (image.uri"}},
		{[]string{"history", "--filter", "fail"}, []string{"failure.reason"}},
		{[]string{"change-image", "x", "--yes", "NOTEBOOK_RUNNING,NOTE"}, []string{"NOTEBOOK_RUNNING,NOTEBOOK_ID_CHANGES"}},
		{[]string{"list", "-o", ""}, []string{"table", "wide", "json", "yaml", "name"}},
		{[]string{"list", "--context", ""}, []string{"prod\ta:1"}},
		{[]string{"context", "use", ""}, []string{"prod"}},
		{[]string{"completion", ""}, []string{"bash", "powershell"}},
		{[]string{"hist"}, []string{"history"}},
	} {
		expect(t, c.want(t, 0, append([]string{"__complete"}, tt.args...)...).stdout, tt.want...)
	}
	refuse(t, c.run(t, "__complete", "history", "--filter", "").stdout, "steps", "warnings")
	// Without a server there is nothing to suggest, and no error in the shell's line.
	if r := c.with("NOTEBOOKCTL_SERVER", "127.0.0.1:1").want(t, 0, "__complete", "get", ""); !strings.HasPrefix(r.stdout, ":") {
		t.Errorf("%q", r.stdout)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		expect(t, c.want(t, 0, "completion", shell).stdout, "notebookctl")
	}
}
