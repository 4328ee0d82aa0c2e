package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/access"
	"github.com/notebookd/notebookd/internal/imagechange"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/replica"
	"github.com/notebookd/notebookd/internal/service"
	"github.com/notebookd/notebookd/internal/storage"
	"github.com/notebookd/notebookd/internal/telemetry"
	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/web/sentences"
)

// server is the running process: everything between its configuration and its
// clean stop.
type server struct {
	cfg       *config                // that it was started with
	current   atomic.Pointer[config] // that it does by now
	log       *slog.Logger
	level     *slog.LevelVar // of log; nil when it stays as it is
	registry  *prometheus.Registry
	tracing   *telemetry.Tracing
	storage   *storage.Storage
	replicas  *replica.Group
	inventory *inventory.Inventory
	changer   *imagechange.Changer
	service   *service.Service
	health    *health.Server
	grpc      *grpc.Server
	// interceptor is what the calls of grpc go through.
	interceptor interceptor
	http        *http.Server
	debug       *http.Server // nil when there is no such door
	stopping    atomic.Bool

	guard        *guard
	certificates *certificates // nil without TLS
	connections  *connectionLimit
	streams      *streamLimit
	reloads      *reloads
	cloudMetrics *upstream.Metrics

	sources []inventory.Source // owned by newServer and then by reloadOn

	grpcListener, httpListener, debugListener net.Listener
}

// serve builds everything, listens, and serves until ctx ends or something
// fails. It returns once everything that it started has ended.
func serve(ctx context.Context, cfg *config, stdout, stderr io.Writer) error {
	log, level := newLogger(cfg.Log, stderr)
	control := ""
	if cfg.simulated() {
		var stop func()
		var err error
		if control, stop, err = simulate(cfg); err != nil {
			return err
		}
		defer stop()
	}
	s, err := newServer(ctx, cfg, log)
	if err != nil {
		return err
	}
	s.level = level
	defer s.close()
	if err := s.listen(ctx); err != nil {
		return err
	}
	s.announce(stdout, control, sentences.Wanted(os.Getenv))
	return s.run(ctx)
}

// newLogger returns a logger, and what its level can be changed with.
func newLogger(cfg logConfig, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := &slog.LevelVar{}
	level.Set(levelNamed(cfg.Level))
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(telemetry.LogHandler(slog.NewJSONHandler(w, options))), level
	}
	return slog.New(telemetry.LogHandler(slog.NewTextHandler(w, options))), level
}

// newServer builds everything and starts nothing but the storage.
func newServer(ctx context.Context, cfg *config, log *slog.Logger) (_ *server, err error) {
	s := &server{cfg: cfg, log: log, registry: prometheus.NewRegistry(), health: health.NewServer()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := s.observe(ctx); err != nil {
		return nil, err
	}
	s.cloudMetrics, s.reloads, s.guard = upstream.NewMetrics(s.registry), newReloads(s.registry), newGuard(s.registry, log)
	if err := s.buildDoors(); err != nil {
		return nil, err
	}
	if s.storage, err = storage.Open(cfg.Store.storage(log)); err != nil {
		return nil, err
	}
	s.registry.MustRegister(s.storage)
	s.replicas = replica.New(replica.Config{Storage: s.storage, Lease: cfg.Store.Lease, Work: sourceNames(s.sources), Logger: log, Metrics: s.registry})
	s.inventory = inventory.New(inventory.Config{Sources: s.sources, Tombstones: cfg.Store.Tombstones, Logger: log, Metrics: s.registry, Tracer: s.tracing.Provider()})
	s.changer = imagechange.New(s.inventory, log)
	s.changer.Observe(s.registry, s.tracing.Provider())
	s.service = service.New(service.Config{
		Inventory: s.inventory, Changer: s.changer, Logger: log, Watch: service.WatchLimits(cfg.Watch), Caller: callerOf,
		Metrics: s.registry,
	})
	if err := s.buildGRPC(); err != nil {
		return nil, err
	}
	return s, s.buildHTTP(ctx)
}

// buildDoors makes what decides who and what comes in, and what is polled.
func (s *server) buildDoors() error {
	if s.cfg.TLS != nil {
		var err error
		if s.certificates, err = newCertificates(*s.cfg.TLS); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		s.guard.certificates = s.certificates
	}
	refused := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "notebookd_connections_refused_total", Help: "Connections that were closed at once because there were too many.",
	})
	refusedCalls := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "notebookd_streams_refused_total", Help: "Calls over gRPC that were refused because their address had too many open.",
	})
	s.registry.MustRegister(refused, refusedCalls)
	s.connections = &connectionLimit{exempt: s.guard.trusts, refused: refused.Inc}
	s.streams = &streamLimit{exempt: s.guard.trusts, refused: refusedCalls.Inc}
	first, err := s.prepare(nil, s.cfg)
	if err != nil {
		return err
	}
	s.guard.rules.Store(first.rules)
	s.sources = first.sources
	s.current.Store(s.cfg)
	s.setLimits()
	s.tellCertificates()
	return nil
}

