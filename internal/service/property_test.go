package service

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/notebookd/notebookd/client"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/imagechange"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/storage"
	"github.com/notebookd/notebookd/internal/upstream"
)

var (
	propertySeed   = flag.Uint64("property.seed", 0, "run the one history of TestWatchProperties that this seed makes; 0 draws new ones")
	wantReconnects = flag.Int("reconnects", 1500, "how many reconnects TestWatchProperties makes at least")
)

// fickleCloud is a fakeCloud with locations that fail one by one, a discovery
// that can be held up, and a memory of what its listings have left out.
type fickleCloud struct {
	*fakeCloud
	name string

	guard  sync.Mutex // guards what is below
	down   map[string]error
	hold   chan struct{} // Locations waits for it; nil when it does not
	known  map[string]bool
	missed map[string]int  // by resource name → complete listings in a row without it
	absent map[string]bool // by resource name: its deletion was justified once
}

func newFickleCloud(name string, locations ...string) *fickleCloud {
	c := &fickleCloud{
		fakeCloud: newFakeCloud(locations...), name: name,
		down: map[string]error{}, known: map[string]bool{}, missed: map[string]int{}, absent: map[string]bool{},
	}
	for _, l := range locations {
		c.put(l, []upstream.Notebook{}...)
		c.notebooks[l] = []upstream.Notebook{} // a list of nothing, not no list
	}
	return c
}

func (c *fickleCloud) Locations(ctx context.Context) ([]upstream.Location, error) {
	c.guard.Lock()
	hold := c.hold
	c.guard.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return c.fakeCloud.Locations(ctx)
}

func (c *fickleCloud) List(ctx context.Context, location string) ([]upstream.Notebook, error) {
	list, err := c.fakeCloud.List(ctx, location)
	c.guard.Lock()
	defer c.guard.Unlock()
	if down := c.down[location]; down != nil {
		return nil, down
	}
	if err != nil || list == nil {
		return list, err
	}
	prefix := inventory.LocationName(c.name, location) + "/notebooks/"
	listed := map[string]bool{}
	for _, n := range list {
		listed[prefix+n.ID] = true
		c.known[prefix+n.ID] = true
		delete(c.missed, prefix+n.ID)
	}
	enough := 2
	if len(list) == 0 {
		enough = 3
	}
	for name := range c.known {
		if strings.HasPrefix(name, prefix) && !listed[name] {
			if c.missed[name]++; c.missed[name] >= enough {
				c.absent[name] = true
			}
		}
	}
	return list, nil
}

func (c *fickleCloud) wasAbsent(name string) bool {
	c.guard.Lock()
	defer c.guard.Unlock()
	return c.absent[name]
}

func (c *fickleCloud) setDown(location string, err error) {
	c.guard.Lock()
	defer c.guard.Unlock()
	c.down[location] = err
}

// holdDiscovery keeps Locations from answering until release is called.
func (c *fickleCloud) holdDiscovery() (release func()) {
	c.guard.Lock()
	defer c.guard.Unlock()
	hold := make(chan struct{})
	c.hold = hold
	return sync.OnceFunc(func() {
		close(hold)
		c.guard.Lock()
		defer c.guard.Unlock()
		c.hold = nil
	})
}

// life is one run of the service, from its start to its end. It can be called
// from its first moment on, as a real process can.
type life struct {
	*fixture
	stop func()
}

// kept is what outlives a life.
type kept struct {
	dataDir    string
	tombstones time.Duration
}

func beginLife(t *testing.T, log kept, clouds []*fickleCloud) *life {
	t.Helper()
	st, err := storage.Open(storage.Config{DataDir: log.dataDir})
	if err != nil {
		t.Fatal(err)
	}
	var sources []inventory.Source
	for _, cloud := range clouds {
		sources = append(sources, inventory.Source{
			Name: cloud.name, Kind: "fake", Provider: cloud,
			// Nothing is polled by itself: the history asks.
			Poll: inventory.PollConfig{Fast: time.Hour, Normal: time.Hour, Idle: time.Hour},
		})
	}
	inv := inventory.New(inventory.Config{Sources: sources, Tombstones: log.tombstones})
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
		grpc.WithStaticStreamWindowSize(64<<10), // small, so that a slow reader is felt
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	l := &life{fixture: &fixture{notebookv1.NewNotebookServiceClient(conn), notebookv1.NewCloudServiceClient(conn), svc, inv}}
	l.stop = sync.OnceFunc(func() {
		_ = conn.Close()
		server.Stop()
		svc.Wait()
		cancel()
		wg.Wait()
		st.Close()
	})
	t.Cleanup(l.stop)
	return l
}

