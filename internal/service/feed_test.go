package service

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
)

// frames are one of each kind, with their messages, which are not made from them.
func frames(t *testing.T) map[*Frame]*notebookv1.WatchResponse {
	t.Helper()
	core := newFakeCloud("xb3")
	core.put("xb3", upstream.Notebook{ID: "nb", DisplayName: "two\nlines \u2028 <b>\"", State: upstream.StateRunning, Attributes: map[string]string{"a\n\"b": "c"}})
	f := start(t, "", map[string]*fakeCloud{"core": core})
	var row *inventory.Row
	f.until(t, "the notebook is known", func() bool {
		for r := range f.inventory.Snapshot().Since(0) {
			row = r
		}
		return row != nil
	})
	all := map[*Frame]*notebookv1.WatchResponse{}
	for _, r := range []*rowEvent{
		{row: row, kind: notebookv1.NotebookEvent_TYPE_ADDED, initial: true},
		{row: row, kind: notebookv1.NotebookEvent_TYPE_MODIFIED, changed: []string{"attributes.a\n\"b", "state"}},
		{row: row, kind: notebookv1.NotebookEvent_TYPE_DELETED},
		{row: row, kind: notebookv1.NotebookEvent_TYPE_LEFT_FILTER},
	} {
		for _, token := range []string{"", "AZaz09-_"} {
			all[&Frame{token: token, event: r}] = &notebookv1.WatchResponse{ResumeToken: token, Event: &notebookv1.WatchResponse_Notebook{
				Notebook: &notebookv1.NotebookEvent{Type: r.kind, Notebook: row.Notebook, ChangedFields: r.changed, Initial: r.initial},
			}}
		}
	}
	for _, event := range []*notebookv1.WatchResponse{
		{Event: &notebookv1.WatchResponse_Location{Location: &notebookv1.Location{Name: "clouds/core/locations/xb3", Message: "a\nb"}}},
		{Event: &notebookv1.WatchResponse_Bookmark{Bookmark: &notebookv1.Bookmark{Kind: notebookv1.Bookmark_KIND_CLOSING}}},
		{Event: &notebookv1.WatchResponse_ImageChange{ImageChange: &notebookv1.ImageChange{Name: "imageChanges/1"}}},
		{Event: &notebookv1.WatchResponse_Reset_{Reset_: &notebookv1.Reset{Reason: "WHY"}}},
	} {
		want := proto.CloneOf(event)
		want.ResumeToken = "token"
		all[newFrame("token", event)] = want
	}
	return all
}

