//go:build browser

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// probe tries in a browser what the policy of the console allows and what it does not,
// and tells the server what came of it.
const probe = `
const told = {}, violations = new Set();
document.addEventListener("securitypolicyviolation", e => violations.add(e.effectiveDirective));
const fetched = url => fetch(url).then(r => r.status, () => "refused");
const work = () => new Promise(done => {
  const worker = new Worker("/assets/probe-worker.js");
  worker.onmessage = e => done(e.data);
  worker.onerror = () => done("failed");
});
(async () => {
  told.own = await fetched("/console.json");
  told.issuer = await fetched("%[1]s/.well-known/openid-configuration");
  told.stranger = await fetched("%[2]s/");
  told.worker = await work();
  const script = document.createElement("script");
  script.textContent = "document.title = 'run'";
  document.head.append(script);
  document.body.setAttribute("style", "color: red");
  document.body.style.background = "blue";
  told.inline = document.title;
  told.style = getComputedStyle(document.body).backgroundColor;
  await new Promise(done => setTimeout(done, 100)); // violations are told later
  const text = Object.entries(told).map(([k, v]) => k + "=" + v).concat([...violations].sort()).join("\n");
  await fetch("/told", {method: "POST", body: text});
})();`

const probeWorker = `fetch("/console.json").then(r => postMessage(r.status), () => postMessage("refused"))`

// TestBrowserConsole: a browser shows the console without a violation of its policy,
// and the policy allows what signing in takes and nothing else.
func TestBrowserConsole(t *testing.T) {
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	foreign := func() string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			_, _ = io.WriteString(w, "{}")
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	issuer, stranger := foreign(), foreign()
	told := make(chan string, 1) // sent by the handler of the page's post
	over := make(chan struct{})  // closed by the same
	config := quick(fleet) + fmt.Sprintf("auth: {oidc: [{issuer: %q, audiences: [c], console: {client_id: c}}], policy: [{role: viewer, subjects: [\"*\"]}]}\n", issuer)
	p := launch(t, config, "", func(s *server) {
		inner := s.http.Handler
		s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			type document struct{ contentType, text string }
			documents := map[string]document{
				"/probe":                  {"text/html", `<!doctype html><meta charset="utf-8"><title>probe</title><body><img src="/over"><script src="/assets/probe.js"></script>`},
				"/assets/probe.js":        {"text/javascript", fmt.Sprintf(probe, issuer, stranger)},
				"/assets/probe-worker.js": {"text/javascript", probeWorker},
			}
			if d, ok := documents[r.URL.Path]; ok { // as if it were the console's
				page := httptest.NewRecorder()
				inner.ServeHTTP(page, httptest.NewRequestWithContext(r.Context(), http.MethodGet, "http://127.0.0.1/", http.NoBody))
				w.Header().Set("Content-Security-Policy", page.Header().Get("Content-Security-Policy"))
				w.Header().Set("Content-Type", d.contentType)
				_, _ = io.WriteString(w, d.text)
				return
			}
			switch r.URL.Path {
			case "/told":
				text, _ := io.ReadAll(r.Body)
				told <- string(text)
				close(over)
			case "/over": // the page is not loaded before it has done everything
				select {
				case <-over:
				case <-time.After(30 * time.Second):
				}
			default:
				inner.ServeHTTP(w, r)
			}
		})
	})

	if output := shown(t, p.url+"/"); strings.Contains(output, "Content Security Policy") {
		t.Errorf("the console does what its policy forbids:\n%s", output)
	}
	output := shown(t, p.url+"/probe")
	if !strings.Contains(output, "Content Security Policy") { // what was looked for above would be seen
		t.Errorf("the browser does not tell of violations:\n%s", output)
	}
	want := []string{
		"own=200", "issuer=200", "stranger=refused", "worker=200", "inline=probe", "style=rgb(0, 0, 255)",
		"connect-src", "script-src-elem", "style-src-attr",
	}
	select {
	case text := <-told:
		if diff := cmp.Diff(want, strings.Split(text, "\n")); diff != "" {
			t.Errorf("under the policy of the page (-want +got):\n%s", diff)
		}
	default:
		t.Errorf("the page told nothing:\n%s", output)
	}
}

// shown opens a page in a browser until it is loaded, and returns what the browser logs
// meanwhile.
func shown(t *testing.T, url string) string {
	t.Helper()
	if _, err := os.Stat(chromium); err != nil {
		t.Fatalf("this test needs a browser at %s. On Debian: apt-get install --no-install-recommends chromium", chromium)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
		"--user-data-dir="+dir, "--dump-dom", url)
	cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", url, err, out)
	}
	return string(out)
}
