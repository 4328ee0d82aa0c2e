//go:build examples

// Package examples_test runs every example as its README says, against the
// simulated clouds, and compares what it prints with the README and with the API.
package examples_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// programs is where TestMain puts server, cloudsim, go (the example) and grpcurl.
var programs string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if programs, err = os.MkdirTemp("", "examples"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	for dir, packages := range map[string][]string{
		"..":       {"./cmd/server", "./cmd/cloudsim", "./examples/go"},
		"../tools": {"github.com/fullstorydev/grpcurl/cmd/grpcurl"},
	} {
		build := exec.Command("go", append([]string{"build", "-o", programs + "/"}, packages...)...)
		build.Dir = dir
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %v\n%s", build, err, out)
			return 1
		}
	}
	return m.Run()
}

// buffer is what a process has printed.
type buffer struct {
	mu   sync.Mutex // guards data
	data bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

// process is a process with its children, and what they print.
type process struct {
	cmd *exec.Cmd
	out *buffer
	// ended is closed when it has ended.
	ended chan struct{}
}

// start starts a program, which ends with the test at the latest. It gets no
// variable of notebookd but those that it is given.
func start(t *testing.T, env []string, program string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, args...), out: &buffer{}, ended: make(chan struct{})}
	p.cmd.Dir = ".."
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "NOTEBOOKD_") {
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	p.cmd.Env = append(append(p.cmd.Env, "LC_ALL=C"), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGKILL)
		<-p.ended
	})
	return p
}

// signal signals it and its children, as Ctrl-C does.
func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// stop ends it and waits for that.
func (p *process) stop(t *testing.T, s syscall.Signal) {
	t.Helper()
	p.signal(s)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		t.Fatalf("%v did not end:\n%s", p.cmd, p.out)
	}
}

// until waits until something is so.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// place is simulated clouds whose story stands still, and a server on them.
type place struct {
	dir     string
	config  string // without the addresses
	control string // URL of the clouds' control endpoint
	grpc    string // address
	http    string // address
	server  *process
	api     notebookv1.NotebookServiceClient
}

var (
	controlURL = regexp.MustCompile(`settings: (\S+)`)
	doors      = regexp.MustCompile(`gRPC on (\S+), HTTP on (\S+)\.`)
)

