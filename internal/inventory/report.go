package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/replica"
	"github.com/notebookd/notebookd/internal/upstream"
)

const (
	statusBucket = "STATUS"
	reportPrefix = "cloud." // and the name of a cloud → report
	// reportsApart is the least time between two reports of a cloud that are
	// stored.
	reportsApart = 100 * time.Millisecond
	reportRetry  = time.Second
)

// report is what the replica that polls a cloud tells the others of it.
type report struct {
	// Of two reports the one of the later term counts, and of two of one term the
	// one with the higher number.
	Term, Number uint64
	Epoch        string
	Revision     uint64 // that the replica showed at that moment
	Discovered   bool
	Failure      *Failure `json:",omitempty"`
	Remaining    int      // of the call budget
	Locations    []locationReport
}

type locationReport struct {
	ID          string
	DisplayName string
	State       notebookv1.Location_State
	Failure     *Failure                 `json:",omitempty"`
	LastSuccess time.Time                `json:",omitzero"`
	LastAttempt time.Time                `json:",omitzero"`
	NextAttempt time.Time                `json:",omitzero"`
	Interval    time.Duration            `json:",omitempty"`
	Failures    int                      `json:",omitempty"`
	Usage       [][]byte                 `json:",omitempty"` // ResourceGroupUsage messages
	Breakers    []upstream.BreakerStatus `json:",omitempty"`
}

// reporter tells the other replicas of a cloud that this one polls, for one term.
type reporter struct {
	inv    *Inventory
	bucket jetstream.KeyValue
	cloud  string
	term   replica.Term

	mu sync.Mutex // guards what is below
	// number is that of the last report, and base what is added to the number of the
	// term: leases that were lost and made anew count from one again.
	number, base uint64
}

// report describes the cloud as it is now.
func (p *reporter) report() (*report, error) {
	snapshot := p.inv.store.Snapshot()
	p.mu.Lock()
	p.number++
	r := &report{Term: p.base + p.term.Number, Number: p.number, Epoch: snapshot.Epoch(), Revision: snapshot.Revision()}
	p.mu.Unlock()
	for _, c := range snapshot.Clouds() {
		if c.Name == p.cloud {
			r.Discovered, r.Failure = c.Discovered, c.Failure
			_, r.Remaining = c.Budget()
		}
	}
	for _, l := range snapshot.Locations() {
		if l.Cloud != p.cloud {
			continue
		}
		out := locationReport{
			ID: l.ID, DisplayName: l.DisplayName, State: l.State, Failure: l.Failure, LastSuccess: l.LastSuccess, LastAttempt: l.LastAttempt,
			NextAttempt: l.NextAttempt, Interval: l.Interval, Failures: l.failures, Breakers: l.Breakers(),
		}
		for _, u := range l.Usage {
			data, err := proto.Marshal(u)
			if err != nil {
				return nil, fmt.Errorf("encode the status of %s: %w", l.Name, err)
			}
			out.Usage = append(out.Usage, data)
		}
		r.Locations = append(r.Locations, out)
	}
	return r, nil
}

// adopt takes over what another replica reports of a cloud, unless this one polls
// it, or a later term is known.
func (inv *Inventory) adopt(cloud string, r *report) {
	inv.store.adopt(cloud, r, func(l *Location, in locationReport) {
		l.DisplayName, l.State, l.Failure, l.failures = in.DisplayName, in.State, in.Failure, in.Failures
		l.LastSuccess, l.LastAttempt, l.NextAttempt, l.Interval = in.LastSuccess, in.LastAttempt, in.NextAttempt, in.Interval
		l.breakers, l.Usage = in.Breakers, nil
		if l.breakers == nil {
			l.breakers = []upstream.BreakerStatus{} // none, and not this replica's own
		}
		for _, data := range in.Usage {
			u := &notebookv1.ResourceGroupUsage{}
			if proto.Unmarshal(data, u) == nil {
				l.Usage = append(l.Usage, u)
			}
		}
	})
}

// adopt replaces the status of a cloud and its locations.
func (s *Store) adopt(cloud string, r *report, take func(*Location, locationReport)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, configured := s.clouds[cloud]
	if !configured || old.held || r.Epoch != s.epoch || r.Term < old.term || r.Term == old.term && r.Number <= old.number {
		return
	}
	next := *old
	next.term, next.number, next.remaining, next.Discovered, next.Failure = r.Term, r.Number, r.Remaining, r.Discovered, r.Failure
	news := next.Discovered != old.Discovered || (next.Failure == nil) != (old.Failure == nil) || next.term != old.term
	s.clouds[cloud] = &next
	for _, in := range r.Locations {
		name := LocationName(cloud, in.ID)
		was, known := s.locations[name]
		l := Location{Name: name, Cloud: cloud, ID: in.ID, client: next.source.Client}
		if known {
			l = *was
		}
		take(&l, in)
		if !known || was.State != l.State || was.Reason() != l.Reason() || !sameBreakers(was.breakers, l.breakers) {
			l.version++
			news = true
		}
		s.showLocked(&l)
	}
	s.publishLocked(news)
}

