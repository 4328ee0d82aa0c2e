package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/notebookd/notebookd/client"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// stream is what a script has in its hands.
type stream = grpc.ServerStreamingServer[notebookv1.WatchResponse]

// act plays one connection; its return ends the stream.
type act func(req *notebookv1.WatchRequest, s stream) error

// call is one call of Watch that arrived.
type call struct {
	at    time.Time
	ended time.Time
	token string
	req   *notebookv1.WatchRequest
}

// fake is a NotebookService that plays one act for each call of Watch, the last
// one again and again.
type fake struct {
	notebookv1.UnimplementedNotebookServiceServer

	mu     sync.Mutex // guards what is below
	script []act
	calls  []*call
}

func (f *fake) Watch(req *notebookv1.WatchRequest, s stream) error {
	f.mu.Lock()
	play := f.script[min(len(f.calls), len(f.script)-1)]
	c := &call{at: time.Now(), token: req.GetResumeToken(), req: req}
	f.calls = append(f.calls, c)
	f.mu.Unlock()
	err := play(req, s)
	f.mu.Lock()
	defer f.mu.Unlock()
	c.ended = time.Now()
	return err
}

// seen returns the calls that have arrived.
func (f *fake) seen() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]call, 0, len(f.calls))
	for _, c := range f.calls {
		out = append(out, *c)
	}
	return out
}

func (f *fake) tokens() []string {
	var out []string
	for _, c := range f.seen() {
		out = append(out, c.token)
	}
	return out
}

// rig is what a test in a bubble has in its hands.
type rig struct {
	*testing.T
	fake    *fake
	service notebookv1.NotebookServiceClient
}

// bubble runs a test in a bubble of its own: time passes when everybody waits,
// and the bubble cannot end while a goroutine of the client, of gRPC or of the
// test is left, so that every test here is also one of leaks.
func bubble(t *testing.T, script []act, test func(t *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: script}
		server := grpc.NewServer()
		notebookv1.RegisterNotebookServiceServer(server, f)
		listener := bufconn.Listen(1 << 20)
		var wg sync.WaitGroup
		wg.Go(func() { _ = server.Serve(listener) })
		conn, err := grpc.NewClient("passthrough:///fake", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = conn.Close()
			server.Stop()
			wg.Wait()
		}()
		test(&rig{t, f, notebookv1.NewNotebookServiceClient(conn)})
	})
}

const location = "clouds/core/locations/xb3"

func notebook(id, version string) *notebookv1.Notebook {
	return &notebookv1.Notebook{Name: location + "/notebooks/" + id, DisplayName: version, Etag: "etag-" + version}
}

func event(of notebookv1.NotebookEvent_Type, id, version, token string) *notebookv1.WatchResponse {
	return &notebookv1.WatchResponse{ResumeToken: token, Event: &notebookv1.WatchResponse_Notebook{
		Notebook: &notebookv1.NotebookEvent{Type: of, Notebook: notebook(id, version)},
	}}
}

func added(id, version, token string) *notebookv1.WatchResponse {
	return event(notebookv1.NotebookEvent_TYPE_ADDED, id, version, token)
}

func modified(id, version, token string) *notebookv1.WatchResponse {
	return event(notebookv1.NotebookEvent_TYPE_MODIFIED, id, version, token)
}

func deleted(id, version, token string) *notebookv1.WatchResponse {
	return event(notebookv1.NotebookEvent_TYPE_DELETED, id, version, token)
}

func left(id, version, token string) *notebookv1.WatchResponse {
	return event(notebookv1.NotebookEvent_TYPE_LEFT_FILTER, id, version, token)
}

func bookmark(kind notebookv1.Bookmark_Kind, token string) *notebookv1.WatchResponse {
	return &notebookv1.WatchResponse{ResumeToken: token, Event: &notebookv1.WatchResponse_Bookmark{Bookmark: &notebookv1.Bookmark{Kind: kind}}}
}

