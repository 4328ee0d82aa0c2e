package service

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/imagechange"
)

// GetImageChange implements ImageChangeService.
func (s *Service) GetImageChange(ctx context.Context, req *notebookv1.GetImageChangeRequest) (*notebookv1.GetImageChangeResponse, error) {
	change, err := s.changer.Get(ctx, req.GetName())
	seen := scope{rights: s.caller(ctx).rights()}
	switch {
	case seen.rights.Nothing():
		return nil, errDenied(nil)
	case errors.Is(err, imagechange.ErrNotFound), err == nil && !seen.hasChange(change): // which is the same to the caller
		return nil, notFound(notebookv1.ErrorReason_ERROR_REASON_IMAGE_CHANGE_NOT_FOUND, "no such image change is known; they are kept for 90 days", nil)
	case err != nil && ctx.Err() != nil:
		return nil, s.toStatus(ctx, ctx.Err(), nil)
	case err != nil:
		return nil, newStatus(codes.Unavailable, notebookv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE,
			"whether there is such an image change cannot be read at the moment; try again, or another replica", nil, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	}
	return &notebookv1.GetImageChangeResponse{ImageChange: change}, nil
}

// historyScope binds page tokens to the filter, whatever its spelling.
func historyScope(f *filter[*notebookv1.ImageChange]) string { return "imageChanges?" + f.key() }

// ListImageChanges implements ImageChangeService. A page begins after the id of
// the last change of the one before. Ids are in the order of time and never
// change, so that what is added between pages, which is newer, moves nothing.
func (s *Service) ListImageChanges(ctx context.Context, req *notebookv1.ListImageChangesRequest) (*notebookv1.ListImageChangesResponse, error) {
	f, err := imageChangeSchema.parse(req.GetFilter())
	if err != nil {
		return nil, s.toStatus(ctx, err, nil)
	}
	seen := scope{rights: s.caller(ctx).rights()}
	if seen.rights.Nothing() {
		return nil, errDenied(nil)
	}
	if err := s.loaded(ctx); err != nil {
		return nil, s.toStatus(ctx, err, nil)
	}
	after := ""
	if token := req.GetPageToken(); token != "" {
		if after, err = s.inventory.Tokens().OpenPage(historyScope(f), token); err != nil {
			return nil, invalid(notebookv1.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID, FieldViolation{"page_token", "not made here for this filter"})
		}
	}
	resp := &notebookv1.ListImageChangesResponse{}
	size := pageSize(req.GetPageSize())
	for change := range s.changer.View().Newest(after) {
		if !seen.hasChange(change) || !f.match(change) {
			continue
		}
		if len(resp.GetImageChanges()) == size {
			last := resp.GetImageChanges()[size-1].GetName()
			resp.NextPageToken = s.inventory.Tokens().Page(historyScope(f), strings.TrimPrefix(last, "imageChanges/"))
			break
		}
		resp.ImageChanges = append(resp.ImageChanges, change)
	}
	return resp, nil
}
