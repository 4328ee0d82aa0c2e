package inventory

import (
	"errors"
	"slices"
	"time"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream"
)

// Location is the status of a location. It is immutable.
type Location struct {
	Name        string // resource name
	Cloud       string // bare name of the cloud
	ID          string // the cloud's id of the location
	DisplayName string
	State       notebookv1.Location_State
	Failure     *Failure // why it is not LIVE; nil also when nothing was tried yet

	LastSuccess time.Time // start of the last complete read
	LastAttempt time.Time
	NextAttempt time.Time
	Interval    time.Duration
	Usage       []*notebookv1.ResourceGroupUsage

	history  []Past // oldest first, the last is what it is now; see enter
	failures int    // failed polls in a row
	version  uint64 // counts what watchers are told
	client   *upstream.Client
	// breakers are those of the replica that reads the location; nil when it is
	// this one.
	breakers []upstream.BreakerStatus
}

// Version grows with every change that watchers are told of.
func (l *Location) Version() uint64 { return l.version }

// Reason identifies why a location is not LIVE.
func (l *Location) Reason() Failure {
	if l.Failure == nil {
		return Failure{Kind: -1}
	}
	return Failure{Kind: l.Failure.Kind, Store: l.Failure.Store}
}

// Past is a state that a location has had since a moment, until that of the next one.
type Past struct {
	State   notebookv1.Location_State
	Failure *Failure // as of the moment; nil for none
	Since   time.Time
}

const (
	// historyAge is for how long states are remembered after they have ended.
	historyAge = time.Hour
	// maxHistory bounds how many states of a location are remembered. One that is
	// polled every few seconds can fail and recover more often than that in an hour:
	// then the oldest are forgotten, and the history reaches less far back. An outage
	// takes no more of them than there are reasons, however long it is: see enter.
	maxHistory = 120
)

// enter notes what a location has become, if its state or reason is another than
// before. l is not shown yet; histories are shared by those that are.
//
// A location that nobody has tried to read yet has become nothing: its history begins
// with what the first read finds.
func (l *Location) enter(now time.Time) {
	if len(l.history) == 0 && l.State == notebookv1.Location_STATE_UNREACHABLE && l.Failure == nil && l.LastAttempt.IsZero() {
		return
	}
	kept := recent(l.history, now)
	is := Past{State: l.State, Failure: l.Failure, Since: now}
	if n := len(kept); n > 0 && kept[n-1].same(is) {
		return
	}
	// While the breaker is open, the reason is now the breaker and now what its trial
	// meets. One that comes back during an outage says nothing new, so it is told only
	// for as long as it is the reason of now.
	if n := len(kept); n > 0 && kept[n-1].repeats(kept[:n-1]) {
		kept = kept[:n-1]
		if kept[n-2].same(is) {
			l.history = slices.Clip(kept)
			return
		}
	}
	if len(kept) >= maxHistory {
		kept = kept[len(kept)-maxHistory+1:]
	}
	l.history = append(slices.Clip(kept), is)
}

// same reports whether a state is another one, for the same reason.
func (p Past) same(other Past) bool {
	a, b := Location{Failure: p.Failure}, Location{Failure: other.Failure}
	return p.State == other.State && a.Reason() == b.Reason()
}

// repeats reports whether the reason of p was there before, and the state has stayed
// the same since then.
func (p Past) repeats(before []Past) bool {
	for _, earlier := range slices.Backward(before) {
		if earlier.State != p.State {
			return false
		}
		if earlier.same(p) {
			return true
		}
	}
	return false
}

// recent are those of some states that had not ended an hour ago.
func recent(history []Past, now time.Time) []Past {
	for len(history) > 1 && now.Sub(history[1].Since) >= historyAge {
		history = history[1:]
	}
	return history
}

// History returns the states of the last hour, oldest first. The first may have begun
// earlier, and the last is what the location is now. It reaches back to when this
// process first tried to read the location, if that is later, and is empty before; it
// holds the last 120 at most. It must not be changed.
func (l *Location) History(now time.Time) []Past { return recent(l.history, now) }

// Breakers returns the circuit breakers of the location's calls, and of the
// calls that it shares with others (scope without a location's name).
func (l *Location) Breakers() []upstream.BreakerStatus {
	if l.breakers != nil || l.client == nil {
		return l.breakers
	}
	return l.ownBreakers()
}

func (l *Location) ownBreakers() []upstream.BreakerStatus {
	if l.client == nil {
		return nil
	}
	var out []upstream.BreakerStatus
	for _, b := range l.client.Breakers() {
		if l.guardedBy(b.Scope, b.Class) {
			out = append(out, b)
		}
	}
	return out
}

// guardedBy reports whether a breaker guards calls of the location.
func (l *Location) guardedBy(scope string, class upstream.Class) bool {
	return scope == l.ID || class == upstream.ClassLogin
}

// Stale reports whether the location's rows are older than they should be.
func (l *Location) Stale(now time.Time) bool {
	if l.State != notebookv1.Location_STATE_LIVE {
		return true
	}
	return l.Interval > 0 && now.Sub(l.LastSuccess) > l.maxAge()
}

// maxAge is how old the rows of a location that is read well may become.
func (l *Location) maxAge() time.Duration { return 2*l.Interval + staleSlack }

// staleSlack is the time that a poll itself may take.
const staleSlack = 10 * time.Second

// Failure is why something could not be read.
type Failure struct {
	Kind    upstream.Kind
	Store   bool   // the log could not be written; Kind means nothing
	Code    string // the cloud's own code
	Message string // in our words; empty when Kind says it all
}

func failureOf(err error) *Failure {
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		f := &Failure{Kind: e.Kind, Code: e.Code}
		if e.Kind == upstream.KindDisabled && e.Err != nil {
			f.Message = e.Err.Error() // our words
		}
		return f
	}
	if upstream.IsContext(err) { // the poll's own deadline
		return &Failure{Kind: upstream.KindTimeout}
	}
	return &Failure{Kind: upstream.KindBadResponse}
}

// Cloud is the status of a cloud as a whole. It is immutable.
type Cloud struct {
	Name    string // bare name
	Kind    string
	Failure *Failure // why its locations cannot be read; nil when they can
	// Discovered says that its locations were read at least once.
	Discovered bool

	source Source
	// remaining is what the replica that reads the cloud has left of the budget;
	// negative when it is this one.
	remaining int

	term, number uint64 // of the last report of another replica
	held         bool   // this replica polls it
	// reported has room for one: whoever changes the status of a cloud that is held
	// says so, and the goroutine that writes the reports takes it.
	reported chan struct{}
}

// Capabilities says what the cloud can do.
func (c *Cloud) Capabilities() upstream.Capabilities { return c.source.Provider.Capabilities() }

// Budget returns the account's calls per hour and how many could be made now.
func (c *Cloud) Budget() (callsPerHour, remaining int) {
	if c.source.Client == nil {
		return 0, 0
	}
	callsPerHour, remaining = c.source.Client.Budget()
	if c.remaining >= 0 {
		remaining = c.remaining
	}
	return callsPerHour, remaining
}
