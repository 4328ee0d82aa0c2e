package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5/static"
	"github.com/swaggest/swgui/v5emb"

	"github.com/notebookd/notebookd/gen/descriptor"
	"github.com/notebookd/notebookd/gen/openapi"
)

// docsPath is where Swagger UI is.
const docsPath = "/docs/"

// inline finds what a page has of scripts and styles in itself.
var inline = regexp.MustCompile(`(?s)<(script|style)>(.*?)</`)

// handleAPIDocs makes a mux serve the contract, for people and for programs. It says
// nothing of this server in particular, so nobody is asked who they are. What Swagger
// UI has not is answered by otherwise.
func (s *server) handleAPIDocs(mux *http.ServeMux, otherwise http.Handler) {
	ui := v5emb.NewHandlerWithConfig(swgui.Config{
		Title: "notebookd", SwaggerJSON: "/openapi.yaml", BasePath: docsPath,
		SettingsUI: map[string]string{"persistAuthorization": "false", "layout": `"BaseLayout"`, "tryItOutEnabled": "true"},
	})
	page := &pageOf{header: http.Header{}}
	ui.ServeHTTP(page, &http.Request{Method: http.MethodGet, URL: &url.URL{Path: docsPath}})
	policy := docsPolicy(page.body.Bytes())
	mux.Handle("GET /docs", s.stranger(http.RedirectHandler(docsPath, http.StatusMovedPermanently)))
	mux.Handle("GET "+docsPath, s.stranger(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !docsHave(strings.TrimPrefix(r.URL.Path, docsPath)) {
			otherwise.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("Cache-Control", "no-cache")
		if r.URL.Path == docsPath {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write(page.body.Bytes())
			return
		}
		ui.ServeHTTP(w, r)
	})))
	mux.Handle("GET /openapi.yaml", s.stranger(file("application/yaml", openapi.YAML)))
	mux.Handle("GET /notebook.binpb", s.stranger(file("application/x-protobuf", descriptor.Set)))
}

// file serves a file that stays the same while the server runs.
func file(contentType string, data []byte) http.Handler {
	sum := sha256.Sum256(data)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "no-cache") // until it is asked whether it is still the same
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
}

// docsHave reports whether there is such a file below docsPath: the page, or one of
// Swagger UI, which has most of them compressed.
func docsHave(name string) bool {
	if name == "" {
		return true
	}
	for _, form := range []string{name, name + ".gz"} {
		if info, err := fs.Stat(static.FS, form); err == nil && !info.IsDir() {
			return true
		}
	}
	return false
}

// docsPolicy is what the page of Swagger UI may do: what it has in itself by its hash,
// and calls of this server. Swagger UI gives elements a style in its markup.
func docsPolicy(page []byte) string {
	hashes := map[string]string{}
	for _, found := range inline.FindAllSubmatch(page, -1) {
		sum := sha256.Sum256(found[2])
		hashes[string(found[1])] += fmt.Sprintf(" 'sha256-%s'", base64.StdEncoding.EncodeToString(sum[:]))
	}
	return "default-src 'none'; script-src 'self'" + hashes["script"] + "; style-src 'self'" + hashes["style"] +
		"; style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// stranger lets everybody in, but none too often.
func (s *server) stranger(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.guard.ofStrangers(s.guard.withPeer(r)); err != nil {
			writeStatus(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// pageOf keeps an answer.
type pageOf struct {
	header http.Header
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (p *pageOf) Header() http.Header { return p.header }

// Write implements http.ResponseWriter.
func (p *pageOf) Write(data []byte) (int, error) { return p.body.Write(data) }

// WriteHeader implements http.ResponseWriter.
func (p *pageOf) WriteHeader(int) {}
