package imagechange

import (
	"context"
	"errors"
	"slices"
	"time"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
)

// How long the steps of a recreation may take.
const (
	stopFor    = 5 * time.Minute
	createFor  = 10 * time.Minute
	releaseFor = 5 * time.Minute
	// notCreatedAfter is how long a cloud whose answer was lost has to show the
	// new notebook, before two listings without it are believed.
	notCreatedAfter = 15 * time.Second
)

// recreate does a change in which another notebook takes the place of the old
// one. The old one survives every failure before the last step.
func (d *driver) recreate() {
	recreator, ok := d.source.Provider.(upstream.Recreator)
	if !ok {
		d.log.Warn("image change waits: its cloud can no longer make notebooks")
		return
	}
	w := &recreation{driver: d, made: recreator}
	steps := map[step]func() bool{
		stepPending: w.pending, stepStop: w.stop, stepCreate: w.create, stepAwait: w.await, stepHalt: w.halt,
		stepRename: w.rename, stepRelease: w.release, stepUndo: w.undo,
	}
	for !d.r.settled() {
		do := steps[d.r.Step]
		if do == nil || !do() {
			return
		}
	}
	ctx, cancel := context.WithTimeout(d.ctx, readBackFor)
	defer cancel()
	_ = d.c.inventory.Refresh(ctx, inventory.LocationName(d.source.Name, d.location)) // so that watchers hear of it soon
}

// recreation is the steps. Each returns whether to go on: false when the process
// ends. A step reads before it acts, so that it can be done again after a crash.
type recreation struct {
	*driver
	made upstream.Recreator // by which it was begun
}

// cloud is the cloud as it is configured now.
func (w *recreation) cloud() upstream.Recreator {
	if recreator, ok := w.source.Provider.(upstream.Recreator); ok {
		return recreator
	}
	return w.made
}

// enter goes over to another step, which is stored before it is done.
func (w *recreation) enter(next step, phase notebookv1.ImageChange_Phase, f func(*record)) bool {
	return w.store(func(r *record) {
		r.Step, r.SentAt, r.Lost = next, time.Now(), false
		r.change.Phase = phase
		if f != nil {
			f(r)
		}
	})
}

// overdue reports whether the step takes longer than it may.
func (w *recreation) overdue(limit time.Duration) bool { return time.Since(w.r.SentAt) > limit }

// pending begins.
func (w *recreation) pending() bool {
	if w.r.Ran {
		return w.enter(stepStop, notebookv1.ImageChange_PHASE_STOPPING, nil)
	}
	return w.prepare()
}

// prepare notes which notebooks there are, so that the new one can be told from
// them should the answer be lost.
func (w *recreation) prepare() bool {
	for {
		notebooks, err := w.source.Provider.List(w.ctx, w.location)
		if err == nil {
			ids := make([]string, len(notebooks))
			for i, n := range notebooks {
				ids[i] = n.ID
			}
			return w.enter(stepCreate, notebookv1.ImageChange_PHASE_CREATING, func(r *record) { r.Before, r.Lost = ids, false }) && w.ask()
		}
		w.log.Warn("image change: notebooks not listed", "error", err)
		if w.overdue(stopFor) {
			return w.undoBecause(err, "the cloud cannot be read")
		}
		if !w.pause(w.c.pace) {
			return false
		}
	}
}

// stop stops the old notebook.
func (w *recreation) stop() bool {
	asked := false
	for {
		old, gone, err := w.look(w.id)
		switch {
		case w.ctx.Err() != nil:
			return false
		case err == nil && (old.State == upstream.StateStopped || old.State == upstream.StateFailed):
			return w.prepare()
		case gone:
			w.fail(notebookv1.ErrorReason_ERROR_REASON_NOTEBOOK_NOT_FOUND, "the notebook is gone from the cloud", nil)
			return true
		case err == nil && !asked && old.State != upstream.StateStopping:
			asked = true
			if !w.sent() {
				return false
			}
			if err := w.cloud().Stop(w.writing(), w.location, w.id, true); errors.Is(err, upstream.ErrNotBegun) {
				return false
			} else if err != nil && !lost(err) {
				w.refused(err) // nothing was changed
				return true
			}
		case w.overdue(stopFor):
			w.fail(notebookv1.ErrorReason_ERROR_REASON_CLOUD_TIMEOUT, "the notebook did not stop; nothing else was changed", nil)
			return true
		case err == nil && asked && old.State == upstream.StateRunning && w.overdue(time.Minute):
			asked = false // the question was lost
		}
		if !w.pause(w.c.pace) {
			return false
		}
	}
}

// sent notes that something that changes may have reached the cloud.
func (w *recreation) sent() bool {
	return w.r.change.GetSent() || w.store(func(r *record) { r.change.Sent = true })
}

