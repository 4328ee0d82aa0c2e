package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"
)

// Class is what a call is to the cloud. Each class has breakers of its own, so
// that a login that fails does not stop reads with a token that still works.
type Class int

// The classes.
const (
	ClassRead Class = iota
	ClassWrite
	ClassLogin
)

// String returns the class as it stands in metric labels.
func (c Class) String() string { return [...]string{"read", "write", "login"}[c] }

// MaxBody bounds the body of one answer after decompression, in bytes. A page
// of 100 notebooks is about 100 kB.
const MaxBody = 16 << 20

// ClientConfig configures a Client. Zero fields have the documented default.
type ClientConfig struct {
	// Cloud is the configured name of the account; it stands in errors, logs
	// and metrics. Required.
	Cloud string
	// Timeout bounds one call, from connecting to the last byte. Default 10 s.
	Timeout time.Duration
	Breaker BreakerConfig
	Budget  BudgetConfig
	// Transport sends the requests. Default: a connection pool of this
	// client's own, so that a cloud that hangs holds only its own connections.
	Transport http.RoundTripper
	// Logger gets one line for each change of a breaker's state. Default: none.
	Logger *slog.Logger
	// Metrics gets the outcome of every call. Default: none.
	Metrics *Metrics
}

// BreakerConfig says when a breaker opens: when, within the rolling Window, at
// least MinRequests calls were made and FailureRatio of them failed. It then
// refuses calls for OpenFor and lets a single one through after that.
type BreakerConfig struct {
	Window       time.Duration // default 60 s
	MinRequests  uint32        // default 5
	FailureRatio float64       // default 0.5
	OpenFor      time.Duration // default 30 s
}

func (c BreakerConfig) withDefaults() BreakerConfig {
	if c.Window == 0 {
		c.Window = time.Minute
	}
	if c.MinRequests == 0 {
		c.MinRequests = 5
	}
	if c.FailureRatio == 0 {
		c.FailureRatio = 0.5
	}
	if c.OpenFor == 0 {
		c.OpenFor = 30 * time.Second
	}
	return c
}

// BudgetConfig keeps the calls of an account below its quota in every hour.
// CallsPerHour zero means that there is no quota.
type BudgetConfig struct {
	CallsPerHour int
	// Burst of them may be made at once. Default: a tenth of CallsPerHour.
	Burst int
	// WriteShare of them is kept for writes. Default 0.2.
	WriteShare float64
}

// Client carries the calls of one Provider to its cloud: call budget → circuit
// breaker( send → read, bounded → classify and decode ). It is safe for
// concurrent use. Close releases its connections.
type Client struct {
	cloud     string
	transport http.RoundTripper
	log       *slog.Logger
	metrics   *Metrics

	timeout atomic.Int64           // a time.Duration
	budget  atomic.Pointer[budget] // nil without one

	// onBreaker is called after a breaker's state changed, without any lock. It
	// is set before the first call.
	onBreaker func(scope string, class Class)

	mu       sync.Mutex    // guards what is below
	breaker  BreakerConfig // of the breakers that are to come
	breakers map[breakerKey]*breaker
	reading  map[string]uint64 // reads that were let through, by location
}

// budget is what may be called within an hour.
type budget struct {
	callsPerHour  int
	reads, writes *rate.Limiter
}

type breakerKey struct {
	scope string
	class Class
}

type breaker struct {
	cb *gobreaker.CircuitBreaker[struct{}]
	// openUntil is the Unix nanosecond at which an open breaker lets a probe
	// through. It is set inside gobreaker's callback, hence an atomic.
	openUntil atomic.Int64
	// changed is set inside gobreaker's callback, which must not do more, and
	// taken back by whoever called the breaker.
	changed atomic.Bool
}

// NewClient returns a Client for one account.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Transport == nil {
		cfg.Transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			MaxConnsPerHost:        16,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        90 * time.Second,
			TLSHandshakeTimeout:    5 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		cloud: cfg.Cloud, transport: cfg.Transport, log: cfg.Logger, metrics: cfg.Metrics, reading: map[string]uint64{},
	}
	c.Configure(cfg.Timeout, cfg.Breaker, cfg.Budget)
	c.metrics.open(c)
	return c
}

// Configure replaces the settings. What was spent of a budget stays spent, and
// breakers stay as they are unless they are to work otherwise.
func (c *Client) Configure(timeout time.Duration, breakers BreakerConfig, calls BudgetConfig) {
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	c.timeout.Store(int64(timeout))
	c.budget.Store(c.budget.Load().with(calls))
	breakers = breakers.withDefaults()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.breaker != breakers {
		c.breaker, c.breakers = breakers, map[breakerKey]*breaker{}
	}
}

