package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"mime"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/service"
)

// Watch over HTTP: its frames as lines of JSON or, for an EventSource, as
// Server-Sent Events. Only the framing is here. The generated handler parses the
// request and calls the gateway's client, which writes the answer itself. So what
// Watch means, what it refuses, and how, is the same over every transport.

const (
	eventStreamType = "text/event-stream"
	linesType       = "application/x-ndjson"
	// heartbeatAfter is the silence after which a comment is sent: proxies cut
	// connections that are quiet for longer, many of them after 30 seconds.
	heartbeatAfter = 15 * time.Second
	// reconnectAfter is what an EventSource is told to wait, on average, before it
	// comes again.
	reconnectAfter = 2 * time.Second
)

// serveWatch writes a watch until it or the caller ends. It returns an error only
// when nothing was written.
func (e *exchange) serveWatch(ctx context.Context, here local, req *notebookv1.WatchRequest) error {
	out := &frameWriter{w: e.w, flusher: http.NewResponseController(e.w), limit: here.slowReader(), timers: e.r.ProtoMajor >= 2}
	defer out.close()
	_ = out.flusher.SetWriteDeadline(time.Time{}) // of an answer that is no watch
	out.events = e.r.Method == http.MethodGet && prefersEvents(e.r.Header.Values("Accept"))
	if !out.events {
		return out.end(here.watch(ctx, req, out.send))
	}
	e.w.Header().Add("Vary", "Accept") // beside Origin, perhaps
	lastEventID := e.r.Header.Get("Last-Event-ID")
	if lastEventID == "" {
		return out.end(here.watch(ctx, req, out.send))
	}
	// It is newer than a token in the URL, which an EventSource sends again and
	// again. What is not UTF-8 cannot be sent on, and is no token anyway.
	req.ResumeToken = strings.ToValidUTF8(lastEventID, "\uFFFD")
	err := here.watch(ctx, req, out.send)
	if !out.begun && status.Code(err) == codes.InvalidArgument {
		// A Last-Event-ID that is no token of this watch is no error, since an
		// EventSource gives up for good when it gets one, and would do so because of
		// something that it cannot forget. If it is not the token that is invalid, the
		// second answer says so.
		req.ResumeToken, req.Snapshot = "", notebookv1.WatchRequest_SNAPSHOT_INCLUDE
		out.reset = "TOKEN_INVALID"
		err = here.watch(ctx, req, out.send)
	}
	if !out.begun && comesAgain(err) && !out.begin() {
		return nil
	}
	return out.end(err)
}

// frameWriter writes the frames of one watch.
type frameWriter struct {
	w       http.ResponseWriter
	flusher *http.ResponseController
	events  bool          // Server-Sent Events, not lines of JSON
	limit   time.Duration // for which a reader may take nothing
	timers  bool          // a deadline ends the stream, also when nothing is written: HTTP/2
	reset   string        // the reason of a reset that comes first; empty for none

	begun bool // used by the goroutine of the watch alone

	mu       sync.Mutex // guards what is below, and writing
	deadline time.Time  // of writes
	silence  *time.Timer
	closed   bool // the handler returns, after which nothing may be written
}

// send writes a frame. It is what a watch in the process sends with.
func (o *frameWriter) send(frame *service.Frame) error {
	if o.reset != "" {
		reason := o.reset
		o.reset = ""
		if err := o.send(service.NewFrame(&notebookv1.WatchResponse{
			ResumeToken: frame.Token(), Event: &notebookv1.WatchResponse_Reset_{Reset_: &notebookv1.Reset{Reason: reason}},
		})); err != nil {
			return err
		}
	}
	encode := frame.Line
	if o.events {
		encode = frame.Event
	}
	text, err := encode()
	if err != nil {
		return err
	}
	if !o.begun && !o.begin() {
		return context.Canceled
	}
	return o.write(text)
}

// begin writes what comes before the first frame, and reports whether it could.
func (o *frameWriter) begin() bool {
	o.begun = true
	header := o.w.Header()
	if !o.events {
		header.Set("Content-Type", linesType)
		return true
	}
	header.Set("Content-Type", eventStreamType)
	// Nobody on the way may keep the stream, or hold it back to compress it.
	header.Set("Cache-Control", "no-store, no-transform")
	header.Set("X-Accel-Buffering", "no") // nginx
	o.mu.Lock()
	o.silence = time.AfterFunc(heartbeatAfter, func() { _ = o.write([]byte(": hb\n\n")) })
	o.mu.Unlock()
	// Callers that were cut off together do not come back together.
	return o.write(fmt.Appendf(nil, "retry: %d\n\n", around(reconnectAfter).Milliseconds())) == nil
}

// deadlineStep is by how much a deadline may be later than it has to be, so that
// not every write has to set one.
const deadlineStep = time.Second

