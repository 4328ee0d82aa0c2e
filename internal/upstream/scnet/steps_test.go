package scnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/upstream"
)

// step is a write of upstream.Recreator.
type step struct {
	name string
	do   func(context.Context, *Provider) error
	// What is sent and answered.
	platform   bool
	path, body string
	answer     string
}

var testSpec = upstream.NotebookSpec{
	Image:       upstream.ImageRef{URI: "image.ac.com:5000/dcu/a<b>/jupyterlab:2.5.1", Name: "jupyterlab:2.5.1", SizeBytes: 7338398370},
	Accelerator: "dcu", Cards: 2, ResourceGroup: "hgk100",
}

// steps are all writes, for the region 11250.
var steps = []step{
	{
		"create", func(ctx context.Context, p *Provider) error { _, err := p.Create(ctx, "11250", testSpec); return err }, true,
		"/ac/openapi/v2/notebook/actions/create",
		`{"clusterId":"11250","imagePath":"image.ac.com:5000/dcu/a<b>/jupyterlab:2.5.1","imageName":"jupyterlab:2.5.1","imageSize":"7338398370",` +
			`"acceleratorType":"DCU","acceleratorNumber":"2","resourceGroupCode":"hgk100","mountHome":true}`,
		`{"taskId":"2045437353371611137","notebookId":"2045437353363222530"}`,
	},
	{
		"start", func(ctx context.Context, p *Provider) error { return p.Start(ctx, "11250", "1896050410550136833") }, true,
		"/ac/openapi/v2/notebook/actions/start", `{"notebookId":"1896050410550136833"}`, `true`,
	},
	{
		"stop", func(ctx context.Context, p *Provider) error { return p.Stop(ctx, "11250", "1896050410550136833", true) }, false,
		"/ai/openapi/v2/notebook/actions/stop", `{"notebookId":"1896050410550136833","saveEnv":true}`, `true`,
	},
	{
		"rename", func(ctx context.Context, p *Provider) error {
			return p.Rename(ctx, "11250", "1896050410550136833", "训练 \"a\" <1>")
		}, false,
		"/ai/openapi/v2/notebook/name", `{"id":"1896050410550136833","notebookName":"训练 \"a\" <1>"}`, `true`,
	},
	{
		"release", func(ctx context.Context, p *Provider) error { return p.Release(ctx, "11250", "1896050410550136833") }, false,
		"/ai/openapi/v2/notebook/actions/release", `{"id":"1896050410550136833"}`, `true`,
	},
}