// ask asks for the new notebook, once.
func (w *recreation) ask() bool {
	if !w.sent() {
		return false
	}
	if !w.flush() {
		return w.undoBecause(nil, "the intent could not be stored, so no other notebook was asked for")
	}
	id, err := w.cloud().Create(w.writing(), w.location, w.r.Spec)
	switch {
	case errors.Is(err, upstream.ErrNotBegun):
		return false // another replica may have it
	case err == nil:
		return w.created(id)
	case lost(err):
		w.log.Warn("image change: answer lost, looking for the new notebook", "error", err)
		return w.store(func(r *record) { r.Lost = true })
	default:
		return w.undoBecause(err, "the cloud refused to make another notebook")
	}
}

func (w *recreation) created(id string) bool {
	return w.enter(stepAwait, notebookv1.ImageChange_PHASE_CREATING, func(r *record) {
		r.NewID, r.Before = id, nil
		r.change.NewNotebook = inventory.LocationName(w.source.Name, w.location) + "/notebooks/" + id
	})
}

// create looks for the new notebook: it was, or may have been, asked for, and
// the answer is not there.
func (w *recreation) create() bool {
	asked := w.r.SentAt
	for without := 0; ; {
		notebooks, err := w.source.Provider.List(w.ctx, w.location)
		if w.ctx.Err() != nil {
			return false
		}
		if err == nil {
			var found []string
			for _, n := range notebooks {
				made := n.CreateTime.IsZero() || n.CreateTime.After(asked.Add(-time.Minute))
				if !slices.Contains(w.r.Before, n.ID) && n.Image.URI == w.r.Spec.Image.URI && made {
					found = append(found, n.ID)
				}
			}
			switch {
			case len(found) == 1:
				return w.created(found[0])
			case len(found) == 0:
				without++
			}
			if len(found) > 1 && w.overdue(createFor) {
				w.fail(notebookv1.ErrorReason_ERROR_REASON_OUTCOME_UNKNOWN,
					"the answer was lost, and more than one new notebook may be the one; the old one is as it was, but stopped", nil)
				return true
			}
		}
		if without >= 2 && w.overdue(notCreatedAfter) {
			return w.undoBecause(nil, "the cloud did not make another notebook")
		}
		if w.overdue(readBackFor) && w.r.change.GetPhase() != notebookv1.ImageChange_PHASE_OUTCOME_UNKNOWN {
			if !w.store(func(r *record) { r.Lost, r.change.Phase = true, notebookv1.ImageChange_PHASE_OUTCOME_UNKNOWN }) {
				return false
			}
		}
		if !w.pause(w.c.pace) {
			return false
		}
	}
}

// await waits until the new notebook runs.
func (w *recreation) await() bool {
	for missing := 0; ; {
		n, gone, err := w.look(w.r.NewID)
		switch {
		case w.ctx.Err() != nil:
			return false
		case err == nil && n.State == upstream.StateRunning && w.r.Ran:
			return w.enter(stepRename, notebookv1.ImageChange_PHASE_RENAMING, nil)
		case err == nil && n.State == upstream.StateRunning:
			return w.enter(stepHalt, notebookv1.ImageChange_PHASE_VERIFYING, nil)
		case err == nil && n.State == upstream.StateFailed:
			w.log.Warn("image change: the new notebook failed", "message", n.StateMessage)
			return w.undoBecause(nil, "the new notebook failed to start")
		case gone:
			if missing++; missing >= 2 {
				return w.undoBecause(nil, "the new notebook is gone")
			}
		case w.overdue(createFor):
			return w.undoBecause(err, "the new notebook did not start in time")
		}
		if !w.pause(w.c.pace) {
			return false
		}
	}
}

// halt stops the new notebook, since the old one did not run.
func (w *recreation) halt() bool {
	for asked := false; ; {
		n, gone, err := w.look(w.r.NewID)
		switch {
		case w.ctx.Err() != nil:
			return false
		case err == nil && n.State == upstream.StateStopped:
			return w.enter(stepRename, notebookv1.ImageChange_PHASE_RENAMING, nil)
		case err == nil && n.State == upstream.StateFailed, gone:
			return w.undoBecause(nil, "the new notebook failed")
		case err == nil && n.State == upstream.StateRunning && !asked:
			asked = true
			if err := w.cloud().Stop(w.writing(), w.location, w.r.NewID, false); err != nil && !lost(err) {
				asked = false // asked again until it is overdue
				w.log.Warn("image change: the new notebook does not stop", "error", err)
			}
		case w.overdue(stopFor):
			return w.undoBecause(err, "the new notebook did not stop in time")
		}
		if !w.pause(w.c.pace) {
			return false
		}
	}
}

