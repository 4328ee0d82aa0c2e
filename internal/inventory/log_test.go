package inventory

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/notebookd/notebookd/internal/upstream"
)

func openLog(t *testing.T, dir string) *Log {
	t.Helper()
	log, err := OpenLog(t.Context(), LogConfig{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// replay returns a store that has followed a log to its end.
func replay(t *testing.T, log *Log) *Inventory {
	t.Helper()
	inv := New(Config{Log: log})
	stop, err := inv.follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); inv.store.close() })
	return inv
}

func TestLogSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	log := openLog(t, dir)
	epoch, key := log.Epoch(), string(log.TokenKey())
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
	before := replay(t, log)
	want, revision := live(before.Snapshot()), before.Snapshot().Revision()
	if len(want) != 500 || revision != 501 {
		t.Fatalf("%d rows at revision %d, want 500 at 501", len(want), revision)
	}
	log.Close()

	log = openLog(t, dir)
	defer log.Close()
	if log.Epoch() != epoch || string(log.TokenKey()) != key {
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
	log := openLog(t, "")
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
	log := openLog(t, "")
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
	log, err := OpenLog(t.Context(), LogConfig{Tombstones: time.Second})
	if err != nil {
		t.Fatal(err)
	}
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
	log := openLog(t, "")
	defer log.Close()
	if _, err := log.js.Publish(t.Context(), subjectPrefix+"core.xb3.broken", []byte{0xFF, 0xFF}); err != nil {
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
	dir := t.TempDir()
	log := openLog(t, dir)
	if err := log.js.DeleteStream(t.Context(), streamName); err != nil {
		t.Fatal(err)
	}
	if _, err := log.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: streamName, Subjects: []string{"other"}}); err != nil {
		t.Fatal(err)
	}
	log.Close()
	if _, err := OpenLog(t.Context(), LogConfig{DataDir: dir}); err == nil || !strings.Contains(err.Error(), "not made by notebookd") {
		t.Errorf("error = %v", err)
	}
}

func TestDataDirectoryThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLog(t.Context(), LogConfig{DataDir: filepath.Join(file, "below"), Logger: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("no error")
	}
}

func TestSubjects(t *testing.T) {
	for _, key := range []rowKey{{"core", "xb3", "nb-1"}, {"c", "1.2", "a b"}, {"c", "l", "容器"}, {"c", "l", "=x"}, {"c", "l", "*.>"}} {
		got, err := parseSubject(key.subject())
		if err != nil || got != key {
			t.Errorf("%v → %s → %v, %v", key, key.subject(), got, err)
		}
	}
	for _, subject := range []string{subjectPrefix + "a.b", subjectPrefix + "a.b.c.d", subjectPrefix + "a.b.=!"} {
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
		log := openLog(t, dir)
		defer log.Close()
		inv := New(Config{Log: log, Sources: []Source{{Name: "core", Kind: "fake", Provider: cloud}}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- inv.Run(ctx) }()
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
}

// TestLargeBatchesAtOnce: the first polls of large clouds bring tens of
// thousands of rows at the same time.
func TestLargeBatchesAtOnce(t *testing.T) {
	log := openLog(t, "")
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
