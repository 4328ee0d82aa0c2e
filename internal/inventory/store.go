package inventory

import (
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tidwall/btree"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/storage"
)

// Store is the log applied in order, in memory. Writers replace its current
// Snapshot; readers take it without a lock.
type Store struct {
	tombstones time.Duration
	log        *slog.Logger
	current    atomic.Pointer[Snapshot]

	// mu guards everything below, which only writers touch.
	mu     sync.Mutex
	names  *btree.BTreeG[*Row] // by name, tombstones included
	revs   *btree.BTreeG[*Row] // by revision, tombstones included
	counts map[string]int      // live rows by location
	states map[string]stateCounts
	// graves holds tombstones in the order of their revision, to be dropped
	// from the front when their time has come. A row that came back leaves a
	// stale entry behind, told by its revision.
	graves    []*Row
	revision  uint64
	locations map[string]*Location // by resource name
	clouds    map[string]*Cloud    // by bare name
	epoch     string               // of the log that the revisions belong to; empty before the first one
	resets    uint64               // how often all rows were forgotten
	mark      func(storage.Mark)   // told what is about to be shown; nil for nobody
	dirty     bool                 // rows were applied since the last snapshot
	flush     *time.Timer          // publishes a batch whose end does not come
}

// Snapshot is the inventory at one revision. It is immutable and stays valid
// for as long as it is held.
type Snapshot struct {
	names     *btree.BTreeG[*Row]
	revs      *btree.BTreeG[*Row]
	counts    map[string]int
	states    map[string]stateCounts // live rows by location
	revision  uint64
	epoch     string
	resets    uint64
	locations []*Location // ordered like the names of their rows
	clouds    []*Cloud    // ordered by name
	// superseded is closed by the store, once, when a snapshot with other rows
	// or with a location in another state exists.
	superseded chan struct{}
	published  time.Time // when the news was shown that it brought
}

func newStore(tombstones time.Duration, log *slog.Logger) *Store {
	s := &Store{
		tombstones: tombstones,
		log:        log,
		names:      newTree(func(a, b *Row) bool { return a.Name < b.Name }),
		revs:       newTree(func(a, b *Row) bool { return a.Revision < b.Revision }),
		counts:     map[string]int{},
		states:     map[string]stateCounts{},
		locations:  map[string]*Location{},
		clouds:     map[string]*Cloud{},
	}
	s.current.Store(&Snapshot{names: s.names.Copy(), revs: s.revs.Copy(), superseded: make(chan struct{})})
	return s
}

// newTree returns a tree without a lock of its own: Store.mu guards the
// writer's tree, and copies are only read.
func newTree(less func(a, b *Row) bool) *btree.BTreeG[*Row] {
	return btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})
}

// Snapshot returns the current state. It never returns nil and takes no lock.
func (s *Store) Snapshot() *Snapshot { return s.current.Load() }

// flushAfter is how long a batch may stay open before what came of it is shown.
const flushAfter = 50 * time.Millisecond

// apply takes one message of the log. The rows of a batch become visible
// together, since waking every watcher costs far more than a row.
func (s *Store) apply(msg jetstream.Msg, revision uint64, at time.Time, pending uint64) {
	s.mu.Lock()
	known := revision <= s.revision
	s.mu.Unlock()
	if known { // most of what this process wrote itself
		return
	}
	row, err := decodeRow(msg.Subject(), msg.Headers(), msg.Data(), revision, at)
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision <= s.revision {
		return
	}
	s.revision = revision
	if err != nil {
		// Written by a newer version, say. The row is skipped, not the log.
		s.log.Error("log message not understood", "revision", revision, "error", err)
	} else {
		s.setLocked(row)
	}
	s.dirty = true
	if pending == 0 && msg.Headers().Get(headerMore) == "" {
		s.publishLocked(true)
		return
	}
	if s.flush == nil {
		s.flush = time.AfterFunc(flushAfter, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.dirty {
				s.publishLocked(true)
			}
		})
	} else {
		s.flush.Reset(flushAfter)
	}
}

// written takes rows that this process has stored in the log, before it is told of
// them as everybody is. Those that do not follow on what was applied are left for
// that.
func (s *Store) written(epoch string, rows []*Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != epoch {
		return
	}
	applied := false
	for _, row := range rows {
		if row.Revision == s.revision+1 { // otherwise it is known, or others come first
			s.revision = row.Revision
			s.setLocked(row)
			applied = true
		}
	}
	if applied {
		s.publishLocked(true)
	}
}

