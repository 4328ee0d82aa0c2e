package inventory

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/notebookd/notebookd/internal/upstream"
)

func tracerOf(provider trace.TracerProvider) trace.Tracer {
	if provider == nil {
		provider = noop.NewTracerProvider()
	}
	return provider.Tracer("github.com/notebookd/notebookd/internal/inventory")
}

// traced is poll with a span. It is one of its own, since a poll serves everybody,
// with a link to each caller who has asked for it.
func (p *poller) traced(ctx context.Context, waiters []waiter) error {
	options := []trace.SpanStartOption{
		trace.WithNewRoot(),
		trace.WithAttributes(attribute.String("notebookd.cloud", p.source.Name), attribute.String("notebookd.location", p.location)),
	}
	for _, w := range waiters {
		if w.asks.IsValid() {
			options = append(options, trace.WithLinks(trace.Link{SpanContext: w.asks}))
		}
	}
	ctx, span := p.inv.tracer.Start(ctx, "poll", options...)
	defer span.End()
	err := p.poll(ctx)
	if span.IsRecording() {
		snapshot := p.inv.Snapshot()
		span.SetAttributes(attribute.Int("notebookd.notebooks", snapshot.Count(p.name)))
		switch l, ok := snapshot.Location(p.name); {
		case err == nil, ctx.Err() != nil:
		case ok && l.Failure != nil:
			span.SetAttributes(attribute.String("error.type", l.Failure.word()))
			span.SetStatus(codes.Error, l.Failure.word())
		default:
			span.SetAttributes(attribute.String("error.type", upstream.KindOf(err).String()))
			span.SetStatus(codes.Error, upstream.KindOf(err).String())
		}
	}
	return err
}

// locations asks a cloud for its locations, in a span of its own.
func (inv *Inventory) locations(ctx context.Context, source Source) ([]upstream.Location, error) {
	ctx, span := inv.tracer.Start(ctx, "discover", trace.WithNewRoot(), trace.WithAttributes(attribute.String("notebookd.cloud", source.Name)))
	defer span.End()
	locations, err := source.Provider.Locations(ctx)
	if err != nil && ctx.Err() == nil {
		span.SetAttributes(attribute.String("error.type", upstream.KindOf(err).String()))
		span.SetStatus(codes.Error, upstream.KindOf(err).String())
	}
	return locations, err
}
