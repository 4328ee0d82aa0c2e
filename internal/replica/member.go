package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/notebookd/notebookd/internal/storage"
)

const (
	leaseBucket = "LEASES"

	// Keys of the bucket.
	replicaPrefix = "replica." // and the id of a replica → presence
	workPrefix    = "work."    // and the name of the work → the id of the replica that has it

	// fenced stands in the key of a replica that the others have declared dead.
	fenced = "fenced"
)

// presence is what a replica says of itself.
type presence struct {
	Work []string
}

// Member is this replica as one of its group, until its context ends. It is safe
// for concurrent use.
type Member struct {
	group  *Group
	id     string
	bucket jetstream.KeyValue // nil when the process is alone
	ttl    time.Duration
	log    *slog.Logger
	own    *lease

	// Owned by live.
	watcher jetstream.KeyWatcher
	tasks   sync.WaitGroup

	mu   sync.Mutex // guards what is below
	keys map[string]seen
	// joinedAt is when this replica began to look.
	joinedAt time.Time
	// changed is closed, and replaced, when a key came, went, or has another value.
	changed chan struct{}
}

// seen is what is known of a key.
type seen struct {
	value string
	at    time.Time // when it was last heard of
	gone  bool
}

// join opens the storage and makes this replica known.
func (g *Group) join(ctx context.Context) (_ *Member, err error) {
	ctx, cancel := context.WithTimeout(ctx, openFor)
	defer cancel()
	g.cfg.Storage.Begin()
	bucket, err := g.cfg.Storage.Bucket(ctx, leaseBucket, g.cfg.Lease)
	if err != nil {
		return nil, err
	}
	id := uuid.NewString()
	m := &Member{
		group: g, id: id, bucket: bucket, ttl: g.cfg.Lease, log: g.cfg.Logger.With("replica", id),
		keys: map[string]seen{}, joinedAt: time.Now(), changed: make(chan struct{}),
	}
	if m.watcher, err = bucket.WatchAll(context.WithoutCancel(ctx)); err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	for { // what is there already
		select {
		case entry, ok := <-m.watcher.Updates():
			if !ok {
				return nil, errors.New("replica: the storage went away")
			}
			if entry != nil {
				m.note(entry)
				continue
			}
		case <-ctx.Done():
			_ = m.watcher.Stop()
			return nil, fmt.Errorf("replica: %w", ctx.Err())
		}
		break
	}
	if m.own, err = m.create(ctx, replicaPrefix+id, *g.said.Load()); err != nil {
		_ = m.watcher.Stop()
		return nil, fmt.Errorf("replica: %w", err)
	}
	return m, nil
}

// start keeps the membership until ctx ends; it calls end when it is lost.
func (m *Member) start(ctx context.Context, end context.CancelCauseFunc) {
	m.tasks.Go(func() { // ends with the watcher
		for entry := range m.watcher.Updates() {
			if entry != nil {
				m.note(entry)
			}
		}
	})
	m.tasks.Go(func() {
		if !m.keep(ctx, m.own, nil) {
			end(errLost)
		}
	})
	m.tasks.Go(func() { m.verify(ctx, end) })
}

// verifyEvery is how often it is looked whether the storage is still the same.
const verifyEvery = time.Second

// verify ends the membership when the storage was replaced. It also leaves a
// server that answers, but not for JetStream: one that has lost the others.
func (m *Member) verify(ctx context.Context, end context.CancelCauseFunc) {
	tick := time.NewTicker(verifyEvery)
	defer tick.Stop()
	for failures := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		attempt, cancel := context.WithTimeout(ctx, verifyEvery)
		err := m.group.cfg.Storage.Verify(attempt)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, storage.ErrReplaced):
			end(err)
			return
		case err == nil:
			failures = 0
		default:
			if failures++; failures%3 == 0 && m.group.cfg.Storage.Connected() {
				m.log.Warn("storage does not answer, trying another server", "error", err)
				_ = m.group.cfg.Storage.Conn().ForceReconnect() // it fails only on a closed connection
			}
		}
	}
}

// leave gives back what is still held, so that nobody has to wait for it.
func (m *Member) leave() {
	_ = m.watcher.Stop()
	m.tasks.Wait() // nobody renews it any more
	m.release(m.own)
}

// note takes what the bucket says of a key.
func (m *Member) note(entry jetstream.KeyValueEntry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := seen{value: string(entry.Value()), at: time.Now(), gone: entry.Operation() != jetstream.KeyValuePut}
	old, known := m.keys[entry.Key()]
	m.keys[entry.Key()] = next
	if !known || old.gone != next.gone || old.value != next.value || time.Since(old.at) > m.ttl {
		close(m.changed)
		m.changed = make(chan struct{})
	}
	for key, k := range m.keys { // what is long gone would stay for ever
		if time.Since(k.at) > 10*m.ttl {
			delete(m.keys, key)
		}
	}
}

