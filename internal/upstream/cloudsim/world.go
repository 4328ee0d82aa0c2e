package cloudsim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// phase is where in its life a notebook is. Each dialect has its own words.
type phase string

const (
	creating phase = "creating"
	starting phase = "starting"
	running  phase = "running"
	stopping phase = "stopping"
	stopped  phase = "stopped"
	failed   phase = "failed"
)

func (p phase) inTransition() bool { return p == creating || p == starting || p == stopping }

// instance is one notebook. Guarded by world.mu.
type instance struct {
	id, name         string
	kuid, task       string // of the instance, and of its present run
	phase            phase
	failure          string // why it failed
	image, imageType string
	imageName        string // name and tag; empty: those of image
	server           string // jupyter, code_server, rstudio
	cpu, memoryGB    int
	cards            int
	model            model
	group            group
	port             int
	created, updated time.Time
	stoppedAt        time.Time

	next int64 // step at which a transition of the script ends
	// due is when a transition ends that was asked for over the API: it has
	// nothing to do with the script, which may stand still. Zero: there is none.
	due time.Time
	// doomed is why such a transition will end in a failure.
	doomed string
	// pinned notebooks are left alone by the script, so that examples that name
	// them work, and so that whoever asks for something sees it happen.
	pinned bool
}

// model is a kind of accelerator.
type model struct{ kind, name string }

// group is a pool of cards.
type group struct{ id, code string }

// Notebook is what a simulated cloud really holds, for tests to compare with
// what they were told.
type Notebook struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	State string `json:"state"` // creating, starting, running, stopping, stopped, failed
	Image string `json:"image"`
}

// place is one location of a world.
type place struct {
	id     string
	list   []*instance // ordered by creation
	byID   map[string]*instance
	target int // about how many there are
	// renames are the times at which a notebook is to get another name, the next
	// first; renamed counts those that did.
	renames   []time.Time
	renamed   int
	unstamped []*instance // that were renamed and whom no answer has told since
}

// species is what differs between the notebooks of two clouds.
type species struct {
	id     func(w *world, at time.Time) string
	name   func(w *world, at time.Time) string
	images []string
	types  []string // of the images, in their order
	models []model
	groups []group
	// fit makes the parts of a new notebook, which are drawn one by one, go
	// together; nil: they do.
	fit func(n *instance)
}

// world is all notebooks of one account and the script of their life: which
// are created, start, stop, fail and go away, and when. The same seed, clock and
// requests give the same story.
type world struct {
	species species
	now     func() time.Time

	mu     sync.Mutex // guards all below
	rng    *rand.Rand
	places []*place // in the order of the configuration
	step   int64
	serial int
	// onPage is told of every page of a list, without mu.
	onPage func(location string)
}

// founded is when the first notebooks were made. It is fixed, so that the ids
// that hold a time are the same in every run.
var founded = time.Date(2026, 3, 2, 4, 10, 20, 0, time.UTC)

func newWorld(seed uint64, now func() time.Time, s species, locations []string, notebooks int) *world {
	w := &world{species: s, now: now, rng: rand.New(rand.NewPCG(seed, 0x6e6f7465626f6f6b))} //nolint:gosec // a story, not a secret
	at := founded
	for _, id := range locations {
		p := &place{id: id, byID: map[string]*instance{}, target: notebooks}
		w.places = append(w.places, p)
		for range notebooks {
			at = at.Add(time.Duration(1+w.rng.IntN(3600)) * time.Second)
			n := w.makeLocked(p, at)
			n.phase = []phase{running, running, stopped, stopped, running, failed, stopped, running}[w.rng.IntN(8)]
			n.stoppedAt = at
			if n.phase == failed {
				n.failure = failures[w.rng.IntN(len(failures))]
			}
		}
	}
	return w
}

var failures = []string{"image pull failed: manifest unknown", "no node has enough free cards", "container exited with code 137"}

func (w *world) placeLocked(location string) *place {
	i := slices.IndexFunc(w.places, func(p *place) bool { return p.id == location })
	if i < 0 {
		return nil
	}
	return w.places[i]
}

