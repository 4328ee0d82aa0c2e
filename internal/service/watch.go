package service

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/imagechange"
	"github.com/notebookd/notebookd/internal/inventory"
)

const (
	defaultBookmarkInterval = 20 * time.Second
	// aheadFor bounds the wait for a revision that this log has not reached.
	aheadFor = 5 * time.Second
)

// Watch implements NotebookService.
func (s *Service) Watch(req *notebookv1.WatchRequest, stream notebookv1.NotebookService_WatchServer) error {
	ctx := stream.Context()
	leave, err := s.callers.enter(s.caller(ctx), s.watchLimits.MaxPerCaller)
	if err != nil {
		return err
	}
	defer leave()
	return s.toStatus(ctx, s.guarded(stream.Send, func(send sendFunc) error { return s.watch(ctx, req, send) }), nil)
}

// sendFunc sends one frame.
type sendFunc func(*notebookv1.WatchResponse) error

// watch sends frames until ctx ends or the service drains. It holds no queue:
// it remembers the revision that was sent and walks what is newer, so a slow
// reader costs nothing but its own stream.
func (s *Service) watch(ctx context.Context, req *notebookv1.WatchRequest, send sendFunc) error {
	select {
	case <-s.draining:
		return Error(codes.Unavailable, notebookv1.ErrorReason_ERROR_REASON_DRAINING, "the server is stopping; try another one")
	default:
	}
	sc, err := newScope(req.GetParent(), req.GetFilter())
	if err != nil {
		return err
	}
	if err := s.loaded(ctx); err != nil {
		return err
	}
	snapshot := s.inventory.Snapshot()
	if _, _, err := sc.selected(snapshot); err != nil {
		return err
	}
	w := &watcher{service: s, scope: sc, send: send, locations: map[string]uint64{}, interval: defaultBookmarkInterval}
	if sc.filter.key() != "" {
		w.matched = map[string]struct{}{}
	}
	if d := req.GetBookmarkInterval(); d != nil {
		w.interval = d.AsDuration()
	}
	done := s.inventory.Watching()
	defer done()

	begin := begin{snapshot: req.GetSnapshot() != notebookv1.WatchRequest_SNAPSHOT_SKIP}
	if token := req.GetResumeToken(); token != "" {
		if begin, snapshot, err = s.resume(ctx, sc, token); err != nil {
			return err
		}
	}
	if err := w.start(snapshot, begin); err != nil {
		return err
	}
	return w.follow(ctx, snapshot)
}

// begin is where a watch begins.
type begin struct {
	resumed  bool
	revision uint64 // known to the caller, when resumed
	base     uint64 // see inventory.Resume
	at       time.Time
	snapshot bool   // send what exists
	reset    string // why a token cannot be resumed; empty when it can
}

// resume says how a watch with a token begins, and with which snapshot.
func (s *Service) resume(ctx context.Context, sc scope, token string) (begin, *inventory.Snapshot, error) {
	snapshot := s.inventory.Snapshot()
	r, err := s.inventory.Tokens().OpenResume(sc.key(), token, snapshot.Epoch())
	if err != nil {
		return begin{}, nil, err
	}
	switch {
	case r.Epoch != snapshot.Epoch():
		return begin{snapshot: true, reset: "LOG_REPLACED"}, snapshot, nil
	case r.Revision == 0:
		// From before the end of a snapshot: what was shown of it may be gone.
		return begin{snapshot: true, reset: "SNAPSHOT_INCOMPLETE"}, snapshot, nil
	case time.Since(r.Time) > s.inventory.Tombstones():
		return begin{snapshot: true, reset: "TOKEN_EXPIRED"}, snapshot, nil
	}
	if err := s.reach(ctx, r.Revision); err != nil {
		return begin{}, nil, err
	}
	snapshot = s.inventory.Snapshot()
	if snapshot.Epoch() != r.Epoch || snapshot.Revision() < r.Revision {
		return begin{snapshot: true, reset: "LOG_REPLACED"}, snapshot, nil // a log that lost its end, or another one by now
	}
	return begin{resumed: true, revision: r.Revision, base: r.Base, at: r.Time}, snapshot, nil
}

