package imagechange

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// metrics describes image changes. A nil *metrics counts nothing.
type metrics struct {
	ended    *prometheus.CounterVec
	took     *prometheus.HistogramVec
	underWay *prometheus.Desc
	changer  *Changer
}

// The phases of a change that is under way.
var openPhases = []notebookv1.ImageChange_Phase{
	notebookv1.ImageChange_PHASE_PENDING, notebookv1.ImageChange_PHASE_STOPPING, notebookv1.ImageChange_PHASE_CREATING,
	notebookv1.ImageChange_PHASE_VERIFYING, notebookv1.ImageChange_PHASE_RENAMING, notebookv1.ImageChange_PHASE_RELEASING,
	notebookv1.ImageChange_PHASE_OUTCOME_UNKNOWN,
}

// Observe registers metrics and says who makes the spans of changes. Either may be
// nil. It is called before Run and before the first Change.
func (c *Changer) Observe(reg prometheus.Registerer, tracer trace.TracerProvider) {
	if tracer == nil {
		tracer = noop.NewTracerProvider()
	}
	c.tracer = tracer.Tracer("github.com/notebookd/notebookd/internal/imagechange")
	if reg == nil {
		return
	}
	c.metrics = &metrics{
		changer: c,
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "notebookd_image_changes_total",
			Help: "Image changes that have ended, by outcome, succeeded, unchanged or failed, and for those that failed the reason of the error. " +
				"The replica that made the change counts it: take the sum.",
		}, []string{"cloud", "outcome", "reason"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "notebookd_image_change_duration_seconds",
			Help:    "Time from the request of an image change to its end. The replica that made the change counts it: take the sum.",
			Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200},
		}, []string{"cloud", "outcome"}),
		underWay: prometheus.NewDesc("notebookd_image_changes_under_way",
			"Image changes that this replica is making, by phase: pending, stopping, creating, verifying, renaming, releasing or outcome_unknown. Take the sum.",
			[]string{"cloud", "phase"}, nil),
	}
	reg.MustRegister(c.inventory.Configured(c.metrics.ended), c.inventory.Configured(c.metrics.took), c.metrics)
}

// settled counts a change that has ended.
func (m *metrics) settled(change *notebookv1.ImageChange) {
	if m == nil {
		return
	}
	reason := ""
	if change.GetPhase() == notebookv1.ImageChange_PHASE_FAILED {
		reason = strings.ToLower(strings.TrimPrefix(change.GetFailure().GetReason().String(), "ERROR_REASON_"))
	}
	cloud, outcome := cloudOf(change), phaseWord(change.GetPhase())
	m.ended.WithLabelValues(cloud, outcome, reason).Inc()
	m.took.WithLabelValues(cloud, outcome).Observe(max(time.Since(change.GetCreateTime().AsTime()).Seconds(), 0))
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.underWay }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	type key struct {
		cloud string
		phase notebookv1.ImageChange_Phase
	}
	counts := map[key]int{}
	view := m.changer.book.view()
	m.changer.mu.Lock()
	for id := range m.changer.driving {
		if r, ok := view.get(id); ok && !r.settled() {
			counts[key{cloudOf(r.change), r.change.GetPhase()}]++
		}
	}
	m.changer.mu.Unlock()
	for _, cloud := range m.changer.inventory.Snapshot().Clouds() {
		for _, phase := range openPhases {
			n := counts[key{cloud.Name, phase}]
			ch <- prometheus.MustNewConstMetric(m.underWay, prometheus.GaugeValue, float64(n), cloud.Name, phaseWord(phase))
		}
	}
}

// cloudOf is the bare name of the cloud of a change.
func cloudOf(change *notebookv1.ImageChange) string {
	cloud, _, _ := strings.Cut(strings.TrimPrefix(change.GetNotebook(), "clouds/"), "/")
	return cloud
}

// phaseWord is the phase as it stands in logs and labels.
func phaseWord(phase notebookv1.ImageChange_Phase) string {
	return strings.ToLower(strings.TrimPrefix(phase.String(), "PHASE_"))
}
