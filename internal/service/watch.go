package service

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
)

const (
	defaultBookmarkInterval = 20 * time.Second
	// aheadFor bounds the wait for a revision that this log has not reached.
	aheadFor = 5 * time.Second
)

// Watch implements NotebookService. A server that Register was called with sends
// the same frames without encoding them anew for each watch.
func (s *Service) Watch(req *notebookv1.WatchRequest, stream notebookv1.NotebookService_WatchServer) error {
	return s.watchGuarded(stream.Context(), req, func(frame *Frame) error {
		return stream.Send(frame.message())
	})
}

// sendFunc sends one frame.
type sendFunc func(*Frame) error

// watchGuarded is a watch whose reader may not stand still; see guarded.
func (s *Service) watchGuarded(ctx context.Context, req *notebookv1.WatchRequest, send sendFunc) error {
	caller := s.caller(ctx)
	leave, err := s.callers.enter(caller.Name, s.limits().MaxPerCaller, &s.watches)
	if err != nil {
		return err
	}
	defer leave()
	counted := &countedWatch{s: s}
	err = errUnfinished
	defer func() { counted.end(ctx, err) }()
	err = s.toStatus(ctx, s.guarded(send, func(send sendFunc) error { return s.watch(ctx, caller, req, counted.open, send) }), nil)
	return err
}

// watch sends frames until ctx ends or the service drains. It calls opened when
// nothing speaks against the watch any more. It holds no queue:
// what it will send is in its feed or, when that has gone too far, in the
// inventory.
func (s *Service) watch(ctx context.Context, caller Caller, req *notebookv1.WatchRequest, opened func(), send sendFunc) error {
	select {
	case <-s.draining:
		return errDraining()
	default:
	}
	sc, err := newScope(req.GetParent(), req.GetFilter(), caller.rights())
	if err != nil {
		return err
	}
	if err := s.loaded(ctx); err != nil {
		return err
	}
	if _, _, err := sc.selected(s.inventory.Snapshot()); err != nil {
		return err
	}
	begin := begin{snapshot: req.GetSnapshot() != notebookv1.WatchRequest_SNAPSHOT_SKIP}
	if token := req.GetResumeToken(); token != "" {
		if begin, err = s.resume(ctx, sc, token); err != nil {
			return err
		}
	}
	opened()
	defer s.inventory.Watching()()
	w := &watcher{service: s, caller: caller, scope: sc, interval: defaultBookmarkInterval}
	w.send = func(frame *Frame) error {
		if ctx.Err() != nil { // also in the middle of a snapshot
			return context.Cause(ctx)
		}
		return send(frame)
	}
	if d := req.GetBookmarkInterval(); d != nil {
		w.interval = d.AsDuration()
	}
	var leave func()
	w.feed, leave = s.join(sc)
	defer leave()
	if err := w.start(begin); err != nil {
		return err
	}
	err = w.follow(ctx)
	if errors.Is(err, ErrComeAgain) {
		return w.closing(send)
	}
	return err
}

func errDraining() error {
	return Error(codes.Unavailable, notebookv1.ErrorReason_ERROR_REASON_DRAINING, "the server is stopping; try another one")
}

// Why a watch begins again, as it is told.
const (
	resetLog  = "LOG_REPLACED"
	resetView = "VIEW_CHANGED"
)

// begin is where a watch begins.
type begin struct {
	resumed  bool
	epoch    string // that revision belongs to
	view     uint32 // see scope.view
	revision uint64 // known to the caller, when resumed
	base     uint64 // see inventory.Resume
	at       time.Time
	snapshot bool   // send what exists
	reset    string // why a token cannot be resumed; empty when it can
}

// resume says how a watch with a token begins.
func (s *Service) resume(ctx context.Context, sc scope, token string) (begin, error) {
	snapshot := s.inventory.Snapshot()
	epoch := snapshot.Epoch()
	r, err := s.inventory.Tokens().OpenResume(sc.key(), token, epoch)
	if err != nil {
		return begin{}, err
	}
	switch {
	case r.Epoch != epoch:
		return begin{snapshot: true, reset: resetLog}, nil
	case r.Revision == 0:
		// From before the end of a snapshot: what was shown of it may be gone.
		return begin{snapshot: true, reset: "SNAPSHOT_INCOMPLETE"}, nil
	case r.View != sc.view(snapshot):
		return begin{snapshot: true, reset: resetView}, nil
	case time.Since(r.Time) > s.inventory.Tombstones():
		return begin{snapshot: true, reset: "TOKEN_EXPIRED"}, nil
	}
	if err := s.reach(ctx, r.Revision); err != nil {
		return begin{}, err
	}
	return begin{resumed: true, epoch: r.Epoch, view: r.View, revision: r.Revision, base: r.Base, at: r.Time}, nil
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
	caller   Caller
	scope    scope
	send     sendFunc
	interval time.Duration
	feed     *feed
	sent     *batch // everything up to it was sent
}

