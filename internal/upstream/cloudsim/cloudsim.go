// Package cloudsim simulates the clouds: HTTP servers on 127.0.0.1 that speak
// the wires of CoresHub and SCNet as far as notebookd uses them, check
// signatures and tokens, and answer errors in the clouds' own envelopes.
//
// It is a second reading of the wires, written apart from the dialects: it
// imports nothing of them. What a cloud does not document can be switched
// (settings), and what can go wrong can be made to (faults), both while it runs,
// over a control endpoint. The notebooks lead a life of their own, which is the
// same for the same seed.
//
// Only commands and tests may import it.
package cloudsim

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Config configures a Fleet. Zero fields have the documented default.
type Config struct {
	// Port is that of the control endpoint; the clouds have the ones that
	// follow. Zero takes any that are free.
	Port int
	// Seed chooses the story.
	Seed uint64
	// Notebooks is about how many there are in each location. Default 8.
	Notebooks int
	// CoresHubNotebooks is the same for CoresHub alone. Default Notebooks.
	CoresHubNotebooks int
	// Pace is the time between two steps of the story. Zero: nothing happens by
	// itself.
	Pace time.Duration
	// Now is the clouds' clock. Default time.Now.
	Now func() time.Time
}

func (c Config) now() func() time.Time {
	if c.Now == nil {
		return time.Now
	}
	return c.Now
}

// NewCoresHub returns a simulated CoresHub that is served by whoever calls it.
func NewCoresHub(cfg Config) *CoresHub { return newCoresHub(cfg.withDefaults()) }

// NewSCNet returns a simulated SCNet that is served by whoever calls it.
func NewSCNet(cfg Config) *SCNet { return newSCNet(cfg.withDefaults()) }

func (c Config) withDefaults() Config {
	c.Notebooks = cmp.Or(c.Notebooks, 8)
	c.CoresHubNotebooks = cmp.Or(c.CoresHubNotebooks, c.Notebooks)
	return c
}

// Fleet is one simulated account on each cloud, served on 127.0.0.1, and an
// endpoint that controls them.
type Fleet struct {
	CoresHub *CoresHub
	SCNet    *SCNet

	sims  map[string]controlled // by the name in paths of the control endpoint
	gates []*gate
	urls  map[string]string
	stop  context.CancelFunc
	wg    sync.WaitGroup // the ticker
}

// controlled is what the control endpoint needs of a simulator.
type controlled interface {
	status() map[string]any
	patch(data []byte) error
	SetKeys(keys map[string]string)
	add(f Fault) error
	Heal()
	Truth(location string) []Notebook
	Step()
	renameSome(location string, count int, rate float64) bool
	watchFaults(func())
	close()
}

// The names of the accounts in the configuration of notebookd and in the paths
// of the control endpoint.
const (
	coresHubName = "core"
	scnetName    = "scnet"
)

// Start serves both clouds. Close ends them.
func Start(cfg Config) (*Fleet, error) {
	cfg = cfg.withDefaults()
	ctx, stop := context.WithCancel(context.Background())
	f := &Fleet{CoresHub: newCoresHub(cfg), SCNet: newSCNet(cfg), urls: map[string]string{}, stop: stop}
	f.sims = map[string]controlled{coresHubName: f.CoresHub, scnetName: f.SCNet}
	if err := f.serve(cfg.Port); err != nil {
		f.Close()
		return nil, err
	}
	if cfg.Pace > 0 {
		f.wg.Go(func() { f.live(ctx, cfg.Pace) })
	}
	return f, nil
}

// serve opens the ports: the control endpoint comes last, when all that it
// controls is there.
func (f *Fleet) serve(port int) error {
	type door struct {
		name    string
		handler http.Handler
		refused func() bool
	}
	doors := []door{
		{"control", f.controlHandler(), func() bool { return false }},
		{coresHubName, f.CoresHub, func() bool { return f.CoresHub.faults.refused("") }},
		{scnetName, f.SCNet, func() bool { return f.SCNet.faults.refused("") }},
	}
	for _, id := range SCNetRegions {
		doors = append(doors, door{id, f.SCNet.region(id), func() bool { return f.SCNet.faults.refused(id) }})
	}
	for _, sim := range f.sims {
		sim.watchFaults(f.adjust)
	}
	for i := range doors {
		i = (i + 1) % len(doors)
		at := port
		if port != 0 {
			at += i
		}
		g, err := newGate(at, doors[i].handler, doors[i].refused)
		if err != nil {
			return err
		}
		f.gates = append(f.gates, g)
		f.urls[doors[i].name] = "http://" + g.address
		f.SCNet.Host(doors[i].name, f.urls[doors[i].name]) // only those of regions are asked for
	}
	return nil
}