// begin prepares for a log that is to be followed after the revision that it
// returns. Rows of another log, or of one of which too much was missed, are
// forgotten, and so is what was read of the clouds: it has to be read again.
func (s *Store) begin(epoch string, missed bool) (after uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != "" && (s.epoch != epoch || missed) {
		s.names.Clear()
		s.revs.Clear()
		clear(s.counts)
		clear(s.states)
		s.graves, s.revision = nil, 0
		s.resets++
		for _, l := range s.locations {
			next := *l
			next.LastSuccess, next.LastAttempt, next.Usage, next.failures = time.Time{}, time.Time{}, nil, 0
			if next.State != notebookv1.Location_STATE_DISABLED {
				next.State, next.Failure = notebookv1.Location_STATE_UNREACHABLE, nil
			}
			next.version++
			s.showLocked(&next)
		}
	}
	s.epoch = epoch
	s.publishLocked(true)
	return s.revision
}

// noteWith lets mark be told of everything before it is shown.
func (s *Store) noteWith(mark func(storage.Mark)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mark = mark
	s.publishLocked(false)
}

// renamed notes that the log that is followed has another epoch than it had when
// it was begun.
func (s *Store) renamed(epoch string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch = epoch
	s.publishLocked(true)
}

// advance notes that nothing up to a revision is missing.
func (s *Store) advance(revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revision < revision {
		s.revision = revision
		s.publishLocked(true)
	}
}

func (s *Store) setLocked(row *Row) {
	// A row may be read from the log before its location is discovered: it must
	// not be passed over by those who walk what is new.
	if s.clouds[row.Cloud] != nil && s.locations[row.Location] == nil {
		s.showLocked(s.unreadLocked(row))
	}
	old, ok := s.names.Set(row)
	if ok {
		s.revs.Delete(old)
		if !old.Deleted {
			s.counts[old.Location]--
			s.states[old.Location] = s.states[old.Location].add(old, -1)
		}
	}
	s.revs.Set(row)
	if row.Deleted {
		s.graves = append(s.graves, row)
	} else {
		s.counts[row.Location]++
		s.states[row.Location] = s.states[row.Location].add(row, 1)
	}
}

// showLocked replaces the status of a location, which nobody may change from then on.
func (s *Store) showLocked(l *Location) {
	l.enter(time.Now())
	s.locations[l.Name] = l
}

// unreadLocked is the status of a location of which only a row of the log tells.
func (s *Store) unreadLocked(row *Row) *Location {
	return &Location{
		Name: row.Location, Cloud: row.Cloud, ID: row.key.location, State: notebookv1.Location_STATE_UNREACHABLE, version: 1,
		client: s.clouds[row.Cloud].source.Client,
	}
}

// tombstoneGrace keeps a tombstone here a little longer than in the log, so
// that a writer's expectation about a subject is never too new.
const tombstoneGrace = time.Minute

func (s *Store) buryLocked(now time.Time) {
	n := 0
	for _, row := range s.graves {
		if now.Sub(row.Time) < s.tombstones+tombstoneGrace {
			break
		}
		if current, ok := s.names.Get(row); ok && current == row {
			s.names.Delete(row)
			s.revs.Delete(row)
		}
		n++
	}
	s.graves = slices.Delete(s.graves, 0, n)
}

// publishLocked makes what was applied the current snapshot. Watchers are woken
// only when there is news for them.
func (s *Store) publishLocked(news bool) {
	now := time.Now()
	s.buryLocked(now)
	news = news || s.dirty
	old := s.current.Load()
	next := &Snapshot{
		names: s.names.Copy(), revs: s.revs.Copy(), counts: maps.Clone(s.counts), states: maps.Clone(s.states), revision: s.revision,
		epoch: s.epoch, resets: s.resets, superseded: old.superseded, published: old.published,
	}
	if s.mark != nil {
		rows := 0
		for _, n := range s.counts {
			rows += n
		}
		s.mark(storage.Mark{Revision: s.revision, Rows: rows}) // before anybody is told
	}
	next.locations = slices.SortedFunc(maps.Values(s.locations), func(a, b *Location) int {
		return compareStrings(a.Name+"/", b.Name+"/")
	})
	next.clouds = slices.SortedFunc(maps.Values(s.clouds), func(a, b *Cloud) int { return compareStrings(a.Name, b.Name) })
	s.dirty = false
	if news {
		next.superseded, next.published = make(chan struct{}), now
	}
	s.current.Store(next)
	if news {
		close(old.superseded)
	}
}

// updateLocation replaces the status of a location. f gets a copy to change.
// Watchers are told when its state or reason is another.
func (s *Store) updateLocation(name string, f func(*Location)) *Location {
	s.mu.Lock()
	defer s.mu.Unlock()
	var next Location
	old, known := s.locations[name]
	if known {
		next = *old
	}
	next.Name = name
	f(&next)
	news := !known || old.State != next.State || old.Reason() != next.Reason()
	if news {
		next.version++
	}
	s.showLocked(&next)
	s.tellLocked(next.Cloud)
	s.publishLocked(news)
	return &next
}

