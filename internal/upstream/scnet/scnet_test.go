package scnet

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/upstream"
)

const (
	testUser   = "alice"
	testKey    = "0123456789abcdef0123456789abcdef"
	testSecret = "fedcba9876543210fedcba9876543210"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func respond(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

func newProvider(tb testing.TB, cfg Config, transport http.RoundTripper) *Provider {
	tb.Helper()
	p, err := New(cfg, upstream.NewClient(upstream.ClientConfig{Cloud: "scnet", Transport: transport}))
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// withRegion returns a Provider with the configured region 11250, whose cloud
// is transport.
func withRegion(tb testing.TB, cfg Config, transport roundTrip) *Provider {
	tb.Helper()
	cfg.Regions = []Region{{ID: "11250", Name: "Kunshan", Endpoint: "https://ai.test", Token: upstream.NewSecret("region-token")}}
	return newProvider(tb, cfg, transport)
}

// fakeRegion is a region of a fakeCloud.
type fakeRegion struct {
	id, name string
	lifetime time.Duration // of its token; zero: the account is disabled there
	urls     string        // aiUrls as JSON; empty: one that leads to the fakeCloud
	absent   bool          // no AI service behind the URL: 404 on every path
}

// fakeCloud is SCNet with a login, as far as a test needs it. It is a handler
// and, for tests in which time is not real, a transport.
type fakeCloud struct {
	url        string // of itself
	concurrent int    // the setting max_concurrent
	// What is not nil answers instead; a false result leaves the answer to the
	// fakeCloud. They are set before the first request.
	onLogin  func(w http.ResponseWriter, r *http.Request) bool
	onCenter func(w http.ResponseWriter, r *http.Request) bool
	onAI     func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex // guards what is below
	regions  []fakeRegion
	tokens   map[string]string // what is accepted: token → region
	logins   int
	requests []string // "login", "center 11250", "list 11250", …
}

func newFakeCloud(regions ...fakeRegion) *fakeCloud {
	return &fakeCloud{url: "http://cloud.test", regions: regions, tokens: map[string]string{}}
}

func (c *fakeCloud) config() Config {
	return Config{
		LoginEndpoint: c.url, PlatformEndpoint: c.url + "/", User: testUser,
		AccessKey: upstream.NewSecret(testKey), SecretKey: upstream.NewSecret(testSecret), MaxConcurrent: c.concurrent,
	}
}

// serve puts the cloud behind a socket.
func (c *fakeCloud) serve(tb testing.TB) *Provider {
	tb.Helper()
	server := httptest.NewServer(c)
	tb.Cleanup(server.Close)
	c.url = server.URL
	return newProvider(tb, c.config(), nil)
}

// direct calls the cloud without a socket.
func (c *fakeCloud) direct(tb testing.TB) *Provider {
	tb.Helper()
	return newProvider(tb, c.config(), roundTrip(func(req *http.Request) (*http.Response, error) {
		rec := httptest.NewRecorder()
		c.ServeHTTP(rec, req)
		if err := req.Context().Err(); err != nil {
			return nil, err
		}
		return rec.Result(), nil
	}))
}

func (c *fakeCloud) set(regions ...fakeRegion) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.regions = regions
}

// revoke has no token accepted that was given so far.
func (c *fakeCloud) revoke() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.tokens)
}

// take returns the requests since the last call.
func (c *fakeCloud) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.requests
	c.requests = nil
	return out
}

func (c *fakeCloud) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, fmt.Sprintf(format, args...))
}

func jwt(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"HS256"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature"))
}

func (c *fakeCloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if r.URL.Path == "/api/user/v3/tokens" {
		c.note("login")
		if c.onLogin == nil || !c.onLogin(w, r) {
			c.login(w)
		}
		return
	}
	c.mu.Lock()
	region, ok := c.tokens[r.Header.Get("token")]
	c.mu.Unlock()
	center := r.URL.Path == "/ac/openapi/v2/center"
	parts := strings.Split(r.URL.Path, "/") // "", region, "ai", "openapi", "v2", "notebook", operation
	switch {
	case center:
		c.note("center %s", region)
		if c.onCenter != nil && c.onCenter(w, r) {
			return
		}
	case len(parts) == 7 && parts[2] == "ai":
		c.note("%s %s", parts[6], parts[1])
		if c.onAI != nil && c.onAI(w, r) {
			return
		}
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.regions, func(g fakeRegion) bool { return g.id == region })
	switch {
	case !center && slices.ContainsFunc(c.regions, func(g fakeRegion) bool { return g.id == parts[1] && g.absent }):
		w.WriteHeader(http.StatusNotFound)
	case !ok || i < 0 || !center && parts[1] != region:
		_, _ = io.WriteString(w, `{"code":"10008","msg":"token expired","data":null}`)
	case center:
		urls := c.regions[i].urls
		if urls == "" {
			urls = fmt.Sprintf(`[{"enable":"true","url":"%s/%s/ai"}]`, c.url, region)
		}
		fmt.Fprintf(w, `{"code":"0","msg":"success","data":{"id":%q,"aiUrls":%s}}`, region, urls)
	default:
		fmt.Fprintf(w, `{"code":"0","msg":"success","data":{"total":1,"records":[{"id":"1%s"}]}}`, region)
	}
}

func (c *fakeCloud) login(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logins++
	entries := []string{`{"clusterId":"0","clusterName":"ac","token":"platform"}`}
	for _, g := range c.regions {
		token := "null"
		if g.lifetime > 0 {
			text := jwt(fmt.Sprintf(`{"clusterId":%q,"expireTime":"%d","n":%d}`, g.id, time.Now().Add(g.lifetime).UnixMilli(), c.logins))
			c.tokens[text] = g.id
			token = strconv.Quote(text)
		}
		entries = append(entries, fmt.Sprintf(`{"clusterId":%q,"clusterName":%q,"token":%s}`, g.id, g.name, token))
	}
	fmt.Fprintf(w, `{"code":"0","msg":"success","data":[%s]}`, strings.Join(entries, ","))
}

func answerWith(status int, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}
}

// check compares an error with what is wanted of it: the kind and, unless it is
// empty, the code and a part of the text.
func check(t *testing.T, err error, kind upstream.Kind, code, text string) {
	t.Helper()
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok || e.Kind != kind || code != "" && e.Code != code || !strings.Contains(e.Error(), text) || e.Cloud != "scnet" {
		t.Errorf("got %v, want %v, code %q, %q", err, kind, code, text)
	}
}

func names(notebooks []upstream.Notebook) []string {
	out := make([]string, 0, len(notebooks))
	for _, n := range notebooks {
		out = append(out, n.ID)
	}
	return out
}

// TestSign has signatures that were computed elsewhere.
func TestSign(t *testing.T) {
	for _, tt := range []struct{ key, timestamp, user, secret, want string }{
		{testKey, "1764597591", testUser, testSecret, "0c99eb7e313ab7d4433552a708e6d24792bb80235559725b62c2fa95a59c483c"},
		{"ak", "1764597591", "alice", "secret", "b5593909125dd7a25699f88e44583a675b03c954ffb102b9f95dd391ca58e1f5"},
		{"85f96a42b13f4d2c8b760d2775bbcca8", "1764597591", "bob", "test-secret-key-not-real", "6d7333063d31cd70171c7cea5a27e637dd523a411de00001124526f9a7b14f72"},
		{"ak", "1764597591", `a"b\c`, "secret", "677242a1edb1e394de55791cb5a1cedfaa543b6bf86de6531a9db41dd372851b"},
		{"ak", "1764597591", "a<b>&c", "secret", "6a819a626134e084312ef302e73719db5a428aed3dee0835cff3a0bbcf9a16ba"},
		{"ak", "1764597591", "张三", "secret", "26a9013d6d73df344e3104088419d447bddb1d5d0a3788d6cc52c63630a40e0a"},
	} {
		if got := sign(tt.key, tt.timestamp, tt.user, upstream.NewSecret(tt.secret)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.user, got, tt.want)
		}
	}
}

