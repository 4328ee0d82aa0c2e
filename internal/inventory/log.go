package inventory

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/notebookd/notebookd/internal/storage"
)

const (
	streamName   = "ROWS"
	metaBucket   = "META"
	tokenKeyName = "token-key"
	epochName    = "notebookd-epoch"

	// Headers of a log message, beside NATS's own.
	headerDeleted = "Notebookd-Deleted" // "1" on a tombstone
	headerCreated = "Notebookd-Created" // revision at which the row appeared; 0 for this one
	headerEarlier = "Notebookd-Earlier" // when it came and went before, if it did: appeared and gone, two revisions
	headerChanged = "Notebookd-Changed" // path=revision, …; revision 0 for this one
	headerMore    = "Notebookd-More"    // "1" on all but the last message of a batch
)

// Log is the one ordered record of what is known: a JetStream stream with one
// message per notebook, whose stream sequence is the revision of the whole
// inventory. It is safe for concurrent use.
type Log struct {
	storage    *storage.Storage
	js         jetstream.JetStream
	stream     jetstream.Stream
	epoch      string
	tokenKey   []byte
	tombstones time.Duration
	prefix     string // of the subjects
	// written is told of a small batch that was stored, in the order of revisions.
	// The store need not wait then until it is told what its own process wrote. Set
	// before the first publish; nil for nobody.
	written func(epoch string, rows []*Row)
}

// openLog opens, or creates, the stream. key is the token key to go on with if
// the storage has none; nil makes one.
func openLog(ctx context.Context, st *storage.Storage, tombstones time.Duration, key []byte) (*Log, error) {
	l := &Log{storage: st, js: st.JetStream(), tombstones: tombstones, prefix: st.Subject("row") + "."}
	if err := l.openStream(ctx); err != nil {
		return nil, err
	}
	return l, l.openMeta(ctx, key)
}

func (l *Log) openStream(ctx context.Context) error {
	stream, err := l.storage.Stream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{l.prefix + ">"}, MaxMsgsPerSubject: 1, AllowMsgTTL: true, AllowDirect: true,
		Metadata: map[string]string{epochName: uuid.NewString()},
	})
	if err != nil {
		return err
	}
	l.stream = stream
	l.epoch = stream.CachedInfo().Config.Metadata[epochName]
	if l.epoch == "" {
		return &storage.MismatchError{Stream: stream.CachedInfo().Config.Name, Problems: []string{"it was not made by notebookd"}}
	}
	return nil
}

func (l *Log) openMeta(ctx context.Context, key []byte) error {
	meta, err := l.storage.Bucket(ctx, metaBucket, 0)
	if err != nil {
		return err
	}
	if key == nil {
		key = make([]byte, 32)
		rand.Read(key) // never fails
	}
	if _, err := meta.Create(ctx, tokenKeyName, key); err == nil {
		// Without it nobody could resume after a power cut.
		if err := l.storage.Flush(metaBucket); err != nil {
			return err
		}
	} else if !errors.Is(err, jetstream.ErrKeyExists) {
		return fmt.Errorf("log: make the token key: %w", err)
	}
	entry, err := meta.Get(ctx, tokenKeyName)
	if err != nil {
		return fmt.Errorf("log: read the token key: %w", err)
	}
	l.tokenKey = entry.Value()
	return nil
}

// renew gives the log another epoch: what was told of it before is not to be
// relied on.
func (l *Log) renew(ctx context.Context) error {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	cfg := info.Config
	if cfg.Metadata[epochName] == l.epoch { // nobody else was faster
		cfg.Metadata[epochName] = uuid.NewString()
		if _, err := l.js.UpdateStream(ctx, cfg); err != nil {
			return fmt.Errorf("log: %w", err)
		}
	}
	l.epoch = cfg.Metadata[epochName]
	return nil
}

