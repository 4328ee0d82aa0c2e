package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

var (
	soakFor  = flag.Duration("soak", 12*time.Second, "for how long TestSoak lets clouds and callers misbehave")
	soakSeed = flag.Uint64("soak.seed", 0, "seed of TestSoak; 0 takes one from the clock")
)

const (
	soakWatchers = 200
	// soakConns is how many connections those of them that use gRPC share, so
	// that one that breaks takes several watches with it.
	soakConns = 40
	// soakREST of the watchers use the HTTP door.
	soakREST = 6
	// Every soakAuditth watcher remembers all that it was told.
	soakAudit = 50
	// soakJudgeChanges makes it a failure that an image change does not end, or
	// that a watcher was not told its end. Without it both are only counted.
	soakJudgeChanges = true
	// soakTombstones is short, so that a watcher that stays away for long has a
	// token that is too old.
	soakTombstones = 10 * time.Second
)

// TestSoak lets notebooks come and go, clouds fail in every way that the
// simulators know, and watchers lose their connections at the worst moments, all
// at once. Then it lets everything come to rest and compares, exactly, what each
// watcher made of what it was told with what the server lists and with what the
// clouds hold.
//
// The seed fixes what each party draws, not how their goroutines interleave: a
// failure may need several runs with its seed to come back.
func TestSoak(t *testing.T) {
	seed := cmp.Or(*soakSeed, uint64(time.Now().UnixNano()))
	t.Logf("%v with -soak.seed=%d", *soakFor, seed)
	// The process's own goroutine for signals begins with the first who wants some.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	signal.Stop(signals)
	before := goroutines()
	t.Run("run", func(t *testing.T) { runSoak(t, seed) }) // its cleanups end all that it started
	http.DefaultClient.CloseIdleConnections()
	left := ""
	ok := eventually(t.Context(), 15*time.Second, func() bool {
		var stacks []string
		for id, stack := range goroutines() {
			if _, old := before[id]; !old {
				stacks = append(stacks, stack)
			}
		}
		left = strings.Join(stacks, "\n\n")
		return left == ""
	})
	if !ok {
		t.Errorf("goroutines that were left behind:\n%s", left)
	}
}

var goroutineHeader = regexp.MustCompile(`(?m)^goroutine (\d+) .*$`)

// goroutines returns the stacks of all goroutines but the caller's, by id.
func goroutines() map[string]string {
	buf := make([]byte, 64<<20)
	all := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	out := map[string]string{}
	for _, stack := range all[1:] { // the first one is the caller's
		if header := goroutineHeader.FindStringSubmatch(stack); header != nil {
			out[header[1]] = stack
		}
	}
	return out
}

// eventually reports whether a condition came true in time.
func eventually(ctx context.Context, within time.Duration, ok func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for !ok() {
		if !pause(ctx, 50*time.Millisecond) {
			return ok()
		}
	}
	return true
}

// pause paces random load. It reports false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// between draws a duration in milliseconds.
func between(rng *rand.Rand, from, to int) time.Duration {
	return time.Duration(from+rng.IntN(to-from)) * time.Millisecond
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

// soak is one run. What its goroutines share is safe for concurrent use.
type soak struct {
	seed     uint64
	p        *process
	fleet    *cloudsim.Fleet
	clouds   []*soakCloud
	watchers []*soakWatcher
	lines    *cutLines
	// calm says that connections are no longer cut and readers no longer slow.
	calm atomic.Bool

	mu       sync.Mutex // guards what is below
	problems []string
	more     int                                // problems beyond those
	tally    map[string]int                     // of what happened
	asked    map[string]int                     // changes of an image that were asked for, by id
	seen     map[string]int                     // of them, those that were reported as done
	history  map[string]*notebookv1.ImageChange // what is remembered of changes at rest, by name
}

// problem notes something that must not be.
func (s *soak) problem(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) == 30 {
		s.more++
		return
	}
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

func (s *soak) count(what string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally[what] += n
}

func (s *soak) rng(stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(s.seed, stream))
}

func runSoak(t *testing.T, seed uint64) {
	t.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: seed, Notebooks: 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	fleet.CoresHub.Add("xb3", 90) // more than fit on a page
	config := strings.ReplaceAll(fleet.ServerConfig(), "poll: {fast: 1s, normal: 2s, idle: 5s}",
		"poll: {fast: 100ms, normal: 200ms, idle: 200ms}\n    timeout: 1s\n"+
			"    breaker: {window: 2s, min_requests: 3, failure_ratio: 0.5, open_for: 300ms}")
	config = strings.Replace(config, "calls_per_hour: 20000", "calls_per_hour: 10000000", 1)
	config += fmt.Sprintf("log: {level: warn}\nstore: {tombstones: %v}\n", soakTombstones)
	s := &soak{seed: seed, fleet: fleet, tally: map[string]int{}, asked: map[string]int{}, seen: map[string]int{}}
	s.clouds = soakClouds(fleet)
	s.p = start(t, config)
	// Everything is bounded by itself; this bounds the whole.
	ctx, cancel := context.WithTimeout(t.Context(), *soakFor+10*time.Minute)
	defer cancel()

	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var watchers sync.WaitGroup
	closeDoors := s.openWatchers(t)
	for _, w := range s.watchers {
		watchers.Go(func() { w.run(watching) })
	}
	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var load sync.WaitGroup
	load.Go(func() { s.churn(loading, s.rng(1)) })
	load.Go(func() { s.lines.run(loading, s.rng(2), s.count) })
	for i, c := range s.clouds {
		load.Go(func() { s.trouble(loading, c, s.rng(uint64(10+i))) })
	}
	for i := range 3 {
		load.Go(func() { s.changeImages(loading, s.rng(uint64(20+i))) })
	}

	pause(ctx, *soakFor/4)
	early, earlyGoroutines := s.heap(), runtime.NumGoroutine()
	pause(ctx, *soakFor-*soakFor/4)
	lateGoroutines := runtime.NumGoroutine()
	stopLoad()
	load.Wait()
	s.calm.Store(true)
	rested := time.Now()
	s.settle(ctx, t)
	s.checkChanges(ctx, t)
	s.compareWatchers(ctx, t)
	late := s.heap()
	t.Logf("at rest after %v", time.Since(rested).Round(time.Millisecond))
	t.Logf("heap after GC: %.1f MiB at a quarter, %.1f MiB at the end; goroutines %d and %d",
		float64(early)/(1<<20), float64(late)/(1<<20), earlyGoroutines, lateGoroutines)
	if late > 2*early+64<<20 {
		t.Errorf("the heap grew from %d to %d bytes", early, late)
	}
	if n := s.openWatches(t); n != len(s.watchers) {
		t.Errorf("%d watches are open at rest, want %d", n, len(s.watchers))
	}
	stopWatching()
	watchers.Wait()
	closeDoors()
	if !eventually(ctx, 10*time.Second, func() bool { return s.openWatches(t) == 0 }) {
		t.Errorf("%d watches are open after all watchers have left", s.openWatches(t))
	}
	s.report(t)
}

