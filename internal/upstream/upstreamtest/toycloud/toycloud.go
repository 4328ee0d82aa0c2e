// Package toycloud speaks the API of a cloud that does not exist. It is there
// to show, and to test, that a third cloud is added as package upstream says,
// without a change to anything else.
//
// Only tests may import it.
package toycloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/notebookd/notebookd/internal/upstream"
)

// Config configures a Provider.
type Config struct {
	// Endpoint is scheme and host of the cloud.
	Endpoint string `yaml:"endpoint"`
	// Zones are the locations of the account. At least one is needed.
	Zones []string        `yaml:"zones"`
	Key   upstream.Secret `yaml:"key"`
}

// Validate reports every problem of the configuration, joined; each one's text
// begins with its key. No text holds a secret.
func (c Config) Validate() error {
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if text := upstream.EndpointProblem(c.Endpoint); text != "" {
		problem("endpoint: %s", text)
	}
	if len(c.Zones) == 0 {
		problem("zones: at least one is needed")
	}
	for i, zone := range c.Zones {
		if !upstream.PlainSegment(zone) {
			problem("zones[%d]: must be made of letters, digits and - _ .", i)
		} else if slices.Contains(c.Zones[:i], zone) {
			problem("zones[%d]: %q is there already", i, zone)
		}
	}
	if c.Key.IsZero() {
		problem("key: needed")
	}
	return errors.Join(problems...)
}

// Provider is one account on the cloud. It keeps no state between calls.
type Provider struct {
	cfg    Config // never changed
	client *upstream.Client
}

var _ upstream.Provider = (*Provider)(nil)

// New returns the Provider of one account, whose calls go through client.
func New(cfg Config, client *upstream.Client) (*Provider, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Endpoint, cfg.Zones = strings.TrimRight(cfg.Endpoint, "/"), slices.Clone(cfg.Zones)
	return &Provider{cfg: cfg, client: client}, nil
}

// Capabilities implements upstream.Provider.
func (*Provider) Capabilities() upstream.Capabilities {
	return upstream.Capabilities{ChangeImage: upstream.ChangeImageInPlace}
}

// Locations implements upstream.Provider with the configured zones.
func (p *Provider) Locations(ctx context.Context) ([]upstream.Location, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := make([]upstream.Location, len(p.cfg.Zones))
	for i, zone := range p.cfg.Zones {
		out[i] = upstream.Location{ID: zone}
	}
	return out, nil
}

const (
	pageLimit = 50   // the largest page that the cloud gives
	maxPages  = 2000 // bounds the requests of one listing
)

// List implements upstream.Provider. The cloud orders boxes by id and is asked
// for those after the last one that was seen, so that no box is skipped or seen
// twice however the list moves.
func (p *Provider) List(ctx context.Context, zone string) ([]upstream.Notebook, error) {
	if !slices.Contains(p.cfg.Zones, zone) {
		return nil, p.refuse("list", zone, "the zone is not configured")
	}
	out := []upstream.Notebook{}
	after := ""
	for range maxPages {
		var page boxPage
		query := url.Values{"after": {after}, "limit": {strconv.Itoa(pageLimit)}}
		call := p.call(http.MethodGet, "/v1/zones/"+zone+"/boxes?"+query.Encode(), nil)
		call.Op, call.Location, call.Class = "list", zone, upstream.ClassRead
		call.Decode = func(resp upstream.Response) (err error) {
			page, err = openPage(resp, after)
			return err
		}
		if err := p.client.Do(ctx, call); err != nil {
			return nil, err
		}
		for _, b := range page.Boxes {
			out = append(out, b.notebook())
		}
		if !page.More {
			return out, nil
		}
		after = page.Boxes[len(page.Boxes)-1].ID
	}
	return nil, p.refuse("list", zone, "the list has no end")
}

// ChangeImage implements upstream.Provider.
func (p *Provider) ChangeImage(ctx context.Context, req upstream.ImageRequest) (upstream.Notebook, error) {
	switch {
	case !slices.Contains(p.cfg.Zones, req.Location):
		return upstream.Notebook{}, p.refuse("change_image", req.Location, "the zone is not configured")
	case req.NotebookID == "" || req.Image == "":
		return upstream.Notebook{}, p.refuse("change_image", req.Location, "the notebook or the image is missing")
	}
	body := upstream.CompactJSON(map[string]string{"image": req.Image})
	call := p.call(http.MethodPut, "/v1/boxes/"+url.PathEscape(req.NotebookID)+"/image", body)
	call.Op, call.Location, call.Class = "change_image", req.Location, upstream.ClassWrite
	var changed upstream.Notebook
	call.Decode = func(resp upstream.Response) error {
		b, err := openBox(resp, req.NotebookID)
		if err == nil {
			changed = b.notebook()
		}
		return err
	}
	if err := p.client.Do(ctx, call); err != nil {
		return upstream.Notebook{}, err
	}
	return changed, nil
}

// refuse is the error for a call that is not made.
func (p *Provider) refuse(op, zone, why string) error {
	return &upstream.Error{Cloud: p.client.Cloud(), Location: zone, Op: op, Kind: upstream.KindInvalid, Err: errors.New(why)}
}

func (p *Provider) call(method, path string, body []byte) upstream.Call {
	return upstream.Call{
		Request: func(ctx context.Context) (*http.Request, error) {
			req, err := http.NewRequestWithContext(ctx, method, p.cfg.Endpoint+path, bytes.NewReader(body))
			if err != nil {
				return nil, err
			}
			req.Header.Set("X-Toy-Key", p.cfg.Key.Reveal())
			return req, nil
		},
		Secrets: []upstream.Secret{p.cfg.Key},
	}
}