// check reports whether the log still holds what a store has read from it, and
// no more than that is missing at its end.
func (l *Log) check(ctx context.Context, inv *Inventory) error {
	shown := inv.store.Snapshot().Revision()
	info, err := l.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	switch {
	case info.Config.Metadata[epochName] != l.epoch:
		return fmt.Errorf("%w: the log has another epoch", storage.ErrReplaced)
	case info.State.LastSeq < shown:
		return errLogLost
	}
	// With one message a notebook the first one that is kept is the oldest row,
	// once all that there was then has been read.
	if err := inv.WaitRevision(ctx, info.State.LastSeq); err != nil {
		return errLags
	}
	for row := range inv.store.Snapshot().Since(0) {
		if row.Deleted {
			continue // it goes by itself
		}
		if row.Revision < info.State.FirstSeq {
			return errLogLost
		}
		break
	}
	return nil
}

// errLags says that a store has not read all that the log holds.
var errLags = errors.New("log: not followed to its end")

// errLogLost says that messages have vanished from a log that is still the same.
var errLogLost = errors.New("log: messages were purged, or are older than what was read before")

// Epoch identifies the log: it changes when the log is made anew, and with it
// all revisions lose their meaning.
func (l *Log) Epoch() string { return l.epoch }

// entry is a message to be published.
type entry struct {
	key     rowKey
	payload []byte
	created uint64
	earlier life
	changed map[string]uint64
	deleted bool
	expect  uint64 // revision that the row must be at; 0 for none
	// forgotten says that what the row must be at is a tombstone that the log may
	// have forgotten meanwhile.
	forgotten bool
}

// sent is a message that waits for its acknowledgement.
type sent struct {
	ack       jetstream.PubAckFuture
	msg       *nats.Msg
	row       *Row // of a small batch; nil if it could not be read
	forgotten bool // see entry
}

const (
	// inFlight bounds the messages of one batch that wait for their
	// acknowledgement: the server is kept busy, and nobody waits long for it.
	inFlight = 256
	// stallWait is how long a message waits for one of the places that there are
	// in all (see package storage).
	stallWait = 30 * time.Second
	// ackWait is how long an acknowledgement may take.
	ackWait = 10 * time.Second
)

// publish appends a batch. It returns the highest revision given, and an error
// when any message was not stored; those before and after it may have been.
func (l *Log) publish(ctx context.Context, batch []entry) (uint64, error) {
	timer := time.NewTimer(ackWait) // of each message in its turn
	defer timer.Stop()
	var last uint64
	var failures int
	var failure error
	var stored []*Row
	settle := func(s sent) error {
		timer.Reset(ackWait)
		select {
		case ok := <-s.ack.Ok():
			last = max(last, ok.Sequence)
			if s.row != nil {
				s.row.give(ok.Sequence)
				stored = append(stored, s.row)
			}
		case err := <-s.ack.Err():
			if api, ok := errors.AsType[*jetstream.APIError](err); ok && s.forgotten && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
				s.msg.Header.Del(headerMore) // it comes after the batch
				var ok *jetstream.PubAck
				if ok, err = l.js.PublishMsg(ctx, s.msg, jetstream.WithExpectLastSequencePerSubject(0)); err == nil {
					last = max(last, ok.Sequence)
					return nil
				}
			}
			failures, failure = failures+1, err
		case <-timer.C:
			return errors.New("log: no answer from the store")
		case <-ctx.Done():
			return ctx.Err()
		}
		return nil
	}
	acks := make([]sent, 0, min(len(batch), inFlight))
	for i, e := range batch {
		if len(acks) == inFlight {
			if err := settle(acks[0]); err != nil {
				return last, err
			}
			acks = acks[1:]
		}
		msg := nats.NewMsg(l.prefix + e.key.subject())
		msg.Data = e.payload
		msg.Header.Set(headerCreated, fmt.Sprint(e.created))
		if e.earlier != (life{}) {
			msg.Header.Set(headerEarlier, fmt.Sprintf("%d %d", e.earlier.from, e.earlier.to))
		}
		if len(e.changed) > 0 {
			msg.Header.Set(headerChanged, encodeChanged(e.changed))
		}
		if i < len(batch)-1 {
			msg.Header.Set(headerMore, "1")
		}
		opts := []jetstream.PublishOpt{jetstream.WithExpectLastSequencePerSubject(e.expect), jetstream.WithStallWait(stallWait)}
		if e.deleted {
			msg.Header.Set(headerDeleted, "1")
			opts = append(opts, jetstream.WithMsgTTL(max(l.tombstones, time.Second)))
		}
		ack, err := l.js.PublishMsgAsync(msg, opts...)
		if err != nil {
			return last, fmt.Errorf("log: publish: %w", err)
		}
		s := sent{ack: ack, msg: msg, forgotten: e.forgotten}
		if len(batch) <= inFlight { // there is time until it is acknowledged
			s.row, _ = decodeRow(msg.Subject, msg.Header, msg.Data, 0, time.Now())
		}
		acks = append(acks, s)
	}
	for _, ack := range acks {
		if err := settle(ack); err != nil {
			return last, err
		}
	}
	if l.written != nil {
		l.written(l.epoch, stored)
	}
	if failures > 0 {
		return last, fmt.Errorf("log: %d of %d messages not stored: %w", failures, len(batch), failure)
	}
	return last, nil
}

