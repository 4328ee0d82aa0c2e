package service

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/imagechange"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/replica"
	"github.com/notebookd/notebookd/internal/storage"
	"github.com/notebookd/notebookd/internal/upstream"
)

// fakeCloud is a Provider in memory.
type fakeCloud struct {
	can upstream.Capabilities

	mu        sync.Mutex // guards what is below
	notebooks map[string][]upstream.Notebook
	locations []upstream.Location
	err       error // of List
	changeErr error // of ChangeImage
	loseReply bool  // change, then fail with changeErr
	changes   []upstream.ImageRequest
	block     chan struct{} // ChangeImage waits for it
	hang      chan struct{} // List waits for it
	lists     int           // calls of List
}

func newFakeCloud(locations ...string) *fakeCloud {
	f := &fakeCloud{notebooks: map[string][]upstream.Notebook{}, can: upstream.Capabilities{
		ChangeImage: upstream.ChangeImageInPlace, ImageTypes: []string{"custom", "official"}, RegistryCredential: true,
	}}
	for _, id := range locations {
		f.locations = append(f.locations, upstream.Location{ID: id})
	}
	return f
}

func (f *fakeCloud) Capabilities() upstream.Capabilities { return f.can }

func (f *fakeCloud) Locations(context.Context) ([]upstream.Location, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.locations, nil
}

func (f *fakeCloud) List(ctx context.Context, location string) ([]upstream.Notebook, error) {
	f.mu.Lock()
	f.lists++
	hang := f.hang
	f.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.notebooks[location]), f.err
}

func (f *fakeCloud) ChangeImage(_ context.Context, req upstream.ImageRequest) (upstream.Notebook, error) {
	f.mu.Lock()
	f.changes = append(f.changes, req)
	block := f.block
	f.mu.Unlock()
	if block != nil {
		<-block
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changeErr != nil && !f.loseReply {
		return upstream.Notebook{}, f.changeErr
	}
	for i, n := range f.notebooks[req.Location] {
		if n.ID == req.NotebookID {
			n.Image.URI, n.Image.Type = req.Image, req.ImageType
			f.notebooks[req.Location][i] = n
			return n, f.changeErr
		}
	}
	return upstream.Notebook{}, &upstream.Error{Kind: upstream.KindNotFound, Sent: true}
}

func (f *fakeCloud) set(change func(*fakeCloud)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeCloud) put(location string, list ...upstream.Notebook) {
	f.set(func(f *fakeCloud) { f.notebooks[location] = list })
}

func numbered(n int) []upstream.Notebook {
	var out []upstream.Notebook
	for i := range n {
		out = append(out, upstream.Notebook{ID: fmt.Sprintf("nb-%04d", i), State: upstream.StateStopped})
	}
	return out
}

// fixture is a service over bufconn with its inventory polling fake clouds.
type fixture struct {
	notebookv1.NotebookServiceClient
	clouds    notebookv1.CloudServiceClient
	service   *Service
	inventory *inventory.Inventory
}

func start(t *testing.T, dataDir string, clouds map[string]*fakeCloud) *fixture {
	t.Helper()
	return startPolling(t, dataDir, clouds, 100*time.Millisecond)
}

// startPolling is start with an interval between polls.
func startPolling(t *testing.T, dataDir string, clouds map[string]*fakeCloud, interval time.Duration) *fixture {
	t.Helper()
	st, err := storage.Open(storage.Config{DataDir: dataDir})
	if err != nil {
		t.Fatal(err)
	}
	var sources []inventory.Source
	for name, cloud := range clouds {
		sources = append(sources, inventory.Source{
			Name: name, Kind: "fake", Provider: cloud, Client: upstream.NewClient(upstream.ClientConfig{Cloud: name}),
			Poll: inventory.PollConfig{Fast: interval, Normal: interval, Idle: interval},
		})
	}
	inv := inventory.New(inventory.Config{Sources: sources})
	changer := imagechange.New(inv, nil)
	svc := New(Config{Inventory: inv, Changer: changer})
	server := grpc.NewServer(Codec())
	Register(server, svc)
	listener := bufconn.Listen(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(listener) })
	wg.Go(func() { _ = runParts(ctx, st, inv, changer) })
	conn, err := grpc.NewClient("passthrough:///test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		cancel()
		wg.Wait()
		st.Close()
	})
	f := &fixture{notebookv1.NewNotebookServiceClient(conn), notebookv1.NewCloudServiceClient(conn), svc, inv}
	f.until(t, "ready", func() bool { return inv.Ready() && changer.Ready() })
	return f
}