// TestStepsOnTheWire has what is sent by each write, byte by byte, with each way
// to get a token.
func TestStepsOnTheWire(t *testing.T) {
	type sent struct{ URL, Token, Body string }
	record := func(t *testing.T, req *http.Request, got *[]sent) {
		t.Helper()
		body, err := io.ReadAll(req.Body)
		if err != nil || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" || req.Header.Get("Accept") != "application/json" {
			t.Errorf("%s with %v, %v", req.Method, req.Header, err)
		}
		if want := int64(len(body)); req.ContentLength != want {
			t.Errorf("a length of %d, want %d", req.ContentLength, want)
		}
		*got = append(*got, sent{req.URL.String(), req.Header.Get("token"), string(body)})
	}
	for _, s := range steps {
		for _, platform := range []string{"", "https://platform.test/"} {
			t.Run(s.name+" with a configured region "+platform, func(t *testing.T) {
				var got []sent
				p := withRegion(t, Config{PlatformEndpoint: platform}, func(req *http.Request) (*http.Response, error) {
					record(t, req, &got)
					return respond(200, `{"code":"0","msg":"success","data":`+s.answer+`}`), nil
				})
				if err := s.do(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				host := "https://ai.test"
				if s.platform {
					host = "https://www.scnet.cn"
					if platform != "" {
						host = "https://platform.test"
					}
				}
				if diff := cmp.Diff([]sent{{host + s.path, "region-token", s.body}}, got); diff != "" {
					t.Errorf("sent (-want +got):\n%s", diff)
				}
			})
		}
		for _, kind := range []string{"", tokenOfRegion, tokenOfPlatform} {
			t.Run(s.name+" with a login, token "+kind, func(t *testing.T) {
				var got []sent
				cloud := newFakeCloud(fakeRegion{id: "11250", lifetime: time.Hour})
				cfg := cloud.config()
				cfg.CreateToken = kind
				p := newProvider(t, cfg, cloud.steps(func(req *http.Request) *http.Response {
					record(t, req, &got)
					return respond(200, `{"code":"0","msg":"success","data":`+s.answer+`}`)
				}))
				if err := s.do(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				want := sent{"http://cloud.test/11250" + s.path, cloud.tokenOf("11250"), s.body}
				if s.platform {
					want.URL = "http://cloud.test" + s.path
				}
				if s.platform && kind == tokenOfPlatform {
					want.Token = "platform"
				}
				if diff := cmp.Diff([]sent{want}, got); diff != "" {
					t.Errorf("sent (-want +got):\n%s", diff)
				}
				requests := []string{"login", "center 11250"}
				if s.platform {
					requests = requests[:1] // the address of the region is not needed
				}
				if diff := cmp.Diff(requests, cloud.take()); diff != "" {
					t.Errorf("other requests (-want +got):\n%s", diff)
				}
				// The token of the platform opens no region, and is none.
				locations, err := p.Locations(t.Context())
				if err != nil || len(locations) != 1 || locations[0].ID != "11250" {
					t.Errorf("locations: %+v, %v", locations, err)
				}
			})
		}
	}
	t.Run("create with little", func(t *testing.T) {
		var got []sent
		p := withRegion(t, Config{}, func(req *http.Request) (*http.Response, error) {
			record(t, req, &got)
			return respond(200, `{"code":0,"data":{"notebookId":42}}`), nil
		})
		id, err := p.Create(t.Context(), "11250", upstream.NotebookSpec{Image: upstream.ImageRef{URI: "r/i:1", Name: "i:1"}, Accelerator: "Gpu", Cards: 1})
		if err != nil || id != "42" {
			t.Errorf("got %q, %v", id, err)
		}
		want := `{"clusterId":"11250","imagePath":"r/i:1","imageName":"i:1","imageSize":"0","acceleratorType":"GPU","acceleratorNumber":"1","mountHome":true}`
		if len(got) != 1 || got[0].Body != want {
			t.Errorf("sent %+v, want %s", got, want)
		}
	})
}

// steps has the cloud's login and center from c, and everything else from
// answer.
func (c *fakeCloud) steps(answer func(*http.Request) *http.Response) roundTrip {
	return func(req *http.Request) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "/api/user/") || strings.HasSuffix(req.URL.Path, "/center") {
			rec := httptest.NewRecorder()
			c.ServeHTTP(rec, req)
			return rec.Result(), nil
		}
		return answer(req), nil
	}
}

// tokenOf is the token of a region, which has had one.
func (c *fakeCloud) tokenOf(region string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for token, id := range c.tokens {
		if id == region {
			return token
		}
	}
	return ""
}

