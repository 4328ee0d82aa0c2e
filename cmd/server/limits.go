package main

import (
	linked "container/list"
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/service"
)

// Bounds that nobody has to choose.
const (
	// answerTime is for how long a request over HTTP may take, from its header to the
	// last byte of the answer. It is longer than unaryDeadline. A watch is no such
	// request.
	answerTime = 2 * time.Minute
	// idleTime is for how long a connection may have no call.
	idleTime = 2 * time.Minute
	// connectionAge is after which a gRPC connection takes no more calls, and then the
	// time for those that it has.
	connectionAge = time.Hour
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
	exempt := l.exempt(addressOf(remote))
	addr := networkOf(addressOf(remote))
	l.mu.Lock()
	defer l.mu.Unlock()
	if int64(l.open) >= l.total.Load() || int64(l.byAddr[addr]) >= l.perAddress.Load() && !exempt {
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

// networkOf is what is counted of an address: of IPv6 a host has a whole network.
func networkOf(addr netip.Addr) netip.Addr {
	if !addr.Is6() || addr.IsLoopback() {
		return addr
	}
	masked, err := addr.Prefix(64)
	if err != nil {
		return addr
	}
	return masked.Addr()
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

// streamLimit bounds the calls that an address has open over gRPC, and for how long
// their requests may be on their way. It is safe for concurrent use.
//
// It refuses where a call would begin, not in the tap: of a stream that a tap
// refuses, grpc-go keeps a timer until the deadline that the caller chose.
type streamLimit struct {
	perAddress  atomic.Int64
	requestTime atomic.Int64 // a time.Duration
	exempt      func(netip.Addr) bool
	refused     func() // called for each call that was refused

	mu      sync.Mutex // guards what is below, and the places of streams
	open    map[netip.Addr]int
	waiting linked.List // of the *stream of which the request is not here, oldest first
	armed   bool        // cutLate will be called
}

// stream is the context of a call, which can be cut off.
type stream struct {
	context.Context //nolint:containedctx // it is one
	limit           *streamLimit
	cut             context.CancelCauseFunc
	addr            netip.Addr
	exempt          bool            // from the limit of an address
	due             time.Time       // when its request has to be here
	place           *linked.Element // in waiting; nil once it is not there
}

type streamKey struct{}

// Value implements context.Context.
func (s *stream) Value(key any) any {
	if key == (streamKey{}) {
		return s
	}
	return s.Context.Value(key)
}

// Err implements context.Context. grpc-go tells the caller what it says.
func (s *stream) Err() error {
	err := s.Context.Err()
	if err != nil && context.Cause(s.Context) == errSlowRequest { //nolint:errorlint // the value itself
		return context.DeadlineExceeded
	}
	return err
}

// tap is called for each new stream of a gRPC connection, of which it makes the
// context one that can be cut off.
func (l *streamLimit) tap(ctx context.Context, _ *tap.Info) (context.Context, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, nil
	}
	s := &stream{limit: l, addr: networkOf(addressOf(p.Addr)), exempt: l.exempt(addressOf(p.Addr))}
	s.Context, s.cut = context.WithCancelCause(ctx) // ends with ctx, which grpc-go ends
	return s, nil
}

// begin counts a call in, before its request is read. It fails when its address has
// too many open. The caller calls end, also with nil.
func (l *streamLimit) begin(ctx context.Context) (*stream, error) {
	s, ok := ctx.Value(streamKey{}).(*stream)
	if !ok { // it did not come over gRPC
		return nil, nil
	}
	after := time.Duration(l.requestTime.Load())
	l.mu.Lock()
	defer l.mu.Unlock()
	if int64(l.open[s.addr]) >= l.perAddress.Load() && !s.exempt {
		l.refused()
		return nil, service.Error(codes.ResourceExhausted, notebookv1.ErrorReason_ERROR_REASON_RATE_LIMITED,
			"too many calls are open from your address; end some")
	}
	if l.open == nil {
		l.open = map[netip.Addr]int{}
	}
	l.open[s.addr]++
	s.due = time.Now().Add(after)
	s.place = l.waiting.PushBack(s)
	if !l.armed {
		l.armed = true
		time.AfterFunc(after, l.cutLate)
	}
	return s, nil
}

// end counts a call out.
func (l *streamLimit) end(s *stream) {
	if s == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrivedLocked(s)
	if l.open[s.addr]--; l.open[s.addr] == 0 {
		delete(l.open, s.addr)
	}
}

func (l *streamLimit) arrivedLocked(s *stream) {
	if s.place != nil {
		l.waiting.Remove(s.place)
		s.place = nil
	}
}

// cutLate cuts off the calls of which the request should be here by now, and sees to
// it that it is called again while others wait.
func (l *streamLimit) cutLate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for first := l.waiting.Front(); first != nil; first = l.waiting.Front() {
		s := first.Value.(*stream) //nolint:forcetypeassert // nothing else is in it
		if left := s.due.Sub(now); left > 0 {
			time.AfterFunc(left, l.cutLate)
			return
		}
		l.arrivedLocked(s)
		s.cut(errSlowRequest)
	}
	l.armed = false
}

var errSlowRequest = service.Error(codes.DeadlineExceeded, notebookv1.ErrorReason_ERROR_REASON_CALLER_GONE, "the request did not come in time")

// arrived notes that the request of a call is here.
func arrived(ctx context.Context) {
	if s, ok := ctx.Value(streamKey{}).(*stream); ok {
		s.limit.mu.Lock()
		defer s.limit.mu.Unlock()
		s.limit.arrivedLocked(s)
	}
}

// stream makes of an interceptor one whose calls count.
func (l *streamLimit) stream(next grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		s, err := l.begin(stream.Context())
		if err != nil {
			return err
		}
		defer l.end(s)
		return next(srv, stream, info, handler)
	}
}

// limitedServer registers services with a server, whose unary calls count. An
// interceptor would be asked when the request is here, which is too late.
type limitedServer struct {
	*grpc.Server
	limit *streamLimit
}

// RegisterService implements grpc.ServiceRegistrar.
func (r limitedServer) RegisterService(desc *grpc.ServiceDesc, service any) {
	limited := *desc
	limited.Methods = slices.Clone(desc.Methods)
	for i := range limited.Methods {
		next := limited.Methods[i].Handler
		limited.Methods[i].Handler = func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			s, err := r.limit.begin(ctx)
			if err != nil {
				return nil, err
			}
			defer r.limit.end(s)
			return next(srv, ctx, decode, interceptor)
		}
	}
	r.Server.RegisterService(&limited, service)
}