// heap is what is in use, without the log that the test itself keeps.
func (s *soak) heap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one found to be finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.p.log.mu.Lock()
	defer s.p.log.mu.Unlock()
	return m.HeapAlloc - uint64(s.p.log.buf.Len())
}

// openWatches is how many watches the server has begun and not ended.
func (s *soak) openWatches(t *testing.T) int {
	t.Helper()
	families, err := s.p.server.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	open := 0
	for _, family := range families {
		sign := map[string]int{"grpc_server_started_total": 1, "grpc_server_handled_total": -1}[family.GetName()]
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "grpc_method" && l.GetValue() == "Watch" {
					open += sign * int(m.GetCounter().GetValue())
				}
			}
		}
	}
	return open
}

// report tells what happened, and what must not have.
func (s *soak) report(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(s.tally)) {
		parts = append(parts, fmt.Sprintf("%s %d", what, s.tally[what]))
	}
	t.Logf("tally: %s", strings.Join(parts, ", "))
	for _, p := range s.problems {
		t.Error(p)
	}
	if s.more > 0 {
		t.Errorf("and %d more", s.more)
	}
	log := s.p.log.String()
	for line := range strings.Lines(log) {
		// Calls that end with INTERNAL or UNKNOWN are logged as errors too: that
		// is what some faults are to callers.
		failure := strings.Contains(line, "level=ERROR") && !strings.Contains(line, `msg="finished call"`)
		if strings.Contains(line, `msg="image change not stored"`) && strings.Contains(line, "context ") {
			failure = false // the caller left, or its time was up
		}
		if failure || strings.Contains(line, "panic") {
			t.Errorf("log: %s", line)
		}
	}
	t.Logf("log: %d lines of warnings", strings.Count(log, "\n"))
}

// soakCloud is a simulated cloud and what can be done to it.
type soakCloud struct {
	name      string
	locations []string
	ops       []string
	codes     []string
	// unsettle switches a setting to another value that a poller copes with;
	// restore switches all of them back.
	unsettle func(rng *rand.Rand) string
	restore  func()
	expire   func() // ends all tokens; nil without any
	state    map[string]notebookv1.Notebook_State
	sim      interface {
		Break(f cloudsim.Fault)
		Heal()
		Step()
		Add(location string, count int) []string
		Remove(location, id string) bool
		Clear(location string)
		Truth(location string) []cloudsim.Notebook
	}
}

