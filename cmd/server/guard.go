package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/access"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/service"
	"github.com/notebookd/notebookd/internal/telemetry"
)

// guard asks each call who makes it, over whatever door, and ends those that go on
// when their caller may not make them any more. It is safe for concurrent use.
type guard struct {
	log   *slog.Logger
	rules atomic.Pointer[rules]
	// certificates say which client certificates are believed; nil without TLS. Set
	// before the first call.
	certificates *certificates
	rates        *rateLimit // of callers
	// strangers is apart from rates, so that they do not drive out callers.
	strangers *rateLimit
	unchecked rate.Sometimes                // what the log is told of issuers
	asked     map[string]prometheus.Counter // by outcome
	limited   prometheus.Counter

	mu   sync.Mutex                           // guards long
	long map[*session]context.CancelCauseFunc // the calls that go on
}

// rules are what the configuration says of callers. They are immutable.
type rules struct {
	gate    *access.Gate
	files   [sha256.Size]byte // what is in the files of gate
	limits  limitsConfig
	proxies []netip.Prefix
}

func newGuard(registry prometheus.Registerer, log *slog.Logger) *guard {
	asked := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "notebookd_auth_total", Help: "Calls by what became of their credentials: ok, missing, rejected, or unavailable where an issuer could not be asked.",
	}, []string{"outcome"})
	g := &guard{
		log: log, rates: newRateLimit(), strangers: newRateLimit(), unchecked: rate.Sometimes{Interval: time.Minute}, asked: map[string]prometheus.Counter{}, long: map[*session]context.CancelCauseFunc{},
		limited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "notebookd_rate_limited_total", Help: "Calls that were refused because their caller calls too often.",
		}),
	}
	registry.MustRegister(asked, g.limited)
	for _, outcome := range []string{"ok", "missing", "rejected", "unavailable"} {
		g.asked[outcome] = asked.WithLabelValues(outcome)
	}
	return g
}

// set replaces the rules, and ends what is not allowed by the new ones. A call that is
// just being let in may still ask the gate before; see identify.
func (g *guard) set(ctx context.Context, next *rules) {
	g.rules.Store(next)
	g.mu.Lock()
	long := maps.Clone(g.long)
	g.mu.Unlock()
	for s, end := range long {
		s.review(ctx, end)
	}
}

// review ends a call whose caller may not make it any more, or may see something
// else by now.
func (s *session) review(ctx context.Context, end context.CancelCauseFunc) {
	switch rights, err := s.check(ctx); {
	case err != nil:
		end(err)
	case rights.Key() != s.rights.Key():
		end(service.ErrComeAgain)
	}
}

// session is one call, and who makes it.
type session struct {
	guard       *guard
	rules       *rules // by which it was let in
	credentials access.Credentials
	chains      [][]*x509.Certificate // of the client certificate, as they were verified
	identity    access.Identity
	rights      *access.Rights
	name        string // the subject, or the address where nobody is asked
}

type sessionKey struct{}

// callerOf is who makes a call that the guard let in.
func callerOf(ctx context.Context) service.Caller {
	s, ok := ctx.Value(sessionKey{}).(*session)
	if !ok {
		return service.Caller{Name: caller(ctx), Rights: rights{}, Describe: func() *notebookv1.Caller { return nil }} // who did not come by a door may do nothing
	}
	return service.Caller{Name: s.name, Rights: rights{s.rights}, Describe: s.describe, Check: func(ctx context.Context) (service.Rights, error) {
		now, err := s.check(ctx)
		return rights{now}, err
	}}
}

var methods = map[access.Method]notebookv1.Caller_Method{
	access.MethodNone:        notebookv1.Caller_METHOD_NONE,
	access.MethodToken:       notebookv1.Caller_METHOD_TOKEN,
	access.MethodOIDC:        notebookv1.Caller_METHOD_OIDC,
	access.MethodCertificate: notebookv1.Caller_METHOD_CERTIFICATE,
}

