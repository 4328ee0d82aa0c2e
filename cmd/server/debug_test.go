package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// profiling is held by the test that asks for a CPU profile or a trace: a process
// makes one of each at a time and refuses a second, and tests run beside each other.
var profiling sync.Mutex

// TestDebugHandler: profiles and the build are there for those who may have them,
// and for nobody else.
func TestDebugHandler(t *testing.T) {
	t.Parallel()
	admin := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer admin" {
				http.Error(w, "not for you", http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	get := func(h http.Handler, path, authorization string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Authorization", authorization)
		h.ServeHTTP(w, r)
		return w
	}
	guarded, open := newDebugHandler(admin), newDebugHandler(nil)
	profiling.Lock()
	defer profiling.Unlock()
	for path, want := range map[string]string{
		"/debug/pprof/":                  "goroutine",
		"/debug/pprof/goroutine?debug=1": "goroutine profile:",
		"/debug/pprof/heap?debug=1":      "heap profile:",
		"/debug/pprof/symbol":            "num_symbols",
		"/debug/pprof/profile?seconds=1": "",
		"/debug/pprof/trace?seconds=0.1": "",
		"/debug/build":                   "github.com/notebookd/notebookd",
	} {
		if w := get(guarded, path, ""); w.Code != http.StatusForbidden {
			t.Errorf("%s without a right: status %d", path, w.Code)
		}
		for name, w := range map[string]*httptest.ResponseRecorder{"admin": get(guarded, path, "Bearer admin"), "open": get(open, path, "")} {
			if w.Code != http.StatusOK || w.Body.Len() == 0 || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s, %s: status %d, %d bytes without %q", name, path, w.Code, w.Body.Len(), want)
			}
		}
	}
	for _, path := range []string{"/debug/pprof/cmdline", "/", "/metrics"} {
		if w := get(open, path, ""); w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, w.Code)
		}
	}
}
