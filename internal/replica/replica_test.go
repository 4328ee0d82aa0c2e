package replica

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notebookd/notebookd/internal/natstest"
	"github.com/notebookd/notebookd/internal/storage"
)

func TestMain(m *testing.M) {
	natstest.Main()
	os.Exit(m.Run())
}

func TestSpread(t *testing.T) {
	work := []string{"a", "b", "c", "d", "e", "f", "g"}
	members := map[string][]string{}
	for i := range 5 {
		members[fmt.Sprint("replica-", i)] = work
		chosen := spread(members)
		load := map[string]int{}
		for _, name := range work {
			if _, ok := members[chosen[name]]; !ok {
				t.Fatalf("%s goes to %q", name, chosen[name])
			}
			load[chosen[name]]++
		}
		most := (len(work) + i) / (i + 1)
		for id, n := range load {
			if n > most {
				t.Errorf("%d of %d members: %s has %d, want at most %d", len(work), i+1, id, n, most)
			}
		}
	}
	// Work that only one knows of goes to that one.
	members["replica-9"] = []string{"new"}
	if got := spread(members)["new"]; got != "replica-9" {
		t.Errorf("new goes to %q", got)
	}
	if spread(nil) != nil {
		t.Error("nobody has work")
	}
}

// peer is a replica in this process, with a connection of its own.
type peer struct {
	door   *natstest.Door
	member atomic.Pointer[Member]
	stop   func()
}

// record is who had the work, when it began and ended.
type record struct {
	mu    sync.Mutex // guards what is below
	now   map[string][]int
	terms map[string]uint64
	wrong []string
}

func (r *record) begin(name string, who int, term uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now[name] = append(r.now[name], who)
	if len(r.now[name]) > 1 {
		r.wrong = append(r.wrong, fmt.Sprintf("%s is held by %v", name, r.now[name]))
	}
	if term <= r.terms[name] {
		r.wrong = append(r.wrong, fmt.Sprintf("term %d of %s comes after %d", term, name, r.terms[name]))
	}
	r.terms[name] = term
}

func (r *record) end(name string, who int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now[name] = slices.DeleteFunc(r.now[name], func(x int) bool { return x == who })
}

func (r *record) holder(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.now[name]) != 1 {
		return -1
	}
	return r.now[name][0]
}

func until(t *testing.T, what string, within time.Duration, ok func() bool) {
	t.Helper()
	deadline := time.After(within)
	for !ok() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatalf("still not: %s", what)
		}
	}
}

// TestHold: each piece of work is held by one replica at a time, whatever happens
// to the connections; who is cut off stops before another one begins, and comes
// back; who leaves hands over at once.
func TestHold(t *testing.T) {
	const ttl = 2 * time.Second
	nats := natstest.Start(t, 1)
	work := []string{"a", "b", "c"}
	r := &record{now: map[string][]int{}, terms: map[string]uint64{}}
	start := func(i int) *peer {
		p := &peer{door: nats.Door(t)}
		st, err := storage.Open(storage.Config{Cluster: &storage.ClusterConfig{URLs: p.door.URLs(), Replicas: 1}})
		if err != nil {
			t.Fatal(err)
		}
		group := New(Config{Storage: st, Lease: ttl, Work: work})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := group.Run(ctx, func(ctx context.Context, m *Member) error {
				p.member.Store(m)
				var wg sync.WaitGroup
				for _, name := range work {
					wg.Go(func() {
						m.Hold(ctx, name, func(ctx context.Context, term Term) {
							r.begin(name, i, term.Number)
							<-ctx.Done()
							r.end(name, i)
						})
					})
				}
				wg.Wait()
				return nil
			}); err != nil {
				t.Errorf("replica %d: %v", i, err)
			}
		}()
		p.stop = sync.OnceFunc(func() {
			cancel()
			<-done
			st.Close()
		})
		t.Cleanup(p.stop)
		return p
	}
	held := func(by ...int) func() bool {
		return func() bool {
			for _, name := range work {
				if !slices.Contains(by, r.holder(name)) {
					return false
				}
			}
			return true
		}
	}
	spreadOver := func(n int) func() bool {
		return func() bool {
			holders := map[int]bool{}
			for _, name := range work {
				holders[r.holder(name)] = true
			}
			return len(holders) == n && !holders[-1]
		}
	}
	var peers []*peer
	for i := range 3 {
		peers = append(peers, start(i))
		if i == 0 {
			until(t, "one replica has everything", 10*time.Second, held(0))
		}
	}
	until(t, "each of three has one", 15*time.Second, spreadOver(3))

	first := peers[0].member.Load()
	peers[0].door.Cut()
	until(t, "the others have everything", 15*time.Second, held(1, 2))
	if first.Valid() {
		t.Error("who is cut off takes itself for alive")
	}
	other := peers[1].member.Load()
	if other.Gone(t.Context(), peers[2].member.Load().ID()) {
		t.Error("a replica that is alive is declared dead")
	}
	until(t, "who is cut off is dead to the others", 10*time.Second, func() bool { return other.Gone(t.Context(), first.ID()) })
	peers[0].door.Mend()
	until(t, "it is back as another member", 20*time.Second, func() bool { return peers[0].member.Load().ID() != first.ID() })
	until(t, "each of three has one again", 15*time.Second, spreadOver(3))

	peers[1].stop()
	until(t, "what it had is taken over in less than a lease", ttl/2, held(0, 2))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, wrong := range r.wrong {
		t.Error(wrong)
	}
}