func TestConfig(t *testing.T) {
	secret := upstream.NewSecret
	region := Region{ID: "11250", Endpoint: "https://scnet-demo.accloud.cn", Token: secret("t")}
	login := Config{User: "team", AccessKey: secret("a"), SecretKey: secret("s")}
	with := func(edit func(*Config)) Config {
		c := login
		edit(&c)
		return c
	}
	tests := []struct {
		name string
		cfg  Config
		want []string // the keys of the problems, in order
	}{
		{"login", login, nil},
		{"everything with a login", with(func(c *Config) {
			c.LoginEndpoint, c.PlatformEndpoint, c.User = "http://127.0.0.1:1/", "http://127.0.0.1:2", "张三"
			c.MaxConcurrent, c.StrictEnvelope, c.TimeZone = 1, true, "UTC"
			c.CreateToken = "platform"
		}), nil},
		{"a region", Config{Regions: []Region{region}}, nil},
		{"a region and the platform", Config{Regions: []Region{region}, PlatformEndpoint: "http://127.0.0.1:2/", CreateToken: "region"}, nil},
		{"a region and the wrong platform", Config{Regions: []Region{region}, PlatformEndpoint: "https://u:hunter2@h", CreateToken: "platform"}, []string{
			"create_token", "platform_endpoint",
		}},
		{"a token of somebody", with(func(c *Config) { c.CreateToken = "hunter2" }), []string{"create_token"}},
		{"a region with /ai", Config{Regions: []Region{{ID: "1", Endpoint: "https://h:65011/ai/", Token: secret("t")}}}, nil},
		{"nothing", Config{}, []string{"access_key", "secret_key", "user"}},
		{"everything wrong with a login", Config{
			LoginEndpoint: "api.scnet.cn", PlatformEndpoint: "https://u:hunter2@h", User: "a\nb", AccessKey: secret("hunter2 \n"), MaxConcurrent: -1, TimeZone: "Local",
		}, []string{"access_key", "login_endpoint", "max_concurrent", "platform_endpoint", "secret_key", "time_zone", "user"}},
		{"white space around the user", with(func(c *Config) { c.User = "team " }), []string{"user"}},
		{"regions and a login", with(func(c *Config) { c.Regions = []Region{region} }), []string{"regions"}},
		{"everything wrong with regions", Config{Regions: []Region{
			region,
			{},
			{ID: "a/b", Endpoint: "https://h?token=hunter2", Token: secret("hunter2 hunter2")},
			region,
		}}, []string{
			"regions[1].endpoint", "regions[1].id", "regions[1].token", "regions[2].endpoint", "regions[2].id", "regions[2].token", "regions[3].id",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			err := tt.cfg.Validate()
			if err != nil {
				for line := range strings.Lines(err.Error()) {
					key, _, _ := strings.Cut(line, ": ")
					got = append(got, key)
				}
				if strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%q shows a password", err)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			p, newErr := New(tt.cfg, upstream.NewClient(upstream.ClientConfig{Cloud: "scnet"}))
			if (newErr == nil) != (err == nil) || (p == nil) != (err != nil) {
				t.Errorf("New: %v, Validate: %v", newErr, err)
			}
		})
	}
	if _, err := New(login, nil); err == nil {
		t.Error("New without a client: no error")
	}
}

func TestCapabilities(t *testing.T) {
	want := upstream.Capabilities{ChangeImage: upstream.ChangeImageUnsupported, VolatileAttributes: []string{"enoughResource"}}
	if diff := cmp.Diff(want, withRegion(t, Config{ReadOnly: true}, nil).Capabilities()); diff != "" {
		t.Errorf("capabilities, read only (-want +got):\n%s", diff)
	}
	want.ChangeImage = upstream.ChangeImageRecreate
	if diff := cmp.Diff(want, withRegion(t, Config{}, nil).Capabilities()); diff != "" {
		t.Errorf("capabilities (-want +got):\n%s", diff)
	}
}

// TestChangeImage has a call that the cloud does not have.
func TestChangeImage(t *testing.T) {
	cloud := newFakeCloud(fakeRegion{id: "11250", lifetime: time.Hour})
	_, err := cloud.direct(t).ChangeImage(t.Context(), upstream.ImageRequest{Location: "11250", NotebookID: "1", Image: "i"})
	check(t, err, upstream.KindUnsupported, "", "")
	if upstream.MaySent(err) || len(cloud.take()) != 0 {
		t.Errorf("the cloud was asked: %v", err)
	}
}

// TestRequests has what is sent, header by header.
func TestRequests(t *testing.T) {
	var headers []http.Header
	keep := func(method, query string) func(http.ResponseWriter, *http.Request) bool {
		return func(_ http.ResponseWriter, r *http.Request) bool {
			body, err := io.ReadAll(r.Body)
			if err != nil || len(body) != 0 || r.Method != method || r.URL.RawQuery != query {
				t.Errorf("got %s %s with %q, %v", r.Method, r.URL, body, err)
			}
			headers = append(headers, r.Header)
			return false
		}
	}
	cloud := newFakeCloud(fakeRegion{id: "11250", lifetime: time.Hour})
	cloud.onLogin, cloud.onCenter, cloud.onAI = keep("POST", ""), keep("GET", ""), keep("GET", "page=1&size=100")
	before := time.Now().Unix()
	if _, err := cloud.serve(t).List(t.Context(), "11250"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"login", "center 11250", "list 11250"}, cloud.take()); diff != "" {
		t.Fatalf("requests (-want +got):\n%s", diff)
	}
	login, token := headers[0], slices.Collect(maps.Keys(cloud.tokens))[0]
	at, err := strconv.ParseInt(login.Get("timestamp"), 10, 64)
	if err != nil || at < before || at > time.Now().Unix() {
		t.Errorf("timestamp %q", login.Get("timestamp"))
	}
	for _, h := range headers {
		h.Del("Accept-Encoding")
		h.Del("User-Agent")
		h.Del("Content-Length")
		if h.Get("X-Request-Id") == "" {
			t.Error("a request without an id")
		}
		h.Del("X-Request-Id")
	}
	want := []http.Header{
		{
			"Accept": {"application/json"}, "Content-Type": {"application/json"}, "User": {testUser}, "Accesskey": {testKey}, "Timestamp": {login.Get("timestamp")},
			"Signature": {sign(testKey, login.Get("timestamp"), testUser, upstream.NewSecret(testSecret))},
		},
		{"Accept": {"application/json"}, "Token": {token}},
		{"Accept": {"application/json"}, "Token": {token}},
	}
	if diff := cmp.Diff(want, headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestLocationsOfConfiguration(t *testing.T) {
	p := newProvider(t, Config{Regions: []Region{
		{ID: "11250", Name: "Kunshan", Endpoint: "https://a", Token: upstream.NewSecret("a")},
		{ID: "20057", Endpoint: "https://b", Token: upstream.NewSecret("b")},
	}}, nil)
	got, err := p.Locations(t.Context())
	want := []upstream.Location{{ID: "11250", DisplayName: "Kunshan"}, {ID: "20057"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	_, err = p.List(t.Context(), "1")
	check(t, err, upstream.KindInvalid, "", "not configured")
	if upstream.MaySent(err) {
		t.Error("the cloud was asked")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Locations(ctx); !upstream.IsContext(err) {
		t.Errorf("got %v", err)
	}
}

func TestLocationsOfLogin(t *testing.T) {
	cloud := newFakeCloud(
		fakeRegion{id: "11250", name: "华东一区【昆山】", lifetime: time.Hour},
		fakeRegion{id: "20091", name: "owes"},
		fakeRegion{id: "20057", lifetime: time.Hour, urls: `null`},
		fakeRegion{id: "20058", lifetime: time.Hour, urls: `[{"enable":"false","url":"https://h/ai"},{"enable":false,"url":"https://h/ai"}]`},
		fakeRegion{id: "20073", lifetime: time.Hour, urls: `"oops"`},
	)
	got, err := cloud.serve(t).Locations(t.Context())
	want := []upstream.Location{
		{ID: "11250", DisplayName: "华东一区【昆山】"}, {ID: "20091", DisplayName: "owes", Disabled: noToken},
		{ID: "20057", Disabled: noService}, {ID: "20058", Disabled: noService}, {ID: "20073"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	requests := cloud.take()
	slices.Sort(requests)
	if diff := cmp.Diff([]string{"center 11250", "center 20057", "center 20058", "center 20073", "login"}, requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestLoginAnswers has answers of a login read.
func TestLoginAnswers(t *testing.T) {
	now := time.UnixMilli(1764597591000)
	token := func(claims string) string { return strconv.Quote(jwt(claims)) }
	tests := []struct {
		name, data string
		want       string // regions with the lifetimes of their tokens; empty: an error
	}{
		{"text and number as id", `[{"clusterId":"1","token":"t"},{"clusterId":2,"token":"t"}]`, "1 4h0m0s 2 4h0m0s"},
		{"the platform", `[{"clusterId":"0","token":"t"},{"clusterId":0,"token":"t"},{"clusterId":"1","token":"t"}]`, "1 4h0m0s"},
		{"no token", `[{"clusterId":"1","token":null},{"clusterId":"2","token":""},{"clusterId":"3"}]`, "1 - 2 - 3 -"},
		{"an end as text", `[{"clusterId":"1","token":` + token(`{"expireTime":"1764597651000"}`) + `}]`, "1 1m0s"},
		{"an end as number", `[{"clusterId":"1","token":` + token(`{"expireTime":1764597651000}`) + `}]`, "1 1m0s"},
		{"each its own", `[{"clusterId":"1","token":` + token(`{"expireTime":"1764597651000"}`) + `},{"clusterId":"2","token":` + token(`{"expireTime":"1764601191000"}`) + `}]`, "1 1m0s 2 1h0m0s"},
		{"an end in the past", `[{"clusterId":"1","token":` + token(`{"expireTime":"1764597590000"}`) + `}]`, "1 4h0m0s"},
		{"an end in seconds", `[{"clusterId":"1","token":` + token(`{"expireTime":"1764597651"}`) + `}]`, "1 4h0m0s"},
		{"no end", `[{"clusterId":"1","token":` + token(`{}`) + `}]`, "1 4h0m0s"},
		{"padded", `[{"clusterId":"1","token":"e30.` + base64.URLEncoding.EncodeToString([]byte(`{"expireTime":"1764597651000"}`)) + `.c2ln"}]`, "1 1m0s"},
		{"twice", `[{"clusterId":"1","token":"t"},{"clusterId":"1","token":null}]`, "1 4h0m0s"},
		{"ids that are none", `[{"clusterId":"a/b","token":"t"},{"token":"t"},null,{"clusterId":"1","token":"t"}]`, "1 4h0m0s"},
		{"a token for two lines", `[{"clusterId":"1","token":"t\r\nx: y"}]`, ""},
		{"null", `null`, ""},
		{"none", `[]`, ""},
		{"an object", `{"token":"t"}`, ""},
		{"a text", `"t"`, ""},
		{"nothing", ``, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			grants, err := answer{data: []byte(tt.data)}.grants(now)
			var got []string
			for _, g := range grants {
				lifetime := g.lifetime.String()
				if g.token.IsZero() {
					lifetime = "-"
				}
				got = append(got, g.id, lifetime)
			}
			if strings.Join(got, " ") != tt.want || (err != nil) != (tt.want == "") || err != nil && upstream.KindOf(err) != upstream.KindBadResponse {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestCenterAnswers(t *testing.T) {
	tests := []struct {
		name, data, current string
		want                string // - for a region without service; empty: an error
	}{
		{"with /ai", `{"aiUrls":[{"enable":"true","url":"https://h:1/ai"}]}`, "", "https://h:1/ai"},
		{"with a slash", `{"aiUrls":[{"enable":"true","url":"https://h:1/ai/"}]}`, "", "https://h:1/ai"},
		{"bare", `{"aiUrls":[{"enable":"true","url":"https://h:1"}]}`, "", "https://h:1/ai"},
		{"bare with a slash", `{"aiUrls":[{"enable":"true","url":"https://h:1/"}]}`, "", "https://h:1/ai"},
		{"enabled as bool", `{"aiUrls":[{"enable":false,"url":"https://a"},{"enable":true,"url":"https://b"}]}`, "", "https://b/ai"},
		{"enabled as text", `{"aiUrls":[{"enable":"false","url":"https://a"},{"enable":"TRUE","url":"https://b"}]}`, "", "https://b/ai"},
		{"not said whether enabled", `{"aiUrls":[{"url":"https://a"}]}`, "", "https://a/ai"},
		{"several", `{"aiUrls":[{"enable":"true","url":"https://a"},{"enable":"true","url":"https://b"}]}`, "", "https://a/ai"},
		{"several, one in use", `{"aiUrls":[{"enable":"true","url":"https://a"},{"enable":"true","url":"https://b/ai/"}]}`, "https://b/ai", "https://b/ai"},
		{"the one in use is disabled", `{"aiUrls":[{"enable":"true","url":"https://a"},{"enable":"false","url":"https://b"}]}`, "https://b/ai", "https://a/ai"},
		{"moved", `{"aiUrls":[{"enable":"true","url":"https://a"}]}`, "https://b/ai", "https://a/ai"},
		{"no URL", `{"aiUrls":[{"enable":"true","url":null},{"enable":"true","url":"h:1"},{"enable":"true","url":"https://u:p@h"}]}`, "", "-"},
		{"none", `{"aiUrls":[]}`, "https://b/ai", "-"},
		{"null", `{"aiUrls":null}`, "", "-"},
		{"missing", `{"hpcUrls":[{"enable":"true","url":"https://a"}]}`, "", "-"},
		{"a text", `{"aiUrls":"https://a"}`, "", ""},
		{"data null", `null`, "", ""},
		{"data missing", ``, "", ""},
		{"data is a text", `"oops"`, "", ""},
		{"data is a list", `[]`, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at, err := answer{data: []byte(tt.data)}.endpoint(tt.current)
			got := at.base
			if at.disabled != "" {
				got += "-"
			}
			if got != tt.want || (err != nil) != (tt.want == "") || err != nil && upstream.KindOf(err) != upstream.KindBadResponse {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// TestRegionsChange has regions come, go, fall into arrears and move between
// two listings of them.
func TestRegionsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := newFakeCloud(fakeRegion{id: "1", lifetime: time.Hour}, fakeRegion{id: "2", lifetime: time.Hour}, fakeRegion{id: "3"})
		p := cloud.direct(t)
		expect := func(disabled map[string]string, order ...string) {
			t.Helper()
			got, err := p.Locations(t.Context())
			want := make([]upstream.Location, 0, len(order))
			for _, id := range order {
				want = append(want, upstream.Location{ID: id, Disabled: disabled[id]})
			}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Fatalf("%v (-want +got):\n%s", err, diff)
			}
			for _, id := range order {
				notebooks, err := p.List(t.Context(), id)
				if why := disabled[id]; why != "" {
					check(t, err, upstream.KindDisabled, "", why)
				} else if err != nil || len(notebooks) != 1 {
					t.Errorf("region %s: %d notebooks, %v", id, len(notebooks), err)
				}
			}
		}
		expect(map[string]string{"3": noToken}, "1", "2", "3")

		time.Sleep(5 * time.Minute)
		cloud.set(
			fakeRegion{id: "3", lifetime: time.Hour},
			fakeRegion{id: "1", lifetime: time.Hour, urls: `[{"enable":"true","url":"http://cloud.test/1/ai/"}]`},
			fakeRegion{id: "4", lifetime: time.Hour, urls: `[]`},
		)
		expect(map[string]string{"4": noService}, "3", "1", "4")
		_, err := p.List(t.Context(), "2")
		check(t, err, upstream.KindDisabled, "", noRegion)

		// A listing alone finds out as well, without one of the regions.
		time.Sleep(5 * time.Minute)
		cloud.set(fakeRegion{id: "2", lifetime: time.Hour}, fakeRegion{id: "4", lifetime: time.Hour})
		for _, id := range []string{"2", "4"} {
			if notebooks, err := p.List(t.Context(), id); err != nil || len(notebooks) != 1 {
				t.Errorf("region %s is back: %d notebooks, %v", id, len(notebooks), err)
			}
		}
		cloud.take()
		if _, err := p.List(t.Context(), "2"); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"list 2"}, cloud.take()); diff != "" {
			t.Errorf("requests of a region that is known (-want +got):\n%s", diff)
		}
	})
}

// TestEndpointMoves has the address of a region change: a listing of the
// regions notices, and so does a listing that finds nothing at the old one.
func TestEndpointMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(hosts ...string) fakeRegion {
			var urls []string
			for _, host := range hosts {
				urls = append(urls, fmt.Sprintf(`{"enable":"true","url":"http://%s/1"}`, host))
			}
			return fakeRegion{id: "1", lifetime: 24 * time.Hour, urls: "[" + strings.Join(urls, ",") + "]"}
		}
		var host string // of the last call to the region
		cloud := newFakeCloud(at("a", "b"))
		cloud.onAI = func(w http.ResponseWriter, r *http.Request) bool {
			host = r.Host
			return host == "gone" && answerWith(404, `{"status":404,"error":"Not Found","path":"/ai"}`)(w, r)
		}
		p := cloud.direct(t)
		list := func(want string) {
			t.Helper()
			if _, err := p.List(t.Context(), "1"); err != nil || host != want {
				t.Errorf("listed at %s, %v, want %s", host, err, want)
			}
		}
		locate := func() {
			t.Helper()
			time.Sleep(5 * time.Minute)
			if _, err := p.Locations(t.Context()); err != nil {
				t.Error(err)
			}
		}
		list("a")
		cloud.set(at("b", "a"))
		locate()
		list("a") // it still stands
		cloud.set(at("b", "c"))
		list("a") // nobody has asked
		locate()
		list("b")

		cloud.set(at("gone"))
		locate()
		for range 2 {
			time.Sleep(10 * time.Minute)
			_, err := p.List(t.Context(), "1")
			check(t, err, upstream.KindDisabled, "HTTP 404", noService)
		}
		cloud.set(at("d"))
		list("d")
	})
}

// TestAbsentService has a region whose gateway answers 404 to every path: it is
// no outage, and it is noticed when the service comes.
func TestAbsentService(t *testing.T) {
	cloud := newFakeCloud(fakeRegion{id: "20091", lifetime: time.Hour, absent: true}, fakeRegion{id: "1", lifetime: time.Hour})
	p := cloud.serve(t)
	for range 10 {
		_, err := p.List(t.Context(), "20091")
		check(t, err, upstream.KindDisabled, "HTTP 404", noService)
		_, err = p.Find(t.Context(), "20091", "1")
		check(t, err, upstream.KindDisabled, "HTTP 404", noService)
		if _, err := p.List(t.Context(), "1"); err != nil {
			t.Error(err)
		}
	}
	cloud.set(fakeRegion{id: "20091", lifetime: time.Hour}, fakeRegion{id: "1", lifetime: time.Hour})
	if got, err := p.List(t.Context(), "20091"); err != nil || len(got) != 1 {
		t.Errorf("%d notebooks, %v", len(got), err)
	}
	configured := withRegion(t, Config{}, func(*http.Request) (*http.Response, error) { return respond(404, "404 page not found"), nil })
	_, err := configured.List(t.Context(), "11250")
	check(t, err, upstream.KindDisabled, "HTTP 404", noService)
}

// TestPlatformDown has what is known of the regions stay true while nobody can
// be asked.
func TestPlatformDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		fail := func(w http.ResponseWriter, r *http.Request) bool { return down.Load() && answerWith(503, "")(w, r) }
		cloud := newFakeCloud(fakeRegion{id: "1", lifetime: 24 * time.Hour}, fakeRegion{id: "2", lifetime: 24 * time.Hour, urls: `[]`}, fakeRegion{id: "3"})
		cloud.onCenter = fail
		p := cloud.direct(t)
		want := []upstream.Location{{ID: "1"}, {ID: "2", Disabled: noService}, {ID: "3", Disabled: noToken}}
		for range 3 {
			got, err := p.Locations(t.Context())
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			_, err = p.List(t.Context(), "2")
			check(t, err, upstream.KindDisabled, "", noService)
			if _, err := p.List(t.Context(), "1"); err != nil {
				t.Error(err)
			}
			down.Store(true)
			time.Sleep(5 * time.Minute)
		}
		cloud.onLogin = fail
		_, err := p.Locations(t.Context())
		check(t, err, upstream.KindUnavailable, "HTTP 503", "login")
		_, err = p.List(t.Context(), "3")
		check(t, err, upstream.KindDisabled, "", noToken)
		if _, err := p.List(t.Context(), "1"); err != nil {
			t.Error(err)
		}

		fresh := cloud.direct(t)
		_, err = fresh.List(t.Context(), "1")
		check(t, err, upstream.KindUnavailable, "HTTP 503", "scnet/1 login")
	})
}

// TestTokenLife has each region's token renewed by its own end, before it.
func TestTokenLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := newFakeCloud(fakeRegion{id: "short", lifetime: time.Minute}, fakeRegion{id: "long", lifetime: 4 * time.Hour}, fakeRegion{id: "none"})
		p := cloud.direct(t)
		list := func(region string, logins int) {
			t.Helper()
			cloud.mu.Lock()
			before := cloud.logins
			cloud.mu.Unlock()
			if _, err := p.List(t.Context(), region); err != nil {
				t.Error(err)
			}
			cloud.mu.Lock()
			defer cloud.mu.Unlock()
			if got := cloud.logins - before; got != logins {
				t.Errorf("%s: %d logins, want %d", region, got, logins)
			}
		}
		list("short", 1)
		list("long", 0)
		time.Sleep(47 * time.Second)
		list("short", 0)
		time.Sleep(time.Second) // 80 % of a minute
		list("long", 0)         // has its own end
		list("short", 1)
		time.Sleep(2 * time.Minute)
		list("long", 0)
		list("short", 1) // has ended
		time.Sleep(4*time.Hour - 5*time.Minute - time.Second)
		list("long", 0)
		time.Sleep(time.Second) // five minutes before the end
		list("long", 1)
	})
}

// TestEarlyRenewalFails has tokens used to their end while the login fails.
func TestEarlyRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		cloud := newFakeCloud(fakeRegion{id: "1", lifetime: 10 * time.Minute})
		cloud.onLogin = func(w http.ResponseWriter, r *http.Request) bool { return down.Load() && answerWith(502, "")(w, r) }
		p := cloud.direct(t)
		if _, err := p.List(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
		down.Store(true)
		time.Sleep(9 * time.Minute)
		cloud.take()
		for range 3 {
			if _, err := p.List(t.Context(), "1"); err != nil {
				t.Error(err)
			}
			if _, err := p.Locations(t.Context()); upstream.KindOf(err) != upstream.KindUnavailable {
				t.Errorf("locations: got %v", err)
			}
		}
		if diff := cmp.Diff([]string{"login", "list 1", "login", "list 1", "login", "list 1", "login"}, cloud.take()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		time.Sleep(time.Minute)
		_, err := p.List(t.Context(), "1")
		check(t, err, upstream.KindUnavailable, "HTTP 502", "scnet/1 login")
		down.Store(false)
		time.Sleep(time.Minute)
		if _, err := p.List(t.Context(), "1"); err != nil {
			t.Error(err)
		}
	})
}

// TestRenewalKeepsNobody has the calls that use a token that is about to end
// not wait for a login that hangs.
func TestRenewalKeepsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hangs atomic.Bool
		cloud := newFakeCloud(fakeRegion{id: "1", lifetime: 10 * time.Minute})
		cloud.onLogin = func(_ http.ResponseWriter, r *http.Request) bool {
			if hangs.Load() {
				<-r.Context().Done()
			}
			return hangs.Load()
		}
		p := cloud.direct(t)
		if _, err := p.List(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
		hangs.Store(true)
		time.Sleep(9 * time.Minute)
		var wg sync.WaitGroup
		start := time.Now()
		wg.Go(func() {
			if _, err := p.List(t.Context(), "1"); err != nil || time.Since(start) != 10*time.Second {
				t.Errorf("who renews: %v after %v", err, time.Since(start))
			}
		})
		synctest.Wait()
		if _, err := p.List(t.Context(), "1"); err != nil || time.Since(start) != 0 {
			t.Errorf("another: %v after %v", err, time.Since(start))
		}
		wg.Wait()
	})
}

