package natstest

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
)

// passage is a TCP proxy to one address that can be made a black hole. One
// goroutine at a time may cut and mend it.
type passage struct {
	proxy *toxiproxy.Proxy
	now   atomic.Pointer[era] // replaced by mend only; the valves read it
}

// era is the time from the opening of a passage, or from a mending, to the next
// mending. A connection belongs to the era in which it began and ends with it at
// the latest, unless the era has not been cut.
type era struct {
	cut    chan struct{} // closed by passage.cut
	mended chan struct{} // closed by passage.mend, after cut
}

func newEra() *era { return &era{cut: make(chan struct{}), mended: make(chan struct{})} }

func openPassage(tb testing.TB, address string) *passage {
	tb.Helper()
	toxics.Register("valve", new(valve))
	p := new(passage)
	p.now.Store(newEra())
	daemon := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p.proxy = toxiproxy.NewProxy(daemon, address, "127.0.0.1:0", address)
	for _, direction := range []stream.Direction{stream.Upstream, stream.Downstream} {
		added, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(`{"type": "valve", "stream": "` + direction.String() + `"}`))
		if err != nil {
			tb.Fatal("natstest: valve:", err)
		}
		added.Toxic.(*valve).now = &p.now // no connection uses it yet
	}
	if err := p.proxy.Start(); err != nil {
		tb.Fatal("natstest: proxy:", err)
	}
	tb.Cleanup(func() {
		p.proxy.Stop()
		p.cut() // whatever is still stuck in a valve ends with this era
		p.mend()
	})
	return p
}

// address is where the passage begins.
func (p *passage) address() string { return p.proxy.Listen }

// cut lets nothing through from now on, not even the end of a connection.
func (p *passage) cut() {
	now := p.now.Load()
	if !closed(now.cut) {
		close(now.cut)
	}
}

// mend ends a cut, and with it all connections that were there during the cut:
// what they lost cannot be made good.
func (p *passage) mend() {
	now := p.now.Load()
	if !closed(now.cut) {
		return
	}
	p.now.Store(newEra())
	close(now.mended)
}

// valve is what the data of one direction of a passage flows through. It stands
// in the proxy from the beginning, for two reasons against toxiproxy's own
// "timeout", which would be added for a cut: that one passes the end of a
// connection on, so that the other side learns what in a real partition it could
// not; and adding one waits, with a lock held, for every connection whose reader
// has stopped reading, as a frozen process has.
type valve struct {
	now *atomic.Pointer[era]
}

// Pipe carries one connection's data, in one direction, until the connection
// ends. Toxiproxy runs it in a goroutine.
func (v *valve) Pipe(stub *toxics.ToxicStub) {
	now := v.now.Load()
	input := stub.Input
	for !closed(now.mended) {
		select {
		case <-now.mended:
		case chunk := <-input: // nil is the end
			switch {
			case closed(now.cut):
				if chunk == nil {
					input = nil
				}
			case chunk == nil:
				stub.Close()
				return
			default:
				select {
				case <-now.cut:
				case stub.Output <- chunk:
				}
			}
		}
	}
	// Closing makes toxiproxy close the connection that this direction writes to.
	// The valve of the other direction has the one closed that this direction reads
	// from, which ends the input; until then its reader must not get stuck.
	stub.Close()
	if input != nil {
		for range input {
		}
	}
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
