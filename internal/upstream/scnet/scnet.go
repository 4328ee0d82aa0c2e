// Package scnet speaks the notebook API of SCNet: it logs in, finds the
// regions, pages, decodes and classifies.
//
// It refuses to do anything else. It does not cache notebooks, poll or log, it
// knows no breaker and no call budget (package upstream carries its calls), and
// the one thing that it tries twice is a call whose token has expired. The
// cloud has no call that changes an image; the steps by which a notebook can be
// replaced are there one by one, and what follows what is decided elsewhere.
// README.md tables where every field and every code goes.
package scnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/notebookd/notebookd/internal/upstream"
)

// Config configures a Provider: either Regions, each with a token, or a login.
// Zero fields have the documented default.
type Config struct {
	// Regions are the locations, each with a token that was got elsewhere. They do not
	// go together with a login. Default: none, a login finds them.
	Regions []Region `yaml:"regions"`

	// LoginEndpoint is scheme and host of the login. Default: https://api.scnet.cn.
	LoginEndpoint string `yaml:"login_endpoint"`
	// PlatformEndpoint is scheme and host of the platform, which knows where each
	// region's AI service is. Default: https://www.scnet.cn.
	PlatformEndpoint string `yaml:"platform_endpoint"`
	// User is the name for the platform's login, not that of a cluster's user. Needed,
	// unless regions are given.
	User string `yaml:"user"`
	// AccessKey is the id of the key that the login is made with. Needed, unless regions
	// are given.
	AccessKey upstream.Secret `yaml:"access_key"`
	// SecretKey is what the login is signed with. Needed, unless regions are given.
	SecretKey upstream.Secret `yaml:"secret_key"`

	// MaxConcurrent calls are made to one region at a time, and as many regions are
	// looked up at a time. Default: 3.
	MaxConcurrent int `yaml:"max_concurrent"`
	// StrictEnvelope accepts a list only in the form of the vendor's field table.
	// Default: false.
	StrictEnvelope bool `yaml:"strict_envelope"`
	// TimeZone is the zone of times that name none: an offset or an IANA name.
	// Default: +08:00.
	TimeZone string `yaml:"time_zone"`

	// ReadOnly refuses what changing an image takes here: making a new notebook
	// and releasing the old one. With it nothing is ever written. Default: false.
	ReadOnly bool `yaml:"read_only"`
	// CreateToken is the token that notebooks are created and started with: that of the
	// region, or that of the platform, which only a login gives. Default: region.
	CreateToken string `yaml:"create_token"`
}

// The words of Config.CreateToken.
const (
	tokenOfRegion   = "region"
	tokenOfPlatform = "platform"
)

// Region is a region whose token was got elsewhere.
type Region struct {
	// ID is the region's id, its location in resource names. Needed.
	ID string `yaml:"id"`
	// Name is for display. Default: none.
	Name string `yaml:"name"`
	// Endpoint is scheme and host of the region's AI service, with or without /ai.
	// Needed.
	Endpoint string `yaml:"endpoint"`
	// Token is what its calls are made with; it is never renewed. Needed.
	Token upstream.Secret `yaml:"token"`
}

func (c Config) withDefaults() Config {
	c.LoginEndpoint, c.PlatformEndpoint = strings.TrimRight(c.LoginEndpoint, "/"), strings.TrimRight(c.PlatformEndpoint, "/")
	if c.LoginEndpoint == "" {
		c.LoginEndpoint = "https://api.scnet.cn"
	}
	if c.PlatformEndpoint == "" {
		c.PlatformEndpoint = "https://www.scnet.cn"
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = 3
	}
	if c.TimeZone == "" {
		c.TimeZone = "+08:00"
	}
	if c.CreateToken == "" {
		c.CreateToken = tokenOfRegion
	}
	return c
}