// TestOneLogin has very many calls find their token ended, or refused, at the
// same time.
func TestOneLogin(t *testing.T) {
	for name, end := range map[string]func(*fakeCloud){
		"no token yet":  func(*fakeCloud) {},
		"token ended":   func(*fakeCloud) { time.Sleep(2 * time.Hour) },
		"token refused": func(c *fakeCloud) { c.revoke() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cloud := newFakeCloud()
				for i := range 8 {
					cloud.regions = append(cloud.regions, fakeRegion{id: strconv.Itoa(i + 1), lifetime: time.Hour})
				}
				cloud.onLogin = func(http.ResponseWriter, *http.Request) bool {
					time.Sleep(time.Second)
					return false
				}
				p := cloud.direct(t)
				if name != "no token yet" {
					if _, err := p.Locations(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				end(cloud)
				cloud.take()
				var wg sync.WaitGroup
				for i := range 200 {
					wg.Go(func() {
						region := strconv.Itoa(i%8 + 1)
						if got, err := p.List(t.Context(), region); err != nil || len(got) != 1 || got[0].ID != "1"+region {
							t.Errorf("region %s: %v, %v", region, names(got), err)
						}
					})
				}
				wg.Wait()
				count := map[string]int{}
				for _, request := range cloud.take() {
					op, _, _ := strings.Cut(request, " ")
					count[op]++
				}
				// Each region has three calls under way, whose token is refused.
				most := map[string]int{"list": 200}
				if name == "token refused" {
					most["list"] = 200 + 8*3
				}
				if count["login"] != 1 || count["list"] > most["list"] || count["center"] > 8*3 {
					t.Errorf("requests: %v", count)
				}
			})
		})
	}
}

