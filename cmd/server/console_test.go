package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// answer is what an HTTP request comes to.
type answer struct {
	code   int
	header http.Header
	body   string
}

// browse makes a request as a browser would that has no credentials.
func browse(t *testing.T, client *http.Client, method, url string, header map[string]string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// noSuchPath fails unless an answer is the API's for a path that it does not have.
func (a answer) noSuchPath(t *testing.T, what string) {
	t.Helper()
	if a.code != http.StatusNotFound && a.code != http.StatusNotImplemented || a.header.Get("Content-Type") != "application/json" ||
		!strings.Contains(a.body, `"OPERATION_NOT_SUPPORTED"`) || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %d %v %s", what, a.code, a.header, a.body)
	}
}

const consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'%s; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// TestConsole: everybody gets the page and what it consists of, with what browsers have
// to be told, and nothing else without credentials; and it can be switched off.
func TestConsole(t *testing.T) {
	g := startGuarded(t, nil)
	client := g.web(t)
	get := func(path string) answer { t.Helper(); return browse(t, client, http.MethodGet, g.url+path, nil) }
	page := get("/")
	for name, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache", "Content-Security-Policy": fmt.Sprintf(consolePolicy, ""),
		"Cross-Origin-Opener-Policy": "same-origin", "Strict-Transport-Security": "max-age=31536000", "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "no-referrer", "Set-Cookie": "", "Access-Control-Allow-Origin": "",
	} {
		if got := strings.Join(page.header.Values(name), "; "); got != want {
			t.Errorf("%s of the page is %q, want %q", name, got, want)
		}
	}
	if page.code != http.StatusOK || !strings.Contains(page.body, "<html") {
		t.Errorf("the page: %d %s", page.code, page.body)
	}
	if back := get("/?code=a&state=b"); back.body != page.body {
		t.Errorf("back from an issuer: %d %s", back.code, back.body)
	}
	if kept := browse(t, client, http.MethodGet, g.url, map[string]string{"If-None-Match": page.header.Get("ETag")}); kept.code != http.StatusNotModified || kept.body != "" {
		t.Errorf("who has the page: %d %s", kept.code, kept.body)
	}
	if head := browse(t, client, http.MethodHead, g.url+"/", nil); head.code != http.StatusOK || head.body != "" || head.header.Get("Content-Security-Policy") != page.header.Get("Content-Security-Policy") {
		t.Errorf("HEAD: %d %v %s", head.code, head.header, head.body)
	}
	for _, match := range regexp.MustCompile(`["'](?:\.?/)?(assets/[^"']+)["']`).FindAllStringSubmatch(page.body, -1) {
		if asset := get("/" + match[1]); asset.code != http.StatusOK || asset.header.Get("Cache-Control") != "public, max-age=31536000, immutable" || asset.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", match[1], asset.code, asset.header)
		}
	}
	for _, path := range []string{"/assets/none.js", "/assets/", "/index.html", "/sources.sha256", "/assets/%2e%2e/index.html", "/clouds", "/favicon.ico"} {
		get(path).noSuchPath(t, path)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		browse(t, client, method, g.url+"/", nil).noSuchPath(t, method)
	}
	if rest := get("/v1/notebooks"); rest.code != http.StatusUnauthorized {
		t.Errorf("the API: %d %s", rest.code, rest.body)
	}

	paths := []string{"/", "/assets/none.js", "/console.json"}
	g.applied(t, func() {
		g.configure(t, func(text string) string { return text + "http: {console: {enabled: false}}\n" })
	})
	for _, path := range paths {
		get(path).noSuchPath(t, path+" of a console that is switched off")
	}
	if rest := get("/v1/notebooks"); rest.code != http.StatusUnauthorized {
		t.Errorf("the API without a console: %d %s", rest.code, rest.body)
	}
	g.applied(t, func() {
		g.configure(t, func(text string) string { return text + "http: {console: {enabled: true}}\n" })
	})
	if again := get("/"); again.code != http.StatusOK || again.body != page.body {
		t.Errorf("once it is switched on again: %d", again.code)
	}
}

