// Package natstest gives tests a real NATS JetStream cluster on 127.0.0.1 that
// they may hurt: its nodes are processes, which can be killed, frozen and robbed
// of their files, and the connections among them, and from a client to them, can
// be cut so that nobody is told.
//
// A node is the test binary itself, started once more, so that nothing has to be
// installed and the nodes run the version of NATS that go.mod pins. For this a
// package that uses natstest calls Main before its tests:
//
//	func TestMain(m *testing.M) {
//		natstest.Main()
//		m.Run()
//	}
//
// The package injects faults; it neither publishes nor decides what is right
// afterwards. How long NATS itself takes to get over one is compiled into it: a
// new leader stands 4 to 9 s after the old one fell silent, and a node that lost
// the others admits it after 10 to 20 s.
package natstest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// configVariable names the configuration file of the node that a process is to
// be. It is set for the processes that a Cluster starts, and for no others.
const configVariable = "NOTEBOOKD_TEST_AS_NATS"

// Main makes the process a NATS node if a Cluster started it for that, and never
// returns then. In every other process it does nothing.
func Main() {
	config := os.Getenv(configVariable)
	if config == "" {
		return
	}
	if err := serve(config); err != nil {
		fmt.Fprintln(os.Stderr, "natstest:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve runs a node until it is told to stop.
func serve(config string) error {
	// Standard input is a pipe from the test, which ends when the test process
	// does, however that happens. A node never outlives its test.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	options, err := server.ProcessConfigFile(config)
	if err != nil {
		return err
	}
	for _, port := range []int{options.Port, options.Cluster.Port, options.HTTPPort} {
		if err := awaitPort(port); err != nil {
			return err
		}
	}
	node, err := server.NewServer(options)
	if err != nil {
		return err
	}
	node.ConfigureLogger()
	node.Start()
	node.WaitForShutdown()
	return nil
}

// awaitPort waits until a port is free; zero always is. The test process has
// looked whether it is, and for as long as a process that it started at that
// moment has not become another program, the port is held by that one as well.
func awaitPort(port int) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", loopback(port))
		if err == nil {
			return listener.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}