func soakClouds(fleet *cloudsim.Fleet) []*soakCloud {
	core, scnet := fleet.CoresHub, fleet.SCNet
	coreSettings, scnetSettings := core.Settings(), scnet.Settings()
	return []*soakCloud{
		{
			name: "core", sim: core, locations: []string{"xb3", "xb2"}, ops: []string{"list", "change_image"},
			codes: []string{"1100", "1101", "1200", "1300", "1400", "2100", "2400", "2500", "5000", "5100", "7777"},
			// A stopping notebook shows as running, and one that is created as
			// starting: the cloud has no other words.
			state: map[string]notebookv1.Notebook_State{
				"creating": notebookv1.Notebook_STATE_STARTING, "starting": notebookv1.Notebook_STATE_STARTING,
				"running": notebookv1.Notebook_STATE_RUNNING, "stopping": notebookv1.Notebook_STATE_RUNNING,
				"stopped": notebookv1.Notebook_STATE_STOPPED, "failed": notebookv1.Notebook_STATE_FAILED,
			},
			unsettle: func(rng *rand.Rand) (what string) {
				core.Set(func(c *cloudsim.CoresHubSettings) {
					switch what = pick(rng, "drift", "drift", "errors", "times", "unset", "counts", "transit_words", "late_image", "echo"); what {
					case "drift":
						c.Drift = 1 + rng.IntN(3)
					case "errors":
						c.Errors = "http"
					case "times":
						c.Times = "zoned"
					case "unset":
						c.Unset = pick(rng, "empty", "missing")
					case "counts":
						c.Counts = pick(rng, "zero", "page")
					case "transit_words":
						c.TransitWords = true
					case "late_image":
						c.LateImage = true
					case "echo":
						c.Echo = true
					}
				})
				return what
			},
			restore: func() { core.Set(func(c *cloudsim.CoresHubSettings) { *c = coreSettings }) },
		},
		{
			name: "scnet", sim: scnet, locations: []string{"11250", "20057"}, ops: []string{"list", "detail", "login", "center"},
			codes: []string{
				"10001", "10003", "10004", "10007", "10008", "10009", "10010", "10012", "716020", "716865", "816822", "817140", "818218", "55555",
			},
			state: map[string]notebookv1.Notebook_State{
				"creating": notebookv1.Notebook_STATE_CREATING, "starting": notebookv1.Notebook_STATE_STARTING,
				"running": notebookv1.Notebook_STATE_RUNNING, "stopping": notebookv1.Notebook_STATE_STOPPING,
				"stopped": notebookv1.Notebook_STATE_STOPPED, "failed": notebookv1.Notebook_STATE_FAILED,
			},
			unsettle: func(rng *rand.Rand) (what string) {
				scnet.Set(func(c *cloudsim.SCNetSettings) {
					switch what = pick(rng, "drift", "drift", "page_cap", "page_cap", "envelope", "spelling", "numbers", "token_lifetime",
						"single_login", "stale_status", "ai_url", "missing", "repeat_last"); what {
					case "drift":
						c.Drift = 1 + rng.IntN(3)
					case "page_cap":
						c.PageCap = 17 + rng.IntN(30) // pages of 16 and fewer are refused
						c.RepeatLast = rng.IntN(2) == 0
					case "envelope":
						c.Envelope = pick(rng, "B", "C", "D")
					case "spelling":
						c.Spelling = "table"
					case "numbers":
						c.NumbersAsText = true
					case "token_lifetime":
						c.TokenLifetime = cloudsim.Duration(between(rng, 500, 3000))
					case "single_login":
						c.SingleLogin = true
					case "stale_status":
						c.StaleStatus = 401
					case "ai_url":
						c.AIURL = pick(rng, "bare", "ai", "slash")
					case "missing":
						c.Missing = pick(rng, "null", "10001", "10004")
					case "repeat_last":
						c.RepeatLast = true
					}
				})
				return what
			},
			restore: func() { scnet.Set(func(c *cloudsim.SCNetSettings) { *c = scnetSettings }) },
			expire:  scnet.Expire,
		},
	}
}

// churn lets notebooks live, come and go.
func (s *soak) churn(ctx context.Context, rng *rand.Rand) {
	for pause(ctx, between(rng, 40, 200)) {
		c := pick(rng, s.clouds...)
		location := pick(rng, c.locations...)
		truth := c.sim.Truth(location)
		least, most := 8, 40
		if location == "xb3" {
			least, most = 95, 130
		}
		switch rng.IntN(10) {
		case 0, 1:
			if len(truth) < most {
				s.count("added", len(c.sim.Add(location, 1+rng.IntN(3))))
			}
		case 2, 3:
			if len(truth) > least {
				c.sim.Remove(location, pick(rng, truth...).ID)
				s.count("removed", 1)
			}
		default:
			c.sim.Step()
			s.count("steps", 1)
		}
	}
}

// trouble breaks a cloud and heals it again, in turn.
func (s *soak) trouble(ctx context.Context, c *soakCloud, rng *rand.Rand) {
	defer func() {
		c.sim.Heal()
		c.restore()
	}()
	for pause(ctx, between(rng, 100, 1500)) {
		switch n := rng.IntN(20); {
		case n < 2 && c.expire != nil:
			s.count("expiry storms", 1)
			for range 1 + rng.IntN(6) {
				c.expire()
				pause(ctx, between(rng, 20, 200))
			}
		case n < 3:
			// A location that becomes empty, for so short or so long that its
			// rows stay or go. It never holds drift, which needs rows.
			s.count("emptied", 1)
			c.sim.Clear(c.locations[1])
			pause(ctx, between(rng, 50, 1500))
			s.count("added", len(c.sim.Add(c.locations[1], 8+rng.IntN(16))))
		case n < 8:
			// A listing under way must not see two settings: that no cloud does.
			// So it is broken off.
			c.sim.Break(cloudsim.Fault{Mode: cloudsim.ModeReset})
			pause(ctx, 200*time.Millisecond)
			s.count("setting "+c.unsettle(rng), 1)
			c.sim.Heal()
			pause(ctx, between(rng, 300, 2500))
			c.sim.Break(cloudsim.Fault{Mode: cloudsim.ModeReset})
			pause(ctx, 200*time.Millisecond)
			c.restore()
			c.sim.Heal()
		default:
			for range 1 + rng.IntN(3) {
				f := c.fault(rng)
				s.count("fault "+cmp.Or(string(f.Mode), "latency"), 1)
				c.sim.Break(f)
				pause(ctx, between(rng, 1, 300))
			}
			pause(ctx, between(rng, 50, 1500))
			c.sim.Heal()
		}
	}
}

