package service

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// metrics describes the watches. A nil *metrics counts nothing. Nothing is done
// for a frame: a batch is measured when its last frame is sent.
type metrics struct {
	open  prometheus.Gauge
	ended map[string]prometheus.Counter // by reason
	lag   prometheus.Histogram
}

// Why watches end.
const (
	endClosing    = "closing"     // it was told to come again, having lasted long enough
	endDraining   = "draining"    // the server stops
	endCallerLeft = "caller_left" // or could not be reached
	endSlowReader = "slow_reader"
	endPermission = "permission" // what the caller may see has changed
	endError      = "error"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		return nil
	}
	m := &metrics{
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "notebookd_watches_open", Help: "Watches that are open. Every replica has its own: take the sum.",
		}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "notebookd_watch_lag_seconds",
			Help: "How long after what happened was known its last frame was handed to the connection of a watch: once for each watch and batch of changes. " +
				"Of a watch that is so far behind that it is sent the latest of several batches, it is counted from the first of them.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		ended: map[string]prometheus.Counter{},
	}
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "notebookd_watches_ended_total",
		Help: "Watches that have ended, by reason: closing (told to come again after their time), draining (the server stops), caller_left, slow_reader, " +
			"permission (the caller may not see it any more) or error. Those that were refused are not counted.",
	}, []string{"reason"})
	for _, reason := range []string{endClosing, endDraining, endCallerLeft, endSlowReader, endPermission, endError} {
		m.ended[reason] = ended.WithLabelValues(reason)
	}
	reg.MustRegister(m.open, m.lag, ended)
	return m
}

// sent notes that a watch has sent everything that was shown first at a time.
func (m *metrics) sent(shown time.Time) {
	if m != nil {
		m.lag.Observe(time.Since(shown).Seconds())
	}
}

// countedWatch counts one watch.
type countedWatch struct {
	s      *Service
	opened atomic.Bool // by the goroutine of the watch; read by the one that ends it
}

// open counts the watch in, which nothing speaks against any more.
func (w *countedWatch) open() {
	if w.s.metrics != nil && !w.opened.Swap(true) {
		w.s.metrics.open.Inc()
	}
}

// errUnfinished is the error of a watch that panics.
var errUnfinished = errors.New("service: a watch did not return")

// end counts it out. err is what the caller is told.
func (w *countedWatch) end(ctx context.Context, err error) {
	if w.opened.Load() {
		w.s.metrics.open.Dec()
		w.s.metrics.ended[w.s.endOf(ctx, err)].Inc()
	}
}

func (s *Service) endOf(ctx context.Context, err error) string {
	switch {
	case isReason(err, notebookv1.ErrorReason_ERROR_REASON_SLOW_READER):
		return endSlowReader
	case status.Code(err) == codes.PermissionDenied, status.Code(err) == codes.Unauthenticated:
		return endPermission
	}
	select {
	case <-s.draining:
		return endDraining
	default:
	}
	switch {
	case err == nil:
		return endClosing
	case ctx.Err() != nil, status.Code(err) == codes.Canceled:
		return endCallerLeft
	default:
		return endError
	}
}

func isReason(err error, reason notebookv1.ErrorReason) bool {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetReason() == strings.TrimPrefix(reason.String(), "ERROR_REASON_") {
			return true
		}
	}
	return false
}