// TestStepsRefusedHere has calls that are not made.
func TestStepsRefusedHere(t *testing.T) {
	requests := 0
	count := func(*http.Request) (*http.Response, error) { requests++; return respond(500, ""), nil }
	off, on := withRegion(t, Config{ReadOnly: true}, count), withRegion(t, Config{}, count)
	resolve := func(p *Provider, region, image, accelerator string) error {
		_, err := p.ResolveImage(t.Context(), region, image, accelerator)
		return err
	}
	create := func(p *Provider, region string, edit func(*upstream.NotebookSpec)) error {
		spec := testSpec
		edit(&spec)
		_, err := p.Create(t.Context(), region, spec)
		return err
	}
	ctx := t.Context()
	rows := []struct {
		name string
		err  error
		kind upstream.Kind
	}{
		{"resolve, not allowed", resolve(off, "11250", "a:1", "dcu"), upstream.KindUnsupported},
		{"resolve nothing", resolve(on, "11250", "", "dcu"), upstream.KindInvalid},
		{"resolve for nothing", resolve(on, "11250", "a:1", ""), upstream.KindInvalid},
		{"resolve elsewhere", resolve(on, "1", "a:1", "dcu"), upstream.KindInvalid},
		{"create elsewhere", create(on, "1", func(*upstream.NotebookSpec) {}), upstream.KindInvalid},
		{"create nowhere", create(on, "", func(*upstream.NotebookSpec) {}), upstream.KindInvalid},
		{"create no image", create(on, "11250", func(s *upstream.NotebookSpec) { s.Image.URI = "" }), upstream.KindInvalid},
		{"create no name", create(on, "11250", func(s *upstream.NotebookSpec) { s.Image.Name = "" }), upstream.KindInvalid},
		{"create a negative size", create(on, "11250", func(s *upstream.NotebookSpec) { s.Image.SizeBytes = -1 }), upstream.KindInvalid},
		{"create no accelerator", create(on, "11250", func(s *upstream.NotebookSpec) { s.Accelerator = "" }), upstream.KindInvalid},
		{"create no cards", create(on, "11250", func(s *upstream.NotebookSpec) { s.Cards = 0 }), upstream.KindInvalid},
		{"start nothing", on.Start(ctx, "11250", ""), upstream.KindInvalid},
		{"stop a path", on.Stop(ctx, "11250", "1/2", true), upstream.KindInvalid},
		{"release nothing", on.Release(ctx, "11250", " "), upstream.KindInvalid},
		{"rename nothing", on.Rename(ctx, "11250", "", "a"), upstream.KindInvalid},
		{"rename to nothing", on.Rename(ctx, "11250", "1", " \t"), upstream.KindInvalid},
		{"stop elsewhere", on.Stop(ctx, "1", "1", true), upstream.KindInvalid},
	}
	for _, s := range steps {
		rows = append(rows, struct {
			name string
			err  error
			kind upstream.Kind
		}{s.name + ", not allowed", s.do(ctx, off), upstream.KindUnsupported})
	}
	for _, tt := range rows {
		if upstream.KindOf(tt.err) != tt.kind || upstream.MaySent(tt.err) {
			t.Errorf("%s: %v, want %v and not sent", tt.name, tt.err, tt.kind)
		}
	}
	if requests != 0 {
		t.Errorf("%d requests were made", requests)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	for _, s := range steps {
		if err := s.do(gone, on); !errors.Is(err, context.Canceled) || upstream.MaySent(err) || requests != 0 {
			t.Errorf("%s of a caller who left: %v, %d requests", s.name, err, requests)
		}
	}
}

// TestStepAnswers has the answers of writes. None of them leads to a second
// request: those that do are in TestStepTokenRefused.
func TestStepAnswers(t *testing.T) {
	const ok = upstream.Kind(-1)
	for _, tt := range []struct {
		status int
		body   string
		want   upstream.Kind // of all, but for those in other
		other  map[string]upstream.Kind
		code   string
	}{
		{200, `{"code":"0","data":true}`, ok, map[string]upstream.Kind{"create": upstream.KindBadResponse}, "HTTP 200"},
		{200, `{"code":0,"data":null}`, ok, map[string]upstream.Kind{"create": upstream.KindBadResponse}, "HTTP 200"},
		{201, `{"code":"0"}`, ok, map[string]upstream.Kind{"create": upstream.KindBadResponse}, "HTTP 200"},
		{200, `{"code":"0","data":{"notebookId":"7","taskId":null}}`, ok, nil, ""},
		{200, `{"code":"0","data":{"notebookId":"7/8"}}`, ok, map[string]upstream.Kind{"create": upstream.KindBadResponse}, "HTTP 200"},
		{200, `{"code":"0","data":{"taskId":"7"}}`, ok, map[string]upstream.Kind{"create": upstream.KindBadResponse}, "HTTP 200"},
		{200, `{"code":"0","data":false}`, upstream.KindBadResponse, nil, "HTTP 200"},
		{200, `{"code":"817140","msg":"stopped"}`, upstream.KindConflict, map[string]upstream.Kind{"stop": ok}, "817140"},
		{500, `{"code":"817140"}`, upstream.KindConflict, map[string]upstream.Kind{"stop": ok}, "817140"},
		{429, `{"code":"817140"}`, upstream.KindThrottled, nil, "817140"},
		{200, `{"code":"716865","msg":"task creation error"}`, upstream.KindRejected, nil, "716865"},
		{200, `{"code":"716866"}`, upstream.KindRejected, nil, "716866"},
		{200, `{"code":"10001","msg":"internal_error","data":"x"}`, upstream.KindFault, nil, "10001"},
		{200, `{"code":"10003"}`, upstream.KindInvalid, nil, "10003"},
		{200, `{"code":"10004"}`, upstream.KindInvalid, nil, "10004"},
		{200, `{"code":"10007"}`, upstream.KindDenied, nil, "10007"},
		{200, `{"code":"10009"}`, upstream.KindDenied, nil, "10009"},
		{200, `{"code":"10012"}`, upstream.KindUnavailable, nil, "10012"},
		{200, `{"code":"816304"}`, upstream.KindInvalid, nil, "816304"},
		{200, `{"code":"816822"}`, upstream.KindNotFound, map[string]upstream.Kind{"create": upstream.KindRejected}, "816822"},
		{200, `{"code":"818218"}`, upstream.KindDenied, nil, "818218"},
		{200, `{"code":"424242"}`, upstream.KindRejected, nil, "424242"},
		{404, `404 page not found`, upstream.KindDisabled, map[string]upstream.Kind{"create": upstream.KindRejected, "start": upstream.KindRejected}, "HTTP 404"},
		{405, ``, upstream.KindInvalid, nil, "HTTP 405"},
		{429, ``, upstream.KindThrottled, nil, "HTTP 429"},
		{500, ``, upstream.KindUnavailable, nil, "HTTP 500"},
		{502, `<html>`, upstream.KindUnavailable, nil, "HTTP 502"},
		{302, ``, upstream.KindBadResponse, nil, "HTTP 302"},
		{200, `<html>`, upstream.KindBadResponse, nil, "HTTP 200"},
		{200, ``, upstream.KindBadResponse, nil, "HTTP 200"},
		{200, `{"code":"0","data":tr`, upstream.KindBadResponse, nil, "HTTP 200"},
		{200, `{"code":{},"data":true}`, upstream.KindBadResponse, nil, "HTTP 200"},
	} {
		for _, s := range steps {
			t.Run(fmt.Sprintf("%s %d %s", s.name, tt.status, tt.body), func(t *testing.T) {
				requests := 0
				p := withRegion(t, Config{}, func(*http.Request) (*http.Response, error) {
					requests++
					return respond(tt.status, tt.body), nil
				})
				want, other := tt.other[s.name]
				if !other {
					want = tt.want
				}
				err := s.do(t.Context(), p)
				switch {
				case want == ok && err != nil:
					t.Errorf("got %v", err)
				case want != ok:
					check(t, err, want, tt.code, "scnet/11250 "+s.name)
					if !upstream.MaySent(err) {
						t.Errorf("%v denies that the call was sent", err)
					}
				}
				if requests != 1 {
					t.Errorf("%d requests", requests)
				}
			})
		}
	}
}

// TestStepTokenRefused: a write whose token is refused is made once more with
// the token of a new login. Only a create is not, when nothing but HTTP 403 says
// that it was refused.
func TestStepTokenRefused(t *testing.T) {
	for name, refusal := range map[string]struct {
		status int
		body   string
	}{
		"10008": {200, `{"code":"10008","msg":"token expired"}`}, "10008 with 401": {401, `{"code":10008}`}, "10008 with 403": {403, `{"code":"10008"}`},
		"401": {401, ``}, "console": {401, `{"code":"1001","message":"jwt token is invalid"}`}, "403": {403, `<html>`}, "403 with a code": {403, `{"code":"1"}`},
	} {
		for _, s := range steps {
			for _, kind := range []string{tokenOfRegion, tokenOfPlatform} {
				t.Run(name+" "+s.name+" "+kind, func(t *testing.T) {
					cloud := newFakeCloud(fakeRegion{id: "11250", lifetime: time.Hour})
					cfg := cloud.config()
					cfg.CreateToken = kind
					left, requests := 0, 0
					p := newProvider(t, cfg, cloud.steps(func(*http.Request) *http.Response {
						requests++
						if left--; left >= 0 {
							return respond(refusal.status, refusal.body)
						}
						return respond(200, `{"code":"0","data":{"notebookId":"7"}}`)
					}))
					again := 2
					if s.name == "create" && strings.HasPrefix(name, "403") {
						again = 1
					}
					left = 1
					err := s.do(t.Context(), p)
					if again == 2 && err != nil {
						t.Errorf("once: %v", err)
					}
					if again == 1 {
						check(t, err, upstream.KindDenied, "", s.name)
					}
					if requests != again {
						t.Errorf("once: %d requests, want %d", requests, again)
					}
					left, requests = 1000, 0
					err = s.do(t.Context(), p)
					check(t, err, upstream.KindDenied, "", s.name)
					if requests != again || !upstream.MaySent(err) {
						t.Errorf("always: %d requests, want %d; %v", requests, again, err)
					}
				})
			}
			t.Run(name+" "+s.name+" configured", func(t *testing.T) {
				requests := 0
				p := withRegion(t, Config{}, func(*http.Request) (*http.Response, error) {
					requests++
					return respond(refusal.status, refusal.body), nil
				})
				err := s.do(t.Context(), p)
				check(t, err, upstream.KindDenied, "", s.name)
				if requests != 1 || !upstream.MaySent(err) {
					t.Errorf("%d requests, %v", requests, err)
				}
			})
		}
	}
}

// TestStepWithoutToken: when no token is to be had, a write that was not sent
// says so; one that was refused before stays refused, whatever became of the
// login.
func TestStepWithoutToken(t *testing.T) {
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			cloud := newFakeCloud(fakeRegion{id: "11250", lifetime: time.Hour})
			down := true
			cloud.onLogin = func(w http.ResponseWriter, r *http.Request) bool { return down && answerWith(503, "")(w, r) }
			cfg := cloud.config()
			cfg.ReadOnly = false
			requests := 0
			p := newProvider(t, cfg, cloud.steps(func(*http.Request) *http.Response {
				requests++
				return respond(200, `{"code":"10008","msg":"token expired"}`)
			}))
			err := s.do(t.Context(), p)
			check(t, err, upstream.KindUnavailable, "HTTP 503", "login")
			if upstream.MaySent(err) || requests != 0 {
				t.Errorf("no login: %v, %d requests", err, requests)
			}
			down = false
			if _, err := p.Locations(t.Context()); err != nil {
				t.Fatal(err)
			}
			down = true
			err = s.do(t.Context(), p)
			check(t, err, upstream.KindDenied, "10008", s.name+": denied")
			if !upstream.MaySent(err) || requests != 1 || !strings.Contains(err.Error(), "no other token") {
				t.Errorf("no new login: %v, %d requests", err, requests)
			}
		})
	}
	t.Run("no token of the platform", func(t *testing.T) {
		cloud := newFakeCloud(fakeRegion{id: "11250", lifetime: time.Hour})
		cloud.onLogin = answerWith(200, `{"code":"0","data":[{"clusterId":"11250","token":"t"},{"clusterId":"0","token":null}]}`)
		cfg := cloud.config()
		cfg.CreateToken = tokenOfPlatform
		p := newProvider(t, cfg, cloud.steps(func(*http.Request) *http.Response { return respond(500, "") }))
		_, err := p.Create(t.Context(), "11250", testSpec)
		check(t, err, upstream.KindDisabled, "", noMaking)
		if upstream.MaySent(err) {
			t.Errorf("%v", err)
		}
	})
	t.Run("no address", func(t *testing.T) {
		cloud := newFakeCloud(fakeRegion{id: "11250", lifetime: time.Hour})
		cloud.onCenter = answerWith(502, "")
		cfg := cloud.config()
		cfg.ReadOnly = false
		p := newProvider(t, cfg, cloud.steps(func(*http.Request) *http.Response { return respond(500, "") }))
		err := p.Release(t.Context(), "11250", "7")
		check(t, err, upstream.KindUnavailable, "HTTP 502", "center")
		if upstream.MaySent(err) {
			t.Errorf("%v", err)
		}
	})
}

