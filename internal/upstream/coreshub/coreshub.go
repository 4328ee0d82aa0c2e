// Package coreshub speaks the notebook API of CoresHub: it signs, pages,
// decodes and classifies.
//
// It refuses to do anything else. It does not retry, cache, poll or log, it
// knows no breaker and no call budget (package upstream carries its calls), and
// it makes only the two calls that notebookd needs: list and change_image.
// README.md tables where every field and every code goes.
package coreshub

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
	"time"

	"github.com/notebookd/notebookd/internal/upstream"
)

// Config configures a Provider. Zero fields have the documented default.
type Config struct {
	// Endpoint is scheme and host of the cloud. Default: https://ai.coreshub.cn.
	Endpoint string `yaml:"endpoint"`
	// PathPrefix comes before every path; / is none. Default: /aicp.
	PathPrefix string `yaml:"path_prefix"`
	// Zones are the locations of the account. Needed, at least one.
	Zones []string `yaml:"zones"`
	// UserID is the id of the account's user, such as usr-AbCdEf12. Needed, unless
	// namespaces are given.
	UserID string `yaml:"user_id"`
	// Namespaces are listed in every zone. Default: user_id in lower case.
	Namespaces []string `yaml:"namespaces"`

	// AccessKeyID is the id of the access key that signs calls. Needed.
	AccessKeyID upstream.Secret `yaml:"access_key_id"`
	// SecretAccessKey is the secret of that access key. Needed.
	SecretAccessKey upstream.Secret `yaml:"secret_access_key"`

	// SignEncode is how often the signature is percent-encoded in the URL: twice or
	// once. Default: twice.
	SignEncode string `yaml:"sign_encode"`
	// SignBody is whose MD5 is signed: empty is that of nothing, md5 that of the body
	// that is sent. Default: empty.
	SignBody string `yaml:"sign_body"`
	// TimeZone is the zone of times that name none: an offset or an IANA name.
	// Default: +08:00.
	TimeZone string `yaml:"time_zone"`
}

func (c Config) withDefaults() Config {
	c.Endpoint = strings.TrimSuffix(c.Endpoint, "/")
	if c.Endpoint == "" {
		c.Endpoint = "https://ai.coreshub.cn"
	}
	if c.PathPrefix == "" {
		c.PathPrefix = "/aicp"
	}
	c.PathPrefix = strings.TrimRight(c.PathPrefix, "/")
	if len(c.Namespaces) == 0 && c.UserID != "" {
		c.Namespaces = []string{strings.ToLower(c.UserID)}
	}
	if c.SignEncode == "" {
		c.SignEncode = "twice"
	}
	if c.SignBody == "" {
		c.SignBody = "empty"
	}
	if c.TimeZone == "" {
		c.TimeZone = "+08:00"
	}
	return c
}

// Validate reports every problem of the configuration, joined; each one's text
// begins with its key. No text holds a secret.
func (c Config) Validate() error {
	derived := len(c.Namespaces) == 0
	c = c.withDefaults()
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }

	if text := upstream.EndpointProblem(c.Endpoint); text != "" {
		problem("endpoint: %s", text)
	} else if u, err := url.Parse(c.Endpoint); err != nil || u.Path != "" {
		problem("endpoint: must have no path; that is path_prefix")
	}
	for _, segment := range strings.Split(strings.TrimPrefix(c.PathPrefix, "/"), "/") {
		if c.PathPrefix != "" && (!strings.HasPrefix(c.PathPrefix, "/") || !upstream.PlainSegment(segment)) {
			problem("path_prefix: must start with / and be made of letters, digits and - _ .")
			break
		}
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
	if len(c.Namespaces) == 0 {
		problem("user_id: needed, unless namespaces are given")
	}
	for i, namespace := range c.Namespaces {
		key := fmt.Sprintf("namespaces[%d]", i)
		if derived {
			key = "user_id"
		}
		if !upstream.PlainSegment(namespace) {
			problem("%s: must be made of letters, digits and - _ .", key)
		} else if slices.Contains(c.Namespaces[:i], namespace) {
			problem("namespaces[%d]: %q is there already", i, namespace)
		}
	}
	if c.AccessKeyID.IsZero() {
		problem("access_key_id: needed")
	}
	if c.SecretAccessKey.IsZero() {
		problem("secret_access_key: needed")
	}
	if c.SignEncode != "twice" && c.SignEncode != "once" {
		problem("sign_encode: must be twice or once, not %q", c.SignEncode)
	}
	if c.SignBody != "empty" && c.SignBody != "md5" {
		problem("sign_body: must be empty or md5, not %q", c.SignBody)
	}
	if _, err := upstream.ParseZone(c.TimeZone); err != nil {
		problem("time_zone: must be an offset like +08:00 or a name like Asia/Shanghai, not %q", c.TimeZone)
	}
	return errors.Join(problems...)
}

