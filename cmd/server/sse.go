package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// Server-Sent Events: the frames of Watch, for an EventSource. Only the framing
// is here. The generated handler parses the request and calls the gateway's
// client, as it does for lines of JSON; sseClient stands in its place and writes
// the answer itself when the caller prefers events. So what Watch means, what it
// refuses, and how, is the same for both.

const (
	eventStreamType = "text/event-stream"
	// heartbeatAfter is the silence after which a comment is sent: proxies cut
	// connections that are quiet for longer, many of them after 30 seconds.
	heartbeatAfter = 15 * time.Second
	// reconnectAfter is what an EventSource is told to wait, on average, before it
	// comes again.
	reconnectAfter = 2 * time.Second
)

// eventStream is one request that is to be answered with events. It travels in
// the context of the request, through the generated handler, to sseClient.
type eventStream struct {
	w http.ResponseWriter
	r *http.Request
}

type eventStreamKey struct{}

// offerEvents marks a request that prefers events to lines of JSON. Only Watch
// looks at the mark.
func offerEvents(w http.ResponseWriter, r *http.Request) *http.Request {
	if r.Method != http.MethodGet || !prefersEvents(r.Header.Values("Accept")) {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), eventStreamKey{}, &eventStream{w, r}))
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
	ranks := map[string]rank{eventStreamType: {}, "application/x-ndjson": {}, "application/json": {}}
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

// sseClient is the gateway's client of NotebookService. It answers watches that
// are marked with events, and leaves everything else alone.
type sseClient struct {
	notebookv1.NotebookServiceClient
}

// Watch implements notebookv1.NotebookServiceClient. For a marked request it
// returns once the answer is written, with a stream that has nothing to add, or
// with the error that came before the answer began: the generated handler
// answers that as any other.
func (c sseClient) Watch(ctx context.Context, req *notebookv1.WatchRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[notebookv1.WatchResponse], error) {
	s, ok := ctx.Value(eventStreamKey{}).(*eventStream)
	if !ok {
		return c.NotebookServiceClient.Watch(ctx, req, opts...)
	}
	if err := s.serve(ctx, c.NotebookServiceClient, req); err != nil {
		return nil, err
	}
	return endedStream{}, nil
}

// endedStream is a watch that is over. The generated handler asks for its header
// and its frames, and for nothing else.
type endedStream struct {
	grpc.ServerStreamingClient[notebookv1.WatchResponse]
}

// Header implements grpc.ClientStream.
func (endedStream) Header() (metadata.MD, error) { return nil, nil }

// Recv implements grpc.ServerStreamingClient.
func (endedStream) Recv() (*notebookv1.WatchResponse, error) { return nil, io.EOF }

// serve writes a watch as events until it or the caller ends. It returns an
// error only when nothing was written.
//
// Only this goroutine writes, so a caller that does not read blocks it and the
// watch behind it, and nobody else. It is cut off when the server stops.
func (s *eventStream) serve(ctx context.Context, client notebookv1.NotebookServiceClient, req *notebookv1.WatchRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the watch and the goroutine that receives it
	header := s.w.Header()
	header.Set("Vary", "Accept")
	stream, first, err := s.open(ctx, client, req)
	if err != nil && !s.comesAgain(err) {
		return err
	}

	header.Set("Content-Type", eventStreamType)
	// Nobody on the way may keep the stream, or hold it back to compress it.
	header.Set("Cache-Control", "no-store, no-transform")
	header.Set("X-Accel-Buffering", "no") // nginx
	flusher := http.NewResponseController(s.w)
	write := func(text []byte) bool {
		_, err := s.w.Write(text)
		return err == nil && flusher.Flush() == nil
	}
	// Callers that were cut off together do not come back together.
	if !write(fmt.Appendf(nil, "retry: %d\n\n", around(reconnectAfter).Milliseconds())) {
		return nil
	}
	end := func(err error) error {
		if !errors.Is(err, io.EOF) {
			write(endText(err))
		}
		return nil
	}
	if err != nil {
		return end(err)
	}
	for _, frame := range first {
		text, err := eventText(frame)
		if err != nil {
			return end(err)
		}
		if !write(text) {
			return nil
		}
	}

	// frames is sent to and closed by the goroutine below. It has no capacity: one
	// frame is on its way, the others wait at the server as versions of rows.
	frames := make(chan *notebookv1.WatchResponse)
	var ended error // why frames was closed; set before
	defer func() {
		cancel()
		for range frames { // until the goroutine has ended
		}
	}()
	go func() {
		defer close(frames)
		for {
			var frame *notebookv1.WatchResponse
			if frame, ended = stream.Recv(); ended != nil {
				return
			}
			select {
			case frames <- frame:
			case <-ctx.Done():
				return
			}
		}
	}()
	silence := time.NewTimer(heartbeatAfter)
	defer silence.Stop()
	for {
		var text []byte
		select {
		case frame, ok := <-frames:
			if !ok {
				return end(ended)
			}
			if text, err = eventText(frame); err != nil {
				return end(err)
			}
		case <-silence.C:
			text = []byte(": hb\n\n")
		}
		if !write(text) {
			return nil
		}
		silence.Reset(heartbeatAfter)
	}
}

