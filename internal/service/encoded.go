package service

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
)

// Register registers the three services with a server that was made with the
// option Codec.
func Register(server grpc.ServiceRegistrar, s *Service) {
	notebooks := notebookv1.NotebookService_ServiceDesc
	notebooks.Methods = append([]grpc.MethodDesc(nil), notebooks.Methods...)
	for i := range notebooks.Methods {
		if method := &notebooks.Methods[i]; method.MethodName == "List" {
			method.Handler = listHandler
		}
	}
	notebooks.Streams = append([]grpc.StreamDesc(nil), notebooks.Streams...)
	for i := range notebooks.Streams {
		if stream := &notebooks.Streams[i]; stream.StreamName == "Watch" {
			stream.Handler = watchHandler
		}
	}
	server.RegisterService(&notebooks, s)
	notebookv1.RegisterCloudServiceServer(server, s)
	notebookv1.RegisterImageChangeServiceServer(server, s)
	notebookv1.RegisterCallerServiceServer(server, s)
}

// Codec is the option for a server that Register is called with: it writes
// messages of which parts are encoded already, and all others as usual.
func Codec() grpc.ServerOption {
	return grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(encodingproto.Name)})
}

type codec struct{ encoding.CodecV2 }

// encodable is a message that knows its own encoding.
type encodable interface {
	// encode returns the message in the wire format. Who gets it frees it.
	encode() (mem.BufferSlice, error)
}

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if message, ok := v.(encodable); ok {
		return message.encode()
	}
	return c.CodecV2.Marshal(v)
}

// ListInProcess calls List through an interceptor, without a connection.
func (s *Service) ListInProcess(ctx context.Context, req *notebookv1.ListRequest, interceptor grpc.UnaryServerInterceptor) (*Listing, error) {
	decode := func(to any) error {
		proto.Merge(to.(proto.Message), req) //nolint:forcetypeassert // listHandler's
		return nil
	}
	resp, err := listHandler(s, ctx, decode, interceptor)
	if err != nil {
		return nil, err
	}
	return resp.(*Listing), nil //nolint:forcetypeassert // as above
}

// listHandler does what the generated one does, except that the answer is not a
// ListResponse but a Listing.
func listHandler(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // grpc's signature
	req := &notebookv1.ListRequest{}
	if err := decode(req); err != nil {
		return nil, err
	}
	handler := func(ctx context.Context, req any) (any, error) {
		list, err := srv.(*Service).list(ctx, req.(*notebookv1.ListRequest))
		if err != nil {
			return nil, err // not a nil of another type
		}
		return list, nil
	}
	if interceptor == nil {
		return handler(ctx, req)
	}
	return interceptor(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: notebookv1.NotebookService_List_FullMethodName}, handler)
}

// Listing is a ListResponse, the notebooks of which stay as they stand in the
// log, or as they were made JSON before. It is immutable.
type Listing struct {
	head  *listHead
	rows  []*inventory.Row
	next  string // page token
	total int32
}

// message returns the Listing as a message of its own.
func (l *Listing) message() *notebookv1.ListResponse {
	out := proto.CloneOf(l.head.message)
	out.NextPageToken, out.TotalSize = l.next, l.total
	for _, row := range l.rows {
		out.Notebooks = append(out.Notebooks, row.Notebook)
	}
	return out
}

// The numbers of the fields that encode writes, in the contract.
const (
	listNextPageToken protowire.Number = 2
	listTotalSize     protowire.Number = 3
)

// encode implements encodable. Nothing is copied: rows are immutable.
func (l *Listing) encode() (mem.BufferSlice, error) {
	head, err := memo(&l.head.wire, func() ([]byte, error) { return proto.Marshal(l.head.message) })
	if err != nil {
		return nil, err
	}
	var own []byte
	if l.next != "" {
		own = protowire.AppendString(protowire.AppendTag(own, listNextPageToken, protowire.BytesType), l.next)
	}
	if l.total != 0 {
		own = protowire.AppendVarint(protowire.AppendTag(own, listTotalSize, protowire.VarintType), uint64(l.total)) //nolint:gosec // a count
	}
	parts := make([]mem.SliceBuffer, 2+len(l.rows))
	buffers := make(mem.BufferSlice, len(parts))
	parts[0], parts[1] = head, own
	for i, row := range l.rows {
		parts[2+i] = row.Encoded
	}
	for i := range parts {
		buffers[i] = &parts[i]
	}
	return buffers, nil
}

