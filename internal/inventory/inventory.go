// Package inventory is the live, versioned and resumable view of the notebooks
// of all clouds.
//
// Each location is polled; a poll is compared with what is known; what differs
// becomes a new row version in one ordered log; a store in memory follows the
// log; readers take immutable snapshots of it. A cloud that fails changes no
// row: its location's status says so.
//
// The package knows no cloud and no gRPC. It never changes anything in a cloud.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/replica"
	"github.com/notebookd/notebookd/internal/storage"
	"github.com/notebookd/notebookd/internal/upstream"
)

// Source is a cloud account to be polled.
type Source struct {
	Name     string // configured name
	Kind     string // coreshub, scnet, …
	Provider upstream.Provider
	Client   *upstream.Client
	Poll     PollConfig
}

// PollConfig holds the poll intervals of a cloud's locations. Each is jittered
// by ±10 %. Zero fields have the documented default.
type PollConfig struct {
	// Fast is used while any notebook is in transition or was just changed.
	// Default 5 s.
	Fast time.Duration
	// Normal is used while somebody watches or lists. Default 15 s.
	Normal time.Duration
	// Idle is used otherwise. Default 60 s.
	Idle time.Duration
}

func (c PollConfig) withDefaults() PollConfig {
	if c.Fast == 0 {
		c.Fast = 5 * time.Second
	}
	if c.Normal == 0 {
		c.Normal = 15 * time.Second
	}
	if c.Idle == 0 {
		c.Idle = time.Minute
	}
	return c
}

// Config configures an Inventory.
type Config struct {
	Sources []Source // that are polled at first; see SetSources
	// Tombstones is how long a deletion is remembered. Default 24 h.
	Tombstones time.Duration
	// Logger gets one line for each transition of a location. Default: none.
	Logger *slog.Logger
	// Metrics is where the inventory registers its metrics. Default: nowhere.
	Metrics prometheus.Registerer
	// Tracer is who makes the spans of polls. Default: none are made.
	Tracer trace.TracerProvider
}

// Inventory polls clouds and keeps what they say. It is safe for concurrent
// use. Run does the work.
type Inventory struct {
	store      *Store
	tombstones time.Duration
	logger     *slog.Logger
	metrics    *metrics
	tracer     trace.Tracer
	demand     demand

	setting sync.Mutex // held by SetSources

	mu       sync.Mutex          // guards what is below
	pollers  map[string]*poller  // by resource name of the location
	accounts map[string]*account // by bare name of the cloud
	// start begins to poll an account; nil while Run does not run. It is called with
	// mu held.
	start func(*account)

	// Owned by Run.
	records  rowLog
	tokenKey []byte
	followed time.Time // when the log was last followed

	tokens atomic.Pointer[Tokens] // nil before the log was opened
	// shared is the storage while this replica is one of several; nil while it is
	// alone, or cut off.
	shared    atomic.Pointer[storage.Storage]
	wasShared atomic.Bool // this replica was one of several once
	ready     atomic.Bool
	// loaded is closed, once, when all that the log held is shown.
	loaded   chan struct{}
	loadOnce sync.Once
	// heldBefore says of which locations the log of this process alone held rows when
	// it was opened. Set before loaded is closed.
	heldBefore map[string]bool
}

// rowLog is what pollers write to.
type rowLog interface {
	publish(ctx context.Context, batch []entry) (uint64, error)
}

// New returns an Inventory that shows nothing until Run is called.
func New(cfg Config) *Inventory {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Tombstones == 0 {
		cfg.Tombstones = 24 * time.Hour
	}
	inv := &Inventory{
		store: newStore(cfg.Tombstones, cfg.Logger), tombstones: cfg.Tombstones, logger: cfg.Logger,
		accounts: map[string]*account{}, pollers: map[string]*poller{}, tracer: tracerOf(cfg.Tracer),
	}
	inv.metrics = newMetrics(cfg.Metrics, inv)
	inv.demand.arrived, inv.demand.arrivedHere = make(chan struct{}), make(chan struct{})
	inv.loaded = make(chan struct{})
	inv.SetSources(cfg.Sources)
	return inv
}

// Snapshot returns the current state.
func (inv *Inventory) Snapshot() *Snapshot { return inv.store.Snapshot() }

