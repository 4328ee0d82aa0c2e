package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/telemetry"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

var update = flag.Bool("update", false, "write docs/metrics.md and the examples of the OpenAPI document anew")

// scraped is what a server told of itself after it has lived through something.
type scraped struct {
	families map[string]*dto.MetricFamily
	descs    map[string]metricDesc // of all that are registered, by name
}

type metricDesc struct {
	help   string
	labels []string
}

// lived is scraped once for all tests of this package that look at it.
var lived struct {
	once sync.Once
	scraped
}

// life runs a server on simulated clouds through calls, image changes and an
// outage, and returns what /metrics says then.
func life(t *testing.T) scraped {
	t.Helper()
	lived.once.Do(func() { lived.scraped = live(t) })
	if lived.families == nil {
		t.Fatal("the server was not scraped: see the test that ran it")
	}
	return lived.scraped
}

func live(t *testing.T) scraped {
	t.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	cfg, err := parseConfig("test.yaml", []byte(strings.ReplaceAll(quick(fleet), "min_requests: 5", "min_requests: 2")))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Tracing = telemetry.Config{Endpoint: "127.0.0.1:1", Insecure: true} // nobody listens
	p := startConfig(t, cfg)
	ctx := t.Context()

	watched, leave := context.WithCancel(ctx)
	defer leave()
	stream, err := p.Watch(watched, &notebookv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	frames(t, stream, func(f *notebookv1.WatchResponse) bool {
		return f.GetBookmark().GetKind() == notebookv1.Bookmark_KIND_SNAPSHOT_END
	})
	if code, body := p.get(t, "/v1/notebooks"); code != http.StatusOK {
		t.Fatalf("List: %d %s", code, body)
	}
	const image = "registry.example.com/team/finetune:metrics"
	change := &notebookv1.ChangeImageRequest{Name: coreNotebook, Image: image, ImageType: "custom", Wait: durationpb.New(20 * time.Second)}
	if _, err := p.ChangeImage(ctx, change); err != nil {
		t.Fatal(err)
	}
	frames(t, stream, func(f *notebookv1.WatchResponse) bool {
		return f.GetNotebook().GetNotebook().GetImage().GetUri() == image
	})
	fleet.CoresHub.Break(cloudsim.Fault{Op: "change_image", Mode: cloudsim.ModeCode, Code: "1400"})
	change.Image += "-refused"
	if _, err := p.ChangeImage(ctx, change); err == nil {
		t.Fatal("a change that the cloud refuses went well")
	}
	fleet.SCNet.Break(cloudsim.Fault{Mode: cloudsim.ModeStatus})
	p.until(t, "the breaker of scnet opens", func() bool {
		_, body := p.get(t, "/metrics")
		return strings.Contains(body, `notebookd_breaker_state{class="read",cloud="scnet",location="11250"} 2`)
	})

	_, body := p.get(t, "/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	guarded, err := startGuarded(t, nil).server.registry.Gather() // what only a server with TLS tells
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range guarded {
		if families[family.GetName()] == nil {
			families[family.GetName()] = family
		}
	}
	out := scraped{families: families, descs: map[string]metricDesc{}}
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		p.server.registry.Describe(descs)
	}()
	for d := range descs {
		name, desc := parseDesc(t, d)
		out.descs[name] = desc
	}
	return out
}

var descText = regexp.MustCompile(`(?s)^Desc\{fqName: "([^"]*)", help: "(.*)", unit: "[^"]*", constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// parseDesc reads the one form in which a prometheus.Desc tells what it is.
func parseDesc(t *testing.T, d *prometheus.Desc) (name string, desc metricDesc) {
	t.Helper()
	match := descText.FindStringSubmatch(d.String())
	if match == nil {
		t.Fatalf("not understood: %s", d)
	}
	for _, pair := range strings.Split(match[3], ",") {
		if label, _, ok := strings.Cut(pair, "="); ok {
			desc.labels = append(desc.labels, label)
		}
	}
	if match[4] != "" {
		desc.labels = append(desc.labels, strings.Split(match[4], ",")...)
	}
	slices.Sort(desc.labels)
	desc.help = strings.ReplaceAll(match[2], `\"`, `"`)
	return match[1], desc
}

// foreign reports whether a metric is of the runtime, the process or the library,
// which are described elsewhere.
func foreign(name string) bool {
	for _, prefix := range []string{"go_", "process_", "promhttp_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// TestMetricsReference: docs/metrics.md describes exactly the metrics that there
// are, and each of them was seen at a server that has lived.
func TestMetricsReference(t *testing.T) {
	s := life(t)
	var b strings.Builder
	b.WriteString(metricsHead)
	b.WriteString("| metric | type | labels | |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(s.descs)) {
		if foreign(name) {
			continue
		}
		family, ok := s.families[name]
		if !ok {
			t.Errorf("%s is registered and was not seen; let the server live through what it tells of", name)
			continue
		}
		desc := s.descs[name]
		labels := "–"
		if len(desc.labels) > 0 {
			labels = "`" + strings.Join(desc.labels, "`, `") + "`"
		}
		if family.GetHelp() != desc.help {
			t.Errorf("%s: help %q, registered as %q", name, family.GetHelp(), desc.help)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, strings.ToLower(family.GetType().String()), labels, strings.ReplaceAll(desc.help, "|", `\|`))
	}
	const file = "../../docs/metrics.md"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Errorf("docs/metrics.md is not what the server tells; write it anew: go test -run '^TestMetricsReference$' ./cmd/server -update\n%s", b.String())
	}
}

const metricsHead = `# Metrics

What ` + "`GET /metrics`" + ` tells, in the text format of Prometheus. Names and labels are stable: a
release that changes one says so in the changelog. This page is written by a test from
what a running server has registered ([中文](metrics.zh-CN.md)).

Several replicas of one installation tell partly the same. Where that matters, the help
says how to put them together: what describes a cloud is told by the replica that polls
it alone, so that ` + "`sum`" + ` and ` + "`max`" + ` over the replicas are both right; what describes the
answers of a replica is told by each. A cloud that is taken out of the configuration takes
its series with it.

Metrics that begin with ` + "`go_`, `process_` and `promhttp_`" + ` are those of the Go runtime, the
process and the handler; their help says what they are. Dashboard and alerts made of all
this are in [deploy/monitoring](../deploy/monitoring), what to do about an alert in
[operations.md](operations.md).

` + "```console" + `
$ curl -s localhost:8080/metrics | grep notebookd_watches_open
# HELP notebookd_watches_open Watches that are open. Every replica has its own: take the sum.
# TYPE notebookd_watches_open gauge
notebookd_watches_open 0
` + "```" + `

`
