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

// announcement is what a server says first, in one language: formats of what announce has.
type announcement struct{ serves, console, simulated string }

var (
	inEnglish = announcement{
		serves:  "notebookd serves %[1]s: gRPC on %[2]s, HTTP on %[3]s.\n",
		console: "Console: %s/\n",
		simulated: `notebookd serves two SIMULATED clouds: gRPC on %[1]s, HTTP on %[2]s. Nothing here is real.
%[3]sTry:
%[4]s  curl '%[5]s/v1/notebooks?pageSize=3'
  curl -N %[5]s/v1/notebooks:watch
  grpcurl -plaintext %[1]s notebook.v1.NotebookService/Watch
Make a cloud fail: curl -X POST %[6]s/core/faults -d '{"mode": "hang"}'
Heal it:           curl -X DELETE %[6]s/core/faults
`,
	}
	inChinese = announcement{
		serves:  "notebookd 已接入 %[4]d 个云：gRPC 地址 %[2]s，HTTP 地址 %[3]s。\n",
		console: "控制台：%s/\n",
		simulated: `notebookd 已接入两个模拟云：gRPC 地址 %[1]s，HTTP 地址 %[2]s。其中没有任何真实资源。
%[3]s试一试：
%[4]s  curl '%[5]s/v1/notebooks?pageSize=3'
  curl -N %[5]s/v1/notebooks:watch
  grpcurl -plaintext %[1]s notebook.v1.NotebookService/Watch
让一个云出故障：curl -X POST %[6]s/core/faults -d '{"mode": "hang"}'
使其恢复：      curl -X DELETE %[6]s/core/faults
`,
	}
)

// announce says where the server is and what to try. control is that of the
// simulated clouds, or empty.
func (s *server) announce(w io.Writer, control string, chinese bool) {
	say := inEnglish
	if chinese {
		say = inChinese
	}
	grpcAddress, httpAddress := s.grpcListener.Addr(), s.httpListener.Addr()
	console := ""
	if s.current.Load().HTTP.Console.on() {
		console = fmt.Sprintf(say.console, baseURL(httpAddress, s.certificates != nil))
	}
	if control == "" {
		_, _ = fmt.Fprintf(w, say.serves, counted(len(s.sources), "cloud"), grpcAddress, httpAddress, len(s.sources))
		_, _ = fmt.Fprint(w, console)
		return
	}
	list := ""
	if executable, err := os.Executable(); err == nil {
		if dir, err := os.Getwd(); err == nil {
			list = listCommand(executable, dir, grpcAddress.String())
		}
	}
	_, _ = fmt.Fprintf(w, say.simulated, grpcAddress, httpAddress, console, list, "http://"+httpAddress.String(), control)
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
