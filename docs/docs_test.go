//go:build docs

// Package docs_test runs the console blocks of the README, of the pages in docs/ and
// of those of the clouds against simulated clouds, and compares what is printed with
// what they show.
package docs_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startLimit   = 30 * time.Second
	commandLimit = 2 * time.Minute
)

// ownBlocks are the translations whose console blocks show another language than
// those of their English pages. Both are run.
var ownBlocks = map[string]bool{
	"README.zh-CN.md":                   true,
	"docs/change-image-safely.zh-CN.md": true,
	"docs/configuration.zh-CN.md":       true,
	"docs/connect-coreshub.zh-CN.md":    true,
	"docs/connect-scnet.zh-CN.md":       true,
	"docs/deployment.zh-CN.md":          true,
	"docs/filter.zh-CN.md":              true,
	"docs/first-ten-minutes.zh-CN.md":   true,
	"docs/image-change.zh-CN.md":        true,
	"docs/notebookctl.zh-CN.md":         true,
	"docs/operations.zh-CN.md":          true,
	"docs/replicas.zh-CN.md":            true,
	"docs/resilience.zh-CN.md":          true,
	"docs/run-in-a-team.zh-CN.md":       true,
	"docs/security.zh-CN.md":            true,
	"docs/troubleshooting.zh-CN.md":     true,

	"internal/upstream/cloudsim/README.zh-CN.md": true,
}

// programs is where TestMain puts what is on the PATH of the pages, which they also call bin/.
var programs string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if programs, err = os.MkdirTemp("", "docs"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	for _, b := range []struct{ dir, pkg string }{
		{"..", "./cmd/..."},
		{"..", "github.com/nats-io/nats-server/v2"},
		{"../tools", "github.com/fullstorydev/grpcurl/cmd/grpcurl"},
	} {
		build := exec.Command("go", "build", "-o", programs+"/", b.pkg)
		build.Dir = b.dir
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %v\n%s", build, err, out)
			return 1
		}
	}
	return m.Run()
}

// pages are the pages that may have console blocks, by their paths from the root.
func pages(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"README*.md", "docs/*.md", "internal/upstream/*/README*.md"} {
		found, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			all = append(all, strings.TrimPrefix(filepath.ToSlash(f), "../"))
		}
	}
	return all
}

// serverless reports whether a page starts its server itself.
func serverless(t *testing.T, page string) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", page))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), "\n<!-- no server -->\n")
}

// blocksOf are the console blocks of a page.
func blocksOf(t *testing.T, page string) []block {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", page))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := parse(string(text))
	if err != nil {
		t.Fatalf("%s:%v", page, err)
	}
	return blocks
}

func TestPages(t *testing.T) {
	ran := 0
	for _, page := range pages(t) {
		if english := strings.TrimSuffix(page, ".zh-CN.md") + ".md"; english != page+".md" && !ownBlocks[page] {
			continue // TestTranslations compares it with the page that is run
		}
		blocks := blocksOf(t, page)
		if len(blocks) == 0 {
			continue
		}
		ran++
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			var s *sandbox
			for _, b := range blocks {
				if b.notRun != "" {
					t.Logf("%s:%d is not run: %s", page, b.line, b.notRun)
					continue
				}
				if s == nil {
					s = newSandbox(t, !serverless(t, page))
					if ownBlocks[page] {
						s.env = append(s.env, "LANG=zh_CN.UTF-8") // as their readers have it
					}
				}
				if b.file != "" {
					s.write(t, b)
				}
				for _, c := range b.commands {
					if err := s.check(t, c); err != nil {
						t.Errorf("%s:%d: $ %s\n%v", page, c.line, c.text, err)
					}
				}
			}
		})
	}
	if ran == 0 {
		t.Error("no page has a console block")
	}
}

// yamlComment is a comment in a file of a page, which is in the language of the page.
var yamlComment = regexp.MustCompile(`(^|\s+)#.*$`)

