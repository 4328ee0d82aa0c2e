package main

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// TestGarbageFrames sends HTTP/2 frames of random types, flags, streams and contents
// to the gRPC door, a million in full. The server goes on, and nothing of it stays.
func TestGarbageFrames(t *testing.T) {
	frames := int64(50_000)
	if whole {
		frames = 1_000_000
	}
	p, _ := startQuick(t, cloudsim.Config{Seed: 1, Notebooks: 3})
	if _, err := p.List(t.Context(), &notebookv1.ListRequest{}); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var sent, connections atomic.Int64
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(worker)))
			for sent.Load() < frames {
				conn, err := net.Dial("tcp", p.server.grpcListener.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				connections.Add(1)
				sent.Add(sendGarbage(conn, rng, frames-sent.Load()))
				_ = conn.Close()
			}
		})
	}
	wg.Wait()
	t.Logf("%d frames over %d connections", sent.Load(), connections.Load())
	if _, err := p.List(t.Context(), &notebookv1.ListRequest{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if code, _ := p.get(t, "/v1/notebooks"); code != http.StatusOK {
		t.Errorf("afterwards: HTTP %d", code)
	}
	p.until(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before+20 })
	if strings.Contains(p.log.String(), "panic") {
		t.Error("something panicked")
	}
}

// sendGarbage sends frames that a peer has to put up with, and then some that it has
// not, and says how many the server has read: that it shows with its answer to
// settings behind them.
func sendGarbage(conn net.Conn, rng *rand.Rand, most int64) (read int64) {
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	framer := http2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil || framer.WriteSettings() != nil {
		return 0
	}
	for batches := 1 + rng.IntN(40); batches > 0 && read < most; batches-- {
		var batch []byte
		for range 255 {
			batch = appendFrame(batch, rng, byte(16+rng.IntN(240)), rng.Uint32()>>1) // of no meaning: to be ignored
		}
		batch = append(batch, 0, 0, 0, byte(http2.FrameSettings), 0, 0, 0, 0, 0)
		if _, err := conn.Write(batch); err != nil || !acknowledged(framer) {
			return read
		}
		read += 256
	}
	var batch []byte
	for range 20 {
		batch = appendFrame(batch, rng, byte(rng.IntN(16)), uint32(rng.IntN(10)))
	}
	if _, err := conn.Write(batch); err != nil {
		return read
	}
	_, _ = io.Copy(io.Discard, conn) // until the server has had enough, or takes them for something that goes on
	return read + 1
}

// acknowledged waits for the answer to settings.
func acknowledged(framer *http2.Framer) bool {
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return false
		}
		if settings, ok := frame.(*http2.SettingsFrame); ok && settings.IsAck() {
			return true
		}
	}
}

func appendFrame(out []byte, rng *rand.Rand, kind byte, stream uint32) []byte {
	payload := make([]byte, rng.IntN(64))
	for i := range payload {
		payload[i] = byte(rng.Uint32())
	}
	out = append(out, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, byte(rng.Uint32()))
	return append(binary.BigEndian.AppendUint32(out, stream), payload...)
}