// fault draws something that goes wrong.
func (c *soakCloud) fault(rng *rand.Rand) cloudsim.Fault {
	f := pick(rng,
		cloudsim.Fault{Latency: cloudsim.Duration(between(rng, 10, 800))},
		cloudsim.Fault{Mode: cloudsim.ModeHang},
		cloudsim.Fault{Mode: cloudsim.ModeReset},
		cloudsim.Fault{Mode: cloudsim.ModeRefuse},
		cloudsim.Fault{Mode: cloudsim.ModeCut},
		cloudsim.Fault{Mode: cloudsim.ModeHalf},
		cloudsim.Fault{Mode: cloudsim.ModeHTML, Status: pick(rng, 0, 502)},
		cloudsim.Fault{Mode: cloudsim.ModeEmpty, Status: pick(rng, 0, 503)},
		cloudsim.Fault{Mode: cloudsim.ModeTypes},
		cloudsim.Fault{Mode: cloudsim.ModeStatus, Status: pick(rng, 401, 500, 503)},
		cloudsim.Fault{Mode: cloudsim.ModeStatus, Status: 429, RetryAfter: rng.IntN(2)},
		cloudsim.Fault{Mode: cloudsim.ModeCode, Code: pick(rng, c.codes...)},
		cloudsim.Fault{Mode: cloudsim.ModeCode, Code: pick(rng, c.codes...)},
	)
	f.Location = pick(rng, "", c.locations[0], c.locations[1])
	if f.Mode == cloudsim.ModeRefuse {
		return f // it takes nothing else
	}
	// The work is done and the answer lost. A refusal of what was done would be a
	// lie that nobody can see through.
	f.Effect = rng.IntN(2) == 0 && f.Mode != cloudsim.ModeCode && f.Status != 401 && f.Status != 429
	f.Share = pick(rng, 0, 0, 0.3, 0.7)
	f.Times = pick(rng, 0, 0, 0, 1, 3)
	if rng.IntN(2) == 0 {
		f.Op = pick(rng, c.ops...)
	}
	return f
}

// changeImages changes images of stopped notebooks of CoresHub and checks each
// answer.
func (s *soak) changeImages(ctx context.Context, rng *rand.Rand) {
	for pause(ctx, between(rng, 50, 500)) {
		resp, err := s.p.List(ctx, &notebookv1.ListRequest{Parent: "clouds/core", PageSize: 1000})
		if err != nil {
			if ctx.Err() == nil {
				s.problem("List while clouds fail: %v", err)
			}
			continue
		}
		stopped := slices.DeleteFunc(resp.GetNotebooks(), func(n *notebookv1.Notebook) bool { return n.GetState() != notebookv1.Notebook_STATE_STOPPED })
		if len(stopped) == 0 {
			continue
		}
		n := pick(rng, stopped...)
		id := n.GetName()[strings.LastIndex(n.GetName(), "/")+1:]
		image := fmt.Sprintf("registry.example.com/team/soak:%d", rng.IntN(1000))
		s.mu.Lock()
		s.asked[id]++
		s.mu.Unlock()
		// A call that has begun goes on though the load ends, so that nothing
		// changes behind the back of the comparison.
		callCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), between(rng, 500, 6000))
		changed, err := s.p.ChangeImage(callCtx, &notebookv1.ChangeImageRequest{Name: n.GetName(), Image: image, ImageType: "custom"})
		cancel()
		phase := changed.GetChange().GetPhase()
		switch {
		case err != nil:
			s.count("change "+status.Code(err).String(), 1)
			s.checkError("ChangeImage", err)
		case phase == notebookv1.ImageChange_PHASE_SUCCEEDED:
			s.count("change SUCCEEDED", 1)
			s.mu.Lock()
			s.seen[id]++
			s.mu.Unlock()
			if got := changed.GetNotebook().GetImage().GetUri(); got != image {
				s.problem("a change to %s succeeded and shows %s", image, got)
			}
		default:
			s.count("change "+strings.TrimPrefix(phase.String(), "PHASE_"), 1)
			switch phase {
			case notebookv1.ImageChange_PHASE_UNSPECIFIED, notebookv1.ImageChange_PHASE_PLANNED, notebookv1.ImageChange_PHASE_OUTCOME_UNKNOWN:
				s.problem("a change was answered with phase %v", phase)
			default: // FAILED too: an answer was lost, and reading showed that nothing was done
			}
		}
	}
}

// checkError checks that an error of the server says why.
func (s *soak) checkError(what string, err error) {
	if status.Code(err) == codes.DeadlineExceeded {
		return // the client itself may have made it
	}
	infos := 0
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "notebookd" {
			infos++
		}
	}
	if infos != 1 {
		s.problem("%s: an error with %d ErrorInfo: %v", what, infos, err)
	}
}

