package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// pipes is a listener of connections in memory, from the address that each says.
type pipes struct {
	conns  chan net.Conn // handed over, not kept
	closed chan struct{} // closed by Close
	close  func()
}

func newPipes() *pipes {
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closed) })
	return p
}

// dial opens a connection. It returns nil when nobody listens any more.
func (p *pipes) dial(from netip.Addr) net.Conn {
	client, server := net.Pipe()
	select {
	case p.conns <- &pipeConn{server, &net.TCPAddr{IP: from.AsSlice(), Port: 1}}:
		return client
	case <-p.closed:
		return nil
	}
}

type pipeConn struct {
	net.Conn
	from net.Addr
}

// RemoteAddr implements net.Conn.
func (c *pipeConn) RemoteAddr() net.Addr { return c.from }

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error {
	p.close()
	return nil
}

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

var testAddresses = []netip.Addr{
	netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), // of one network
	netip.MustParseAddr("2001:db8:0:1::1"), netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(),
}

// TestConnectionLimit opens and closes connections at random, some of them twice, and
// compares what is counted with what is open.
func TestConnectionLimit(t *testing.T) {
	const total, perAddress = 12, 4
	for seed := range uint64(20) {
		rng := mathrand.New(mathrand.NewPCG(seed, 1))
		refused := make(chan struct{}) // for each connection, once it is closed
		l := &connectionLimit{exempt: netip.Addr.IsLoopback, refused: func() { refused <- struct{}{} }}
		l.total.Store(total)
		l.perAddress.Store(perAddress)
		line := newPipes()
		listener := l.listen(line)
		accepted := make(chan net.Conn) // closed by the goroutine below
		go func() {
			defer close(accepted)
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				accepted <- conn
			}
		}()
		var open []net.Conn
		count := map[netip.Addr]int{}
		for range 400 {
			if rng.IntN(3) > 0 {
				from := pick(rng, testAddresses...)
				fits := len(open) < total && (count[networkOf(from)] < perAddress || from.IsLoopback())
				client := line.dial(from)
				if fits {
					open = append(open, <-accepted)
					count[networkOf(from)]++
				} else if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Fatalf("seed %d: a connection too many: read gives %v", seed, err)
				} else {
					<-refused
				}
			} else if len(open) > 0 {
				i := rng.IntN(len(open))
				conn := open[i]
				open = slices.Delete(open, i, i+1)
				count[networkOf(addressOf(conn.RemoteAddr()))]--
				for range 1 + rng.IntN(2) {
					_ = conn.Close()
				}
			}
			l.mu.Lock()
			for addr, n := range count {
				if l.byAddr[addr] != n {
					t.Errorf("seed %d: %d connections of %v are counted, %d are open", seed, l.byAddr[addr], addr, n)
				}
			}
			if l.open != len(open) {
				t.Errorf("seed %d: %d connections are counted, %d are open", seed, l.open, len(open))
			}
			l.mu.Unlock()
		}
		var closing sync.WaitGroup
		for _, conn := range open {
			closing.Go(func() { _ = conn.Close() })
			closing.Go(func() { _ = conn.Close() })
		}
		closing.Wait()
		line.close()
		<-accepted
		if l.open != 0 || len(l.byAddr) != 0 {
			t.Errorf("seed %d: all are closed, but %d and %v are counted", seed, l.open, l.byAddr)
		}
	}
}

