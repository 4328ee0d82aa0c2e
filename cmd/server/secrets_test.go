package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// canaries are secrets by what they are.
type canaries map[string]string

// find looks for the canaries in what came from a place, as they are and in the
// encodings in which they may have been copied.
func (c canaries) find(t *testing.T, place string, data []byte) {
	t.Helper()
	if zipped, err := gzip.NewReader(bytes.NewReader(data)); err == nil { // profiles are
		if plain, err := io.ReadAll(zipped); err == nil {
			data = append(plain, data...)
		}
	}
	for name, secret := range c {
		forms := map[string]string{
			"as it is": secret, "in hex": hex.EncodeToString([]byte(secret)), "percent-encoded": url.QueryEscape(secret),
			"in Go syntax": strings.Trim(fmt.Sprintf("%q", secret), `"`),
		}
		for shift := range 3 { // wherever it begins in what was encoded; the ends depend on what is beside it
			text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + secret))
			forms[fmt.Sprintf("in base64 after %d", shift)] = text[4 : len(text)-4]
		}
		for how, form := range forms {
			if i := bytes.Index(data, []byte(form)); i >= 0 {
				t.Errorf("%s is %s in %s: …%q…", name, how, place, data[max(i-80, 0):min(i+len(form)+20, len(data))])
				break
			}
		}
	}
}