// makeLocked adds a notebook, which is being created.
func (w *world) makeLocked(p *place, at time.Time) *instance {
	w.serial++
	s := w.species
	image := w.rng.IntN(len(s.images))
	n := &instance{
		id: s.id(w, at), name: s.name(w, at), kuid: w.uuidLocked(), task: w.digitsLocked(19), phase: creating,
		image: s.images[image], imageType: s.types[image], server: []string{"jupyter", "code_server", "rstudio"}[w.rng.IntN(3)],
		cpu: 8 * (1 + w.rng.IntN(3)), memoryGB: 60 + 10*w.rng.IntN(8), cards: 1 + w.rng.IntN(2),
		model: s.models[w.rng.IntN(len(s.models))], group: s.groups[w.rng.IntN(len(s.groups))],
		created: at, updated: at, next: w.step + 1 + w.rng.Int64N(3),
	}
	if s.fit != nil {
		s.fit(n)
	}
	p.list = append(p.list, n)
	p.byID[n.id] = n
	return n
}

func (w *world) removeLocked(p *place, id string) bool {
	if _, ok := p.byID[id]; !ok {
		return false
	}
	delete(p.byID, id)
	p.list = slices.DeleteFunc(p.list, func(n *instance) bool { return n.id == id })
	return true
}

// advance plays one step of the script: transitions end, and in each location
// something may happen.
func (w *world) advance() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.step++
	now := w.now()
	for _, p := range w.places {
		w.ripenLocked(p)
		for _, n := range p.list {
			if n.phase.inTransition() && n.due.IsZero() && n.next <= w.step {
				w.settleLocked(n, now)
			}
		}
		if w.rng.IntN(2) == 0 {
			w.eventLocked(p, now)
		}
	}
}

// askLocked begins a transition that was asked for over the API. doomed is why it
// will fail, if it will.
func (w *world) askLocked(n *instance, next phase, after time.Duration, doomed string) {
	now := w.now()
	n.phase, n.updated, n.failure, n.doomed, n.due, n.pinned = next, now, "", doomed, now.Add(after), true
}

// ripenLocked ends the transitions of a place that were asked for over the API
// and whose time has come. Nothing ticks: everybody who looks at a place calls
// this first.
func (w *world) ripenLocked(p *place) {
	now := w.now()
	for _, n := range p.list {
		if n.due.IsZero() || now.Before(n.due) {
			continue
		}
		n.updated = n.due
		switch {
		case n.doomed != "":
			n.phase, n.failure, n.stoppedAt = failed, n.doomed, n.due
		case n.phase == stopping:
			n.phase, n.stoppedAt = stopped, n.due
		default:
			n.phase = running
		}
		n.due, n.doomed = time.Time{}, ""
	}
}

// settleLocked ends a transition.
func (w *world) settleLocked(n *instance, now time.Time) {
	n.updated = now
	switch {
	case n.phase == stopping:
		n.phase, n.stoppedAt = stopped, now
	case w.rng.IntN(8) == 0:
		n.phase, n.failure, n.stoppedAt = failed, failures[w.rng.IntN(len(failures))], now
	default:
		n.phase, n.failure = running, ""
	}
}

// eventLocked lets something happen to a location: a notebook is created or goes
// away, starts or stops.
func (w *world) eventLocked(p *place, now time.Time) {
	if len(p.list) == 0 || w.rng.IntN(4) == 0 && len(p.list) < p.target+3 {
		w.makeLocked(p, now)
		return
	}
	n := p.list[w.rng.IntN(len(p.list))]
	if n.pinned {
		return
	}
	switch n.phase {
	case running:
		n.phase, n.updated, n.next = stopping, now, w.step+1
	case stopped, failed:
		if len(p.list) > p.target && w.rng.IntN(2) == 0 {
			w.removeLocked(p, n.id)
			return
		}
		w.startLocked(n, now)
	case creating, starting, stopping:
	}
}

func (w *world) startLocked(n *instance, now time.Time) {
	n.phase, n.updated, n.next, n.task, n.failure = starting, now, w.step+1+w.rng.Int64N(2), w.digitsLocked(19), ""
}

// rename renames notebooks of one location, or of all in turn, a number of them a
// second, or at once if that is 0. It reports false when there is no such location.
// Its clock is the real one: it is for measurements.
func (w *world) rename(location string, count int, rate float64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	places := w.places
	if location != "" {
		p := w.placeLocked(location)
		if p == nil {
			return false
		}
		places = []*place{p}
	}
	due := time.Now()
	for i := range count {
		p := places[i%len(places)]
		p.renames = append(p.renames, due)
		if rate > 0 {
			due = due.Add(time.Duration(float64(time.Second) / rate))
		}
	}
	return true
}