// TestLoginLeaves has the caller whose call logs in give up: the others do not
// notice.
func TestLoginLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logins atomic.Int32
		cloud := newFakeCloud(fakeRegion{id: "1", lifetime: time.Hour})
		cloud.onLogin = func(_ http.ResponseWriter, r *http.Request) bool {
			if logins.Add(1) == 1 {
				<-r.Context().Done()
				return true
			}
			return false
		}
		cloud.concurrent = 30
		p := cloud.direct(t)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := p.List(ctx, "1"); !errors.Is(err, context.Canceled) || !upstream.IsContext(err) {
				t.Errorf("the one that gave up: %v", err)
			}
		})
		synctest.Wait()
		for range 20 {
			wg.Go(func() {
				if _, err := p.List(t.Context(), "1"); err != nil {
					t.Error(err)
				}
			})
		}
		// One who waits for the login may give up as well.
		wg.Go(func() {
			impatient, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			if _, err := p.List(impatient, "1"); !errors.Is(err, context.DeadlineExceeded) || !upstream.IsContext(err) {
				t.Errorf("who waited a second: %v", err)
			}
		})
		synctest.Wait()
		time.Sleep(2 * time.Second)
		cancel()
		wg.Wait()
		if n := logins.Load(); n != 2 {
			t.Errorf("%d logins", n)
		}
	})
}

// TestLoginFails has who waits for a login that fails share its failure.
func TestLoginFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := newFakeCloud()
		cloud.onLogin = func(w http.ResponseWriter, r *http.Request) bool {
			time.Sleep(time.Second)
			w.Header().Set("Date", time.Now().Add(-10*time.Minute).UTC().Format(http.TimeFormat))
			return answerWith(200, `{"code":"10009","msg":"AK/SK签名校验失败","data":null}`)(w, r)
		}
		cloud.concurrent = 50
		p := cloud.direct(t)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				_, err := p.List(t.Context(), "11250")
				check(t, err, upstream.KindDenied, "10009", "the clock here differs from the cloud's by 10m")
				if e, ok := errors.AsType[*upstream.Error](err); ok && (e.Location != "11250" || e.Op != "login" || e.Message != "AK/SK签名校验失败") {
					t.Errorf("error is %+v", e)
				}
			})
		}
		wg.Wait()
		if got := cloud.take(); len(got) != 1 {
			t.Errorf("requests: %q", got)
		}
		_, err := p.Locations(t.Context())
		check(t, err, upstream.KindDenied, "10009", "clock")
	})
}

// TestLoginKinds has what an answer means for a login, and for the question
// where a region is: nothing of a caller is in them.
func TestLoginKinds(t *testing.T) {
	tests := []struct {
		status        int
		body          string
		login, center upstream.Kind
		code          string
	}{
		{200, `{"code":"10009","msg":"用户不存在"}`, upstream.KindDenied, upstream.KindDenied, "10009"},
		{200, `{"code":"10007"}`, upstream.KindDenied, upstream.KindDenied, "10007"},
		{200, `{"code":"10008"}`, upstream.KindDenied, upstream.KindDenied, "10008"},
		{200, `{"code":"10003","msg":"param_incomplete"}`, upstream.KindDenied, upstream.KindRejected, "10003"},
		{200, `{"code":"10004"}`, upstream.KindDenied, upstream.KindRejected, "10004"},
		{200, `{"code":"816822"}`, upstream.KindRejected, upstream.KindRejected, "816822"},
		{200, `{"code":"10001","msg":"internal_error","data":"oops"}`, upstream.KindFault, upstream.KindFault, "10001"},
		{200, `{"code":"200","data":[]}`, upstream.KindRejected, upstream.KindRejected, "200"},
		{200, `{"code":"0","data":null}`, upstream.KindBadResponse, upstream.KindBadResponse, "HTTP 200"},
		{200, `<html>`, upstream.KindBadResponse, upstream.KindBadResponse, "HTTP 200"},
		{401, ``, upstream.KindDenied, upstream.KindDenied, "HTTP 401"},
		{403, `{"code":"10009"}`, upstream.KindDenied, upstream.KindDenied, "10009"},
		{404, ``, upstream.KindBadResponse, upstream.KindBadResponse, "HTTP 404"},
		{405, ``, upstream.KindBadResponse, upstream.KindBadResponse, "HTTP 405"},
		{429, ``, upstream.KindThrottled, upstream.KindThrottled, "HTTP 429"},
		{503, ``, upstream.KindUnavailable, upstream.KindUnavailable, "HTTP 503"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d %s", tt.status, tt.body), func(t *testing.T) {
			cloud := newFakeCloud(fakeRegion{id: "1", lifetime: time.Hour})
			cloud.onLogin = answerWith(tt.status, tt.body)
			p := cloud.direct(t)
			_, err := p.Locations(t.Context())
			check(t, err, tt.login, tt.code, "scnet login")
			_, err = p.List(t.Context(), "1")
			check(t, err, tt.login, tt.code, "scnet/1 login")
			if strings.Contains(err.Error(), "clock") {
				t.Errorf("the clocks agree: %v", err)
			}

			cloud = newFakeCloud(fakeRegion{id: "1", lifetime: time.Hour})
			cloud.onCenter = answerWith(tt.status, tt.body)
			_, err = cloud.direct(t).List(t.Context(), "1")
			check(t, err, tt.center, tt.code, "scnet/1 center")
		})
	}
}

