package cloudsim

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// BreakableConfig describes a simulated cloud that is not of this package.
type BreakableConfig struct {
	// Handler is the cloud.
	Handler http.Handler
	// Call names the operation and the location of a request; it leaves the body
	// alone.
	Call func(r *http.Request) (op, location string)
	// Refusal is an answer with the cloud's own code, for the mode code.
	Refusal func(code, text string) (status int, header http.Header, body []byte)
}

// Breakable is a cloud served on 127.0.0.1 that the faults of this package can
// be switched on for. It is safe for concurrent use.
type Breakable struct {
	cfg    BreakableConfig
	faults *faults
	gate   *gate
	closed chan struct{} // closed by Close, once
	close  func()
}

// StartBreakable serves a cloud on a free port. Close ends it.
func StartBreakable(cfg BreakableConfig) (*Breakable, error) {
	b := &Breakable{cfg: cfg, faults: &faults{dice: newDice(0), calls: map[string]int{}}, closed: make(chan struct{})}
	var err error
	if b.gate, err = newGate(0, b, func() bool { return b.faults.refused("") }); err != nil {
		return nil, err
	}
	b.close = sync.OnceFunc(func() {
		close(b.closed)
		b.gate.close()
	})
	return b, nil
}

// URL is where the cloud is served: scheme, host and port.
func (b *Breakable) URL() string { return "http://" + b.gate.address }

// Close ends the cloud and everything that is under way.
func (b *Breakable) Close() { b.close() }

// Break switches a fault on. It panics when the fault is none: use it in tests.
func (b *Breakable) Break(f Fault) {
	if err := f.validate(); err != nil {
		panic(err)
	}
	if f.Mode == ModeRefuse && f.Location != "" {
		panic(fmt.Sprintf("cloudsim: all locations have one host, %s cannot refuse by itself", f.Location))
	}
	b.faults.mu.Lock()
	b.faults.list = append(b.faults.list, &f)
	b.faults.mu.Unlock()
	b.gate.adjust()
}

// Heal switches all faults off.
func (b *Breakable) Heal() {
	b.faults.mu.Lock()
	b.faults.list = nil
	b.faults.mu.Unlock()
	b.gate.adjust()
}

// Calls returns how many calls of an operation arrived so far, those that were
// spoilt included.
func (b *Breakable) Calls(op string) int {
	b.faults.mu.Lock()
	defer b.faults.mu.Unlock()
	return b.faults.calls[op]
}

// ServeHTTP implements http.Handler.
func (b *Breakable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Read to its end, so that a caller who leaves while nothing is answered is
	// noticed.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "body", http.StatusRequestEntityTooLarge)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	op, location := b.cfg.Call(r)
	answer(w, r, b, op, b.faults.pick(op, location), func() reply {
		rec := &recorder{header: http.Header{}, status: http.StatusOK}
		b.cfg.Handler.ServeHTTP(rec, r)
		return reply{status: rec.status, header: rec.header, body: rec.body.Bytes()}
	})
}

// refusal implements spoiler.
func (b *Breakable) refusal(_ string, code, text string) reply {
	status, header, body := b.cfg.Refusal(code, text)
	if header == nil {
		header = http.Header{}
	}
	return reply{status: status, header: header, body: body}
}

// closing implements spoiler.
func (b *Breakable) closing() <-chan struct{} { return b.closed }

// date implements spoiler.
func (b *Breakable) date() time.Time { return time.Now() }

// recorder keeps an answer, which may have to be spoilt before it is sent.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) { r.status = status }

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
