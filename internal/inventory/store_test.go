package inventory

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// message is a log message as a store sees it.
type fakeMessage struct {
	jetstream.Msg
	subject string
	header  nats.Header
	data    []byte
}

func (m fakeMessage) Subject() string      { return m.subject }
func (m fakeMessage) Headers() nats.Header { return m.header }
func (m fakeMessage) Data() []byte         { return m.data }

// memoryLog is a log without NATS: it applies what is published at once.
type memoryLog struct {
	store *Store

	mu       sync.Mutex // guards what is below
	revision uint64
	batches  [][]entry
	fail     error
}

func (l *memoryLog) publish(_ context.Context, batch []entry) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return 0, l.fail
	}
	l.batches = append(l.batches, batch)
	for i, e := range batch {
		l.revision++
		h := nats.Header{}
		h.Set(headerCreated, fmt.Sprint(e.created))
		h.Set(headerChanged, encodeChanged(e.changed))
		if e.deleted {
			h.Set(headerDeleted, "1")
		}
		if i < len(batch)-1 {
			h.Set(headerMore, "1")
		}
		l.store.apply(fakeMessage{subject: e.key.subject(), header: h, data: e.payload}, l.revision, time.Now(), 0)
	}
	return l.revision, nil
}

func testStore(tb testing.TB) (*Store, *memoryLog) {
	tb.Helper()
	store := newStore(time.Hour, slog.New(slog.DiscardHandler))
	tb.Cleanup(store.settle)
	return store, &memoryLog{store: store}
}

func put(tb testing.TB, id, image string) entry {
	tb.Helper()
	key := rowKey{"core", "xb3", id}
	payload, err := proto.Marshal(&notebookv1.Notebook{Name: key.name(), Image: &notebookv1.Image{Uri: image}})
	if err != nil {
		tb.Fatal(err)
	}
	return entry{key: key, payload: payload}
}

func publish(tb testing.TB, l *memoryLog, batch ...entry) {
	tb.Helper()
	if _, err := l.publish(context.Background(), batch); err != nil {
		tb.Fatal(err)
	}
}

// live returns the images of a snapshot's rows by name.
func live(v *Snapshot) map[string]string {
	out := map[string]string{}
	for row := range v.Rows("clouds/core/locations/xb3", "") {
		out[row.Name] = row.Notebook.GetImage().GetUri()
	}
	return out
}

func TestSnapshotIsImmutable(t *testing.T) {
	store, log := testStore(t)
	publish(t, log, put(t, "a", "one"), put(t, "b", "one"))
	old := store.Snapshot()
	before := live(old)
	publish(t, log, put(t, "a", "two"), entry{key: rowKey{"core", "xb3", "b"}, payload: put(t, "b", "one").payload, deleted: true}, put(t, "c", "one"))

	if diff := cmp.Diff(before, live(old)); diff != "" {
		t.Errorf("an old snapshot changed (-before +after):\n%s", diff)
	}
	want := map[string]string{"clouds/core/locations/xb3/notebooks/a": "two", "clouds/core/locations/xb3/notebooks/c": "one"}
	if diff := cmp.Diff(want, live(store.Snapshot())); diff != "" {
		t.Errorf("new snapshot (-want +got):\n%s", diff)
	}
	if got := store.Snapshot().Count("clouds/core/locations/xb3"); got != 2 {
		t.Errorf("count = %d, want 2", got)
	}
	select {
	case <-old.Superseded():
	default:
		t.Error("the old snapshot was not superseded")
	}
}

func TestBatchIsOneSnapshot(t *testing.T) {
	store, log := testStore(t)
	first := store.Snapshot()
	batch := make([]entry, 100)
	for i := range batch {
		batch[i] = put(t, fmt.Sprintf("nb-%03d", i), "one")
	}
	publish(t, log, batch...)
	if got := len(live(store.Snapshot())); got != 100 {
		t.Fatalf("rows = %d, want 100", got)
	}
	// Whoever was woken finds the whole batch: there was no snapshot in between.
	<-first.Superseded()
	select {
	case <-store.Snapshot().Superseded():
		t.Error("the snapshot of the batch is superseded already")
	default:
	}
}