// ID identifies this member. A process that has lost its membership comes back
// as another one.
func (m *Member) ID() string { return m.id }

// openingFor bounds the opening of what is in a storage that is shared. One that is
// not is there or is not.
const openingFor = 30 * time.Second

// Opening is the context to open with what is in the storage.
func (m *Member) Opening(ctx context.Context) (context.Context, context.CancelFunc) {
	if m.bucket == nil {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, openingFor)
}

// Storage returns what the group shares.
func (m *Member) Storage() *storage.Storage { return m.group.cfg.Storage }

// Valid reports whether the others must take this replica for alive. It is to be
// asked right before doing what another one might do as well.
func (m *Member) Valid() bool { return m.bucket == nil || m.own.valid() }

// Gone reports whether a replica is certainly dead: it did not renew its key, and
// cannot do so any more.
func (m *Member) Gone(ctx context.Context, id string) bool {
	switch {
	case id == m.id:
		return false
	case m.bucket == nil:
		return true
	}
	m.mu.Lock()
	key, known := m.keys[replicaPrefix+id]
	m.mu.Unlock()
	if known && !key.gone && key.value != fenced && time.Since(key.at) < m.ttl {
		return false
	}
	// The key can be made only when nobody holds it, and whoever held it cannot
	// renew it then.
	ctx, cancel := context.WithTimeout(ctx, m.ttl)
	defer cancel()
	if _, err := m.bucket.Create(ctx, replicaPrefix+id, []byte(fenced)); err == nil {
		return true
	} else if !errors.Is(err, jetstream.ErrKeyExists) {
		return false
	}
	entry, err := m.bucket.Get(ctx, replicaPrefix+id)
	return err == nil && string(entry.Value()) == fenced
}

// lease is a key that this replica holds.
type lease struct {
	key, value string
	revision   uint64

	// until is when the key may go, by the wall clock, and monotonic too: whatever
	// comes first counts, since the one stands still while a machine sleeps and the
	// other one is set now and then.
	until atomic.Pointer[time.Time]
	lost  atomic.Bool
}

// extend notes that the key was written by a request that was sent at a moment.
// What is left of a lease at its end is for stopping what depends on it.
func (l *lease) extend(sent time.Time, ttl time.Duration) {
	until := sent.Add(ttl - ttl/10)
	l.until.Store(&until)
}

func (l *lease) valid() bool {
	until := *l.until.Load()
	return !l.lost.Load() && time.Now().Before(until) && time.Now().Round(0).Before(until.Round(0))
}

// create makes a key if nobody holds it.
func (m *Member) create(ctx context.Context, key, value string) (*lease, error) {
	l := &lease{key: key, value: value}
	sent := time.Now()
	revision, err := m.bucket.Create(ctx, key, []byte(value))
	if err != nil {
		return nil, err
	}
	l.revision = revision
	l.extend(sent, m.ttl)
	return l, nil
}

// keep renews a lease until ctx ends or stop is closed, and reports true then. It
// reports false when the lease is lost.
func (m *Member) keep(ctx context.Context, l *lease, stop <-chan struct{}) bool {
	next := m.ttl / 3
	for {
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-stop:
			timer.Stop()
			return true
		case <-ctx.Done():
			timer.Stop()
			return true
		}
		next = m.ttl / 3
		if m.renew(ctx, l) {
			if l == m.own {
				// Only now, since a key whose renewal was not answered is known again by its
				// value.
				l.value = *m.group.said.Load()
			}
			continue
		}
		if ctx.Err() != nil {
			return true
		}
		if !l.valid() {
			l.lost.Store(true)
			return false
		}
		next = m.ttl / 20
	}
}

// renew writes the key once more.
func (m *Member) renew(ctx context.Context, l *lease) bool {
	sent := time.Now()
	ctx, cancel := context.WithDeadline(ctx, *l.until.Load())
	defer cancel()
	ctx, cancelAttempt := context.WithTimeout(ctx, m.ttl/3)
	defer cancelAttempt()
	revision, err := m.bucket.Update(ctx, l.key, []byte(l.value), l.revision)
	if err == nil {
		l.revision = revision
		l.extend(sent, m.ttl)
		return true
	}
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
		return false // perhaps it was written all the same: the next attempt will tell
	}
	entry, err := m.bucket.Get(ctx, l.key)
	if err == nil && string(entry.Value()) == l.value {
		l.revision = entry.Revision() // written by an attempt of which the answer was lost
		return false
	}
	if err == nil || errors.Is(err, jetstream.ErrKeyNotFound) {
		l.lost.Store(true)
	}
	return false
}

