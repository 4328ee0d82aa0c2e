package service

import (
	"encoding/json"
	"fmt"
	"sync/atomic"

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
	row   rowFrame
	other *notebookv1.WatchResponse // without its token; nil if row is set

	wire        atomic.Pointer[mem.BufferSlice]
	json, event atomic.Pointer[[]byte]
}

// rowFrame is what happened to a notebook.
type rowFrame struct {
	row     *inventory.Row
	kind    notebookv1.NotebookEvent_Type
	changed []string
	initial bool
}

// newRowFrame returns the frame of a notebook's event. What is already encoded of
// the row is used.
func newRowFrame(token string, row rowFrame) *Frame { return &Frame{token: token, row: row} }

// newFrame returns the frame of anything else.
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
		event := make([]byte, 0, 32+len(f.row.row.Encoded))
		event = protowire.AppendVarint(protowire.AppendTag(event, eventType, protowire.VarintType), uint64(f.row.kind)) //nolint:gosec // not negative
		event = f.row.row.AppendField(event, eventNotebook)
		for _, path := range f.row.changed {
			event = protowire.AppendString(protowire.AppendTag(event, eventChanged, protowire.BytesType), path)
		}
		if f.row.initial {
			event = protowire.AppendVarint(protowire.AppendTag(event, eventInitial, protowire.VarintType), 1)
		}
		out := make([]byte, 0, 16+len(f.token)+len(event))
		if f.token != "" {
			out = protowire.AppendString(protowire.AppendTag(out, responseToken, protowire.BytesType), f.token)
		}
		out = protowire.AppendBytes(protowire.AppendTag(out, responseNotebook, protowire.BytesType), event)
		return mem.BufferSlice{mem.SliceBuffer(out)}, nil
	})
}

// message returns the frame as a message of its own. What it points to is shared.
func (f *Frame) message() *notebookv1.WatchResponse {
	if f.other != nil {
		return &notebookv1.WatchResponse{ResumeToken: f.token, Event: f.other.GetEvent()}
	}
	return &notebookv1.WatchResponse{ResumeToken: f.token, Event: &notebookv1.WatchResponse_Notebook{Notebook: &notebookv1.NotebookEvent{
		Type: f.row.kind, Notebook: f.row.row.Notebook, ChangedFields: f.row.changed, Initial: f.row.initial,
	}}}
}

// JSON returns the frame as protojson, on one line. It must not be changed.
func (f *Frame) JSON() ([]byte, error) {
	return memo(&f.json, func() ([]byte, error) {
		if f.other != nil {
			return protojson.Marshal(f.message()) // what breaks lines is escaped
		}
		notebook, err := f.row.row.JSON()
		if err != nil {
			return nil, err
		}
		out := make([]byte, 0, 256+len(f.token)+len(notebook))
		out = append(out, '{')
		if f.token != "" {
			out = fmt.Appendf(out, `"resumeToken":"%s",`, f.token) // of letters that need no escape
		}
		out = fmt.Appendf(out, `"notebook":{"type":"%s","notebook":`, f.row.kind)
		out = append(out, notebook...)
		if len(f.row.changed) > 0 {
			changed, err := json.Marshal(f.row.changed)
			if err != nil {
				return nil, err
			}
			out = append(append(out, `,"changedFields":`...), changed...)
		}
		if f.row.initial {
			out = append(out, `,"initial":true`...)
		}
		return append(out, "}}"...), nil
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
	return memo(&f.event, func() ([]byte, error) {
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
