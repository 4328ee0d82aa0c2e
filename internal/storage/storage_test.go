package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/notebookd/notebookd/internal/natstest"
)

func TestMain(m *testing.M) {
	natstest.Main()
	os.Exit(m.Run())
}

func open(t *testing.T, cfg Config) *Storage {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDataDirectoryBelongsToOneProcess(t *testing.T) {
	dir := t.TempDir()
	first := open(t, Config{DataDir: dir})
	if _, err := Open(Config{DataDir: dir}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a second one was let in: %v", err)
	}
	first.Close()
	open(t, Config{DataDir: dir}).Close()
}

func TestDataDirectoryThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{DataDir: filepath.Join(file, "below")}); err == nil {
		t.Error("no error")
	}
}

// TestNotes: what a process has noted is known to the next one, unless the
// machine went down in between.
func TestNotes(t *testing.T) {
	noted := Mark{Revision: 7, Rows: 3}
	for name, tt := range map[string]struct {
		clean, reboot, always bool
		known                 bool
	}{
		"a clean end":                            {clean: true, known: true},
		"a clean end, and the machine went down": {clean: true, reboot: true, known: true},
		"killed":                                 {known: true},
		"the machine went down":                  {reboot: true},
		"the machine went down, but every write was forced to the disk": {reboot: true, always: true, known: true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), notesName)
			n, err := openNotes(path, tt.always)
			if err != nil {
				t.Fatal(err)
			}
			if n.trusted {
				t.Error("a file that did not exist is trusted")
			}
			if tt.reboot {
				n.boot = "another boot"
			}
			n.write(noted)
			if tt.clean {
				n.close()
			}
			next, err := openNotes(path, tt.always)
			if err != nil {
				t.Fatal(err)
			}
			if next.trusted != tt.known || next.previous != noted {
				t.Errorf("known %v, %+v; want %v, %+v", next.trusted, next.previous, tt.known, noted)
			}
		})
	}
}

func TestNotesThatAreNoNotes(t *testing.T) {
	path := filepath.Join(t.TempDir(), notesName)
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 3*noteSize)), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := openNotes(path, true)
	if err != nil || n.trusted {
		t.Errorf("trusted %v, %v", n.trusted, err)
	}
}

