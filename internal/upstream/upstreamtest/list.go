package upstreamtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// sizes: lists of nothing, of one, and on both sides of a page's edge.
func (s suite) sizes(t *testing.T) {
	r := s.rig(t, upstream.ClientConfig{})
	for _, count := range []int{0, 1, r.PageSize, r.PageSize + 1} {
		r.Simulator.Clear(r.Location)
		want := r.Simulator.Add(r.Location, count)
		if diff := cmp.Diff(sorted(want), r.ids(t)); diff != "" {
			t.Errorf("of %d (-want +got):\n%s", count, diff)
		}
	}
}

// drift: others add and remove notebooks before every page, at the front, in
// the middle and at the end of the list. Those that exist from the first page
// to the last come back, each once.
func (s suite) drift(t *testing.T) {
	r := s.rig(t, upstream.ClientConfig{})
	r.Simulator.Clear(r.Location)
	var (
		mu     sync.Mutex // guards others and pages: each page comes from a goroutine of the server
		others []string   // in the order of their creation
		pages  int
	)
	var stay []string
	for range 50 {
		stay = append(stay, r.Simulator.Add(r.Location, 25)...)
		others = append(others, r.Simulator.Add(r.Location, 5)...)
	}
	take := func(at int) {
		if at >= 0 && at < len(others) {
			r.Simulator.Remove(r.Location, others[at])
			others = slices.Delete(others, at, at+1)
		}
	}
	r.Simulator.OnPage(func(string) {
		mu.Lock()
		defer mu.Unlock()
		pages++
		for _, at := range []int{0, len(others) / 2, len(others) - 3} {
			take(at)
		}
		if pages%4 == 0 { // now and then more than a page overlaps by
			for range 6 {
				take(0)
				take(len(others) - 1)
			}
		}
		others = append(others, r.Simulator.Add(r.Location, 3)...)
	})
	got := r.list(t) // and it has none twice
	mu.Lock()
	defer mu.Unlock()
	if pages < 13 {
		t.Errorf("%d pages, want at least 13", pages)
	}
	there := map[string]bool{}
	for _, n := range got {
		there[n.ID] = true
	}
	missing := slices.DeleteFunc(slices.Clone(stay), func(id string) bool { return there[id] })
	if len(stay) != 1250 || len(missing) != 0 {
		t.Errorf("%d of %d that were there throughout are missing: %v", len(missing), len(stay), missing)
	}
}

// news: what comes and goes between two listings shows.
func (s suite) news(t *testing.T) {
	r := s.rig(t, upstream.ClientConfig{})
	before := r.ids(t)
	if len(before) == 0 {
		t.Fatalf("%s has no notebooks", r.Location)
	}
	added := r.Simulator.Add(r.Location, 1)[0]
	if diff := cmp.Diff(sorted(append(before, added)), r.ids(t)); diff != "" {
		t.Errorf("one added (-want +got):\n%s", diff)
	}
	if !r.Simulator.Remove(r.Location, added) {
		t.Errorf("%s is not there", added)
	}
	if diff := cmp.Diff(before, r.ids(t)); diff != "" {
		t.Errorf("one removed (-want +got):\n%s", diff)
	}
}

// part: a listing that fails after some good pages has no rows.
func (s suite) part(t *testing.T) {
	r := s.rig(t, upstream.ClientConfig{})
	r.Simulator.Clear(r.Location)
	all := sorted(r.Simulator.Add(r.Location, 4*r.PageSize))
	for _, mode := range []cloudsim.Mode{cloudsim.ModeStatus, cloudsim.ModeHTML, cloudsim.ModeCut} {
		var mu sync.Mutex // guards pages
		pages := 0
		r.Simulator.OnPage(func(string) {
			mu.Lock()
			defer mu.Unlock()
			if pages++; pages == 3 {
				r.Simulator.Break(cloudsim.Fault{Op: r.ListOp, Mode: mode})
			}
		})
		rows, err := r.Provider.List(limit(t), r.Location)
		mu.Lock()
		if pages < 3 || pages > 4 { // a cut answer was made before it was cut
			t.Errorf("%s: %d pages were made", mode, pages)
		}
		mu.Unlock()
		if e := asError(t, err); e == nil || rows != nil {
			t.Errorf("%s: %d rows and %v", mode, len(rows), err)
		}
		r.Simulator.Heal()
		r.Simulator.OnPage(nil)
	}
	if diff := cmp.Diff(all, r.ids(t)); diff != "" {
		t.Errorf("afterwards (-want +got):\n%s", diff)
	}
}

// notebooks: none holds a secret, however it is printed.
func (s suite) notebooks(t *testing.T) {
	r := s.rig(t, upstream.ClientConfig{})
	r.Simulator.Add(r.Location, 3)
	for _, n := range r.list(t) {
		data, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		r.checkClean(t, "a notebook", fmt.Sprintf("%+v\n%s", n, data))
	}
}

