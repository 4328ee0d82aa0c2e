package upstreamtest

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// callerGone: a call ends with its caller. Its error is the context's and no
// failure of the cloud: it opens no breaker.
func (s suite) callerGone(t *testing.T) {
	for _, op := range []string{"list", "image change"} {
		t.Run(op, func(t *testing.T) {
			// The first failure would open a breaker.
			r := s.rig(t, upstream.ClientConfig{Breaker: upstream.BreakerConfig{MinRequests: 1, FailureRatio: 0.01}})
			if op != "list" && r.Image == nil {
				t.Skip("the cloud changes no images")
			}
			write, name := op != "list", r.ListOp
			call := func(ctx context.Context) error {
				rows, err := r.Provider.List(ctx, r.Location)
				if rows != nil && err != nil {
					t.Errorf("%d rows beside %v", len(rows), err)
				}
				return err
			}
			if write {
				name = r.ChangeOp
				call = func(ctx context.Context) error { _, err := r.Provider.ChangeImage(ctx, *r.Image); return err }
			}
			r.list(t)
			check := func(what string, err, want error, arrived bool) {
				t.Helper()
				if !errors.Is(err, want) || !upstream.IsContext(err) {
					t.Errorf("%s: %v (%T), want %v", what, err, err, want)
				}
				if write && arrived && !upstream.MaySent(err) {
					t.Errorf("%s: the error denies that the change was sent", what)
				}
			}

			requests := r.wire.count()
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			err := call(gone)
			check("gone before", err, context.Canceled, false)
			if upstream.MaySent(err) {
				t.Error("gone before: the error claims that something was sent")
			}
			if n := r.wire.count() - requests; n != 0 {
				t.Errorf("gone before: %d requests were made", n)
			}

			r.Simulator.Break(cloudsim.Fault{Op: name, Mode: cloudsim.ModeHang})
			calls := r.Simulator.Calls(name)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1) // has room for the one result, should nobody wait for it
			go func() { ended <- call(ctx) }()
			for deadline := time.Now().Add(patience); r.Simulator.Calls(name) == calls; runtime.Gosched() {
				if time.Now().After(deadline) {
					t.Fatal("the call does not arrive")
				}
			}
			cancel()
			// The client's own timeout comes much later.
			select {
			case err := <-ended:
				check("gone meanwhile", err, context.Canceled, true)
			case <-time.After(5 * time.Second):
				t.Fatal("gone meanwhile: the call goes on")
			}

			short, cancelShort := context.WithTimeout(t.Context(), shortTimeout)
			defer cancelShort()
			calls = r.Simulator.Calls(name)
			start := time.Now()
			err = call(short)
			check("deadline", err, context.DeadlineExceeded, r.Simulator.Calls(name) > calls)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("deadline: the call took %v", took)
			}

			r.Simulator.Heal()
			r.list(t)
			if write {
				if err := call(limit(t)); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			}
		})
	}
}
