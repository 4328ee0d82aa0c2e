package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	"go.yaml.in/yaml/v3"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream"
)

const (
	rulesFile     = "../../deploy/monitoring/alerts.yaml"
	dashboardFile = "../../deploy/monitoring/dashboard.json"
	runbookFile   = "../../docs/operations.md"
	runbookURL    = "https://github.com/notebookd/notebookd/blob/main/docs/operations.md#"
)

// closedSets are the values that a label may have, where a scrape shows only those
// that occurred.
func closedSets() map[string]map[string][]string {
	outcomes := []string{"ok", "caller_gone", "store"}
	for kind := upstream.KindBadResponse; kind <= upstream.KindBudget; kind++ {
		outcomes = append(outcomes, kind.String())
	}
	var reasons []string
	for _, name := range notebookv1.ErrorReason_name {
		reasons = append(reasons, strings.ToLower(strings.TrimPrefix(name, "ERROR_REASON_")))
	}
	return map[string]map[string][]string{
		"notebookd_cloud_calls_total":             {"outcome": outcomes, "op": {"list", "login", "change_image"}},
		"notebookd_cloud_call_duration_seconds":   {"op": {"list", "login", "change_image"}},
		"notebookd_polls_total":                   {"outcome": outcomes},
		"notebookd_image_changes_total":           {"outcome": {"succeeded", "unchanged", "failed"}, "reason": reasons},
		"notebookd_image_change_duration_seconds": {"outcome": {"succeeded", "unchanged", "failed"}},
	}
}

// expressions checks PromQL against what a server told.
type expressions struct {
	scraped
	closed map[string]map[string][]string
	values map[string]map[string]map[string]bool // by metric and label
}

func newExpressions(t *testing.T) *expressions {
	t.Helper()
	e := &expressions{scraped: life(t), closed: closedSets(), values: map[string]map[string]map[string]bool{}}
	for name, family := range e.families {
		values := map[string]map[string]bool{"job": {}, "instance": {}} // which scraping adds
		for _, m := range family.GetMetric() {
			for _, pair := range m.GetLabel() {
				if values[pair.GetName()] == nil {
					values[pair.GetName()] = map[string]bool{}
				}
				values[pair.GetName()][pair.GetValue()] = true
			}
		}
		e.values[name] = values
		if family.GetType().String() == "HISTOGRAM" {
			e.values[name+"_sum"], e.values[name+"_count"] = values, values
			bucket := maps.Clone(values)
			bucket["le"] = map[string]bool{}
			e.values[name+"_bucket"] = bucket
			delete(e.values, name)
			for _, suffix := range []string{"_sum", "_count", "_bucket"} {
				e.closed[name+suffix] = e.closed[name]
			}
		}
	}
	return e
}

// check parses an expression. It returns the labels of what comes of it.
func (e *expressions) check(text string) (labels map[string]bool, err error) {
	expr, err := metricsql.Parse(text)
	if err != nil {
		return nil, err
	}
	return e.labels(expr)
}

func (e *expressions) labels(expr metricsql.Expr) (map[string]bool, error) {
	switch expr := expr.(type) {
	case *metricsql.MetricExpr:
		return e.selector(expr)
	case *metricsql.RollupExpr:
		return e.labels(expr.Expr)
	case *metricsql.NumberExpr, *metricsql.StringExpr, *metricsql.DurationExpr:
		return nil, nil
	case *metricsql.FuncExpr:
		all := map[string]bool{}
		for _, arg := range expr.Args {
			labels, err := e.labels(arg)
			if err != nil {
				return nil, err
			}
			maps.Copy(all, labels)
		}
		switch {
		case expr.Name == "histogram_quantile" && !all["le"]:
			return nil, fmt.Errorf("%s: no label le", expr.AppendString(nil))
		case expr.Name == "histogram_quantile":
			delete(all, "le")
		case !slices.Contains(promFunctions, expr.Name):
			return nil, fmt.Errorf("%s is no function of Prometheus, or none that is used here", expr.Name)
		}
		return all, nil
	case *metricsql.AggrFuncExpr:
		of, err := e.labels(expr.Args[len(expr.Args)-1]) // the others are numbers
		if err != nil {
			return nil, err
		}
		out := map[string]bool{}
		for _, label := range expr.Modifier.Args {
			if !of[label] {
				return nil, fmt.Errorf("%s (%s): there is no such label in %s", expr.Modifier.Op, label, expr.AppendString(nil))
			}
			out[label] = true
		}
		switch {
		case expr.Name == "topk", expr.Name == "bottomk":
			return of, nil
		case strings.EqualFold(expr.Modifier.Op, "without"):
			rest := maps.Clone(of)
			maps.DeleteFunc(rest, func(label string, _ bool) bool { return out[label] })
			return rest, nil
		}
		return out, nil
	case *metricsql.BinaryOpExpr:
		return e.binary(expr)
	default:
		return nil, fmt.Errorf("%s: a %T is not understood", expr.AppendString(nil), expr)
	}
}

