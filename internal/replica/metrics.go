package replica

import "github.com/prometheus/client_golang/prometheus"

// metrics describes the group. A nil *metrics counts nothing.
type metrics struct {
	joined   prometheus.Gauge
	replicas prometheus.Gauge
	held     *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		return nil
	}
	m := &metrics{
		joined: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "notebookd_storage_connected", Help: "1 while this replica can reach its storage, 0 while it answers from memory. Take the min.",
		}),
		replicas: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "notebookd_replicas", Help: "Replicas that share the storage, as this one sees it; 0 with a storage of its own. Take the max.",
		}),
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "notebookd_lease_held", Help: "1 while this replica polls the cloud, 0 while another one is to. Take the sum: it is 0 while nobody does. A replica that cannot reach its storage has none.",
		}, []string{"cloud"}),
	}
	reg.MustRegister(m.joined, m.replicas, m.held)
	return m
}

func (m *metrics) setJoined(joined bool) {
	if m != nil {
		m.joined.Set(number(joined))
	}
}

func (m *metrics) setReplicas(n int) {
	if m != nil {
		m.replicas.Set(float64(n))
	}
}

func (m *metrics) hold(name string, held bool) {
	if m != nil {
		m.held.WithLabelValues(name).Set(number(held))
	}
}

// leave is for work that this replica does not want any more.
func (m *metrics) leave(name string) {
	if m != nil {
		m.held.DeleteLabelValues(name)
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
