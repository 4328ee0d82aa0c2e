package service

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
	"weak"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
)

// Frame is a WatchResponse for every watch that is sent it. Each of its encodings
// is made when it is first asked for, and then kept. It is safe for concurrent use.
type Frame struct {
	token string
	event *rowEvent
	other *notebookv1.WatchResponse // without its token; nil if event is set

	wire      atomic.Pointer[mem.BufferSlice]
	json, sse atomic.Pointer[[]byte]
}

// rowEvent is a NotebookEvent: what happened to a notebook. The frames of all feeds to
// which the same has happened share it, and with it its encodings: they differ in
// their tokens only. It is safe for concurrent use.
type rowEvent struct {
	row     *inventory.Row
	kind    notebookv1.NotebookEvent_Type
	changed []string
	initial bool

	wire atomic.Pointer[[]byte] // as a field of the WatchResponse
	json atomic.Pointer[[]byte]
}

// eventKey tells apart the events of a row that are told at about the same time.
type eventKey struct {
	kind notebookv1.NotebookEvent_Type
	base uint64 // since when the fields have changed that are named
}

// eventOf returns the event of a row, which others who ask get as well for as long as
// somebody has it to send.
func eventOf(row *inventory.Row, kind notebookv1.NotebookEvent_Type, base uint64) *rowEvent {
	key := eventKey{kind, base}
	if attached, ok := row.Attached(key).(weak.Pointer[rowEvent]); ok {
		if e := attached.Value(); e != nil {
			return e
		}
	}
	e := &rowEvent{row: row, kind: kind}
	if kind == notebookv1.NotebookEvent_TYPE_MODIFIED {
		e.changed = row.ChangedSince(base)
	}
	row.Attach(key, weak.Make(e))
	return e
}

// newFrame returns the frame of anything but a notebook's event.
func newFrame(token string, event *notebookv1.WatchResponse) *Frame {
	return &Frame{token: token, other: event}
}

// NewFrame returns the frame of a message, which must not be changed any more.
func NewFrame(message *notebookv1.WatchResponse) *Frame {
	token := message.GetResumeToken()
	return newFrame(token, &notebookv1.WatchResponse{Event: message.GetEvent()})
}

// Token is the resume token of the frame.
func (f *Frame) Token() string { return f.token }

// memo returns what is at p, which build makes if need be. Two who ask at once may
// both make it.
func memo[T any](p *atomic.Pointer[T], build func() (T, error)) (T, error) {
	if made := p.Load(); made != nil {
		return *made, nil
	}
	made, err := build()
	if err != nil {
		var none T
		return none, fmt.Errorf("encode: %w", err)
	}
	p.Store(&made)
	return made, nil
}

// The numbers of the fields that encode writes, in the contract.
const (
	responseToken    protowire.Number = 1
	responseNotebook protowire.Number = 2
	eventType        protowire.Number = 1
	eventNotebook    protowire.Number = 2
	eventChanged     protowire.Number = 3
	eventInitial     protowire.Number = 4
)

// encode implements encodable. Nobody writes to the buffers, and freeing them does
// nothing, so all streams share them.
func (f *Frame) encode() (mem.BufferSlice, error) {
	return memo(&f.wire, func() (mem.BufferSlice, error) {
		if f.other != nil {
			data, err := proto.Marshal(f.message())
			return mem.BufferSlice{mem.SliceBuffer(data)}, err
		}
		event, err := f.event.encode()
		if err != nil || f.token == "" {
			return mem.BufferSlice{mem.SliceBuffer(event)}, err
		}
		token := make([]byte, 0, 4+len(f.token))
		token = protowire.AppendString(protowire.AppendTag(token, responseToken, protowire.BytesType), f.token)
		return mem.BufferSlice{mem.SliceBuffer(token), mem.SliceBuffer(event)}, nil
	})
}

// encode returns the event as a field of a WatchResponse.
func (e *rowEvent) encode() ([]byte, error) {
	return memo(&e.wire, func() ([]byte, error) {
		event := make([]byte, 0, 32+len(e.row.Encoded))
		event = protowire.AppendVarint(protowire.AppendTag(event, eventType, protowire.VarintType), uint64(e.kind)) //nolint:gosec // not negative
		event = e.row.AppendField(event, eventNotebook)
		for _, path := range e.changed {
			event = protowire.AppendString(protowire.AppendTag(event, eventChanged, protowire.BytesType), path)
		}
		if e.initial {
			event = protowire.AppendVarint(protowire.AppendTag(event, eventInitial, protowire.VarintType), 1)
		}
		out := make([]byte, 0, 8+len(event))
		return protowire.AppendBytes(protowire.AppendTag(out, responseNotebook, protowire.BytesType), event), nil
	})
}

// asJSON returns the event as protojson.
func (e *rowEvent) asJSON() ([]byte, error) {
	return memo(&e.json, func() ([]byte, error) {
		notebook, err := e.row.JSON()
		if err != nil {
			return nil, err
		}
		out := fmt.Appendf(make([]byte, 0, 128+len(notebook)), `{"type":"%s","notebook":%s`, e.kind, notebook)
		if len(e.changed) > 0 {
			changed, err := json.Marshal(e.changed)
			if err != nil {
				return nil, err
			}
			out = append(append(out, `,"changedFields":`...), changed...)
		}
		if e.initial {
			out = append(out, `,"initial":true`...)
		}
		return append(out, '}'), nil
	})
}

// message returns the frame as a message of its own. What it points to is shared.
func (f *Frame) message() *notebookv1.WatchResponse {
	if f.other != nil {
		return &notebookv1.WatchResponse{ResumeToken: f.token, Event: f.other.GetEvent()}
	}
	return &notebookv1.WatchResponse{ResumeToken: f.token, Event: &notebookv1.WatchResponse_Notebook{Notebook: &notebookv1.NotebookEvent{
		Type: f.event.kind, Notebook: f.event.row.Notebook, ChangedFields: f.event.changed, Initial: f.event.initial,
	}}}
}

// JSON returns the frame as protojson, on one line. It must not be changed.
func (f *Frame) JSON() ([]byte, error) {
	return memo(&f.json, func() ([]byte, error) {
		if f.other != nil {
			return protojson.Marshal(f.message()) // what breaks lines is escaped
		}
		event, err := f.event.asJSON()
		if err != nil {
			return nil, err
		}
		out := append(make([]byte, 0, 32+len(f.token)+len(event)), '{')
		if f.token != "" {
			out = fmt.Appendf(out, `"resumeToken":"%s",`, f.token) // of letters that need no escape
		}
		return append(append(append(out, `"notebook":`...), event...), '}'), nil
	})
}

// Line returns the frame as a line of a stream of JSON. It must not be changed.
func (f *Frame) Line() ([]byte, error) {
	data, err := f.JSON()
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(make([]byte, 0, len(data)+16), "{\"result\":%s}\n", data), nil
}

// Event returns the frame as a Server-Sent Event, the name of which is that of
// what happened in the contract: notebook, location, bookmark, image_change or
// reset. It must not be changed.
func (f *Frame) Event() ([]byte, error) {
	return memo(&f.sse, func() ([]byte, error) {
		data, err := f.JSON()
		if err != nil {
			return nil, err
		}
		name := "notebook"
		if f.other != nil {
			message := f.other.ProtoReflect()
			name = string(message.WhichOneof(message.Descriptor().Oneofs().ByName("event")).Name())
		}
		var out []byte
		if f.token != "" {
			out = fmt.Appendf(out, "id: %s\n", f.token)
		}
		return fmt.Appendf(out, "event: %s\ndata: %s\n\n", name, data), nil
	})
}