// Validate reports every problem of the configuration, joined; each one's text
// begins with its key. No text holds a secret.
func (c Config) Validate() error {
	c = c.withDefaults()
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }

	if len(c.Regions) > 0 {
		if c.User != "" || !c.AccessKey.IsZero() || !c.SecretKey.IsZero() {
			problem("regions: give either regions or a login with user, access_key and secret_key")
		}
		for i, r := range c.Regions {
			if !upstream.PlainSegment(r.ID) {
				problem("regions[%d].id: needed, and made of letters, digits and - _ .", i)
			} else if slices.ContainsFunc(c.Regions[:i], func(o Region) bool { return o.ID == r.ID }) {
				problem("regions[%d].id: %q is there already", i, r.ID)
			}
			if text := upstream.EndpointProblem(r.Endpoint); text != "" {
				problem("regions[%d].endpoint: %s", i, text)
			}
			if r.Token.IsZero() {
				problem("regions[%d].token: needed", i)
			} else if !headerSafe(r.Token.Reveal()) {
				problem("regions[%d].token: has characters that no header can carry", i)
			}
		}
	} else {
		if text := upstream.EndpointProblem(c.LoginEndpoint); text != "" {
			problem("login_endpoint: %s", text)
		}
		if c.User == "" {
			problem("user: needed, unless regions are given")
		} else if strings.TrimSpace(c.User) != c.User {
			problem("user: has white space around it, which no header keeps")
		} else if strings.ContainsFunc(c.User, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			problem("user: has control characters")
		}
		for key, secret := range map[string]upstream.Secret{"access_key": c.AccessKey, "secret_key": c.SecretKey} {
			if secret.IsZero() {
				problem("%s: needed, unless regions are given", key)
			}
		}
		if !headerSafe(c.AccessKey.Reveal()) {
			problem("access_key: has characters that no header can carry")
		}
	}
	// Regions with tokens of their own are created in over the platform too.
	if text := upstream.EndpointProblem(c.PlatformEndpoint); text != "" {
		problem("platform_endpoint: %s", text)
	}
	switch {
	case c.CreateToken != tokenOfRegion && c.CreateToken != tokenOfPlatform:
		problem("create_token: must be region or platform")
	case c.CreateToken == tokenOfPlatform && len(c.Regions) > 0:
		problem("create_token: only a login gives a token of the platform")
	}
	if c.MaxConcurrent < 0 {
		problem("max_concurrent: must be at least 1")
	}
	if _, err := upstream.ParseZone(c.TimeZone); err != nil {
		problem("time_zone: must be an offset like +08:00 or a name like Asia/Shanghai, not %q", c.TimeZone)
	}
	slices.SortStableFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) }) // maps have no order
	return errors.Join(problems...)
}

// Provider is one account on SCNet. Between calls it keeps the tokens of its
// login and the addresses of the regions.
type Provider struct {
	cfg     Config // with defaults; never changed
	client  *upstream.Client
	zone    *time.Location
	session *session // nil with configured regions
	// maxPages bounds the requests of one listing.
	maxPages int

	mu    sync.Mutex               // guards slots
	slots map[string]chan struct{} // by region; who makes a call holds one of MaxConcurrent places
}

var (
	_ upstream.Provider  = (*Provider)(nil)
	_ upstream.Recreator = (*Provider)(nil)
)

// New returns the Provider of one account, whose calls go through client.
func New(cfg Config, client *upstream.Client) (*Provider, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if client == nil {
		return nil, errors.New("scnet: no client")
	}
	cfg = cfg.withDefaults()
	zone, err := upstream.ParseZone(cfg.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("time_zone: %w", err)
	}
	cfg.Regions = slices.Clone(cfg.Regions)
	p := &Provider{cfg: cfg, client: client, zone: zone, maxPages: maxPages, slots: map[string]chan struct{}{}}
	if len(cfg.Regions) == 0 {
		p.session = newSession(p)
	}
	return p, nil
}