// door is where watchers find the service of the moment.
type door struct {
	mu     sync.Mutex    // guards what is below
	life   *life         // nil between two lives
	opened chan struct{} // closed, and replaced, when a life begins
}

func (d *door) set(l *life) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life = l; l != nil {
		close(d.opened)
		d.opened = make(chan struct{})
	}
}

// enter waits for a life, or returns nil when ctx ends.
func (d *door) enter(ctx context.Context) *life {
	for {
		d.mu.Lock()
		l, opened := d.life, d.opened
		d.mu.Unlock()
		if l != nil {
			return l
		}
		select {
		case <-opened:
		case <-ctx.Done():
			return nil
		}
	}
}

// moment identifies a snapshot across the lives of a history.
type moment struct {
	epoch    string
	revision uint64
}

// history is one run of TestWatchProperties: clouds that change, a service that
// is restarted, and watchers that come and go.
type history struct {
	t      *testing.T
	rng    *rand.Rand // of the goroutine that makes the changes
	clouds []*fickleCloud
	log    kept
	door   door

	counter int                 // makes each version of each notebook another one
	gone    map[string][]string // by location → ids that were removed

	steps      atomic.Int64
	reconnects atomic.Int64
	final      atomic.Uint64 // the last revision; 0 while changes go on
	compared   atomic.Int64  // bookmarks whose state was compared with the snapshot of their token
	faults     atomic.Int64
	unknown    atomic.Int64 // and those whose snapshot was not kept

	mu   sync.Mutex // guards kept
	kept map[moment]*inventory.Snapshot
}

// keep remembers a snapshot that a watch sends.
func (h *history) keep(snapshot *inventory.Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept[moment{snapshot.Epoch(), snapshot.Revision()}] = snapshot
}

func (h *history) snapshot(m moment) (*inventory.Snapshot, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.kept[m]
	return s, ok
}

func (h *history) cloudOf(name string) *fickleCloud {
	for _, c := range h.clouds {
		if strings.HasPrefix(name, inventory.CloudName(c.name)+"/") {
			return c
		}
	}
	return nil
}

// filters are what watchers select by, each with the same in Go.
var filters = []struct {
	text  string
	match func(upstream.Notebook) bool
}{
	{"", func(upstream.Notebook) bool { return true }},
	{"state = RUNNING", func(n upstream.Notebook) bool { return n.State == upstream.StateRunning }},
	{"NOT state = RUNNING", func(n upstream.Notebook) bool { return n.State != upstream.StateRunning }},
	{`owner_id = "even"`, func(n upstream.Notebook) bool { return n.OwnerID == "even" }},
	{`state = FAILED AND owner_id = "odd"`, func(n upstream.Notebook) bool { return n.State == upstream.StateFailed && n.OwnerID == "odd" }},
}

var parents = []string{"", "", "clouds/core", "clouds/scnet/locations/2", "clouds/-/locations/1"}

// follower is a watcher that does exactly what the contract tells it to: it sends
// the last token that it got, forgets everything when it is told to, and leaves
// and comes back without need.
type follower struct {
	h      *history
	t      *testing.T
	id     int
	rng    *rand.Rand
	parent string
	filter int
	scope  scope

	state map[string]*notebookv1.Notebook
	token string
	// deletions holds the revision of the last DELETED of each notebook, by the
	// log that it belongs to.
	deletions map[string]moment
}

// errorf reports what went wrong, at first: one fault shows in many frames.
func (f *follower) errorf(format string, args ...any) {
	f.t.Helper()
	if f.h.faults.Add(1) > 20 {
		return
	}
	f.t.Errorf("watcher %d (parent %q, filter %q): %s", f.id, f.parent, filters[f.filter].text, fmt.Sprintf(format, args...))
}

