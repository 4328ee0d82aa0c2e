package service

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// Rights is what a caller may see and do. It is immutable.
type Rights interface {
	// Sees reports whether the caller may see a location, or all of a cloud when location
	// is empty, and SeesCloud whether any location of a cloud, whether there is one or not.
	Sees(cloud, location string) bool
	SeesCloud(cloud string) bool
	// Operates reports whether the caller may change images in a location.
	Operates(cloud, location string) bool
	// Nothing reports whether the caller may see nothing at all.
	Nothing() bool
	// Key is the same for all who see the same.
	Key() string
}

// Caller is who makes a call. The zero Caller is nobody, who may do everything.
type Caller struct {
	// Name stands in the history of image changes, and watches are counted by it.
	Name string
	// Rights is what the caller may do; nil for everything.
	Rights Rights
	// Describe tells the caller who it is; nil where nobody is asked, and everybody may
	// do everything.
	Describe func() *notebookv1.Caller
	// Check says whether the caller may still do what the call does, with what it may
	// see by now. An error ends the call. Nil when that cannot change.
	Check func(context.Context) (Rights, error)
}

// ErrComeAgain is the cause with which to end the context of a watch whose caller
// may see something else by now: it is told to come again.
var ErrComeAgain = errors.New("the caller may see something else by now")

// peerCaller is the caller when nobody says better: the host of the other end.
func peerCaller(ctx context.Context) Caller {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return Caller{Name: p.Addr.String()}
	}
	return Caller{Name: host}
}

// everything is what is seen where nobody says what may be seen.
type everything struct{}

func (everything) Sees(string, string) bool     { return true }
func (everything) SeesCloud(string) bool        { return true }
func (everything) Operates(string, string) bool { return true }
func (everything) Nothing() bool                { return false }
func (everything) Key() string                  { return "" }

// rights is what the caller may do.
func (c Caller) rights() Rights {
	if c.Rights == nil {
		return everything{}
	}
	return c.Rights
}

// GetCaller implements CallerService.
func (s *Service) GetCaller(ctx context.Context, _ *notebookv1.GetCallerRequest) (*notebookv1.GetCallerResponse, error) {
	c := s.caller(ctx)
	if c.Describe != nil {
		return &notebookv1.GetCallerResponse{Caller: c.Describe()}, nil
	}
	return &notebookv1.GetCallerResponse{Caller: &notebookv1.Caller{
		Subject: c.Name, Method: notebookv1.Caller_METHOD_NONE,
		Grants: []*notebookv1.Grant{{Role: notebookv1.Grant_ROLE_ADMIN, Parent: "clouds/-"}},
	}}, nil
}

// errDenied is the same whether there is what was asked for or not.
func errDenied(metadata map[string]string) error {
	return newStatus(codes.PermissionDenied, notebookv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED,
		"you may not do this here; ask whoever runs notebookd for a role", metadata)
}
