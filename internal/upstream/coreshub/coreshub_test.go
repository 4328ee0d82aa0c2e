package coreshub

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/upstream"
)

const testPassword = `p"w+/é<hunter2>=`

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func respond(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// newProvider returns a Provider with the test keys for zone xb3 whose cloud is
// transport. Fields that cfg sets stay.
func newProvider(tb testing.TB, cfg Config, transport roundTrip) *Provider {
	tb.Helper()
	if len(cfg.Zones) == 0 {
		cfg.Zones = []string{"xb3"}
	}
	if cfg.UserID == "" {
		cfg.UserID = "usr-TestUser"
	}
	cfg.AccessKeyID, cfg.SecretAccessKey = upstream.NewSecret(testKeyID), upstream.NewSecret(testSecret)
	p, err := New(cfg, upstream.NewClient(upstream.ClientConfig{Cloud: "core", Transport: transport}))
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// files answers with testdata/<METHOD>/<url path>.json.
func files(req *http.Request) (*http.Response, error) {
	body, err := os.ReadFile("testdata/" + req.Method + req.URL.Path + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		return respond(http.StatusNotFound, "<html>no such page</html>"), nil
	}
	return respond(http.StatusOK, string(body)), err
}

func TestConfig(t *testing.T) {
	keys := func(c Config) Config {
		c.AccessKeyID, c.SecretAccessKey = upstream.NewSecret("id"), upstream.NewSecret("secret")
		return c
	}
	base := Config{Zones: []string{"xb3"}, UserID: "usr-A"}
	tests := []struct {
		name string
		cfg  Config
		want []string // the keys of the problems, in order
	}{
		{"defaults", keys(base), nil},
		{"everything", keys(Config{
			Endpoint: "http://127.0.0.1:8080/", PathPrefix: "/qai/aicp/", Zones: []string{"xb3", "xb2"}, Namespaces: []string{"a", "b"},
			SignEncode: "once", SignBody: "md5", TimeZone: "UTC",
		}), nil},
		{"no prefix", keys(Config{PathPrefix: "/", Zones: []string{"xb3"}, UserID: "u"}), nil},
		{"nothing", Config{}, []string{"zones", "user_id", "access_key_id", "secret_access_key"}},
		{"everything wrong", Config{
			Endpoint: "https://user:hunter2@cloud", PathPrefix: "aicp", Zones: []string{"xb3", "a/b", "xb3", ".."},
			Namespaces: []string{"n", "n", ""}, SignEncode: "thrice", SignBody: "sha", TimeZone: "Local",
		}, []string{
			"endpoint", "path_prefix", "zones[1]", "zones[2]", "zones[3]", "namespaces[1]", "namespaces[2]", "access_key_id",
			"secret_access_key", "sign_encode", "sign_body", "time_zone",
		}},
		{"endpoint is no URL", keys(Config{Endpoint: "cloud", Zones: []string{"x"}, UserID: "u"}), []string{"endpoint"}},
		{"endpoint of another scheme", keys(Config{Endpoint: "ftp://cloud", Zones: []string{"x"}, UserID: "u"}), []string{"endpoint"}},
		{"endpoint with a path", keys(Config{Endpoint: "https://cloud/aicp", Zones: []string{"x"}, UserID: "u"}), []string{"endpoint"}},
		{"endpoint with a query", keys(Config{Endpoint: "https://cloud?a", Zones: []string{"x"}, UserID: "u"}), []string{"endpoint"}},
		{"user id with a slash", keys(Config{Zones: []string{"x"}, UserID: "u/v"}), []string{"user_id"}},
		{"time zone", keys(Config{Zones: []string{"x"}, UserID: "u", TimeZone: "+8"}), []string{"time_zone"}},
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
			p, newErr := New(tt.cfg, upstream.NewClient(upstream.ClientConfig{Cloud: "core"}))
			if (newErr == nil) != (err == nil) || (p == nil) != (err != nil) {
				t.Errorf("New: %v, Validate: %v", newErr, err)
			}
		})
	}
	if _, err := New(keys(base), nil); err == nil {
		t.Error("New without a client: no error")
	}
}