// said is what a block shows, but for what is translated in it: comments in YAML.
func (b *block) said() []string {
	if ext := filepath.Ext(b.file); ext != ".yaml" && ext != ".yml" {
		return b.shown
	}
	var all []string
	for _, line := range b.shown {
		if line = yamlComment.ReplaceAllString(line, ""); line != "" {
			all = append(all, line)
		}
	}
	return all
}

// TestTranslations compares the pages with their translations: they link to each
// other and have the same console blocks.
func TestTranslations(t *testing.T) {
	for _, page := range pages(t) {
		name, translated := strings.CutSuffix(page, ".zh-CN.md")
		if !translated {
			continue
		}
		english := name + ".md"
		for from, to := range map[string]string{page: english, english: page} {
			text, err := os.ReadFile(filepath.Join("..", from))
			if err != nil {
				t.Errorf("%s is a translation of nothing: %v", page, err)
			} else if link := "](" + filepath.Base(to) + ")"; !strings.Contains(string(text), link) {
				t.Errorf("%s has no link to %s", from, to)
			}
		}
		if t.Failed() || ownBlocks[page] {
			continue
		}
		want, got := blocksOf(t, english), blocksOf(t, page)
		if len(want) != len(got) {
			t.Errorf("%s has %d console blocks, %s has %d", english, len(want), page, len(got))
		}
		for i := range min(len(want), len(got)) {
			if a, b := want[i], got[i]; (a.notRun == "") != (b.notRun == "") || a.stays != b.stays || a.file != b.file || !reflect.DeepEqual(a.said(), b.said()) {
				t.Errorf("%s:%d and %s:%d differ:\n%s\n--\n%s", english, a.line, page, b.line, strings.Join(a.shown, "\n"), strings.Join(b.shown, "\n"))
			}
		}
	}
}

// sandbox is a server on simulated clouds as `make run` has them, on free ports,
// and a copy of the project to run commands in.
type sandbox struct {
	dir string
	env []string
	// there writes a page's addresses and keys as the sandbox's, and back the addresses
	// the other way round.
	there, back *strings.Replacer
	// endpoints are the lines that lead a configuration to the simulated clouds instead
	// of the real ones, by the line that they follow.
	endpoints map[string]string
	doors     []string // the HTTP ports of servers
	// running is what stays, by its name.
	running map[string]*process
}

// process is a command that goes on.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// end ends a command as ctrl-C does, and kills what does not listen to that.
func (p *process) end() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT)
	select {
	case <-p.done:
	case <-time.After(startLimit):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

// ports are those that the pages show, each of which is another one here.
var ports = []string{"9090", "8080", "9191", "8181", "4222", "6060"}

// given are the ports that pages have got.
var given sync.Map

// freePort is a port that nobody listens on, that no connection is given, and that no
// other page has got. The tests of examples/, which may run at the same time, take
// theirs from another range.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(10000 + rand.IntN(10000))
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("there is no free port")
	return ""
}

var (
	controlAddress = regexp.MustCompile(`settings: http://127\.0\.0\.1:(\d+)`)
	doors          = regexp.MustCompile(`gRPC on 127\.0\.0\.1:(\d+), HTTP on 127\.0\.0\.1:(\d+)\.`)
)

