package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/notebookd/notebookd/client"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/natstest"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

var chaosFor = flag.Duration("chaos", 0, "for how long TestChaos kills, freezes and cuts off; 0 skips it")

// replicas is several servers on one NATS cluster, in processes of their own.
type replicas struct {
	t      *testing.T
	fleet  *cloudsim.Fleet
	nats   *natstest.Cluster
	config []string
	doors  []*natstest.Door

	mu        sync.Mutex // guards what is below
	children  []*child
	resolvers []*manual.Resolver // of each connection: where it finds all of them
	wrong     []string           // what was told by errorf
}

// patience is how long something may take that has no bound of its own after faults:
// elections, some of them in a row, on a machine that does other things too.
const patience = 2 * time.Minute

// errorf fails the test. What it says is said again at the very end, behind the logs
// of all the processes.
func (r *replicas) errorf(format string, args ...any) {
	r.t.Helper()
	r.t.Errorf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

// startReplicas starts n servers on a NATS cluster of three nodes.
func startReplicas(t *testing.T, n int) *replicas {
	t.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	r := &replicas{t: t, fleet: fleet}
	t.Cleanup(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, text := range r.wrong {
			t.Log("what went wrong: ", text)
		}
	})
	r.nats = natstest.Start(t, 3)
	for range n {
		door := r.nats.Door(t)
		r.doors = append(r.doors, door)
		store := fmt.Sprintf("store: {nats_url: %q, lease: 3s}\n", strings.Join(door.URLs(), ","))
		r.config = append(r.config, store+strings.NewReplacer(
			"poll: {fast: 1s, normal: 2s, idle: 5s}", "poll: {fast: 500ms, normal: 500ms, idle: 500ms}\n    timeout: 3s\n    breaker: {min_requests: 1000000}",
			"calls_per_hour: 20000", "calls_per_hour: 1000000").Replace(fleet.ServerConfig()))
		r.children = append(r.children, startChild(t, r.config[len(r.config)-1]))
	}
	for _, c := range r.children {
		c.untilReady(t)
	}
	r.publish()
	t.Cleanup(func() {
		if t.Failed() {
			for i, c := range r.children {
				t.Logf("replica %d:\n%s", i, c.tail())
			}
		}
	})
	return r
}

// publish tells callers where the replicas are.
func (r *replicas) publish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var endpoints []resolver.Endpoint
	for _, c := range r.children {
		if c.address != "" {
			endpoints = append(endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: c.address}}})
		}
	}
	for _, known := range r.resolvers {
		rand.Shuffle(len(endpoints), func(i, j int) { endpoints[i], endpoints[j] = endpoints[j], endpoints[i] })
		known.UpdateState(resolver.State{Endpoints: slices.Clone(endpoints)})
	}
}

// dial connects to all replicas: each call goes to another one that answers.
func (r *replicas) dial() *grpc.ClientConn {
	r.t.Helper()
	own := manual.NewBuilderWithScheme("replicas")
	own.InitialState(resolver.State{})
	conn, err := grpc.NewClient("replicas:///all", grpc.WithResolvers(own), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	conn.Connect() // which builds the resolver
	r.mu.Lock()
	r.resolvers = append(r.resolvers, own)
	r.mu.Unlock()
	r.publish()
	return conn
}

var leaseLine = regexp.MustCompile(`(?m)^notebookd_lease_held\{cloud="([a-z]+)"\} 1$`)

// metrics returns what a server says of itself, or "" when it does not.
func (c *child) metrics() string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.http+"/metrics", http.NoBody)
	if err != nil {
		return ""
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	data, _ := io.ReadAll(resp.Body) // what came is what there is
	return string(data)
}

// holders returns which replicas say that they poll a cloud.
func (r *replicas) holders(cloud string) []int {
	var out []int
	for i, c := range r.children {
		for _, m := range leaseLine.FindAllStringSubmatch(c.metrics(), -1) {
			if m[1] == cloud {
				out = append(out, i)
			}
		}
	}
	return out
}