func TestLocations(t *testing.T) {
	p := newProvider(t, Config{Zones: []string{"xb3", "zz9"}}, nil)
	got, err := p.Locations(t.Context())
	want := []upstream.Location{{ID: "xb3", DisplayName: "Northwest 3"}, {ID: "zz9"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestList(t *testing.T) {
	var requests []string
	p := newProvider(t, Config{}, func(req *http.Request) (*http.Response, error) {
		requests = append(requests, req.Method+" "+req.URL.String())
		if got := req.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("Content-Type %q", got)
		}
		return files(req)
	})
	got, err := p.List(t.Context(), "xb3")
	if err != nil {
		t.Fatal(err)
	}
	want := []upstream.Notebook{{
		ID: "nb-000000000001", DisplayName: "训练-1", State: upstream.StateRunning, CloudState: "Running", StateMessage: "运行中",
		Image:      upstream.Image{URI: "xb3-dockerhub.coreshub.cn/aicp/public/pytorch:2.6.0-gpu-jupyter", Type: "official"},
		ServerType: "jupyter",
		Resources: upstream.Resources{
			CPUCores: 16, Accelerator: upstream.Accelerator{Type: "gpu", Model: "NVIDIA A100", Count: 2},
		},
		Namespace: "usr-testuser", OwnerID: "usr-TestUser", RootOwnerID: "usr-RootUser",
		CreateTime: time.Date(2025, 4, 10, 15, 0, 33, 0, china),
		UpdateTime: time.Date(2025, 4, 10, 17, 33, 41, 0, china),
		StopTime:   time.Date(2025, 4, 11, 8, 30, 7, 334e6, time.UTC),
		ExpireTime: time.Date(2025, 5, 1, 0, 0, 0, 0, china),
		Endpoints:  upstream.Endpoints{ServiceURL: "https://ai.coreshub.cn/xb3a/notebook/jupyter/usr-testuser/nb-000000000001/"},
		Mirrors:    upstream.Mirrors{Pip: "aliyun", Conda: "conda", APT: "ubuntu"},
		EnvNames:   []string{"API_TOKEN", "WANDB_MODE"},
		Attributes: map[string]string{
			"kuid": "0d9e3a52-57a9-4b0c-8f0b-6a4a4a0f6b11", "user_name": "Team", "email": "team@example.com",
			"charge_mode": "elastic", "duration": "3600", "auto_renew": "0", "next_charge_mode": "monthly",
			"replica_specs.replicas": "1", "replica_specs.specs": "sku-1", "replica_specs.replica_type": "Worker",
			"replica_specs.rg_id": "rg-1", "replica_specs.custom_cpu": "16", "replica_specs.custom_memory": "128",
			"replica_specs.custom_gpu": "2", "replica_specs.custom_gpu_list": "0,1", "replica_specs.custom_gpu_name": "NVIDIA A100",
			"replica_specs.custom_gpu_memory": "80", "replica_specs.custom_gpu_type": "nvidia-a100",
			"replica_specs.custom_system_disk_size": "100", "replica_specs.custom_data_disk_size": "50",
			"replica_specs.custom_infiniband": "1", "replica_specs.custom_aipods_type": "gpu_share",
			"replica_specs.custom_hashrate_allocation": "100", "replica_specs.custom_network_description": "25G",
			"replica_specs.custom_cpu_model": "8358", "replica_specs.custom_cpu_manufacturer": "Intel", "replica_specs.template_id": "7",
		},
	}, {
		ID: "nb-000000000002", Namespace: "usr-testuser", // the namespace that was listed
	}, {
		ID: "nb-000000000003", DisplayName: "67", CloudState: "Stopping", Namespace: "usr-testuser", OwnerID: "12345",
		CreateTime: time.Date(2025, 4, 10, 15, 0, 33, 5e8, china),
		Resources: upstream.Resources{
			CPUCores: 4.5, Accelerator: upstream.Accelerator{Type: "gpu", Model: "MI300", Count: 1},
		},
		EnvNames: []string{"B"},
		Attributes: map[string]string{
			"auto_renew": "true", "replica_specs.custom_cpu": "4.5", "replica_specs.custom_gpu": "1",
			"replica_specs.custom_gpu_type": "MI300", "replica_specs.1.custom_cpu": "8",
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("notebooks (-want +got):\n%s", diff)
	}
	for _, secret := range []string{"value-of", "token-in"} {
		if strings.Contains(fmt.Sprintf("%+v", got), secret) {
			t.Errorf("a notebook holds %q", secret)
		}
	}
	signed := p.signer.sign("GET", testPath, map[string][]string{
		"zone": {"xb3"}, "order_by": {"created_at"}, "limit": {"100"}, "offset": {"0"},
	}, nil)
	wantURL := "GET https://ai.coreshub.cn" + testPath +
		"?access_key_id=QYTESTACCESSKEYID000&limit=100&offset=0&order_by=created_at&zone=xb3&signature=" + strings.TrimPrefix(signed.query, signed.canonical+"&signature=")
	if diff := cmp.Diff([]string{wantURL}, requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestVendorExampleAsListRow(t *testing.T) {
	p := newProvider(t, Config{}, func(*http.Request) (*http.Response, error) {
		return respond(200, string(asList(t, vendorExample(t)))), nil
	})
	got, err := p.List(t.Context(), "xb3")
	if diff := cmp.Diff([]upstream.Notebook{vendorNotebook}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// row is a notebook as the drifting cloud has it; at orders the list.
type row struct {
	id string
	at int
}

func rowsJSON(rows []row) string {
	parts := make([]string, len(rows))
	for i, r := range rows {
		parts[i] = fmt.Sprintf(`{"uuid":%q,"status":"Running","created_at":"2025-04-10T15:00:33"}`, r.id)
	}
	// counts is wrong on purpose.
	return `{"message":"success","meta":{"X_REQUEST_ID":"00000000"},"data":[` + strings.Join(parts, ",") + `],"counts":1,"ret_code":0}`
}

// driftingCloud is a list that changes between any two requests.
type driftingCloud struct {
	rows     []row
	drift    func(*driftingCloud) // before each request but the first
	requests int
	largest  int // length of the longest page so far
}

func (c *driftingCloud) RoundTrip(req *http.Request) (*http.Response, error) {
	if c.requests > 0 && c.drift != nil {
		c.drift(c)
	}
	c.requests++
	offset, err := strconv.Atoi(req.URL.Query().Get("offset"))
	if err != nil {
		return nil, err
	}
	from := min(offset, len(c.rows))
	page := c.rows[from:min(from+pageLimit, len(c.rows))]
	c.largest = max(c.largest, len(page))
	return respond(200, rowsJSON(page)), nil
}

func TestListDrifting(t *testing.T) {
	tests := []struct {
		name               string
		removals, adds     int // at most, between two requests
		front, newestFirst bool
		maxRequests        int
	}{
		{name: "still", maxRequests: 13},
		{name: "removals", removals: 3, maxRequests: 13},
		{name: "removals and adds", removals: 3, adds: 3, maxRequests: 14},
		{name: "removals and adds, newest first", removals: 3, adds: 3, newestFirst: true, maxRequests: 14},
		{name: "removals at the front", removals: 3, adds: 2, front: true, maxRequests: 14},
		{name: "more removals than the overlap", removals: 20, adds: 20, maxRequests: 30},
		{name: "more removals than the overlap, at the front", removals: 12, adds: 20, front: true, maxRequests: 30},
		{name: "many of everything, newest first", removals: 20, adds: 25, newestFirst: true, maxRequests: 40},
	}
	for _, tt := range tests {
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("%s/%d", tt.name, seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				created := 0
				create := func() row {
					created++
					return row{id: fmt.Sprintf("nb-%06d", created), at: created}
				}
				cloud := &driftingCloud{}
				for range 1250 {
					cloud.rows = append(cloud.rows, create())
				}
				order := func() {
					slices.SortFunc(cloud.rows, func(a, b row) int {
						if tt.newestFirst {
							return b.at - a.at
						}
						return a.at - b.at
					})
				}
				order()
				first := ids(cloud.rows)
				cloud.drift = func(c *driftingCloud) {
					for range rng.IntN(tt.removals + 1) {
						i := rng.IntN(len(c.rows))
						if tt.front {
							i = rng.IntN(10)
						}
						c.rows = slices.Delete(c.rows, i, i+1)
					}
					for range rng.IntN(tt.adds + 1) {
						c.rows = append(c.rows, create())
					}
					order()
				}
				p := newProvider(t, Config{}, cloud.RoundTrip)
				got, err := p.List(t.Context(), "xb3")
				if err != nil {
					t.Fatal(err)
				}
				times := map[string]int{}
				for _, n := range got {
					times[n.ID]++
				}
				last := ids(cloud.rows)
				for id := range first {
					if last[id] && times[id] != 1 {
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

func ids(rows []row) map[string]bool {
	out := map[string]bool{}
	for _, r := range rows {
		out[r.id] = true
	}
	return out
}

// TestListMassRemoval has a boundary move further than a page, once.
func TestListMassRemoval(t *testing.T) {
	for _, removed := range []int{5, 96, 97, 150, 500, 900} {
		cloud := &driftingCloud{}
		for i := range 1250 {
			cloud.rows = append(cloud.rows, row{id: fmt.Sprintf("nb-%06d", i), at: i})
		}
		cloud.drift = func(c *driftingCloud) {
			if c.requests == 10 {
				c.rows = c.rows[removed:]
			}
		}
		got, err := newProvider(t, Config{}, cloud.RoundTrip).List(t.Context(), "xb3")
		if err != nil || len(got) != 1250 {
			t.Errorf("%d removed: %d notebooks, %v", removed, len(got), err)
		}
		if cloud.requests > 26 {
			t.Errorf("%d removed: %d requests", removed, cloud.requests)
		}
	}
}

func TestListPages(t *testing.T) {
	rows := func(n int) []row {
		out := make([]row, 0, n)
		for i := range n {
			out = append(out, row{id: fmt.Sprintf("nb-%06d", i)})
		}
		return out
	}
	t.Run("sizes", func(t *testing.T) {
		for _, n := range []int{0, 1, 96, 99, 100, 101, 195, 196, 197, 1250, 1252, 1253} {
			cloud := &driftingCloud{rows: rows(n)}
			got, err := newProvider(t, Config{}, cloud.RoundTrip).List(t.Context(), "xb3")
			if err != nil || len(got) != n {
				t.Errorf("%d rows: got %d, %v", n, len(got), err)
			}
			if want := 1 + max(n-upstream.PagerOverlap, 0)/(pageLimit-upstream.PagerOverlap); cloud.requests != want {
				t.Errorf("%d rows: %d requests, want %d", n, cloud.requests, want)
			}
		}
	})
	t.Run("everything vanishes", func(t *testing.T) {
		cloud := &driftingCloud{rows: rows(100), drift: func(c *driftingCloud) { c.rows = nil }}
		if _, err := newProvider(t, Config{}, cloud.RoundTrip).List(t.Context(), "xb3"); err != nil || cloud.requests != 3 {
			t.Errorf("%d requests, %v", cloud.requests, err)
		}
	})
	for name, tt := range map[string]struct {
		page     func(request, offset int) []row
		requests int
		text     string
	}{
		"offset is ignored": {func(int, int) []row { return rows(100) }, 2, "only rows of earlier ones"},
		"no end": {func(_, offset int) []row {
			var out []row
			for i := range 100 {
				out = append(out, row{id: fmt.Sprintf("nb-%06d", offset+i)})
			}
			return out
		}, 5, "no end within 5 pages"},
		"nothing holds still": {func(request, _ int) []row {
			var out []row
			for i := range 100 {
				out = append(out, row{id: fmt.Sprintf("nb-%d-%d", request, i)})
			}
			return out
		}, 34, "faster than it can be read"},
	} {
		t.Run(name, func(t *testing.T) {
			requests := 0
			p := newProvider(t, Config{}, func(req *http.Request) (*http.Response, error) {
				requests++
				offset, _ := strconv.Atoi(req.URL.Query().Get("offset"))
				return respond(200, rowsJSON(tt.page(requests, offset))), nil
			})
			if strings.Contains(tt.text, "no end") {
				p.maxPages = 5
			}
			got, err := p.List(t.Context(), "xb3")
			e, ok := errors.AsType[*upstream.Error](err)
			if got != nil || !ok || e.Kind != upstream.KindBadResponse || !strings.Contains(e.Error(), tt.text) {
				t.Errorf("got %d notebooks, %v", len(got), err)
			}
			if ok && (e.Cloud != "core" || e.Location != "xb3" || e.Op != "list" || !e.Sent || e.RequestID != "00000000") {
				t.Errorf("error is %+v", e)
			}
			if requests != tt.requests {
				t.Errorf("%d requests, want %d", requests, tt.requests)
			}
		})
	}
	t.Run("a later page fails", func(t *testing.T) {
		for _, second := range []string{`{"ret_code":0,"data":null}`, `{"ret_code":0}`, `{"ret_code":5100}`, `<html>`, ``} {
			requests := 0
			p := newProvider(t, Config{}, func(*http.Request) (*http.Response, error) {
				if requests++; requests == 1 {
					return respond(200, rowsJSON(rows(100))), nil
				}
				return respond(200, second), nil
			})
			if got, err := p.List(t.Context(), "xb3"); got != nil || err == nil || requests != 2 {
				t.Errorf("%s: got %d notebooks, %v after %d requests", second, len(got), err, requests)
			}
		}
	})
}

// TestListNamespaces has every namespace listed and duplicates merged: the
// version that changed last counts.
func TestListNamespaces(t *testing.T) {
	answers := map[string]string{
		"a": `{"uuid":"nb-1","name":"new","updated_at":"2025-04-10T15:00:34"},{"uuid":"nb-2","name":"old"},{"uuid":"nb-4"},{"uuid":"nb-5","name":"dated","updated_at":"2025-04-10T15:00:34"}`,
		"b": `{"uuid":"nb-1","name":"old","updated_at":"2025-04-10T15:00:33"},{"uuid":"nb-2","name":"new"},{"uuid":"nb-3"},{"uuid":"nb-3"},{"uuid":"nb-5","name":"read last"}`,
	}
	var asked []string
	p := newProvider(t, Config{Namespaces: []string{"a", "b"}, PathPrefix: "/x"}, func(req *http.Request) (*http.Response, error) {
		namespace := strings.Split(req.URL.Path, "/")[4]
		asked = append(asked, namespace+" "+req.URL.Query().Get("zone"))
		return respond(200, `{"ret_code":0,"data":[`+answers[namespace]+`]}`), nil
	})
	got, err := p.List(t.Context(), "xb3")
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, 0, len(got))
	for _, n := range got {
		names = append(names, n.ID+" "+n.DisplayName+" "+n.Namespace)
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"nb-1 new a", "nb-2 new b", "nb-3  b", "nb-4  a", "nb-5 read last b"}, names); diff != "" {
		t.Errorf("notebooks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a xb3", "b xb3"}, asked); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func changeRequest() upstream.ImageRequest {
	return upstream.ImageRequest{
		Location: "xb3", NotebookID: "nb-0123456789ab", Namespace: "usr-testuser",
		Image: "xb3-dockerhub.coreshub.cn/aicp/public/tensorflow:2.16.1-gpu-jupyter", ImageType: "official",
	}
}

// TestChangeImage has what is sent byte for byte.
func TestChangeImage(t *testing.T) {
	const (
		head  = `{"image":"xb3-dockerhub.coreshub.cn/aicp/public/tensorflow:2.16.1-gpu-jupyter","image_type":"official","uuid":"nb-0123456789ab"`
		start = "https://ai.coreshub.cn/aicp/notebooks/namespaces/usr-testuser/notebooks/change_image?access_key_id=QYTESTACCESSKEYID000&zone=xb3&signature="
		twice = "09qe5TaZCtbf7%252FU5xEq7gvHfdbPAuwhvSGc1hsQ5Bgk%253D"
	)
	tests := []struct {
		name      string
		cfg       Config
		edit      func(*upstream.ImageRequest)
		url, body string
	}{
		{name: "plain", url: start + twice, body: head + "}"},
		{
			name: "default namespace", edit: func(r *upstream.ImageRequest) { r.Namespace = "" },
			url: start + twice, body: head + "}",
		},
		{
			name: "registry login", edit: func(r *upstream.ImageRequest) {
				r.Credential = &upstream.RegistryCredential{Username: "robot", Password: upstream.NewSecret("a&b<c")}
			},
			url: start + twice, body: head + `,"secret":{"has_auth":true,"username":"robot","password":"a&b<c"}}`,
		},
		{name: "encoded once", cfg: Config{SignEncode: "once"}, url: start + "09qe5TaZCtbf7%2FU5xEq7gvHfdbPAuwhvSGc1hsQ5Bgk%3D", body: head + "}"},
		{name: "body signed", cfg: Config{SignBody: "md5"}, url: start + "EeFnBPWypBPw0RUctgcyA1NRzK9oAPT8rkX%252Fz3haJBQ%253D", body: head + "}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			requests := 0
			p := newProvider(t, tt.cfg, func(req *http.Request) (*http.Response, error) {
				requests++
				body, err := io.ReadAll(req.Body)
				if err != nil {
					t.Error(err)
				}
				if req.Method != http.MethodPost || req.URL.String() != tt.url {
					t.Errorf("sent to\n %s %s, want\n POST %s", req.Method, req.URL, tt.url)
				}
				if string(body) != tt.body {
					t.Errorf("sent\n %s, want\n %s", body, tt.body)
				}
				if got := req.Header.Get("Content-Type"); got != "application/json" {
					t.Errorf("Content-Type %q", got)
				}
				return files(req)
			})
			req := changeRequest()
			if tt.edit != nil {
				tt.edit(&req)
			}
			got, err := p.ChangeImage(t.Context(), req)
			if err != nil || requests != 1 {
				t.Fatalf("%v after %d requests", err, requests)
			}
			if got.ID != req.NotebookID || got.State != upstream.StateStopped || got.Image.URI != req.Image {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestChangeImageAnswers(t *testing.T) {
	example := string(vendorExample(t))
	req := changeRequest()
	req.NotebookID = vendorNotebook.ID
	tests := []struct {
		name, body string
		text       string // of the error; empty: the vendor's notebook
	}{
		{"the vendor's example", example, ""},
		{"an array of one", string(asList(t, []byte(example))), ""},
		{"an array of none", `{"ret_code":0,"data":[]}`, "no notebook"},
		{"an array of two", `{"ret_code":0,"data":[{"uuid":"nb-eiguqichl5hc"},{"uuid":"nb-1"}]}`, "no notebook"},
		{"null", `{"ret_code":0,"data":null}`, "no notebook"},
		{"missing", `{"ret_code":0}`, "no notebook"},
		{"no id", strings.Replace(example, `"nb-eiguqichl5hc"`, "null", 1), "no notebook"},
		{"another id", strings.Replace(example, "nb-eiguqichl5hc", "nb-other", 1), "another notebook"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newProvider(t, Config{}, func(*http.Request) (*http.Response, error) { return respond(200, tt.body), nil })
			got, err := p.ChangeImage(t.Context(), req)
			if tt.text == "" {
				if diff := cmp.Diff(vendorNotebook, got); err != nil || diff != "" {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
				return
			}
			e, ok := errors.AsType[*upstream.Error](err)
			if !ok || e.Kind != upstream.KindBadResponse || !e.Sent || !strings.Contains(e.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
			if diff := cmp.Diff(upstream.Notebook{}, got); diff != "" {
				t.Errorf("a notebook came with the error:\n%s", diff)
			}
		})
	}
}

// TestRefused has calls that cannot be meant refused before anything is sent.
func TestRefused(t *testing.T) {
	p := newProvider(t, Config{}, func(*http.Request) (*http.Response, error) {
		t.Error("a request was sent")
		return nil, errors.New("no")
	})
	refused := func(name string, err error) {
		if e, ok := errors.AsType[*upstream.Error](err); !ok || e.Kind != upstream.KindInvalid || e.Sent || e.Cloud != "core" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := p.List(t.Context(), "xb9")
	refused("unknown zone", err)
	for name, edit := range map[string]func(*upstream.ImageRequest){
		"zone":      func(r *upstream.ImageRequest) { r.Location = "xb9" },
		"namespace": func(r *upstream.ImageRequest) { r.Namespace = "../x" },
		"notebook":  func(r *upstream.ImageRequest) { r.NotebookID = "" },
		"image":     func(r *upstream.ImageRequest) { r.Image = "" },
		"type":      func(r *upstream.ImageRequest) { r.ImageType = "" },
	} {
		req := changeRequest()
		edit(&req)
		_, err := p.ChangeImage(t.Context(), req)
		refused(name, err)
	}
}

// TestErrorsHoldNoSecret has a cloud echo what it was sent, in every encoding
// that comes to mind, in every kind of failure.
func TestErrorsHoldNoSecret(t *testing.T) {
	quote := func(s string) string { return string(upstream.CompactJSON(s)) }
	failures := map[string]func(echo string) (*http.Response, error){
		"code": func(echo string) (*http.Response, error) {
			return respond(200, `{"ret_code":1200,"message":`+quote(echo)+`}`), nil
		},
		"status": func(echo string) (*http.Response, error) {
			return respond(403, `{"ret_code":403,"message":`+quote(echo)+`}`), nil
		},
		"detail":       func(echo string) (*http.Response, error) { return respond(422, `{"detail":`+quote(echo)+`}`), nil },
		"message only": func(echo string) (*http.Response, error) { return respond(500, `{"message":`+quote(echo)+`}`), nil },
		"request id": func(echo string) (*http.Response, error) {
			return respond(200, `{"ret_code":5000,"meta":{"X_REQUEST_ID":`+quote(echo)+`}}`), nil
		},
		"id of bad data": func(echo string) (*http.Response, error) {
			return respond(200, `{"ret_code":0,"meta":{"X_REQUEST_ID":`+quote(echo)+`}}`), nil
		},
		"ret_code": func(echo string) (*http.Response, error) { return respond(200, `{"ret_code":`+quote(echo)+`}`), nil },
		"html 200": func(echo string) (*http.Response, error) { return respond(200, "<html>"+echo), nil },
		"html 502": func(echo string) (*http.Response, error) { return respond(502, "<html>"+echo), nil },
		"cut":      func(echo string) (*http.Response, error) { return respond(200, `{"message":`+quote(echo)), nil },
		"data": func(echo string) (*http.Response, error) {
			return respond(200, `{"ret_code":0,"data":`+quote(echo)+`}`), nil
		},
		"no id": func(echo string) (*http.Response, error) {
			return respond(200, `{"ret_code":0,"data":[{"name":`+quote(echo)+`}]}`), nil
		},
		"redirection": func(echo string) (*http.Response, error) { return respond(302, echo), nil },
		"transport":   func(echo string) (*http.Response, error) { return nil, errors.New("cannot connect to " + echo) },
	}
	quoted := quote(testPassword)
	quoted = quoted[1 : len(quoted)-1]
	ascii := strings.ReplaceAll(quoted, "é", `\u00e9`)
	basic := base64.StdEncoding.EncodeToString([]byte("robot:" + testPassword))

	for name, fail := range failures {
		t.Run(name, func(t *testing.T) {
			const echoes = 13
			for i := range 2 * echoes {
				var secrets []string
				p := newProvider(t, Config{}, func(req *http.Request) (*http.Response, error) {
					address := req.URL.String()
					_, wire, ok := strings.Cut(address, "signature=")
					if !ok {
						t.Fatal("no signature was sent")
					}
					once := strings.ReplaceAll(wire, "%25", "%")
					plain := strings.NewReplacer("%2B", "+", "%2F", "/", "%3D", "=").Replace(once)
					secrets = []string{wire, once, plain, wire[:20], testKeyID, testSecret}
					if i%2 == 1 { // a listing knows of no login
						secrets = append(secrets, testPassword, quoted, ascii, basic)
					}
					body, err := io.ReadAll(req.Body)
					if err != nil {
						t.Error(err)
					}
					return fail([echoes]string{
						wire, once, plain, testKeyID, testSecret, testPassword, quoted, ascii, basic,
						address, address[:len(address)-20], strings.ReplaceAll(address, "%25", "%"), string(body),
					}[i/2])
				})
				var err error
				if i%2 == 0 {
					_, err = p.List(t.Context(), "xb3")
				} else {
					req := changeRequest()
					req.Credential = &upstream.RegistryCredential{Username: "robot", Password: upstream.NewSecret(testPassword)}
					_, err = p.ChangeImage(t.Context(), req)
				}
				e, ok := errors.AsType[*upstream.Error](err)
				if !ok {
					t.Fatalf("got %v, want an *upstream.Error", err)
				}
				for _, shown := range []string{e.Error(), e.Message, e.Code, e.RequestID, fmt.Sprintf("%+v", e), fmt.Sprintf("%+v", *e)} {
					for _, secret := range secrets {
						if strings.Contains(shown, secret) {
							t.Errorf("echo %d: the error %q holds the secret %q", i/2, shown, secret)
						}
					}
				}
			}
		})
	}
}

// TestChangedNotebookHoldsNoSecret has a cloud quote the login in a success.
func TestChangedNotebookHoldsNoSecret(t *testing.T) {
	p := newProvider(t, Config{}, func(*http.Request) (*http.Response, error) {
		return respond(200, `{"ret_code":0,"data":{"uuid":"nb-0123456789ab","reason":"login robot:hunter2 refused","secret":{"password":"hunter2"}}}`), nil
	})
	req := changeRequest()
	req.Credential = &upstream.RegistryCredential{Username: "robot", Password: upstream.NewSecret("hunter2")}
	got, err := p.ChangeImage(t.Context(), req)
	if err != nil || got.StateMessage != "login robot:[redacted] refused" || strings.Contains(fmt.Sprintf("%+v", got), "hunter2") {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestContext(t *testing.T) {
	calls := map[string]func(context.Context, *Provider) error{
		"list": func(ctx context.Context, p *Provider) error {
			_, err := p.List(ctx, "xb3")
			return err
		},
		"change image": func(ctx context.Context, p *Provider) error {
			_, err := p.ChangeImage(ctx, changeRequest())
			return err
		},
		"locations": func(ctx context.Context, p *Provider) error {
			_, err := p.Locations(ctx)
			return err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			p := newProvider(t, Config{}, func(*http.Request) (*http.Response, error) {
				t.Error("a request was sent")
				return nil, errors.New("no")
			})
			if err := call(ctx, p); !errors.Is(err, context.Canceled) || !upstream.IsContext(err) {
				t.Errorf("ended before: got %v", err)
			}
			if name == "locations" {
				return
			}
			ctx, cancel = context.WithCancel(t.Context())
			p = newProvider(t, Config{}, func(req *http.Request) (*http.Response, error) {
				cancel()
				<-req.Context().Done()
				return nil, req.Context().Err()
			})
			if err := call(ctx, p); !errors.Is(err, context.Canceled) || !upstream.IsContext(err) {
				t.Errorf("ended meanwhile: got %v", err)
			}
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				p := newProvider(t, Config{}, func(req *http.Request) (*http.Response, error) {
					<-req.Context().Done()
					return nil, req.Context().Err()
				})
				if err := call(t.Context(), p); upstream.KindOf(err) != upstream.KindTimeout || time.Since(start) != 10*time.Second {
					t.Errorf("no answer: got %v after %v", err, time.Since(start))
				}
			})
		})
	}
	t.Run("between pages", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		requests := 0
		page := make([]row, 0, 100)
		for i := range 100 {
			page = append(page, row{id: fmt.Sprintf("nb-%06d", i)})
		}
		p := newProvider(t, Config{}, func(*http.Request) (*http.Response, error) {
			requests++
			cancel()
			return respond(200, rowsJSON(page)), nil
		})
		if got, err := p.List(ctx, "xb3"); got != nil || !upstream.IsContext(err) || requests != 1 {
			t.Errorf("got %d notebooks, %v after %d requests", len(got), err, requests)
		}
	})
}

// TestBreaker has the whole way decide for every code whether it opens the
// breaker, for reads and for writes.
func TestBreaker(t *testing.T) {
	for _, tt := range codeTests {
		t.Run(strconv.Itoa(tt.code), func(t *testing.T) {
			p := newProvider(t, Config{}, func(*http.Request) (*http.Response, error) {
				return respond(200, fmt.Sprintf(`{"ret_code":%d,"message":"no","meta":{"X_REQUEST_ID":"d5ad2d69"}}`, tt.code)), nil
			})
			for range 5 { // as many as it takes by default
				_, err := p.List(t.Context(), "xb3")
				check(t, err, upstream.Error{Cloud: "core", Location: "xb3", Op: "list", Kind: tt.kind, Code: strconv.Itoa(tt.code), Message: "no", RequestID: "d5ad2d69", Sent: true})
				_, err = p.ChangeImage(t.Context(), changeRequest())
				check(t, err, upstream.Error{Cloud: "core", Location: "xb3", Op: "change_image", Kind: tt.kind, Code: strconv.Itoa(tt.code), Message: "no", RequestID: "d5ad2d69", Sent: true})
			}
			_, listErr := p.List(t.Context(), "xb3")
			_, changeErr := p.ChangeImage(t.Context(), changeRequest())
			for _, err := range []error{listErr, changeErr} {
				if open := upstream.KindOf(err) == upstream.KindCircuitOpen; open != tt.trips {
					t.Errorf("breaker open: %v, want %v", open, tt.trips)
				}
			}
		})
	}
}

func check(t *testing.T, err error, want upstream.Error) {
	t.Helper()
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok {
		t.Errorf("got %v, want an *upstream.Error", err)
		return
	}
	if diff := cmp.Diff(want, *e); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

func TestCapabilities(t *testing.T) {
	want := upstream.Capabilities{
		ChangeImage: upstream.ChangeImageInPlace, ImageTypes: []string{"official", "user", "custom"}, RegistryCredential: true,
	}
	if diff := cmp.Diff(want, newProvider(t, Config{}, nil).Capabilities()); diff != "" {
		t.Errorf("capabilities (-want +got):\n%s", diff)
	}
}
