package upstream

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/sony/gobreaker/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// requestIDHeader carries to the cloud what the call has here: the id of its trace
// or, without one, an id of its own. The cloud gets nothing else of a trace.
const requestIDHeader = "X-Request-Id"

// scopeName is the instrumentation scope of the spans of this package.
const scopeName = "github.com/notebookd/notebookd/internal/upstream"

// told is what the log and the trace are told of a call. One goroutine uses it.
type told struct {
	requestID string
	breaker   gobreaker.State // before the call
	status    int             // of HTTP; zero when there was no answer
	sent      bool            // a request was made
}

// begin starts the span of a call. Its tracer is that of the span which ctx is
// in, so that a call of nobody has no span.
func (c *Client) begin(ctx context.Context, call *Call) (context.Context, trace.Span) {
	call.told = &told{}
	tracer := trace.SpanFromContext(ctx).TracerProvider().Tracer(scopeName)
	ctx, span := tracer.Start(ctx, "cloud "+call.Op, trace.WithSpanKind(trace.SpanKindClient))
	if id := span.SpanContext().TraceID(); id.IsValid() {
		call.told.requestID = id.String()
	} else {
		call.told.requestID = uuid.NewString()
	}
	return ctx, span
}

// end tells the metrics, the trace and the log what became of a call. Neither
// URL nor text of the cloud is told: they may hold what is secret.
func (c *Client) end(ctx context.Context, call *Call, span trace.Span, took time.Duration, err error) {
	outcome := outcomeOf(err)
	c.metrics.observe(c.cloud, *call, took, outcome)
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("notebookd.cloud", c.cloud),
			attribute.String("notebookd.location", call.Location),
			attribute.String("notebookd.op", call.Op),
			attribute.String("notebookd.class", call.Class.String()),
			attribute.String("notebookd.outcome", outcome),
			attribute.String("notebookd.breaker", call.told.breaker.String()),
			attribute.Bool("notebookd.sent", call.told.sent),
		)
		if call.told.status != 0 {
			span.SetAttributes(attribute.Int("http.response.status_code", call.told.status))
		}
		if err != nil {
			span.SetAttributes(attribute.String("error.type", outcome))
			span.SetStatus(codes.Error, outcome)
		}
	}
	span.End()
	if !c.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	c.log.LogAttrs(ctx, slog.LevelDebug, "cloud call",
		slog.String("cloud", c.cloud), slog.String("location", call.Location), slog.String("op", call.Op), slog.String("outcome", outcome),
		slog.Int("http_status", call.told.status), slog.Bool("sent", call.told.sent), slog.String("request_id", call.told.requestID),
		slog.Float64("time_ms", float64(took.Microseconds())/1000))
}

// Traceparent is the W3C traceparent of the span that ctx is in, or empty: what
// replicas tell each other, and what is stored of a change.
func Traceparent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier.Get("traceparent")
}

// WithTraceparent returns a context in the span that a traceparent names.
func WithTraceparent(ctx context.Context, traceparent string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
}
