package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// fuzzedDoors is a server, the doors of which are reached in memory.
type fuzzedDoors struct {
	server     *server
	log        *buffer
	grpc, http *pipes
}

// openDoors runs a server for a fuzz target. What comes in is little, and comes at
// once or not at all.
func openDoors(f *testing.F) *fuzzedDoors {
	f.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(fleet.Close)
	cfg, err := parseConfig("fuzz.yaml", []byte("limits: {request_time: 1s, header_bytes: 8192, url_bytes: 4096}\ndrain: 1s\n"+fleet.ServerConfig()))
	if err != nil {
		f.Fatal(err)
	}
	cfg.Log.Level = "warn"
	d := &fuzzedDoors{log: &buffer{}, grpc: newPipes(), http: newPipes()}
	ctx, cancel := context.WithCancel(context.Background())
	if d.server, err = newServer(ctx, cfg, loggerOf(cfg, d.log)); err != nil {
		cancel()
		f.Fatal(err)
	}
	d.server.grpcListener, d.server.httpListener = d.grpc, d.http
	ended := make(chan error, 1)
	go func() { ended <- d.server.run(ctx) }()
	ready := eventually(ctx, 30*time.Second, func() bool { return d.server.inventory.Ready() && d.server.changer.Ready() })
	f.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			f.Error(err)
		}
		d.server.close()
	})
	if !ready {
		f.Fatalf("the server did not become ready:\n%s", d.log)
	}
	return d
}

// send sends bytes to a door and returns what comes back until the door closes, or
// for a moment where it has reason not to.
func (d *fuzzedDoors) send(t *testing.T, door *pipes, data []byte) []byte {
	t.Helper()
	conn := door.dial(netip.MustParseAddr("192.0.2.1"))
	if conn == nil {
		t.Fatal("nobody takes connections")
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		_, _ = conn.Write(data) // the door may close before all of it is sent
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	})
	var answer bytes.Buffer
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := io.Copy(&answer, io.LimitReader(conn, 8<<20))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the connection ended with %v", err)
	}
	_ = conn.Close()
	sending.Wait()
	return answer.Bytes()
}

// check wants a server that is well.
func (d *fuzzedDoors) check(t *testing.T) {
	t.Helper()
	if log := d.log.String(); strings.Contains(log, "panic") {
		t.Errorf("the log has a panic:\n%s", log)
	}
}

// FuzzHTTPDoor sends anything to the HTTP door, which answers with HTTP or not at all.
func FuzzHTTPDoor(f *testing.F) {
	for _, seed := range []string{
		"", "\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET /v1/notebooks?pageSize=2 HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /v1/notebooks?filter=((((%ff HTTP/1.0\r\n\r\n", "GET /v1/notebooks:watch HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nLast-Event-ID: a\r\n\r\n",
		post(changePath, `{"image": [[[[`), post(changePath, `{"image": "i"}`, "Content-Encoding: gzip"),
		"POST " + changePath + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"ima\r\nzz\r\n",
		"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n",
		"GET //v1/../v1/clouds/%2e%2e/notebooks HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", "\x16\x03\x01\x02\x00\x01",
	} {
		f.Add([]byte(seed))
	}
	d := openDoors(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		answer := d.send(t, d.http, data)
		if len(answer) > 0 && !bytes.HasPrefix(answer, []byte("HTTP/1.")) {
			t.Errorf("%.100q is answered with %.100q", data, answer)
		}
		if got := d.send(t, d.http, []byte("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")); !bytes.HasPrefix(got, []byte("HTTP/1.1 200")) {
			t.Errorf("after %.100q others get %.100q", data, got)
		}
		d.check(t)
	})
}

// FuzzGRPCDoor sends anything to the gRPC door, after a preface where asked for. It
// answers with frames.
func FuzzGRPCDoor(f *testing.F) {
	frames := func(write func(*http2.Framer, []byte)) []byte {
		var out, block bytes.Buffer
		e := hpack.NewEncoder(&block)
		for _, pair := range [][2]string{
			{":method", http.MethodPost}, {":scheme", "http"}, {":path", listPath()}, {":authority", "localhost"}, {"content-type", "application/grpc"}, {"te", "trailers"},
		} {
			_ = e.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1]}) // to a buffer
		}
		write(http2.NewFramer(&out, nil), block.Bytes())
		return out.Bytes()
	}
	begin := func(w *http2.Framer, block []byte) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true}) // to a buffer, as all here
	}
	f.Add(false, []byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(false, []byte(http2.ClientPreface))
	f.Add(true, []byte{})
	f.Add(true, frames(func(w *http2.Framer, block []byte) {
		begin(w, block)
		_ = w.WriteData(1, true, message(&notebookv1.ListRequest{PageSize: 2, Filter: "a:b"}))
	}))
	f.Add(true, frames(func(w *http2.Framer, block []byte) {
		begin(w, block)
		_ = w.WriteData(1, false, binary.BigEndian.AppendUint32([]byte{1}, 1<<31))
		_ = w.WriteRSTStream(1, http2.ErrCodeCancel)
		_ = w.WritePing(false, [8]byte{})
		_ = w.WriteWindowUpdate(0, 1<<31-1)
	}))
	f.Add(true, frames(func(w *http2.Framer, block []byte) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block[:4]})
		_ = w.WriteContinuation(3, true, block[4:])
		_ = w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
		_ = w.WriteRawFrame(0x20, 0xff, 3, []byte("unknown"))
		_ = w.WriteGoAway(3, http2.ErrCodeNo, nil)
	}))
	d := openDoors(f)
	preface := append([]byte(http2.ClientPreface), frames(func(w *http2.Framer, _ []byte) { _ = w.WriteSettings() })...)
	whole := append(append([]byte{}, preface...), frames(func(w *http2.Framer, block []byte) {
		begin(w, block)
		_ = w.WriteData(1, true, message(&notebookv1.ListRequest{PageSize: 1}))
	})...)
	f.Fuzz(func(t *testing.T, greets bool, data []byte) {
		if greets {
			data = append(append([]byte{}, preface...), data...)
		}
		readFrames(t, d.send(t, d.grpc, data))
		if !d.answers(whole) {
			t.Errorf("after %.100q others are not answered", data)
		}
		d.check(t)
	})
}

// readFrames wants nothing but frames. The last may be cut off.
func readFrames(t *testing.T, answer []byte) {
	t.Helper()
	r := http2.NewFramer(io.Discard, bytes.NewReader(answer))
	r.SetReuseFrames()
	for {
		_, err := r.ReadFrame()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return
		}
		if err != nil {
			t.Errorf("no frame: %v in %.200q", err, answer)
			return
		}
	}
}

// answers reports whether another one gets a List.
func (d *fuzzedDoors) answers(call []byte) bool {
	conn := d.grpc.dial(netip.MustParseAddr("192.0.2.2"))
	if conn == nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() { _, _ = conn.Write(call) }) // reading fails if this does
	return listed(conn)
}

// listed reads until there is a message.
func listed(conn net.Conn) bool {
	r := http2.NewFramer(io.Discard, conn)
	for {
		frame, err := r.ReadFrame()
		if err != nil {
			return false
		}
		if data, ok := frame.(*http2.DataFrame); ok && len(data.Data()) > 5 {
			return true
		}
	}
}
