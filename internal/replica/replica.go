// Package replica lets several processes share one storage without getting into
// each other's way: it knows which of them are there, and gives each piece of
// work to one of them at a time.
//
// All of it is keys of one bucket that go by themselves when nobody renews them:
// one for each replica, and one for each piece of work, which is a lease. With a
// storage of its own a process is alone, and has all the work.
package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/notebookd/notebookd/internal/storage"
)

// Config configures a Group. Zero fields have the documented default.
type Config struct {
	Storage *storage.Storage
	// Lease is for how long a replica that is not heard of keeps its work, at
	// most. All replicas must have the same. Default 5 s.
	Lease time.Duration
	// Work names what there is to do at first; see SetWork. Replicas may know of
	// different work.
	Work []string
	// Logger gets one line for each change. Default: none.
	Logger *slog.Logger
	// Metrics is where the group registers its metrics. Default: nowhere.
	Metrics prometheus.Registerer
}

// Group is the replicas that share a storage, as one of them sees it. It is safe
// for concurrent use. Run does the work.
type Group struct {
	cfg     Config
	metrics *metrics
	joined  atomic.Bool
	said    atomic.Pointer[string] // what this replica says of itself: a presence
}

// New returns a Group that nobody has joined yet.
func New(cfg Config) *Group {
	if cfg.Lease == 0 {
		cfg.Lease = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Group{cfg: cfg, metrics: newMetrics(cfg.Metrics)}
	g.SetWork(cfg.Work)
	return g
}

// SetWork names what there is to do from now on. The others hear of it when this
// replica is next heard of.
func (g *Group) SetWork(names []string) {
	value, err := json.Marshal(presence{Work: names})
	if err != nil {
		panic("replica: names are text: " + err.Error())
	}
	text := string(value)
	g.said.Store(&text)
}

// Joined reports whether this replica is one of the group now: it is not while
// the storage cannot be reached.
func (g *Group) Joined() bool { return g.joined.Load() }

const (
	// openFor bounds the attempt to open the storage. A server does not answer for
	// a stream that has no leader at the moment, so it is better to ask again soon.
	openFor = 3 * time.Second
	// rejoinAfter is the pause before the storage is tried again.
	rejoinAfter = 500 * time.Millisecond
	// repeatAfter is when a failure that goes on is logged again.
	repeatAfter = time.Minute
	// leaveFor bounds the last writes of a replica that leaves.
	leaveFor = 2 * time.Second
)

// errLost ends a membership: the others may take this replica for dead.
var errLost = errors.New("replica: the storage was not reached for the length of a lease")

// Run joins the group and calls work, which must return when its context ends:
// that is when ctx ends, and when the replica could not make itself heard for the
// length of a lease, or the storage was replaced. Then it joins again, as another
// member, for as long as ctx lasts. It returns an error when trying again makes
// no sense.
func (g *Group) Run(ctx context.Context, work func(ctx context.Context, m *Member) error) error {
	if !g.cfg.Storage.Shared() {
		g.setJoined(true)
		defer g.setJoined(false)
		return work(ctx, &Member{group: g, id: uuid.NewString()})
	}
	var said string
	var saidAt time.Time
	for {
		err := g.live(ctx, work)
		if ctx.Err() != nil {
			return nil
		}
		if mismatch, ok := errors.AsType[*storage.MismatchError](err); ok {
			return mismatch
		}
		if text := fmt.Sprint(err); text != said || time.Since(saidAt) > repeatAfter {
			said, saidAt = text, time.Now()
			g.cfg.Logger.Error("storage not reached, trying again", "error", err)
		}
		select {
		case <-time.After(rejoinAfter):
		case <-ctx.Done():
			return nil
		}
	}
}

func (g *Group) setJoined(joined bool) {
	g.joined.Store(joined)
	g.metrics.setJoined(joined)
}

// live is one membership from its beginning to its end.
func (g *Group) live(ctx context.Context, work func(ctx context.Context, m *Member) error) error {
	m, err := g.join(ctx)
	if err != nil {
		return err
	}
	lifeCtx, end := context.WithCancelCause(ctx)
	defer end(nil)
	m.start(lifeCtx, end)
	g.setJoined(true)
	g.cfg.Logger.Info("replica joined", "replica", m.id)
	err = work(lifeCtx, m)
	g.setJoined(false)
	cause := context.Cause(lifeCtx)
	end(nil)
	m.leave()
	if cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}