// open begins a watch and waits for its first frame, which the server sends at
// once: an error instead of it can still be answered as an HTTP error. first
// holds that frame, and before it a reset when the Last-Event-ID is no token
// of this watch. That is no error, since an EventSource gives up for good when
// it gets one, and would do so because of something that it cannot forget.
func (s *eventStream) open(ctx context.Context, client notebookv1.NotebookServiceClient, req *notebookv1.WatchRequest) (stream grpc.ServerStreamingClient[notebookv1.WatchResponse], first []*notebookv1.WatchResponse, err error) {
	begin := func() (frame *notebookv1.WatchResponse, err error) {
		if stream, err = client.Watch(ctx, req); err != nil {
			return nil, err
		}
		return stream.Recv()
	}
	lastEventID := s.r.Header.Get("Last-Event-ID")
	if lastEventID != "" {
		// It is newer than a token in the URL, which an EventSource sends again
		// and again. What is not UTF-8 cannot be sent on, and is no token anyway.
		req.ResumeToken = strings.ToValidUTF8(lastEventID, "\uFFFD")
	}
	frame, err := begin()
	if lastEventID != "" && status.Code(err) == codes.InvalidArgument {
		// If it is not the token that is invalid, the second answer says so.
		req.ResumeToken, req.Snapshot = "", notebookv1.WatchRequest_SNAPSHOT_INCLUDE
		if frame, err = begin(); err == nil {
			first = append(first, &notebookv1.WatchResponse{
				ResumeToken: frame.GetResumeToken(),
				Event:       &notebookv1.WatchResponse_Reset_{Reset_: &notebookv1.Reset{Reason: "TOKEN_INVALID"}},
			})
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return stream, append(first, frame), nil
}

// comesAgain reports whether an error is to be told in the stream, to an
// EventSource that was here before: it would give up for good at an HTTP error,
// though the next try may go well.
func (s *eventStream) comesAgain(err error) bool {
	if s.r.Header.Get("Last-Event-ID") == "" {
		return false
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.ResourceExhausted, codes.Aborted, codes.DeadlineExceeded:
		return true
	default:
		return false
	}
}

// eventText is a frame as an event. Its name is that of what happened in the
// contract: notebook, location, bookmark, image_change or reset.
func eventText(frame *notebookv1.WatchResponse) ([]byte, error) {
	data, err := protojson.Marshal(frame) // one line: what breaks lines is escaped
	if err != nil {
		return nil, err
	}
	var text []byte
	if token := frame.GetResumeToken(); token != "" {
		text = fmt.Appendf(text, "id: %s\n", token)
	}
	message := frame.ProtoReflect()
	if event := message.WhichOneof(message.Descriptor().Oneofs().ByName("event")); event != nil {
		text = fmt.Appendf(text, "event: %s\n", event.Name())
	}
	return fmt.Appendf(text, "data: %s\n\n", data), nil
}

// endText is the last event of a watch that failed. It is not called error: an
// EventSource calls so what it notices itself. It comes again whatever it is
// told, so it is also told when that makes sense.
func endText(err error) []byte {
	st := status.Convert(complete(err))
	data, err := protojson.Marshal(st.Proto())
	if err != nil { // a detail of a kind that is not linked in
		data, _ = protojson.Marshal(&spb.Status{Code: st.Proto().GetCode(), Message: st.Message()})
	}
	return fmt.Appendf(nil, "event: end\nretry: %d\ndata: %s\n\n", around(retryAfter(st)).Milliseconds(), data)
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
