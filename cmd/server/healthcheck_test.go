package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// configFile writes a configuration file and returns its path.
func configFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "notebookd.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestHealthTarget(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		live       bool
		want       string
	}{
		{"default", "drain: 5s\n", false, "http://127.0.0.1:8080/readyz"},
		{"alive", "drain: 5s\n", true, "http://127.0.0.1:8080/healthz"},
		{"every address", "http: {address: ':8081'}", false, "http://127.0.0.1:8081/readyz"},
		{"every IPv4 address", "http: {address: '0.0.0.0:8081'}", false, "http://127.0.0.1:8081/readyz"},
		{"every IPv6 address", "http: {address: '[::]:8081'}", false, "http://[::1]:8081/readyz"},
		{"one address", "http: {address: '10.1.2.3:80'}", false, "http://10.1.2.3:80/readyz"},
		{"TLS", "http: {address: ':443'}\ntls: {cert: a.pem, key: b.pem}", false, "https://127.0.0.1:443/readyz"},
		// The server that runs refused this one too, and goes on with what it had.
		{"a bad configuration", "clouds: [{name: core, kind: none, key: {file: /nowhere}}]", false, "http://127.0.0.1:8080/readyz"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := healthTarget(configFile(t, tt.text), tt.live)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	for name, text := range map[string]string{"no address": "http: {address: nowhere}", "no YAML": "http: ["} {
		if got, err := healthTarget(configFile(t, text), false); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got, err := healthTarget(filepath.Join(t.TempDir(), "none"), false); err == nil {
		t.Errorf("no file: %s", got)
	}
}

// askHealth runs the command against a server at url.
func askHealth(t *testing.T, url string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	text := "http: {address: '" + strings.TrimPrefix(strings.TrimPrefix(url, "http://"), "https://") + "'}\n"
	if strings.HasPrefix(url, "https:") {
		text += "tls: {cert: a.pem, key: b.pem}\n"
	}
	var out, err bytes.Buffer
	code = run(t.Context(), append([]string{"healthcheck", "-config", configFile(t, text)}, args...), &out, &err)
	return code, out.String(), err.String()
}

func TestHealthcheck(t *testing.T) {
	ready := false
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz" || r.URL.Path == "/readyz" && ready:
		case r.URL.Path == "/readyz":
			http.Error(w, "not ready: the storage cannot be reached\nmore", http.StatusServiceUnavailable)
		default:
			http.NotFound(w, r)
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	for _, url := range []string{plain.URL, secure.URL} {
		ready = false
		code, _, stderr := askHealth(t, url)
		if code != 1 || !strings.Contains(stderr, "the storage cannot be reached") || strings.Contains(stderr, "more") {
			t.Errorf("%s, not ready: code %d, %q", url, code, stderr)
		}
		if code, stdout, stderr := askHealth(t, url, "-live"); code != 0 || stdout != "ok\n" || stderr != "" {
			t.Errorf("%s, alive: code %d, %q, %q", url, code, stdout, stderr)
		}
		ready = true
		if code, stdout, stderr := askHealth(t, url); code != 0 || stdout != "ok\n" || stderr != "" {
			t.Errorf("%s, ready: code %d, %q, %q", url, code, stdout, stderr)
		}
	}
}

// TestHealthcheckIsNotFooled: whatever is not a 200 of the server itself is bad.
func TestHealthcheckIsNotFooled(t *testing.T) {
	fine := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(fine.Close)
	elsewhere := httptest.NewServer(http.RedirectHandler(fine.URL, http.StatusFound))
	t.Cleanup(elsewhere.Close)
	if code, _, stderr := askHealth(t, elsewhere.URL); code != 1 {
		t.Errorf("a redirect: code %d, %q", code, stderr)
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	if code, _, stderr := askHealth(t, gone.URL); code != 1 || stderr == "" {
		t.Errorf("nobody there: code %d, %q", code, stderr)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"healthcheck", "-nonsense"}, &stdout, &stderr); code != 1 {
		t.Errorf("a wrong flag: code %d", code)
	}
}

// TestHealthcheckOfServer asks the real thing.
func TestHealthcheckOfServer(t *testing.T) {
	_, clouds := startVendorClouds(t)
	p := start(t, vendorConfig(clouds.URL, ""))
	if code, _, stderr := askHealth(t, p.url); code != 0 {
		t.Errorf("ready: code %d, %q", code, stderr)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	if code, _, stderr := askHealth(t, p.url, "-live"); code != 1 {
		t.Errorf("stopped: code %d, %q", code, stderr)
	}
}

func TestUnknownCommand(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"healtcheck"}, &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), `no command "healtcheck"`) {
		t.Errorf("code %d, %q", code, stderr.String())
	}
}