// Ready reports whether what the log held is shown and every location of which it
// held nothing was polled once, well or badly. Once it was so it stays so: what comes
// later is told by the status of each location. It does not wait for locations whose
// notebooks the log tells of: the first poll of a large one takes minutes where the
// cloud allows few calls, and until then what is known is told as what it is, stale.
func (inv *Inventory) Ready() bool {
	if inv.ready.Load() {
		return true
	}
	select {
	case <-inv.loaded:
	default:
		return false
	}
	snapshot := inv.Snapshot()
	discovered := map[string]bool{}
	for _, c := range snapshot.Clouds() {
		if discovered[c.Name] = c.Discovered; !c.Discovered && c.Failure == nil {
			return false
		}
	}
	for _, l := range snapshot.Locations() {
		// One that only the log tells of is not polled while its cloud cannot say
		// which locations there are.
		if l.LastAttempt.IsZero() && !inv.heldBefore[l.Name] && l.State != notebookv1.Location_STATE_DISABLED && discovered[l.Cloud] {
			return false
		}
	}
	inv.ready.Store(true)
	return true
}

// Run shows what the log holds and follows it, and polls what is this replica's
// to poll, until ctx ends. It returns once all its goroutines have, with an error
// when the log could not be read or is not what it was. It may be called again
// then, with another member: what is known stays shown in between.
func (inv *Inventory) Run(ctx context.Context, m *replica.Member) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st := m.Storage()
	log, stop, err := inv.open(ctx, m)
	if err != nil {
		if ctx.Err() != nil {
			err = nil // it was stopped
		}
		return err
	}
	defer func() {
		stop()
		inv.followed = time.Now()
		inv.store.settle()
	}()
	log.written = inv.store.written
	inv.records = log
	var wg sync.WaitGroup
	var status jetstream.KeyValue
	if st.Shared() {
		inv.wasShared.Store(true)
		if status, err = st.Bucket(ctx, statusBucket, 0); err != nil {
			return err
		}
		watcher, err := status.WatchAll(ctx)
		if err != nil {
			return fmt.Errorf("inventory: status: %w", err)
		}
		defer func() { _ = watcher.Stop() }() // it fails only on a closed connection
		inv.store.newTerms()
		inv.shared.Store(st)
		wg.Go(func() { inv.heed(ctx, watcher) })
		wg.Go(func() { inv.announce(ctx, st) })
	}
	stopPolling := inv.run(ctx, func(ctx context.Context, a *account) {
		m.Hold(ctx, a.name, func(ctx context.Context, term replica.Term) { inv.pollCloud(ctx, st, status, a, term) })
	})
	err = inv.guard(ctx, st, log)
	cancel()
	inv.shared.Store(nil)
	stopPolling()
	wg.Wait()
	if st.Shared() {
		inv.store.away() // nobody here reads anything any more
	}
	return err
}

// pollCloud is the work of the replica that has a cloud.
func (inv *Inventory) pollCloud(ctx context.Context, st *storage.Storage, status jetstream.KeyValue, a *account, term replica.Term) {
	var wg sync.WaitGroup
	inv.store.hold(a.name, true)
	defer inv.store.hold(a.name, false)
	if status != nil {
		reporter := &reporter{inv: inv, bucket: status, cloud: a.name, term: term}
		wg.Go(func() { reporter.run(ctx) })
		wg.Go(func() { inv.respond(ctx, st, a.name, reporter) })
	}
	inv.discover(ctx, a, term)
	wg.Wait()
}

// open opens the log and starts the store on it. It returns when the store has
// caught up.
func (inv *Inventory) open(ctx context.Context, m *replica.Member) (log *Log, stop func(), err error) {
	opening, cancel := m.Opening(ctx)
	defer cancel()
	if log, err = openLog(opening, m.Storage(), inv.tombstones, inv.tokenKey); err != nil {
		return nil, nil, err
	}
	inv.tokenKey = log.tokenKey
	tokens, err := NewTokens(log.tokenKey)
	if err != nil {
		return nil, nil, err
	}
	inv.tokens.Store(tokens)
	// Deletions that the log has forgotten meanwhile would never be heard of.
	missed := !inv.followed.IsZero() && time.Since(inv.followed) >= inv.tombstones
	after := inv.store.begin(log.Epoch(), missed)
	if stop, err = inv.follow(ctx, opening, log, after); err != nil {
		return nil, nil, err
	}
	inv.loadOnce.Do(func() {
		inv.heldBefore = map[string]bool{}
		if !m.Storage().Shared() { // otherwise another replica may just be writing it
			snapshot := inv.Snapshot()
			for row := range snapshot.Since(0) {
				inv.heldBefore[row.Location] = inv.heldBefore[row.Location] || !row.Deleted
			}
		}
		close(inv.loaded)
	})
	return log, stop, nil
}

