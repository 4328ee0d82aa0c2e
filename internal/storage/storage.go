// Package storage opens the JetStream that everything is kept in: embedded in
// the process, in memory or in a data directory, or a cluster of NATS servers
// that several replicas share.
//
// It knows streams and buckets and how durable they are, but not what is in them.
package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Config configures a Storage. Zero fields have the documented default.
type Config struct {
	// DataDir is where the embedded server keeps its files. Empty means in memory.
	DataDir string
	// Sync is how often the embedded server forces what it wrote to the disk.
	// Default 10 s. SyncAlways does it with every write instead.
	Sync       time.Duration
	SyncAlways bool
	// Cluster is a NATS cluster to use instead of the embedded server.
	Cluster *ClusterConfig
	// Logger gets what the connection and the embedded server have to say.
	// Default: none.
	Logger *slog.Logger
}

// Storage is a JetStream. It is safe for concurrent use.
type Storage struct {
	log      *slog.Logger
	conn     *nats.Conn
	js       jetstream.JetStream
	kind     jetstream.StorageType
	replicas int
	prefix   string
	shared   bool
	embedded *embedded // nil with a cluster

	mu     sync.Mutex           // guards opened
	opened map[string]time.Time // streams that were opened since Begin → when they were made
}

// defaultPrefix is what the names of streams, buckets and subjects begin with.
const defaultPrefix = "notebookd"

// Open starts the embedded server, or begins to connect to the cluster: it does
// not wait for one that cannot be reached.
func Open(cfg Config) (_ *Storage, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Storage{log: cfg.Logger, replicas: 1, prefix: defaultPrefix, kind: jetstream.FileStorage, opened: map[string]time.Time{}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if cfg.Cluster != nil {
		s.shared = true
		if cfg.Cluster.Prefix != "" {
			s.prefix = cfg.Cluster.Prefix
		}
		s.replicas = cfg.Cluster.replicas()
		if s.conn, err = connect(*cfg.Cluster, cfg.Logger); err != nil {
			return nil, err
		}
	} else {
		if cfg.DataDir == "" {
			s.kind = jetstream.MemoryStorage
		}
		if s.embedded, err = startEmbedded(cfg); err != nil {
			return nil, err
		}
		s.conn, err = nats.Connect("", nats.InProcessServer(s.embedded.server), nats.Name("notebookd"), nats.MaxReconnects(-1))
		if err != nil {
			return nil, fmt.Errorf("storage: embedded NATS: %w", err)
		}
	}
	s.js, err = jetstream.New(s.conn, jetstream.WithPublishAsyncMaxPending(maxPending))
	if err != nil {
		return nil, fmt.Errorf("storage: jetstream: %w", err)
	}
	return s, nil
}

// maxPending is how many messages may wait for their acknowledgement in all.
const maxPending = 16384

// Shared reports whether other processes may use the same storage.
func (s *Storage) Shared() bool { return s.shared }

// JetStream returns the context to publish with.
func (s *Storage) JetStream() jetstream.JetStream { return s.js }

// Conn returns the connection, for messages that are not kept.
func (s *Storage) Conn() *nats.Conn { return s.conn }

// Connected reports whether the connection stands at this moment.
func (s *Storage) Connected() bool { return s.conn.IsConnected() }

// Subject returns a subject of this installation.
func (s *Storage) Subject(name string) string { return s.prefix + "." + name }

// streamName returns the name of a stream of this installation.
func (s *Storage) streamName(name string) string { return strings.ToUpper(s.prefix) + "_" + name }

// Begin forgets which streams were opened, before they are opened anew.
func (s *Storage) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.opened)
}

// MismatchError is a stream that exists and is not as the configuration wants
// it. Nobody changes it silently.
type MismatchError struct {
	Stream   string
	Problems []string
}

// Error implements error.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("storage: stream %s is not as configured: %s; change the configuration, or the stream with the nats tool",
		e.Stream, strings.Join(e.Problems, ", "))
}

// Stream opens a stream, or makes it. Storage, replicas and the prefix of the
// name are this Storage's.
func (s *Storage) Stream(ctx context.Context, want jetstream.StreamConfig) (jetstream.Stream, error) {
	want.Name = s.streamName(want.Name)
	return s.open(ctx, want)
}