// TestFrame: every encoding of a frame is its message, also when a thousand
// streams ask for them at once.
func TestFrame(t *testing.T) {
	for frame, want := range frames(t) {
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				data, err := frame.encode()
				line, lineErr := frame.Line()
				event, eventErr := frame.Event()
				if err != nil || lineErr != nil || eventErr != nil {
					t.Error(err, lineErr, eventErr)
					return
				}
				got, all := &notebookv1.WatchResponse{}, data.MaterializeToBuffer(mem.NopBufferPool{})
				if err := proto.Unmarshal(all.ReadOnlyData(), got); err != nil || !proto.Equal(got, want) {
					t.Errorf("%v\n%s", err, cmp.Diff(want, got, protocmp.Transform()))
				}
				if bytes.Count(line, []byte("\n")) != 1 || !bytes.HasPrefix(line, []byte(`{"result":`)) || !bytes.HasSuffix(line, []byte("}\n")) {
					t.Errorf("line %q", line)
				}
				name := "notebook"
				if want.GetNotebook() == nil {
					name = string(want.ProtoReflect().WhichOneof(want.ProtoReflect().Descriptor().Oneofs().ByName("event")).Name())
				}
				head := "event: " + name + "\ndata: "
				if want.GetResumeToken() != "" {
					head = "id: " + want.GetResumeToken() + "\n" + head
				}
				text, ok := bytes.CutPrefix(event, []byte(head))
				if !ok || !bytes.HasSuffix(text, []byte("\n\n")) || bytes.Count(text, []byte("\n")) != 2 {
					t.Errorf("event %q, want it to begin with %q", event, head)
				}
				for _, text := range [][]byte{bytes.TrimSuffix(bytes.TrimPrefix(line, []byte(`{"result":`)), []byte("}\n")), text} {
					got := &notebookv1.WatchResponse{}
					if err := protojson.Unmarshal(text, got); err != nil || !proto.Equal(got, want) {
						t.Errorf("%v\n%s", err, cmp.Diff(want, got, protocmp.Transform()))
					}
				}
			})
		}
		wg.Wait()
		if diff := cmp.Diff(want, frame.message(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
}

// TestFrameThatCannotBeEncoded fails, each time.
func TestFrameThatCannotBeEncoded(t *testing.T) {
	frame := NewFrame(&notebookv1.WatchResponse{Event: &notebookv1.WatchResponse_Location{
		Location: &notebookv1.Location{LastSuccessTime: &timestamppb.Timestamp{Seconds: 1 << 60}},
	}})
	for range 2 {
		if line, err := frame.Line(); err == nil {
			t.Errorf("line %s", line)
		}
		if event, err := frame.Event(); err == nil {
			t.Errorf("event %s", event)
		}
	}
}

// TestFeedIsShared: watches of one scope, however it is written, have one feed,
// which ends with the last of them.
func TestFeedIsShared(t *testing.T) {
	core := newFakeCloud("xb3")
	core.put("xb3", numbered(1)...)
	f := start(t, "", map[string]*fakeCloud{"core": core})
	feeds := func() int {
		f.service.feeds.mu.Lock()
		defer f.service.feeds.mu.Unlock()
		return len(f.service.feeds.byKey)
	}
	var open []*watching
	for _, req := range []*notebookv1.WatchRequest{
		{}, {Parent: "clouds/-"}, {Parent: "clouds/-/locations/-"}, {Snapshot: notebookv1.WatchRequest_SNAPSHOT_SKIP},
		{Filter: "state = RUNNING"}, {Filter: " state  =  RUNNING "},
	} {
		w := watch(t, f, req)
		w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
		open = append(open, w)
	}
	if n := feeds(); n != 2 {
		t.Errorf("%d feeds", n)
	}
	f.service.Drain(0)
	for _, w := range open {
		w.untilBookmark(notebookv1.Bookmark_KIND_CLOSING)
	}
	f.until(t, "no feed is left", func() bool { return feeds() == 0 })
}

// TestWatchFarBehind: a watch of which the feed has dropped what comes next is told
// the latest versions, and of each notebook what it is to this watch.
func TestWatchFarBehind(t *testing.T) {
	core := newFakeCloud("xb3")
	list := []upstream.Notebook{ // 1 stays, 2 enters, 3 leaves, 4 leaves and returns, 5 comes and goes, 6 was never there
		inState("1", upstream.StateRunning), inState("2", upstream.StateStopped), inState("3", upstream.StateRunning),
		inState("4", upstream.StateRunning), inState("5", upstream.StateStopped), inState("6", upstream.StateStopped),
	}
	core.put("xb3", list...)
	f := startSlow(t, map[string]*fakeCloud{"core": core})
	f.service.keep = 1
	if _, err := f.List(t.Context(), fresh("")); err != nil {
		t.Fatal(err)
	}
	sc, err := newScope("", "state = RUNNING", everything{})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	w := &watcher{service: f.service, scope: sc, send: func(frame *Frame) error {
		if e := frame.message().GetNotebook(); e != nil {
			told = append(told, short(e))
		}
		return nil
	}}
	var leave func()
	w.feed, leave = f.service.join(sc)
	defer leave()
	if err := w.start(begin{snapshot: true}); err != nil {
		t.Fatal(err)
	}
	told = nil
	for round, states := range [][]upstream.State{
		{upstream.StateRunning, upstream.StateRunning, upstream.StateStopped, upstream.StateStopped, upstream.StateRunning, upstream.StateFailed},
		{upstream.StateRunning, upstream.StateRunning, upstream.StateStopped, upstream.StateRunning, upstream.StateStopped, upstream.StateStopped},
	} {
		for i := range list {
			list[i].State = states[i]
			list[i].StateMessage = fmt.Sprint(round)
		}
		core.put("xb3", list...)
		for { // at most one read a second is made for those who ask
			revision := f.inventory.Snapshot().Revision()
			if _, err := f.List(t.Context(), fresh("")); err != nil {
				t.Fatal(err)
			}
			w.feed.now()
			if f.inventory.Snapshot().Revision() > revision {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if w.sent.next.frames.Load() != nil || w.sent.next.next == nil {
		t.Fatal("the first batch is still there")
	}
	if _, err := w.forward(); err != nil {
		t.Fatal(err)
	}
	want := []string{"MODIFIED 1", "ADDED 2", "LEFT_FILTER 3", "MODIFIED 4"}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if last, _, _ := w.feed.now(); w.sent != last {
		t.Error("the watch is not at the end of the chain")
	}
}

// TestThousandStreams: a thousand streams that share what they send are each told
// everything, and the same.
func TestThousandStreams(t *testing.T) {
	const streams, notebooks = 1000, 20
	core := newFakeCloud("xb3")
	list := numbered(notebooks)
	core.put("xb3", slices.Clone(list)...)
	f := start(t, "", map[string]*fakeCloud{"core": core})
	f.service.limits().MaxPerCaller = streams
	var began, ended sync.WaitGroup
	began.Add(streams)
	told := make([]map[string]*notebookv1.NotebookEvent, streams)
	for i := range streams {
		stream, err := f.Watch(t.Context(), &notebookv1.WatchRequest{Snapshot: notebookv1.WatchRequest_SNAPSHOT_SKIP})
		if err != nil {
			t.Fatal(err)
		}
		told[i] = map[string]*notebookv1.NotebookEvent{}
		ended.Go(func() {
			ready := sync.OnceFunc(began.Done)
			defer ready()
			for len(told[i]) < notebooks {
				frame, err := stream.Recv()
				if err != nil {
					t.Errorf("stream %d: %v", i, err)
					return
				}
				if frame.GetBookmark().GetKind() == notebookv1.Bookmark_KIND_SNAPSHOT_END {
					ready()
				}
				if e := frame.GetNotebook(); e != nil {
					told[i][e.GetNotebook().GetName()] = e
				}
			}
		})
	}
	began.Wait()
	for i := range list {
		list[i].StateMessage = "changed"
	}
	core.put("xb3", slices.Clone(list)...)
	ended.Wait()
	for i := range told {
		for name, e := range told[i] {
			if e.GetNotebook().GetStateMessage() != "changed" || !proto.Equal(e, told[0][name]) {
				t.Fatalf("stream %d was told %v, stream 0 %v", i, e, told[0][name])
			}
		}
	}
	f.service.Drain(0)
}