// TestFenced: a replica that was declared dead while it stood still knows it.
func TestFenced(t *testing.T) {
	nats := natstest.Start(t, 1)
	open := func() *Group {
		st, err := storage.Open(storage.Config{Cluster: &storage.ClusterConfig{URLs: nats.URLs(), Replicas: 1}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(st.Close)
		return New(Config{Storage: st, Lease: time.Second})
	}
	a, err := open().join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.watcher.Stop() })
	b, err := open().join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.watcher.Stop() })
	if !a.Valid() || b.Gone(t.Context(), a.ID()) {
		t.Fatal("it is alive")
	}
	// Nobody renews its key, as if the process stood still.
	until(t, "the other one is certain", 10*time.Second, func() bool { return b.Gone(t.Context(), a.ID()) })
	if a.Valid() {
		t.Error("it takes itself for alive after its time")
	}
	if a.renew(t.Context(), a.own) {
		t.Error("a dead replica has renewed its key")
	}
}

// TestAlone: with a storage of its own a process has all the work.
func TestAlone(t *testing.T) {
	st, err := storage.Open(storage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	group := New(Config{Storage: st})
	err = group.Run(t.Context(), func(ctx context.Context, m *Member) error {
		if !group.Joined() || !m.Valid() || !m.Gone(ctx, "anybody") || m.Gone(ctx, m.ID()) {
			t.Error("a process alone is not what it should be")
		}
		called := false
		m.Hold(ctx, "a", func(_ context.Context, term Term) { called = term.Valid() })
		if !called {
			t.Error("it does not get the work")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestSetWork: the others hear of work that a replica has learnt of, and forget what
// it does not know any more.
func TestSetWork(t *testing.T) {
	const ttl = time.Second
	nats := natstest.Start(t, 1)
	groups, members := [2]*Group{}, [2]atomic.Pointer[Member]{}
	for i := range groups {
		st, err := storage.Open(storage.Config{Cluster: &storage.ClusterConfig{URLs: nats.Door(t).URLs(), Replicas: 1}})
		if err != nil {
			t.Fatal(err)
		}
		groups[i] = New(Config{Storage: st, Lease: ttl, Work: []string{"a"}})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := groups[i].Run(ctx, func(ctx context.Context, m *Member) error {
				members[i].Store(m)
				<-ctx.Done()
				return nil
			}); err != nil {
				t.Errorf("replica %d: %v", i, err)
			}
		}()
		t.Cleanup(func() {
			cancel()
			<-done
			st.Close()
		})
	}
	until(t, "both have joined", 10*time.Second, func() bool { return members[0].Load() != nil && members[1].Load() != nil })
	chosen := func(name string) string {
		m := members[0].Load()
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.chosenLocked(name)
	}
	groups[1].SetWork([]string{"a", "b"})
	until(t, "b is the work of the one that knows it", 10*ttl, func() bool { return chosen("b") == members[1].Load().ID() })
	groups[1].SetWork([]string{"a"})
	until(t, "b is nobody's work", 10*ttl, func() bool { return chosen("b") == "" })
	if first := members[1].Load(); !first.Valid() {
		t.Error("the membership was lost over it")
	}
}