// TestStepsHoldNoSecret has the cloud echo the token in every place.
func TestStepsHoldNoSecret(t *testing.T) {
	calls := slices.Clone(steps)
	calls = append(calls, step{name: "images", do: func(ctx context.Context, p *Provider) error {
		_, err := p.ResolveImage(ctx, "11250", "a:1", "dcu")
		return err
	}})
	for _, s := range calls {
		for _, form := range []string{
			`{"code":"10001","msg":%q}`, `{"code":"10008","msg":%q}`, `{"code":%q}`, `{"code":"0","data":%q}`, `{"code":"0","data":{"notebookId":"/%s"}}`,
			`<html>%s`, `{"code":"716865","message":%q}`,
		} {
			cloud := newFakeCloud(fakeRegion{id: "11250", lifetime: time.Hour})
			cfg := cloud.config()
			cfg.ReadOnly = false
			var secrets []string
			p := newProvider(t, cfg, cloud.steps(func(req *http.Request) *http.Response {
				secrets = append(secrets, req.Header.Get("token"))
				return respond(200, fmt.Sprintf(form, req.Header.Get("token")))
			}))
			err := s.do(t.Context(), p)
			shown := fmt.Sprintf("%v %+v %#v", err, err, err)
			if e, ok := errors.AsType[*upstream.Error](err); ok {
				shown += fmt.Sprintf("%+v %#v", *e, *e)
			}
			for _, secret := range append(secrets, testSecret, testKey) {
				if secret == "" || strings.Contains(shown, secret) {
					t.Errorf("%s, %s: the error holds the secret %q: %s", s.name, form, secret, shown)
				}
			}
		}
	}
}

