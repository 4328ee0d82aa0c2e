// Package imagechange changes the image of a notebook: it plans, stores what is
// to be done, asks the cloud once, reads back what became of it, and remembers.
//
// The intent is stored before the cloud is called, and every step before it is
// done. A change is driven by a goroutine of its own, which goes on when the
// caller leaves, and by the next process when this one dies. No step is sent
// twice: when an answer was lost, the cloud is read until it is known what it
// did. A registry password is kept nowhere but in the memory of the process that
// makes the one call which needs it.
//
// It knows no cloud, and nothing of how callers reach it.
package imagechange

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/replica"
	"github.com/notebookd/notebookd/internal/upstream"
)

// The refusals that are not a cloud's.
var (
	ErrNotFound     = errors.New("no such notebook")
	ErrEtag         = errors.New("the notebook is not at the version that the etag names")
	ErrNotSupported = errors.New("the cloud cannot change the image of a notebook")
	ErrReused       = errors.New("the request id was used with other arguments")
	ErrBusy         = errors.New("the notebook is on its way from one state to another")
)

// FieldError is a request that does not fit the cloud.
type FieldError struct{ Field, Problem string }

// Error implements error.
func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// WarningsError lists the consequences that were not acknowledged.
type WarningsError struct {
	Warnings []*notebookv1.ImageChange_Warning
}

// Error implements error.
func (e *WarningsError) Error() string {
	codes := make([]string, 0, len(e.Warnings))
	for _, w := range e.Warnings {
		codes = append(codes, w.GetCode())
	}
	return "not acknowledged: " + strings.Join(codes, ", ")
}

// InProgressError is another change of the same notebook that is under way.
type InProgressError struct{ Change string }

// Error implements error.
func (e *InProgressError) Error() string { return "under way: " + e.Change }

// OutcomeUnknownError is a change that was sent and of which it is not known
// yet what became. It is settled later.
type OutcomeUnknownError struct{ Change string }

// Error implements error.
func (e *OutcomeUnknownError) Error() string { return "outcome unknown: " + e.Change }

// StoreError is a record that could not be written. Nothing was sent.
type StoreError struct{ Err error }