// Provider is one account on CoresHub. It keeps no state between calls.
type Provider struct {
	cfg    Config // with defaults; never changed
	client *upstream.Client
	signer signer
	zone   *time.Location
	// maxPages bounds the requests of one namespace's listing.
	maxPages int
}

var _ upstream.Provider = (*Provider)(nil)

// New returns the Provider of one account, whose calls go through client.
func New(cfg Config, client *upstream.Client) (*Provider, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if client == nil {
		return nil, errors.New("coreshub: no client")
	}
	cfg = cfg.withDefaults()
	zone, err := upstream.ParseZone(cfg.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("time_zone: %w", err)
	}
	cfg.Zones, cfg.Namespaces = slices.Clone(cfg.Zones), slices.Clone(cfg.Namespaces)
	return &Provider{
		cfg: cfg, client: client, zone: zone, maxPages: maxPages,
		signer: signer{keyID: cfg.AccessKeyID, secret: cfg.SecretAccessKey, once: cfg.SignEncode == "once", hashBody: cfg.SignBody == "md5"},
	}, nil
}

// Capabilities implements upstream.Provider.
func (p *Provider) Capabilities() upstream.Capabilities {
	return upstream.Capabilities{
		ChangeImage:        upstream.ChangeImageInPlace,
		ImageTypes:         []string{"official", "user", "custom"},
		RegistryCredential: true,
	}
}

// zoneNames are the regions that the vendor's tools name.
var zoneNames = map[string]string{"xb3": "Northwest 3", "xb2": "Northwest 2", "hb2": "North China 2"}

// Locations implements upstream.Provider. The cloud has no call for it, so the
// zones are those of the configuration.
func (p *Provider) Locations(ctx context.Context) ([]upstream.Location, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	locations := make([]upstream.Location, len(p.cfg.Zones))
	for i, zone := range p.cfg.Zones {
		locations[i] = upstream.Location{ID: zone, DisplayName: zoneNames[zone]}
	}
	return locations, nil
}

// List implements upstream.Provider: all notebooks of the configured
// namespaces in a zone, ordered by id.
//
// The cloud has no snapshot to page through, so the list may change between two
// pages. A notebook that exists from the first page to the last is in the
// result exactly once (see upstream.Pager); one that comes or goes meanwhile may or may
// not be.
func (p *Provider) List(ctx context.Context, zone string) ([]upstream.Notebook, error) {
	return p.Relist(ctx, zone, nil)
}

// Relist implements upstream.Relister.
func (p *Provider) Relist(ctx context.Context, zone string, memo *upstream.Memo) ([]upstream.Notebook, error) {
	if !slices.Contains(p.cfg.Zones, zone) {
		return nil, p.refuse(opList, zone, "the zone is not configured")
	}
	found := upstream.NewFound(memo.Len())
	for _, namespace := range p.cfg.Namespaces {
		pages := upstream.Pager{Limit: pageLimit, MaxPages: p.maxPages}
		for full := pageLimit; !pages.Done(); {
			if err := p.listPage(ctx, zone, namespace, &pages, &full, found, memo); err != nil {
				return nil, err
			}
		}
	}
	return found.Notebooks(), nil
}

// The operations, as they stand in metric labels.
const (
	opList        = "list"
	opChangeImage = "change_image"
)

