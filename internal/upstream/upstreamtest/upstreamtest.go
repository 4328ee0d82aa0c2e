// Package upstreamtest is the conformance suite that every cloud passes: what
// [upstream.Provider] promises, tried on a simulated cloud that is made to
// fail.
//
// It knows no dialect. The test of a cloud package calls [Run] with its
// provider and its simulator, and says as data what is peculiar to the cloud.
// Only tests may import it.
package upstreamtest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// Simulator is what the suite needs of a simulated cloud.
type Simulator interface {
	// Add makes notebooks, which run, and returns their ids.
	Add(location string, count int) []string
	// Remove takes a notebook away and reports whether it was there.
	Remove(location, id string) bool
	// Clear takes all notebooks of a location away.
	Clear(location string)
	// OnPage sets a function that is called after each page of a list was made
	// and before it is sent.
	OnPage(f func(location string))
	// Break switches a fault on; of several, the last one that fits a call
	// counts. Heal switches all of them off.
	Break(f cloudsim.Fault)
	Heal()
	// Calls returns how many calls of an operation arrived so far, those that
	// were spoilt included.
	Calls(op string) int
}

// Subject is a cloud under test. Zero fields have the documented default.
type Subject struct {
	Provider  upstream.Provider
	Simulator Simulator
	// Location is where the suite works. It has notebooks at the start.
	Location string
	// PageSize is how many rows a full page of a list has. Default 100.
	PageSize int
	// ListOp and ChangeOp are the simulator's names of the two calls. Default:
	// list and change_image.
	ListOp, ChangeOp string
	// Image is an image change that the simulator accepts again and again, or
	// nil when the cloud changes no images.
	Image *upstream.ImageRequest
	// Changes returns how often the simulator changed the image of that
	// notebook. It is needed with Image.
	Changes func() int
	// Secrets are keys, tokens, passwords and values of environment variables
	// that must be in no error and in no notebook. The credentials that the
	// provider sends need not be named: the suite reads them off its requests.
	Secrets []string
	// Failures are the cloud's own beside the standard ones, and what is
	// different about the standard ones here.
	Failures []Failure
}

// Failure is a way in which calls fail, and what has to come of it.
type Failure struct {
	// Name is that of the subtest. With the name of a standard failure, this one
	// replaces it; it then needs no Fault.
	Name string
	// Fault is what goes wrong. Without an operation of its own it hits the call
	// that is tried.
	Fault cloudsim.Fault
	// Provoke, if not nil, makes the cloud itself refuse, where Fault only
	// spoils an answer. What it returns puts things right again.
	Provoke func() (heal func())
	// Cold lets the failure hit a provider that has not made any call before.
	Cold bool

	// Want is the kind of the error.
	Want upstream.Kind
	// RetryAfter is that of the error.
	RetryAfter time.Duration
	// Text is in the error's text.
	Text string
	// Calls is how many calls of ListOp arrive until List gives up: zero stands
	// for one, None for none. A write is always one.
	Calls int
}

// None is the Failure.Calls of failures that come before the call itself.
const None = -1

// Run runs the suite. It calls start for every subtest: start makes a
// simulator, and a provider on it whose calls go through client, and leaves
// what ends them to the test's Cleanup. All of its subjects are alike.
func Run(t *testing.T, start func(t *testing.T, client *upstream.Client) Subject) {
	t.Helper()
	before := goroutines()
	s := suite{start: start}
	t.Run("locations", s.locations)
	t.Run("capabilities", s.capabilities)
	t.Run("sizes", s.sizes)
	t.Run("drifting pages", s.drift)
	t.Run("news", s.news)
	t.Run("never a part", s.part)
	t.Run("notebooks", s.notebooks)
	t.Run("find", s.find)
	t.Run("again", s.again)
	t.Run("failed lists", s.failedLists)
	t.Run("image change", s.change)
	t.Run("failed image changes", s.failedChanges)
	t.Run("no image change", s.noChange)
	t.Run("caller gone", s.callerGone)
	t.Run("concurrency", s.concurrency)
	t.Run("breaker", s.breaker)
	checkGoroutines(t, before)
}

type suite struct {
	start func(t *testing.T, client *upstream.Client) Subject
}

// account is the configured name of the cloud under test.
const account = "under-test"

const (
	// patience bounds what is expected to happen at once. A client waits longer
	// than that, unless a failure is about its timeout.
	patience = 30 * time.Second
	// shortTimeout is the client's where a call is expected to run into it. Only
	// failures that hang wait for it.
	shortTimeout = 50 * time.Millisecond
)

// rig is one provider on one simulated cloud.
type rig struct {
	Subject
	client *upstream.Client
	wire   *wire
}

