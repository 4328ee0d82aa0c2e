package service

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
)

const (
	defaultPageSize = 50
	maxPageSize     = 1000
)

// List implements NotebookService.
func (s *Service) List(ctx context.Context, req *notebookv1.ListRequest) (*notebookv1.ListResponse, error) {
	if err := s.listable(req); err != nil {
		return nil, err
	}
	sc := parseScope(req.GetParent())
	after := ""
	if token := req.GetPageToken(); token != "" {
		var err error
		if after, err = s.tokens.OpenPage(sc.key(), token); err != nil {
			return nil, invalid(notebookv1.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID,
				FieldViolation{"page_token", "not made here for this parent"})
		}
	}
	s.inventory.Listed()
	snapshot := s.inventory.Snapshot()
	locations, unknown, err := sc.selected(snapshot)
	if err != nil {
		return nil, s.toStatus(ctx, err, nil)
	}
	var missed map[string]error
	if age := req.GetMaxStaleness(); age != nil && after == "" {
		if missed, err = s.freshen(ctx, locations, age.AsDuration()); err != nil {
			return nil, s.toStatus(ctx, err, sc.metadata())
		}
		snapshot = s.inventory.Snapshot()
		if locations, unknown, err = sc.selected(snapshot); err != nil {
			return nil, s.toStatus(ctx, err, nil)
		}
	}

	now := time.Now()
	resp := &notebookv1.ListResponse{}
	known := false
	total := 0
	for _, c := range snapshot.Clouds() {
		if sc.hasCloud(c.Name) && (!c.Discovered || c.Failure != nil) {
			resp.Unreachable = append(resp.Unreachable, inventory.CloudName(c.Name))
		}
	}
	for _, l := range locations {
		rows := snapshot.Count(l.Name)
		total += rows
		known = known || rows > 0 || !l.LastSuccess.IsZero() || l.State == notebookv1.Location_STATE_DISABLED
		if l.State == notebookv1.Location_STATE_UNREACHABLE || missed[l.Name] != nil {
			resp.Unreachable = append(resp.Unreachable, l.Name)
		}
		resp.Freshness = append(resp.Freshness, &notebookv1.Freshness{
			Location: l.Name, ObserveTime: timestamp(l.LastSuccess), Stale: l.Stale(now) || missed[l.Name] != nil,
		})
	}
	if !known {
		return nil, nothingKnown(locations, unknown, sc)
	}
	resp.TotalSize = narrow(total)

	size := pageSize(req.GetPageSize())
	for _, l := range locations {
		for row := range snapshot.Rows(l.Name, after) {
			if len(resp.GetNotebooks()) == size {
				last := resp.GetNotebooks()[size-1].GetName()
				resp.NextPageToken = s.tokens.Page(sc.key(), last)
				break
			}
			resp.Notebooks = append(resp.Notebooks, row.Notebook)
		}
		if resp.GetNextPageToken() != "" {
			break
		}
	}
	resp.ResumeToken = s.resumeToken(sc, snapshot.Revision())
	return resp, nil
}

// listable refuses what a later version will honour.
func (*Service) listable(req *notebookv1.ListRequest) error {
	var fields []string
	if req.GetFilter() != "" {
		fields = append(fields, "filter")
	}
	if req.GetOrderBy() != "" {
		fields = append(fields, "order_by")
	}
	if len(fields) > 0 {
		return unsupportedFields(fields...)
	}
	return nil
}

// answerMargin is kept of a caller's deadline, so that what could not be read in
// time is answered with marks rather than not at all.
const answerMargin = 250 * time.Millisecond

// freshen makes the locations no older than age and returns those that could
// not be read so, with the reason. It fails when not one of several could, or
// when the caller has left. Disabled locations are left out.
func (s *Service) freshen(ctx context.Context, locations []*inventory.Location, age time.Duration) (missed map[string]error, err error) {
	readCtx, cancel := ctx, context.CancelFunc(func() {})
	if deadline, ok := ctx.Deadline(); ok {
		readCtx, cancel = context.WithDeadline(ctx, deadline.Add(-answerMargin))
	}
	defer cancel()
	missed = map[string]error{}
	asked := 0
	var mu sync.Mutex // guards missed and err
	var wg sync.WaitGroup
	for _, l := range locations {
		if l.State == notebookv1.Location_STATE_DISABLED {
			continue
		}
		asked++
		wg.Go(func() {
			failure := s.inventory.Freshen(readCtx, l.Name, age)
			if failure == nil {
				return
			}
			if upstream.IsContext(failure) {
				failure = &upstream.Error{Cloud: l.Cloud, Location: l.ID, Op: "list", Kind: upstream.KindTimeout}
			}
			mu.Lock()
			defer mu.Unlock()
			missed[l.Name], err = failure, failure
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if asked == 0 || len(missed) < asked {
		return missed, nil
	}
	return nil, notFresh(err)
}

func pageSize(asked int32) int {
	if asked == 0 {
		return defaultPageSize
	}
	return int(min(asked, maxPageSize))
}

func (s *Service) resumeToken(sc scope, revision uint64) string {
	return s.tokens.Resume(sc.key(), inventory.Resume{Epoch: s.inventory.Epoch(), Revision: revision, Time: time.Now()})
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
