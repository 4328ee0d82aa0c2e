package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// What a server costs is measured against a plain one of the same run, each in a
// process of its own: the CPU that a process has used is known, and whatever else
// the machine does meets both.

var largest = flag.Int("largest", 100_000, "how many notebooks the largest store of BenchmarkStore has")

// asPlain is the environment variable that makes the test binary the plain server.
// It holds the name of a file with a ListResponse and a WatchResponse, the contents
// of which the plain server serves.
const asPlain = "NOTEBOOKD_TEST_AS_PLAIN"

// plainServer is the least that a grpc-go server can do for the same answers.
type plainServer struct {
	notebookv1.UnimplementedNotebookServiceServer
	list *notebookv1.ListResponse
	last atomic.Pointer[plainEvent]
}

// plainEvent is a link of an endless list: a watcher that has sent one waits for the
// next.
type plainEvent struct {
	message mem.BufferSlice
	set     chan struct{} // closed when next is
	next    *plainEvent
}

// List encodes the answer for each call.
func (s *plainServer) List(context.Context, *notebookv1.ListRequest) (*notebookv1.ListResponse, error) {
	return s.list, nil
}

// plainCodec lets through what is encoded.
type plainCodec struct{ encoding.CodecV2 }

func (c plainCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(mem.BufferSlice); ok {
		return b, nil
	}
	return c.CodecV2.Marshal(v)
}

// Watch sends events that were encoded once for all.
func (s *plainServer) Watch(_ *notebookv1.WatchRequest, stream notebookv1.NotebookService_WatchServer) error {
	at := s.last.Load()
	// The first message says that the watch has begun.
	if err := stream.SendMsg(at.message); err != nil {
		return err
	}
	for {
		select {
		case <-at.set:
			at = at.next
			if err := stream.SendMsg(at.message); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

// servePlain is the process of the plain server. A POST to its other door publishes
// as many events as its query says.
func servePlain(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	s := &plainServer{list: &notebookv1.ListResponse{}}
	if err := proto.Unmarshal(data, s.list); err != nil {
		return err
	}
	event, err := proto.Marshal(&notebookv1.WatchResponse{ResumeToken: strings.Repeat("t", 60), Event: &notebookv1.WatchResponse_Notebook{
		Notebook: &notebookv1.NotebookEvent{Type: notebookv1.NotebookEvent_TYPE_MODIFIED, Notebook: s.list.GetNotebooks()[0], ChangedFields: []string{"display_name"}},
	}})
	if err != nil {
		return err
	}
	message := mem.BufferSlice{mem.SliceBuffer(event)}
	s.last.Store(&plainEvent{message: message, set: make(chan struct{})})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		for range n {
			e := &plainEvent{message: message, set: make(chan struct{})}
			old := s.last.Swap(e)
			old.next = e
			close(old.set)
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	server := grpc.NewServer(grpc.ForceServerCodecV2(plainCodec{encoding.GetCodecV2(encodingproto.Name)}))
	notebookv1.RegisterNotebookServiceServer(server, s)
	calls, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("gRPC on %s, HTTP on %s.\n", calls.Addr(), other.Addr())
	go func() { _ = http.Serve(other, nil) }()
	return server.Serve(calls)
}

// spawnPlain starts a plain server that gives one answer.
func spawnPlain(b *testing.B, list *notebookv1.ListResponse) *child {
	b.Helper()
	data, err := proto.Marshal(list)
	if err != nil {
		b.Fatal(err)
	}
	file := b.TempDir() + "/list"
	if err := os.WriteFile(file, data, 0o600); err != nil {
		b.Fatal(err)
	}
	c := startSelf(b, asPlain, file)
	c.untilReady(b)
	return c
}

// cpu is the time that the process has computed so far.
func (c *child) cpu(tb testing.TB) time.Duration {
	tb.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		tb.Skipf("CPU time is read from /proc: %v", err)
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:])) // from the third one on
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // of Linux, everywhere
}

// quietConfig is a configuration for a fleet whose polls are so rare that they do not
// show, but for those of CoresHub if an interval is given.
func quietConfig(fleet *cloudsim.Fleet, coreshub string) string {
	const usual = "poll: {fast: 1s, normal: 2s, idle: 5s}"
	text := strings.ReplaceAll(fleet.ServerConfig(), "calls_per_hour: 20000", "calls_per_hour: 10000000")
	if coreshub != "" {
		text = strings.Replace(text, usual, fmt.Sprintf("poll: {fast: %s, normal: %[1]s, idle: %[1]s}", coreshub), 1)
	}
	return strings.ReplaceAll(text, usual, "poll: {fast: 1h, normal: 1h, idle: 1h}") + "watch: {max_per_caller: 100000}\n"
}

func startFleet(b *testing.B, cfg cloudsim.Config) *cloudsim.Fleet {
	b.Helper()
	fleet, err := cloudsim.Start(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(fleet.Close)
	return fleet
}

// raw is a codec for messages that nobody looks at.
type raw struct{}

func (raw) Name() string { return encodingproto.Name }
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*int) = bytes.Count(data.Materialize(), []byte("\x12")) // something of every message is read
	return nil
}

