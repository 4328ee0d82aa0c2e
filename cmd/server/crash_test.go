package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// dial connects to the gRPC door of the process.
func (c *child) dial(tb testing.TB) *grpc.ClientConn {
	tb.Helper()
	conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// client connects to the services of the process.
func (c *child) client(tb testing.TB) (notebookv1.NotebookServiceClient, notebookv1.ImageChangeServiceClient) {
	tb.Helper()
	conn := c.dial(tb)
	return notebookv1.NewNotebookServiceClient(conn), notebookv1.NewImageChangeServiceClient(conn)
}

// kill ends the process as a power cut would, as far as a process can tell.
func (c *child) kill(tb testing.TB) {
	tb.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		tb.Fatal(err)
	}
	_ = c.cmd.Wait() // it was killed
}

// fastConfig is the configuration for simulated clouds with polls that leave no
// time to lose.
func fastConfig(fleet *cloudsim.Fleet, dataDir string) string {
	return fmt.Sprintf("store: {data_dir: %q}\n", dataDir) + strings.NewReplacer(
		"poll: {fast: 1s, normal: 2s, idle: 5s}", "poll: {fast: 200ms, normal: 200ms, idle: 200ms}\n    timeout: 3s\n    breaker: {min_requests: 1000000}",
		"calls_per_hour: 20000", "calls_per_hour: 1000000",
	).Replace(fleet.ServerConfig())
}

// settled waits until a change has ended.
func settled(ctx context.Context, t *testing.T, history notebookv1.ImageChangeServiceClient, name string) *notebookv1.ImageChange {
	t.Helper()
	for {
		resp, err := history.GetImageChange(ctx, &notebookv1.GetImageChangeRequest{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		switch c := resp.GetImageChange(); c.GetPhase() {
		case notebookv1.ImageChange_PHASE_SUCCEEDED, notebookv1.ImageChange_PHASE_FAILED, notebookv1.ImageChange_PHASE_UNCHANGED:
			return c
		default:
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s is not settled: %v", name, resp.GetImageChange())
		}
	}
}

// TestKilledInPlace kills the process around the one call of a change in place.
// Afterwards the cloud was changed once or not at all, the record says which,
// and the same request returns it.
func TestKilledInPlace(t *testing.T) {
	t.Parallel()
	type moment struct {
		name    string
		fault   *cloudsim.Fault
		after   time.Duration // from the request to the kill; zero: when the cloud was called
		changed []int         // what the cloud may have done
	}
	moments := []moment{
		{name: "before the cloud did it", fault: &cloudsim.Fault{Op: "change_image", Mode: cloudsim.ModeHang}, changed: []int{0}},
		{name: "after the cloud did it", fault: &cloudsim.Fault{Op: "change_image", Mode: cloudsim.ModeHang, Effect: true}, changed: []int{1}},
		{name: "while it was read back", fault: &cloudsim.Fault{Op: "list", Mode: cloudsim.ModeHang}, changed: []int{1}},
	}
	rng := rand.New(rand.NewPCG(1, 2))
	random := 2
	if whole {
		random = 40
	}
	for i := range random {
		moments = append(moments, moment{
			name: fmt.Sprintf("at some moment, %d", i), after: time.Duration(rng.IntN(25)) * time.Millisecond, changed: []int{0, 1},
		})
	}
	for _, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			fleet, err := cloudsim.Start(cloudsim.Config{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(fleet.Close)
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			dataDir := t.TempDir()
			first := spawn(t, fastConfig(fleet, dataDir))
			notebooks, _ := first.client(t)
			req := &notebookv1.ChangeImageRequest{
				Name: "clouds/core/locations/xb3/notebooks/" + cloudsim.CoresHubNotebook, Image: "registry.example.com/team/crash:1", ImageType: "custom",
				RegistryCredential: &notebookv1.RegistryCredential{Username: "robot", Password: "canary-registry-password"},
				RequestId:          uuid.NewString(), Reason: "because of the test",
			}
			if m.fault != nil {
				fleet.CoresHub.Break(*m.fault)
			}
			asked := make(chan struct{})
			go func() {
				defer close(asked)
				_, _ = notebooks.ChangeImage(ctx, req) // the process dies under it
			}()
			if m.fault != nil {
				until(t, "the cloud is called", func() bool { return fleet.CoresHub.Calls("change_image") == 1 })
				if m.fault.Op == "list" {
					until(t, "the cloud has done it", func() bool { return fleet.CoresHub.Changes(cloudsim.CoresHubNotebook) == 1 })
				}
			} else {
				<-time.After(m.after) // the moment is the point
			}
			first.kill(t)
			<-asked
			fleet.CoresHub.Heal()

			second := spawn(t, fastConfig(fleet, dataDir))
			notebooks, history := second.client(t)
			list, err := history.ListImageChanges(ctx, &notebookv1.ListImageChangesRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range list.GetImageChanges() {
				c = settled(ctx, t, history, c.GetName())
				done := fleet.CoresHub.Changes(cloudsim.CoresHubNotebook)
				if (c.GetPhase() == notebookv1.ImageChange_PHASE_SUCCEEDED) != (done == 1) || done > 1 {
					t.Errorf("the record says %v (%v), the cloud was changed %d times", c.GetPhase(), c.GetFailure(), done)
				}
			}
			before := fleet.CoresHub.Calls("change_image")
			again, err := notebooks.ChangeImage(ctx, req)
			if err != nil {
				t.Fatal(err)
			}
			if len(list.GetImageChanges()) == 1 {
				want := list.GetImageChanges()[0].GetName()
				if again.GetChange().GetName() != want || fleet.CoresHub.Calls("change_image") != before {
					t.Errorf("the same request made %s and %d calls; it was %s", again.GetChange().GetName(), fleet.CoresHub.Calls("change_image")-before, want)
				}
			} else if again.GetChange().GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED {
				t.Errorf("nothing was stored, and the request makes %v", again)
			}
			if n := fleet.CoresHub.Changes(cloudsim.CoresHubNotebook); n > 1 || len(list.GetImageChanges()) == 1 && n != m.changed[0] && n != m.changed[len(m.changed)-1] {
				t.Errorf("the cloud was changed %d times, want %v", n, m.changed)
			}
			if strings.Contains(list.String()+again.String(), "canary-registry-password") {
				t.Error("the history holds the registry password")
			}
			searchFiles(t, dataDir, "canary-registry-password", cloudsim.CoresHubSecret, cloudsim.SCNetPassword)
			for _, c := range []*child{first, second} {
				if data, _ := os.ReadFile(c.log); strings.Contains(string(data), "canary-registry-password") {
					t.Error("the log holds the registry password")
				}
			}
		})
	}
}

// until waits for a condition of the simulated clouds.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("still not: %s", what)
		}
	}
}