// again: a provider that knows what it was sent before says of each notebook that it
// is unchanged only when it is, and never without having been told to remember.
func (s suite) again(t *testing.T) {
	r := s.rig(t, upstream.ClientConfig{})
	relister, ok := r.Provider.(upstream.Relister)
	if !ok {
		t.Skip("the provider remembers nothing")
	}
	r.Simulator.Clear(r.Location)
	ids := r.Simulator.Add(r.Location, 2*r.PageSize+5)
	memo := upstream.NewMemo()
	list := func() map[string]upstream.Notebook {
		t.Helper()
		rows, err := relister.Relist(limit(t), r.Location, memo)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]upstream.Notebook{}
		for _, n := range rows {
			out[n.ID] = n
		}
		if len(out) != len(rows) || len(out) != len(ids) {
			t.Fatalf("%d rows of %d notebooks, want %d", len(rows), len(out), len(ids))
		}
		return out
	}
	keep := func(rows map[string]upstream.Notebook) { memo.Keep(slices.Collect(maps.Values(rows))) }
	plain := func(n upstream.Notebook) upstream.Notebook {
		n.Sent = upstream.Sent{}
		return n
	}
	decoded := map[string]upstream.Notebook{}
	for _, n := range r.list(t) {
		decoded[n.ID] = n
	}
	for range 2 { // the first of them is not kept
		for id, n := range list() {
			if diff := cmp.Diff(decoded[id], plain(n)); diff != "" {
				t.Errorf("nothing is known yet (-want +got):\n%s", diff)
			}
		}
	}
	keep(list())
	check := func(rows map[string]upstream.Notebook, fresh string) {
		t.Helper()
		for id, n := range rows {
			before, known := decoded[id]
			switch {
			case id == fresh || !known:
				if n.Unchanged || n.DisplayName == "" {
					t.Errorf("%s is new, and told as %+v", id, n)
				}
			case !n.Unchanged:
				if diff := cmp.Diff(before, plain(n)); diff != "" || n.ExpireTime.IsZero() {
					t.Errorf("%s is told anew (-before +now):\n%s", id, diff)
				}
			default:
				want := upstream.Notebook{
					ID: id, State: before.State, ResourceGroup: before.ResourceGroup, UpdateTime: before.UpdateTime, Unchanged: true,
				}
				a := before.Resources.Accelerator
				want.Resources.Accelerator = upstream.Accelerator{Type: a.Type, Available: a.Available, Max: a.Max}
				if diff := cmp.Diff(want, plain(n)); diff != "" {
					t.Errorf("%s is unchanged (-want +got):\n%s", id, diff)
				}
			}
		}
	}
	rows := list()
	check(rows, "")
	keep(rows)
	r.Simulator.Remove(r.Location, ids[3])
	ids = slices.Delete(ids, 3, 4)
	added := r.Simulator.Add(r.Location, 1)[0]
	ids = append(ids, added)
	rows = list()
	check(rows, added)
	memo.Forget()
	for id, n := range list() {
		if n.Unchanged {
			t.Errorf("%s is unchanged, and nothing is known of it", id)
		}
	}
}

// find: a provider that can be asked for one notebook says the same of it as
// its list does.
func (s suite) find(t *testing.T) {
	r := s.rig(t, upstream.ClientConfig{})
	finder, ok := r.Provider.(upstream.Finder)
	if !ok {
		t.Skip("the cloud has no such call")
	}
	id := r.Simulator.Add(r.Location, 1)[0]
	rows := r.list(t)
	listed := rows[slices.IndexFunc(rows, func(n upstream.Notebook) bool { return n.ID == id })]
	found, err := finder.Find(limit(t), r.Location, id)
	if diff := cmp.Diff(listed, found); err != nil || diff != "" {
		t.Errorf("%v (-listed +found):\n%s", err, diff)
	}
	r.checkClean(t, "a notebook", fmt.Sprintf("%+v", found))
	r.Simulator.Remove(r.Location, id)
	if _, err := finder.Find(limit(t), r.Location, id); upstream.KindOf(err) != upstream.KindNotFound {
		t.Errorf("one that is gone: %v", err)
	}
}

// concurrency: listings at the same time say the same.
func (s suite) concurrency(t *testing.T) {
	r := s.rig(t, upstream.ClientConfig{})
	r.Simulator.Clear(r.Location)
	const count = 30
	r.Simulator.Add(r.Location, count)
	results := make([][]upstream.Notebook, 20)
	errs := make([]error, len(results))
	ctx := limit(t)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { results[i], errs[i] = r.Provider.List(ctx, r.Location) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	want := r.list(t)
	if len(want) != count {
		t.Errorf("%d notebooks, want %d", len(want), count)
	}
	for _, got := range results {
		slices.SortFunc(got, func(a, b upstream.Notebook) int { return strings.Compare(a.ID, b.ID) })
		if !reflect.DeepEqual(want, got) { // far faster than what follows
			t.Fatalf("two listings differ:\n%s", cmp.Diff(want, got))
		}
	}
}
