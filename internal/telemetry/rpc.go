package telemetry

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Calls makes a span of each call, in the trace that the caller is in if the
// metadata says so (W3C Trace Context). With tracing off it only notes the caller's
// trace, for the log and for what is asked of clouds. It works for calls over a
// connection and in the process alike.
type Calls struct {
	tracer trace.Tracer
	on     bool
}

// Calls returns the interceptors of calls. They belong outside of all others.
func (t *Tracing) Calls() *Calls {
	return &Calls{t.provider.Tracer("github.com/notebookd/notebookd/internal/telemetry"), t.On()}
}

// Unary is a grpc.UnaryServerInterceptor.
func (c *Calls) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, end := c.begin(ctx, info.FullMethod)
	if end == nil {
		return handler(ctx, req)
	}
	err := errPanic
	defer func() { end(err) }()
	var resp any
	resp, err = handler(ctx, req)
	return resp, err
}

// Stream is a grpc.StreamServerInterceptor. It does nothing for a message.
func (c *Calls) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, end := c.begin(stream.Context(), info.FullMethod)
	if end == nil {
		return handler(srv, stream)
	}
	err := errPanic
	defer func() { end(err) }()
	err = handler(srv, &tracedStream{stream, ctx})
	return err
}

type tracedStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // as grpc.ServerStream
}

// Context implements grpc.ServerStream.
func (s *tracedStream) Context() context.Context { return s.ctx }

// errPanic is what a call ends with that does not return.
var errPanic = status.Error(grpccodes.Internal, "panic")

// carrier reads what Trace Context needs from metadata.
type carrier metadata.MD

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string { return strings.Join(c[key], ",") }

// Set implements propagation.TextMapCarrier. Nothing is sent on.
func (carrier) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (carrier) Keys() []string { return nil }

// begin returns the context of a call, and what ends its span: nil when nobody
// needs another context.
func (c *Calls) begin(ctx context.Context, fullMethod string) (context.Context, func(error)) {
	parents := metadata.ValueFromIncomingContext(ctx, "traceparent")
	if !c.on && len(parents) == 0 {
		return ctx, nil
	}
	if len(parents) > 0 {
		from := carrier{"traceparent": parents, "tracestate": metadata.ValueFromIncomingContext(ctx, "tracestate")}
		ctx = propagation.TraceContext{}.Extract(ctx, from)
	}
	if !c.on || strings.HasPrefix(fullMethod, "/grpc.health.") { // which is asked every few seconds
		return ctx, func(error) {}
	}
	method := strings.TrimPrefix(fullMethod, "/")
	ctx, span := c.tracer.Start(ctx, method, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(semconv.RPCSystemNameGRPC, semconv.RPCMethod(method)))
	return ctx, func(err error) {
		code := status.Code(err)
		name := codeName(code)
		span.SetAttributes(semconv.RPCResponseStatusCode(name))
		// What the caller did wrong is no error of the server's.
		switch code {
		case grpccodes.Unknown, grpccodes.DeadlineExceeded, grpccodes.Unimplemented, grpccodes.Internal, grpccodes.Unavailable, grpccodes.DataLoss:
			span.SetStatus(codes.Error, "")
			span.SetAttributes(semconv.ErrorTypeKey.String(name))
		default:
		}
		span.End()
	}
}

// codeName is a code as the conventions, and grpc's own documents, spell it.
func codeName(code grpccodes.Code) string {
	if int(code) >= len(codeNames) {
		return grpccodes.Unknown.String()
	}
	return codeNames[code]
}

var codeNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// Subject notes in the span of a call who has made it. It must be the bare name of
// the caller, and nothing that proves it.
func Subject(ctx context.Context, subject string) {
	if span := trace.SpanFromContext(ctx); subject != "" && span.IsRecording() {
		span.SetAttributes(semconv.EnduserID(subject))
	}
}
