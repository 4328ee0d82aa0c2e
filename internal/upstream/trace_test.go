package upstream

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// TestCallIsTraced: a call in a trace is a span of it that says what became of it,
// and nothing of what was sent. The cloud gets the id of the trace, and the debug
// log has it too; without a trace both get another id.
func TestCallIsTraced(t *testing.T) {
	t.Parallel()
	exporter := tracetest.NewInMemoryExporter()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter)).Tracer("test")
	var header http.Header
	var log bytes.Buffer
	status := http.StatusOK
	c := NewClient(ClientConfig{
		Cloud: "core", Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			header = r.Header.Clone()
			return answer(status, canary)(r)
		}),
	})
	for _, tt := range []struct {
		status  int
		outcome string
	}{{http.StatusForbidden, "denied"}, {http.StatusBadGateway, "unavailable"}, {http.StatusOK, "bad_response"}} {
		exporter.Reset()
		log.Reset()
		status = tt.status
		ctx, caller := tracer.Start(t.Context(), "caller")
		if err := c.Do(ctx, call(ClassRead)); err == nil {
			t.Fatal("no error")
		}
		caller.End()
		span := exporter.GetSpans()[0]
		want := map[attribute.Key]any{
			"notebookd.cloud": "core", "notebookd.location": "xb3", "notebookd.op": "list", "notebookd.class": "read", "notebookd.outcome": tt.outcome,
			"notebookd.breaker": "closed", "notebookd.sent": true, "http.response.status_code": int64(tt.status), "error.type": tt.outcome,
		}
		got := map[attribute.Key]any{}
		for _, a := range span.Attributes {
			got[a.Key] = a.Value.AsInterface()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("attributes (-want +got):\n%s", diff)
		}
		if span.Name != "cloud list" || span.SpanKind != trace.SpanKindClient || span.Parent.SpanID() != caller.SpanContext().SpanID() ||
			span.Status.Code.String() != "Error" || span.Status.Description != tt.outcome || len(span.Events) > 0 {
			t.Errorf("span %+v", span)
		}
		id := caller.SpanContext().TraceID().String()
		if header.Get("X-Request-Id") != id || header.Get("traceparent") != "" || header.Get("tracestate") != "" {
			t.Errorf("headers %v", header)
		}
		for _, word := range []string{"level=DEBUG", `msg="cloud call"`, "request_id=" + id, "outcome=" + tt.outcome} {
			if !strings.Contains(log.String(), word) {
				t.Errorf("%q is not in the log: %s", word, log.String())
			}
		}
		if strings.Contains(log.String(), "canary") {
			t.Errorf("log: %s", log.String())
		}
	}

	exporter.Reset()
	log.Reset()
	_ = c.Do(t.Context(), call(ClassRead))
	id := header.Get("X-Request-Id")
	if _, err := uuid.Parse(id); err != nil || !strings.Contains(log.String(), "request_id="+id) || len(exporter.GetSpans()) > 0 {
		t.Errorf("without a trace: id %q, log %s, spans %v", id, log.String(), exporter.GetSpans())
	}
}

// TestTraceparent: a trace can be handed on as text, and no trace is none.
func TestTraceparent(t *testing.T) {
	t.Parallel()
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	text := Traceparent(trace.ContextWithSpanContext(t.Context(), span))
	got := trace.SpanContextFromContext(WithTraceparent(t.Context(), text))
	if got.TraceID() != span.TraceID() || got.SpanID() != span.SpanID() || !got.IsSampled() {
		t.Errorf("%q became %+v", text, got)
	}
	if text := Traceparent(t.Context()); text != "" {
		t.Errorf("no trace is %q", text)
	}
	for _, text := range []string{"", "nonsense"} {
		if trace.SpanContextFromContext(WithTraceparent(t.Context(), text)).IsValid() {
			t.Errorf("%q is a trace", text)
		}
	}
}

// TestMetricsOfClosedClients: what was counted of a cloud goes when its client is
// closed, but not when another client has taken its place.
func TestMetricsOfClosedClients(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	metrics := NewMetrics(registry)
	client := func(cloud string) *Client {
		return NewClient(ClientConfig{Cloud: cloud, Transport: answer(http.StatusOK, "{}"), Metrics: metrics})
	}
	do := func(c *Client) {
		t.Helper()
		if err := c.Do(t.Context(), call(ClassRead)); err != nil {
			t.Fatal(err)
		}
	}
	first, other := client("core"), client("scnet")
	do(first)
	do(other)
	second := client("core") // with other settings
	do(second)
	first.Close()
	do(first) // one that was under way
	if n := testutil.CollectAndCount(metrics, "notebookd_breaker_state"); n != 2 {
		t.Errorf("%d breakers", n)
	}
	if got := testutil.ToFloat64(metrics.calls.WithLabelValues("core", "xb3", "list", "ok")); got != 3 {
		t.Errorf("%v calls of core", got)
	}
	second.Close()
	do(second)
	other.Close()
	if n, err := testutil.GatherAndCount(registry); err != nil || n != 0 {
		t.Errorf("%d series are left, error %v", n, err)
	}
}
