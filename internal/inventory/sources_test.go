package inventory

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notebookd/notebookd/internal/upstream"
)

func source(name string, provider upstream.Provider) Source {
	return Source{Name: name, Kind: "fake", Provider: provider, Poll: PollConfig{Fast: time.Second, Normal: 10 * time.Second, Idle: time.Minute}}
}

func cloudNames(v *Snapshot) []string {
	var out []string
	for _, c := range v.Clouds() {
		out = append(out, c.Name)
	}
	return out
}

// TestReplaceSource: another provider takes over without anything being forgotten,
// also its locations and while somebody waits for a poll.
func TestReplaceSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := &fakeCloud{notebooks: notebooks("a", "b")}
		inv, _ := testInventory(t, old)
		synctest.Wait()
		old.set(func(f *fakeCloud) { f.err, f.hang = &upstream.Error{Kind: upstream.KindDenied}, 500*time.Millisecond })
		waited := make(chan error, 1)
		time.Sleep(5 * time.Second)
		go func() { waited <- inv.Freshen(t.Context(), testLocation, 0) }()
		synctest.Wait()
		before := old.calls()
		fresh := &fakeCloud{notebooks: notebooks("a", "b", "c"), locations: []upstream.Location{{ID: "xb3"}, {ID: "xb4"}}}
		next := source("core", fresh)
		inv.SetSources([]Source{next})
		if err := <-waited; upstream.KindOf(err) != upstream.KindDenied {
			t.Errorf("the poll under way ended with %v, want the old provider's answer", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := ids(inv.Snapshot()); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("two seconds later there are %v", got)
		}
		if inv.Snapshot().Count("clouds/core/locations/xb4") != 3 {
			t.Error("the new location was not read")
		}
		if n := old.calls() - before; n > 1 {
			t.Errorf("the old provider was asked %d times more", n)
		}
		if got, _ := inv.Source("core"); got.Provider != upstream.Provider(fresh) {
			t.Error("Source is still the old one")
		}
	})
}

// TestAddAndRemoveSource: a cloud that is taken away is not shown when SetSources
// returns, and one that comes back is shown with what the log holds of it before it
// is read.
func TestAddAndRemoveSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core := &fakeCloud{notebooks: notebooks("a", "b")}
		inv, _ := testInventory(t, core)
		synctest.Wait()
		other := &fakeCloud{notebooks: notebooks("x"), locations: []upstream.Location{{ID: "sh"}}}
		first, _ := inv.Source("core")
		inv.SetSources([]Source{first, source("scn", other)})
		synctest.Wait()
		if got := cloudNames(inv.Snapshot()); !slices.Equal(got, []string{"core", "scn"}) {
			t.Fatalf("clouds are %v", got)
		}
		if _, ok := inv.Snapshot().Get("clouds/scn/locations/sh/notebooks/x"); !ok {
			t.Error("the new cloud was not read")
		}
		superseded := inv.Snapshot().Superseded()

		core.set(func(f *fakeCloud) { f.hang = time.Minute })
		failed := make(chan error, 1)
		go func() { failed <- inv.Freshen(t.Context(), testLocation, 0) }()
		time.Sleep(2 * time.Second)
		inv.SetSources([]Source{source("scn", other)})
		if got := cloudNames(inv.Snapshot()); !slices.Equal(got, []string{"scn"}) {
			t.Errorf("clouds are %v", got)
		}
		if got := len(inv.Snapshot().Locations()); got != 1 {
			t.Errorf("%d locations are left", got)
		}
		select {
		case <-superseded:
		default:
			t.Error("nobody was told")
		}
		if err := <-failed; !errors.Is(err, errNotPolled) {
			t.Errorf("who waited for a poll got %v", err)
		}
		calls := core.calls()
		time.Sleep(10 * time.Minute)
		if core.calls() != calls {
			t.Error("the cloud is still asked")
		}

		inv.SetSources([]Source{source("scn", other), source("core", core)})
		if got := ids(inv.Snapshot()); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("before it is read it has %v", got)
		}
		core.set(func(f *fakeCloud) { f.hang, f.notebooks = 0, notebooks("b", "c") })
		time.Sleep(3 * time.Minute)
		if got := ids(inv.Snapshot()); !slices.Equal(got, []string{"b", "c"}) {
			t.Errorf("after that it has %v", got)
		}
	})
}

// TestOtherKind: a cloud that has become one of another kind is another cloud.
func TestOtherKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv, _ := testInventory(t, &fakeCloud{notebooks: notebooks("a")})
		synctest.Wait()
		other := source("core", &fakeCloud{notebooks: notebooks("z"), locations: []upstream.Location{{ID: "east"}}})
		other.Kind = "other"
		inv.SetSources([]Source{other})
		synctest.Wait()
		if _, ok := inv.Snapshot().Get("clouds/core/locations/east/notebooks/z"); !ok {
			t.Error("it was not read")
		}
		if c := inv.Snapshot().Clouds()[0]; c.Kind != "other" {
			t.Errorf("its kind is %s", c.Kind)
		}
	})
}
