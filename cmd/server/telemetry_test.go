package main

import (
	"context"
	"encoding/hex"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/telemetry"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// spans are what a collector was sent.
type spans struct {
	mu  sync.Mutex // guards what is below
	all []*tracev1.Span
	raw strings.Builder // everything, to look for what must not be there
}

// ServeHTTP implements http.Handler.
func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	req := &collector.ExportTraceServiceRequest{}
	if err != nil || proto.Unmarshal(body, req) != nil {
		http.Error(w, "not understood", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw.WriteString(protojson.Format(req))
	for _, resource := range req.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			s.all = append(s.all, scope.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (s *spans) named(name string) (out []*tracev1.Span) {
	for _, span := range s.all {
		if span.GetName() == name {
			out = append(out, span)
		}
	}
	return out
}

func attributes(span *tracev1.Span) map[string]string {
	out := map[string]string{}
	for _, a := range span.GetAttributes() {
		out[a.GetKey()] = strings.TrimPrefix(a.GetValue().String(), "string_value:")
	}
	return out
}

// TestTraces follows a change over REST, with the trace of its caller, to the cloud
// and back: one trace has the call, the change with its steps, and the calls to the
// cloud; the polls that it asked for are linked to it. The cloud and the log know
// its id. No secret is in any of it.
func TestTraces(t *testing.T) {
	t.Parallel()
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	sink := &spans{}
	collecting := httptest.NewServer(sink)
	t.Cleanup(collecting.Close)

	// What the cloud is sent, by its path.
	var mu sync.Mutex // guards headers
	headers := map[string][]http.Header{}
	target, err := url.Parse(fleet.URL("core"))
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		mu.Lock()
		defer mu.Unlock()
		headers[r.In.URL.Path] = append(headers[r.In.URL.Path], r.In.Header.Clone())
	}}
	cloud := httptest.NewServer(proxy)
	t.Cleanup(cloud.Close)

	cfg, err := parseConfig("test.yaml", []byte(strings.ReplaceAll(quick(fleet), fleet.URL("core"), cloud.URL)+`
tracing:
  endpoint: `+collecting.Listener.Addr().String()+`
  protocol: http
  insecure: true
  headers: {x-token: {value: the-token-of-the-collector}}
`))
	if err != nil {
		t.Fatal(err)
	}
	p := startConfig(t, cfg)

	const (
		trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
		password      = "the-password-of-a-registry"
	)
	body, err := protojson.Marshal(&notebookv1.ChangeImageRequest{
		Image: "registry.example.com/team/traced:1", ImageType: "custom", Wait: durationpb.New(20 * time.Second), Reason: "the-reason-why",
		RegistryCredential: &notebookv1.RegistryCredential{Username: "the-user-of-a-registry", Password: password},
	})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/v1/"+coreNotebook+":changeImage", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("traceparent", "00-"+trace+"-"+parent+"-01")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(answer), "SUCCEEDED") {
		t.Fatalf("%d %s", resp.StatusCode, answer)
	}
	// Calls in the process, of both kinds, are traced as those over gRPC are.
	for _, path := range []string{"/v1/notebooks", "/v1/clouds"} {
		if code, text := p.get(t, path); code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, code, text)
		}
	}
	watched, leave := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+strings.Repeat("ab", 16)+"-"+parent+"-01"))
	stream, err := p.Watch(watched, &notebookv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	frames(t, stream, func(f *notebookv1.WatchResponse) bool { return f.GetBookmark() != nil })
	leave()
	if err := p.stop(); err != nil { // sends what is left
		t.Fatal(err)
	}

	sink.mu.Lock()
	defer sink.mu.Unlock()
	one := func(name string) *tracev1.Span {
		t.Helper()
		found := sink.named(name)
		if len(found) != 1 {
			t.Fatalf("%d spans %q", len(found), name)
		}
		return found[0]
	}
	id := hex.EncodeToString
	call, change := one("notebook.v1.NotebookService/ChangeImage"), one("image_change")
	sending, asked := one("image_change sending"), one("cloud change_image")
	for _, chain := range [][2]*tracev1.Span{{call, change}, {change, one("image_change pending")}, {change, sending}, {change, one("image_change verify")}, {sending, asked}} {
		if above, below := chain[0], chain[1]; id(below.GetTraceId()) != trace || id(below.GetParentSpanId()) != id(above.GetSpanId()) {
			t.Errorf("%s is not a child of %s", below.GetName(), above.GetName())
		}
	}
	if id(call.GetTraceId()) != trace || id(call.GetParentSpanId()) != parent || call.GetKind() != tracev1.Span_SPAN_KIND_SERVER {
		t.Errorf("the call: %v", call)
	}
	if got := attributes(change); !strings.Contains(got["notebookd.outcome"], "succeeded") || !strings.Contains(got["notebookd.change"], "imageChanges/") {
		t.Errorf("the change: %v", got)
	}
	if got := attributes(asked); !strings.Contains(got["notebookd.outcome"], "ok") || asked.GetKind() != tracev1.Span_SPAN_KIND_CLIENT {
		t.Errorf("the call to the cloud: %v", got)
	}
	linked := 0
	for _, poll := range sink.named("poll") {
		if len(poll.GetParentSpanId()) > 0 {
			t.Errorf("a poll is part of something: %v", poll)
		}
		for _, link := range poll.GetLinks() {
			if id(link.GetTraceId()) == trace {
				linked++
			}
		}
	}
	if linked == 0 {
		t.Error("no poll is linked to the change that waited for it")
	}
	for _, name := range []string{"notebook.v1.NotebookService/List", "notebook.v1.CloudService/ListClouds", "notebook.v1.NotebookService/Watch"} {
		if span := one(name); !strings.Contains(attributes(span)["rpc.system.name"], "grpc") {
			t.Errorf("%s: %v", name, span)
		}
	}
	if watch := one("notebook.v1.NotebookService/Watch"); id(watch.GetTraceId()) != strings.Repeat("ab", 16) {
		t.Errorf("the watch: %v", watch)
	}

	// The cloud: an id with each call, that of the trace with the change, and nothing else.
	mu.Lock()
	defer mu.Unlock()
	for path, all := range headers {
		for _, h := range all {
			if h.Get("X-Request-Id") == "" || h.Get("Traceparent") != "" || h.Get("Tracestate") != "" {
				t.Errorf("%s: headers %v", path, h)
			}
			if strings.HasSuffix(path, "/change_image") && h.Get("X-Request-Id") != trace {
				t.Errorf("%s: headers %v", path, h)
			}
		}
	}
	if paths := slices.Sorted(maps.Keys(headers)); !slices.ContainsFunc(paths, func(path string) bool { return strings.HasSuffix(path, "/change_image") }) {
		t.Errorf("the cloud was asked for %v", paths)
	}

	// The log: the line of the call has the trace, that of the call to the cloud its id.
	for _, words := range [][]string{
		{"finished call", "grpc.method=ChangeImage", "trace_id=" + trace},
		{"cloud call", "op=change_image", "outcome=ok", "request_id=" + trace},
		{"finished call", "grpc.method=Watch", "trace_id=" + strings.Repeat("ab", 16)},
	} {
		if !slices.ContainsFunc(strings.Split(p.log.String(), "\n"), func(line string) bool {
			return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
		}) {
			t.Errorf("no line of the log has all of %v", words)
		}
	}

	for _, secret := range []string{
		password, "the-user-of-a-registry", "the-reason-why", "the-token-of-the-collector", "traced:1", cloudsim.CoresHubKeyID, cloudsim.CoresHubSecret,
		cloudsim.SCNetAccessKey, cloudsim.SCNetSecretKey, "127.0.0.1",
	} {
		if strings.Contains(sink.raw.String(), secret) {
			t.Errorf("%q is in a span", secret)
		}
		if secret != "traced:1" && secret != "127.0.0.1" && secret != "the-reason-why" && strings.Contains(p.log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

// TestCollectorIsAway: a server whose collector does not exist starts, answers and
// stops as any other.
func TestCollectorIsAway(t *testing.T) {
	t.Parallel()
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	cfg, err := parseConfig("test.yaml", []byte(quick(fleet)))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Tracing = telemetry.Config{Endpoint: "127.0.0.1:1", Insecure: true}
	p := startConfig(t, cfg)
	if code, body := p.get(t, "/v1/notebooks"); code != http.StatusOK {
		t.Fatalf("List: %d %s", code, body)
	}
	began := time.Now()
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > cfg.Drain+2*flushFor {
		t.Errorf("stopping took %v", took)
	}
}

// TestTracingConfig: problems of the section are told with their line.
func TestTracingConfig(t *testing.T) {
	t.Parallel()
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	_, err = parseConfig("test.yaml", []byte(`tracing:
  endpoint: http://collector
  sample_ratio: 2
  headers:
    authorization: {env: NOTEBOOKD_TEST_NOT_SET}
  sampler: always
`+fleet.ServerConfig()))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"line 6: tracing.sampler: unknown key"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	_, err = parseConfig("test.yaml", []byte(`tracing:
  endpoint: http://collector
  sample_ratio: 2
  headers:
    authorization: {env: NOTEBOOKD_TEST_NOT_SET}
`+fleet.ServerConfig()))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"line 2: tracing.endpoint: must be host:port", "line 3: tracing.sample_ratio: must be from 0 to 1",
		"tracing.headers.authorization: environment variable NOTEBOOKD_TEST_NOT_SET is empty or not set",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// TestMetricValues: what a server has lived through stands in its metrics.
func TestMetricValues(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a server")
	}
	s := life(t)
	value := func(name string, labels map[string]string) (float64, bool) {
		for _, m := range s.families[name].GetMetric() {
			got := map[string]string{}
			for _, pair := range m.GetLabel() {
				if _, ok := labels[pair.GetName()]; ok {
					got[pair.GetName()] = pair.GetValue()
				}
			}
			if maps.Equal(got, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount()), true
			}
		}
		return 0, false
	}
	type labels = map[string]string
	for _, tt := range []struct {
		name   string
		labels labels
		min    float64
		max    float64
	}{
		{"notebookd_image_changes_total", labels{"cloud": "core", "outcome": "succeeded", "reason": ""}, 1, 1},
		{"notebookd_image_changes_total", labels{"cloud": "core", "outcome": "failed", "reason": "cloud_rejected"}, 1, 1},
		{"notebookd_image_change_duration_seconds", labels{"cloud": "core", "outcome": "succeeded"}, 1, 1},
		{"notebookd_image_changes_under_way", labels{"cloud": "core", "phase": "outcome_unknown"}, 0, 0},
		{"notebookd_watches_open", labels{}, 1, 1},
		{"notebookd_watches_ended_total", labels{"reason": "slow_reader"}, 0, 0},
		{"notebookd_watch_lag_seconds", labels{}, 1, 1e6},
		{"notebookd_lease_held", labels{"cloud": "core"}, 1, 1},
		{"notebookd_storage_connected", labels{}, 1, 1},
		{"notebookd_storage_messages", labels{"stream": "KV_NOTEBOOKD_CHANGES"}, 2, 1e3},
		{"notebookd_breaker_state", labels{"cloud": "scnet", "location": "11250", "class": "read"}, 1, 2},
		{"notebookd_call_budget_limit", labels{"cloud": "core"}, 1e6, 1e6},
		{"notebookd_call_budget_remaining", labels{"cloud": "core"}, 1, 1e5},
		{"notebookd_data_age_seconds", labels{"cloud": "scnet", "location": "11250"}, 0, 30},
		{"notebookd_log_revision", labels{}, 1, 1e6},
	} {
		if got, ok := value(tt.name, tt.labels); !ok || got < tt.min || got > tt.max {
			t.Errorf("%s%v is %v, there %v; want %v to %v", tt.name, tt.labels, got, ok, tt.min, tt.max)
		}
	}
	if _, ok := value("notebookd_call_budget_limit", labels{"cloud": "scnet"}); ok {
		t.Error("a cloud without a quota has a budget")
	}
}

// TestOutcomeUnknownIsTold: a change whose answer is lost is under way, as one of
// which nobody knows what became, until the cloud can be read again.
func TestOutcomeUnknownIsTold(t *testing.T) {
	t.Parallel()
	p, fleet := startQuick(t, cloudsim.Config{Seed: 1, Notebooks: 3})
	unknown := func() bool {
		_, body := p.get(t, "/metrics")
		return strings.Contains(body, `notebookd_image_changes_under_way{cloud="core",phase="outcome_unknown"} 1`)
	}
	if unknown() {
		t.Fatal("told before it is so")
	}
	fleet.CoresHub.Break(cloudsim.Fault{Op: "change_image", Mode: cloudsim.ModeReset, Effect: true})
	fleet.CoresHub.Break(cloudsim.Fault{Op: "list", Mode: cloudsim.ModeHang})
	_, err := p.ChangeImage(t.Context(), &notebookv1.ChangeImageRequest{
		Name: coreNotebook, Image: "registry.example.com/team/lost:1", ImageType: "custom", Wait: durationpb.New(time.Second),
	})
	if reasonOf(err) != "OUTCOME_UNKNOWN" {
		t.Fatal(err)
	}
	p.until(t, "it is told that the outcome is unknown", unknown)
	fleet.CoresHub.Heal()
	p.until(t, "it is told that the change succeeded", func() bool {
		_, body := p.get(t, "/metrics")
		return !unknown() && strings.Contains(body, `notebookd_image_changes_total{cloud="core",outcome="succeeded",reason=""} 1`)
	})
}