// checkChanges waits until every image change has ended and compares their
// history with what the cloud did: each that succeeded once, and no other.
func (s *soak) checkChanges(ctx context.Context, t *testing.T) {
	t.Helper()
	done := map[string]int{} // by id of the notebook: changes that succeeded
	var open []string
	ok := eventually(ctx, 30*time.Second, func() bool {
		open = nil
		clear(done)
		history := map[string]*notebookv1.ImageChange{}
		for token, first := "", true; first || token != ""; first = false {
			resp, err := s.p.changes.ListImageChanges(ctx, &notebookv1.ListImageChangesRequest{PageSize: 1000, PageToken: token})
			if err != nil {
				t.Errorf("ListImageChanges: %v", err)
				return true
			}
			for _, c := range resp.GetImageChanges() {
				history[c.GetName()] = c
				switch {
				case !changeEnded(c):
					open = append(open, c.String())
				case c.GetPhase() == notebookv1.ImageChange_PHASE_SUCCEEDED:
					done[c.GetNotebook()[strings.LastIndex(c.GetNotebook(), "/")+1:]]++
				}
			}
			token = resp.GetNextPageToken()
		}
		s.mu.Lock()
		s.history = history
		s.mu.Unlock()
		return len(open) == 0
	})
	s.count("image changes that do not end", len(open))
	if !ok && soakJudgeChanges {
		t.Errorf("image changes that do not end:\n%s", strings.Join(open, "\n"))
	}
	exists := map[string]bool{}
	for _, zone := range s.clouds[0].locations {
		for _, n := range s.fleet.CoresHub.Truth(zone) {
			exists[n.ID] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, asked := range s.asked {
		// Of a notebook that is gone nobody can read whether its image changed.
		sent := s.fleet.CoresHub.Changes(id)
		if sent > asked || done[id] < s.seen[id] || sent < done[id] || exists[id] && ok && sent != done[id] {
			t.Errorf("notebook %s: the cloud changed its image %d times; %d changes were asked for, %d reported as done, %d are remembered as done",
				id, sent, asked, s.seen[id], done[id])
			for _, name := range slices.Sorted(maps.Keys(s.history)) {
				if strings.HasSuffix(s.history[name].GetNotebook(), "/"+id) {
					t.Errorf("%v", s.history[name])
				}
			}
		}
	}
}

func (s *soak) remembered(change string) *notebookv1.ImageChange {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history[change]
}

// truth is what is compared of a notebook.
type truth struct {
	Name, Image string
	State       notebookv1.Notebook_State
}

// settle waits until every location is live, was read since, and shows exactly
// what its cloud holds.
func (s *soak) settle(ctx context.Context, t *testing.T) {
	t.Helper()
	var want []truth
	for _, c := range s.clouds {
		for _, location := range c.locations {
			for _, n := range c.sim.Truth(location) {
				want = append(want, truth{fmt.Sprintf("clouds/%s/locations/%s/notebooks/%s", c.name, location, n.ID), n.Image, c.state[n.State]})
			}
		}
	}
	byName := func(a, b truth) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(want, byName)
	since := time.Now()
	why := ""
	// A second on a machine of its own; one that others use takes its time.
	ok := eventually(ctx, 3*time.Minute, func() bool {
		for _, c := range s.clouds {
			c.sim.Heal() // also opens listeners whose port was taken for a moment
		}
		if why = s.notLive(ctx, since); why != "" {
			if time.Since(since) > 5*time.Second {
				// One that was throttled may wait for minutes. A caller need not.
				_, _ = s.p.List(ctx, &notebookv1.ListRequest{MaxStaleness: durationpb.New(0)})
				s.count("forced reads at rest", 1)
			}
			return false
		}
		resp, err := s.p.List(ctx, &notebookv1.ListRequest{PageSize: 1000})
		if err != nil {
			why = err.Error()
			return false
		}
		var got []truth
		for _, n := range resp.GetNotebooks() {
			got = append(got, truth{n.GetName(), n.GetImage().GetUri(), n.GetState()})
		}
		slices.SortFunc(got, byName)
		if len(resp.GetUnreachable()) > 0 {
			why = fmt.Sprintf("unreachable: %v", resp.GetUnreachable())
		} else {
			why = gocmp.Diff(want, got)
		}
		return why == ""
	})
	if !ok {
		t.Errorf("the server does not come to show what the clouds hold:\n%s", why)
	}
	t.Logf("%d notebooks; listed as the clouds hold them after %v", len(want), time.Since(since).Round(time.Millisecond))
}

// notLive says which location is not live or was not read since a time.
func (s *soak) notLive(ctx context.Context, since time.Time) string {
	clouds, err := s.p.clouds.ListClouds(ctx, &notebookv1.ListCloudsRequest{})
	if err != nil {
		return err.Error()
	}
	for _, c := range clouds.GetClouds() {
		for _, l := range c.GetLocations() {
			if l.GetName() == noAI {
				continue
			}
			if l.GetState() != notebookv1.Location_STATE_LIVE || !l.GetLastSuccessTime().AsTime().After(since) {
				return fmt.Sprintf("%s is %v, %v, next attempt %v", l.GetName(), l.GetState(), l.GetReason(), l.GetNextAttemptTime().AsTime())
			}
		}
	}
	return ""
}

// noAI is the location in which the simulated account has no AI service.
const noAI = "clouds/scnet/locations/20091"

// compareWatchers waits until every watcher was told what List says, and reports
// those that were not.
func (s *soak) compareWatchers(ctx context.Context, t *testing.T) {
	t.Helper()
	type answer struct {
		rows  map[string]*notebookv1.Notebook
		total int
	}
	lists := map[string]answer{}
	for _, w := range s.watchers {
		if _, ok := lists[w.parent]; ok {
			continue
		}
		resp, err := s.p.List(ctx, &notebookv1.ListRequest{Parent: w.parent, PageSize: 1000})
		if err != nil {
			t.Errorf("List of %q: %v", w.parent, err)
			return
		}
		rows := map[string]*notebookv1.Notebook{}
		for _, n := range resp.GetNotebooks() {
			rows[n.GetName()] = n
		}
		lists[w.parent] = answer{rows, len(resp.GetNotebooks())}
	}
	wrong := map[*soakWatcher]string{}
	ok := eventually(ctx, 30*time.Second, func() bool {
		clear(wrong)
		for _, w := range s.watchers {
			if diff := w.differs(lists[w.parent].rows); diff != "" {
				wrong[w] = diff
			}
		}
		return len(wrong) == 0
	})
	for _, w := range s.watchers {
		w.mu.Lock()
		s.count("image changes told and taken back", w.phantoms)
		s.count("image changes whose end was not told", w.unended)
		w.mu.Unlock()
	}
	if ok {
		return
	}
	t.Errorf("%d of %d watchers were told something else than List says", len(wrong), len(s.watchers))
	shown := 0
	for w, diff := range wrong {
		if shown++; shown <= 10 {
			t.Errorf("%v:\n%s", w, diff)
		}
	}
}

// openWatchers makes the watchers, with their connections. The function that it
// returns closes those.
func (s *soak) openWatchers(t *testing.T) (closeAll func()) {
	t.Helper()
	s.lines = &cutLines{}
	conns := make([]*grpc.ClientConn, soakConns)
	for i := range conns {
		conn, err := grpc.NewClient(s.p.conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(s.lines.dial))
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = conn
	}
	transport := &http.Transport{}
	parents := []string{
		"", "", "clouds/-/locations/-", "clouds/core", "clouds/scnet", "clouds/scnet", "clouds/core/locations/xb3", "clouds/core/locations/xb2",
		"clouds/scnet/locations/11250", "clouds/scnet/locations/20057",
	}
	for i := range soakWatchers {
		w := &soakWatcher{
			soak: s, id: i, parent: parents[i%len(parents)], rng: s.rng(uint64(1000 + i)), slow: i%7 == 3, audit: i%soakAudit == 0,
			rows: map[string]version{}, last: map[string]version{}, gone: map[string]bool{}, locations: map[string]notebookv1.Location_State{},
			changes: map[string]time.Time{},
		}
		if i < soakREST {
			w.dial = dialREST(&http.Client{Transport: transport}, s.p.url)
		} else {
			w.dial = dialGRPC(notebookv1.NewNotebookServiceClient(conns[i%soakConns]))
		}
		s.watchers = append(s.watchers, w)
	}
	return func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
		transport.CloseIdleConnections()
	}
}

// cutLines are TCP connections that may be cut.
type cutLines struct {
	mu   sync.Mutex // guards open
	open []net.Conn
}

func (l *cutLines) dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		l.mu.Lock()
		l.open = append(l.open, conn)
		l.mu.Unlock()
	}
	return conn, err
}