// TestStepBreakers: a platform that fails to create leaves regions alone, and
// the other way round; neither stops reads.
func TestStepBreakers(t *testing.T) {
	broken := "/ac/"
	p := withRegion(t, Config{}, func(req *http.Request) (*http.Response, error) {
		if strings.Contains(req.URL.Path, broken) {
			return respond(500, ""), nil
		}
		return respond(200, `{"code":"0","data":{"total":0,"records":[]}}`), nil
	})
	ctx := t.Context()
	for range 5 {
		if err := p.Start(ctx, "11250", "1"); upstream.KindOf(err) != upstream.KindUnavailable {
			t.Fatal(err)
		}
	}
	if err := p.Start(ctx, "11250", "1"); upstream.KindOf(err) != upstream.KindCircuitOpen || upstream.MaySent(err) {
		t.Errorf("start: %v", err)
	}
	if err := p.Stop(ctx, "11250", "1", true); err != nil {
		t.Errorf("stop: %v", err)
	}
	broken = "/actions/stop"
	for range 6 {
		_ = p.Stop(ctx, "11250", "1", true)
	}
	if err := p.Release(ctx, "11250", "1"); upstream.KindOf(err) != upstream.KindCircuitOpen || upstream.MaySent(err) {
		t.Errorf("release: %v", err)
	}
	if _, err := p.List(ctx, "11250"); err != nil {
		t.Errorf("list: %v", err)
	}
}

