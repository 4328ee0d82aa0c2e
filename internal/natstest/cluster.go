package natstest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// usableWithin bounds WaitUsable. A cluster that lost its leader twice in a
	// row on a busy machine needs most of it.
	usableWithin = 2 * time.Minute
	// pollInterval is how often WaitUsable asks.
	pollInterval = 50 * time.Millisecond
	// logTail is how many lines of a node's log a failed test shows.
	logTail = 50
)

// Cluster is a running NATS cluster. One goroutine at a time may make faults, and
// it must be the test's own, as faults that cannot be made fail the test; URLs
// and Name are for everybody.
type Cluster struct {
	tb    testing.TB
	nodes []*node
	// routes[i][j] is how node i reaches node j; nil if i is j.
	routes [][]*passage
}

type node struct {
	name                              string
	clientPort, routePort, healthPort int
	config, log, store                string // paths

	process  *exec.Cmd     // nil while the node is dead
	gone     chan struct{} // closed once process has been waited for
	paused   bool
	isolated bool
}

// Start starts a cluster of 1 or 3 nodes and waits until it is usable. It ends
// with tb, and its files, which are in tb's temporary directory, with it. If tb
// failed, the last lines of the nodes' logs are shown.
//
// A single node is no cluster in the sense of NATS: it has no leader to lose.
func Start(tb testing.TB, n int) *Cluster {
	tb.Helper()
	if n != 1 && n != 3 {
		tb.Fatalf("natstest: a cluster of %d nodes, want 1 or 3", n)
	}
	c := &Cluster{tb: tb}
	dir := tb.TempDir() // before the cleanup, which thus runs before its removal
	ports := freePorts(tb, 3*n)
	for i := range n {
		name := fmt.Sprintf("n%d", i)
		c.nodes = append(c.nodes, &node{
			name: name, clientPort: ports[3*i], routePort: ports[3*i+1], healthPort: ports[3*i+2],
			config: filepath.Join(dir, name+".conf"), log: filepath.Join(dir, name+".log"), store: filepath.Join(dir, name),
		})
	}
	for i, from := range c.nodes {
		c.routes = append(c.routes, make([]*passage, n))
		for j, to := range c.nodes {
			if i != j {
				c.routes[i][j] = openPassage(tb, loopback(to.routePort))
			}
		}
		if err := os.WriteFile(from.config, []byte(from.configuration(c.routes[i])), 0o600); err != nil {
			tb.Fatal("natstest:", err)
		}
	}
	tb.Cleanup(c.end) // runs before the routes close
	for i := range c.nodes {
		c.launch(i)
	}
	c.WaitUsable(tb)
	return c
}

// configuration is the node's configuration file, with the ways to the others.
//
// Nodes tell each other, and connect to, whom they know. They would find the
// direct ways past the proxies, if they did not all advertise one and the same
// address, which each of them takes for its own and leaves alone. What they are
// configured with they try for ever.
//
// Pings are what notices a black hole: routes are given up after 2 to 3 s of
// silence, clients after 3 to 4 s.
func (n *node) configuration(routes []*passage) string {
	var b strings.Builder
	fmt.Fprintf(&b, "server_name: %q\nlisten: %q\nhttp: %q\n", n.name, loopback(n.clientPort), loopback(n.healthPort))
	fmt.Fprintf(&b, "ping_interval: \"1s\"\nping_max: 3\n")
	fmt.Fprintf(&b, "jetstream {\n  store_dir: %q\n  max_mem: 1GB\n  max_file: 64GB\n}\n", n.store)
	if len(routes) == 1 {
		return b.String()
	}
	fmt.Fprintf(&b, "cluster {\n  name: natstest\n  listen: %q\n", loopback(n.routePort))
	fmt.Fprintf(&b, "  advertise: \"localhost:1\"\n  no_advertise: true\n")
	fmt.Fprintf(&b, "  pool_size: -1\n  ping_interval: \"1s\"\n  ping_max: 2\n  routes: [\n")
	for _, p := range routes {
		if p != nil {
			fmt.Fprintf(&b, "    \"nats-route://%s\"\n", p.address())
		}
	}
	b.WriteString("  ]\n}\n")
	return b.String()
}

