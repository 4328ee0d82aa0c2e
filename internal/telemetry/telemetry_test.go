package telemetry

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/notebookd/notebookd/internal/upstream"
)

// sink is a collector.
type sink struct {
	collector.UnimplementedTraceServiceServer
	mu      sync.Mutex // guards what is below
	names   []string
	headers []string
}

func (s *sink) take(req *collector.ExportTraceServiceRequest, header string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.headers = append(s.headers, header)
	for _, resource := range req.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				s.names = append(s.names, span.GetName())
			}
		}
	}
}

// Export implements the collector's gRPC service.
func (s *sink) Export(ctx context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.take(req, strings.Join(metadata.ValueFromIncomingContext(ctx, "x-token"), ","))
	return &collector.ExportTraceServiceResponse{}, nil
}

// ServeHTTP implements the collector's HTTP door.
func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	req := &collector.ExportTraceServiceRequest{}
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, req) != nil {
		http.Error(w, "not understood", http.StatusBadRequest)
		return
	}
	s.take(req, r.Header.Get("X-Token"))
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// TestExport: spans arrive at a collector over both protocols, with the headers,
// and over TLS with a certificate that only the configured file vouches for.
func TestExport(t *testing.T) {
	t.Parallel()
	certificate := func(t *testing.T, server *httptest.Server) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "ca.pem")
		data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, begin := range map[string]func(t *testing.T, s *sink) Config{
		"grpc": func(t *testing.T, s *sink) Config {
			t.Helper()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			collector.RegisterTraceServiceServer(server, s)
			var wg sync.WaitGroup
			wg.Go(func() { _ = server.Serve(listener) })
			t.Cleanup(func() {
				server.Stop()
				wg.Wait()
			})
			return Config{Endpoint: listener.Addr().String(), Insecure: true}
		},
		"http": func(t *testing.T, s *sink) Config {
			t.Helper()
			server := httptest.NewServer(s)
			t.Cleanup(server.Close)
			return Config{Endpoint: server.Listener.Addr().String(), Protocol: "http", Insecure: true}
		},
		"https": func(t *testing.T, s *sink) Config {
			t.Helper()
			server := httptest.NewUnstartedServer(s)
			server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
			server.StartTLS()
			t.Cleanup(server.Close)
			return Config{Endpoint: server.Listener.Addr().String(), Protocol: "http", CA: certificate(t, server)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &sink{}
			cfg := begin(t, s)
			cfg.Headers = map[string]upstream.Secret{"X-Token": upstream.NewSecret("let me in")}
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			registry := prometheus.NewRegistry()
			tracing, err := Start(t.Context(), cfg, "v1", slog.New(slog.DiscardHandler), registry)
			if err != nil {
				t.Fatal(err)
			}
			_, span := tracing.Provider().Tracer("test").Start(t.Context(), "hello")
			span.End()
			tracing.Shutdown(t.Context())
			s.mu.Lock()
			defer s.mu.Unlock()
			if diff := cmp.Diff([]string{"hello"}, s.names); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"let me in"}, s.headers); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
			wantSpans(t, registry, 1, 0)
		})
	}
}

func wantSpans(t *testing.T, registry *prometheus.Registry, exported, failed int) {
	t.Helper()
	want := fmt.Sprintf(`
# HELP notebookd_trace_spans_total Spans by what became of them: exported, or failed because the collector did not take them. Those that found no room are not counted. Only with tracing on.
# TYPE notebookd_trace_spans_total counter
notebookd_trace_spans_total{outcome="exported"} %d
notebookd_trace_spans_total{outcome="failed"} %d
`, exported, failed)
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "notebookd_trace_spans_total"); err != nil {
		t.Error(err)
	}
}

// TestCollectorAway: a collector that is not there, or never answers, stops neither
// the start nor the end, and whoever makes spans does not wait.
func TestCollectorAway(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	for _, endpoint := range []string{"127.0.0.1:1", silent.Addr().String()} {
		for _, protocol := range []string{"grpc", "http"} {
			tracing, err := Start(t.Context(), Config{Endpoint: endpoint, Protocol: protocol, Insecure: true}, "v1", slog.New(slog.DiscardHandler), nil)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			for range 4 * queueSize { // more than there is room for
				_, span := tracing.Provider().Tracer("test").Start(t.Context(), "lost")
				span.End()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			tracing.Shutdown(ctx)
			cancel()
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%s over %s: took %v", endpoint, protocol, took)
			}
		}
	}
}

// flaky is an exporter that fails when told.
type flaky struct {
	sdktrace.SpanExporter
	err error
}

func (f *flaky) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return f.err }