// imageCloud answers the lists of images: what is in them, in pages of at most
// cap.
type imageCloud struct {
	public, private, models []string // records
	cap                     int
	total                   func(n int) string // default: n
	stuck                   bool               // always the first page
	requests                []string
}

func (c *imageCloud) RoundTrip(req *http.Request) (*http.Response, error) {
	var body struct {
		Access, Sort, OrderBy    string
		Start, Limit, Page, Size int
	}
	data, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &body); err != nil {
		return nil, err
	}
	c.requests = append(c.requests, strings.TrimPrefix(req.URL.Path, "/ai/openapi/v2/image/")+" "+string(data))
	list, key, start, limit := c.public, "data", body.Start, body.Limit
	switch {
	case strings.HasSuffix(req.URL.Path, "/models"):
		limit = body.Size
		if c.cap > 0 {
			limit = min(limit, c.cap)
		}
		list, key, start = c.models, "records", (body.Page-1)*limit
	case body.Access == "private":
		list = c.private
	}
	if c.cap > 0 {
		limit = min(limit, c.cap)
	}
	if c.stuck {
		start = 0
	}
	total := strconv.Itoa(len(list))
	if c.total != nil {
		total = c.total(len(list))
	}
	rows := list[min(start, len(list)):min(start+limit, len(list))]
	return respond(200, fmt.Sprintf(`{"code":"0","msg":"success","data":{"total":%s,%q:[%s]}}`, total, key, strings.Join(rows, ","))), nil
}

