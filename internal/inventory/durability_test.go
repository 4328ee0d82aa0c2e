package inventory

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notebookd/notebookd/internal/replica"
	"github.com/notebookd/notebookd/internal/storage"
	"github.com/notebookd/notebookd/internal/upstream"
)

// liveIn runs an inventory over a data directory until check returns, and returns
// the epoch of its log.
func liveIn(t *testing.T, dir string, cloud *fakeCloud, check func(inv *Inventory)) (epoch string) {
	t.Helper()
	st, err := storage.Open(storage.Config{DataDir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	inv := New(Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Sources: []Source{{Name: "core", Kind: "fake", Provider: cloud}}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- replica.New(replica.Config{Storage: st}).Run(ctx, inv.Run) }()
	select {
	case <-inv.Loaded():
	case err := <-ended:
		t.Fatalf("the data directory is refused: %v", err)
	}
	check(inv)
	epoch = inv.Epoch()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	return epoch
}

// TestDataDirectoryThatLostSomething cuts each file of a data directory, as a
// power cut may. The inventory starts all the same, shows what the cloud has after
// the next poll, and goes on with the old epoch only if nothing is missing: a
// watcher that resumes would never hear of what was forgotten.
func TestDataDirectoryThatLostSomething(t *testing.T) {
	whole := t.TempDir()
	var all []string
	for i := range 300 {
		all = append(all, fmt.Sprintf("nb-%03d", i))
	}
	cloud := &fakeCloud{notebooks: notebooks(all...), locations: []upstream.Location{{ID: "xb3"}}}
	shown := func(inv *Inventory) {
		t.Helper()
		for len(ids(inv.Snapshot())) != len(all) {
			select {
			case <-inv.Snapshot().Superseded():
			case <-t.Context().Done():
				t.Fatal("the notebooks do not come back")
			}
		}
	}
	epoch := liveIn(t, whole, cloud, shown)
	if again := liveIn(t, whole, cloud, shown); again != epoch {
		t.Fatal("a restart in good order made another epoch")
	}

	var files []string
	if err := filepath.WalkDir(whole, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			files = append(files, strings.TrimPrefix(path, whole))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, file := range files {
		if !strings.Contains(file, "NOTEBOOKD_ROWS") && !strings.HasSuffix(file, ".state") {
			continue
		}
		rows++
		for _, keep := range []int64{0, 2, 3} { // quarters of the file
			t.Run(fmt.Sprintf("%s cut to %d quarters", filepath.Base(file), keep), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "data")
				if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
					t.Fatal(err)
				}
				info, err := os.Stat(dir + file)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(dir+file, info.Size()*keep/4); err != nil {
					t.Fatal(err)
				}
				after := liveIn(t, dir, cloud, shown)
				lost := strings.HasSuffix(file, ".blk") || strings.HasSuffix(file, ".state") && keep == 0
				if lost && keep < 3 && after == epoch {
					t.Error("something is lost, and watchers are not told to begin again")
				}
				if again := liveIn(t, dir, cloud, shown); again != after {
					t.Error("the epoch changed once more")
				}
			})
		}
	}
	if rows < 2 {
		t.Errorf("only %d files were cut: %v", rows, files)
	}
}