// TestFailuresAreToldOnce: a failure that goes on is one line now and then, without
// the text of the error, and so is its end.
func TestFailuresAreToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		registry := prometheus.NewRegistry()
		f := &flaky{err: errors.New("secret header refused")}
		r := newReporter(f, slog.New(slog.NewTextHandler(&text, nil)), registry)
		export := func(n int) (lines int) {
			text.Reset()
			for range n {
				if err := r.ExportSpans(t.Context(), tracetest.SpanStubs{{}, {}}.Snapshots()); err != nil {
					t.Errorf("told to the handler of all: %v", err)
				}
			}
			if strings.Contains(text.String(), "secret") {
				t.Errorf("log: %s", text.String())
			}
			return strings.Count(text.String(), "\n")
		}
		if got := export(3); got != 1 {
			t.Errorf("%d lines for three failures", got)
		}
		time.Sleep(repeatAfter + time.Second)
		if got := export(3); got != 1 {
			t.Errorf("%d lines for three failures later", got)
		}
		f.err = nil
		if got := export(2); got != 1 {
			t.Errorf("%d lines for the end", got)
		}
		wantSpans(t, registry, 4, 12)
	})
}

// TestSampling: a trace that begins here is recorded by the ratio, one of a caller
// as the caller says, and one that is linked to a recorded one always.
func TestSampling(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewInMemoryExporter()
	tracing := start(recorder, 0, "v1")
	tracer := tracing.Provider().Tracer("test")
	parent := func(flags trace.TraceFlags) trace.SpanContext {
		return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: flags, Remote: true})
	}
	for name, tt := range map[string]struct {
		ctx     context.Context
		options []trace.SpanStartOption
		want    bool
	}{
		"root":                         {ctx: t.Context()},
		"of a recorded parent":         {ctx: trace.ContextWithSpanContext(t.Context(), parent(trace.FlagsSampled)), want: true},
		"of a parent that is not":      {ctx: trace.ContextWithSpanContext(t.Context(), parent(0))},
		"linked to a recorded one":     {ctx: t.Context(), options: []trace.SpanStartOption{trace.WithLinks(trace.Link{SpanContext: parent(trace.FlagsSampled)})}, want: true},
		"linked to one that is not so": {ctx: t.Context(), options: []trace.SpanStartOption{trace.WithLinks(trace.Link{SpanContext: parent(0)})}},
	} {
		_, span := tracer.Start(tt.ctx, name, tt.options...)
		if got := span.SpanContext().IsSampled(); got != tt.want {
			t.Errorf("%s: recorded %v", name, got)
		}
		span.End()
	}
	tracing.Shutdown(t.Context())
}

// TestValidate: all problems are told, each with its key.
func TestValidate(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ratio := func(r float64) *float64 { return &r }
	for name, tt := range map[string]struct {
		cfg  Config
		want string
	}{
		"off":            {},
		"on":             {cfg: Config{Endpoint: "collector:4317", Protocol: "grpc", SampleRatio: ratio(0)}},
		"no endpoint":    {cfg: Config{Protocol: "http"}, want: "endpoint: is needed"},
		"a URL":          {cfg: Config{Endpoint: "http://collector:4317/v1/traces"}, want: "endpoint: must be host:port"},
		"a short URL":    {cfg: Config{Endpoint: "http://collector"}, want: "endpoint: must be host:port"},
		"no port":        {cfg: Config{Endpoint: "collector"}, want: "endpoint: must be host:port"},
		"protocol":       {cfg: Config{Endpoint: "c:1", Protocol: "zipkin"}, want: "protocol: must be one of grpc, http"},
		"ratio":          {cfg: Config{Endpoint: "c:1", SampleRatio: ratio(1.5)}, want: "sample_ratio: must be from 0 to 1"},
		"no file":        {cfg: Config{Endpoint: "c:1", CA: empty + "-not"}, want: "ca: the file cannot be read"},
		"no certificate": {cfg: Config{Endpoint: "c:1", CA: empty}, want: "ca: the file holds no certificate"},
		"both":           {cfg: Config{Endpoint: "c:1", CA: empty, Insecure: true}, want: "ca: does not go with insecure"},
		"header": {
			cfg:  Config{Endpoint: "c:1", Headers: map[string]upstream.Secret{"a b": upstream.NewSecret("x")}, Protocol: "x"},
			want: "protocol: must be one of grpc, http\nheaders.a b: is no name of a header",
		},
	} {
		got := ""
		if err := tt.cfg.Validate(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestLogHandler: a line of a trace names it, whatever attributes and groups the
// logger has, and another line does not.
func TestLogHandler(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	log := slog.New(LogHandler(slog.NewTextHandler(&text, nil)))
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{0xab}, SpanID: trace.SpanID{1}})
	ctx := trace.ContextWithSpanContext(t.Context(), span)
	id := "trace_id=ab000000000000000000000000000000"
	log.InfoContext(ctx, "one")
	log.With("a", 1).InfoContext(ctx, "two")
	if got := strings.Count(text.String(), id); got != 2 {
		t.Errorf("%d lines name the trace:\n%s", got, text.String())
	}
	text.Reset()
	log.InfoContext(t.Context(), "none")
	if strings.Contains(text.String(), "trace_id") {
		t.Errorf("a line of no trace: %s", text.String())
	}
}

// fakeStream is a stream with a context.
type fakeStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // as grpc.ServerStream
}