func end(token string) *notebookv1.WatchResponse {
	return bookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END, token)
}

func reset() *notebookv1.WatchResponse {
	return &notebookv1.WatchResponse{ResumeToken: "zero", Event: &notebookv1.WatchResponse_Reset_{Reset_: &notebookv1.Reset{Reason: "TOKEN_EXPIRED"}}}
}

func place(name string, state notebookv1.Location_State, token string) *notebookv1.WatchResponse {
	return &notebookv1.WatchResponse{ResumeToken: token, Event: &notebookv1.WatchResponse_Location{Location: &notebookv1.Location{
		Name: name, State: state, LastSuccessTime: timestamppb.Now(),
	}}}
}

// send plays frames.
func send(frames ...*notebookv1.WatchResponse) act {
	return func(_ *notebookv1.WatchRequest, s stream) error {
		for _, frame := range frames {
			if err := s.Send(frame); err != nil {
				return err
			}
		}
		return nil
	}
}

// then plays one act after another, for as long as they succeed.
func then(acts ...act) act {
	return func(req *notebookv1.WatchRequest, s stream) error {
		for _, a := range acts {
			if err := a(req, s); err != nil {
				return err
			}
		}
		return nil
	}
}

// stay keeps the stream open and silent.
func stay(_ *notebookv1.WatchRequest, s stream) error {
	<-s.Context().Done()
	return s.Context().Err()
}

// after lets time pass.
func after(d time.Duration) act {
	return func(_ *notebookv1.WatchRequest, s stream) error {
		select {
		case <-time.After(d):
			return nil
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

// fail ends the stream with an error of notebookd.
func fail(code codes.Code, reason string, details ...protoadapt.MessageV1) act {
	return func(*notebookv1.WatchRequest, stream) error {
		st, err := status.New(code, "no").WithDetails(append([]protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: "notebookd"}}, details...)...)
		if err != nil {
			return err
		}
		return st.Err()
	}
}

// short is a change in a few words.
func short(c client.Change) string {
	if c.Location != nil {
		return fmt.Sprintf("%v %s %v", c.Type, c.Name[strings.LastIndexByte(c.Name, '/')+1:], c.Location.GetState())
	}
	text := fmt.Sprintf("%v %s %s", c.Type, c.Name[strings.LastIndexByte(c.Name, '/')+1:], c.Notebook.GetDisplayName())
	if c.Type == client.Modified {
		text += " was " + c.Before.GetDisplayName()
	}
	return text
}

// consumer reads Changes and keeps what it was told.
type consumer struct {
	mu      sync.Mutex // guards what is below
	changes []client.Change
	err     error
	wg      sync.WaitGroup
}

// consume reads until the end of ctx or of the Watcher.
func consume(ctx context.Context, w *client.Watcher) *consumer {
	c := &consumer{}
	c.wg.Go(func() {
		for change, err := range w.Changes(ctx) {
			c.mu.Lock()
			if err != nil {
				c.err = err
			} else {
				c.changes = append(c.changes, change)
			}
			c.mu.Unlock()
		}
	})
	return c
}

// told returns what came since the last call.
func (c *consumer) told() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, change := range c.changes {
		out = append(out, short(change))
	}
	c.changes = nil
	return out
}

