package service

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/imagechange"
	"github.com/notebookd/notebookd/internal/inventory"
)

// feed makes what the watches of one scope are sent, once for all of them. What
// they have in common is the end of a chain of batches: a watch that has sent one
// waits for the next. So what a change costs does not depend on how many watch it,
// but for the sending.
//
// A batch is everything between two snapshots. Its frames are dropped when many
// newer ones exist. A watch that is so far behind walks the versions itself, as
// one that resumes does.
type feed struct {
	service *Service
	scope   scope
	watches int           // guarded by feeds.mu
	ended   chan struct{} // closed when the last watch has left

	mu       sync.Mutex // guards what is below, which is unset before the first advance
	last     *batch
	snapshot *inventory.Snapshot // last stands for it
	view     *imagechange.View   // and for this
	matched  map[string]struct{} // the names that match at snapshot; nil without a filter
	recent   []recentBatch       // of which there may still be frames, oldest first
	kept     int                 // frames of recent
}

// maxKept is how many frames a watch may be behind before it has to walk, or one
// batch, if that is more.
const maxKept = 1024

type recentBatch struct {
	batch  weak.Pointer[batch] // kept by those that have not sent it
	frames int
}

// batch is what happened in a scope from one snapshot to another.
type batch struct {
	frames  atomic.Pointer[[]*Frame] // nil when there were any once
	restart string                   // why it is to begin again; empty when it is not
	closing bool                     // the service drains
	// flipped holds, of the notebooks that began or ceased to match the filter,
	// whether they matched before.
	flipped map[string]bool
	// at is what has been sent with this batch. It moves on for as long as the batch
	// is the last and nothing happens in the scope.
	at    atomic.Pointer[position]
	shown time.Time     // when the snapshot was, or the change of an image
	next  *batch        // set before set is closed
	set   chan struct{} // closed by the feed, once
}

// position is a point in the history of a scope. It is immutable.
type position struct {
	epoch     string
	view      uint32
	revision  uint64
	locations map[string]uint64 // by name → version
	changes   uint64            // seq of image changes
}

// feeds are the feeds that somebody watches, by the key of their scope.
type feeds struct {
	mu    sync.Mutex // guards what is below, and feed.watches
	byKey map[string]*feed
}

// join returns the feed of a scope, which exists until the last that has joined it
// has left.
func (s *Service) join(sc scope) (f *feed, leave func()) {
	s.feeds.mu.Lock()
	defer s.feeds.mu.Unlock()
	key := sc.shared()
	f, ok := s.feeds.byKey[key]
	if !ok {
		if s.feeds.byKey == nil {
			s.feeds.byKey = map[string]*feed{}
		}
		f = &feed{service: s, scope: sc, ended: make(chan struct{})}
		s.feeds.byKey[key] = f
		s.watches.Go(f.run)
	}
	f.watches++
	return f, func() {
		s.feeds.mu.Lock()
		defer s.feeds.mu.Unlock()
		if f.watches--; f.watches == 0 {
			delete(s.feeds.byKey, key)
			close(f.ended)
		}
	}
}

// run makes batches for as long as somebody watches.
func (f *feed) run() {
	draining := f.service.draining
	for {
		_, snapshot, view := f.now()
		select {
		case <-snapshot.Superseded():
		case <-view.Superseded():
		case <-draining:
			draining = nil
			f.mu.Lock()
			b := &batch{closing: true, shown: time.Now()}
			f.appendLocked(b, nil, f.last.at.Load())
			f.mu.Unlock()
		case <-f.ended:
			return
		}
	}
}

// now returns the end of the chain and what it stands for: the present.
func (f *feed) now() (last *batch, snapshot *inventory.Snapshot, view *imagechange.View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.advanceLocked()
	return f.last, f.snapshot, f.view
}

// advanceLocked appends what has happened since.
func (f *feed) advanceLocked() {
	snapshot, view := f.service.inventory.Snapshot(), f.service.changer.View()
	if f.last != nil && snapshot == f.snapshot && view == f.view {
		return
	}
	before, shown := f.snapshot, time.Now()
	if snapshot != f.snapshot {
		shown = snapshot.Published()
	}
	f.snapshot, f.view = snapshot, view
	f.service.show(snapshot)
	restart := ""
	switch {
	case before == nil:
	case before.Resets() != snapshot.Resets():
		restart = resetLog
	case !f.scope.goesOn(before, snapshot):
		restart = resetView
	}
	if before == nil || restart != "" {
		f.matched = f.scope.matches(snapshot)
		f.appendLocked(&batch{restart: restart, shown: shown}, nil, f.scope.position(snapshot, view, nil))
		return
	}
	from := f.last.at.Load()
	b := &batch{shown: shown}
	var frames []*Frame
	keep := func(frame *Frame) error {
		frames = append(frames, frame)
		return nil
	}
	knew := func(row *inventory.Row, now bool) bool {
		if f.matched == nil {
			return row.Known(from.revision, from.revision)
		}
		_, before := f.matched[row.Name]
		if before != now {
			if b.flipped == nil {
				b.flipped = map[string]bool{}
			}
			b.flipped[row.Name] = before
		}
		if now {
			f.matched[row.Name] = struct{}{}
		} else {
			delete(f.matched, row.Name)
		}
		return before
	}
	_ = f.service.walk(f.scope, snapshot, view, from, from.revision, knew, keep) // whose errors are those of keep
	to := f.scope.position(snapshot, view, from)
	if len(frames) == 0 {
		f.last.at.Store(to)
		return
	}
	f.appendLocked(b, frames, to)
}

