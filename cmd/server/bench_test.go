package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// hangBench is a server on simulated clouds, one of which can be made to hang.
type hangBench struct {
	notebookv1.NotebookServiceClient
	clouds notebookv1.CloudServiceClient
	fleet  *cloudsim.Fleet
}

func startHangBench(b *testing.B) *hangBench {
	b.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 100}) // in each of four locations
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(fleet.Close)
	// Calls that hang are given up soon, so that the blocks can follow each other.
	text := strings.ReplaceAll(fleet.ServerConfig(), "poll: {fast: 1s, normal: 2s, idle: 5s}", "poll: {fast: 1s, normal: 1s, idle: 1s}\n    timeout: 1s\n    breaker: {open_for: 1s}")
	cfg, err := parseConfig("bench.yaml", []byte(text+"log: {level: error}\ndrain: 1s\n"))
	if err != nil {
		b.Fatal(err)
	}
	cfg.GRPC.Address, cfg.HTTP.Address = "127.0.0.1:0", "127.0.0.1:0"
	ctx, stop := context.WithCancel(context.Background())
	s, err := newServer(ctx, cfg, loggerOf(cfg, &buffer{}))
	if err != nil {
		stop()
		b.Fatal(err)
	}
	if err := s.listen(ctx); err != nil {
		stop()
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		s.close()
	})
	conn, err := grpc.NewClient(s.grpcListener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	h := &hangBench{notebookv1.NewNotebookServiceClient(conn), notebookv1.NewCloudServiceClient(conn), fleet}
	h.until(b, "ready", s.inventory.Ready)
	return h
}

func (h *hangBench) until(b *testing.B, what string, ok func() bool) {
	b.Helper()
	if !eventually(b.Context(), 30*time.Second, ok) {
		b.Fatalf("still not: %s", what)
	}
}

// live reports whether all zones of the cloud that was made to hang are read
// again.
func (h *hangBench) live(b *testing.B) bool {
	b.Helper()
	resp, err := h.clouds.GetCloud(b.Context(), &notebookv1.GetCloudRequest{Name: "clouds/core"})
	if err != nil {
		b.Fatal(err)
	}
	return !slices.ContainsFunc(resp.GetCloud().GetLocations(), func(l *notebookv1.Location) bool {
		return l.GetState() != notebookv1.Location_STATE_LIVE
	})
}

// walk lists everything, page by page, until it has made a number of calls. It
// adds how long each took.
func (h *hangBench) walk(b *testing.B, calls int, took []time.Duration) []time.Duration {
	b.Helper()
	req := &notebookv1.ListRequest{PageSize: 100}
	for range calls {
		begin := time.Now()
		resp, err := h.List(b.Context(), req)
		took = append(took, time.Since(begin))
		if err != nil {
			b.Fatal(err)
		}
		if n := resp.GetTotalSize(); n < 380 || n > 420 {
			b.Fatalf("%d notebooks", n)
		}
		req.PageToken = resp.GetNextPageToken()
	}
	return took
}

func p99(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)*99/100]
}

// BenchmarkListWhileACloudHangs compares the latency of List over everything
// with all clouds well and with one that hangs: it is answered from memory, so
// the ratio should be 1. Blocks of both kinds alternate, so that whatever else
// the machine does meets both.
func BenchmarkListWhileACloudHangs(b *testing.B) {
	const (
		blocks = 12
		calls  = 1000 // in each block
	)
	h := startHangBench(b)
	var well, hanging []time.Duration
	h.walk(b, calls, nil) // caches and pools
	for b.Loop() {
		for range blocks {
			h.until(b, "live", func() bool { return h.live(b) })
			well = h.walk(b, calls, well)
			before := h.fleet.CoresHub.Calls("list")
			h.fleet.CoresHub.Break(cloudsim.Fault{Mode: cloudsim.ModeHang})
			h.until(b, "a call that hangs", func() bool { return h.fleet.CoresHub.Calls("list") > before })
			hanging = h.walk(b, calls, hanging)
			h.fleet.CoresHub.Heal()
		}
	}
	b.ReportMetric(float64(p99(hanging))/float64(p99(well)), "p99-ratio")
	b.ReportMetric(float64(p99(well).Microseconds()), "p99-well-µs")
	b.ReportMetric(float64(p99(hanging).Microseconds()), "p99-hanging-µs")
	b.ReportMetric(0, "ns/op") // an operation is all the blocks
}
