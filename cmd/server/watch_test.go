package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/service"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// sseEvent is one block of an event stream: an event, or a comment, or only a
// time to reconnect.
type sseEvent struct {
	id, name, data, comment string
	retry                   time.Duration
}

func (e *sseEvent) frame(t *testing.T) *notebookv1.WatchResponse {
	t.Helper()
	frame := &notebookv1.WatchResponse{}
	if err := protojson.Unmarshal([]byte(e.data), frame); err != nil {
		t.Fatalf("event %+v: %v", e, err)
	}
	return frame
}

func (e *sseEvent) status(t *testing.T) *spb.Status {
	t.Helper()
	st := &spb.Status{}
	if err := protojson.Unmarshal([]byte(e.data), st); err != nil {
		t.Fatalf("event %+v: %v", e, err)
	}
	return st
}

// events is an open event stream.
type events struct {
	resp  *http.Response
	lines *bufio.Scanner
	close func()
}

func readEvents(r io.Reader) *events {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	return &events{lines: lines}
}

// events opens a watch as an EventSource does. headers are pairs.
func (p *process) events(t *testing.T, path string, headers ...string) *events {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", eventStreamType)
	for pair := range slices.Chunk(headers, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	e := readEvents(resp.Body)
	e.resp, e.close = resp, func() { cancel(); _ = resp.Body.Close() }
	return e
}

// next returns the next block of the stream, or nil at its end. It accepts only
// the lines that this server writes.
func (e *events) next(t *testing.T) *sseEvent {
	t.Helper()
	block, lines := &sseEvent{}, 0
	for e.lines.Scan() {
		line := e.lines.Text()
		if line == "" {
			if lines == 0 {
				t.Fatal("an empty block")
			}
			return block
		}
		lines++
		field, value, ok := strings.Cut(line, ": ")
		switch {
		case !ok:
			t.Fatalf("line %q", line)
		case field == "id" && block.id == "":
			block.id = value
		case field == "event" && block.name == "":
			block.name = value
		case field == "data" && block.data == "":
			block.data = value
		case field == "retry":
			ms, err := strconv.Atoi(value)
			if err != nil {
				t.Fatalf("line %q", line)
			}
			block.retry = time.Duration(ms) * time.Millisecond
		case field == "":
			block.comment = value
		default:
			t.Fatalf("line %q after %+v", line, block)
		}
	}
	if lines != 0 {
		t.Errorf("the stream ends within a block: %+v", block)
	}
	return nil
}

// until reads events up to and with the first that satisfies ok.
func (e *events) until(t *testing.T, ok func(*sseEvent) bool) []*sseEvent {
	t.Helper()
	var all []*sseEvent
	for {
		event := e.next(t)
		if event == nil {
			t.Fatalf("the stream has ended after %d events: %v", len(all), e.lines.Err())
		}
		all = append(all, event)
		if ok(event) {
			return all
		}
	}
}

// untilBookmark reads events up to and with a bookmark.
func (e *events) untilBookmark(t *testing.T, kind notebookv1.Bookmark_Kind) []*sseEvent {
	t.Helper()
	return e.until(t, func(event *sseEvent) bool {
		return event.name == "bookmark" && event.frame(t).GetBookmark().GetKind() == kind
	})
}

// rest reads what remains of the stream.
func (e *events) rest(t *testing.T) []*sseEvent {
	t.Helper()
	var all []*sseEvent
	for event := e.next(t); event != nil; event = e.next(t) {
		all = append(all, event)
	}
	return all
}

// names are the names of events, each with what tells it from others of them.
func names(t *testing.T, all []*sseEvent) []string {
	t.Helper()
	var out []string
	for _, event := range all {
		switch f := event.frame(t); event.name {
		case "", "image_change": // whose phases may be skipped
		case "location":
			out = append(out, "location "+f.GetLocation().GetName())
		case "notebook":
			out = append(out, f.GetNotebook().GetType().String()+" "+f.GetNotebook().GetNotebook().GetName())
		case "bookmark":
			out = append(out, f.GetBookmark().GetKind().String())
		case "reset":
			out = append(out, "reset "+f.GetReset_().GetReason())
		default:
			t.Errorf("an event called %q", event.name)
		}
	}
	return out
}

// startQuick runs a server on simulated clouds that are polled often.
func startQuick(t *testing.T, sims cloudsim.Config) (*process, *cloudsim.Fleet) {
	t.Helper()
	fleet, err := cloudsim.Start(sims)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	return start(t, quick(fleet)), fleet
}

func quick(fleet *cloudsim.Fleet) string {
	config := strings.ReplaceAll(fleet.ServerConfig(), "poll: {fast: 1s, normal: 2s, idle: 5s}", "poll: {fast: 100ms, normal: 100ms, idle: 100ms}")
	return strings.ReplaceAll(config, "calls_per_hour: 20000", "calls_per_hour: 1000000")
}

// launch runs a server as start does, lets a test at it before it opens, and
// does not wait until it is ready. An empty address takes any port.
func launch(t *testing.T, text, address string, prepare func(*server)) *process {
	t.Helper()
	cfg, err := parseConfig("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	cfg.GRPC.Address, cfg.HTTP.Address = "127.0.0.1:0", cmp.Or(address, "127.0.0.1:0")
	cfg.Log.Level, cfg.Drain = "debug", cmp.Or(cfg.Drain, 5*time.Second)
	return runServer(t, cfg, prepare)
}

// TestEvents is the life of an EventSource: a snapshot, a change, a connection
// that breaks, and what was missed.
func TestEvents(t *testing.T) {
	p, fleet := startQuick(t, cloudsim.Config{Seed: 1, Notebooks: 3})
	const (
		image  = "registry.example.com/team/finetune:16"
		parent = "clouds/core/locations/xb3"
	)
	watched := p.events(t, "/v1/"+parent+"/notebooks:watch")
	if watched.resp.StatusCode != http.StatusOK {
		t.Fatalf("HTTP %d", watched.resp.StatusCode)
	}
	got := map[string]string{}
	for name := range watched.resp.Header {
		got[name] = watched.resp.Header.Get(name)
	}
	delete(got, "Date")
	want := map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no", "Vary": "Accept",
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
	}
	if diff := gocmp.Diff(want, got); diff != "" || watched.resp.ContentLength != -1 {
		t.Errorf("header (-want +got):\n%s, content length %d", diff, watched.resp.ContentLength)
	}

	first := watched.next(t)
	if want := (sseEvent{retry: first.retry}); *first != want || first.retry < time.Second || first.retry > 3*time.Second {
		t.Errorf("first block = %+v", first)
	}
	snapshot := watched.untilBookmark(t, notebookv1.Bookmark_KIND_SNAPSHOT_END)
	wantNames := []string{"location " + parent}
	for _, n := range fleet.CoresHub.Truth("xb3") {
		wantNames = append(wantNames, "TYPE_ADDED "+parent+"/notebooks/"+n.ID)
	}
	slices.Sort(wantNames[1:])
	wantNames = append(wantNames, "KIND_SNAPSHOT_END")
	if diff := gocmp.Diff(wantNames, names(t, snapshot)); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
	for _, event := range snapshot {
		frame := event.frame(t)
		if row := event.name == "notebook"; event.id != frame.GetResumeToken() || row != (event.id == "") || row != frame.GetNotebook().GetInitial() {
			t.Errorf("an event of the snapshot: %+v", event)
		}
	}

	name := parent + "/notebooks/" + cloudsim.CoresHubNotebook
	change := func(image string) {
		t.Helper()
		_, err := p.ChangeImage(t.Context(), &notebookv1.ChangeImageRequest{Name: name, Image: image, ImageType: "custom"})
		if err != nil {
			t.Fatal(err)
		}
	}
	change(image)
	changes := watched.until(t, func(event *sseEvent) bool {
		return event.name == "notebook" && isEvent(event.frame(t), notebookv1.NotebookEvent_TYPE_MODIFIED, name, image)
	})
	last := changes[len(changes)-1]
	if last.id == "" || last.id != last.frame(t).GetResumeToken() {
		t.Errorf("id %q of %s", last.id, last.data)
	}
	watched.close()

	// What happens now is missed.
	added := parent + "/notebooks/" + fleet.CoresHub.Add("xb3", 1)[0]
	fleet.CoresHub.Add("xb2", 1) // elsewhere
	p.until(t, "the added notebook", func() bool {
		code, body := p.get(t, "/v1/notebooks?pageSize=1000")
		return code == 200 && strings.Contains(body, added)
	})
	change(image + "a")
	missed := []string{"location " + parent, "TYPE_ADDED " + added, "TYPE_MODIFIED " + name, "KIND_SNAPSHOT_END"}
	for _, query := range []string{"", "?resumeToken=foreign", "?resumeToken=" + snapshot[0].id} {
		resumed := p.events(t, "/v1/"+parent+"/notebooks:watch"+query, "Last-Event-ID", last.id)
		all := resumed.untilBookmark(t, notebookv1.Bookmark_KIND_SNAPSHOT_END)
		if diff := gocmp.Diff(missed, names(t, all[1:])); diff != "" {
			t.Errorf("resumed with %q (-want +got):\n%s", query, diff)
		}
		resumed.close()
	}
	// The token of an event and that of a line are one.
	lines := p.lines(t, "/v1/"+parent+"/notebooks:watch?resumeToken="+last.id)
	var overLines []*sseEvent
	untilLine(t, lines, func(f *notebookv1.WatchResponse) bool {
		data, err := protojson.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		overLines = append(overLines, &sseEvent{name: "bookmark", data: string(data)})
		switch {
		case f.GetLocation() != nil:
			overLines[len(overLines)-1].name = "location"
		case f.GetNotebook() != nil:
			overLines[len(overLines)-1].name = "notebook"
		case f.GetImageChange() != nil:
			overLines[len(overLines)-1].name = "image_change"
		}
		return f.GetBookmark() != nil
	})
	if diff := gocmp.Diff(missed, names(t, overLines)); diff != "" {
		t.Errorf("resumed as lines (-want +got):\n%s", diff)
	}
}

// TestEventsWithEveryCloudDead: the first bytes come although no cloud has ever
// answered and none will.
func TestEventsWithEveryCloudDead(t *testing.T) {
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	fleet.CoresHub.Break(cloudsim.Fault{Mode: cloudsim.ModeHang})
	fleet.SCNet.Break(cloudsim.Fault{Mode: cloudsim.ModeHang})
	p := launch(t, quick(fleet), "", func(*server) {})
	p.until(t, "the configured locations are there", func() bool { return len(p.server.inventory.Snapshot().Locations()) == 2 })
	began := time.Now()
	watched := p.events(t, "/v1/notebooks:watch")
	all := watched.untilBookmark(t, notebookv1.Bookmark_KIND_SNAPSHOT_END)
	took := time.Since(began)
	t.Logf("the snapshot came after %v", took)
	if took > 5*time.Second { // a call to a cloud may take 10 seconds
		t.Errorf("the snapshot took %v", took)
	}
	want := []string{"location clouds/core/locations/xb2", "location clouds/core/locations/xb3", "KIND_SNAPSHOT_END"}
	if diff := gocmp.Diff(want, names(t, all[1:])); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if code, _ := p.get(t, "/readyz"); code == http.StatusOK {
		t.Error("a first poll has finished")
	}
	if state := all[1].frame(t).GetLocation().GetState(); state != notebookv1.Location_STATE_UNREACHABLE {
		t.Errorf("a cloud that never answered is %v", state)
	}
}

// TestBadLastEventID: what an EventSource cannot forget is never an error to it.
func TestBadLastEventID(t *testing.T) {
	_, clouds := startVendorClouds(t)
	p := start(t, vendorConfig(clouds.URL, ""))
	list, err := p.List(t.Context(), &notebookv1.ListRequest{Parent: "clouds/scnet"})
	if err != nil {
		t.Fatal(err)
	}
	snapshot := []string{
		"reset TOKEN_INVALID", "location clouds/core/locations/xb3",
		"TYPE_ADDED clouds/core/locations/xb3/notebooks/nb-eiguqichl5hc", "KIND_SNAPSHOT_END",
	}
	for name, tt := range map[string]struct{ query, id string }{
		"of another kind":   {"", "42"},
		"of another parent": {"", list.GetResumeToken()},
		"too long":          {"", strings.Repeat("A", 5000)},
		"not UTF-8":         {"", "\xff\xfe"},
		"without snapshot":  {"?snapshot=SNAPSHOT_SKIP", "42"},
	} {
		t.Run(name, func(t *testing.T) {
			watched := p.events(t, "/v1/clouds/core/notebooks:watch"+tt.query, "Last-Event-ID", tt.id)
			defer watched.close()
			if watched.resp.StatusCode != http.StatusOK {
				t.Fatalf("HTTP %d", watched.resp.StatusCode)
			}
			all := watched.untilBookmark(t, notebookv1.Bookmark_KIND_SNAPSHOT_END)
			if diff := gocmp.Diff(snapshot, names(t, all[1:])); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if reset := all[1]; reset.id == "" || reset.id != reset.frame(t).GetResumeToken() {
				t.Errorf("id %q of the reset %s", reset.id, reset.data)
			}
			// Had the connection broken after the reset, its id would do.
			again := p.events(t, "/v1/clouds/core/notebooks:watch", "Last-Event-ID", all[1].id)
			defer again.close()
			want := append([]string{"reset SNAPSHOT_INCOMPLETE"}, snapshot[1:]...)
			if diff := gocmp.Diff(want, names(t, again.untilBookmark(t, notebookv1.Bookmark_KIND_SNAPSHOT_END)[1:])); diff != "" {
				t.Errorf("events after the id of the reset (-want +got):\n%s", diff)
			}
		})
	}
	// An empty one is none.
	watched := p.events(t, "/v1/clouds/core/notebooks:watch", "Last-Event-ID", "")
	defer watched.close()
	if diff := gocmp.Diff(snapshot[1:], names(t, watched.untilBookmark(t, notebookv1.Bookmark_KIND_SNAPSHOT_END)[1:])); diff != "" {
		t.Errorf("events with an empty id (-want +got):\n%s", diff)
	}
}

// TestEventsRefuseAsREST makes every wrong watch with and without events: the
// HTTP status and the google.rpc.Status are the same.
func TestEventsRefuseAsREST(t *testing.T) {
	_, clouds := startVendorClouds(t)
	p := start(t, vendorConfig(clouds.URL, ""))
	first, err := p.List(t.Context(), &notebookv1.ListRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, tt := range doorCases(first.GetNextPageToken(), first.GetResumeToken()) {
		if strings.Contains(tt.path, ":watch") && tt.code != codes.OK {
			paths = append(paths, tt.path)
		}
	}
	if len(paths) < 5 {
		t.Fatalf("only %d wrong watches", len(paths))
	}
	paths = append(paths,
		"/v1/notebooks:watch?stateless=1", "/v1/clouds/core/notebooks:watch?parent.x=1", "/v1/clouds/core/locations/none/notebooks:watch",
		"/v1/notebooks:watch?parent=projects/x", "/v1/notebooks:watch?filter=%28", "/v1/notebooks:watch?bookmarkInterval=soon", "/v1/notebooks:watc",
	)
	for _, path := range paths {
		for _, id := range []string{"", "42"} {
			if id != "" && strings.Contains(path, "resumeToken") {
				continue // that token is not looked at
			}
			t.Run(path+" "+id, func(t *testing.T) {
				code, body := p.get(t, path)
				want, got := &spb.Status{}, &spb.Status{}
				if err := protojson.Unmarshal([]byte(statusText(body)), want); err != nil || code < 400 {
					t.Fatalf("without events: %d %s", code, body)
				}
				watched := p.events(t, path, "Last-Event-ID", id)
				defer watched.close()
				text, err := io.ReadAll(watched.resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				if err := protojson.Unmarshal(text, got); err != nil || watched.resp.Header.Get("Content-Type") != "application/json" {
					t.Fatalf("with events: %d %s", watched.resp.StatusCode, text)
				}
				if diff := gocmp.Diff(want, got, protocmp.Transform()); diff != "" || watched.resp.StatusCode != code {
					t.Errorf("HTTP %d, without events %d; status (-without +with):\n%s", watched.resp.StatusCode, code, diff)
				}
			})
		}
	}
}

// TestLinesStay: who does not ask for events gets what there was before.
func TestLinesStay(t *testing.T) {
	_, clouds := startVendorClouds(t)
	p := start(t, vendorConfig(clouds.URL, ""))
	ask := func(method, path, accept string) (*http.Response, string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, p.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		line, _ := bufio.NewReader(resp.Body).ReadString('\n')
		resp.Header.Del("Date")
		return resp, line
	}
	for _, accept := range []string{"", "*/*", "application/json", "application/x-ndjson, text/event-stream;q=0.9"} {
		resp, line := ask(http.MethodGet, "/v1/notebooks:watch", accept)
		if diff := gocmp.Diff(http.Header{
			"Content-Type": {"application/x-ndjson"}, "Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"},
			"Referrer-Policy": {"no-referrer"}, "Content-Security-Policy": {"default-src 'none'; frame-ancestors 'none'"},
		}, resp.Header); diff != "" {
			t.Errorf("Accept %q: header (-want +got):\n%s", accept, diff)
		}
		frame := nextLine(t, bufio.NewScanner(strings.NewReader(line)))
		if frame.GetLocation() == nil {
			t.Errorf("Accept %q: %s", accept, line)
		}
	}
	for _, other := range []struct{ method, path string }{
		{http.MethodHead, "/v1/notebooks:watch"},
		{http.MethodPost, "/v1/notebooks:watch"},
		{http.MethodDelete, "/v1/notebooks:watch"},
		{http.MethodGet, "/v1/imageChanges/none"},
		{http.MethodGet, "/v1/clouds/none"},
	} {
		// protojson varies its white space on purpose, but not within a process.
		compact := func(text string) string { return strings.ReplaceAll(text, ", ", ",") }
		with, withLine := ask(other.method, other.path, eventStreamType)
		without, withoutLine := ask(other.method, other.path, "*/*")
		if with.StatusCode != without.StatusCode || with.StatusCode < 400 || compact(withLine) != compact(withoutLine) {
			t.Errorf("%v: %d %s\nwithout events: %d %s", other, with.StatusCode, withLine, without.StatusCode, withoutLine)
		}
		if diff := gocmp.Diff(without.Header, with.Header); diff != "" {
			t.Errorf("%v: header (-without +with):\n%s", other, diff)
		}
	}
}

// TestPrefersEvents reads Accept headers.
func TestPrefersEvents(t *testing.T) {
	for accept, want := range map[string]bool{
		"":                                          false,
		"*/*":                                       false,
		"text/event-stream":                         true,
		"Text/Event-Stream; charset=utf-8":          true,
		"text/event-stream, */*":                    true,
		"*/*, text/event-stream":                    true,
		"text/event-stream;q=0":                     false,
		"text/event-stream;q=0, */*":                false,
		"text/event-stream;q=0.5, */*":              false,
		"text/event-stream;q=0.5":                   true,
		"text/event-stream;q=0.5, */*;q=0.1":        true,
		"application/json, text/event-stream":       false,
		"text/event-stream, application/x-ndjson":   false,
		"text/event-stream, application/*":          true,
		"application/json;q=0.9, text/event-stream": true,
		"text/*":        true,
		"text/*;q=0.1":  true,
		"application/*": false,
		"text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8": false, // a browser's address bar
		"text/event-stream;q=2":                          false,
		"text/event-stream;q=NaN":                        false,
		"text/event-stream;q=high, application/json;q=0": false,
		"text/event-stream;;, ,":                         false,
	} {
		if got := prefersEvents([]string{accept}); got != want {
			t.Errorf("Accept %q: %v, want %v", accept, got, want)
		}
	}
	if !prefersEvents([]string{"*/*;q=0.1", "text/event-stream"}) || prefersEvents(nil) {
		t.Error("several headers, or none, are read wrongly")
	}
}

// TestEventNames: an EventSource calls its own events error, open and message.
func TestEventNames(t *testing.T) {
	fields := (&notebookv1.WatchResponse{}).ProtoReflect().Descriptor().Oneofs().ByName("event").Fields()
	for i := range fields.Len() {
		if name := string(fields.Get(i).Name()); slices.Contains([]string{"error", "open", "message", "end"}, name) {
			t.Errorf("an event cannot be called %s", name)
		}
	}
}

// fakeWatch is a watch of which a test tells every frame.
type fakeWatch struct {
	local
	frames chan *notebookv1.WatchResponse // sent and closed by the test
	err    error                          // after the last frame; set before frames is closed
}

func (f *fakeWatch) watch(_ context.Context, _ *notebookv1.WatchRequest, send func(*service.Frame) error) error {
	for frame := range f.frames {
		if err := send(service.NewFrame(frame)); err != nil {
			return err
		}
	}
	return f.err
}

func (f *fakeWatch) slowReader() time.Duration { return time.Minute }

func bookmark(kind notebookv1.Bookmark_Kind) *notebookv1.WatchResponse {
	return &notebookv1.WatchResponse{ResumeToken: "t", Event: &notebookv1.WatchResponse_Bookmark{Bookmark: &notebookv1.Bookmark{Kind: kind}}}
}

// serveFake answers a request from a fake watch, as the gateway does.
func serveFake(f *fakeWatch, w http.ResponseWriter) error {
	r := httptest.NewRequest(http.MethodGet, "/v1/notebooks:watch", nil)
	r.Header.Set("Accept", eventStreamType)
	e := &exchange{w: w, r: r}
	return e.serveWatch(r.Context(), f, &notebookv1.WatchRequest{})
}

// timed is a ResponseWriter that notes when something was written.
type timed struct {
	*httptest.ResponseRecorder
	began time.Time
	log   []string
}

func (w *timed) Write(p []byte) (int, error) {
	name, _, _ := strings.Cut(string(p), "\n")
	w.log = append(w.log, fmt.Sprint(time.Since(w.began), " ", name))
	return w.ResponseRecorder.Write(p)
}

// TestHeartbeats: a stream is never silent for longer than 15 seconds.
func TestHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeWatch{frames: make(chan *notebookv1.WatchResponse)}
		w := &timed{ResponseRecorder: httptest.NewRecorder(), began: time.Now()}
		done := make(chan error)
		go func() { done <- serveFake(f, w) }()
		f.frames <- bookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
		time.Sleep(40 * time.Second)
		f.frames <- bookmark(notebookv1.Bookmark_KIND_HEARTBEAT)
		time.Sleep(14 * time.Second)
		f.frames <- bookmark(notebookv1.Bookmark_KIND_CLOSING)
		close(f.frames)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := []string{"0s id: t", "15s : hb", "30s : hb", "40s id: t", "54s id: t"}
		if diff := gocmp.Diff(want, w.log[1:]); diff != "" {
			t.Errorf("written (-want +got):\n%s", diff)
		}
		if !strings.HasPrefix(w.log[0], "0s retry: ") || !w.Flushed {
			t.Errorf("first %q, flushed %v", w.log[0], w.Flushed)
		}
	})
}

