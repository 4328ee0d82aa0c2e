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

// allow fails when a caller may not know of a service.
func (h *healthDoor) allow(ctx context.Context, service string) error {
	if service == "" {
		return nil
	}
	unknown := status.Error(codes.NotFound, "unknown service")
	name, ok := strings.CutPrefix(service, "clouds/")
	if !ok || len(service) > maxHealthName {
		return unknown
	}
	_, s, err := h.guard.identify(ctx)
	if err != nil {
		return err
	}
	if !s.rights.SeesCloud(name) {
		return unknown
	}
	return nil
}

// Check implements healthpb.HealthServer.
func (h *healthDoor) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if err := h.allow(ctx, req.GetService()); err != nil {
		return nil, err
	}
	return h.Server.Check(ctx, req)
}

// Watch implements healthpb.HealthServer.
func (h *healthDoor) Watch(req *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	if err := h.allow(stream.Context(), req.GetService()); err != nil {
		return err
	}
	return h.Server.Watch(req, stream)
}

// List implements healthpb.HealthServer.
func (h *healthDoor) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	services := []string{""}
	for _, c := range h.clouds() {
		if name := inventory.CloudName(c.Name); h.allow(ctx, name) == nil {
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