// run connects again and again until it has seen the final revision.
func (f *follower) run(ctx context.Context) {
	for first := true; ; first = false {
		l := f.h.door.enter(ctx)
		if l == nil {
			f.errorf("it never saw the end")
			return
		}
		if f.connect(ctx, l) {
			return
		}
		if !first {
			f.h.reconnects.Add(1)
		}
	}
}

// connect makes one connection and leaves it after some frames. It reports
// whether the final revision was seen.
func (f *follower) connect(ctx context.Context, l *life) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	switch f.rng.IntN(12) {
	case 0: // begin anew
		f.token = ""
	case 1: // go on from a List
		resp, err := l.List(ctx, &notebookv1.ListRequest{Parent: f.parent, Filter: filters[f.filter].text, PageSize: maxPageSize})
		if err == nil {
			f.token = resp.GetResumeToken()
			clear(f.state)
			for _, n := range resp.GetNotebooks() {
				f.state[n.GetName()] = n
			}
		}
	}
	if f.token == "" {
		clear(f.state)
	}
	frames := 1 + f.rng.IntN(12)
	if f.rng.IntN(4) == 0 {
		frames = 1 + f.rng.IntN(80)
	}
	stream, err := l.Watch(ctx, &notebookv1.WatchRequest{
		Parent: f.parent, Filter: filters[f.filter].text, ResumeToken: f.token,
		// Shorter than the contract's rules, which stand before the service, allow.
		BookmarkInterval: durationpb.New(time.Duration(5+f.rng.IntN(15)) * time.Millisecond),
	})
	if err != nil {
		return false
	}
	c := &connection{follower: f, life: l, resumed: f.token != "", versions: map[string]uint64{}, initial: map[string]bool{}}
	for n := 0; n < frames || f.h.final.Load() != 0; n++ {
		frame, err := stream.Recv()
		if err != nil {
			f.ended(err)
			return false
		}
		if c.take(frame) {
			return true
		}
		if f.rng.IntN(60) == 0 { // a slow reader: the history goes on without it
			for until := f.h.steps.Load() + int64(f.rng.IntN(6)); f.h.steps.Load() < until && f.h.final.Load() == 0 && ctx.Err() == nil; {
				time.Sleep(time.Millisecond)
			}
		}
	}
	return false
}

// ended looks at how a stream ended.
func (f *follower) ended(err error) {
	switch code, why := status.Code(err), reason(err); {
	case code == codes.InvalidArgument && why == "RESUME_TOKEN_INVALID": // another log has another key
		f.token = ""
	case code == codes.Unavailable, code == codes.Canceled: // the life is over
	case code == codes.ResourceExhausted && why == "SLOW_READER":
	default:
		f.errorf("the stream ended with %v", err)
	}
}

// connection is what a follower has to know of one stream.
type connection struct {
	*follower
	life     *life
	resumed  bool
	began    bool // SNAPSHOT_END was seen
	last     uint64
	versions map[string]uint64 // by name → revision that was told on this connection
	initial  map[string]bool   // names that the snapshot told
}

// take applies a frame and checks what must hold after it. It reports whether
// the frame is a bookmark of the final revision or a later one.
func (c *connection) take(frame *notebookv1.WatchResponse) bool {
	var revision uint64
	if token := frame.GetResumeToken(); token != "" {
		epoch := c.life.inventory.Epoch()
		r, err := c.life.inventory.Tokens().OpenResume(c.scope.key(), token, epoch)
		if err != nil || r.Epoch != epoch {
			c.errorf("frame with a token that cannot be used: %v", frame)
			return false
		}
		revision = r.Revision
	}
	switch event := frame.GetEvent().(type) {
	case *notebookv1.WatchResponse_Reset_:
		if !c.resumed {
			c.errorf("reset on a watch that was not resumed")
		}
		clear(c.state)
		c.resumed = false
	case *notebookv1.WatchResponse_Notebook:
		c.notebook(event.Notebook, revision)
	}
	if frame.GetResumeToken() == "" {
		if !frame.GetNotebook().GetInitial() {
			c.errorf("frame without a token: %v", frame)
		}
		return false
	}
	c.token = frame.GetResumeToken()
	if revision < c.last {
		c.errorf("revision %d after %d", revision, c.last)
	}
	c.last = revision
	bookmark := frame.GetBookmark()
	if bookmark.GetKind() == notebookv1.Bookmark_KIND_SNAPSHOT_END {
		c.began = true
	}
	c.compare(revision, bookmark != nil)
	final := c.h.final.Load()
	return bookmark != nil && final != 0 && revision >= final
}