// Error implements error.
func (e *StoreError) Error() string { return "record of the change not stored: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *StoreError) Unwrap() error { return e.Err }

// Request asks for one change.
type Request struct {
	Notebook     string // resource name
	Image        string
	ImageType    string
	Credential   *upstream.RegistryCredential
	RequestID    string // a UUID, or empty
	Etag         string
	ValidateOnly bool
	Acknowledge  []string
	Principal    string // who asks
	Reason       string // why, in the words of who asks
	// Wait is for how long to wait for the end; nil stands for as long as the
	// caller's deadline allows, at most a minute.
	Wait *time.Duration
}

// digest stands for the arguments that make two requests the same. The password
// is none of them.
func (r Request) digest() string {
	h := sha256.New()
	user := ""
	if r.Credential != nil {
		user = r.Credential.Username
	}
	acknowledged := slices.Compact(slices.Sorted(slices.Values(r.Acknowledge)))
	for _, part := range append([]string{r.Notebook, r.Image, r.ImageType, user}, acknowledged...) {
		fmt.Fprintf(h, "%d:%s,", len(part), part)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// Changer changes images. It is safe for concurrent use. Run does the work.
type Changer struct {
	inventory *inventory.Inventory
	log       *slog.Logger
	book      *book
	metrics   *metrics     // see Observe
	tracer    trace.Tracer // never nil

	// pace is the pause between two reads of a cloud while a notebook is being
	// stopped, made or released.
	pace time.Duration

	// running is closed, once, when Run has read what is stored.
	running  chan struct{}
	openOnce sync.Once

	session atomic.Pointer[session] // nil while the store cannot be reached

	mu      sync.Mutex // guards driving, and ended of each session
	driving map[string]bool
}

// session is the time of one membership.
type session struct {
	ctx    context.Context //nolint:containedctx // that of Run, for the goroutines that outlive a call
	member *replica.Member
	bucket jetstream.KeyValue

	drivers sync.WaitGroup // one goroutine for each change under way
	ended   bool           // no driver begins any more
}

// New returns a Changer that refuses changes until Run has begun. logger may be
// nil.
func New(inv *inventory.Inventory, logger *slog.Logger) *Changer {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	c := &Changer{
		inventory: inv, log: logger, book: newBook(logger), pace: 2 * time.Second, running: make(chan struct{}), driving: map[string]bool{},
	}
	c.Observe(nil, nil)
	return c
}

// takeUpEvery is how often it is looked for changes that nobody drives.
const takeUpEvery = 2 * time.Second

// Run takes up the changes that nobody drives any more, and makes new ones
// possible, until ctx ends. It returns once everything that it started has ended,
// with an error only when the store could not be read. It may be called again
// then, with another member.
func (c *Changer) Run(ctx context.Context, m *replica.Member) error {
	opening, cancel := m.Opening(ctx)
	defer cancel()
	bucket, err := m.Storage().Bucket(opening, bucketName, keep)
	if err != nil {
		return err
	}
	stop, err := c.book.follow(ctx, opening, bucket)
	if err != nil {
		return err
	}
	s := &session{ctx: ctx, member: m, bucket: bucket}
	// What is taken up needs the rows: see verify.
	select {
	case <-c.inventory.Loaded():
	case <-ctx.Done():
	}
	c.takeUp(s)
	c.session.Store(s)
	c.openOnce.Do(func() { close(c.running) })
	tick := time.NewTicker(takeUpEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			c.takeUp(s)
		case <-ctx.Done():
		}
	}
	c.session.Store(nil)
	c.mu.Lock()
	s.ended = true
	c.mu.Unlock()
	s.drivers.Wait()
	stop()
	return nil
}

// takeUp goes on with the changes that nobody drives.
func (c *Changer) takeUp(s *session) {
	var open []*record
	c.book.view().ids.Scan(func(r *record) bool {
		if !r.settled() {
			open = append(open, r)
		}
		return true
	})
	for _, r := range open {
		c.mu.Lock()
		driven := c.driving[r.id()]
		c.mu.Unlock()
		switch {
		case s.ctx.Err() != nil:
			return
		case driven, !c.drivable(r):
			continue
		case r.Driver == s.member.ID():
			if time.Since(r.change.GetUpdateTime().AsTime()) < 2*storeFor {
				continue // it is about to be driven
			}
		case r.Driver != "" && !s.member.Gone(s.ctx, r.Driver):
			continue
		}
		if r.Step == stepClaiming { // it never came to be
			c.book.forget(s.ctx, s.bucket, r)
			continue
		}
		taken, err := c.book.save(s.ctx, s.bucket, r.with(func(r *record) { r.Driver = s.member.ID() }))
		if err != nil {
			continue // another one was faster, or it is tried again
		}
		c.log.Info("image change taken up", "change", r.change.GetName(), "notebook", r.change.GetNotebook(), "step", string(r.Step))
		c.drive(s, taken, nil, true)
	}
}

// drivable reports whether the cloud of a change is configured here, and can do what
// is left of it. Otherwise the change waits, for this replica or for another one.
func (c *Changer) drivable(r *record) bool {
	source, ok := c.inventory.Source(cloudOf(r.change))
	if ok && r.Spec.Image.URI != "" {
		_, ok = source.Provider.(upstream.Recreator)
	}
	return ok
}

// View returns the changes as they are now.
func (c *Changer) View() *View { return c.book.view() }

// errNotOpen says that the store cannot be reached, or is not read yet.
var errNotOpen = errors.New("it is not open")

// lookFor bounds the look into a store that is shared.
const lookFor = 5 * time.Second

// Get returns one change. Its error is ErrNotFound when there is none, and another
// one when that cannot be said: another replica may have told of it where this one
// cannot read at the moment.
func (c *Changer) Get(ctx context.Context, name string) (*notebookv1.ImageChange, error) {
	id := strings.TrimPrefix(name, namePrefix)
	r, ok := c.book.view().get(id)
	if !ok {
		s := c.session.Load()
		if s == nil {
			return nil, errNotOpen
		}
		if s.member.Storage().Shared() {
			looking, cancel := context.WithTimeout(ctx, lookFor)
			defer cancel()
			found, err := c.book.lookup(looking, s.bucket, id)
			if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) && !errors.Is(err, jetstream.ErrInvalidKey) {
				return nil, err
			}
			r, ok = found, err == nil
		}
	}
	if !ok || r.Step == stepClaiming {
		return nil, ErrNotFound
	}
	return r.change, nil
}

const (
	// maxWait bounds how long a call waits for the end of a change.
	maxWait = time.Minute
	// The time kept of the caller's deadline for the answer's way home: a
	// quarter of the time left, within these bounds.
	minAnswerMargin = 250 * time.Millisecond
	maxAnswerMargin = 2 * time.Second
)

// Change makes one change, or plans it. Its errors are those of this package,
// an *upstream.Error, or the context's before anything was stored. The change
// and the notebook that it returns must not be changed.
func (c *Changer) Change(ctx context.Context, req Request) (*notebookv1.ImageChange, *notebookv1.Notebook, error) {
	s, err := c.open(ctx)
	if err != nil && !req.ValidateOnly {
		return nil, nil, err
	}
	if req.RequestID != "" && !req.ValidateOnly {
		if r, err := c.replay(ctx, s, req); r != nil || err != nil {
			return c.outcome(ctx, r, req, err)
		}
	}
	p, err := c.plan(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case req.ValidateOnly && p.unchanged:
		return in(p.change, notebookv1.ImageChange_PHASE_UNCHANGED), p.row.Notebook, nil
	case req.ValidateOnly:
		return in(p.change, notebookv1.ImageChange_PHASE_PLANNED), p.row.Notebook, nil
	case p.unchanged && req.RequestID == "":
		change := in(p.change, notebookv1.ImageChange_PHASE_UNCHANGED)
		change.CreateTime = change.GetUpdateTime()
		c.metrics.settled(change)
		return change, p.row.Notebook, nil
	}
	if open := unacknowledged(p.change.GetWarnings(), req.Acknowledge); len(open) > 0 && !p.unchanged {
		return nil, nil, &WarningsError{Warnings: open}
	}
	r, err := c.begin(ctx, s, req, p)
	return c.outcome(ctx, r, req, err)
}

// openFor is how long a call waits for Run to have read what is stored.
const openFor = 5 * time.Second

func (c *Changer) open(ctx context.Context) (*session, error) {
	timer := time.NewTimer(openFor)
	defer timer.Stop()
	select {
	case <-c.running:
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s := c.session.Load(); s != nil {
		return s, nil
	}
	return nil, &StoreError{errNotOpen}
}

// Ready reports whether changes can be made.
func (c *Changer) Ready() bool {
	select {
	case <-c.running:
		return true
	default:
		return false
	}
}

// replay finds the change that a request was made with before.
func (c *Changer) replay(ctx context.Context, s *session, req Request) (*record, error) {
	entry, err := s.bucket.Get(ctx, requestPrefix+req.RequestID)
	if err != nil {
		return nil, nil //nolint:nilerr // there is none, or begin meets the fault again
	}
	r, err := c.book.lookup(ctx, s.bucket, string(entry.Value()))
	if err != nil {
		return nil, nil //nolint:nilerr // it was never stored, or begin meets the fault again
	}
	if !sameRequest(r, req) {
		return nil, ErrReused
	}
	return r, nil
}

// sameRequest reports whether a change is what a request asks for. One that was
// joined under another request's id has that one's digest.
func sameRequest(r *record, req Request) bool { return r.Digest == req.digest() }

// storeFor bounds the writes with which a change begins.
const storeFor = 10 * time.Second

// begin stores the intent and lets it be done. Once it has begun to write, a
// caller who leaves does not leave half of it behind.
func (c *Changer) begin(ctx context.Context, s *session, req Request, p *plan) (*record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeFor)
	defer cancel()
	id, err := uuid.NewV7()
	if err != nil {
		return nil, &StoreError{err}
	}
	now := timestamppb.Now()
	change := p.change
	change.Name, change.CreateTime, change.UpdateTime = namePrefix+id.String(), now, now
	change.Principal, change.Reason, change.RequestId = req.Principal, req.Reason, req.RequestID
	change.Phase = notebookv1.ImageChange_PHASE_PENDING
	change.Acknowledged = slices.Compact(slices.Sorted(slices.Values(req.Acknowledge)))
	r := &record{change: change, stored: stored{
		Digest: req.digest(), Trace: upstream.Traceparent(ctx), Driver: s.member.ID(), Step: stepClaiming, Credential: req.Credential != nil, Spec: p.spec, OldName: p.row.Notebook.GetDisplayName(),
		Ran: p.row.Notebook.GetState() != notebookv1.Notebook_STATE_STOPPED && p.row.Notebook.GetState() != notebookv1.Notebook_STATE_FAILED,
	}}
	if p.unchanged {
		change.Phase, r.Step = notebookv1.ImageChange_PHASE_UNCHANGED, stepSettled
	}
	if r, err = c.book.save(ctx, s.bucket, r); err != nil {
		return nil, err
	}
	if req.RequestID != "" {
		other, err := c.book.claim(ctx, s.bucket, requestPrefix+req.RequestID, r.id(), s.known(c.book))
		if err != nil || other != "" {
			c.book.forget(context.WithoutCancel(ctx), s.bucket, r)
			if err != nil {
				return nil, err
			}
			return c.join(ctx, s, other, req) // the same request, a moment earlier
		}
	}
	if p.unchanged {
		c.metrics.settled(r.change)
		return r, nil
	}
	other, err := c.book.claim(ctx, s.bucket, lockOf(req.Notebook), r.id(), s.underWay(c.book))
	if err != nil || other != "" {
		c.book.forget(context.WithoutCancel(ctx), s.bucket, r)
		if err != nil {
			return nil, err
		}
		joined, err := c.join(ctx, s, other, req)
		if err != nil && req.RequestID != "" {
			c.book.release(context.WithoutCancel(ctx), s.bucket, requestPrefix+req.RequestID, r.id())
		}
		if err == nil && req.RequestID != "" {
			// The request is answered by the change that it joins, later too.
			if _, err := s.bucket.Put(ctx, requestPrefix+req.RequestID, []byte(other)); err != nil {
				return nil, &StoreError{err}
			}
		}
		return joined, err
	}
	held, err := c.hold(ctx, s, req, r)
	if err != nil {
		// Nobody drives it, so it must not hold its notebook.
		c.book.forget(context.WithoutCancel(ctx), s.bucket, r)
	}
	if err != nil || held.settled() {
		if err == nil {
			c.metrics.settled(held.change)
		}
		c.book.release(context.WithoutCancel(ctx), s.bucket, lockOf(req.Notebook), r.id())
		return held, err
	}
	c.drive(s, held, req.Credential, false)
	return held, nil
}

// hold makes a change count, now that it has hold of its notebook. Until that
// moment another change may have been under way, so the notebook is looked at
// once more.
func (c *Changer) hold(ctx context.Context, s *session, req Request, r *record) (*record, error) {
	if err := c.inventory.Sync(ctx); err != nil {
		return nil, &StoreError{err}
	}
	row, ok := c.inventory.Snapshot().Get(req.Notebook)
	switch {
	case !ok:
		return nil, ErrNotFound
	case req.Etag != "" && req.Etag != row.Notebook.GetEtag():
		return nil, ErrEtag
	case req.Credential == nil && hasImage(row.Notebook, r.change):
		return c.book.save(ctx, s.bucket, r.with(func(r *record) {
			r.Step, r.change.Phase = stepSettled, notebookv1.ImageChange_PHASE_UNCHANGED
			r.change.Warnings, r.change.Steps = nil, nil
		}))
	}
	return c.book.save(ctx, s.bucket, r.with(func(r *record) {
		r.Step, r.change.FromImage = stepPending, row.Notebook.GetImage().GetUri()
	}))
}

// join finds the change that does already what a request asks for.
func (c *Changer) join(ctx context.Context, s *session, id string, req Request) (*record, error) {
	r, err := c.book.lookup(ctx, s.bucket, id)
	if err != nil || !sameRequest(r, req) {
		if err == nil && req.RequestID != "" && r.change.GetRequestId() == req.RequestID {
			return nil, ErrReused
		}
		return nil, &InProgressError{Change: namePrefix + id}
	}
	return r, nil
}

// known reports whether there is a change with an id. What cannot be read may be
// there.
func (s *session) known(b *book) func(context.Context, string) bool {
	return func(ctx context.Context, id string) bool {
		_, err := b.lookup(ctx, s.bucket, id)
		return !errors.Is(err, jetstream.ErrKeyNotFound)
	}
}

// underWay reports whether a change holds its notebook.
func (s *session) underWay(b *book) func(context.Context, string) bool {
	return func(ctx context.Context, id string) bool {
		r, err := b.lookup(ctx, s.bucket, id)
		return err == nil && !r.settled() || err != nil && !errors.Is(err, jetstream.ErrKeyNotFound)
	}
}

// lockOf is the key that stands for a notebook.
func lockOf(notebook string) string {
	sum := sha256.Sum256([]byte(notebook))
	return lockPrefix + base64.RawURLEncoding.EncodeToString(sum[:18])
}

// outcome waits for the end of a change, as long as the caller wants, and says
// how it stands then.
func (c *Changer) outcome(ctx context.Context, r *record, req Request, err error) (*notebookv1.ImageChange, *notebookv1.Notebook, error) {
	if err != nil {
		return nil, nil, err
	}
	limit, patient := maxWait, true
	if req.Wait != nil && *req.Wait < limit {
		limit, patient = *req.Wait, false
	}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		if left -= min(max(left/4, minAnswerMargin), maxAnswerMargin); left < limit {
			limit, patient = left, true
		}
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for over := false; ; {
		view := c.book.view()
		now, ok := view.get(r.id())
		if !ok { // it was joined, and then did not get hold of its notebook
			return nil, nil, &InProgressError{Change: r.change.GetName()}
		}
		r = now
		if r.settled() {
			return c.answer(r)
		}
		if over {
			// A caller who wanted the end and did not get it must not take the
			// silence of a cloud for a phase like any other.
			if r.Lost || patient && r.Step == stepSending {
				return nil, nil, &OutcomeUnknownError{Change: r.change.GetName()}
			}
			return c.answer(r)
		}
		select {
		case <-view.Superseded():
		case <-timer.C:
			over = true
		case <-ctx.Done():
			over = true // whoever asked may be gone; the answer is for the log
		}
	}
}

// answer is a change as it stands, and its notebook.
func (c *Changer) answer(r *record) (*notebookv1.ImageChange, *notebookv1.Notebook, error) {
	if r.err != nil {
		return nil, nil, r.err
	}
	if r.Refused {
		row := strings.Split(r.change.GetNotebook(), "/")
		return nil, nil, &upstream.Error{
			Cloud: row[1], Location: row[3], Op: "change_image", Kind: r.Kind, Code: r.change.GetFailure().GetCloudCode(),
			RequestID: r.change.GetCloudRequestId(), Sent: r.change.GetSent(), Err: errors.New("refused"),
		}
	}
	name := r.change.GetNotebook()
	if r.change.GetNewNotebook() != "" {
		name = r.change.GetNewNotebook()
	}
	if row, ok := c.inventory.Snapshot().Get(name); ok {
		return r.change, row.Notebook, nil
	}
	return r.change, nil, nil
}

func in(change *notebookv1.ImageChange, phase notebookv1.ImageChange_Phase) *notebookv1.ImageChange {
	change.Phase, change.UpdateTime = phase, timestamppb.Now()
	return change
}
