package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/gen/openapi"
	"github.com/notebookd/notebookd/internal/imagechange"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/replica"
	"github.com/notebookd/notebookd/internal/service"
	"github.com/notebookd/notebookd/internal/storage"
	"github.com/notebookd/notebookd/internal/telemetry"
	"github.com/notebookd/notebookd/internal/upstream"
)

// server is the running process: everything between its configuration and its
// clean stop.
type server struct {
	cfg       *config
	log       *slog.Logger
	registry  *prometheus.Registry
	tracing   *telemetry.Tracing
	storage   *storage.Storage
	replicas  *replica.Group
	sources   []inventory.Source
	inventory *inventory.Inventory
	changer   *imagechange.Changer
	service   *service.Service
	health    *health.Server
	grpc      *grpc.Server
	// interceptor is what the calls of grpc go through.
	interceptor interceptor
	http        *http.Server
	stopping    atomic.Bool

	grpcListener, httpListener net.Listener
	loopback                   *bufconn.Listener // the gateway's way to grpc
	loopbackConn               *grpc.ClientConn
}

// serve builds everything, listens, and serves until ctx ends or something
// fails. It returns once everything that it started has ended.
func serve(ctx context.Context, cfg *config, stdout, stderr io.Writer) error {
	log := newLogger(cfg.Log, stderr)
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
	defer s.close()
	if err := s.listen(ctx); err != nil {
		return err
	}
	s.announce(stdout, control)
	return s.run(ctx)
}

func newLogger(cfg logConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // checked with the configuration
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(telemetry.LogHandler(slog.NewJSONHandler(w, options)))
	}
	return slog.New(telemetry.LogHandler(slog.NewTextHandler(w, options)))
}

// newServer builds everything and starts nothing but the storage.
func newServer(ctx context.Context, cfg *config, log *slog.Logger) (_ *server, err error) {
	s := &server{cfg: cfg, log: log, registry: prometheus.NewRegistry(), health: health.NewServer(), loopback: bufconn.Listen(1 << 20)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := s.observe(ctx); err != nil {
		return nil, err
	}
	s.sources, err = sources(cfg, upstream.NewMetrics(s.registry), log)
	if err != nil {
		return nil, err
	}
	if s.storage, err = storage.Open(cfg.Store.storage(log)); err != nil {
		return nil, err
	}
	s.registry.MustRegister(s.storage)
	names := make([]string, 0, len(s.sources))
	for _, source := range s.sources {
		names = append(names, source.Name)
	}
	s.replicas = replica.New(replica.Config{Storage: s.storage, Lease: cfg.Store.Lease, Work: names, Logger: log, Metrics: s.registry})
	s.inventory = inventory.New(inventory.Config{Sources: s.sources, Tombstones: cfg.Store.Tombstones, Logger: log, Metrics: s.registry, Tracer: s.tracing.Provider()})
	s.changer = imagechange.New(s.inventory, log)
	s.changer.Observe(s.registry, s.tracing.Provider())
	s.service = service.New(service.Config{
		Inventory: s.inventory, Changer: s.changer, Logger: log, Watch: service.WatchLimits(cfg.Watch), Caller: caller,
		Metrics: s.registry,
	})
	if err := s.buildGRPC(); err != nil {
		return nil, err
	}
	return s, s.buildHTTP(ctx)
}

func (s *server) buildGRPC() error {
	validator, err := protovalidate.New()
	if err != nil {
		return fmt.Errorf("rules of the contract: %w", err)
	}
	calls := &calls{log: s.log}
	s.interceptor = chain(append([]interceptor{s.traceCalls()}, interceptors(calls, validator, s.log)...))
	options := []grpc.ServerOption{
		grpc.UnaryInterceptor(s.interceptor.unary),
		grpc.StreamInterceptor(s.interceptor.stream),
		service.Codec(),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
	s.grpc = grpc.NewServer(options...)
	service.Register(s.grpc, s.service)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	calls.count(s.registry, s.grpc.GetServiceInfo())
	return nil
}

func (s *server) buildHTTP(ctx context.Context) error {
	conn, err := grpc.NewClient("passthrough:///notebookd",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.loopback.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // in memory
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(maxMessage)),
	)
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	s.loopbackConn = conn
	gateway, err := newGateway(ctx, conn, s)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", gateway)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{Registry: s.registry}))
	mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(openapi.YAML)
	})
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// No WriteTimeout: a watch is one long answer.
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	return nil
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
	ctx, err := s.incoming(ctx, req)
	if err != nil {
		return nil, err
	}
	return s.service.ListInProcess(ctx, req, s.interceptor.unary)
}

// watch implements local.
func (s *server) watch(ctx context.Context, req *notebookv1.WatchRequest, send func(*service.Frame) error) error {
	ctx, err := s.incoming(ctx, req)
	if err != nil {
		return err
	}
	return s.service.WatchInProcess(ctx, req, s.interceptor.stream, send)
}

// slowReader implements local.
func (s *server) slowReader() time.Duration { return s.service.SlowReader() }

// incoming makes of the context of a call by the gateway what it would be on the
// other side of loopback.
func (s *server) incoming(ctx context.Context, req proto.Message) (context.Context, error) {
	if _, err := proto.Marshal(req); err != nil { // text that is not UTF-8, which no connection would carry
		return nil, status.Error(codes.Internal, err.Error())
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	ctx = metadata.NewIncomingContext(ctx, md)
	return peer.NewContext(ctx, &peer.Peer{Addr: s.loopback.Addr()}), nil
}

// caller is who makes a call: the host of the other end or, for what comes
// through the gateway, of the other end of the HTTP connection. The gateway puts
// that last, after what the caller says of itself.
func caller(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
		return host
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok && p.Addr.Network() == "bufconn" {
		hosts := strings.Split(strings.Join(md.Get("x-forwarded-for"), ","), ",")
		return strings.TrimSpace(hosts[len(hosts)-1])
	}
	return p.Addr.String()
}

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
	return nil
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
	for _, listener := range []net.Listener{s.grpcListener, s.loopback} {
		serving.Go(func() {
			if err := s.grpc.Serve(listener); err != nil {
				failed <- fmt.Errorf("grpc: %w", err)
			}
		})
	}
	serving.Go(func() {
		if err := s.http.Serve(s.httpListener); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("http: %w", err)
		}
	})

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
	wg.Go(func() {
		// The gateway's calls end before the server that answers them.
		if err := s.http.Shutdown(ctx); err != nil {
			_ = s.http.Close()
		}
	})
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
	for {
		snapshot := s.inventory.Snapshot()
		for _, c := range snapshot.Clouds() {
			serving := healthpb.HealthCheckResponse_NOT_SERVING
			for _, l := range snapshot.Locations() {
				if l.Cloud == c.Name && (l.State == notebookv1.Location_STATE_LIVE || l.State == notebookv1.Location_STATE_STALE) {
					serving = healthpb.HealthCheckResponse_SERVING
				}
			}
			s.health.SetServingStatus(inventory.CloudName(c.Name), serving)
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
	if s.loopbackConn != nil {
		_ = s.loopbackConn.Close()
	}
	for _, source := range s.sources {
		source.Client.Close()
	}
	if s.storage != nil {
		s.storage.Close()
	}
	s.stopTracing()
}
