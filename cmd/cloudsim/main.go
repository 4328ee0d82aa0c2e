// Cloudsim runs the simulated clouds by themselves, for rehearsals against a
// server that was started with the configuration that it prints.
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
	"time"

	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with its surroundings given. It returns the exit code: 0, 1 when
// the clouds could not be served, 2 when the command line is wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("cloudsim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	port := flags.Int("port", 7070, "`port` of the control endpoint on 127.0.0.1; the clouds have the ones that follow; 0 takes free ones")
	seed := flags.Uint64("seed", 1, "`seed` of the story")
	notebooks := flags.Int("notebooks", 8, "`number` of notebooks in each location, about")
	coreshub := flags.Int("coreshub-notebooks", 0, "the same for CoresHub alone; 0: as many")
	pace := flags.Duration("pace", 3*time.Second, "`time` between two steps of the story; 0s: nothing happens by itself")
	file := flags.String("write-config", "", "write a configuration for the server to this `file`, instead of showing it")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 || *port < 0 || *port > 65000 || *notebooks < 0 || *notebooks > 1_000_000 || *coreshub < 0 || *coreshub > 1_000_000 || *pace < 0 {
		_, _ = fmt.Fprintln(stderr, "cloudsim: -port must be from 0 to 65000, the numbers of notebooks from 0 to 1000000, -pace not negative, and nothing else is taken")
		return 2
	}
	fleet, err := cloudsim.Start(cloudsim.Config{Port: *port, Seed: *seed, Notebooks: *notebooks, CoresHubNotebooks: *coreshub, Pace: *pace})
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "cloudsim:", err)
		return 1
	}
	defer fleet.Close()
	_, _ = fmt.Fprintf(stdout, "Simulated clouds are up. Faults and settings: %s\n", fleet.ControlURL())
	if *file != "" {
		if err := os.WriteFile(*file, []byte(fleet.ServerConfig()), 0o600); err != nil {
			_, _ = fmt.Fprintln(stderr, "cloudsim:", err)
			return 1
		}
		_, _ = fmt.Fprintf(stdout, "Now run: bin/server --config %s\n", *file)
	} else {
		_, _ = fmt.Fprintf(stdout, "Configuration for the server:\n\n%s", fleet.ServerConfig())
	}
	<-ctx.Done()
	return 0
}
