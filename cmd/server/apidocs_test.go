package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
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
	for _, path := range []string{"/openapi.yaml", "/openapi.zh-CN.yaml", "/notebook.binpb"} {
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

// TestAPIDocsInChinese: the contract is shown in the language that is asked for by name
// or else preferred by the browser, and each page leads to the other one.
func TestAPIDocsInChinese(t *testing.T) {
	g := startGuarded(t, nil)
	client := g.web(t)
	get := func(path, prefers string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if prefers != "" {
			req.Header.Set("Accept-Language", prefers)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var body bytes.Buffer
		if _, err := body.ReadFrom(resp.Body); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s: %s", path, resp.Status, body.String())
		}
		return resp, body.String()
	}
	english := []string{`<html lang="en">`, "<title>notebookd API - ", `"/openapi.yaml"`, `href="?lang=zh-CN"`, "简体中文"}
	chinese := []string{`<html lang="zh-CN">`, "<title>notebookd 接口文档 - ", `"/openapi.zh-CN.yaml"`, `href="?lang=en"`, "English"}
	for _, test := range []struct {
		path, prefers string
		want          []string
	}{
		{"/docs/", "", english},
		{"/docs/", "*", english},
		{"/docs/", "fr, de;q=0.5", english},
		{"/docs/", "en-US,en;q=0.9,zh-CN;q=0.8", english},
		{"/docs/", "zh;q=0.1, en;q=0.9", english},
		{"/docs/", ";;;zh", english},
		{"/docs/", "zh-CN,zh;q=0.9,en;q=0.8", chinese},
		{"/docs/", "zh", chinese},
		{"/docs/", "zh-HK,zh;q=0.9,en;q=0.8", chinese},
		{"/docs/", "fr, zh-Hans;q=0.5", chinese},
		{"/docs/?lang=en", "zh-CN", english},
		{"/docs/?lang=zh-CN", "en", chinese},
		{"/docs?lang=zh-CN", "en", chinese}, // which moves
		{"/docs/", "zh-TW,en;q=0.5", chinese},
		{"/docs/?lang=fr", "zh-CN", chinese},
		{"/docs/?lang=%3Cscript%3E", "en", english},
	} {
		resp, page := get(test.path, test.prefers)
		for _, want := range test.want {
			if !strings.Contains(page, want) {
				t.Errorf("%s for %q has no %s", test.path, test.prefers, want)
			}
		}
		if got := strings.Join(resp.Header.Values("Vary"), ","); !strings.Contains(got, "Accept-Language") {
			t.Errorf("%s varies by %q", test.path, got)
		}
		policy := resp.Header.Get("Content-Security-Policy")
		for _, part := range inline.FindAllStringSubmatch(page, -1) {
			sum := sha256.Sum256([]byte(part[2]))
			if hash := base64.StdEncoding.EncodeToString(sum[:]); !strings.Contains(policy, hash) {
				t.Errorf("the policy of %s for %q forbids a %s of the page", test.path, test.prefers, part[1])
			}
		}
	}

	// Both documents are of the same API, the Chinese one in Chinese.
	var documents [2]any
	for i, path := range []string{"/openapi.yaml", "/openapi.zh-CN.yaml"} {
		resp, document := get(path, "")
		if got := resp.Header.Get("Content-Type"); got != "application/yaml" {
			t.Errorf("%s is of type %q", path, got)
		}
		if err := yaml.Unmarshal([]byte(document), &documents[i]); err != nil {
			t.Fatal(err)
		}
	}
	var described func(path string, a, b any)
	described = func(path string, a, b any) {
		switch a := a.(type) {
		case map[string]any:
			b, _ := b.(map[string]any)
			if len(a) != len(b) {
				t.Errorf("%s: %d keys and %d", path, len(a), len(b))
			}
			for key, value := range a {
				if text, ok := b[key].(string); ok && key == "description" && !strings.Contains(path, "/example") {
					if value == text || !chineseCharacter.MatchString(text) {
						t.Errorf("%s is described as %q", path, text)
					}
					continue
				}
				described(path+"/"+key, value, b[key])
			}
		case []any:
			b, _ := b.([]any)
			if len(a) != len(b) {
				t.Fatalf("%s: %d elements and %d", path, len(a), len(b))
			}
			for i := range a {
				described(fmt.Sprintf("%s/%d", path, i), a[i], b[i])
			}
		default:
			if a != b {
				t.Errorf("%s is %v and %v", path, a, b)
			}
		}
	}
	described("", documents[0], documents[1])
}

var chineseCharacter = regexp.MustCompile(`\p{Han}`)

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
		for _, path := range []string{"/docs", "/docs/", "/openapi.yaml", "/openapi.zh-CN.yaml", "/notebook.binpb"} {
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
