package inventory

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName    = "NOTEBOOKD_ROWS"
	subjectPrefix = "notebookd.row."
	metaBucket    = "NOTEBOOKD_META"
	tokenKeyName  = "token-key"
	epochName     = "notebookd-epoch"

	// Headers of a log message, beside NATS's own.
	headerDeleted = "Notebookd-Deleted" // "1" on a tombstone
	headerCreated = "Notebookd-Created" // revision at which the row appeared; 0 for this one
	headerEarlier = "Notebookd-Earlier" // when it came and went before, if it did: appeared and gone, two revisions
	headerChanged = "Notebookd-Changed" // path=revision, …; revision 0 for this one
	headerMore    = "Notebookd-More"    // "1" on all but the last message of a batch
)

// LogConfig configures a Log. Zero fields have the documented default.
type LogConfig struct {
	// DataDir is where the log is kept across restarts. Empty means in memory.
	DataDir string
	// Tombstones is how long a deletion is remembered. Default 24 h.
	Tombstones time.Duration
	// Logger gets what the embedded NATS server warns of. Default: none.
	Logger *slog.Logger
}

// Log is the one ordered record of what is known: a JetStream stream with one
// message per notebook, whose stream sequence is the revision of the whole
// inventory. It runs in process on an embedded NATS server without any port.
// It is safe for concurrent use.
type Log struct {
	server     *server.Server
	conn       *nats.Conn
	js         jetstream.JetStream
	stream     jetstream.Stream
	epoch      string
	tokenKey   []byte
	tombstones time.Duration
	storage    jetstream.StorageType
	tempDir    string // removed by Close; empty with a data directory
}

// OpenLog starts the embedded server and opens, or creates, the stream. A data
// directory belongs to one process at a time.
func OpenLog(ctx context.Context, cfg LogConfig) (_ *Log, err error) {
	if cfg.Tombstones == 0 {
		cfg.Tombstones = 24 * time.Hour
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{tombstones: cfg.Tombstones}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()

	storage, dir := jetstream.FileStorage, cfg.DataDir
	if dir == "" {
		// Even with all streams in memory JetStream wants a place for its own
		// bookkeeping.
		storage = jetstream.MemoryStorage
		if l.tempDir, err = os.MkdirTemp("", "notebookd-"); err != nil {
			return nil, fmt.Errorf("log: temporary directory: %w", err)
		}
		dir = l.tempDir
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("log: data directory: %w", err)
	}
	l.storage = storage
	l.server, err = server.NewServer(&server.Options{
		ServerName: "notebookd", DontListen: true, JetStream: true, StoreDir: dir, NoSigs: true,
		DisableJetStreamBanner: true, JetStreamMaxMemory: 4 << 30, JetStreamMaxStore: 1 << 40,
	})
	if err != nil {
		return nil, fmt.Errorf("log: embedded NATS: %w", err)
	}
	l.server.SetLoggerV2(natsLogger{cfg.Logger}, false, false, false)
	go l.server.Start() // ends with Shutdown, which Close calls and waits for
	if !l.server.ReadyForConnections(20 * time.Second) {
		return nil, errors.New("log: embedded NATS did not start within 20 s")
	}
	l.conn, err = nats.Connect("", nats.InProcessServer(l.server), nats.Name("notebookd"), nats.MaxReconnects(-1))
	if err != nil {
		return nil, fmt.Errorf("log: connect: %w", err)
	}
	l.js, err = jetstream.New(l.conn, jetstream.WithPublishAsyncMaxPending(inFlight*publishersAtOnce))
	if err != nil {
		return nil, fmt.Errorf("log: jetstream: %w", err)
	}
	if err := l.openStream(ctx); err != nil {
		return nil, err
	}
	if err := l.openMeta(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Log) openStream(ctx context.Context) error {
	stream, err := l.js.Stream(ctx, streamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = l.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: streamName, Subjects: []string{subjectPrefix + ">"}, Storage: l.storage,
			MaxMsgsPerSubject: 1, AllowMsgTTL: true, AllowDirect: true,
			Metadata: map[string]string{epochName: uuid.NewString()},
		})
	}
	if err != nil {
		return fmt.Errorf("log: stream %s: %w", streamName, err)
	}
	l.stream = stream
	l.epoch = stream.CachedInfo().Config.Metadata[epochName]
	if l.epoch == "" {
		return fmt.Errorf("log: stream %s was not made by notebookd", streamName)
	}
	return nil
}

// Bucket opens, or makes, a bucket of keys and values beside the log. What was
// not written for keep goes; zero keeps it for ever.
func (l *Log) Bucket(ctx context.Context, name string, keep time.Duration) (jetstream.KeyValue, error) {
	bucket, err := l.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, Storage: l.storage, TTL: keep})
	if err != nil {
		return nil, fmt.Errorf("log: bucket %s: %w", name, err)
	}
	return bucket, nil
}