// follow starts the store on the log and returns when it has caught up, or
// opening ends.
func (inv *Inventory) follow(ctx, opening context.Context, log *Log, after uint64) (stop func(), err error) {
	last, err := log.lastRevision(opening)
	if err != nil {
		return nil, err
	}
	if last < after {
		if err := log.renew(opening); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("inventory: %w", errLogLost)
	}
	following, err := log.follow(ctx, after, inv.store.apply)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			following()
		}
	}()
	// The message of the last revision may be a tombstone that has gone, also
	// while this waits: what counts is the last one that is still there. What was
	// told before a restart stays true, so the revision does not go back to it.
	for {
		kept, err := log.lastKept(opening)
		if err != nil {
			return nil, err
		}
		waitCtx, cancel := context.WithTimeout(opening, time.Second)
		err = inv.WaitRevision(waitCtx, kept)
		cancel()
		if err == nil {
			break
		}
		if opening.Err() != nil {
			return nil, opening.Err()
		}
	}
	inv.store.advance(last)
	if after == 0 {
		err = inv.compare(opening, log, last)
	}
	inv.store.noteWith(log.storage.Mark)
	return following, err
}

// compare compares what was read of a log of this process's own with what the
// process before it has noted. If something is missing at its end, or in it, what
// callers were told is not to be relied on.
func (inv *Inventory) compare(ctx context.Context, log *Log, last uint64) error {
	before, known := log.storage.Previous()
	rows := 0
	for _, n := range inv.store.Snapshot().counts {
		rows += n
	}
	if last == 0 && before.Revision == 0 || known && last > before.Revision || known && last == before.Revision && (rows == before.Rows || before.Revision == 0) {
		return nil
	}
	inv.logger.Warn("the data directory may have lost something: watchers are told to begin again",
		"noted", known, "revision", last, "revision_noted", before.Revision, "notebooks", rows, "notebooks_noted", before.Rows)
	if err := log.renew(ctx); err != nil {
		return err
	}
	inv.store.renamed(log.Epoch())
	return nil
}

const (
	// guardEvery is how often it is looked whether the log still holds what was
	// read.
	guardEvery = 2 * time.Second
	// lagsAtMost of these looks in a row may find that not all was read that the log
	// holds. Then it is followed anew.
	lagsAtMost = 5
)

// guard returns when ctx ends, or when a log that others can reach too has lost
// what was read from it.
func (inv *Inventory) guard(ctx context.Context, st *storage.Storage, log *Log) error {
	if !st.Shared() {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for lags := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		attempt, cancel := context.WithTimeout(ctx, guardEvery)
		err := log.check(attempt, inv)
		cancel()
		if !errors.Is(err, errLags) {
			lags = 0
		} else if lags++; lags < lagsAtMost {
			continue
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, storage.ErrReplaced), errors.Is(err, errLags):
			return err
		case errors.Is(err, errLogLost):
			attempt, cancel := context.WithTimeout(ctx, guardEvery)
			defer cancel()
			if renewErr := log.renew(attempt); renewErr != nil {
				return renewErr
			}
			return err
		}
	}
}