// run resets a connection now and then, with all watches on it.
func (l *cutLines) run(ctx context.Context, rng *rand.Rand, count func(string, int)) {
	for pause(ctx, between(rng, 50, 600)) {
		l.mu.Lock()
		if len(l.open) > 0 {
			i := rng.IntN(len(l.open))
			if tcp, ok := l.open[i].(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = l.open[i].Close()
			l.open = slices.Delete(l.open, i, i+1)
			count("connections reset", 1)
		}
		l.mu.Unlock()
	}
}

// dialer opens a watch over one of the doors. next returns its frames.
type dialer func(ctx context.Context, req *notebookv1.WatchRequest) (next func() (*notebookv1.WatchResponse, error), done func(), err error)

func dialGRPC(client notebookv1.NotebookServiceClient) dialer {
	return func(ctx context.Context, req *notebookv1.WatchRequest) (func() (*notebookv1.WatchResponse, error), func(), error) {
		stream, err := client.Watch(ctx, req)
		if err != nil {
			return nil, nil, err
		}
		return stream.Recv, func() {}, nil
	}
}

// errMalformed marks what is no frame.
var errMalformed = errors.New("malformed")

func dialREST(client *http.Client, base string) dialer {
	return func(ctx context.Context, req *notebookv1.WatchRequest) (func() (*notebookv1.WatchResponse, error), func(), error) {
		path := "/v1/notebooks:watch"
		if req.GetParent() != "" {
			path = "/v1/" + req.GetParent() + "/notebooks:watch"
		}
		query := url.Values{"bookmarkInterval": {req.GetBookmarkInterval().AsDuration().String()}}
		if req.GetResumeToken() != "" {
			query.Set("resumeToken", req.GetResumeToken())
		}
		call, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path+"?"+query.Encode(), http.NoBody)
		if err != nil {
			return nil, nil, err
		}
		resp, err := client.Do(call)
		if err != nil {
			return nil, nil, err
		}
		done := func() { _ = resp.Body.Close() }
		if resp.StatusCode != http.StatusOK {
			defer done()
			body, _ := io.ReadAll(resp.Body)
			return nil, nil, fmt.Errorf("%w: HTTP %d %s", errMalformed, resp.StatusCode, body)
		}
		lines := bufio.NewReader(resp.Body)
		next := func() (*notebookv1.WatchResponse, error) {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return nil, err // and half a line, if the connection was cut there
			}
			text, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte(`{"result":`))
			text, closed := bytes.CutSuffix(text, []byte("}"))
			frame := &notebookv1.WatchResponse{}
			if !ok || !closed || protojson.Unmarshal(text, frame) != nil {
				return nil, fmt.Errorf("%w: line %q", errMalformed, line)
			}
			return frame, nil
		}
		return next, done, nil
	}
}

// version is what a watcher remembers of a version of a notebook.
type version struct {
	etag     string
	observed time.Time
	notebook *notebookv1.Notebook // kept by auditors only

	// How it was told, for the report.
	kind              notebookv1.NotebookEvent_Type
	initial           bool
	connection, frame int
}

func (v version) String() string {
	return fmt.Sprintf("etag %s observed %s, told as %v (initial %t) by connection %d, frame %d",
		v.etag, v.observed.Format(time.TimeOnly+".000"), v.kind, v.initial, v.connection, v.frame)
}

// soakWatcher follows one parent through all its connections and rebuilds what
// exists from what it is told, by the rules of the contract alone: ADDED and
// MODIFIED put, DELETED removes, reset clears, and a watch without a token starts
// from nothing.
type soakWatcher struct {
	soak   *soak
	id     int
	parent string
	dial   dialer
	slow   bool // reads with pauses
	audit  bool // remembers everything and compares with the truth
	rng    *rand.Rand

	mu          sync.Mutex // guards what is below; run's goroutine writes
	token       string
	rows        map[string]version
	last        map[string]version // the newest version told, also of what was cleared since
	gone        map[string]bool    // told as deleted; auditors only
	locations   map[string]notebookv1.Location_State
	changes     map[string]time.Time // image changes that were told and have not ended → when they last went on
	phantoms    int                  // of changes, those that nobody remembers
	unended     int                  // of changes, those that have ended all the same
	connections int
	conn        soakConn
}

