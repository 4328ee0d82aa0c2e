package websources

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSums: what counts is in it, with its content, and nothing else.
func TestSums(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "web")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	git("init", "--quiet")
	for _, name := range []string{
		"web.go", "src/gen.go", "dist/index.html", "dist/assets/a.js", "e2e/a.spec.ts", "node_modules/x/index.js", "tmp/ignored.ts",
		"package.json", "src/a.ts", "src/a-b.ts", "src/a/dist/b.ts", "src/空.ts", ".npmrc", "gone.ts",
	} {
		write(name, name)
	}
	write(".gitignore", "/tmp/\n")
	git("add", ".")
	write("new.ts", "new.ts") // is going to be tracked
	if err := os.Remove(filepath.Join(dir, "gone.ts")); err != nil {
		t.Fatal(err)
	}
	sums := func() string {
		t.Helper()
		out, err := Sums(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	var names []string
	first := sums()
	for line := range strings.Lines(first) {
		var sum, name string
		if n, err := fmt.Sscanf(line, "%64x  %s\n", &sum, &name); n != 2 || err != nil {
			t.Errorf("the line %q: %v", line, err)
		}
		names = append(names, name)
	}
	if got, want := strings.Join(names, " "), ".gitignore .npmrc new.ts package.json src/a-b.ts src/a.ts src/a/dist/b.ts src/空.ts"; got != want {
		t.Errorf("sources are %s, want %s", got, want)
	}
	// echo -n src/a.ts | sha256sum
	if want := "072fc23b941d05af2383888f292b78e406e0e82a4a3f8ee698113dd9bcc79e5f  src/a.ts\n"; !strings.Contains(first, want) {
		t.Errorf("no %q in\n%s", want, first)
	}
	write("dist/index.html", "another")
	if sums() != first {
		t.Error("what was built counts")
	}
	write("src/a.ts", "another")
	if sums() == first {
		t.Error("a source does not count")
	}
	if _, err := Sums(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "ask git") {
		t.Errorf("outside of git: %v", err)
	}
}
