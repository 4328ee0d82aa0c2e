//go:build browser

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

const (
	chromium     = "/usr/bin/chromium"
	watchedPath  = "/v1/clouds/core/locations/xb3/notebooks:watch"
	watchedPlace = "clouds/core/locations/xb3/notebooks/"
)

// page watches with an EventSource and posts what it is told, in order. The
// posts go to the test and not to notebookd, which is down for a part of it.
const page = `<!doctype html><meta charset="utf-8"><title>watch</title><script>
let posts = Promise.resolve();
const post = what => posts = posts.then(() => fetch(%q, {method: "POST", mode: "no-cors", body: JSON.stringify(what)}));
const source = new EventSource(%q);
source.onopen = () => post({name: "open"});
source.onerror = () => post({name: "error", state: source.readyState});
for (const name of ["notebook", "location", "bookmark", "image_change", "reset", "end", "message"])
  source.addEventListener(name, e => post({name, id: e.lastEventId, data: e.data}));
</script>`

// seen is one thing that the page was told.
type seen struct {
	Name  string `json:"name"`
	ID    string `json:"id"`
	Data  string `json:"data"`
	State int    `json:"state"` // readyState at an error: 0 while it tries again, 2 when it gave up
}

func (s seen) frame(t *testing.T) *notebookv1.WatchResponse {
	t.Helper()
	if s.Data == "" {
		return &notebookv1.WatchResponse{}
	}
	return (&sseEvent{data: s.Data}).frame(t)
}

func (s seen) isBookmark(t *testing.T, kind notebookv1.Bookmark_Kind) bool {
	t.Helper()
	return s.frame(t).GetBookmark().GetKind() == kind
}

// browser is a browser that has the page open.
type browser struct {
	told   chan seen // sent by the handler of the page's posts; room for all of a test
	output *buffer
}

// next returns what the page is told up to and with the first that satisfies ok.
func (b *browser) next(t *testing.T, what string, ok func(seen) bool) []seen {
	t.Helper()
	var all []seen
	deadline := time.After(time.Minute)
	for {
		select {
		case s := <-b.told:
			all = append(all, s)
			if s.Name == "error" && s.State != 0 {
				t.Fatalf("the EventSource gave up before: %s", what)
			}
			if ok(s) {
				return all
			}
		case <-deadline:
			t.Fatalf("the page was not told: %s; but %+v\n%s", what, all, b.output)
		}
	}
}

// collect serves the page's posts.
func (b *browser) collect(t *testing.T) string {
	t.Helper()
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var s seen
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(data, &s)
		}
		if err != nil {
			t.Errorf("a post of the page: %s: %v", data, err)
			return
		}
		b.told <- s
	}))
	t.Cleanup(collector.Close)
	return collector.URL
}

// open starts the browser, which ends with the test.
func (b *browser) open(t *testing.T, url string) {
	t.Helper()
	if _, err := os.Stat(chromium); err != nil {
		t.Fatalf("this test needs a browser at %s. On Debian: apt-get install --no-install-recommends chromium", chromium)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+dir, url)
	cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir)
	cmd.Stdout, cmd.Stderr = b.output, b.output
	// It is many processes, which are asked to end together, and then made to.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	signal := func(s syscall.Signal) error { return syscall.Kill(-cmd.Process.Pid, s) }
	cmd.Cancel, cmd.WaitDelay = func() error { return signal(syscall.SIGTERM) }, 10*time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		_ = signal(syscall.SIGKILL)
	})
}

// door is a notebookd that also serves the page, so that the page may ask it,
// and notes the ids that watches come with.
type door struct {
	*process
	notebookv1.NotebookServiceClient

	mu  sync.Mutex // guards ids
	ids []string
}

func openDoor(t *testing.T, config, address, collector string) *door {
	t.Helper()
	d := &door{}
	d.process = launch(t, config, address, func(s *server) {
		inner := s.http.Handler
		s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/page":
				w.Header().Set("Content-Type", "text/html")
				_, _ = fmt.Fprintf(w, page, collector, watchedPath)
				return
			case watchedPath:
				d.mu.Lock()
				d.ids = append(d.ids, r.Header.Get("Last-Event-ID"))
				d.mu.Unlock()
			}
			inner.ServeHTTP(w, r)
		})
	})
	conn, err := grpc.NewClient(d.server.grpcListener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	d.NotebookServiceClient = notebookv1.NewNotebookServiceClient(conn)
	return d
}

