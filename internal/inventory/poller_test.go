package inventory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/replica"
	"github.com/notebookd/notebookd/internal/upstream"
)

// fakeCloud is a Provider whose answers a test sets.
type fakeCloud struct {
	mu        sync.Mutex // guards what is below
	notebooks []upstream.Notebook
	err       error
	hang      time.Duration
	locations []upstream.Location
	discovery error
	lists     int
}

func (f *fakeCloud) Capabilities() upstream.Capabilities {
	return upstream.Capabilities{VolatileAttributes: []string{"enough"}}
}

func (f *fakeCloud) Locations(context.Context) ([]upstream.Location, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.locations, f.discovery
}

func (f *fakeCloud) List(ctx context.Context, _ string) ([]upstream.Notebook, error) {
	f.mu.Lock()
	f.lists++
	notebooks, err, hang := f.notebooks, f.err, f.hang
	f.mu.Unlock()
	select {
	case <-time.After(hang):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return notebooks, err
}

func (f *fakeCloud) ChangeImage(context.Context, upstream.ImageRequest) (upstream.Notebook, error) {
	return upstream.Notebook{}, &upstream.Error{Kind: upstream.KindUnsupported}
}

func (f *fakeCloud) set(change func(*fakeCloud)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeCloud) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lists
}

const testLocation = "clouds/core/locations/xb3"

// testInventory runs an inventory over one fake cloud until the test ends. It
// must be called inside a synctest bubble.
func testInventory(t *testing.T, cloud *fakeCloud) (*Inventory, *memoryLog) {
	t.Helper()
	if cloud.locations == nil {
		cloud.locations = []upstream.Location{{ID: "xb3"}}
	}
	return testInventoryOf(t, cloud)
}

// testInventoryOf is testInventory for any Provider.
func testInventoryOf(t *testing.T, cloud upstream.Provider) (*Inventory, *memoryLog) {
	t.Helper()
	return testInventoryFrom(t, Source{
		Name: "core", Kind: "fake", Provider: cloud, Poll: PollConfig{Fast: time.Second, Normal: 10 * time.Second, Idle: time.Minute},
	})
}

// testInventoryFrom is testInventoryOf with everything about the cloud given, and
// lets a test at the inventory before it begins.
func testInventoryFrom(t *testing.T, source Source, prepare ...func(*Inventory)) (*Inventory, *memoryLog) {
	t.Helper()
	inv := New(Config{Sources: []Source{source}})
	for _, f := range prepare {
		f(inv)
	}
	log := &memoryLog{store: inv.store}
	inv.records = log
	inv.loadOnce.Do(func() { close(inv.loaded) })
	ctx, cancel := context.WithCancel(context.Background())
	stop := inv.run(ctx, func(ctx context.Context, a *account) { inv.discover(ctx, a, replica.Term{}) })
	t.Cleanup(func() {
		cancel()
		stop()
		inv.store.settle()
	})
	return inv, log
}

func notebooks(ids ...string) []upstream.Notebook {
	out := []upstream.Notebook{} // not nil: that would be no list at all
	for _, id := range ids {
		out = append(out, upstream.Notebook{ID: id, State: upstream.StateRunning})
	}
	return out
}

func ids(v *Snapshot) []string {
	var out []string
	for row := range v.Rows(testLocation, "") {
		_, id := row.Address()
		out = append(out, id)
	}
	return out
}

func status(t *testing.T, inv *Inventory) *Location {
	t.Helper()
	l, ok := inv.Snapshot().Location(testLocation)
	if !ok {
		t.Fatal("the location is not known")
	}
	return l
}

func TestUnchangedPollPublishesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{notebooks: notebooks("a", "b")}
		free := int32(3)
		cloud.notebooks[0].Resources.Accelerator = upstream.Accelerator{Count: 1, Available: &free}
		cloud.notebooks[0].ExpireTime = time.Now().Add(time.Hour)
		inv, log := testInventory(t, cloud)
		synctest.Wait()
		revision := inv.Snapshot().Revision()
		if revision != 2 {
			t.Fatalf("revision = %d after two notebooks", revision)
		}
		// What is volatile may change without being news.
		cloud.set(func(f *fakeCloud) {
			f.notebooks = notebooks("a", "b")
			freer := int32(7)
			f.notebooks[0].Resources.Accelerator = upstream.Accelerator{Count: 1, Available: &freer}
			f.notebooks[0].ExpireTime = time.Now().Add(time.Hour + time.Minute)
			f.notebooks[0].UpdateTime = time.Now()
			f.notebooks[0].Attributes = map[string]string{"enough": "true"}
		})
		time.Sleep(5 * time.Minute)
		if got := inv.Snapshot().Revision(); got != revision {
			t.Errorf("revision went from %d to %d without news", revision, got)
		}
		if len(log.batches) != 1 {
			t.Errorf("%d batches were written, want 1", len(log.batches))
		}
		cloud.set(func(f *fakeCloud) { f.notebooks = notebooks("a", "b"); f.notebooks[1].Image.URI = "new" })
		time.Sleep(2 * time.Minute)
		row, _ := inv.Snapshot().Get(testLocation + "/notebooks/b")
		if diff := cmp.Diff([]string{"image.uri"}, row.ChangedSince(revision)); diff != "" {
			t.Errorf("changed fields (-want +got):\n%s", diff)
		}
	})
}

func TestFailedPollsKeepRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{notebooks: notebooks("a", "b")}
		inv, log := testInventory(t, cloud)
		synctest.Wait()
		if got := status(t, inv); got.State != notebookv1.Location_STATE_LIVE {
			t.Fatalf("state = %v", got.State)
		}
		cloud.set(func(f *fakeCloud) { f.err = &upstream.Error{Kind: upstream.KindUnavailable, Code: "HTTP 502"} })
		var seen []notebookv1.Location_State
		last := status(t, inv).Version()
		for range 600 {
			time.Sleep(time.Second)
			if l := status(t, inv); l.Version() != last {
				last = l.Version()
				seen = append(seen, l.State)
			}
		}
		cloud.set(func(f *fakeCloud) { f.err = nil })
		time.Sleep(2 * time.Minute)
		seen = append(seen, status(t, inv).State)
		want := []notebookv1.Location_State{
			notebookv1.Location_STATE_STALE, notebookv1.Location_STATE_UNREACHABLE, notebookv1.Location_STATE_LIVE,
		}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("states, each once (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"a", "b"}, ids(inv.Snapshot())); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		if len(log.batches) != 1 {
			t.Errorf("%d batches were written, want 1: recovery publishes only what differs", len(log.batches))
		}
	})
}

func TestDeletionNeedsProof(t *testing.T) {
	for _, tt := range []struct {
		name    string
		listing []upstream.Notebook
		needed  int
	}{
		{"missing from two complete listings", notebooks("a"), 2},
		{"three when the listing has become empty", notebooks(), 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cloud := &fakeCloud{notebooks: notebooks("a", "b")}
				inv, _ := testInventory(t, cloud)
				synctest.Wait()
				cloud.set(func(f *fakeCloud) { f.notebooks = tt.listing })
				ctx := t.Context()
				for i := 1; i <= tt.needed; i++ {
					if got := len(ids(inv.Snapshot())); got != 2 {
						t.Fatalf("%d rows before listing %d without it, want 2", got, i)
					}
					// A failure in between proves nothing and forgets nothing.
					cloud.set(func(f *fakeCloud) { f.err = &upstream.Error{Kind: upstream.KindTimeout} })
					if err := inv.Refresh(ctx, testLocation); err == nil {
						t.Fatal("the failed poll has no error")
					}
					cloud.set(func(f *fakeCloud) { f.err = nil })
					if err := inv.Refresh(ctx, testLocation); err != nil {
						t.Fatal(err)
					}
				}
				if got := len(ids(inv.Snapshot())); got != len(tt.listing) {
					t.Errorf("%d rows after %d listings, want %d", got, tt.needed, len(tt.listing))
				}
			})
		})
	}
}

func TestRowThatComesBackIsNotDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{notebooks: notebooks("a", "b")}
		inv, _ := testInventory(t, cloud)
		synctest.Wait()
		for i := range 6 { // missing every other time
			list := notebooks("a", "b")
			if i%2 == 0 {
				list = notebooks("a")
			}
			cloud.set(func(f *fakeCloud) { f.notebooks = list })
			if err := inv.Refresh(t.Context(), testLocation); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff([]string{"a", "b"}, ids(inv.Snapshot())); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
	})
}

func TestIntervalFollowsDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{notebooks: notebooks("a")}
		inv, _ := testInventory(t, cloud)
		between := func(d time.Duration) int {
			before := cloud.calls()
			time.Sleep(d)
			return cloud.calls() - before
		}
		synctest.Wait()
		if got := between(10 * time.Minute); got < 9 || got > 12 {
			t.Errorf("idle: %d polls in 10 minutes, want about 10", got)
		}
		done := inv.Watching()
		if got := between(time.Minute); got < 5 || got > 8 {
			t.Errorf("watched: %d polls in a minute, want about 6", got)
		}
		starting := notebooks("a")
		starting[0].State = upstream.StateStarting
		cloud.set(func(f *fakeCloud) { f.notebooks = starting })
		time.Sleep(11 * time.Second)
		if got := between(time.Minute); got < 50 || got > 70 {
			t.Errorf("in transition: %d polls in a minute, want about 60", got)
		}
		cloud.set(func(f *fakeCloud) { f.notebooks = notebooks("a") })
		done()
		time.Sleep(2 * time.Minute)
		if got := between(10 * time.Minute); got < 9 || got > 12 {
			t.Errorf("idle again: %d polls in 10 minutes, want about 10", got)
		}
	})
}

func TestRefreshIsSharedAndBeginsAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{notebooks: notebooks("a"), hang: 500 * time.Millisecond}
		inv, _ := testInventory(t, cloud)
		time.Sleep(200 * time.Millisecond) // the first poll is under way: it does not count
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				start := time.Now()
				if err := inv.Refresh(t.Context(), testLocation); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took != 800*time.Millisecond {
					t.Errorf("refresh took %v, want the rest of one poll and a whole one", took)
				}
			})
		}
		wg.Wait()
		if got := cloud.calls(); got != 2 {
			t.Errorf("%d polls, want 2", got)
		}
	})
}

func TestThrottledLocationBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{err: &upstream.Error{Kind: upstream.KindThrottled, RetryAfter: 7 * time.Minute}}
		inv, _ := testInventory(t, cloud)
		done := inv.Watching()
		defer done()
		time.Sleep(6 * time.Minute)
		if got := cloud.calls(); got != 1 {
			t.Errorf("%d polls before Retry-After, want 1", got)
		}
		time.Sleep(2 * time.Minute)
		if got := cloud.calls(); got != 2 {
			t.Errorf("%d polls after Retry-After, want 2", got)
		}
	})
}

func TestReadyWhenEveryFirstPollHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{err: errors.New("down"), hang: 5 * time.Second, locations: []upstream.Location{{ID: "xb3"}, {ID: "xb2"}, {ID: "off", Disabled: "no AI here"}}}
		inv, _ := testInventory(t, cloud)
		time.Sleep(4 * time.Second)
		if inv.Ready() {
			t.Error("ready while the first polls are under way")
		}
		time.Sleep(2 * time.Second)
		if !inv.Ready() {
			t.Error("not ready although every first poll has ended")
		}
	})
}

func TestLocationsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{notebooks: notebooks("a"), discovery: &upstream.Error{Kind: upstream.KindDenied}}
		inv, _ := testInventory(t, cloud)
		synctest.Wait()
		if c := inv.Snapshot().Clouds()[0]; c.Failure == nil || c.Failure.Kind != upstream.KindDenied || c.Discovered {
			t.Fatalf("cloud = %+v, want a refused login", c)
		}
		cloud.set(func(f *fakeCloud) { f.discovery = nil })
		time.Sleep(time.Minute)
		if got := status(t, inv).State; got != notebookv1.Location_STATE_LIVE {
			t.Fatalf("state = %v after discovery, want LIVE", got)
		}
		cloud.set(func(f *fakeCloud) { f.locations = []upstream.Location{} })
		time.Sleep(6 * time.Minute)
		l := status(t, inv)
		if l.State != notebookv1.Location_STATE_DISABLED || len(ids(inv.Snapshot())) != 1 {
			t.Errorf("state = %v with %d rows, want DISABLED with its row", l.State, len(ids(inv.Snapshot())))
		}
		polls := cloud.calls()
		time.Sleep(10 * time.Minute)
		if cloud.calls() != polls {
			t.Error("a location that is gone is still polled")
		}
		cloud.set(func(f *fakeCloud) { f.locations = []upstream.Location{{ID: "xb3"}} })
		time.Sleep(6 * time.Minute)
		if got := status(t, inv).State; got != notebookv1.Location_STATE_LIVE {
			t.Errorf("state = %v after it came back, want LIVE", got)
		}
	})
}

func TestStoreFailureIsNotTheClouds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{notebooks: notebooks("a")}
		inv, log := testInventory(t, cloud)
		synctest.Wait()
		log.mu.Lock()
		log.fail = fmt.Errorf("disk full")
		log.mu.Unlock()
		cloud.set(func(f *fakeCloud) { f.notebooks = notebooks("a", "b") })
		time.Sleep(2 * time.Minute)
		if l := status(t, inv); l.State == notebookv1.Location_STATE_LIVE || l.Failure == nil || !l.Failure.Store {
			t.Errorf("location = %+v, want a failed store", l)
		}
		log.mu.Lock()
		log.fail = nil
		log.mu.Unlock()
		time.Sleep(2 * time.Minute)
		if diff := cmp.Diff([]string{"a", "b"}, ids(inv.Snapshot())); diff != "" {
			t.Errorf("rows after recovery (-want +got):\n%s", diff)
		}
	})
}

func TestListingThatBreaksThePromiseIsRefused(t *testing.T) {
	for _, list := range [][]upstream.Notebook{notebooks("a", "a"), notebooks(""), notebooks("a", "b", "a")} {
		synctest.Test(t, func(t *testing.T) {
			cloud := &fakeCloud{notebooks: list}
			inv, _ := testInventory(t, cloud)
			synctest.Wait()
			if l := status(t, inv); l.Failure == nil || l.Failure.Kind != upstream.KindBadResponse || len(ids(inv.Snapshot())) != 0 {
				t.Errorf("listing %v was taken", list)
			}
		})
	}
}

// findingCloud is a fakeCloud that can be asked for one notebook.
type findingCloud struct {
	*fakeCloud
	hidden map[string]error // what Find answers for an id; nil: it is there
	asked  []string
}

func (f *findingCloud) Find(_ context.Context, _, id string) (upstream.Notebook, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, id)
	if err := f.hidden[id]; err != nil {
		return upstream.Notebook{}, err
	}
	return upstream.Notebook{ID: id, State: upstream.StateStopped}, nil
}

// TestMissingRowsAreAskedFor: with a cloud that can be asked, one listing and
// its word are proof; a row that it still shows stays; and where it gives no clear answer the next
// listing decides.
func TestMissingRowsAreAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeCloud{notebooks: notebooks("a", "gone", "hidden", "unclear"), locations: []upstream.Location{{ID: "xb3"}}}
		cloud := &findingCloud{fakeCloud: fake, hidden: map[string]error{
			"gone":    &upstream.Error{Kind: upstream.KindNotFound},
			"unclear": &upstream.Error{Kind: upstream.KindTimeout},
		}}
		inv, _ := testInventoryOf(t, cloud)
		synctest.Wait()
		if len(cloud.asked) != 0 {
			t.Errorf("asked for %v while nothing is missing", cloud.asked)
		}
		cloud.set(func(f *fakeCloud) { f.notebooks = notebooks("a") })
		for _, want := range [][]string{{"a", "hidden", "unclear"}, {"a", "hidden"}, {"a", "hidden"}} {
			if err := inv.Refresh(t.Context(), testLocation); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, ids(inv.Snapshot())); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
		}
		if row, ok := inv.Snapshot().Get(testLocation + "/notebooks/hidden"); !ok || row.Notebook.GetState() != notebookv1.Notebook_STATE_STOPPED {
			t.Errorf("the row that the cloud still shows is %v", row)
		}
	})
}