// start sends all that comes before the changes.
func (w *watcher) start(b begin) error {
	last, snapshot, view := w.feed.now()
	w.sent = last
	switch {
	case !b.resumed:
	case snapshot.Epoch() != b.epoch || snapshot.Revision() < b.revision:
		b = begin{snapshot: true, reset: resetLog} // a log that lost its end, or another one by now
	case w.scope.view(snapshot) != b.view:
		b = begin{snapshot: true, reset: resetView}
	}
	at := time.Now()
	present := w.service.token(w.scope, snapshot, snapshot.Revision(), snapshot.Revision(), at)
	token := present
	switch {
	case b.resumed:
		token = w.service.token(w.scope, snapshot, b.revision, b.base, at)
	case b.snapshot:
		token = w.service.token(w.scope, snapshot, 0, 0, at) // it starts over
	}
	if b.reset != "" {
		reset := &notebookv1.WatchResponse{Event: &notebookv1.WatchResponse_Reset_{Reset_: &notebookv1.Reset{Reason: b.reset}}}
		if err := w.send(newFrame(token, reset)); err != nil {
			return err
		}
	}
	locations, _, err := w.scope.selected(snapshot)
	if err != nil {
		return err
	}
	for _, l := range locations {
		if err := w.send(newFrame(token, locationEvent(snapshot, l))); err != nil {
			return err
		}
	}
	if b.snapshot {
		for _, l := range locations {
			for row := range snapshot.Rows(l.Name, "") {
				if !w.scope.filter.match(row.Notebook) {
					continue
				}
				if err := w.send(&Frame{event: &rowEvent{row: row, kind: notebookv1.NotebookEvent_TYPE_ADDED, initial: true}}); err != nil {
					return err
				}
			}
		}
	}
	if b.resumed {
		// Whether a notebook that changed meanwhile matched before is not known.
		knew := func(row *inventory.Row, _ bool) bool { return row.Known(b.base, b.revision) }
		from := w.scope.position(snapshot, view, nil) // of everything else
		from.revision = b.revision
		if err := w.service.walk(w.scope, snapshot, view, from, b.base, knew, w.send); err != nil {
			return err
		}
	}
	for change := range view.Newest("") {
		open := change.GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED && change.GetPhase() != notebookv1.ImageChange_PHASE_FAILED &&
			change.GetPhase() != notebookv1.ImageChange_PHASE_UNCHANGED
		if age := time.Since(change.GetCreateTime().AsTime()); age > maxChangeAge {
			break // older ones have ended
		}
		// A token may be a little ahead of the changes that were sent before it.
		told := b.at.Add(-w.service.limits().SlowReader)
		if !open && (!b.resumed || change.GetUpdateTime().AsTime().Before(told)) || !w.scope.concerns(change, snapshot) {
			continue
		}
		if err := w.send(newFrame(present, imageChangeEvent(change))); err != nil {
			return err
		}
	}
	return w.send(newFrame(present, bookmarkEvent(notebookv1.Bookmark_KIND_SNAPSHOT_END)))
}

// maxChangeAge bounds how far back a watch looks for image changes when it
// begins.
const maxChangeAge = 24 * time.Hour

// follow sends changes, location events and bookmarks.
func (w *watcher) follow(ctx context.Context) error {
	now := time.Now()
	// ±10 %, so that those who came together do not come back together.
	closing := now.Add(time.Duration((0.9 + 0.2*rand.Float64()) * float64(w.service.limits().MaxLifetime))) //nolint:gosec // not a secret
	bookmark := now.Add(w.interval)
	due := func() time.Duration {
		if closing.Before(bookmark) {
			return time.Until(closing)
		}
		return time.Until(bookmark)
	}
	timer := time.NewTimer(due()) // one for both: each case of the select costs something at every wake-up
	defer timer.Stop()
	drain := func() {
		if soon := time.Now().Add(time.Duration(rand.Float64() * float64(w.service.drainOver))); soon.Before(closing) { //nolint:gosec // not a secret
			closing = soon
			timer.Reset(due())
		}
	}
	select {
	case <-w.service.draining: // perhaps before this watch could be told by its feed
		drain()
	default:
	}
	done := ctx.Done()
	for {
		select {
		case <-w.sent.set:
			draining, err := w.forward()
			if err != nil {
				return err
			}
			if draining {
				drain()
			}
		case <-timer.C:
			now := time.Now()
			if !now.Before(closing) {
				return w.bookmark(notebookv1.Bookmark_KIND_CLOSING)
			}
			if !now.Before(bookmark) {
				if err := w.check(ctx); err != nil {
					return err
				}
				if err := w.bookmark(notebookv1.Bookmark_KIND_HEARTBEAT); err != nil {
					return err
				}
				for !now.Before(bookmark) {
					bookmark = bookmark.Add(w.interval)
				}
			}
			timer.Reset(due())
		case <-done:
			return context.Cause(ctx)
		}
	}
}