func sameBreakers(a, b []upstream.BreakerStatus) bool {
	return slices.EqualFunc(a, b, func(a, b upstream.BreakerStatus) bool {
		return a.Scope == b.Scope && a.Class == b.Class && a.State == b.State
	})
}

// newTerms forgets which reports were adopted, before all are read anew: terms may
// have begun to count anew as well.
func (s *Store) newTerms() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, c := range s.clouds {
		next := *c
		next.term, next.number = 0, 0
		s.clouds[name] = &next
	}
	s.publishLocked(false)
}

// hold notes whether this replica polls a cloud.
func (s *Store) hold(cloud string, held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, configured := s.clouds[cloud]
	if !configured {
		return
	}
	next := *old
	next.held = held
	if held {
		next.remaining = -1
		next.reported = make(chan struct{}, 1)
		for _, l := range s.locations {
			if l.Cloud == cloud {
				own := *l
				own.breakers = nil
				s.showLocked(&own)
			}
		}
	}
	s.clouds[cloud] = &next
	s.publishLocked(false)
}

// away notes that the storage cannot be reached: what is known goes on being
// shown, and grows old.
func (s *Store) away() {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := false
	for _, l := range s.locations {
		if l.State == notebookv1.Location_STATE_LIVE {
			next := *l
			next.State, next.Failure = notebookv1.Location_STATE_STALE, &Failure{Store: true}
			next.version++
			s.showLocked(&next)
			news = true
		}
	}
	if news {
		s.publishLocked(true)
	}
}

// tellLocked lets the report of a cloud be written, if it is this replica's to
// write.
func (s *Store) tellLocked(cloud string) {
	if c := s.clouds[cloud]; c != nil && c.held {
		select {
		case c.reported <- struct{}{}:
		default: // it will be
		}
	}
}

// run stores a report whenever there is news of the cloud, until ctx ends.
func (p *reporter) run(ctx context.Context) {
	changed := p.inv.store.reportedOf(p.cloud)
	var revision uint64 // of the report that is stored
	failing := false
	for {
		if !failing { // what was not stored is tried again, news or not
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
		next, err := p.put(ctx, revision)
		apart := reportsApart
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if apart = reportRetry; !failing {
				p.inv.logger.Warn("status of a cloud not stored, trying again", "cloud", p.cloud, "error", err)
			}
		default:
			revision = next
		}
		failing = err != nil
		select {
		case <-time.After(apart):
		case <-ctx.Done():
			return
		}
	}
}

// errTermOver says that another replica may poll the cloud by now.
var errTermOver = errors.New("inventory: the term is over")

// put stores a report in place of the one at a revision. What another replica has
// stored there is older for as long as the term lasts.
func (p *reporter) put(ctx context.Context, revision uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, reportRetry)
	defer cancel()
	for {
		r, err := p.report()
		if err != nil {
			return revision, err
		}
		data, err := json.Marshal(r)
		if err != nil {
			return revision, fmt.Errorf("encode the status of %s: %w", p.cloud, err)
		}
		if !p.term.Valid() {
			return revision, errTermOver
		}
		next, err := p.bucket.Update(ctx, reportPrefix+p.cloud, data, revision)
		if err == nil {
			return next, nil
		}
		if api, ok := errors.AsType[*jetstream.APIError](err); !ok || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
			return revision, err
		}
		entry, err := p.bucket.Get(ctx, reportPrefix+p.cloud)
		if err != nil {
			return revision, err
		}
		var before report
		if json.Unmarshal(entry.Value(), &before) == nil && before.Term > r.Term {
			p.mu.Lock()
			p.base += before.Term + 1 - r.Term
			p.mu.Unlock()
		}
		revision = entry.Revision()
	}
}

// reportedOf is where the store says that a cloud that is held has news.
func (s *Store) reportedOf(cloud string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clouds[cloud].reported
}

// heed adopts the reports of the other replicas until ctx ends.
func (inv *Inventory) heed(ctx context.Context, watcher jetstream.KeyWatcher) {
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok {
				return
			}
			if entry == nil || entry.Operation() != jetstream.KeyValuePut {
				continue
			}
			r := &report{}
			if err := json.Unmarshal(entry.Value(), r); err != nil {
				inv.logger.Error("status of a cloud not understood", "key", entry.Key(), "error", err)
				continue
			}
			inv.take(ctx, strings.TrimPrefix(entry.Key(), reportPrefix), r)
		case <-ctx.Done():
			return
		}
	}
}

// takeFor bounds how long a report waits for the rows that it speaks of.
const takeFor = 5 * time.Second

// take adopts a report once the rows are shown that it speaks of.
func (inv *Inventory) take(ctx context.Context, cloud string, r *report) {
	if r.Epoch == inv.Epoch() {
		ctx, cancel := context.WithTimeout(ctx, takeFor)
		defer cancel()
		_ = inv.WaitRevision(ctx, r.Revision) // a status without its rows is better than none
	}
	inv.adopt(cloud, r)
}