func (c *consumer) wait() error {
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func want[T any](tb testing.TB, what string, got, want T) {
	tb.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func versions(w *client.Watcher) map[string]string {
	out := map[string]string{}
	for name, n := range w.State().Notebooks {
		out[name[strings.LastIndexByte(name, '/')+1:]] = n.GetDisplayName()
	}
	return out
}

// TestFollows: the snapshot, then changes; State, Synced, Token and Notebook
// say the same as Changes.
func TestFollows(t *testing.T) {
	script := []act{then(
		send(place(location, notebookv1.Location_STATE_LIVE, "zero"), added("a", "1", ""), added("b", "1", "")),
		after(time.Second),
		send(end("t1")),
		after(time.Second),
		send(modified("a", "2", "t2"), added("c", "1", "t3"), left("b", "9", "t4"), deleted("c", "1", "t5"),
			place(location, notebookv1.Location_STATE_LIVE, "t5"), place(location, notebookv1.Location_STATE_STALE, "t6")),
		stay,
	)}
	bubble(t, script, func(t *rig) {
		w := client.NewWatcher(t.Context(), t.service, client.Config{Parent: "clouds/core", Filter: "x", BookmarkInterval: 30 * time.Second})
		defer w.Close()
		c := consume(t.Context(), w)
		time.Sleep(time.Second / 2)
		synctest.Wait()
		if w.Synced() || w.Token() != "" {
			t.Errorf("within the snapshot: synced %v, token %q", w.Synced(), w.Token())
		}
		want(t, "told within the snapshot", c.told(), nil)
		want(t, "known within the snapshot", versions(w), map[string]string{"a": "1", "b": "1"})
		if err := w.WaitSynced(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for i, change := range c.changes {
			if last := i == len(c.changes)-1; !change.Initial || (change.Token != "") != last {
				t.Errorf("change %d: initial %v, token %q", i, change.Initial, change.Token)
			}
		}
		want(t, "told at first", c.told(), []string{"ADDED xb3 STATE_LIVE", "ADDED a 1", "ADDED b 1"})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		got := c.told()
		// Whether c was told before it went depends on who was faster.
		got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, " c ") })
		want(t, "told then", got, []string{"MODIFIED a 2 was 1", "LEFT_FILTER b 9", "MODIFIED xb3 STATE_STALE"})
		want(t, "known at last", versions(w), map[string]string{"a": "2"})
		if n, ok := w.Notebook(location + "/notebooks/a"); !ok || n.GetDisplayName() != "2" {
			t.Errorf("notebook a = %v", n)
		}
		if _, ok := w.Notebook(location); ok {
			t.Error("a location is taken for a notebook")
		}
		if s := w.State(); s.Token != "t6" || w.Token() != "t6" || s.Locations[location].GetState() != notebookv1.Location_STATE_STALE {
			t.Errorf("state = %v", s)
		}
		req := t.fake.seen()[0].req
		if req.GetParent() != "clouds/core" || req.GetFilter() != "x" || req.GetBookmarkInterval().AsDuration() != 30*time.Second {
			t.Errorf("request = %v", req)
		}
	})
}

// TestResumes: a stream that breaks goes on after the last token, and what comes
// twice is told once.
func TestResumes(t *testing.T) {
	for name, breaks := range map[string]act{
		"broken":      fail(codes.Unavailable, "DRAINING"),
		"cut":         send(), // an end without CLOSING
		"closing":     send(bookmark(notebookv1.Bookmark_KIND_CLOSING, "t3")),
		"slow reader": fail(codes.ResourceExhausted, "SLOW_READER"),
		"internal":    fail(codes.Internal, "INTERNAL"),
	} {
		t.Run(name, func(t *testing.T) {
			script := []act{
				then(send(added("a", "1", ""), end("t1"), modified("a", "2", "t2"), modified("a", "3", "t3")), breaks),
				then(send(place(location, notebookv1.Location_STATE_LIVE, "t3"), modified("a", "3", "t3"), added("a", "3", "t3"), deleted("never", "1", "t4"),
					left("told", "1", "t4"), added("b", "1", "t5"), end("t5")), stay),
			}
			bubble(t, script, func(t *rig) {
				w := client.NewWatcher(t.Context(), t.service, client.Config{})
				defer w.Close()
				c := consume(t.Context(), w)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				want(t, "tokens sent", t.fake.tokens(), []string{"", "t3"})
				want(t, "known", versions(w), map[string]string{"a": "3", "b": "1"})
				told := c.told()
				times := map[string]int{}
				for _, s := range told {
					if strings.Contains(s, " a 3") {
						times["a 3"]++
					}
					if strings.Contains(s, "never") || strings.Contains(s, "told") {
						t.Errorf("told of what was never known: %s", s)
					}
				}
				if times["a 3"] != 1 {
					t.Errorf("version 3 of a was told %d times: %v", times["a 3"], told)
				}
			})
		})
	}
}