// touchLocations tells watchers of the locations that match, though neither
// state nor reason is another.
func (s *Store) touchLocations(match func(*Location) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := false
	for _, l := range s.locations {
		if match(l) {
			next := *l
			next.version++
			s.showLocked(&next)
			s.tellLocked(l.Cloud)
			news = true
		}
	}
	if news {
		s.publishLocked(true)
	}
}

// updateCloud replaces the status of a cloud. f gets a copy to change.
func (s *Store) updateCloud(name string, f func(*Cloud)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var next Cloud
	if old, ok := s.clouds[name]; ok {
		next = *old
	}
	next.Name = name
	f(&next)
	s.clouds[name] = &next
	s.tellLocked(name)
	s.publishLocked(true)
}

// settle shows what was applied and ends the store's timer. It is for when
// nothing is applied for a while, or any more.
func (s *Store) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flush != nil {
		s.flush.Stop()
	}
	if s.dirty {
		s.publishLocked(true)
	}
}

// Revision is the log revision that the snapshot shows.
func (v *Snapshot) Revision() uint64 { return v.revision }

// Epoch identifies the log that the revision belongs to. It is empty before the
// first log was opened.
func (v *Snapshot) Epoch() string { return v.epoch }

// Resets counts how often all rows were forgotten, to be read anew: whoever has
// followed the rows since has to begin again.
func (v *Snapshot) Resets() uint64 { return v.resets }

// Superseded is closed once a snapshot with news exists.
func (v *Snapshot) Superseded() <-chan struct{} { return v.superseded }

// Published is when the news was shown that the snapshot brought, or the one before
// that had any.
func (v *Snapshot) Published() time.Time { return v.published }

// Get returns the row of a notebook. A tombstone is not found.
func (v *Snapshot) Get(name string) (*Row, bool) {
	row, ok := v.names.Get(&Row{Name: name})
	if !ok || row.Deleted {
		return nil, false
	}
	return row, true
}

// get returns the row of a notebook, also a tombstone.
func (v *Snapshot) get(name string) (*Row, bool) { return v.names.Get(&Row{Name: name}) }

// Rows walks the live rows of a location whose name is greater than after, in
// the order of their names.
func (v *Snapshot) Rows(location, after string) iter.Seq[*Row] {
	prefix := location + "/notebooks/"
	return func(yield func(*Row) bool) {
		v.names.Ascend(&Row{Name: max(prefix, after)}, func(row *Row) bool {
			if row.Location != location {
				return false
			}
			if row.Deleted || row.Name <= after {
				return true
			}
			return yield(row)
		})
	}
}

// Since walks all rows, tombstones included, whose version is newer than a
// revision, in the order of their revisions.
func (v *Snapshot) Since(revision uint64) iter.Seq[*Row] {
	return func(yield func(*Row) bool) {
		v.revs.Ascend(&Row{Revision: revision + 1}, yield)
	}
}

// Count returns how many live rows a location has.
func (v *Snapshot) Count(location string) int { return v.counts[location] }

// Locations returns the status of all locations, ordered like the names of
// their rows.
func (v *Snapshot) Locations() []*Location { return v.locations }

// Clouds returns the status of all clouds, ordered by name.
func (v *Snapshot) Clouds() []*Cloud { return v.clouds }

// Location returns the status of one location.
func (v *Snapshot) Location(name string) (*Location, bool) {
	for _, l := range v.locations {
		if l.Name == name {
			return l, true
		}
	}
	return nil, false
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func decodeRow(subject string, h nats.Header, payload []byte, revision uint64, at time.Time) (*Row, error) {
	key, err := parseSubject(subject)
	if err != nil {
		return nil, err
	}
	n := &notebookv1.Notebook{}
	if err := proto.Unmarshal(payload, n); err != nil {
		return nil, err
	}
	name := key.name()
	if n.GetName() == name {
		n.Name = name
	}
	intern(n)
	encoded := make([]byte, 0, protowire.SizeTag(1)+protowire.SizeBytes(len(payload)))
	encoded = protowire.AppendBytes(protowire.AppendTag(encoded, 1, protowire.BytesType), payload)
	row := &Row{
		Name: name, Location: unique.Make(key.locationName()).Value(), Cloud: key.cloud, Revision: revision, Time: at, Notebook: n, Encoded: encoded,
		Deleted: h.Get(headerDeleted) != "", key: key, created: revision, changed: decodeChanged(h.Get(headerChanged), revision),
	}
	if created, err := strconv.ParseUint(h.Get(headerCreated), 10, 64); err == nil && created != 0 {
		row.created = created
	}
	if _, err := fmt.Sscanf(h.Get(headerEarlier), "%d %d", &row.earlier.from, &row.earlier.to); err != nil {
		row.earlier = life{} // it is the first
	}
	return row, nil
}