// WaitRevision returns once the snapshot shows a revision, or ctx ends.
func (inv *Inventory) WaitRevision(ctx context.Context, revision uint64) error {
	for {
		snapshot := inv.store.Snapshot()
		if snapshot.Revision() >= revision {
			return nil
		}
		select {
		case <-snapshot.Superseded():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Loaded is closed once all that the log held is shown. What a Snapshot lacks
// before then may exist all the same.
func (inv *Inventory) Loaded() <-chan struct{} { return inv.loaded }

// Epoch identifies the log that revisions belong to.
func (inv *Inventory) Epoch() string { return inv.store.Snapshot().Epoch() }

// Sync waits until all is shown that the log holds at this moment, whoever wrote
// it. With a log of this process's own that is always so.
func (inv *Inventory) Sync(ctx context.Context) error {
	if inv.cutOff() {
		return errAway
	}
	st := inv.shared.Load()
	if st == nil {
		return nil
	}
	last, err := lastOf(ctx, st)
	if err != nil {
		return err
	}
	return inv.WaitRevision(ctx, last)
}

// cutOff reports whether this replica cannot reach the storage that it shares with
// others: what it shows may be behind what they show.
func (inv *Inventory) cutOff() bool { return inv.wasShared.Load() && inv.shared.Load() == nil }

// Tokens seals page and resume tokens. It is nil before Loaded.
func (inv *Inventory) Tokens() *Tokens { return inv.tokens.Load() }

// Tombstones is how long deletions are remembered.
func (inv *Inventory) Tombstones() time.Duration { return inv.tombstones }

const (
	rediscover    = 5 * time.Minute
	discoverRetry = 10 * time.Second
)

// discover keeps the pollers of a cloud equal to its locations. It returns when
// ctx has ended and all of them have.
func (inv *Inventory) discover(ctx context.Context, a *account, term replica.Term) {
	var wg sync.WaitGroup
	defer wg.Wait()
	stops := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for {
		source := *a.source.Load()
		locations, err := inv.locations(ctx, source)
		if ctx.Err() != nil {
			return
		}
		wait := rediscover
		if err != nil {
			wait = max(discoverRetry, retryAfter(err))
			inv.discoveryFailed(source, err)
		} else {
			seen := map[string]bool{}
			for _, location := range locations {
				seen[location.ID] = true
				_, polled := stops[location.ID]
				inv.describe(source, location, polled)
				switch {
				case location.Disabled != "" && polled:
					stops[location.ID]()
					delete(stops, location.ID)
				case location.Disabled == "" && !polled:
					pollCtx, cancel := context.WithCancel(ctx)
					stops[location.ID] = cancel
					p := inv.newPoller(a, location.ID, term)
					wg.Go(func() { p.run(pollCtx) })
				}
			}
			for id, stop := range stops {
				if !seen[id] {
					stop()
					delete(stops, id)
				}
			}
			for _, known := range inv.store.Snapshot().Locations() {
				if known.Cloud == source.Name && !seen[known.ID] {
					inv.disable(known.Name, "the account no longer has this location")
				}
			}
			inv.discoverySucceeded(source) // last: the locations are known now
		}
		timer := time.NewTimer(jitter(wait))
		select {
		case <-timer.C:
		case <-a.rediscover:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// describe makes a location known, or takes over what discovery says of it. The
// state of one that is polled is its poller's business.
func (inv *Inventory) describe(source Source, location upstream.Location, polled bool) {
	name := LocationName(source.Name, location.ID)
	inv.store.updateLocation(name, func(l *Location) {
		l.Cloud, l.ID, l.DisplayName = source.Name, location.ID, location.DisplayName
		l.client = source.Client
		switch {
		case location.Disabled != "":
			inv.setDisabled(l, location.Disabled)
		case l.State == notebookv1.Location_STATE_UNSPECIFIED || l.State == notebookv1.Location_STATE_DISABLED && !polled:
			l.State, l.Failure = notebookv1.Location_STATE_UNREACHABLE, nil // nothing was read yet
		}
	})
}

func (inv *Inventory) disable(name, why string) {
	inv.store.updateLocation(name, func(l *Location) { inv.setDisabled(l, why) })
}

func (inv *Inventory) setDisabled(l *Location, why string) {
	if l.State != notebookv1.Location_STATE_DISABLED {
		inv.logger.Info("location disabled", "cloud", l.Cloud, "location", l.ID, "why", why)
	}
	l.State, l.Failure, l.NextAttempt = notebookv1.Location_STATE_DISABLED, &Failure{Kind: upstream.KindDisabled, Message: why}, time.Time{}
}

func (inv *Inventory) discoveryFailed(source Source, err error) {
	failure := failureOf(err)
	inv.store.updateCloud(source.Name, func(c *Cloud) {
		if c.Failure == nil || c.Failure.Kind != failure.Kind {
			inv.logger.Warn("locations of the cloud not read", "cloud", source.Name, "kind", failure.Kind.String(), "error", err)
		}
		c.Failure = failure
	})
}

func (inv *Inventory) discoverySucceeded(source Source) {
	inv.store.updateCloud(source.Name, func(c *Cloud) {
		if c.Failure != nil {
			inv.logger.Info("locations of the cloud read again", "cloud", source.Name)
		}
		c.Failure, c.Discovered = nil, true
	})
}

func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		return e.RetryAfter
	}
	return 0
}

// Refresh polls a location now and returns when a poll that began after the
// call has ended and is shown. Calls that wait at the same time share a poll. It
// is for what follows a change: the location is polled fast for a while.
func (inv *Inventory) Refresh(ctx context.Context, location string) error {
	return inv.refresh(ctx, location, true)
}

// refresh lets a location be polled, by whichever replica polls it.
func (inv *Inventory) refresh(ctx context.Context, location string, changed bool) error {
	asked := time.Now()
	for {
		p, err := inv.poller(location)
		if err == nil {
			err = p.refresh(ctx, changed)
		} else if l, ok := inv.Snapshot().Location(location); !ok || l.State == notebookv1.Location_STATE_DISABLED {
			return err
		} else if st := inv.shared.Load(); st != nil {
			err = inv.ask(ctx, st, l.Cloud, l.ID, changed)
		}
		switch {
		case !errors.Is(err, errNotPolled):
			return err
		case inv.cutOff(), inv.wasShared.Load() && time.Since(asked) > askFor:
			return errAway // there is somebody to poll it, but not for us
		case !inv.wasShared.Load():
			return err
		}
		select { // it changes hands
		case <-time.After(askAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Freshen makes sure that a location was read completely within maxAge before
// the call, or later: it polls the location if that is not so, within the call
// budget and at most once a second whoever asks. What a broken connection or a
// fault of the cloud spoilt is tried once more. The error is that of the last
// attempt.
func (inv *Inventory) Freshen(ctx context.Context, location string, maxAge time.Duration) error {
	wanted := time.Now().Add(-maxAge)
	if l, ok := inv.Snapshot().Location(location); ok && maxAge > 0 && !l.LastSuccess.Before(wanted) {
		return nil
	}
	err := inv.refresh(ctx, location, false)
	if err == nil || errors.Is(err, errAway) || upstream.IsContext(err) || !upstream.KindOf(err).TripsBreaker() {
		return err
	}
	timer := time.NewTimer(jitter(freshenRetry))
	defer timer.Stop()
	select {
	case <-timer.C:
		return inv.refresh(ctx, location, false)
	case <-ctx.Done():
		return err
	}
}

// freshenRetry is the pause before a forced read is tried once more.
const freshenRetry = 300 * time.Millisecond

func (inv *Inventory) poller(location string) (*poller, error) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	p, ok := inv.pollers[location]
	if !ok {
		return nil, errNotPolled
	}
	return p, nil
}

// demand knows whether anybody is interested, which sets the poll interval.
type demand struct {
	mu       sync.Mutex
	watchers int
	lastList time.Time
	remote   time.Time // when another replica last said that somebody is interested
	// arrived is closed, and replaced, when interest begins, and arrivedHere when
	// it begins at this replica. Guarded by mu.
	arrived, arrivedHere chan struct{}
}

// listInterest is for how long a List counts as interest.
const listInterest = time.Minute

// Listed notes that somebody lists.
func (inv *Inventory) Listed() {
	d := &inv.demand
	d.mu.Lock()
	defer d.mu.Unlock()
	d.announceLocked(true)
	d.lastList = time.Now()
}

// Watching notes that somebody watches, until done is called.
func (inv *Inventory) Watching() (done func()) {
	d := &inv.demand
	d.mu.Lock()
	defer d.mu.Unlock()
	d.announceLocked(true)
	d.watchers++
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.watchers--
		d.lastList = time.Now() // it may come back
	})
}

// elsewhere notes that another replica has somebody who is interested.
func (d *demand) elsewhere() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.announceLocked(false)
	d.remote = time.Now()
}

func (d *demand) announceLocked(here bool) {
	if !d.presentLocked() {
		close(d.arrived)
		d.arrived = make(chan struct{})
	}
	if here && !d.hereLocked() {
		close(d.arrivedHere)
		d.arrivedHere = make(chan struct{})
	}
}

func (d *demand) hereLocked() bool {
	return d.watchers > 0 || time.Since(d.lastList) < listInterest
}

func (d *demand) presentLocked() bool { return d.hereLocked() || time.Since(d.remote) < listInterest }

// state reports whether there is interest, and the channel that is closed when
// it begins.
func (d *demand) state() (present bool, arrived <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.presentLocked(), d.arrived
}

// here is state for this replica alone.
func (d *demand) here() (present bool, arrived <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hereLocked(), d.arrivedHere
}