func (d *door) lastEventIDs() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.ids...)
}

// change changes the image of a notebook. It may have to wait until a server
// that has just begun knows the notebook.
func (d *door) change(t *testing.T, image string) {
	t.Helper()
	d.until(t, "the image is changed", func() bool {
		_, err := d.ChangeImage(t.Context(), &notebookv1.ChangeImageRequest{Name: watchedPlace + cloudsim.CoresHubNotebook, Image: image, ImageType: "custom"})
		return err == nil
	})
}

// TestBrowserReconnects: an EventSource of a real browser, and nothing else,
// follows notebookd through a restart without a gap and without a second
// snapshot.
func TestBrowserReconnects(t *testing.T) {
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	b := &browser{told: make(chan seen, 10000), output: &buffer{}}
	collector := b.collect(t)
	config := quick(fleet) + fmt.Sprintf("store: {data_dir: %q}\n", t.TempDir())
	before := openDoor(t, config, "", collector)
	before.until(t, "ready", func() bool { code, _ := before.get(t, "/readyz"); return code == http.StatusOK })

	began := time.Now()
	b.open(t, before.url+"/page")
	initial := 0
	for _, s := range b.next(t, "the snapshot", func(s seen) bool { return s.isBookmark(t, notebookv1.Bookmark_KIND_SNAPSHOT_END) }) {
		if s.frame(t).GetNotebook().GetInitial() {
			initial++
		}
	}
	if want := len(fleet.CoresHub.Truth("xb3")); initial != want || want == 0 {
		t.Errorf("a snapshot of %d notebooks, want %d", initial, want)
	}
	t.Logf("the browser has the snapshot after %v", time.Since(began))

	modified := func(image string) func(seen) bool {
		return func(s seen) bool {
			return isEvent(s.frame(t), notebookv1.NotebookEvent_TYPE_MODIFIED, watchedPlace+cloudsim.CoresHubNotebook, image)
		}
	}
	before.change(t, "registry.example.com/team/a:1")
	b.next(t, "a change", modified("registry.example.com/team/a:1"))

	if err := before.stop(); err != nil {
		t.Fatal(err)
	}
	closing := b.next(t, "CLOSING", func(s seen) bool { return s.isBookmark(t, notebookv1.Bookmark_KIND_CLOSING) })
	last := closing[len(closing)-1].ID
	b.next(t, "the connection is lost", func(s seen) bool { return s.Name == "error" })
	if ids := before.lastEventIDs(); len(ids) != 1 || ids[0] != "" {
		t.Errorf("the browser came with the ids %q, want once without", ids)
	}
	missed := watchedPlace + fleet.CoresHub.Add("xb3", 1)[0]

	restarted := time.Now()
	after := openDoor(t, config, strings.TrimPrefix(before.url, "http://"), collector)
	told := b.next(t, "what was added meanwhile", func(s seen) bool {
		return isEvent(s.frame(t), notebookv1.NotebookEvent_TYPE_ADDED, missed, "")
	})
	t.Logf("the browser has what it missed %v after the restart", time.Since(restarted))
	if ids := after.lastEventIDs(); len(ids) != 1 || ids[0] != last || last == "" {
		t.Errorf("the browser came back with the ids %q, want %q", ids, last)
	}
	after.change(t, "registry.example.com/team/b:2")
	told = append(told, b.next(t, "a change after the restart", modified("registry.example.com/team/b:2"))...)
	for _, s := range told {
		if f := s.frame(t); f.GetReset_() != nil || f.GetNotebook().GetInitial() || s.Name == "end" || s.Name == "message" {
			t.Errorf("after the restart the page was told %+v", s)
		}
	}
	if err := after.stop(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("log of the second server:\n%s", after.log)
	}
}
