package main

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

func TestForwarded(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, tt := range []struct {
		name, from string
		headers    []string
		want       string
	}{
		{"no proxy", "192.0.2.1:7", []string{"198.51.100.9"}, "192.0.2.1:7"},
		{"a proxy that says nothing", "10.0.0.1:7", nil, "10.0.0.1:7"},
		{"a proxy", "10.0.0.1:7", []string{"198.51.100.9"}, "198.51.100.9"},
		{"a caller who says more", "10.0.0.1:7", []string{"127.0.0.1, 198.51.100.9"}, "198.51.100.9"},
		{"two proxies", "10.0.0.1:7", []string{"198.51.100.9, 10.0.0.2"}, "198.51.100.9"},
		{"two headers", "10.0.0.1:7", []string{"203.0.113.5", "198.51.100.9"}, "198.51.100.9"},
		{"nothing but proxies", "10.0.0.1:7", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"nonsense", "10.0.0.1:7", []string{"198.51.100.9, unknown"}, "10.0.0.1:7"},
		{"a port", "10.0.0.1:7", []string{"198.51.100.9:4711"}, "198.51.100.9"},
		{"version 6", "[fd00::1]:7", []string{"2001:db8::9"}, "2001:db8::9"},
		{"4 in 6", "[::ffff:10.0.0.1]:7", []string{"198.51.100.9"}, "198.51.100.9"},
	} {
		if got := forwarded(tt.from, tt.headers, proxies); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if got := forwarded(tt.from, tt.headers, nil); got != tt.from {
			t.Errorf("%s, and none is trusted: %s", tt.name, got)
		}
	}
}

// TestBrowsers: what browsers are told, and which web pages may call.
func TestBrowsers(t *testing.T) {
	g := startGuarded(t, func(text string) string {
		return text + "http: {hsts: 1h, cors: {origins: [\"https://console.example\"]}}\n"
	})
	client := g.web(t)
	ask := func(method, path string, header map[string]string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, g.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range header {
			req.Header.Set(name, value)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp
	}
	bearer := "Bearer " + g.tokens["everywhere"]
	for _, path := range []string{"/v1/notebooks", "/healthz", "/metrics", "/none", "/openapi.yaml"} {
		resp := ask(http.MethodGet, path, map[string]string{"Authorization": bearer})
		for name, want := range map[string]string{
			"Strict-Transport-Security": "max-age=3600", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Access-Control-Allow-Origin": "",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
	for origin, want := range map[string]string{"https://console.example": "https://console.example", "https://evil.example": "", "null": ""} {
		preflight := ask(http.MethodOptions, "/v1/notebooks", map[string]string{
			"Origin": origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization",
		})
		if got := preflight.Header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("preflight of %s: allowed is %q", origin, got)
		}
		resp := ask(http.MethodGet, "/v1/notebooks", map[string]string{"Origin": origin, "Authorization": bearer})
		if got := resp.Header.Get("Access-Control-Allow-Origin"); got != want || resp.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("call of %s: allowed is %q", origin, got)
		}
		if !strings.Contains(strings.Join(resp.Header.Values("Vary"), ","), "Origin") {
			t.Errorf("the answer to %s may be kept for others", origin)
		}
	}
	for _, address := range []string{g.server.httpListener.Addr().String(), g.server.grpcListener.Addr().String()} {
		old := g.clientTLS()
		old.MinVersion, old.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
		if conn, err := tls.Dial("tcp", address, old); err == nil {
			_ = conn.Close()
			t.Errorf("%s speaks TLS 1.1", address)
		}
	}
}

// TestCrossSite: a web page cannot make a browser change anything, or read from a
// server that asks nobody by giving it a name of its own.
func TestCrossSite(t *testing.T) {
	p, _ := startQuick(t, cloudsim.Config{Seed: 1, Notebooks: 3})
	ask := func(method, path, host string, header map[string]string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, p.url+path, strings.NewReader(`{"image": "registry/new:1", "imageType": "custom", "validateOnly": true}`))
		if err != nil {
			t.Fatal(err)
		}
		if method == http.MethodGet {
			req.Body = http.NoBody
			req.ContentLength = 0
		}
		if host != "" {
			req.Host = host
		}
		for name, value := range header {
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	change := "/v1/" + coreNotebook + ":changeImage"
	for _, tt := range []struct {
		name, method, path, host string
		header                   map[string]string
		want                     int
	}{
		{"no browser", http.MethodPost, change, "", nil, http.StatusOK},
		{"a page of another site", http.MethodPost, change, "", map[string]string{"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}, http.StatusForbidden},
		{"an old browser", http.MethodPost, change, "", map[string]string{"Origin": "https://evil.example"}, http.StatusForbidden},
		{"a name of its own", http.MethodGet, "/v1/notebooks", "evil.example:8080", nil, http.StatusForbidden},
		{"health under any name", http.MethodGet, "/healthz", "balancer.example", nil, http.StatusOK},
		{"localhost", http.MethodGet, "/v1/notebooks", "localhost:8080", nil, http.StatusOK},
		{"IPv6", http.MethodGet, "/v1/notebooks", "[::1]:8080", nil, http.StatusOK},
	} {
		if got := ask(tt.method, tt.path, tt.host, tt.header); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
