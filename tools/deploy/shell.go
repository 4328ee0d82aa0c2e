package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// skipped are directories that hold nothing of ours.
var skipped = map[string]bool{".git": true, ".cache": true, "bin": true, "dist": true, "third_party": true, "testdata": true}

// checkShell: every shell script can be parsed, is formatted as shfmt does, and stops
// at the first failure.
func checkShell(r *report, root string) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && skipped[d.Name()]:
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".sh") && !strings.HasSuffix(path, ".ci/run"):
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := syntax.NewParser(syntax.KeepComments(true), syntax.Variant(syntax.LangBash)).Parse(bytes.NewReader(data), path)
		if err != nil {
			r.problem(path, "%v", err)
			return nil
		}
		var formatted bytes.Buffer
		if err := syntax.NewPrinter().Print(&formatted, file); err != nil {
			return err
		}
		r.that(bytes.Equal(formatted.Bytes(), data), path, "not formatted as shfmt does")
		r.that(bytes.HasPrefix(data, []byte("#!/usr/bin/env bash\n")) && bytes.Contains(data, []byte("\nset -euo pipefail\n")), path,
			"it goes on after a failure")
		return nil
	})
	if err != nil {
		r.problem(root, "%v", err)
	}
}
