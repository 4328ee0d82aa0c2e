package storage

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	descMessages = prometheus.NewDesc("notebookd_storage_messages",
		"Messages that a stream holds. Replicas that share a storage have the same: take the max.", []string{"stream"}, nil)
	descBytes = prometheus.NewDesc("notebookd_storage_bytes",
		"Bytes that a stream holds. Replicas that share a storage have the same: take the max.", []string{"stream"}, nil)
)

// askFor bounds the questions of one scrape.
const askFor = time.Second

// Describe implements prometheus.Collector.
func (s *Storage) Describe(ch chan<- *prometheus.Desc) {
	ch <- descMessages
	ch <- descBytes
}

// Collect implements prometheus.Collector: it asks the storage for what the streams
// hold that were opened. What is not answered in time is not told.
func (s *Storage) Collect(ch chan<- prometheus.Metric) {
	if !s.Connected() {
		return
	}
	s.mu.Lock()
	names := make([]string, 0, len(s.opened))
	for name := range s.opened {
		names = append(names, name)
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), askFor)
	defer cancel()
	for _, name := range names {
		stream, err := s.js.Stream(ctx, name)
		if err != nil {
			return
		}
		state := stream.CachedInfo().State
		ch <- prometheus.MustNewConstMetric(descMessages, prometheus.GaugeValue, float64(state.Msgs), name)
		ch <- prometheus.MustNewConstMetric(descBytes, prometheus.GaugeValue, float64(state.Bytes), name)
	}
}
