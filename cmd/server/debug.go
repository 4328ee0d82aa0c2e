package main

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
)

// newDebugHandler returns what is for those who look into a running process: its
// profiles under /debug/pprof/, and what it was built of under /debug/build. A
// profile tells much and costs something, so this belongs on an address of its own.
// admin says who may have it; nil stands for everybody who reaches that address.
func newDebugHandler(admin func(http.Handler) http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	// The command line may hold what is nobody's business; the handler for it is
	// left out on purpose.
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
	mux.HandleFunc("GET /debug/build", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if info, ok := debug.ReadBuildInfo(); ok {
			_, _ = fmt.Fprint(w, info)
		}
	})
	if admin == nil {
		return mux
	}
	return admin(mux)
}