// TestRateLimit: a burst, then what is refilled; and who is refused is told the truth
// about when to come again.
func TestRateLimit(t *testing.T) {
	for _, perSecond := range []float64{0.3, 3, 7, 1000} {
		t.Run(fmt.Sprint(perSecond), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newRateLimit()
				limits := limitsConfig{CallsPerSecond: perSecond, Burst: 5}
				takes := func(caller string, n int) {
					t.Helper()
					for i := range n {
						if err := l.take(caller, limits); err != nil {
							t.Fatalf("call %d of %d: %v", i+1, n, err)
						}
					}
				}
				refuses := func() time.Duration {
					t.Helper()
					st := status.Convert(l.take("a", limits))
					if st.Code() != codes.ResourceExhausted {
						t.Fatalf("a call too many: %v", st)
					}
					for _, detail := range st.Details() {
						if info, ok := detail.(*errdetails.RetryInfo); ok {
							return info.GetRetryDelay().AsDuration()
						}
					}
					t.Fatal("no RetryInfo")
					return 0
				}
				takes("a", 5)
				for range 20 { // refusals cost nothing
					after := refuses()
					time.Sleep(after / 2)
					if again := refuses(); (after - after/2 - again).Abs() > 2 {
						t.Errorf("after half of %v, %v are left", after, again)
					}
					time.Sleep(after - after/2)
					takes("a", 1)
				}
				takes("b", 5) // others have their own
				time.Sleep(time.Hour)
				takes("a", 5) // no more than a burst is saved
				refuses()

				limits.CallsPerSecond, limits.Burst = 2*perSecond, 8
				before := refuses()
				if want := time.Duration(float64(time.Second) / limits.CallsPerSecond); (before - want).Abs() > time.Microsecond {
					t.Errorf("after a change of the rate: %v, want %v", before, want)
				}
				time.Sleep(time.Hour)
				takes("a", 8)
				refuses()
				limits.CallsPerSecond = 0 // no limit
				takes("a", 100)
			})
		})
	}
}

// strangers runs a server to which nobody is so near that no limit holds, and counts
// the calls that it refuses.
func strangers(t *testing.T, requestTime time.Duration, perAddress int64) (*process, *atomic.Int64) {
	t.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	var refused atomic.Int64
	p := launch(t, fleet.ServerConfig(), "", func(s *server) {
		s.streams.exempt = func(netip.Addr) bool { return false }
		count := s.streams.refused
		s.streams.refused = func() { refused.Add(1); count() }
		s.streams.perAddress.Store(perAddress)
		s.streams.requestTime.Store(int64(requestTime))
	})
	p.conn, err = grpc.NewClient(p.server.grpcListener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.conn.Close() })
	p.NotebookServiceClient = notebookv1.NewNotebookServiceClient(p.conn)
	p.until(t, "ready", func() bool { code, _ := p.get(t, "/readyz"); return code == http.StatusOK })
	return p, &refused
}

// counted is what a limit knows of.
func (l *streamLimit) counted() (open, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.open {
		open += max(n, 1) // an address without calls is one too many
	}
	return open, l.waiting.Len()
}

// untilNone waits until no call is counted.
func (p *process) untilNone(t *testing.T) {
	t.Helper()
	p.until(t, "no call is open", func() bool {
		open, waiting := p.server.streams.counted()
		return open == 0 && waiting == 0
	})
}

