package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	file := filepath.Join(t.TempDir(), "sims.yaml")
	for _, tt := range []struct {
		name   string
		args   []string
		code   int
		output string // in what it prints
	}{
		{"shows the configuration", []string{"-port", "0"}, 0, "kind: coreshub"},
		{"writes the configuration", []string{"-port", "0", "-write-config", file}, 0, "bin/server --config " + file},
		{"help", []string{"-h"}, 0, "-seed"},
		{"unknown flag", []string{"-nonsense"}, 2, "-nonsense"},
		{"argument", []string{"start"}, 2, "nothing else is taken"},
		{"negative pace", []string{"-pace", "-1s"}, 2, "-pace not negative"},
		{"file that cannot be", []string{"-port", "0", "-write-config", "/does/not/exist/x"}, 1, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if code := run(ended, tt.args, &out, &out); code != tt.code || !strings.Contains(out.String(), tt.output) {
				t.Errorf("exit code %d, want %d; printed:\n%s", code, tt.code, out.String())
			}
		})
	}
	data, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(data), "kind: scnet") {
		t.Errorf("the file holds %q, %v", data, err)
	}
}
