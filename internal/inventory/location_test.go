package inventory

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream"
)

const (
	isLive        = notebookv1.Location_STATE_LIVE
	isStale       = notebookv1.Location_STATE_STALE
	isUnreachable = notebookv1.Location_STATE_UNREACHABLE
	isDisabled    = notebookv1.Location_STATE_DISABLED
)

// told is what a history says, with times as they passed since a moment.
type told struct {
	State notebookv1.Location_State
	Kind  upstream.Kind // -1 for none
	After time.Duration
}

func history(t *testing.T, s *Store, since time.Time) []told {
	t.Helper()
	l, ok := s.Snapshot().Location(testLocation)
	if !ok {
		t.Fatal("the location is not known")
	}
	var out []told
	for _, past := range l.History(time.Now()) {
		kind := upstream.Kind(-1)
		if past.Failure != nil {
			kind = past.Failure.Kind
		}
		out = append(out, told{past.State, kind, past.Since.Sub(since)})
	}
	return out
}

// TestHistoryOfAnOutage: what a poller finds is told with the moment at which it was
// found, once, for an hour.
func TestHistoryOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{notebooks: notebooks("nb-1"), hang: time.Millisecond}
		began := time.Now()
		inv, _ := testInventory(t, cloud)
		defer inv.Watching()() // polls every ten seconds or so
		time.Sleep(9 * time.Minute)
		want := []told{{isLive, -1, time.Millisecond}}
		if diff := cmp.Diff(want, history(t, inv.store, began)); diff != "" {
			t.Errorf("a good start (-want +got):\n%s", diff)
		}
		cloud.set(func(f *fakeCloud) { f.err = &upstream.Error{Kind: upstream.KindTimeout} })
		time.Sleep(5 * time.Minute)
		cloud.set(func(f *fakeCloud) { f.err = &upstream.Error{Kind: upstream.KindFault} })
		time.Sleep(5 * time.Minute)
		cloud.set(func(f *fakeCloud) { f.err = nil })
		time.Sleep(5 * time.Minute)
		got := history(t, inv.store, began)
		var states []told
		for i, past := range got {
			if i > 0 && past.After <= got[i-1].After {
				t.Errorf("%v is not after %v", past, got[i-1])
			}
			past.After = past.After.Round(5 * time.Minute) // a poll is at most half a minute late
			states = append(states, past)
		}
		want = []told{
			{isLive, -1, 0},
			{isStale, upstream.KindTimeout, 10 * time.Minute}, {isUnreachable, upstream.KindTimeout, 10 * time.Minute},
			{isUnreachable, upstream.KindFault, 15 * time.Minute}, {isLive, -1, 20 * time.Minute},
		}
		if diff := cmp.Diff(want, states); diff != "" {
			t.Errorf("after the outage (-want +got):\n%s", diff)
		}

		// The start was over an hour ago. The end of the good time before the outage is
		// still within the hour.
		time.Sleep(time.Until(began.Add(got[1].After + time.Hour - time.Second)))
		if diff := cmp.Diff(got, history(t, inv.store, began)); diff != "" {
			t.Errorf("an hour after the outage began, less a second (-want +got):\n%s", diff)
		}
		time.Sleep(time.Second)
		if diff := cmp.Diff(got[1:], history(t, inv.store, began)); diff != "" {
			t.Errorf("an hour after the outage began (-want +got):\n%s", diff)
		}
		time.Sleep(2 * time.Hour)
		if diff := cmp.Diff(got[4:], history(t, inv.store, began)); diff != "" {
			t.Errorf("long after (-want +got):\n%s", diff)
		}
	})
}

// TestHistoryOfAnOpenBreaker: an hour of an outage whose reason goes back and forth is
// told from its beginning, with each reason, and what the reason is now.
func TestHistoryOfAnOpenBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(time.Hour, slog.New(slog.DiscardHandler))
		began := time.Now()
		set := func(state notebookv1.Location_State, kind upstream.Kind) {
			s.updateLocation(testLocation, func(l *Location) {
				l.Cloud, l.State, l.Failure, l.LastAttempt = "core", state, nil, time.Now()
				if kind >= 0 {
					l.Failure = &Failure{Kind: kind}
				}
			})
		}
		check := func(what string, want ...told) {
			t.Helper()
			if diff := cmp.Diff(want, history(t, s, began)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		set(isLive, -1)
		time.Sleep(time.Minute)
		timeout, open, fault := told{isUnreachable, upstream.KindTimeout, time.Minute}, told{isUnreachable, upstream.KindCircuitOpen, 65 * time.Second}, upstream.KindFault
		for range 55 * 6 { // tried every ten seconds
			set(isUnreachable, upstream.KindTimeout)
			time.Sleep(5 * time.Second)
			set(isUnreachable, upstream.KindCircuitOpen)
			time.Sleep(5 * time.Second)
		}
		check("while the breaker is open", told{isLive, -1, 0}, timeout, open)
		shown, _ := s.Snapshot().Location(testLocation)
		copied := append([]Past(nil), shown.History(time.Now())...)
		set(isUnreachable, upstream.KindTimeout)
		check("while it is tried", told{isLive, -1, 0}, timeout, open, told{isUnreachable, upstream.KindTimeout, 56 * time.Minute})
		time.Sleep(time.Second)
		set(isUnreachable, fault)
		time.Sleep(time.Second)
		set(isUnreachable, upstream.KindCircuitOpen)
		time.Sleep(time.Second)
		set(isUnreachable, upstream.KindTimeout)
		failed := told{isUnreachable, fault, 56*time.Minute + time.Second}
		check("when another reason came between", told{isLive, -1, 0}, timeout, open, failed, told{isUnreachable, upstream.KindTimeout, 56*time.Minute + 3*time.Second})
		time.Sleep(time.Second)
		set(isLive, -1)
		time.Sleep(time.Second)
		set(isUnreachable, upstream.KindTimeout)
		again := []told{{isLive, -1, 56*time.Minute + 4*time.Second}, {isUnreachable, upstream.KindTimeout, 56*time.Minute + 5*time.Second}}
		check("in another outage", append([]told{{isLive, -1, 0}, timeout, open, failed}, again...)...)
		if diff := cmp.Diff(copied, shown.History(time.Now())); diff != "" {
			t.Errorf("what was shown has changed (-was +is):\n%s", diff)
		}
		// What has left the hour is told anew when it comes back.
		time.Sleep(30 * time.Minute)
		set(isUnreachable, upstream.KindCircuitOpen)
		time.Sleep(time.Hour)
		set(isUnreachable, upstream.KindTimeout)
		time.Sleep(time.Second)
		set(isUnreachable, upstream.KindCircuitOpen)
		time.Sleep(time.Second)
		set(isUnreachable, upstream.KindTimeout)
		second := told{isUnreachable, upstream.KindTimeout, 146*time.Minute + 5*time.Second}
		check("much later", told{isUnreachable, upstream.KindCircuitOpen, 86*time.Minute + 5*time.Second}, second)
	})
}