// with returns the budget of a configuration. b may be nil.
func (b *budget) with(cfg BudgetConfig) *budget {
	if cfg.CallsPerHour <= 0 {
		return nil
	}
	if cfg.Burst == 0 {
		cfg.Burst = max(cfg.CallsPerHour/10, 2)
	}
	if cfg.WriteShare == 0 {
		cfg.WriteShare = 0.2
	}
	// A bucket that starts full gives burst + rate × 1 h within an hour, so the
	// burst is taken off the rate.
	perSecond := float64(max(cfg.CallsPerHour-cfg.Burst, 1)) / 3600
	writeBurst := max(int(float64(cfg.Burst)*cfg.WriteShare), 1)
	readBurst := max(cfg.Burst-writeBurst, 1)
	reads, writes := rate.Limit(perSecond*(1-cfg.WriteShare)), rate.Limit(perSecond*cfg.WriteShare)
	if b == nil {
		return &budget{cfg.CallsPerHour, rate.NewLimiter(reads, readBurst), rate.NewLimiter(writes, writeBurst)}
	}
	b.reads.SetLimit(reads)
	b.reads.SetBurst(readBurst)
	b.writes.SetLimit(writes)
	b.writes.SetBurst(writeBurst)
	return &budget{cfg.CallsPerHour, b.reads, b.writes}
}

// Close releases the idle connections of the client's own pool, and takes the
// client out of the metrics.
func (c *Client) Close() {
	c.metrics.close(c)
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Cloud returns the configured name of the account.
func (c *Client) Cloud() string { return c.cloud }

// OnBreaker sets what is called after the state of a breaker changed: with the
// breaker's scope (a location, or the role of a shared host) and class. It must
// be set before the first call and must not call the Client's Do.
func (c *Client) OnBreaker(f func(scope string, class Class)) { c.onBreaker = f }

// Call is one request to a cloud.
type Call struct {
	Op       string // list, change_image, …: a label of low cardinality
	Location string
	// Scope names the breaker that guards the call. Default: Location. Calls to
	// a host that serves several locations name the host's role instead.
	Scope string
	Class Class
	// Request builds the request.
	Request func(ctx context.Context) (*http.Request, error)
	// Decode classifies and decodes the answer. It runs inside the breaker: an
	// *Error of a kind that trips is a failure of the cloud, even on HTTP 200.
	// It needs to fill only Kind, Code, Message, RequestID and RetryAfter. Any
	// other error counts as KindBadResponse.
	Decode func(Response) error
	// Passing says that Decode keeps no part of the body, which is then used for
	// another answer. Long listings save much by it.
	Passing bool
	// Secrets must not appear in the text that is kept of an answer.
	Secrets []Secret

	told *told // Do's
}

// Response is an answer of a cloud, read to its end.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// maxBudgetWait bounds how long a call waits for the call budget before it is
// refused instead, in case its context allows longer.
const maxBudgetWait = time.Minute

// Do makes one attempt at a call. (A read on a kept connection that turns out to
// be closed is sent once more by net/http; a write never is.) It returns nil, an *Error, or the context's
// error when ctx ended first.
func (c *Client) Do(ctx context.Context, call Call) error {
	start := time.Now()
	ctx, span := c.begin(ctx, &call)
	err := c.do(ctx, call)
	c.end(ctx, &call, span, time.Since(start), err)
	return err
}

func (c *Client) do(ctx context.Context, call Call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if call.Scope == "" {
		call.Scope = call.Location
	}
	br := c.breakerFor(call.Scope, call.Class)
	defer c.tell(br, call.Scope, call.Class)
	// Asked before the budget, so that calls that will be refused spend none.
	if call.told.breaker = br.cb.State(); call.told.breaker == gobreaker.StateOpen {
		return c.refused(call, br)
	}
	if err := c.spend(ctx, call); err != nil {
		return err
	}
	_, err := br.cb.Execute(func() (struct{}, error) { return struct{}{}, c.attempt(ctx, call) })
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return c.refused(call, br)
	}
	return err
}

// tell passes on that a breaker has changed its state.
func (c *Client) tell(br *breaker, scope string, class Class) {
	if br.changed.Swap(false) && c.onBreaker != nil {
		c.onBreaker(scope, class)
	}
}