const (
	// heartbeat is how often a server with nothing to tell says that it is there.
	// When two are missing it is taken for lost, and what it would have told is
	// asked of another one.
	heartbeat = time.Second
	pullFor   = 10 * time.Second
)

// follow hands every message of the log after a revision to apply,
// in order and one at a time, until stop is called. stop waits for a call of
// apply that is under way. pending is how many more messages are waiting.
func (l *Log) follow(ctx context.Context, after uint64, apply func(msg jetstream.Msg, revision uint64, at time.Time, pending uint64)) (stop func(), err error) {
	consumer, err := l.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1, ReplayPolicy: jetstream.ReplayInstantPolicy,
	})
	if err != nil {
		return nil, fmt.Errorf("log: consumer: %w", err)
	}
	consuming, err := consumer.Consume(func(msg jetstream.Msg) {
		meta, err := msg.Metadata()
		if err != nil {
			return // not a message of a stream
		}
		apply(msg, meta.Sequence.Stream, meta.Timestamp, meta.NumPending)
	}, jetstream.PullExpiry(pullFor), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return nil, fmt.Errorf("log: consume: %w", err)
	}
	return func() {
		consuming.Stop()
		<-consuming.Closed()
	}, nil
}

// lastOf is the highest revision of the log in a storage.
func lastOf(ctx context.Context, st *storage.Storage) (uint64, error) {
	stream, err := st.Peek(ctx, streamName)
	if err != nil {
		return 0, err
	}
	return stream.CachedInfo().State.LastSeq, nil
}

// lastRevision is the highest revision that the log ever had.
func (l *Log) lastRevision(ctx context.Context) (uint64, error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("log: %w", err)
	}
	return info.State.LastSeq, nil
}

// lastKept is the revision of the newest message that is still there.
func (l *Log) lastKept(ctx context.Context) (uint64, error) {
	msg, err := l.stream.GetLastMsgForSubject(ctx, l.prefix+">")
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("log: %w", err)
	}
	return msg.Sequence, nil
}

// rowKey is what identifies a notebook.
type rowKey struct{ cloud, location, id string }

// subject returns the subject of the row's messages, without the prefix that all
// have.
func (k rowKey) subject() string {
	return subjectToken(k.cloud) + "." + subjectToken(k.location) + "." + subjectToken(k.id)
}

var plainToken = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// subjectToken makes text safe as one token of a NATS subject: most ids stand
// as they are, others as "=" and their base64.
func subjectToken(text string) string {
	if plainToken.MatchString(text) {
		return text
	}
	return "=" + base64.RawURLEncoding.EncodeToString([]byte(text))
}

// parseSubject is the inverse of rowKey.subject, with or without the prefix.
func parseSubject(subject string) (rowKey, error) {
	parts := strings.Split(subject, ".")
	if len(parts) == 5 {
		parts = parts[2:]
	}
	if len(parts) != 3 {
		return rowKey{}, fmt.Errorf("log: unexpected subject %q", subject)
	}
	for i, part := range parts {
		if encoded, ok := strings.CutPrefix(part, "="); ok {
			raw, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil {
				return rowKey{}, fmt.Errorf("log: unexpected subject %q: %w", subject, err)
			}
			parts[i] = string(raw)
		}
	}
	return rowKey{parts[0], parts[1], parts[2]}, nil
}
