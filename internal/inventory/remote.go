package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/notebookd/notebookd/internal/storage"
	"github.com/notebookd/notebookd/internal/upstream"
)

// The replicas talk to each other with messages that are not kept: one asks the
// one that polls a cloud for a poll, and all are told that somebody is
// interested.
const (
	pollSubject   = "poll"   // and a cloud and a location
	demandSubject = "demand" // somebody watches or lists
	// demandEvery is how often interest is repeated while it lasts.
	demandEvery = listInterest / 3
	// askAgain is the pause before a poll is asked for again that nobody answers
	// for: the cloud changes hands.
	askAgain = 100 * time.Millisecond
	// askFor bounds that.
	askFor = 15 * time.Second
)

// pollRequest asks for a poll that begins after it.
type pollRequest struct {
	Changed bool // the caller has changed something
	Within  time.Duration
	Trace   string `json:",omitempty"` // W3C traceparent of what it is asked for in
}

// pollAnswer is what became of it.
type pollAnswer struct {
	Failed   *upstream.Error `json:",omitempty"`
	Expired  bool            `json:",omitempty"` // not done within the time
	Away     bool            `json:",omitempty"` // the log could not be written
	Unpolled bool            `json:",omitempty"` // the replica does not poll it any more
	Report   *report         `json:",omitempty"`
}

// errAway says that what another replica would have to do cannot be asked for.
var errAway = errors.New("inventory: the storage that the replicas share is not reached")

// ask asks the replica that polls a location for a poll.
func (inv *Inventory) ask(ctx context.Context, st *storage.Storage, cloud, location string, changed bool) error {
	request := pollRequest{Changed: changed, Within: pollTimeout, Trace: upstream.Traceparent(ctx)}
	if deadline, ok := ctx.Deadline(); ok {
		request.Within = min(request.Within, time.Until(deadline))
	}
	data, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	attempt, cancel := context.WithTimeout(ctx, request.Within)
	defer cancel()
	stop := inv.whenHandedOver(attempt, cloud, cancel)
	defer stop()
	msg, err := st.Conn().RequestWithContext(attempt, st.Subject(pollSubject)+"."+subjectToken(cloud)+"."+subjectToken(location), data)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errNotPolled
	}
	var answer pollAnswer
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return fmt.Errorf("answer of another replica: %w", err)
	}
	if answer.Report != nil {
		inv.take(ctx, cloud, answer.Report)
	}
	switch {
	case answer.Unpolled:
		return errNotPolled
	case answer.Expired:
		return context.DeadlineExceeded
	case answer.Away:
		return errAway
	case answer.Failed != nil:
		return answer.Failed
	}
	return nil
}

// whenHandedOver calls f when another replica has begun to poll a cloud: whoever
// was asked will not answer any more.
func (inv *Inventory) whenHandedOver(ctx context.Context, cloud string, f func()) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	term := inv.store.Snapshot().term(cloud)
	done := make(chan struct{}) // closed by the goroutine when it ends
	go func() {
		defer close(done)
		for {
			snapshot := inv.store.Snapshot()
			if snapshot.term(cloud) != term {
				f()
				return
			}
			select {
			case <-snapshot.Superseded():
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// term is that of the last report of a cloud.
func (v *Snapshot) term(cloud string) uint64 {
	for _, c := range v.clouds {
		if c.Name == cloud {
			return c.term
		}
	}
	return 0
}

// questions is how many questions of other replicas may wait for their turn. Who
// finds no room asks again.
const questions = 64

// respond answers the other replicas that ask for a poll of a cloud, until ctx
// ends. Each question has a goroutine, for as long as the one who asks waits.
func (inv *Inventory) respond(ctx context.Context, st *storage.Storage, cloud string, reporter *reporter) {
	asked := make(chan *nats.Msg, questions) // sent to by the connection
	sub, err := st.Conn().ChanSubscribe(st.Subject(pollSubject)+"."+subjectToken(cloud)+".*", asked)
	if err != nil {
		inv.logger.Warn("other replicas cannot ask for polls", "cloud", cloud, "error", err)
		return
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only on a closed connection
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case msg := <-asked:
			wg.Go(func() { inv.answer(ctx, msg, cloud, reporter) })
		case <-ctx.Done():
			return
		}
	}
}

// answer lets a location be polled for another replica, and tells it the result.
func (inv *Inventory) answer(ctx context.Context, msg *nats.Msg, cloud string, reporter *reporter) {
	key, err := parseSubject(msg.Subject + ".any") // the cloud and the location are its last parts
	var request pollRequest
	if err != nil || json.Unmarshal(msg.Data, &request) != nil {
		return // of another version; whoever asked hears nothing, and asks again
	}
	askCtx, cancel := context.WithTimeout(upstream.WithTraceparent(ctx, request.Trace), min(request.Within, pollTimeout))
	defer cancel()
	var answer pollAnswer
	p, err := inv.poller(LocationName(cloud, key.location))
	if err == nil {
		err = p.refresh(askCtx, request.Changed)
	}
	failed, known := errors.AsType[*upstream.Error](err)
	switch {
	case errors.Is(err, errNotPolled), ctx.Err() != nil, !reporter.term.Valid():
		answer.Unpolled = true
	case known:
		shown := *failed
		shown.Err = nil // it may be anything
		answer.Failed = &shown
	case err != nil && askCtx.Err() != nil:
		answer.Expired = true
	case err != nil:
		answer.Away = true
	}
	if !answer.Unpolled {
		if answer.Report, err = reporter.report(); err != nil {
			inv.logger.Error("status of a cloud not told", "cloud", cloud, "error", err)
			return
		}
	}
	data, err := json.Marshal(answer)
	if err != nil {
		inv.logger.Error("status of a cloud not told", "cloud", cloud, "error", err)
		return
	}
	_ = msg.Respond(data) // whoever asked asks again
}

// announce tells the other replicas of interest here, and this one of interest
// there, until ctx ends.
func (inv *Inventory) announce(ctx context.Context, st *storage.Storage) {
	subject := st.Subject(demandSubject)
	sub, err := st.Conn().Subscribe(subject, func(*nats.Msg) { inv.demand.elsewhere() })
	if err != nil {
		inv.logger.Warn("interest of other replicas is not heard", "error", err)
	} else {
		defer func() { _ = sub.Unsubscribe() }() // it fails only on a closed connection
	}
	for {
		here, arrived := inv.demand.here()
		var again <-chan time.Time
		if here {
			_ = st.Conn().Publish(subject, nil) // it is repeated
			again = time.After(demandEvery)
		}
		select {
		case <-again:
		case <-arrived:
		case <-ctx.Done():
			return
		}
	}
}
