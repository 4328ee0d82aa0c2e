package main

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/service"
)

// connectionLimit bounds the connections of all doors together. It is safe for
// concurrent use.
type connectionLimit struct {
	total, perAddress atomic.Int64
	exempt            func(netip.Addr) bool // from the limit of an address
	refused           func()                // called for each that was closed at once

	mu     sync.Mutex // guards what is below
	open   int
	byAddr map[netip.Addr]int
}

// listen returns a listener whose connections count.
func (l *connectionLimit) listen(listener net.Listener) net.Listener {
	return &limitedListener{Listener: listener, limit: l}
}

type limitedListener struct {
	net.Listener
	limit *connectionLimit
}

// Accept implements net.Listener. What is too much is closed, so that whoever waits
// knows, and those behind it need not wait.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		leave, ok := l.limit.enter(conn.RemoteAddr())
		if ok {
			return &limitedConn{Conn: conn, leave: sync.OnceFunc(leave)}, nil
		}
		_ = conn.Close()
		l.limit.refused()
	}
}

// enter counts a connection in; leave counts it out.
func (l *connectionLimit) enter(remote net.Addr) (leave func(), ok bool) {
	addr := addressOf(remote)
	l.mu.Lock()
	defer l.mu.Unlock()
	if int64(l.open) >= l.total.Load() || int64(l.byAddr[addr]) >= l.perAddress.Load() && !l.exempt(addr) {
		return nil, false
	}
	if l.byAddr == nil {
		l.byAddr = map[netip.Addr]int{}
	}
	l.open++
	l.byAddr[addr]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.open--
		if l.byAddr[addr]--; l.byAddr[addr] == 0 {
			delete(l.byAddr, addr)
		}
	}, true
}

// limitedConn counts itself out when it is closed.
type limitedConn struct {
	net.Conn
	leave func()
}

// NetConn is the connection itself.
func (c *limitedConn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

func addressOf(remote net.Addr) netip.Addr {
	if tcp, ok := remote.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// rateLimit bounds how often each caller calls. It is safe for concurrent use.
type rateLimit struct {
	callers *lru.Cache[string, *rate.Limiter] // those that called last
}

// maxCallers bounds how many callers are remembered. One that is forgotten has its
// burst again.
const maxCallers = 10_000

// newRateLimit returns a limit that remembers nobody yet.
func newRateLimit() *rateLimit {
	callers, err := lru.New[string, *rate.Limiter](maxCallers)
	if err != nil {
		panic("limits: " + err.Error()) // only for a size below 1
	}
	return &rateLimit{callers}
}

// take counts a call. It fails when the caller calls too often.
func (l *rateLimit) take(caller string, limits limitsConfig) error {
	if limits.CallsPerSecond == 0 {
		return nil
	}
	limiter, ok := l.callers.Get(caller)
	if !ok {
		// Two calls at once may both make one, which gives a caller one burst more.
		limiter = rate.NewLimiter(rate.Limit(limits.CallsPerSecond), limits.Burst)
		l.callers.Add(caller, limiter)
	}
	if limiter.Limit() != rate.Limit(limits.CallsPerSecond) || limiter.Burst() != limits.Burst { // it was configured otherwise
		limiter.SetLimit(rate.Limit(limits.CallsPerSecond))
		limiter.SetBurst(limits.Burst)
	}
	now := time.Now()
	r := limiter.ReserveN(now, 1)
	delay := r.DelayFrom(now)
	if delay == 0 {
		return nil
	}
	r.CancelAt(now)
	return service.ErrorWith(codes.ResourceExhausted, notebookv1.ErrorReason_ERROR_REASON_RATE_LIMITED,
		"you call too often", &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
}

// streamLimit bounds what gRPC connections may begin, before any of it costs a
// goroutine for long. It is safe for concurrent use.
type streamLimit struct {
	perAddress  atomic.Int64
	requestTime atomic.Int64 // a time.Duration
	exempt      func(netip.Addr) bool

	mu   sync.Mutex // guards open
	open map[netip.Addr]int
}

// stream is a call of which the request may not be here yet.
type stream struct{ arrived atomic.Bool }

type streamKey struct{}

// tap is called for each new stream of a gRPC connection. One whose request does not
// come is cut off.
func (l *streamLimit) tap(ctx context.Context, _ *tap.Info) (context.Context, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, nil
	}
	addr := addressOf(p.Addr)
	if !l.enter(addr) {
		return nil, service.Error(codes.ResourceExhausted, notebookv1.ErrorReason_ERROR_REASON_RATE_LIMITED,
			"too many calls are open from your address; end some")
	}
	s := &stream{}
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, streamKey{}, s))
	timer := time.AfterFunc(time.Duration(l.requestTime.Load()), func() {
		if !s.arrived.Load() {
			cancel(errSlowRequest)
		}
	})
	context.AfterFunc(ctx, func() {
		timer.Stop()
		cancel(nil)
		l.leave(addr)
	})
	return ctx, nil
}

var errSlowRequest = service.Error(codes.DeadlineExceeded, notebookv1.ErrorReason_ERROR_REASON_CALLER_GONE, "the request did not come in time")

func (l *streamLimit) enter(addr netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int64(l.open[addr]) >= l.perAddress.Load() && !l.exempt(addr) {
		return false
	}
	if l.open == nil {
		l.open = map[netip.Addr]int{}
	}
	l.open[addr]++
	return true
}

func (l *streamLimit) leave(addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[addr]--; l.open[addr] == 0 {
		delete(l.open, addr)
	}
}

// arrived notes that the request of a stream is here.
func arrived(ctx context.Context) {
	if s, ok := ctx.Value(streamKey{}).(*stream); ok {
		s.arrived.Store(true)
	}
}
