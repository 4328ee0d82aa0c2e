package imagechange

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream"
)

// traced is what a driver tells of a change: a span from when it begins to drive
// until it ends, with one for each step in it. It is a child of the call that asked
// for the change, which may end earlier: it has the trace that the caller knows. The
// traceparent is stored, so that whoever takes the change up goes on with the trace.
type traced struct {
	tracer trace.Tracer
	whole  context.Context //nolint:containedctx // of the span of the change
	step   trace.Span      // of the step that is under way; nil before the first
	in     step
}

// begin starts the span of a change. It returns the context to drive in.
func (t *traced) begin(ctx context.Context, r *record, resumed bool) context.Context {
	options := []trace.SpanStartOption{trace.WithAttributes(
		attribute.String("notebookd.change", r.change.GetName()),
		attribute.String("notebookd.notebook", r.change.GetNotebook()),
		attribute.String("notebookd.cloud", cloudOf(r.change)),
		attribute.Bool("notebookd.resumed", resumed),
	)}
	t.whole, _ = t.tracer.Start(upstream.WithTraceparent(ctx, r.Trace), "image_change", options...)
	return t.enter(r)
}

// enter notes the step that a change is in, and returns the context to take it in.
func (t *traced) enter(r *record) context.Context {
	if t.step != nil && t.in == r.Step {
		return trace.ContextWithSpan(t.whole, t.step)
	}
	if t.step != nil {
		t.step.End()
	}
	t.in, t.step = r.Step, nil
	if r.settled() {
		return t.whole
	}
	var ctx context.Context
	ctx, t.step = t.tracer.Start(t.whole, "image_change "+string(r.Step),
		trace.WithAttributes(attribute.String("notebookd.phase", phaseWord(r.change.GetPhase()))))
	return ctx
}

// end ends both spans. The change may not have ended: it is left to another process
// then.
func (t *traced) end(r *record) {
	if t.step != nil {
		t.step.End()
	}
	span := trace.SpanFromContext(t.whole)
	if span.IsRecording() {
		outcome := phaseWord(r.change.GetPhase())
		span.SetAttributes(attribute.String("notebookd.outcome", outcome), attribute.Bool("notebookd.settled", r.settled()))
		if r.change.GetPhase() == notebookv1.ImageChange_PHASE_FAILED {
			span.SetAttributes(attribute.String("error.type", r.change.GetFailure().GetReason().String()))
			span.SetStatus(codes.Error, outcome)
		}
	}
	span.End()
}