func newSandbox(t *testing.T, withServer bool) *sandbox {
	t.Helper()
	s := &sandbox{dir: t.TempDir(), running: map[string]*process{}}
	t.Cleanup(func() {
		for _, p := range s.running {
			p.end()
		}
	})
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "bin" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := os.Symlink(filepath.Join(root, e.Name()), filepath.Join(s.dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	// A real directory, since pages write into it, with links to the programs.
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	built, err := os.ReadDir(programs)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range built {
		if err := os.Symlink(filepath.Join(programs, p.Name()), filepath.Join(bin, p.Name())); err != nil {
			t.Fatal(err)
		}
	}

	// Nothing of whoever runs the test is seen by the pages, but what Go needs.
	goenv, err := exec.Command("go", "env", "GOENV").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "NOTEBOOK") && !strings.HasPrefix(name, "LC_") && name != "LANG" && name != "LANGUAGE" && name != "PATH" {
			s.env = append(s.env, v)
		}
	}
	s.env = append(s.env, "LANG=C.UTF-8", "GOENV="+strings.TrimSpace(string(goenv)),
		"XDG_CONFIG_HOME="+filepath.Join(s.dir, "bin", "config"), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))

	config := filepath.Join(bin, "sandbox.yaml")
	control := s.start(t, controlAddress, "cloudsim", "-port", "0", "-write-config", config)
	clouds := readWhenThere(t, config)
	actual := map[string]string{"7070": control[1]}
	for _, p := range ports {
		actual[p] = freePort(t)
	}
	if withServer {
		doorless := "grpc: {address: \"127.0.0.1:0\"}\nhttp: {address: \"127.0.0.1:0\"}\n"
		if err := os.WriteFile(config, []byte(doorless+clouds), 0o600); err != nil {
			t.Fatal(err)
		}
		found := s.start(t, doors, "server", "--config", config)
		actual["9090"], actual["8080"] = found[1], found[2]
		waitReady(t, "http://127.0.0.1:"+found[2]+"/readyz")
	}

	var there, back []string
	for documented, port := range actual {
		for _, host := range []string{"localhost:", "127.0.0.1:"} {
			there = append(there, host+documented, host+port)
			back = append(back, host+port, host+documented)
		}
		// Nobody from elsewhere is let in while a page is run.
		there = append(there, `":`+documented+`"`, `"127.0.0.1:`+port+`"`, "-p "+documented, "-p "+port)
	}
	s.doors = []string{actual["8080"], actual["8181"]}
	core, scnet := keysOf(t, clouds, "core"), keysOf(t, clouds, "scnet")
	there = append(there, "YOUR_USER_ID", core["user_id"], "YOUR_ACCESS_KEY_ID", core["access_key_id"], "YOUR_SECRET_ACCESS_KEY", core["secret_access_key"],
		"YOUR_USER", scnet["user"], "YOUR_ACCESS_KEY", scnet["access_key"], "YOUR_SECRET_KEY", scnet["secret_key"])
	s.endpoints = map[string]string{
		"user_id: YOUR_USER_ID": "endpoint: " + core["endpoint"],
		"user: YOUR_USER":       "login_endpoint: " + scnet["login_endpoint"] + "\nplatform_endpoint: " + scnet["platform_endpoint"],
	}
	s.there, s.back = strings.NewReplacer(there...), strings.NewReplacer(back...)
	s.env = append(s.env, "NOTEBOOKCTL_SERVER=127.0.0.1:"+actual["9090"], "NOTEBOOKD_ADDRESS=127.0.0.1:"+actual["9090"], "NOTEBOOKD_URL=http://127.0.0.1:"+actual["8080"])
	return s
}

var setting = regexp.MustCompile(`(?m)^ {6}(\w+): (?:\{value: (.*)\}|(.*))$`)

// keysOf are the settings of a simulated cloud, which is what a page's reader has of a real one.
func keysOf(t *testing.T, config, cloud string) map[string]string {
	t.Helper()
	_, part, found := strings.Cut(config, "- name: "+cloud+"\n")
	if !found {
		t.Fatalf("there is no %s in\n%s", cloud, config)
	}
	part, _, _ = strings.Cut(part, "- name:")
	keys := map[string]string{}
	for _, found := range setting.FindAllStringSubmatch(part, -1) {
		keys[found[1]] = found[2] + found[3]
	}
	return keys
}

// write writes a file of a page.
func (s *sandbox) write(t *testing.T, b block) {
	t.Helper()
	var text strings.Builder
	for _, line := range b.shown {
		text.WriteString(s.there.Replace(line) + "\n")
		said := strings.TrimLeft(line, " ")
		if more, ok := s.endpoints[said]; ok {
			indent := line[:len(line)-len(said)]
			text.WriteString(indent + strings.ReplaceAll(more, "\n", "\n"+indent) + "\n")
		}
	}
	file := filepath.Join(s.dir, b.file)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	// Not through the links into the project.
	dir, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	if root, err := filepath.EvalSymlinks(s.dir); err != nil || !strings.HasPrefix(dir+"/", root+"/") {
		t.Fatalf("%s would be written into the project, or %v", b.file, err)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
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

// start starts a program that ends with the test, waits until it has said
// something, and returns the groups of that.
func (s *sandbox) start(t *testing.T, said *regexp.Regexp, program string, args ...string) []string {
	t.Helper()
	out := &buffer{}
	cmd := exec.Command(filepath.Join(programs, program), args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("%s printed:\n%s", program, out)
		}
	})
	for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if groups := said.FindStringSubmatch(out.String()); groups != nil {
			return groups
		}
		select {
		case <-ended:
			t.Fatalf("%s has ended:\n%s", program, out)
		default:
		}
	}
	t.Fatalf("%s has not said %v within %v:\n%s", program, said, startLimit, out)
	return nil
}

