package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/natstest"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// asServer is the environment variable that makes the test binary the server.
const asServer = "NOTEBOOKD_TEST_AS_SERVER"

func TestMain(m *testing.M) {
	natstest.Main()
	_ = os.Setenv("LC_ALL", "C") // what is said first is expected in English
	if file := os.Getenv(asServer); file != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		code := run(ctx, []string{"--config", file}, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	if file := os.Getenv(asPlain); file != "" {
		fmt.Fprintln(os.Stderr, servePlain(file))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// child is a server in a process of its own.
type child struct {
	cmd     *exec.Cmd
	address string // of the gRPC door
	http    string // URL of the other one
	log     string // its file
}

// spawn starts a server with a configuration in a process of its own and waits
// until it is ready.
func spawn(tb testing.TB, config string) *child {
	tb.Helper()
	c := startChild(tb, config)
	c.untilReady(tb)
	return c
}

// startChild starts a server with a configuration in a process of its own.
func startChild(tb testing.TB, config string) *child {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "config.yaml")
	text := "grpc: {address: 127.0.0.1:0}\nhttp: {address: 127.0.0.1:0}\nlog: {level: warn}\n" + config
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return startSelf(tb, asServer, file)
}

// startSelf starts the test binary as something else: variable says as what, and
// file is for it.
func startSelf(tb testing.TB, variable, file string) *child {
	tb.Helper()
	c := &child{log: file + ".log"}
	log, err := os.Create(c.log)
	if err != nil {
		tb.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	c.cmd = exec.Command(self)
	c.cmd.Env = append(os.Environ(), variable+"="+file, "LC_ALL=C")
	c.cmd.Stdout, c.cmd.Stderr = log, log
	if err := c.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		_ = log.Close()
	})
	return c
}

// untilReady waits until the server is.
func (c *child) untilReady(tb testing.TB) {
	tb.Helper()
	if !c.readyWithin(tb.Context(), time.Minute) {
		data, _ := os.ReadFile(c.log) // there is none, perhaps
		tb.Fatalf("the server did not become ready:\n%s", data)
	}
}

// readyWithin waits until the server is ready, and reports whether it became so.
func (c *child) readyWithin(ctx context.Context, limit time.Duration) bool {
	return eventually(ctx, limit, func() bool {
		data, _ := os.ReadFile(c.log) // there is none yet, perhaps
		said := serves.FindSubmatch(data)
		if said == nil || !ready("http://"+string(said[2])) {
			return false
		}
		c.address, c.http = string(said[1]), "http://"+string(said[2])
		return true
	})
}

// ready reports whether a server is.
func ready(url string) bool {
	resp, err := http.Get(url + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// memory is what the process holds in memory, in bytes.
func (c *child) memory(tb testing.TB) float64 {
	tb.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		tb.Skipf("memory is read from /proc: %v", err)
	}
	_, text, _ := strings.Cut(string(data), "VmRSS:")
	kilobytes, err := strconv.Atoi(strings.Fields(text)[0])
	if err != nil {
		tb.Fatal(err)
	}
	return float64(kilobytes) * 1024
}

// serves is the first line of a server, with the addresses of its two doors.
var serves = regexp.MustCompile(`gRPC on (\S+), HTTP on (\S+)\.`)

// BenchmarkTenThousandWatchers holds 10,000 idle watches on one server in a
// process of its own. It reports what one costs in memory, and how long a change
// takes from the first watcher that is told to the last.
func BenchmarkTenThousandWatchers(b *testing.B) {
	const watchers, connections = 10000, 50
	fleet, err := cloudsim.Start(cloudsim.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(fleet.Close)
	server := spawn(b, "watch: {max_per_caller: 100000}\n"+fleet.ServerConfig())
	before := server.memory(b)

	ctx, cancel := context.WithCancel(b.Context())
	var readers sync.WaitGroup
	// told has room for what all watchers hear of one change.
	told := make(chan time.Time, watchers)
	synced := make(chan struct{}, watchers)
	var clients []*grpc.ClientConn
	for range connections {
		conn, err := grpc.NewClient(server.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		clients = append(clients, conn)
		for range watchers / connections {
			stream, err := notebookv1.NewNotebookServiceClient(conn).Watch(ctx, &notebookv1.WatchRequest{Snapshot: notebookv1.WatchRequest_SNAPSHOT_SKIP})
			if err != nil {
				b.Fatal(err)
			}
			readers.Go(func() {
				for {
					frame, err := stream.Recv()
					switch {
					case err != nil:
						return
					case frame.GetBookmark().GetKind() == notebookv1.Bookmark_KIND_SNAPSHOT_END:
						synced <- struct{}{}
					case frame.GetNotebook().GetType() == notebookv1.NotebookEvent_TYPE_ADDED:
						told <- time.Now()
					}
				}
			})
		}
	}
	for range watchers {
		<-synced
	}
	perWatcher := (server.memory(b) - before) / watchers

	var spread time.Duration
	b.ResetTimer()
	for range b.N {
		fleet.CoresHub.Add("xb3", 1)
		first := <-told
		last := first
		for range watchers - 1 {
			last = <-told
		}
		spread += last.Sub(first)
	}
	b.StopTimer()
	b.ReportMetric(perWatcher/1024, "KiB/watcher")
	b.ReportMetric(float64(spread.Milliseconds())/float64(b.N), "ms/first-to-last")
	cancel()
	readers.Wait()
	for _, conn := range clients {
		_ = conn.Close()
	}
}
