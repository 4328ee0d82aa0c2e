package main

import (
	"context"
	"fmt"
	"net/netip"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// inProcess is the gateway's way to the services: what a connection to the gRPC
// server would do, through the same interceptors, without encoding anything. So a
// call has one meaning over both doors. Services are registered before the first
// call.
type inProcess struct {
	interceptor grpc.UnaryServerInterceptor
	methods     map[string]inProcessMethod // by full name
}

type inProcessMethod struct {
	service any
	handler grpc.MethodHandler
}

// RegisterService implements grpc.ServiceRegistrar.
func (c *inProcess) RegisterService(desc *grpc.ServiceDesc, service any) {
	if c.methods == nil {
		c.methods = map[string]inProcessMethod{}
	}
	for _, method := range desc.Methods {
		c.methods["/"+desc.ServiceName+"/"+method.MethodName] = inProcessMethod{service, method.Handler}
	}
}

// Invoke implements grpc.ClientConnInterface.
func (c *inProcess) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	m, ok := c.methods[method]
	request, isMessage := args.(proto.Message)
	if !ok || !isMessage {
		return status.Error(codes.Unimplemented, "no such method")
	}
	ctx, err := incoming(ctx, request)
	if err != nil {
		return err
	}
	decode := func(to any) error {
		proto.Merge(to.(proto.Message), request) //nolint:forcetypeassert // a generated handler's
		return nil
	}
	resp, err := m.handler(m.service, ctx, decode, c.interceptor)
	if err != nil {
		if _, ok := status.FromError(err); !ok {
			err = status.FromContextError(err).Err()
		}
		return err
	}
	answer, ok := resp.(proto.Message)
	if !ok {
		return status.Error(codes.Internal, fmt.Sprintf("%s answered with a %T", method, resp))
	}
	proto.Merge(reply.(proto.Message), answer) //nolint:forcetypeassert // a generated client's
	return nil
}

// NewStream implements grpc.ClientConnInterface. The only stream of the API is
// Watch, which localClient answers.
func (c *inProcess) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "no such stream")
}

// passed are the keys of metadata that the gateway may pass on: all else that a
// caller over HTTP sends is nobody's business behind it.
var passed = []string{"authorization", "traceparent", "tracestate"}

// incoming makes of the context of a call by the gateway what it would be on the
// other side of a connection.
func incoming(ctx context.Context, req proto.Message) (context.Context, error) {
	if _, err := proto.Marshal(req); err != nil { // text that is not UTF-8, which no connection would carry
		return nil, status.Error(codes.Internal, err.Error())
	}
	sent, _ := metadata.FromOutgoingContext(ctx)
	md := metadata.MD{}
	for _, key := range passed {
		if values := sent.Get(key); len(values) > 0 {
			md[key] = values
		}
	}
	return metadata.NewIncomingContext(ctx, md), nil
}

// remote is the address of the other end of an HTTP connection, or of the one that
// a proxy speaks for.
type remote string

// Network implements net.Addr.
func (remote) Network() string { return "tcp" }

// String implements net.Addr.
func (r remote) String() string { return string(r) }

// host is the host of an address, or all of it where there is no port.
func host(address string) string {
	if at, err := netip.ParseAddrPort(address); err == nil {
		return at.Addr().Unmap().WithZone("").String()
	}
	return address
}

// caller is the host that a call comes from.
func caller(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	return host(p.Addr.String())
}