func (c *child) dialRaw(b *testing.B) *grpc.ClientConn {
	b.Helper()
	conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return conn
}

// tally is what calls or events have cost.
type tally struct {
	n    int64
	cpu  time.Duration
	took time.Duration
}

func (t *tally) perOp() float64  { return float64(t.cpu.Nanoseconds()) / float64(t.n) / 1000 }
func (t *tally) perSec() float64 { return float64(t.n) / t.took.Seconds() }

// load calls a server from 16 callers for a while.
func (t *tally) load(b *testing.B, c *child, d time.Duration, call func(caller int) error) {
	b.Helper()
	var wg sync.WaitGroup
	var n atomic.Int64
	before, began := c.cpu(b), time.Now()
	for i := range 16 {
		wg.Go(func() {
			for time.Since(began) < d {
				if err := call(i); err != nil {
					b.Error(err)
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	t.n, t.cpu, t.took = t.n+n.Load(), t.cpu+c.cpu(b)-before, t.took+time.Since(began)
}

// BenchmarkList reads pages of 100 of 10,000 rows over both doors, and the same page
// from a plain server that encodes it for each call. Ratios are to that one: below 1
// is better for CPU, above 1 for calls.
func BenchmarkList(b *testing.B) {
	const block = 700 * time.Millisecond
	fleet := startFleet(b, cloudsim.Config{Seed: 1, Notebooks: 2500})
	server := spawn(b, quietConfig(fleet, ""))
	page, err := notebookv1.NewNotebookServiceClient(server.dial(b)).List(b.Context(), &notebookv1.ListRequest{PageSize: 100})
	if err != nil || len(page.GetNotebooks()) != 100 {
		b.Fatalf("%d notebooks, %v", len(page.GetNotebooks()), err)
	}
	plain := spawnPlain(b, page)
	request, err := proto.Marshal(&notebookv1.ListRequest{PageSize: 100})
	if err != nil {
		b.Fatal(err)
	}
	overGRPC := func(c *child) func(int) error {
		var conns []*grpc.ClientConn
		for range 4 {
			conns = append(conns, c.dialRaw(b))
		}
		return func(caller int) error {
			var got int
			return conns[caller%4].Invoke(b.Context(), notebookv1.NotebookService_List_FullMethodName, request, &got)
		}
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	overREST := func(int) error {
		resp, err := client.Get(server.http + "/v1/notebooks?pageSize=100")
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return err
	}
	plainCall, serverCall := overGRPC(plain), overGRPC(server)
	var warm, onPlain, onGRPC, onREST tally
	warm.load(b, plain, block, plainCall)
	warm.load(b, server, block, serverCall)
	warm.load(b, server, block, overREST)
	for b.Loop() {
		for range 2 { // in turn, so that what disturbs meets all
			onPlain.load(b, plain, block, plainCall)
			onGRPC.load(b, server, block, serverCall)
			onREST.load(b, server, block, overREST)
		}
	}
	b.ReportMetric(onGRPC.perOp()/onPlain.perOp(), "grpc-cpu/plain")
	b.ReportMetric(onREST.perOp()/onPlain.perOp(), "rest-cpu/plain")
	b.ReportMetric(onGRPC.perSec()/onPlain.perSec(), "grpc-calls/plain")
	b.ReportMetric(onREST.perSec()/onPlain.perSec(), "rest-calls/plain")
	b.ReportMetric(0, "ns/op") // an operation is all the blocks
}

// watchers are open watches that count events.
type watchers struct {
	events atomic.Int64
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// close ends the watches and waits for those who read them.
func (w *watchers) close() {
	w.cancel()
	w.wg.Wait()
}

// watchGRPC opens n watches on 10 connections. request makes the one of each.
func watchGRPC(b *testing.B, c *child, n int, request func(i int) *notebookv1.WatchRequest) *watchers {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	w := &watchers{cancel: cancel}
	var conns []*grpc.ClientConn
	for range 10 {
		conns = append(conns, c.dialRaw(b))
	}
	var began sync.WaitGroup
	for i := range n {
		req, err := proto.Marshal(request(i))
		if err != nil {
			b.Fatal(err)
		}
		stream, err := conns[i%10].NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, notebookv1.NotebookService_Watch_FullMethodName)
		if err == nil {
			err = stream.SendMsg(req)
		}
		if err == nil {
			err = stream.CloseSend()
		}
		if err != nil {
			b.Fatal(err)
		}
		began.Add(1)
		w.wg.Go(func() {
			first := sync.OnceFunc(began.Done)
			defer first()
			for {
				var got int
				if stream.RecvMsg(&got) != nil {
					return
				}
				first()
				w.events.Add(1)
			}
		})
	}
	began.Wait()
	w.quiet()
	return w
}

// watchSSE opens n watches as Server-Sent Events, with a connection each.
func watchSSE(b *testing.B, c *child, n int) *watchers {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	w := &watchers{cancel: cancel}
	transport := &http.Transport{MaxIdleConnsPerHost: n}
	for range n {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.http+"/v1/notebooks:watch?snapshot=SNAPSHOT_SKIP", nil)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Accept", eventStreamType)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		w.wg.Go(func() {
			defer func() { _ = resp.Body.Close() }()
			lines := bufio.NewScanner(resp.Body)
			lines.Buffer(nil, 1<<20)
			for lines.Scan() {
				if bytes.HasPrefix(lines.Bytes(), []byte("data:")) {
					w.events.Add(1)
				}
			}
		})
	}
	w.quiet()
	return w
}

// quiet waits until nothing arrives any more, and begins to count anew.
func (w *watchers) quiet() {
	for seen := int64(-1); seen != w.events.Load(); time.Sleep(300 * time.Millisecond) {
		seen = w.events.Load()
	}
	w.events.Store(0)
}

// burst makes changes and waits until all watches were told of them.
func (t *tally) burst(b *testing.B, c *child, w *watchers, changes, expect int, trigger string) {
	b.Helper()
	w.events.Store(0)
	before, began := c.cpu(b), time.Now()
	resp, err := http.Post(trigger, "", nil)
	if err != nil {
		b.Fatal(err)
	}
	_ = resp.Body.Close()
	for w.events.Load() < int64(expect) {
		if time.Since(began) > time.Minute {
			b.Fatalf("%d events of %d changes, want %d", w.events.Load(), changes, expect)
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.n, t.cpu, t.took = t.n+int64(expect), t.cpu+c.cpu(b)-before, t.took+time.Since(began)
}

// BenchmarkWatch tells 1,000 watches of 200 changes, and the same events from a plain
// server that has encoded them once for all. Then 10,000 watches, and 1,000 of which
// each has another filter. What is reported is the server's CPU for each event that
// reaches a watch, to that of the plain one, of the 1,000, or of one filter.
func BenchmarkWatch(b *testing.B) {
	const changes = 200
	fleet := startFleet(b, cloudsim.Config{Seed: 1, Notebooks: 4900, CoresHubNotebooks: changes / 2})
	server := spawn(b, quietConfig(fleet, "200ms"))
	page, err := notebookv1.NewNotebookServiceClient(server.dial(b)).List(b.Context(), &notebookv1.ListRequest{PageSize: 100})
	if err != nil {
		b.Fatal(err)
	}
	plain := spawnPlain(b, page)
	renames, publish := fleet.ControlURL()+"/core/renames?n=", plain.http+"/?n="
	skip := func(int) *notebookv1.WatchRequest {
		return &notebookv1.WatchRequest{Snapshot: notebookv1.WatchRequest_SNAPSHOT_SKIP}
	}
	// All match, and no two are the same.
	another := func(i int) *notebookv1.WatchRequest {
		return &notebookv1.WatchRequest{Snapshot: notebookv1.WatchRequest_SNAPSHOT_SKIP, Filter: fmt.Sprintf(`display_name != "no. %d"`, i)}
	}
	one := func(int) *notebookv1.WatchRequest { return another(0) }
	var onPlain, onGRPC, onSSE, oneFilter, filters, few, many, plainFew, plainMany tally
	measure := func(t *tally, c *child, w *watchers, n int, trigger string) {
		(&tally{}).burst(b, c, w, changes, n*changes, fmt.Sprint(trigger, changes)) // what grows once has grown
		for range 3 {
			t.burst(b, c, w, changes, n*changes, fmt.Sprint(trigger, changes))
		}
		w.close()
		runtime.GC() // of this process, now rather than in the next part
	}
	for b.Loop() {
		measure(&onPlain, plain, watchGRPC(b, plain, 1000, skip), 1000, publish)
		measure(&onGRPC, server, watchGRPC(b, server, 1000, skip), 1000, renames)
		measure(&onSSE, server, watchSSE(b, server, 1000), 1000, renames)
		measure(&oneFilter, server, watchGRPC(b, server, 1000, one), 1000, renames)
		measure(&filters, server, watchGRPC(b, server, 1000, another), 1000, renames)
		grow := func(t *tally, c *child, n int, trigger string) {
			w := watchGRPC(b, c, n, skip)
			for i := range 4 {
				if i == 1 {
					*t = tally{} // what grows once has grown
				}
				t.burst(b, c, w, 20, n*20, fmt.Sprint(trigger, 20))
			}
			w.close()
			runtime.GC()
		}
		grow(&few, server, 1000, renames)
		grow(&many, server, 10_000, renames)
		grow(&plainFew, plain, 1000, publish)
		grow(&plainMany, plain, 10_000, publish)
	}
	b.ReportMetric(onGRPC.perOp()/onPlain.perOp(), "grpc-cpu/plain")
	b.ReportMetric(onSSE.perOp()/onPlain.perOp(), "sse-cpu/plain-grpc")
	b.ReportMetric(many.perOp()/few.perOp(), "10000-cpu/1000")
	b.ReportMetric(plainMany.perOp()/plainFew.perOp(), "plain-10000-cpu/1000")
	b.ReportMetric(filters.perOp()/oneFilter.perOp(), "1000-filters-cpu/one")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkStore shows how cost grows with the notebooks in the store, which is on
// disk: memory once all were asked for as JSON, the CPU of a poll that finds nothing
// new, the latency of the first page and of one that is filtered, and how long a
// restart takes until all is served.
func BenchmarkStore(b *testing.B) {
	for n := 1000; n <= *largest; n *= 10 {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			// All of CoresHub, but for a few.
			fleet := startFleet(b, cloudsim.Config{Seed: 1, Notebooks: 8, CoresHubNotebooks: n / 2})
			config := quietConfig(fleet, "") + fmt.Sprintf("store: {data_dir: %q}\n", b.TempDir())
			for b.Loop() {
				empty := spawn(b, "store: {data_dir: "+b.TempDir()+"}\n"+quietConfig(startFleet(b, cloudsim.Config{Notebooks: 1}), ""))
				base := empty.memory(b)
				empty.kill(b)
				server := spawn(b, config)
				notebooks := notebookv1.NewNotebookServiceClient(server.dial(b))
				everything(b, server, notebooks)
				server.kill(b)

				began := time.Now()
				server = startChild(b, config)
				server.untilReady(b)
				b.ReportMetric(time.Since(began).Seconds(), "s-restart")
				notebooks = notebookv1.NewNotebookServiceClient(server.dial(b))
				if list, err := notebooks.List(b.Context(), &notebookv1.ListRequest{PageSize: 1}); err != nil || int(list.GetTotalSize()) < n {
					b.Fatalf("%d notebooks after a restart, %v", list.GetTotalSize(), err)
				}
				size := everything(b, server, notebooks)
				// The first poll since the restart decodes everything.
				poll := func() time.Duration {
					before := server.cpu(b)
					if _, err := notebooks.List(b.Context(), &notebookv1.ListRequest{Parent: "clouds/core", PageSize: 1, MaxStaleness: durationpb.New(0)}); err != nil {
						b.Fatal(err)
					}
					return server.cpu(b) - before
				}
				poll()
				var polls time.Duration
				for range 6 { // some of them with a collection, as it is
					polls += poll()
				}
				b.ReportMetric(float64(polls.Milliseconds())/6, "ms-cpu-unchanged-poll")
				b.ReportMetric(server.heap(b)/float64(n), "B-heap/notebook")
				b.ReportMetric((server.memory(b)-base)/float64(n), "B-rss/notebook")
				b.ReportMetric(size, "B-encoded+JSON/notebook")
				b.ReportMetric(latency(b, notebooks, &notebookv1.ListRequest{PageSize: 100}), "µs-first-page")
				b.ReportMetric(latency(b, notebooks, &notebookv1.ListRequest{PageSize: 100, Filter: "state = FAILED AND image.uri = \"*vllm*\""}), "µs-filtered-page")
				server.kill(b)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// everything asks for every notebook, over both doors, and returns how large one is:
// encoded, and as JSON.
func everything(b *testing.B, c *child, notebooks notebookv1.NotebookServiceClient) float64 {
	b.Helper()
	size, count := 0, 0
	for token := ""; ; {
		list, err := notebooks.List(b.Context(), &notebookv1.ListRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			b.Fatal(err)
		}
		resp, err := http.Get(c.http + "/v1/notebooks?pageSize=1000&pageToken=" + token)
		if err != nil {
			b.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			b.Fatal(err)
		}
		size += proto.Size(list) + len(text)
		count += len(list.GetNotebooks())
		if token = list.GetNextPageToken(); token == "" {
			return float64(size) / float64(count)
		}
	}
}

// heap is what the process held in its heap at the last collection, in bytes.
func (c *child) heap(b *testing.B) float64 {
	b.Helper()
	for _, line := range strings.Split(c.metrics(), "\n") {
		if text, ok := strings.CutPrefix(line, "go_memstats_next_gc_bytes "); ok {
			bytes, err := strconv.ParseFloat(text, 64)
			if err != nil {
				b.Fatal(err)
			}
			return bytes / 2 // the next collection is due when it has doubled
		}
	}
	b.Fatal("no go_memstats_next_gc_bytes")
	return 0
}

// latency is the median of a call, in µs.
func latency(b *testing.B, notebooks notebookv1.NotebookServiceClient, req *notebookv1.ListRequest) float64 {
	b.Helper()
	var took []time.Duration
	for range 51 {
		began := time.Now()
		if _, err := notebooks.List(b.Context(), req); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return float64(took[len(took)/2].Nanoseconds()) / 1000
}