// TestNoHeartbeatAfterTheEnd: a heartbeat that was due while the last frame was being
// written is not written after the handler has returned.
func TestNoHeartbeatAfterTheEnd(t *testing.T) {
	w := httptest.NewRecorder()
	o := &frameWriter{w: w, flusher: http.NewResponseController(w), events: true, limit: time.Minute}
	if err := o.send(service.NewFrame(bookmark(notebookv1.Bookmark_KIND_CLOSING))); err != nil {
		t.Fatal(err)
	}
	o.close()
	before := w.Body.Len()
	if err := o.write([]byte(": hb\n\n")); err == nil || w.Body.Len() != before {
		t.Errorf("%v, written %q", err, w.Body.String()[before:])
	}
}

// TestEventStreamEnds: an error after the first frame is the last event, and
// says in how long it makes sense to come again.
func TestEventStreamEnds(t *testing.T) {
	detailed := func(code codes.Code, delay time.Duration) error {
		st, err := status.New(code, "why").WithDetails(
			&errdetails.ErrorInfo{Reason: "R", Domain: service.Domain}, &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	unfit := bookmark(0)
	unfit.Event = &notebookv1.WatchResponse_Location{Location: &notebookv1.Location{LastSuccessTime: &timestamppb.Timestamp{Seconds: 1 << 60}}}
	for name, tt := range map[string]struct {
		frame    *notebookv1.WatchResponse // before the error
		err      error
		code     codes.Code
		reason   string
		min, max time.Duration
	}{
		"cut off":             {nil, status.Error(codes.Unavailable, "error reading from server: EOF"), codes.Unavailable, "DRAINING", time.Second, 3 * time.Second},
		"with a delay":        {nil, detailed(codes.Unavailable, 20*time.Second), codes.Unavailable, "R", 20 * time.Second, time.Minute},
		"with no delay":       {nil, detailed(codes.ResourceExhausted, 0), codes.ResourceExhausted, "R", 5 * time.Second, 15 * time.Second},
		"slow reader":         {nil, service.Error(codes.ResourceExhausted, notebookv1.ErrorReason_ERROR_REASON_SLOW_READER, "slow"), codes.ResourceExhausted, "SLOW_READER", 5 * time.Second, 15 * time.Second},
		"refused":             {nil, service.Error(codes.PermissionDenied, notebookv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, "no"), codes.PermissionDenied, "PERMISSION_DENIED", 30 * time.Second, 90 * time.Second},
		"fault":               {nil, errors.New("canary"), codes.Unknown, "INTERNAL", 5 * time.Second, 15 * time.Second},
		"frame without JSON":  {unfit, nil, codes.Unknown, "INTERNAL", 5 * time.Second, 15 * time.Second},
		"deadline of a proxy": {nil, status.FromContextError(context.DeadlineExceeded).Err(), codes.DeadlineExceeded, "CALLER_GONE", time.Second, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeWatch{frames: make(chan *notebookv1.WatchResponse, 2), err: tt.err}
			f.frames <- bookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
			if tt.frame != nil {
				f.frames <- tt.frame
			}
			close(f.frames)
			w := httptest.NewRecorder()
			if err := serveFake(f, w); err != nil {
				t.Fatal(err)
			}
			all := readEvents(w.Body).rest(t)
			end := all[len(all)-1]
			if len(all) != 3 || end.name != "end" || end.id != "" {
				t.Fatalf("events = %+v", all)
			}
			if end.retry < tt.min || end.retry > tt.max {
				t.Errorf("retry after %v, want from %v to %v", end.retry, tt.min, tt.max)
			}
			st := end.status(t)
			if codes.Code(st.GetCode()) != tt.code || strings.Contains(end.data, "canary") || strings.Contains(end.data, "reading from server") {
				t.Errorf("end = %v, want %v", st, tt.code)
			}
			if details := status.FromProto(st).Details(); len(details) == 0 || details[0].(*errdetails.ErrorInfo).GetReason() != tt.reason {
				t.Errorf("details = %v, want %s", details, tt.reason)
			}
		})
	}
}

// TestEventStreamDeadline is such an end in the whole process: a proxy that
// limits the call.
func TestEventStreamDeadline(t *testing.T) {
	t.Parallel()
	_, clouds := startVendorClouds(t)
	p := start(t, vendorConfig(clouds.URL, ""))
	all := p.events(t, "/v1/notebooks:watch", "Grpc-Timeout", "2S").rest(t)
	if end := all[len(all)-1]; len(all) < 5 || end.name != "end" || codes.Code(end.status(t).GetCode()) != codes.DeadlineExceeded {
		t.Errorf("%d events, the last %+v", len(all), end)
	}
}

// TestEventReaderLeaves: the watch behind a stream ends with its reader.
func TestEventReaderLeaves(t *testing.T) {
	_, clouds := startVendorClouds(t)
	p := start(t, vendorConfig(clouds.URL, ""))
	watched := p.events(t, "/v1/notebooks:watch")
	watched.untilBookmark(t, notebookv1.Bookmark_KIND_SNAPSHOT_END)
	const ended = `grpc_server_handled_total{grpc_code="Canceled",grpc_method="Watch",grpc_service="notebook.v1.NotebookService",grpc_type="server_stream"} 1`
	if _, metrics := p.get(t, "/metrics"); strings.Contains(metrics, ended) {
		t.Fatal("the watch has ended by itself")
	}
	began := time.Now()
	watched.close()
	p.until(t, "the watch has ended", func() bool { _, metrics := p.get(t, "/metrics"); return strings.Contains(metrics, ended) })
	if took := time.Since(began); took > 5*time.Second { // a bookmark, which would also find out, comes after 20 seconds
		t.Errorf("the watch ended after %v", took)
	}
}

// TestStopWithOpenEventStreams: each is told where to go on, and that is no end
// with an error.
func TestStopWithOpenEventStreams(t *testing.T) {
	t.Parallel()
	_, clouds := startVendorClouds(t)
	p := start(t, vendorConfig(clouds.URL, ""))
	var open []*events
	for range 5 {
		watched := p.events(t, "/v1/notebooks:watch")
		watched.untilBookmark(t, notebookv1.Bookmark_KIND_SNAPSHOT_END)
		open = append(open, watched)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- p.stop() }()
	for _, watched := range open {
		all := watched.rest(t)
		if err := watched.lines.Err(); err != nil {
			t.Error(err)
		}
		last := all[len(all)-1]
		if last.name != "bookmark" || last.id == "" || last.frame(t).GetBookmark().GetKind() != notebookv1.Bookmark_KIND_CLOSING {
			t.Errorf("last event = %+v", last)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// smallBuffers lets little be on its way to a reader.
func smallBuffers(conn net.Conn, state http.ConnState) {
	if state == http.StateNew {
		_ = conn.(*limitedConn).NetConn().(*net.TCPConn).SetWriteBuffer(4096)
	}
}

// stuckReader asks for a watch and reads nothing of it. Little can be on its way.
func (p *process) stuckReader(t *testing.T, accept string) net.Conn {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		return errors.Join(err, failed)
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprintf(conn, "GET /v1/notebooks:watch HTTP/1.1\r\nHost: localhost\r\nAccept: %s\r\n\r\n", accept); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestStopWithStuckEventReader: a reader that never reads holds up its own
// stream and nobody else's, and is cut off when the server stops, in time.
func TestStopWithStuckEventReader(t *testing.T) {
	t.Parallel()
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 100})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	var handlers sync.WaitGroup // the requests that are being answered
	p := launch(t, fleet.ServerConfig()+"drain: 2s\n", "", func(s *server) {
		inner := s.http.Handler
		s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Done()
			inner.ServeHTTP(w, r)
		})
		s.http.ConnState = smallBuffers
	})
	p.until(t, "ready", func() bool { code, _ := p.get(t, "/readyz"); return code == http.StatusOK })

	conn := p.stuckReader(t, eventStreamType)
	// The answer has begun, and nothing is read from here on.
	if _, err := io.ReadFull(conn, make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	// Others still get everything, over the same connection inside the process.
	var whole int
	for range 3 {
		watched := p.events(t, "/v1/notebooks:watch")
		whole = 0
		for _, event := range watched.untilBookmark(t, notebookv1.Bookmark_KIND_SNAPSHOT_END) {
			whole += len(event.data)
		}
		watched.close()
	}
	began := time.Now()
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	handlers.Wait()
	if took := time.Since(began); took > p.server.cfg.Drain+2*time.Second {
		t.Errorf("stopping took %v with a drain time of %v", took, p.server.cfg.Drain)
	}
	rest, _ := io.ReadAll(conn) // what was on its way; the connection was cut
	if len(rest) > whole/2 || bytes.Contains(rest, []byte("KIND_SNAPSHOT_END")) {
		t.Errorf("the reader was not stuck: it has got %d of %d bytes", len(rest), whole)
	}
	t.Logf("stopped in %v; %d of %d bytes were on their way", time.Since(began), len(rest), whole)
}

// TestStuckReaderIsEnded: a reader that takes nothing for too long is cut off, and
// counted as what it is.
func TestStuckReaderIsEnded(t *testing.T) {
	t.Parallel()
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 100})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	p := launch(t, fleet.ServerConfig()+"watch: {slow_reader: 1s}\n", "", func(s *server) {
		s.http.ConnState = smallBuffers
	})
	p.until(t, "ready", func() bool { code, _ := p.get(t, "/readyz"); return code == http.StatusOK })
	for i, accept := range []string{eventStreamType, linesType} {
		p.stuckReader(t, accept)
		ended := fmt.Sprintf(`grpc_server_handled_total{grpc_code="ResourceExhausted",grpc_method="Watch",grpc_service="notebook.v1.NotebookService",grpc_type="server_stream"} %d`, i+1)
		p.until(t, "the watch has ended", func() bool { _, metrics := p.get(t, "/metrics"); return strings.Contains(metrics, ended) })
	}
}