func (s *server) buildGRPC() error {
	validator, err := protovalidate.New()
	if err != nil {
		return fmt.Errorf("rules of the contract: %w", err)
	}
	calls := &calls{log: s.log}
	s.interceptor = chain(append([]interceptor{s.traceCalls()}, interceptors(calls, s.guard, validator, s.log)...))
	limits := s.guard.rules.Load().limits
	options := []grpc.ServerOption{
		grpc.UnaryInterceptor(s.interceptor.unary),
		grpc.StreamInterceptor(s.streams.stream(s.interceptor.stream)),
		service.Codec(),
		grpc.MaxRecvMsgSize(limits.MessageBytes),
		grpc.MaxHeaderListSize(uint32(limits.HeaderBytes)),             //nolint:gosec // checked with the configuration
		grpc.MaxConcurrentStreams(uint32(limits.StreamsPerConnection)), //nolint:gosec // as above
		grpc.ConnectionTimeout(limits.RequestTime),
		// What a connection costs before anything came over it: requests are small.
		grpc.ReadBufferSize(8 << 10),
		grpc.InTapHandle(s.streams.tap),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 30 * time.Second, Timeout: 20 * time.Second, MaxConnectionIdle: idleTime,
			// Bounds for how long answers stay that nobody reads. A watch that has begun
			// ends before its connection does.
			MaxConnectionAge: max(connectionAge, s.cfg.Watch.MaxLifetime), MaxConnectionAgeGrace: max(connectionAge, s.cfg.Watch.MaxLifetime),
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
	if s.certificates != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.certificates.config("h2"))))
	}
	s.grpc = grpc.NewServer(options...)
	limited := limitedServer{s.grpc, s.streams}
	service.Register(limited, s.service)
	healthpb.RegisterHealthServer(limited, &healthDoor{s.health, s.guard, func() []*inventory.Cloud { return s.inventory.Snapshot().Clouds() }})
	reflection.Register(limited)
	calls.count(s.registry, s.grpc.GetServiceInfo())
	return nil
}

func (s *server) buildHTTP(ctx context.Context) error {
	conn := &inProcess{interceptor: s.interceptor.unary}
	notebookv1.RegisterNotebookServiceServer(conn, s.service)
	notebookv1.RegisterCloudServiceServer(conn, s.service)
	notebookv1.RegisterImageChangeServiceServer(conn, s.service)
	notebookv1.RegisterCallerServiceServer(conn, s.service)
	gateway, err := newGateway(ctx, conn, s, s.guard.withPeer)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", gateway)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", s.readyz)
	// Metrics speak of every cloud.
	mux.Handle("GET /metrics", s.guard.protect(func(r *access.Rights) bool { return r.Everywhere(access.Viewer) },
		promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{Registry: s.registry})))
	s.handleAPIDocs(mux, gateway)
	if err := s.handleConsole(mux, gateway); err != nil {
		return err
	}
	s.http = s.newHTTPServer(mux)
	if s.cfg.Debug.Address != "" {
		s.debug = s.newHTTPServer(newDebugHandler(func(next http.Handler) http.Handler {
			return s.guard.protect(func(r *access.Rights) bool { return r.Everywhere(access.Admin) }, next)
		}))
	}
	return nil
}

// newHTTPServer returns the server of a door over HTTP.
func (s *server) newHTTPServer(handler http.Handler) *http.Server {
	limits := s.guard.rules.Load().limits
	out := &http.Server{
		Handler:           secure(&s.current, limits, handler),
		ReadHeaderTimeout: limits.RequestTime,
		WriteTimeout:      answerTime, // a watch has its own
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    limits.HeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: limits.StreamsPerConnection,
			SendPingTimeout:      30 * time.Second, PingTimeout: 20 * time.Second, WriteByteTimeout: 30 * time.Second,
		},
		ErrorLog: log.New(doorLog{s.log}, "", 0),
	}
	if s.certificates != nil {
		out.TLSConfig = s.certificates.config("h2", "http/1.1")
	}
	return out
}