// refused is the error for a call that the breaker did not let through.
func (c *Client) refused(call Call, br *breaker) error {
	// A half-open breaker whose one probe is under way has no time of its own.
	retry := max(time.Until(time.Unix(0, br.openUntil.Load())), time.Second)
	return &Error{Cloud: c.cloud, Location: call.Location, Op: call.Op, Kind: KindCircuitOpen, RetryAfter: retry}
}

// spend takes a call from the budget, waiting for one if that is soon enough.
func (c *Client) spend(ctx context.Context, call Call) error {
	b := c.budget.Load()
	if b == nil {
		return nil
	}
	if call.Class != ClassWrite {
		c.mu.Lock()
		c.reading[call.Location]++
		c.mu.Unlock()
	}
	limiter := b.reads
	if call.Class == ClassWrite {
		limiter = b.writes
		if limiter.Tokens() < 1 && b.reads.Tokens() >= 1 {
			limiter = b.reads // the reserve is for writes; the rest is for everybody
		}
	}
	now := time.Now()
	reservation := limiter.ReserveN(now, 1)
	delay := reservation.DelayFrom(now)
	if delay == 0 {
		return nil
	}
	limit := maxBudgetWait
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline))
	}
	if delay > limit {
		reservation.CancelAt(now)
		return &Error{Cloud: c.cloud, Location: call.Location, Op: call.Op, Kind: KindBudget, RetryAfter: delay}
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		reservation.Cancel()
		return ctx.Err()
	}
}

type guardKey struct{}

// ErrNotBegun is the error of a call that its guard has stopped. It is a context
// error, as of a call that was given up before anything was sent.
var ErrNotBegun = fmt.Errorf("stopped before it was sent: %w", context.Canceled)

// WithGuard makes calls ask a question when everything else is done and nothing
// is sent yet. When the answer is no, they end with ErrNotBegun: somebody else may
// make them by now.
func WithGuard(ctx context.Context, guard func() bool) context.Context {
	return context.WithValue(ctx, guardKey{}, guard)
}

// attempt sends, reads, classifies and decodes. Its error is nil, an *Error,
// or the error of the caller's context.
func (c *Client) attempt(ctx context.Context, call Call) error {
	if guard, ok := ctx.Value(guardKey{}).(func() bool); ok && !guard() {
		return ErrNotBegun
	}
	attemptCtx, cancel := context.WithTimeout(ctx, time.Duration(c.timeout.Load()))
	defer cancel()

	// sent is set as soon as a connection is there to write to: from then on
	// nobody can say that the cloud did not get the request.
	var sent atomic.Bool
	attemptCtx = httptrace.WithClientTrace(attemptCtx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	finish := func(e *Error) error {
		if ctx.Err() != nil && !call.decisive(e) {
			e = nil
		}
		if e == nil {
			// The caller left: excluded from the breaker. A write that was
			// under way must not be taken for one that was not.
			if call.Class == ClassWrite && sent.Load() {
				return &callerGone{sent: true, err: ctx.Err()}
			}
			return ctx.Err()
		}
		e.Cloud, e.Location, e.Op, e.Sent = c.cloud, call.Location, call.Op, sent.Load()
		e.Message = cleanMessage(e.Message, call.Secrets)
		e.RequestID = cleanMessage(e.RequestID, call.Secrets)
		e.Code = cleanMessage(e.Code, call.Secrets)
		return e
	}

	req, err := call.Request(attemptCtx)
	if err != nil {
		// The cause may hold a URL, and with it a signature.
		return finish(&Error{Kind: KindInvalid, Err: errors.New("the request could not be built")})
	}
	req.Header.Set(requestIDHeader, call.told.requestID)
	call.told.sent = true
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		sent.Store(sent.Load() && !isDialError(err))
		return finish(transportError(attemptCtx, err))
	}
	sent.Store(true)
	call.told.status = resp.StatusCode
	defer func() { _ = resp.Body.Close() }()
	var room []byte
	if call.Passing {
		kept := bodies.Get().(*[]byte)
		defer bodies.Put(kept)
		if n := resp.ContentLength; int64(cap(*kept)) < n && n <= maxPrepared {
			*kept = make([]byte, n)
		}
		room = *kept
	}
	body, err := readBody(resp, room)
	switch {
	case errors.Is(err, errTooLarge):
		return finish(&Error{Kind: KindBadResponse, Err: err})
	case err != nil:
		return finish(transportError(attemptCtx, err))
	}

	err = call.Decode(Response{Status: resp.StatusCode, Header: resp.Header, Body: body})
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{Kind: KindBadResponse, Code: httpCode(resp.StatusCode), Err: errors.New(cleanMessage(err.Error(), call.Secrets))}
	}
	if e.RetryAfter == 0 {
		e.RetryAfter = RetryAfter(resp.Header, time.Now())
	}
	return finish(e)
}