// URLs are the nodes' addresses for clients, in the order of the nodes. They lead
// to the nodes directly, and no fault but those of the nodes cuts them.
func (c *Cluster) URLs() []string {
	urls := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		urls[i] = "nats://" + loopback(n.clientPort)
	}
	return urls
}

// Name is what NATS calls node i, for example where it tells who leads.
func (c *Cluster) Name(i int) string { return c.nodes[i].name }

// Kill kills node i, which gets no chance to tidy up, and waits for its end.
func (c *Cluster) Kill(i int) {
	c.tb.Helper()
	n := c.alive(i)
	if err := n.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.tb.Fatalf("natstest: kill %s: %v", n.name, err)
	}
	<-n.gone
	n.process, n.paused = nil, false
}

// Restart starts node i again, which was killed, with its old ports and files. It
// does not wait for the node to be ready; WaitUsable does.
func (c *Cluster) Restart(i int) {
	c.tb.Helper()
	c.dead(i)
	c.launch(i)
}

// Wipe removes all that node i, which was killed, has stored.
func (c *Cluster) Wipe(i int) {
	c.tb.Helper()
	n := c.dead(i)
	if err := os.RemoveAll(n.store); err != nil {
		c.tb.Fatalf("natstest: wipe %s: %v", n.name, err)
	}
}

// Pause freezes node i and waits until it stands still. Its connections stay
// open, and nothing is read or said.
func (c *Cluster) Pause(i int) {
	c.tb.Helper()
	n := c.alive(i)
	if n.paused {
		return
	}
	c.signal(i, syscall.SIGSTOP)
	// The process goes on until it has taken the signal, and the kernel tells when
	// it has. Should it end instead, this takes the news from the goroutine that
	// waits for its end, which does not mind.
	var status syscall.WaitStatus
	_, err := syscall.Wait4(n.process.Process.Pid, &status, syscall.WUNTRACED, nil)
	for errors.Is(err, syscall.EINTR) {
		_, err = syscall.Wait4(n.process.Process.Pid, &status, syscall.WUNTRACED, nil)
	}
	if err != nil || !status.Stopped() {
		c.tb.Fatalf("natstest: pause %s: status %#x, %v", n.name, uint32(status), err)
	}
	n.paused = true
}

// Resume lets node i, which was paused, go on as if no time had passed.
func (c *Cluster) Resume(i int) {
	c.tb.Helper()
	c.signal(i, syscall.SIGCONT)
	c.nodes[i].paused = false
}

func (c *Cluster) signal(i int, sig syscall.Signal) {
	c.tb.Helper()
	n := c.alive(i)
	if err := n.process.Process.Signal(sig); err != nil {
		c.tb.Fatalf("natstest: %v to %s: %v", sig, n.name, err)
	}
}

// Isolate cuts node i off from the other nodes, in both directions, without any
// of them being told. Connections of clients are not touched. It outlasts a
// restart of the node.
func (c *Cluster) Isolate(i int) {
	c.nodes[i].isolated = true
	c.route()
}

// Rejoin ends the isolation of node i. Its routes to nodes that are isolated
// themselves stay cut.
func (c *Cluster) Rejoin(i int) {
	c.nodes[i].isolated = false
	c.route()
}

// route cuts and mends the routes as the isolated nodes demand.
func (c *Cluster) route() {
	for i, from := range c.nodes {
		for j, to := range c.nodes {
			switch {
			case i == j:
			case from.isolated || to.isolated:
				c.routes[i][j].cut()
			default:
				c.routes[i][j].mend()
			}
		}
	}
}

// WaitUsable waits until all nodes that are alive, not paused and not isolated
// are ready and have caught up, with their leaders and on all they store, and
// JetStream answers through each of them. Killing one node after the other loses
// nothing with this in between.
func (c *Cluster) WaitUsable(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), usableWithin)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := c.usable(ctx)
		if err == nil {
			return
		}
		for _, n := range c.nodes {
			if n.process != nil && closed(n.gone) {
				tb.Fatalf("natstest: %s has ended by itself", n.name)
			}
		}
		select {
		case <-ctx.Done():
			tb.Fatalf("natstest: the cluster is not usable: %v", err)
		case <-tick.C:
		}
	}
}