// Bucket opens a bucket of keys and values, or makes it. What was not written
// for keep goes; zero keeps it for ever.
func (s *Storage) Bucket(ctx context.Context, name string, keep time.Duration) (jetstream.KeyValue, error) {
	name = s.streamName(name)
	duplicates := 2 * time.Minute
	if keep > 0 {
		duplicates = min(duplicates, keep)
	}
	// As the client library would make it, but for direct reads: those are
	// answered by any server, and one that lags may not know of a key yet.
	if _, err := s.open(ctx, jetstream.StreamConfig{
		Name: "KV_" + name, Subjects: []string{"$KV." + name + ".>"}, MaxMsgsPerSubject: 1, MaxAge: keep, Duplicates: duplicates,
		AllowRollup: true, DenyDelete: true, Discard: jetstream.DiscardNew, MaxBytes: -1, MaxMsgs: -1, MaxMsgSize: -1, MaxConsumers: -1,
	}); err != nil {
		return nil, err
	}
	bucket, err := asked(ctx, func(ctx context.Context) (jetstream.KeyValue, error) { return s.js.KeyValue(ctx, name) })
	if err != nil {
		return nil, fmt.Errorf("storage: bucket %s: %w", name, err)
	}
	return bucket, nil
}

// Peek returns a stream that exists, with what it holds at this moment.
func (s *Storage) Peek(ctx context.Context, name string) (jetstream.Stream, error) {
	stream, err := s.stream(ctx, s.streamName(name))
	if err != nil {
		return nil, fmt.Errorf("storage: stream %s: %w", s.streamName(name), err)
	}
	return stream, nil
}

func (s *Storage) stream(ctx context.Context, name string) (jetstream.Stream, error) {
	return asked(ctx, func(ctx context.Context) (jetstream.Stream, error) { return s.js.Stream(ctx, name) })
}

// answeredWithin is how long an answer is waited for before it is asked again.
const answeredWithin = 5 * time.Second

// asked asks until there is an answer, as long as ctx has time; without a deadline it
// asks once. While a cluster elects its leaders, it may answer nothing at all, and what
// was asked then is answered by no leader later.
func asked[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	_, ends := ctx.Deadline()
	for {
		once, cancel := context.WithTimeout(ctx, answeredWithin)
		answer, err := ask(once)
		cancel()
		if err == nil || !ends || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return answer, err
		}
	}
}

func (s *Storage) open(ctx context.Context, want jetstream.StreamConfig) (jetstream.Stream, error) {
	want.Storage, want.Replicas = s.kind, s.replicas
	stream, err := s.stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if err := s.setAside(want.Name); err != nil {
			return nil, err
		}
		stream, err = asked(ctx, func(ctx context.Context) (jetstream.Stream, error) { return s.js.CreateStream(ctx, want) })
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another replica was faster
			stream, err = s.stream(ctx, want.Name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("storage: stream %s: %w", want.Name, err)
	}
	info := stream.CachedInfo()
	if problems := s.compare(want, info.Config); len(problems) > 0 {
		return nil, &MismatchError{want.Name, problems}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened[want.Name] = info.Created
	return stream, nil
}

// setAside moves away the files of a stream that the embedded server could not
// read. A new stream over them would not be read the next time either.
func (s *Storage) setAside(stream string) error {
	if s.embedded == nil || s.embedded.dir == "" {
		return nil
	}
	from := filepath.Join(s.embedded.streams(), stream)
	if _, err := os.Stat(from); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	to := filepath.Join(s.embedded.dir, "damaged", stream+"-"+time.Now().UTC().Format("20060102T150405.000000000"))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	s.log.Error("files of a stream are damaged: they are set aside, and the stream begins anew", "stream", stream, "files", to)
	return nil
}

// compare lists in what a stream that exists differs from the one that is wanted.
func (s *Storage) compare(want, have jetstream.StreamConfig) []string {
	var problems []string
	differs := func(what string, want, have any) {
		if fmt.Sprint(want) != fmt.Sprint(have) {
			problems = append(problems, fmt.Sprintf("%s is %v and should be %v", what, have, want))
		}
	}
	slices.Sort(have.Subjects)
	differs("subjects", want.Subjects, have.Subjects)
	differs("storage", want.Storage, have.Storage)
	differs("replicas", want.Replicas, have.Replicas)
	differs("max messages per subject", want.MaxMsgsPerSubject, have.MaxMsgsPerSubject)
	differs("max age", want.MaxAge, have.MaxAge)
	differs("retention", want.Retention, have.Retention)
	differs("message TTLs allowed", want.AllowMsgTTL, have.AllowMsgTTL)
	differs("a limit of messages", max(want.MaxMsgs, 0), max(have.MaxMsgs, 0))
	differs("a limit of bytes", max(want.MaxBytes, 0), max(have.MaxBytes, 0))
	differs("a mirror", false, have.Mirror != nil || len(have.Sources) > 0)
	differs("sealed", false, have.Sealed)
	if s.shared {
		differs("direct reads allowed", want.AllowDirect, have.AllowDirect)
	}
	return problems
}

// ErrReplaced says that a stream is not the one any more that was opened.
var ErrReplaced = errors.New("storage: a stream was deleted or replaced")

// Verify reports whether all streams that were opened can be reached and are
// still the same ones.
func (s *Storage) Verify(ctx context.Context) error {
	s.mu.Lock()
	opened := make(map[string]time.Time, len(s.opened))
	for name, made := range s.opened {
		opened[name] = made
	}
	s.mu.Unlock()
	for name, made := range opened {
		stream, err := s.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("%w: %s is gone", ErrReplaced, name)
		}
		if err != nil {
			return fmt.Errorf("storage: stream %s: %w", name, err)
		}
		if !stream.CachedInfo().Created.Equal(made) {
			return fmt.Errorf("%w: %s is another one", ErrReplaced, name)
		}
	}
	return nil
}