// check fails when the caller may not see any more what it is shown.
func (w *watcher) check(ctx context.Context) error {
	if w.caller.Check == nil {
		return nil
	}
	rights, err := w.caller.Check(ctx)
	switch {
	case err != nil:
		return err
	case rights.Key() != w.scope.rights.Key():
		return ErrComeAgain
	}
	return nil
}

// closing sends the last frame of a watch that is to come again.
func (w *watcher) closing(send sendFunc) error {
	return send(w.bookmarkFrame(notebookv1.Bookmark_KIND_CLOSING))
}

// forward sends the next batch, or all there are when it is too late for that.
func (w *watcher) forward() (draining bool, err error) {
	next := w.sent.next
	frames := next.frames.Load()
	switch {
	case next.restart != "":
		return w.restart(next.restart)
	case frames == nil:
		return w.catchUp()
	}
	for _, frame := range *frames {
		if err := w.send(frame); err != nil {
			return false, err
		}
	}
	w.sent = next
	if len(*frames) > 0 {
		w.service.metrics.sent(next.shown)
	}
	return next.closing, nil
}

// restart begins again, because the log that the rows were in is not there any more,
// or because clouds have come or gone.
func (w *watcher) restart(why string) (draining bool, err error) {
	if err := w.start(begin{snapshot: true, reset: why}); err != nil {
		return false, err
	}
	select {
	case <-w.service.draining: // which a batch has told that is skipped now
		return true, nil
	default:
		return false, nil
	}
}

// catchUp goes to the end of the chain. It sends the latest versions of what has
// changed, which may be fewer than there are batches on the way.
func (w *watcher) catchUp() (draining bool, err error) {
	last, snapshot, view := w.feed.now()
	from := w.sent.at.Load()
	flipped := map[string]bool{} // whether they matched at from
	for b := w.sent; b != last; {
		b = b.next
		if b.restart != "" {
			return w.restart(b.restart)
		}
		draining = draining || b.closing
		for name, before := range b.flipped {
			if _, ok := flipped[name]; !ok {
				flipped[name] = before
			}
		}
	}
	knew := func(row *inventory.Row, now bool) bool {
		if w.scope.filter.key() == "" {
			return row.Known(from.revision, from.revision)
		}
		if before, ok := flipped[row.Name]; ok {
			return before
		}
		return now
	}
	if err := w.service.walk(w.scope, snapshot, view, from, from.revision, knew, w.send); err != nil {
		return false, err
	}
	w.service.metrics.sent(w.sent.next.shown)
	w.sent = last
	return draining, nil
}

func (w *watcher) bookmark(kind notebookv1.Bookmark_Kind) error { return w.send(w.bookmarkFrame(kind)) }

func (w *watcher) bookmarkFrame(kind notebookv1.Bookmark_Kind) *Frame {
	at := w.sent.at.Load()
	token := w.service.inventory.Tokens().Resume(w.scope.key(), inventory.Resume{
		Epoch: at.epoch, View: at.view, Revision: at.revision, Base: at.revision, Time: time.Now(),
	})
	return newFrame(token, bookmarkEvent(kind))
}

func bookmarkEvent(kind notebookv1.Bookmark_Kind) *notebookv1.WatchResponse {
	return &notebookv1.WatchResponse{Event: &notebookv1.WatchResponse_Bookmark{Bookmark: &notebookv1.Bookmark{Kind: kind}}}
}

func locationEvent(snapshot *inventory.Snapshot, l *inventory.Location) *notebookv1.WatchResponse {
	return &notebookv1.WatchResponse{Event: &notebookv1.WatchResponse_Location{Location: locationMessage(snapshot, l)}}
}

func imageChangeEvent(change *notebookv1.ImageChange) *notebookv1.WatchResponse {
	return &notebookv1.WatchResponse{Event: &notebookv1.WatchResponse_ImageChange{ImageChange: change}}
}
