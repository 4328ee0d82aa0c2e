package main

import (
	"context"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/metadata"

	"github.com/notebookd/notebookd/internal/telemetry"
)

// observe begins what describes the process as a whole. It is called before
// anything that is described.
func (s *server) observe(ctx context.Context) (err error) {
	built := buildInfo()
	s.registry.MustRegister(newBuildInfo(built.Version, built.Commit, built.Date))
	s.tracing, err = telemetry.Start(ctx, s.cfg.Tracing, built.Version, s.log, s.registry)
	return err
}

// newBuildInfo is a metric that tells which build this is.
func newBuildInfo(version, commit, date string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "notebookd_build_info", Help: "Always 1; the labels say which build it is.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "date": date, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
}

// traceCalls is the interceptor that makes spans of calls.
func (s *server) traceCalls() interceptor {
	calls := s.tracing.Calls()
	return interceptor{calls.Unary, calls.Stream}
}

// traceMetadata passes on which trace a caller over HTTP is in. The gateway asks
// for it.
func traceMetadata(_ context.Context, r *http.Request) metadata.MD {
	parent := r.Header.Get("traceparent")
	if parent == "" {
		return nil
	}
	md := metadata.Pairs("traceparent", parent)
	if state := r.Header.Values("tracestate"); len(state) > 0 {
		md.Set("tracestate", strings.Join(state, ","))
	}
	return md
}

// flushFor bounds the sending of the last spans.
const flushFor = 2 * time.Second

// stopTracing sends the spans that are left. Everything that made some has ended.
func (s *server) stopTracing() {
	if s.tracing == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushFor)
	defer cancel()
	s.tracing.Shutdown(ctx)
}
