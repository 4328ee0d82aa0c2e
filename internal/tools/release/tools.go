package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// toolbox is the directory with the tools of tools/release/go.mod, built for this
// machine: `go tool` would build them for the platform that a release is for.
type toolbox string

func buildTools(ctx context.Context, work string) (toolbox, error) {
	dir := filepath.Join(work, "tools")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-modfile=tools/release/go.mod", "-o", dir+string(filepath.Separator),
		"github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod", "github.com/google/go-licenses/v2")
	cmd.Env = environment()
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("tools: %w", err)
	}
	return toolbox(dir), nil
}

// bom writes what modules are in a program, as the program itself says. It has
// no time and no serial number, which would be others every time.
func (t toolbox) bom(ctx context.Context, version, program, file string) error {
	return t.run(ctx, nil, nil, "cyclonedx-gomod", "bin", "-json", "-std", "-licenses", "-noserial", "-notimestamp",
		"-version", version, "-output", file, program)
}

// licenses writes the licences of everything that is in the programs for a
// platform, after it has made sure that they may be handed out with them.
func (t toolbox) licenses(ctx context.Context, platform, file string) error {
	goos, goarch, _ := strings.Cut(platform, "/")
	env := []string{"CGO_ENABLED=0", "GOOS=" + goos, "GOARCH=" + goarch}
	packages := make([]string, 0, len(programs))
	for _, program := range programs {
		packages = append(packages, "./cmd/"+program)
	}
	ours := []string{"--ignore", "github.com/notebookd/notebookd"}
	check := append([]string{"check", "--disallowed_types", "forbidden,restricted,unknown"}, ours...)
	if err := t.run(ctx, env, nil, "go-licenses", append(check, packages...)...); err != nil {
		return err
	}
	var report bytes.Buffer
	args := append([]string{"report", "--template", "internal/tools/release/licenses.tmpl"}, ours...)
	if err := t.run(ctx, env, &report, "go-licenses", append(args, packages...)...); err != nil {
		return err
	}
	root, err := output(ctx, "go", "env", "GOROOT")
	if err != nil {
		return err
	}
	std, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		return err
	}
	fmt.Fprintf(&report, "\n== Go standard library (BSD-3-Clause)\n\n%s", std)
	return os.WriteFile(file, report.Bytes(), 0o644)
}

// run runs a tool. What it says is shown only when it fails: both tell of every
// assembler file that they cannot look into.
func (t toolbox) run(ctx context.Context, env []string, stdout *bytes.Buffer, name string, args ...string) error {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(string(t), name), args...)
	cmd.Env = append(environment(), env...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if stdout != nil {
		cmd.Stdout = stdout
	}
	if err := cmd.Run(); err != nil {
		return errors.Join(fmt.Errorf("%s %s: %w", name, args[0], err), errors.New(strings.TrimSpace(said.String())))
	}
	return nil
}