// TestLinesEnd: an error after the first line is the last line, and one before it an
// answer of its own.
func TestLinesEnd(t *testing.T) {
	serve := func(f *fakeWatch) (*httptest.ResponseRecorder, error) {
		w := httptest.NewRecorder()
		e := &exchange{w: w, r: httptest.NewRequest(http.MethodGet, "/v1/notebooks:watch", nil)}
		return w, e.serveWatch(t.Context(), f, &notebookv1.WatchRequest{})
	}
	f := &fakeWatch{frames: make(chan *notebookv1.WatchResponse, 1), err: errors.New("canary")}
	f.frames <- bookmark(notebookv1.Bookmark_KIND_HEARTBEAT)
	close(f.frames)
	w, err := serve(f)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(w.Body.String(), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], `{"result":`) || !strings.HasPrefix(lines[1], `{"error":`) || lines[2] != "" ||
		!strings.Contains(lines[1], "INTERNAL") || strings.Contains(lines[1], "canary") {
		t.Errorf("lines = %q", lines)
	}
	f = &fakeWatch{frames: make(chan *notebookv1.WatchResponse), err: status.Error(codes.Unavailable, "why")}
	close(f.frames)
	if w, err := serve(f); status.Code(err) != codes.Unavailable || w.Body.Len() != 0 || len(w.Header()) != 0 {
		t.Errorf("%v, written %q with %v", err, w.Body, w.Header())
	}
}

// TestPassingErrorForOneThatComesAgain: a browser that was here before is told
// of an error that passes in the stream, so that it goes on trying; a new one as
// any other caller.
func TestPassingErrorForOneThatComesAgain(t *testing.T) {
	_, clouds := startVendorClouds(t)
	p := start(t, "watch: {max_per_caller: 1}\n"+vendorConfig(clouds.URL, ""))
	held := p.events(t, "/v1/notebooks:watch")
	defer held.close()
	all := held.untilBookmark(t, notebookv1.Bookmark_KIND_SNAPSHOT_END)
	fresh := p.events(t, "/v1/notebooks:watch")
	defer fresh.close()
	if fresh.resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a new one: HTTP %d", fresh.resp.StatusCode)
	}
	again := p.events(t, "/v1/notebooks:watch", "Last-Event-ID", all[len(all)-1].id)
	defer again.close()
	told := again.rest(t)
	if end := told[len(told)-1]; again.resp.StatusCode != http.StatusOK || end.name != "end" || end.retry == 0 ||
		codes.Code(end.status(t).GetCode()) != codes.ResourceExhausted {
		t.Errorf("one that comes again: HTTP %d, %+v", again.resp.StatusCode, told)
	}
}