// reach waits until a revision is shown, or it is certain that the log does not
// hold it. It fails when neither is so within a bound: what this replica would
// show is older than what the caller knows.
func (s *Service) reach(ctx context.Context, revision uint64) error {
	waitCtx, cancel := context.WithTimeout(ctx, aheadFor)
	defer cancel()
	if s.inventory.WaitRevision(waitCtx, revision) == nil {
		return nil
	}
	syncCtx, cancel := context.WithTimeout(ctx, aheadFor)
	defer cancel()
	if s.inventory.Sync(syncCtx) == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return newStatus(codes.Unavailable, notebookv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE,
		"this replica lags behind what the token was made for; try another one, or again", nil, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
}

// watcher is the state of one watch. Its goroutine alone uses it.
type watcher struct {
	service  *Service
	scope    scope
	send     sendFunc
	interval time.Duration

	// shown is the snapshot that is being sent.
	shown *inventory.Snapshot
	sent  uint64 // revision up to which everything was sent
	// base is the revision that the caller knew everything of when the walk that
	// sent has reached began. A version that a newer one has replaced is never
	// walked, so until the end of the walk the caller may hold what was at base.
	base      uint64
	locations map[string]uint64 // by name → version that was sent
	// matched holds the names of the notebooks that the caller knows to match
	// the filter; nil without one.
	matched map[string]struct{}
	changes *imagechange.View // that was sent
	// unsure is set while a resumed watch catches up: whether a notebook that
	// changed meanwhile matched before is not known then.
	unsure bool
}

// show notes which snapshot is sent from now on.
func (w *watcher) show(snapshot *inventory.Snapshot) {
	w.shown = snapshot
	if w.service.onShown != nil {
		w.service.onShown(snapshot)
	}
}

// start sends all that comes before the changes.
func (w *watcher) start(snapshot *inventory.Snapshot, b begin) error {
	w.show(snapshot)
	w.sent, w.base = b.revision, b.base // 0 before a snapshot: a token of these frames starts over
	if !b.resumed && !b.snapshot {
		w.sent, w.base = snapshot.Revision(), snapshot.Revision()
	}
	if b.reset != "" {
		reset := &notebookv1.WatchResponse{Event: &notebookv1.WatchResponse_Reset_{Reset_: &notebookv1.Reset{Reason: b.reset}}}
		if err := w.frame(reset); err != nil {
			return err
		}
	}
	if err := w.sendLocations(snapshot); err != nil {
		return err
	}
	locations, _, err := w.scope.selected(snapshot)
	if err != nil {
		return err
	}
	for _, l := range locations {
		if w.matched == nil && !b.snapshot {
			break
		}
		for row := range snapshot.Rows(l.Name, "") {
			if b.resumed && row.Revision > b.revision || !w.scope.filter.match(row.Notebook) {
				continue
			}
			if w.matched != nil {
				w.matched[row.Name] = struct{}{}
			}
			if !b.snapshot {
				continue
			}
			if err := w.send(notebookEvent(&notebookv1.NotebookEvent{
				Type: notebookv1.NotebookEvent_TYPE_ADDED, Notebook: row.Notebook, Initial: true,
			})); err != nil {
				return err
			}
		}
	}
	if b.resumed {
		w.unsure = true
		if err := w.sendChanges(snapshot); err != nil {
			return err
		}
		w.unsure = false
	}
	w.sent, w.base = snapshot.Revision(), snapshot.Revision()
	w.changes = w.service.changer.View()
	for change := range w.changes.Newest("") {
		open := change.GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED && change.GetPhase() != notebookv1.ImageChange_PHASE_FAILED &&
			change.GetPhase() != notebookv1.ImageChange_PHASE_UNCHANGED
		if age := time.Since(change.GetCreateTime().AsTime()); age > maxChangeAge {
			break // older ones have ended
		}
		// A token may be a little ahead of the changes that were sent before it.
		told := b.at.Add(-w.service.watchLimits.SlowReader)
		if !open && (!b.resumed || change.GetUpdateTime().AsTime().Before(told)) {
			continue
		}
		if err := w.sendChange(change); err != nil {
			return err
		}
	}
	return w.bookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
}

// maxChangeAge bounds how far back a watch looks for image changes when it
// begins.
const maxChangeAge = 24 * time.Hour

// sendImageChanges sends the image changes of the scope that went on.
func (w *watcher) sendImageChanges() error {
	since := w.changes.Seq()
	w.changes = w.service.changer.View()
	for change := range w.changes.Since(since) {
		if err := w.sendChange(change); err != nil {
			return err
		}
	}
	return nil
}

// sendChange sends an image change if it is of the scope. With a filter it is
// when either of its notebooks matches.
func (w *watcher) sendChange(change *notebookv1.ImageChange) error {
	parts := strings.Split(change.GetNotebook(), "/")
	if len(parts) < 4 || !w.scope.hasCloud(parts[1]) || w.scope.location != "" && w.scope.location != parts[3] {
		return nil
	}
	if w.matched != nil {
		_, old := w.matched[change.GetNotebook()]
		if _, next := w.matched[change.GetNewNotebook()]; !old && !next {
			return nil
		}
	}
	return w.frame(&notebookv1.WatchResponse{Event: &notebookv1.WatchResponse_ImageChange{ImageChange: change}})
}

// follow sends changes, location events and bookmarks.
func (w *watcher) follow(ctx context.Context, snapshot *inventory.Snapshot) error {
	bookmarks := time.NewTicker(w.interval)
	defer bookmarks.Stop()
	draining := w.service.draining
	lifetime := w.service.watchLimits.MaxLifetime
	// ±10 %, so that those who came together do not come back together.
	closing := time.After(time.Duration((0.9 + 0.2*rand.Float64()) * float64(lifetime))) //nolint:gosec // not a secret
	for {
		select {
		case <-snapshot.Superseded():
			before := snapshot
			snapshot = w.service.inventory.Snapshot()
			w.show(snapshot)
			if snapshot.Resets() != before.Resets() {
				if err := w.restart(snapshot); err != nil {
					return err
				}
				continue
			}
			if err := w.sendChanges(snapshot); err != nil {
				return err
			}
			if err := w.sendLocations(snapshot); err != nil {
				return err
			}
		case <-w.changes.Superseded():
			if err := w.sendImageChanges(); err != nil {
				return err
			}
		case <-bookmarks.C:
			if err := w.bookmark(notebookv1.Bookmark_KIND_HEARTBEAT); err != nil {
				return err
			}
		case <-draining:
			draining = nil
			closing = time.After(time.Duration(rand.Float64() * float64(w.service.drainOver))) //nolint:gosec // not a secret
		case <-closing:
			return w.bookmark(notebookv1.Bookmark_KIND_CLOSING)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// restart begins again after all rows were forgotten, because the log that they
// were in is not there any more.
func (w *watcher) restart(snapshot *inventory.Snapshot) error {
	clear(w.locations)
	if w.matched != nil {
		clear(w.matched)
	}
	return w.start(snapshot, begin{snapshot: true, reset: "LOG_REPLACED"})
}

// sendChanges sends every row of the scope that is newer than what was sent, in
// the order of the log.
func (w *watcher) sendChanges(snapshot *inventory.Snapshot) error {
	from := w.sent
	for row := range snapshot.Since(from) {
		event := w.event(snapshot, row, from)
		if event == nil {
			continue
		}
		w.sent = row.Revision
		if err := w.frame(notebookEvent(event)); err != nil {
			return err
		}
	}
	w.sent, w.base = snapshot.Revision(), snapshot.Revision()
	return nil
}

// event is what a row is to a watch that was sent everything up to from, or nil
// when it is no news to it.
func (w *watcher) event(snapshot *inventory.Snapshot, row *inventory.Row, from uint64) *notebookv1.NotebookEvent {
	if l, ok := snapshot.Location(row.Location); !ok || !w.scope.has(l) {
		return nil // of a cloud that is not configured, or not asked for
	}
	before := row.Known(w.base, from) // whether the caller knows the notebook
	now := !row.Deleted && w.scope.filter.match(row.Notebook)
	if w.matched != nil {
		if !w.unsure {
			_, before = w.matched[row.Name]
		}
		if now {
			w.matched[row.Name] = struct{}{}
		} else {
			delete(w.matched, row.Name)
		}
	}
	event := &notebookv1.NotebookEvent{Notebook: row.Notebook}
	switch {
	case now && before:
		event.Type, event.ChangedFields = notebookv1.NotebookEvent_TYPE_MODIFIED, row.ChangedSince(w.base)
	case now:
		event.Type = notebookv1.NotebookEvent_TYPE_ADDED
	case !before:
		return nil // never seen
	case row.Deleted:
		event.Type = notebookv1.NotebookEvent_TYPE_DELETED
	default:
		event.Type = notebookv1.NotebookEvent_TYPE_LEFT_FILTER
	}
	return event
}

// sendLocations sends every location of the scope whose status is news.
func (w *watcher) sendLocations(snapshot *inventory.Snapshot) error {
	for _, l := range snapshot.Locations() {
		if !w.scope.has(l) || w.locations[l.Name] == l.Version() {
			continue
		}
		w.locations[l.Name] = l.Version()
		frame := &notebookv1.WatchResponse{Event: &notebookv1.WatchResponse_Location{Location: locationMessage(snapshot, l)}}
		if err := w.frame(frame); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) bookmark(kind notebookv1.Bookmark_Kind) error {
	return w.frame(&notebookv1.WatchResponse{Event: &notebookv1.WatchResponse_Bookmark{Bookmark: &notebookv1.Bookmark{Kind: kind}}})
}

// frame sends a frame with the token of what was sent so far.
func (w *watcher) frame(frame *notebookv1.WatchResponse) error {
	frame.ResumeToken = w.service.resumeToken(w.scope, w.shown, w.sent, w.base)
	return w.send(frame)
}

func notebookEvent(event *notebookv1.NotebookEvent) *notebookv1.WatchResponse {
	return &notebookv1.WatchResponse{Event: &notebookv1.WatchResponse_Notebook{Notebook: event}}
}
