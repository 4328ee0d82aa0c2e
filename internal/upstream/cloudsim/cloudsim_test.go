package cloudsim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func startFleet(t *testing.T, cfg Config) *Fleet {
	t.Helper()
	f, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// TestStoryFollowsTheSeed: the same seed and clock give the same story.
func TestStoryFollowsTheSeed(t *testing.T) {
	tell := func(seed uint64) string {
		now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
		cfg := Config{Seed: seed, Now: func() time.Time { return now }}
		core, scnet := NewCoresHub(cfg), NewSCNet(cfg)
		for range 200 {
			now = now.Add(3 * time.Second)
			core.Step()
			scnet.Step()
		}
		return fmt.Sprint(core.Truth("xb3"), core.Truth("xb2"), scnet.Truth("11250"), scnet.Truth("20057"))
	}
	if diff := cmp.Diff(tell(7), tell(7)); diff != "" {
		t.Errorf("one seed, two stories:\n%s", diff)
	}
	if tell(7) == tell(8) {
		t.Error("two seeds, one story")
	}
}

// TestStoryIsLively: everything that can happen to a notebook does, and the
// ones of the vendors' examples stay.
func TestStoryIsLively(t *testing.T) {
	c := NewCoresHub(Config{Seed: 1})
	seen := map[string]bool{}
	known := map[string]bool{}
	gone := false
	for range 500 {
		c.Step()
		now := map[string]bool{}
		for _, n := range c.Truth("xb3") {
			seen[n.State] = true
			now[n.ID] = true
		}
		for id := range known {
			gone = gone || !now[id]
		}
		known = now
	}
	for _, state := range []string{"creating", "starting", "running", "stopping", "stopped", "failed"} {
		if !seen[state] {
			t.Errorf("nothing was ever %s", state)
		}
	}
	if !gone {
		t.Error("nothing ever went away")
	}
	if n := len(known); n < 4 || n > 16 {
		t.Errorf("%d notebooks after 500 steps, want about 8", n)
	}
	if !known[CoresHubNotebook] {
		t.Error("the notebook of the vendor's example is gone")
	}
}

// TestFaults looks at every mode from the side of a caller.
func TestFaults(t *testing.T) {
	f := startFleet(t, Config{})
	client := &http.Client{Timeout: 200 * time.Millisecond, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	get := func() (int, string, http.Header, error) {
		resp, err := client.Get(f.URL("core") + "/aicp/notebooks/namespaces/usr-5hy8xxxx/notebooks?zone=xb3")
		if err != nil {
			return 0, "", nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 100<<20))
		return resp.StatusCode, string(body), resp.Header, err
	}
	const unsigned = `"message":"signature is missing"`
	for _, tt := range []struct {
		name  string
		fault Fault
		want  func(status int, body string, h http.Header, err error) bool
	}{
		{"latency", Fault{Latency: Duration(20 * time.Millisecond)}, func(status int, body string, _ http.Header, err error) bool {
			return err == nil && status == 200 && strings.Contains(body, unsigned)
		}},
		{"hang", Fault{Mode: ModeHang}, func(_ int, _ string, _ http.Header, err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		{"reset", Fault{Mode: ModeReset}, func(_ int, _ string, _ http.Header, err error) bool { return errors.Is(err, syscall.ECONNRESET) }},
		{"refuse", Fault{Mode: ModeRefuse}, func(_ int, _ string, _ http.Header, err error) bool {
			return errors.Is(err, syscall.ECONNREFUSED)
		}},
		{"cut", Fault{Mode: ModeCut}, func(status int, _ string, _ http.Header, err error) bool {
			return status == 200 && errors.Is(err, io.ErrUnexpectedEOF)
		}},
		{"half", Fault{Mode: ModeHalf}, func(status int, body string, _ http.Header, err error) bool {
			return err == nil && status == 200 && body != "" && !json.Valid([]byte(body))
		}},
		{"html", Fault{Mode: ModeHTML}, func(status int, body string, _ http.Header, _ error) bool {
			return status == 200 && strings.HasPrefix(body, "<html>")
		}},
		{"html of a gateway", Fault{Mode: ModeHTML, Status: 502}, func(status int, body string, _ http.Header, _ error) bool {
			return status == 502 && strings.HasPrefix(body, "<html>")
		}},
		{"empty", Fault{Mode: ModeEmpty}, func(status int, body string, _ http.Header, err error) bool {
			return err == nil && status == 200 && body == ""
		}},
		{"types", Fault{Mode: ModeTypes}, func(status int, body string, _ http.Header, _ error) bool {
			return status == 200 && json.Valid([]byte(body))
		}},
		{"status", Fault{Mode: ModeStatus, Status: 429, RetryAfter: 7}, func(status int, _ string, h http.Header, _ error) bool {
			return status == 429 && h.Get("Retry-After") == "7"
		}},
		{"code", Fault{Mode: ModeCode, Code: "5100"}, func(status int, body string, _ http.Header, _ error) bool {
			return status == 200 && strings.Contains(body, `"ret_code":5100`)
		}},
		{"huge", Fault{Mode: ModeHuge}, func(_ int, body string, _ http.Header, _ error) bool { return len(body) > 16<<20 }},
		{"bomb", Fault{Mode: ModeBomb}, func(_ int, body string, _ http.Header, _ error) bool { return len(body) > 16<<20 }},
		{"another operation", Fault{Mode: ModeHTML, Op: "change_image"}, func(_ int, body string, _ http.Header, _ error) bool {
			return strings.Contains(body, unsigned)
		}},
		{"another location", Fault{Mode: ModeHTML, Location: "xb2"}, func(_ int, body string, _ http.Header, _ error) bool {
			return strings.Contains(body, unsigned)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.CoresHub.Break(tt.fault)
			if tt.fault.Mode == ModeRefuse {
				client.CloseIdleConnections() // those that are open are reset instead
			}
			client.Timeout = 200 * time.Millisecond
			if tt.fault.Mode == ModeHuge || tt.fault.Mode == ModeBomb {
				client.Timeout = 20 * time.Second
			}
			status, body, h, err := get()
			if !tt.want(status, body, h, err) {
				t.Errorf("HTTP %d, %.80q, %v", status, body, err)
			}
			f.CoresHub.Heal()
			client.Timeout = 20 * time.Second
			if status, body, _, err := get(); err != nil || status != 200 || !strings.Contains(body, unsigned) {
				t.Errorf("after it was healed: HTTP %d, %.80q, %v", status, body, err)
			}
		})
	}
	t.Run("times", func(t *testing.T) {
		f.CoresHub.Break(Fault{Mode: ModeEmpty, Times: 2})
		for i, want := range []bool{true, true, false} {
			if _, body, _, err := get(); err != nil || (body == "") != want {
				t.Errorf("call %d: %.80q, %v", i, body, err)
			}
		}
	})
	t.Run("share", func(t *testing.T) {
		f.CoresHub.Break(Fault{Mode: ModeEmpty, Share: 0.5})
		hit := 0
		for range 200 {
			if _, body, _, _ := get(); body == "" {
				hit++
			}
		}
		if hit < 60 || hit > 140 {
			t.Errorf("%d of 200 calls were hit, want about half", hit)
		}
		f.CoresHub.Heal()
	})
}

// TestControl switches things as a person would, and gets things wrong.
func TestControl(t *testing.T) {
	f := startFleet(t, Config{})
	call := func(method, path, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, f.ControlURL()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		data, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(data)
	}
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/", "", 200, `"kind": "scnet"`},
		{"GET", "/core", "", 200, `"xb3": 8`},
		{"GET", "/none", "", 404, "no such cloud"},
		{"POST", "/core/faults", `{"mode": "hang", "latency": "5s"}`, 200, `"latency": "5s"`},
		{"POST", "/core/faults", `{"mode": "sulk"}`, 400, `mode "sulk" is none of`},
		{"POST", "/core/faults", `{"mood": "hang"}`, 400, "unknown field"},
		{"POST", "/core/faults", `{"mode": "code"}`, 400, "needs a code"},
		{"POST", "/core/faults", `{"mode": "refuse", "op": "list"}`, 400, "concerns all calls"},
		{"POST", "/core/faults", `{"share": 2}`, 400, "share must be"},
		{"POST", "/core/faults", `{} {}`, 400, "more than one"},
		{"DELETE", "/core/faults", "", 200, "[]"},
		{"PATCH", "/scnet/settings", `{"envelope": "C"}`, 200, `"envelope": "C"`},
		{"PATCH", "/scnet/settings", `{"regions": {"20057": "no-token"}}`, 200, `"20091": "no-ai"`},
		{"PATCH", "/scnet/settings", `{"regions": {"1": "gone"}}`, 400, "no region"},
		{"PATCH", "/scnet/settings", `{"envelope": "Z"}`, 400, "must be one of A, B, C, D"},
		{"PATCH", "/core/settings", `{"page_cap": 0}`, 400, "page_cap must be from 1"},
		{"GET", "/core/truth/xb3", "", 200, CoresHubNotebook},
		{"POST", "/core/step?count=3", "", 200, "xb3"},
		{"POST", "/core/step?count=0", "", 400, "count must be"},
		{"POST", "/scnet/renames?n=3&rate=1000", "", 200, "ok"},
		{"POST", "/core/renames?n=0", "", 400, "n must be"},
		{"POST", "/core/renames?location=nowhere", "", 400, "no such location"},
		{"POST", "/core/renames?rate=-1", "", 400, "rate must be"},
		{"POST", "/core/renames?rate=NaN", "", 400, "rate must be"},
		{"POST", "/scnet/expire", "", 200, "ended"},
	} {
		if status, body := call(tt.method, tt.path, tt.body); status != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s %s %s: %d %s, want %d with %q", tt.method, tt.path, tt.body, status, body, tt.status, tt.want)
		}
	}
	if s := f.SCNet.Settings(); s.Envelope != "C" || s.Regions["20057"] != "no-token" {
		t.Errorf("settings = %+v", s)
	}
}

// TestRenames: notebooks of all locations are renamed in turn, when their time has
// come, and a name tells when it was first read.
func TestRenames(t *testing.T) {
	w := newCoresHub(Config{Notebooks: 3}.withDefaults()).world
	w.rename("", 5, 0)
	if !w.rename(CoresHubZones[0], 1, 0) || w.rename("nowhere", 1, 0) {
		t.Error("locations are not told apart")
	}
	w.places[0].renames = append(w.places[0].renames, time.Now().Add(time.Hour))
	began := time.Now()
	stamps := func(p *place) (n int) {
		p.renameLocked(time.Now())
		body := w.stampLocked(p)([]byte("a " + unstamped + " b"))
		if bytes.Contains(body, []byte(unstamped)) || len(body) != len("a "+unstamped+" b") {
			t.Errorf("body %s", body)
		}
		for _, n2 := range p.list {
			_, stamp, ok := strings.Cut(n2.name, " @t=")
			if !ok {
				continue
			}
			ns, err := strconv.ParseInt(stamp, 10, 64)
			if at := time.Unix(0, ns); err != nil || len(stamp) != 19 || at.Before(began.Add(-time.Second)) || at.After(time.Now()) {
				t.Errorf("name %q", n2.name)
			}
			n++
		}
		return n
	}
	if a, b := stamps(w.places[0]), stamps(w.places[1]); a != 3 || b != 2 { // of 1+3 and 2: the fourth names the first again
		t.Errorf("%d and %d were renamed", a, b)
	}
	if w.stampLocked(w.places[0]) != nil {
		t.Error("there is something left to stamp")
	}
	if len(w.places[0].renames) != 1 {
		t.Errorf("%d are still to come", len(w.places[0].renames))
	}
}

// TestRefusingPortIsKept: no other program is given the port of a cloud that refuses
// connections, so that nobody answers in its place, and it comes back there.
func TestRefusingPortIsKept(t *testing.T) {
	f := startFleet(t, Config{})
	url := f.urls[coresHubName]
	address, err := net.ResolveTCPAddr("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	f.CoresHub.Break(Fault{Mode: ModeRefuse})
	// Of an address that was never connected to: what is left of a connection would
	// keep the port, too.
	other := net.Dialer{LocalAddr: address}
	conn, err := other.Dial("tcp", strings.TrimPrefix(f.ControlURL(), "http://"))
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("another program got the port: %v", err)
	}
	if err == nil {
		_ = conn.Close()
	}
	f.CoresHub.Heal()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatalf("after it was healed: %v", err)
	}
	_ = resp.Body.Close()
}

