package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/replica"
	"github.com/notebookd/notebookd/internal/upstream"
)

// rememberingCloud is a fakeCloud that need not decode again what it sends again.
type rememberingCloud struct {
	*fakeCloud
	decoded atomic.Int64
}

// Relist implements upstream.Relister.
func (c *rememberingCloud) Relist(ctx context.Context, location string, memo *upstream.Memo) ([]upstream.Notebook, error) {
	all, err := c.List(ctx, location)
	if err != nil || all == nil {
		return all, err
	}
	out := make([]upstream.Notebook, len(all))
	for i, n := range all {
		raw, err := json.Marshal(n)
		if err != nil {
			return nil, err
		}
		out[i], _ = memo.Decode(raw, func() (upstream.Notebook, bool, bool) {
			c.decoded.Add(1)
			return n, true, true
		})
	}
	return out, nil
}

// TestRemembered: whatever fails meanwhile, an inventory comes to hold what a cloud
// holds that is believed when it says that nothing has changed.
func TestRemembered(t *testing.T) {
	for range 20 {
		seed := rand.Uint64()
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			cloud := &rememberingCloud{fakeCloud: &fakeCloud{notebooks: notebooks("a", "b", "c", "d"), locations: []upstream.Location{{ID: "xb3"}}}}
			inv, log := testInventoryOf(t, cloud)
			synctest.Wait()
			epoch := 0
			for range 60 {
				cloud.set(func(f *fakeCloud) {
					f.err = nil
					f.notebooks = slices.Clone(f.notebooks)
					for range rng.IntN(3) {
						id := string(rune('a' + rng.IntN(8)))
						at := slices.IndexFunc(f.notebooks, func(n upstream.Notebook) bool { return n.ID == id })
						switch {
						case at < 0:
							f.notebooks = append(f.notebooks, upstream.Notebook{ID: id, State: upstream.StateRunning})
						case rng.IntN(3) == 0:
							f.notebooks = slices.Delete(f.notebooks, at, at+1)
						default: // few versions, so that it often goes back to one that was
							f.notebooks[at].DisplayName = fmt.Sprint(rng.IntN(3))
						}
					}
					if rng.IntN(5) == 0 {
						f.err = errors.New("down")
					}
				})
				log.mu.Lock()
				log.fail = nil
				if rng.IntN(4) == 0 {
					log.fail = errors.New("disk full")
				}
				log.mu.Unlock()
				if rng.IntN(10) == 0 { // all is forgotten
					epoch++
					inv.store.begin(fmt.Sprint("epoch ", epoch), false)
				}
				time.Sleep(time.Duration(rng.IntN(90)) * time.Second)
			}
			cloud.set(func(f *fakeCloud) { f.err = nil })
			log.mu.Lock()
			log.fail = nil
			log.mu.Unlock()
			time.Sleep(10 * time.Minute)
			want := map[string]string{}
			for _, n := range cloud.notebooks {
				want[n.ID] = n.DisplayName
			}
			for row := range inv.Snapshot().Rows(testLocation, "") {
				_, id := row.Address()
				if name, ok := want[id]; !ok || name != row.Notebook.GetDisplayName() {
					t.Errorf("%s is %q, in the cloud %q (%v)", id, row.Notebook.GetDisplayName(), name, ok)
				}
				delete(want, id)
			}
			if len(want) != 0 {
				t.Errorf("not known: %v", want)
			}
			before := cloud.decoded.Load()
			time.Sleep(10 * time.Minute)
			if n := cloud.decoded.Load() - before; n != 0 {
				t.Errorf("%d were decoded that had not changed", n)
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestUnchangedRowsAllocateNothing: what a poll allocates in the inventory does not
// grow with the notebooks that are as they were.
func TestUnchangedRowsAllocateNothing(t *testing.T) {
	allocated := func(count int) float64 {
		inv := New(Config{Sources: []Source{{Name: "core", Kind: "fake", Provider: &fakeCloud{}}}})
		log := &memoryLog{store: inv.store}
		inv.records = log
		p := inv.newPoller(inv.accounts["core"], "xb3", replica.Term{})
		listing := make([]upstream.Notebook, count)
		for i := range listing {
			listing[i] = upstream.Notebook{ID: fmt.Sprintf("nb-%06d", count-i), State: upstream.StateRunning}
		}
		poll := func() {
			absent, err := p.compare(listing)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.record(t.Context(), listing, absent, nil, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		poll()
		inv.store.settle()
		if n := inv.Snapshot().Count(testLocation); n != count {
			t.Fatalf("%d rows", n)
		}
		for i := range listing {
			listing[i].Unchanged = true
		}
		return testing.AllocsPerRun(5, poll)
	}
	if few, many := allocated(100), allocated(10_000); many > few {
		t.Errorf("%v allocations with 10,000 unchanged rows, %v with 100", many, few)
	}
}

// TestChangedPaths: with the bytes as a guide the same fields are found as without.
func TestChangedPaths(t *testing.T) {
	free := int32(2)
	base := func() *notebookv1.Notebook {
		return &notebookv1.Notebook{
			Name: "n", DisplayName: "d", State: notebookv1.Notebook_STATE_RUNNING, EnvNames: []string{"A", "B"},
			Image:       &notebookv1.Image{Uri: "u", SizeBytes: 3},
			Resources:   &notebookv1.Resources{CpuCores: 2, Accelerator: &notebookv1.Accelerator{Type: "gpu", AvailableCount: &free}},
			Attributes:  map[string]string{"a": "1", "b": "2", "c": "3"},
			CreateTime:  &timestamppb.Timestamp{Seconds: 5},
			ObserveTime: &timestamppb.Timestamp{Seconds: 6},
		}
	}
	less := int32(1)
	for want, change := range map[string]func(n *notebookv1.Notebook){
		"":                               func(*notebookv1.Notebook) {},
		"display_name":                   func(n *notebookv1.Notebook) { n.DisplayName = "" },
		"env_names":                      func(n *notebookv1.Notebook) { n.EnvNames = []string{"A", "BC"} },
		"env_names ":                     func(n *notebookv1.Notebook) { n.EnvNames = nil },
		"attributes.b":                   func(n *notebookv1.Notebook) { n.Attributes["b"] = "x" },
		"attributes.b attributes.d":      func(n *notebookv1.Notebook) { delete(n.GetAttributes(), "b"); n.GetAttributes()["d"] = "" },
		"image.size_bytes image.uri":     func(n *notebookv1.Notebook) { n.Image = nil },
		"resources.cpu_cores":            func(n *notebookv1.Notebook) { n.Resources.CpuCores = 3; n.Resources.Accelerator.AvailableCount = &less },
		"mirrors.pip":                    func(n *notebookv1.Notebook) { n.Mirrors = &notebookv1.Mirrors{Pip: "p"} },
		" volatile":                      func(n *notebookv1.Notebook) { n.ObserveTime = nil; n.Etag = "e"; n.Attributes["v"] = "1" },
		"create_time display_name state": func(n *notebookv1.Notebook) { n.CreateTime = nil; n.DisplayName = "e"; n.State = 0 },
	} {
		before, after := base(), base()
		change(after)
		for _, deterministic := range []bool{true, false, false, false} { // as rows of older versions are
			was, err := proto.MarshalOptions{Deterministic: deterministic}.Marshal(before)
			if err != nil {
				t.Fatal(err)
			}
			is, err := proto.MarshalOptions{Deterministic: true}.Marshal(after)
			if err != nil {
				t.Fatal(err)
			}
			for name, bytes := range map[string][]byte{"read": was, "nothing known": nil, "broken": {0xff}} {
				paths := changedPaths(before, after, bytes, is, []string{"v"})
				slices.Sort(paths)
				if got := strings.Join(paths, " "); got != strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(want, " volatile"), " volatile"), " ") {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		}
	}
	if fields := base().ProtoReflect().Descriptor().Fields(); fields.ByName("etag").Number() != notebookEtag {
		t.Error("etag has another number")
	}
	for i, fields := 0, base().ProtoReflect().Descriptor().Fields(); i < fields.Len(); i++ {
		if fields.Get(i).Number() >= maxWireFields {
			t.Errorf("%s is compared slowly", fields.Get(i).Name())
		}
	}
}
