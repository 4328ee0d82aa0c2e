package inventory

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/notebookd/notebookd/internal/upstream"
)

// series are the values of a registry, by name and labels as in the text format.
func series(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, pair := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", pair.GetName(), pair.GetValue()))
			}
			out[family.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// observed is testInventory of a cloud with one location.
func observed(t *testing.T, cloud *fakeCloud, prepare func(*Inventory)) *Inventory {
	t.Helper()
	cloud.locations = []upstream.Location{{ID: "xb3"}}
	inv, _ := testInventoryFrom(t, Source{Name: "core", Kind: "fake", Provider: cloud, Poll: PollConfig{Idle: time.Minute, Normal: 10 * time.Second}}, prepare)
	return inv
}

// TestMetricsAreOfThePresent: ages grow while nothing happens, what describes a
// cloud is told by who polls it, and what is not configured any more by nobody.
func TestMetricsAreOfThePresent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{notebooks: notebooks("a", "b")}
		cloud.notebooks[1].State = upstream.StateStopped
		registry := prometheus.NewRegistry()
		inv := observed(t, cloud, func(inv *Inventory) { inv.metrics = newMetrics(registry, inv) })
		inv.store.hold("core", true)
		synctest.Wait()
		want := func(name string, value float64) {
			t.Helper()
			name = strings.Replace(name, "{", `{cloud="core",`, 1)
			if got, ok := series(t, registry)[name]; !ok || got != value {
				t.Errorf("%s is %v, there %v, want %v", name, got, ok, value)
			}
		}
		if got := series(t, registry)[`notebookd_cloud_discovered{cloud="core"}`]; got != 1 {
			t.Errorf("discovered is %v", got)
		}
		want(`notebookd_notebooks{location="xb3"}`, 2)
		want(`notebookd_notebooks_by_state{location="xb3",state="running"}`, 1)
		want(`notebookd_notebooks_by_state{location="xb3",state="stopped"}`, 1)
		want(`notebookd_notebooks_by_state{location="xb3",state="failed"}`, 0)
		want(`notebookd_location_state{location="xb3",state="live"}`, 1)
		want(`notebookd_location_state{location="xb3",state="stale"}`, 0)
		if got := series(t, registry)[`notebookd_poll_interval_seconds{cloud="core",location="xb3"}`]; got < 60 || got > 66 { // or later, by up to a tenth
			t.Errorf("the poll interval is %v", got)
		}
		want(`notebookd_polls_total{location="xb3",outcome="ok"}`, 1)
		want(`notebookd_data_age_seconds{location="xb3"}`, 0)
		if got := series(t, registry)["notebookd_log_revision{}"]; got != 2 {
			t.Errorf("revision %v", got)
		}
		read := float64(time.Now().Unix())
		cloud.set(func(f *fakeCloud) { f.err = &upstream.Error{Kind: upstream.KindUnavailable} })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		want(`notebookd_data_age_seconds{location="xb3"}`, 600)
		want(`notebookd_location_last_success_timestamp_seconds{location="xb3"}`, read)
		want(`notebookd_location_state{location="xb3",state="unreachable"}`, 1)
		want(`notebookd_notebooks{location="xb3"}`, 2)

		inv.store.hold("core", false)
		for name := range series(t, registry) {
			if strings.Contains(name, "core") && !strings.HasPrefix(name, "notebookd_data_age_seconds") && !strings.HasPrefix(name, "notebookd_polls_total") {
				t.Errorf("not polled here, and still told: %s", name)
			}
		}
		want(`notebookd_data_age_seconds{location="xb3"}`, 600)

		inv.store.mu.Lock()
		delete(inv.store.clouds, "core")
		inv.store.publishLocked(true)
		inv.store.mu.Unlock()
		if got := series(t, registry); len(got) != 1 {
			t.Errorf("of a cloud that is not configured any more: %v", got)
		}
		inv.store.updateCloud("core", func(*Cloud) {}) // it is back
		if _, ok := series(t, registry)[`notebookd_polls_total{cloud="core",location="xb3",outcome="ok"}`]; ok {
			t.Error("what was counted before the cloud was taken away is back")
		}
	})
}

// TestNeverReadGrowsOld: a location that was never read is as old as the process.
func TestNeverReadGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		observed(t, &fakeCloud{err: &upstream.Error{Kind: upstream.KindTimeout}}, func(inv *Inventory) { inv.metrics = newMetrics(registry, inv) })
		time.Sleep(5 * time.Minute)
		if got := series(t, registry)[`notebookd_data_age_seconds{cloud="core",location="xb3"}`]; got != 300 {
			t.Errorf("age %v", got)
		}
	})
}

// TestCloudThatIsNotDiscoveredIsTold: a cloud of which no location is known is told
// of all the same.
func TestCloudThatIsNotDiscoveredIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		cloud := &fakeCloud{discovery: &upstream.Error{Kind: upstream.KindTimeout}}
		inv := observed(t, cloud, func(inv *Inventory) { inv.metrics = newMetrics(registry, inv) })
		inv.store.hold("core", true)
		synctest.Wait()
		if got, ok := series(t, registry)[`notebookd_cloud_discovered{cloud="core"}`]; !ok || got != 0 {
			t.Errorf("discovered is %v, there %v", got, ok)
		}
	})
}

// TestPollsAreTraced: a poll is a trace of its own, with a link to who asked for it.
func TestPollsAreTraced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exporter := tracetest.NewInMemoryExporter()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
		cloud := &fakeCloud{notebooks: notebooks("a")}
		inv := observed(t, cloud, func(inv *Inventory) { inv.tracer = tracerOf(provider) })
		synctest.Wait()
		ctx, caller := provider.Tracer("test").Start(t.Context(), "caller")
		if err := inv.Refresh(ctx, testLocation); err != nil {
			t.Fatal(err)
		}
		caller.End()
		cloud.set(func(f *fakeCloud) { f.err = &upstream.Error{Kind: upstream.KindThrottled} })
		if err := inv.Refresh(t.Context(), testLocation); err == nil {
			t.Fatal("no error")
		}
		synctest.Wait()
		var polls []tracetest.SpanStub
		for _, span := range exporter.GetSpans() {
			if span.Name == "poll" {
				polls = append(polls, span)
			}
		}
		if len(polls) < 2 {
			t.Fatalf("spans %+v", exporter.GetSpans())
		}
		asked, failed := polls[len(polls)-2], polls[len(polls)-1]
		if asked.Parent.IsValid() || len(asked.Links) != 1 || asked.Links[0].SpanContext.SpanID() != caller.SpanContext().SpanID() ||
			asked.SpanContext.TraceID() == caller.SpanContext().TraceID() {
			t.Errorf("the poll that was asked for: %+v", asked)
		}
		got := map[attribute.Key]string{}
		for _, a := range failed.Attributes {
			got[a.Key] = a.Value.String()
		}
		if got["notebookd.cloud"] != "core" || got["notebookd.location"] != "xb3" || got["error.type"] != "throttled" || failed.Status.Description != "throttled" || len(failed.Links) != 0 {
			t.Errorf("the poll that failed: %+v", failed)
		}
	})
}
