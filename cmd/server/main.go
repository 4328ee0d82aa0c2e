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

// run is main with its surroundings given. It returns the exit code: 0, 1 when
// the server failed, 2 when the command line or the configuration is wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "", "configuration `file`; without it two simulated clouds are started in process")
	check := flags.Bool("check-config", false, "check the configuration and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
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
