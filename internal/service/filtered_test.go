package service

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
)

func inState(id string, state upstream.State) upstream.Notebook {
	return upstream.Notebook{ID: id, State: state, DisplayName: id}
}

// short is an event as "TYPE id".
func short(e *notebookv1.NotebookEvent) string {
	name := e.GetNotebook().GetName()
	return fmt.Sprintf("%s %s", e.GetType().String()[len("TYPE_"):], name[len(name)-1:])
}

// TestWatchFilter: a filter looks at both sides of a change.
func TestWatchFilter(t *testing.T) {
	core := newFakeCloud("xb3")
	a, b, c, d := inState("a", upstream.StateRunning), inState("b", upstream.StateStopped), inState("c", upstream.StateRunning), inState("d", upstream.StateStopped)
	core.put("xb3", a, b, c, d)
	f := start(t, "", map[string]*fakeCloud{"core": core})
	for _, snapshot := range []notebookv1.WatchRequest_Snapshot{notebookv1.WatchRequest_SNAPSHOT_INCLUDE, notebookv1.WatchRequest_SNAPSHOT_SKIP} {
		t.Run(snapshot.String(), func(t *testing.T) {
			core.put("xb3", a, b, c, d)
			f.until(t, "four as before", func() bool {
				resp, err := f.List(t.Context(), &notebookv1.ListRequest{Filter: "state = RUNNING"})
				return err == nil && len(resp.GetNotebooks()) == 2 && resp.GetTotalSize() == 2
			})
			w := watch(t, f, &notebookv1.WatchRequest{Filter: "state = RUNNING", Snapshot: snapshot})
			w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
			want := 2
			if snapshot == notebookv1.WatchRequest_SNAPSHOT_SKIP {
				want = 0
			}
			if len(w.state) != want {
				t.Errorf("the snapshot has %d notebooks, want %d", len(w.state), want)
			}
			// a stays and changes, b comes in, c leaves the filter, d changes unseen.
			core.put("xb3", upstream.Notebook{ID: "a", State: upstream.StateRunning, DisplayName: "A"}, inState("b", upstream.StateRunning),
				inState("c", upstream.StateStopped), upstream.Notebook{ID: "d", State: upstream.StateFailed, DisplayName: "d"})
			var got []string
			for range 3 {
				got = append(got, short(w.nextNotebook()))
			}
			slices.Sort(got)
			if diff := cmp.Diff([]string{"ADDED b", "LEFT_FILTER c", "MODIFIED a"}, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			// d and c go away unseen, b is deleted.
			core.put("xb3", upstream.Notebook{ID: "a", State: upstream.StateRunning, DisplayName: "A"})
			if got := short(w.nextNotebook()); got != "DELETED b" {
				t.Errorf("event %s, want DELETED b", got)
			}
			core.put("xb3", upstream.Notebook{ID: "a", State: upstream.StateRunning, DisplayName: "AA"})
			if got := short(w.nextNotebook()); got != "MODIFIED a" {
				t.Errorf("event %s, want MODIFIED a", got)
			}
		})
	}
}

// TestResumeWithFilter: what changed meanwhile is told; whether it matched
// before cannot be known, so that it may leave unseen.
func TestResumeWithFilter(t *testing.T) {
	core := newFakeCloud("xb3")
	core.put("xb3", inState("a", upstream.StateRunning), inState("b", upstream.StateRunning), inState("c", upstream.StateStopped), inState("d", upstream.StateRunning))
	f := start(t, "", map[string]*fakeCloud{"core": core})
	const filter = "state=RUNNING"
	first, err := f.List(t.Context(), &notebookv1.ListRequest{Filter: filter})
	if err != nil {
		t.Fatal(err)
	}
	core.put("xb3", inState("a", upstream.StateRunning), inState("b", upstream.StateStopped), inState("c", upstream.StateFailed), inState("e", upstream.StateRunning),
		inState("f", upstream.StateStopped))
	f.until(t, "the changes", func() bool {
		_, gone := f.inventory.Snapshot().Get("clouds/core/locations/xb3/notebooks/d")
		_, there := f.inventory.Snapshot().Get("clouds/core/locations/xb3/notebooks/e")
		return !gone && there
	})
	// The same filter in another spelling.
	w := watch(t, f, &notebookv1.WatchRequest{Filter: "(state  =  \"RUNNING\")", ResumeToken: first.GetResumeToken()})
	var got []string
	for {
		frame := w.next()
		if frame.GetBookmark() != nil {
			break
		}
		if e := frame.GetNotebook(); e != nil {
			got = append(got, short(e))
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"ADDED e", "DELETED d", "LEFT_FILTER b", "LEFT_FILTER c"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	// From here on it is certain again.
	core.put("xb3", inState("a", upstream.StateStopped), inState("b", upstream.StateStarting), inState("c", upstream.StateFailed), inState("e", upstream.StateRunning))
	if got := short(w.nextNotebook()); got != "LEFT_FILTER a" {
		t.Errorf("event %s, want LEFT_FILTER a", got)
	}

	_, err = f.List(t.Context(), &notebookv1.ListRequest{Filter: "stat = RUNNING"})
	wantError(t, err, codes.InvalidArgument, "FILTER_INVALID")
	stream, err := f.Watch(t.Context(), &notebookv1.WatchRequest{Filter: "state = RUNNING", Parent: "clouds/core", ResumeToken: first.GetResumeToken()})
	if err == nil {
		_, err = stream.Recv()
	}
	wantError(t, err, codes.InvalidArgument, "RESUME_TOKEN_INVALID")
}

// TestOrderedPages: rows that exist throughout come exactly once, in order,
// though their own values change between pages; and again without the pinned
// moment, as long as their values stay.
func TestOrderedPages(t *testing.T) {
	core := newFakeCloud("xb3")
	stay := numbered(40)
	for i := range stay {
		stay[i].DisplayName = fmt.Sprintf("%02d", (i*7)%40)
	}
	core.put("xb3", slices.Clone(stay)...)
	f := startPolling(t, "", map[string]*fakeCloud{"core": core}, 20*time.Millisecond)
	for _, pinned := range []bool{true, false} {
		var got []string
		token := ""
		for pages := 0; ; pages++ {
			resp, err := f.List(t.Context(), &notebookv1.ListRequest{OrderBy: "display_name desc", PageSize: 7, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range resp.GetNotebooks() {
				got = append(got, n.GetDisplayName())
			}
			if token = resp.GetNextPageToken(); token == "" {
				break
			}
			if pinned { // everything that is sorted by changes
				for i := range stay {
					stay[i].DisplayName = fmt.Sprintf("%02d", (i*7+pages+1)%40)
				}
				core.put("xb3", slices.Clone(stay)...)
				revision := f.inventory.Snapshot().Revision()
				f.until(t, "new names", func() bool { return f.inventory.Snapshot().Revision() > revision })
			} else {
				f.service.pins = pins{}
			}
		}
		want := make([]string, 40)
		for i := range want {
			want[i] = fmt.Sprintf("%02d", 39-i)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pinned %v: display names (-want +got):\n%s", pinned, diff)
		}
	}
	_, err := f.List(t.Context(), &notebookv1.ListRequest{OrderBy: "etag"})
	wantError(t, err, codes.InvalidArgument, "FILTER_INVALID")
}

func TestPinsAreBounded(t *testing.T) {
	var p pins
	inv := inventory.New(inventory.Config{})
	for range 3 {
		p.put(inv.Snapshot()) // one and the same
	}
	if len(p.list) != 1 || p.get(inv.Snapshot().Revision()) == nil || p.get(99) != nil {
		t.Errorf("%d snapshots are kept", len(p.list))
	}
	p.list[0].until = time.Time{}
	for i := range 2 * maxPins {
		p.list = append(p.list, pin{p.list[0].snapshot, time.Now().Add(time.Duration(i+1) * time.Minute)})
	}
	p.put(inv.Snapshot())
	if len(p.list) > maxPins {
		t.Errorf("%d snapshots are kept", len(p.list))
	}
}

// TestWatchLimits: too many watches of one caller are refused, and one that has
// lived long enough is told to come again.
func TestWatchLimits(t *testing.T) {
	core := newFakeCloud("xb3")
	f := start(t, "", map[string]*fakeCloud{"core": core})
	f.service.limits().MaxPerCaller = 2
	f.service.limits().MaxLifetime = 300 * time.Millisecond
	for range 2 {
		w := watch(t, f, &notebookv1.WatchRequest{})
		if k := w.next(); k.GetLocation() == nil {
			t.Errorf("first frame = %v", k)
		}
		defer w.untilBookmark(notebookv1.Bookmark_KIND_CLOSING)
	}
	stream, err := f.Watch(t.Context(), &notebookv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantError(t, err, codes.ResourceExhausted, "TOO_MANY_WATCHES")
	f.until(t, "room again", func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := f.Watch(ctx, &notebookv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		return err == nil
	})
}

// TestSlowReader: a reader that takes nothing is ended, and its last token goes
// on without a gap.
func TestSlowReader(t *testing.T) {
	core := newFakeCloud("xb3")
	big := numbered(2000)
	for i := range big {
		big[i].StateMessage = fmt.Sprintf("%01000d", i)
	}
	core.put("xb3", slices.Clone(big)...)
	f := start(t, "", map[string]*fakeCloud{"core": core})
	f.service.limits().SlowReader = 200 * time.Millisecond
	w := watch(t, f, &notebookv1.WatchRequest{Snapshot: notebookv1.WatchRequest_SNAPSHOT_SKIP})
	w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
	token := w.token
	for i := range big {
		big[i].StateMessage += "!"
	}
	core.put("xb3", slices.Clone(big)...)
	f.until(t, "the watch is ended", func() bool {
		f.service.callers.mu.Lock()
		defer f.service.callers.mu.Unlock()
		return len(f.service.callers.open) == 0
	})
	var err error
	told := 0
	for err == nil { // what was on its way arrives, and then the reason
		var frame *notebookv1.WatchResponse
		if frame, err = w.stream.Recv(); err == nil {
			token = frame.GetResumeToken()
			if frame.GetNotebook() != nil {
				told++
			}
		}
	}
	wantError(t, err, codes.ResourceExhausted, "SLOW_READER")
	if told >= len(big) {
		t.Fatalf("all %d events were taken: the reader was not slow", told)
	}
	f.service.limits().SlowReader = time.Minute
	w = watch(t, f, &notebookv1.WatchRequest{ResumeToken: token})
	for told < len(big) {
		if e := w.nextNotebook(); e.GetType() != notebookv1.NotebookEvent_TYPE_MODIFIED {
			t.Fatalf("event %v", e.GetType())
		}
		told++
	}
	f.service.Drain(0)
	w.untilBookmark(notebookv1.Bookmark_KIND_CLOSING)
}
