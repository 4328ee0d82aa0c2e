// Package telemetry sends traces to an OpenTelemetry collector, and makes lines of
// the log tell which trace they belong to.
//
// It keeps no global state: whoever makes spans gets the provider of the process.
// A collector that is slow or away costs its spans and nothing else. What is in a
// span is the business of whoever makes it; nothing secret may be.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc/credentials"
)

// Tracing makes and sends spans. It is safe for concurrent use.
type Tracing struct {
	provider trace.TracerProvider
	sdk      *sdktrace.TracerProvider // nil when tracing is off
}

const (
	// queueSize is how many ended spans wait to be sent at most. More are dropped.
	queueSize = 2048
	// exportFor bounds one attempt to send.
	exportFor = 10 * time.Second
)

// Start begins to send what is traced. It does not wait for the collector, and a
// collector that cannot be reached is no error. metrics may be nil.
func Start(ctx context.Context, cfg Config, version string, log *slog.Logger, metrics prometheus.Registerer) (*Tracing, error) {
	if cfg.Endpoint == "" {
		return &Tracing{provider: noop.NewTracerProvider()}, nil
	}
	exporter, err := newExporter(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	return start(newReporter(exporter, log, metrics), cfg.ratio(), version), nil
}

func start(exporter sdktrace.SpanExporter, ratio float64, version string) *Tracing {
	sdk := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, sdktrace.WithMaxQueueSize(queueSize), sdktrace.WithExportTimeout(exportFor)),
		sdktrace.WithSampler(sdktrace.ParentBased(linked{sdktrace.TraceIDRatioBased(ratio)})),
		sdktrace.WithResource(resource.NewSchemaless(
			semconv.ServiceName("notebookd"), semconv.ServiceVersion(version), semconv.ServiceInstanceID(uuid.NewString()))),
	)
	return &Tracing{provider: sdk, sdk: sdk}
}

func newExporter(ctx context.Context, cfg Config) (*otlptrace.Exporter, error) {
	tlsConfig, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	if cfg.Protocol == "http" {
		options := []otlptracehttp.Option{
			otlptracehttp.WithEndpoint(cfg.Endpoint), otlptracehttp.WithHeaders(cfg.headers()), otlptracehttp.WithTimeout(exportFor),
		}
		if cfg.Insecure {
			options = append(options, otlptracehttp.WithInsecure())
		} else {
			options = append(options, otlptracehttp.WithTLSClientConfig(tlsConfig))
		}
		return otlptracehttp.New(ctx, options...)
	}
	options := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpoint(cfg.Endpoint), otlptracegrpc.WithHeaders(cfg.headers()), otlptracegrpc.WithTimeout(exportFor),
	}
	if cfg.Insecure {
		options = append(options, otlptracegrpc.WithInsecure())
	} else {
		options = append(options, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(tlsConfig)))
	}
	return otlptracegrpc.New(ctx, options...)
}

// Provider makes tracers. It is never nil.
func (t *Tracing) Provider() trace.TracerProvider { return t.provider }

// On reports whether anything is traced.
func (t *Tracing) On() bool { return t.sdk != nil }

// Shutdown sends what is left, for as long as ctx lasts, and ends everything that
// Start has begun. It is called once, after the last span has ended.
func (t *Tracing) Shutdown(ctx context.Context) {
	if t.sdk != nil {
		_ = t.sdk.Shutdown(ctx) // what could not be sent was reported
	}
}

// linked samples a trace that begins here also when it is linked to one that is
// sampled, so that a poll is there for the call that waited for it.
type linked struct{ sdktrace.Sampler }

// ShouldSample implements sdktrace.Sampler.
func (l linked) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	result := l.Sampler.ShouldSample(p)
	for _, link := range p.Links {
		if link.SpanContext.IsSampled() {
			result.Decision = sdktrace.RecordAndSample
		}
	}
	return result
}

// reporter is an exporter whose failures are counted and logged, now and then,
// rather than told to the handler that all of the process share.
type reporter struct {
	sdktrace.SpanExporter
	log   *slog.Logger
	spans *prometheus.CounterVec

	failing time.Time // when a failure was last logged; the exporter has one caller at a time
}

// repeatAfter is when a failure that goes on is logged again.
const repeatAfter = 5 * time.Minute

func newReporter(exporter sdktrace.SpanExporter, log *slog.Logger, metrics prometheus.Registerer) *reporter {
	r := &reporter{SpanExporter: exporter, log: log}
	r.spans = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "notebookd_trace_spans_total",
		Help: "Spans by what became of them: exported, or failed because the collector did not take them. Those that found no room are not counted. Only with tracing on.",
	}, []string{"outcome"})
	r.spans.WithLabelValues("exported")
	r.spans.WithLabelValues("failed")
	if metrics != nil {
		metrics.MustRegister(r.spans)
	}
	return r
}

// ExportSpans implements sdktrace.SpanExporter.
func (r *reporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		r.spans.WithLabelValues("exported").Add(float64(len(spans)))
		if !r.failing.IsZero() {
			r.failing = time.Time{}
			r.log.Info("traces are sent again")
		}
		return nil
	}
	r.spans.WithLabelValues("failed").Add(float64(len(spans)))
	if time.Since(r.failing) > repeatAfter {
		r.failing = time.Now()
		// The text of the error may hold what was sent along.
		r.log.Warn("traces cannot be sent", "timeout", errors.Is(err, context.DeadlineExceeded))
	}
	return nil
}

// LogHandler returns a handler that adds the trace that a line belongs to.
func LogHandler(next slog.Handler) slog.Handler { return logHandler{next} }

type logHandler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h logHandler) Handle(ctx context.Context, record slog.Record) error {
	if id := trace.SpanContextFromContext(ctx).TraceID(); id.IsValid() {
		record.AddAttrs(slog.String("trace_id", id.String()))
	}
	return h.Handler.Handle(ctx, record)
}

// WithAttrs implements slog.Handler.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h logHandler) WithGroup(name string) slog.Handler { return logHandler{h.Handler.WithGroup(name)} }