// TestTokenRefused has tokens refused in every way, once and always.
func TestTokenRefused(t *testing.T) {
	refusals := map[string]func(http.ResponseWriter, *http.Request) bool{
		"10008":           answerWith(200, `{"code":"10008","msg":"token expired","data":null}`),
		"10008 as number": answerWith(200, `{"code":10008,"msg":"token expired"}`),
		"10008 with 401":  answerWith(401, `{"code":"10008"}`),
		"401":             answerWith(401, `<html>`),
		"403":             answerWith(403, ``),
		"console":         answerWith(401, `{"code":"1001","message":"jwt token is invalid"}`),
	}
	for name, refuse := range refusals {
		t.Run(name, func(t *testing.T) {
			calls := map[string]func(*Provider) error{
				"list 1":   func(p *Provider) error { _, err := p.List(t.Context(), "1"); return err },
				"detail 1": func(p *Provider) error { _, err := p.Find(t.Context(), "1", "9"); return err },
			}
			for request, call := range calls {
				var left atomic.Int32
				once := func(w http.ResponseWriter, r *http.Request) bool { return left.Add(-1) >= 0 && refuse(w, r) }
				cloud := newFakeCloud(fakeRegion{id: "1", lifetime: time.Hour})
				cloud.onAI = func(w http.ResponseWriter, r *http.Request) bool {
					return once(w, r) || answerWith(200, `{"code":"0","data":{"id":"9"}}`)(w, r)
				}
				p := cloud.direct(t)
				left.Store(1)
				if err := call(p); err != nil {
					t.Errorf("%s, once: %v", request, err)
				}
				if diff := cmp.Diff([]string{"login", "center 1", request, "login", request}, cloud.take()); diff != "" {
					t.Errorf("%s, once: requests (-want +got):\n%s", request, diff)
				}
				left.Store(1000)
				for range 10 { // no breaker opens
					check(t, call(p), upstream.KindDenied, "", "")
					if diff := cmp.Diff([]string{request, "login", request}, cloud.take()); diff != "" {
						t.Errorf("%s, always: requests (-want +got):\n%s", request, diff)
					}
				}
			}

			var left atomic.Int32
			left.Store(1)
			cloud := newFakeCloud(fakeRegion{id: "1", lifetime: time.Hour})
			cloud.onCenter = func(w http.ResponseWriter, r *http.Request) bool { return left.Add(-1) >= 0 && refuse(w, r) }
			p := cloud.direct(t)
			if _, err := p.List(t.Context(), "1"); err != nil {
				t.Errorf("center, once: %v", err)
			}
			if diff := cmp.Diff([]string{"login", "center 1", "login", "center 1", "list 1"}, cloud.take()); diff != "" {
				t.Errorf("center, once: requests (-want +got):\n%s", diff)
			}

			requests := 0
			configured := withRegion(t, Config{}, func(r *http.Request) (*http.Response, error) {
				requests++
				rec := httptest.NewRecorder()
				refuse(rec, r)
				return rec.Result(), nil
			})
			_, err := configured.List(t.Context(), "11250")
			check(t, err, upstream.KindDenied, "", "")
			if requests != 1 {
				t.Errorf("a configured token was used %d times", requests)
			}
		})
	}
}

// TestRefreshFails has the login fail that a refused token asks for, and give
// no token for the region any more.
func TestRefreshFails(t *testing.T) {
	cloud := newFakeCloud(fakeRegion{id: "1", lifetime: time.Hour})
	var login atomic.Pointer[string]
	cloud.onLogin = func(w http.ResponseWriter, r *http.Request) bool {
		body := login.Load()
		return body != nil && answerWith(200, *body)(w, r)
	}
	p := cloud.direct(t)
	if _, err := p.List(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	cloud.revoke()
	frozen := `{"code":"10007","msg":"frozen"}`
	login.Store(&frozen)
	_, err := p.List(t.Context(), "1")
	check(t, err, upstream.KindDenied, "10007", "login")
	null := `{"code":"0","data":[{"clusterId":"1","token":null}]}`
	login.Store(&null)
	_, err = p.List(t.Context(), "1")
	check(t, err, upstream.KindDisabled, "", noToken)
}

// TestSlots has more calls than a region may be asked at a time, and callers
// that do not wait.
func TestSlots(t *testing.T) {
	for _, limit := range []int{1, 3, 5} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex // guards now and most
			now, most := map[string]int{}, map[string]int{}
			cloud := newFakeCloud(fakeRegion{id: "1", lifetime: time.Hour}, fakeRegion{id: "2", lifetime: time.Hour})
			gate := func(region string) {
				mu.Lock()
				now[region]++
				most[region] = max(most[region], now[region])
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				now[region]--
				mu.Unlock()
			}
			cloud.onAI = func(_ http.ResponseWriter, r *http.Request) bool {
				gate(strings.Split(r.URL.Path, "/")[1])
				return false
			}
			cloud.onCenter = func(_ http.ResponseWriter, r *http.Request) bool {
				cloud.mu.Lock()
				region := cloud.tokens[r.Header.Get("token")]
				cloud.mu.Unlock()
				gate(region)
				return false
			}
			if limit != 3 { // the default
				cloud.concurrent = limit
			}
			p := cloud.direct(t)
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					if _, err := p.List(t.Context(), strconv.Itoa(i%2+1)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Go(func() {
				if _, err := p.Locations(t.Context()); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() { // leaves while it waits for a place
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second+time.Millisecond)
				defer cancel()
				time.Sleep(time.Millisecond)
				start := time.Now()
				if _, err := p.Find(ctx, "1", "1"); !errors.Is(err, context.DeadlineExceeded) || !upstream.IsContext(err) {
					t.Errorf("got %v after %v", err, time.Since(start))
				}
			})
			wg.Wait()
			if diff := cmp.Diff(map[string]int{"1": limit, "2": limit}, most); diff != "" {
				t.Errorf("calls at a time (-want +got):\n%s", diff)
			}
		})
	}
}

func TestContext(t *testing.T) {
	calls := map[string]func(context.Context, *Provider) error{
		"list":      func(ctx context.Context, p *Provider) error { _, err := p.List(ctx, "1"); return err },
		"find":      func(ctx context.Context, p *Provider) error { _, err := p.Find(ctx, "1", "1"); return err },
		"locations": func(ctx context.Context, p *Provider) error { _, err := p.Locations(ctx); return err },
	}
	for name, call := range calls {
		for _, stage := range []string{"before", "login", "center", "AI"} {
			t.Run(name+" "+stage, func(t *testing.T) {
				if name == "locations" && stage == "AI" {
					t.Skip("it makes no such call")
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				leave := func(here string) func(http.ResponseWriter, *http.Request) bool {
					return func(_ http.ResponseWriter, r *http.Request) bool {
						if here != stage {
							return false
						}
						cancel()
						<-r.Context().Done()
						return true
					}
				}
				cloud := newFakeCloud(fakeRegion{id: "1", lifetime: time.Hour})
				cloud.onLogin, cloud.onCenter, cloud.onAI = leave("login"), leave("center"), leave("AI")
				if stage == "before" {
					cancel()
				}
				if err := call(ctx, cloud.direct(t)); !errors.Is(err, context.Canceled) || !upstream.IsContext(err) {
					t.Errorf("got %v", err)
				}
				if stage == "before" && len(cloud.take()) != 0 {
					t.Error("the cloud was asked")
				}
			})
		}
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := withRegion(t, Config{}, func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		_, err := p.List(t.Context(), "11250")
		check(t, err, upstream.KindTimeout, "", "")
		if time.Since(start) != 10*time.Second {
			t.Errorf("after %v", time.Since(start))
		}
	})
}

// driftingCloud is a list in pages that changes between any two requests.
type driftingCloud struct {
	ids      []string
	cap      int                  // no page is longer; zero: any size
	total    func(int) string     // what the answer says of so many rows; nil: the truth
	drift    func(*driftingCloud) // before each request but the first
	repeats  bool                 // a page beyond the end is the first one
	requests int
}

func (c *driftingCloud) RoundTrip(req *http.Request) (*http.Response, error) {
	if c.requests > 0 && c.drift != nil {
		c.drift(c)
	}
	c.requests++
	query := req.URL.Query()
	page, err1 := strconv.Atoi(query.Get("page"))
	size, err2 := strconv.Atoi(query.Get("size"))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if page < 1 || size < 1 || size > 100 {
		return nil, fmt.Errorf("page %d of size %d", page, size)
	}
	if c.cap > 0 {
		size = min(size, c.cap)
	}
	from := min((page-1)*size, len(c.ids))
	if from == len(c.ids) && c.repeats {
		from = 0
	}
	return respond(200, c.page(c.ids[from:min(from+size, len(c.ids))])), nil
}

func (c *driftingCloud) page(ids []string) string {
	total := fmt.Sprintf(`"total":%d,`, len(c.ids))
	if c.total != nil {
		total = c.total(len(c.ids))
	}
	return pageJSON(total, ids)
}

func pageJSON(total string, ids []string) string {
	records := make([]string, 0, len(ids))
	for _, id := range ids {
		records = append(records, fmt.Sprintf(`{"id":%q}`, id))
	}
	return `{"code":"0","msg":"success","data":{` + total + `"records":[` + strings.Join(records, ",") + `]}}`
}

func someIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = idOf(i)
	}
	return ids
}

