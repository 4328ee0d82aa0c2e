// Docs writes the references that are made of the source: docs/configuration.md of
// the Go types of the configuration file, and docs/errors.md of the enum ErrorReason.
//
// It reads the source and nothing else, and fails for what has no text there, so
// that nothing can be added without being told. The Chinese ones are made of the same
// source, and fail for what has no translation.
//
// Usage: docs ROOT DIR, where ROOT is the module and DIR gets the files.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: docs ROOT DIR")
		os.Exit(2)
	}
	if err := write(os.DirFS(os.Args[1]), os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

// references makes the text of each file.
var references = map[string]func(module fs.FS) (string, error){
	"configuration.md":       configuration,
	"configuration.zh-CN.md": configurationInChinese,
	"errors.md":              errorReasons,
	"errors.zh-CN.md":        errorReasonsInChinese,
}

// write writes the references that can be made, and returns what is wrong with the others.
func write(module fs.FS, dir string) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(references)) {
		text, err := references[name](module)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(problems...)
}