// Capabilities implements upstream.Provider.
func (p *Provider) Capabilities() upstream.Capabilities {
	mode := upstream.ChangeImageUnsupported
	if !p.cfg.ReadOnly {
		mode = upstream.ChangeImageRecreate
	}
	return upstream.Capabilities{ChangeImage: mode, VolatileAttributes: slices.Clone(volatileAttributes)}
}

// Locations implements upstream.Provider. With a login the answer is that of
// the cloud: regions in which the account has no token and regions without an
// AI service are disabled.
func (p *Provider) Locations(ctx context.Context) ([]upstream.Location, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p.session != nil {
		return p.session.locations(ctx)
	}
	locations := make([]upstream.Location, len(p.cfg.Regions))
	for i, r := range p.cfg.Regions {
		locations[i] = upstream.Location{ID: r.ID, DisplayName: r.Name}
	}
	return locations, nil
}

// The operations, as they stand in metric labels.
const (
	opLogin       = "login"
	opCenter      = "center"
	opList        = "list"
	opFind        = "find"
	opChangeImage = "change_image"
	opImages      = "images"
	opCreate      = "create"
	opStop        = "stop"
	opStart       = "start"
	opRename      = "rename"
	opRelease     = "release"
)

const (
	// pageSize is the largest page that is asked for; the cloud documents no
	// bound.
	pageSize = 100
	// smallestCap is below what a cloud may cap pages at: pages of more rows can
	// always be laid so that they overlap and show something new.
	smallestCap = 16
	// maxPages bounds the requests of one listing.
	maxPages = 1500
	// noList is the number of rows of an answer that says success and has null
	// where the list should be.
	noList = -1
)

// List implements upstream.Provider: all notebooks of a region, ordered by id.
//
// The cloud has no snapshot to page through. A notebook that exists from the
// first page to the last is in the result exactly once, as long as the cloud
// keeps an order among them; one that comes or goes meanwhile may or may not
// be.
func (p *Provider) List(ctx context.Context, region string) ([]upstream.Notebook, error) {
	return p.Relist(ctx, region, nil)
}

// Relist implements upstream.Relister. A notebook that tells in how long it will be
// released is never Unchanged.
func (p *Provider) Relist(ctx context.Context, region string, memo *upstream.Memo) ([]upstream.Notebook, error) {
	found := upstream.NewFound(memo.Len())
	pages := &upstream.Pager{Limit: pageSize, MaxPages: p.maxPages}
	largest, end := pageSize, 0 // end is where the last page ended, if that joined the others
	for !pages.Done() {
		offset := pages.Offset()
		n, size := window(offset, largest)
		for n*size <= end { // no page overlaps that far and shows something new
			offset = (offset + end + 1) / 2
			n, size = window(offset, largest)
		}
		rows, total, err := p.listPage(ctx, region, n, size, found, pages, memo)
		if err != nil {
			return nil, err
		}
		if rows == noList && found.Len() == 0 {
			return nil, nil
		}
		start := (n - 1) * size
		if end = 0; pages.Offset() > start {
			end = start + rows
		}
		if n > 1 || rows >= size || total <= rows {
			continue
		}
		if rows > smallestCap {
			largest = rows // the cloud gives no larger page
		} else if err := p.listEnd(ctx, region, rows, found); err != nil {
			return nil, err
		}
	}
	return found.Notebooks(), nil
}

// window is a page that starts at offset or a little before it, in a cloud that
// counts pages instead of rows. Of the sizes up to largest it takes the one
// that reaches furthest.
func window(offset, largest int) (page, size int) {
	reach := 0
	for s := largest; s > largest/2; s-- {
		if r := s - offset%s; r > reach {
			reach, page, size = r, offset/s+1, s
		}
	}
	return page, size
}

