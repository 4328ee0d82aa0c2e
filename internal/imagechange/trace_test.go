package imagechange

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream"
)

// TestChangeThatIsTakenUpIsInItsTrace: whoever goes on with a change that another
// process has begun does so in the trace of who asked for it. A step is one span,
// however often it is stored.
func TestChangeThatIsTakenUpIsInItsTrace(t *testing.T) {
	t.Parallel()
	exporter := tracetest.NewInMemoryExporter()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter)).Tracer("test")
	asked := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})

	begun := &record{
		change: &notebookv1.ImageChange{Name: "imageChanges/1", Notebook: "clouds/core/locations/xb3/notebooks/nb-1", Phase: notebookv1.ImageChange_PHASE_VERIFYING},
		stored: stored{Step: stepSending, Trace: upstream.Traceparent(trace.ContextWithSpanContext(t.Context(), asked))},
	}
	data, err := begun.encode()
	if err != nil {
		t.Fatal(err)
	}
	r, err := decode(data, 1) // in another process
	if err != nil {
		t.Fatal(err)
	}
	tr := &traced{tracer: tracer}
	first := tr.begin(t.Context(), r, true)
	if again := tr.enter(r); trace.SpanContextFromContext(again).SpanID() != trace.SpanContextFromContext(first).SpanID() {
		t.Error("a step that is stored twice is two spans")
	}
	verify := tr.enter(r.with(func(r *record) { r.Step = stepVerify }))
	settled := r.with(func(r *record) {
		r.Step, r.change.Phase = stepSettled, notebookv1.ImageChange_PHASE_FAILED
		r.change.Failure = &notebookv1.ImageChange_Failure{Reason: notebookv1.ErrorReason_ERROR_REASON_CLOUD_TIMEOUT}
	})
	after := tr.enter(settled)
	tr.end(settled)

	spans := exporter.GetSpans()
	var names []string
	for _, span := range spans {
		names = append(names, span.Name)
		if span.SpanContext.TraceID() != asked.TraceID() {
			t.Errorf("%s is in another trace", span.Name)
		}
	}
	if diff := cmp.Diff([]string{"image_change sending", "image_change verify", "image_change"}, names); diff != "" {
		t.Fatalf("spans in the order of their end (-want +got):\n%s", diff)
	}
	whole := spans[2]
	for _, span := range spans[:2] {
		if span.Parent.SpanID() != whole.SpanContext.SpanID() {
			t.Errorf("%s is not a step of the change", span.Name)
		}
	}
	if trace.SpanContextFromContext(verify).SpanID() != spans[1].SpanContext.SpanID() || trace.SpanContextFromContext(after).SpanID() != whole.SpanContext.SpanID() {
		t.Error("a step is not taken in its span")
	}
	got := map[attribute.Key]any{}
	for _, a := range whole.Attributes {
		got[a.Key] = a.Value.AsInterface()
	}
	want := map[attribute.Key]any{
		"notebookd.change": "imageChanges/1", "notebookd.notebook": "clouds/core/locations/xb3/notebooks/nb-1", "notebookd.cloud": "core", "notebookd.resumed": true,
		"notebookd.outcome": "failed", "notebookd.settled": true, "error.type": "ERROR_REASON_CLOUD_TIMEOUT",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if whole.Parent.SpanID() != asked.SpanID() {
		t.Error("the change is not of the call that asked for it")
	}
}