// notebook applies an event and checks what must hold for one notebook.
func (c *connection) notebook(e *notebookv1.NotebookEvent, revision uint64) {
	name := e.GetNotebook().GetName()
	if e.GetInitial() {
		if c.resumed || c.began || c.initial[name] || e.GetType() != notebookv1.NotebookEvent_TYPE_ADDED {
			c.errorf("%s is told as part of a snapshot: %v, resumed %v, after the snapshot %v, twice %v", name, e.GetType(), c.resumed, c.began, c.initial[name])
		}
		c.initial[name] = true
	} else if before, ok := c.versions[name]; ok && revision <= before {
		c.errorf("%s: revision %d is told after %d", name, revision, before)
	}
	if !e.GetInitial() {
		c.versions[name] = revision
	}
	switch e.GetType() {
	case notebookv1.NotebookEvent_TYPE_ADDED, notebookv1.NotebookEvent_TYPE_MODIFIED:
		c.state[name] = e.GetNotebook()
	case notebookv1.NotebookEvent_TYPE_DELETED:
		delete(c.state, name)
		c.deletions[name] = moment{c.life.inventory.Epoch(), revision}
		if !c.h.cloudOf(name).wasAbsent(name) {
			c.errorf("%s is deleted on a guess", name)
		}
	case notebookv1.NotebookEvent_TYPE_LEFT_FILTER:
		delete(c.state, name)
		if c.filter == 0 {
			c.errorf("%s left a filter that selects everything", name)
		}
	default:
		c.errorf("event of type %v", e.GetType())
	}
}

// compare checks the state after a frame whose token stands for a revision. What
// did not change since must be as it is now. What did may be as it was before:
// versions in between are skipped. A bookmark, whose token stands for a whole
// snapshot, must have exactly what that has.
func (c *connection) compare(revision uint64, bookmark bool) {
	if !c.began && !c.resumed {
		return // half a snapshot
	}
	now := c.life.inventory.Snapshot()
	changed := map[string]bool{}
	for row := range now.Since(revision) {
		changed[row.Name] = true
	}
	c.equal(now, revision, changed)
	if !bookmark {
		return
	}
	at := now
	if now.Revision() != revision {
		var ok bool
		if at, ok = c.h.snapshot(moment{c.life.inventory.Epoch(), revision}); !ok {
			c.h.unknown.Add(1)
			return
		}
	}
	c.h.compared.Add(1)
	c.equal(at, revision, nil)
}

// equal compares the state with what List would return of a snapshot, but for
// some names.
func (c *connection) equal(snapshot *inventory.Snapshot, revision uint64, except map[string]bool) {
	by, _ := parseOrder("")
	rows, _, _ := page(snapshot, c.scope, by, pageStart{after: func(*notebookv1.Notebook) bool { return true }}, maxPageSize)
	listed := make(map[string]bool, len(rows))
	for _, row := range rows {
		n := row.Notebook
		listed[n.GetName()] = true
		if have := c.state[n.GetName()]; have.GetEtag() != n.GetEtag() && !except[n.GetName()] {
			c.errorf("at revision %d it has %s as %q, the list of %d as %q (resumed %v)",
				revision, n.GetName(), have.GetDisplayName(), snapshot.Revision(), n.GetDisplayName(), c.resumed)
		}
	}
	for name, n := range c.state {
		if !listed[name] && !except[name] {
			c.errorf("at revision %d it has %s as %q, the list of %d does not (resumed %v)", revision, name, n.GetDisplayName(), snapshot.Revision(), c.resumed)
		}
	}
}

// roaming is a client that finds the service of the moment.
type roaming struct {
	notebookv1.NotebookServiceClient
	door *door
}