// promFunctions are the functions of Prometheus that may be used.
var promFunctions = []string{
	"rate", "increase", "changes", "deriv", "delta", "min_over_time", "max_over_time", "avg_over_time", "time", "vector", "clamp_min", "clamp_max", "absent", "scalar",
}

func (e *expressions) selector(expr *metricsql.MetricExpr) (map[string]bool, error) {
	if len(expr.LabelFilterss) != 1 {
		return nil, fmt.Errorf("%s: not one selector", expr.AppendString(nil))
	}
	var name string
	for _, f := range expr.LabelFilterss[0] {
		if f.Label == "__name__" && !f.IsNegative && !f.IsRegexp {
			name = f.Value
		}
	}
	values, ok := e.values[name]
	if !ok {
		return nil, fmt.Errorf("the server has no metric %q", name)
	}
	for _, f := range expr.LabelFilterss[0] {
		if f.Label == "__name__" {
			continue
		}
		seen, ok := values[f.Label]
		if !ok {
			return nil, fmt.Errorf("%s has no label %s", name, f.Label)
		}
		closed := e.closed[name][f.Label]
		if len(seen) == 0 && len(closed) == 0 || f.Label == "cloud" || f.Label == "location" {
			continue // anything
		}
		wanted := []string{f.Value}
		if f.IsRegexp {
			if _, err := regexp.Compile(f.Value); err != nil {
				return nil, err
			}
			wanted = strings.Split(f.Value, "|")
		}
		for _, value := range wanted {
			if value != "" && !seen[value] && !slices.Contains(closed, value) {
				return nil, fmt.Errorf("%s: label %s never has the value %q", name, f.Label, value)
			}
		}
	}
	labels := map[string]bool{}
	for label := range values {
		labels[label] = true
	}
	return labels, nil
}

func (e *expressions) binary(expr *metricsql.BinaryOpExpr) (map[string]bool, error) {
	if !slices.Contains(strings.Fields("+ - * / == != > < >= <= and or unless"), expr.Op) {
		return nil, fmt.Errorf("%s is no operator of Prometheus, or none that is used here", expr.Op)
	}
	left, err := e.labels(expr.Left)
	if err != nil {
		return nil, err
	}
	right, err := e.labels(expr.Right)
	if err != nil {
		return nil, err
	}
	if isScalar(expr.Left) {
		return right, nil
	}
	if isScalar(expr.Right) {
		return left, nil
	}
	if expr.Op == "or" {
		both := maps.Clone(left)
		maps.Copy(both, right)
		return both, nil
	}
	switch op := strings.ToLower(expr.GroupModifier.Op); op {
	case "on":
		for _, label := range expr.GroupModifier.Args {
			if !left[label] || !right[label] {
				return nil, fmt.Errorf("on (%s): one side of %s has no such label", label, expr.AppendString(nil))
			}
		}
	case "":
		if !maps.Equal(left, right) {
			return nil, fmt.Errorf("%s: the sides have the labels %v and %v, which never match", expr.AppendString(nil), left, right)
		}
	default:
		return nil, fmt.Errorf("%s is not understood", op)
	}
	return left, nil
}

// isScalar reports whether an expression is one number rather than series.
func isScalar(expr metricsql.Expr) bool {
	switch expr := expr.(type) {
	case *metricsql.NumberExpr, *metricsql.DurationExpr:
		return true
	case *metricsql.FuncExpr:
		return expr.Name == "time" || expr.Name == "scalar"
	case *metricsql.BinaryOpExpr:
		return isScalar(expr.Left) && isScalar(expr.Right)
	}
	return false
}

