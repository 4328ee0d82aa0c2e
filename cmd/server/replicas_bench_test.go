package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/natstest"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// BenchmarkNewReplica puts 100,000 notebooks into a NATS cluster of three nodes
// through one replica. It reports how long another one takes from its start until
// it is ready, what it holds in memory, and how much later a watcher of it is told
// of a change than a watcher of the replica that polls.
func BenchmarkNewReplica(b *testing.B) {
	const perLocation, changes = 25000, 40
	fleet, err := cloudsim.Start(cloudsim.Config{Notebooks: perLocation})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(fleet.Close)
	nats := natstest.Start(b, 3)
	// Nothing is polled by itself, so that what is measured is not the poll.
	config := fmt.Sprintf("store: {nats_url: %q}\n", strings.Join(nats.URLs(), ",")) + strings.NewReplacer(
		"poll: {fast: 1s, normal: 2s, idle: 5s}", "poll: {fast: 1h, normal: 1h, idle: 1h}\n    timeout: 60s", "calls_per_hour: 20000", "calls_per_hour: 1000000",
	).Replace(fleet.ServerConfig())
	first := startChild(b, config)
	first.untilReady(b)
	notebooks := notebookv1.NewNotebookServiceClient(first.dial(b))
	total := int32(0)
	if !eventually(b.Context(), 5*time.Minute, func() bool {
		if resp, err := notebooks.List(b.Context(), &notebookv1.ListRequest{PageSize: 1}); err == nil {
			total = resp.GetTotalSize()
		}
		return total >= 4*perLocation-1000
	}) {
		b.Fatalf("%d notebooks", total)
	}
	name := "clouds/core/locations/xb3/notebooks/" + cloudsim.CoresHubNotebook
	for b.Loop() {
		began := time.Now()
		second := startChild(b, config)
		second.untilReady(b)
		b.ReportMetric(time.Since(began).Seconds(), "s-to-ready")
		b.ReportMetric(second.memory(b)/float64(total), "B/notebook")
		b.ReportMetric(float64(total), "notebooks")
		here, there := arrivals(b, first, name), arrivals(b, second, name)
		var late []time.Duration
		for i := range changes {
			if _, err := notebooks.ChangeImage(b.Context(), &notebookv1.ChangeImageRequest{
				Name: name, Image: fmt.Sprintf("registry.example.com/team/bench:%d", i), ImageType: "custom",
			}); err != nil {
				b.Fatal(err)
			}
			late = append(late, (<-there).Sub(<-here))
		}
		slices.Sort(late)
		b.ReportMetric(float64(late[len(late)/2].Microseconds())/1000, "ms-later-p50")
		b.ReportMetric(float64(late[len(late)*95/100].Microseconds())/1000, "ms-later-p95")
		second.kill(b)
	}
}

// arrivals is when a watcher of a server is told of each change of a notebook's
// image. It has room for all of them.
func arrivals(b *testing.B, c *child, name string) <-chan time.Time {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	stream, err := notebookv1.NewNotebookServiceClient(c.dial(b)).Watch(ctx, &notebookv1.WatchRequest{
		Parent: "clouds/core/locations/xb3", Snapshot: notebookv1.WatchRequest_SNAPSHOT_SKIP,
	})
	if err != nil {
		b.Fatal(err)
	}
	for { // all that comes before the changes
		frame, err := stream.Recv()
		if err != nil {
			b.Fatal(err)
		}
		if frame.GetBookmark() != nil {
			break
		}
	}
	out := make(chan time.Time, 1000)
	go func() { // ends with the stream
		for {
			frame, err := stream.Recv()
			if err != nil {
				return
			}
			if n := frame.GetNotebook(); n.GetNotebook().GetName() == name && slices.Contains(n.GetChangedFields(), "image.uri") {
				out <- time.Now()
			}
		}
	}()
	return out
}