// live plays the story until ctx ends.
func (f *Fleet) live(ctx context.Context, pace time.Duration) {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, sim := range f.sims {
				sim.Step()
			}
		case <-ctx.Done():
			return
		}
	}
}

// adjust closes and opens the listeners as the faults want it.
func (f *Fleet) adjust() {
	for _, g := range f.gates {
		g.adjust()
	}
}

// Close ends both clouds and everything that was under way. Call it once.
func (f *Fleet) Close() {
	f.stop()
	f.wg.Wait()
	for _, sim := range f.sims {
		sim.close()
	}
	for _, g := range f.gates {
		g.close()
	}
}

// ControlURL is where faults and settings are switched.
func (f *Fleet) ControlURL() string { return f.urls["control"] }

// URL returns where something is served: "core", "scnet", or the id of a region.
func (f *Fleet) URL(name string) string { return f.urls[name] }

// ServerConfig is the part of notebookd's configuration that names these
// clouds, as YAML. The polls are faster than a real cloud would allow.
func (f *Fleet) ServerConfig() string {
	return fmt.Sprintf(`clouds:
  - name: %s
    kind: coreshub
    coreshub:
      endpoint: %s
      zones: [%s]
      user_id: %s
      access_key_id: {value: %s}
      secret_access_key: {value: %s}
    poll: {fast: 1s, normal: 2s, idle: 5s}
    budget: {calls_per_hour: 20000}
  - name: %s
    kind: scnet
    scnet:
      login_endpoint: %s
      platform_endpoint: %s
      user: %s
      access_key: {value: %s}
      secret_key: {value: %s}
    poll: {fast: 1s, normal: 2s, idle: 5s}
`, coresHubName, f.urls[coresHubName], strings.Join(CoresHubZones[:2], ", "), CoresHubUserID, CoresHubKeyID, CoresHubSecret,
		scnetName, f.urls[scnetName], f.urls[scnetName], SCNetUser, SCNetAccessKey, SCNetSecretKey)
}

