package web

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/tools/websources"
)

// TestBuiltFromSources: what is committed in dist was built from the sources that are
// beside it.
func TestBuiltFromSources(t *testing.T) {
	want, err := websources.Sums(t.Context(), ".")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(websources.File)
	if err != nil {
		t.Fatalf("%v: build the console (npm run build), or run `go run ../internal/tools/webhash` in web/", err)
	}
	if diff := gocmp.Diff(lines(want), lines(got)); diff != "" {
		t.Errorf("the console was not built since its sources have changed: run `npm run build` in web/ and commit dist (-sources +built from):\n%s", diff)
	}
}

func lines(data []byte) []string { return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") }

var (
	// hashed is the name of a file that has a hash of its content in it.
	hashed = regexp.MustCompile(`[-.][A-Za-z0-9_-]{8,}\.[a-z0-9]+$`)
	// named are the files that a page names.
	named = regexp.MustCompile(`(?:src|href)\s*=\s*["']?([^"'\s>]+)`)
	// inline is what the policy of the page keeps from having any effect.
	inline = []*regexp.Regexp{
		regexp.MustCompile(`(?i)<script(?:\s[^>]*)?>\s*[^<\s]`), regexp.MustCompile(`(?i)<style`),
		regexp.MustCompile(`(?i)<[^>]*\sstyle\s*=`), regexp.MustCompile(`(?i)<[^>]*\son[a-z]+\s*=`), regexp.MustCompile(`(?i)<base`),
	}
)

// TestBuilt: what is in dist can be served as it is meant to be.
func TestBuilt(t *testing.T) {
	h, err := New(Config{Connect: func() []string { return nil }, Otherwise: http.NotFoundHandler()})
	if err != nil {
		t.Fatal(err)
	}
	for at := range h.files {
		if at != page && !hashed.MatchString(path.Base(at)) {
			t.Errorf("%s: browsers keep it for ever, and its name has no hash of what is in it", at)
		}
	}
	text := string(h.files[page].plain)
	for _, match := range named.FindAllStringSubmatch(text, -1) {
		name := match[1]
		if strings.HasPrefix(name, "data:") || strings.HasPrefix(name, "#") {
			continue
		}
		if at := path.Join("/", name); h.files[at] == nil {
			t.Errorf("index.html names %s, which is not there", name)
		}
	}
	for _, forbidden := range inline {
		if found := forbidden.FindString(text); found != "" {
			t.Errorf("index.html has %s, which its Content-Security-Policy forbids", found)
		}
	}
	entries, err := fs.ReadDir(dist, "dist")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !slices.Contains([]string{"index.html", "assets", path.Base(websources.File)}, entry.Name()) {
			t.Errorf("dist/%s is served by nobody", entry.Name())
		}
	}
}

// built is a console to be served.
var built = fstest.MapFS{
	"index.html":          {Data: []byte("<!doctype html>" + strings.Repeat("<p>page</p>", 100))},
	"assets/_x-0a1b2c.js": {Data: []byte(strings.Repeat("script;", 100))},
	"assets/x-0a1b2c.css": {Data: []byte("a{}")}, // is not worth compressing
	"assets/x-0a1b2c.png": {Data: bytes.Repeat([]byte("png"), 100)},
	"sources.sha256":      {Data: []byte("sums")},
}

func handler(t *testing.T, connect func() []string) *Handler {
	t.Helper()
	h, err := newHandler(built, Config{Connect: connect, Otherwise: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
	})})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// get asks a handler whose headers are those of any other answer before.