// rename gives the new notebook the old one's name. That a cloud does not want
// it is no reason to give up a notebook that runs.
func (w *recreation) rename() bool {
	for moved := false; ; {
		n, _, err := w.look(w.r.NewID)
		switch {
		case w.ctx.Err() != nil:
			return false
		case w.r.OldName == "", err == nil && n.DisplayName == w.r.OldName, w.overdue(time.Minute):
			return w.enter(stepRelease, notebookv1.ImageChange_PHASE_RELEASING, nil)
		case err == nil:
			err := w.cloud().Rename(w.writing(), w.location, w.r.NewID, w.r.OldName)
			if err != nil && !lost(err) && upstream.MaySent(err) {
				if moved {
					w.log.Warn("image change: the new notebook keeps the name that the cloud gave it", "error", err)
					return w.enter(stepRelease, notebookv1.ImageChange_PHASE_RELEASING, nil)
				}
				moved = true // two notebooks may not have one name, perhaps
				if err := w.cloud().Rename(w.writing(), w.location, w.id, w.r.OldName+"-old"); err != nil {
					w.log.Warn("image change: the old notebook keeps its name", "error", err)
				}
				continue
			}
		}
		if !w.pause(w.c.pace) {
			return false
		}
	}
}

// release deletes the old notebook, last of all.
func (w *recreation) release() bool {
	for refusals := 0; ; {
		_, gone, err := w.look(w.id)
		switch {
		case w.ctx.Err() != nil:
			return false
		case gone:
			w.settle(notebookv1.ImageChange_PHASE_SUCCEEDED, nil)
			return true
		case err == nil && refusals < 3:
			if err := w.cloud().Release(w.writing(), w.location, w.id); err != nil && !lost(err) {
				refusals++
				w.log.Warn("image change: the old notebook is not released", "error", err)
			}
		case refusals >= 3, w.overdue(releaseFor):
			w.fail(notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED,
				"the new notebook is there, but the old one could not be released: release it, or it goes on being paid for", nil)
			return true
		}
		if !w.pause(w.c.pace) {
			return false
		}
	}
}

// undoBecause notes why the change fails and goes over to undoing it.
func (w *recreation) undoBecause(err error, why string) bool {
	return w.enter(stepUndo, notebookv1.ImageChange_PHASE_CREATING, func(r *record) {
		r.Before = nil
		r.change.Failure = &notebookv1.ImageChange_Failure{Reason: notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED, Message: why}
		if err == nil {
			return
		}
		r.change.Failure.Reason = reasons[upstream.KindOf(err)]
		if e, ok := errors.AsType[*upstream.Error](err); ok {
			r.change.Failure.CloudCode, r.change.CloudRequestId = e.Code, e.RequestID
		}
	})
}

// undo takes the new notebook away, if there is one, and starts the old one, if
// it ran.
func (w *recreation) undo() bool {
	for w.r.NewID != "" {
		_, gone, err := w.look(w.r.NewID)
		if w.ctx.Err() != nil {
			return false
		}
		if gone {
			break
		}
		if err == nil {
			if err := w.cloud().Release(w.writing(), w.location, w.r.NewID); err != nil {
				w.log.Warn("image change: the new notebook is not released", "error", err)
			}
		}
		if w.overdue(releaseFor) {
			return w.undone("; the new notebook could not be released")
		}
		if !w.pause(w.c.pace) {
			return false
		}
	}
	for asked := false; w.r.Ran; {
		old, gone, err := w.look(w.id)
		switch {
		case w.ctx.Err() != nil:
			return false
		case err == nil && (old.State == upstream.StateRunning || old.State == upstream.StateStarting && asked):
			return w.undone("; the old notebook is running again")
		case gone:
			return w.undone("; the old notebook is gone")
		case err == nil && old.State == upstream.StateFailed && asked:
			return w.undone("; the old notebook is there, but failed to start again")
		case err == nil && !asked && (old.State == upstream.StateStopped || old.State == upstream.StateFailed):
			if err := w.cloud().Start(w.writing(), w.location, w.id); err == nil || lost(err) {
				asked = true
			} else {
				w.log.Warn("image change: the old notebook is not started again", "error", err)
			}
		}
		if w.overdue(stopFor) {
			return w.undone("; the old notebook is there, but could not be started again")
		}
		if !w.pause(w.c.pace) {
			return false
		}
	}
	return w.undone("; the old notebook is as it was")
}

// undone settles a change that failed, and says what is left of it.
func (w *recreation) undone(how string) bool {
	w.fail(notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED, "", func(r *record) {
		r.change.Failure.Message += how
		r.change.NewNotebook = ""
	})
	return true
}

// look reads one notebook. gone says that it is not there: the cloud does not
// show it, and a complete listing is without it. The first by itself proves
// nothing, since a cloud may answer so when it is only in trouble.
func (w *recreation) look(id string) (n upstream.Notebook, gone bool, err error) {
	n, err = w.cloud().Find(w.ctx, w.location, id)
	if err == nil || upstream.IsContext(err) || upstream.KindOf(err) != upstream.KindNotFound {
		return n, false, err
	}
	all, listErr := w.source.Provider.List(w.ctx, w.location)
	if listErr != nil || all == nil {
		return n, false, err
	}
	for _, listed := range all {
		if listed.ID == id {
			return listed, false, nil
		}
	}
	return n, true, err
}
