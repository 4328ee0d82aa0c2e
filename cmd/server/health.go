package main

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/notebookd/notebookd/internal/inventory"
)

// healthDoor is grpc.health.v1. How the process does is told to everybody, how a
// cloud does only to those who may see the cloud.
type healthDoor struct {
	*health.Server
	guard  *guard
	clouds func() []*inventory.Cloud
}

// maxHealthName bounds the name of a service: a watch keeps it.
const maxHealthName = 128

// allow fails when a caller may not know of a service. It returns who calls, or nil
// for the process, of which everybody may know.
func (h *healthDoor) allow(ctx context.Context, service string) (*session, error) {
	if service == "" {
		return nil, nil //nolint:nilnil // as documented
	}
	unknown := status.Error(codes.NotFound, "unknown service")
	name, ok := strings.CutPrefix(service, "clouds/")
	if !ok || len(service) > maxHealthName {
		return nil, unknown
	}
	_, s, err := h.guard.identify(ctx)
	if err != nil {
		return nil, err
	}
	if !s.rights.SeesCloud(name) {
		return nil, unknown
	}
	return s, nil
}

// Check implements healthpb.HealthServer.
func (h *healthDoor) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if _, err := h.allow(ctx, req.GetService()); err != nil {
		return nil, err
	}
	return h.Server.Check(ctx, req)
}

// Watch implements healthpb.HealthServer. That of a cloud ends when its caller may not
// see the cloud any more.
func (h *healthDoor) Watch(req *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	s, err := h.allow(stream.Context(), req.GetService())
	if err != nil {
		return err
	}
	if s == nil {
		return h.Server.Watch(req, stream)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer h.guard.follow(ctx, s, cancel)()
	err = h.Server.Watch(req, &healthWatch{stream, ctx})
	if cause := context.Cause(ctx); cause != nil && stream.Context().Err() == nil {
		return cause
	}
	return err
}

// healthWatch is the stream of a watch that can be ended.
type healthWatch struct {
	healthpb.Health_WatchServer
	ctx context.Context //nolint:containedctx // as grpc.ServerStream
}

// Context implements grpc.ServerStream.
func (s *healthWatch) Context() context.Context { return s.ctx }

// List implements healthpb.HealthServer.
func (h *healthDoor) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	services := []string{""}
	for _, c := range h.clouds() {
		name := inventory.CloudName(c.Name)
		if _, err := h.allow(ctx, name); err == nil {
			services = append(services, name)
		}
	}
	out := &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{}}
	for _, service := range services {
		if resp, err := h.Server.Check(ctx, &healthpb.HealthCheckRequest{Service: service}); err == nil {
			out.Statuses[service] = resp
		}
	}
	return out, nil
}
