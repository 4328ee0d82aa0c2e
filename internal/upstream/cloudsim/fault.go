package cloudsim

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Fault is something that goes wrong. Which calls it hits, how often, and how.
// The zero Fault hits every call and does nothing.
type Fault struct {
	// Location and Op narrow the calls that are hit; empty stands for any. The
	// operations are list, change_image, login, center, renew, state, detail, and
	// those of a recreation: create, start, stop, release, rename, images, models.
	Location string `json:"location,omitempty"`
	Op       string `json:"op,omitempty"`
	// Share of the calls is hit, from above 0 to 1; zero stands for all.
	Share float64 `json:"share,omitempty"`
	// Times is how many calls are hit before the fault is over; zero stands for
	// no end.
	Times int `json:"times,omitempty"`

	// Latency comes before everything else.
	Latency Duration `json:"latency,omitempty"`
	// Mode is how the answer is spoilt; empty leaves it as it is.
	Mode Mode `json:"mode,omitempty"`
	// Status is the HTTP status of modes that answer; zero stands for the usual
	// one of the mode.
	Status int `json:"status,omitempty"`
	// RetryAfter is the header of that name, in seconds.
	RetryAfter int `json:"retry_after,omitempty"`
	// Code is the cloud's own code, for the mode code.
	Code string `json:"code,omitempty"`
	// Text is the message beside Code.
	Text string `json:"text,omitempty"`
	// Effect lets the call do its work before its answer is spoilt: the answer
	// is lost, the change is not.
	Effect bool `json:"effect,omitempty"`
}

// Mode is a way to spoil an answer.
type Mode string

// The modes.
const (
	ModeNone   Mode = ""       // only latency
	ModeHang   Mode = "hang"   // no answer, ever
	ModeReset  Mode = "reset"  // the connection is reset instead of an answer
	ModeRefuse Mode = "refuse" // no connection is accepted
	ModeCut    Mode = "cut"    // the connection breaks in the middle of the answer
	ModeHalf   Mode = "half"   // an answer that is complete to HTTP, with half of the JSON
	ModeHTML   Mode = "html"   // a gateway's page; HTTP 200 unless Status is given
	ModeEmpty  Mode = "empty"  // nothing; HTTP 200 unless Status is given
	ModeTypes  Mode = "types"  // JSON with other types than documented
	ModeStatus Mode = "status" // a status with a line of text; HTTP 503 unless Status is given
	ModeCode   Mode = "code"   // the documented envelope with Code
	ModeHuge   Mode = "huge"   // a body that is far too large
	ModeBomb   Mode = "bomb"   // a small body that is far too large once decompressed
)

var modes = []Mode{
	ModeNone, ModeHang, ModeReset, ModeRefuse, ModeCut, ModeHalf, ModeHTML, ModeEmpty, ModeTypes, ModeStatus, ModeCode, ModeHuge, ModeBomb,
}

// Duration is a time.Duration that is text such as "5s" in JSON.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (f Fault) validate() error {
	switch {
	case !slices.Contains(modes, f.Mode):
		return fmt.Errorf("mode %q is none of %v", f.Mode, modes)
	case f.Mode == ModeCode && f.Code == "":
		return fmt.Errorf("mode %q needs a code", f.Mode)
	case f.Share < 0 || f.Share > 1:
		return fmt.Errorf("share must be from 0 to 1")
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("status must be from 200 to 599")
	case f.Times < 0 || f.Latency < 0 || f.RetryAfter < 0:
		return fmt.Errorf("times, latency and retry_after must not be negative")
	case f.Mode == ModeRefuse && (f.Op != "" || f.Share != 0 || f.Times != 0):
		return fmt.Errorf("mode %q concerns all calls: it takes neither op nor share nor times", f.Mode)
	}
	return nil
}

// faults are those of one cloud that are switched on.
type faults struct {
	dice *dice

	mu    sync.Mutex // guards all below
	list  []*Fault
	calls map[string]int // by operation, those that were hit included
}

// pick counts a call and returns the fault that hits it, or nil. Of several the
// one that was switched on last counts.
func (f *faults) pick(op, location string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[op]++
	for i := len(f.list) - 1; i >= 0; i-- {
		fault := f.list[i]
		if fault.Op != "" && fault.Op != op || fault.Location != "" && fault.Location != location {
			continue
		}
		if fault.Share != 0 && !f.dice.hit(fault.Share) {
			continue
		}
		hit := *fault
		if fault.Times > 0 {
			if fault.Times--; fault.Times == 0 {
				f.list = slices.Delete(f.list, i, i+1)
			}
		}
		return &hit
	}
	return nil
}

// refused reports whether a location, or the whole cloud for "", takes no
// connections.
func (f *faults) refused(location string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.list, func(x *Fault) bool {
		return x.Mode == ModeRefuse && (x.Location == "" || x.Location == location)
	})
}

