package main

import (
	"bufio"
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protojson"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// lines opens a watch over REST.
func (p *process) lines(t *testing.T, path string) *bufio.Scanner {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("content type %q", got)
	}
	scanner := bufio.NewScanner(resp.Body)
	scanner.Buffer(nil, 1<<20)
	return scanner
}

// nextLine returns the next frame of a watch over REST, or nil at its end.
func nextLine(t *testing.T, lines *bufio.Scanner) *notebookv1.WatchResponse {
	t.Helper()
	if !lines.Scan() {
		return nil
	}
	text, ok := strings.CutPrefix(lines.Text(), `{"result":`)
	if !ok {
		t.Fatalf("line %q", lines.Text())
	}
	frame := &notebookv1.WatchResponse{}
	if err := protojson.Unmarshal([]byte(strings.TrimSuffix(text, "}")), frame); err != nil {
		t.Fatalf("line %q: %v", lines.Text(), err)
	}
	return frame
}

// TestStopWithOpenWatches: SIGTERM tells every watch, over both doors, where to
// go on, and the process is gone in time.
func TestStopWithOpenWatches(t *testing.T) {
	t.Parallel()
	_, clouds := startVendorClouds(t)
	p := start(t, vendorConfig(clouds.URL, ""))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	var streams []grpc.ServerStreamingClient[notebookv1.WatchResponse]
	for range 10 {
		stream, err := p.Watch(ctx, &notebookv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		streams = append(streams, stream)
	}
	lines := p.lines(t, "/v1/notebooks:watch")
	if nextLine(t, lines).GetLocation() == nil {
		t.Error("the first line is no location")
	}
	started := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- p.stop() }()

	last := func(next func() *notebookv1.WatchResponse) (frame *notebookv1.WatchResponse) {
		for f := next(); f != nil; f = next() {
			frame = f
		}
		return frame
	}
	var ends []*notebookv1.WatchResponse
	for _, stream := range streams {
		ends = append(ends, last(func() *notebookv1.WatchResponse { f, _ := stream.Recv(); return f }))
	}
	ends = append(ends, last(func() *notebookv1.WatchResponse { return nextLine(t, lines) }))
	for _, end := range ends {
		if end.GetBookmark().GetKind() != notebookv1.Bookmark_KIND_CLOSING || end.GetResumeToken() == "" {
			t.Errorf("last frame = %v", end)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if took := time.Since(started); took > p.server.cfg.Drain+5*time.Second {
		t.Errorf("stopping took %v with a drain time of %v", took, p.server.cfg.Drain)
	}
}

// TestOneCloudStopped: the other cloud's part of every answer is untouched.
func TestOneCloudStopped(t *testing.T) {
	_, core := startVendorClouds(t)
	_, scnet := startVendorClouds(t)
	config := vendorConfig(core.URL, "")
	p := start(t, strings.Replace(config, `endpoint: "`+core.URL+`"`, `endpoint: "`+scnet.URL+`"`, 1))
	health := healthpb.NewHealthClient(p.conn)
	serving := func(name string) bool {
		resp, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetStatus() == healthpb.HealthCheckResponse_SERVING
	}
	if !serving("") || !serving("clouds/core") || !serving("clouds/scnet") {
		t.Error("not everything serves at first")
	}
	core.CloseClientConnections()
	core.Close()
	const location = "clouds/core/locations/xb3"
	p.until(t, "core unreachable", func() bool {
		resp, err := p.List(t.Context(), &notebookv1.ListRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.GetNotebooks()) != 2 {
			t.Fatalf("%d notebooks while a cloud went down", len(resp.GetNotebooks()))
		}
		for _, f := range resp.GetFreshness() {
			if strings.HasPrefix(f.GetLocation(), "clouds/scnet/") && f.GetStale() {
				t.Fatal("the other cloud is stale")
			}
		}
		return slices.Equal(resp.GetUnreachable(), []string{location})
	})
	p.until(t, "health of core", func() bool { return !serving("clouds/core") })
	if !serving("") || !serving("clouds/scnet") {
		t.Error("one cloud took more than itself down")
	}
	if code, _ := p.get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("readyz: %d", code)
	}
}

// TestStopWithReadersThatNeverRead: whoever does not even take its last frame
// cannot hold the process.
func TestStopWithReadersThatNeverRead(t *testing.T) {
	t.Parallel()
	fleet, err := cloudsim.Start(cloudsim.Config{Notebooks: 600})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	p := start(t, "drain: 1s\n"+fleet.ServerConfig())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range 3 {
		stream, err := p.Watch(ctx, &notebookv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		// One frame, so that it has begun; the snapshot is far larger than what
		// the connection takes unread.
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	p.lines(t, "/v1/notebooks:watch")
	started := time.Now()
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(started); took > p.server.cfg.Drain+5*time.Second {
		t.Errorf("stopping took %v with a drain time of %v", took, p.server.cfg.Drain)
	}
}