// TestUnsignedCallsAreRefused: nothing is answered without the right key, and
// what is refused changes nothing.
func TestUnsignedCallsAreRefused(t *testing.T) {
	c := NewCoresHub(Config{})
	for _, query := range []string{
		"zone=xb3", "zone=xb3&access_key_id=" + CoresHubKeyID, "zone=xb3&access_key_id=" + CoresHubKeyID + "&signature=x",
		"zone=xb3&access_key_id=other&signature=x", "zone=xb3&signature=x&signature=y", "%zz",
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/aicp/notebooks/namespaces/usr-5hy8xxxx/notebooks/change_image",
			bytes.NewReader([]byte(`{"image":"i","image_type":"custom","uuid":"`+CoresHubNotebook+`"}`)))
		r.URL.RawQuery = query
		c.ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), `"ret_code":1200`) {
			t.Errorf("%s: %s", query, w.Body)
		}
	}
	if c.Changes(CoresHubNotebook) != 0 {
		t.Error("an unsigned call changed an image")
	}
}

// TestSCNetAsksForATokenOfTheRegion: neither no token, nor one that has ended, nor that of
// another region opens a region.
func TestSCNetAsksForATokenOfTheRegion(t *testing.T) {
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	c := NewSCNet(Config{Now: func() time.Time { return now }})
	list := func(region, token string) string {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/ai/openapi/v2/notebook/list", nil)
		r.Header.Set("token", token)
		c.region(region).ServeHTTP(w, r)
		return w.Body.String()
	}
	token := c.Token("11250")
	if body := list("11250", token); !strings.Contains(body, `"code":"0"`) {
		t.Errorf("with its token: %s", body)
	}
	if body := list("20057", token); !strings.Contains(body, `"code":"818218"`) {
		t.Errorf("with a token of another region: %s", body)
	}
	if body := list("11250", ""); !strings.Contains(body, `"code":"10008"`) {
		t.Errorf("without a token: %s", body)
	}
	now = now.Add(5 * time.Hour)
	if body := list("11250", token); !strings.Contains(body, `"code":"10008"`) {
		t.Errorf("with a token that has ended: %s", body)
	}
}
