package service

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
)

const (
	defaultPageSize = 50
	maxPageSize     = 1000
)

// List implements NotebookService. A server that Register was called with
// answers the same without encoding the notebooks anew.
func (s *Service) List(ctx context.Context, req *notebookv1.ListRequest) (*notebookv1.ListResponse, error) {
	list, err := s.list(ctx, req)
	if err != nil {
		return nil, err
	}
	return list.message(), nil
}

// list is List, with the notebooks beside the rest of the answer.
func (s *Service) list(ctx context.Context, req *notebookv1.ListRequest) (*Listing, error) {
	sc, err := newScope(req.GetParent(), req.GetFilter(), s.caller(ctx).rights())
	if err != nil {
		return nil, s.toStatus(ctx, err, nil)
	}
	by, err := parseOrder(req.GetOrderBy())
	if err != nil {
		return nil, s.toStatus(ctx, err, nil)
	}
	s.inventory.Listed()
	if err := s.loaded(ctx); err != nil {
		return nil, s.toStatus(ctx, err, nil)
	}
	at, err := s.openPage(sc, by, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	snapshot := s.inventory.Snapshot()
	var head *listHead
	if age := req.GetMaxStaleness(); age != nil && req.GetPageToken() == "" {
		locations, _, err := sc.selected(snapshot)
		if err != nil {
			return nil, s.toStatus(ctx, err, nil)
		}
		missed, err := s.freshen(ctx, locations, age.AsDuration())
		if err != nil {
			return nil, s.toStatus(ctx, err, sc.metadata())
		}
		snapshot = s.inventory.Snapshot()
		head, err = s.makeHead(sc, snapshot, missed, time.Now())
		if err != nil {
			return nil, s.toStatus(ctx, err, nil)
		}
	} else if head, err = s.head(sc, snapshot); err != nil {
		return nil, s.toStatus(ctx, err, nil)
	}
	if at.snapshot != nil {
		snapshot = at.snapshot // the moment that the first page showed
	}
	rows, total, more := page(snapshot, sc, by, at, pageSize(req.GetPageSize()))
	out := &Listing{head: head, rows: rows, total: narrow(total)}
	if more {
		out.next = s.nextPage(snapshot, sc, by, rows[len(rows)-1].Notebook)
	}
	return out, nil
}

// listHead is the part of an answer that does not depend on the page. It is
// immutable, and so are its encodings, which are made when they are asked for.
type listHead struct {
	message *notebookv1.ListResponse
	wire    atomic.Pointer[[]byte]
	json    atomic.Pointer[[]byte] // without the braces
}

// heads are the heads of one snapshot in one second, by the key of their scope.
// What is stale depends on the time.
type heads struct {
	mu       sync.RWMutex // guards what is below
	snapshot weak.Pointer[inventory.Snapshot]
	second   int64
	byKey    map[string]*listHead
}

// maxHeads bounds how many heads are kept.
const maxHeads = 256

// head returns the head of a scope at a snapshot, now. It fails when nothing is
// known of the scope.
func (s *Service) head(sc scope, snapshot *inventory.Snapshot) (*listHead, error) {
	now, key, at := time.Now(), sc.shared(), weak.Make(snapshot)
	s.heads.mu.RLock()
	var head *listHead
	if s.heads.snapshot == at && s.heads.second == now.Unix() {
		head = s.heads.byKey[key]
	}
	s.heads.mu.RUnlock()
	if head != nil {
		return head, nil
	}
	head, err := s.makeHead(sc, snapshot, nil, now)
	if err != nil {
		return nil, err
	}
	s.heads.mu.Lock()
	defer s.heads.mu.Unlock()
	if s.heads.snapshot != at || s.heads.second != now.Unix() || len(s.heads.byKey) >= maxHeads {
		s.heads.snapshot, s.heads.second, s.heads.byKey = at, now.Unix(), map[string]*listHead{}
	}
	s.heads.byKey[key] = head
	return head, nil
}

// makeHead makes the head of a scope. missed are locations that could not be made
// as fresh as was asked.
func (s *Service) makeHead(sc scope, snapshot *inventory.Snapshot, missed map[string]error, now time.Time) (*listHead, error) {
	locations, unknown, err := sc.selected(snapshot)
	if err != nil {
		return nil, err
	}
	resp := &notebookv1.ListResponse{}
	known := false
	for _, c := range snapshot.Clouds() {
		if sc.hasCloud(c.Name) && (!c.Discovered || c.Failure != nil) {
			resp.Unreachable = append(resp.Unreachable, inventory.CloudName(c.Name))
		}
	}
	for _, l := range locations {
		known = known || snapshot.Count(l.Name) > 0 || !l.LastSuccess.IsZero() || l.State == notebookv1.Location_STATE_DISABLED
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
	resp.ResumeToken = s.token(sc, snapshot, snapshot.Revision(), snapshot.Revision(), now)
	return &listHead{message: resp}, nil
}

// page reads the rows of one page, counts all that match, and says whether more
// follow.
func page(snapshot *inventory.Snapshot, sc scope, by order, at pageStart, size int) (rows []*inventory.Row, total int, more bool) {
	rows = make([]*inventory.Row, 0, min(size+1, maxPrepared))
	compare := func(a, b *inventory.Row) int { return by.compare(a.Notebook, b.Notebook) }
	// take keeps what may be on the page, in order where the walk is.
	take := func(row *inventory.Row) {
		if len(rows) <= size {
			rows = append(rows, row)
		}
	}
	if !by.isName() {
		take = func(row *inventory.Row) {
			// Sorted now and then, and cut: what sorts behind a full page and one
			// more can be forgotten.
			if rows = append(rows, row); len(rows) >= 2*(size+1) {
				slices.SortFunc(rows, compare)
				rows = rows[:size+1]
			}
		}
	}
	locations, _, _ := sc.selected(snapshot) // the same scope was found a moment ago
	for _, l := range locations {
		if sc.filter.key() == "" {
			total += snapshot.Count(l.Name)
		}
		from := ""
		if by.isName() && sc.filter.key() == "" {
			from = at.name // nothing before it has to be counted
		}
		for row := range snapshot.Rows(l.Name, from) {
			if !sc.filter.match(row.Notebook) {
				continue
			}
			if sc.filter.key() != "" {
				total++
			} else if by.isName() && len(rows) > size {
				break
			}
			if at.after(row.Notebook) {
				take(row)
			}
		}
	}
	if !by.isName() {
		slices.SortFunc(rows, compare)
	}
	if more = len(rows) > size; more {
		rows = rows[:size]
	}
	return rows, total, more
}

// maxPrepared is the most rows that a page gets room for before there are any.
const maxPrepared = 128

// pageStart is where a page begins.
type pageStart struct {
	name     string // the name after which it begins, in the order by name
	after    func(*notebookv1.Notebook) bool
	snapshot *inventory.Snapshot // to go on with; nil for the current one
}

// pageScope binds page tokens to all that has to stay the same.
func pageScope(sc scope, by order) string { return sc.key() + "\n" + by.key() }

// openPage opens a page token; an empty one is the first page.
func (s *Service) openPage(sc scope, by order, token string) (pageStart, error) {
	bad := func() error {
		return invalid(notebookv1.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID,
			FieldViolation{"page_token", "not made here for this parent, filter and order"})
	}
	position := ""
	var at pageStart
	if token != "" {
		text, err := s.inventory.Tokens().OpenPage(pageScope(sc, by), token)
		if err != nil {
			return pageStart{}, bad()
		}
		position = text
		if !by.isName() {
			revision, n := binary.Uvarint([]byte(text))
			if n <= 0 {
				return pageStart{}, bad()
			}
			at.snapshot, position = s.pins.get(revision), text[n:]
			if at.snapshot != nil && !sc.goesOn(at.snapshot, s.inventory.Snapshot()) {
				at.snapshot = nil // clouds have come or gone since
			}
		}
	}
	at.name = position
	var err error
	if at.after, err = by.after(position); err != nil {
		return pageStart{}, bad()
	}
	return at, nil
}

// nextPage seals where the page after the one that ends with last begins. In
// the order by name that is all it takes; other orders are by values that may
// change, so the moment is kept for a while as well.
func (s *Service) nextPage(snapshot *inventory.Snapshot, sc scope, by order, last *notebookv1.Notebook) string {
	position := by.position(last)
	if !by.isName() {
		s.pins.put(snapshot)
		position = string(binary.AppendUvarint(nil, snapshot.Revision())) + position
	}
	return s.inventory.Tokens().Page(pageScope(sc, by), position)
}

// pins keeps the snapshots of ordered listings of which pages are still to be
// asked for. When one is gone, pages go on by the values of their last row.
type pins struct {
	mu   sync.Mutex // guards list
	list []pin      // oldest first
}

type pin struct {
	snapshot *inventory.Snapshot
	until    time.Time
}

const (
	// pinFor is how long a snapshot is kept after its last page was made. A
	// snapshot shares all that did not change with the current one.
	pinFor  = 2 * time.Minute
	maxPins = 64
)

func (p *pins) put(snapshot *inventory.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.list = slices.DeleteFunc(p.list, func(x pin) bool {
		return x.snapshot.Revision() == snapshot.Revision() || now.After(x.until)
	})
	if len(p.list) == maxPins {
		p.list = slices.Delete(p.list, 0, 1)
	}
	p.list = append(p.list, pin{snapshot, now.Add(pinFor)})
}

func (p *pins) get(revision uint64) *inventory.Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.list {
		if x.snapshot.Revision() == revision && time.Now().Before(x.until) {
			return x.snapshot
		}
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

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