// TestEmptiedListingIsNotAskedAbout: a cloud that lost everything would confirm
// it, so only listings count.
func TestEmptiedListingIsNotAskedAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeCloud{notebooks: notebooks("a"), locations: []upstream.Location{{ID: "xb3"}}}
		cloud := &findingCloud{fakeCloud: fake, hidden: map[string]error{"a": &upstream.Error{Kind: upstream.KindNotFound}}}
		inv, _ := testInventoryOf(t, cloud)
		synctest.Wait()
		cloud.set(func(f *fakeCloud) { f.notebooks = notebooks() })
		for _, want := range []int{1, 1, 0} {
			if err := inv.Refresh(t.Context(), testLocation); err != nil {
				t.Fatal(err)
			}
			if got := len(ids(inv.Snapshot())); got != want {
				t.Errorf("%d rows, want %d", got, want)
			}
		}
		if len(cloud.asked) != 0 {
			t.Errorf("asked for %v", cloud.asked)
		}
	})
}

// TestFewAreAskedForAtOnce: when many rows vanish, the calls stay few.
func TestFewAreAskedForAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []string
		hidden := map[string]error{}
		for i := range 50 {
			id := fmt.Sprintf("n%02d", i)
			all = append(all, id)
			hidden[id] = &upstream.Error{Kind: upstream.KindNotFound}
		}
		fake := &fakeCloud{notebooks: notebooks(append(all, "a")...), locations: []upstream.Location{{ID: "xb3"}}}
		cloud := &findingCloud{fakeCloud: fake, hidden: hidden}
		inv, _ := testInventoryOf(t, cloud)
		synctest.Wait()
		cloud.set(func(f *fakeCloud) { f.notebooks = notebooks("a") })
		if err := inv.Refresh(t.Context(), testLocation); err != nil {
			t.Fatal(err)
		}
		if got := len(ids(inv.Snapshot())); len(cloud.asked) != maxFinds || got != len(all)+1-maxFinds {
			t.Errorf("%d were asked for, %d rows are left", len(cloud.asked), got)
		}
	})
}

// TestNoListAtAll is an empty listing only to those who know of nothing.
func TestNoListAtAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{}
		inv, _ := testInventory(t, cloud)
		synctest.Wait()
		if l := status(t, inv); l.State != notebookv1.Location_STATE_LIVE {
			t.Errorf("with nothing known the location is %v", l.State)
		}
		cloud.set(func(f *fakeCloud) { f.notebooks = notebooks("a") })
		if err := inv.Refresh(t.Context(), testLocation); err != nil {
			t.Fatal(err)
		}
		cloud.set(func(f *fakeCloud) { f.notebooks = nil })
		for range 4 {
			if err := inv.Refresh(t.Context(), testLocation); upstream.KindOf(err) != upstream.KindBadResponse || err == nil {
				t.Errorf("no list while a row is known: %v", err)
			}
		}
		if got := len(ids(inv.Snapshot())); got != 1 {
			t.Errorf("%d rows, want 1", got)
		}
	})
}

// TestDisabledByItsPoller: discovery knows nothing of why a poll finds that a
// location cannot be used, and does not make an outage of it.
func TestDisabledByItsPoller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{err: &upstream.Error{Kind: upstream.KindDisabled, Err: errors.New("no service here")}}
		inv, _ := testInventory(t, cloud)
		for range 30 {
			time.Sleep(time.Minute)
			synctest.Wait()
			if l := status(t, inv); l.State != notebookv1.Location_STATE_DISABLED || l.Failure.Message != "no service here" {
				t.Fatalf("the location is %v, %+v", l.State, l.Failure)
			}
		}
		if n := cloud.calls(); n < 3 || n > 5 {
			t.Errorf("%d polls in half an hour, want one every ten minutes", n)
		}
	})
}
