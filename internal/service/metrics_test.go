package service

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream"
)

// told is what the metrics of watches say: how many are open, how many ended by
// reason, without those that are none, and how many batches were measured.
func (m *metrics) told(t *testing.T) (open int, ended map[string]int, lags int) {
	t.Helper()
	value := func(metric prometheus.Metric) *dto.Metric {
		out := &dto.Metric{}
		if err := metric.Write(out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	ended = map[string]int{}
	for reason, counter := range m.ended {
		if n := int(value(counter).GetCounter().GetValue()); n > 0 {
			ended[reason] = n
		}
	}
	return int(value(m.open).GetGauge().GetValue()), ended, int(value(m.lag).GetHistogram().GetSampleCount())
}

// TestWatchesAreCounted: each watch is counted once, with why it ended, whichever
// way it is called; one that is refused is not.
func TestWatchesAreCounted(t *testing.T) {
	t.Parallel()
	cloud := newFakeCloud("xb3")
	cloud.put("xb3", numbered(3)...)
	f := start(t, "", map[string]*fakeCloud{"core": cloud})
	registry := prometheus.NewRegistry()
	m := newMetrics(registry)
	f.service.metrics = m
	local := func(ctx context.Context, send func(*Frame) error) error {
		return f.service.WatchInProcess(ctx, &notebookv1.WatchRequest{}, nil, send)
	}
	take := func(*Frame) error { return nil }
	wantEnded := func(want map[string]int) {
		t.Helper()
		f.until(t, "no watch is open", func() bool { open, _, _ := m.told(t); return open == 0 })
		if _, got, _ := m.told(t); !maps.Equal(got, want) {
			t.Errorf("ended (-want +got):\n%s", cmp.Diff(want, got))
		}
	}

	// Refused.
	refused, err := f.Watch(t.Context(), &notebookv1.WatchRequest{Filter: "state ="})
	if err == nil {
		_, err = refused.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Fatal(err)
	}
	wantEnded(map[string]int{})

	// It leaves, over a connection and in the process.
	w := watch(t, f, &notebookv1.WatchRequest{})
	for w.next().GetBookmark() == nil {
		continue
	}
	if open, _, _ := m.told(t); open != 1 {
		t.Errorf("%d watches are open", open)
	}
	w.cancel()
	ctx, cancel := context.WithCancel(t.Context())
	if err := local(ctx, func(*Frame) error { cancel(); return nil }); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	wantEnded(map[string]int{endCallerLeft: 2})

	// It does not read, or may not go on, or meets a fault of ours.
	if err := local(t.Context(), func(*Frame) error { return os.ErrDeadlineExceeded }); status.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	}
	for _, code := range []codes.Code{codes.PermissionDenied, codes.Internal} {
		if err := local(t.Context(), func(*Frame) error { return status.Error(code, "x") }); status.Code(err) != code {
			t.Error(err)
		}
	}
	func() {
		defer func() { _ = recover() }()
		_ = local(t.Context(), func(*Frame) error { panic("x") })
	}()
	wantEnded(map[string]int{endCallerLeft: 2, endSlowReader: 1, endPermission: 1, endError: 2})

	// Its time is over, and then the server's.
	f.service.limits().MaxLifetime = time.Millisecond
	if err := local(t.Context(), take); err != nil {
		t.Error(err)
	}
	f.service.limits().MaxLifetime = time.Hour
	drained := make(chan error, 1)
	go func() { drained <- local(t.Context(), take) }()
	f.until(t, "a watch is open", func() bool { open, _, _ := m.told(t); return open == 1 })
	f.service.Drain(0)
	if err := <-drained; err != nil {
		t.Error(err)
	}
	wantEnded(map[string]int{endCallerLeft: 2, endSlowReader: 1, endPermission: 1, endError: 2, endClosing: 1, endDraining: 1})

	// All reasons are there from the beginning, so that an increase is one.
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "notebookd_watches_ended_total" {
			var reasons []string
			for _, metric := range family.GetMetric() {
				reasons = append(reasons, metric.GetLabel()[0].GetValue())
			}
			want := []string{endCallerLeft, endClosing, endDraining, endError, endPermission, endSlowReader}
			if !slices.Equal(reasons, want) || !strings.Contains(family.GetHelp(), "slow_reader") {
				t.Errorf("reasons %v", reasons)
			}
		}
	}
}

// TestSlowReaderIsCounted: a watch over a connection that is cut has its reason.
func TestSlowReaderIsCounted(t *testing.T) {
	t.Parallel()
	cloud := newFakeCloud("xb3")
	cloud.put("xb3", numbered(3)...)
	f := start(t, "", map[string]*fakeCloud{"core": cloud})
	f.service.metrics = newMetrics(prometheus.NewRegistry())
	f.service.limits().SlowReader = 50 * time.Millisecond
	release := make(chan struct{}) // closed by this test
	err := f.service.watchGuarded(t.Context(), &notebookv1.WatchRequest{}, func(*Frame) error { <-release; return os.ErrClosed })
	close(release)
	if status.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	}
	if open, ended, _ := f.service.metrics.told(t); open != 0 || !maps.Equal(ended, map[string]int{endSlowReader: 1}) {
		t.Errorf("%d open, ended %v", open, ended)
	}
}

// TestLagIsMeasuredByBatch: what a poll brings is measured once for each watch,
// however many frames it is, and a watch that was stuck tells for how long.
func TestLagIsMeasuredByBatch(t *testing.T) {
	t.Parallel()
	cloud := newFakeCloud("xb3")
	cloud.put("xb3", numbered(20)...)
	f := startPolling(t, "", map[string]*fakeCloud{"core": cloud}, time.Hour)
	m := newMetrics(prometheus.NewRegistry())
	f.service.metrics = m
	const stuck = 300 * time.Millisecond
	begun, events := make(chan struct{}), 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- f.service.WatchInProcess(ctx, &notebookv1.WatchRequest{}, nil, func(frame *Frame) error {
			message := frame.message()
			switch {
			case message.GetBookmark().GetKind() == notebookv1.Bookmark_KIND_SNAPSHOT_END:
				close(begun)
			case message.GetNotebook() != nil && !message.GetNotebook().GetInitial():
				if events++; events == 1 {
					time.Sleep(stuck)
				}
			}
			return nil
		})
	}()
	<-begun
	changed := numbered(20)
	for i := range changed {
		changed[i].DisplayName = "renamed"
		changed[i].State = upstream.StateStopped
	}
	cloud.put("xb3", changed...)
	if err := f.inventory.Refresh(t.Context(), "clouds/core/locations/xb3"); err != nil {
		t.Fatal(err)
	}
	f.until(t, "the batch was sent", func() bool { _, _, lags := m.told(t); return lags > 0 })
	cancel()
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	out := &dto.Metric{}
	if err := m.lag.Write(out); err != nil {
		t.Fatal(err)
	}
	if n, sum := out.GetHistogram().GetSampleCount(), out.GetHistogram().GetSampleSum(); events != 20 || n != 1 || sum < stuck.Seconds() || sum > 10 {
		t.Errorf("%d events were measured %d times, as %v s", events, n, sum)
	}
}