// held waits until a cloud is polled by exactly one replica, and returns it.
func (r *replicas) held(cloud string) int {
	r.t.Helper()
	var holders []int
	if !eventually(r.t.Context(), 30*time.Second, func() bool { holders = r.holders(cloud); return len(holders) == 1 }) {
		r.errorf("%s is polled by the replicas %v, want one", cloud, holders)
		r.t.FailNow()
	}
	return holders[0]
}

// truths is what the clouds hold.
func (r *replicas) truths() []truth {
	var want []truth
	for _, zone := range cloudsim.CoresHubZones[:2] {
		for _, n := range r.fleet.CoresHub.Truth(zone) {
			want = append(want, truth{Name: "clouds/core/locations/" + zone + "/notebooks/" + n.ID, Image: n.Image})
		}
	}
	for _, region := range cloudsim.SCNetRegions[:2] { // the account cannot use the third one
		for _, n := range r.fleet.SCNet.Truth(region) {
			want = append(want, truth{Name: "clouds/scnet/locations/" + region + "/notebooks/" + n.ID, Image: n.Image})
		}
	}
	slices.SortFunc(want, func(a, b truth) int { return cmp.Compare(a.Name, b.Name) })
	return want
}

func seenBy(w *client.Watcher) []truth {
	var got []truth
	for name, n := range w.State().Notebooks {
		got = append(got, truth{Name: name, Image: n.GetImage().GetUri()})
	}
	slices.SortFunc(got, func(a, b truth) int { return cmp.Compare(a.Name, b.Name) })
	return got
}

// converge waits until all watchers know what the clouds hold.
func (r *replicas) converge(within time.Duration, watchers []*client.Watcher) {
	r.t.Helper()
	for i, w := range watchers {
		diff := ""
		if !eventually(r.t.Context(), within, func() bool { diff = gocmp.Diff(r.truths(), seenBy(w)); return diff == "" }) {
			r.errorf("watcher %d does not come to know what the clouds hold (-clouds +watcher):\n%s", i, diff)
			return
		}
	}
}

// live waits until every replica says of every location that it is read well.
func (r *replicas) live(within time.Duration) {
	r.t.Helper()
	for i, c := range r.children {
		clouds := notebookv1.NewCloudServiceClient(c.dial(r.t))
		var bad []string
		if !eventually(r.t.Context(), within, func() bool {
			bad = nil
			resp, err := clouds.ListClouds(r.t.Context(), &notebookv1.ListCloudsRequest{})
			if err != nil {
				bad = append(bad, err.Error())
			}
			for _, cloud := range resp.GetClouds() {
				for _, l := range cloud.GetLocations() {
					age := time.Since(l.GetLastSuccessTime().AsTime())
					if l.GetState() != notebookv1.Location_STATE_DISABLED && (l.GetState() != notebookv1.Location_STATE_LIVE || age > 5*time.Second) {
						bad = append(bad, fmt.Sprintf("%s is %v (%v), read %v ago", l.GetName(), l.GetState(), l.GetReason(), age))
					}
				}
			}
			return len(bad) == 0
		}) {
			r.errorf("replica %d: %s", i, strings.Join(bad, "; "))
		}
	}
}

// jetstream is a way to the streams past the replicas.
func (r *replicas) jetstream() jetstream.JetStream {
	r.t.Helper()
	conn, err := nats.Connect(strings.Join(r.nats.URLs(), ","))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		r.t.Fatal(err)
	}
	return js
}

// watchers opens watches through connections of their own.
func (r *replicas) watchers(n int) []*client.Watcher {
	r.t.Helper()
	var out []*client.Watcher
	for range n {
		w := client.NewWatcher(r.t.Context(), notebookv1.NewNotebookServiceClient(r.dial()), client.Config{
			BookmarkInterval: 5 * time.Second, MinBackoff: 50 * time.Millisecond, MaxBackoff: time.Second,
		})
		r.t.Cleanup(w.Close)
		out = append(out, w)
	}
	return out
}

// again starts a replica anew that was killed.
func (r *replicas) again(i int) {
	c := startChild(r.t, r.config[i])
	if !c.readyWithin(r.t.Context(), patience) {
		r.errorf("replica %d does not become ready again", i)
		r.t.FailNow()
	}
	r.mu.Lock()
	r.children[i] = c
	r.mu.Unlock()
	r.publish()
}

