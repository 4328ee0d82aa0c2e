package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// write makes a file with a mode and a time of its own.
func write(t *testing.T, file, text string, mode os.FileMode, when time.Time) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, when, when); err != nil {
		t.Fatal(err)
	}
}

func TestTarballDependsOnContentAlone(t *testing.T) {
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var tarballs [][]byte
	for i, mode := range []os.FileMode{0o600, 0o664} {
		dir := t.TempDir()
		a, b, out := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "out.tar.gz")
		write(t, a, "first", mode, date.AddDate(i, 0, 0))
		write(t, b, "second", mode, date.AddDate(0, i, 0))
		files := []entry{{name: "server", from: a, program: true}, {name: "README.md", from: b}}
		if i == 1 {
			slices.Reverse(files)
		}
		if err := writeTarball(out, "notebookd", files, date); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		tarballs = append(tarballs, data)
	}
	if !bytes.Equal(tarballs[0], tarballs[1]) {
		t.Error("the same content made different tarballs")
	}
	file := filepath.Join(t.TempDir(), "x.tar.gz")
	if err := os.WriteFile(file, tarballs[0], 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "tar", "-tvzf", file)
	cmd.Env = append(os.Environ(), "TZ=UTC")
	listing, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, listing)
	}
	for _, want := range []string{"-rwxr-xr-x", "notebookd/server", "-rw-r--r--", "notebookd/README.md"} {
		if !strings.Contains(string(listing), want) {
			t.Errorf("no %s in\n%s", want, listing)
		}
	}
}

func TestSums(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b", "a"} {
		write(t, filepath.Join(dir, name), name, 0o600, time.Now())
	}
	if err := writeSums(dir, []string{"b", "a"}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  a\n" +
		"3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d  b\n"
	if string(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestVersions(t *testing.T) {
	for version, ok := range map[string]bool{
		"v1.2.3": true, "v0.0.0-dev": true, "v1.2.3-rc.1": true,
		"": false, "1.2.3": false, "v1.2": false, "v01.2.3": false, "v1.2.3 -X main.x=y": false,
	} {
		if _, err := newRelease(t.Context(), version, "abcd", "2026-01-02T03:04:05Z"); (err == nil) != ok {
			t.Errorf("%q: %v", version, err)
		}
	}
	if r, err := newRelease(t.Context(), "v1.2.3", "abcd", "2026-01-02T05:04:05+02:00"); err != nil {
		t.Error(err)
	} else if want := "-X main.buildDate=2026-01-02T03:04:05Z"; !strings.Contains(r.ldflags(), want) {
		t.Errorf("no %s in %s", want, r.ldflags())
	}
	if _, err := newRelease(t.Context(), "v1.2.3", "abcd", "yesterday"); err == nil {
		t.Error("a date that is none")
	}
}

// TestTheTreeMustBeCommitted: what git does not know is not released.
func TestTheTreeMustBeCommitted(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, key := range []string{"AUTHOR", "COMMITTER"} {
		t.Setenv("GIT_"+key+"_NAME", "a")
		t.Setenv("GIT_"+key+"_EMAIL", "a@example.org")
		t.Setenv("GIT_"+key+"_DATE", "2026-01-02T03:04:05Z")
	}
	git := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	git("init", "-q")
	git("commit", "-q", "--allow-empty", "-m", "first")
	r, err := newRelease(t.Context(), "v1.2.3", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC); len(r.Commit) != 40 || !r.Date.Equal(want) {
		t.Errorf("commit %q of %v", r.Commit, r.Date)
	}
	write(t, "more.go", "package more\n", 0o600, time.Now())
	if _, err := newRelease(t.Context(), "v1.2.3", "", ""); err == nil || !strings.Contains(err.Error(), "more.go") {
		t.Errorf("a file that git does not know: %v", err)
	}
}

// TestEnvironment: settings of whoever builds do not change what is built.
func TestEnvironment(t *testing.T) {
	t.Setenv("GOFLAGS", "-tags=x")
	t.Setenv("GOAMD64", "v3")
	t.Setenv("NOTEBOOKD_TEST", "1")
	got := environment()
	if !slices.Contains(got, "NOTEBOOKD_TEST=1") {
		t.Error("the environment is lost")
	}
	if slices.ContainsFunc(got, func(v string) bool { return strings.HasPrefix(v, "GOFLAGS=") || strings.HasPrefix(v, "GOAMD64=") }) {
		t.Error("what is built depends on the environment")
	}
}

func TestToolchain(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "go.mod", "module x\n\ngo 1.26.0\n\ntoolchain go1.26.10\n", 0o600, time.Now())
	if got, err := toolchain(t.Context()); err != nil || got != "go1.26.10" {
		t.Errorf("%q, %v", got, err)
	}
	// What is built with would be whatever is installed.
	write(t, "go.mod", "module x\n\ngo 1.26.0\n", 0o600, time.Now())
	if got, err := toolchain(t.Context()); err == nil {
		t.Errorf("no toolchain: %q", got)
	}
}