func idOf(i int) string { return fmt.Sprintf("18960504105501%05d", i) }

func TestListPages(t *testing.T) {
	none := func(int) string { return "" }
	of := func(f func(int) int) func(int) string {
		return func(n int) string { return fmt.Sprintf(`"total":"%d",`, f(n)) }
	}
	tests := []struct {
		name     string
		cloud    driftingCloud
		sizes    []int
		requests int // at most for the last size
	}{
		{"honest", driftingCloud{}, []int{0, 1, 20, 96, 99, 100, 101, 192, 196, 200, 1000, 1250}, 16},
		{"no total", driftingCloud{total: none}, []int{0, 1, 99, 100, 101, 192, 196, 200, 1250}, 16},
		{"beyond the end is the start", driftingCloud{repeats: true}, []int{0, 1, 99, 100, 101, 192, 196, 1250}, 16},
		{"beyond the end is the start, no total", driftingCloud{repeats: true, total: none}, []int{1, 99, 100, 101, 192, 1250}, 16},
		{"pages of 50", driftingCloud{cap: 50}, []int{0, 1, 49, 50, 51, 99, 100, 101, 250, 1250}, 32},
		{"pages of 20", driftingCloud{cap: 20}, []int{0, 1, 19, 20, 21, 40, 99, 101, 250}, 20},
		{"pages of 17", driftingCloud{cap: 17}, []int{16, 17, 18, 34, 35, 250}, 30},
		{"total of nothing", driftingCloud{total: of(func(int) int { return 0 })}, []int{0, 1, 99, 100, 101, 250}, 4},
		{"total too low", driftingCloud{total: of(func(n int) int { return n / 2 })}, []int{0, 1, 50, 99, 100, 101, 250}, 5},
		{"total is that of the page", driftingCloud{total: of(func(n int) int { return min(n, 100) })}, []int{1, 99, 100, 101, 250}, 5},
		{"total too high", driftingCloud{total: of(func(n int) int { return n + 7 })}, []int{1, 5, 16, 17, 50, 99, 100, 101, 250}, 5},
		{"total is a word", driftingCloud{total: func(int) string { return `"total":"many",` }}, []int{0, 1, 99, 100, 101, 250}, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range tt.sizes {
				cloud := tt.cloud
				cloud.ids = someIDs(n)
				got, err := withRegion(t, Config{}, cloud.RoundTrip).List(t.Context(), "11250")
				if err != nil {
					t.Errorf("%d notebooks: %v", n, err)
				} else if diff := cmp.Diff(someIDs(n), names(got)); diff != "" {
					t.Errorf("%d notebooks (-want +got):\n%s", n, diff)
				}
				if n < 100 && tt.cloud.cap == 0 && tt.cloud.total == nil && cloud.requests != 1 || n == tt.sizes[len(tt.sizes)-1] && cloud.requests > tt.requests {
					t.Errorf("%d notebooks: %d requests", n, cloud.requests)
				}
			}
		})
	}
}

// TestWindow has every offset in a page that shows something new, also behind
// the rows that are read twice.
func TestWindow(t *testing.T) {
	for largest := smallestCap + 1; largest <= pageSize; largest++ {
		for offset := range 2000 {
			page, size := window(offset, largest)
			start := (page - 1) * size
			if page < 1 || size > largest || start > offset || start+size <= offset+upstream.PagerOverlap {
				t.Fatalf("window(%d, %d) = page %d of size %d", offset, largest, page, size)
			}
		}
	}
}

// TestListNeverInPart has lists that cannot be read to their end.
func TestListNeverInPart(t *testing.T) {
	ids := someIDs(1000)
	for name, tt := range map[string]struct {
		page     func(request, page, size int) string
		requests int
		text     string
	}{
		"the page is ignored":           {func(int, int, int) string { return pageJSON(`"total":250,`, ids[:100]) }, 2, "only rows of earlier ones"},
		"the page is ignored, no total": {func(int, int, int) string { return pageJSON("", ids[:100]) }, 2, "only rows of earlier ones"},
		"no end": {func(_, page, size int) string {
			return pageJSON(`"total":100000,`, someIDs(page * size)[(page-1)*size:])
		}, 5, "no end within 5 pages"},
		"nothing holds still": {func(request, _, size int) string {
			return pageJSON(`"total":100000,`, someIDs((request + 1) * 100)[request*100:][:size])
		}, 34, "faster than it can be read"},
		"nothing but the first page holds still": {func(request, page, size int) string {
			if page == 1 {
				return pageJSON(`"total":100000,`, ids[:size])
			}
			return pageJSON(`"total":100000,`, someIDs((request + 11) * 100)[(request+10)*100:][:size])
		}, 34, "faster than it can be read"},
		"pages of 16": {func(_, page, size int) string {
			size = min(size, 16)
			return pageJSON(`"total":100,`, ids[(page-1)*size:page*size])
		}, 2, "too small"},
		"counted but not shown": {func(int, int, int) string { return pageJSON(`"total":3,`, nil) }, 1, "none of the notebooks that it counts"},
		"pages of 5": {func(_, page, _ int) string {
			return pageJSON(`"total":100,`, ids[(page-1)*5:page*5])
		}, 2, "too small"},
		"a record without an id": {func(int, int, int) string {
			return `{"code":"0","data":{"total":2,"records":[{"id":"1"},{"notebookName":"n"}]}}`
		}, 1, "no id"},
		"a record that is none": {func(int, int, int) string { return `{"code":"0","data":{"total":1,"records":[null]}}` }, 1, "no id"},
		"a later page fails": {func(_, page, size int) string {
			if page > 1 {
				return `{"code":"0","data":{}}`
			}
			return pageJSON(`"total":250,`, ids[:size])
		}, 2, "no list of notebooks"},
	} {
		t.Run(name, func(t *testing.T) {
			requests := 0
			p := withRegion(t, Config{}, func(req *http.Request) (*http.Response, error) {
				requests++
				page, _ := strconv.Atoi(req.URL.Query().Get("page"))
				size, _ := strconv.Atoi(req.URL.Query().Get("size"))
				return respond(200, tt.page(requests, page, size)), nil
			})
			if strings.Contains(tt.text, "no end") {
				p.maxPages = tt.requests
			}
			got, err := p.List(t.Context(), "11250")
			check(t, err, upstream.KindBadResponse, "HTTP 200", tt.text)
			if e, ok := errors.AsType[*upstream.Error](err); got != nil || ok && (e.Location != "11250" || e.Op != "list" || !e.Sent) {
				t.Errorf("got %d notebooks, %+v", len(got), err)
			}
			if requests != tt.requests {
				t.Errorf("%d requests, want %d", requests, tt.requests)
			}
		})
	}
}

// TestListDrifting has notebooks come and go between any two requests: those
// that stay are all there, once.
func TestListDrifting(t *testing.T) {
	tests := []struct {
		name           string
		removals, adds int // at most, between two requests
		cap            int
		newestFirst    bool
		repeats        bool
		total          func(int) string
		maxRequests    int
	}{
		{name: "removals", removals: 3, maxRequests: 16},
		{name: "removals and adds", removals: 3, adds: 3, maxRequests: 17},
		{name: "removals and adds, newest first", removals: 3, adds: 3, newestFirst: true, maxRequests: 18},
		{name: "removals and adds, no total", removals: 3, adds: 3, total: func(int) string { return "" }, maxRequests: 17},
		{name: "removals and adds, beyond the end is the start", removals: 3, adds: 3, repeats: true, maxRequests: 17},
		{name: "removals and adds, pages of 50", removals: 2, adds: 3, cap: 50, maxRequests: 40},
		{name: "more removals than the overlap", removals: 20, adds: 20, maxRequests: 40},
		{name: "many of everything, newest first", removals: 20, adds: 25, newestFirst: true, maxRequests: 60},
		{name: "many removals, pages of 30", removals: 5, adds: 5, cap: 30, maxRequests: 150},
	}
	for _, tt := range tests {
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("%s/%d", tt.name, seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				created := 1250
				cloud := &driftingCloud{ids: someIDs(created), cap: tt.cap, total: tt.total, repeats: tt.repeats}
				if tt.newestFirst {
					slices.Reverse(cloud.ids)
				}
				before := slices.Clone(cloud.ids)
				cloud.drift = func(c *driftingCloud) {
					for range rng.IntN(tt.removals + 1) {
						i := rng.IntN(len(c.ids))
						c.ids = slices.Delete(c.ids, i, i+1)
					}
					for range rng.IntN(tt.adds + 1) {
						id := idOf(created)
						created++
						if tt.newestFirst {
							c.ids = slices.Insert(c.ids, 0, id)
						} else {
							c.ids = append(c.ids, id)
						}
					}
				}
				got, err := withRegion(t, Config{}, cloud.RoundTrip).List(t.Context(), "11250")
				if err != nil {
					t.Fatal(err)
				}
				times := map[string]int{}
				for _, n := range got {
					times[n.ID]++
				}
				after := map[string]bool{}
				for _, id := range cloud.ids {
					after[id] = true
				}
				for _, id := range before {
					if after[id] && times[id] != 1 {
						t.Errorf("%s existed throughout and is there %d times", id, times[id])
					}
				}
				for id, n := range times {
					if n != 1 {
						t.Errorf("%s is there %d times", id, n)
					}
				}
				if cloud.requests > tt.maxRequests {
					t.Errorf("%d requests, want at most %d", cloud.requests, tt.maxRequests)
				}
			})
		}
	}
}

