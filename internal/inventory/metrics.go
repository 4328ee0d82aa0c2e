package inventory

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// metrics describes the locations. A nil *metrics counts nothing.
type metrics struct {
	polls   *prometheus.CounterVec
	rows    *prometheus.GaugeVec
	success *prometheus.GaugeVec
	state   *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		return nil
	}
	labels := []string{"cloud", "location"}
	m := &metrics{
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "notebookd_polls_total", Help: "Polls of a location by outcome: ok, store, or the kind of the error.",
		}, []string{"cloud", "location", "outcome"}),
		rows: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "notebookd_notebooks", Help: "Notebooks known in a location.",
		}, labels),
		success: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "notebookd_location_last_success_timestamp_seconds", Help: "When a location was last read completely.",
		}, labels),
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "notebookd_location_state", Help: "1 for the state that a location is in, 0 for the others.",
		}, []string{"cloud", "location", "state"}),
	}
	reg.MustRegister(m.polls, m.rows, m.success, m.state)
	return m
}

func (m *metrics) polled(l *Location, outcome string, rows int) {
	if m == nil {
		return
	}
	m.polls.WithLabelValues(l.Cloud, l.ID, outcome).Inc()
	m.rows.WithLabelValues(l.Cloud, l.ID).Set(float64(rows))
	if !l.LastSuccess.IsZero() {
		m.success.WithLabelValues(l.Cloud, l.ID).Set(float64(l.LastSuccess.UnixMilli()) / 1000)
	}
	for value := range notebookv1.Location_State_name {
		state := notebookv1.Location_State(value)
		if state == notebookv1.Location_STATE_UNSPECIFIED {
			continue
		}
		on := 0.0
		if state == l.State {
			on = 1
		}
		m.state.WithLabelValues(l.Cloud, l.ID, stateWord(state)).Set(on)
	}
}

// forget leaves a cloud to the replica that polls it now.
func (m *metrics) forget(cloud string) {
	if m == nil {
		return
	}
	of := prometheus.Labels{"cloud": cloud}
	m.rows.DeletePartialMatch(of)
	m.success.DeletePartialMatch(of)
	m.state.DeletePartialMatch(of)
}

// stateWord is the state as it stands in logs and labels.
func stateWord(s notebookv1.Location_State) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "STATE_"))
}