func (c *Cluster) usable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, n := range c.nodes {
		if n.process == nil || n.paused || n.isolated {
			continue
		}
		if err := n.healthy(ctx); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		if err := n.answers(ctx); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	return nil
}

// healthy asks the node what it thinks of itself, which includes the state of
// each stream and consumer that it holds.
func (n *node) healthy(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback(n.healthPort)+"/healthz", http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("health check: %s", response.Status)
	}
	return nil
}

// answers asks JetStream through the node. It is the leader who answers.
func (n *node) answers(ctx context.Context) error {
	conn, err := nats.Connect("nats://"+loopback(n.clientPort), nats.Name("natstest"), nats.NoReconnect())
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	_, err = js.AccountInfo(ctx)
	return err
}

// alive returns node i, which must not have been killed.
func (c *Cluster) alive(i int) *node {
	c.tb.Helper()
	if c.nodes[i].process == nil {
		c.tb.Fatalf("natstest: %s is dead", c.nodes[i].name)
	}
	return c.nodes[i]
}

// dead returns node i, which must have been killed.
func (c *Cluster) dead(i int) *node {
	c.tb.Helper()
	if c.nodes[i].process != nil {
		c.tb.Fatalf("natstest: %s is alive", c.nodes[i].name)
	}
	return c.nodes[i]
}

// launch starts the process of node i.
func (c *Cluster) launch(i int) {
	c.tb.Helper()
	n := c.nodes[i]
	if err := n.launch(); err != nil {
		c.tb.Fatalf("natstest: start %s: %v", n.name, err)
	}
}

func (n *node) launch() error {
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	process := &exec.Cmd{
		Path: binary, Args: []string{binary}, Stdout: log, Stderr: log,
		Env: append(os.Environ(), configVariable+"="+n.config),
	}
	// The node ends when its input does; nothing is ever written.
	if _, err := process.StdinPipe(); err != nil {
		return err
	}
	if err := process.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() { // ends with the process, which end sees to
		_ = process.Wait() // that it was killed is no news
		close(gone)
	}()
	n.process, n.gone = process, gone
	return nil
}

// end kills what is alive and shows the logs of a failed test.
func (c *Cluster) end() {
	for i, n := range c.nodes {
		if n.process != nil {
			c.Kill(i)
		}
	}
	if !c.tb.Failed() {
		return
	}
	for _, n := range c.nodes {
		text, err := os.ReadFile(n.log)
		if err != nil {
			c.tb.Logf("natstest: log of %s: %v", n.name, err)
			continue
		}
		lines := slices.Collect(strings.Lines(string(text)))
		c.tb.Logf("natstest: the last lines of %s:\n%s", n.name, strings.Join(lines[max(0, len(lines)-logTail):], ""))
	}
}

// held are the ports of this process's clusters.
var held = struct {
	mu   sync.Mutex // guards what is below
	port map[int]bool
	last int
}{port: map[int]bool{}}

// freePorts finds ports that are free, and likely to be so whenever a node is
// restarted: below those that operating systems hand out by themselves, and not among
// those that other processes with clusters find, which run at the same time and have
// process ids of their own. They are given back when the test has ended.
func freePorts(tb testing.TB, count int) []int {
	tb.Helper()
	const lowest, beyond, each = 10000, 32768, 128
	first := lowest + os.Getpid()%((beyond-lowest)/each)*each
	held.mu.Lock()
	defer held.mu.Unlock()
	var ports []int
	for range each {
		if len(ports) == count {
			break
		}
		held.last = (held.last + 1) % each
		port := first + held.last
		if held.port[port] {
			continue
		}
		listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", loopback(port))
		if err != nil {
			continue
		}
		_ = listener.Close()
		ports = append(ports, port)
	}
	if len(ports) < count {
		tb.Fatal("natstest: no free ports")
	}
	for _, port := range ports {
		held.port[port] = true
	}
	tb.Cleanup(func() {
		held.mu.Lock()
		defer held.mu.Unlock()
		for _, port := range ports {
			delete(held.port, port)
		}
	})
	return ports
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
