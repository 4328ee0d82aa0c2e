//go:build docs

// Package docs_test runs the console blocks of the README and of the pages in
// docs/ against simulated clouds, and compares what is printed with what they show.
package docs_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
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
var ownBlocks = map[string]bool{"docs/notebookctl.zh-CN.md": true}

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
	for dir, pkg := range map[string]string{"..": "./cmd/...", "../tools": "github.com/fullstorydev/grpcurl/cmd/grpcurl"} {
		build := exec.Command("go", "build", "-o", programs+"/", pkg)
		build.Dir = dir
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
	for _, pattern := range []string{"README*.md", "docs/*.md"} {
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
					s = newSandbox(t)
				}
				for _, c := range b.commands {
					if err := s.check(t.Context(), c); err != nil {
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
			if a, b := want[i], got[i]; (a.notRun == "") != (b.notRun == "") || !reflect.DeepEqual(a.shown, b.shown) {
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
	// there writes a page's addresses as the sandbox's, and back the other way round.
	there, back *strings.Replacer
}

var (
	controlAddress = regexp.MustCompile(`settings: http://127\.0\.0\.1:(\d+)`)
	doors          = regexp.MustCompile(`gRPC on 127\.0\.0\.1:(\d+), HTTP on 127\.0\.0\.1:(\d+)\.`)
)

func newSandbox(t *testing.T) *sandbox {
	t.Helper()
	s := &sandbox{dir: t.TempDir()}
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
	doorless := "grpc: {address: \"127.0.0.1:0\"}\nhttp: {address: \"127.0.0.1:0\"}\n"
	if err := os.WriteFile(config, []byte(doorless+clouds), 0o600); err != nil {
		t.Fatal(err)
	}
	ports := s.start(t, doors, "server", "--config", config)
	waitReady(t, "http://127.0.0.1:"+ports[2]+"/readyz")

	var there, back []string
	for documented, actual := range map[string]string{"9090": ports[1], "8080": ports[2], "7070": control[1]} {
		for _, host := range []string{"localhost:", "127.0.0.1:"} {
			there = append(there, host+documented, host+actual)
			back = append(back, host+actual, host+documented)
		}
	}
	s.there, s.back = strings.NewReplacer(there...), strings.NewReplacer(back...)
	s.env = append(s.env, "NOTEBOOKCTL_SERVER=127.0.0.1:"+ports[1], "NOTEBOOKD_ADDRESS=127.0.0.1:"+ports[1], "NOTEBOOKD_URL=http://127.0.0.1:"+ports[2])
	return s
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

// check runs a command of a page and compares.
func (s *sandbox) check(ctx context.Context, c command) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	out := &buffer{}
	cmd := exec.CommandContext(ctx, "bash", "-c", s.there.Replace(c.text))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{}) // closed below, once the command has
	var reader sync.WaitGroup
	if c.interrupted {
		// It goes on for ever, until whoever reads the page has seen what it shows.
		reader.Go(func() {
			for match(append(c.output, ellipsis), lines(s.back.Replace(out.String()))) != nil {
				select {
				case <-ended:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		})
	}
	_ = cmd.Wait()
	close(ended)
	reader.Wait()
	printed := lines(s.back.Replace(out.String()))
	all := strings.Join(printed, "\n")
	if ctx.Err() != nil {
		return fmt.Errorf("did not end within %v, and printed:\n%s", commandLimit, all)
	}
	code := cmd.ProcessState.ExitCode()
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
	if err := match(c.output, printed); err != nil {
		return fmt.Errorf("%w\nexit code %d; printed:\n%s", err, code, all)
	}
	return nil
}
