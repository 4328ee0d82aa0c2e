// Package websources tells what the web console is built from, so that what was built
// can be compared with it where there is no Node.
package websources

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// File is where the sums of the sources stand, below the console's folder.
const File = "dist/sources.sha256"

// Sums returns a line for each source file of the console in a folder, as sha256sum
// writes it, in the order of the bytes of their paths. Sources are the files that git
// tracks or would track, but for what was built of them (dist), what is installed
// (node_modules), tests in a browser (e2e) and Go.
func Sums(ctx context.Context, dir string) ([]byte, error) {
	known, err := tracked(ctx, dir)
	if err != nil {
		return nil, err
	}
	// Walking, and not just asking git, lets the go command see that a test depends on
	// which files there are.
	var paths []string
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case entry.IsDir() && slices.Contains([]string{"dist", "e2e", "node_modules"}, name):
			return filepath.SkipDir
		case !entry.IsDir() && known[name] && !strings.HasSuffix(name, ".go"):
			paths = append(paths, name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(paths) // a folder is walked before a file whose name begins with its own
	var out bytes.Buffer
	for _, path := range paths {
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(path)))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "%x  %s\n", sha256.Sum256(data), path)
	}
	return out.Bytes(), nil
}

// tracked are the files below a folder that git tracks, or would if asked to.
func tracked(ctx context.Context, dir string) (map[string]bool, error) {
	cmd := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return nil, fmt.Errorf("ask git which files of %s are sources: %w", dir, err)
	}
	known := map[string]bool{}
	for name := range strings.SplitSeq(string(out), "\x00") {
		known[name] = true
	}
	return known, nil
}
