package main

import (
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// deployed are the configurations of deploy/, and where each finds its secrets.
var deployed = map[string]string{
	"../../deploy/kubernetes/base/notebookd.yaml":            "/run/secrets/notebookd/",
	"../../deploy/kubernetes/overlays/single/notebookd.yaml": "/run/secrets/notebookd/",
	"../../deploy/systemd/notebookd.yaml":                    "/run/credentials/notebookd.service/",
}

// TestDeployedConfigurations: what deploy/ hands out is a configuration of this
// server. Its secrets are put into a directory of the test; that they are mounted
// where it looks for them is checked in tools/deploy.
func TestDeployedConfigurations(t *testing.T) {
	secrets := t.TempDir()
	cert, key := testCertificate(t)
	for name, text := range map[string]string{
		"tls.crt": cert, "tls/tls.crt": cert, "tls.key": key, "tls/tls.key": key,
		"tokens.yaml":                       "- {subject: a, groups: [ml-platform], sha256: " + strings.Repeat("ab", 32) + "}\n",
		"nats/password":                     "p",
		"clouds/coreshub-access-key-id":     "ak",
		"clouds/coreshub-secret-access-key": "sk",
		"clouds/scnet-token":                "token",
		"coreshub-access-key-id":            "ak",
		"coreshub-secret-access-key":        "sk",
		"scnet-token":                       "token",
	} {
		file := filepath.Join(secrets, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for file, mounted := range deployed {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), mounted, secrets+"/")
		cfg, err := loadConfig(configFile(t, text))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if len(cfg.Clouds) != 2 {
			t.Errorf("%s: %d clouds", file, len(cfg.Clouds))
		}
		target, err := healthTarget(file, false)
		if err != nil || target.String() != "https://127.0.0.1:8080/readyz" {
			t.Errorf("%s: asked for its health at %v, %v", file, target, err)
		}
	}
}

// testCertificate returns a certificate and its key, as PEM.
func testCertificate(t *testing.T) (cert, key string) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	pair := server.TLS.Certificates[0]
	secret, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}
