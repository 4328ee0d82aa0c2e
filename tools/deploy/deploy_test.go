package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// repository is where the module is.
const repository = "../.."

// tree copies what is checked into a directory of its own.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, "deploy"), os.DirFS(filepath.Join(repository, "deploy"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Dockerfile", ".dockerignore"} {
		data, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		save(t, filepath.Join(root, name), string(data))
	}
	return root
}

func save(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace changes the first place in a file where old stands.
func replace(t *testing.T, file, old, text string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		t.Fatalf("%s has no %q", file, old)
	}
	save(t, file, strings.Replace(string(data), old, text, 1))
}

func TestWhatIsThere(t *testing.T) {
	if diff := cmp.Diff([]string(nil), check(repository, io.Discard)); diff != "" {
		t.Errorf("problems:\n%s", diff)
	}
}

// TestEveryMistakeIsTold makes one mistake at a time in what is there.
func TestEveryMistakeIsTold(t *testing.T) {
	const (
		base   = "deploy/kubernetes/base/"
		single = "deploy/kubernetes/overlays/single/"
		nats   = "deploy/kubernetes/overlays/nats/"
		unit   = "deploy/systemd/notebookd.service"
	)
	for _, tt := range []struct{ name, file, old, text, want string }{
		{"unknown field", base + "deployment.yaml", "enableServiceLinks:", "enableServiceLink:", `unknown field "enableServiceLink"`},
		{"no such file", base + "kustomization.yaml", "- service.yaml", "- services.yaml", "services.yaml"},
		{"root", base + "deployment.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "it may run as root"},
		{"user 0", base + "deployment.yaml", "runAsUser: 65532", "runAsUser: 0", "no user by number"},
		{"seccomp", base + "deployment.yaml", "type: RuntimeDefault", "type: Unconfined", "no seccomp profile"},
		{"token", base + "serviceaccount.yaml", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "no account without a token"},
		{"writable root", nats + "statefulset.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "its root can be written"},
		{"capabilities", base + "deployment.yaml", "drop: [ALL]", "add: [NET_ADMIN]", "it has capabilities"},
		{"moving tag", base + "kustomization.yaml", "newTag: v0.1.0", "newTag: latest", "has no fixed tag"},
		{"no limit", base + "deployment.yaml", `limits: {cpu: "2", memory: 1Gi}`, `limits: {cpu: "2"}`, "no request or limit"},
		{"memory of the runtime", base + "deployment.yaml", "value: 900MiB", "value: 1100MiB", "GOMEMLIMIT is not below"},
		{"no probe", base + "deployment.yaml", "startupProbe:", "livenessProbe:", "livenessProbe"},
		{"probe of another door", base + "deployment.yaml", "path: /readyz, port: http", "path: /readyz, port: grpc", "no probe asks the HTTP door"},
		{"probe without TLS", base + "deployment.yaml", "path: /readyz, port: http, scheme: HTTPS", "path: /readyz, port: http", "no probe asks the HTTP door"},
		{"selector", base + "service.yaml", "selector:\n    app.kubernetes.io/name: notebookd", "selector:\n    app.kubernetes.io/name: notebook", "it selects the pods of 0"},
		{"port of the service", base + "service.yaml", "targetPort: http", "targetPort: https", "its port http is not that port"},
		{"port of the pods", base + "deployment.yaml", "containerPort: 9090", "containerPort: 9091", "its port grpc is not 9090"},
		{"budget of nobody", base + "poddisruptionbudget.yaml", "component: server", "component: servers", "no PodDisruptionBudget"},
		{"budget that blocks", base + "poddisruptionbudget.yaml", "maxUnavailable: 1", "maxUnavailable: 0", "it lets no node be drained"},
		{"policy", base + "networkpolicy.yaml", "policyTypes: [Ingress, Egress]", "policyTypes: [Ingress]", "no NetworkPolicy for both ways"},
		{"policy without the clouds", base + "networkpolicy.yaml", "port: 443", "port: 444", "it does not let out to TCP 443"},
		{"policy that lets all in", nats + "networkpolicy.yaml", "      ports:\n        - {port: nats, protocol: TCP}\n", "", "it lets everybody in, or to every port"},
		{"policy with NATS for one", single + "kustomization.yaml", "  - path: networkpolicy.yaml\n    target: {kind: NetworkPolicy, name: notebookd}\n", "", "to a NATS that there is not"},
		{"mount", base + "deployment.yaml", "name: config, mountPath: /etc/notebookd", "name: config, mountPath: /etc/notebook", "the ConfigMap is not mounted at /etc/notebookd/notebookd.yaml"},
		{"secret that is not mounted", base + "deployment.yaml", "path: tls/tls.key", "path: tls.key", "names /run/secrets/notebookd/tls/tls.key, which is not mounted"},
		{"secret that is not used", base + "notebookd.yaml", "password: {file: /run/secrets/notebookd/nats/password}", "", "does not name it"},
		{"secret in the configuration", base + "notebookd.yaml", "password: {file: /run/secrets/notebookd/nats/password}", "password: {value: x}", "store.nats.password holds a secret"},
		{"no auth", base + "notebookd.yaml", "tokens_file:", "token_file:", "no auth.tokens_file"},
		{"no TLS", base + "notebookd.yaml", "cert: /run/secrets/notebookd/tls/tls.crt", "", "no tls"},
		{"long drain", base + "notebookd.yaml", "drain: 30s", "drain: 55s", "before the drain of 55s is over"},
		{"configurations apart", single + "notebookd.yaml", "zones: [xb3, xb2]", "zones: [xb3]", "differs from that of the base"},
		{"service of NATS", base + "notebookd.yaml", "nats://notebookd-nats:4222", "nats://nats:4222", "there is no Service nats"},
		{"no volume for the data", single + "deployment.yaml", "mountPath: /var/lib/notebookd", "mountPath: /data", "no volume at /var/lib/notebookd"},
		{"two processes on a volume", single + "deployment.yaml", "type: Recreate\n    rollingUpdate: null", "type: RollingUpdate", "two pods at a time"},
		{"claim", single + "persistentvolumeclaim.yaml", "name: notebookd", "name: notebook", "there is no PersistentVolumeClaim notebookd"},
		{"monitor of two services", base + "service.yaml", "app.kubernetes.io/name: notebookd-headless", "app.kubernetes.io/name: notebookd\n    app.kubernetes.io/component: server", "it selects 2 Services"},
		{"metrics without a token", "deploy/kubernetes/monitoring/servicemonitor.yaml", "credentials: {name: notebookd-metrics, key: token}", "", "no token"},

		{"Dockerfile: syntax", "Dockerfile", "ENTRYPOINT", "ENTRYPONT", "unknown instruction"},
		{"Dockerfile: lint", "Dockerfile", "COPY . .", "COPY . .\nMAINTAINER me", "MaintainerDeprecated"},
		{"Dockerfile: root", "Dockerfile", "USER 65532:65532", "USER root", "is not a number above 0"},
		{"Dockerfile: image", "Dockerfile", "${GO_IMAGE} AS", "golang:1 AS", "is not given by an ARG"},
		{"Dockerfile: shell", "Dockerfile", `ENTRYPOINT ["/server"]`, "ENTRYPOINT /server", "ENTRYPOINT needs a shell"},
		{"Dockerfile: health", "Dockerfile", `CMD ["/server", "healthcheck", "-config", "/etc/notebookd/notebookd.yaml"]`, `CMD ["/server", "healthcheck"]`, "HEALTHCHECK does not ask"},
		{"Dockerfile: certificates", "Dockerfile", "/etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt /ca.crt", "no certificates of authorities"},
		{"Dockerfile: labels", "Dockerfile", "org.opencontainers.image.revision", "revision", "no label revision"},
		{"context", ".dockerignore", "*\n!go.mod", "!go.mod", "it does not begin with *"},

		{"unit: syntax", unit, "Type=exec\n", "Type\n", "while parsing option name"},
		{"unit: hardening", unit, "ProtectSystem=strict", "ProtectSystem=full", `ProtectSystem is not "strict"`},
		{"unit: credential that is not there", unit, "LoadCredential=tls.key:", "#", "tls.key, which is no credential"},
		{"unit: credential that is not used", "deploy/systemd/notebookd.yaml", "token: {file: /run/credentials/notebookd.service/scnet-token}", "", "does not name /run/credentials/notebookd.service/scnet-token"},
		{"unit: killed early", unit, "TimeoutStopSec=45s", "TimeoutStopSec=30s", "before the drain of 30s is over"},
		{"unit: state", "deploy/systemd/notebookd.yaml", "data_dir: /var/lib/notebookd", "data_dir: /srv", "StateDirectory is not store.data_dir"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := tree(t)
			replace(t, filepath.Join(root, tt.file), tt.old, tt.text)
			problems := strings.Join(check(root, io.Discard), "\n")
			if !strings.Contains(problems, tt.want) {
				t.Errorf("want %q, got:\n%s", tt.want, problems)
			}
		})
	}
}

func TestShell(t *testing.T) {
	const head = "#!/usr/bin/env bash\nset -euo pipefail\n"
	for text, want := range map[string]string{
		head + "echo \"$1\"\n":                   "",
		head + "if true; then\n":                 "must be followed by",
		head + "if true; then\n  echo x\nfi\n":   "not formatted",
		"#!/usr/bin/env bash\necho x\n":          "goes on after a failure",
		"#!/bin/sh\nset -euo pipefail\necho x\n": "goes on after a failure",
	} {
		root := t.TempDir()
		save(t, filepath.Join(root, "a", "x.sh"), text)
		save(t, filepath.Join(root, "third_party", "x.sh"), "if")
		r := &report{}
		checkShell(r, root)
		if got := strings.Join(r.problems, "\n"); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

const alerts = `# What wakes somebody.
groups:
  - name: notebookd
    rules:
      - alert: NotebookdStale
        expr: notebookd_storage_connected == 0
        for: 5m
        labels: {severity: page}
`

func TestRules(t *testing.T) {
	root := tree(t)
	_, to := rulesPaths(root)
	list := filepath.Join(filepath.Dir(to), "kustomization.yaml")
	save(t, filepath.Join(root, "deploy", "monitoring", "alerts.yaml"), alerts)
	if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	problems := func() string { return strings.Join(check(root, io.Discard), "\n") }
	if got := problems(); !strings.Contains(got, "make rules") {
		t.Errorf("not made yet: %s", got)
	}
	if err := writeRules(root); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(list); err != nil {
		t.Fatal(err)
	} else if !strings.Contains(string(data), "- "+rulesFile) {
		if got := problems(); !strings.Contains(got, "is not one of its resources") {
			t.Errorf("not listed yet: %s", got)
		}
		save(t, list, string(data)+"  - "+rulesFile+"\n")
	}
	if got := problems(); got != "" {
		t.Errorf("made and listed: %s", got)
	}
	replace(t, filepath.Join(root, "deploy", "monitoring", "alerts.yaml"), "for: 5m", "for: 10m")
	if got := problems(); !strings.Contains(got, "make rules") {
		t.Errorf("stale: %s", got)
	}
	replace(t, filepath.Join(root, "deploy", "monitoring", "alerts.yaml"), "for: 10m", "fro: 10m")
	if got := problems(); !strings.Contains(got, "unknown field") {
		t.Errorf("unknown field: %s", got)
	}
}
