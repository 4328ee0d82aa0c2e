package imagechange

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/tidwall/btree"
	"google.golang.org/protobuf/proto"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream"
)

const (
	bucketName = "CHANGES"
	// keep is how long a change is remembered after it last went on.
	keep = 90 * 24 * time.Hour

	// Keys of the bucket.
	changePrefix  = "change."  // and the id of a change → its record
	requestPrefix = "request." // and the id of a request → the id of its change
	lockPrefix    = "lock."    // and what stands for a notebook → the id of the change that is under way
)

// namePrefix is that of the resource names of changes.
const namePrefix = "imageChanges/"

// step is how far a change has come, for whoever has to go on with it after a
// crash. A step is stored before it is done.
type step string

// The steps of both kinds of change, and then those of a change that makes
// another notebook.
const (
	// stepClaiming is a change that does not count yet: it is to get hold of its
	// notebook, and is taken back if it does not. Nobody is told of it.
	stepClaiming step = "claiming"

	stepPending step = "pending" // nothing was sent
	stepSending step = "sending" // the one call was, or is about to be, sent
	stepVerify  step = "verify"  // it was; the notebook is read back
	stepSettled step = "settled"

	stepStop    step = "stop"    // the old notebook is being stopped
	stepCreate  step = "create"  // the new one is, or is about to be, asked for
	stepAwait   step = "await"   // it is there; it has to come up
	stepHalt    step = "halt"    // it is stopped again, as the old one was
	stepRename  step = "rename"  // it gets the old one's name
	stepRelease step = "release" // the old one goes
	stepUndo    step = "undo"    // the new one goes and the old one comes back
)

// record is what is stored of a change. It holds no password.
type record struct {
	change *notebookv1.ImageChange // never changed once it was stored: see with
	stored
	revision uint64 // of the bucket's key
	seq      uint64 // counts what was applied to the book
	// err is the refusal itself, in the process that met it: it knows when to try
	// again, which no record does.
	err error
}

// stored is the part of a record beside the change.
type stored struct {
	Digest     string        // of the arguments
	Driver     string        `json:",omitempty"` // the replica that goes on with it
	Step       step          //
	Credential bool          `json:",omitempty"` // it needs a login that only memory held
	Kind       upstream.Kind `json:",omitempty"` // of the refusal
	Refused    bool          `json:",omitempty"` // the cloud refused; Kind says how
	Lost       bool          `json:",omitempty"` // the answer to the one call was lost
	SentAt     time.Time     `json:",omitzero"`
	Trace      string        `json:",omitempty"` // W3C traceparent of the call that asked for it

	// Of a change that makes another notebook.
	Ran     bool                  `json:",omitempty"` // the old one was running
	Spec    upstream.NotebookSpec `json:",omitzero"`
	Before  []string              `json:",omitempty"` // ids that there were before the new one was asked for
	NewID   string                `json:",omitempty"`
	OldName string                `json:",omitempty"`
}

func (r *record) id() string { return strings.TrimPrefix(r.change.GetName(), namePrefix) }

func (r *record) settled() bool { return r.Step == stepSettled }

// with returns a copy of the record that f has changed.
func (r *record) with(f func(*record)) *record {
	next := *r
	next.change = proto.CloneOf(r.change)
	f(&next)
	return &next
}

// book keeps the records in memory as the bucket tells them, so that what another
// process writes is seen as well.
type book struct {
	log *slog.Logger

	current atomic.Pointer[View]

	mu   sync.Mutex             // guards the trees, which only writers touch
	ids  *btree.BTreeG[*record] // by id, which is in the order of time
	seqs *btree.BTreeG[*record] // by seq
	seq  uint64
}

// View is the changes at one moment. It is immutable.
type View struct {
	ids, seqs  *btree.BTreeG[*record]
	seq        uint64
	superseded chan struct{} // closed by the book, once, when a newer one exists
}

// Seq counts what happened to changes so far.
func (v *View) Seq() uint64 { return v.seq }

// Superseded is closed once a newer view exists.
func (v *View) Superseded() <-chan struct{} { return v.superseded }

