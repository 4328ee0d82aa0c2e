package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Set by a release with -ldflags "-X main.buildVersion=…", as for the server. What is
// not set is taken from what the go command noted in the binary.
var buildVersion, buildCommit, buildDate string

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", DisableFlagsInUseLine: true, Short: a.l.T("Show the version."), Args: a.atMost(0, 0),
		RunE: func(*cobra.Command, []string) error {
			info, _ := debug.ReadBuildInfo()
			_, err := fmt.Fprintln(a.stdout, describe(buildVersion, buildCommit, buildDate, info))
			return err
		},
	}
}

// describe is one line on what a binary was built from.
func describe(version, commit, date string, info *debug.BuildInfo) string {
	if info == nil {
		info = &debug.BuildInfo{}
	}
	vcs := map[string]string{}
	for _, s := range info.Settings {
		vcs[s.Key] = s.Value
	}
	revision := vcs["vcs.revision"]
	if revision != "" && vcs["vcs.modified"] == "true" {
		revision += "-dirty"
	}
	module := info.Main.Version
	if module == "(devel)" {
		module = ""
	}
	return fmt.Sprintf("notebookctl %s (commit %s of %s, %s %s/%s)", cmp.Or(version, module, "devel"), cmp.Or(commit, revision, "unknown"),
		cmp.Or(date, vcs["vcs.time"], "unknown"), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