func TestListDuplicates(t *testing.T) {
	p := withRegion(t, Config{}, func(*http.Request) (*http.Response, error) {
		return respond(200, `{"code":"0","data":{"total":3,"records":[{"id":"2"},{"id":"1","notebookName":"old"},{"id":1,"notebookName":"new"}]}}`), nil
	})
	got, err := p.List(t.Context(), "11250")
	if diff := cmp.Diff([]upstream.Notebook{{ID: "2"}, {ID: "1", DisplayName: "new"}}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// TestListEnvelopes has the shapes of a list accepted, and all but the first
// refused when that is asked for.
func TestListEnvelopes(t *testing.T) {
	one := []string{"1896050410550136833"}
	tests := []struct {
		name, body string
		want       []string
		strict     bool
	}{
		{"A", `{"code":"0","data":{"total":1,"records":[{"id":"1896050410550136833"}]}}`, one, true},
		{"A, empty", `{"code":"0","data":{"total":0,"records":[]}}`, []string{}, true},
		{"B", string(vendorExample(t)), one, false},
		{"C", `{"code":"0","data":{"total":1,"data":[{"id":"1896050410550136833"}]}}`, one, false},
		{"D", `{"code":"0","data":[]}`, []string{}, false},
		{"D, null", `{"code":"0","data":null}`, []string{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, strict := range []bool{false, true} {
				p := withRegion(t, Config{StrictEnvelope: strict}, func(*http.Request) (*http.Response, error) { return respond(200, tt.body), nil })
				got, err := p.List(t.Context(), "11250")
				if strict && !tt.strict {
					check(t, err, upstream.KindBadResponse, "HTTP 200", "")
					continue
				}
				if diff := cmp.Diff(tt.want, names(got)); err != nil || diff != "" {
					t.Errorf("strict %v: %v (-want +got):\n%s", strict, err, diff)
				}
				// No list at all is told from an empty one.
				if (got == nil) != strings.HasSuffix(tt.name, "null") {
					t.Errorf("strict %v: nil is %v", strict, got == nil)
				}
			}
		})
	}
}

func TestFind(t *testing.T) {
	const id = "1896050410550136833"
	kindOf := func(k upstream.Kind) *upstream.Kind { return &k }
	tests := []struct {
		name   string
		status int
		body   string
		kind   *upstream.Kind // nil: the notebook
		code   string
	}{
		{"the vendor's example", 200, string(vendorExample(t)), nil, ""},
		{"a number as id", 200, `{"code":0,"data":{"id":1896050410550136833}}`, nil, ""},
		{"another notebook", 200, `{"code":"0","data":{"id":"1"}}`, kindOf(upstream.KindBadResponse), "HTTP 200"},
		{"no id", 200, `{"code":"0","data":{"id":null,"notebookName":"n"}}`, kindOf(upstream.KindBadResponse), "HTTP 200"},
		{"a list", 200, `{"code":"0","data":[{"id":"1896050410550136833"}]}`, kindOf(upstream.KindBadResponse), "HTTP 200"},
		{"true", 200, `{"code":"0","data":true}`, kindOf(upstream.KindBadResponse), "HTTP 200"},
		{"null", 200, `{"code":"0","msg":"success","data":null}`, kindOf(upstream.KindNotFound), ""},
		{"no data", 200, `{"code":"0","msg":"success"}`, kindOf(upstream.KindNotFound), ""},
		{"an empty object", 200, `{"code":"0","data":{}}`, kindOf(upstream.KindNotFound), ""},
		{"an empty list", 200, `{"code":"0","data":[]}`, kindOf(upstream.KindNotFound), ""},
		{"an empty text", 200, `{"code":"0","data":""}`, kindOf(upstream.KindNotFound), ""},
		{"nothing but nulls", 200, `{"code":"0","data":{"id":null,"notebookName":null}}`, kindOf(upstream.KindNotFound), ""},
		{"parameter invalid", 200, `{"code":"10004","msg":"param_invalid"}`, kindOf(upstream.KindNotFound), "10004"},
		{"parameter invalid, with 400", 400, `{"code":"10004","msg":"param_invalid"}`, kindOf(upstream.KindNotFound), "10004"},
		{"internal error", 200, `{"code":"10001","msg":"internal_error","data":"oops"}`, kindOf(upstream.KindNotFound), "10001"},
		{"no such task", 200, `{"code":"816822"}`, kindOf(upstream.KindNotFound), "816822"},
		{"no such task, with 404", 404, `{"code":"816822"}`, kindOf(upstream.KindNotFound), "816822"},
		{"internal error, with 401", 401, `{"code":"10001"}`, kindOf(upstream.KindDenied), "10001"},
		{"internal error, with 500", 500, `{"code":"10001"}`, kindOf(upstream.KindFault), "10001"},
		{"internal error, with 429", 429, `{"code":"10001"}`, kindOf(upstream.KindThrottled), "10001"},
		{"parameters missing", 200, `{"code":"10003"}`, kindOf(upstream.KindInvalid), "10003"},
		{"user frozen", 200, `{"code":"10007"}`, kindOf(upstream.KindDenied), "10007"},
		{"token refused", 200, `{"code":"10008"}`, kindOf(upstream.KindDenied), "10008"},
		{"connection interrupted", 200, `{"code":"10012"}`, kindOf(upstream.KindUnavailable), "10012"},
		{"no AI service", 404, `<html>`, kindOf(upstream.KindDisabled), "HTTP 404"},
		{"no AI service, in JSON", 404, `{"code":404,"message":"Not Found"}`, kindOf(upstream.KindDisabled), "404"},
		{"gateway", 502, `<html>`, kindOf(upstream.KindUnavailable), "HTTP 502"},
		{"html", 200, `<html>`, kindOf(upstream.KindBadResponse), "HTTP 200"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := withRegion(t, Config{}, func(req *http.Request) (*http.Response, error) {
				if got := req.Method + " " + req.URL.String(); got != "GET https://ai.test/ai/openapi/v2/notebook/detail?notebookId="+id {
					t.Errorf("sent %s", got)
				}
				return respond(tt.status, tt.body), nil
			})
			for range 6 { // one more than opens a breaker
				got, err := p.Find(t.Context(), "11250", id)
				if tt.kind == nil {
					if err != nil || got.ID != id || strings.Contains(fmt.Sprintf("%+v", got), "9pM28jD7606121T") {
						t.Errorf("got %+v, %v", got, err)
					}
					continue
				}
				if upstream.KindOf(err) == upstream.KindCircuitOpen && tt.kind.TripsBreaker() {
					continue
				}
				check(t, err, *tt.kind, tt.code, "scnet/11250 find")
				if diff := cmp.Diff(upstream.Notebook{}, got); diff != "" {
					t.Errorf("a notebook came with the error:\n%s", diff)
				}
			}
			_, err := p.Find(t.Context(), "11250", id)
			if open := upstream.KindOf(err) == upstream.KindCircuitOpen; open != (tt.kind != nil && tt.kind.TripsBreaker()) {
				t.Errorf("breaker open: %v (%v)", open, err)
			}
		})
	}
	p := withRegion(t, Config{}, func(*http.Request) (*http.Response, error) {
		t.Error("the cloud was asked")
		return respond(200, ""), nil
	})
	for _, where := range [][2]string{{"11250", ""}, {"11250", "a/b"}, {"1", id}} {
		_, err := p.Find(t.Context(), where[0], where[1])
		check(t, err, upstream.KindInvalid, "", "find")
	}
	cloud := newFakeCloud(fakeRegion{id: "1"})
	_, err := cloud.direct(t).Find(t.Context(), "1", id)
	check(t, err, upstream.KindDisabled, "", noToken)
}

// TestBreaker has every code and every HTTP status that is known decide, on the
// whole way, what a failure is and whether it opens the breaker.
func TestBreaker(t *testing.T) {
	tests := []struct {
		status int
		code   string // empty: no envelope
		kind   upstream.Kind
		trips  bool
	}{
		{200, "10001", upstream.KindFault, true},
		{200, "10003", upstream.KindInvalid, false},
		{200, "10004", upstream.KindInvalid, false},
		{200, "10007", upstream.KindDenied, false},
		{200, "10008", upstream.KindDenied, false},
		{200, "10009", upstream.KindDenied, false},
		{200, "10010", upstream.KindInvalid, false},
		{200, "10011", upstream.KindInvalid, false},
		{200, "10012", upstream.KindUnavailable, true},
		{200, "716020", upstream.KindFault, true},
		{200, "716864", upstream.KindRejected, false},
		{200, "716865", upstream.KindRejected, false},
		{200, "716866", upstream.KindRejected, false},
		{200, "716870", upstream.KindRejected, false},
		{200, "911020", upstream.KindNotFound, false},
		{200, "911021", upstream.KindConflict, false},
		{200, "1001", upstream.KindRejected, false},
		{200, "1004", upstream.KindInvalid, false},
		{200, "817140", upstream.KindConflict, false},
		{200, "816822", upstream.KindNotFound, false},
		{200, "818218", upstream.KindDenied, false},
		{200, "820000", upstream.KindInvalid, false},
		{200, "816304", upstream.KindInvalid, false},
		{200, "10002", upstream.KindRejected, false},
		{401, "1001", upstream.KindDenied, false},
		{500, "10004", upstream.KindInvalid, false},
		{500, "10002", upstream.KindUnavailable, true},
		{429, "10001", upstream.KindThrottled, false},
		{302, "", upstream.KindBadResponse, true},
		{400, "", upstream.KindInvalid, false},
		{401, "", upstream.KindDenied, false},
		{403, "", upstream.KindDenied, false},
		{404, "", upstream.KindDisabled, false},
		{405, "", upstream.KindInvalid, false},
		{429, "", upstream.KindThrottled, false},
		{500, "", upstream.KindUnavailable, true},
		{502, "", upstream.KindUnavailable, true},
		{503, "", upstream.KindUnavailable, true},
		{504, "", upstream.KindUnavailable, true},
	}
	seen := map[string]bool{}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d %s", tt.status, tt.code), func(t *testing.T) {
			seen[tt.code] = true
			body, code := "<html>", "HTTP "+strconv.Itoa(tt.status)
			if tt.code != "" {
				body, code = fmt.Sprintf(`{"code":%q,"msg":"no","data":null}`, tt.code), tt.code
			}
			if tt.kind.TripsBreaker() != tt.trips {
				t.Errorf("%v trips: %v", tt.kind, tt.kind.TripsBreaker())
			}
			p := withRegion(t, Config{}, func(*http.Request) (*http.Response, error) { return respond(tt.status, body), nil })
			for range 5 { // as many as it takes by default
				_, err := p.List(t.Context(), "11250")
				check(t, err, tt.kind, code, "scnet/11250 list")
			}
			_, err := p.List(t.Context(), "11250")
			if open := upstream.KindOf(err) == upstream.KindCircuitOpen; open != tt.trips {
				t.Errorf("breaker open: %v, want %v", open, tt.trips)
			}
		})
	}
	for code := range kinds {
		if !seen[code] {
			t.Errorf("code %s has no row", code)
		}
	}
}

