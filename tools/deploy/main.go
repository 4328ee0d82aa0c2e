// Deploy checks what stands in deploy/, the Dockerfile and the shell scripts, as
// far as that can be done without a cluster, a container engine and systemd: that
// it is well-formed, and that its parts fit each other and the security rules
// which docs/deployment.md promises.
//
// Usage: deploy check ROOT | deploy rules ROOT
//
// check tells every problem and exits 1 when there is one. rules makes the
// PrometheusRule of the alert rules.
//
// It is a module of its own, so that nothing of what it needs is needed by the
// server or by another tool.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
)

func main() {
	if len(os.Args) != 3 || os.Args[1] != "check" && os.Args[1] != "rules" {
		fmt.Fprintln(os.Stderr, "usage: deploy check|rules ROOT")
		os.Exit(2)
	}
	root := os.Args[2]
	if os.Args[1] == "rules" {
		if err := writeRules(root); err != nil {
			fmt.Fprintln(os.Stderr, "deploy:", err)
			os.Exit(1)
		}
		return
	}
	problems := check(root, os.Stdout)
	for _, p := range problems {
		fmt.Fprintln(os.Stderr, p)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}

// check returns everything that is wrong below root. What it could not look at is
// told to notes.
func check(root string, notes io.Writer) []string {
	r := &report{}
	checkKubernetes(r, root)
	checkRules(r, root)
	checkDockerfile(r, root)
	checkSystemd(r, root, notes)
	checkShell(r, root)
	return r.problems
}

// report collects problems.
type report struct{ problems []string }

// problem notes something that is wrong at a place. The same is noted once: the
// overlays share the base.
func (r *report) problem(where, format string, args ...any) {
	if text := where + ": " + fmt.Sprintf(format, args...); !slices.Contains(r.problems, text) {
		r.problems = append(r.problems, text)
	}
}

// that notes a problem unless ok.
func (r *report) that(ok bool, where, format string, args ...any) {
	if !ok {
		r.problem(where, format, args...)
	}
}
