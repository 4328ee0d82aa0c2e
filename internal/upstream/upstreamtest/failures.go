package upstreamtest

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// standard are the failures that any HTTP API has, and what they mean where
// nothing speaks against it.
var standard = []Failure{
	{Name: "connection refused", Fault: cloudsim.Fault{Mode: cloudsim.ModeRefuse}, Want: upstream.KindUnavailable, Calls: None},
	{Name: "connection reset", Fault: cloudsim.Fault{Mode: cloudsim.ModeReset}, Want: upstream.KindUnavailable},
	{Name: "no answer", Fault: cloudsim.Fault{Mode: cloudsim.ModeHang}, Want: upstream.KindTimeout},
	{Name: "answer cut off", Fault: cloudsim.Fault{Mode: cloudsim.ModeCut}, Want: upstream.KindUnavailable},
	{Name: "half of the JSON", Fault: cloudsim.Fault{Mode: cloudsim.ModeHalf}, Want: upstream.KindBadResponse},
	{Name: "other types", Fault: cloudsim.Fault{Mode: cloudsim.ModeTypes}, Want: upstream.KindBadResponse},
	{Name: "HTML with 200", Fault: cloudsim.Fault{Mode: cloudsim.ModeHTML}, Want: upstream.KindBadResponse},
	{Name: "HTML with 502", Fault: cloudsim.Fault{Mode: cloudsim.ModeHTML, Status: 502}, Want: upstream.KindUnavailable},
	{Name: "nothing with 200", Fault: cloudsim.Fault{Mode: cloudsim.ModeEmpty}, Want: upstream.KindBadResponse},
	{Name: "nothing with 503", Fault: cloudsim.Fault{Mode: cloudsim.ModeEmpty, Status: 503}, Want: upstream.KindUnavailable},
	{Name: "HTTP 401", Fault: cloudsim.Fault{Mode: cloudsim.ModeStatus, Status: 401}, Want: upstream.KindDenied},
	{Name: "HTTP 403", Fault: cloudsim.Fault{Mode: cloudsim.ModeStatus, Status: 403}, Want: upstream.KindDenied},
	{Name: "HTTP 404", Fault: cloudsim.Fault{Mode: cloudsim.ModeStatus, Status: 404}, Want: upstream.KindNotFound},
	{
		Name: "HTTP 429", Fault: cloudsim.Fault{Mode: cloudsim.ModeStatus, Status: 429, RetryAfter: 7},
		Want: upstream.KindThrottled, RetryAfter: 7 * time.Second,
	},
	{Name: "HTTP 500", Fault: cloudsim.Fault{Mode: cloudsim.ModeStatus, Status: 500}, Want: upstream.KindUnavailable},
	{
		Name: "HTTP 503", Fault: cloudsim.Fault{Mode: cloudsim.ModeStatus, Status: 503, RetryAfter: 11},
		Want: upstream.KindUnavailable, RetryAfter: 11 * time.Second,
	},
	{Name: "too large", Fault: cloudsim.Fault{Mode: cloudsim.ModeHuge}, Want: upstream.KindBadResponse, Text: "answer larger than 16 MiB"},
	{Name: "too large once decompressed", Fault: cloudsim.Fault{Mode: cloudsim.ModeBomb}, Want: upstream.KindBadResponse, Text: "answer larger than 16 MiB"},
}

// failures are the standard ones and the cloud's own.
func (s Subject) failures(t *testing.T) []Failure {
	t.Helper()
	all := slices.Clone(standard)
	for _, f := range s.Failures {
		i := slices.IndexFunc(all, func(o Failure) bool { return o.Name == f.Name })
		if i < 0 {
			if f.Fault == (cloudsim.Fault{}) && f.Provoke == nil {
				t.Fatalf("the failure %q is none", f.Name)
			}
			all = append(all, f)
			continue
		}
		if f.Fault == (cloudsim.Fault{}) && f.Provoke == nil {
			f.Fault = all[i].Fault
		}
		all[i] = f
	}
	return all
}

// failures are those of the clouds that start makes.
func (s suite) failures(t *testing.T) []Failure {
	t.Helper()
	return s.rig(t, upstream.ClientConfig{}).failures(t)
}