var roles = map[access.Role]notebookv1.Grant_Role{
	access.Viewer:   notebookv1.Grant_ROLE_VIEWER,
	access.Operator: notebookv1.Grant_ROLE_OPERATOR,
	access.Admin:    notebookv1.Grant_ROLE_ADMIN,
}

// describe tells the caller who it is.
func (s *session) describe() *notebookv1.Caller {
	out := &notebookv1.Caller{Subject: s.name, Method: methods[s.identity.Method], Groups: s.identity.Groups}
	for _, held := range s.rights.Held() {
		out.Grants = append(out.Grants, &notebookv1.Grant{Role: roles[held.Role], Parent: parentOf(held.Cloud, held.Location)})
	}
	if !s.identity.Expires.IsZero() {
		out.ExpireTime = timestamppb.New(s.identity.Expires)
	}
	return out
}

// parentOf is the resource name of where a role is held.
func parentOf(cloud, location string) string {
	switch {
	case cloud == "":
		return "clouds/-"
	case location == "":
		return inventory.CloudName(cloud)
	default:
		return inventory.LocationName(cloud, location)
	}
}

// rights is access.Rights in the words of the service.
type rights struct{ *access.Rights }

// Operates implements service.Rights.
func (r rights) Operates(cloud, location string) bool {
	return r.May(access.Operator, cloud, location)
}

// openMethods are those that nobody is asked for.
var openMethods = []string{healthpb.Health_Check_FullMethodName, healthpb.Health_Watch_FullMethodName, healthpb.Health_List_FullMethodName}

// identify finds out who makes a call. It fails with what the caller is told.
func (g *guard) identify(ctx context.Context) (context.Context, *session, error) {
	now := g.rules.Load()
	md, _ := metadata.FromIncomingContext(ctx)
	if p, ok := peer.FromContext(ctx); ok && len(now.proxies) > 0 {
		if address := forwarded(p.Addr.String(), md.Get("x-forwarded-for"), now.proxies); address != p.Addr.String() {
			ctx = peer.NewContext(ctx, &peer.Peer{Addr: remote(address), LocalAddr: p.LocalAddr, AuthInfo: p.AuthInfo})
		}
	}
	s := &session{guard: g, rules: now}
	var err error
	if s.credentials, s.chains, err = credentialsOf(ctx, md); err == nil {
		s.identity, err = g.authenticate(ctx, now, s)
	}
	if errors.Is(err, access.ErrUnavailable) && g.rules.Load() != now {
		return g.identify(ctx) // its gate was replaced meanwhile, and asks no issuer any more
	}
	from := caller(ctx)
	if err != nil {
		err = g.refusal(ctx, err)
		if limit := g.ofStrangers(ctx); limit != nil { // whoever guesses is told nothing more before long
			err = limit
		}
		return ctx, nil, err
	}
	g.asked["ok"].Inc()
	counted := s.identity.Subject
	s.name = counted
	if s.identity.Method == access.MethodNone {
		s.name, counted = from, network(from)
	} else {
		telemetry.Subject(ctx, s.name)
	}
	if err := g.rates.take(counted, now.limits); err != nil {
		g.tooOften(ctx)
		return ctx, nil, err
	}
	if r, ok := ctx.Value(recordKey{}).(*record); ok {
		r.caller = s.name
	}
	s.rights = now.gate.Rights(s.identity)
	return context.WithValue(ctx, sessionKey{}, s), s, nil
}

// authenticate finds out who makes a call, by the rules of now. A connection may be
// older than these: its certificate may lead to an authority that is not believed any
// more.
func (g *guard) authenticate(ctx context.Context, now *rules, s *session) (access.Identity, error) {
	if s.credentials.Bearer == "" && s.chains != nil && (g.certificates == nil || !g.certificates.current.Load().believes(s.chains)) {
		return access.Identity{}, &access.Rejection{Cause: "authority"}
	}
	return now.gate.Authenticate(ctx, s.credentials)
}

