package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notebookd/notebookd/internal/access"
)

// TestReferenceExample: the example of docs/configuration.md is a configuration.
func TestReferenceExample(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	text, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("no example")
	}
	dir, ca := t.TempDir(), newAuthority(t)
	cert, key := ca.issue(t, "notebookd", 1)
	_, entry, err := access.NewToken("ops", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"tls.crt": cert, "tls.key": key, "clients.pem": ca.pem, "tokens.yaml": []byte(entry), "coreshub.key": []byte("k"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"CORESHUB_ACCESS_KEY_ID", "SCNET_ACCESS_KEY", "SCNET_SECRET_KEY"} {
		t.Setenv(name, "0123456789abcdef0123456789abcdef")
	}
	if _, err := parseConfig("example", []byte(strings.ReplaceAll(text, "/etc/notebookd", dir))); err != nil {
		t.Error(err)
	}
}
