package main

import (
	"fmt"
	"io"
	"time"

	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// simulatorPort is where the simulated clouds are controlled, if it is free.
const simulatorPort = 7070

// simulate starts the simulated clouds and puts them into the configuration.
// control is where they are controlled.
func simulate(cfg *config) (control string, stop func(), err error) {
	sims := cloudsim.Config{Port: simulatorPort, Seed: 1, Pace: 3 * time.Second}
	fleet, err := cloudsim.Start(sims)
	if err != nil {
		sims.Port = 0 // taken: another port will do
		if fleet, err = cloudsim.Start(sims); err != nil {
			return "", nil, fmt.Errorf("simulated clouds: %w", err)
		}
	}
	parsed, err := parseConfig("simulated clouds", []byte(fleet.ServerConfig()))
	if err != nil {
		fleet.Close()
		return "", nil, err
	}
	cfg.Clouds = parsed.Clouds
	return fleet.ControlURL(), fleet.Close, nil
}

// announce says where the server is and what to try. control is that of the
// simulated clouds, or empty.
func (s *server) announce(w io.Writer, control string) {
	grpcAddress, httpAddress := s.grpcListener.Addr(), s.httpListener.Addr()
	if control == "" {
		_, _ = fmt.Fprintf(w, "notebookd serves %d clouds: gRPC on %s, HTTP on %s.\n", len(s.sources), grpcAddress, httpAddress)
		return
	}
	_, _ = fmt.Fprintf(w, `notebookd serves two SIMULATED clouds: gRPC on %s, HTTP on %s. Nothing here is real.
Try:
  curl '%s/v1/notebooks?pageSize=3'
  curl -N %s/v1/notebooks:watch
  grpcurl -plaintext %s notebook.v1.NotebookService/Watch
Make a cloud fail: curl -X POST %s/core/faults -d '{"mode": "hang"}'
Heal it:           curl -X DELETE %s/core/faults
`, grpcAddress, httpAddress, "http://"+httpAddress.String(), "http://"+httpAddress.String(), grpcAddress, control, control)
}
