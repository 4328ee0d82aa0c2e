package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5/static"
	"github.com/swaggest/swgui/v5emb"
	"golang.org/x/text/language"

	"github.com/notebookd/notebookd/gen/descriptor"
	"github.com/notebookd/notebookd/gen/openapi"
)

// docsPath is where Swagger UI is.
const docsPath = "/docs/"

// inline finds what a page has of scripts and styles in itself.
var inline = regexp.MustCompile(`(?s)<(script|style)>(.*?)</`)

// docsLanguages are the languages of the contract. Whoever prefers none of them reads
// the first one.
var docsLanguages = []struct {
	tag                   language.Tag
	name, title, document string
}{
	{language.English, "English", "notebookd API", "/openapi.yaml"},
	{language.MustParse("zh-CN"), "简体中文", "notebookd 接口文档", "/openapi.zh-CN.yaml"},
}

// docsPage is the page of Swagger UI in one language.
type docsPage struct {
	html   []byte
	policy string
}

// handleAPIDocs makes a mux serve the contract, for people and for programs. It says
// nothing of this server in particular, so nobody is asked who they are. What Swagger
// UI has not is answered by otherwise.
func (s *server) handleAPIDocs(mux *http.ServeMux, otherwise http.Handler) {
	var pages []docsPage
	var tags []language.Tag
	var ui http.Handler // the files beside the page are the same in each language
	for i, l := range docsLanguages {
		handler := v5emb.NewHandlerWithConfig(swgui.Config{
			Title: l.title, SwaggerJSON: l.document, BasePath: docsPath, PrependHTML: docsLinks(i),
			SettingsUI: map[string]string{"persistAuthorization": "false", "layout": `"BaseLayout"`, "tryItOutEnabled": "true"},
		})
		page := &pageOf{header: http.Header{}}
		handler.ServeHTTP(page, &http.Request{Method: http.MethodGet, URL: &url.URL{Path: docsPath}})
		html := bytes.Replace(page.body.Bytes(), []byte(`<html lang="en">`), []byte(`<html lang="`+l.tag.String()+`">`), 1)
		pages, tags, ui = append(pages, docsPage{html: html, policy: docsPolicy(html)}), append(tags, l.tag), handler
	}
	// Who prefers Traditional Chinese reads the Simplified one rather than English, as in
	// the console.
	chinese := len(tags) - 1
	matcher := language.NewMatcher(append(tags, language.TraditionalChinese))
	mux.Handle("GET /docs", s.stranger(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := url.URL{Path: docsPath, RawQuery: r.URL.RawQuery}
		http.Redirect(w, r, to.String(), http.StatusMovedPermanently)
	})))
	mux.Handle("GET "+docsPath, s.stranger(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !docsHave(strings.TrimPrefix(r.URL.Path, docsPath)) {
			otherwise.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-cache")
		if r.URL.Path != docsPath {
			w.Header().Set("Content-Security-Policy", pages[0].policy)
			ui.ServeHTTP(w, r)
			return
		}
		// What is asked for by name comes before what the browser prefers.
		_, i := language.MatchStrings(matcher, r.URL.Query().Get("lang"), r.Header.Get("Accept-Language"))
		i = min(i, chinese)
		w.Header().Add("Vary", "Accept-Language") // beside Origin, perhaps
		w.Header().Set("Content-Security-Policy", pages[i].policy)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(pages[i].html)
	})))
	mux.Handle("GET /openapi.yaml", s.stranger(file("application/yaml", openapi.YAML)))
	mux.Handle("GET /openapi.zh-CN.yaml", s.stranger(file("application/yaml", openapi.ChineseYAML)))
	mux.Handle("GET /notebook.binpb", s.stranger(file("application/x-protobuf", descriptor.Set)))
}

// docsLinks lead from the page in one language to those in the others, with the looks
// of Swagger UI.
func docsLinks(from int) template.HTML {
	var links strings.Builder
	for i, l := range docsLanguages {
		if i != from {
			fmt.Fprintf(&links, `<a href="?lang=%[1]s" hreflang="%[1]s" lang="%[1]s">%[2]s</a>`, l.tag, l.name)
		}
	}
	return template.HTML(`<nav class="swagger-ui"><div class="wrapper" style="padding-top: 12px; text-align: right">` + links.String() + `</div></nav>`) //nolint:gosec // nobody else writes any of it
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
