package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// checkDockerfile parses the Dockerfile as BuildKit would, with its linter, and
// checks what the image promises.
func checkDockerfile(r *report, root string) {
	where := filepath.Join(root, "Dockerfile")
	f, err := os.Open(where)
	if err != nil {
		r.problem(where, "%v", err)
		return
	}
	defer func() { _ = f.Close() }()
	result, err := parser.Parse(f)
	if err != nil {
		r.problem(where, "%v", err)
		return
	}
	for _, w := range result.Warnings {
		r.problem(where, "%s", w.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, at []parser.Range) {
		line := 0
		if len(at) > 0 {
			line = at[0].Start.Line
		}
		r.problem(where, "line %d: %s: %s", line, rule, message)
	}})
	stages, args, err := instructions.Parse(result.AST, lint)
	if err != nil || len(stages) == 0 {
		r.problem(where, "%v", err)
		return
	}
	checkStages(r, where, stages, args)
	checkIgnored(r, filepath.Join(root, ".dockerignore"))
}

// checkStages: every image comes by an argument, so that it can be pinned, and
// the last stage is what is run.
func checkStages(r *report, where string, stages []instructions.Stage, args []instructions.ArgCommand) {
	named := map[string]bool{"scratch": true}
	for _, arg := range args {
		for _, a := range arg.Args {
			named["${"+a.Key+"}"] = true
		}
	}
	for _, stage := range stages {
		r.that(named[stage.BaseName], where, "the image %s is not given by an ARG", stage.BaseName)
		if stage.Name != "" {
			named[stage.Name] = true
		}
	}
	image := stages[len(stages)-1]
	var (
		user                string
		entrypoint, command []string
		health              []string
		exposed, volumes    []string
		copied              []string
		labels              []string
	)
	for _, c := range image.Commands {
		switch c := c.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EntrypointCommand:
			r.that(!c.PrependShell, where, "ENTRYPOINT needs a shell")
			entrypoint = c.CmdLine
		case *instructions.CmdCommand:
			r.that(!c.PrependShell, where, "CMD needs a shell")
			command = c.CmdLine
		case *instructions.HealthCheckCommand:
			health = c.Health.Test
		case *instructions.ExposeCommand:
			exposed = append(exposed, c.Ports...)
		case *instructions.VolumeCommand:
			volumes = append(volumes, c.Volumes...)
		case *instructions.CopyCommand:
			r.that(c.From != "", where, "the last stage copies from the context")
			copied = append(copied, c.DestPath)
		case *instructions.LabelCommand:
			for _, l := range c.Labels {
				labels = append(labels, strings.Trim(l.Key, `"`))
			}
		case *instructions.RunCommand:
			r.problem(where, "the last stage runs a command: there is nothing to run it with")
		case *instructions.AddCommand:
			r.problem(where, "ADD: what it fetches is not pinned")
		}
	}
	uid, _, _ := strings.Cut(user, ":")
	number, err := strconv.Atoi(uid)
	r.that(err == nil && number > 0, where, "USER %q is not a number above 0", user)
	r.that(len(entrypoint) == 1 && slices.Contains(copied, entrypoint[0]), where, "ENTRYPOINT %v is not in the image", entrypoint)
	r.that(len(command) == 2 && command[0] == "-config", where, "CMD is not -config FILE")
	r.that(slices.Equal(health, slices.Concat([]string{"CMD"}, entrypoint, []string{"healthcheck"}, command)), where,
		"HEALTHCHECK does not ask what ENTRYPOINT and CMD run: %v", health)
	slices.Sort(exposed)
	r.that(slices.Equal(exposed, []string{"8080", "9090"}), where, "EXPOSE is not gRPC and HTTP")
	r.that(len(volumes) == 1 && slices.Contains(copied, volumes[0]), where, "no VOLUME with an owner")
	r.that(slices.Contains(copied, "/etc/ssl/certs/ca-certificates.crt"), where, "no certificates of authorities")
	for _, label := range []string{"title", "description", "version", "revision", "created"} {
		r.that(slices.Contains(labels, "org.opencontainers.image."+label), where, "no label %s", label)
	}
}

// checkIgnored: the context is what is listed, so that nothing gets into an image
// because it lay around.
func checkIgnored(r *report, where string) {
	data, err := os.ReadFile(where)
	if err != nil {
		r.problem(where, "%v", err)
		return
	}
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			r.that(line == "*", where, "it does not begin with *")
			return
		}
	}
	r.problem(where, "it leaves nothing out")
}
