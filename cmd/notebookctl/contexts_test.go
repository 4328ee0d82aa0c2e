package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// pki makes the certificates of a test.
type pki struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir()}
	p.issue(t, "ca", &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	p.issue(t, "server", &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "notebookd"}, DNSNames: []string{"notebookd.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	p.issue(t, "client", &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "robot"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return p
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

func (p *pki) issue(t *testing.T, name string, template *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := p.cert, p.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if p.cert == nil {
		if p.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		p.key = key
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: encoded}} {
		if err := os.WriteFile(p.path(file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// token makes a static token with the server's own command.
func (p *pki) token(t *testing.T, subject string) string {
	t.Helper()
	var entry, shown strings.Builder
	cmd := exec.Command(serverBinary, "token", "-subject", subject)
	cmd.Stdout, cmd.Stderr = &entry, &shown
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(p.path("tokens.yaml"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(entry.String()); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(shown.String())
	return words[len(words)-1]
}

// TestContexts: contexts with TLS, tokens and client certificates, against a server
// that asks for them; and what is said where something is missing.
func TestContexts(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	viewer, stranger := p.token(t, "viewer"), p.token(t, "stranger")
	fleet := simulate(t, cloudsim.Config{Notebooks: 2})
	s := &server{config: filepath.Join(t.TempDir(), "notebookd.yaml"), grpc: "127.0.0.1:0"}
	t.Cleanup(func() { s.stop(t) })
	s.configure(t, fleet, fmt.Sprintf(`tls: {cert: %q, key: %q, client_ca: %q}
auth:
  tokens_file: %q
  certificates: {}
  policy:
    - {role: viewer, subjects: [viewer]}
    - {role: operator, subjects: ["cert:robot"]}
`, p.path("server.crt"), p.path("server.key"), p.path("ca.crt"), p.path("tokens.yaml")))
	s.start(t)
	c := s.caller(t).with("NOTEBOOKCTL_SERVER", "")
	config := filepath.Join(c.env["HOME"], "notebookctl", "config.yaml")

	// A token from standard input is kept in a file of its own.
	if r := c.runIn(t, viewer+"\n", "context", "set", "prod", "--server", s.grpc, "--ca", p.path("ca.crt"), "--token-stdin"); r.code != 0 {
		t.Fatalf("%s", r.stderr)
	}
	within(t, 20*time.Second, "the server is ready", func() bool { return c.run(t, "list").code == 0 })
	expect(t, c.want(t, 0, "list").stdout, "nb-eiguqichl5hc")
	err := filepath.WalkDir(c.env["HOME"], func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	shown := string(data) + c.want(t, 0, "context", "list").stdout + c.want(t, 0, "context", "show").stdout + c.want(t, 0, "context", "show", "prod").stdout
	refuse(t, shown, viewer)
	expect(t, shown, "token_file: "+filepath.Join(c.env["HOME"], "notebookctl", "tokens", "prod"))

	// A viewer may not change anything.
	r := c.want(t, exitError, "change-image", firstName, "--image", torch, "--image-type", "official")
	expect(t, r.stderr, "error: You may not do this", "Ask the operator", "was called with the token in ", "(PERMISSION_DENIED)")
	expect(t, c.with("LANG", "zh_CN").want(t, exitError, "change-image", firstName, "--image", torch, "--image-type", "official", "--plan").stderr, "您没有权限执行此操作", "使用的凭据", "中的令牌")

	// A client certificate.
	c.want(t, 0, "context", "set", "robot", "--server", s.grpc, "--ca", p.path("ca.crt"), "--cert", p.path("client.crt"), "--key", p.path("client.key"))
	c.want(t, 0, "context", "use", "robot")
	c.want(t, 0, "change-image", firstName, "--image", torch, "--image-type", "official")
	expect(t, c.want(t, 0, "history").stdout, "cert:robot")
	expect(t, c.want(t, 0, "context", "list").stdout, "*", "robot", "the certificate in "+p.path("client.crt"))
	expect(t, c.want(t, 0, "--context", "prod", "list", "-o", "name").stdout, firstName)
	// What the environment says of servers and tokens is not about a context that is
	// named on the command line.
	expect(t, c.with("NOTEBOOKCTL_SERVER", "127.0.0.1:1").with("NOTEBOOKCTL_TOKEN", stranger).want(t, 0, "--context", "prod", "list", "-o", "name").stdout, firstName)
	expect(t, c.with("NOTEBOOKCTL_SERVER", "127.0.0.1:1").want(t, exitError, "list").stderr, "127.0.0.1:1")
	expect(t, c.with("NOTEBOOKCTL_CONTEXT", "prod").want(t, exitError, "change-image", firstName, "--image", tensorflow, "--image-type", "official").stderr, "(PERMISSION_DENIED)")

	// Flags and the environment, without a context. A server that is named by itself
	// gets nothing of the current context.
	ca := []string{"--server", s.grpc, "--ca", p.path("ca.crt"), "list"}
	r = c.want(t, exitError, ca...)
	expect(t, r.stderr, "error: notebookd does not know who you are", "--token-file", "was called without any credentials", "(UNAUTHENTICATED)")
	c.with("NOTEBOOKCTL_TOKEN", viewer).want(t, 0, ca...)
	expect(t, c.with("NOTEBOOKCTL_TOKEN", viewer[:len(viewer)-1]+"x").want(t, exitError, ca...).stderr, "with the token in $NOTEBOOKCTL_TOKEN", "(UNAUTHENTICATED)")
	expect(t, c.with("NOTEBOOKCTL_TOKEN", stranger).want(t, exitError, ca...).stderr, "(PERMISSION_DENIED)")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(viewer+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.want(t, 0, append(ca, "--token-file", file)...)
	c.want(t, 0, "--server", "localhost:"+s.grpc[strings.LastIndex(s.grpc, ":")+1:], "--config", configWith(t, c, s.grpc, p.path("ca.crt"), file), "--context", "named", "list")

	// What is wrong on the way.
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--server", s.grpc, "list"}, exitError, "perhaps it speaks TLS: say --plaintext=false"},
		{[]string{"--server", s.grpc, "--plaintext=false", "list"}, exitError, "name the authority's certificate with --ca"},
		{[]string{"--server", "localhost:" + s.grpc[strings.LastIndex(s.grpc, ":")+1:], "--ca", p.path("ca.crt"), "list"}, exitError, "is for another name"},
		{[]string{"--server", s.grpc, "--ca", p.path("client.key"), "list"}, exitUsage, "holds no certificate in PEM"},
		{[]string{"--server", s.grpc, "--ca", p.path("nothing"), "list"}, exitUsage, "no such file"},
		{[]string{"--server", s.grpc, "--cert", p.path("client.crt"), "list"}, exitUsage, "needs both --cert and --key"},
		{[]string{"--server", s.grpc, "--cert", p.path("client.crt"), "--key", p.path("server.key"), "list"}, exitUsage, "cannot be used"},
		{[]string{"--server", "notebookd.example:1", "--plaintext", "--token-file", file, "list"}, exitUsage, "a token is not sent in plain text to another host"},
		{[]string{"--server", s.grpc, "--plaintext", "--ca", p.path("ca.crt"), "list"}, exitUsage, "plain text and certificates exclude each other"},
		{[]string{"--server", s.grpc, "--token-file", p.path("nothing"), "list"}, exitUsage, "no such file"},
		{[]string{"--server", s.grpc, "--token-file", p.path("server.crt"), "list"}, exitUsage, "is no token: it has to be one word"},
		{[]string{"--server", s.http, "--ca", p.path("ca.crt"), "list"}, exitError, "error: "},
	} {
		r := c.want(t, tt.code, tt.args...)
		expect(t, r.stderr, tt.want)
	}

	// A context goes with its token.
	c.want(t, 0, "context", "delete", "prod")
	if _, err := os.Stat(filepath.Join(c.env["HOME"], "notebookctl", "tokens", "prod")); !os.IsNotExist(err) {
		t.Errorf("the token is still there: %v", err)
	}
	if err := os.WriteFile(config, []byte("contexts: {a: {serverr: x}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, c.want(t, exitError, "context", "list").stderr, config+" cannot be understood", "serverr")
}

// configWith makes a file of contexts with one that has a server name.
func configWith(t *testing.T, c *caller, address, ca, token string) string {
	t.Helper()
	config := filepath.Join(t.TempDir(), "contexts.yaml")
	c.want(t, 0, "--config", config, "context", "set", "named", "--server", address, "--ca", ca, "--token-file", token, "--server-name", "notebookd.example")
	return config
}

// TestOtherDoor: whoever names the address of the console is told which one to name.
func TestOtherDoor(t *testing.T) {
	t.Parallel()
	s := serve(t, simulate(t, cloudsim.Config{Notebooks: 1}), "")
	c := s.caller(t).with("NOTEBOOKCTL_SERVER", s.http)
	expect(t, c.want(t, exitError, "list").stderr, "HTTP is served there, not gRPC")
	expect(t, c.with("LANG", "zh_CN").want(t, exitError, "list").stderr, "该地址提供的是 HTTP 而非 gRPC")
}
