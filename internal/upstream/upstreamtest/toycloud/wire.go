package toycloud

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/notebookd/notebookd/internal/upstream"
)

// box is the cloud's notebook. It also has a password, which is not decoded.
type box struct {
	ID      string            `json:"id"`
	Label   string            `json:"label"`
	Power   string            `json:"power"` // on, off, busy
	Image   string            `json:"image"`
	Cores   float64           `json:"cores"`
	Created int64             `json:"created"` // seconds since 1970
	Env     map[string]string `json:"env"`
}

// boxPage is a page of the list.
type boxPage struct {
	Boxes []box `json:"boxes"`
	More  bool  `json:"more"`
}

// failure is the body of an answer that is none.
type failure struct {
	Code upstream.Text `json:"code"`
	Why  upstream.Text `json:"why"`
}

var states = map[string]upstream.State{
	"on": upstream.StateRunning, "off": upstream.StateStopped, "busy": upstream.StateStarting,
}

var kinds = map[upstream.Text]upstream.Kind{
	"no_box": upstream.KindNotFound, "bad_key": upstream.KindDenied, "box_is_on": upstream.KindConflict,
	"slow_down": upstream.KindThrottled, "broken": upstream.KindFault,
}

// notebook translates. The values of environment variables have no place in a
// notebook.
func (b box) notebook() upstream.Notebook {
	n := upstream.Notebook{
		ID: b.ID, DisplayName: b.Label, State: states[b.Power], CloudState: b.Power,
		Image: upstream.Image{URI: b.Image}, Resources: upstream.Resources{CPUCores: b.Cores},
		CreateTime: time.Unix(b.Created, 0).UTC(),
	}
	n.EnvNames = slices.Sorted(maps.Keys(b.Env))
	return n
}

// open reads an answer into out. The error of one that is none has the cloud's
// code, if it gave one, else that of HTTP.
func open(resp upstream.Response, out any) error {
	if resp.Status == http.StatusOK {
		if json.Unmarshal(resp.Body, out) != nil {
			return bad("the answer cannot be read")
		}
		return nil
	}
	e := upstream.HTTPError(resp)
	var f failure
	if json.Unmarshal(resp.Body, &f) == nil && f.Code != "" {
		kind, ok := kinds[f.Code]
		if !ok {
			kind = upstream.KindRejected
		}
		e.Kind, e.Code, e.Message = kind, string(f.Code), string(f.Why)
	}
	return e
}

// bad is the error for an answer that makes no sense.
func bad(what string) error {
	return &upstream.Error{Kind: upstream.KindBadResponse, Code: "HTTP 200", Err: errors.New(what)}
}

// openPage reads a page of the boxes after one. A page that does not lead on,
// though it says that there is more, would have no end.
func openPage(resp upstream.Response, after string) (boxPage, error) {
	var page boxPage
	if err := open(resp, &page); err != nil {
		return boxPage{}, err
	}
	if page.Boxes == nil || page.More && len(page.Boxes) == 0 {
		return boxPage{}, bad("the answer has no list of boxes")
	}
	for _, b := range page.Boxes {
		if !upstream.UsableID(b.ID) || b.ID <= after {
			return boxPage{}, bad("the boxes are not in the order of their ids")
		}
		after = b.ID
	}
	return page, nil
}

// openBox reads the box that was asked for.
func openBox(resp upstream.Response, id string) (box, error) {
	var b box
	if err := open(resp, &b); err != nil {
		return box{}, err
	}
	if b.ID != id {
		return box{}, bad("the answer shows another box")
	}
	return b, nil
}