func TestRowsContinueAfterAName(t *testing.T) {
	store, log := testStore(t)
	publish(t, log, put(t, "a", "1"), put(t, "b", "1"), put(t, "c", "1"))
	// Another location whose name begins alike must not leak in.
	other := put(t, "b", "1")
	other.key.location = "xb3-2"
	publish(t, log, other)

	var got []string
	for row := range store.Snapshot().Rows("clouds/core/locations/xb3", "clouds/core/locations/xb3/notebooks/a") {
		_, id := row.Address()
		got = append(got, id)
	}
	if diff := cmp.Diff([]string{"b", "c"}, got); diff != "" {
		t.Errorf("rows after a (-want +got):\n%s", diff)
	}
}

func TestTombstonesAreForgotten(t *testing.T) {
	store, log := testStore(t)
	gone := put(t, "a", "1")
	gone.deleted = true
	publish(t, log, gone, put(t, "b", "1"))
	count := func() (n int) {
		for range store.Snapshot().Since(0) {
			n++
		}
		return n
	}
	if count() != 2 {
		t.Fatalf("rows with tombstones = %d, want 2", count())
	}
	store.mu.Lock()
	store.buryLocked(time.Now().Add(time.Hour + 2*tombstoneGrace))
	store.publishLocked(false)
	store.mu.Unlock()
	if count() != 1 {
		t.Errorf("rows after the tombstone's time = %d, want 1", count())
	}
}

func TestChangedSince(t *testing.T) {
	row := &Row{created: 3, changed: map[string]uint64{"state": 9, "image.uri": 5}}
	for _, tt := range []struct {
		since uint64
		want  []string
	}{{2, []string{"image.uri", "state"}}, {5, []string{"state"}}, {9, nil}} {
		if diff := cmp.Diff(tt.want, row.ChangedSince(tt.since)); diff != "" {
			t.Errorf("since %d (-want +got):\n%s", tt.since, diff)
		}
	}
	if !row.Known(3, 3) || row.Known(2, 2) {
		t.Error("Added does not follow the revision of creation")
	}
}

// FuzzSince: applying what Since says to an older state gives the newer one.
func FuzzSince(f *testing.F) {
	f.Add([]byte{1, 2, 3, 0x81, 4, 0x82})
	f.Add([]byte("any text is a history"))
	f.Fuzz(func(t *testing.T, history []byte) {
		if len(history) > 200 {
			history = history[:200]
		}
		store, log := testStore(t)
		type point struct {
			revision uint64
			state    map[string]string
		}
		points := []point{{0, map[string]string{}}}
		for i, b := range history {
			e := put(t, fmt.Sprint(b&0x0F), fmt.Sprint(i))
			e.deleted = b&0x80 != 0
			publish(t, log, e)
			points = append(points, point{store.Snapshot().Revision(), live(store.Snapshot())})
		}
		end := store.Snapshot()
		for _, p := range points {
			state := map[string]string{}
			for k, v := range p.state {
				state[k] = v
			}
			last := p.revision
			for row := range end.Since(p.revision) {
				if row.Revision <= last {
					t.Fatalf("revision %d after %d", row.Revision, last)
				}
				last = row.Revision
				if row.Deleted {
					delete(state, row.Name)
				} else {
					state[row.Name] = row.Notebook.GetImage().GetUri()
				}
			}
			if diff := cmp.Diff(live(end), state); diff != "" {
				t.Fatalf("from revision %d (-list +rebuilt):\n%s", p.revision, diff)
			}
		}
	})
}

// TestWatchersConverge races a writer with watchers that follow it as Watch
// does: each ends with the writer's last state.
func TestWatchersConverge(t *testing.T) {
	store, log := testStore(t)
	const last = "the end"
	var watchers sync.WaitGroup
	for range 8 {
		watchers.Go(func() {
			state := map[string]string{}
			var sent uint64
			for snapshot := store.Snapshot(); ; snapshot = store.Snapshot() {
				for row := range snapshot.Since(sent) {
					if row.Deleted {
						delete(state, row.Name)
					} else {
						state[row.Name] = row.Notebook.GetImage().GetUri()
					}
				}
				sent = snapshot.Revision()
				if state["clouds/core/locations/xb3/notebooks/end"] == last {
					if diff := cmp.Diff(live(snapshot), state); diff != "" {
						t.Errorf("watcher at the end (-list +rebuilt):\n%s", diff)
					}
					return
				}
				<-snapshot.Superseded()
			}
		})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		e := put(t, fmt.Sprint(rng.IntN(50)), fmt.Sprint(i))
		e.deleted = rng.IntN(4) == 0
		publish(t, log, e)
	}
	publish(t, log, put(t, "end", last))
	watchers.Wait()
}