// listPage reads a page into found and tells pages of it.
// API: https://www.scnet.cn/ac/openapi/doc/2.0/api/notebook/query.html
func (p *Provider) listPage(
	ctx context.Context, region string, n, size int, found *upstream.Found, pages *upstream.Pager, memo *upstream.Memo,
) (rows, total int, err error) {
	query := url.Values{"page": {strconv.Itoa(n)}, "size": {strconv.Itoa(size)}}
	err = p.read(ctx, opList, region, "/notebook/list", query, func(a answer, err error) error {
		if err != nil {
			return err
		}
		notebooks, count, err := p.notebooks(a, memo)
		if err != nil {
			return err
		}
		before := found.Len()
		ids := make([]string, len(notebooks))
		for i, nb := range notebooks {
			ids[i] = nb.ID
			found.Put(nb)
		}
		if rows, total = len(ids), count; notebooks == nil {
			rows = noList
		}
		if total < rows {
			total = -1 // whatever it counts, it is not the notebooks
		}
		if n == 1 && rows == 0 && total > 0 {
			return bad("the list shows none of the notebooks that it counts")
		}
		// A page that is not full is the last, but for the first one, which may
		// be short because the cloud gives no larger ones. The total counts what
		// is there now, so that it proves nothing once pages were put together,
		// nor when it is that of a full page.
		known := total >= 0 && found.Len() >= total
		last := rows < size && (n > 1 || total < 0 || rows <= smallestCap) || known && (n == 1 && rows != size || found.Len() == before)
		if problem := pages.Take((n-1)*size, ids, last); problem != "" {
			return bad(problem)
		}
		return nil
	})
	return rows, total, err
}

// listEnd makes sure that a first page of few rows is the whole list although
// its total says otherwise: it reads the next page of the same size, which must
// have nothing new. Pages that small do not overlap, so that a list cannot be
// put together from them.
func (p *Provider) listEnd(ctx context.Context, region string, rows int, found *upstream.Found) error {
	query := url.Values{"page": {"2"}, "size": {strconv.Itoa(rows)}}
	return p.read(ctx, opList, region, "/notebook/list", query, func(a answer, err error) error {
		if err != nil {
			return err
		}
		notebooks, _, err := p.notebooks(a, nil)
		if err != nil {
			return err
		}
		for _, nb := range notebooks {
			if found.Get(nb.ID) == nil {
				return bad("the pages of the list are too small")
			}
		}
		return nil
	})
}

// notebooks reads a page of the list, and how many there are in all: -1 when
// the answer does not say.
func (p *Provider) notebooks(a answer, memo *upstream.Memo) ([]upstream.Notebook, int, error) {
	page, err := a.page(p.cfg.StrictEnvelope)
	if err != nil {
		return nil, 0, err
	}
	if page.rows == nil && page.total < 0 {
		return nil, page.total, nil // no list at all
	}
	now := time.Now()
	notebooks := make([]upstream.Notebook, len(page.rows))
	for i, row := range page.rows {
		n, ok := memo.Decode(row, func() (n upstream.Notebook, lasting, ok bool) {
			n, ok = decodeNotebook(row, p.zone, now)
			return n, n.ExpireTime.IsZero(), ok
		})
		if notebooks[i] = n; !ok {
			return nil, 0, bad("a record of the list has no id")
		}
	}
	return notebooks, page.total, nil
}

// Find reads one notebook of a region. That the cloud does not show it is a
// KindNotFound.
//
// The cloud documents no answer for a notebook that is not there, so several
// are taken for one: success without a notebook, code 816822, and the codes
// 10004 (parameter invalid) and 10001. The last of them is that of any internal
// error too. So KindNotFound is no proof by itself that a notebook is gone: it
// is one together with a complete listing that has left it out.
// API: GET /ai/openapi/v2/notebook/detail, of which there is no public page.
func (p *Provider) Find(ctx context.Context, region, id string) (upstream.Notebook, error) {
	if !upstream.UsableID(id) {
		return upstream.Notebook{}, p.refuse(opFind, region, "the notebook is missing")
	}
	var found upstream.Notebook
	err := p.read(ctx, opFind, region, "/notebook/detail", url.Values{"notebookId": {id}}, func(a answer, err error) error {
		if err != nil {
			return notShown(a, err)
		}
		if a.empty() {
			return &upstream.Error{Kind: upstream.KindNotFound, Err: errNotShown}
		}
		n, ok := decodeNotebook(a.data, p.zone, time.Now())
		switch {
		case !ok:
			return bad("the record has no id")
		case n.ID != id:
			return bad("the answer shows another notebook")
		}
		found = n
		return nil
	})
	return found, err
}

