// Package toysim simulates the toy cloud, with the faults of package cloudsim.
//
// Only tests may import it.
package toysim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// The account of the simulated cloud. Nothing here opens anything real.
const (
	Key = "simulated-toy-key"
	// Password and EnvValue are in every box.
	Password = "simulated-box-password"
	EnvValue = "simulated-environment-value"
)

// Zones are the zones that the account has.
var Zones = []string{"left", "right"}

// Box is one notebook of the cloud.
type Box struct {
	ID       string            `json:"id"`
	Label    string            `json:"label"`
	Power    string            `json:"power"`
	Image    string            `json:"image"`
	Cores    int               `json:"cores"`
	Created  int64             `json:"created"`
	Env      map[string]string `json:"env"`
	Password string            `json:"password"`

	zone string
}

// Cloud is the simulated cloud, served on 127.0.0.1. It is safe for concurrent
// use. Break, Heal, Calls, URL and Close are those of its Breakable.
type Cloud struct {
	*cloudsim.Breakable

	mu      sync.Mutex // guards what is below
	rng     *rand.Rand
	boxes   []*Box         // in the order of their ids
	changes map[string]int // of the image, by id
	onPage  func(zone string)
}

// Start serves a cloud with five boxes in each zone until Close.
func Start() (*Cloud, error) {
	c := &Cloud{rng: rand.New(rand.NewPCG(1, 0x746f79)), changes: map[string]int{}} //nolint:gosec // nothing here is a secret
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/zones/{zone}/boxes", c.list)
	mux.HandleFunc("PUT /v1/boxes/{id}/image", c.changeImage)
	var err error
	c.Breakable, err = cloudsim.StartBreakable(cloudsim.BreakableConfig{
		Handler: mux,
		Call: func(r *http.Request) (op, location string) {
			_, pattern := mux.Handler(r)
			return map[string]string{"GET /v1/zones/{zone}/boxes": "list", "PUT /v1/boxes/{id}/image": "change_image"}[pattern], ""
		},
		Refusal: func(code, text string) (int, http.Header, []byte) {
			return http.StatusConflict, nil, []byte(fmt.Sprintf(`{"code":%q,"why":%q}`, code, text))
		},
	})
	if err != nil {
		return nil, err
	}
	for _, zone := range Zones {
		c.Add(zone, 5)
	}
	return c, nil
}

// Add makes boxes, which are on, and returns their ids. Ids are random, so that
// new boxes come anywhere in a list.
func (c *Cloud) Add(zone string, count int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprintf("box-%016x", c.rng.Uint64())
		c.boxes = append(c.boxes, &Box{
			ID: ids[i], Label: "box " + strconv.Itoa(len(c.boxes)), Power: "on", Image: "registry.example.com/toy:1", Cores: 4,
			Created: 1772424620, Env: map[string]string{"HOME": EnvValue}, Password: Password, zone: zone,
		})
	}
	slices.SortFunc(c.boxes, func(a, b *Box) int { return cmp.Compare(a.ID, b.ID) })
	return ids
}

// Remove takes a box away and reports whether it was there.
func (c *Cloud) Remove(zone, id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.boxes)
	c.boxes = slices.DeleteFunc(c.boxes, func(b *Box) bool { return b.zone == zone && b.ID == id })
	return len(c.boxes) < before
}

// Clear takes all boxes of a zone away.
func (c *Cloud) Clear(zone string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boxes = slices.DeleteFunc(c.boxes, func(b *Box) bool { return b.zone == zone })
}

// Off turns a box off. Only then can its image be changed.
func (c *Cloud) Off(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.boxLocked(id); b != nil {
		b.Power = "off"
	}
}

// OnPage sets a function that is called after each page of a list was made and
// before it is sent.
func (c *Cloud) OnPage(f func(zone string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onPage = f
}

// Changes returns how often a box's image was changed.
func (c *Cloud) Changes(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes[id]
}

func (c *Cloud) boxLocked(id string) *Box {
	i := slices.IndexFunc(c.boxes, func(b *Box) bool { return b.ID == id })
	if i < 0 {
		return nil
	}
	return c.boxes[i]
}

// allowed checks the key. What it answers repeats the key.
func allowed(w http.ResponseWriter, r *http.Request) bool {
	given := r.Header.Get("X-Toy-Key")
	if given != Key {
		refuse(w, http.StatusUnauthorized, "bad_key", "nobody has the key "+given)
	}
	return given == Key
}

func refuse(w http.ResponseWriter, status int, code, why string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"code": code, "why": why}) // who asked has left
}

func (c *Cloud) list(w http.ResponseWriter, r *http.Request) {
	if !allowed(w, r) {
		return
	}
	zone, after := r.PathValue("zone"), r.URL.Query().Get("after")
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || limit < 1 || limit > 50 {
		refuse(w, http.StatusBadRequest, "bad_limit", "limit must be from 1 to 50")
		return
	}
	c.mu.Lock()
	rows := []Box{}
	more := false
	for _, b := range c.boxes {
		if b.zone == zone && b.ID > after {
			if more = len(rows) == limit; more {
				break
			}
			rows = append(rows, *b)
		}
	}
	onPage := c.onPage
	c.mu.Unlock()
	if onPage != nil {
		onPage(zone)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"boxes": rows, "more": more}) // as above
}

func (c *Cloud) changeImage(w http.ResponseWriter, r *http.Request) {
	if !allowed(w, r) {
		return
	}
	var body struct{ Image string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Image == "" {
		refuse(w, http.StatusBadRequest, "bad_body", "an image is needed")
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.boxLocked(r.PathValue("id"))
	switch {
	case b == nil:
		refuse(w, http.StatusNotFound, "no_box", "there is no such box")
	case b.Power != "off":
		refuse(w, http.StatusConflict, "box_is_on", "turn it off first, owner of "+r.Header.Get("X-Toy-Key"))
	default:
		b.Image = body.Image
		c.changes[b.ID]++
		_ = json.NewEncoder(w).Encode(b) //nolint:gosec // it opens nothing; the test looks for it
	}
}