// soakConn is what a watcher knows of its present connection.
type soakConn struct {
	frames  int  // since the beginning, or since the reset
	resumed bool // with a token that was accepted
	ended   bool // the snapshot, or what was missed, has been told
}

// String names the watcher in reports.
func (w *soakWatcher) String() string {
	door := "gRPC"
	if w.id < soakREST {
		door = "REST"
	}
	return fmt.Sprintf("watcher %d of %q over %s, connection %d", w.id, w.parent, door, w.connections)
}

// run connects again and again until ctx ends.
func (w *soakWatcher) run(ctx context.Context) {
	pause(ctx, between(w.rng, 0, 3000)) // they do not all come at once
	for ctx.Err() == nil {
		w.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		away := between(w.rng, 1, 1000)
		if w.rng.IntN(60) == 0 {
			away = soakTombstones + between(w.rng, 0, 2000)
		}
		for away > 0 && !w.soak.calm.Load() { // at rest everybody comes back
			step := min(away, 100*time.Millisecond)
			pause(ctx, step)
			away -= step
		}
	}
}

// connect watches until the connection breaks, mostly because it is cut here:
// after a number of frames, which may be in the middle of a snapshot, or after a
// time.
func (w *soakWatcher) connect(parent context.Context) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	cut := func() {
		if !w.soak.calm.Load() {
			cancel()
		}
	}
	cutAfter := -1
	if w.rng.IntN(3) == 0 {
		cutAfter = w.rng.IntN(200)
	} else {
		timer := time.AfterFunc(between(w.rng, 50, 10000), cut)
		defer timer.Stop()
	}

	req := &notebookv1.WatchRequest{Parent: w.parent, BookmarkInterval: durationpb.New(5 * time.Second)}
	w.mu.Lock()
	if w.rng.IntN(15) == 0 {
		w.token = "" // whoever keeps no token starts over
	}
	req.ResumeToken = w.token
	if w.token == "" {
		clear(w.rows)
		clear(w.locations)
		clear(w.changes)
	}
	w.connections++
	w.conn = soakConn{resumed: w.token != ""}
	w.mu.Unlock()
	w.soak.count("watches", 1)

	next, done, err := w.dial(ctx, req)
	if err == nil {
		defer done()
	}
	for n := 0; err == nil; n++ {
		var frame *notebookv1.WatchResponse
		if frame, err = next(); err != nil {
			break
		}
		w.take(frame)
		if n == cutAfter {
			cut()
		}
		if w.slow && !w.soak.calm.Load() && w.rng.IntN(8) == 0 {
			pause(ctx, between(w.rng, 1, 60))
		}
	}
	if ctx.Err() != nil {
		return
	}
	// Only a connection that was reset ends otherwise, and then nobody on the
	// other side says why.
	if st := status.Convert(err); w.id < soakREST || st.Code() != codes.Unavailable || len(st.Details()) > 0 {
		w.soak.problem("%v: ended with %v", w, err)
	}
}

// take checks a frame and does what it says.
//
// Of the order of versions a caller sees one thing: observe_time, when the poll
// began that saw a version. One poller at a time reads a location, so of two
// versions of a notebook the later has the later one. Tokens are opaque, and
// etags have no order.
func (w *soakWatcher) take(f *notebookv1.WatchResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	problem := func(format string, args ...any) {
		w.soak.problem("%v, frame %d: %s: %.600v", w, w.conn.frames, fmt.Sprintf(format, args...), f)
	}
	first := w.conn.frames == 0
	w.conn.frames++
	token, initial := f.GetResumeToken(), f.GetNotebook().GetInitial()
	if token == "" && !initial || token != "" && initial {
		problem("a frame must have a token unless it is of a snapshot")
	}
	if token != "" {
		w.token = token
	}
	if first && f.GetLocation() == nil && f.GetReset_() == nil {
		problem("the first frame must be a location")
	}
	switch e := f.GetEvent().(type) {
	case *notebookv1.WatchResponse_Location:
		l := e.Location
		if !w.covers(l.GetName()) || l.GetState() == notebookv1.Location_STATE_UNSPECIFIED {
			problem("not a location of this watch")
		}
		w.locations[l.GetName()] = l.GetState()
	case *notebookv1.WatchResponse_Notebook:
		w.notebook(e.Notebook, problem)
	case *notebookv1.WatchResponse_Bookmark:
		switch kind := e.Bookmark.GetKind(); {
		case kind == notebookv1.Bookmark_KIND_SNAPSHOT_END && !w.conn.ended:
			w.conn.ended = true
			if !w.conn.resumed { // what is not there was deleted while nobody listened
				maps.DeleteFunc(w.last, func(name string, _ version) bool { _, ok := w.rows[name]; return !ok })
			}
		case kind == notebookv1.Bookmark_KIND_HEARTBEAT && w.conn.ended:
		default:
			problem("not the time for this bookmark")
		}
	case *notebookv1.WatchResponse_Reset_:
		if !first || !w.conn.resumed {
			problem("not the time for a reset")
		}
		w.soak.count("resets "+e.Reset_.GetReason(), 1)
		clear(w.rows)
		clear(w.changes)
		w.conn = soakConn{} // a location comes next
	case *notebookv1.WatchResponse_ImageChange:
		w.imageChange(e.ImageChange, problem)
	default:
		problem("no event")
	}
}