// unstamped stands in a name for the time at which a list tells it.
const unstamped = "@t=0000000000000000000"

// renameLocked gives notebooks the new names that are due, one after the other in
// the order of the place. Whoever lists the place calls it, and stamp with the answer.
func (p *place) renameLocked(now time.Time) {
	for len(p.renames) > 0 && len(p.list) > 0 && !now.Before(p.renames[0]) {
		n := p.list[p.renamed%len(p.list)]
		name, _, _ := strings.Cut(n.name, " @t=")
		n.name = name + " " + unstamped
		p.renames = p.renames[1:]
		p.renamed++
		p.unstamped = append(p.unstamped, n)
	}
}

// stampLocked returns what puts the time into the names of notebooks that were renamed, and
// into the answer that is about to be sent: whoever reads it sees how old what it is
// told is. It returns nil when there are none. The caller holds w.mu, what is returned
// takes it.
func (w *world) stampLocked(p *place) func(body []byte) []byte {
	if p == nil || len(p.unstamped) == 0 {
		return nil
	}
	return func(body []byte) []byte {
		w.mu.Lock()
		defer w.mu.Unlock()
		stamp := fmt.Sprintf("@t=%019d", time.Now().UnixNano())
		for _, n := range p.unstamped {
			n.name = strings.Replace(n.name, unstamped, stamp, 1)
		}
		p.unstamped = nil
		return bytes.ReplaceAll(body, []byte(unstamped), []byte(stamp))
	}
}

// drift adds and removes rows, as if others worked while a list is read.
func (w *world) drift(location string, rows int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.placeLocked(location)
	if p == nil {
		return
	}
	for range rows {
		if len(p.list) == 0 {
			break
		}
		if n := p.list[w.rng.IntN(len(p.list))]; !n.pinned {
			w.removeLocked(p, n.id)
		}
		w.makeLocked(p, w.now())
	}
}

// turned is called when a page of a list was made and before it is sent.
func (w *world) turned(location string, drift int) {
	w.drift(location, drift)
	w.mu.Lock()
	hook := w.onPage
	w.mu.Unlock()
	if hook != nil {
		hook(location)
	}
}

func (w *world) truth(location string) []Notebook {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.placeLocked(location)
	if p == nil {
		return nil
	}
	w.ripenLocked(p)
	out := make([]Notebook, len(p.list))
	for i, n := range p.list {
		out[i] = Notebook{ID: n.id, Name: n.name, State: string(n.phase), Image: n.image}
	}
	return out
}

// used is how many cards of a group are held: from when a notebook is asked for
// until it has stopped. One that will find no cards holds none.
func (p *place) used(g group) int {
	total := 0
	for _, n := range p.list {
		if n.group == g && n.phase != stopped && n.phase != failed && n.doomed == "" {
			total += n.cards
		}
	}
	return total
}

const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

func (w *world) textLocked(from string, n int) string { return randomText(w.rng, from, n) }

func randomText(rng *rand.Rand, from string, n int) string {
	var b strings.Builder
	for range n {
		b.WriteByte(from[rng.IntN(len(from))])
	}
	return b.String()
}

// dice is chance that has nothing to do with the story: ids of requests, and
// which calls a fault hits.
type dice struct {
	mu  sync.Mutex // guards rng
	rng *rand.Rand
}

func newDice(seed uint64) *dice {
	return &dice{rng: rand.New(rand.NewPCG(seed, 0x64696365))} //nolint:gosec // nothing here is a secret
}

func (d *dice) text(from string, n int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return randomText(d.rng, from, n)
}

// hit reports true with a probability.
func (d *dice) hit(share float64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.Float64() < share
}

func (w *world) digitsLocked(n int) string { return "1" + w.textLocked("0123456789", n-1) }

func (w *world) uuidLocked() string {
	return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", w.rng.Uint32(), w.rng.UintN(1<<16), w.rng.UintN(1<<12), w.rng.UintN(1<<12), w.rng.Uint64N(1<<48))
}
