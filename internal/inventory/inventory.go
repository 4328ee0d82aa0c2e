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
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
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
	Sources []Source
	Log     *Log
	// Logger gets one line for each transition of a location. Default: none.
	Logger *slog.Logger
	// Metrics is where the inventory registers its metrics. Default: nowhere.
	Metrics prometheus.Registerer
}

// Inventory polls clouds and keeps what they say. It is safe for concurrent
// use. Run does the work.
type Inventory struct {
	store   *Store
	log     *Log
	records rowLog
	logger  *slog.Logger
	sources map[string]Source
	metrics *metrics
	demand  demand

	mu      sync.Mutex         // guards pollers
	pollers map[string]*poller // by resource name of the location
	// unready counts what has to finish once before the inventory is ready:
	// each cloud's discovery and each location's first poll.
	unready atomic.Int64
	running atomic.Bool
	// loaded is closed by follow, once, when all that the log held is shown.
	loaded chan struct{}
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
	tombstones := 24 * time.Hour
	if cfg.Log != nil {
		tombstones = cfg.Log.Tombstones()
	}
	inv := &Inventory{
		store: newStore(tombstones, cfg.Logger), log: cfg.Log, records: cfg.Log, logger: cfg.Logger,
		sources: map[string]Source{}, pollers: map[string]*poller{}, metrics: newMetrics(cfg.Metrics),
	}
	inv.demand.arrived = make(chan struct{})
	inv.loaded = make(chan struct{})
	for _, source := range cfg.Sources {
		source.Poll = source.Poll.withDefaults()
		inv.sources[source.Name] = source
		inv.store.updateCloud(source.Name, func(c *Cloud) { c.Kind, c.source = source.Kind, source })
		if source.Client != nil {
			source.Client.OnBreaker(func(scope string, class upstream.Class) {
				inv.store.touchLocations(func(l *Location) bool { return l.Cloud == source.Name && l.guardedBy(scope, class) })
			})
		}
	}
	inv.unready.Store(int64(len(cfg.Sources)))
	return inv
}

// Snapshot returns the current state.
func (inv *Inventory) Snapshot() *Snapshot { return inv.store.Snapshot() }

// Ready reports whether every location's first poll has finished, well or
// badly, and what the log held is shown.
func (inv *Inventory) Ready() bool { return inv.running.Load() && inv.unready.Load() <= 0 }

// Run shows what the log holds, then polls until ctx ends. It returns once all
// its goroutines have, with an error only when the log could not be read.
func (inv *Inventory) Run(ctx context.Context) error {
	stop, err := inv.follow(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = nil // it was stopped
		}
		return err
	}
	inv.running.Store(true)
	var wg sync.WaitGroup
	for _, source := range inv.sources {
		wg.Go(func() { inv.discover(ctx, source) })
	}
	wg.Wait()
	stop()
	inv.store.close()
	return nil
}

// follow starts the store on the log and returns when it has caught up.
func (inv *Inventory) follow(ctx context.Context) (stop func(), err error) {
	last, err := inv.log.lastRevision(ctx)
	if err != nil {
		return nil, err
	}
	stop, err = inv.log.follow(ctx, func(msg jetstream.Msg, revision uint64, at time.Time, pending uint64) {
		inv.store.apply(msg, revision, at, pending)
	})
	if err != nil {
		return nil, err
	}
	// The message of the last revision may be a tombstone that has gone, also
	// while this waits: what counts is the last one that is still there. What was
	// told before a restart stays true, so the revision does not go back to it.
	for {
		kept, err := inv.log.lastKept(ctx)
		if err != nil {
			stop()
			return nil, err
		}
		waitCtx, cancel := context.WithTimeout(ctx, time.Second)
		err = inv.WaitRevision(waitCtx, kept)
		cancel()
		if err == nil {
			inv.store.advance(last)
			close(inv.loaded)
			return stop, nil
		}
		if ctx.Err() != nil {
			stop()
			return nil, ctx.Err()
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
func (inv *Inventory) Epoch() string { return inv.log.Epoch() }

// TokenKey is the key of page and resume tokens.
func (inv *Inventory) TokenKey() []byte { return inv.log.TokenKey() }

// Tombstones is how long deletions are remembered.
func (inv *Inventory) Tombstones() time.Duration { return inv.log.Tombstones() }

// Source returns a configured cloud by its bare name.
func (inv *Inventory) Source(cloud string) (Source, bool) {
	source, ok := inv.sources[cloud]
	return source, ok
}

const (
	rediscover    = 5 * time.Minute
	discoverRetry = 10 * time.Second
)

// discover keeps the pollers of a cloud equal to its locations. It returns when
// ctx has ended and all of them have.
func (inv *Inventory) discover(ctx context.Context, source Source) {
	var wg sync.WaitGroup
	defer wg.Wait()
	stops := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	first := true
	for {
		locations, err := source.Provider.Locations(ctx)
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
					p := inv.newPoller(source, location.ID)
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
		if first {
			first = false
			inv.unready.Add(-1)
		}
		select {
		case <-time.After(jitter(wait)):
		case <-ctx.Done():
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
		if l.State == notebookv1.Location_STATE_UNSPECIFIED || l.State == notebookv1.Location_STATE_DISABLED && !polled {
			l.State, l.Failure = notebookv1.Location_STATE_UNREACHABLE, nil // nothing was read yet
		}
	})
	if location.Disabled != "" {
		inv.disable(name, location.Disabled)
	}
}

func (inv *Inventory) disable(name, why string) {
	inv.store.updateLocation(name, func(l *Location) {
		if l.State != notebookv1.Location_STATE_DISABLED {
			inv.logger.Info("location disabled", "cloud", l.Cloud, "location", l.ID, "why", why)
		}
		l.State, l.Failure, l.NextAttempt = notebookv1.Location_STATE_DISABLED, &Failure{Kind: upstream.KindDisabled, Message: why}, time.Time{}
	})
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
	p, err := inv.poller(location)
	if err != nil {
		return err
	}
	return p.refresh(ctx, true)
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
	p, err := inv.poller(location)
	if err != nil {
		return err
	}
	err = p.refresh(ctx, false)
	if err == nil || upstream.IsContext(err) || !upstream.KindOf(err).TripsBreaker() {
		return err
	}
	timer := time.NewTimer(jitter(freshenRetry))
	defer timer.Stop()
	select {
	case <-timer.C:
		return p.refresh(ctx, false)
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
	// arrived is closed, and replaced, when interest begins. Guarded by mu.
	arrived chan struct{}
}

// listInterest is for how long a List counts as interest.
const listInterest = time.Minute

// Listed notes that somebody lists.
func (inv *Inventory) Listed() {
	d := &inv.demand
	d.mu.Lock()
	defer d.mu.Unlock()
	d.announceLocked()
	d.lastList = time.Now()
}

// Watching notes that somebody watches, until done is called.
func (inv *Inventory) Watching() (done func()) {
	d := &inv.demand
	d.mu.Lock()
	defer d.mu.Unlock()
	d.announceLocked()
	d.watchers++
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.watchers--
		d.lastList = time.Now() // it may come back
	})
}

func (d *demand) announceLocked() {
	if !d.presentLocked() {
		close(d.arrived)
		d.arrived = make(chan struct{})
	}
}

func (d *demand) presentLocked() bool {
	return d.watchers > 0 || time.Since(d.lastList) < listInterest
}

// state reports whether there is interest, and the channel that is closed when
// it begins.
func (d *demand) state() (present bool, arrived <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.presentLocked(), d.arrived
}