// TestReset: what vanished while the server could not tell is told as deleted,
// at the end of the snapshot and not before; what is as it was is not told.
func TestReset(t *testing.T) {
	script := []act{
		then(send(place(location, notebookv1.Location_STATE_LIVE, "zero"), place(location+"-old", notebookv1.Location_STATE_LIVE, "zero"),
			added("a", "1", ""), added("b", "1", ""), added("c", "1", ""), end("t1")), fail(codes.Unavailable, "")),
		// The snapshot breaks in the middle: it must not count.
		then(send(reset(), place(location, notebookv1.Location_STATE_LIVE, "zero"), added("a", "1", "")), fail(codes.Unavailable, "")),
		then(send(place(location, notebookv1.Location_STATE_LIVE, "zero"), added("b", "2", ""), added("d", "1", "")),
			after(time.Second), send(added("a", "1", ""), end("t9")), stay),
	}
	bubble(t, script, func(t *rig) {
		w := client.NewWatcher(t.Context(), t.service, client.Config{})
		defer w.Close()
		if err := w.WaitSynced(t.Context()); err != nil {
			t.Fatal(err)
		}
		c := consume(t.Context(), w)
		synctest.Wait()
		want(t, "told at first", c.told(), []string{"ADDED xb3 STATE_LIVE", "ADDED xb3-old STATE_LIVE", "ADDED a 1", "ADDED b 1", "ADDED c 1"})
		for len(t.fake.seen()) < 3 {
			time.Sleep(50 * time.Millisecond)
		}
		synctest.Wait()
		want(t, "known within the second snapshot", versions(w), map[string]string{"a": "1", "b": "2", "c": "1", "d": "1"})
		if !w.Synced() || w.Token() != "" || w.State().Token != "" {
			t.Errorf("synced %v, token %q: there is none for half a snapshot", w.Synced(), w.Token())
		}
		want(t, "told within the second snapshot", c.told(), []string{"MODIFIED b 2 was 1", "ADDED d 1"})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		got := c.told()
		slices.Sort(got)
		want(t, "told at its end", got, []string{"DELETED c 1", "DELETED xb3-old STATE_LIVE"})
		want(t, "known at its end", versions(w), map[string]string{"a": "1", "b": "2", "d": "1"})
		want(t, "tokens sent", t.fake.tokens(), []string{"", "t1", ""})
		if w.Token() != "t9" {
			t.Errorf("token %q", w.Token())
		}
	})
}

