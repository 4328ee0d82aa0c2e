package service

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
)

// oneCloud is a cloud with one location, read when a test says so.
type oneCloud struct {
	*fickleCloud
	t *testing.T
	l *life
}

func startOne(t *testing.T, log kept) *oneCloud {
	t.Helper()
	c := &oneCloud{fickleCloud: newFickleCloud("core", "1"), t: t}
	c.start(log)
	c.l.until(t, "ready", c.l.inventory.Ready)
	return c
}

func (c *oneCloud) start(log kept) {
	c.t.Helper()
	c.l = beginLife(c.t, log, []*fickleCloud{c.fickleCloud})
}

// show lets the location have these notebooks, and lets it be seen.
func (c *oneCloud) show(list ...upstream.Notebook) {
	c.t.Helper()
	c.set(func(f *fakeCloud) { f.notebooks["1"] = append([]upstream.Notebook{}, list...) })
	for range 2 { // what is missing in both is gone
		if err := c.l.inventory.Refresh(c.t.Context(), "clouds/core/locations/1"); err != nil {
			c.t.Fatal(err)
		}
	}
}

// TestCameBackWhileAway: a notebook that a caller knows goes, comes back under
// the same id, and is not to be shown any more: the caller is told that it is gone
// or has left the filter, though the one that it knows was another.
func TestCameBackWhileAway(t *testing.T) {
	other := inState("x", upstream.StateStopped)
	for name, tt := range map[string]struct {
		filter string
		last   []upstream.Notebook
		want   []string
	}{
		"gone again":                  {"", []upstream.Notebook{other}, []string{"DELETED a"}},
		"gone again, with a filter":   {"state = RUNNING", []upstream.Notebook{other}, []string{"DELETED a"}},
		"back, but out of the filter": {"state = RUNNING", []upstream.Notebook{other, inState("a", upstream.StateFailed)}, []string{"LEFT_FILTER a"}},
		"back":                        {"", []upstream.Notebook{other, inState("a", upstream.StateFailed)}, []string{"MODIFIED a"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := startOne(t, kept{})
			c.show(inState("a", upstream.StateRunning), other)
			first, err := c.l.List(t.Context(), &notebookv1.ListRequest{Filter: tt.filter})
			if err != nil {
				t.Fatal(err)
			}
			c.show(other)
			c.show(other, inState("a", upstream.StateStarting), inState("b", upstream.StateStopped))
			c.show(append(slices.Clone(tt.last), inState("b", upstream.StateStopped))...)
			w := watch(t, c.l.fixture, &notebookv1.WatchRequest{Filter: tt.filter, ResumeToken: first.GetResumeToken()})
			var got []string
			for {
				frame := w.next()
				if frame.GetBookmark() != nil {
					break
				}
				if e := frame.GetNotebook(); e != nil && short(e) != "ADDED b" {
					got = append(got, short(e))
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCameBackBetweenCutWalks: a caller that was cut twice has come past both ends
// of the life in which it heard of the notebook.
func TestCameBackBetweenCutWalks(t *testing.T) {
	c := startOne(t, kept{})
	a := inState("a", upstream.StateRunning)
	c.show(inState("x", upstream.StateRunning))    // revision 1: all of it is known
	c.show(inState("x", upstream.StateRunning), a) // 2: told, and then the walk is cut
	c.show(inState("x", upstream.StateRunning))    // 3: not told, since
	c.show(inState("x", upstream.StateStopped))    // 4: the next walk, which is cut here,
	c.show(inState("x", upstream.StateStopped), a) // 5: finds it at this one
	c.show(inState("x", upstream.StateStopped))    // 6
	token := c.l.inventory.Tokens().Resume("/", inventory.Resume{Epoch: c.l.inventory.Epoch(), View: c.l.view(), Revision: 4, Base: 1, Time: time.Now()})
	w := watch(t, c.l.fixture, &notebookv1.WatchRequest{ResumeToken: token})
	for {
		frame := w.next()
		if e := frame.GetNotebook(); e != nil && short(e) == "DELETED a" {
			return
		}
		if frame.GetBookmark() != nil {
			t.Fatal("a stays for ever")
		}
	}
}

// TestCameBackAfterItWasForgotten: the log has forgotten the deletion, the store
// not yet.
func TestCameBackAfterItWasForgotten(t *testing.T) {
	c := startOne(t, kept{tombstones: time.Second})
	a, b := inState("a", upstream.StateRunning), inState("b", upstream.StateRunning)
	c.show(a, b)
	c.show(b)
	// Nothing tells when the log forgets: it has until twice the time.
	time.Sleep(2 * time.Second)
	c.show(a, b) // fails when it cannot be written
}

// TestRestartAfterItWasForgotten: the newest message of the log was a deletion
// that is forgotten. The service starts as fast as ever, and tokens stay good.
func TestRestartAfterItWasForgotten(t *testing.T) {
	log := kept{tombstones: 2 * time.Second, dataDir: t.TempDir()}
	c := startOne(t, log)
	a, b := inState("a", upstream.StateRunning), inState("b", upstream.StateRunning)
	c.show(a, b)
	c.show(b)
	time.Sleep(4 * time.Second) // see above
	resp, err := c.l.List(t.Context(), &notebookv1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	c.l.stop()
	begun := time.Now()
	c.start(log)
	w := watch(t, c.l.fixture, &notebookv1.WatchRequest{ResumeToken: resp.GetResumeToken()})
	if frame := w.next(); frame.GetReset_() != nil {
		t.Errorf("first frame = %v", frame)
	}
	c.l.until(t, "ready", c.l.inventory.Ready)
	if d := time.Since(begun); d > 4*time.Second {
		t.Errorf("it took %v to start", d)
	}
}

// TestWatchWaitsForTheLog: who comes before the log was read is answered from
// all of it.
func TestWatchWaitsForTheLog(t *testing.T) {
	const rows = 10000
	log := kept{dataDir: t.TempDir()}
	c := startOne(t, log)
	c.show(numbered(rows)...)
	c.l.stop()
	defer c.holdDiscovery()()
	c.start(log)
	w := watch(t, c.l.fixture, &notebookv1.WatchRequest{})
	w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
	resp, err := c.l.List(t.Context(), &notebookv1.ListRequest{})
	if err != nil || len(w.state) != rows || resp.GetTotalSize() != rows {
		t.Errorf("%d of %d notebooks in the snapshot, %d in the list, %v", len(w.state), rows, resp.GetTotalSize(), err)
	}
}