// AppendJSON appends the ListResponse as protojson.
func (l *Listing) AppendJSON(out []byte) ([]byte, error) {
	head, err := memo(&l.head.json, func() ([]byte, error) {
		text, err := protojson.Marshal(l.head.message)
		if err != nil {
			return nil, err
		}
		return bytes.TrimSpace(text[1 : len(text)-1]), nil
	})
	if err != nil {
		return nil, err
	}
	out = append(out, '{')
	if len(l.rows) > 0 {
		out = append(out, `"notebooks":[`...)
		for i, row := range l.rows {
			if i > 0 {
				out = append(out, ',')
			}
			text, err := row.JSON()
			if err != nil {
				return nil, err
			}
			out = append(out, text...)
		}
		out = append(out, "],"...)
	}
	if l.next != "" {
		out = append(append(append(out, `"nextPageToken":"`...), l.next...), `",`...) // of letters that need no escape
	}
	if l.total != 0 {
		out = append(strconv.AppendInt(append(out, `"totalSize":`...), int64(l.total), 10), ',')
	}
	out = append(out, head...)
	return append(bytes.TrimSuffix(out, []byte(",")), '}'), nil // a head without anything
}

// watchHandler does what the generated one does, except that it sends Frames.
func watchHandler(srv any, stream grpc.ServerStream) error {
	req := &notebookv1.WatchRequest{}
	if err := stream.RecvMsg(req); err != nil {
		return err
	}
	return srv.(*Service).watchGuarded(stream.Context(), req, func(frame *Frame) error { return stream.SendMsg(frame) }) //nolint:forcetypeassert // Register's
}

// WatchInProcess calls Watch through an interceptor, without a connection. Its
// frames are sent by the caller's goroutine. A send that fails ends the watch: with
// context.Canceled when the reader has left, with os.ErrDeadlineExceeded when it has
// not taken anything for SlowReader.
func (s *Service) WatchInProcess(ctx context.Context, req *notebookv1.WatchRequest, interceptor grpc.StreamServerInterceptor, send func(*Frame) error) error {
	handler := func(_ any, stream grpc.ServerStream) error {
		req := &notebookv1.WatchRequest{}
		if err := stream.RecvMsg(req); err != nil {
			return err
		}
		ctx := stream.Context()
		caller := s.caller(ctx)
		leave, err := s.callers.enter(caller.Name, s.limits().MaxPerCaller, &s.watches)
		if err != nil {
			return err
		}
		defer leave()
		counted := &countedWatch{s: s}
		err = errUnfinished
		defer func() { counted.end(ctx, err) }()
		if err = s.watch(ctx, caller, req, counted.open, func(frame *Frame) error { return stream.SendMsg(frame) }); errors.Is(err, os.ErrDeadlineExceeded) {
			err = s.errSlowReader()
		}
		err = s.toStatus(ctx, err, nil)
		return err
	}
	stream := &localStream{ctx: ctx, req: req, send: send}
	if interceptor == nil {
		return handler(s, stream)
	}
	return interceptor(s, stream, &grpc.StreamServerInfo{FullMethod: notebookv1.NotebookService_Watch_FullMethodName, IsServerStream: true}, handler)
}

// localStream is the stream of a watch that has no connection.
type localStream struct {
	ctx  context.Context //nolint:containedctx // as grpc.ServerStream
	req  *notebookv1.WatchRequest
	send func(*Frame) error
}

// Context implements grpc.ServerStream.
func (l *localStream) Context() context.Context { return l.ctx }

// RecvMsg implements grpc.ServerStream.
func (l *localStream) RecvMsg(to any) error {
	proto.Merge(to.(proto.Message), l.req) //nolint:forcetypeassert // WatchInProcess's
	return nil
}

// SendMsg implements grpc.ServerStream.
func (l *localStream) SendMsg(m any) error { return l.send(m.(*Frame)) } //nolint:forcetypeassert // as above

// SetHeader implements grpc.ServerStream. Nobody sees headers.
func (*localStream) SetHeader(metadata.MD) error { return nil }

// SendHeader implements grpc.ServerStream.
func (*localStream) SendHeader(metadata.MD) error { return nil }

// SetTrailer implements grpc.ServerStream.
func (*localStream) SetTrailer(metadata.MD) {}
