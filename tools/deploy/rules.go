package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// rulesFile is the PrometheusRule, a file of the component monitoring.
const rulesFile = "prometheusrule.yaml"

func rulesPaths(root string) (alerts, rule string) {
	return filepath.Join(root, "deploy", "monitoring", "alerts.yaml"), filepath.Join(root, "deploy", "kubernetes", "monitoring", rulesFile)
}

// makeRules makes a PrometheusRule of a rules file of Prometheus. Kustomize cannot: it
// takes files into ConfigMaps only.
func makeRules(alerts []byte) ([]byte, error) {
	spec := map[string]any{}
	if err := yaml.UnmarshalStrict(alerts, &spec); err != nil {
		return nil, err
	}
	rule := map[string]any{
		"apiVersion": "monitoring.coreos.com/v1",
		"kind":       "PrometheusRule",
		"metadata":   map[string]any{"name": serverName, "labels": map[string]any{"app.kubernetes.io/name": serverName}},
		"spec":       spec,
	}
	data, err := yaml.Marshal(rule)
	if err != nil {
		return nil, err
	}
	// What the operator does not know is not lost in silence.
	if _, err := decode[monitoringv1.PrometheusRule](data); err != nil {
		return nil, err
	}
	return append([]byte("# Made of deploy/monitoring/alerts.yaml by `make rules`. Do not edit.\n"), data...), nil
}

// writeRules writes the PrometheusRule.
func writeRules(root string) error {
	from, to := rulesPaths(root)
	alerts, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	rule, err := makeRules(alerts)
	if err != nil {
		return err
	}
	return os.WriteFile(to, rule, 0o644)
}

// checkRules: the PrometheusRule is what the alert rules make, and is applied.
func checkRules(r *report, root string) {
	from, to := rulesPaths(root)
	alerts, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		r.problem(from, "%v", err)
		return
	}
	want, err := makeRules(alerts)
	if err != nil {
		r.problem(from, "%v", err)
		return
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, want) {
		r.problem(to, "stale: run 'make rules' and commit what it changes")
	}
	var component struct {
		metav1.TypeMeta
		Resources []string `json:"resources"`
	}
	list := filepath.Join(filepath.Dir(to), "kustomization.yaml")
	data, err := os.ReadFile(list)
	if err == nil {
		err = yaml.Unmarshal(data, &component)
	}
	r.that(err == nil && slices.Contains(component.Resources, rulesFile), list, "%s is not one of its resources", rulesFile)
}