func imageRow(path, accelerator, status, rest string) string {
	version := path[strings.LastIndex(path, "/")+1:]
	return fmt.Sprintf(`{"path":%q,"version":%q,"acceleratorType":%q,"status":%q,"imageSize":"7338398370"%s}`, path, version, accelerator, status, rest)
}

func manyImages(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = imageRow(fmt.Sprintf("r:5000/other/image%d:1", i), "dcu", "Completed", "")
	}
	return out
}

func TestResolveImage(t *testing.T) {
	want := func(path string) upstream.ImageRef {
		return upstream.ImageRef{URI: path, Name: path[strings.LastIndex(path, "/")+1:], SizeBytes: 7338398370}
	}
	const a, b = "r:5000/dcu/x/jupyter:1", "r:5000/dcu/y/jupyter:1"
	row := func(path string) string { return imageRow(path, "dcu", "Completed", "") }
	for _, tt := range []struct {
		name     string
		cloud    imageCloud
		image    string
		want     upstream.ImageRef
		text     string // of the error
		kind     upstream.Kind
		requests int
	}{
		{"by reference", imageCloud{public: []string{row(a), row(b)}}, b, want(b), "", 0, 1},
		{"by name and tag", imageCloud{public: []string{row(a), row(b)}}, "jupyter:1", want(a), "", 0, 1},
		{"a part of a name", imageCloud{public: []string{row(a)}}, "jupyter", upstream.ImageRef{}, "no list of images shows it", upstream.KindImageNotFound, 3},
		{"a part of a reference", imageCloud{public: []string{row(a)}}, "x/jupyter:1", upstream.ImageRef{}, "no list", upstream.KindImageNotFound, 3},
		{"private", imageCloud{public: []string{row(a)}, private: []string{row(b)}}, b, want(b), "", 0, 2},
		{"public before private", imageCloud{public: []string{row(b)}, private: []string{row(a)}}, "jupyter:1", want(b), "", 0, 1},
		{"model", imageCloud{models: []string{row(a)}}, a, want(a), "", 0, 3},
		{"without version", imageCloud{models: []string{`{"path":"` + a + `","name":"jupyter","tag":"1","acceleratorType":"DCU","status":"Completed","imageSize":7338398370}`}}, "jupyter:1", want(a), "", 0, 3},
		{"without any name", imageCloud{public: []string{`{"path":"` + a + `","acceleratorType":"dcu","status":"Completed","imageSize":"7338398370"}`}}, "jupyter:1", want(a), "", 0, 1},
		{"without a path", imageCloud{public: []string{`{"version":"jupyter:1","acceleratorType":"dcu","status":"Completed"}`}}, "jupyter:1", upstream.ImageRef{}, "", upstream.KindImageNotFound, 3},
		{"rows that are none", imageCloud{public: []string{`null`, `7`, `{}`, row(a)}}, a, want(a), "", 0, 1},
		{"other case", imageCloud{public: []string{imageRow(a, "DCU", "completed", "")}}, a, want(a), "", 0, 1},
		{"not complete", imageCloud{public: []string{imageRow(a, "dcu", "Building", "")}}, a, upstream.ImageRef{}, "not complete", upstream.KindImageNotFound, 3},
		{"no status", imageCloud{public: []string{imageRow(a, "dcu", "", "")}}, a, upstream.ImageRef{}, "not complete", upstream.KindImageNotFound, 3},
		{"for others", imageCloud{public: []string{imageRow(a, "gpu", "Completed", "")}}, a, upstream.ImageRef{}, "other accelerators", upstream.KindImageNotFound, 3},
		{"one for others, one not", imageCloud{public: []string{imageRow(a, "gpu", "Completed", ""), row(b)}}, "jupyter:1", want(b), "", 0, 1},
		{"size as in the table", imageCloud{public: []string{strings.Replace(row(a), `"7338398370"`, `"2GB"`, 1)}}, a, upstream.ImageRef{URI: a, Name: "jupyter:1", SizeBytes: 2 << 30}, "", 0, 1},
		{"size that is none", imageCloud{public: []string{strings.Replace(row(a), `"7338398370"`, `null`, 1)}}, a, upstream.ImageRef{URI: a, Name: "jupyter:1"}, "", 0, 1},
		{"on a third page", imageCloud{public: append(manyImages(250), row(a))}, a, want(a), "", 0, 3},
		{"a full last page", imageCloud{public: manyImages(100), private: []string{row(a)}}, a, want(a), "", 0, 3},
		{"pages that are capped", imageCloud{public: append(manyImages(30), row(a)), cap: 7}, a, want(a), "", 0, 5},
		{"model pages that are capped", imageCloud{models: append(manyImages(30), row(a)), cap: 7}, a, want(a), "", 0, 7},
		{"no total", imageCloud{public: append(manyImages(150), row(a)), total: func(int) string { return "null" }}, a, want(a), "", 0, 2},
		{"a total that counts too many", imageCloud{public: manyImages(3), private: []string{row(a)}, total: func(n int) string { return strconv.Itoa(n + 1) }}, a, want(a), "", 0, 3},
		{"a total of zero", imageCloud{public: append(manyImages(150), row(a)), total: func(int) string { return "0" }}, a, want(a), "", 0, 2},
		{"always the first page", imageCloud{public: append(manyImages(150), row(a)), stuck: true}, a, upstream.ImageRef{}, "only those of earlier ones", upstream.KindBadResponse, 2},
		{"always the only page", imageCloud{public: manyImages(100), stuck: true}, a, upstream.ImageRef{}, "no list", upstream.KindImageNotFound, 4},
		{"no end", imageCloud{public: manyImages(300), cap: 1, total: func(int) string { return "1000" }}, a, upstream.ImageRef{}, "no end within 100 pages", upstream.KindBadResponse, 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := withRegion(t, Config{}, tt.cloud.RoundTrip)
			got, err := p.ResolveImage(t.Context(), "11250", tt.image, "dcu")
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if tt.want == (upstream.ImageRef{}) {
				check(t, err, tt.kind, "", tt.text)
				if !upstream.MaySent(err) {
					t.Errorf("%v denies that anything was sent", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if len(tt.cloud.requests) != tt.requests {
				t.Errorf("%d requests, want %d:\n%s", len(tt.cloud.requests), tt.requests, strings.Join(tt.cloud.requests, "\n"))
			}
		})
	}
	t.Run("requests", func(t *testing.T) {
		cloud := &imageCloud{}
		if _, err := withRegion(t, Config{}, cloud.RoundTrip).ResolveImage(t.Context(), "11250", a, "dcu"); err == nil {
			t.Error("no error")
		}
		if diff := cmp.Diff([]string{
			`images {"access":"public","start":0,"limit":100,"sort":"DESC","orderBy":"create_time"}`,
			`images {"access":"private","start":0,"limit":100,"sort":"DESC","orderBy":"create_time"}`,
			`models {"page":1,"size":100}`,
		}, cloud.requests); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
	t.Run("answers", func(t *testing.T) {
		for body, kind := range map[string]upstream.Kind{
			`{"code":"0","data":null}`:                  upstream.KindImageNotFound,
			`{"code":"0","data":[]}`:                    upstream.KindImageNotFound,
			`{"code":"0","data":{"total":0,"data":[]}}`: upstream.KindImageNotFound,
			`{"code":"0"}`:                              upstream.KindBadResponse,
			`{"code":"0","data":"x"}`:                   upstream.KindBadResponse,
			`{"code":"0","data":{"total":1,"data":7}}`:  upstream.KindBadResponse,
			`<html>`:                  upstream.KindBadResponse,
			`{"code":"10001"}`:        upstream.KindFault,
			`{"code":"716020"}`:       upstream.KindFault,
			`{"code":"10004"}`:        upstream.KindInvalid,
			`{"code":"10008","x":""}`: upstream.KindDenied,
		} {
			p := withRegion(t, Config{}, func(*http.Request) (*http.Response, error) { return respond(200, body), nil })
			_, err := p.ResolveImage(t.Context(), "11250", a, "dcu")
			if upstream.KindOf(err) != kind || !upstream.MaySent(err) {
				t.Errorf("%s: %v, want %v", body, err, kind)
			}
		}
	})
}
