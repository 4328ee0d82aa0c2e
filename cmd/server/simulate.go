package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	console := ""
	if s.current.Load().HTTP.Console.on() {
		console = fmt.Sprintf("Console: %s/\n", baseURL(httpAddress, s.certificates != nil))
	}
	if control == "" {
		_, _ = fmt.Fprintf(w, "notebookd serves %s: gRPC on %s, HTTP on %s.\n%s", counted(len(s.sources), "cloud"), grpcAddress, httpAddress, console)
		return
	}
	list := ""
	if executable, err := os.Executable(); err == nil {
		if dir, err := os.Getwd(); err == nil {
			list = listCommand(executable, dir, grpcAddress.String())
		}
	}
	_, _ = fmt.Fprintf(w, `notebookd serves two SIMULATED clouds: gRPC on %s, HTTP on %s. Nothing here is real.
%sTry:
%s  curl '%s/v1/notebooks?pageSize=3'
  curl -N %s/v1/notebooks:watch
  grpcurl -plaintext %s notebook.v1.NotebookService/Watch
Make a cloud fail: curl -X POST %s/core/faults -d '{"mode": "hang"}'
Heal it:           curl -X DELETE %s/core/faults
`, grpcAddress, httpAddress, console, list, "http://"+httpAddress.String(), "http://"+httpAddress.String(), grpcAddress, control, control)
}

// baseURL is where a browser finds a door.
func baseURL(door net.Addr, tls bool) string {
	scheme := "http"
	if tls {
		scheme = "https"
	}
	address, ok := door.(*net.TCPAddr)
	if !ok {
		return scheme + "://" + door.String()
	}
	host := address.IP.String()
	if address.IP.IsUnspecified() || address.IP.IsLoopback() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(address.Port))
}

// listCommand is the line that lists notebooks with the notebookctl that is beside
// the server, as it is called from a directory; nothing if there is none.
func listCommand(server, dir, address string) string {
	command := filepath.Join(filepath.Dir(server), "notebookctl")
	if info, err := os.Stat(command); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	if short, err := filepath.Rel(dir, command); err == nil && filepath.IsLocal(short) {
		command = short
		if !strings.ContainsRune(short, filepath.Separator) {
			command = "." + string(filepath.Separator) + short
		}
	}
	if address != notebookctlServer {
		address = " --server " + address
	} else {
		address = ""
	}
	return "  " + command + " list" + address + "\n"
}

// notebookctlServer is the server that notebookctl calls when it is told of no other.
const notebookctlServer = "127.0.0.1:9090"