// write writes a text and sends it off. A caller that does not read blocks it, and
// the watch behind it, and nobody else.
func (o *frameWriter) write(text []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return context.Canceled
	}
	now := time.Now()
	if o.deadline.Sub(now) < o.limit {
		o.deadline = now.Add(o.limit + deadlineStep)
		_ = o.flusher.SetWriteDeadline(o.deadline) // where there is none, there is no connection either
	}
	_, err := o.w.Write(text)
	if err == nil {
		err = o.flusher.Flush()
	}
	if o.timers {
		o.deadline = time.Time{}
		_ = o.flusher.SetWriteDeadline(o.deadline)
	}
	if o.silence != nil {
		o.silence.Reset(heartbeatAfter)
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %w", context.Canceled, err) // the reader has left
	}
	return err
}

// end tells the reader why a watch has ended. It returns the error when nothing
// was written yet.
func (o *frameWriter) end(err error) error {
	switch {
	case !o.begun:
		return err
	case err == nil:
	case o.events:
		_ = o.write(endText(err)) // nobody may be there any more
	default:
		_ = o.write(endLine(err))
	}
	return nil
}

// close ends heartbeats, and leaves the connection as it was.
func (o *frameWriter) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.silence != nil {
		o.silence.Stop() // or it runs, and waits for mu
	}
	_ = o.flusher.SetWriteDeadline(time.Time{})
}

// comesAgain reports whether an error is to be told in the stream, to an
// EventSource that was here before: it would give up for good at an HTTP error,
// though the next try may go well.
func comesAgain(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.ResourceExhausted, codes.Aborted, codes.DeadlineExceeded:
		return true
	default:
		return false
	}
}

// statusJSONOf is statusJSON for an error.
func statusJSONOf(err error) []byte { return statusJSON(status.Convert(err)) }

// statusJSON is an error as the google.rpc.Status that a caller may see.
func statusJSON(st *status.Status) []byte {
	data, err := protojson.Marshal(st.Proto())
	if err != nil { // a detail of a kind that is not linked in
		data, _ = protojson.Marshal(&spb.Status{Code: st.Proto().GetCode(), Message: st.Message()})
	}
	return data
}

// endLine is the last line of a watch that failed.
func endLine(err error) []byte {
	return fmt.Appendf(nil, "{\"error\":%s}\n", statusJSON(status.Convert(complete(err))))
}

// prefersEvents says whether an Accept header ranks events before JSON. Of two
// equal ranks the one that is named more exactly wins, and JSON when that is
// equal too: who accepts anything gets what everybody got before there were
// events.
func prefersEvents(accept []string) bool {
	type rank struct {
		exactness int // 0 not named, 1 by */*, 2 by type/*, 3 by its name
		q         float64
	}
	ranks := map[string]rank{eventStreamType: {}, linesType: {}, "application/json": {}}
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		named, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue // what cannot be read asks for nothing
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil || q < 0 || q > 1 || q != q {
				continue
			}
		}
		for offer, best := range ranks {
			major, _, _ := strings.Cut(offer, "/")
			exactness := slices.Index([]string{"", "*/*", major + "/*", offer}, named)
			if exactness > best.exactness {
				ranks[offer] = rank{exactness, q}
			}
		}
	}
	events := ranks[eventStreamType]
	delete(ranks, eventStreamType)
	for _, other := range ranks {
		if events.q < other.q || events.q == other.q && events.exactness <= other.exactness {
			return false
		}
	}
	return events.q > 0
}

// endText is the last event of a watch that failed. It is not called error: an
// EventSource calls so what it notices itself. It comes again whatever it is
// told, so it is also told when that makes sense.
func endText(err error) []byte {
	st := status.Convert(complete(err))
	return fmt.Appendf(nil, "event: end\nretry: %d\ndata: %s\n\n", around(retryAfter(st)).Milliseconds(), statusJSON(st))
}

// retryAfter is about when to come again after an error.
func retryAfter(st *status.Status) time.Duration {
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok && info.GetRetryDelay().AsDuration() > 0 {
			return 2 * info.GetRetryDelay().AsDuration() // around takes up to half of it off
		}
	}
	switch st.Code() {
	case codes.Unavailable, codes.Aborted, codes.Canceled, codes.DeadlineExceeded:
		return reconnectAfter // nothing is wrong with the next try
	case codes.ResourceExhausted, codes.Internal, codes.Unknown, codes.DataLoss:
		return 10 * time.Second
	default:
		return time.Minute // a refusal: the next one comes before the first frame
	}
}

// around is a random time from half to one and a half of d.
func around(d time.Duration) time.Duration {
	return d/2 + rand.N(d+1) //nolint:gosec // not a secret
}