// TestManyChangesUnderFaults makes a hundred changes, or a thousand, many at a time and some
// more than once, while the cloud loses answers, refuses and fails. No request is
// sent twice, and every outcome is settled and true.
func TestManyChangesUnderFaults(t *testing.T) {
	t.Parallel()
	notebooks, rounds := 10, 10
	if whole {
		notebooks, rounds = 50, 20
	}
	fleet, err := cloudsim.Start(cloudsim.Config{Notebooks: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	fleet.CoresHub.Set(func(s *cloudsim.CoresHubSettings) { s.AllowRunning = true })
	ids := fleet.CoresHub.Add("xb3", notebooks)
	p := start(t, strings.Replace(fastConfig(fleet, ""), "timeout: 3s", "timeout: 300ms", 1))
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
	defer cancel()
	for _, f := range []cloudsim.Fault{
		{Op: "change_image", Mode: cloudsim.ModeReset, Share: 0.1},
		{Op: "change_image", Mode: cloudsim.ModeReset, Share: 0.1, Effect: true},
		{Op: "change_image", Mode: cloudsim.ModeCut, Share: 0.1},
		{Op: "change_image", Mode: cloudsim.ModeHang, Share: 0.05, Effect: true},
		{Op: "change_image", Mode: cloudsim.ModeHang, Share: 0.05},
		{Op: "change_image", Mode: cloudsim.ModeHTML, Status: 502, Share: 0.1, Effect: true},
		{Op: "change_image", Mode: cloudsim.ModeStatus, Status: 500, Share: 0.1},
		{Op: "change_image", Mode: cloudsim.ModeCode, Code: "1400", Share: 0.05},
	} {
		fleet.CoresHub.Break(f)
	}
	type result struct {
		id      string
		applied int
		refused int
		unsent  int
		err     error
	}
	results := make(chan result, notebooks)
	for _, id := range ids {
		go func() {
			r := result{id: id}
			defer func() { results <- r }()
			for round := range rounds {
				req := &notebookv1.ChangeImageRequest{
					Name: "clouds/core/locations/xb3/notebooks/" + id, Image: fmt.Sprintf("registry.example.com/%s:%d", id, round), ImageType: "custom",
					RequestId: uuid.NewString(), Acknowledge: []string{"NOTEBOOK_RUNNING"}, Wait: durationpb.New(50 * time.Millisecond),
				}
				// The same request, twice at a time and once more.
				var both sync.WaitGroup
				for range 2 {
					both.Go(func() { _, _ = p.ChangeImage(ctx, req) }) // what it says is asked for again below
				}
				both.Wait()
				for {
					req.Wait = durationpb.New(20 * time.Second)
					resp, err := p.ChangeImage(ctx, req)
					if code := status.Code(err); code == codes.Unknown {
						continue // it is settled in time
					} else if code == codes.FailedPrecondition {
						r.refused++
						break
					} else if code == codes.Unavailable && reasonOf(err) == "CLOUD_TIMEOUT" {
						r.unsent++ // no connection was free in time
						break
					} else if err != nil {
						r.err = fmt.Errorf("round %d: %w", round, err)
						return
					}
					if phase := resp.GetChange().GetPhase(); phase == notebookv1.ImageChange_PHASE_SUCCEEDED {
						r.applied++
					} else if phase != notebookv1.ImageChange_PHASE_FAILED {
						continue
					}
					break
				}
			}
		}()
	}
	applied, refused, unsent := 0, 0, 0
	for range ids {
		r := <-results
		if r.err != nil {
			t.Errorf("%s: %v", r.id, r.err)
			continue
		}
		if done := fleet.CoresHub.Changes(r.id); done != r.applied {
			t.Errorf("%s: the cloud made %d changes, the records say %d", r.id, done, r.applied)
		}
		applied, refused, unsent = applied+r.applied, refused+r.refused, unsent+r.unsent
	}
	// A call given up before it arrives is not counted by the cloud; whatever was answered has its own.
	if calls := fleet.CoresHub.Calls("change_image"); calls > notebooks*rounds-unsent || calls < applied+refused {
		t.Errorf("%d calls for %d requests: %d applied, %d refused, %d not sent", calls, notebooks*rounds, applied, refused, unsent)
	}
	t.Logf("%d requests: %d applied, %d refused, %d lost and not applied", notebooks*rounds, applied, refused, notebooks*rounds-applied-refused-unsent)
	open := 0
	for token := ""; ; {
		resp, err := p.changes.ListImageChanges(ctx, &notebookv1.ListImageChangesRequest{PageSize: 300, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range resp.GetImageChanges() {
			if c.GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED && c.GetPhase() != notebookv1.ImageChange_PHASE_FAILED {
				open++
			}
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if open != 0 {
		t.Errorf("%d changes are not settled", open)
	}
}

// every are the warnings of a change that makes another notebook.
var every = []string{
	"NOTEBOOK_RUNNING", "NOTEBOOK_ID_CHANGES", "CONTAINER_DATA_LOST", "ADDRESSES_CHANGE", "MOUNTS_NOT_RESTORED", "ACCELERATOR_MAY_BE_LOST",
}

// TestKilledRecreate kills the process in every step of a change that makes
// another notebook, before and after the cloud did it. Afterwards there is one
// notebook: the new one under the old name, and the record says so; nothing was
// made or released twice.
func TestKilledRecreate(t *testing.T) {
	t.Parallel()
	for _, ran := range []bool{true, false} {
		for _, op := range []string{"stop", "create", "rename", "release", "detail"} {
			for _, effect := range []bool{false, true} {
				if op == "detail" && effect {
					continue // a read has no effect
				}
				if !whole && ran == effect {
					continue
				}
				t.Run(fmt.Sprintf("running %v, in %s, done %v", ran, op, effect), func(t *testing.T) {
					t.Parallel()
					killRecreate(t, ran, op, effect)
				})
			}
		}
	}
}

func killRecreate(t *testing.T, ran bool, op string, effect bool) {
	t.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{Notebooks: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	sim := fleet.SCNet
	sim.Set(func(s *cloudsim.SCNetSettings) { s.Transition = cloudsim.Duration(100 * time.Millisecond) })
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	dataDir := t.TempDir()
	first := spawn(t, fastConfig(fleet, dataDir))
	notebooks, _ := first.client(t)
	const old = "clouds/scnet/locations/11250/notebooks/" + cloudsim.SCNetNotebook
	if ran {
		startSCNet(t, fleet)
		until(t, "the notebook is seen to run", func() bool {
			resp, err := notebooks.List(ctx, &notebookv1.ListRequest{Filter: "state = RUNNING AND name = \"" + old + "\""})
			return err == nil && len(resp.GetNotebooks()) == 1
		})
	}
	req := &notebookv1.ChangeImageRequest{Name: old, Image: cloudsim.SCNetImage, RequestId: uuid.NewString(), Acknowledge: every}
	before := sim.Calls(op)
	sim.Break(cloudsim.Fault{Op: op, Mode: cloudsim.ModeHang, Effect: effect})
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = notebooks.ChangeImage(ctx, req) // the process dies under it
	}()
	until(t, "the cloud is called", func() bool { return sim.Calls(op) > before })
	first.kill(t)
	<-asked
	sim.Heal()

	second := spawn(t, fastConfig(fleet, dataDir))
	notebooks, history := second.client(t)
	list, err := history.ListImageChanges(ctx, &notebookv1.ListImageChangesRequest{})
	if err != nil || len(list.GetImageChanges()) != 1 {
		t.Fatalf("history = %v, %v", list, err)
	}
	change := settled(ctx, t, history, list.GetImageChanges()[0].GetName())
	created, released := sim.Created(), sim.Released()
	if change.GetPhase() == notebookv1.ImageChange_PHASE_FAILED && op == "create" && !effect {
		// The call may not have arrived: that is believed after a while, and
		// then everything is as it was.
		if len(created) != 0 || len(released) != 0 || !strings.Contains(change.GetFailure().GetMessage(), "old notebook") {
			t.Errorf("failed with %v created and %v released: %v", created, released, change.GetFailure())
		}
		wantState(t, fleet, cloudsim.SCNetNotebook, ran, "")
		return
	}
	if change.GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED || len(created) != 1 || len(released) != 1 || released[0] != cloudsim.SCNetNotebook ||
		!strings.HasSuffix(change.GetNewNotebook(), "/"+created[0]) {
		t.Fatalf("%v; created %v, released %v", change, created, released)
	}
	wantState(t, fleet, created[0], ran, cloudsim.SCNetImage)
	resp, err := notebooks.ChangeImage(ctx, req)
	if err != nil || resp.GetChange().GetName() != change.GetName() || len(sim.Created()) != 1 {
		t.Errorf("the same request: %v, %v; created %v", resp, err, sim.Created())
	}
	if name := resp.GetNotebook().GetDisplayName(); name != "2503021210191107" && err == nil {
		until(t, "the new notebook is listed under the old name", func() bool {
			resp, err := notebooks.List(ctx, &notebookv1.ListRequest{Filter: "display_name = 2503021210191107 AND image.uri = \"" + cloudsim.SCNetImage + "\""})
			return err == nil && len(resp.GetNotebooks()) == 1
		})
	}
}

// wantState wants a notebook of the first region to be there as it should be.
func wantState(t *testing.T, fleet *cloudsim.Fleet, id string, running bool, image string) {
	t.Helper()
	want := "stopped"
	if running {
		want = "running"
	}
	until(t, id+" is "+want, func() bool {
		for _, n := range fleet.SCNet.Truth("11250") {
			if n.ID == id && n.State == want && (image == "" || n.Image == image) {
				return true
			}
		}
		return false
	})
}

// startSCNet starts the notebook of the vendor's example, as somebody else would.
func startSCNet(t *testing.T, fleet *cloudsim.Fleet) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fleet.URL("scnet")+"/ac/openapi/v2/notebook/actions/start",
		strings.NewReader(`{"notebookId":"`+cloudsim.SCNetNotebook+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("token", fleet.SCNet.Token("11250"))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), `"code":"0"`) {
		t.Fatalf("start: %s", body)
	}
}