// TestHistoryIsBounded: a location that flaps is remembered for as many states as
// there is room for, the newest ones, and what was shown before stays as it was.
func TestHistoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(time.Hour, slog.New(slog.DiscardHandler))
		began := time.Now()
		set := func(state notebookv1.Location_State) {
			s.updateLocation(testLocation, func(l *Location) { l.Cloud, l.State = "core", state })
			time.Sleep(time.Second)
		}
		for i := range 2 * maxHistory {
			set([]notebookv1.Location_State{isLive, isStale}[i%2])
		}
		before, _ := s.Snapshot().Location(testLocation)
		shown := before.History(time.Now())
		if len(shown) != maxHistory || shown[0].Since != began.Add(maxHistory*time.Second) {
			t.Fatalf("%d states, the first of %v", len(shown), shown[0].Since.Sub(began))
		}
		copied := append([]Past(nil), shown...)
		set(isLive)
		set(isLive) // is no change
		now := history(t, s, began)
		if len(now) != maxHistory || now[0] != (told{isStale, -1, (maxHistory + 1) * time.Second}) || now[len(now)-1] != (told{isLive, -1, 2 * maxHistory * time.Second}) {
			t.Errorf("%d states, from %v to %v", len(now), now[0], now[len(now)-1])
		}
		if diff := cmp.Diff(copied, shown); diff != "" {
			t.Errorf("what was shown has changed (-was +is):\n%s", diff)
		}
	})
}

// TestHistoryOfWhatIsNotPolledHere: reports of another replica, a storage that is
// away and one that was lost are told as well; a location that is gone is forgotten.
func TestHistoryOfWhatIsNotPolledHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv := New(Config{Sources: []Source{{Name: "core", Provider: &fakeCloud{}}}})
		defer inv.store.settle()
		s, began := inv.store, time.Now()
		s.begin("one", false)
		number := uint64(0)
		report := func(state notebookv1.Location_State, failure *Failure) {
			time.Sleep(time.Second)
			number++
			inv.adopt("core", &report{Term: 1, Number: number, Epoch: "one", Locations: []locationReport{{ID: "xb3", State: state, Failure: failure}}})
		}
		report(isLive, nil)
		report(isLive, nil)
		report(isStale, &Failure{Kind: upstream.KindTimeout, Code: "504"})
		report(isLive, nil)
		time.Sleep(time.Second)
		s.away()
		time.Sleep(time.Second)
		s.begin("two", true)
		want := []told{
			{isLive, -1, time.Second}, {isStale, upstream.KindTimeout, 3 * time.Second}, {isLive, -1, 4 * time.Second},
			{isStale, 0, 5 * time.Second}, {isUnreachable, -1, 6 * time.Second},
		}
		if diff := cmp.Diff(want, history(t, s, began)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		source := *inv.accounts["core"].source.Load()
		s.removeCloud("core")
		s.addCloud(source)
		s.updateLocation(testLocation, func(l *Location) { l.Cloud, l.ID, l.State = "core", "xb3", isLive })
		if diff := cmp.Diff([]told{{isLive, -1, 6 * time.Second}}, history(t, s, began)); diff != "" {
			t.Errorf("once it is back (-want +got):\n%s", diff)
		}
	})
}

// TestDisabledLocationStaysSo: a location that the account cannot use is told as
// that, whenever the locations are read again.
func TestDisabledLocationStaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{locations: []upstream.Location{{ID: "xb3", Disabled: "not opened"}}}
		began := time.Now()
		inv, _ := testInventory(t, cloud)
		time.Sleep(2 * rediscover)
		synctest.Wait()
		if diff := cmp.Diff([]told{{isDisabled, upstream.KindDisabled, 0}}, history(t, inv.store, began)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		cloud.set(func(f *fakeCloud) { f.locations, f.notebooks = []upstream.Location{{ID: "xb3"}}, notebooks("nb-1") })
		time.Sleep(2 * rediscover)
		synctest.Wait()
		if got := history(t, inv.store, began); len(got) != 3 || got[1].State != isUnreachable || got[2].State != isLive {
			t.Errorf("once the account can use it: %v", got)
		}
	})
}