// appendLocked makes b the last batch, and wakes those who wait for it.
func (f *feed) appendLocked(b *batch, frames []*Frame, at *position) {
	b.set = make(chan struct{})
	b.frames.Store(&frames)
	b.at.Store(at)
	before := f.last
	f.last = b
	if before == nil {
		return
	}
	before.next = b
	close(before.set)
	if len(frames) == 0 {
		return
	}
	f.recent = append(f.recent, recentBatch{weak.Make(b), len(frames)})
	f.kept += len(frames)
	for f.kept > f.service.keep && len(f.recent) > 1 {
		if old := f.recent[0].batch.Value(); old != nil {
			old.frames.Store(nil)
		}
		f.kept -= f.recent[0].frames
		f.recent = f.recent[1:]
	}
}

// position is where a scope is at a moment. It shares with another one what is
// the same.
func (sc scope) position(snapshot *inventory.Snapshot, view *imagechange.View, before *position) *position {
	p := &position{epoch: snapshot.Epoch(), view: sc.view(snapshot), revision: snapshot.Revision(), locations: map[string]uint64{}, changes: view.Seq()}
	for _, l := range snapshot.Locations() {
		if sc.has(l) {
			p.locations[l.Name] = l.Version()
		}
	}
	if before != nil && maps.Equal(before.locations, p.locations) {
		p.locations = before.locations
	}
	return p
}

// matches returns the names of the notebooks that match, or nil without a filter.
func (sc scope) matches(snapshot *inventory.Snapshot) map[string]struct{} {
	if sc.filter.key() == "" {
		return nil
	}
	names := map[string]struct{}{}
	for _, l := range snapshot.Locations() {
		if !sc.has(l) {
			continue
		}
		for row := range snapshot.Rows(l.Name, "") {
			if sc.filter.match(row.Notebook) {
				names[row.Name] = struct{}{}
			}
		}
	}
	return names
}

// walk sends everything that happened in a scope between a position and the
// present: every row that is newer, in the order of the log, every location whose
// status is news, and every image change that went on.
//
// base is the revision that the receiver knew everything of; see
// inventory.Resume. knew says whether it knows a notebook, and is told whether
// that is to be so from now on.
func (s *Service) walk(sc scope, snapshot *inventory.Snapshot, view *imagechange.View, from *position, base uint64,
	knew func(row *inventory.Row, now bool) bool, send sendFunc,
) error {
	now, key, shown := time.Now(), sc.key(), sc.view(snapshot)
	tokenAt := func(revision, base uint64) string {
		return s.inventory.Tokens().Resume(key, inventory.Resume{Epoch: snapshot.Epoch(), View: shown, Revision: revision, Base: base, Time: now})
	}
	for row := range snapshot.Since(from.revision) {
		if l, ok := snapshot.Location(row.Location); !ok || !sc.has(l) {
			continue // of a cloud that is not configured, or not asked for
		}
		matches := !row.Deleted && sc.filter.match(row.Notebook)
		var kind notebookv1.NotebookEvent_Type
		switch before := knew(row, matches); {
		case matches && before:
			kind = notebookv1.NotebookEvent_TYPE_MODIFIED
		case matches:
			kind = notebookv1.NotebookEvent_TYPE_ADDED
		case !before:
			continue // never seen
		case row.Deleted:
			kind = notebookv1.NotebookEvent_TYPE_DELETED
		default:
			kind = notebookv1.NotebookEvent_TYPE_LEFT_FILTER
		}
		// A version that a newer one has replaced is never walked, so until the end of
		// the walk the receiver may hold what was at base.
		if err := send(&Frame{token: tokenAt(row.Revision, base), event: eventOf(row, kind, base)}); err != nil {
			return err
		}
	}
	token := tokenAt(snapshot.Revision(), snapshot.Revision())
	for _, l := range snapshot.Locations() {
		if !sc.has(l) || from.locations[l.Name] == l.Version() {
			continue
		}
		if err := send(newFrame(token, locationEvent(snapshot, l))); err != nil {
			return err
		}
	}
	for change := range view.Since(from.changes) {
		if !sc.concerns(change, snapshot) {
			continue
		}
		if err := send(newFrame(token, imageChangeEvent(change))); err != nil {
			return err
		}
	}
	return nil
}

// concerns reports whether an image change is of the scope. With a filter it is
// when either of its notebooks matches.
func (sc scope) concerns(change *notebookv1.ImageChange, snapshot *inventory.Snapshot) bool {
	if !sc.hasChange(change) {
		return false
	}
	if sc.filter.key() == "" {
		return true
	}
	for _, name := range []string{change.GetNotebook(), change.GetNewNotebook()} {
		if row, ok := snapshot.Get(name); ok && sc.filter.match(row.Notebook) {
			return true
		}
	}
	return false
}

// hasChange reports whether an image change is of the scope, whatever its filter.
func (sc scope) hasChange(change *notebookv1.ImageChange) bool {
	parts := strings.Split(change.GetNotebook(), "/")
	return len(parts) >= 4 && sc.hasLocation(parts[1], parts[3])
}

// show notes which snapshot is sent from now on.
func (s *Service) show(snapshot *inventory.Snapshot) {
	if s.onShown != nil {
		s.onShown(snapshot)
	}
}

// token is the resume token of a moment in a scope.
func (s *Service) token(sc scope, snapshot *inventory.Snapshot, revision, base uint64, at time.Time) string {
	return s.inventory.Tokens().Resume(sc.key(), inventory.Resume{Epoch: snapshot.Epoch(), View: sc.view(snapshot), Revision: revision, Base: base, Time: at})
}
