//go:build docs

package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// named is what a page names in each place where pattern fits, in order.
func named(t *testing.T, page string, pattern *regexp.Regexp) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, found := range pattern.FindAllStringSubmatch(string(text), -1) {
		all = append(all, found[1])
	}
	if len(all) == 0 {
		t.Fatalf("%s names nothing: is %v still what it looks like?", page, pattern)
	}
	return all
}

// compareNames tells what one page has and the other has not, and what one has
// twice. The order may be another.
func compareNames(t *testing.T, want, got []string, wanted, page string) {
	t.Helper()
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("%s has nothing on %s, which is in %s", page, name, wanted)
		}
	}
	for i, name := range got {
		if !slices.Contains(want, name) {
			t.Errorf("%s has %s, which is not in %s", page, name, wanted)
		}
		if slices.Contains(got[:i], name) {
			t.Errorf("%s has %s twice", page, name)
		}
	}
}

var (
	metricRow     = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| \\w+ \\| [^|]+ \\| .+ \\|$")
	metricColumns = regexp.MustCompile("(?m)^\\| (`\\w+` \\| \\w+ \\| [^|]+) \\|")
	// metricWord is a metric wherever a page speaks of one.
	metricWord = regexp.MustCompile(`\b((?:notebookd|grpc_server)_[a-z_]+[a-z])\b`)
)

// TestMetricsTranslated: the Chinese reference of the metrics explains those of the
// English one and no others, with the same types and labels. That the English one is
// what the server tells is a test of cmd/server.
func TestMetricsTranslated(t *testing.T) {
	const english, chinese = "docs/metrics.md", "docs/metrics.zh-CN.md"
	want := named(t, english, metricRow)
	compareNames(t, want, named(t, chinese, metricRow), english, chinese)
	compareNames(t, named(t, english, metricColumns), named(t, chinese, metricColumns), english, chinese)
	for _, name := range named(t, chinese, metricWord) {
		if !slices.Contains(want, name) {
			t.Errorf("%s speaks of %s, which is no metric", chinese, name)
		}
	}
}

var (
	alertRule    = regexp.MustCompile(`(?m)^ *- alert: (\w+)$`)
	alertSection = regexp.MustCompile(`(?m)^## (Notebookd\w+)$`)
	query        = regexp.MustCompile("(?s)```promql\n(.*?)\n```")
)

// TestAlertsTranslated: each alert has its section in both languages, with what a
// person needs and with the same queries.
func TestAlertsTranslated(t *testing.T) {
	const rules = "deploy/monitoring/alerts.yaml"
	want := named(t, rules, alertRule)
	pages := map[string][]string{
		"docs/operations.md":       {"**It means**", "**Users feel**", "**Look at**", "**Do**"},
		"docs/operations.zh-CN.md": {"**含义**", "**用户感受**", "**查看**", "**处置**"},
	}
	for page, parts := range pages {
		compareNames(t, want, named(t, page, alertSection), rules, page)
		text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(page)))
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range strings.Split(string(text), "\n## ") {
			name, body, _ := strings.Cut(section, "\n")
			if !slices.Contains(want, name) {
				continue
			}
			for _, part := range parts {
				if strings.Count(body, part) != 1 {
					t.Errorf("%s: the section on %s has %s %d times", page, name, part, strings.Count(body, part))
				}
			}
		}
	}
	english, chinese := named(t, "docs/operations.md", query), named(t, "docs/operations.zh-CN.md", query)
	if len(english) != len(chinese) {
		t.Errorf("docs/operations.md has %d blocks of queries, docs/operations.zh-CN.md has %d", len(english), len(chinese))
	}
	for i := range min(len(english), len(chinese)) {
		if english[i] != chinese[i] {
			t.Errorf("these queries of docs/operations.md and docs/operations.zh-CN.md differ:\n%s\n--\n%s", english[i], chinese[i])
			break // if one is missing, all that follow differ
		}
	}
}

var (
	tableRow = regexp.MustCompile(`(?m)^\| (.*) \|$`)
	// codeSpan is what is the same in all languages: code, and the clouds' codes.
	codeSpan = regexp.MustCompile("`[^`]+`|\\b\\d{3,}\\b")
)

// TestCloudsTranslated: the Chinese page of each cloud has the tables of the English
// one: row by row the same fields, codes, requests and words of the code. That the
// English ones are true is tested beside what they are about.
func TestCloudsTranslated(t *testing.T) {
	compared := 0
	for _, chinese := range pages(t) {
		name, translated := strings.CutSuffix(chinese, ".zh-CN.md")
		if !translated || !strings.HasPrefix(name, "internal/upstream/") {
			continue
		}
		compared++
		want, got := named(t, name+".md", tableRow), named(t, chinese, tableRow)
		if len(want) != len(got) {
			t.Errorf("%s.md has %d rows of tables, %s has %d", name, len(want), chinese, len(got))
		}
		for i := range min(len(want), len(got)) {
			// Sentences have another order in another language.
			a, b := codeSpan.FindAllString(want[i], -1), codeSpan.FindAllString(got[i], -1)
			slices.Sort(a)
			slices.Sort(b)
			if !slices.Equal(a, b) {
				t.Errorf("these rows of %s.md and %s differ:\n%s\n--\n%s", name, chinese, want[i], got[i])
				break // if one is missing, all that follow differ
			}
		}
	}
	if compared == 0 {
		t.Error("no cloud has a Chinese page")
	}
}