// TestConsoleFacts: a sign-in page is told what there is to sign in with, whatever the
// configuration becomes, and may call the issuers that it may send people to.
func TestConsoleFacts(t *testing.T) {
	g := startGuarded(t, nil)
	client := g.web(t)
	part := func(key string) *regexp.Regexp { return regexp.MustCompile(`(?m)^  ` + key + `:.*\n`) }
	without := func(text string, keys ...string) string {
		for _, key := range keys {
			text = part(key).ReplaceAllString(text, "")
			if key == "certificates" {
				text = strings.Replace(text, ", client_ca: "+g.dir+"/ca.pem", "", 1)
			}
			if key == "oidc" || key == "certificates" { // nobody is called so any more
				text = strings.Replace(text, `"oidc:olga", "cert:robot"`, `robot`, 1)
			}
		}
		return text
	}
	oidc := func(text, console string) string {
		return strings.Replace(text, "audiences: [notebooks]", "audiences: [notebooks], console: "+console, 1)
	}
	id := g.issuer.URL
	second := func(text string) string {
		return strings.Replace(text, "  oidc: [", `  oidc: [{issuer: "https://second.example/realm", audiences: [c], prefix: "second:", console: {client_id: c}}, `, 1)
	}
	for _, tt := range []struct {
		name   string
		change func(string) string
		auth   string
		origin string // that may be called beside its own
	}{
		{"all, without a client", func(text string) string { return text }, `{"required":true,"token":true,"certificate":true,"oidc":[]}`, ""},
		{"all", func(text string) string { return oidc(text, "{client_id: notebooks}") },
			`{"required":true,"token":true,"certificate":true,"oidc":[{"issuer":"` + id + `","clientId":"notebooks","scopes":["openid","profile"]}]}`, " " + id},
		{"tokens", func(text string) string { return without(text, "oidc", "certificates") }, `{"required":true,"token":true,"certificate":false,"oidc":[]}`, ""},
		{"certificates", func(text string) string { return without(text, "tokens_file", "oidc") }, `{"required":true,"token":false,"certificate":true,"oidc":[]}`, ""},
		{"an issuer", func(text string) string {
			return oidc(without(text, "tokens_file", "certificates"), `{client_id: notebooks, scopes: [openid, groups], origins: ["https://token.example:8443", "https://token.example:8443"]}`)
		}, `{"required":true,"token":false,"certificate":false,"oidc":[{"issuer":"` + id + `","clientId":"notebooks","scopes":["openid","groups"]}]}`, " " + id + " https://token.example:8443"},
		{"an issuer without a client", func(text string) string { return without(text, "tokens_file", "certificates") }, `{"required":true,"token":true,"certificate":false,"oidc":[]}`, ""},
		{"two issuers", func(text string) string {
			return second(oidc(without(text, "tokens_file", "certificates"), "{client_id: notebooks}"))
		}, `{"required":true,"token":false,"certificate":false,"oidc":[{"issuer":"https://second.example/realm","clientId":"c","scopes":["openid","profile"]},{"issuer":"` + id + `","clientId":"notebooks","scopes":["openid","profile"]}]}`, " https://second.example " + id},
		{"nothing", func(text string) string {
			before, rest, _ := strings.Cut(text, "auth:\n")
			_, after, _ := strings.Cut(rest, "clouds:\n")
			return strings.Replace(before, ", client_ca: "+g.dir+"/ca.pem", "", 1) + "clouds:\n" + after
		}, `{"required":false,"token":false,"certificate":false,"oidc":[]}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g.applied(t, func() {
				g.configure(t, func(text string) string { return tt.change(text) + "# " + tt.name + "\n" })
			})
			got := browse(t, client, http.MethodGet, g.url+"/console.json", nil)
			want := `{"version":"` + buildInfo().Version + `","auth":` + tt.auth + "}\n"
			if diff := cmp.Diff(want, got.body); diff != "" || got.code != http.StatusOK || got.header.Get("Content-Type") != "application/json" || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%d %v (-want +got):\n%s", got.code, got.header, diff)
			}
			if policy := browse(t, client, http.MethodGet, g.url+"/", nil).header.Get("Content-Security-Policy"); policy != fmt.Sprintf(consolePolicy, tt.origin) {
				t.Errorf("the policy of the page is %q", policy)
			}
		})
	}
}

// TestConsoleSignsIn: what the console would do with what it is told leads to answers
// of the API: it asks the issuer that is named, and sends the token that it gets.
func TestConsoleSignsIn(t *testing.T) {
	g := startGuarded(t, func(text string) string {
		return strings.Replace(text, "audiences: [notebooks]", "audiences: [api, console], console: {client_id: console}", 1)
	})
	client := g.web(t)
	var facts consoleFacts
	if err := json.Unmarshal([]byte(browse(t, client, http.MethodGet, g.url+"/console.json", nil).body), &facts); err != nil {
		t.Fatal(err)
	}
	if len(facts.Auth.OIDC) != 1 {
		t.Fatalf("%+v", facts)
	}
	told := facts.Auth.OIDC[0]
	if discovery := browse(t, http.DefaultClient, http.MethodGet, told.Issuer+"/.well-known/openid-configuration", nil); !strings.Contains(discovery.body, `"issuer":"`+told.Issuer+`"`) {
		t.Errorf("the issuer says %s", discovery.body)
	}
	// An ID token is for the client that asked for it.
	token := g.issuer.token(t, nil, map[string]any{"aud": told.ClientID, "nonce": "n", "azp": told.ClientID})
	signed := browse(t, client, http.MethodGet, g.url+"/v1/caller", map[string]string{
		"Authorization": "Bearer " + token, "Sec-Fetch-Site": "same-origin", "Origin": g.url,
	})
	if signed.code != http.StatusOK || !strings.Contains(signed.body, `"oidc:olga"`) || !strings.Contains(signed.body, `"clouds/core"`) {
		t.Errorf("who is signed in: %d %s", signed.code, signed.body)
	}
}

// TestConsoleKeepsTheRules: the console is no way around what holds for every other
// path of the door.
func TestConsoleKeepsTheRules(t *testing.T) {
	p, _ := startQuick(t, cloudsim.Config{Seed: 1, Notebooks: 1})
	for _, path := range []string{"/", "/assets/none.js", "/console.json"} {
		got := browse(t, http.DefaultClient, http.MethodGet, p.url+path, map[string]string{"Host": "evil.example:8080"})
		if got.code != http.StatusForbidden || !strings.Contains(got.body, "PERMISSION_DENIED") {
			t.Errorf("%s under a name of its own: %d %s", path, got.code, got.body)
		}
	}
	if got := browse(t, http.DefaultClient, http.MethodGet, p.url+"/?"+strings.Repeat("x", 20<<10), nil); got.code != http.StatusRequestURITooLong {
		t.Errorf("a long query: %d", got.code)
	}
	if got := browse(t, http.DefaultClient, http.MethodPost, p.url+"/", map[string]string{"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}); got.code != http.StatusForbidden {
		t.Errorf("a page of another site: %d", got.code)
	}
	if got := browse(t, http.DefaultClient, http.MethodGet, p.url+"/", map[string]string{"Host": "localhost:8080"}); got.code != http.StatusOK {
		t.Errorf("localhost: %d", got.code)
	}
}

// TestConsoleFactsAreLimited: strangers are told how to sign in as often as they may
// call, and the page comes all the same.
func TestConsoleFactsAreLimited(t *testing.T) {
	g := startGuarded(t, func(text string) string {
		return strings.Replace(text, "limits: {calls_per_second: 1000000}", "limits: {calls_per_second: 0.001, burst: 3}", 1)
	})
	client := g.web(t)
	for i := range 5 {
		want := http.StatusOK
		if i >= 3 {
			want = http.StatusTooManyRequests
		}
		got := browse(t, client, http.MethodGet, g.url+"/console.json", nil)
		if got.code != want || (want != http.StatusOK) != strings.Contains(got.body, "RATE_LIMITED") {
			t.Errorf("request %d: %d %s", i, got.code, got.body)
		}
		if page := browse(t, client, http.MethodGet, g.url+"/", nil); page.code != http.StatusOK {
			t.Errorf("page %d: %d", i, page.code)
		}
	}
	if got := browse(t, client, http.MethodGet, g.url+"/v1/caller", map[string]string{"Authorization": "Bearer " + g.tokens["viewer"]}); got.code != http.StatusOK {
		t.Errorf("somebody who is known: %d %s", got.code, got.body)
	}
}
