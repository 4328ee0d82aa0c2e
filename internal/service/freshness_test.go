package service

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream"
)

// startSlow is start with polls so rare that only forced reads happen.
func startSlow(t *testing.T, clouds map[string]*fakeCloud) *fixture {
	t.Helper()
	return startPolling(t, "", clouds, time.Hour)
}

func fresh(parent string) *notebookv1.ListRequest {
	return &notebookv1.ListRequest{Parent: parent, MaxStaleness: durationpb.New(0)}
}

func TestMaxStalenessForcesALiveRead(t *testing.T) {
	core := newFakeCloud("xb3")
	core.put("xb3", numbered(1)...)
	f := startSlow(t, map[string]*fakeCloud{"core": core})
	core.put("xb3", numbered(3)...)

	for _, tt := range []struct {
		name string
		req  *notebookv1.ListRequest
		want int
	}{
		{"without it", &notebookv1.ListRequest{}, 1},
		{"fresh enough", &notebookv1.ListRequest{MaxStaleness: durationpb.New(time.Minute)}, 1},
		{"live", fresh(""), 3},
	} {
		resp, err := f.List(t.Context(), tt.req)
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.GetNotebooks()) != tt.want || len(resp.GetUnreachable()) != 0 {
			t.Errorf("%s: %d notebooks, want %d; unreachable %v", tt.name, len(resp.GetNotebooks()), tt.want, resp.GetUnreachable())
		}
	}
}

// TestMaxStalenessIsSharedAndPaced: however many ask at once, the cloud is read
// once for those who came before the read began, and once more for the others.
func TestMaxStalenessIsSharedAndPaced(t *testing.T) {
	core := newFakeCloud("xb3")
	core.put("xb3", numbered(1)...)
	f := startSlow(t, map[string]*fakeCloud{"core": core})
	core.set(func(c *fakeCloud) { c.lists = 0 })
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := f.List(t.Context(), fresh("")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	core.set(func(c *fakeCloud) {
		if c.lists < 1 || c.lists > 2 {
			t.Errorf("50 callers caused %d reads", c.lists)
		}
	})
}

func TestMaxStalenessThatCannotBeMet(t *testing.T) {
	core, scnet := newFakeCloud("xb3"), newFakeCloud("11250")
	core.put("xb3", numbered(2)...)
	scnet.put("11250", numbered(1)...)
	f := startSlow(t, map[string]*fakeCloud{"core": core, "scnet": scnet})
	core.set(func(c *fakeCloud) {
		c.err, c.lists = &upstream.Error{Cloud: "core", Location: "xb3", Kind: upstream.KindUnavailable, Code: "HTTP 503"}, 0
	})

	resp, err := f.List(t.Context(), fresh(""))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"clouds/core/locations/xb3"}, resp.GetUnreachable()); diff != "" || len(resp.GetNotebooks()) != 3 {
		t.Errorf("%d notebooks, unreachable (-want +got):\n%s", len(resp.GetNotebooks()), diff)
	}
	for _, l := range resp.GetFreshness() {
		if want := strings.HasPrefix(l.GetLocation(), "clouds/core/"); l.GetStale() != want {
			t.Errorf("%s stale = %v", l.GetLocation(), l.GetStale())
		}
	}
	core.set(func(c *fakeCloud) {
		if c.lists != 2 {
			t.Errorf("%d reads, want one and its one repetition", c.lists)
		}
	})

	_, err = f.List(t.Context(), fresh("clouds/core"))
	wantError(t, err, codes.Unavailable, "CLOUD_UNAVAILABLE")

	// What is no fault of the cloud's is not tried again.
	core.set(func(c *fakeCloud) {
		c.err, c.lists = &upstream.Error{Cloud: "core", Location: "xb3", Kind: upstream.KindBudget, RetryAfter: time.Minute}, 0
	})
	_, err = f.List(t.Context(), fresh("clouds/core"))
	wantError(t, err, codes.Unavailable, "CALL_BUDGET_SPENT")
	core.set(func(c *fakeCloud) {
		if c.lists != 1 {
			t.Errorf("%d reads without a budget, want 1", c.lists)
		}
	})
}

// TestMaxStalenessLeavesTimeForTheAnswer: a cloud that hangs costs the caller
// its deadline, not its answer.
func TestMaxStalenessLeavesTimeForTheAnswer(t *testing.T) {
	core, scnet := newFakeCloud("xb3"), newFakeCloud("11250")
	core.put("xb3", numbered(2)...)
	scnet.put("11250", numbered(1)...)
	f := startSlow(t, map[string]*fakeCloud{"core": core, "scnet": scnet})
	hanging := make(chan struct{})
	core.set(func(c *fakeCloud) { c.hang = hanging })
	defer close(hanging)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	resp, err := f.List(ctx, fresh(""))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"clouds/core/locations/xb3"}, resp.GetUnreachable()); diff != "" || len(resp.GetNotebooks()) != 3 {
		t.Errorf("%d notebooks, unreachable (-want +got):\n%s", len(resp.GetNotebooks()), diff)
	}
}

func TestMaxStalenessOfADisabledLocation(t *testing.T) {
	core := newFakeCloud("xb3")
	core.put("xb3", numbered(2)...)
	core.locations = append(core.locations, upstream.Location{ID: "off", Disabled: "no service"})
	f := startSlow(t, map[string]*fakeCloud{"core": core})
	resp, err := f.List(t.Context(), fresh(""))
	if err != nil || len(resp.GetUnreachable()) != 0 {
		t.Errorf("unreachable %v, %v", resp.GetUnreachable(), err)
	}
}
