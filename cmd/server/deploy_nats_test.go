package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	nats "github.com/nats-io/nats-server/v2/server"
)

// TestDeployedNATS: the configuration of the NATS servers is one, with the secrets as
// docs/deployment.md has them made.
func TestDeployedNATS(t *testing.T) {
	dir := t.TempDir()
	config, err := os.ReadFile("../../deploy/kubernetes/overlays/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nats.conf":       string(config),
		"auth/users.conf": `authorization { user: notebookd, password: "12e4" }`,
		"auth/routes.conf": `authorization { user: route, password: "56e7" }
routes: [ "nats://route:56e7@notebookd-nats-0.notebookd-nats-headless:6222", "nats://route:56e7@notebookd-nats-1.notebookd-nats-headless:6222", "nats://route:56e7@notebookd-nats-2.notebookd-nats-headless:6222" ]`,
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("POD_NAME", "notebookd-nats-1")
	got, err := nats.ProcessConfigFile(filepath.Join(dir, "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	type options struct {
		Name, User, Password, Cluster, RouteUser, RoutePassword, Dir string
		Port, Monitor, ClusterPort, Routes                           int
		JetStream                                                    bool
	}
	want := options{"notebookd-nats-1", "notebookd", "12e4", "notebookd", "route", "56e7", "/data", 4222, 8222, 6222, 3, true}
	if diff := cmp.Diff(want, options{
		got.ServerName, got.Username, got.Password, got.Cluster.Name, got.Cluster.Username, got.Cluster.Password, got.StoreDir,
		got.Port, got.HTTPPort, got.Cluster.Port, len(got.Routes), got.JetStream,
	}); diff != "" {
		t.Error(diff)
	}
}
