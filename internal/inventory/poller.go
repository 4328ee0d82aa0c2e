package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/replica"
	"github.com/notebookd/notebookd/internal/upstream"
)

const (
	// pollTimeout bounds one poll with all its pages.
	pollTimeout = 2 * time.Minute
	// unreachableAfter failures in a row a location is UNREACHABLE.
	unreachableAfter = 3
	// fastAfterChange is for how long a location is polled fast after an image
	// change.
	fastAfterChange = time.Minute
	// maxBackoff bounds the wait after answers that say "too often".
	maxBackoff = 5 * time.Minute
	// disabledRetry is how often a location that the account cannot use is
	// tried again.
	disabledRetry = 10 * time.Minute
	// A row is deleted after it was missing from this many complete listings in
	// a row.
	missingListings = 2
	// The same when the listing has become empty, which is the mark of a cloud
	// that lost its database rather than of a user who deleted everything.
	missingEmptyListings = 3
	// forcedApart is the least time between the starts of two polls of which the
	// second was asked for by a caller who wants fresh rows.
	forcedApart = time.Second
	// maxFinds bounds how many missing rows of one poll the cloud is asked for
	// one by one; the others wait for the next listing.
	maxFinds = 8
)

// poller reads one location again and again. One goroutine runs it.
type poller struct {
	inv      *Inventory
	account  *account
	location string
	name     string // resource name of the location
	term     replica.Term

	// Owned by run.
	source     *Source        // of the account, when it was last looked
	missing    map[string]int // rows by name → complete listings without it
	memo       *upstream.Memo // of the last listing that was recorded
	resets     uint64         // of the store, when that was
	order      []int32        // of a listing, by id; kept for the room
	fastUntil  time.Time
	transition bool
	cost       uint64 // calls of the last poll that read the whole location
	throttled  int    // polls in a row that were answered "too often"

	mu      sync.Mutex // guards waiters, changed and ended
	waiters []waiter
	changed bool // somebody asks because of a change
	ended   bool // nobody is answered any more
	// poke wakes run. It has room for one, since one poll serves all waiters.
	poke chan struct{}
}

// waiter is somebody who asked for a poll.
type waiter struct {
	done chan error        // has room for its one answer
	asks trace.SpanContext // what the poll was asked for in
}

func (inv *Inventory) newPoller(a *account, location string, term replica.Term) *poller {
	p := &poller{
		inv: inv, account: a, source: a.source.Load(), location: location, name: LocationName(a.name, location), term: term,
		missing: map[string]int{}, memo: upstream.NewMemo(), poke: make(chan struct{}, 1),
	}
	inv.mu.Lock()
	inv.pollers[p.name] = p
	inv.mu.Unlock()
	return p
}

// errNotPolled says that a location is not, or no longer, polled.
var errNotPolled = &upstream.Error{Op: "list", Kind: upstream.KindDisabled, Err: errors.New("the location is not polled")}

// run polls until ctx ends.
func (p *poller) run(ctx context.Context) {
	defer func() {
		p.inv.mu.Lock()
		if p.inv.pollers[p.name] == p {
			delete(p.inv.pollers, p.name)
		}
		p.inv.mu.Unlock()
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		p.answer(p.takeWaiters(), errNotPolled)
	}()
	for {
		started := time.Now()
		waiters := p.takeWaiters()
		p.look()
		err := p.traced(ctx, waiters)
		if kind := upstream.KindOf(err); err != nil && (kind == upstream.KindThrottled || kind == upstream.KindBudget) {
			p.throttled++
		} else {
			p.throttled = 0
		}
		if ctx.Err() != nil {
			p.answer(waiters, errNotPolled) // another one may, soon
			return
		}
		p.answer(waiters, err)
		if !p.wait(ctx, started, err) {
			return
		}
	}
}

// look takes over what was configured since. What the provider before made of an
// answer may not be what this one makes of it.
func (p *poller) look() {
	if source := p.account.source.Load(); source != p.source {
		p.source = source
		p.memo.Forget()
	}
}

// wake lets the next poll be soon.
func (p *poller) wake() {
	select {
	case p.poke <- struct{}{}:
	default: // already asked
	}
}

