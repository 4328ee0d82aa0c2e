package cloudsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
)

// simulator is what all simulated clouds have: a world, faults, settings S, and
// the counts of what was asked.
type simulator[S interface{ validate() error }] struct {
	kind    string
	world   *world
	dice    *dice
	faults  *faults
	changes *changes
	closed  chan struct{} // closed by the fleet, once
	// relisten tells the listeners that a fault refuses connections, or none
	// does any more. It is set before anything is served.
	relisten func()

	mu       sync.Mutex // guards what is below
	settings S
	keys     map[string]string // access keys of the account: id → secret
}

func newSimulator[S interface{ validate() error }](kind string, cfg Config, w *world, settings S, keyID, secret string) *simulator[S] {
	d := newDice(cfg.Seed)
	return &simulator[S]{
		kind: kind, world: w, dice: d, faults: &faults{dice: d, calls: map[string]int{}}, changes: &changes{count: map[string]int{}},
		closed: make(chan struct{}), relisten: func() {}, settings: settings, keys: map[string]string{keyID: secret},
	}
}

// Settings returns how the cloud behaves now.
func (s *simulator[S]) Settings() S {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// Set changes how the cloud behaves. It panics when change makes a setting that
// is none: use it in tests.
func (s *simulator[S]) Set(change func(*S)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := clone(s.settings)
	change(&next)
	if err := next.validate(); err != nil {
		panic(err)
	}
	s.settings = next
}

// SetKeys replaces the access keys that the account has: id → secret. A real cloud
// lets an account have two while one takes the other's place.
func (s *simulator[S]) SetKeys(keys map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = maps.Clone(keys)
}

// secretOf returns the secret of an access key.
func (s *simulator[S]) secretOf(id string) (secret string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	secret, ok = s.keys[id]
	return secret, ok
}

// patch changes the settings that a JSON object names.
func (s *simulator[S]) patch(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := clone(s.settings)
	if err := strictJSON(data, &next); err != nil {
		return err
	}
	if err := next.validate(); err != nil {
		return err
	}
	s.settings = next
	return nil
}

// Break switches a fault on. It panics when the fault is none: use it in tests.
func (s *simulator[S]) Break(f Fault) {
	if err := s.add(f); err != nil {
		panic(err)
	}
}

func (s *simulator[S]) add(f Fault) error {
	if err := f.validate(); err != nil {
		return err
	}
	s.faults.mu.Lock()
	s.faults.list = append(s.faults.list, &f)
	s.faults.mu.Unlock()
	s.relisten()
	return nil
}

// Heal switches all faults off.
func (s *simulator[S]) Heal() {
	s.faults.mu.Lock()
	s.faults.list = nil
	s.faults.mu.Unlock()
	s.relisten()
}

// Calls returns how many calls of an operation arrived so far, those that were
// spoilt included.
func (s *simulator[S]) Calls(op string) int {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	return s.faults.calls[op]
}

// Changes returns how often a notebook's image was changed.
func (s *simulator[S]) Changes(notebook string) int {
	s.changes.mu.Lock()
	defer s.changes.mu.Unlock()
	return s.changes.count[notebook]
}

// Truth returns what a location really holds, in the order of creation.
func (s *simulator[S]) Truth(location string) []Notebook { return s.world.truth(location) }

// Add makes notebooks, which run, and returns their ids.
func (s *simulator[S]) Add(location string, count int) []string {
	w := s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.placeLocked(location)
	ids := make([]string, count)
	for i := range ids {
		n := w.makeLocked(p, w.now())
		n.phase = running
		ids[i] = n.id
	}
	return ids
}

// Remove takes a notebook away and reports whether it was there.
func (s *simulator[S]) Remove(location, id string) bool {
	w := s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.removeLocked(w.placeLocked(location), id)
}

// Clear takes all notebooks of a location away.
func (s *simulator[S]) Clear(location string) {
	w := s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.placeLocked(location)
	p.list, p.byID = nil, map[string]*instance{}
}

// Step plays one step of the script of life.
func (s *simulator[S]) Step() { s.world.advance() }

func (s *simulator[S]) renameSome(location string, count int, rate float64) bool {
	return s.world.rename(location, count, rate)
}

// OnPage sets a function that is called after each page of a list was made and
// before it is sent.
func (s *simulator[S]) OnPage(f func(location string)) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.world.onPage = f
}

// closing implements spoiler.
func (s *simulator[S]) closing() <-chan struct{} { return s.closed }

// date implements spoiler.
func (s *simulator[S]) date() time.Time { return s.world.now() }

// status is what the control endpoint shows.
func (s *simulator[S]) status() map[string]any {
	s.faults.mu.Lock()
	calls := maps.Clone(s.faults.calls)
	s.faults.mu.Unlock()
	notebooks := map[string]int{}
	s.world.mu.Lock()
	for _, p := range s.world.places {
		notebooks[p.id] = len(p.list)
	}
	s.world.mu.Unlock()
	return map[string]any{"kind": s.kind, "faults": s.faults.all(), "settings": s.Settings(), "calls": calls, "notebooks": notebooks}
}

func (s *simulator[S]) watchFaults(f func()) { s.relisten = f }

func (s *simulator[S]) close() { close(s.closed) }

// changes counts changes of an image by notebook.
type changes struct {
	mu    sync.Mutex // guards count
	count map[string]int
}

func (c *changes) add(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count[id]++
}

// windowCounter counts calls within the last hour.
type windowCounter struct {
	mu   sync.Mutex // guards past
	past []time.Time
}

// spend reports whether another call is within the quota, and counts it.
func (c *windowCounter) spend(now time.Time, quota int) bool {
	if quota == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.past = slices.DeleteFunc(c.past, func(t time.Time) bool { return now.Sub(t) >= time.Hour })
	if len(c.past) >= quota {
		return false
	}
	c.past = append(c.past, now)
	return true
}

// pin makes the first notebook of the first location the one of a vendor's
// example.
func (w *world) pin(id string, shape func(*instance)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.places[0]
	if len(p.list) == 0 {
		return
	}
	n := p.list[0]
	delete(p.byID, n.id)
	n.id, n.phase, n.failure, n.pinned = id, stopped, "", true
	shape(n)
	p.byID[id] = n
}

// clone copies settings, maps included: readers hold the old ones.
func clone[S any](settings S) S {
	var out S
	if err := json.Unmarshal(plainJSON(settings), &out); err != nil {
		panic("cloudsim: settings that are no JSON: " + err.Error())
	}
	return out
}

func strictJSON(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// escapeJSON is JSON with every character outside ASCII as \u, as the vendor's
// servers write it.
func escapeJSON(v any) []byte {
	plain := plainJSON(v)
	var b bytes.Buffer
	for _, r := range string(plain) {
		switch {
		case r < 0x80:
			b.WriteRune(r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}

// plainJSON is JSON without escapes for HTML. It is for values that can be
// encoded.
func plainJSON(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic("cloudsim: not a value for JSON: " + err.Error())
	}
	return b.Bytes()
}

func oneOf(name, value string, words ...string) error {
	if !slices.Contains(words, value) {
		return fmt.Errorf("%s must be one of %s", name, strings.Join(words, ", "))
	}
	return nil
}

func inRange(name string, value, from, to int) error {
	if value < from || value > to {
		return fmt.Errorf("%s must be from %d to %d", name, from, to)
	}
	return nil
}

func firstProblem(problems ...error) error {
	for _, err := range problems {
		if err != nil {
			return err
		}
	}
	return nil
}