// TestUnanswered: what a cluster without a leader did not answer is asked again, within
// the time that there is.
func TestUnanswered(t *testing.T) {
	t.Parallel()
	node, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	node.Start()
	t.Cleanup(node.Shutdown)
	if !node.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	leader, err := nats.Connect(node.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leader.Close)
	var asked atomic.Int64
	if _, err := leader.Subscribe("$JS.API.STREAM.INFO.*", func(m *nats.Msg) {
		if asked.Add(1) <= 1 {
			return
		}
		_ = m.Respond([]byte(`{"type": "io.nats.jetstream.api.v1.stream_info_response", "error": {"code": 503, "err_code": 10008, "description": "elected"}}`))
	}); err != nil {
		t.Fatal(err)
	}
	if err := leader.Flush(); err != nil {
		t.Fatal(err)
	}
	s := open(t, Config{Cluster: &ClusterConfig{URLs: []string{node.ClientURL()}}})
	t.Cleanup(s.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := s.Bucket(ctx, "A", 0); err == nil || !strings.Contains(err.Error(), "elected") || asked.Load() != 2 {
		t.Errorf("after %d questions: %v", asked.Load(), err)
	}
	asked.Store(-1000)
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for name, ctx := range map[string]context.Context{"in a short time": short, "without a deadline": t.Context()} {
		if _, err := s.Peek(ctx, "A"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, without an answer: %v", name, err)
		}
	}
}

// TestMismatch: a stream that is not as it should be is refused, and not changed.
func TestMismatch(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{DataDir: dir})
	defer s.Close()
	ctx := t.Context()
	if _, err := s.Bucket(ctx, "LEASES", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Bucket(ctx, "LEASES", 5*time.Second); err != nil {
		t.Errorf("the same bucket again: %v", err)
	}
	_, err := s.Bucket(ctx, "LEASES", 7*time.Second)
	mismatch, ok := errors.AsType[*MismatchError](err)
	if !ok || len(mismatch.Problems) != 1 || !strings.Contains(err.Error(), "max age is 5s and should be 7s") {
		t.Errorf("error = %v", err)
	}
	stream, err := s.JetStream().Stream(ctx, "KV_NOTEBOOKD_LEASES")
	if err != nil || stream.CachedInfo().Config.MaxAge != 5*time.Second {
		t.Errorf("it was changed: %v, %v", stream, err)
	}
}

// TestReplaced: a stream that was deleted, or made anew, is noticed.
func TestReplaced(t *testing.T) {
	s := open(t, Config{})
	defer s.Close()
	ctx := t.Context()
	want := jetstream.StreamConfig{Name: "ROWS", Subjects: []string{"notebookd.row.>"}, MaxMsgsPerSubject: 1}
	if _, err := s.Stream(ctx, want); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(ctx); err != nil {
		t.Errorf("untouched: %v", err)
	}
	if err := s.JetStream().DeleteStream(ctx, "NOTEBOOKD_ROWS"); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(ctx); !errors.Is(err, ErrReplaced) {
		t.Errorf("deleted: %v", err)
	}
	want.Name, want.Storage = "NOTEBOOKD_ROWS", jetstream.MemoryStorage
	if _, err := s.JetStream().CreateStream(ctx, want); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(ctx); !errors.Is(err, ErrReplaced) {
		t.Errorf("made anew: %v", err)
	}
	s.Begin()
	if err := s.Verify(ctx); err != nil {
		t.Errorf("opened anew: %v", err)
	}
}

// TestFlush forces a bucket to the disk. That it gets there cannot be seen from
// here, but that its files are found can.
func TestFlush(t *testing.T) {
	s := open(t, Config{DataDir: t.TempDir()})
	defer s.Close()
	if err := s.Flush("CHANGES"); err == nil {
		t.Error("a bucket that does not exist was forced to the disk")
	}
	bucket, err := s.Bucket(t.Context(), "CHANGES", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Put(t.Context(), "a", []byte("b")); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush("CHANGES"); err != nil {
		t.Error(err)
	}
}

// TestCluster: the same streams on a cluster, under a prefix of their own.
func TestCluster(t *testing.T) {
	nats := natstest.Start(t, 1)
	one := open(t, Config{Cluster: &ClusterConfig{URLs: nats.URLs(), Replicas: 1, Prefix: "one"}})
	defer one.Close()
	two := open(t, Config{Cluster: &ClusterConfig{URLs: nats.URLs(), Replicas: 1, Prefix: "two"}})
	defer two.Close()
	for i, s := range []*Storage{one, two} {
		bucket, err := s.Bucket(t.Context(), "META", 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bucket.Create(t.Context(), "key", []byte(fmt.Sprint(i))); err != nil {
			t.Errorf("prefix %d: %v", i, err)
		}
	}
	three := open(t, Config{Cluster: &ClusterConfig{URLs: nats.URLs(), Replicas: 3, Prefix: "one"}})
	defer three.Close()
	_, err := three.Bucket(t.Context(), "META", 0)
	if _, ok := errors.AsType[*MismatchError](err); !ok || !strings.Contains(err.Error(), "replicas is 1 and should be 3") {
		t.Errorf("other replicas: %v", err)
	}
}

// TestUnreachableCluster: opening does not wait, and what is asked then fails soon.
func TestUnreachableCluster(t *testing.T) {
	s := open(t, Config{Cluster: &ClusterConfig{URLs: []string{"nats://127.0.0.1:1"}}})
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := s.Bucket(ctx, "META", 0); err == nil || s.Connected() {
		t.Errorf("error %v, connected %v", err, s.Connected())
	}
}
