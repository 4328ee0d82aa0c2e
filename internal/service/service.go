// Package service answers the gRPC services from the inventory: it
// parses requests, walks snapshots and maps errors.
//
// It knows no cloud and makes no HTTP call. Watch's semantics live here once;
// every transport is only another way to send its frames.
package service

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/imagechange"
	"github.com/notebookd/notebookd/internal/inventory"
)

// Config configures a Service. Inventory and Changer are required.
type Config struct {
	Inventory *inventory.Inventory
	Changer   *imagechange.Changer
	// Watch bounds watches.
	Watch WatchLimits
	// Caller says who makes a call. Default: the host of the other end of the
	// connection, which may do everything.
	Caller func(context.Context) Caller
	// Logger gets what callers are not told. Default: none.
	Logger *slog.Logger
	// Metrics is where the service registers its metrics. Default: nowhere.
	Metrics prometheus.Registerer
}

// Service implements NotebookService, CloudService, ImageChangeService and
// CallerService. It is safe for concurrent use.
type Service struct {
	notebookv1.UnimplementedNotebookServiceServer
	notebookv1.UnimplementedCloudServiceServer
	notebookv1.UnimplementedImageChangeServiceServer
	notebookv1.UnimplementedCallerServiceServer

	inventory *inventory.Inventory
	changer   *imagechange.Changer
	log       *slog.Logger
	metrics   *metrics
	pins      pins

	caller      func(context.Context) Caller
	watchLimits atomic.Pointer[WatchLimits]
	callers     callers
	watches     sync.WaitGroup // all of them, and the goroutines that belong to them
	feeds       feeds
	heads       heads
	keep        int // see maxKept
	// onShown is told of each snapshot before a watch sends it; nil but in tests.
	onShown func(*inventory.Snapshot)

	// draining is closed, once, when watches have to end.
	draining  chan struct{}
	drainOnce sync.Once
	drainOver time.Duration // set before draining is closed
}

// New returns a Service.
func New(cfg Config) *Service {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Caller == nil {
		cfg.Caller = peerCaller
	}
	s := &Service{
		caller: cfg.Caller, inventory: cfg.Inventory, changer: cfg.Changer, log: cfg.Logger, metrics: newMetrics(cfg.Metrics),
		draining: make(chan struct{}), keep: maxKept,
	}
	s.SetWatchLimits(cfg.Watch)
	return s
}

// SetWatchLimits replaces the bounds of watches. Those that are open keep the ones
// they began with.
func (s *Service) SetWatchLimits(limits WatchLimits) {
	limits = limits.withDefaults()
	s.watchLimits.Store(&limits)
}

func (s *Service) limits() *WatchLimits { return s.watchLimits.Load() }

// loadedFor bounds how long a call waits for the log to be shown.
const loadedFor = 10 * time.Second

// loaded waits until what the log held is shown, which takes a moment after a
// start: before that an answer would lack what is known.
func (s *Service) loaded(ctx context.Context) error {
	timer := time.NewTimer(loadedFor)
	defer timer.Stop()
	select {
	case <-s.inventory.Loaded():
		return nil
	case <-timer.C:
		return newStatus(codes.Unavailable, notebookv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE,
			"the store has not been read yet; try again, or another replica", nil, &errdetails.RetryInfo{RetryDelay: durationpb.New(5 * time.Second)})
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Drain ends every watch with a CLOSING bookmark, spread over a period so that
// the callers do not reconnect all at once. It does not wait. New watches are
// refused from now on.
func (s *Service) Drain(over time.Duration) {
	s.drainOnce.Do(func() {
		s.drainOver = over
		close(s.draining)
	})
}