func (l *Log) openMeta(ctx context.Context) error {
	meta, err := l.Bucket(ctx, metaBucket, 0)
	if err != nil {
		return err
	}
	fresh := make([]byte, 32)
	rand.Read(fresh) // never fails
	if _, err := meta.Create(ctx, tokenKeyName, fresh); err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
		return fmt.Errorf("log: make the token key: %w", err)
	}
	entry, err := meta.Get(ctx, tokenKeyName)
	if err != nil {
		return fmt.Errorf("log: read the token key: %w", err)
	}
	l.tokenKey = entry.Value()
	return nil
}

// Epoch identifies the log: it changes when the log is made anew, and with it
// all revisions lose their meaning.
func (l *Log) Epoch() string { return l.epoch }

// TokenKey is the key of page and resume tokens, made once and kept in the log.
func (l *Log) TokenKey() []byte { return l.tokenKey }

// Tombstones is how long deletions are remembered.
func (l *Log) Tombstones() time.Duration { return l.tombstones }

// Close stops the embedded server and waits for it. Call it once, after
// everything that uses the Log has ended.
func (l *Log) Close() {
	if l.conn != nil {
		l.conn.Close()
	}
	if l.server != nil {
		l.server.Shutdown()
		l.server.WaitForShutdown()
	}
	if l.tempDir != "" {
		_ = os.RemoveAll(l.tempDir) // what is left of it is only rubbish in /tmp
	}
}

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
	forgotten bool // see entry
}

const (
	// inFlight bounds the messages of one batch that wait for their
	// acknowledgement: the server is kept busy, and nobody waits long for it.
	inFlight = 256
	// publishersAtOnce times that many messages may wait in all.
	publishersAtOnce = 64
	// stallWait is how long a message waits for one of those places.
	stallWait = 30 * time.Second
)

// publish appends a batch. It returns the highest revision given, and an error
// when any message was not stored; those before and after it may have been.
func (l *Log) publish(ctx context.Context, batch []entry) (uint64, error) {
	var last uint64
	var failures int
	var failure error
	settle := func(s sent) error {
		select {
		case ok := <-s.ack.Ok():
			last = max(last, ok.Sequence)
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
		msg := nats.NewMsg(e.key.subject())
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
		acks = append(acks, sent{ack, msg, e.forgotten})
	}
	for _, ack := range acks {
		if err := settle(ack); err != nil {
			return last, err
		}
	}
	if failures > 0 {
		return last, fmt.Errorf("log: %d of %d messages not stored: %w", failures, len(batch), failure)
	}
	return last, nil
}

// follow hands every message of the log, from the first kept one on, to apply,
// in order and one at a time, until stop is called. stop waits for a call of
// apply that is under way. pending is how many more messages are waiting.
func (l *Log) follow(ctx context.Context, apply func(msg jetstream.Msg, revision uint64, at time.Time, pending uint64)) (stop func(), err error) {
	consumer, err := l.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return nil, fmt.Errorf("log: consumer: %w", err)
	}
	consuming, err := consumer.Consume(func(msg jetstream.Msg) {
		meta, err := msg.Metadata()
		if err != nil {
			return // not a message of a stream
		}
		apply(msg, meta.Sequence.Stream, meta.Timestamp, meta.NumPending)
	})
	if err != nil {
		return nil, fmt.Errorf("log: consume: %w", err)
	}
	return func() {
		consuming.Stop()
		<-consuming.Closed()
	}, nil
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
	msg, err := l.stream.GetLastMsgForSubject(ctx, subjectPrefix+">")
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

// subject returns the subject of the row's messages.
func (k rowKey) subject() string {
	return subjectPrefix + subjectToken(k.cloud) + "." + subjectToken(k.location) + "." + subjectToken(k.id)
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

// parseSubject is the inverse of rowKey.subject.
func parseSubject(subject string) (rowKey, error) {
	parts := strings.Split(strings.TrimPrefix(subject, subjectPrefix), ".")
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

// natsLogger passes on what the embedded server warns of. Its notices speak of
// its own start and stop and interest nobody.
type natsLogger struct{ log *slog.Logger }

func (natsLogger) Noticef(string, ...any) {}
func (natsLogger) Debugf(string, ...any)  {}
func (natsLogger) Tracef(string, ...any)  {}
func (n natsLogger) Warnf(format string, v ...any) {
	n.log.Warn("embedded nats", "message", fmt.Sprintf(format, v...))
}
func (n natsLogger) Fatalf(format string, v ...any) {
	n.log.Error("embedded nats", "message", fmt.Sprintf(format, v...))
}
func (n natsLogger) Errorf(format string, v ...any) {
	n.log.Error("embedded nats", "message", fmt.Sprintf(format, v...))
}
