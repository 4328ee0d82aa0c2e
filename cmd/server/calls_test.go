package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// endless is a stream that takes and gives anything, until it fails.
type endless struct {
	grpc.ServerStream
	err error
}

func (endless) Context() context.Context { return context.Background() }
func (e endless) SendMsg(any) error      { return e.err }
func (e endless) RecvMsg(any) error      { return e.err }

// TestCalls: calls are counted by method and code, messages only when they were
// sent, and each call has one line in the log, at a level that depends on its code.
func TestCalls(t *testing.T) {
	registry, text := prometheus.NewRegistry(), &bytes.Buffer{}
	c := &calls{log: slog.New(slog.NewTextHandler(text, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	c.count(registry, map[string]grpc.ServiceInfo{"s.S": {Methods: []grpc.MethodInfo{{Name: "List"}, {Name: "Watch", IsServerStream: true}}}})
	unary := func(method string, err error) {
		_, got := c.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return nil, err })
		if got != err { //nolint:errorlint // the same one
			t.Errorf("%s: error %v, want %v", method, got, err)
		}
	}
	unary("/s.S/List", nil)
	unary("/s.S/List", status.Error(codes.NotFound, "not there"))
	unary("/s.S/List", status.Error(codes.Unavailable, "away"))
	unary("/s.S/List", status.Error(codes.Code(99), "odd"))
	unary("/of.Nobody/Knows", nil)
	for _, stream := range []endless{{}, {err: status.Error(codes.Internal, "broken")}} {
		err := c.stream(nil, stream, &grpc.StreamServerInfo{FullMethod: "/s.S/Watch"}, func(_ any, s grpc.ServerStream) error {
			if err := s.RecvMsg(nil); err != nil {
				return err
			}
			return s.SendMsg(nil)
		})
		if err != stream.err { //nolint:errorlint // as above
			t.Errorf("stream: %v", err)
		}
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP grpc_server_started_total Calls that began.
# TYPE grpc_server_started_total counter
grpc_server_started_total{grpc_method="List",grpc_service="s.S",grpc_type="unary"} 4
grpc_server_started_total{grpc_method="Watch",grpc_service="s.S",grpc_type="server_stream"} 2
# HELP grpc_server_msg_received_total Messages that calls have brought.
# TYPE grpc_server_msg_received_total counter
grpc_server_msg_received_total{grpc_method="List",grpc_service="s.S",grpc_type="unary"} 4
grpc_server_msg_received_total{grpc_method="Watch",grpc_service="s.S",grpc_type="server_stream"} 1
# HELP grpc_server_msg_sent_total Messages that calls were answered with.
# TYPE grpc_server_msg_sent_total counter
grpc_server_msg_sent_total{grpc_method="List",grpc_service="s.S",grpc_type="unary"} 1
grpc_server_msg_sent_total{grpc_method="Watch",grpc_service="s.S",grpc_type="server_stream"} 1
`), "grpc_server_started_total", "grpc_server_msg_received_total", "grpc_server_msg_sent_total"); err != nil {
		t.Error(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	handled := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			switch name := family.GetName(); name {
			case "grpc_server_handled_total":
				for _, label := range m.GetLabel() {
					if label.GetName() == "grpc_code" {
						handled[label.GetValue()] += m.GetCounter().GetValue()
					}
				}
			case "grpc_server_handling_seconds":
				handled["took"] += float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	for code, want := range map[string]float64{"OK": 2, "NotFound": 1, "Unavailable": 1, "Internal": 1, "Unauthenticated": 1, "took": 6} {
		if handled[code] != want {
			t.Errorf("%s: %v, want %v", code, handled[code], want)
		}
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("log:\n%s", text)
	}
	for i, want := range [][]string{
		{"level=WARN", `msg="finished call"`, "grpc.method=List", "grpc.code=Unavailable", "away", "grpc.time_ms="},
		{"level=WARN", "grpc.code=Code(99)"},
		{"level=ERROR", "grpc.method=Watch", "grpc.method_type=server_stream", "grpc.code=Internal", "broken"},
	} {
		for _, part := range want {
			if !strings.Contains(lines[i], part) {
				t.Errorf("line %q without %q", lines[i], part)
			}
		}
	}
}
