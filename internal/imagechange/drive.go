package imagechange

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
)

const (
	// readBackFor is how long the notebook is read again and again after a
	// change was sent; later the polls of the inventory are waited for.
	readBackFor = 10 * time.Second
	// firstPause is between two of these reads at first; it doubles.
	firstPause = 250 * time.Millisecond
	// settleAfter is how long a cloud whose answer was lost has to do what it was
	// asked, before two listings without it are believed.
	settleAfter = 5 * time.Second
	// orphanSettle is added to that when the call may still be on its way from
	// another replica.
	orphanSettle = 10 * time.Second
	// lateFor is how long a cloud that has accepted a change may show the old
	// image.
	lateFor = 10 * time.Minute
	// storeRetry is the pause before a record is written again.
	storeRetry = time.Second
)

// driver does one change, in a goroutine of its own.
type driver struct {
	c          *Changer
	s          *session
	ctx        context.Context //nolint:containedctx // that of the session, in the span of the step
	source     inventory.Source
	location   string
	id         string // of the notebook
	credential *upstream.RegistryCredential
	resumed    bool // by another process than the one that began
	log        *slog.Logger

	r *record // as last stored

	traced traced
}

// drive lets a change be done.
func (c *Changer) drive(s *session, r *record, credential *upstream.RegistryCredential, resumed bool) {
	id := r.id()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.ended {
		return // it is taken up later
	}
	c.driving[id] = true
	parts := strings.Split(r.change.GetNotebook(), "/")
	d := &driver{
		c: c, s: s, ctx: s.ctx, location: parts[3], id: parts[5], credential: credential, resumed: resumed, r: r, traced: traced{tracer: c.tracer},
		log: c.log.With("change", r.change.GetName(), "cloud", parts[1], "location", parts[3], "notebook", parts[5]),
	}
	s.drivers.Go(func() {
		defer func() {
			c.mu.Lock()
			delete(c.driving, id)
			c.mu.Unlock()
		}()
		defer func() {
			if p := recover(); p != nil { // the record stays; the next process takes it up
				d.log.Error("image change: panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			}
		}()
		var ok bool
		if d.source, ok = c.inventory.Source(parts[1]); !ok {
			d.wait()
			return
		}
		d.ctx = d.traced.begin(d.ctx, r, resumed)
		defer func() { d.traced.end(d.r) }()
		if r.Spec.Image.URI != "" {
			d.recreate()
		} else {
			d.inPlace()
		}
	})
}

// store writes the record as f changes it. It goes on until that succeeds, and
// reports false when the driver has to end: the process ends, or another one
// drives the change.
func (d *driver) store(f func(*record)) bool {
	for {
		next := d.r.with(func(r *record) {
			f(r)
			r.change.UpdateTime = timestamppb.Now()
		})
		saved, err := d.c.book.save(d.ctx, d.s.bucket, next)
		if err == nil {
			d.went(saved)
			return true
		}
		if stored, ok := d.c.book.landed(d.ctx, d.s.bucket, next); ok {
			d.went(stored) // the write went well, and only its answer was lost
			return true
		}
		var conflict *jetstream.APIError
		if errors.As(err, &conflict) && conflict.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || errors.Is(err, jetstream.ErrKeyExists) {
			if _, getErr := d.s.bucket.Get(d.ctx, changePrefix+d.r.id()); errors.Is(getErr, jetstream.ErrKeyNotFound) && d.r.revision != 0 {
				d.log.Warn("record of an image change is gone, stored again")
				d.c.book.drop(d.r)
				d.r = d.r.with(func(r *record) { r.revision = 0 })
				continue
			}
			d.log.Warn("image change left to another process")
			return false
		}
		if d.ctx.Err() != nil {
			return false
		}
		d.log.Error("image change not recorded", "error", err)
		if !d.pause(storeRetry) {
			return false
		}
	}
}

// went takes over a record that is stored.
func (d *driver) went(r *record) {
	d.r = r
	d.ctx = d.traced.enter(r)
}

// pause waits. It reports false when the process ends.
func (d *driver) pause(t time.Duration) bool {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return d.configured()
	case <-d.ctx.Done():
		return false
	}
}

// configured reports whether the cloud still is, and takes over what it is configured
// with by now: a change may last longer than an access key. When it is not, the change
// waits until it is again.
func (d *driver) configured() bool {
	source, ok := d.c.inventory.Source(d.source.Name)
	if !ok || source.Kind != d.source.Kind {
		d.wait()
		return false
	}
	d.source = source
	return true
}

// wait leaves the change to whoever has its cloud configured first, this replica or
// another one.
func (d *driver) wait() {
	d.log.Warn("image change waits: its cloud is not configured any more")
	// When this fails, it is taken up somewhat later.
	_, _ = d.c.book.save(d.ctx, d.s.bucket, d.r.with(func(r *record) { r.Driver = "" }))
}

// settle ends the change.
func (d *driver) settle(phase notebookv1.ImageChange_Phase, f func(*record)) {
	ok := d.store(func(r *record) {
		r.Step, r.Before = stepSettled, nil
		r.change.Phase = phase
		if f != nil {
			f(r)
		}
	})
	if !ok {
		return
	}
	d.c.metrics.settled(d.r.change)
	d.c.book.release(context.WithoutCancel(d.ctx), d.s.bucket, lockOf(d.r.change.GetNotebook()), d.r.id())
	level := slog.LevelInfo
	if phase != notebookv1.ImageChange_PHASE_SUCCEEDED {
		level = slog.LevelWarn
	}
	d.log.Log(d.ctx, level, "image change settled", "phase", phaseWord(phase),
		"to", d.r.change.GetToImage(), "why", d.r.change.GetFailure().GetMessage())
}

// fail settles the change as one that did not happen.
func (d *driver) fail(reason notebookv1.ErrorReason, message string, f func(*record)) {
	d.settle(notebookv1.ImageChange_PHASE_FAILED, func(r *record) {
		if r.change.GetFailure() == nil {
			r.change.Failure = &notebookv1.ImageChange_Failure{Reason: reason, Message: message}
		}
		if f != nil {
			f(r)
		}
	})
}

// refused settles the change as one that the cloud refused, or that could not be
// sent at all.
func (d *driver) refused(err error) {
	d.log.Warn("image change refused", "error", err)
	d.fail(reasons[upstream.KindOf(err)], "the cloud refused it", func(r *record) {
		r.Refused, r.Kind, r.err = true, upstream.KindOf(err), err
		r.change.Sent = upstream.MaySent(err)
		if e, ok := errors.AsType[*upstream.Error](err); ok {
			r.change.Failure.CloudCode, r.change.CloudRequestId = e.Code, e.RequestID
			if !e.Sent {
				r.change.Failure.Message = "it could not be sent"
			}
		}
	})
}

// reasons is what a kind of refusal is called in a record.
var reasons = map[upstream.Kind]notebookv1.ErrorReason{
	upstream.KindBadResponse:   notebookv1.ErrorReason_ERROR_REASON_CLOUD_BAD_RESPONSE,
	upstream.KindUnavailable:   notebookv1.ErrorReason_ERROR_REASON_CLOUD_UNAVAILABLE,
	upstream.KindTimeout:       notebookv1.ErrorReason_ERROR_REASON_CLOUD_TIMEOUT,
	upstream.KindFault:         notebookv1.ErrorReason_ERROR_REASON_CLOUD_UNAVAILABLE,
	upstream.KindThrottled:     notebookv1.ErrorReason_ERROR_REASON_CLOUD_RATE_LIMITED,
	upstream.KindDenied:        notebookv1.ErrorReason_ERROR_REASON_CLOUD_CREDENTIALS_REJECTED,
	upstream.KindNotFound:      notebookv1.ErrorReason_ERROR_REASON_NOTEBOOK_NOT_FOUND,
	upstream.KindImageNotFound: notebookv1.ErrorReason_ERROR_REASON_IMAGE_NOT_FOUND,
	upstream.KindInvalid:       notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED,
	upstream.KindConflict:      notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED,
	upstream.KindRejected:      notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED,
	upstream.KindUnsupported:   notebookv1.ErrorReason_ERROR_REASON_OPERATION_NOT_SUPPORTED,
	upstream.KindDisabled:      notebookv1.ErrorReason_ERROR_REASON_LOCATION_DISABLED,
	upstream.KindCircuitOpen:   notebookv1.ErrorReason_ERROR_REASON_CIRCUIT_OPEN,
	upstream.KindBudget:        notebookv1.ErrorReason_ERROR_REASON_CALL_BUDGET_SPENT,
}

// lost reports whether an error leaves open what the cloud did.
func lost(err error) bool {
	return upstream.MaySent(err) && (upstream.IsContext(err) || upstream.KindOf(err).TripsBreaker())
}

// inPlace does a change in which the notebook stays the same one.
func (d *driver) inPlace() {
	switch d.r.Step {
	case stepPending:
		if d.resumed {
			why := "notebookd stopped before it was sent"
			if d.r.Credential {
				why += "; the registry password was not kept"
			}
			d.fail(notebookv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, why, nil)
			return
		}
		if !d.send() {
			return
		}
	case stepSending:
		// Sent or not, nobody knows.
		if !d.verifying(true, "") {
			return
		}
	default:
	}
	d.verify()
}

// send asks the cloud, once. It reports whether there is something to read back.
func (d *driver) send() bool {
	if !d.store(func(r *record) {
		r.Step, r.SentAt = stepSending, time.Now()
		r.change.Phase, r.change.Sent = notebookv1.ImageChange_PHASE_VERIFYING, true
	}) {
		return false
	}
	if !d.flush() {
		d.fail(notebookv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "the intent could not be stored; nothing was sent", func(r *record) {
			r.change.Sent = false
		})
		return false
	}
	row, ok := d.c.inventory.Snapshot().Get(d.r.change.GetNotebook())
	namespace := ""
	if ok {
		namespace = row.Notebook.GetNamespace()
	}
	var requestID string
	// A write that is under way is not torn off when the process is to end: the
	// client's own deadline ends it.
	_, err := d.source.Provider.ChangeImage(d.writing(), upstream.ImageRequest{
		Location: d.location, NotebookID: d.id, Namespace: namespace, Image: d.r.change.GetToImage(), ImageType: d.r.change.GetImageType(),
		Credential: d.credential, RequestID: &requestID,
	})
	d.credential = nil
	switch {
	case errors.Is(err, upstream.ErrNotBegun):
		d.log.Warn("image change not sent: another replica may have it")
		return false
	case err == nil:
		d.log.Info("image change accepted", "from", d.r.change.GetFromImage(), "to", d.r.change.GetToImage())
		return d.verifying(false, requestID)
	case lost(err):
		d.log.Warn("image change: answer lost, reading back", "to", d.r.change.GetToImage(), "error", err)
		return d.verifying(true, requestID)
	default:
		d.refused(err)
		return false
	}
}

// flush forces the intent to the disk. It has to outlive the machine: without it
// nobody would know that the cloud was asked.
func (d *driver) flush() bool {
	err := d.s.member.Storage().Flush(bucketName)
	if err != nil {
		d.log.Error("image change: intent not forced to the disk", "error", err)
	}
	return err == nil
}

// writing is the context of a call that changes something: it goes on when the
// process is to end, but is not begun when another replica may have taken over.
func (d *driver) writing() context.Context {
	return upstream.WithGuard(context.WithoutCancel(d.ctx), d.s.member.Valid)
}

// verifying notes that the call has ended, and that only reading is left.
func (d *driver) verifying(lost bool, requestID string) bool {
	return d.store(func(r *record) {
		r.Step, r.Lost, r.SentAt = stepVerify, lost, time.Now()
		r.change.Phase, r.change.CloudRequestId = notebookv1.ImageChange_PHASE_VERIFYING, requestID
	})
}

// verify reads the notebook until it is known what became of the change.
func (d *driver) verify() {
	began := time.Now()
	location := inventory.LocationName(d.source.Name, d.location)
	shared := d.s.member.Storage().Shared()
	listings, counted, sure := 0, time.Time{}, false
	if l, ok := d.c.inventory.Snapshot().Location(location); ok {
		counted = l.LastSuccess
	}
	settle := settleAfter
	if shared && d.resumed {
		settle += orphanSettle
	}
	for pause := firstPause; ; pause = min(2*pause, time.Second) {
		refreshed := false
		if time.Since(began) < readBackFor {
			ctx, cancel := context.WithTimeout(d.ctx, readBackFor)
			refreshed = d.c.inventory.Refresh(ctx, location) == nil // what was read is looked at below
			cancel()
		}
		snapshot := d.c.inventory.Snapshot()
		l, known := snapshot.Location(location)
		if known && !l.LastSuccess.IsZero() && !l.LastSuccess.Equal(counted) {
			// A poll that began before the call says nothing. The clock of another
			// replica cannot tell, but the poll after it began later for certain.
			if refreshed || sure || !shared && l.LastSuccess.After(d.r.SentAt) {
				listings++
			}
			counted, sure = l.LastSuccess, true
		}
		row, there := snapshot.Get(d.r.change.GetNotebook())
		age := time.Since(d.r.SentAt)
		switch {
		case there && hasImage(row.Notebook, d.r.change) && listings > 0:
			d.settle(notebookv1.ImageChange_PHASE_SUCCEEDED, func(r *record) { r.Lost = false })
			return
		case !there && listings > 0:
			d.fail(notebookv1.ErrorReason_ERROR_REASON_NOTEBOOK_NOT_FOUND, "the notebook is gone from the cloud", nil)
			return
		case d.r.Lost && listings >= 2 && age >= settle:
			d.fail(notebookv1.ErrorReason_ERROR_REASON_CLOUD_UNAVAILABLE, "the cloud did not do it: the notebook has the image that it had",
				func(r *record) { r.Lost = false })
			return
		case listings >= 2 && age >= lateFor:
			d.fail(notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED, "the cloud accepted it, but the notebook does not show the image", nil)
			return
		}
		if d.r.Lost && time.Since(began) >= readBackFor && d.r.change.GetPhase() != notebookv1.ImageChange_PHASE_OUTCOME_UNKNOWN {
			if !d.store(func(r *record) { r.change.Phase = notebookv1.ImageChange_PHASE_OUTCOME_UNKNOWN }) {
				return
			}
		}
		if !d.pause(pause) {
			return
		}
	}
}
