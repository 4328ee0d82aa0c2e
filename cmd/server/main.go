// Server is notebookd: one gRPC and REST API over the GPU notebooks of several
// AI clouds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // time zones of the configuration need no files of the system
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// A command does something else than serve. It returns the exit code.
type command func(ctx context.Context, args []string, stdout, stderr io.Writer) int

// commandNamed returns the command that a first argument names, or nil.
func commandNamed(name string) command {
	switch name {
	case "healthcheck":
		return healthcheck
	case "token":
		return newToken
	default:
		return nil
	}
}

const usage = `usage:
  server [flags]               serve
  server healthcheck [flags]   ask the server that runs whether it is ready
  server token [flags]         make a static token, and its entry for auth.tokens_file

flags:
`

// run is main with its surroundings given. It returns the exit code: 0, 1 when
// the server failed, 2 when the command line or the configuration is wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		if do := commandNamed(args[0]); do != nil {
			return do(ctx, args[1:], stdout, stderr)
		}
	}
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	file := flags.String("config", "", "configuration `file`; without it two simulated clouds are started in process")
	tell := flags.Bool("version", false, "print the version and exit")
	check := flags.Bool("check-config", false, "check the configuration and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		_, _ = fmt.Fprintf(stderr, "server: no command %q\n", flags.Arg(0))
		flags.Usage()
		return 2
	}
	if *tell {
		_, _ = fmt.Fprintln(stdout, buildInfo())
		return 0
	}
	cfg, err := loadConfig(*file)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, err)
		return 2
	}
	if *check {
		_, _ = fmt.Fprintf(stdout, "configuration ok: %d clouds\n", len(cfg.Clouds))
		return 0
	}
	if err := serve(ctx, cfg, stdout, stderr); err != nil {
		_, _ = fmt.Fprintln(stderr, "notebookd:", err)
		return 1
	}
	return 0
}
