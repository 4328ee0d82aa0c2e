//go:build examples

package examples_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const chromium = "/usr/bin/chromium"

// hands makes a page do what the test says, and keeps what it logs.
const hands = `<script>
window.told = [];
for (const name of ["log", "error"]) {
  const print = console[name];
  console[name] = (...what) => { told.push(what.join(" ")); print(...what); };
}
(async () => {
  const page = await (await fetch("/hands/page", {method: "POST"})).text();
  for (;;) {
    const next = await fetch("/hands/next?page=" + page, {method: "POST"});
    if (!next.ok) return; // there is another page
    const code = await next.text();
    if (code.startsWith("visit ")) {
      location.href = code.slice(6);
      return;
    }
    let result;
    try { result = {value: await (0, eval)(code)}; } catch (e) { result = {error: String(e)}; }
    await fetch("/hands/result", {method: "POST", body: JSON.stringify(result)});
  }
})();
</script>`

// browser is a browser that has a page of examples/browser open.
type browser struct {
	url     string
	process *process
	code    chan string // from do to the page
	results chan string // from the page to do; room for one

	mu    sync.Mutex // guards pages
	pages int        // how many were opened; the last one is open
}

// openBrowser serves examples/browser and starts a browser, which ends with the test.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	b := &browser{code: make(chan string), results: make(chan string, 1)}
	mux := http.NewServeMux()
	files := http.FileServer(http.Dir("browser"))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			files.ServeHTTP(w, r)
			return
		}
		page, err := os.ReadFile("browser/index.html")
		if err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, strings.Replace(string(page), "<style>", hands+"<style>", 1))
	})
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>elsewhere</title>"+hands)
	})
	mux.HandleFunc("/hands/page", func(w http.ResponseWriter, _ *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.pages++
		_, _ = fmt.Fprint(w, b.pages)
	})
	mux.HandleFunc("/hands/next", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("page") != strconv.Itoa(b.page()) {
			w.WriteHeader(http.StatusGone)
			return
		}
		select {
		case code := <-b.code:
			_, _ = io.WriteString(w, code)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/hands/result", func(_ http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		b.results <- string(data)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	b.url = server.URL
	dir := t.TempDir()
	b.process = start(t, []string{"HOME=" + dir, "TMPDIR=" + dir}, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+dir, b.url+"/elsewhere")
	t.Cleanup(func() { b.process.stop(t, syscall.SIGTERM) }) // before its directory goes
	until(t, 30*time.Second, "a page is open", func() bool { return b.page() > 0 })
	return b
}

func (b *browser) page() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pages
}

// visit opens another page.
func (b *browser) visit(t *testing.T, page string) {
	t.Helper()
	before := b.page()
	select {
	case b.code <- "visit " + page:
	case <-time.After(30 * time.Second):
		t.Fatalf("the page takes no code:\n%s", b.process.out)
	}
	until(t, 20*time.Second, "the browser opens "+page, func() bool { return b.page() > before })
}

// do has the page run code, and puts what that gives into value.
func (b *browser) do(t *testing.T, code string, value any) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	select {
	case b.code <- code:
	case <-deadline:
		t.Fatalf("the page takes no code:\n%s", b.process.out)
	}
	select {
	case data := <-b.results:
		var result struct {
			Value json.RawMessage
			Error string
		}
		if err := json.Unmarshal([]byte(data), &result); err != nil || result.Error != "" {
			t.Fatalf("%s: %v %s", code, err, result.Error)
		}
		if value != nil {
			if err := json.Unmarshal(result.Value, value); err != nil {
				t.Fatalf("%s: %s: %v", code, data, err)
			}
		}
	case <-deadline:
		t.Fatalf("the page does not end: %s", code)
	}
}

// rows are the rows of a table of the page.
func (b *browser) rows(t *testing.T, table string) []string {
	t.Helper()
	var rows []string
	b.do(t, fmt.Sprintf(`[...document.querySelectorAll("#%s tr")].map(row => [...row.cells].map(cell => cell.textContent).join(" "))`, table), &rows)
	return rows
}

// text is what an element of the page shows.
func (b *browser) text(t *testing.T, id string) string {
	t.Helper()
	var text string
	b.do(t, fmt.Sprintf(`document.getElementById(%q).innerText`, id), &text)
	return text
}

// told is what the page has logged since it was opened, after the first so many.
func (b *browser) told(t *testing.T, after int) []string {
	t.Helper()
	var told []string
	b.do(t, "told", &told)
	return told[after:]
}