// view is the view of who may see everything.
func (f *fixture) view() uint32 { return parseScope("").view(f.inventory.Snapshot()) }

// runParts runs what the service stands on, as a process does that is alone.
func runParts(ctx context.Context, st *storage.Storage, inv *inventory.Inventory, changer *imagechange.Changer) error {
	return replica.New(replica.Config{Storage: st}).Run(ctx, func(ctx context.Context, m *replica.Member) error {
		parts, ctx := errgroup.WithContext(ctx)
		parts.Go(func() error { return inv.Run(ctx, m) })
		parts.Go(func() error { return changer.Run(ctx, m) })
		return parts.Wait()
	})
}

// until waits for a condition that polling brings about.
func (f *fixture) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-f.inventory.Snapshot().Superseded():
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatalf("still not: %s", what)
		}
	}
}

func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func wantError(t *testing.T, err error, code codes.Code, want string) {
	t.Helper()
	if status.Code(err) != code || reason(err) != want {
		t.Errorf("error %v with reason %q, want %v with %q", err, reason(err), code, want)
	}
}

func names(list []*notebookv1.Notebook) []string {
	var out []string
	for _, n := range list {
		out = append(out, n.GetName())
	}
	return out
}

func TestListPages(t *testing.T) {
	core := newFakeCloud("xb3", "xb2")
	core.put("xb3", numbered(70)...)
	core.put("xb2", numbered(30)...)
	f := start(t, "", map[string]*fakeCloud{"core": core})

	var all []string
	req := &notebookv1.ListRequest{PageSize: 7}
	for {
		resp, err := f.List(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.GetTotalSize() != 100 {
			t.Fatalf("total = %d", resp.GetTotalSize())
		}
		all = append(all, names(resp.GetNotebooks())...)
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
		if len(all) == 35 { // a page size may change between pages
			req.PageSize = 13
		}
	}
	if !slices.IsSorted(all) || len(all) != 100 || len(slices.Compact(slices.Clone(all))) != 100 {
		t.Errorf("%d names, sorted %v", len(all), slices.IsSorted(all))
	}
	for parent, want := range map[string]int{
		"": 100, "clouds/-": 100, "clouds/core": 100, "clouds/core/locations/xb2": 30, "clouds/-/locations/xb3": 70, "clouds/core/locations/-": 100,
	} {
		resp, err := f.List(t.Context(), &notebookv1.ListRequest{Parent: parent, PageSize: 1000})
		if err != nil || len(resp.GetNotebooks()) != want || int(resp.GetTotalSize()) != want {
			t.Errorf("parent %q: %d of %d, %v, want %d", parent, len(resp.GetNotebooks()), resp.GetTotalSize(), err, want)
		}
	}
	_, err := f.List(t.Context(), &notebookv1.ListRequest{Parent: "clouds/core/locations/xb2", PageToken: mustToken(t, f)})
	wantError(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
}

func mustToken(t *testing.T, f *fixture) string {
	t.Helper()
	resp, err := f.List(t.Context(), &notebookv1.ListRequest{PageSize: 1})
	if err != nil || resp.GetNextPageToken() == "" {
		t.Fatalf("no token: %v", err)
	}
	return resp.GetNextPageToken()
}

func TestListWhileRowsComeAndGo(t *testing.T) {
	core := newFakeCloud("xb3")
	core.put("xb3", numbered(50)...)
	f := start(t, "", map[string]*fakeCloud{"core": core})
	stay := map[string]int{}
	for i, n := range numbered(50) {
		if i%5 != 0 {
			stay["clouds/core/locations/xb3/notebooks/"+n.ID] = 0
		}
	}
	req := &notebookv1.ListRequest{PageSize: 10}
	for page := 0; ; page++ {
		resp, err := f.List(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names(resp.GetNotebooks()) {
			if _, ok := stay[name]; ok {
				stay[name]++
			}
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
		// Between pages a fifth of the rows goes, or others come.
		list := slices.DeleteFunc(numbered(50), func(n upstream.Notebook) bool {
			return stay["clouds/core/locations/xb3/notebooks/"+n.ID] == 0 && strings.HasSuffix(n.ID, "0") && page%2 == 0
		})
		list = append(list, upstream.Notebook{ID: fmt.Sprintf("new-%d", page)})
		core.put("xb3", list...)
		for range 3 {
			if err := f.inventory.Refresh(t.Context(), "clouds/core/locations/xb3"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, times := range stay {
		if times != 1 {
			t.Errorf("%s was returned %d times", name, times)
		}
	}
}

func TestOneCloudDown(t *testing.T) {
	core, scnet := newFakeCloud("xb3"), newFakeCloud("11250")
	core.put("xb3", numbered(3)...)
	scnet.put("11250", numbered(2)...)
	f := start(t, "", map[string]*fakeCloud{"core": core, "scnet": scnet})
	down := &upstream.Error{Cloud: "core", Location: "xb3", Kind: upstream.KindUnavailable, Code: "HTTP 502", Message: "secret page"}
	core.set(func(c *fakeCloud) { c.err = down })
	f.until(t, "core unreachable", func() bool {
		l, _ := f.inventory.Snapshot().Location("clouds/core/locations/xb3")
		return l.State == notebookv1.Location_STATE_UNREACHABLE
	})
	resp, err := f.List(t.Context(), &notebookv1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"clouds/core/locations/xb3"}, resp.GetUnreachable()); diff != "" {
		t.Errorf("unreachable (-want +got):\n%s", diff)
	}
	if len(resp.GetNotebooks()) != 5 {
		t.Errorf("%d notebooks, want all 5", len(resp.GetNotebooks()))
	}
	for _, fresh := range resp.GetFreshness() {
		if want := strings.HasPrefix(fresh.GetLocation(), "clouds/core/"); fresh.GetStale() != want {
			t.Errorf("%s stale = %v, want %v", fresh.GetLocation(), fresh.GetStale(), want)
		}
	}
	cloud, err := f.clouds.GetCloud(t.Context(), &notebookv1.GetCloudRequest{Name: "clouds/core"})
	if err != nil {
		t.Fatal(err)
	}
	l := cloud.GetCloud().GetLocations()[0]
	if l.GetReason() != notebookv1.ErrorReason_ERROR_REASON_CLOUD_UNAVAILABLE || l.GetCloudCode() != "HTTP 502" || strings.Contains(l.String(), "secret") {
		t.Errorf("location = %v", l)
	}
}

func TestNothingKnown(t *testing.T) {
	core := newFakeCloud("xb3")
	core.err = &upstream.Error{Kind: upstream.KindDenied, Code: "1200"}
	f := start(t, "", map[string]*fakeCloud{"core": core})
	_, err := f.List(t.Context(), &notebookv1.ListRequest{})
	wantError(t, err, codes.Unavailable, "CLOUD_CREDENTIALS_REJECTED")
	_, err = f.ChangeImage(t.Context(), &notebookv1.ChangeImageRequest{Name: "clouds/core/locations/xb3/notebooks/x", Image: "i", ImageType: "official"})
	wantError(t, err, codes.Unavailable, "CLOUD_CREDENTIALS_REJECTED")
	// A watch tells it and goes on.
	w := watch(t, f, &notebookv1.WatchRequest{})
	if l := w.next().GetLocation(); l.GetState() != notebookv1.Location_STATE_UNREACHABLE {
		t.Errorf("first frame = %v", l)
	}
	if b := w.next().GetBookmark(); b.GetKind() != notebookv1.Bookmark_KIND_SNAPSHOT_END {
		t.Errorf("second frame = %v", b)
	}
}

// watching reads one watch and rebuilds the state that it tells.
type watching struct {
	t      *testing.T
	stream grpc.ServerStreamingClient[notebookv1.WatchResponse]
	state  map[string]*notebookv1.Notebook
	token  string
	cancel context.CancelFunc
}

func watch(t *testing.T, f *fixture, req *notebookv1.WatchRequest) *watching {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	stream, err := f.Watch(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return &watching{t, stream, map[string]*notebookv1.Notebook{}, "", cancel}
}

func (w *watching) next() *notebookv1.WatchResponse {
	w.t.Helper()
	frame, err := w.stream.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	if frame.GetResumeToken() != "" {
		w.token = frame.GetResumeToken()
	}
	if frame.GetReset_() != nil {
		clear(w.state)
	}
	switch e := frame.GetNotebook(); e.GetType() {
	case notebookv1.NotebookEvent_TYPE_ADDED, notebookv1.NotebookEvent_TYPE_MODIFIED:
		w.state[e.GetNotebook().GetName()] = e.GetNotebook()
	case notebookv1.NotebookEvent_TYPE_DELETED, notebookv1.NotebookEvent_TYPE_LEFT_FILTER:
		delete(w.state, e.GetNotebook().GetName())
	default:
	}
	return frame
}

// nextNotebook skips to the next notebook event.
func (w *watching) nextNotebook() *notebookv1.NotebookEvent {
	w.t.Helper()
	for {
		if e := w.next().GetNotebook(); e != nil {
			return e
		}
	}
}

func (w *watching) untilBookmark(kind notebookv1.Bookmark_Kind) {
	w.t.Helper()
	for {
		if w.next().GetBookmark().GetKind() == kind {
			return
		}
	}
}

func TestWatchFromSnapshotToChanges(t *testing.T) {
	core := newFakeCloud("xb3")
	core.put("xb3", numbered(3)...)
	f := start(t, "", map[string]*fakeCloud{"core": core})
	w := watch(t, f, &notebookv1.WatchRequest{Parent: "clouds/core"})
	if l := w.next().GetLocation(); l.GetName() != "clouds/core/locations/xb3" || l.GetState() != notebookv1.Location_STATE_LIVE {
		t.Fatalf("first frame is no location: %v", l)
	}
	for range 3 {
		frame := w.next()
		if e := frame.GetNotebook(); e.GetType() != notebookv1.NotebookEvent_TYPE_ADDED || !e.GetInitial() || frame.GetResumeToken() != "" {
			t.Fatalf("frame of the snapshot = %v", frame)
		}
	}
	if frame := w.next(); frame.GetBookmark().GetKind() != notebookv1.Bookmark_KIND_SNAPSHOT_END || frame.GetResumeToken() == "" {
		t.Fatalf("no end of the snapshot: %v", frame)
	}

	list := numbered(3)
	list[1].State = upstream.StateRunning
	core.put("xb3", list...)
	e := w.nextNotebook()
	if e.GetType() != notebookv1.NotebookEvent_TYPE_MODIFIED || e.GetInitial() || e.GetNotebook().GetState() != notebookv1.Notebook_STATE_RUNNING {
		t.Errorf("change = %v", e)
	}
	if diff := cmp.Diff([]string{"state"}, e.GetChangedFields()); diff != "" {
		t.Errorf("changed fields (-want +got):\n%s", diff)
	}
	core.put("xb3", append(list, upstream.Notebook{ID: "nb-new"})...)
	if e := w.nextNotebook(); e.GetType() != notebookv1.NotebookEvent_TYPE_ADDED || e.GetInitial() {
		t.Errorf("addition = %v", e)
	}
	core.put("xb3", list...)
	if e := w.nextNotebook(); e.GetType() != notebookv1.NotebookEvent_TYPE_DELETED || !strings.HasSuffix(e.GetNotebook().GetName(), "nb-new") {
		t.Errorf("deletion = %v", e)
	}
	core.set(func(c *fakeCloud) { c.err = &upstream.Error{Kind: upstream.KindTimeout} })
	for _, want := range []notebookv1.Location_State{notebookv1.Location_STATE_STALE, notebookv1.Location_STATE_UNREACHABLE} {
		if l := w.next().GetLocation(); l.GetState() != want {
			t.Errorf("location = %v, want %v", l, want)
		}
	}
}

func TestWatchSkipsTheSnapshot(t *testing.T) {
	core := newFakeCloud("xb3")
	core.put("xb3", numbered(3)...)
	f := start(t, "", map[string]*fakeCloud{"core": core})
	w := watch(t, f, &notebookv1.WatchRequest{Snapshot: notebookv1.WatchRequest_SNAPSHOT_SKIP})
	w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
	if len(w.state) != 0 {
		t.Errorf("%d rows were sent", len(w.state))
	}
	list := numbered(3)
	list[2].DisplayName = "renamed"
	core.put("xb3", list...)
	if e := w.nextNotebook(); e.GetType() != notebookv1.NotebookEvent_TYPE_MODIFIED || e.GetNotebook().GetDisplayName() != "renamed" {
		t.Errorf("change = %v", e)
	}
}

func TestListContinuesInWatch(t *testing.T) {
	core := newFakeCloud("xb3")
	core.put("xb3", numbered(3)...)
	f := start(t, "", map[string]*fakeCloud{"core": core})
	resp, err := f.List(t.Context(), &notebookv1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	list := numbered(4)[1:] // one gone, one new
	list[0].DisplayName = "renamed"
	core.put("xb3", list...)
	f.until(t, "three rows", func() bool { return f.inventory.Snapshot().Count("clouds/core/locations/xb3") == 3 })

	w := watch(t, f, &notebookv1.WatchRequest{ResumeToken: resp.GetResumeToken()})
	for _, n := range resp.GetNotebooks() {
		w.state[n.GetName()] = n
	}
	w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
	now, err := f.List(t.Context(), &notebookv1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]*notebookv1.Notebook{}
	for _, n := range now.GetNotebooks() {
		want[n.GetName()] = n
	}
	if diff := cmp.Diff(want, w.state, cmp.Comparer(func(a, b *notebookv1.Notebook) bool { return proto.Equal(a, b) })); diff != "" {
		t.Errorf("rebuilt state (-list +watch):\n%s", diff)
	}
}

func TestResumeAfterRestart(t *testing.T) {
	dir := t.TempDir()
	core := newFakeCloud("xb3")
	core.put("xb3", numbered(3)...)
	var token string
	t.Run("before", func(t *testing.T) {
		f := start(t, dir, map[string]*fakeCloud{"core": core})
		w := watch(t, f, &notebookv1.WatchRequest{})
		w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
		token = w.token
	})
	list := numbered(3)
	list[0].DisplayName = "renamed while away"
	core.put("xb3", list...)
	t.Run("after", func(t *testing.T) {
		f := start(t, dir, map[string]*fakeCloud{"core": core})
		w := watch(t, f, &notebookv1.WatchRequest{ResumeToken: token})
		e := w.nextNotebook()
		if e.GetType() != notebookv1.NotebookEvent_TYPE_MODIFIED || e.GetNotebook().GetDisplayName() != "renamed while away" {
			t.Errorf("first event after the restart = %v", e)
		}
	})
	t.Run("another log", func(t *testing.T) {
		f := start(t, "", map[string]*fakeCloud{"core": core})
		s := f.inventory.Tokens()
		for want, token := range map[string]string{
			"LOG_REPLACED":  s.Resume("/", inventory.Resume{Epoch: "another", Revision: 2, Time: time.Now()}),
			"VIEW_CHANGED":  s.Resume("/", inventory.Resume{Epoch: f.inventory.Epoch(), View: 1, Revision: 2, Time: time.Now()}),
			"TOKEN_EXPIRED": s.Resume("/", inventory.Resume{Epoch: f.inventory.Epoch(), View: f.view(), Revision: 2, Time: time.Now().Add(-25 * time.Hour)}),
		} {
			w := watch(t, f, &notebookv1.WatchRequest{ResumeToken: token})
			if r := w.next().GetReset_(); r.GetReason() != want {
				t.Errorf("reset = %v, want %s", r, want)
			}
			w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
			if len(w.state) != 3 {
				t.Errorf("%d rows after the reset, want 3", len(w.state))
			}
		}
		bad := watch(t, f, &notebookv1.WatchRequest{ResumeToken: token})
		_, err := bad.stream.Recv()
		wantError(t, err, codes.InvalidArgument, "RESUME_TOKEN_INVALID")
	})
}

func TestDrainEndsWatches(t *testing.T) {
	core := newFakeCloud("xb3")
	f := start(t, "", map[string]*fakeCloud{"core": core})
	var open []*watching
	for range 20 {
		w := watch(t, f, &notebookv1.WatchRequest{})
		w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
		open = append(open, w)
	}
	f.service.Drain(200 * time.Millisecond)
	for _, w := range open {
		w.untilBookmark(notebookv1.Bookmark_KIND_CLOSING)
		if w.token == "" {
			t.Error("no token to reconnect with")
		}
		if _, err := w.stream.Recv(); err == nil {
			t.Error("the stream goes on after CLOSING")
		}
	}
	w := watch(t, f, &notebookv1.WatchRequest{})
	_, err := w.stream.Recv()
	wantError(t, err, codes.Unavailable, "DRAINING")
}

func TestChangeImage(t *testing.T) {
	const name = "clouds/core/locations/xb3/notebooks/nb-0000"
	password := "canary-" + strings.Repeat("p", 8)
	req := func(edit func(*notebookv1.ChangeImageRequest)) *notebookv1.ChangeImageRequest {
		r := &notebookv1.ChangeImageRequest{Name: name, Image: "registry/new:1", ImageType: "official"}
		if edit != nil {
			edit(r)
		}
		return r
	}
	begin := func(t *testing.T) (*fakeCloud, *fixture) {
		t.Helper()
		core := newFakeCloud("xb3")
		list := numbered(2)
		list[1].State = upstream.StateRunning
		list[0].Image = upstream.Image{URI: "registry/old:1", Type: "official"}
		core.put("xb3", list...)
		plain := newFakeCloud("1")
		plain.can = upstream.Capabilities{}
		plain.put("1", numbered(1)...)
		return core, start(t, "", map[string]*fakeCloud{"core": core, "plain": plain})
	}

	t.Run("in place", func(t *testing.T) {
		core, f := begin(t)
		w := watch(t, f, &notebookv1.WatchRequest{})
		w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
		resp, err := f.ChangeImage(t.Context(), req(func(r *notebookv1.ChangeImageRequest) {
			r.RegistryCredential = &notebookv1.RegistryCredential{Username: "u", Password: password}
		}))
		if err != nil {
			t.Fatal(err)
		}
		if c := resp.GetChange(); c.GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED || c.GetFromImage() != "registry/old:1" || !c.GetSent() {
			t.Errorf("change = %v", c)
		}
		if resp.GetNotebook().GetImage().GetUri() != "registry/new:1" {
			t.Errorf("notebook = %v", resp.GetNotebook())
		}
		if e := w.nextNotebook(); e.GetNotebook().GetImage().GetUri() != "registry/new:1" || !slices.Contains(e.GetChangedFields(), "image.uri") {
			t.Errorf("the open watch saw %v", e)
		}
		if got := core.changes[0].Credential; got == nil || got.Password.Reveal() != password {
			t.Error("the cloud did not get the password")
		}
		if strings.Contains(resp.String(), password) {
			t.Error("the answer holds the password")
		}
		again, err := f.ChangeImage(t.Context(), req(nil))
		if err != nil || again.GetChange().GetPhase() != notebookv1.ImageChange_PHASE_UNCHANGED || len(core.changes) != 1 {
			t.Errorf("same image again: %v, %v, %d calls", again, err, len(core.changes))
		}
	})

	t.Run("plan", func(t *testing.T) {
		core, f := begin(t)
		resp, err := f.ChangeImage(t.Context(), req(func(r *notebookv1.ChangeImageRequest) {
			r.ValidateOnly, r.Name = true, "clouds/core/locations/xb3/notebooks/nb-0001"
		}))
		if err != nil || resp.GetChange().GetPhase() != notebookv1.ImageChange_PHASE_PLANNED ||
			resp.GetChange().GetWarnings()[0].GetCode() != "NOTEBOOK_RUNNING" || len(core.changes) != 0 {
			t.Errorf("plan = %v, %v", resp, err)
		}
	})

	t.Run("running notebook", func(t *testing.T) {
		core, f := begin(t)
		running := req(func(r *notebookv1.ChangeImageRequest) { r.Name = "clouds/core/locations/xb3/notebooks/nb-0001" })
		_, err := f.ChangeImage(t.Context(), running)
		wantError(t, err, codes.FailedPrecondition, "WARNINGS_NOT_ACKNOWLEDGED")
		var violation *errdetails.PreconditionFailure
		for _, d := range status.Convert(err).Details() {
			if v, ok := d.(*errdetails.PreconditionFailure); ok {
				violation = v
			}
		}
		if v := violation.GetViolations(); len(v) != 1 || v[0].GetType() != "NOTEBOOK_RUNNING" || v[0].GetSubject() != running.GetName() {
			t.Errorf("violations = %v", v)
		}
		if len(core.changes) != 0 {
			t.Error("the cloud was asked")
		}
		running.Acknowledge = []string{"NOTEBOOK_RUNNING"}
		if _, err := f.ChangeImage(t.Context(), running); err != nil {
			t.Error(err)
		}
	})

	t.Run("refusals before the cloud", func(t *testing.T) {
		core, f := begin(t)
		for _, tt := range []struct {
			edit   func(*notebookv1.ChangeImageRequest)
			code   codes.Code
			reason string
		}{
			{func(r *notebookv1.ChangeImageRequest) { r.Etag = "old" }, codes.Aborted, "ETAG_MISMATCH"},
			{func(r *notebookv1.ChangeImageRequest) { r.ImageType = "" }, codes.InvalidArgument, "INVALID_FIELD"},
			{func(r *notebookv1.ChangeImageRequest) { r.ImageType = "odd" }, codes.InvalidArgument, "INVALID_FIELD"},
			{func(r *notebookv1.ChangeImageRequest) { r.Name = "clouds/core/locations/xb3/notebooks/none" }, codes.NotFound, "NOTEBOOK_NOT_FOUND"},
			{func(r *notebookv1.ChangeImageRequest) { r.Name = "clouds/core/locations/none/notebooks/x" }, codes.NotFound, "CLOUD_NOT_FOUND"},
			{func(r *notebookv1.ChangeImageRequest) { r.Name = "clouds/none/locations/xb3/notebooks/x" }, codes.NotFound, "CLOUD_NOT_FOUND"},
			{func(r *notebookv1.ChangeImageRequest) { r.Name = "clouds/plain/locations/1/notebooks/nb-0000" }, codes.Unimplemented, "OPERATION_NOT_SUPPORTED"},
		} {
			_, err := f.ChangeImage(t.Context(), req(tt.edit))
			wantError(t, err, tt.code, tt.reason)
		}
		if len(core.changes) != 0 {
			t.Error("the cloud was asked")
		}
	})

	t.Run("refused by the cloud", func(t *testing.T) {
		core, f := begin(t)
		core.set(func(c *fakeCloud) {
			c.changeErr = &upstream.Error{Cloud: "core", Location: "xb3", Kind: upstream.KindConflict, Code: "1400", Message: "their words", Sent: true}
		})
		_, err := f.ChangeImage(t.Context(), req(nil))
		wantError(t, err, codes.FailedPrecondition, "CLOUD_REJECTED")
		if strings.Contains(fmt.Sprint(status.Convert(err).Proto()), "their words") {
			t.Error("the caller reads the cloud's words")
		}
	})

	t.Run("answer lost, change made", func(t *testing.T) {
		core, f := begin(t)
		core.set(func(c *fakeCloud) {
			c.changeErr, c.loseReply = &upstream.Error{Kind: upstream.KindTimeout, Sent: true}, true
		})
		resp, err := f.ChangeImage(t.Context(), req(nil))
		if err != nil || resp.GetChange().GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED || len(core.changes) != 1 {
			t.Errorf("%v, %v, %d calls", resp, err, len(core.changes))
		}
	})

	t.Run("answer lost, change not seen", func(t *testing.T) {
		core, f := begin(t)
		core.set(func(c *fakeCloud) { c.changeErr = &upstream.Error{Kind: upstream.KindTimeout, Sent: true} })
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := f.ChangeImage(ctx, req(nil))
		wantError(t, err, codes.Unknown, "OUTCOME_UNKNOWN")
		if len(core.changes) != 1 {
			t.Errorf("the cloud was asked %d times", len(core.changes))
		}
	})

	t.Run("nothing sent", func(t *testing.T) {
		core, f := begin(t)
		core.set(func(c *fakeCloud) {
			c.changeErr = &upstream.Error{Kind: upstream.KindCircuitOpen, RetryAfter: 7 * time.Second}
		})
		_, err := f.ChangeImage(t.Context(), req(nil))
		wantError(t, err, codes.Unavailable, "CIRCUIT_OPEN")
	})

	t.Run("one at a time", func(t *testing.T) {
		core, f := begin(t)
		block := make(chan struct{})
		core.set(func(c *fakeCloud) { c.block = block })
		first := make(chan error, 1)
		go func() {
			_, err := f.ChangeImage(context.Background(), req(nil))
			first <- err
		}()
		f.until(t, "the first change under way", func() bool { core.mu.Lock(); defer core.mu.Unlock(); return len(core.changes) == 1 })
		_, err := f.ChangeImage(t.Context(), req(func(r *notebookv1.ChangeImageRequest) { r.Image = "registry/other:1" }))
		wantError(t, err, codes.Aborted, "CHANGE_IN_PROGRESS")
		second := make(chan error, 1)
		go func() { // the same target joins
			_, err := f.ChangeImage(context.Background(), req(nil))
			second <- err
		}()
		close(block)
		for _, ended := range []chan error{first, second} {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if len(core.changes) != 1 {
			t.Errorf("the cloud was asked %d times", len(core.changes))
		}
	})
}

// TestEveryKindHasAMeaning: a kind without one would reach callers as code OK.
func TestEveryKindHasAMeaning(t *testing.T) {
	for kind := upstream.KindBadResponse; kind.String() != ""; kind++ {
		err := cloudStatus(&upstream.Error{Kind: kind}, nil)
		if status.Code(err) == codes.OK || reason(err) == "" || reason(err) == "UNSPECIFIED" || status.Convert(err).Message() == "" {
			t.Errorf("%v → %v", kind, err)
		}
	}
}