// Flush forces what a bucket holds to the disk, whatever the sync policy. It is
// for what must not be lost with the machine. In memory it has nothing to do,
// and a cluster has its own copies.
func (s *Storage) Flush(bucket string) error {
	if s.embedded == nil || s.embedded.dir == "" || s.embedded.syncAlways {
		return nil
	}
	return syncFiles(filepath.Join(s.embedded.streams(), "KV_"+s.streamName(bucket), "msgs"))
}

func syncFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	sync := func(path string) error {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil // what it held is elsewhere by now
		}
		if err != nil {
			return fmt.Errorf("storage: %w", err)
		}
		defer func() { _ = f.Close() }()
		if err := f.Sync(); err != nil {
			return fmt.Errorf("storage: %w", err)
		}
		return nil
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".blk") {
			if err := sync(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return sync(dir)
}

// Mark is what a process notes of the log for the one after it.
type Mark struct {
	Revision uint64 // the last one that anybody was shown
	Rows     int    // that were live then
}

// Mark notes what is about to be shown. It does nothing without a data
// directory.
func (s *Storage) Mark(m Mark) {
	if s.embedded != nil && s.embedded.notes != nil {
		s.embedded.notes.write(m)
	}
}

// Previous returns what the process before noted last. known is false when
// there is no such note, or when what was written to the disk after it may be
// lost: the machine has gone down since, and not everything was forced to the
// disk.
func (s *Storage) Previous() (m Mark, known bool) {
	if s.embedded == nil || s.embedded.notes == nil {
		return Mark{}, true // nothing outlives the process, or the cluster keeps it
	}
	return s.embedded.notes.previous, s.embedded.notes.trusted
}

// Close ends the connection, stops the embedded server and waits for it. Call
// it once, after everything that uses the Storage has ended.
func (s *Storage) Close() {
	if s.conn != nil {
		s.conn.Close()
	}
	if s.embedded != nil {
		s.embedded.close()
	}
}

// natsLogger passes on what the embedded server warns of. Its notices speak of
// its own start and stop and interest nobody.
type natsLogger struct {
	log *slog.Logger
	// failed is set when the server says that it could not write: it does not tell
	// in another way.
	failed *atomic.Bool
}

var _ server.Logger = natsLogger{}

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
	if strings.Contains(format, "write error") || strings.Contains(format, "failed to store") || strings.Contains(format, "DISABLED") {
		n.failed.Store(true)
	}
	n.log.Error("embedded nats", "message", fmt.Sprintf(format, v...))
}
