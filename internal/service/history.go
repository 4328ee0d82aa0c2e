package service

import (
	"context"
	"strings"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// GetImageChange implements ImageChangeService.
func (s *Service) GetImageChange(_ context.Context, req *notebookv1.GetImageChangeRequest) (*notebookv1.GetImageChangeResponse, error) {
	change, ok := s.changer.Get(req.GetName())
	if !ok {
		return nil, notFound(notebookv1.ErrorReason_ERROR_REASON_IMAGE_CHANGE_NOT_FOUND, "no such image change is known; they are kept for 90 days", nil)
	}
	return &notebookv1.GetImageChangeResponse{ImageChange: change}, nil
}

// historyScope binds page tokens to the filter.
func historyScope(filter string) string { return "imageChanges?" + filter }

// ListImageChanges implements ImageChangeService.
func (s *Service) ListImageChanges(_ context.Context, req *notebookv1.ListImageChangesRequest) (*notebookv1.ListImageChangesResponse, error) {
	if req.GetFilter() != "" {
		return nil, unsupportedFields("filter")
	}
	f := ""
	after := ""
	if token := req.GetPageToken(); token != "" {
		var err error
		if after, err = s.tokens.OpenPage(historyScope(f), token); err != nil {
			return nil, invalid(notebookv1.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID, FieldViolation{"page_token", "not made here for this filter"})
		}
	}
	resp := &notebookv1.ListImageChangesResponse{}
	size := pageSize(req.GetPageSize())
	for change := range s.changer.View().Newest(after) {
		if len(resp.GetImageChanges()) == size {
			last := resp.GetImageChanges()[size-1].GetName()
			resp.NextPageToken = s.tokens.Page(historyScope(f), strings.TrimPrefix(last, "imageChanges/"))
			break
		}
		resp.ImageChanges = append(resp.ImageChanges, change)
	}
	return resp, nil
}
