package upstream

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts calls to clouds, and tells of the breakers of the clients that
// are open. A nil *Metrics counts nothing. What a client has counted goes with its
// Close.
type Metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	breaker *prometheus.Desc

	mu sync.RWMutex // guards what is below, and that nothing is counted for a client that is not in it
	// clients are those that are open, by cloud. Of two of one cloud it is the
	// newer one.
	clients map[string]*Client
}

// NewMetrics registers the metrics of all clients.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		clients: map[string]*Client{},
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "notebookd_cloud_calls_total",
			Help: "Calls to clouds by outcome: ok, caller_gone, or the kind of the error.",
		}, []string{"cloud", "location", "op", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "notebookd_cloud_call_duration_seconds",
			Help:    "Time of calls to clouds, waiting for the call budget included.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"cloud", "op"}),
		breaker: prometheus.NewDesc("notebookd_breaker_state",
			"State of a circuit breaker: 0 closed, 1 half open, 2 open. Every replica has its own breakers: take the max.",
			[]string{"cloud", "location", "class"}, nil),
	}
	reg.MustRegister(m.calls, m.seconds, m)
	return m
}

// Describe implements prometheus.Collector, for the breakers.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.breaker }

// Collect implements prometheus.Collector, for the breakers.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.RLock()
	clients := make([]*Client, 0, len(m.clients))
	for _, c := range m.clients {
		clients = append(clients, c)
	}
	m.mu.RUnlock()
	for _, c := range clients {
		for _, b := range c.Breakers() {
			ch <- prometheus.MustNewConstMetric(m.breaker, prometheus.GaugeValue, float64(b.State), c.cloud, b.Scope, b.Class.String())
		}
	}
}

// open counts for a client from now on.
func (m *Metrics) open(c *Client) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clients[c.cloud] = c
}

// close forgets a client and what was counted of its cloud, unless a newer client
// has taken over.
func (m *Metrics) close(c *Client) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clients[c.cloud] != c {
		return
	}
	delete(m.clients, c.cloud)
	of := prometheus.Labels{"cloud": c.cloud}
	m.calls.DeletePartialMatch(of)
	m.seconds.DeletePartialMatch(of)
}

func (m *Metrics) observe(cloud string, call Call, took time.Duration, outcome string) {
	if m == nil {
		return
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.clients[cloud] == nil {
		return // the last call of a client that is closed
	}
	m.calls.WithLabelValues(cloud, call.Location, call.Op, outcome).Inc()
	m.seconds.WithLabelValues(cloud, call.Op).Observe(took.Seconds())
}

// outcomeOf is what became of a call, as it stands in logs, labels and spans.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case IsContext(err):
		return "caller_gone"
	default:
		return KindOf(err).String()
	}
}
