// Package web is the web console as it was built: one page, and the files that it
// consists of. It knows nothing of what the console calls.
//
// The sources are in this folder, and what is built of them in dist, which is
// committed, so that a server can be built without Node.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// dist has files whose names begin with a dot or an underscore, too.
//
//go:embed all:dist
var dist embed.FS

// types are the content types of what a console may consist of. Those of the system
// are not asked, since they differ.
var types = map[string]string{
	".css":         "text/css; charset=utf-8",
	".html":        "text/html; charset=utf-8",
	".ico":         "image/x-icon",
	".js":          "text/javascript; charset=utf-8",
	".json":        "application/json",
	".map":         "application/json",
	".png":         "image/png",
	".svg":         "image/svg+xml",
	".txt":         "text/plain; charset=utf-8",
	".webmanifest": "application/manifest+json",
	".webp":        "image/webp",
	".woff2":       "font/woff2",
}

// dense are the types that are compressed already.
var dense = map[string]bool{"image/png": true, "image/webp": true, "font/woff2": true}

const (
	// folder holds what has a hash of its content in its name, so that whoever has it
	// once never needs to ask again.
	folder = "/assets/"
	page   = "/"
)

// Config is what a [Handler] does not know. All of it is needed.
type Config struct {
	// Connect returns the origins, beside its own, that the page may call. It is asked
	// for each answer.
	Connect func() []string
	// Otherwise answers what the console has not.
	Otherwise http.Handler
}

// Handler serves the console: the page at / and the files below /assets/, to GET and
// HEAD. It is safe for concurrent use.
//
// The other headers of its answers are those that it finds set, but for the ones that
// have to be different for a page that is to be shown.
type Handler struct {
	cfg   Config
	files map[string]*file // by path of the URL; never changed
}

// file is a file as it is sent. It does not change.
type file struct {
	contentType string
	plain       []byte
	zipped      []byte // with gzip; nil where that does not help
	tag         string // of what is in it
}

// New returns a Handler of the console that is built in. Everything is compressed here,
// once.
func New(cfg Config) (*Handler, error) {
	built, err := fs.Sub(dist, "dist")
	if err != nil {
		return nil, fmt.Errorf("web console: %w", err)
	}
	return newHandler(built, cfg)
}

func newHandler(built fs.FS, cfg Config) (*Handler, error) {
	h := &Handler{cfg: cfg, files: map[string]*file{}}
	err := fs.WalkDir(built, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		at := "/" + name
		switch {
		case name == "index.html":
			at = page
		case !strings.HasPrefix(at, folder):
			return nil // it is for the build
		}
		h.files[at], err = read(built, name)
		return err
	})
	if err == nil && h.files[page] == nil {
		err = errors.New("there is no index.html")
	}
	if err != nil {
		return nil, fmt.Errorf("web console: %w", err)
	}
	return h, nil
}

func read(built fs.FS, name string) (*file, error) {
	data, err := fs.ReadFile(built, name)
	if err != nil {
		return nil, err
	}
	contentType, ok := types[path.Ext(name)]
	if !ok {
		return nil, fmt.Errorf("%s: the type of such files is not known; add it in web.go", name)
	}
	f := &file{contentType: contentType, plain: data, tag: tagOf(data)}
	if dense[contentType] {
		return f, nil
	}
	var zipped bytes.Buffer
	w, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if zipped.Len() < len(data) {
		f.zipped = zipped.Bytes()
	}
	return f, nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := h.files[r.URL.Path]
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.cfg.Otherwise.ServeHTTP(w, r)
		return
	}
	header, tag := w.Header(), f.tag
	header.Set("Content-Type", f.contentType)
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	if r.URL.Path == page || path.Ext(r.URL.Path) == ".js" { // a worker has the policy that comes with its script
		policy := h.policy()
		header.Set("Content-Security-Policy", policy)
		tag = tagOf([]byte(tag + policy)) // who has it with another policy has something else
	}
	if r.URL.Path == page {
		header.Set("Cache-Control", "no-cache")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
	} else {
		header.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	body := f.plain
	if f.zipped != nil {
		header.Add("Vary", "Accept-Encoding")
		if takesGzip(r.Header.Values("Accept-Encoding")) {
			body, tag = f.zipped, tag+"-gzip"
			header.Set("Content-Encoding", "gzip")
		}
	}
	tag = `"` + tag + `"`
	header.Set("ETag", tag)
	if has(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(body)
	}
}

// tagOf stands for some content.
func tagOf(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data))[:32] }

// has reports whether an If-None-Match names a tag.
func has(headers []string, tag string) bool {
	for _, header := range headers {
		for item := range strings.SplitSeq(header, ",") {
			if item = strings.TrimPrefix(strings.TrimSpace(item), "W/"); item == tag || item == "*" {
				return true
			}
		}
	}
	return false
}

// policy lets the page do what it needs and nothing else. There is nothing inline.
func (h *Handler) policy() string {
	connect := strings.Join(append([]string{"'self'"}, h.cfg.Connect()...), " ")
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src " + connect +
		"; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// takesGzip reports whether an Accept-Encoding lets an answer be in gzip.
func takesGzip(headers []string) bool {
	others := false
	for _, header := range headers {
		for item := range strings.SplitSeq(header, ",") {
			coding, parameters, _ := strings.Cut(item, ";")
			weight := 1.0
			if q, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(parameters)), "q="); ok {
				var err error
				if weight, err = strconv.ParseFloat(strings.TrimSpace(q), 64); err != nil {
					weight = 0
				}
			}
			switch strings.ToLower(strings.TrimSpace(coding)) {
			case "gzip":
				return weight > 0
			case "*":
				others = weight > 0
			}
		}
	}
	return others
}