var errNotShown = errors.New("the cloud does not show the notebook")

// notShown makes the answers that stand for a missing notebook a KindNotFound.
// With the HTTP status of a server that fails, a code keeps its own meaning.
func notShown(a answer, err error) error {
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok || a.status >= http.StatusInternalServerError {
		return err
	}
	switch {
	case e.Kind == upstream.KindFault && e.Code == "10001",
		e.Kind == upstream.KindInvalid && e.Code == "10004",
		e.Kind == upstream.KindNotFound && e.Code == "816822":
		e.Kind, e.Err = upstream.KindNotFound, errNotShown
	}
	return e
}

// ChangeImage implements upstream.Provider: the cloud has no such call.
func (p *Provider) ChangeImage(_ context.Context, req upstream.ImageRequest) (upstream.Notebook, error) {
	return upstream.Notebook{}, &upstream.Error{
		Cloud: p.client.Cloud(), Location: req.Location, Op: opChangeImage, Kind: upstream.KindUnsupported,
		Err: errors.New("the cloud has no call that changes an image"),
	}
}

// request is one call that takes a token.
type request struct {
	op, region string
	class      upstream.Class
	method     string
	path       string // behind /openapi/v2, with its query
	body       []byte // of a POST
	// platform calls go to the platform's host instead of the region's own.
	platform bool
}

// read makes one GET to a region's AI service.
func (p *Provider) read(ctx context.Context, op, region, path string, query url.Values, decode func(answer, error) error) error {
	return p.ask(ctx, request{op: op, region: region, method: http.MethodGet, path: path + "?" + query.Encode()}, decode)
}

// ask makes one call; two if the token was refused and a login gives another
// one. decode gets the answer, or what is wrong with it.
func (p *Provider) ask(ctx context.Context, r request, decode func(answer, error) error) error {
	if _, ok := p.configured(r.region); !ok && p.session == nil {
		return p.refuse(r.op, r.region, "the region is not configured")
	}
	release, err := p.slot(ctx, r.region)
	if err != nil {
		return err
	}
	defer release()
	base, scope := p.cfg.PlatformEndpoint+"/ac", scopePlatform
	if !r.platform {
		scope = "" // that of the region
		if base, err = p.base(ctx, r.op, r.region); err != nil {
			return r.before(err)
		}
	}
	return p.withToken(ctx, r, func(token upstream.Secret) (stale bool, err error) {
		call := p.call(r, base+"/openapi/v2"+r.path, token)
		call.Class, call.Scope = r.class, scope
		missing := false
		call.Decode = func(resp upstream.Response) error {
			a, err := open(resp)
			stale = a.stale && r.repeatable(resp.Status, err)
			if e, ok := errors.AsType[*upstream.Error](err); ok && resp.Status == http.StatusNotFound && !documented(e.Code) {
				if r.platform {
					e.Kind, e.Err = upstream.KindRejected, errors.New("the platform has no such call")
				} else {
					// A gateway without an AI service knows none of its paths.
					missing = true
					e.Kind, e.Err = upstream.KindDisabled, errors.New(noService)
				}
			}
			return decode(a, err)
		}
		err = p.client.Do(ctx, call)
		if missing && p.session != nil {
			p.session.forget(r.region, base)
		}
		return stale, err
	})
}

