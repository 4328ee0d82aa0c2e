package inventory

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/notebookd/notebookd/internal/replica"
	"github.com/notebookd/notebookd/internal/storage"
	"github.com/notebookd/notebookd/internal/upstream"
)

// testLog is a Log over a storage of its own.
type testLog struct {
	*Log
	storage *storage.Storage
}

func (l testLog) Close() { l.storage.Close() }

func startLog(t *testing.T, dir string) testLog {
	t.Helper()
	return startLogWith(t, storage.Config{DataDir: dir}, 24*time.Hour)
}

func startLogWith(t *testing.T, cfg storage.Config, tombstones time.Duration) testLog {
	t.Helper()
	st, err := storage.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	log, err := openLog(t.Context(), st, tombstones, nil)
	if err != nil {
		t.Fatal(err)
	}
	return testLog{log, st}
}

// replay returns a store that has followed a log to its end.
func replay(t *testing.T, log testLog) *Inventory {
	t.Helper()
	inv := New(Config{})
	stop, err := inv.follow(t.Context(), t.Context(), log.Log, inv.store.begin(log.Epoch(), false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); inv.store.settle() })
	return inv
}

func TestLogSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	log := startLog(t, dir)
	before := replay(t, log)
	epoch, key := log.Epoch(), string(log.tokenKey)
	var batch []entry
	for i := range 500 {
		batch = append(batch, put(t, fmt.Sprintf("nb.%d/*>", i), "one")) // ids that are no plain subject token
	}
	if _, err := log.publish(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	changed := put(t, "nb.7/*>", "two")
	changed.expect, changed.created, changed.changed = 8, 8, map[string]uint64{"image.uri": 0, `attributes.odd "key"=1`: 8}
	if _, err := log.publish(t.Context(), []entry{changed}); err != nil {
		t.Fatal(err)
	}
	if err := before.WaitRevision(t.Context(), 501); err != nil {
		t.Fatal(err)
	}
	want, revision := live(before.Snapshot()), before.Snapshot().Revision()
	if len(want) != 500 || revision != 501 {
		t.Fatalf("%d rows at revision %d, want 500 at 501", len(want), revision)
	}
	log.Close()

	log = startLog(t, dir)
	defer log.Close()
	if log.Epoch() != epoch || string(log.tokenKey) != key {
		t.Error("epoch or token key changed with a restart")
	}
	after := replay(t, log).Snapshot()
	if diff := cmp.Diff(want, live(after)); diff != "" {
		t.Errorf("rows after a restart (-before +after):\n%s", diff)
	}
	row, ok := after.Get(testLocation + "/notebooks/nb.7/*>")
	if !ok {
		t.Fatal("the changed row is gone")
	}
	if !row.Known(8, 8) || row.Known(7, 7) {
		t.Error("the revision of creation was lost")
	}
	if diff := cmp.Diff([]string{"image.uri"}, row.ChangedSince(8)); diff != "" {
		t.Errorf("changed fields (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{`attributes.odd "key"=1`, "image.uri"}, row.ChangedSince(7)); diff != "" {
		t.Errorf("changed fields (-want +got):\n%s", diff)
	}
}

func TestStaleWriterIsRefused(t *testing.T) {
	log := startLog(t, "")
	defer log.Close()
	if _, err := log.publish(t.Context(), []entry{put(t, "a", "one")}); err != nil {
		t.Fatal(err)
	}
	stale := put(t, "a", "stale") // expects that there is no such row
	if _, err := log.publish(t.Context(), []entry{stale, put(t, "b", "one")}); err == nil {
		t.Error("a write with an outdated expectation was stored")
	}
	inv := replay(t, log)
	want := map[string]string{testLocation + "/notebooks/a": "one", testLocation + "/notebooks/b": "one"}
	if diff := cmp.Diff(want, live(inv.Snapshot())); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestBatchThroughTheLogIsOneSnapshot(t *testing.T) {
	log := startLog(t, "")
	defer log.Close()
	inv := replay(t, log)
	first := inv.Snapshot()
	var batch []entry
	for i := range 300 {
		batch = append(batch, put(t, fmt.Sprint(i), "one"))
	}
	revision, err := log.publish(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	<-first.Superseded()
	// The timer for batches without an end may cut in on a slow machine, so a
	// few snapshots are allowed, but not one a row.
	snapshots := 1
	for s := inv.Snapshot(); s.Revision() < revision; s = inv.Snapshot() {
		<-s.Superseded()
		snapshots++
	}
	if snapshots > 10 {
		t.Errorf("%d snapshots for one batch of 300", snapshots)
	}
}

func TestTombstoneLeavesTheLog(t *testing.T) {
	log := startLogWith(t, storage.Config{}, time.Second)
	defer log.Close()
	if _, err := log.publish(t.Context(), []entry{put(t, "a", "one")}); err != nil {
		t.Fatal(err)
	}
	gone := put(t, "a", "one")
	gone.expect, gone.deleted = 1, true
	if _, err := log.publish(t.Context(), []entry{gone}); err != nil {
		t.Fatal(err)
	}
	// The server's clock cannot be faked, so this polls it.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		info, err := log.stream.Info(ctx)
		if err != nil {
			t.Fatalf("the tombstone is still there: %v", err)
		}
		if info.State.Msgs == 0 {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	if _, err := log.publish(t.Context(), []entry{put(t, "a", "again")}); err != nil {
		t.Errorf("the notebook cannot come back: %v", err)
	}
}

func TestMessageOfAnotherVersionIsSkipped(t *testing.T) {
	log := startLog(t, "")
	defer log.Close()
	if _, err := log.js.Publish(t.Context(), log.prefix+"core.xb3.broken", []byte{0xFF, 0xFF}); err != nil {
		t.Fatal(err)
	}
	if _, err := log.publish(t.Context(), []entry{put(t, "a", "one")}); err != nil {
		t.Fatal(err)
	}
	if got := len(live(replay(t, log).Snapshot())); got != 1 {
		t.Errorf("%d rows, want the one that can be read", got)
	}
}

func TestForeignStreamIsRefused(t *testing.T) {
	st, err := storage.Open(storage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := st.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "NOTEBOOKD_ROWS", Subjects: []string{"notebookd.row.>"}, MaxMsgsPerSubject: 1, AllowMsgTTL: true, Storage: jetstream.MemoryStorage,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := openLog(t.Context(), st, time.Hour, nil); err == nil || !strings.Contains(err.Error(), "not made by notebookd") {
		t.Errorf("error = %v", err)
	}
}

func TestSubjects(t *testing.T) {
	for _, key := range []rowKey{{"core", "xb3", "nb-1"}, {"c", "1.2", "a b"}, {"c", "l", "容器"}, {"c", "l", "=x"}, {"c", "l", "*.>"}} {
		got, err := parseSubject(key.subject())
		if err != nil || got != key {
			t.Errorf("%v → %s → %v, %v", key, key.subject(), got, err)
		}
	}
	for _, subject := range []string{"notebookd.row.a.b", "notebookd.row.a.b.c.d", "notebookd.row.a.b.=!"} {
		if _, err := parseSubject(subject); err == nil {
			t.Errorf("%s was taken", subject)
		}
	}
}

// TestInventoryOverTheLog runs the whole package: cloud → poll → log → store.
func TestInventoryOverTheLog(t *testing.T) {
	dir := t.TempDir()
	cloud := &fakeCloud{notebooks: notebooks("a", "b", "c"), locations: []upstream.Location{{ID: "xb3"}}}
	run := func(check func(inv *Inventory)) {
		st, err := storage.Open(storage.Config{DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		inv := New(Config{Sources: []Source{{Name: "core", Kind: "fake", Provider: cloud}}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- replica.New(replica.Config{Storage: st}).Run(ctx, inv.Run) }()
		check(inv)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	run(func(inv *Inventory) {
		if err := inv.WaitRevision(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
	})
	cloud.set(func(f *fakeCloud) { f.err = &upstream.Error{Kind: upstream.KindUnavailable} })
	run(func(inv *Inventory) {
		if err := inv.WaitRevision(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"a", "b", "c"}, ids(inv.Snapshot())); diff != "" {
			t.Errorf("rows of a cloud that is down, after a restart (-want +got):\n%s", diff)
		}
	})
	cloud.set(func(f *fakeCloud) { f.err, f.hang = nil, time.Minute })
	run(func(inv *Inventory) { // what is known need not be read first
		for began := time.Now(); !inv.Ready() && time.Since(began) < 10*time.Second; {
			time.Sleep(time.Millisecond)
		}
		if l, ok := inv.Snapshot().Location(testLocation); !inv.Ready() || !ok || !l.LastAttempt.IsZero() {
			t.Errorf("ready %v with %+v", inv.Ready(), l)
		}
	})
}

// TestLargeBatchesAtOnce: the first polls of large clouds bring tens of
// thousands of rows at the same time.
func TestLargeBatchesAtOnce(t *testing.T) {
	log := startLog(t, "")
	defer log.Close()
	inv := replay(t, log)
	const publishers, rows = 4, 5000
	var wg sync.WaitGroup
	var highest atomic.Uint64
	for p := range publishers {
		wg.Go(func() {
			var batch []entry
			for i := range rows {
				batch = append(batch, put(t, fmt.Sprintf("%d-%d", p, i), "one"))
			}
			revision, err := log.publish(t.Context(), batch)
			if err != nil {
				t.Error(err)
			}
			for {
				seen := highest.Load()
				if revision <= seen || highest.CompareAndSwap(seen, revision) {
					return
				}
			}
		})
	}
	wg.Wait()
	if err := inv.WaitRevision(t.Context(), highest.Load()); err != nil {
		t.Fatal(err)
	}
	if got := inv.Snapshot().Count(testLocation); got != publishers*rows {
		t.Errorf("%d rows, want %d", got, publishers*rows)
	}
}