// TestResumeTokenInvalid: a token that the server refuses is dropped at once.
func TestResumeTokenInvalid(t *testing.T) {
	script := []act{
		fail(codes.InvalidArgument, "RESUME_TOKEN_INVALID"),
		then(send(added("a", "2", ""), end("t1")), stay),
	}
	bubble(t, script, func(t *rig) {
		begun := time.Now()
		w := client.NewWatcher(t.Context(), t.service, client.Config{From: client.State{
			Token: "old", Notebooks: map[string]*notebookv1.Notebook{location + "/notebooks/a": notebook("a", "1"), location + "/notebooks/b": notebook("b", "1")},
		}})
		defer w.Close()
		c := consume(t.Context(), w)
		if err := w.WaitSynced(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want(t, "told", c.told(), []string{"MODIFIED a 2 was 1", "DELETED b 1"})
		want(t, "tokens sent", t.fake.tokens(), []string{"old", ""})
		if d := time.Since(begun); d != 0 {
			t.Errorf("it paused for %v", d)
		}
	})

	// A server that refuses what was not sent is refused.
	bubble(t, script[:1], func(t *rig) {
		w := client.NewWatcher(t.Context(), t.service, client.Config{})
		defer w.Close()
		if err := w.WaitSynced(t.Context()); status.Code(err) != codes.InvalidArgument {
			t.Errorf("error %v", err)
		}
	})
}

// TestFrom: a stored state is gone on from, and only what differs is told.
func TestFrom(t *testing.T) {
	script := []act{
		then(send(added("a", "1", ""), added("b", "1", ""), added("c", "1", ""), end("t1")), stay),
		then(send(modified("a", "2", "t2"), deleted("b", "1", "t3"), end("t3")), stay),
	}
	bubble(t, script, func(t *rig) {
		w := client.NewWatcher(t.Context(), t.service, client.Config{})
		if err := w.WaitSynced(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.Close()
		stored := w.State() // still there
		w = client.NewWatcher(t.Context(), t.service, client.Config{From: stored})
		defer w.Close()
		want(t, "known before anything is told", versions(w), map[string]string{"a": "1", "b": "1", "c": "1"})
		first, second := consume(t.Context(), w), consume(t.Context(), w)
		synctest.Wait()
		for _, c := range []*consumer{first, second} {
			want(t, "told", c.told(), []string{"MODIFIED a 2 was 1", "DELETED b 1"})
		}
		want(t, "known", versions(w), map[string]string{"a": "2", "c": "1"})
		want(t, "tokens sent", t.fake.tokens(), []string{"", "t1"})
		if len(stored.Notebooks) != 3 || stored.Token != "t1" {
			t.Errorf("the stored state was changed: %v", stored)
		}
	})
}

// TestSilence: a stream without a frame for three bookmark intervals is
// replaced; heartbeats keep one alive.
func TestSilence(t *testing.T) {
	const interval = 10 * time.Second
	beat := then(after(interval), send(bookmark(notebookv1.Bookmark_KIND_HEARTBEAT, "beat")))
	script := []act{
		then(send(end("t1")), beat, beat, beat, beat, beat, stay),
		stay, // not even a first frame
		then(send(end("t2")), stay),
	}
	bubble(t, script, func(t *rig) {
		w := client.NewWatcher(t.Context(), t.service, client.Config{BookmarkInterval: interval})
		defer w.Close()
		for len(t.fake.seen()) < 3 {
			time.Sleep(time.Second)
		}
		calls := t.fake.seen()
		if d := calls[0].ended.Sub(calls[0].at); d != 8*interval {
			t.Errorf("the first stream ended after %v, want %v", d, 8*interval)
		}
		if d := calls[1].ended.Sub(calls[1].at); d != 3*interval {
			t.Errorf("the second stream ended after %v, want %v", d, 3*interval)
		}
		want(t, "tokens sent", t.fake.tokens(), []string{"", "beat", "beat"})
	})
	// The default is the server's.
	bubble(t, []act{then(send(end("t1")), stay)}, func(t *rig) {
		w := client.NewWatcher(t.Context(), t.service, client.Config{})
		defer w.Close()
		time.Sleep(61 * time.Second)
		calls := t.fake.seen()
		if d := calls[0].ended.Sub(calls[0].at); len(calls) != 2 || d != time.Minute || calls[0].req.GetBookmarkInterval() != nil {
			t.Errorf("%d calls, the first of them for %v with %v", len(calls), d, calls[0].req.GetBookmarkInterval())
		}
	})
}

// TestBackoff: pauses double up to their bound, are spread, and begin anew after
// a healthy stream.
func TestBackoff(t *testing.T) {
	broken := fail(codes.Unavailable, "")
	var script []act
	for range 12 {
		script = append(script, broken)
	}
	script = append(script, then(send(end("t1")), after(31*time.Second), broken), then(send(end("t2")), stay))
	seen := map[time.Duration]bool{}
	for range 8 {
		bubble(t, script, func(t *rig) {
			w := client.NewWatcher(t.Context(), t.service, client.Config{})
			defer w.Close()
			for len(t.fake.seen()) < 14 {
				time.Sleep(time.Second)
			}
			calls := t.fake.seen()
			longest := 250 * time.Millisecond
			for i := 1; i <= 12; i++ {
				pause := calls[i].at.Sub(calls[i-1].ended)
				if pause < longest/2 || pause > longest {
					t.Errorf("pause %d is %v, want %v to %v", i, pause, longest/2, longest)
				}
				seen[pause] = true
				longest = min(2*longest, 30*time.Second)
			}
			if pause := calls[13].at.Sub(calls[12].ended); pause > 250*time.Millisecond {
				t.Errorf("the pause after a healthy stream is %v", pause)
			}
		})
	}
	if len(seen) < 8*12-4 {
		t.Errorf("only %d pauses of %d differ: they are not spread", len(seen), 8*12)
	}
	t.Run("short streams", func(t *testing.T) { // a server that falls over at each try is not hammered
		script := []act{then(send(end("t1")), send(bookmark(notebookv1.Bookmark_KIND_CLOSING, "t1")))}
		bubble(t, script, func(t *rig) {
			w := client.NewWatcher(t.Context(), t.service, client.Config{MinBackoff: time.Second, MaxBackoff: 10 * time.Second})
			defer w.Close()
			time.Sleep(10 * time.Minute)
			if n := len(t.fake.seen()); n < 60 || n > 125 {
				t.Errorf("%d calls in 10 minutes", n)
			}
		})
	})
}

// TestRetryInfo: it never comes earlier than the server says.
func TestRetryInfo(t *testing.T) {
	retry := func(d time.Duration) act {
		return fail(codes.ResourceExhausted, "TOO_MANY_WATCHES", &errdetails.RetryInfo{RetryDelay: durationpb.New(d)})
	}
	script := []act{retry(7 * time.Second), retry(-time.Hour), retry(1000 * time.Hour), then(send(end("t1")), stay)}
	bubble(t, script, func(t *rig) {
		w := client.NewWatcher(t.Context(), t.service, client.Config{})
		defer w.Close()
		if err := w.WaitSynced(t.Context()); err != nil {
			t.Fatal(err)
		}
		calls := t.fake.seen()
		for i, bounds := range [][2]time.Duration{{7 * time.Second, 7*time.Second + 250*time.Millisecond}, {0, 500 * time.Millisecond}, {5 * time.Minute, 5*time.Minute + time.Second}} {
			if d := calls[i+1].at.Sub(calls[i].ended); d < bounds[0] || d > bounds[1] {
				t.Errorf("pause %d is %v, want %v to %v", i, d, bounds[0], bounds[1])
			}
		}
	})
}

// TestPermanent: what another attempt cannot mend is told to everybody, after
// what was known before.
func TestPermanent(t *testing.T) {
	for _, tt := range []struct {
		code   codes.Code
		reason string
	}{
		{codes.InvalidArgument, "FILTER_INVALID"},
		{codes.NotFound, "CLOUD_NOT_FOUND"},
		{codes.Unauthenticated, "UNAUTHENTICATED"},
		{codes.PermissionDenied, "PERMISSION_DENIED"},
		{codes.Unimplemented, "OPERATION_NOT_SUPPORTED"},
	} {
		t.Run(tt.code.String(), func(t *testing.T) {
			bubble(t, []act{fail(tt.code, tt.reason)}, func(t *rig) {
				w := client.NewWatcher(t.Context(), t.service, client.Config{})
				defer w.Close()
				c := consume(t.Context(), w)
				for what, err := range map[string]error{"WaitSynced": w.WaitSynced(t.Context()), "Changes": c.wait(), "Err": w.Err()} {
					if status.Code(err) != tt.code {
						t.Errorf("%s: error %v, want %v", what, err, tt.code)
					}
				}
				time.Sleep(time.Hour)
				if n := len(t.fake.seen()); n != 1 {
					t.Errorf("%d calls", n)
				}
			})
			script := []act{then(send(added("a", "1", ""), end("t1")), after(time.Second), fail(tt.code, tt.reason))}
			bubble(t, script, func(t *rig) {
				w := client.NewWatcher(t.Context(), t.service, client.Config{})
				defer w.Close()
				time.Sleep(time.Minute)
				c := consume(t.Context(), w)
				if err := c.wait(); status.Code(err) != tt.code {
					t.Errorf("error %v, want %v", err, tt.code)
				}
				want(t, "told before the error", c.told(), []string{"ADDED a 1"})
				if err := w.WaitSynced(t.Context()); err != nil {
					t.Errorf("it was synced: %v", err)
				}
			})
		})
	}
}

// TestSlowConsumer: a consumer that does not read holds nothing up, and is told
// the latest version of each notebook once, and nothing of what came and went.
func TestSlowConsumer(t *testing.T) {
	const churn = 5000
	script := []act{then(
		send(added("a", "1", ""), added("b", "1", ""), added("c", "1", ""), end("t1")),
		func(_ *notebookv1.WatchRequest, s stream) error {
			for i := range churn { // far more than a window of HTTP/2 holds
				for _, frame := range []*notebookv1.WatchResponse{
					modified("a", fmt.Sprint("a", i), fmt.Sprint("a", i)), added("x"+fmt.Sprint(i), "1", "x"), deleted("x"+fmt.Sprint(i), "1", "y"),
				} {
					if err := s.Send(frame); err != nil {
						return err
					}
				}
			}
			return send(modified("b", "2", "b2"), modified("b", "1", "b1"), deleted("c", "1", "c"), added("c", "2", "c2"), deleted("b", "1", "b"), added("d", "1", "last"))(nil, s)
		},
		stay,
	)}
	bubble(t, script, func(t *rig) {
		w := client.NewWatcher(t.Context(), t.service, client.Config{})
		defer w.Close()
		if err := w.WaitSynced(t.Context()); err != nil {
			t.Fatal(err)
		}
		var told []string
		var token string
		for change, err := range w.Changes(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			told = append(told, short(change))
			if len(told) == 1 { // it has a, and does not read on
				synctest.Wait()
				want(t, "known meanwhile", versions(w), map[string]string{"a": fmt.Sprint("a", churn-1), "c": "2", "d": "1"})
			}
			if token = change.Token; token != "" {
				break
			}
		}
		// b has come and gone again before it was told.
		want(t, "kinds told", len(told), 4)
		if !strings.HasPrefix(told[0], "ADDED a ") {
			t.Errorf("told first: %s", told[0])
		}
		rest := told[1:]
		slices.Sort(rest)
		want(t, "told after the pause", rest, []string{"ADDED c 2", "ADDED d 1", fmt.Sprintf("MODIFIED a a%d was %s", churn-1, strings.TrimPrefix(told[0], "ADDED a "))})
		want(t, "token", token, "last")
	})
}

// TestEnds: Close, the context of the Watcher and the context of an iteration
// end what they should, with their reason, and nothing is left running.
func TestEnds(t *testing.T) {
	script := []act{then(send(added("a", "1", ""), end("t1")), stay)}
	cause := errors.New("my reason")
	bubble(t, script, func(t *rig) {
		ctx, cancel := context.WithCancelCause(t.Context())
		closed, canceled := client.NewWatcher(t.Context(), t.service, client.Config{}), client.NewWatcher(ctx, t.service, client.Config{})
		a, b := consume(t.Context(), closed), consume(t.Context(), canceled)
		mine, leave := context.WithCancel(t.Context())
		c := consume(mine, closed)
		synctest.Wait()
		leave()
		if err := c.wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("the iteration that left ended with %v", err)
		}
		if closed.Err() != nil {
			t.Errorf("its Watcher ended with %v", closed.Err())
		}
		closed.Close()
		closed.Close()
		cancel(cause)
		for what, err := range map[string]error{"Changes": a.wait(), "Err": closed.Err()} {
			if !errors.Is(err, client.ErrClosed) {
				t.Errorf("closed: %s: error %v", what, err)
			}
		}
		if err := b.wait(); !errors.Is(err, cause) {
			t.Errorf("canceled: error %v", err)
		}
		canceled.Close()
	})
	// While it connects in vain, and while it pauses.
	for name, script := range map[string][]act{"silent": {stay}, "pausing": {fail(codes.Unavailable, "")}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, script, func(t *rig) {
				w := client.NewWatcher(t.Context(), t.service, client.Config{})
				time.Sleep(20 * time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := w.WaitSynced(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v", err)
				}
				c := consume(ctx, w)
				begun := time.Now()
				w.Close()
				if d := time.Since(begun); d != 0 {
					t.Errorf("Close took %v", d)
				}
				if err := c.wait(); err == nil {
					t.Error("the iteration ended without an error")
				}
			})
		})
	}
}

