package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// Config configures a Watcher. Zero fields have the documented default.
type Config struct {
	// Parent is where to look, as in WatchRequest.parent. Default: everywhere.
	Parent string
	// Filter selects notebooks, as in WatchRequest.filter. Default: all.
	Filter string
	// From is a state that was stored earlier, of the same parent and filter. The
	// Watcher goes on from it, and Changes begins with what differs from it.
	// Default: nothing is known.
	From State
	// BookmarkInterval is how often a quiet server says that it is there, from 5
	// to 60 seconds. A stream that is silent for three of them is replaced.
	// Default 20 s, as is the server's.
	BookmarkInterval time.Duration
	// MinBackoff is the longest pause before the first attempt to reconnect. It
	// doubles with each attempt that fails, and a pause is between half of it and
	// all of it. Default 250 ms.
	MinBackoff time.Duration
	// MaxBackoff bounds the pauses. A stream that lived longer than that counts as
	// healthy: what comes after it is a first attempt. Default 30 s.
	MaxBackoff time.Duration
	// Logger gets a line for each interruption. Default: none.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.MinBackoff == 0 {
		c.MinBackoff = 250 * time.Millisecond
	}
	if c.MaxBackoff == 0 {
		c.MaxBackoff = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// silence is after what time without a frame a stream is given up.
func (c Config) silence() time.Duration {
	interval := c.BookmarkInterval
	if interval == 0 {
		interval = 20 * time.Second // the server's default
	}
	return 3 * interval
}

// State is what a Watcher knows. The maps are the caller's own, by resource name;
// the messages in them are shared and must not be changed.
type State struct {
	Notebooks map[string]*notebookv1.Notebook
	Locations map[string]*notebookv1.Location
	// Token continues after exactly this state. It is empty while a snapshot is
	// being told; a Watcher that starts From such a state is told everything, and
	// tells what differs.
	Token string
}

// ErrClosed is the error of a Watcher that was closed.
var ErrClosed = errors.New("client: the watcher is closed")

// Watcher keeps a Watch open and holds what it tells. It is safe for concurrent
// use.
type Watcher struct {
	service notebookv1.NotebookServiceClient
	cfg     Config
	base    map[string]object // what Config.From knew; never changed
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed by run, when it returns

	mu sync.Mutex // guards everything below
	// objects holds the notebooks and locations by resource name. The messages
	// are never changed, only replaced.
	objects map[string]object
	token   string // continues after objects; empty while rebuilding
	// seen holds the names that the snapshot under way has told; nil when none is.
	// What it has not told at its end is gone.
	seen    map[string]struct{}
	synced  bool
	err     error // why the watcher has ended; nil while it runs
	cursors map[*cursor]struct{}
	// wake is closed, and dropped, by whoever changes something above. It is made
	// by those who wait, so that nobody pays for it when nobody waits.
	wake chan struct{}
}

// NewWatcher starts a Watcher. It runs until Close is called, ctx ends, or the
// server refuses for good. The calls that it makes carry the values of ctx. It
// returns at once: whether the server can be reached is not known then.
func NewWatcher(ctx context.Context, service notebookv1.NotebookServiceClient, cfg Config) *Watcher {
	w := &Watcher{
		service: service, cfg: cfg.withDefaults(), base: map[string]object{}, done: make(chan struct{}),
		token: cfg.From.Token, cursors: map[*cursor]struct{}{},
	}
	for name, n := range cfg.From.Notebooks {
		w.base[name] = n
	}
	for name, l := range cfg.From.Locations {
		w.base[name] = l
	}
	w.objects = maps.Clone(w.base)
	ctx, w.cancel = context.WithCancelCause(ctx)
	go w.run(ctx) // ends with ctx, which Close ends and waits for
	return w
}

// Close ends the Watcher and waits until it has ended. What it knew can still be
// read.
func (w *Watcher) Close() {
	w.cancel(ErrClosed)
	<-w.done
}

// State returns what is known now: a copy of two maps, whose cost grows with the
// number of notebooks. Until Synced it is incomplete. To follow every change, use
// Changes; for one notebook, Notebook.
func (w *Watcher) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	state := State{
		Notebooks: make(map[string]*notebookv1.Notebook, len(w.objects)), Locations: map[string]*notebookv1.Location{}, Token: w.token,
	}
	for name, o := range w.objects {
		switch o := o.(type) {
		case *notebookv1.Notebook:
			state.Notebooks[name] = o
		case *notebookv1.Location:
			state.Locations[name] = o
		}
	}
	return state
}

