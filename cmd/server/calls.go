package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// calls counts and logs every call. Its metrics have the names and labels of
// go-grpc-middleware, whose interceptors look at every frame of a watch at several
// times the cost of sending it.
type calls struct {
	log     *slog.Logger
	methods map[string]*methodCalls // by full method; see count
}

// methodCalls are the metrics of one method.
type methodCalls struct {
	service, method, kind   string
	started, received, sent prometheus.Counter
	handled                 [codes.Unauthenticated + 1]prometheus.Counter // by code
	took                    prometheus.Observer                           // seconds
}

// count registers the metrics of all methods of a server, at zero. It is called
// before the first call, and without it no call is counted.
func (c *calls) count(registry prometheus.Registerer, services map[string]grpc.ServiceInfo) {
	c.methods = map[string]*methodCalls{}
	labels := []string{"grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		registry.MustRegister(vec)
		return vec
	}
	started := counter("grpc_server_started_total", "Calls that began.", labels...)
	received := counter("grpc_server_msg_received_total", "Messages that calls have brought.", labels...)
	sent := counter("grpc_server_msg_sent_total", "Messages that calls were answered with.", labels...)
	handled := counter("grpc_server_handled_total", "Calls that ended, by code.", append(labels, "grpc_code")...)
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "grpc_server_handling_seconds", Help: "How long calls took that ended.", Buckets: prometheus.DefBuckets,
	}, labels)
	registry.MustRegister(took)
	for service, info := range services {
		for _, method := range info.Methods {
			kind := "unary"
			switch {
			case method.IsClientStream && method.IsServerStream:
				kind = "bidi_stream"
			case method.IsClientStream:
				kind = "client_stream"
			case method.IsServerStream:
				kind = "server_stream"
			}
			m := &methodCalls{
				service: service, method: method.Name, kind: kind,
				started:  started.WithLabelValues(kind, service, method.Name),
				received: received.WithLabelValues(kind, service, method.Name),
				sent:     sent.WithLabelValues(kind, service, method.Name),
				took:     took.WithLabelValues(kind, service, method.Name),
			}
			for code := range m.handled {
				m.handled[code] = handled.WithLabelValues(kind, service, method.Name, codes.Code(code).String())
			}
			c.methods["/"+service+"/"+method.Name] = m
		}
	}
}

// record is what those further in find out about a call, for its line in the log.
type record struct {
	caller  string // who makes it; empty while that is not known
	limited bool   // it was refused because its caller calls too often
}

type recordKey struct{}

// begin notes the begin of a call, which goes on with the context that it returns.
// The caller calls end with its error.
func (c *calls) begin(ctx context.Context, fullMethod string) (_ context.Context, m *methodCalls, end func(error)) {
	m, ok := c.methods[fullMethod]
	if !ok { // interceptors are not asked about what no service has
		return ctx, &methodCalls{}, func(error) {}
	}
	m.started.Inc()
	began, found := time.Now(), &record{}
	return context.WithValue(ctx, recordKey{}, found), m, func(err error) {
		took := time.Since(began)
		code := status.Code(err)
		m.handled[min(code, codes.Unauthenticated)].Inc()
		m.took.Observe(took.Seconds())
		c.access(ctx, m, found, code, err, began, took)
	}
}

// access writes the line of a call in the log.
func (c *calls) access(ctx context.Context, m *methodCalls, found *record, code codes.Code, err error, began time.Time, took time.Duration) {
	level := levelOf(code)
	if found.limited {
		level = slog.LevelDebug // a flood is counted, and must not become one in the log
	}
	if !c.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs,
		slog.String("grpc.service", m.service), slog.String("grpc.method", m.method), slog.String("grpc.method_type", m.kind),
		slog.String("grpc.start_time", began.Format(time.RFC3339)), slog.String("grpc.code", code.String()))
	if p, ok := peer.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("peer.address", p.Addr.String()))
	}
	if found.caller != "" {
		attrs = append(attrs, slog.String("caller", found.caller))
	}
	if err != nil {
		attrs = append(attrs, slog.String("grpc.error", err.Error()))
	}
	attrs = append(attrs, slog.Float64("grpc.time_ms", float64(took.Microseconds())/1000))
	c.log.LogAttrs(ctx, level, "finished call", attrs...)
}

// levelOf is how bad a code is for those who run the server.
func levelOf(code codes.Code) slog.Level {
	switch code {
	case codes.OK, codes.Canceled, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.Unauthenticated:
		return slog.LevelInfo
	case codes.Unknown, codes.Unimplemented, codes.Internal, codes.DataLoss:
		return slog.LevelError
	default:
		return slog.LevelWarn
	}
}

func (c *calls) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, m, end := c.begin(ctx, info.FullMethod)
	if m.received != nil {
		m.received.Inc()
	}
	resp, err := handler(ctx, req)
	if err == nil && m.sent != nil {
		m.sent.Inc()
	}
	end(err)
	return resp, err
}

func (c *calls) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, m, end := c.begin(stream.Context(), info.FullMethod)
	if m.sent != nil {
		stream = &countedStream{stream, ctx, m}
	}
	err := handler(srv, stream)
	end(err)
	return err
}

// countedStream counts the messages of a stream.
type countedStream struct {
	grpc.ServerStream
	ctx   context.Context //nolint:containedctx // as grpc.ServerStream
	calls *methodCalls
}

// Context implements grpc.ServerStream.
func (s *countedStream) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream.
func (s *countedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.calls.received.Inc()
	}
	return err
}

// SendMsg implements grpc.ServerStream.
func (s *countedStream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if err == nil {
		s.calls.sent.Inc()
	}
	return err
}