// newPlace starts clouds with so many notebooks in each location, and a server
// with more configuration.
func newPlace(t *testing.T, notebooks int, more string, dial ...grpc.DialOption) *place {
	t.Helper()
	p := &place{dir: t.TempDir(), grpc: address(t), http: address(t)}
	file := filepath.Join(p.dir, "clouds.yaml")
	sim := start(t, nil, filepath.Join(programs, "cloudsim"), "-port", "0", "-pace", "0s", "-notebooks", fmt.Sprint(notebooks), "-write-config", file)
	until(t, 20*time.Second, "the clouds are up", func() bool { return strings.Contains(sim.out.String(), "Now run") })
	p.control = controlURL.FindStringSubmatch(sim.out.String())[1]
	clouds, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p.config = fmt.Sprintf("%sstore: {data_dir: %q, sync: always}\nlog: {level: warn}\ndrain: 2s\n%s", clouds, p.dataDir(), more)
	p.start(t)
	if len(dial) == 0 {
		dial = append(dial, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	conn, err := grpc.NewClient(p.grpc, dial...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p.api = notebookv1.NewNotebookServiceClient(conn)
	return p
}

// address returns one to listen on that stays free while the server is away: it is
// below the ports that the system gives to whoever wants any, and above those that the
// tests of docs/ take.
func address(t *testing.T) string {
	t.Helper()
	for range 100 {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+mathrand.IntN(12_000)))
		if err != nil {
			continue // it is taken
		}
		defer func() { _ = listener.Close() }()
		return listener.Addr().String()
	}
	t.Fatal("no free port")
	return ""
}

func (p *place) dataDir() string { return filepath.Join(p.dir, "data") }

// start starts the server, on the same ports as before.
func (p *place) start(t *testing.T) {
	t.Helper()
	file := filepath.Join(p.dir, "config.yaml")
	httpDoor := fmt.Sprintf("http: {address: %q}\n", p.http)
	config := p.config
	if strings.Contains(config, "http: {") { // with the rest of that section
		config = strings.Replace(config, "http: {", fmt.Sprintf("http: {address: %q, ", p.http), 1)
		httpDoor = ""
	}
	if err := os.WriteFile(file, []byte(fmt.Sprintf("grpc: {address: %q}\n%s%s", p.grpc, httpDoor, config)), 0o600); err != nil {
		t.Fatal(err)
	}
	p.server = start(t, nil, filepath.Join(programs, "server"), "--config", file)
	until(t, 20*time.Second, "the server is ready", func() bool {
		select {
		case <-p.server.ended:
			t.Fatalf("the server has ended:\n%s", p.server.out)
		default:
		}
		said := doors.FindStringSubmatch(p.server.out.String())
		if said == nil {
			return false
		}
		p.grpc, p.http = said[1], said[2]
		return p.ready()
	})
}

// ready reports whether the server is. That it is this server is not in doubt.
func (p *place) ready() bool {
	scheme := "http"
	if strings.Contains(p.config, "tls: {") {
		scheme = "https"
	}
	anyone := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer anyone.CloseIdleConnections()
	resp, err := (&http.Client{Transport: anyone}).Get(scheme + "://" + p.http + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// env is what an example is told in its environment.
func (p *place) env(more ...string) []string {
	return append([]string{
		"NOTEBOOKD_ADDRESS=" + p.grpc, "NOTEBOOKD_URL=http://" + p.http, "GRPCURL=" + filepath.Join(programs, "grpcurl"),
	}, more...)
}

// list is the truth: all notebooks that match.
func (p *place) list(ctx context.Context, t *testing.T, filter string) []*notebookv1.Notebook {
	t.Helper()
	resp, err := p.api.List(ctx, &notebookv1.ListRequest{Filter: filter, PageSize: 1000}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetNextPageToken() != "" || len(resp.GetNotebooks()) == 0 {
		t.Fatalf("a page of %d notebooks for %q, and more %v", len(resp.GetNotebooks()), filter, resp.GetNextPageToken() != "")
	}
	return resp.GetNotebooks()
}

// ask asks the clouds' control endpoint.
func (p *place) ask(t *testing.T, method, path, body string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.control+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s: %s %v", method, path, resp.Status, data, err)
	}
	return data
}

// isTruth reports whether that is what core holds.
func (p *place) isTruth(t *testing.T, notebooks []*notebookv1.Notebook) bool {
	t.Helper()
	held := 0
	for _, zone := range []string{"xb2", "xb3"} {
		var rows []any
		if err := json.Unmarshal(p.ask(t, http.MethodGet, "/core/truth/"+zone, ""), &rows); err != nil {
			t.Fatal(err)
		}
		held += len(rows)
	}
	return held == len(notebooks)
}

// changeable is a stopped notebook that the story leaves alone.
const changeable = "clouds/core/locations/xb3/notebooks/nb-eiguqichl5hc"

// change gives changeable an image, in place.
func (p *place) change(t *testing.T, image string) {
	t.Helper()
	_, err := p.api.ChangeImage(t.Context(), &notebookv1.ChangeImageRequest{Name: changeable, Image: image, ImageType: "custom"}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
}

// line is how the examples show a notebook.
func line(n *notebookv1.Notebook) string {
	return fmt.Sprint(n.GetName(), " ", strings.TrimPrefix(n.GetState().String(), "STATE_"), " ", n.GetImage().GetUri())
}

// command is a command of a README, and what it prints there.
type command struct {
	text string
	want []string
}

// commands reads the console blocks of a README.
func commands(t *testing.T, file string) []command {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []command
	inside := false
	for text := range strings.Lines(string(data)) {
		text = strings.TrimSuffix(text, "\n")
		switch said, isCommand := strings.CutPrefix(text, "$ "); {
		case text == "```console":
			inside = true
		case strings.HasPrefix(text, "```"):
			inside = false
		case inside && isCommand:
			all = append(all, command{text: said})
		case inside && len(all) > 0 && len(all[len(all)-1].want) == 0 && strings.HasSuffix(all[len(all)-1].text, `\`):
			all[len(all)-1].text += "\n" + text
		case inside && len(all) > 0:
			all[len(all)-1].want = append(all[len(all)-1].want, text)
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no console block", file)
	}
	return all
}

// check compares what a command printed with its README, where … stands for
// anything within a line, and alone on a line for any lines.
func (c command) check(t *testing.T, printed string) {
	t.Helper()
	pattern := "^"
	for _, want := range c.want {
		if want == "…" {
			pattern += `(?:.*\n)*?`
			continue
		}
		pattern += strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*") + `\n`
	}
	if !regexp.MustCompile(pattern + "$").MatchString(printed) {
		t.Errorf("the README shows for\n%s\n%s\nbut it prints\n%s", c.text, strings.Join(c.want, "\n"), printed)
	}
}

// example is one of them.
type example struct {
	folder string
	list   []string // the command without its filter
}

var all = []example{
	{"curl", []string{"examples/curl/list.sh"}},
	{"grpcurl", []string{"examples/grpcurl/list.sh"}},
	{"python", []string{"/usr/bin/python3", "examples/python/list.py"}},
	{"node", []string{"node", "examples/node/list.js"}},
	{"go", []string{"go", "run", "./examples/go", "list"}},
}

// TestExamples: what the READMEs show is so.
func TestExamples(t *testing.T) {
	needs(t)
	t.Parallel()
	for _, e := range all {
		t.Run(e.folder, func(t *testing.T) {
			t.Parallel()
			english, chinese := commands(t, e.folder+"/README.md"), commands(t, e.folder+"/README.zh-CN.md")
			if !slices.EqualFunc(english, chinese, func(a, b command) bool { return a.text == b.text && slices.Equal(a.want, b.want) }) {
				t.Errorf("the two languages show different commands or outputs:\n%q\n%q", english, chinese)
			}
			p := newPlace(t, 8, "")
			p.ask(t, http.MethodPatch, "/scnet/settings", `{"transition": "200ms"}`)
			lists, changes := 0, 0
			var watches []command
			var seen []string // the changes that were made
			for _, c := range english {
				switch {
				case strings.Contains(c.text, "list"):
					lists++
					c.check(t, p.shell(t, c.text, 0))
				case strings.Contains(c.text, "watch"):
					watches = append(watches, c)
				default:
					changes++
					printed := p.shell(t, c.text, changeExit(c))
					c.check(t, printed)
					if name := regexp.MustCompile(`imageChanges/\S+`).FindString(printed); name != "" {
						seen = append(seen, name)
					}
				}
			}
			if lists != 1 || len(watches) != 1 || changes != 4 {
				t.Fatalf("the README has %d lists, %d watches, %d changes", lists, len(watches), changes)
			}
			p.checkChanges(t, seen)
			p.watch(t, e.folder, watches[0]) // it leaves not much of the place
		})
	}
}

// needs fails when something is missing that the examples need.
func needs(t *testing.T) {
	t.Helper()
	for _, program := range []string{"jq", "curl", "node", "/usr/bin/python3", chromium} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v. On Debian: apt-get install --no-install-recommends curl jq python3-grpcio python3-protobuf nodejs npm chromium", err)
		}
	}
	if out, err := exec.Command("/usr/bin/python3", "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s. On Debian: apt-get install --no-install-recommends python3-grpcio python3-protobuf", err, out)
	}
	if _, err := os.Stat("node/node_modules"); err != nil {
		t.Fatalf("%v; run: npm ci --ignore-scripts --prefix examples/node", err)
	}
}

// shell runs a command of a README as a user would, and returns what it prints.
func (p *place) shell(t *testing.T, text string, exit int) string {
	t.Helper()
	c := start(t, p.env(), "bash", "-c", text)
	select {
	case <-c.ended:
	case <-time.After(50 * time.Second):
		t.Fatalf("%s does not end:\n%s", text, c.out)
	}
	if code := c.cmd.ProcessState.ExitCode(); code != exit {
		t.Errorf("%s: exit code %d, want %d:\n%s", text, code, exit, c.out)
	}
	// `go run` says so too.
	return strings.ReplaceAll(c.out.String(), "exit status 1\n", "")
}

// changeExit is the exit code of a change of a README: it fails when it is
// refused.
func changeExit(c command) int {
	if strings.Contains(strings.Join(c.want, "\n"), "WARNINGS_NOT_ACKNOWLEDGED") {
		return 1
	}
	return 0
}

// checkChanges: of all that a README does, one change came, and it has succeeded.
func (p *place) checkChanges(t *testing.T, printed []string) {
	t.Helper()
	conn, err := grpc.NewClient(p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp, err := notebookv1.NewImageChangeServiceClient(conn).ListImageChanges(t.Context(), &notebookv1.ListImageChangesRequest{Filter: "cloud = scnet"})
	if err != nil {
		t.Fatal(err)
	}
	changes := resp.GetImageChanges()
	if len(changes) != 1 || len(printed) != 2 {
		t.Fatalf("there are %d changes, and %v was printed; want one, printed by the call and by its repetition", len(changes), printed)
	}
	c := changes[0]
	if printed[0] != c.GetName() || printed[1] != c.GetName() || c.GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED {
		t.Errorf("printed %v, but there is %v %v", printed, c.GetName(), c.GetPhase())
	}
	for _, n := range p.list(t.Context(), t, "cloud = scnet") {
		switch n.GetName() {
		case c.GetNotebook():
			t.Errorf("%s is still there", n.GetName())
		case c.GetNewNotebook():
			if n.GetImage().GetUri() != c.GetToImage() || c.GetToImage() == c.GetFromImage() {
				t.Errorf("%s has the image %s, want %s", n.GetName(), n.GetImage().GetUri(), c.GetToImage())
			}
			return
		}
	}
	t.Errorf("%s is not there", c.GetNewNotebook())
}

// event is what a watch prints of a notebook.
var event = regexp.MustCompile(`(?m)^(ADDED|MODIFIED|DELETED|LEFT_FILTER) (\S+)(?: \S+ (\S+))?$`)

// events are what a watch has printed of notebooks, as "TYPE name".
func events(printed string) []string {
	var all []string
	for _, e := range event.FindAllStringSubmatch(printed, -1) {
		all = append(all, e[1]+" "+e[2])
	}
	return all
}

// difference is what a watch has to tell between two lists.
func difference(before, after []*notebookv1.Notebook) []string {
	old := map[string]string{}
	for _, n := range before {
		old[n.GetName()] = n.GetEtag()
	}
	var all []string
	for _, n := range after {
		etag, known := old[n.GetName()]
		switch {
		case !known:
			all = append(all, "ADDED "+n.GetName())
		case etag != n.GetEtag():
			all = append(all, "MODIFIED "+n.GetName())
		}
		delete(old, n.GetName())
	}
	for name := range old {
		all = append(all, "DELETED "+name)
	}
	return all
}

// sameEvents compares without order.
func sameEvents(t *testing.T, what string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("%s: printed\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// watched is what a state file knows.
var watched = regexp.MustCompile(`clouds/[\w-]+/locations/[\w-]+/notebooks/[\w-]+`)

// knows reports whether a state file has exactly these notebooks.
func knows(t *testing.T, file string, notebooks []*notebookv1.Notebook) bool {
	t.Helper()
	data, _ := os.ReadFile(file) // there is none yet, perhaps
	names := map[string]bool{}
	for _, name := range watched.FindAllString(string(data), -1) {
		names[name] = true
	}
	for _, n := range notebooks {
		if !names[n.GetName()] {
			return false
		}
	}
	return len(names) == len(notebooks)
}

const watchFilter = "cloud = core"

// watch follows the watch of a README through a restart of the server, one of
// itself, a server that hangs, and one that has lost its log.
func (p *place) watch(t *testing.T, folder string, c command) {
	t.Helper()
	ctx, state := t.Context(), filepath.Join(p.dir, "watch")
	env := p.env("NOTEBOOKD_STATE="+state, "NOTEBOOKD_BOOKMARK=5")
	w := start(t, env, "bash", "-c", c.text)
	mark := 0 // what was printed before was looked at
	next := func() string { return w.out.String()[mark:] }
	// told waits until a change of an image is told: all before is then told too.
	told := func(image string) string {
		t.Helper()
		until(t, 30*time.Second, "told: "+image+" by\n"+w.out.String(), func() bool {
			return strings.Contains(next(), "MODIFIED "+changeable) && strings.Contains(next(), " "+image+"\n")
		})
		printed := next()
		mark += len(printed)
		return printed
	}
	before := p.list(ctx, t, watchFilter)
	until(t, 30*time.Second, "the snapshot is stored", func() bool { return knows(t, state, before) })
	want := difference(nil, before)
	// What it prints comes by another way than what it stores.
	until(t, 30*time.Second, "the snapshot is printed", func() bool { return len(events(next())) >= len(want) })
	sameEvents(t, "snapshot", events(next()), want)
	mark = len(w.out.String())

	// The server restarts.
	p.server.stop(t, syscall.SIGTERM)
	p.ask(t, http.MethodPost, "/core/step?count=12", "")
	p.start(t)
	var after []*notebookv1.Notebook
	until(t, 30*time.Second, "the server has seen what happened", func() bool {
		after = p.list(ctx, t, watchFilter)
		return p.isTruth(t, after)
	})
	want = difference(before, after)
	if !slices.ContainsFunc(want, func(e string) bool { return strings.HasPrefix(e, "ADDED") }) || !slices.ContainsFunc(want, func(e string) bool { return strings.HasPrefix(e, "MODIFIED") }) {
		t.Fatalf("the story has %v while the server is away: nothing was added, or modified", want)
	}
	// What follows is what the README shows, in its order: first what was missed, then
	// what happens while the watch is there again.
	until(t, 30*time.Second, "what was missed is printed", func() bool { return len(events(next())) >= len(want) })
	p.change(t, "registry.example.com/team/a:1")
	printed := told("registry.example.com/team/a:1")
	sameEvents(t, "restart of the server", events(printed), append(want, "MODIFIED "+changeable))
	c.check(t, w.out.String())

	// The watch restarts.
	until(t, 10*time.Second, "that is stored", func() bool { return fileHas(state, "team/a:1") })
	w.stop(t, syscall.SIGINT)
	p.change(t, "registry.example.com/team/b:2")
	w, mark = start(t, env, "bash", "-c", c.text), 0
	sameEvents(t, "restart of the watch", events(told("registry.example.com/team/b:2")), []string{"MODIFIED " + changeable})

	// The server hangs.
	p.server.signal(syscall.SIGSTOP)
	until(t, 40*time.Second, "silence is noticed by\n"+w.out.String(), func() bool { return strings.Contains(next(), "silent") })
	p.server.signal(syscall.SIGCONT)
	p.change(t, "registry.example.com/team/c:3")
	sameEvents(t, "a server that hung", events(told("registry.example.com/team/c:3")), []string{"MODIFIED " + changeable})

	// The server has lost its log, and with it the key of its tokens. Afterwards
	// there is a cloud less, which makes the watch another one.
	for _, loss := range []struct {
		what  string
		lose  func()
		notes *regexp.Regexp
	}{
		{"the log", func() {
			if err := os.RemoveAll(p.dataDir()); err != nil {
				t.Fatal(err)
			}
		}, regexp.MustCompile(`RESUME_TOKEN_INVALID|begins anew.*not made here`)},
		{"a cloud", func() {
			p.config = regexp.MustCompile(`(?s)  - name: scnet\n.*?\nstore`).ReplaceAllString(p.config, "store")
		}, regexp.MustCompile(`(reset|begins anew).*VIEW_CHANGED`)},
	} {
		known := p.list(ctx, t, watchFilter)
		// The watch sleeps until what has gone is not even deleted any more: only a
		// reset tells.
		w.signal(syscall.SIGSTOP)
		p.server.stop(t, syscall.SIGTERM)
		loss.lose()
		p.ask(t, http.MethodPost, "/core/step?count=40", "")
		p.start(t)
		until(t, 30*time.Second, "the server has seen what happened", func() bool { return p.isTruth(t, p.list(ctx, t, watchFilter)) })
		w.signal(syscall.SIGCONT)
		until(t, 40*time.Second, loss.what+" is lost, but that is not told by\n"+w.out.String(), func() bool { return loss.notes.MatchString(next()) })
		var now []*notebookv1.Notebook
		until(t, 30*time.Second, "a full snapshot, after the loss of "+loss.what, func() bool {
			now = p.list(ctx, t, watchFilter)
			return p.isTruth(t, now) && knows(t, state, now)
		})
		if gone := difference(known, now); !slices.ContainsFunc(gone, func(e string) bool { return strings.HasPrefix(e, "DELETED") }) {
			t.Fatalf("nothing has gone that the watch had to forget: %v", gone)
		}
		mark = len(w.out.String())
	}
	w.stop(t, syscall.SIGINT)
	if t.Failed() {
		t.Logf("%s: the server said\n%s", folder, p.server.out)
	}
}

func fileHas(file, text string) bool {
	data, _ := os.ReadFile(file) // there is none yet, perhaps
	return strings.Contains(string(data), text)
}

// TestManyPages: lists of more than a page are whole, over TLS and with a token,
// and refused without one.
func TestManyPages(t *testing.T) {
	needs(t)
	t.Parallel()
	dir := t.TempDir()
	roots := certify(t, dir)
	made := exec.Command(filepath.Join(programs, "server"), "token", "-subject", "ci", "-group", "team")
	var said bytes.Buffer
	made.Stderr = &said
	hashes, err := made.Output()
	token := regexp.MustCompile(`nbd_\S+`).FindString(said.String())
	if err != nil || token == "" {
		t.Fatalf("no token: %v: %s", err, said.String())
	}
	if err := os.WriteFile(dir+"/tokens.yaml", hashes, 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPlace(t, 60, fmt.Sprintf("tls: {cert: %[1]s/tls.crt, key: %[1]s/tls.key}\nauth: {tokens_file: %[1]s/tokens.yaml, policy: [{role: viewer, subjects: [\"*\"]}]}\n", dir),
		grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, "")))
	const filter = `NOT state = FAILED`
	var want strings.Builder
	notebooks := p.list(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), t, filter)
	for _, n := range notebooks {
		want.WriteString(line(n) + "\n")
	}
	fmt.Fprintf(&want, "%d notebooks\n", len(notebooks))
	if len(notebooks) < 101 {
		t.Fatalf("%d notebooks are not three pages", len(notebooks))
	}
	local := strings.NewReplacer("127.0.0.1", "localhost")
	env := p.env("NOTEBOOKD_ADDRESS="+local.Replace(p.grpc), "NOTEBOOKD_URL=https://"+local.Replace(p.http), "NOTEBOOKD_CA="+dir+"/tls.crt")
	for _, e := range all {
		t.Run(e.folder, func(t *testing.T) {
			list := start(t, append(env, "NOTEBOOKD_TOKEN="+token), e.list[0], append(e.list[1:], filter)...)
			<-list.ended
			if got := list.out.String(); got != want.String() {
				t.Errorf("printed\n%s\nwant\n%s", got, want.String())
			}
			stranger := start(t, env, e.list[0], append(e.list[1:], filter)...)
			<-stranger.ended
			if got := stranger.out.String(); stranger.cmd.ProcessState.ExitCode() == 0 || !strings.Contains(got, "did not say who you are") {
				t.Errorf("without a token: exit code %d: %s", stranger.cmd.ProcessState.ExitCode(), got)
			}
		})
	}
}

// certify makes tls.crt and tls.key of localhost in a directory, and returns the
// certificate, which vouches for itself.
func certify(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "notebookd"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, data := range map[string][]byte{"tls.crt": cert, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	return roots
}