// TestExpressionChecks: the checks of this file find what they are there for.
func TestExpressionChecks(t *testing.T) {
	e := newExpressions(t)
	for text, ok := range map[string]bool{
		`sum by (cloud) (rate(notebookd_cloud_calls_total{outcome="denied"}[5m]))`:                           true,
		`histogram_quantile(0.99, sum by (le, op) (rate(notebookd_cloud_call_duration_seconds_bucket[5m])))`: true,
		`notebookd_storage_connected == 0`:                                                                                    true,
		`go_goroutines > 2000 + 6 * notebookd_watches_open`:                                                                   true,
		`changes(process_start_time_seconds[1h]) > 2 and on (job, instance) notebookd_build_info`:                             true,
		`sum by (cloud) (rate(notebookd_cloud_calls_total[5m])`:                                                               false, // does not parse
		`notebookd_cloud_call_total`:                                                                                          false, // no such metric
		`notebookd_cloud_call_duration_seconds`:                                                                               false, // a histogram has no such series
		`sum by (clouds) (notebookd_lease_held)`:                                                                              false, // no such label
		`notebookd_lease_held{location="xb3"}`:                                                                                false,
		`notebookd_location_state{state="unreached"}`:                                                                         false, // no such value
		`rate(notebookd_cloud_calls_total{outcome=~"ok|denyed"}[5m])`:                                                         false,
		`histogram_quantile(0.99, sum by (op) (rate(notebookd_cloud_call_duration_seconds_bucket[5m])))`:                      false, // le is gone
		`sum by (cloud) (notebookd_lease_held) / notebookd_call_budget_limit`:                                                 false, // the sides never match
		`max by (cloud) (notebookd_data_age_seconds) > on (cloud, location) max by (cloud) (notebookd_poll_interval_seconds)`: false,
		`sum by (location) (sum by (cloud) (notebookd_notebooks))`:                                                            false,
		`notebookd_lease_held default 0`:                                                                                      false, // not of Prometheus
		`rollup_rate(notebookd_polls_total[5m])`:                                                                              false, // not of Prometheus
	} {
		if _, err := e.check(text); (err == nil) != ok {
			t.Errorf("%s: error %v", text, err)
		}
	}
}

type alertRules struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			For         string            `yaml:"for"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

var (
	alertName      = regexp.MustCompile(`^Notebookd[A-Z][A-Za-z]+$`)
	templateLabel  = regexp.MustCompile(`\$labels\.([a-z_]+)`)
	runbookSection = regexp.MustCompile(`(?m)^## (Notebookd\w+)\n`)
	promQL         = regexp.MustCompile("(?s)```promql\n(.*?)```")
)

// TestAlerts: each alert can fire for something that the server tells, says
// what a person needs, and has its section in the runbook; and each section has its
// alert.
func TestAlerts(t *testing.T) {
	e := newExpressions(t)
	data, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var all alertRules
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&all); err != nil {
		t.Fatal(err)
	}
	book, err := os.ReadFile(runbookFile)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	at := runbookSection.FindAllStringSubmatchIndex(string(book), -1)
	for i, match := range at {
		end := len(book)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		sections[string(book[match[2]:match[3]])] = string(book[match[1]:end])
	}
	seen := map[string]bool{}
	for _, group := range all.Groups {
		for _, rule := range group.Rules {
			if !alertName.MatchString(rule.Alert) || seen[rule.Alert] {
				t.Errorf("alert %q: no name for one, or used twice", rule.Alert)
			}
			seen[rule.Alert] = true
			labels, err := e.check(rule.Expr)
			if err != nil {
				t.Errorf("%s: %v", rule.Alert, err)
			}
			if rule.For != "" {
				if _, err := time.ParseDuration(rule.For); err != nil {
					t.Errorf("%s: for: %v", rule.Alert, err)
				}
			}
			if s := rule.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s: severity %q", rule.Alert, s)
			}
			for _, key := range []string{"summary", "description"} {
				text := rule.Annotations[key]
				if text == "" {
					t.Errorf("%s: no %s", rule.Alert, key)
				}
				for _, match := range templateLabel.FindAllStringSubmatch(text, -1) {
					if !labels[match[1]] {
						t.Errorf("%s: %s names the label %s, which the expression does not keep", rule.Alert, key, match[1])
					}
				}
			}
			if want := runbookURL + strings.ToLower(rule.Alert); rule.Annotations["runbook_url"] != want {
				t.Errorf("%s: runbook_url %q, want %q", rule.Alert, rule.Annotations["runbook_url"], want)
			}
			section, ok := sections[rule.Alert]
			if !ok {
				t.Errorf("%s has no section in docs/operations.md", rule.Alert)
			}
			for _, part := range []string{"**It means**", "**Users feel**", "**Look at**", "**Do**"} {
				if ok && !strings.Contains(section, part) {
					t.Errorf("%s: its section in docs/operations.md has no %s", rule.Alert, part)
				}
			}
		}
	}
	for name := range sections {
		if !seen[name] {
			t.Errorf("docs/operations.md has a section on %s, which is no alert", name)
		}
	}
	for _, match := range promQL.FindAllStringSubmatch(string(book), -1) {
		for _, line := range strings.Split(strings.TrimSpace(match[1]), "\n") {
			if _, err := e.check(line); err != nil {
				t.Errorf("docs/operations.md: %s: %v", line, err)
			}
		}
	}
}