// TestNoSecrets plants secrets wherever they come in, lets everything fail that may
// tell of them, and looks for them wherever something comes out.
func TestNoSecrets(t *testing.T) {
	t.Parallel()
	planted := canaries{
		"the key id of core": "CANARYKEYIDOFCORE01", "the key of core": "canary-key-of-core/+=1",
		"the access key of scnet": "canaryaccesskeyofscnet0123456789", "the secret key of scnet": "canarysecretkeyofscnet0123456789",
		"the registry password": "canary-registry-password \"1\"", "the collector's token": "canary-token-of-the-collector",
		"the ssh password": strings.TrimSuffix(cloudsim.SCNetPassword, "-"), "a token of scnet": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
		"a wrong bearer": "nbd_canarywrongbearerAAAAAAAAAAAAAAAAAAAAAAA", "a bearer in the query": "canary-bearer-in-the-query",
		"a token in the tokens file": "canary-plain-token-in-the-file", "a text where a secret should be": "canary-plain-secret-in-the-configuration",
		"garbage": "canary-garbage-bytes",
	}
	collected := &buffer{}
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(collected, r.Body)
		if got := r.Header.Get("Authorization"); got != planted["the collector's token"] {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(collector.Close)
	data := t.TempDir()
	change := func(text string) string {
		text = strings.NewReplacer(
			"{value: "+cloudsim.SCNetAccessKey+"}", "{value: "+planted["the access key of scnet"]+"}",
			"{value: "+cloudsim.SCNetSecretKey+"}", "{value: "+planted["the secret key of scnet"]+"}",
			"    kind: coreshub\n", "    kind: coreshub\n    timeout: 400ms\n    breaker: {open_for: 100ms}\n", "    kind: scnet\n", "    kind: scnet\n    timeout: 400ms\n    breaker: {open_for: 100ms}\n",
		).Replace(text)
		return text + fmt.Sprintf(`
debug: {address: 127.0.0.1:0}
store: {data_dir: %s, sync: always}
tracing: {endpoint: %q, protocol: http, insecure: true, headers: {authorization: {value: %s}}}
`, data, strings.TrimPrefix(collector.URL, "http://"), planted["the collector's token"])
	}
	g := startGuardedOn(t, change, func(g *guarded) {
		g.fleet.CoresHub.SetKeys(map[string]string{planted["the key id of core"]: planted["the key of core"]})
		g.fleet.SCNet.SetKeys(map[string]string{planted["the access key of scnet"]: planted["the secret key of scnet"]})
		g.fleet.SCNet.Expire()
		g.secrets(t, planted["the key id of core"], planted["the key of core"])
	})
	jwt := g.issuer.token(t, nil, nil)
	planted["the JWT"] = jwt
	planted["the JWT's signature"] = jwt[strings.LastIndex(jwt, ".")+1:]
	for _, subject := range []string{"right", "everywhere", "admin"} {
		planted["the token of "+subject] = g.tokens[subject]
	}
	client, conn := g.web(t), g.dial(t)
	notebooks := notebookv1.NewNotebookServiceClient(conn)
	as := func(bearer string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+bearer)
	}
	told := &buffer{} // everything that callers were told
	tell := func(answer fmt.Stringer, err error) {
		_, _ = fmt.Fprintln(told, answer, err)
		_, _ = fmt.Fprintln(told, prototext.Format(status.Convert(err).Proto()))
	}
	web := func(method, path, body, bearer string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, g.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		_ = resp.Header.Write(told)
		_, _ = io.Copy(told, resp.Body)
		return resp.StatusCode
	}
	notebook := "clouds/core/locations/xb3/notebooks/" + cloudsim.CoresHubNotebook
	password := planted["the registry password"]
	changeImage := func(image string) {
		tell(notebooks.ChangeImage(as(jwt), &notebookv1.ChangeImageRequest{
			Name: notebook, Image: image, ImageType: "custom", Acknowledge: []string{"NOTEBOOK_RUNNING"}, Wait: durationpb.New(time.Second),
			RegistryCredential: &notebookv1.RegistryCredential{Username: "robot", Password: password},
		}))
	}

	// What goes well.
	changeImage("registry.example.com/team/canary:1")
	stream, err := notebooks.Watch(as(g.tokens["everywhere"]), &notebookv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintln(told, frame)
		if frame.GetBookmark() != nil {
			break
		}
	}
	for _, path := range []string{"/v1/notebooks?pageSize=1000", "/v1/clouds", "/v1/imageChanges", "/openapi.yaml"} {
		if code := web(http.MethodGet, path, "", g.tokens["admin"]); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
	}

	// What callers do wrong.
	web(http.MethodGet, "/v1/notebooks", "", planted["a wrong bearer"])
	web(http.MethodGet, "/v1/notebooks?access_token="+planted["a bearer in the query"], "", g.tokens["admin"])
	web(http.MethodGet, "/"+planted["a bearer in the query"], "", g.tokens["admin"])
	tell(notebooks.List(as(planted["a wrong bearer"]), &notebookv1.ListRequest{}))
	for _, body := range []string{
		`{"registryCredential": {"password": ["` + planted["garbage"] + `"]}}`, `{"registryCredential": {"pass": "` + planted["garbage"] + `"}}`, planted["garbage"],
	} {
		web(http.MethodPost, "/v1/"+notebook+":changeImage", body, jwt)
	}
	for _, address := range []net.Addr{g.server.grpcListener.Addr(), g.server.httpListener.Addr()} {
		garbage, err := net.Dial("tcp", address.String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(garbage, "%s\r\n\r\n", planted["garbage"])
		_ = garbage.Close()
	}

	// What clouds do wrong: they repeat what they were sent.
	g.fleet.CoresHub.Set(func(s *cloudsim.CoresHubSettings) { s.Echo = true })
	g.fleet.SCNet.Set(func(s *cloudsim.SCNetSettings) { s.Echo = true })
	fresh := func(cloud string) {
		ctx, cancel := context.WithTimeout(as(g.tokens["everywhere"]), 600*time.Millisecond)
		defer cancel()
		tell(notebooks.List(ctx, &notebookv1.ListRequest{Parent: "clouds/" + cloud, MaxStaleness: durationpb.New(0)}))
	}
	for _, mode := range []cloudsim.Mode{cloudsim.ModeHTML, cloudsim.ModeHalf, cloudsim.ModeTypes, cloudsim.ModeCut, cloudsim.ModeReset, cloudsim.ModeHang, cloudsim.ModeStatus} {
		g.fleet.CoresHub.Break(cloudsim.Fault{Mode: mode})
		g.fleet.SCNet.Break(cloudsim.Fault{Mode: mode})
		fresh("core")
		g.fleet.CoresHub.Heal()
		g.fleet.SCNet.Heal()
	}
	g.fleet.CoresHub.Break(cloudsim.Fault{Op: "change_image", Mode: cloudsim.ModeCode, Code: "1400", Text: "refused: " + password})
	changeImage("registry.example.com/team/canary:2")
	g.fleet.CoresHub.Heal()
	g.fleet.CoresHub.Break(cloudsim.Fault{Op: "change_image", Mode: cloudsim.ModeCut, Effect: true})
	changeImage("registry.example.com/team/canary:3") // of which the answer is lost
	g.fleet.CoresHub.Heal()
	g.fleet.CoresHub.SetKeys(map[string]string{"another": "one"})
	g.fleet.SCNet.SetKeys(map[string]string{"another": "one"})
	g.fleet.SCNet.Expire()
	fresh("core")
	fresh("scnet")
	g.until(t, "scnet refuses the keys", func() bool {
		_, body := g.metrics(t)
		return strings.Contains(body, `outcome="denied"`) && strings.Contains(body, `cloud="scnet"`)
	})

	// What those do wrong who run it.
	refused := func(what string, f func()) {
		t.Helper()
		before := strings.Count(g.log.String(), "configuration refused")
		f()
		g.until(t, what, func() bool { return strings.Count(g.log.String(), "configuration refused") > before })
	}
	refused("a plain token in the file", func() {
		g.file(t, "tokens.yaml", []byte("- {subject: x, sha256: "+planted["a token in the tokens file"]+"}\n- "+planted["a token in the tokens file"]+"\n"))
	})
	refused("a plain secret in the configuration", func() {
		g.configure(t, func(text string) string {
			return strings.Replace(change(text), "{value: "+planted["the secret key of scnet"]+"}", planted["a text where a secret should be"], 1)
		})
	})

	// What comes out.
	code, metrics := g.metrics(t)
	if code != http.StatusOK {
		t.Errorf("metrics: %d", code)
	}
	planted.find(t, "the metrics", []byte(metrics))
	planted.find(t, "what callers were told", []byte(told.String()))
	profiling.Lock()
	defer profiling.Unlock()
	for _, path := range []string{"heap?debug=1", "heap", "allocs", "goroutine?debug=2", "block", "mutex", "threadcreate?debug=1", "cmdline", "trace?seconds=0.1", "symbol"} {
		body := g.profile(t, client, path)
		planted.find(t, "the profile "+path, body)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	planted.find(t, "the log", []byte(g.log.String()))
	if !strings.Contains(collected.String(), "ChangeImage") {
		t.Error("no trace was collected: nothing was looked at")
	}
	planted.find(t, "the traces", []byte(collected.String()))
	files := 0
	if err := filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		planted.find(t, path, content)
		return nil
	}); err != nil || files == 0 {
		t.Errorf("%d files in the data directory: %v", files, err)
	}
}

// metrics is what the server tells an admin.
func (g *guarded) metrics(t *testing.T) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+g.tokens["admin"])
	resp, err := g.web(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// profile reads from the debug door, which is for nobody but an admin.
func (g *guarded) profile(t *testing.T, client *http.Client, path string) []byte {
	t.Helper()
	ask := func(bearer string) (int, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+g.server.debugListener.Addr().String()+"/debug/pprof/"+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body
	}
	if code, _ := ask(g.tokens["everywhere"]); code != http.StatusForbidden {
		t.Errorf("the profile %s for a viewer: %d", path, code)
	}
	code, body := ask(g.tokens["admin"])
	if want := map[bool]int{true: http.StatusNotFound, false: http.StatusOK}[path == "cmdline"]; code != want {
		t.Errorf("the profile %s: %d", path, code)
	}
	return body
}
