package inventory

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// metrics describes clouds, locations and the log as they are when somebody asks,
// so that ages grow while nothing happens, and what is not configured any more is
// not told of. A nil *metrics counts nothing.
//
// What describes a cloud is told by the replica that polls it alone, so that sum
// and max over the replicas are both what it is. What describes the data that a
// replica answers with is told by every one, since one that is cut off is older.
type metrics struct {
	polls *prometheus.CounterVec

	found                                   *prometheus.Desc
	rows, byState, success, state, interval *prometheus.Desc
	limit, burst, remaining                 *prometheus.Desc
	age, revision                           *prometheus.Desc

	inv  *Inventory
	made time.Time
}

const (
	byPoller = " Only the replica that polls the cloud has it."
	byAll    = " Every replica has its own: take the max."
)

func newMetrics(reg prometheus.Registerer, inv *Inventory) *metrics {
	if reg == nil {
		return nil
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	m := &metrics{
		inv: inv, made: time.Now(),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "notebookd_polls_total",
			Help: "Polls of a location by outcome: ok, store, or the kind of the error. Replicas poll in turn: take the sum.",
		}, []string{"cloud", "location", "outcome"}),
		found: desc("notebookd_cloud_discovered",
			"1 while a cloud says which locations it has, 0 while its login or discovery fails: then there may be no location to tell of."+byPoller, "cloud"),
		rows: desc("notebookd_notebooks", "Notebooks known in a location."+byPoller, "cloud", "location"),
		byState: desc("notebookd_notebooks_by_state",
			"Notebooks known in a location by their state: unspecified, creating, starting, running, stopping, stopped or failed."+byPoller,
			"cloud", "location", "state"),
		success: desc("notebookd_location_last_success_timestamp_seconds", "When a location was last read completely."+byPoller, "cloud", "location"),
		state: desc("notebookd_location_state",
			"1 for the state that a location is in, live, stale, unreachable or disabled, and 0 for the others."+byPoller, "cloud", "location", "state"),
		interval: desc("notebookd_poll_interval_seconds", "From the start of one poll of a location to that of the next, as it is now."+byPoller,
			"cloud", "location"),
		limit: desc("notebookd_call_budget_limit", "Calls an hour that an account may make. An account without a quota has none."+byPoller, "cloud"),
		burst: desc("notebookd_call_budget_burst", "Calls that the budget of an account has room for at one moment."+byPoller, "cloud"),
		remaining: desc("notebookd_call_budget_remaining",
			"Calls that the budget of an account has left at this moment; notebookd_call_budget_burst when none was made for a while."+byPoller, "cloud"),
		age: desc("notebookd_data_age_seconds",
			"How old what is known of a location is; of one that was never read, since when the process runs. A location that is disabled has none."+byAll,
			"cloud", "location"),
		revision: desc("notebookd_log_revision", "The revision of the log that is shown. Every replica has its own: the difference between max and min is how far one is behind."),
	}
	reg.MustRegister(inv.Configured(m.polls), m)
	return m
}

func (m *metrics) polled(l *Location, outcome string) {
	if m != nil {
		m.polls.WithLabelValues(l.Cloud, l.ID, outcome).Inc()
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.found, m.rows, m.byState, m.success, m.state, m.interval, m.limit, m.burst, m.remaining, m.age, m.revision} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	now, snapshot := time.Now(), m.inv.Snapshot()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(m.revision, float64(snapshot.Revision()))
	held := map[string]bool{}
	for _, c := range snapshot.Clouds() {
		if held[c.Name] = c.held; !c.held {
			continue
		}
		discovered := 0.0
		if c.Discovered && c.Failure == nil {
			discovered = 1
		}
		gauge(m.found, discovered, c.Name)
		if limit, remaining := c.Budget(); limit > 0 {
			gauge(m.limit, float64(limit), c.Name)
			gauge(m.remaining, float64(remaining), c.Name)
			gauge(m.burst, float64(c.source.Client.Burst()), c.Name)
		}
	}
	for _, l := range snapshot.Locations() {
		here, configured := held[l.Cloud]
		if !configured {
			continue
		}
		if l.State != notebookv1.Location_STATE_DISABLED {
			since := m.made
			if !l.LastSuccess.IsZero() {
				since = l.LastSuccess
			}
			gauge(m.age, max(now.Sub(since).Seconds(), 0), l.Cloud, l.ID) // the clock of another replica may be ahead
		}
		if !here {
			continue
		}
		gauge(m.rows, float64(snapshot.Count(l.Name)), l.Cloud, l.ID)
		for state, rows := range snapshot.states[l.Name] {
			gauge(m.byState, float64(rows), l.Cloud, l.ID, word(notebookv1.Notebook_State(state).String()))
		}
		if !l.LastSuccess.IsZero() {
			gauge(m.success, float64(l.LastSuccess.UnixMilli())/1000, l.Cloud, l.ID)
		}
		if l.Interval > 0 {
			gauge(m.interval, l.Interval.Seconds(), l.Cloud, l.ID)
		}
		for _, value := range slices.Sorted(maps.Keys(notebookv1.Location_State_name)) {
			state, on := notebookv1.Location_State(value), 0.0
			if state == notebookv1.Location_STATE_UNSPECIFIED {
				continue
			}
			if state == l.State {
				on = 1
			}
			gauge(m.state, on, l.Cloud, l.ID, stateWord(state))
		}
	}
}

// stateCounts are live rows by the number of their state in the contract.
type stateCounts [notebookv1.Notebook_STATE_FAILED + 1]int

// add counts a row in or out. A state of a newer version is one that is not known.
func (c stateCounts) add(row *Row, n int) stateCounts {
	state := row.Notebook.GetState()
	if state < 0 || int(state) >= len(c) {
		state = notebookv1.Notebook_STATE_UNSPECIFIED
	}
	c[state] += n //nolint:gosec // one of them
	return c
}

// stateWord is the state as it stands in logs and labels.
func stateWord(s notebookv1.Location_State) string { return word(s.String()) }

func word(state string) string { return strings.ToLower(strings.TrimPrefix(state, "STATE_")) }

// Vector is a vector of metrics.
type Vector interface {
	prometheus.Collector
	DeletePartialMatch(labels prometheus.Labels) int
}

// Configured returns a vector with a label "cloud" which forgets the clouds that
// are not configured any more.
func (inv *Inventory) Configured(v Vector) prometheus.Collector { return configured{v, inv} }

type configured struct {
	Vector
	inv *Inventory
}

// Collect implements prometheus.Collector.
func (c configured) Collect(ch chan<- prometheus.Metric) {
	known := map[string]bool{}
	for _, cloud := range c.inv.Snapshot().Clouds() {
		known[cloud.Name] = true
	}
	all := make(chan prometheus.Metric) // closed by the goroutine when it has sent everything
	go func() {
		defer close(all)
		c.Vector.Collect(all)
	}()
	gone := map[string]bool{}
	for metric := range all {
		var m dto.Metric
		if metric.Write(&m) == nil {
			if cloud := labelOf(&m, "cloud"); !known[cloud] {
				gone[cloud] = true
				continue
			}
		}
		ch <- metric
	}
	for cloud := range gone { // not before: the vector is locked while it tells
		c.DeletePartialMatch(prometheus.Labels{"cloud": cloud})
	}
}

func labelOf(m *dto.Metric, name string) string {
	for _, pair := range m.GetLabel() {
		if pair.GetName() == name {
			return pair.GetValue()
		}
	}
	return ""
}