// TestNoGoroutineIsLeft counts them outside of any bubble as well.
func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		w := client.NewWatcher(t.Context(), dead{}, client.Config{})
		c := consume(t.Context(), w)
		w.Close()
		if err := c.wait(); !errors.Is(err, client.ErrClosed) {
			t.Errorf("error %v", err)
		}
	}
	// One that has said its last word may still be on its way out.
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// dead is a service that cannot be reached.
type dead struct {
	notebookv1.NotebookServiceClient
}

func (dead) Watch(context.Context, *notebookv1.WatchRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[notebookv1.WatchResponse], error) {
	return nil, io.ErrUnexpectedEOF
}

// TestManyReaders: reading and iterating while frames are applied, for the race
// detector, and all iterations end with the same.
func TestManyReaders(t *testing.T) {
	const rounds = 301 // the last of them is a change to everybody
	script := []act{func(req *notebookv1.WatchRequest, s stream) error {
		from := 0
		if _, err := fmt.Sscan(req.GetResumeToken(), &from); err != nil {
			if err := s.Send(end("0")); err != nil {
				return err
			}
		}
		for i := from + 1; i <= rounds; i++ {
			frame := modified(fmt.Sprint(i%7), fmt.Sprint(i), fmt.Sprint(i))
			if i%5 == 0 {
				frame = deleted(fmt.Sprint((i+1)%7), fmt.Sprint(i), fmt.Sprint(i))
			}
			if err := s.Send(frame); err != nil {
				return err
			}
			if i%50 == 0 && i < rounds {
				return status.Error(codes.Unavailable, "again")
			}
		}
		return stay(req, s)
	}}
	bubble(t, script, func(t *rig) {
		w := client.NewWatcher(t.Context(), t.service, client.Config{})
		defer w.Close()
		var wg sync.WaitGroup
		states := make([]map[string]string, 4)
		for i := range states {
			wg.Go(func() {
				state := map[string]string{}
				for change, err := range w.Changes(t.Context()) {
					if err != nil {
						t.Error(err)
						return
					}
					if b := change.Before.GetDisplayName(); b != state[change.Name] {
						t.Errorf("%s was %q to the Watcher and %q to the consumer", change.Name, b, state[change.Name])
					}
					if change.Type == client.Deleted {
						delete(state, change.Name)
					} else {
						state[change.Name] = change.Notebook.GetDisplayName()
					}
					_ = w.State()
					if change.Token == fmt.Sprint(rounds) {
						break
					}
				}
				states[i] = state
			})
		}
		wg.Wait()
		known := map[string]string{}
		for name, n := range w.State().Notebooks {
			known[name] = n.GetDisplayName()
		}
		for _, state := range states {
			want(t, "names", slices.Sorted(maps.Keys(state)), slices.Sorted(maps.Keys(known)))
			want(t, "state of an iteration", state, known)
		}
	})
}