// failing starts a cloud for a failure, and returns that cloud's own version of
// it, which may hold functions that concern this one cloud.
func (s suite) failing(t *testing.T, f Failure) (*rig, Failure) {
	t.Helper()
	cfg := upstream.ClientConfig{}
	if f.Fault.Mode == cloudsim.ModeHang {
		cfg.Timeout = shortTimeout
	}
	r := s.rig(t, cfg)
	own := r.failures(t)
	return r, own[slices.IndexFunc(own, func(o Failure) bool { return o.Name == f.Name })]
}

// provoke makes a call of an operation fail.
func (r *rig) provoke(f Failure, op string, effect bool) (heal func()) {
	if f.Provoke != nil {
		return f.Provoke()
	}
	fault := f.Fault
	fault.Effect = effect
	if fault.Op == "" && fault.Mode != cloudsim.ModeRefuse {
		fault.Op = op
	}
	r.Simulator.Break(fault)
	if fault.Mode == cloudsim.ModeRefuse {
		r.client.Close() // on connections that are there already, nobody is refused
	}
	return r.Simulator.Heal
}

// failedLists: each failure has its meaning, no rows and no secret, costs the
// calls that it has to cost, and is over when it is over.
func (s suite) failedLists(t *testing.T) {
	for _, f := range s.failures(t) {
		t.Run(f.Name, func(t *testing.T) {
			r, f := s.failing(t, f)
			if !f.Cold {
				r.list(t)
			}
			// A read on a connection that was kept is sent again by net/http when
			// the connection turns out to be dead. Here it is to be sent once.
			r.client.Close()
			heal := r.provoke(f, r.ListOp, false)
			calls, memory := r.Simulator.Calls(r.ListOp), allocated()
			rows, err := r.Provider.List(limit(t), r.Location)
			calls, memory = r.Simulator.Calls(r.ListOp)-calls, allocated()-memory
			r.checkError(t, err, f, f.Fault.Mode != cloudsim.ModeRefuse)
			if rows != nil {
				t.Errorf("%d rows beside an error", len(rows))
			}
			if want := max(f.Calls, 0) + btoi(f.Calls == 0); calls != want {
				t.Errorf("%d calls, want %d", calls, want)
			}
			if memory > maxAllocated {
				t.Errorf("%d MiB were allocated", memory>>20)
			}
			heal()
			if rows := r.list(t); len(rows) == 0 {
				t.Error("nothing is listed afterwards")
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// maxAllocated bounds what a listing may allocate in all, whatever the cloud
// sends: room for upstream.MaxBody once, and what the simulated cloud makes of it.
const maxAllocated = 3 * upstream.MaxBody

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// breaker: failures open it, also those that come with HTTP 200, and an open
// breaker asks nobody. Refusals do not open it.
func (s suite) breaker(t *testing.T) {
	for _, fault := range []cloudsim.Fault{{Mode: cloudsim.ModeStatus}, {Mode: cloudsim.ModeHTML}, {Mode: cloudsim.ModeStatus, Status: 429}} {
		r := s.rig(t, upstream.ClientConfig{Breaker: upstream.BreakerConfig{MinRequests: 5}})
		r.list(t)
		fault.Op = r.ListOp
		r.Simulator.Break(fault)
		failed, requests := 0, 0
		var e *upstream.Error
		for ; failed < 10; failed++ {
			requests = r.wire.count()
			rows, err := r.Provider.List(limit(t), r.Location)
			if e = asError(t, err); e == nil || rows != nil {
				t.Fatalf("%d rows and %v", len(rows), err)
			}
			if e.Kind == upstream.KindCircuitOpen {
				break
			}
		}
		if fault.Status == 429 {
			if e.Kind != upstream.KindThrottled {
				t.Errorf("a cloud that throttles: %v", e)
			}
			continue
		}
		if failed > 5 || e.Kind != upstream.KindCircuitOpen {
			t.Errorf("after %d failures: %v", failed, e)
		}
		if e.RetryAfter <= 0 || e.Sent || e.Cloud != account || e.Location != r.Location || e.Op == "" {
			t.Errorf("the breaker's error: %+v", *e)
		}
		if n := r.wire.count() - requests; n != 0 {
			t.Errorf("%d requests beside an open breaker", n)
		}
	}
}