// bodies are *[]byte for calls that are Passing.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

// maxPrepared is the longest body that gets its room before it was read: the server
// may lie about its length.
const maxPrepared = 1 << 20

var errTooLarge = fmt.Errorf("answer larger than %d MiB", MaxBody>>20)

// readBody reads a body of at most MaxBody bytes; for a larger one, its error is
// errTooLarge. A short one, of which the server says how long it is, takes no more
// room than it needs, or none if there is enough in room.
func readBody(resp *http.Response, room []byte) ([]byte, error) {
	n := resp.ContentLength
	if n > MaxBody {
		return nil, errTooLarge
	}
	if n > 0 && n <= maxPrepared {
		body := room
		if int64(cap(room)) < n {
			body = make([]byte, n)
		}
		body = body[:n]
		_, err := io.ReadFull(resp.Body, body)
		return body, err
	}
	start, err := io.ReadAll(io.LimitReader(resp.Body, maxPrepared))
	if err != nil || len(start) < maxPrepared {
		return start, err
	}
	// All the room that it may need at once: one that is too large, perhaps since it was
	// compressed to be so, is to cost little.
	const most = MaxBody + 1
	body := bytes.NewBuffer(append(make([]byte, 0, most+bytes.MinRead), start...))
	if _, err := body.ReadFrom(io.LimitReader(resp.Body, most-maxPrepared)); err != nil {
		return nil, err
	}
	if body.Len() == most {
		return nil, errTooLarge
	}
	return body.Bytes(), nil
}

// decisive reports whether e is an answer of the cloud rather than the mark of
// a call that was given up.
func (Call) decisive(e *Error) bool {
	return e.Kind != KindUnavailable && e.Kind != KindTimeout
}

// callerGone is a context error that also says whether a write was sent.
type callerGone struct {
	sent bool
	err  error
}

func (e *callerGone) Error() string { return e.err.Error() }
func (e *callerGone) Unwrap() error { return e.err }

// MaySent reports whether a failed call may have reached the cloud.
func MaySent(err error) bool {
	if gone, ok := errors.AsType[*callerGone](err); ok {
		return gone.sent
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Sent
	}
	return false
}

// transportError classifies a failure to send or to read. The text of a
// url.Error holds the URL, so only what it wraps is kept.
func transportError(ctx context.Context, err error) *Error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return &Error{Kind: KindTimeout, Err: errors.New("no answer in time")}
	}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		return &Error{Kind: KindTimeout, Err: errors.New("no answer in time")}
	}
	return &Error{Kind: KindUnavailable, Err: errors.New(transportText(err))}
}

// transportText names a failure without the parts of err that come from the
// request or the peer.
func transportText(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &dns):
		return "host name not resolved"
	case errors.As(err, &op):
		return op.Op + ": " + op.Err.Error()
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "connection closed before the answer was complete"
	}
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return "certificate not accepted"
	}
	if strings.HasPrefix(err.Error(), "tls: ") || strings.HasPrefix(err.Error(), "http2: ") {
		return err.Error()
	}
	return "connection failed"
}