func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	if s.stopping.Load() {
		http.Error(w, "not ready: stopping", http.StatusServiceUnavailable)
		return
	}
	if !s.inventory.Ready() || !s.changer.Ready() {
		why := "not ready: the first poll of every new location has not finished"
		if !s.replicas.Joined() {
			why = "not ready: the storage cannot be reached"
		}
		http.Error(w, why, http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// list implements local.
func (s *server) list(ctx context.Context, req *notebookv1.ListRequest) (*service.Listing, error) {
	ctx, err := incoming(ctx, req)
	if err != nil {
		return nil, err
	}
	return s.service.ListInProcess(ctx, req, s.interceptor.unary)
}

// watch implements local.
func (s *server) watch(ctx context.Context, req *notebookv1.WatchRequest, send func(*service.Frame) error) error {
	ctx, err := incoming(ctx, req)
	if err != nil {
		return err
	}
	return s.service.WatchInProcess(ctx, req, s.interceptor.stream, send)
}

// slowReader implements local.
func (s *server) slowReader() time.Duration { return s.service.SlowReader() }

func (s *server) listen(ctx context.Context) error {
	var lc net.ListenConfig
	var err error
	if s.grpcListener, err = lc.Listen(ctx, "tcp", s.cfg.GRPC.Address); err != nil {
		return fmt.Errorf("grpc: %w", err)
	}
	if s.httpListener, err = lc.Listen(ctx, "tcp", s.cfg.HTTP.Address); err != nil {
		_ = s.grpcListener.Close()
		return fmt.Errorf("http: %w", err)
	}
	if s.debug != nil {
		if s.debugListener, err = lc.Listen(ctx, "tcp", s.cfg.Debug.Address); err != nil {
			_ = s.grpcListener.Close()
			_ = s.httpListener.Close()
			return fmt.Errorf("debug: %w", err)
		}
	}
	return nil
}

// serveHTTP serves a door over HTTP until it is shut down.
func (s *server) serveHTTP(door *http.Server, listener net.Listener) error {
	listener = s.connections.listen(listener)
	var err error
	if door.TLSConfig != nil {
		err = door.ServeTLS(listener, "", "")
	} else {
		err = door.Serve(listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("http: %w", err)
}

// run serves until ctx ends or something fails, then stops everything in order.
func (s *server) run(ctx context.Context) error {
	pollCtx, stopPolling := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPolling()
	failed := make(chan error, 5) // one place for each goroutine below
	var serving, polling sync.WaitGroup
	polling.Go(func() {
		if err := s.replicas.Run(pollCtx, s.work); err != nil && pollCtx.Err() == nil {
			failed <- err
		}
	})
	polling.Go(func() { s.reportHealth(pollCtx) })
	serving.Go(func() {
		if err := s.grpc.Serve(s.connections.listen(s.grpcListener)); err != nil {
			failed <- fmt.Errorf("grpc: %w", err)
		}
	})
	serving.Go(func() {
		if err := s.serveHTTP(s.http, s.httpListener); err != nil {
			failed <- err
		}
	})
	if s.debug != nil {
		serving.Go(func() {
			if err := s.serveHTTP(s.debug, s.debugListener); err != nil {
				failed <- err
			}
		})
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	polling.Go(func() { s.reloadOn(pollCtx, hangup) })

	var err error
	select {
	case <-ctx.Done():
		s.log.Info("stopping", "drain", s.cfg.Drain.String())
	case err = <-failed:
		s.log.Error("stopping", "error", err)
	}
	s.drain()
	serving.Wait()
	s.service.Wait()
	stopPolling()
	polling.Wait()
	s.log.Info("stopped")
	return err
}

// work is what the process does besides answering, for as long as it is one of
// its group.
func (s *server) work(ctx context.Context, m *replica.Member) error {
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return s.inventory.Run(ctx, m) })
	parts.Go(func() error { return s.changer.Run(ctx, m) })
	return parts.Wait()
}

// drain ends all calls: watches are told to go elsewhere over the first half of
// the drain time, and what is still open at its end is cut off.
func (s *server) drain() {
	s.stopping.Store(true)
	s.health.Shutdown()
	s.service.Drain(s.cfg.Drain / 2)
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Drain)
	defer cancel()
	var wg sync.WaitGroup
	for _, door := range []*http.Server{s.http, s.debug} {
		if door == nil {
			continue
		}
		wg.Go(func() {
			if err := door.Shutdown(ctx); err != nil {
				_ = door.Close()
			}
		})
	}
	graceful := make(chan struct{}) // closed by the goroutine below
	wg.Go(func() {
		s.grpc.GracefulStop()
		close(graceful)
	})
	select {
	case <-graceful:
	case <-ctx.Done():
		s.grpc.Stop() // also ends GracefulStop
	}
	wg.Wait()
}

// reportHealth keeps grpc.health.v1 up to date: "" is the process, and each
// clouds/{cloud} serves while one of its locations can be reached.
func (s *server) reportHealth(ctx context.Context) {
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	told := map[string]bool{}
	for {
		snapshot := s.inventory.Snapshot()
		gone := told
		told = map[string]bool{}
		for _, c := range snapshot.Clouds() {
			serving := healthpb.HealthCheckResponse_NOT_SERVING
			for _, l := range snapshot.Locations() {
				if l.Cloud == c.Name && (l.State == notebookv1.Location_STATE_LIVE || l.State == notebookv1.Location_STATE_STALE) {
					serving = healthpb.HealthCheckResponse_SERVING
				}
			}
			s.health.SetServingStatus(inventory.CloudName(c.Name), serving)
			told[c.Name] = true
			delete(gone, c.Name)
		}
		for name := range gone { // it is not configured any more
			s.health.SetServingStatus(inventory.CloudName(name), healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
		}
		select {
		case <-snapshot.Superseded():
		case <-ctx.Done():
			return
		}
	}
}

// close releases what newServer made. Everything that run started has ended.
func (s *server) close() {
	for _, source := range s.sources {
		source.Client.Close()
	}
	if now := s.guard.rules.Load(); now != nil {
		now.gate.Close()
	}
	if s.storage != nil {
		s.storage.Close()
	}
	s.stopTracing()
}
