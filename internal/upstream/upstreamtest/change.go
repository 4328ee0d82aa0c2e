package upstreamtest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// change: the cloud is asked once, and the answer and the next list show the
// image.
func (s suite) change(t *testing.T) {
	r := s.rig(t, upstream.ClientConfig{})
	if r.Image == nil {
		t.Skip("the cloud changes no images")
	}
	for range 2 {
		calls, changes := r.Simulator.Calls(r.ChangeOp), r.Changes()
		got, err := r.Provider.ChangeImage(limit(t), *r.Image)
		if err != nil {
			t.Fatal(err)
		}
		if n, m := r.Simulator.Calls(r.ChangeOp)-calls, r.Changes()-changes; n != 1 || m != 1 {
			t.Errorf("%d calls and %d changes, want one", n, m)
		}
		rows := r.list(t)
		i := slices.IndexFunc(rows, func(n upstream.Notebook) bool { return n.ID == r.Image.NotebookID })
		if i < 0 {
			t.Fatal("the notebook is gone from the list")
		}
		for where, n := range map[string]upstream.Notebook{"answer": got, "list": rows[i]} {
			if n.ID != r.Image.NotebookID || n.Image.URI != r.Image.Image || n.Image.Type != r.Image.ImageType {
				t.Errorf("the %s shows %s with %+v", where, n.ID, n.Image)
			}
			r.checkClean(t, "the "+where, fmt.Sprintf("%+v", n))
		}
	}
}

// failedChanges: whatever goes wrong, a change reaches the cloud at most once,
// and the error says whether it may have. The connection is one that was kept,
// because net/http sends some requests on those again.
func (s suite) failedChanges(t *testing.T) {
	if s.rig(t, upstream.ClientConfig{}).Image == nil {
		t.Skip("the cloud changes no images")
	}
	for _, f := range s.failures(t) {
		t.Run(f.Name, func(t *testing.T) {
			r, f := s.failing(t, f)
			if f.Fault.Op != "" || f.Cold {
				t.Skip("of another call")
			}
			refused := f.Fault.Mode == cloudsim.ModeRefuse
			effects := []bool{false, true}
			switch mode := f.Fault.Mode; {
			case refused, f.Provoke != nil, mode == cloudsim.ModeCut, mode == cloudsim.ModeHalf:
				effects = effects[:1] // what cannot have an effect, and what always has one
			case mode == cloudsim.ModeHuge, mode == cloudsim.ModeBomb:
				effects = effects[1:] // they take their time
			}
			for _, effect := range effects {
				r.list(t)
				heal := r.provoke(f, r.ChangeOp, effect)
				calls, changes, requests := r.Simulator.Calls(r.ChangeOp), r.Changes(), r.wire.count()
				got, err := r.Provider.ChangeImage(limit(t), *r.Image)
				calls, changes, requests = r.Simulator.Calls(r.ChangeOp)-calls, r.Changes()-changes, r.wire.count()-requests
				r.checkError(t, err, f, !refused)
				if diff := cmp.Diff(upstream.Notebook{}, got); diff != "" {
					t.Errorf("a notebook beside an error:\n%s", diff)
				}
				if want := btoi(!refused); calls != want || requests != 1 {
					t.Errorf("effect %v: %d calls arrived of %d requests, want %d of 1", effect, calls, requests, want)
				}
				// What spoils an answer half-way needs one.
				if want := btoi(effect || f.Fault.Mode == cloudsim.ModeCut || f.Fault.Mode == cloudsim.ModeHalf); changes != want {
					t.Errorf("effect %v: %d changes, want %d", effect, changes, want)
				}
				heal()
			}
			calls := r.Simulator.Calls(r.ChangeOp)
			_, err := r.Provider.ChangeImage(limit(t), *r.Image)
			for err != nil && upstream.KindOf(err) == upstream.KindTimeout { // a slow machine and a short timeout
				calls = r.Simulator.Calls(r.ChangeOp)
				_, err = r.Provider.ChangeImage(limit(t), *r.Image)
			}
			if n := r.Simulator.Calls(r.ChangeOp) - calls; err != nil || n != 1 {
				t.Errorf("afterwards: %d calls, %v", n, err)
			}
		})
	}
}

// noChange: a cloud that changes no images says so and is not asked.
func (s suite) noChange(t *testing.T) {
	r := s.rig(t, upstream.ClientConfig{})
	if r.Image != nil {
		t.Skip("the cloud changes images")
	}
	id := r.ids(t)[0]
	requests := r.wire.count()
	for _, id := range []string{id, "nobodys-notebook"} {
		_, err := r.Provider.ChangeImage(limit(t), upstream.ImageRequest{Location: r.Location, NotebookID: id, Image: "registry.example.com/a:1"})
		r.checkError(t, err, Failure{Want: upstream.KindUnsupported}, false)
	}
	if n := r.wire.count() - requests; n != 0 {
		t.Errorf("%d requests were made", n)
	}
}
