package service

import (
	"context"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
)

// ListClouds implements CloudService.
func (s *Service) ListClouds(ctx context.Context, _ *notebookv1.ListCloudsRequest) (*notebookv1.ListCloudsResponse, error) {
	rights := s.caller(ctx).rights()
	if rights.Nothing() {
		return nil, errDenied(nil)
	}
	snapshot := s.inventory.Snapshot()
	resp := &notebookv1.ListCloudsResponse{}
	for _, c := range snapshot.Clouds() {
		if rights.SeesCloud(c.Name) {
			resp.Clouds = append(resp.Clouds, cloudMessage(snapshot, c, rights))
		}
	}
	return resp, nil
}

// GetCloud implements CloudService.
func (s *Service) GetCloud(ctx context.Context, req *notebookv1.GetCloudRequest) (*notebookv1.GetCloudResponse, error) {
	rights := s.caller(ctx).rights()
	name := strings.TrimPrefix(req.GetName(), "clouds/")
	if !rights.SeesCloud(name) {
		return nil, errDenied(map[string]string{"cloud": name})
	}
	snapshot := s.inventory.Snapshot()
	for _, c := range snapshot.Clouds() {
		if c.Name == name {
			return &notebookv1.GetCloudResponse{Cloud: cloudMessage(snapshot, c, rights)}, nil
		}
	}
	return nil, notFound(notebookv1.ErrorReason_ERROR_REASON_CLOUD_NOT_FOUND, "no such cloud is configured", map[string]string{"cloud": name})
}

// cloudMessage describes a cloud with those of its locations that may be seen.
func cloudMessage(snapshot *inventory.Snapshot, c *inventory.Cloud, rights Rights) *notebookv1.Cloud {
	out := &notebookv1.Cloud{Name: inventory.CloudName(c.Name), Kind: c.Kind, Reason: failureReason(c.Failure)}
	if rights.Sees(c.Name, "") { // it is the whole account's, and tells of other locations
		perHour, remaining := c.Budget()
		out.Budget = &notebookv1.Budget{CallsPerHour: narrow(perHour), Remaining: narrow(remaining)}
	}
	can := c.Capabilities()
	switch can.ChangeImage {
	case upstream.ChangeImageInPlace:
		out.Capabilities = append(out.Capabilities, notebookv1.Cloud_CAPABILITY_CHANGE_IMAGE_IN_PLACE)
	case upstream.ChangeImageRecreate:
		out.Capabilities = append(out.Capabilities, notebookv1.Cloud_CAPABILITY_CHANGE_IMAGE_RECREATE)
	case upstream.ChangeImageUnsupported:
	}
	if can.RegistryCredential {
		out.Capabilities = append(out.Capabilities, notebookv1.Cloud_CAPABILITY_REGISTRY_CREDENTIAL)
	}
	for _, l := range snapshot.Locations() {
		if l.Cloud == c.Name && rights.Sees(l.Cloud, l.ID) {
			location := locationMessage(snapshot, l)
			location.StateHistory = pastStates(l.History(time.Now()))
			out.Locations = append(out.Locations, location)
		}
	}
	return out
}

func locationMessage(snapshot *inventory.Snapshot, l *inventory.Location) *notebookv1.Location {
	out := &notebookv1.Location{
		Name: l.Name, DisplayName: l.DisplayName, State: l.State, Reason: failureReason(l.Failure), Message: failureText(l.Failure),
		LastSuccessTime: timestamp(l.LastSuccess), LastAttemptTime: timestamp(l.LastAttempt), NextAttemptTime: timestamp(l.NextAttempt),
		NotebookCount: narrow(snapshot.Count(l.Name)), ResourceGroups: l.Usage,
	}
	if l.Failure != nil {
		out.CloudCode = l.Failure.Code
	}
	if l.Interval > 0 {
		out.PollInterval = durationpb.New(l.Interval)
	}
	for _, b := range l.Breakers() {
		out.Breakers = append(out.Breakers, &notebookv1.Breaker{
			Operation: operations[b.Class], State: breakerStates[b.State], OpenUntil: timestamp(b.OpenUntil),
		})
	}
	return out
}

// pastStates tells of a location's history. Of states that differ in nothing that is
// told, the first stands for all.
func pastStates(history []inventory.Past) []*notebookv1.PastState {
	out := make([]*notebookv1.PastState, 0, len(history))
	for _, past := range history {
		reason := failureReason(past.Failure)
		if n := len(out); n > 0 && out[n-1].GetState() == past.State && out[n-1].GetReason() == reason {
			continue
		}
		out = append(out, &notebookv1.PastState{State: past.State, Reason: reason, StartTime: timestamp(past.Since)})
	}
	return out
}

var operations = map[upstream.Class]notebookv1.Breaker_Operation{
	upstream.ClassRead:  notebookv1.Breaker_OPERATION_READ,
	upstream.ClassWrite: notebookv1.Breaker_OPERATION_WRITE,
	upstream.ClassLogin: notebookv1.Breaker_OPERATION_LOGIN,
}

var breakerStates = map[upstream.BreakerState]notebookv1.Breaker_State{
	upstream.BreakerClosed:   notebookv1.Breaker_STATE_CLOSED,
	upstream.BreakerHalfOpen: notebookv1.Breaker_STATE_HALF_OPEN,
	upstream.BreakerOpen:     notebookv1.Breaker_STATE_OPEN,
}

func narrow(n int) int32 { return int32(min(max(n, 0), math.MaxInt32)) }