// readWhenThere reads a file that another process is about to write.
func readWhenThere(t *testing.T, file string) string {
	t.Helper()
	for end := time.Now().Add(startLimit); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(file)
		if err == nil && len(text) > 0 {
			return string(text)
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not written within %v: %v", file, startLimit, err)
		}
	}
}

// awaitReady gives a server that a page has started as much time as a reader does,
// who types slower than a test. If it does not become ready, the next command tells.
func awaitReady(port string) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // of whatever CA the page has made
	defer client.CloseIdleConnections()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, scheme := range []string{"http", "https"} {
			resp, err := client.Get(scheme + "://127.0.0.1:" + port + "/readyz")
			if errors.Is(err, syscall.ECONNREFUSED) {
				return // there is no server
			}
			if err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return
				}
			}
		}
	}
}

func waitReady(t *testing.T, url string) {
	t.Helper()
	for end := time.Now().Add(startLimit); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(url)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not well within %v: %v", url, startLimit, err)
		}
	}
}

// run starts a command of a page.
func (s *sandbox) run(c command, out io.Writer) (*process, error) {
	cmd := exec.Command("bash", "-c", s.there.Replace(c.text))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the process
		_ = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// check runs a command of a page and compares.
func (s *sandbox) check(t *testing.T, c command) error {
	t.Helper()
	if before := s.running[c.stays]; before != nil {
		before.end()
		delete(s.running, c.stays)
	}
	out := &buffer{}
	p, err := s.run(c, out)
	if err != nil {
		return err
	}
	goesOn := c.interrupted || c.stays != ""
	end := time.Now().Add(commandLimit)
	for ended := false; !ended; {
		if goesOn && match(append(c.output, ellipsis), lines(s.back.Replace(out.String()))) == nil {
			break // whoever reads the page has seen what it shows
		}
		if time.Now().After(end) {
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
			<-p.done
			return fmt.Errorf("did not print that within %v, or did not end, and printed:\n%s", commandLimit, s.back.Replace(out.String()))
		}
		select {
		case <-p.done:
			ended = true
		case <-time.After(50 * time.Millisecond):
		}
	}
	if c.stays != "" {
		select {
		case <-p.done:
			return fmt.Errorf("ended, and printed:\n%s", s.back.Replace(out.String()))
		default:
		}
		s.running[c.stays] = p
		for _, door := range s.doors {
			awaitReady(door)
		}
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%s printed in the end:\n%s", c.text, out)
			}
		})
		return nil
	}
	if c.interrupted {
		p.end()
	}
	printed := lines(s.back.Replace(out.String()))
	all := strings.Join(printed, "\n")
	code := p.cmd.ProcessState.ExitCode()
	switch {
	case c.interrupted:
		if err := match(append(c.output, ellipsis), printed); err != nil {
			return fmt.Errorf("%w\nprinted before ctrl-C:\n%s", err, all)
		}
		return nil
	case c.code >= 0 && code != c.code, c.code < 0 && len(c.output) == 0 && code != 0:
		return fmt.Errorf("exit code %d, not %d; printed:\n%s", code, max(c.code, 0), all)
	case len(c.output) == 0:
		return nil
	}
	if err := match(lasting(c.output), lasting(printed)); err != nil {
		return fmt.Errorf("%w\nexit code %d; printed:\n%s", err, code, all)
	}
	return nil
}