// listPage reads the page that pages asks for into found. full is how many rows
// a full page has.
// API: https://docs.coreshub.cn/console/developer/api/list/notebooks/get_notebook
func (p *Provider) listPage(
	ctx context.Context, zone, namespace string, pages *upstream.Pager, full *int, found *upstream.Found, memo *upstream.Memo,
) error {
	call := p.call(http.MethodGet, p.path(namespace), url.Values{
		"zone":     {zone},
		"order_by": {"created_at"},
		"limit":    {strconv.Itoa(pageLimit)},
		"offset":   {strconv.Itoa(pages.Offset())},
	}, nil)
	call.Op, call.Location, call.Class, call.Passing = opList, zone, upstream.ClassRead, true
	call.Decode = func(resp upstream.Response) error {
		a, err := open(resp)
		if err != nil {
			return err
		}
		rows, err := a.notebooks(p.zone, namespace, memo)
		if err != nil {
			return err
		}
		ids := make([]string, len(rows))
		for i, n := range rows {
			ids[i] = n.ID
			// Of two versions the one that changed last counts, else the one
			// that was read last.
			if old := found.Get(n.ID); old == nil || n.UpdateTime.IsZero() || !n.UpdateTime.Before(old.UpdateTime) {
				found.Put(n)
			}
		}
		// A page that is not full is the last. Only if the first one is short and
		// the cloud counts more, it may be that it gives no larger pages; its
		// count is not trusted further than that.
		if pages.Offset() == 0 && len(rows) > 0 && len(rows) < *full && a.counts > len(rows) {
			*full = len(rows)
		}
		last := len(rows) < *full
		if problem := pages.Take(pages.Offset(), ids, last); problem != "" {
			return a.bad(problem)
		}
		return nil
	}
	return p.client.Do(ctx, call)
}

const (
	// pageLimit is the largest page that the cloud gives.
	pageLimit = 100
	// maxPages is half of the calls that an account has in an hour.
	maxPages = 1000
)

// ChangeImage implements upstream.Provider. An answer that says success but
// does not show the notebook is an error with Sent set: whether the image
// changed has to be read back.
// API: https://docs.coreshub.cn/console/developer/api/list/notebooks/change_image
func (p *Provider) ChangeImage(ctx context.Context, req upstream.ImageRequest) (upstream.Notebook, error) {
	namespace := req.Namespace
	if namespace == "" {
		namespace = p.cfg.Namespaces[0]
	}
	var refusal string
	switch {
	case !slices.Contains(p.cfg.Zones, req.Location):
		refusal = "the zone is not configured"
	case !upstream.PlainSegment(namespace):
		refusal = "the namespace is none"
	case req.NotebookID == "":
		refusal = "the notebook is missing"
	case req.Image == "":
		refusal = "the image is missing"
	case req.ImageType == "":
		refusal = "the image type is missing"
	}
	if refusal != "" {
		return upstream.Notebook{}, p.refuse(opChangeImage, req.Location, refusal)
	}

	body := changeImageBody(req)
	call := p.call(http.MethodPost, p.path(namespace)+"/change_image", url.Values{"zone": {req.Location}}, body)
	call.Op, call.Location, call.Class = opChangeImage, req.Location, upstream.ClassWrite
	if c := req.Credential; c != nil {
		call.Secrets = append(call.Secrets, credentialForms(c.Username, c.Password)...)
	}
	var changed upstream.Notebook
	call.Decode = func(resp upstream.Response) error {
		a, err := open(resp)
		if err != nil {
			return err
		}
		if req.RequestID != nil {
			*req.RequestID = a.requestID
		}
		n, err := a.notebook(p.zone, namespace)
		if err != nil {
			return err
		}
		if n.ID != req.NotebookID {
			return a.bad("the answer shows another notebook")
		}
		// The one field of free text, where a cloud may quote what it was sent.
		for _, s := range call.Secrets {
			n.StateMessage = strings.ReplaceAll(n.StateMessage, s.Reveal(), s.String())
		}
		changed = n
		return nil
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

// path is the path of a namespace's notebooks.
func (p *Provider) path(namespace string) string {
	return p.cfg.PathPrefix + "/notebooks/namespaces/" + namespace + "/notebooks"
}

// call prepares a signed request. Its URL stays valid until the key is revoked,
// so the signature is as much a secret as the key.
func (p *Provider) call(method, path string, params url.Values, body []byte) upstream.Call {
	s := p.signer.sign(method, path, params, body)
	target := p.cfg.Endpoint + path + "?" + s.query
	return upstream.Call{
		Request: func(ctx context.Context) (*http.Request, error) {
			req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
			if err != nil {
				return nil, err
			}
			req.Header.Set("Accept", "application/json")
			req.Header.Set("Content-Type", "application/json")
			return req, nil
		},
		Secrets: append(s.forms(), p.cfg.AccessKeyID, p.cfg.SecretAccessKey),
	}
}