func get(h http.Handler, method, target string, header map[string]string) *http.Response {
	r := httptest.NewRequest(method, target, http.NoBody)
	for name, value := range header {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.Header().Set("Vary", "Origin")
	h.ServeHTTP(w, r)
	return w.Result()
}

const (
	pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	forEver    = "public, max-age=31536000, immutable"
)

func TestServe(t *testing.T) {
	h := handler(t, func() []string { return nil })
	for _, tt := range []struct {
		name, method, target, accept string
		file                         string // what is sent; empty where that is somebody else's
		zipped                       bool
		header                       map[string]string
	}{
		{name: "the page", target: "/", file: "index.html", header: map[string]string{
			"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache", "Content-Security-Policy": pagePolicy,
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Vary": "Origin,Accept-Encoding",
		}},
		{name: "the page with what an issuer adds", target: "/?code=a&state=b", accept: "gzip, deflate, br", file: "index.html", zipped: true, header: map[string]string{"Cache-Control": "no-cache"}},
		{name: "HEAD", method: http.MethodHead, target: "/", file: "index.html", header: map[string]string{"Content-Length": "1115"}},
		{name: "a script", target: "/assets/_x-0a1b2c.js", file: "assets/_x-0a1b2c.js", header: map[string]string{
			"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": forEver, "Content-Security-Policy": pagePolicy, "Cross-Origin-Opener-Policy": "",
		}},
		{name: "a compressed script", target: "/assets/_x-0a1b2c.js", accept: "br;q=1.0, gzip;q=0.8, *;q=0.1", file: "assets/_x-0a1b2c.js", zipped: true, header: map[string]string{
			"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": forEver,
		}},
		{name: "HEAD of a compressed script", method: http.MethodHead, target: "/assets/_x-0a1b2c.js", accept: "*", file: "assets/_x-0a1b2c.js", zipped: true},
		{name: "no gzip", target: "/assets/_x-0a1b2c.js", accept: "gzip;q=0, *", file: "assets/_x-0a1b2c.js"},
		{name: "nonsense for gzip", target: "/assets/_x-0a1b2c.js", accept: "gzip;q=x", file: "assets/_x-0a1b2c.js"},
		{name: "a small style", target: "/assets/x-0a1b2c.css", accept: "gzip", file: "assets/x-0a1b2c.css", header: map[string]string{
			"Content-Type": "text/css; charset=utf-8", "Content-Security-Policy": "default-src 'none'", "Vary": "Origin",
		}},
		{name: "a picture", target: "/assets/x-0a1b2c.png", accept: "gzip", file: "assets/x-0a1b2c.png", header: map[string]string{"Content-Type": "image/png", "Cache-Control": forEver}},
		{name: "an asset that is not there", target: "/assets/none.js"},
		{name: "the folder", target: "/assets/"},
		{name: "what it was built from", target: "/sources.sha256"},
		{name: "the page by its name", target: "/index.html"},
		{name: "something else", target: "/v1/notebooks"},
		{name: "to write", method: http.MethodPost, target: "/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := get(h, cmp.Or(tt.method, http.MethodGet), tt.target, map[string]string{"Accept-Encoding": tt.accept})
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if tt.file == "" {
				if resp.StatusCode != http.StatusTeapot || resp.Header.Get("Cache-Control") != "no-store" || len(body) != 0 {
					t.Errorf("%d %v %q", resp.StatusCode, resp.Header, body)
				}
				return
			}
			if resp.StatusCode != http.StatusOK || (resp.Header.Get("Content-Encoding") == "gzip") != tt.zipped || resp.Header.Get("ETag") == "" {
				t.Errorf("%d %v", resp.StatusCode, resp.Header)
			}
			for name, want := range tt.header {
				if got := strings.Join(resp.Header.Values(name), ","); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if tt.method == http.MethodHead {
				if len(body) != 0 {
					t.Errorf("a body: %q", body)
				}
				return
			}
			if tt.zipped {
				r, err := gzip.NewReader(bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if body, err = io.ReadAll(r); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(body, built[tt.file].Data) {
				t.Errorf("the body is %q", body)
			}
		})
	}
}

// TestNotModified: who has the page asks again, and is sent it only if it is another
// one, or if it may call others by now.
func TestNotModified(t *testing.T) {
	var connect []string
	h := handler(t, func() []string { return connect })
	tags := map[string]bool{}
	for _, accept := range []string{"", "gzip"} {
		for _, connect = range [][]string{nil, {"https://id.example", "https://token.example:8443"}} {
			first := get(h, http.MethodGet, "/", map[string]string{"Accept-Encoding": accept})
			tag := first.Header.Get("ETag")
			if want := strings.Join(append([]string{"connect-src 'self'"}, connect...), " ") + ";"; !strings.Contains(first.Header.Get("Content-Security-Policy"), want) {
				t.Errorf("the policy is %q, want %q in it", first.Header.Get("Content-Security-Policy"), want)
			}
			for header, want := range map[string]int{
				tag: 304, "W/" + tag: 304, `"other", ` + tag: 304, "*": 304, `"other"`: 200, strings.Trim(tag, `"`): 200,
			} {
				resp := get(h, http.MethodGet, "/", map[string]string{"Accept-Encoding": accept, "If-None-Match": header})
				body, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != want || (len(body) == 0) != (want == 304) || resp.Header.Get("ETag") != tag || resp.Header.Get("Cache-Control") != "no-cache" {
					t.Errorf("If-None-Match: %s: %d, %d bytes, %v", header, resp.StatusCode, len(body), resp.Header)
				}
			}
			tags[tag] = true
		}
	}
	if len(tags) != 4 {
		t.Errorf("four different pages have the tags %v", slices.Collect(maps.Keys(tags)))
	}
}

func TestWhatCannotBeServed(t *testing.T) {
	for want, files := range map[string]fstest.MapFS{
		"there is no index.html":                            {"assets/x.js": {}},
		"assets/x.exe: the type of such files is not known": {"index.html": {}, "assets/x.exe": {}},
	} {
		if _, err := newHandler(files, Config{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