// rig starts a cloud. Unless cfg says otherwise, no breaker opens.
func (s suite) rig(t *testing.T, cfg upstream.ClientConfig) *rig {
	t.Helper()
	w := newWire()
	cfg.Cloud, cfg.Transport = account, w
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * patience
	}
	if cfg.Breaker.MinRequests == 0 {
		cfg.Breaker.MinRequests = 1 << 30
	}
	client := upstream.NewClient(cfg)
	t.Cleanup(client.Close)
	r := &rig{Subject: s.start(t, client), client: client, wire: w}
	if r.PageSize == 0 {
		r.PageSize = 100
	}
	if r.ListOp == "" {
		r.ListOp = "list"
	}
	if r.ChangeOp == "" {
		r.ChangeOp = "change_image"
	}
	if r.Image != nil && r.Changes == nil {
		t.Fatal("a subject with Image needs Changes")
	}
	if r.Image != nil && r.Image.Credential != nil {
		r.Secrets = append(slices.Clone(r.Secrets), r.Image.Credential.Password.Reveal())
	}
	return r
}

// limit returns a context in which a call has to end.
func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// list makes a listing that has to succeed, and orders it by id. With a client
// whose timeout is short, a machine that is too slow for it is given time.
func (r *rig) list(t *testing.T) []upstream.Notebook {
	t.Helper()
	ctx := limit(t)
	rows, err := r.Provider.List(ctx, r.Location)
	for err != nil && upstream.KindOf(err) == upstream.KindTimeout {
		rows, err = r.Provider.List(ctx, r.Location)
	}
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	slices.SortFunc(rows, func(a, b upstream.Notebook) int { return strings.Compare(a.ID, b.ID) })
	for i, n := range rows {
		if !upstream.UsableID(n.ID) {
			t.Errorf("id %q cannot stand in a resource name", n.ID)
		}
		if i > 0 && n.ID == rows[i-1].ID {
			t.Errorf("%s is there twice", n.ID)
		}
	}
	return rows
}

// ids makes a listing that has to succeed.
func (r *rig) ids(t *testing.T) []string {
	t.Helper()
	var ids []string
	for _, n := range r.list(t) {
		ids = append(ids, n.ID)
	}
	return ids
}

func sorted(ids []string) []string {
	return slices.Sorted(slices.Values(ids))
}

// locations: the location is among them, in a form that can stand in a resource
// name, and one that nobody has is not taken for an empty one.
func (s suite) locations(t *testing.T) {
	r := s.rig(t, upstream.ClientConfig{})
	all, err := r.Provider.Locations(limit(t))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	usable := false
	for _, l := range all {
		if seen[l.ID] {
			t.Errorf("%s is there twice", l.ID)
		}
		seen[l.ID] = true
		if !upstream.PlainSegment(l.ID) {
			t.Errorf("id %q cannot stand in a resource name", l.ID)
		}
		usable = usable || l.ID == r.Location && l.Disabled == ""
	}
	if !usable {
		t.Errorf("locations = %+v, without a usable %s", all, r.Location)
	}
	const nobodys = "nobodys-location"
	rows, err := r.Provider.List(limit(t), nobodys)
	if e := asError(t, err); e != nil && (e.Cloud != account || e.Location != nobodys || e.Op == "") || rows != nil {
		t.Errorf("a location that nobody has: %d rows, %v", len(rows), err)
	}
}

// capabilities: they are always the same, whatever happens and whatever a
// caller does to them.
func (s suite) capabilities(t *testing.T) {
	r := s.rig(t, upstream.ClientConfig{})
	first := r.Provider.Capabilities()
	want := clone(first)
	scribble(first.ImageTypes)
	scribble(first.VolatileAttributes)
	r.Simulator.Break(cloudsim.Fault{Mode: cloudsim.ModeStatus})
	if _, err := r.Provider.List(limit(t), r.Location); err == nil {
		t.Error("List of a cloud that fails: no error")
	}
	if diff := cmp.Diff(want, clone(r.Provider.Capabilities())); diff != "" {
		t.Errorf("they changed (-first +second):\n%s", diff)
	}
	if can := want.ChangeImage == upstream.ChangeImageInPlace; can != (r.Image != nil) {
		t.Errorf("an image change in place is possible: %v; given: %+v", can, r.Image)
	}
	if r.Image != nil {
		if types := want.ImageTypes; len(types) > 0 != (r.Image.ImageType != "") || len(types) > 0 && !slices.Contains(types, r.Image.ImageType) {
			t.Errorf("image types %q, given: %q", types, r.Image.ImageType)
		}
		if r.Image.Credential != nil && !want.RegistryCredential {
			t.Error("a credential is given, but not possible")
		}
	}
}

func clone(c upstream.Capabilities) upstream.Capabilities {
	c.ImageTypes, c.VolatileAttributes = slices.Clone(c.ImageTypes), slices.Clone(c.VolatileAttributes)
	return c
}

func scribble(texts []string) {
	for i := range texts {
		texts[i] = "scribbled"
	}
}