// TestBodies has answers that say success and are none.
func TestBodies(t *testing.T) {
	for _, body := range []string{
		``, ` `, `<html>ok</html>`, `null`, `true`, `"0"`, `0`, `[]`, `{}`, `{"code":"0"}`, `{"code":"0","data":"oops"}`, `{"code":"0","data":7}`,
		`{"code":"0","data":{}}`, `{"code":"0","data":{"total":1}}`, `{"code":"0","data":{"total":1,"records":"oops"}}`,
		`{"code":"0","data":{"total":1,"records":{"id":"1"}}}`, `{"code":"0","data":{"total":1,"records":[1]}}`, `{"code":"0","data":{"total":1,"records":[{"id":{}}]}}`,
		`{"code":"0","data":{"total":1,"rec`, `{"code":{},"data":[]}`, `{"code":null,"data":[]}`, `{"code":"0","data":[]}{}`, "\xef\xbb\xbf" + `{"code":"0","data":[]}`,
	} {
		for _, status := range []int{200, 204, 302} {
			p := withRegion(t, Config{}, func(*http.Request) (*http.Response, error) { return respond(status, body), nil })
			got, err := p.List(t.Context(), "11250")
			if e, ok := errors.AsType[*upstream.Error](err); got != nil || !ok || e.Kind != upstream.KindBadResponse || !strings.HasPrefix(e.Code, "HTTP ") {
				t.Errorf("%d %s: got %d notebooks, %v", status, body, len(got), err)
			}
		}
	}
}

// TestErrorsHoldNoSecret has a cloud echo what it was sent, and what it gave,
// in every kind of failure of every call.
func TestErrorsHoldNoSecret(t *testing.T) {
	quote := func(s string) string { return string(upstream.CompactJSON(s)) }
	failures := map[string]func(echo string) (status int, body string, err error){
		"denied":    func(echo string) (int, string, error) { return 200, `{"code":"10009","msg":` + quote(echo) + `}`, nil },
		"refused":   func(echo string) (int, string, error) { return 200, `{"code":"10008","msg":` + quote(echo) + `}`, nil },
		"fault":     func(echo string) (int, string, error) { return 200, `{"code":"10001","msg":` + quote(echo) + `}`, nil },
		"invalid":   func(echo string) (int, string, error) { return 200, `{"code":"10004","msg":` + quote(echo) + `}`, nil },
		"not found": func(echo string) (int, string, error) { return 404, `{"code":"816822","msg":` + quote(echo) + `}`, nil },
		"console": func(echo string) (int, string, error) {
			return 401, `{"code":"1001","message":` + quote(echo) + `}`, nil
		},
		"throttled": func(echo string) (int, string, error) { return 429, `{"code":"1","msg":` + quote(echo) + `}`, nil },
		"conflict":  func(echo string) (int, string, error) { return 200, `{"code":"817140","msg":` + quote(echo) + `}`, nil },
		"code":      func(echo string) (int, string, error) { return 200, `{"code":` + quote(echo) + `}`, nil },
		"no code":   func(echo string) (int, string, error) { return 200, `{"msg":` + quote(echo) + `}`, nil },
		"data":      func(echo string) (int, string, error) { return 200, `{"code":"0","data":` + quote(echo) + `}`, nil },
		"record": func(echo string) (int, string, error) {
			return 200, `{"code":"0","data":{"records":[{"name":` + quote(echo) + `}]}}`, nil
		},
		"id": func(echo string) (int, string, error) {
			return 200, `{"code":"0","data":{"id":` + quote(echo+"/") + `}}`, nil
		},
		"new token": func(echo string) (int, string, error) {
			return 200, `{"code":"0","data":[{"clusterId":"1","token":` + quote(echo+"\n") + `}]}`, nil
		},
		"cut":        func(echo string) (int, string, error) { return 200, `{"msg":` + quote(echo), nil },
		"html 200":   func(echo string) (int, string, error) { return 200, "<html>" + echo, nil },
		"html 404":   func(echo string) (int, string, error) { return 404, "<html>" + echo, nil },
		"html 502":   func(echo string) (int, string, error) { return 502, "<html>" + echo, nil },
		"redirected": func(echo string) (int, string, error) { return 302, echo, nil },
		"transport":  func(echo string) (int, string, error) { return 0, "", errors.New("cannot connect to " + echo) },
	}
	const password = "9pM28jD7606121T"
	for name, fail := range failures {
		for _, stage := range []string{"login", "center", "AI"} {
			t.Run(name+" "+stage, func(t *testing.T) {
				cloud := newFakeCloud(fakeRegion{id: "1", lifetime: time.Hour})
				secrets := []string{testSecret}
				p := newProvider(t, cloud.config(), roundTrip(func(req *http.Request) (*http.Response, error) {
					at := "AI"
					switch {
					case strings.Contains(req.URL.Path, "/api/user/"):
						at = "login"
					case strings.Contains(req.URL.Path, "/center"):
						at = "center"
					}
					if at != stage {
						rec := httptest.NewRecorder()
						cloud.ServeHTTP(rec, req)
						return rec.Result(), nil
					}
					echo := "you sent"
					for _, h := range []string{"token", "accessKey", "signature"} {
						if v := req.Header.Get(h); v != "" {
							secrets = append(secrets, v)
							echo += " " + v
						}
					}
					status, body, err := fail(echo)
					if err != nil {
						return nil, err
					}
					return respond(status, body), nil
				}))
				for call, err := range map[string]error{
					"locations": func() error { _, err := p.Locations(t.Context()); return err }(),
					"list":      func() error { _, err := p.List(t.Context(), "1"); return err }(),
					"find":      func() error { _, err := p.Find(t.Context(), "1", "7"); return err }(),
				} {
					if err == nil {
						// Discovery leaves it to the region's own calls to fail.
						if call != "locations" || stage == "login" {
							t.Errorf("%s: no error", call)
						}
						continue
					}
					e, ok := errors.AsType[*upstream.Error](err)
					if !ok {
						t.Fatalf("%s: got %v, want an *upstream.Error", call, err)
					}
					for _, shown := range []string{e.Error(), e.Message, e.Code, e.RequestID, fmt.Sprintf("%+v", e), fmt.Sprintf("%+v %#v", *e, *e)} {
						for _, secret := range secrets {
							if strings.Contains(shown, secret) {
								t.Errorf("%s: the error %q holds the secret %q", call, shown, secret)
							}
						}
					}
				}
			})
		}
	}
	t.Run("ssh password", func(t *testing.T) {
		record := `{"id":"","sshPassword":"` + password + `","errorMessage":"` + password + `"}`
		for _, body := range []string{
			`{"code":"0","data":{"total":1,"records":[` + record + `]}}`, `{"code":"10001","data":` + record + `}`, `{"code":"0","data":` + record + `}`, record,
			`{"code":"0","data":{"total":1,"records":[` + strings.Replace(record, `""`, `"1"`, 1) + `]}}`,
		} {
			p := withRegion(t, Config{}, func(*http.Request) (*http.Response, error) { return respond(200, body), nil })
			got, err := p.List(t.Context(), "11250")
			one, findErr := p.Find(t.Context(), "11250", "1")
			if shown := fmt.Sprintf("%v %+v %+v %v %+v %+v", err, err, got, findErr, findErr, one); strings.Contains(shown, password) {
				t.Errorf("%s: %s", body, shown)
			}
		}
	})
}

// TestReadme has a row for every response field of the vendor's page, and one
// for every code.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("testdata/vendor-notebook-list-page.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "返回参数:")
	table, _, ok := strings.Cut(table, "返回示例:")
	if !ok {
		t.Fatal("the page has no table")
	}
	fields := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.ContainsAny(cells[1], "abcdefghijklmnopqrstuvwxyz") {
			continue
		}
		fields++
		field := "`" + strings.TrimSpace(cells[1]) + "`"
		if !slices.ContainsFunc(strings.Split(string(readme), "\n"), func(row string) bool {
			return strings.HasPrefix(row, "| `") && strings.Contains(strings.Split(row, "|")[1], field)
		}) {
			t.Errorf("%s has no row", field)
		}
	}
	if fields != 38 {
		t.Errorf("the table has %d fields", fields)
	}
	for code := range kinds {
		if !strings.Contains(string(readme), code) {
			t.Errorf("code %s is not in the README", code)
		}
	}
}