// TestBrowser: the page lists, watches through restarts, and changes an image.
func TestBrowser(t *testing.T) {
	needs(t)
	t.Parallel()
	b := openBrowser(t)
	p := newPlace(t, 8, fmt.Sprintf("http: {cors: {origins: [%q]}}\n", b.url))
	p.ask(t, http.MethodPatch, "/scnet/settings", `{"transition": "200ms"}`)
	page := "/?" + url.Values{"server": {"http://" + p.http}, "filter": {watchFilter}, "bookmark": {"5"}}.Encode()
	b.visit(t, page)
	showsTruth := func(table string) func() bool {
		return func() bool {
			var want []string
			for _, n := range p.list(t.Context(), t, watchFilter) {
				want = append(want, line(n))
			}
			return p.isTruth(t, p.list(t.Context(), t, watchFilter)) && slices.Equal(b.rows(t, table), want)
		}
	}
	until(t, 20*time.Second, "the list is the truth", showsTruth("list"))
	until(t, 20*time.Second, "the watch is the truth", showsTruth("watch"))

	p.changeInPage(t, b)

	// The server restarts.
	mark := len(b.told(t, 0))
	images := 0
	// changed changes an image, and returns what the page was told until it was
	// told of that.
	changed := func() []string {
		t.Helper()
		images++
		image := fmt.Sprintf("registry.example.com/team/browser:%d", images)
		p.change(t, image)
		until(t, 30*time.Second, "the page shows "+image, func() bool {
			return slices.ContainsFunc(b.rows(t, "watch"), func(row string) bool { return strings.HasSuffix(row, " "+image) })
		})
		told := b.told(t, mark)
		mark += len(told)
		return events(strings.Join(told, "\n"))
	}
	before := p.list(t.Context(), t, watchFilter)
	p.server.stop(t, syscall.SIGTERM)
	p.ask(t, http.MethodPost, "/core/step?count=12", "")
	p.start(t)
	until(t, 30*time.Second, "the server has seen what happened", func() bool { return p.isTruth(t, p.list(t.Context(), t, watchFilter)) })
	want := difference(before, p.list(t.Context(), t, watchFilter))
	if len(want) < 3 {
		t.Fatalf("the story has only %v while the server is away", want)
	}
	sameEvents(t, "restart of the server", changed(), append(want, "MODIFIED "+changeable))

	// The page is left and opened again.
	b.visit(t, "/elsewhere")
	p.change(t, "registry.example.com/team/elsewhere:1")
	b.visit(t, page)
	until(t, 20*time.Second, "the watch is the truth in a page that was opened again", showsTruth("watch"))
	sameEvents(t, "a page that was opened again", events(strings.Join(b.told(t, 0), "\n")), []string{"MODIFIED " + changeable})
	mark = len(b.told(t, 0))

	// The server hangs.
	p.server.signal(syscall.SIGSTOP)
	until(t, 40*time.Second, "the page notices silence", func() bool { return slices.Contains(b.told(t, mark), "-- silent for 15 s; connecting anew") })
	p.server.signal(syscall.SIGCONT)
	sameEvents(t, "a server that hung", changed(), []string{"MODIFIED " + changeable})

	// The server has lost its log.
	p.server.stop(t, syscall.SIGTERM)
	if err := os.RemoveAll(p.dataDir()); err != nil {
		t.Fatal(err)
	}
	p.ask(t, http.MethodPost, "/core/step?count=12", "")
	p.start(t)
	until(t, 30*time.Second, "the page is told of a reset", func() bool {
		return slices.ContainsFunc(b.told(t, mark), func(s string) bool { return strings.Contains(s, "reset (TOKEN_INVALID)") })
	})
	until(t, 30*time.Second, "the watch is the truth after a reset", showsTruth("watch"))
}

// changeInPage changes an image as a person does.
func (p *place) changeInPage(t *testing.T, b *browser) {
	t.Helper()
	note := func(want string) string {
		t.Helper()
		until(t, 40*time.Second, "the page says "+want, func() bool { return strings.Contains(b.text(t, "change-note"), want) })
		return b.text(t, "change-note")
	}
	press := func(button string) {
		b.do(t, fmt.Sprintf(`void document.querySelector("#change button[name=%s]").click()`, button), nil)
	}
	b.do(t, `for (const [name, value] of [["notebook", "clouds/scnet/locations/11250/notebooks/1896050410550136833"],
		["image", "image.ac.com:5000/dcu/admin/base/jupyterlab-pytorch:2.5.1-py3.10"]]) {
		const input = document.querySelector("#change").elements[name];
		input.value = value;
		input.dispatchEvent(new InputEvent("input", {bubbles: true}));
	}`, nil)
	press("plan")
	note("Nothing was changed")
	for _, want := range []string{"release the old one", "NOTEBOOK_ID_CHANGES", "ACCELERATOR_MAY_BE_LOST"} {
		if plan := b.text(t, "plan"); !strings.Contains(plan, want) {
			t.Errorf("the plan does not say %s: %s", want, plan)
		}
	}
	press("send")
	if refused := note("WARNINGS_NOT_ACKNOWLEDGED"); strings.Count(refused, "\n") != 5 {
		t.Errorf("the page does not name five warnings: %s", refused)
	}
	b.do(t, `for (const box of document.querySelectorAll("#plan input")) box.click()`, nil)
	name := regexp.MustCompile(`imageChanges/\S+`)
	press("send")
	first := name.FindString(note("SUCCEEDED"))
	b.do(t, `document.getElementById("change-note").innerText = ""`, nil)
	press("send")
	p.checkChanges(t, []string{first, name.FindString(note("SUCCEEDED"))})
}
