package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// Set by a release with -ldflags "-X main.buildVersion=…". What is not set is taken
// from what the go command noted in the binary.
var buildVersion, buildCommit, buildDate string

// build is what the running binary was built from.
type build struct {
	Version string // v1.2.3, or devel
	Commit  string // its hash; with -dirty when there was more in the tree; or unknown
	Date    string // of the commit, RFC 3339; or unknown
	Go      string // go1.26.8
}

// buildInfo tells what this binary was built from.
func buildInfo() build {
	info, _ := debug.ReadBuildInfo()
	return describe(build{buildVersion, buildCommit, buildDate, runtime.Version()}, info)
}

// describe completes what a release has set with what the go command noted.
func describe(b build, info *debug.BuildInfo) build {
	if info == nil {
		info = &debug.BuildInfo{}
	}
	vcs := map[string]string{}
	for _, s := range info.Settings {
		vcs[s.Key] = s.Value
	}
	noted := vcs["vcs.revision"]
	if noted != "" && vcs["vcs.modified"] == "true" {
		noted += "-dirty"
	}
	module := info.Main.Version
	if module == "(devel)" {
		module = ""
	}
	b.Version = cmp.Or(b.Version, module, "devel")
	b.Commit = cmp.Or(b.Commit, noted, "unknown")
	b.Date = cmp.Or(b.Date, vcs["vcs.time"], "unknown")
	return b
}

// String is one line for a person.
func (b build) String() string {
	return fmt.Sprintf("notebookd %s (commit %s of %s, %s %s/%s)", b.Version, b.Commit, b.Date, b.Go, runtime.GOOS, runtime.GOARCH)
}
