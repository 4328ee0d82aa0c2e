package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// TestAPIDocs: strangers may read the contract, by themselves and in a page, which may
// do what it consists of and no more.
func TestAPIDocs(t *testing.T) {
	g := startGuarded(t, nil)
	client := g.web(t)
	get := func(path string) *http.Response {
		t.Helper()
		resp, err := client.Get(g.url + path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", path, resp.Status)
		}
		return resp
	}
	var page, document bytes.Buffer
	resp := get("/docs")
	if _, err := page.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	policy := resp.Header.Get("Content-Security-Policy")
	if got := resp.Header.Values("Content-Security-Policy"); len(got) != 1 || !strings.HasPrefix(policy, "default-src 'none'; script-src 'self' 'sha256-") || strings.Contains(policy, "unsafe-eval") {
		t.Errorf("the policies %q", got)
	}
	found := inline.FindAllStringSubmatch(page.String(), -1)
	if len(found) < 2 || !strings.Contains(page.String(), "/openapi.yaml") {
		t.Fatalf("the page is\n%s", page.String())
	}
	for _, part := range found {
		sum := sha256.Sum256([]byte(part[2]))
		if hash := base64.StdEncoding.EncodeToString(sum[:]); !strings.Contains(policy, hash) {
			t.Errorf("the policy forbids a %s of the page", part[1])
		}
	}
	for path, kind := range map[string]string{"/docs/swagger-ui-bundle.js": "application/javascript", "/docs/swagger-ui.css": "text/css"} {
		if got := get(path).Header.Get("Content-Type"); !strings.HasPrefix(got, kind) {
			t.Errorf("%s is of type %q", path, got)
		}
	}
	if _, err := document.ReadFrom(get("/openapi.yaml").Body); err != nil || !strings.Contains(document.String(), "/v1/notebooks:watch") {
		t.Errorf("the document is %q, %v", document.String(), err)
	}
	var set descriptorpb.FileDescriptorSet
	var binary bytes.Buffer
	if _, err := binary.ReadFrom(get("/notebook.binpb").Body); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(binary.Bytes(), &set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(&set) // fails when an import is missing
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []protoreflect.FullName{"notebook.v1.NotebookService.Watch", "google.rpc.ErrorInfo"} {
		if _, err := files.FindDescriptorByName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Who has them already is told so.
	for _, path := range []string{"/openapi.yaml", "/notebook.binpb"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("If-None-Match", get(path).Header.Get("ETag"))
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotModified {
			t.Errorf("%s again: %s", path, resp.Status)
		}
	}
	// What is not there is told as everywhere else.
	for _, path := range []string{"/docs/none", "/docs/..%2fopenapi.yaml", "/docs/%00"} {
		resp, err := client.Get(g.url + path)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		_, _ = body.ReadFrom(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound || !strings.Contains(body.String(), "OPERATION_NOT_SUPPORTED") {
			t.Errorf("%s: %s: %s", path, resp.Status, body.String())
		}
	}
}

// TestAPIDocsAreLimited: whoever asks for the contract too often is told to wait, also
// where the page has moved.
func TestAPIDocsAreLimited(t *testing.T) {
	g := startGuarded(t, func(text string) string {
		return strings.Replace(text, "limits: {calls_per_second: 1000000}", "limits: {calls_per_second: 0.001, burst: 2}", 1)
	})
	client := g.web(t)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	refused := map[string]bool{}
	for range 4 {
		for _, path := range []string{"/docs", "/docs/", "/openapi.yaml", "/notebook.binpb"} {
			resp, err := client.Get(g.url + path)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			refused[path] = resp.StatusCode == http.StatusTooManyRequests
		}
	}
	for path, so := range refused {
		if !so {
			t.Errorf("%s is answered however often it is asked for", path)
		}
	}
}
