// Release builds what is handed out: for each platform a tarball of the programs
// and an SBOM of each, and SHA256SUMS over all. The same commit and the same Go
// give the same bytes, wherever and whenever they are built.
//
// With -binaries it builds the programs alone, with the same flags: the image
// does so, so that there is one place that says how a program is built.
//
// Usage: release -version v1.2.3 [flags]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// programs are the folders of cmd/ that are handed out.
var programs = []string{"server", "cloudsim", "notebookctl"}

// release is what is made, and of what.
type release struct {
	Toolchain string    // go1.26.10
	Version   string    // v1.2.3
	Commit    string    // hash
	Date      time.Time // of the commit; the time of everything that is made
	Platforms []string  // GOOS/GOARCH
	Out       string    // directory
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	version := flags.String("version", "", "`version`, such as v1.2.3")
	commit := flags.String("commit", "", "`hash` of the commit; default: asked of git, which must know all that is in the tree")
	date := flags.String("date", "", "`time` of the commit, RFC 3339; default: asked of git")
	platforms := flags.String("platforms", "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64", "what to build for")
	out := flags.String("out", "dist", "`directory` to write to")
	binaries := flags.Bool("binaries", false, "build the programs alone, for one platform, right into -out")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := newRelease(ctx, *version, *commit, *date)
	if err != nil {
		return err
	}
	if r.Toolchain, err = toolchain(ctx); err != nil {
		return err
	}
	r.Platforms = strings.Split(*platforms, ",")
	if r.Out, err = filepath.Abs(*out); err != nil {
		return err
	}
	if *binaries {
		if len(r.Platforms) != 1 {
			return errors.New("-binaries builds for one of -platforms")
		}
		_, err := r.build(ctx, r.Platforms[0], r.Out)
		return err
	}
	return r.make(ctx)
}

// versionForm is semantic versioning with the v of Go.
var versionForm = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

func newRelease(ctx context.Context, version, commit, date string) (*release, error) {
	if !versionForm.MatchString(version) {
		return nil, fmt.Errorf("version %q is not like v1.2.3", version)
	}
	if commit == "" {
		// What git does not know could not be built again by anybody else.
		changed, err := output(ctx, "git", "status", "--porcelain")
		if err != nil {
			return nil, err
		}
		if changed != "" {
			return nil, fmt.Errorf("the tree is not as committed:\n%s", changed)
		}
		if commit, err = output(ctx, "git", "rev-parse", "HEAD"); err != nil {
			return nil, err
		}
	}
	if date == "" {
		var err error
		if date, err = output(ctx, "git", "show", "--no-patch", "--format=%cI", commit); err != nil {
			return nil, err
		}
	}
	when, err := time.Parse(time.RFC3339, date)
	if err != nil {
		return nil, fmt.Errorf("date: %w", err)
	}
	return &release{Version: version, Commit: commit, Date: when.UTC()}, nil
}

// toolchain is what go.mod names: another Go makes other bytes, and the one that is
// installed may have holes that are known.
func toolchain(ctx context.Context) (string, error) {
	text, err := output(ctx, "go", "mod", "edit", "-json")
	if err != nil {
		return "", err
	}
	var mod struct{ Toolchain string }
	if err := json.Unmarshal([]byte(text), &mod); err != nil {
		return "", err
	}
	if mod.Toolchain == "" {
		return "", errors.New("go.mod names no toolchain")
	}
	return mod.Toolchain, nil
}

// make builds everything into r.Out, which it empties first of what an earlier
// release left there.
func (r *release) make(ctx context.Context) error {
	if err := os.MkdirAll(r.Out, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(r.Out, "notebookd-v*"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	tools, err := buildTools(ctx, work)
	if err != nil {
		return err
	}
	var made []string
	for _, platform := range r.Platforms {
		files, err := r.platform(ctx, tools, work, platform)
		if err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
		made = append(made, files...)
	}
	return writeSums(r.Out, made)
}

// platform builds for one platform and returns the names of the files it made.
func (r *release) platform(ctx context.Context, tools toolbox, work, platform string) ([]string, error) {
	name := fmt.Sprintf("notebookd-%s-%s", r.Version, strings.ReplaceAll(platform, "/", "-"))
	built, err := r.build(ctx, platform, filepath.Join(work, name))
	if err != nil {
		return nil, err
	}
	licenses := filepath.Join(work, name+"-licenses")
	if err := tools.licenses(ctx, platform, licenses); err != nil {
		return nil, err
	}
	files := []entry{
		{name: "README.md", from: "README.md"},
		{name: "CHANGELOG.md", from: "CHANGELOG.md"},
		{name: "THIRD_PARTY_LICENSES", from: licenses},
	}
	if strings.HasPrefix(platform, "linux/") {
		files = append(files,
			entry{name: "systemd/notebookd.service", from: "deploy/systemd/notebookd.service"},
			entry{name: "systemd/notebookd.yaml", from: "deploy/systemd/notebookd.yaml"})
	}
	if _, err := os.Stat("LICENSE"); err == nil {
		files = append(files, entry{name: "LICENSE", from: "LICENSE"})
	}
	made := []string{name + ".tar.gz"}
	for _, program := range built {
		files = append(files, entry{name: filepath.Base(program), from: program, program: true})
		bom := fmt.Sprintf("%s-%s.cdx.json", name, filepath.Base(program))
		if err := tools.bom(ctx, r.Version, program, filepath.Join(r.Out, bom)); err != nil {
			return nil, err
		}
		made = append(made, bom)
	}
	return made, writeTarball(filepath.Join(r.Out, made[0]), name, files, r.Date)
}

// build builds the programs for a platform into dir and returns their files.
func (r *release) build(ctx context.Context, platform, dir string) ([]string, error) {
	goos, goarch, ok := strings.Cut(platform, "/")
	if !ok {
		return nil, fmt.Errorf("platform %q is not GOOS/GOARCH", platform)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var built []string
	for _, program := range programs {
		file := filepath.Join(dir, program)
		// -trimpath and an empty build id leave no trace of where it was built, and
		// what git says is given by name, so that a tree without .git builds the same.
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
			"-ldflags", r.ldflags(), "-o", file, "./cmd/"+program)
		// No C: the binary is static, and needs no compiler for its platform.
		cmd.Env = append(environment(), "GOTOOLCHAIN="+r.Toolchain, "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("go build ./cmd/%s: %w", program, err)
		}
		built = append(built, file)
	}
	return built, nil
}

func (r *release) ldflags() string {
	return fmt.Sprintf("-s -w -buildid= -X main.buildVersion=%s -X main.buildCommit=%s -X main.buildDate=%s",
		r.Version, r.Commit, r.Date.Format(time.RFC3339))
}

// environment is that of the process, less what would change what is built.
func environment() []string {
	var out []string
	for _, v := range os.Environ() {
		switch key, _, _ := strings.Cut(v, "="); key {
		case "GOFLAGS", "GOEXPERIMENT", "GOAMD64", "GOARM64", "GOOS", "GOARCH", "CGO_ENABLED", "GODEBUG", "GOFIPS140":
		default:
			out = append(out, v)
		}
	}
	return out
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