func (r roaming) Watch(ctx context.Context, req *notebookv1.WatchRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[notebookv1.WatchResponse], error) {
	l := r.door.enter(ctx)
	if l == nil {
		return nil, ctx.Err()
	}
	return l.Watch(ctx, req, opts...)
}

// version makes another version of a notebook.
func (h *history) version(id string) upstream.Notebook {
	h.counter++
	states := []upstream.State{upstream.StateRunning, upstream.StateRunning, upstream.StateStopped, upstream.StateFailed}
	n := upstream.Notebook{ID: id, DisplayName: fmt.Sprintf("v%d", h.counter), State: states[h.rng.IntN(len(states))], OwnerID: "odd"}
	if h.rng.IntN(2) == 0 {
		n.OwnerID = "even"
	}
	if h.rng.IntN(4) == 0 { // large, so that few of them fill what may be under way
		n.StateMessage = strings.Repeat("x", 1000+h.rng.IntN(8000))
	}
	return n
}

// poll reads a location so often, well or badly.
func (h *history) poll(l *life, cloud *fickleCloud, location string, times int) {
	for range times {
		if err := l.inventory.Refresh(h.t.Context(), inventory.LocationName(cloud.name, location)); err != nil {
			cloud.guard.Lock()
			down := cloud.down[location]
			cloud.guard.Unlock()
			if e, ok := errors.AsType[*upstream.Error](err); down == nil && (!ok || e.Kind != upstream.KindBadResponse) {
				h.t.Errorf("poll of %s/%s: %v", cloud.name, location, err)
			}
		}
	}
}

const maxInLocation = 15

// step makes one change of the world and lets it be seen.
func (h *history) step(l *life) {
	h.steps.Add(1)
	cloud := h.clouds[h.rng.IntN(len(h.clouds))]
	location := cloud.locations[h.rng.IntN(len(cloud.locations))].ID
	cloud.mu.Lock()
	list := slices.Clone(cloud.notebooks[location])
	cloud.mu.Unlock()
	put := func(list []upstream.Notebook) {
		cloud.set(func(f *fakeCloud) { f.notebooks[location] = slices.Clone(list) })
	}
	key := cloud.name + "/" + location
	pick := func() int { return h.rng.IntN(len(list)) }
	op := h.rng.IntN(100)
	switch {
	case len(list) == 0 || op < 25 && len(list) < maxInLocation: // some are added, some of them again
		for range 1 + h.rng.IntN(3) {
			id := fmt.Sprintf("n%d", h.counter)
			if ids := h.gone[key]; len(ids) > 0 && h.rng.IntN(2) == 0 {
				i := h.rng.IntN(len(ids))
				id = ids[i]
				h.gone[key] = slices.Delete(ids, i, i+1)
			}
			list = append(list, h.version(id))
		}
		put(list)
		h.poll(l, cloud, location, 1)
	case op < 55: // some change
		for range 1 + h.rng.IntN(4) {
			i := pick()
			list[i] = h.version(list[i].ID)
		}
		put(list)
		h.poll(l, cloud, location, 1)
	case op < 70: // one goes
		i := pick()
		h.gone[key] = append(h.gone[key], list[i].ID)
		put(slices.Delete(list, i, i+1))
		h.poll(l, cloud, location, 1+h.rng.IntN(3))
	case op < 76: // one is left out once, or not even that long
		i := pick()
		put(slices.Delete(slices.Clone(list), i, i+1))
		h.poll(l, cloud, location, h.rng.IntN(2))
		put(list)
		h.poll(l, cloud, location, 1)
	case op < 82: // one goes, comes back and perhaps goes again, faster than anybody reads
		i := pick()
		rest := slices.Delete(slices.Clone(list), i, i+1)
		put(rest)
		h.poll(l, cloud, location, 2)
		put(append(slices.Clone(rest), h.version(list[i].ID)))
		h.poll(l, cloud, location, 1)
		if h.rng.IntN(2) == 0 {
			put(rest)
			h.poll(l, cloud, location, 2)
			h.gone[key] = append(h.gone[key], list[i].ID)
		}
	case op < 90: // an outage, in which things go on unseen
		cloud.setDown(location, &upstream.Error{Cloud: cloud.name, Location: location, Kind: upstream.KindUnavailable})
		h.poll(l, cloud, location, 1+h.rng.IntN(4))
		list[pick()] = h.version(list[pick()].ID)
		list = slices.CompactFunc(sortedByID(list), func(a, b upstream.Notebook) bool { return a.ID == b.ID })
		put(list)
		cloud.setDown(location, nil)
		h.poll(l, cloud, location, 1)
	case op < 95: // the listing is empty for some time
		put([]upstream.Notebook{})
		h.poll(l, cloud, location, 1+h.rng.IntN(4))
		put(list)
		h.poll(l, cloud, location, 1)
	default: // an answer without a list
		cloud.set(func(f *fakeCloud) { f.notebooks[location] = nil })
		h.poll(l, cloud, location, 1)
		put(list)
		h.poll(l, cloud, location, 1)
	}
}