func isDialError(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

func httpCode(status int) string {
	if status == 0 {
		return ""
	}
	return "HTTP " + strconv.Itoa(status)
}

// HTTPError classifies an answer whose body says nothing that a dialect
// understands, by its HTTP status alone.
func HTTPError(resp Response) *Error {
	e := &Error{Code: httpCode(resp.Status)}
	switch s := resp.Status; {
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		e.Kind = KindDenied
	case s == http.StatusNotFound:
		e.Kind = KindNotFound
	case s == http.StatusTooManyRequests:
		e.Kind = KindThrottled
	case s == http.StatusConflict || s == http.StatusPreconditionFailed:
		e.Kind = KindConflict
	case s >= 500:
		e.Kind = KindUnavailable
	case s >= 400:
		e.Kind = KindInvalid
	default: // a 2xx without a readable body, or a redirection, which is not followed
		e.Kind = KindBadResponse
	}
	return e
}

// maxRetryAfter bounds what a Retry-After header may ask for.
const maxRetryAfter = time.Hour

// RetryAfter reads a Retry-After header, in seconds or as a date. It returns
// zero when there is none that makes sense, and at most an hour.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
		if seconds <= 0 {
			return 0
		}
		return time.Duration(min(seconds, int64(maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil && at.After(now) {
		return min(at.Sub(now), maxRetryAfter)
	}
	return 0
}

func (c *Client) breakerFor(scope string, class Class) *breaker {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := breakerKey{scope, class}
	if br, ok := c.breakers[key]; ok {
		return br
	}
	br, cfg := &breaker{}, c.breaker
	br.cb = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         fmt.Sprintf("%s/%s/%s", c.cloud, scope, class),
		MaxRequests:  1,
		Interval:     cfg.Window,
		BucketPeriod: cfg.Window / 10,
		Timeout:      cfg.OpenFor,
		ReadyToTrip: func(n gobreaker.Counts) bool {
			counted := n.Requests - n.TotalExclusions
			return counted >= cfg.MinRequests && float64(n.TotalFailures) >= cfg.FailureRatio*float64(counted)
		},
		IsExcluded:   func(err error) bool { return err != nil && IsContext(err) },
		IsSuccessful: func(err error) bool { return err == nil || !KindOf(err).TripsBreaker() },
		// Runs under gobreaker's lock: it must not ask the breaker anything.
		OnStateChange: func(_ string, from, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				br.openUntil.Store(time.Now().Add(cfg.OpenFor).UnixNano())
			} else {
				br.openUntil.Store(0)
			}
			br.changed.Store(true)
			c.log.Warn("circuit breaker", "cloud", c.cloud, "location", scope, "class", class.String(),
				"from", from.String(), "to", to.String())
		},
	})
	c.breakers[key] = br
	return br
}

// BreakerState is the state of a circuit breaker.
type BreakerState int

// The states of a breaker.
const (
	BreakerClosed BreakerState = iota
	BreakerHalfOpen
	BreakerOpen
)

// BreakerStatus describes one breaker.
type BreakerStatus struct {
	Scope     string
	Class     Class
	State     BreakerState
	OpenUntil time.Time // set only while open
}

// Breakers describes the breakers that calls have used so far, ordered by
// scope and class.
func (c *Client) Breakers() []BreakerStatus {
	c.mu.Lock()
	known := make(map[breakerKey]*breaker, len(c.breakers))
	for key, br := range c.breakers {
		known[key] = br
	}
	c.mu.Unlock()

	out := make([]BreakerStatus, 0, len(known))
	for key, br := range known {
		st := BreakerStatus{Scope: key.scope, Class: key.class}
		switch br.cb.State() {
		case gobreaker.StateOpen:
			st.State = BreakerOpen
			if ns := br.openUntil.Load(); ns != 0 {
				st.OpenUntil = time.Unix(0, ns)
			}
		case gobreaker.StateHalfOpen:
			st.State = BreakerHalfOpen
		case gobreaker.StateClosed:
		}
		c.tell(br, key.scope, key.class)
		out = append(out, st)
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Scope != out[j].Scope {
			return out[i].Scope < out[j].Scope
		}
		return out[i].Class < out[j].Class
	})
	return out
}

// Budget returns the account's calls per hour and how many could be made right
// now. Both are zero when the account has no quota.
func (c *Client) Budget() (callsPerHour, remaining int) {
	b := c.budget.Load()
	if b == nil {
		return 0, 0
	}
	return b.callsPerHour, max(int(b.reads.Tokens()), 0) + max(int(b.writes.Tokens()), 0)
}

// Burst returns how many calls the budget has room for at most at one moment. It
// is zero when the account has no quota.
func (c *Client) Burst() int {
	b := c.budget.Load()
	if b == nil {
		return 0
	}
	return b.reads.Burst() + b.writes.Burst()
}

// Reads returns how many reads of a location were asked of the budget so far;
// zero when the account has no quota.
func (c *Client) Reads(location string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reading[location]
}

// ReadDelay returns in how long the budget will have room for a number of
// reads, if nobody else takes it. More than fit into the bucket at once are
// taken for a full bucket: the rest comes while they are made.
func (c *Client) ReadDelay(calls uint64) time.Duration {
	b := c.budget.Load()
	if b == nil {
		return 0
	}
	missing := float64(min(calls, uint64(b.reads.Burst()))) - b.reads.Tokens() //nolint:gosec // a burst is positive
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing / float64(b.reads.Limit()) * float64(time.Second))
}