type dashboard struct {
	UID        string           `json:"uid"`
	Title      string           `json:"title"`
	Panels     []dashboardPanel `json:"panels"`
	Templating struct {
		List []struct {
			Name       string          `json:"name"`
			Type       string          `json:"type"`
			Definition string          `json:"definition"`
			Query      json.RawMessage `json:"query"`
		} `json:"list"`
	} `json:"templating"`
}

type dashboardPanel struct {
	ID          int    `json:"id"`
	Title       string `json:"title"`
	Type        string `json:"type"`
	Description string `json:"description"`
	GridPos     struct {
		X, Y, W, H int
	} `json:"gridPos"`
	Targets []struct {
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
}

var legendLabel = regexp.MustCompile(`\{\{ *([a-z_]+) *\}\}`)

// TestDashboard: every panel shows something that the server tells, and nothing
// lies over something else.
func TestDashboard(t *testing.T) {
	e := newExpressions(t)
	data, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" {
		t.Error("the dashboard has no uid or no title")
	}
	variables := map[string]string{"__rate_interval": "5m", "__range": "1h"}
	for _, v := range d.Templating.List {
		variables[v.Name] = "core"
		if v.Type == "query" {
			inner, ok := strings.CutPrefix(v.Definition, "label_values(")
			metric, label, ok2 := strings.Cut(strings.TrimSuffix(inner, ")"), ", ")
			if labels, err := e.check(metric); !ok || !ok2 || err != nil || !labels[label] {
				t.Errorf("variable %s: %s: %v", v.Name, v.Definition, err)
			}
		}
	}
	variable := regexp.MustCompile(`\$(\w+)`)
	ids, taken, rows := map[int]bool{}, map[[2]int]string{}, 0
	used := map[string]bool{}
	for _, p := range d.Panels {
		if p.Title == "" || ids[p.ID] {
			t.Errorf("panel %d %q: no title, or an id that is used twice", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("%q lies over %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W == 0 || p.GridPos.H == 0 {
			t.Errorf("%q does not fit: %+v", p.Title, p.GridPos)
		}
		if p.Type == "row" {
			rows++
			continue
		}
		if len(p.Targets) == 0 || p.Description == "" {
			t.Errorf("%q shows nothing, or does not say what", p.Title)
		}
		for _, target := range p.Targets {
			expr := variable.ReplaceAllStringFunc(target.Expr, func(name string) string {
				value, ok := variables[name[1:]]
				if !ok {
					t.Errorf("%q: there is no variable %s", p.Title, name)
				}
				return value
			})
			labels, err := e.check(expr)
			if err != nil {
				t.Errorf("%q: %v", p.Title, err)
				continue
			}
			for _, match := range legendLabel.FindAllStringSubmatch(target.LegendFormat, -1) {
				if !labels[match[1]] {
					t.Errorf("%q: the legend names the label %s, which %s does not keep", p.Title, match[1], target.Expr)
				}
			}
			for name := range e.values {
				if regexp.MustCompile(`\b` + name + `\b`).MatchString(expr) {
					used[name] = true
				}
			}
		}
	}
	if rows < 7 {
		t.Errorf("%d rows", rows)
	}
	for name := range e.values { // what nobody looks at need not be told
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, "notebookd_") && !used[name] && !used[base] && !used[base+"_bucket"] && !used[base+"_count"] {
			t.Errorf("no panel shows %s", name)
		}
	}
}
