package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
)

const (
	defaultSync = 10 * time.Second
	lockName    = "notebookd.lock"
	notesName   = "notebookd.state"
	// reviveAfter is the pause before a server whose disk was full is started
	// again.
	reviveAfter = 5 * time.Second
)

// embedded is the NATS server of this process. It has no port.
type embedded struct {
	server     *server.Server
	log        *slog.Logger
	dir        string // of the data; empty in memory
	tempDir    string // removed by close; empty with a data directory
	sync       time.Duration
	syncAlways bool
	failed     atomic.Bool // something could not be written
	lock       *flock.Flock
	notes      *notes // nil in memory

	stop chan struct{} // closed by close, for revive
	wg   sync.WaitGroup
}

func startEmbedded(cfg Config) (_ *embedded, err error) {
	if cfg.Sync == 0 {
		cfg.Sync = defaultSync
	}
	e := &embedded{log: cfg.Logger, dir: cfg.DataDir, sync: cfg.Sync, syncAlways: cfg.SyncAlways, stop: make(chan struct{})}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	dir := cfg.DataDir
	if dir == "" {
		// Even with all streams in memory JetStream wants a place for its own
		// bookkeeping.
		if e.tempDir, err = os.MkdirTemp("", "notebookd-"); err != nil {
			return nil, fmt.Errorf("storage: temporary directory: %w", err)
		}
		dir = e.tempDir
	} else if err := e.claim(); err != nil {
		return nil, err
	}
	e.server, err = server.NewServer(&server.Options{
		ServerName: "notebookd", DontListen: true, JetStream: true, StoreDir: dir, NoSigs: true, DisableJetStreamBanner: true,
		JetStreamMaxMemory: maxMemory, JetStreamMaxStore: maxStore, SyncInterval: cfg.Sync, SyncAlways: cfg.SyncAlways,
	})
	if err != nil {
		return nil, fmt.Errorf("storage: embedded NATS: %w", err)
	}
	e.server.SetLoggerV2(natsLogger{cfg.Logger, &e.failed}, false, false, false)
	go e.server.Start() // ends with Shutdown, which close calls and waits for
	if !e.server.ReadyForConnections(20 * time.Second) {
		return nil, errors.New("storage: embedded NATS did not start within 20 s")
	}
	if e.dir != "" {
		e.wg.Go(e.revive)
	}
	return e, nil
}

const (
	maxMemory = 4 << 30
	maxStore  = 1 << 40
)

// claim makes the data directory this process's own.
func (e *embedded) claim() error {
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return fmt.Errorf("storage: data directory: %w", err)
	}
	lock := flock.New(filepath.Join(e.dir, lockName))
	ok, err := lock.TryLock()
	if err != nil {
		return fmt.Errorf("storage: data directory: lock: %w", err)
	}
	if !ok {
		return fmt.Errorf("storage: data directory %s is in use by another process; give each its own, or share a NATS cluster", e.dir)
	}
	e.lock = lock
	e.notes, err = openNotes(filepath.Join(e.dir, notesName), e.syncAlways)
	return err
}

// streams is the folder with the files of the streams.
func (e *embedded) streams() string { return filepath.Join(e.dir, "jetstream", "$G", "streams") }

// revive starts JetStream again after a write has failed, which is mostly because
// the disk was full: what could not be written once stays closed until then.
func (e *embedded) revive() {
	tick := time.NewTicker(reviveAfter)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.stop:
			return
		}
		if e.server.JetStreamEnabled() && !e.failed.Load() {
			continue
		}
		if err := e.writable(); err != nil {
			e.log.Error("the store cannot write: free some space, it goes on by itself then", "data_dir", e.dir, "error", err)
			continue
		}
		e.failed.Store(false)
		err := e.server.ShutdownJetStream()
		if err == nil {
			err = e.server.EnableJetStream(&server.JetStreamConfig{
				StoreDir: e.dir, MaxMemory: maxMemory, MaxStore: maxStore, SyncInterval: e.sync, SyncAlways: e.syncAlways,
			})
		}
		if err != nil {
			e.failed.Store(true)
			e.log.Error("the store could not be started again", "data_dir", e.dir, "error", err)
			continue
		}
		e.log.Warn("the store can write again", "data_dir", e.dir)
	}
}

// probeSize is how much has to fit on the disk before the store is started again.
const probeSize = 1 << 20

// writable reports whether the disk takes more.
func (e *embedded) writable() error {
	path := filepath.Join(e.dir, "notebookd.probe")
	err := os.WriteFile(path, make([]byte, probeSize), 0o600)
	if removeErr := os.Remove(path); err == nil {
		err = removeErr
	}
	return err
}

func (e *embedded) close() {
	close(e.stop)
	e.wg.Wait()
	if e.server != nil {
		e.server.Shutdown()
		e.server.WaitForShutdown()
	}
	if e.notes != nil {
		e.notes.close()
	}
	if e.lock != nil {
		_ = e.lock.Unlock() // it ends with the process anyway
	}
	if e.tempDir != "" {
		_ = os.RemoveAll(e.tempDir) // what is left of it is only rubbish in /tmp
	}
}

// notes is a small file beside the log with what the log must hold at least. The
// log itself cannot tell that it has lost its end.
type notes struct {
	file     *os.File
	boot     string
	previous Mark
	trusted  bool

	mu   sync.Mutex // guards what is below
	last Mark
	// written is set once this process has looked at what it found. Until then the
	// note of the process before stands.
	written bool
}

// note is the text of the file.
type note struct {
	Boot  string // of the machine, while which it was written
	Clean bool   // the process has ended in good order, and everything is on the disk
	Mark
}

// noteSize is that of the file: it is written in place.
const noteSize = 256

func openNotes(path string, syncAlways bool) (*notes, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("storage: data directory: %w", err)
	}
	n := &notes{file: file, boot: bootID()}
	buf := make([]byte, noteSize)
	size, _ := file.ReadAt(buf, 0) // a short file has no note
	var was note
	if json.Unmarshal(buf[:size], &was) == nil {
		n.previous = was.Mark
		n.trusted = was.Clean || syncAlways || n.boot != "" && was.Boot == n.boot
	}
	n.last = n.previous
	return n, nil
}

// bootID identifies the time since the machine was started, where the system
// tells.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func (n *notes) write(m Mark) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m != n.last || !n.written {
		n.last, n.written = m, true
		n.put(note{Boot: n.boot, Mark: m})
	}
}

// put writes the file in one piece, so that a process that is killed leaves the
// old one or the new one. A failure leaves an old one, or none that can be read:
// both are noticed, as they should be.
func (n *notes) put(what note) {
	data, err := json.Marshal(what)
	if err != nil || len(data) > noteSize {
		return // it cannot be: the fields are short
	}
	_, _ = n.file.WriteAt(append(data, strings.Repeat(" ", noteSize-len(data))...), 0)
}

func (n *notes) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.written {
		n.put(note{Boot: n.boot, Clean: true, Mark: n.last})
		_ = n.file.Sync()
	}
	_ = n.file.Close()
}