// Notebook returns the latest version of one notebook. It must not be changed.
func (w *Watcher) Notebook(name string) (*notebookv1.Notebook, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, ok := w.objects[name].(*notebookv1.Notebook)
	return n, ok
}

// Token returns the token that continues after what State shows now. To store a
// state, take both from one call of State; to store how far an iteration has come,
// take Change.Token. It is empty while a snapshot is being told.
func (w *Watcher) Token() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.token
}

// Synced reports whether everything that existed has been told once, or whether
// a state that was stored has caught up.
func (w *Watcher) Synced() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.synced
}

// WaitSynced returns nil once Synced is true, and an error when ctx or the
// Watcher ends before.
func (w *Watcher) WaitSynced(ctx context.Context) error {
	for {
		w.mu.Lock()
		synced, err, wake := w.synced, w.err, w.wakeLocked()
		w.mu.Unlock()
		switch {
		case synced:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Err returns why the Watcher has ended: ErrClosed, the cause of the end of its
// context, or the server's refusal. It is nil while it runs.
func (w *Watcher) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// wakeLocked returns the channel that is closed at the next change.
func (w *Watcher) wakeLocked() <-chan struct{} {
	if w.wake == nil {
		w.wake = make(chan struct{})
	}
	return w.wake
}

func (w *Watcher) changedLocked() {
	if w.wake != nil {
		close(w.wake)
		w.wake = nil
	}
}

// run keeps a stream open until ctx ends or the server refuses for good.
func (w *Watcher) run(ctx context.Context) {
	defer close(w.done)
	failures := 0
	for {
		began := time.Now()
		err := w.follow(ctx)
		if time.Since(began) > w.cfg.MaxBackoff {
			failures = 0
		}
		switch {
		case ctx.Err() != nil:
			w.end(context.Cause(ctx))
			return
		case w.tokenRefused(err):
			w.cfg.Logger.Warn("watch begins anew", "error", err)
			continue
		case permanent(err):
			w.cfg.Logger.Error("watch refused", "error", err)
			w.end(err)
			return
		}
		pause := w.pause(failures, err)
		failures++
		w.cfg.Logger.Info("watch interrupted", "error", err, "pause", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// end makes the reason known to all who wait.
func (w *Watcher) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	w.changedLocked()
}

var (
	errSilent  = errors.New("client: the stream is silent")
	errClosing = errors.New("client: the server closes the stream")
)

// follow opens one stream and applies its frames until it ends.
func (w *Watcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := w.cfg.silence()
	// It also bounds the connecting, which may hang as well.
	timer := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer timer.Stop()

	stream, err := w.service.Watch(ctx, w.request())
	for err == nil {
		var frame *notebookv1.WatchResponse
		if frame, err = stream.Recv(); err != nil {
			break
		}
		timer.Reset(silence)
		w.apply(frame)
		if frame.GetBookmark().GetKind() == notebookv1.Bookmark_KIND_CLOSING {
			return errClosing
		}
	}
	if errors.Is(context.Cause(ctx), errSilent) {
		return fmt.Errorf("%w: no frame for %v", errSilent, silence)
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // it ended without CLOSING
	}
	return err
}

// request asks for what comes after the token or, without one, for everything.
func (w *Watcher) request() *notebookv1.WatchRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	req := &notebookv1.WatchRequest{Parent: w.cfg.Parent, Filter: w.cfg.Filter, ResumeToken: w.token}
	if w.cfg.BookmarkInterval != 0 {
		req.BookmarkInterval = durationpb.New(w.cfg.BookmarkInterval)
	}
	w.seen = nil
	if w.token == "" {
		w.rebuildLocked()
	}
	return req
}

// rebuildLocked prepares for a snapshot. What is known stays until its end, so
// that nobody sees a half of it; tokens mean nothing until then.
func (w *Watcher) rebuildLocked() {
	w.token = ""
	w.seen = map[string]struct{}{}
}

// apply takes one frame over.
func (w *Watcher) apply(frame *notebookv1.WatchResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch event := frame.GetEvent().(type) {
	case *notebookv1.WatchResponse_Reset_:
		w.cfg.Logger.Warn("watch begins anew", "reason", event.Reset_.GetReason())
		w.rebuildLocked()
	case *notebookv1.WatchResponse_Location:
		w.setLocked(event.Location.GetName(), event.Location)
	case *notebookv1.WatchResponse_Notebook:
		switch n := event.Notebook.GetNotebook(); event.Notebook.GetType() {
		case notebookv1.NotebookEvent_TYPE_ADDED, notebookv1.NotebookEvent_TYPE_MODIFIED:
			// Which of them it is to a consumer depends on what that was told.
			w.setLocked(n.GetName(), n)
		case notebookv1.NotebookEvent_TYPE_DELETED:
			w.removeLocked(n.GetName(), Deleted, n)
		case notebookv1.NotebookEvent_TYPE_LEFT_FILTER:
			w.removeLocked(n.GetName(), LeftFilter, n)
		default: // of a newer server
		}
	case *notebookv1.WatchResponse_Bookmark:
		if event.Bookmark.GetKind() == notebookv1.Bookmark_KIND_SNAPSHOT_END {
			w.snapshotEndLocked()
		}
	default: // of a newer server
	}
	if token := frame.GetResumeToken(); token != "" && w.seen == nil {
		w.token = token
	}
	w.changedLocked()
}

func (w *Watcher) setLocked(name string, o object) {
	if name == "" {
		return // no server sends that
	}
	w.objects[name] = o
	if w.seen != nil {
		w.seen[name] = struct{}{}
	}
	for c := range w.cursors {
		c.setLocked(name)
	}
}

// removeLocked forgets something. last is its last version as far as known.
func (w *Watcher) removeLocked(name string, how Type, last object) {
	if _, ok := w.objects[name]; !ok {
		return // after a resume it may be one that was never told
	}
	delete(w.objects, name)
	for c := range w.cursors {
		c.removeLocked(name, how, last)
	}
}

// snapshotEndLocked takes for gone what a snapshot has not told.
func (w *Watcher) snapshotEndLocked() {
	if w.seen != nil {
		for name, o := range w.objects {
			if _, ok := w.seen[name]; !ok {
				w.removeLocked(name, Deleted, o)
			}
		}
		w.seen = nil
	}
	w.synced = true
}

// tokenRefused reports whether the server does not take the token, and drops it.
func (w *Watcher) tokenRefused(err error) bool {
	if status.Code(err) != codes.InvalidArgument || reason(err) != "RESUME_TOKEN_INVALID" {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	had := w.token != ""
	w.token = ""
	return had // one that was not sent cannot be what is wrong
}

// permanent reports whether another attempt would end the same way.
func permanent(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		return true
	default:
		return false
	}
}

// maxRetryInfo bounds how long a server can send a client away: a wrong number
// must not be for ever.
const maxRetryInfo = 5 * time.Minute

// pause is the time until the next attempt, after so many failures in a row.
// What the server asks for is added to rather than cut, since it may ask many.
func (w *Watcher) pause(failures int, err error) time.Duration {
	longest := w.cfg.MaxBackoff
	if failures < 32 { // far beyond any bound, and far from overflow
		longest = min(longest, w.cfg.MinBackoff<<failures)
	}
	pause := longest/2 + time.Duration(rand.Float64()*float64(longest)/2) //nolint:gosec // not a secret
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			pause += min(max(info.GetRetryDelay().AsDuration(), 0), maxRetryInfo)
		}
	}
	return pause
}

// reason returns the ErrorReason of an error of notebookd, without its prefix.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "notebookd" {
			return info.GetReason()
		}
	}
	return ""
}