// TestStreamsPerAddress: what is too much is refused with a reason, over all
// connections of an address, and what ends makes room.
func TestStreamsPerAddress(t *testing.T) {
	p, _ := strangers(t, time.Minute, 3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 3 {
		stream, err := p.Watch(ctx, &notebookv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	another, err := grpc.NewClient(p.conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = another.Close() }()
	for _, client := range []notebookv1.NotebookServiceClient{p.NotebookServiceClient, notebookv1.NewNotebookServiceClient(another)} {
		_, ofList := client.List(t.Context(), &notebookv1.ListRequest{})
		stream, err := client.Watch(t.Context(), &notebookv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		_, ofWatch := stream.Recv()
		for _, err := range []error{ofList, ofWatch} {
			st := status.Convert(err)
			if st.Code() != codes.ResourceExhausted || !strings.Contains(fmt.Sprint(st.Details()), "RATE_LIMITED") {
				t.Errorf("a call too many: %v %v", st, st.Details())
			}
		}
	}
	if _, metrics := p.get(t, "/metrics"); !strings.Contains(metrics, "\nnotebookd_streams_refused_total 4\n") {
		t.Error("4 calls were refused, which is not in the metrics")
	}
	cancel()
	p.untilNone(t)
	if _, err := p.List(t.Context(), &notebookv1.ListRequest{}); err != nil {
		t.Errorf("with room again: %v", err)
	}
	p.untilNone(t)
}

// rawVictim is a process of this test as what attackers attack.
func (p *process) rawVictim(t *testing.T) *victim {
	t.Helper()
	return &victim{child: &child{address: p.server.grpcListener.Addr().String(), http: p.url}, t: t}
}

// TestRequestTime: a call of which the request does not come is cut off, and others
// of the same connection are not.
func TestRequestTime(t *testing.T) {
	p, _ := strangers(t, 300*time.Millisecond, 1000)
	watch, err := p.Watch(t.Context(), &notebookv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	var cut sync.WaitGroup
	for i := range 20 {
		cut.Go(func() {
			method := []string{listPath(), watchPath()}[i%2]
			stream, err := p.conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
			if err == nil {
				err = stream.RecvMsg(&notebookv1.ListResponse{})
			}
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("%s without a message: %v", method, err)
			}
		})
	}
	cut.Wait()
	open, waiting := 0, 0
	p.until(t, "only the watch is open", func() bool {
		open, waiting = p.server.streams.counted()
		return open == 1 && waiting == 0
	})
	if watch.Context().Err() != nil {
		t.Error("the watch, of which the request came, was cut off")
	}
	if _, err := p.List(t.Context(), &notebookv1.ListRequest{}); err != nil {
		t.Error(err)
	}
}

// TestStreamsAreCountedOut: however calls end, they are not counted any more.
func TestStreamsAreCountedOut(t *testing.T) {
	p, _ := strangers(t, 200*time.Millisecond, 100_000)
	v := p.rawVictim(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ends := map[string]func(*h2) error{
		"reset at once": func(c *h2) error {
			stream, err := c.call(listPath())
			return errors.Join(err, c.WriteRSTStream(stream, http2.ErrCodeCancel))
		},
		"reset after the request": func(c *h2) error {
			stream, err := c.call(watchPath())
			return errors.Join(err, c.WriteData(stream, true, message(&notebookv1.WatchRequest{})), c.WriteRSTStream(stream, http2.ErrCodeCancel))
		},
		"no message": func(c *h2) error {
			stream, err := c.call(listPath())
			return errors.Join(err, c.WriteData(stream, true, nil))
		},
		"never sent":         func(c *h2) error { _, err := c.call(watchPath()); return err },
		"unknown method":     func(c *h2) error { _, err := c.call("/" + attackCanary + "/x"); return err },
		"deadline over":      func(c *h2) error { _, err := c.call(listPath(), "grpc-timeout", "0n"); return err },
		"deadline soon over": func(c *h2) error { _, err := c.call(listPath(), "grpc-timeout", "1m"); return err },
		"not to be decoded": func(c *h2) error {
			stream, err := c.call(listPath())
			return errors.Join(err, c.WriteData(stream, true, append([]byte{0, 0, 0, 0, 4}, 0xff, 0xff, 0xff, 0xff)))
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				c, err := v.h2(ctx, v.address)
				if err != nil {
					t.Fatal(err)
				}
				var reading sync.WaitGroup
				reading.Go(func() { _, _ = io.Copy(io.Discard, c.conn) })
				for range 200 {
					if err := end(c); err != nil {
						t.Fatal(err)
					}
				}
				if name == "never sent" {
					open := 0
					p.until(t, "calls are open", func() bool { open, _ = p.server.streams.counted(); return open > 0 })
				}
				_ = c.conn.Close()
				reading.Wait()
			}
			p.untilNone(t)
		})
	}
}

// TestRefusedStreamsLeaveNothing: of calls that are refused nothing stays, however
// long they say that they may take.
func TestRefusedStreamsLeaveNothing(t *testing.T) {
	const refused = 5_000
	p, count := strangers(t, time.Minute, 0)
	v := p.rawVictim(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	refuse := func(n int64) {
		c, err := v.h2(ctx, v.address)
		if err != nil {
			t.Fatal(err)
		}
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = io.Copy(io.Discard, c.conn) })
		before := count.Load()
		for count.Load() < before+n { // those that the connection has no room for are not asked about
			for range 500 {
				if _, err := c.call(listPath(), "grpc-timeout", "99999999H"); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = c.conn.Close()
		reading.Wait()
	}
	objects := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapObjects)
	}
	refuse(100)
	before := objects()
	refuse(refused)
	// The connection is on its way out, with the calls that it was asked for last.
	grown := int64(0)
	if !eventually(ctx, 15*time.Second, func() bool { grown = objects() - before; return grown < refused/2 }) {
		t.Errorf("%d objects are left of %d refused calls", grown, refused)
	}
}

// TestUnreadAnswerEnds: who asks and does not read loses the connection.
func TestUnreadAnswerEnds(t *testing.T) {
	t.Parallel()
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 500})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	ended := make(chan time.Duration, 100) // one for each request
	p := launch(t, fleet.ServerConfig(), "", func(s *server) {
		if s.http.WriteTimeout != answerTime {
			t.Errorf("answers over HTTP may take %v, want %v", s.http.WriteTimeout, answerTime)
		}
		s.http.WriteTimeout = 500 * time.Millisecond
		s.http.ConnState = smallBuffers
		inner := s.http.Handler
		s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began := time.Now()
			inner.ServeHTTP(w, r)
			if r.URL.Path == "/v1/notebooks" {
				ended <- time.Since(began)
			}
		})
	})
	p.until(t, "ready", func() bool { code, _ := p.get(t, "/readyz"); return code == http.StatusOK })
	conn, err := net.Dial("tcp", p.server.httpListener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := io.WriteString(conn, "GET /v1/notebooks?pageSize=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.After(30 * time.Second)
	for stuck := false; !stuck; {
		select {
		case took := <-ended:
			stuck = took >= 400*time.Millisecond
		case <-deadline:
			t.Fatal("the answer that nobody reads does not end")
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
}

// TestQuietWatchStays: a watch on which nothing happens ends neither with the time
// that answers have, nor with that of its last write.
func TestQuietWatchStays(t *testing.T) {
	t.Parallel()
	fleet, err := cloudsim.Start(cloudsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	cert, key, pool := selfSigned(t, t.TempDir())
	p := launch(t, quick(fleet)+fmt.Sprintf("watch: {slow_reader: 100ms}\ntls: {cert: %q, key: %q}\n", cert, key), "", func(s *server) {
		s.http.WriteTimeout = 500 * time.Millisecond
	})
	p.until(t, "ready", func() bool { return p.server.inventory.Ready() && p.server.changer.Ready() })
	for _, major := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", major), func(t *testing.T) {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: major == 2}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.server.httpListener.Addr().String()+"/v1/notebooks:watch", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			if resp.ProtoMajor != major {
				t.Fatalf("over HTTP/%d", resp.ProtoMajor)
			}
			lines := bufio.NewScanner(resp.Body)
			untilLine(t, lines, func(f *notebookv1.WatchResponse) bool {
				return f.GetBookmark().GetKind() == notebookv1.Bookmark_KIND_SNAPSHOT_END
			})
			pause(ctx, deadlineStep+700*time.Millisecond) // longer than both times: that is the point
			name := "clouds/core/locations/xb3/notebooks/" + fleet.CoresHub.Add("xb3", 1)[0]
			untilLine(t, lines, func(f *notebookv1.WatchResponse) bool {
				return isEvent(f, notebookv1.NotebookEvent_TYPE_ADDED, name, "")
			})
		})
	}
}

// TestPanicOfADoorIsSeen: what net/http recovers from is an error in the log, and
// what strangers send is not.
func TestPanicOfADoorIsSeen(t *testing.T) {
	_, clouds := startVendorClouds(t)
	var panics atomic.Bool
	p := launch(t, vendorConfig(clouds.URL, ""), "", func(s *server) {
		inner := s.http.Handler
		s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if panics.Load() {
				panic("because of the test")
			}
			inner.ServeHTTP(w, r)
		})
	})
	p.until(t, "ready", func() bool { code, _ := p.get(t, "/readyz"); return code == http.StatusOK })
	panics.Store(true)
	if resp, err := http.Get(p.url + "/healthz"); err == nil {
		_ = resp.Body.Close()
		t.Errorf("HTTP %d", resp.StatusCode)
	}
	p.until(t, "the panic is in the log", func() bool {
		for line := range strings.Lines(p.log.String()) {
			if strings.Contains(line, "level=ERROR") && strings.Contains(line, "because of the test") {
				return true
			}
		}
		return false
	})
}