func (f fakeStream) Context() context.Context { return f.ctx }

// TestCalls: a call of either kind is one span in the trace of its caller, with the
// code that it ended with; a panic is an error; with tracing off nothing is made,
// and the caller's trace is still known.
func TestCalls(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	incoming := metadata.NewIncomingContext(t.Context(), metadata.Pairs("traceparent", parent, "tracestate", "vendor=1"))
	seen := func(ctx context.Context) string {
		id := trace.SpanContextFromContext(ctx).TraceID()
		if !id.IsValid() {
			return ""
		}
		return id.String()
	}
	call := func(c *Calls, kind string, ctx context.Context, end func() error) (trace string, err error) {
		if kind == "unary" {
			_, err = c.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/s.S/List"}, func(ctx context.Context, _ any) (any, error) {
				trace = seen(ctx)
				return nil, end()
			})
			return trace, err
		}
		err = c.Stream(nil, fakeStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: "/s.S/List"}, func(_ any, s grpc.ServerStream) error {
			trace = seen(s.Context())
			return end()
		})
		return trace, err
	}
	for _, kind := range []string{"unary", "stream"} {
		exporter := tracetest.NewInMemoryExporter()
		tracing := &Tracing{}
		tracing.sdk = sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
		tracing.provider = tracing.sdk
		c := tracing.Calls()
		for _, tt := range []struct {
			err    error
			code   string
			failed bool
		}{
			{nil, "OK", false},
			{status.Error(codes.NotFound, "x"), "NOT_FOUND", false},
			{status.Error(codes.Unavailable, "x"), "UNAVAILABLE", true},
			{status.Error(codes.Code(99), "x"), "Unknown", false},
		} {
			exporter.Reset()
			id, err := call(c, kind, incoming, func() error { return tt.err })
			if err != tt.err || id != parent[3:35] { //nolint:errorlint // the same one
				t.Errorf("%s: error %v, trace %q", kind, err, id)
			}
			spans := exporter.GetSpans()
			if len(spans) != 1 {
				t.Fatalf("%s: %d spans", kind, len(spans))
			}
			span := spans[0]
			got := map[string]string{}
			for _, a := range span.Attributes {
				got[string(a.Key)] = a.Value.String()
			}
			want := map[string]string{"rpc.system.name": "grpc", "rpc.method": "s.S/List", "rpc.response.status_code": tt.code}
			if tt.failed {
				want["error.type"] = tt.code
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: attributes (-want +got):\n%s", kind, diff)
			}
			if span.Name != "s.S/List" || span.SpanKind != trace.SpanKindServer || span.Parent.SpanID().String() != parent[36:52] ||
				span.SpanContext.TraceState().String() != "vendor=1" {
				t.Errorf("%s: span %+v", kind, span)
			}
		}
		exporter.Reset()
		func() {
			defer func() { _ = recover() }()
			_, _ = call(c, kind, t.Context(), func() error { panic("x") })
		}()
		if spans := exporter.GetSpans(); len(spans) != 1 || spans[0].Status.Code.String() != "Error" || spans[0].Parent.IsValid() {
			t.Errorf("%s: panic: %+v", kind, spans)
		}
		exporter.Reset()
		if _, err := c.Unary(incoming, nil, &grpc.UnaryServerInfo{FullMethod: "/grpc.health.v1.Health/Check"}, func(context.Context, any) (any, error) { return nil, nil }); err != nil || len(exporter.GetSpans()) > 0 {
			t.Errorf("health: error %v, spans %v", err, exporter.GetSpans())
		}
		off, err := Start(t.Context(), Config{}, "v1", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for ctx, want := range map[context.Context]string{incoming: parent[3:35], t.Context(): ""} {
			if id, err := call(off.Calls(), kind, ctx, func() error { return nil }); err != nil || id != want {
				t.Errorf("%s, off: trace %q, error %v", kind, id, err)
			}
		}
	}
}

// TestSubject: who makes a call stands in its span.
func TestSubject(t *testing.T) {
	t.Parallel()
	exporter := tracetest.NewInMemoryExporter()
	ctx, span := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter)).Tracer("test").Start(t.Context(), "call")
	Subject(ctx, "alice")
	Subject(t.Context(), "nobody")
	span.End()
	if got := exporter.GetSpans()[0].Attributes; len(got) != 1 || got[0].Key != "enduser.id" || got[0].Value.AsString() != "alice" {
		t.Errorf("attributes %v", got)
	}
}
