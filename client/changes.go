package client

import (
	"context"
	"iter"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// Type is what happened to a notebook or location.
type Type int

const (
	// Added is new to this iteration.
	Added Type = iota + 1
	// Modified is another version than this iteration was told before.
	Modified
	// Deleted is gone from its cloud. With a filter, after the server had to tell
	// everything anew, it may also have left the filter meanwhile. A location is
	// gone when the server does not have it any more.
	Deleted
	// LeftFilter exists, but no longer matches the filter.
	LeftFilter
)

// String returns the type in capital letters, as the contract has it.
func (t Type) String() string {
	switch t {
	case Added:
		return "ADDED"
	case Modified:
		return "MODIFIED"
	case Deleted:
		return "DELETED"
	case LeftFilter:
		return "LEFT_FILTER"
	default:
		return "UNSPECIFIED"
	}
}

// Change is a difference between what an iteration was told of a notebook or
// location, and what is known. The messages are shared and must not be changed.
type Change struct {
	Type Type
	// Name is the resource name of the notebook or location.
	Name string
	// Notebook is the latest version, the last known one when it is gone. It is
	// nil when the change is one of a location.
	Notebook *notebookv1.Notebook
	// Before is the version that the iteration was told before; nil when Added.
	Before *notebookv1.Notebook
	// Location is the status of a location; nil when the change is one of a
	// notebook.
	Location *notebookv1.Location
	// Initial says that it is part of what was there when the iteration began.
	Initial bool
	// Token is set when nothing is left to be told: it continues after all that
	// the iteration was told up to and including this change. Whoever has stored
	// that can store the token with it.
	Token string
}

// object is a *Notebook or a *Location. Their names are never equal.
type object interface{ proto.Message }

// Changes returns an iteration over what differs from Config.From: at first
// everything that exists, ordered by name and marked as Initial, then every
// change. It begins once the Watcher is synced, so that half a snapshot is never
// told, and waits for more until ctx or the Watcher ends. Its last pair is the
// reason as an error; before it comes what was still to be told when the Watcher
// has ended.
//
// Iterations are independent of each other, and each begins at the beginning. One
// that is slow is told the latest version of each notebook, once, and nothing of
// what came and went meanwhile.
func (w *Watcher) Changes(ctx context.Context) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		if err := w.WaitSynced(ctx); err != nil {
			yield(Change{}, err)
			return
		}
		c := w.join()
		defer w.leave(c)
		for {
			change, wake, err := c.next(ctx)
			switch {
			case err != nil:
				yield(Change{}, err)
				return
			case wake == nil:
				if !yield(change, nil) {
					return
				}
				continue
			}
			select {
			case <-wake:
			case <-ctx.Done():
			}
		}
	}
}

// cursor is how far one iteration has come. Watcher.mu guards it.
type cursor struct {
	w    *Watcher
	told map[string]object // what the iteration knows
	// due holds what may differ from told, by name.
	due map[string]due
	// queue holds the names in due in the order of their first change, and some
	// that are not due any more.
	queue []string
}

// due says why a name has to be looked at.
type due struct {
	initial bool
	gone    Type   // how it went, if it is not there
	last    object // its last version then
}

// join begins an iteration: everything there is, and everything that it was
// told by Config.From, is due.
func (w *Watcher) join() *cursor {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &cursor{w: w, told: maps.Clone(w.base), due: map[string]due{}}
	for name := range w.objects {
		c.due[name] = due{initial: true}
	}
	for name, o := range w.base {
		if _, ok := w.objects[name]; !ok {
			c.due[name] = due{initial: true, gone: Deleted, last: o}
		}
	}
	c.queue = slices.Sorted(maps.Keys(c.due))
	w.cursors[c] = struct{}{}
	return c
}

func (w *Watcher) leave(c *cursor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.cursors, c)
}

// setLocked notes that there is a version of something.
func (c *cursor) setLocked(name string) {
	d, ok := c.due[name]
	if !ok {
		c.queue = append(c.queue, name)
	}
	c.due[name] = due{initial: d.initial}
}

// removeLocked notes that something is gone. If the iteration was never told of
// it, there is nothing to tell: what comes and goes while nobody reads must not
// pile up.
func (c *cursor) removeLocked(name string, how Type, last object) {
	d, ok := c.due[name]
	if _, told := c.told[name]; !told {
		delete(c.due, name)
		if len(c.queue) > 2*len(c.due)+32 {
			c.compactLocked()
		}
		return
	}
	if !ok {
		c.queue = append(c.queue, name)
	}
	c.due[name] = due{initial: d.initial, gone: how, last: last}
}

// compactLocked drops the names that are not due, and those that are there twice.
func (c *cursor) compactLocked() {
	kept := make([]string, 0, len(c.due))
	seen := make(map[string]struct{}, len(c.due))
	for _, name := range c.queue {
		_, ok := c.due[name]
		if _, twice := seen[name]; ok && !twice {
			seen[name] = struct{}{}
			kept = append(kept, name)
		}
	}
	c.queue = kept
}

// next returns the next change, or a channel to wait for when there is none, or
// the reason why there will be none.
func (c *cursor) next(ctx context.Context) (Change, <-chan struct{}, error) {
	if err := ctx.Err(); err != nil {
		return Change{}, nil, err
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for len(c.queue) > 0 {
		name := c.queue[0]
		c.queue[0] = "" // the array lives on
		c.queue = c.queue[1:]
		d, ok := c.due[name]
		if !ok {
			continue
		}
		delete(c.due, name)
		if change, ok := c.tellLocked(name, d); ok {
			if len(c.due) == 0 {
				change.Token = c.w.token
			}
			return change, nil, nil
		}
	}
	c.queue = nil
	if c.w.err != nil {
		return Change{}, nil, c.w.err
	}
	return Change{}, c.w.wakeLocked(), nil
}

// tellLocked returns how something differs from what the iteration knows, and
// false when it does not.
func (c *cursor) tellLocked(name string, d due) (Change, bool) {
	before, known := c.told[name]
	now, there := c.w.objects[name]
	change := Change{Name: name, Initial: d.initial}
	switch {
	case there && !known:
		change.Type = Added
	case there && same(before, now):
		return Change{}, false
	case there:
		change.Type = Modified
	case known:
		change.Type, now = d.gone, d.last
	default:
		return Change{}, false
	}
	if there {
		c.told[name] = now
	} else {
		delete(c.told, name)
	}
	change.Notebook, _ = now.(*notebookv1.Notebook)
	change.Location, _ = now.(*notebookv1.Location)
	change.Before, _ = before.(*notebookv1.Notebook)
	return change, true
}

// same reports whether two versions are the same to a reader: a notebook by its
// etag, a location by its state and the reason for it, since its times change
// with each poll.
func same(a, b object) bool {
	switch a := a.(type) {
	case *notebookv1.Notebook:
		if b, ok := b.(*notebookv1.Notebook); ok && a.GetEtag() != "" {
			return a.GetEtag() == b.GetEtag()
		}
	case *notebookv1.Location:
		if b, ok := b.(*notebookv1.Location); ok {
			return a.GetState() == b.GetState() && a.GetReason() == b.GetReason() && a.GetCloudCode() == b.GetCloudCode() &&
				a.GetMessage() == b.GetMessage() && a.GetDisplayName() == b.GetDisplayName() &&
				slices.EqualFunc(a.GetBreakers(), b.GetBreakers(), func(a, b *notebookv1.Breaker) bool { return proto.Equal(a, b) })
		}
	}
	return proto.Equal(a, b)
}