// wait returns when the next poll is due: true, or false when ctx has ended.
func (p *poller) wait(ctx context.Context, started time.Time, err error) bool {
	factor := spread() // one draw for each poll, whatever the interval becomes
	for {
		present, arrived := p.inv.demand.state()
		interval := p.interval(present, err)
		due := started.Add(scale(interval, factor))
		if retry := retryAfter(err); retry > 0 {
			due = later(due, time.Now().Add(retry+time.Millisecond)) // what ends then has ended
		}
		if delay := p.budgetDelay(); delay > 0 {
			due = later(due, time.Now().Add(delay))
		}
		p.inv.store.updateLocation(p.name, func(l *Location) {
			l.Interval, l.NextAttempt = max(interval, due.Sub(started)), due
		})
		if present {
			arrived = nil // nothing new to hear
		}
		poke := (<-chan struct{})(p.poke)
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
			if p.budgetDelay() > 0 {
				continue // another location of the account was faster
			}
			return true
		case <-poke:
			timer.Stop()
			if p.takeChanged() {
				p.fastUntil = time.Now().Add(fastAfterChange)
				return true
			}
			return p.pace(ctx, started)
		case <-arrived:
			timer.Stop() // with somebody watching the interval is another
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// budgetDelay is in how long the account's call budget has room for a poll.
func (p *poller) budgetDelay() time.Duration {
	if p.source.Client == nil {
		return 0
	}
	return p.source.Client.ReadDelay(p.cost)
}

// pace keeps forced reads apart. It reports false when ctx has ended.
func (p *poller) pace(ctx context.Context, started time.Time) bool {
	timer := time.NewTimer(time.Until(started.Add(forcedApart)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// spread draws a factor of 1 ± 10 % for an interval, so that locations do not
// poll in step.
func spread() float64 { return 0.9 + 0.2*rand.Float64() } //nolint:gosec // not a secret

func scale(d time.Duration, factor float64) time.Duration { return time.Duration(float64(d) * factor) }

func jitter(d time.Duration) time.Duration { return scale(d, spread()) }

// interval is the time from the start of one poll to the start of the next.
func (p *poller) interval(demand bool, err error) time.Duration {
	intervals := p.source.Poll
	interval := intervals.Idle
	switch {
	case p.transition || len(p.missing) > 0 || time.Now().Before(p.fastUntil):
		interval = intervals.Fast
	case demand:
		interval = min(intervals.Normal, intervals.Idle)
	}
	if err == nil {
		return interval
	}
	switch upstream.KindOf(err) {
	case upstream.KindThrottled, upstream.KindBudget:
		return min(intervals.Normal<<min(p.throttled, 10), max(maxBackoff, intervals.Normal))
	case upstream.KindDisabled:
		return max(disabledRetry, interval)
	default:
		// Nothing is gained by haste, and a cloud that is down must not be asked
		// more often because somebody watches it.
		return min(intervals.Normal, intervals.Idle)
	}
}

// refresh asks for a poll that begins after this call and waits for its end.
// changed says that the caller has changed something.
func (p *poller) refresh(ctx context.Context, changed bool) error {
	done := make(chan error, 1)
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return errNotPolled
	}
	p.waiters = append(p.waiters, waiter{done, trace.SpanContextFromContext(ctx)})
	p.changed = p.changed || changed
	p.mu.Unlock()
	p.wake()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *poller) takeChanged() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := p.changed
	p.changed = false
	return changed
}

func (p *poller) takeWaiters() []waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiters := p.waiters
	p.waiters = nil
	return waiters
}

func (p *poller) answer(waiters []waiter, err error) {
	for _, w := range waiters {
		w.done <- err
	}
}

// poll reads the location once and publishes what differs.
func (p *poller) poll(ctx context.Context) error {
	started := time.Now()
	pollCtx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	fresh := p.watchAge(started)
	defer fresh()
	before := p.reads()
	notebooks, err := p.list(pollCtx)
	if err == nil {
		p.cost = p.reads() - before
	}
	var absent []*Row
	if err == nil {
		absent, err = p.compare(notebooks)
	}
	if errors.Is(err, errForgotten) { // rows that the memo knows are not there any more
		p.memo.Forget()
		if notebooks, err = p.list(pollCtx); err == nil {
			absent, err = p.compare(notebooks)
		}
	}
	var gone map[string]bool
	if err == nil {
		notebooks, absent, gone = p.find(pollCtx, notebooks, absent)
	}
	if ctx.Err() != nil {
		return ctx.Err() // we are stopping; it says nothing about the cloud
	}
	if err != nil {
		p.failed(started, failureOf(err), err)
		return err
	}
	if err := p.record(ctx, notebooks, absent, gone, started); err != nil {
		p.memo.Forget() // a part may have been stored
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.failed(started, &Failure{Store: true}, err)
		return err
	}
	p.memo.Keep(notebooks)
	p.succeeded(started, notebooks)
	return nil
}

// list reads the location. What is known from the listing before is Unchanged, as
// long as the rows that were made of it have not been forgotten.
func (p *poller) list(ctx context.Context) ([]upstream.Notebook, error) {
	relister, ok := p.source.Provider.(upstream.Relister)
	if !ok {
		return p.source.Provider.List(ctx, p.location)
	}
	if resets := p.inv.store.Snapshot().Resets(); resets != p.resets {
		p.memo.Forget()
		p.resets = resets
	}
	return relister.Relist(ctx, p.location, p.memo)
}

// reads is how many calls were made for the location so far, if they are
// counted.
func (p *poller) reads() uint64 {
	if p.source.Client == nil {
		return 0
	}
	return p.source.Client.Reads(p.location)
}

// watchAge lets the location become STALE while a poll that does not end makes
// its rows too old. The function that it returns ends that.
func (p *poller) watchAge(started time.Time) (stop func()) {
	l, ok := p.inv.store.Snapshot().Location(p.name)
	if !ok || l.State != notebookv1.Location_STATE_LIVE {
		return func() {}
	}
	timer := time.AfterFunc(max(l.LastSuccess.Add(l.maxAge()).Sub(started), 0), func() {
		p.inv.store.updateLocation(p.name, func(l *Location) {
			if l.State == notebookv1.Location_STATE_LIVE && l.LastSuccess.Before(started) {
				l.State, l.Failure = notebookv1.Location_STATE_STALE, &Failure{Kind: upstream.KindTimeout}
			}
		})
	})
	return func() { timer.Stop() } // one that runs already does no harm
}

// errForgotten says that a notebook is said to be unchanged that the inventory does
// not have.
var errForgotten = errors.New("inventory: an unchanged notebook is not known")

// compare refuses a listing that breaks the Provider's promise, and an answer
// without a list while rows are known. It returns the rows that are not listed.
//
// It walks the rows and the listing side by side: for what is as it was, which is
// nearly all, nothing is allocated and nothing is looked up.
func (p *poller) compare(notebooks []upstream.Notebook) (absent []*Row, err error) {
	snapshot := p.inv.store.Snapshot()
	if notebooks == nil && snapshot.Count(p.name) > 0 {
		return nil, &upstream.Error{
			Cloud: p.source.Name, Location: p.location, Op: "list", Kind: upstream.KindBadResponse, Err: errors.New("the answer has no list of notebooks"),
		}
	}
	p.order = p.order[:0]
	for i := range notebooks {
		p.order = append(p.order, int32(i))
	}
	slices.SortFunc(p.order, func(a, b int32) int { return strings.Compare(notebooks[a].ID, notebooks[b].ID) })
	last := ""
	for _, i := range p.order {
		id := notebooks[i].ID
		if id == last { // also one that is empty: the first is compared with ""
			return nil, &upstream.Error{Kind: upstream.KindBadResponse, Op: "list", Err: fmt.Errorf("notebook id %q is empty or listed twice", id)}
		}
		last = id
	}
	next := 0 // of order
	for row := range snapshot.Rows(p.name, "") {
		for next < len(p.order) && notebooks[p.order[next]].ID < row.key.id {
			if notebooks[p.order[next]].Unchanged {
				return nil, errForgotten
			}
			next++
		}
		if next < len(p.order) && notebooks[p.order[next]].ID == row.key.id {
			next++
			continue
		}
		absent = append(absent, row)
	}
	for ; next < len(p.order); next++ {
		if notebooks[p.order[next]].Unchanged {
			return nil, errForgotten
		}
	}
	return absent, nil
}

// find asks a cloud that can be asked for the absent rows, which a complete listing
// has left out. It returns the listing with those that are there after all, the rows
// that are still absent, and the names of those that are gone. A listing that has
// become empty is not asked about: a cloud that lost its database would confirm it.
func (p *poller) find(ctx context.Context, notebooks []upstream.Notebook, absent []*Row) (all []upstream.Notebook, still []*Row, gone map[string]bool) {
	finder, ok := p.source.Provider.(upstream.Finder)
	if !ok || len(notebooks) == 0 || len(absent) == 0 {
		return notebooks, absent, nil
	}
	gone = map[string]bool{}
	for i, row := range absent {
		if i == maxFinds {
			return notebooks, append(still, absent[i:]...), gone
		}
		n, err := finder.Find(ctx, p.location, row.key.id)
		switch {
		case err == nil && n.ID == row.key.id:
			notebooks = append(notebooks, n)
			continue
		case err != nil && !upstream.IsContext(err) && upstream.KindOf(err) == upstream.KindNotFound:
			gone[row.Name] = true
		case err != nil:
			return notebooks, append(still, absent[i:]...), gone // the next listings decide
		}
		still = append(still, row)
	}
	return notebooks, still, gone
}

// record turns a complete listing into new versions and tombstones. absent are the
// rows that it does not have, gone names those of them that the cloud itself says
// are gone.
func (p *poller) record(ctx context.Context, notebooks []upstream.Notebook, absent []*Row, gone map[string]bool, observed time.Time) error {
	snapshot := p.inv.store.Snapshot()
	volatile := p.source.Provider.Capabilities().VolatileAttributes
	var batch []entry
	p.transition = false
	for i := range notebooks {
		n := &notebooks[i]
		p.transition = p.transition || n.State.InTransition()
		if n.Unchanged {
			continue
		}
		e, err := p.entry(snapshot, n, volatile, observed)
		if err != nil {
			return err
		}
		if e != nil {
			batch = append(batch, *e)
		}
	}

	needed := missingListings
	if len(notebooks) == 0 {
		needed = missingEmptyListings
	}
	before := p.missing
	p.missing = map[string]int{}
	for _, row := range absent {
		p.missing[row.Name] = before[row.Name] + 1
		if p.missing[row.Name] < needed && !gone[row.Name] {
			continue
		}
		payload, err := proto.Marshal(row.Notebook)
		if err != nil {
			return fmt.Errorf("encode %s: %w", row.Name, err)
		}
		batch = append(batch, entry{key: row.key, payload: payload, created: row.created, earlier: row.earlier, deleted: true, expect: row.Revision})
	}
	if len(batch) == 0 {
		return nil
	}
	if !p.term.Valid() {
		return errNotPolled // this replica stood still meanwhile, and another one polls
	}
	revision, err := p.inv.records.publish(ctx, batch)
	// Whatever was stored must be seen before the next comparison.
	if waitErr := p.inv.WaitRevision(ctx, revision); err == nil {
		err = waitErr
	}
	for _, e := range batch {
		if e.deleted && err == nil {
			delete(p.missing, e.key.name())
		}
	}
	return err
}

// notebookEtag is the number of Notebook.etag in the contract.
const notebookEtag protowire.Number = 23

// entry is what a listed notebook is to the log, or nil when it is no news.
func (p *poller) entry(snapshot *Snapshot, n *upstream.Notebook, volatile []string, observed time.Time) (*entry, error) {
	key := rowKey{p.source.Name, p.location, n.ID}
	name := key.name()
	next := toContract(key, n, observed)
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(next)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", name, err)
	}
	e := &entry{key: key}
	if row, ok := snapshot.get(name); ok {
		e.expect = row.Revision
		paths := changedPaths(row.Notebook, next, row.payload(), payload, volatile)
		if row.Deleted {
			// It is back, or another one has its name. Who knew the one before
			// and has not heard of its end has to be told of this one.
			e.earlier = life{cmp.Or(row.earlier.from, row.created), row.Revision}
			e.forgotten = time.Since(row.Time) >= p.inv.store.tombstones
		} else {
			if len(paths) == 0 {
				return nil, nil //nolint:nilnil // as documented
			}
			e.created, e.earlier, e.changed = row.created, row.earlier, maps.Clone(row.changed)
		}
		for _, path := range paths {
			if e.changed == nil {
				e.changed = map[string]uint64{}
			}
			e.changed[path] = 0 // the revision it is about to get
		}
	}
	tag, err := etag(next)
	if err != nil {
		return nil, err
	}
	next.Etag = tag
	e.payload = protowire.AppendString(protowire.AppendTag(payload, notebookEtag, protowire.BytesType), tag)
	return e, nil
}

func (p *poller) succeeded(started time.Time, notebooks []upstream.Notebook) {
	l := p.inv.store.updateLocation(p.name, func(l *Location) {
		if l.State != notebookv1.Location_STATE_LIVE {
			p.inv.logger.Info("location live", "cloud", l.Cloud, "location", l.ID, "notebooks", len(notebooks))
		}
		l.State, l.Failure, l.failures = notebookv1.Location_STATE_LIVE, nil, 0
		l.LastAttempt, l.LastSuccess, l.Usage = started, started, usage(notebooks)
	})
	p.inv.metrics.polled(l, "ok")
}

func (p *poller) failed(started time.Time, failure *Failure, err error) {
	l := p.inv.store.updateLocation(p.name, func(l *Location) {
		l.failures++
		state := notebookv1.Location_STATE_STALE
		switch {
		case failure.Kind == upstream.KindDisabled && !failure.Store:
			state = notebookv1.Location_STATE_DISABLED
		case l.LastSuccess.IsZero(), l.failures >= unreachableAfter, failure.Kind == upstream.KindCircuitOpen && !failure.Store:
			state = notebookv1.Location_STATE_UNREACHABLE
		case l.State == notebookv1.Location_STATE_UNREACHABLE:
			state = l.State
		}
		before := *l
		l.State, l.Failure, l.LastAttempt = state, failure, started
		if before.State != l.State || before.Reason() != l.Reason() {
			p.inv.logger.Warn("location not read", "cloud", l.Cloud, "location", l.ID, "state", stateWord(l.State),
				"kind", failure.word(), "code", failure.Code, "error", err)
		}
	})
	p.inv.metrics.polled(l, failure.word())
}

func (f *Failure) word() string {
	if f.Store {
		return "store"
	}
	return f.Kind.String()
}