// churn lets notebooks come and go.
func (r *replicas) churn(rng *rand.Rand) {
	zone := cloudsim.CoresHubZones[rng.IntN(2)]
	if all := r.fleet.CoresHub.Truth(zone); len(all) > 20 {
		for _, n := range all {
			if n.ID != cloudsim.CoresHubNotebook && rng.IntN(3) == 0 {
				r.fleet.CoresHub.Remove(zone, n.ID)
			}
		}
	}
	r.fleet.CoresHub.Add(zone, 1+rng.IntN(3))
	r.fleet.SCNet.Step()
}

// TestReplicas runs three servers on three NATS nodes.
func TestReplicas(t *testing.T) {
	t.Parallel() // it waits more than it computes
	r := startReplicas(t, 3)
	rng := rand.New(rand.NewPCG(3, 4))
	r.held("scnet")
	core := r.held("core")
	watchers := r.watchers(6)
	r.converge(30*time.Second, watchers)
	r.live(10 * time.Second)

	t.Run("a forced read and an image change through a replica that does not poll", func(t *testing.T) {
		other := (core + 1) % 3
		notebooks, _ := r.children[other].client(t)
		before := r.fleet.CoresHub.Calls("list")
		list, err := notebooks.List(t.Context(), &notebookv1.ListRequest{Parent: "clouds/core", MaxStaleness: durationpb.New(0)})
		if err != nil || len(list.GetUnreachable()) > 0 || len(list.GetNotebooks()) == 0 {
			t.Fatalf("%v, %v", list, err)
		}
		if r.fleet.CoresHub.Calls("list") == before {
			t.Error("nothing was read")
		}
		id := uuid.NewString()
		req := &notebookv1.ChangeImageRequest{
			Name: "clouds/core/locations/xb3/notebooks/" + cloudsim.CoresHubNotebook, Image: "registry.example.com/team/replicas:1", ImageType: "custom", RequestId: id,
		}
		changed, err := notebooks.ChangeImage(t.Context(), req)
		if err != nil || changed.GetChange().GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED {
			t.Fatalf("%v, %v", changed, err)
		}
		for i := range r.children { // the same request, everywhere, is the same change
			notebooks, history := r.children[i].client(t)
			again, err := notebooks.ChangeImage(t.Context(), req)
			if err != nil || again.GetChange().GetName() != changed.GetChange().GetName() {
				t.Errorf("replica %d: %v, %v", i, again.GetChange(), err)
			}
			if _, err := history.GetImageChange(t.Context(), &notebookv1.GetImageChangeRequest{Name: changed.GetChange().GetName()}); err != nil {
				t.Errorf("replica %d does not know the change: %v", i, err)
			}
		}
		if n := r.fleet.CoresHub.Changes(cloudsim.CoresHubNotebook); n != 1 {
			t.Errorf("the cloud was changed %d times", n)
		}
	})

	t.Run("tokens of one replica work on another", func(t *testing.T) {
		a, _ := r.children[0].client(t)
		list, err := a.List(t.Context(), &notebookv1.ListRequest{PageSize: 3})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := r.children[1].client(t)
		if _, err := b.List(t.Context(), &notebookv1.ListRequest{PageSize: 3, PageToken: list.GetNextPageToken()}); err != nil {
			t.Errorf("page token: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := b.Watch(ctx, &notebookv1.WatchRequest{ResumeToken: list.GetResumeToken()})
		if err != nil {
			t.Fatal(err)
		}
		for {
			frame, err := stream.Recv()
			if err != nil || frame.GetReset_() != nil {
				t.Fatalf("%v, %v", frame, err)
			}
			if frame.GetBookmark() != nil {
				break
			}
		}
	})

	t.Run("the holder is killed", func(t *testing.T) {
		r.children[core].kill(t)
		killed := time.Now()
		for range 3 {
			r.churn(rng)
		}
		var next []int
		if !eventually(t.Context(), 10*time.Second, func() bool { next = r.holders("core"); return len(next) == 1 }) {
			t.Fatalf("10 s later core is polled by %v", next)
		}
		t.Logf("another replica polls after %v", time.Since(killed).Round(10*time.Millisecond))
		r.converge(20*time.Second, watchers)
		r.again(core)
		r.converge(20*time.Second, watchers)
		r.live(20 * time.Second)
	})

	t.Run("the one that makes an image change is killed", func(t *testing.T) {
		if !whole {
			t.Skip("part of make campaign")
		}
		maker := r.held("scnet") // it does not matter which
		name := "clouds/core/locations/xb3/notebooks/" + cloudsim.CoresHubNotebook
		before, calls := r.fleet.CoresHub.Changes(cloudsim.CoresHubNotebook), r.fleet.CoresHub.Calls("change_image")
		for round, effect := range []bool{true, false} {
			r.fleet.CoresHub.Break(cloudsim.Fault{Op: "change_image", Mode: cloudsim.ModeHang, Effect: effect})
			notebooks, _ := r.children[maker].client(t)
			req := &notebookv1.ChangeImageRequest{
				Name: name, Image: fmt.Sprintf("registry.example.com/team/orphan:%d", round), ImageType: "custom", RequestId: uuid.NewString(),
			}
			asked := make(chan struct{})
			go func() {
				defer close(asked)
				_, _ = notebooks.ChangeImage(t.Context(), req) // it dies under the call
			}()
			until(t, "the cloud is called", func() bool { return r.fleet.CoresHub.Calls("change_image") == calls+1+round })
			r.children[maker].kill(t)
			<-asked
			r.fleet.CoresHub.Heal()
			other := (maker + 1) % 3
			notebooks, history := r.children[other].client(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			list, err := history.ListImageChanges(ctx, &notebookv1.ListImageChangesRequest{Filter: "request_id = " + req.GetRequestId()})
			if err != nil || len(list.GetImageChanges()) != 1 {
				t.Fatalf("the other one does not know the change: %v, %v", list, err)
			}
			change := settled(ctx, t, history, list.GetImageChanges()[0].GetName())
			want := notebookv1.ImageChange_PHASE_FAILED
			if effect {
				want = notebookv1.ImageChange_PHASE_SUCCEEDED
			}
			if change.GetPhase() != want {
				t.Errorf("effect %v: %v", effect, change)
			}
			if again, err := notebooks.ChangeImage(ctx, req); again.GetChange().GetPhase() != want && err == nil {
				t.Errorf("the same request: %v", again)
			}
			r.again(maker)
		}
		if n := r.fleet.CoresHub.Changes(cloudsim.CoresHubNotebook) - before; n != 1 {
			t.Errorf("the cloud was changed %d times", n)
		}
		if n := r.fleet.CoresHub.Calls("change_image") - calls; n != 2 {
			t.Errorf("two requests were sent %d times", n)
		}
		r.live(20 * time.Second)
	})

	t.Run("the one that makes another notebook is killed", func(t *testing.T) {
		if !whole {
			t.Skip("part of make campaign")
		}
		maker := r.held("core")
		notebooks, _ := r.children[maker].client(t)
		req := &notebookv1.ChangeImageRequest{
			Name: "clouds/scnet/locations/11250/notebooks/" + cloudsim.SCNetNotebook, Image: cloudsim.SCNetImage, RequestId: uuid.NewString(), Acknowledge: every,
			Wait: durationpb.New(0),
		}
		resp, err := notebooks.ChangeImage(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		until(t, "another notebook is asked for", func() bool { return r.fleet.SCNet.Calls("create") == 1 })
		r.children[maker].kill(t)
		_, history := r.children[(maker+1)%3].client(t)
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		change := settled(ctx, t, history, resp.GetChange().GetName())
		created, released := r.fleet.SCNet.Created(), r.fleet.SCNet.Released()
		if change.GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED || len(created) != 1 || len(released) != 1 || released[0] != cloudsim.SCNetNotebook {
			t.Errorf("created %v, released %v: %v", created, released, change)
		}
		r.again(maker)
	})

	t.Run("a planned shutdown hands over at once", func(t *testing.T) {
		holder := r.held("core")
		c := r.children[holder]
		calls := r.fleet.CoresHub.Calls("list")
		if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = c.cmd.Wait() // its code is looked at below
		if code := c.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("exit code %d\n%s", code, c.tail())
		}
		ended := time.Now()
		if !eventually(t.Context(), 2500*time.Millisecond, func() bool { return r.fleet.CoresHub.Calls("list") > calls && len(r.holders("core")) == 1 }) {
			t.Error("nobody has taken over within less than a lease")
		}
		t.Logf("taken over %v after the end", time.Since(ended).Round(10*time.Millisecond))
		r.again(holder)
	})

	t.Run("a NATS server is killed", func(t *testing.T) {
		if !whole {
			t.Skip("part of make campaign")
		}
		for i := range 3 {
			r.nats.Kill(i)
			r.churn(rng)
			began := time.Now()
			r.converge(2*time.Minute, watchers) // the others elect leaders for up to 9 s, and longer when votes are split; then consumers are made anew
			t.Logf("without %d all know everything after %v", i, time.Since(began).Round(10*time.Millisecond))
			r.nats.Restart(i)
			r.nats.WaitUsable(t)
		}
		r.live(15 * time.Second)
	})

	t.Run("NATS goes away and comes back", func(t *testing.T) {
		notebooks, _ := r.children[0].client(t)
		for i := range 3 {
			r.nats.Kill(i)
		}
		name := "clouds/core/locations/xb3/notebooks/" + cloudsim.CoresHubNotebook
		sent := r.fleet.CoresHub.Calls("change_image")
		var err error
		if !eventually(t.Context(), 15*time.Second, func() bool {
			list, listErr := notebooks.List(t.Context(), &notebookv1.ListRequest{})
			if listErr != nil || len(list.GetNotebooks()) == 0 {
				t.Fatalf("List does not go on from memory: %v", listErr)
			}
			for _, f := range list.GetFreshness() {
				if !f.GetStale() {
					return false
				}
			}
			return strings.Contains(r.children[0].metrics(), "notebookd_storage_connected 0")
		}) {
			t.Error("the answers do not say that they grow old")
		}
		_, err = notebooks.ChangeImage(t.Context(), &notebookv1.ChangeImageRequest{Name: name, Image: "registry.example.com/team/replicas:2", ImageType: "custom"})
		if status.Code(err) != codes.Unavailable || !strings.Contains(fmt.Sprint(status.Convert(err).Details()), "STORE_UNAVAILABLE") {
			t.Errorf("ChangeImage: %v %v", err, status.Convert(err).Details())
		}
		if n := r.fleet.CoresHub.Calls("change_image"); n != sent {
			t.Error("something was sent")
		}
		_, history := r.children[0].client(t)
		_, err = history.GetImageChange(t.Context(), &notebookv1.GetImageChangeRequest{Name: "imageChanges/" + uuid.Must(uuid.NewV7()).String()})
		if status.Code(err) != codes.Unavailable || !strings.Contains(fmt.Sprint(status.Convert(err).Details()), "STORE_UNAVAILABLE") {
			t.Errorf("GetImageChange of what it cannot know: %v", err)
		}
		if !ready(r.children[0].http) {
			t.Error("a replica that answers from memory is not ready")
		}
		r.churn(rng)
		for i := range 3 {
			r.nats.Restart(i)
		}
		r.converge(60*time.Second, watchers)
		r.live(30 * time.Second)
	})

	t.Run("the leases are deleted", func(t *testing.T) {
		if !whole {
			t.Skip("part of make campaign")
		}
		if err := r.jetstream().DeleteStream(t.Context(), "KV_NOTEBOOKD_LEASES"); err != nil {
			t.Fatal(err)
		}
		r.churn(rng)
		r.converge(30*time.Second, watchers)
		r.held("core")
		r.live(30 * time.Second)
	})

	t.Run("the rows are purged", func(t *testing.T) {
		if !whole {
			t.Skip("part of make campaign")
		}
		stream, err := r.jetstream().Stream(t.Context(), "NOTEBOOKD_ROWS")
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		whole := func() bool { // a replica that starts now finds them
			info, err := stream.Info(t.Context())
			return err == nil && int(info.State.Msgs) >= len(r.truths())
		}
		if !eventually(t.Context(), 30*time.Second, whole) {
			t.Error("the rows do not come back")
		}
		r.converge(30*time.Second, watchers)
		r.live(30 * time.Second)
	})

	t.Run("the store is wiped", func(*testing.T) {
		r.held("core")
		for i := range 3 {
			r.nats.Kill(i)
		}
		for i := range 3 {
			r.nats.Wipe(i)
		}
		for i := range 3 {
			r.nats.Restart(i)
		}
		r.churn(rng)
		r.converge(60*time.Second, watchers)
		r.live(30 * time.Second)
	})
}

// TestReplicasCallNoMore: however many replicas there are, the clouds are called
// as if there were one.
func TestReplicasCallNoMore(t *testing.T) {
	if !whole {
		t.Skip("part of make campaign")
	}
	const span = 15 * time.Second
	count := func(n int) (total int) {
		r := startReplicas(t, n)
		r.held("core")
		r.held("scnet")
		r.watchers(n)
		pause(t.Context(), 5*time.Second) // the work is spread, and then stays where it is
		calls := func() (n int) {
			for _, op := range []string{"list", "login", "center", "renew", "state", "detail"} {
				n += r.fleet.CoresHub.Calls(op) + r.fleet.SCNet.Calls(op)
			}
			return n
		}
		before := calls()
		pause(t.Context(), span)
		total = calls() - before
		for _, c := range r.children {
			c.kill(t)
		}
		return total
	}
	one, ten := count(1), count(10)
	t.Logf("in %v: one replica made %d calls, ten made %d", span, one, ten)
	if diff := float64(ten-one) / float64(one); diff > 0.05 || diff < -0.05 {
		t.Errorf("ten replicas made %d calls, one %d", ten, one)
	}
}

// TestChaos kills, freezes and cuts off replicas and NATS nodes at random, while
// notebooks come and go and images are changed. At the end every watcher knows
// what the clouds hold, and no change was sent twice.
func TestChaos(t *testing.T) {
	if *chaosFor == 0 {
		t.Skip("make chaos")
	}
	seed := cmp.Or(*soakSeed, uint64(time.Now().UnixNano()))
	t.Logf("%v with -soak.seed=%d", *chaosFor, seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	r := startReplicas(t, 3)
	watchers := r.watchers(20)
	r.converge(60*time.Second, watchers)

	began := time.Now()
	calls := func() int { return r.fleet.CoresHub.Calls("list") }
	first := calls()
	ctx, cancel := context.WithTimeout(t.Context(), *chaosFor)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(seed, 2))
		for pause(ctx, between(rng, 100, 1000)) {
			r.churn(rng)
		}
	})
	changes := &chaosChanges{r: r}
	wg.Go(func() { changes.run(ctx, rand.New(rand.NewPCG(seed, 3))) })
	counts := map[string]int{}
	for pause(ctx, between(rng, 500, 3000)) {
		i := rng.IntN(3)
		what := pick(rng, "kill a replica", "freeze a replica", "cut a replica off", "kill a node", "freeze a node", "isolate a node")
		counts[what]++
		switch what { // one at a time: without a majority of the nodes all stand still
		case "kill a replica":
			r.children[i].kill(t)
			pause(ctx, between(rng, 0, 6000))
			r.again(i)
		case "freeze a replica":
			_ = r.children[i].cmd.Process.Signal(syscall.SIGSTOP) // it lives
			pause(ctx, between(rng, 1000, 8000))
			_ = r.children[i].cmd.Process.Signal(syscall.SIGCONT)
		case "cut a replica off":
			r.doors[i].Cut()
			pause(ctx, between(rng, 500, 8000))
			r.doors[i].Mend()
		case "kill a node":
			r.nats.Kill(i)
			pause(ctx, between(rng, 0, 4000))
			r.nats.Restart(i)
			r.nats.WaitUsable(t)
		case "freeze a node":
			r.nats.Pause(i)
			pause(ctx, between(rng, 500, 6000))
			r.nats.Resume(i)
			r.nats.WaitUsable(t)
		case "isolate a node":
			r.nats.Isolate(i)
			pause(ctx, between(rng, 500, 8000))
			r.nats.Rejoin(i)
			r.nats.WaitUsable(t)
		}
	}
	wg.Wait()
	r.nats.WaitUsable(t)
	faults := 0
	for what, n := range counts {
		t.Logf("%s: %d", what, n)
		faults += n
	}
	r.held("core")
	r.held("scnet")
	// One holder lists two zones every 500 ms, less 10 %; each hand-over may cost a
	// poll more, and each change reads back.
	spent := time.Since(began)
	budget := int(2*spent/(450*time.Millisecond)) + 4*faults + 6*int(changes.asked.Load())
	n := calls() - first
	t.Logf("%d calls of list, at most %d are due", n, budget)
	if n > budget {
		r.errorf("%d calls of list in %v with %d faults, want at most %d", n, spent, faults, budget)
	}
	r.converge(patience, watchers)
	changes.check(t)
}

// chaosChanges changes the image of a notebook again and again.
type chaosChanges struct {
	r     *replicas
	asked atomic.Int64
}

func (c *chaosChanges) run(ctx context.Context, rng *rand.Rand) {
	notebooks := notebookv1.NewNotebookServiceClient(c.r.dial())
	for i := 0; pause(ctx, between(rng, 200, 2000)); i++ {
		callCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
		c.asked.Add(1)
		req := &notebookv1.ChangeImageRequest{
			Name:  "clouds/core/locations/xb3/notebooks/" + cloudsim.CoresHubNotebook,
			Image: fmt.Sprintf("registry.example.com/team/chaos:%d", i), ImageType: "custom", RequestId: uuid.NewString(), Wait: durationpb.New(5 * time.Second),
		}
		_, err := notebooks.ChangeImage(callCtx, req)
		if err != nil && rng.IntN(2) == 0 {
			_, _ = notebooks.ChangeImage(callCtx, req) // the same request changes nothing twice
		}
		cancel()
	}
}

// check waits until every replica says of all changes that they are settled, and
// counts as many that were applied as the cloud has made. A replica may be behind
// for a while after a NATS server was lost.
func (c *chaosChanges) check(t *testing.T) {
	t.Helper()
	for i, child := range c.r.children {
		history := notebookv1.NewImageChangeServiceClient(child.dial(t))
		phases := map[notebookv1.ImageChange_Phase]int{}
		done := 0
		began := time.Now()
		ok := eventually(t.Context(), patience, func() bool {
			clear(phases)
			for token := ""; ; {
				list, err := history.ListImageChanges(t.Context(), &notebookv1.ListImageChangesRequest{PageSize: 1000, PageToken: token})
				if err != nil {
					return false
				}
				for _, change := range list.GetImageChanges() {
					phases[change.GetPhase()]++
				}
				if token = list.GetNextPageToken(); token == "" {
					break
				}
			}
			done = c.r.fleet.CoresHub.Changes(cloudsim.CoresHubNotebook)
			settled := phases[notebookv1.ImageChange_PHASE_SUCCEEDED] + phases[notebookv1.ImageChange_PHASE_FAILED] + phases[notebookv1.ImageChange_PHASE_UNCHANGED]
			all := 0
			for _, n := range phases {
				all += n
			}
			return all == settled && phases[notebookv1.ImageChange_PHASE_SUCCEEDED] == done
		})
		t.Logf("replica %d after %v: %d requests: %v; the cloud changed the image %d times", i, time.Since(began).Round(10*time.Millisecond), c.asked.Load(), phases, done)
		if !ok {
			c.r.errorf("replica %d: the cloud changed the image %d times, the records say %v", i, done, phases)
		}
	}
}

// tail is the end of what a server has logged.
func (c *child) tail() string {
	data, _ := os.ReadFile(c.log) // what there is
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(len(lines)-60, 0):], "\n")
}
