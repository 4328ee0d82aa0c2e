package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// serverBinary is the server that all tests run against. It is built once.
var serverBinary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "notebookctl")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		serverBinary = filepath.Join(dir, "server")
		if out, err := exec.Command("go", "build", "-o", serverBinary, "../server").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
			return 1
		}
		return m.Run()
	}())
}

// buffer is a bytes.Buffer that may be read while it is written.
type buffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// server is a running notebookd.
type server struct {
	config  string // file
	grpc    string
	http    string
	process *exec.Cmd
	log     *buffer
}

// simulate starts clouds whose notebooks do nothing by themselves.
func simulate(t *testing.T, cfg cloudsim.Config) *cloudsim.Fleet {
	t.Helper()
	cfg.Seed = 1
	fleet, err := cloudsim.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	return fleet
}

// serve starts a server on clouds. more is the rest of its configuration.
func serve(t *testing.T, fleet *cloudsim.Fleet, more string) *server {
	t.Helper()
	s := &server{config: filepath.Join(t.TempDir(), "notebookd.yaml"), grpc: "127.0.0.1:0"}
	t.Cleanup(func() { s.stop(t) })
	s.configure(t, fleet, more)
	s.start(t)
	s.ready(t)
	return s
}

func (s *server) configure(t *testing.T, fleet *cloudsim.Fleet, more string) {
	t.Helper()
	config := fmt.Sprintf("grpc: {address: %q}\nhttp: {address: \"127.0.0.1:0\"}\ndrain: 1s\n%s\n%s", s.grpc, more,
		strings.ReplaceAll(fleet.ServerConfig(), "    poll:", "    breaker: {open_for: 2s}\n    poll:"))
	if err := os.WriteFile(s.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

var announced = regexp.MustCompile(`gRPC on (\S+), HTTP on (\S+)\.`)

// start starts the process, and waits until it says where it listens.
func (s *server) start(t *testing.T) {
	t.Helper()
	s.log = &buffer{}
	s.process = exec.Command(serverBinary, "--config", s.config)
	s.process.Stderr, s.process.Env = s.log, append(os.Environ(), "LC_ALL=C")
	out, err := s.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := announced.FindStringSubmatch(lines.Text()); m != nil {
			s.grpc, s.http = m[1], m[2]
			return
		}
	}
	t.Fatalf("the server did not start: %s", s.log)
}

// ready waits until every location was read.
func (s *server) ready(t *testing.T) {
	t.Helper()
	within(t, 20*time.Second, "the server is ready", func() bool {
		answer, err := http.Get("http://" + s.http + "/readyz")
		if err != nil {
			return false // TLS, or not yet
		}
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

func (s *server) stop(t *testing.T) {
	t.Helper()
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = s.process.Wait()                          // by that signal
	s.process = nil
}

// within waits until something is so.
func within(t *testing.T, limit time.Duration, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// caller runs the program with an environment of its own.
type caller struct {
	env map[string]string
}

func (s *server) caller(t *testing.T) *caller {
	t.Helper()
	home := t.TempDir()
	return &caller{map[string]string{"HOME": home, "XDG_CONFIG_HOME": home, "NOTEBOOKCTL_SERVER": s.grpc, "TERM": "xterm"}}
}

// with returns a caller whose environment is another in one thing.
func (c *caller) with(name, value string) *caller {
	env := map[string]string{name: value}
	for k, v := range c.env {
		if _, ok := env[k]; !ok {
			env[k] = v
		}
	}
	return &caller{env}
}

// result is what a run left.
type result struct {
	stdout, stderr string
	code           int
}

func (c *caller) run(t *testing.T, args ...string) result {
	t.Helper()
	return c.runIn(t, "", args...)
}

func (c *caller) runIn(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr buffer
	code := run(t.Context(), args, func(name string) string { return c.env[name] }, strings.NewReader(stdin), &stdout, &stderr)
	return result{stdout.String(), stderr.String(), code}
}

// want runs the program and fails unless it ends with a code.
func (c *caller) want(t *testing.T, code int, args ...string) result {
	t.Helper()
	r := c.run(t, args...)
	if r.code != code {
		t.Fatalf("%q ended with %d, want %d\n%s%s", args, r.code, code, r.stdout, r.stderr)
	}
	return r
}

// background is a run that goes on.
type background struct {
	stdout, stderr buffer
	cancel         context.CancelFunc
	code           chan int // gets the exit code, once
}

func (c *caller) start(t *testing.T, args ...string) *background {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b := &background{cancel: cancel, code: make(chan int, 1)}
	go func() {
		b.code <- run(ctx, args, func(name string) string { return c.env[name] }, strings.NewReader(""), &b.stdout, &b.stderr)
	}()
	t.Cleanup(cancel)
	return b
}

// end presses ctrl-C and returns the exit code.
func (b *background) end(t *testing.T) int {
	t.Helper()
	b.cancel()
	return b.wait(t)
}

func (b *background) wait(t *testing.T) int {
	t.Helper()
	select {
	case code := <-b.code:
		return code
	case <-time.After(20 * time.Second):
		t.Fatalf("it does not end\n%s%s", &b.stdout, &b.stderr)
		return -1
	}
}

// expect fails unless a text holds all of some parts, in their order.
func expect(t *testing.T, text string, parts ...string) {
	t.Helper()
	rest := text
	for _, part := range parts {
		i := strings.Index(rest, part)
		if i < 0 {
			t.Fatalf("%q is missing in\n%s", part, text)
		}
		rest = rest[i+len(part):]
	}
}

func refuse(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("%q is in\n%s", part, text)
		}
	}
}