// Since walks the changes that went on after a moment, in that order. They must
// not be changed.
func (v *View) Since(seq uint64) iter.Seq[*notebookv1.ImageChange] {
	return func(yield func(*notebookv1.ImageChange) bool) {
		v.seqs.Ascend(&record{seq: seq + 1}, func(r *record) bool { return r.Step == stepClaiming || yield(r.change) })
	}
}

// Newest walks all changes, the newest first, beginning after the one with an
// id, or with the newest when the id is empty. They must not be changed.
func (v *View) Newest(after string) iter.Seq[*notebookv1.ImageChange] {
	return func(yield func(*notebookv1.ImageChange) bool) {
		oldest := time.Now().Add(-keep)
		walk := func(r *record) bool {
			if r.id() == after || r.Step == stepClaiming || r.change.GetUpdateTime().AsTime().Before(oldest) {
				return true
			}
			return yield(r.change)
		}
		if after == "" {
			v.ids.Reverse(walk)
			return
		}
		v.ids.Descend(pivot(after), walk)
	}
}

func (v *View) get(id string) (*record, bool) { return v.ids.Get(pivot(id)) }

func pivot(id string) *record {
	return &record{change: &notebookv1.ImageChange{Name: namePrefix + id}}
}

func newBook(log *slog.Logger) *book {
	options := btree.Options{NoLocks: true}
	b := &book{
		log:  log,
		ids:  btree.NewBTreeGOptions(func(a, b *record) bool { return a.change.GetName() < b.change.GetName() }, options),
		seqs: btree.NewBTreeGOptions(func(a, b *record) bool { return a.seq < b.seq }, options),
	}
	b.current.Store(&View{ids: b.ids.Copy(), seqs: b.seqs.Copy(), superseded: make(chan struct{})})
	return b
}

func (b *book) view() *View { return b.current.Load() }

// follow applies what the bucket holds and then what comes, until stop is
// called. It returns when all that the bucket held is there; what it does not hold
// any more is forgotten.
func (b *book) follow(ctx, opening context.Context, bucket jetstream.KeyValue) (stop func(), err error) {
	watcher, err := bucket.Watch(ctx, changePrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("image changes: %w", err)
	}
	caughtUp := make(chan struct{}) // closed by the goroutine below
	var wg sync.WaitGroup
	held := map[string]bool{}
	wg.Go(func() {
		first := true
		for entry := range watcher.Updates() {
			if entry == nil { // the mark behind what was there
				if first {
					first = false
					b.keepOnly(held)
					close(caughtUp)
				}
				continue
			}
			if entry.Operation() != jetstream.KeyValuePut {
				b.drop(pivot(strings.TrimPrefix(entry.Key(), changePrefix)))
				continue
			}
			if r, err := decode(entry.Value(), entry.Revision()); err != nil {
				b.log.Error("record of an image change not understood", "key", entry.Key(), "error", err)
			} else {
				if first {
					held[r.id()] = true
				}
				b.apply(r)
			}
		}
	})
	stop = func() {
		_ = watcher.Stop() // closes Updates
		wg.Wait()
	}
	select {
	case <-caughtUp:
		return stop, nil
	case <-opening.Done():
		stop()
		return nil, opening.Err()
	}
}

// apply takes a record that is stored, unless a newer one was taken already.
func (b *book) apply(r *record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.ids.Get(r); ok {
		if old.revision >= r.revision {
			return
		}
		b.seqs.Delete(old)
	}
	b.seq++
	taken := *r
	taken.seq = b.seq
	b.ids.Set(&taken)
	b.seqs.Set(&taken)
	b.publishLocked()
}

// keepOnly forgets what a bucket that was opened anew does not hold.
func (b *book) keepOnly(held map[string]bool) {
	var lost []*record
	b.view().ids.Scan(func(r *record) bool {
		if !held[r.id()] {
			lost = append(lost, r)
		}
		return true
	})
	for _, r := range lost {
		b.drop(r)
	}
}

// lookup returns a record as it is stored at this moment. What this process was
// told of it so far may be old, or nothing yet.
func (b *book) lookup(ctx context.Context, bucket jetstream.KeyValue, id string) (*record, error) {
	entry, err := bucket.Get(ctx, changePrefix+id)
	if err != nil {
		return nil, err
	}
	r, err := decode(entry.Value(), entry.Revision())
	if err != nil {
		return nil, err
	}
	b.apply(r)
	if now, ok := b.view().get(id); ok {
		return now, nil // with what only memory holds
	}
	return r, nil
}