func (w *soakWatcher) imageChange(c *notebookv1.ImageChange, problem func(string, ...any)) {
	old, known := w.changes[c.GetName()]
	if !w.covers(c.GetNotebook()) || c.GetName() == "" || c.GetUpdateTime() == nil {
		problem("not an image change of this watch")
	}
	if known && c.GetUpdateTime().AsTime().Before(old) {
		problem("an older state of the change than that of %v", old)
	}
	w.changes[c.GetName()] = c.GetUpdateTime().AsTime()
	if changeEnded(c) {
		delete(w.changes, c.GetName())
	}
}

// changeEnded reports whether nothing more comes of an image change.
func changeEnded(c *notebookv1.ImageChange) bool {
	switch c.GetPhase() {
	case notebookv1.ImageChange_PHASE_SUCCEEDED, notebookv1.ImageChange_PHASE_FAILED, notebookv1.ImageChange_PHASE_UNCHANGED:
		return true
	default:
		return false
	}
}

func (w *soakWatcher) covers(name string) bool {
	return w.parent == "" || strings.Contains(w.parent, "-/") || strings.HasPrefix(name+"/", w.parent+"/")
}

func (w *soakWatcher) notebook(e *notebookv1.NotebookEvent, problem func(string, ...any)) {
	n := e.GetNotebook()
	name, kind := n.GetName(), e.GetType()
	v := version{
		etag: n.GetEtag(), observed: n.GetObserveTime().AsTime(),
		kind: kind, initial: e.GetInitial(), connection: w.connections, frame: w.conn.frames,
	}
	if w.audit {
		v.notebook = n
	}
	if !w.covers(name) || v.etag == "" || n.GetObserveTime() == nil {
		problem("not a notebook of this watch")
	}
	if e.GetInitial() != (!w.conn.resumed && !w.conn.ended) {
		problem("initial must be set in a snapshot, and only there")
	}
	if (kind == notebookv1.NotebookEvent_TYPE_MODIFIED) != (len(e.GetChangedFields()) > 0) {
		problem("changed_fields belong to MODIFIED")
	}
	if old, ok := w.last[name]; ok && (v.observed.Before(old.observed) || v.observed.Equal(old.observed) && v.etag != old.etag) {
		problem("an older version than %v", old)
	}
	_, known := w.rows[name]
	w.last[name] = v
	switch kind {
	case notebookv1.NotebookEvent_TYPE_ADDED, notebookv1.NotebookEvent_TYPE_MODIFIED:
		if kind == notebookv1.NotebookEvent_TYPE_MODIFIED && !known {
			// A resumed watch is told the newest versions in their order, so one
			// that was cut while it caught up may have missed the ADDED. What it
			// puts is the same.
			w.soak.count("MODIFIED before ADDED", 1)
			if !w.conn.resumed || w.conn.ended {
				problem("MODIFIED, and it was never added")
			}
		}
		if kind == notebookv1.NotebookEvent_TYPE_ADDED && known && w.conn.ended {
			problem("ADDED, and it was there")
		}
		if w.gone[name] { // the simulated clouds give no id twice
			problem("it was deleted, and is back")
		}
		w.rows[name] = v
	case notebookv1.NotebookEvent_TYPE_DELETED:
		if !known && (!w.conn.resumed || w.conn.ended) {
			problem("DELETED, and it was never added")
		}
		delete(w.rows, name)
		delete(w.last, name)
		if w.audit {
			w.gone[name] = true
			w.soak.count("deletions audited", 1)
			if w.soak.exists(name) {
				problem("DELETED, and its cloud has it")
			}
		}
	default:
		problem("no type for a watch without a filter")
	}
}

// exists asks the clouds themselves.
func (s *soak) exists(name string) bool {
	part := strings.Split(name, "/")
	for _, c := range s.clouds {
		if c.name == part[1] {
			return slices.ContainsFunc(c.sim.Truth(part[3]), func(n cloudsim.Notebook) bool { return n.ID == part[5] })
		}
	}
	return false
}

// differs says in what a watcher that has caught up differs from a list.
func (w *soakWatcher) differs(list map[string]*notebookv1.Notebook) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	if !w.conn.ended {
		out = append(out, "it has not caught up")
	}
	for name, n := range list {
		switch v, ok := w.rows[name]; {
		case !ok:
			out = append(out, "missing "+name)
		case v.etag != n.GetEtag():
			out = append(out, fmt.Sprintf("%s: %v; listed with etag %s observed %s",
				name, v, n.GetEtag(), n.GetObserveTime().AsTime().Format(time.TimeOnly+".000")))
		case v.notebook != nil && !proto.Equal(v.notebook, n):
			out = append(out, fmt.Sprintf("%s has the same etag and another content: %s", name, gocmp.Diff(v.notebook.String(), n.String())))
		}
	}
	for name, v := range w.rows {
		if _, ok := list[name]; !ok {
			out = append(out, fmt.Sprintf("%s is not listed: %v", name, v))
		}
	}
	for name, state := range w.locations {
		want := notebookv1.Location_STATE_LIVE
		if name == noAI {
			want = notebookv1.Location_STATE_DISABLED
		}
		if state != want {
			out = append(out, fmt.Sprintf("%s was told to be %v", name, state))
		}
	}
	w.phantoms, w.unended = 0, 0
	for name, at := range w.changes { // all changes have ended
		end := "which nobody remembers"
		if c := w.soak.remembered(name); c == nil {
			w.phantoms++
		} else {
			w.unended++
			end = fmt.Sprintf("which ended as %v at %s", c.GetPhase(), c.GetUpdateTime().AsTime().Format(time.TimeOnly+".000"))
		}
		if soakJudgeChanges {
			out = append(out, fmt.Sprintf("was not told the end of %s, last heard of at %s, %s", name, at.Format(time.TimeOnly+".000"), end))
		}
	}
	slices.Sort(out)
	return strings.Join(out[:min(len(out), 10)], "\n")
}