// ofStrangers counts a call of somebody who is not known, or not asked.
func (g *guard) ofStrangers(ctx context.Context) error {
	err := g.strangers.take(network(caller(ctx)), g.rules.Load().limits)
	if err != nil {
		g.tooOften(ctx)
	}
	return err
}

// tooOften notes a call that its caller makes too often.
func (g *guard) tooOften(ctx context.Context) {
	g.limited.Inc()
	if r, ok := ctx.Value(recordKey{}).(*record); ok {
		r.limited = true
	}
}

// network is what is counted of an address: of IPv6 a host has a whole network.
func network(address string) string {
	if addr, err := netip.ParseAddr(address); err == nil {
		return networkOf(addr).String()
	}
	return address
}

// credentialsOf are what came with a call, and the chains of the certificate.
func credentialsOf(ctx context.Context, md metadata.MD) (out access.Credentials, chains [][]*x509.Certificate, err error) {
	switch headers := md.Get("authorization"); len(headers) {
	case 0:
	case 1:
		if out.Bearer, err = access.Bearer(headers[0]); err != nil {
			return out, nil, err
		}
	default:
		return out, nil, &access.Rejection{Cause: "two of them"}
	}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 && len(info.State.VerifiedChains[0]) > 0 {
			chains = info.State.VerifiedChains
			out.Certificate = chains[0][0]
		}
	}
	return out, chains, nil
}

// refusal is what a caller is told whose credentials are not good, or cannot be
// checked.
func (g *guard) refusal(ctx context.Context, err error) error {
	var rejection *access.Rejection
	switch {
	case errors.Is(err, access.ErrMissing):
		g.asked["missing"].Inc()
		return service.Error(codes.Unauthenticated, notebookv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED,
			"you did not say who you are: send the header Authorization: Bearer and a token, or a client certificate")
	case errors.As(err, &rejection):
		g.asked["rejected"].Inc()
		return service.Error(codes.Unauthenticated, notebookv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED,
			"your credentials are not accepted ("+rejection.Cause+"); get others")
	case errors.Is(err, access.ErrUnavailable):
		g.asked["unavailable"].Inc()
		g.unchecked.Do(func() { g.log.WarnContext(ctx, "credentials not checked", "error", err) })
		return service.ErrorWith(codes.Unavailable, notebookv1.ErrorReason_ERROR_REASON_ISSUER_UNAVAILABLE,
			"the issuer of your token cannot be asked at the moment; try again", &errdetails.RetryInfo{RetryDelay: durationpb.New(5 * time.Second)})
	case ctx.Err() != nil:
		return service.Error(status.FromContextError(ctx.Err()).Code(), notebookv1.ErrorReason_ERROR_REASON_CALLER_GONE, "the caller left, or its deadline passed")
	}
	g.log.ErrorContext(ctx, "credentials not checked", "error", err)
	return service.Error(codes.Internal, notebookv1.ErrorReason_ERROR_REASON_INTERNAL, "internal error; the log of notebookd has the details")
}

// check says what the caller may do by now. It fails when that is nothing. While an
// issuer cannot be asked, what it said before counts.
func (s *session) check(ctx context.Context) (*access.Rights, error) {
	now := s.guard.rules.Load()
	identity, err := s.guard.authenticate(ctx, now, s)
	switch {
	case errors.Is(err, access.ErrUnavailable), ctx.Err() != nil:
		identity = s.identity
		if !identity.Expires.IsZero() && !time.Now().Before(identity.Expires) {
			return nil, errExpired()
		}
	case err != nil:
		return nil, s.guard.refusal(ctx, err)
	}
	rights := now.gate.Rights(identity)
	if rights.Nothing() {
		return nil, errNoRole()
	}
	return rights, nil
}

func errExpired() error {
	return service.Error(codes.Unauthenticated, notebookv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, "your credentials are not accepted (expired); get others")
}

func errNoRole() error {
	return service.Error(codes.PermissionDenied, notebookv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED,
		"you may not do this here; ask whoever runs notebookd for a role")
}