// drop forgets a record that never counted.
func (b *book) drop(r *record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.ids.Delete(r); ok {
		b.seqs.Delete(old)
	}
	b.publishLocked()
}

func (b *book) publishLocked() {
	old := b.current.Load()
	b.current.Store(&View{ids: b.ids.Copy(), seqs: b.seqs.Copy(), seq: b.seq, superseded: make(chan struct{})})
	close(old.superseded)
}

// save stores a record in place of the one that it was made from, and fails when
// somebody else has stored another meanwhile.
func (b *book) save(ctx context.Context, bucket jetstream.KeyValue, r *record) (*record, error) {
	data, err := r.encode()
	if err != nil {
		return nil, err
	}
	var revision uint64
	if r.revision == 0 {
		revision, err = bucket.Create(ctx, changePrefix+r.id(), data)
	} else {
		revision, err = bucket.Update(ctx, changePrefix+r.id(), data, r.revision)
	}
	if err != nil {
		return nil, &StoreError{err}
	}
	saved := *r
	saved.revision = revision
	b.apply(&saved)
	return &saved, nil
}

// landed reports whether a record that could not be saved is stored all the
// same, and returns it as it is stored.
func (b *book) landed(ctx context.Context, bucket jetstream.KeyValue, r *record) (*record, bool) {
	entry, err := bucket.Get(ctx, changePrefix+r.id())
	if err != nil || entry.Revision() <= r.revision {
		return nil, false
	}
	data, err := r.encode()
	if err != nil || !bytes.Equal(data, entry.Value()) {
		return nil, false
	}
	saved := *r
	saved.revision = entry.Revision()
	b.apply(&saved)
	return &saved, true
}

// claim makes a key stand for a change, unless it stands for another one that
// holds does not let go. It returns that other one's id.
func (b *book) claim(ctx context.Context, bucket jetstream.KeyValue, key, id string, holds func(ctx context.Context, id string) bool) (other string, err error) {
	for range 8 { // two that take over from a third may meet
		_, err := bucket.Create(ctx, key, []byte(id))
		if err == nil {
			return "", nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) {
			return "", &StoreError{err}
		}
		entry, err := bucket.Get(ctx, key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue // let go this moment
		}
		if err != nil {
			return "", &StoreError{err}
		}
		if holder := string(entry.Value()); holder != id && holds(ctx, holder) {
			return holder, nil
		}
		if _, err := bucket.Update(ctx, key, []byte(id), entry.Revision()); err == nil {
			return "", nil
		}
	}
	return "", &StoreError{errors.New("a key is fought for")}
}

// release gives a key back if it still stands for the change.
func (b *book) release(ctx context.Context, bucket jetstream.KeyValue, key, id string) {
	entry, err := bucket.Get(ctx, key)
	if err != nil || string(entry.Value()) != id {
		return
	}
	if err := bucket.Delete(ctx, key, jetstream.LastRevision(entry.Revision())); err != nil {
		// Whoever comes next sees that the change is settled, and takes it.
		b.log.Debug("key of an image change not given back", "key", key, "error", err)
	}
}

// forget takes back a record of which nothing came.
func (b *book) forget(ctx context.Context, bucket jetstream.KeyValue, r *record) {
	if err := bucket.Delete(ctx, changePrefix+r.id(), jetstream.LastRevision(r.revision)); err != nil {
		b.log.Warn("record of an image change not taken back", "change", r.change.GetName(), "error", err)
	}
	b.drop(r)
}

func (r *record) encode() ([]byte, error) {
	change, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.change)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", r.change.GetName(), err)
	}
	return json.Marshal(struct {
		Change []byte
		stored
	}{change, r.stored})
}

func decode(data []byte, revision uint64) (*record, error) {
	var in struct {
		Change []byte
		stored
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, err
	}
	r := &record{change: &notebookv1.ImageChange{}, stored: in.stored, revision: revision}
	if err := proto.Unmarshal(in.Change, r.change); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(r.change.GetName(), namePrefix) {
		return nil, errors.New("a record without a name")
	}
	return r, nil
}