func sortedByID(list []upstream.Notebook) []upstream.Notebook {
	slices.SortFunc(list, func(a, b upstream.Notebook) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// live runs one life after another until enough steps and reconnects were made,
// and then until every watcher has seen the end.
func (h *history) live(goal int64) {
	t := h.t
	var watchers sync.WaitGroup
	// Generous, since it only ends what has failed.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var followers []*follower
	for i := range 16 {
		f := &follower{
			h: h, t: t, id: i, rng: rand.New(rand.NewPCG(h.rng.Uint64(), uint64(i))), filter: h.rng.IntN(len(filters)), parent: parents[h.rng.IntN(len(parents))],
			state: map[string]*notebookv1.Notebook{}, deletions: map[string]moment{},
		}
		var err error
		if f.scope, err = newScope(f.parent, filters[f.filter].text, everything{}); err != nil {
			t.Fatal(err)
		}
		followers = append(followers, f)
		watchers.Go(func() { f.run(ctx) })
	}
	clients := []*clientFollower{h.newClient(ctx, "", 0), h.newClient(ctx, parents[h.rng.IntN(len(parents))], 1+h.rng.IntN(len(filters)-1))}

	var l *life
	const restarts = 3
	for part := range restarts + 1 {
		release := func() {}
		if part > 0 {
			h.door.set(nil)
			l.stop()
			if h.rng.IntN(3) == 0 { // the watchers are there before the locations are known
				release = h.clouds[h.rng.IntN(len(h.clouds))].holdDiscovery()
			}
		}
		l = beginLife(t, h.log, h.clouds)
		if h.rng.IntN(2) == 0 {
			l.service.limits().SlowReader = 20 * time.Millisecond
		}
		if h.rng.IntN(2) == 0 {
			l.service.keep = 1 // so that slow readers have to walk
		}
		l.service.onShown = h.keep
		before := h.reconnects.Load()
		h.door.set(l)
		if part > 0 {
			// A second, should they not: half of what follows is their coming back.
			for until := time.Now().Add(time.Second); h.reconnects.Load() < before+20 && time.Now().Before(until); {
				time.Sleep(time.Millisecond)
			}
		}
		release()
		l.until(t, "ready", l.inventory.Ready)
		share := goal * int64(part+1) / (restarts + 1)
		for n := 0; n < 12 || h.reconnects.Load() < share && n < 2000 && !t.Failed(); n++ {
			h.step(l)
		}
		if part == restarts {
			h.settle(ctx, l, &watchers, followers, clients)
		}
	}
	h.door.set(nil)
	l.stop()
}

// settle stops all changes, waits until everybody has seen the last one, and
// compares.
func (h *history) settle(ctx context.Context, l *life, watchers *sync.WaitGroup, followers []*follower, clients []*clientFollower) {
	for _, cloud := range h.clouds {
		for _, location := range cloud.locations {
			h.poll(l, cloud, location.ID, 3)
		}
	}
	snapshot := l.inventory.Snapshot()
	h.final.Store(snapshot.Revision())
	watchers.Wait()
	for _, f := range followers {
		h.check(l, fmt.Sprintf("watcher %d", f.id), f.parent, f.filter, f.state)
		for name, at := range f.deletions {
			row, ok := snapshot.Get(name)
			if ok && at.epoch == l.inventory.Epoch() && at.revision > row.Revision {
				f.errorf("%s exists since revision %d and was told as deleted at %d", name, row.Revision, at.revision)
			}
		}
	}
	for _, c := range clients {
		c.settle(ctx, l, snapshot.Revision())
	}
}

// check compares a state with what List returns, and with what the clouds have.
func (h *history) check(l *life, who, parent string, filter int, state map[string]*notebookv1.Notebook) {
	t := h.t
	t.Helper()
	resp, err := l.List(t.Context(), &notebookv1.ListRequest{Parent: parent, Filter: filters[filter].text, PageSize: maxPageSize})
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]*notebookv1.Notebook{}
	for _, n := range resp.GetNotebooks() {
		listed[n.GetName()] = n
	}
	if diff := cmp.Diff(listed, state, protocmp.Transform()); diff != "" {
		t.Errorf("%s (parent %q, filter %q): state at the end (-list +watch):\n%s", who, parent, filters[filter].text, diff)
	}
	want, got := map[string]string{}, map[string]string{}
	sc := parseScope(parent)
	for _, cloud := range h.clouds {
		cloud.mu.Lock()
		for location, list := range cloud.notebooks {
			if !sc.has(&inventory.Location{Cloud: cloud.name, ID: location}) {
				continue
			}
			for _, n := range list {
				if filters[filter].match(n) {
					want[inventory.LocationName(cloud.name, location)+"/notebooks/"+n.ID] = n.DisplayName
				}
			}
		}
		cloud.mu.Unlock()
	}
	for name, n := range state {
		got[name] = n.GetDisplayName()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (parent %q, filter %q): state at the end (-clouds +watch):\n%s", who, parent, filters[filter].text, diff)
	}
}

// clientFollower is a Watcher of the client package, with a consumer that
// rebuilds the state from its changes.
type clientFollower struct {
	h        *history
	parent   string
	filter   int
	scope    scope
	watcher  *client.Watcher
	consumer sync.WaitGroup
	told     map[string]*notebookv1.Notebook // the consumer's until it has ended
}

func (h *history) newClient(ctx context.Context, parent string, filter int) *clientFollower {
	c := &clientFollower{h: h, parent: parent, filter: filter, told: map[string]*notebookv1.Notebook{}}
	var err error
	if c.scope, err = newScope(parent, filters[filter].text, everything{}); err != nil {
		h.t.Fatal(err)
	}
	c.watcher = client.NewWatcher(ctx, roaming{door: &h.door}, client.Config{
		Parent: parent, Filter: filters[filter].text, BookmarkInterval: 200 * time.Millisecond, MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond,
	})
	h.t.Cleanup(func() {
		c.watcher.Close()
		c.consumer.Wait()
	})
	c.consumer.Go(func() {
		for change, err := range c.watcher.Changes(ctx) {
			if err != nil {
				if !errors.Is(err, client.ErrClosed) {
					h.t.Errorf("client: %v", err)
				}
				return
			}
			if change.Notebook == nil {
				continue
			}
			if change.Before.GetEtag() != c.told[change.Name].GetEtag() {
				h.t.Errorf("client: %s was %v to the Watcher and %v to the consumer", change.Name, change.Before, c.told[change.Name])
			}
			if change.Type == client.Added || change.Type == client.Modified {
				c.told[change.Name] = change.Notebook
			} else {
				delete(c.told, change.Name)
			}
		}
	})
	return c
}

// settle waits until the Watcher has seen a revision, closes it, and compares
// both states.
func (c *clientFollower) settle(ctx context.Context, l *life, revision uint64) {
	for ctx.Err() == nil {
		r, err := l.inventory.Tokens().OpenResume(c.scope.key(), c.watcher.Token(), l.inventory.Epoch())
		if err == nil && r.Epoch != "" && r.Revision >= revision {
			break
		}
		time.Sleep(time.Millisecond)
	}
	c.watcher.Close()
	c.consumer.Wait() // it is told the rest
	c.h.check(l, "the client's Watcher", c.parent, c.filter, c.watcher.State().Notebooks)
	want, got := map[string]string{}, map[string]string{}
	for name, n := range c.watcher.State().Notebooks {
		want[name] = n.GetEtag()
	}
	for name, n := range c.told {
		got[name] = n.GetEtag()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		c.h.t.Errorf("the client's consumer (-Watcher +consumer):\n%s", diff)
	}
}

// TestWatchProperties makes up histories: notebooks come, change and go, come
// back under the same id, locations fail, listings are emptied and cut, and the
// service is restarted, with its log and without. Meanwhile watchers with all
// kinds of parents and filters connect, leave after any frame, come back with
// their last token or a List's or none, and read slowly. It checks that
//
//   - the state that a watcher has rebuilt is that of List at the revision of its
//     token, and at the end what the clouds have;
//   - within a connection revisions never go back, and no version comes twice;
//   - nothing is deleted that listings did not prove to be gone.
func TestWatchProperties(t *testing.T) {
	const goal = 250 // reconnects of one history
	seed := *propertySeed
	histories := (*wantReconnects + goal - 1) / goal
	if seed != 0 {
		histories = 1
	}
	var total, compared, unknown int64
	for range histories {
		if *propertySeed == 0 {
			seed = rand.Uint64()
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			h := &history{
				t: t, rng: rng, clouds: []*fickleCloud{newFickleCloud("core", "1", "2"), newFickleCloud("scnet", "2", "3")},
				door: door{opened: make(chan struct{})}, gone: map[string][]string{}, kept: map[moment]*inventory.Snapshot{},
			}
			if rng.IntN(4) > 0 { // else every restart is one with another log
				h.log.dataDir = t.TempDir()
			}
			if rng.IntN(4) == 0 { // deletions are forgotten while it runs
				h.log.tombstones = time.Second
			}
			h.live(goal)
			total, compared, unknown = total+h.reconnects.Load(), compared+h.compared.Load(), unknown+h.unknown.Load()
			t.Logf("-property.seed=%d: %d steps, %d reconnects, %d bookmarks compared, %d not", seed, h.steps.Load(), h.reconnects.Load(), h.compared.Load(), h.unknown.Load())
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d histories, %d reconnects, %d bookmarks compared exactly, %d without their snapshot", histories, total, compared, unknown)
	if unknown > 0 {
		t.Errorf("only %d of %d bookmarks could be compared", compared, compared+unknown)
	}
}

// TestFirstFrame: with every cloud hanging and nothing known, a watch answers
// before any cloud does, and its snapshot ends.
func TestFirstFrame(t *testing.T) {
	for name, discovered := range map[string]bool{"locations known": true, "discovery hangs too": false} {
		t.Run(name, func(t *testing.T) {
			clouds := []*fickleCloud{newFickleCloud("core", "1", "2"), newFickleCloud("scnet", "2")}
			for _, c := range clouds {
				c.hang = make(chan struct{}) // never closed: List ends with its context
				if !discovered {
					t.Cleanup(c.holdDiscovery())
				}
			}
			l := beginLife(t, kept{}, clouds)
			wantFrames := 0
			if discovered {
				wantFrames = 3
				l.until(t, "locations known", func() bool { return len(l.inventory.Snapshot().Locations()) == wantFrames })
			}
			if _, err := l.clouds.ListClouds(t.Context(), &notebookv1.ListCloudsRequest{}); err != nil { // the connection is up
				t.Fatal(err)
			}
			var worst time.Duration
			for range 20 {
				begun := time.Now()
				w := watch(t, l.fixture, &notebookv1.WatchRequest{})
				frame := w.next()
				worst = max(worst, time.Since(begun))
				var states []notebookv1.Location_State
				for ; frame.GetLocation() != nil; frame = w.next() {
					states = append(states, frame.GetLocation().GetState())
				}
				if frame.GetBookmark().GetKind() != notebookv1.Bookmark_KIND_SNAPSHOT_END {
					t.Errorf("after the locations: %v", frame)
				}
				if len(states) != wantFrames || slices.ContainsFunc(states, func(s notebookv1.Location_State) bool { return s != notebookv1.Location_STATE_UNREACHABLE }) {
					t.Errorf("locations are %v", states)
				}
				w.cancel()
			}
			if l.inventory.Ready() {
				t.Error("a cloud has answered")
			}
			t.Logf("first frame after %v at most", worst)
			if worst > 5*time.Second { // 50 ms where nothing else runs
				t.Errorf("the first frame took %v", worst)
			}
		})
	}
}
