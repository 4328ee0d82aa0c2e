package main

import (
	"bytes"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBuildInfo(t *testing.T) {
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{
			{Key: "vcs.revision", Value: "5e1f"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}, {Key: "vcs.modified", Value: modified},
		}
	}
	for _, tt := range []struct {
		name string
		set  build
		info *debug.BuildInfo
		want build
	}{
		{"a release", build{Version: "v1.2.3", Commit: "abcd", Date: "2026-02-03T04:05:06Z"},
			&debug.BuildInfo{Main: debug.Module{Version: "v0.0.1"}, Settings: vcs("true")},
			build{Version: "v1.2.3", Commit: "abcd", Date: "2026-02-03T04:05:06Z"}},
		{"a clean tree", build{}, &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: vcs("false")},
			build{Version: "devel", Commit: "5e1f", Date: "2026-01-02T03:04:05Z"}},
		{"a changed tree", build{}, &debug.BuildInfo{Settings: vcs("true")},
			build{Version: "devel", Commit: "5e1f-dirty", Date: "2026-01-02T03:04:05Z"}},
		{"go install", build{}, &debug.BuildInfo{Main: debug.Module{Version: "v1.0.0"}},
			build{Version: "v1.0.0", Commit: "unknown", Date: "unknown"}},
		{"nothing noted", build{}, nil, build{Version: "devel", Commit: "unknown", Date: "unknown"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, describe(tt.set, tt.info)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestVersionFlag(t *testing.T) {
	var stdout, stderr bytes.Buffer
	// The file is not looked at: a version is told whatever the configuration is.
	if code := run(t.Context(), []string{"--version", "--config", "none.yaml"}, &stdout, &stderr); code != 0 || stderr.Len() != 0 {
		t.Errorf("code %d, %s", code, &stderr)
	}
	line := stdout.String()
	if strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, "notebookd ") || !strings.Contains(line, runtime.Version()) {
		t.Errorf("printed %q", line)
	}
}