// controlHandler serves the control endpoint:
//
//	GET    /                       everything: faults, settings, calls, notebooks
//	GET    /{cloud}                one cloud
//	POST   /{cloud}/faults         switch a Fault on
//	DELETE /{cloud}/faults         switch all faults off
//	PATCH  /{cloud}/settings       change settings
//	PUT    /{cloud}/keys           replace the account's access keys: {"id": "secret"}
//	GET    /{cloud}/truth/{location}  what a location really holds
//	POST   /{cloud}/step?count=N   play N steps of the story
//	POST   /{cloud}/renames?n=N&rate=R&location=L  rename N notebooks, R a second (0: at
//	                               once), of one location or of all in turn, for
//	                               measurements: a name holds the time at which a list
//	                               first told it, as @t= and nanoseconds
//	POST   /scnet/expire           end all tokens
func (f *Fleet) controlHandler() http.Handler {
	mux := http.NewServeMux()
	cloud := func(handle func(w http.ResponseWriter, r *http.Request, sim controlled) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			sim, ok := f.sims[r.PathValue("cloud")]
			if !ok {
				http.Error(w, "no such cloud: core or scnet", http.StatusNotFound)
				return
			}
			if err := handle(w, r, sim); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		}
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		all := map[string]any{}
		for name, sim := range f.sims {
			all[name] = sim.status()
		}
		show(w, all)
	})
	mux.HandleFunc("GET /{cloud}", cloud(func(w http.ResponseWriter, _ *http.Request, sim controlled) error {
		show(w, sim.status())
		return nil
	}))
	mux.HandleFunc("POST /{cloud}/faults", cloud(func(w http.ResponseWriter, r *http.Request, sim controlled) error {
		var fault Fault
		data, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err == nil {
			err = strictJSON(data, &fault)
		}
		if err == nil {
			err = sim.add(fault)
		}
		if err == nil {
			show(w, sim.status()["faults"])
		}
		return err
	}))
	mux.HandleFunc("DELETE /{cloud}/faults", cloud(func(w http.ResponseWriter, _ *http.Request, sim controlled) error {
		sim.Heal()
		show(w, sim.status()["faults"])
		return nil
	}))
	mux.HandleFunc("PATCH /{cloud}/settings", cloud(func(w http.ResponseWriter, r *http.Request, sim controlled) error {
		data, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err == nil {
			err = sim.patch(data)
		}
		if err == nil {
			show(w, sim.status()["settings"])
		}
		return err
	}))
	mux.HandleFunc("PUT /{cloud}/keys", cloud(func(w http.ResponseWriter, r *http.Request, sim controlled) error {
		var keys map[string]string
		data, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err == nil {
			err = strictJSON(data, &keys)
		}
		if err == nil {
			sim.SetKeys(keys)
			show(w, "ok")
		}
		return err
	}))
	mux.HandleFunc("GET /{cloud}/truth/{location}", cloud(func(w http.ResponseWriter, r *http.Request, sim controlled) error {
		show(w, sim.Truth(r.PathValue("location")))
		return nil
	}))
	mux.HandleFunc("POST /{cloud}/step", cloud(func(w http.ResponseWriter, r *http.Request, sim controlled) error {
		count, err := strconv.Atoi(cmp.Or(r.URL.Query().Get("count"), "1"))
		if err != nil || count < 1 || count > 10000 {
			return errors.New("count must be from 1 to 10000")
		}
		for range count {
			sim.Step()
		}
		show(w, sim.status()["notebooks"])
		return nil
	}))
	mux.HandleFunc("POST /{cloud}/renames", cloud(func(w http.ResponseWriter, r *http.Request, sim controlled) error {
		count, err := strconv.Atoi(cmp.Or(r.URL.Query().Get("n"), "1"))
		if err != nil || count < 1 || count > 100_000 {
			return errors.New("n must be from 1 to 100000")
		}
		rate, err := strconv.ParseFloat(cmp.Or(r.URL.Query().Get("rate"), "0"), 64)
		if err != nil || rate != 0 && !(rate >= 0.01 && rate <= 1e6) {
			return errors.New("rate must be 0, or from 0.01 to 1000000")
		}
		if !sim.renameSome(r.URL.Query().Get("location"), count, rate) {
			return errors.New("no such location")
		}
		show(w, "ok")
		return nil
	}))
	mux.HandleFunc("POST /scnet/expire", func(w http.ResponseWriter, _ *http.Request) {
		f.SCNet.Expire()
		show(w, "all tokens have ended")
	})
	return mux
}

func show(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v) // whoever asked has left
}

// gate is a listener on a port of 127.0.0.1 that can be closed, so that
// connections are refused, and opened again on the same port, which stays its own.
type gate struct {
	address string
	server  *http.Server
	refused func() bool

	mu       sync.Mutex // guards listener and release
	listener net.Listener
	release  func() // gives the port back; nil when there is a listener, or the port is not held

	wg sync.WaitGroup // one Serve for each listener
}

func newGate(port int, h http.Handler, refused func() bool) (*gate, error) {
	g := &gate{
		address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), refused: refused,
		server: &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second},
	}
	if err := g.open(); err != nil {
		return nil, err
	}
	g.address = g.listener.Addr().String()
	return g, nil
}

func (g *gate) open() error {
	var lc net.ListenConfig
	listener, err := lc.Listen(context.Background(), "tcp", g.address)
	if err != nil {
		return err
	}
	g.listener = listener
	g.wg.Go(func() { _ = g.server.Serve(listener) }) // ends with the listener
	return nil
}

func (g *gate) adjust() {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch refused := g.refused(); {
	case refused && g.listener != nil:
		_ = g.listener.Close()
		g.listener = nil
		g.release, _ = reserve(g.address) // without it, it takes luck to get the port again
	case !refused && g.listener == nil:
		g.letGo()
		_ = g.open() // the port was ours a moment ago; the next switch tries again
	}
}

// letGo gives the port back if it is held. The caller holds mu.
func (g *gate) letGo() {
	if g.release != nil {
		g.release()
		g.release = nil
	}
}

func (g *gate) close() {
	_ = g.server.Close()
	g.wg.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.letGo()
}