func (f *faults) all() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []Fault{}
	for _, x := range f.list {
		out = append(out, *x)
	}
	return out
}

// reply is an answer before it is sent.
type reply struct {
	status int
	header http.Header
	body   []byte
	// finish makes the body what is sent, of the same length, at the last moment. Nil
	// leaves it.
	finish func(body []byte) []byte
}

// spoiler knows what a cloud's own errors look like.
type spoiler interface {
	// refusal is an answer with the cloud's own code.
	refusal(op string, code, text string) reply
	// closing is closed when the simulator ends: nothing hangs longer.
	closing() <-chan struct{}
	// date is the cloud's time.
	date() time.Time
}

const gatewayPage = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"

// answer does a call's work and sends the answer, or what a fault makes of it.
func answer(w http.ResponseWriter, r *http.Request, s spoiler, op string, fault *Fault, work func() reply) {
	if fault == nil {
		send(w, s, work())
		return
	}
	if !pause(r, s, time.Duration(fault.Latency)) {
		return
	}
	var done reply
	switch fault.Mode {
	case ModeNone, ModeCut, ModeHalf: // the answer itself is needed
		done = work()
	default:
		if fault.Effect {
			done = work()
		}
	}
	status := func(usual int) int {
		if fault.Status != 0 {
			return fault.Status
		}
		return usual
	}
	out := reply{header: http.Header{}}
	if fault.RetryAfter > 0 {
		out.header.Set("Retry-After", strconv.Itoa(fault.RetryAfter))
	}
	switch fault.Mode {
	case ModeNone:
		out = done
	case ModeHang:
		pause(r, s, time.Duration(1<<62))
		return
	case ModeReset, ModeRefuse:
		breakOff(w, nil, 0)
		return
	case ModeCut:
		breakOff(w, done.body, len(done.body)/2)
		return
	case ModeHalf:
		out.status, out.body = done.status, done.body[:len(done.body)/2]
		out.header.Set("Content-Type", "application/json")
	case ModeHTML:
		out.status, out.body = status(http.StatusOK), []byte(gatewayPage)
		out.header.Set("Content-Type", "text/html")
	case ModeEmpty:
		out.status = status(http.StatusOK)
	case ModeTypes:
		out.status, out.body = status(http.StatusOK), []byte(`{"code":{},"ret_code":[0],"msg":7,"message":null,"meta":"x","data":"none","counts":"many"}`)
		out.header.Set("Content-Type", "application/json")
	case ModeStatus:
		out.status = status(http.StatusServiceUnavailable)
		out.body = []byte(http.StatusText(out.status) + "\n")
		out.header.Set("Content-Type", "text/plain")
	case ModeCode:
		coded := s.refusal(op, fault.Code, fault.Text)
		for name, values := range out.header {
			coded.header[name] = values
		}
		coded.status = status(coded.status)
		out = coded
	case ModeHuge:
		out.status, out.body = http.StatusOK, tooMuch()
		out.header.Set("Content-Type", "application/json")
	case ModeBomb:
		out.status, out.body = http.StatusOK, bomb()
		out.header.Set("Content-Type", "application/json")
		out.header.Set("Content-Encoding", "gzip")
	}
	send(w, s, out)
}

// pause waits. It reports false when the caller has left or the simulator ends.
func pause(r *http.Request, s spoiler, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
	case <-s.closing():
	}
	return false
}

func send(w http.ResponseWriter, s spoiler, out reply) {
	for name, values := range out.header {
		w.Header()[name] = values
	}
	w.Header().Set("Date", s.date().UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Length", strconv.Itoa(len(out.body)))
	w.WriteHeader(out.status)
	if out.finish != nil {
		out.body = out.finish(out.body)
	}
	_, _ = w.Write(out.body) // a client that left needs none
}

// breakOff resets the connection after a part of an answer.
func breakOff(w http.ResponseWriter, body []byte, part int) {
	if hijacker, ok := w.(http.Hijacker); ok {
		conn, _, err := hijacker.Hijack()
		if err != nil {
			panic(http.ErrAbortHandler) // net/http's own way to break a connection off
		}
		if body != nil {
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:part])
		} else if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset instead of an orderly end
		}
		_ = conn.Close()
		return
	}
	panic(http.ErrAbortHandler)
}

// tooMuch is more than anybody should read of an answer.
var tooMuch = sync.OnceValue(func() []byte { return bytes.Repeat([]byte("0"), 20<<20) })

// bomb is tooMuch, compressed: a part of it, again and again.
var bomb = sync.OnceValue(func() []byte {
	const parts = 20
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(tooMuch()[:len(tooMuch())/parts]) // memory takes it
	_ = z.Close()
	return bytes.Repeat(b.Bytes(), parts)
})