// follow ends a call that goes on when its caller may not make it any more: at once
// when the rules change, and when the credentials expire.
func (g *guard) follow(ctx context.Context, s *session, end context.CancelCauseFunc) (leave func()) {
	var timer *time.Timer
	if at := s.identity.Expires; !at.IsZero() {
		timer = time.AfterFunc(time.Until(at), func() { end(errExpired()) })
	}
	g.mu.Lock()
	g.long[s] = end
	g.mu.Unlock()
	if g.rules.Load() != s.rules { // they changed before it was known to go on
		s.review(ctx, end)
	}
	return func() {
		if timer != nil {
			timer.Stop()
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.long, s)
	}
}

func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	arrived(ctx)
	if slices.Contains(openMethods, info.FullMethod) {
		if err := g.ofStrangers(ctx); err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
	ctx, _, err := g.identify(ctx)
	if err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (g *guard) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if slices.Contains(openMethods, info.FullMethod) {
		if err := g.ofStrangers(stream.Context()); err != nil {
			return err
		}
		return handler(srv, &identifiedStream{stream, stream.Context()})
	}
	ctx, s, err := g.identify(stream.Context())
	if err != nil {
		return err
	}
	if s.rights.Nothing() {
		return errNoRole()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer g.follow(ctx, s, cancel)()
	return handler(srv, &identifiedStream{stream, ctx})
}

// identifiedStream is the stream of a call whose caller is known. It ends when its
// context does.
type identifiedStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // as grpc.ServerStream
}

// Context implements grpc.ServerStream.
func (s *identifiedStream) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream.
func (s *identifiedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	arrived(s.ctx)
	return err
}

// protect lets only those through to an HTTP handler who have some right.
func (g *guard) protect(may func(*access.Rights) bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := g.withPeer(r)
		if header := r.Header.Values("Authorization"); len(header) > 0 {
			ctx = metadata.NewIncomingContext(ctx, metadata.MD{"authorization": header})
		}
		ctx, s, err := g.identify(ctx)
		if err == nil && !may(s.rights) {
			err = errNoRole()
		}
		if err != nil {
			writeStatus(w, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// withPeer gives the context of an HTTP request the peer that it comes from, as the
// gRPC server gives its calls theirs.
func (g *guard) withPeer(r *http.Request) context.Context {
	p := &peer.Peer{Addr: remote(forwarded(r.RemoteAddr, r.Header.Values("X-Forwarded-For"), g.rules.Load().proxies))}
	if r.TLS != nil {
		p.AuthInfo = credentials.TLSInfo{
			State: *r.TLS, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		}
	}
	return peer.NewContext(r.Context(), p)
}

// forwarded is the address that a request comes from: that of the other end or, as
// long as that is a trusted proxy's, the one that it says it speaks for.
func forwarded(address string, headers []string, proxies []netip.Prefix) string {
	if len(proxies) == 0 {
		return address
	}
	said := strings.Split(strings.Join(headers, ","), ",")
	for _, next := range slices.Backward(said) {
		ip, err := netip.ParseAddr(host(address))
		if err != nil || !slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			break
		}
		next = strings.TrimSpace(next)
		if at, err := netip.ParseAddrPort(next); err == nil {
			next = at.Addr().String()
		}
		if _, err := netip.ParseAddr(next); err != nil {
			break
		}
		address = next
	}
	return address
}

// trusts reports whether an address is a trusted proxy's, or this host's own.
func (g *guard) trusts(addr netip.Addr) bool {
	if !addr.IsValid() || addr.IsLoopback() {
		return true
	}
	now := g.rules.Load()
	return slices.ContainsFunc(now.proxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// writeStatus answers an HTTP request with an error, as the gateway would.
func writeStatus(w http.ResponseWriter, err error) {
	st := status.Convert(err)
	if st.Code() == codes.Unauthenticated {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(runtime.HTTPStatusFromCode(st.Code()))
	_, _ = w.Write(statusJSON(st))
}

// challenge says how to say who one is.
const challenge = `Bearer realm="notebookd"`