// repeatable reports whether a call whose token was refused with err may be made
// again with another token.
//
// A refused token is refused in front of what does the work, so that nothing
// was done, and this holds for writes as well. The exception is a create that
// got HTTP 403 without the cloud's own code for tokens: that may be the word of
// a firewall that looks at answers too, and a create that was done all the same
// would be done twice, and paid for twice.
func (r request) repeatable(status int, err error) bool {
	e, ok := errors.AsType[*upstream.Error](err)
	return r.op != opCreate || status != http.StatusForbidden || ok && e.Code == codeToken
}

// before makes err, of a login or of a question for an address, the error of a
// write that was not sent for it. What was sent then was no write.
func (r request) before(err error) error {
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok || r.class != upstream.ClassWrite {
		return err
	}
	unsent := *e
	unsent.Sent = false
	return &unsent
}

// withToken makes a call with a token, and makes it again with a new one if the
// cloud no longer takes the first.
func (p *Provider) withToken(ctx context.Context, r request, call func(upstream.Secret) (stale bool, err error)) error {
	if p.session == nil {
		configured, _ := p.configured(r.region)
		_, err := call(configured.Token)
		return err
	}
	holder := r.region
	if r.platform && p.cfg.CreateToken == tokenOfPlatform {
		holder = platformGrant
	}
	token, generation, err := p.session.token(ctx, r.op, r.region, holder, 0)
	if err != nil {
		return r.before(err)
	}
	stale, refusal := call(token)
	if !stale {
		return refusal
	}
	if token, _, err = p.session.token(ctx, r.op, r.region, holder, generation); err != nil {
		if r.class == upstream.ClassWrite {
			// The write reached the cloud, which refused it. How the login failed
			// says nothing about what became of the write.
			if e, ok := errors.AsType[*upstream.Error](refusal); ok {
				e.Err = fmt.Errorf("and no other token: %w", err)
			}
			return refusal
		}
		return err
	}
	_, err = call(token)
	return err
}

// base is the address of a region's AI service.
func (p *Provider) base(ctx context.Context, op, region string) (string, error) {
	if p.session != nil {
		return p.session.base(ctx, op, region)
	}
	r, _ := p.configured(region)
	return aiBase(r.Endpoint), nil
}

func (p *Provider) configured(region string) (Region, bool) {
	i := slices.IndexFunc(p.cfg.Regions, func(r Region) bool { return r.ID == region })
	if i < 0 {
		return Region{}, false
	}
	return p.cfg.Regions[i], true
}

// call prepares a call with a token.
func (p *Provider) call(r request, target string, token upstream.Secret) upstream.Call {
	return upstream.Call{
		Op: r.op, Location: r.region,
		Request: func(ctx context.Context) (*http.Request, error) {
			var body io.Reader = http.NoBody
			if r.body != nil {
				body = bytes.NewReader(r.body)
			}
			req, err := http.NewRequestWithContext(ctx, r.method, target, body)
			if err != nil {
				return nil, err
			}
			req.Header.Set("Accept", "application/json")
			if r.body != nil {
				req.Header.Set("Content-Type", "application/json")
			}
			req.Header.Set("token", token.Reveal())
			return req, nil
		},
		Secrets: []upstream.Secret{token},
	}
}

// refuse is the error for a call that is not made.
func (p *Provider) refuse(op, region, why string) error {
	return &upstream.Error{Cloud: p.client.Cloud(), Location: region, Op: op, Kind: upstream.KindInvalid, Err: errors.New(why)}
}

// disabled is the error for a region that the account cannot use.
func (p *Provider) disabled(op, region, why string) error {
	return &upstream.Error{Cloud: p.client.Cloud(), Location: region, Op: op, Kind: upstream.KindDisabled, Err: errors.New(why)}
}

// slot waits until a call to the region may be made; release ends it.
func (p *Provider) slot(ctx context.Context, region string) (release func(), err error) {
	p.mu.Lock()
	slots, ok := p.slots[region]
	if !ok {
		slots = make(chan struct{}, p.cfg.MaxConcurrent)
		p.slots[region] = slots
	}
	p.mu.Unlock()
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