// release gives a lease back.
func (m *Member) release(l *lease) {
	if l == nil || !l.valid() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveFor)
	defer cancel()
	if err := m.bucket.Delete(ctx, l.key, jetstream.LastRevision(l.revision)); err != nil {
		m.log.Debug("lease not given back", "key", l.key, "error", err) // it goes by itself
	}
	l.lost.Store(true)
}

// Term is the time for which a replica has a piece of work.
type Term struct {
	// Number grows from term to term, whoever has it.
	Number uint64
	lease  *lease // nil when the process is alone
}

// Valid reports whether the term lasts. It is to be asked right before a write
// that another replica might contradict.
func (t Term) Valid() bool { return t.lease == nil || t.lease.valid() }

// Hold calls work whenever this replica has a piece of work, one call at a time,
// until ctx ends. The context of a call ends before anybody else can have the
// work; work must return then.
func (m *Member) Hold(ctx context.Context, name string, work func(ctx context.Context, term Term)) {
	defer m.group.metrics.leave(name)
	if m.bucket == nil {
		m.group.metrics.hold(name, true)
		work(ctx, Term{Number: 1})
		return
	}
	m.group.metrics.hold(name, false)
	for ctx.Err() == nil {
		if wait, changed := m.turn(name); wait > 0 {
			pause(ctx, wait, changed)
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, m.ttl/3)
		l, err := m.create(attempt, workPrefix+name, m.id)
		cancel()
		if err != nil {
			// Somebody has it, perhaps it is on its way here, or the storage is away.
			short := int64(m.ttl / 20)
			pause(ctx, time.Duration(short/2+rand.Int64N(short)), nil) //nolint:gosec // not a secret
			continue
		}
		m.hold(ctx, name, l, work)
	}
}

// pause waits for a while, until changed is closed, or ctx ends.
func pause(ctx context.Context, t time.Duration, changed <-chan struct{}) {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-ctx.Done():
	}
}

// hold does the work for as long as the lease can be kept and nobody else is to
// have it.
func (m *Member) hold(ctx context.Context, name string, l *lease, work func(ctx context.Context, term Term)) {
	m.log.Info("work begins", "work", name, "term", l.revision)
	m.group.metrics.hold(name, true)
	workCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	term := Term{Number: l.revision, lease: l} // before the lease is renewed
	wg.Go(func() { work(workCtx, term) })
	handOver := make(chan struct{}) // closed by the goroutine below when another one is to have it
	wg.Go(func() {
		if m.notMine(workCtx, name) {
			close(handOver)
		}
	})
	kept := m.keep(ctx, l, handOver)
	cancel()
	wg.Wait()
	m.group.metrics.hold(name, false)
	if !kept {
		m.log.Warn("work lost: the lease could not be renewed", "work", name)
		return
	}
	m.release(l)
	m.log.Info("work handed over", "work", name)
}

// notMine returns true when another replica has been the one to have the work for
// the length of a lease, and false when ctx ends.
func (m *Member) notMine(ctx context.Context, name string) bool {
	var since time.Time
	for {
		m.mu.Lock()
		chosen, changed := m.chosenLocked(name), m.changed
		m.mu.Unlock()
		wait := m.ttl
		if chosen == m.id || chosen == "" {
			since = time.Time{}
		} else {
			if since.IsZero() {
				since = time.Now()
			}
			if wait = m.ttl - time.Since(since); wait <= 0 {
				return true
			}
		}
		if pause(ctx, wait, changed); ctx.Err() != nil {
			return false
		}
	}
}

// turn says in how long this replica may try to get a piece of work; zero is now.
// When changed is closed it is to ask again.
func (m *Member) turn(name string) (wait time.Duration, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key, known := m.keys[workPrefix+name]
	free := m.joinedAt
	switch {
	case known && key.gone:
		free = key.at
	case known:
		free = key.at.Add(m.ttl)
	}
	if wait := time.Until(free); wait > 0 {
		return wait + time.Millisecond, m.changed
	}
	if chosen := m.chosenLocked(name); chosen == m.id || chosen == "" {
		return 0, m.changed
	}
	// The one that is to have it may not be able to.
	return max(time.Until(free.Add(m.ttl/2)), 0), m.changed
}

// chosenLocked returns the replica that is to have a piece of work.
func (m *Member) chosenLocked(name string) string {
	members := map[string][]string{}
	for key, k := range m.keys {
		id, ok := strings.CutPrefix(key, replicaPrefix)
		if !ok || k.gone || k.value == fenced || time.Since(k.at) > m.ttl {
			continue
		}
		var p presence
		if json.Unmarshal([]byte(k.value), &p) == nil {
			members[id] = p.Work
		}
	}
	m.group.metrics.setReplicas(len(members))
	return spread(members)[name]
}
