package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// whole says that the long campaigns are to run in full (make campaign), instead
// of a representative part of each.
var whole = os.Getenv("NOTEBOOKD_WHOLE") != ""

// outage is something that a cloud does, and what callers see of it. The table
// in docs/resilience.md has the same rows.
type outage struct {
	name        string
	core, scnet cloudsim.Fault
	broken      func(config, url string) string // instead of a fault: a configuration that cannot work
	storm       bool                            // instead of a fault: tokens that end at once
	reason      string                          // of the location; empty when it stays LIVE
	change      string                          // what ChangeImage on CoresHub answers
	short       bool                            // a part of the default suite
}

func both(f cloudsim.Fault) (core, scnet cloudsim.Fault) { return f, f }

func outages() []outage {
	simple := func(name string, f cloudsim.Fault, reason, change string, short bool) outage {
		core, scnet := both(f)
		return outage{name: name, core: core, scnet: scnet, reason: reason, change: change, short: short}
	}
	const unknown = "`UNKNOWN` / `OUTCOME_UNKNOWN`"
	list := []outage{
		simple("answers later than `timeout`", cloudsim.Fault{Latency: cloudsim.Duration(5 * time.Second)}, "CLOUD_TIMEOUT", unknown, false),
		simple("never answers", cloudsim.Fault{Mode: cloudsim.ModeHang}, "CLOUD_TIMEOUT", unknown, true),
		simple("refuses connections", cloudsim.Fault{Mode: cloudsim.ModeRefuse}, "CLOUD_UNAVAILABLE", "`UNAVAILABLE` / `CLOUD_UNAVAILABLE`, not sent", true),
		simple("resets the connection", cloudsim.Fault{Mode: cloudsim.ModeReset}, "CLOUD_UNAVAILABLE", unknown, false),
		simple("breaks off in the middle of an answer", cloudsim.Fault{Mode: cloudsim.ModeCut}, "CLOUD_UNAVAILABLE", unknown, false),
		{
			name: "has a host name that does not resolve", reason: "CLOUD_UNAVAILABLE", change: "`UNAVAILABLE` / `CLOUD_UNAVAILABLE`, not sent",
			// Go refuses this name itself: no resolver is asked.
			broken: func(config, url string) string { return strings.ReplaceAll(config, url, "http://no..host") },
		},
		{
			name: "has a certificate that is not accepted", reason: "CLOUD_UNAVAILABLE", change: "`UNAVAILABLE` / `CLOUD_UNAVAILABLE`, not sent",
			broken: func(config, url string) string { return strings.ReplaceAll(config, url, untrusted()) },
		},
		simple("HTTP 500", cloudsim.Fault{Mode: cloudsim.ModeStatus, Status: 500}, "CLOUD_UNAVAILABLE", unknown, false),
		simple("HTTP 502 with a gateway's page", cloudsim.Fault{Mode: cloudsim.ModeHTML, Status: 502}, "CLOUD_UNAVAILABLE", unknown, true),
		simple("HTTP 503 with nothing", cloudsim.Fault{Mode: cloudsim.ModeEmpty, Status: 503}, "CLOUD_UNAVAILABLE", unknown, false),
		simple("HTTP 429 with `Retry-After`", cloudsim.Fault{Mode: cloudsim.ModeStatus, Status: 429, RetryAfter: 1}, "CLOUD_RATE_LIMITED",
			"`RESOURCE_EXHAUSTED` / `CLOUD_RATE_LIMITED`", true),
		simple("HTTP 200 with a page", cloudsim.Fault{Mode: cloudsim.ModeHTML}, "CLOUD_BAD_RESPONSE", unknown, false),
		simple("cut JSON", cloudsim.Fault{Mode: cloudsim.ModeHalf}, "CLOUD_BAD_RESPONSE", unknown, false),
		simple("JSON of other types", cloudsim.Fault{Mode: cloudsim.ModeTypes}, "CLOUD_BAD_RESPONSE", unknown, false),
		{
			name: "its own code for an internal error", core: cloudsim.Fault{Mode: cloudsim.ModeCode, Code: "5000"},
			scnet: cloudsim.Fault{Mode: cloudsim.ModeCode, Code: "10001"}, reason: "CLOUD_UNAVAILABLE", change: unknown, short: true,
		},
		{
			name: "its quota is exceeded", core: cloudsim.Fault{Mode: cloudsim.ModeCode, Code: "2500"},
			scnet: cloudsim.Fault{Mode: cloudsim.ModeStatus, Status: 429}, reason: "CLOUD_RATE_LIMITED", change: "`RESOURCE_EXHAUSTED` / `CLOUD_RATE_LIMITED`",
		},
		{name: "tokens end again and again (SCNet)", storm: true, change: "`SUCCEEDED`", short: true},
	}
	return list
}

// untrusted is the URL of a server whose certificate nobody knows. It stays up
// until the tests end.
var untrusted = func() func() string {
	var url string
	return func() string {
		if url == "" {
			url = httptest.NewTLSServer(nil).URL
		}
		return url
	}
}()

// reach is how much of the clouds is hit.
type reach struct {
	name      string
	core      bool // CoresHub is hit
	scnet     bool
	zone      string // only this location of CoresHub
	region    string // only this one of SCNet
	locations []string
}

var allLocations = []string{
	"clouds/core/locations/xb2", "clouds/core/locations/xb3", "clouds/scnet/locations/11250", "clouds/scnet/locations/20057",
}

var reaches = []reach{
	{name: "one location of CoresHub", core: true, zone: "xb3", locations: allLocations[1:2]},
	{name: "one location of SCNet", scnet: true, region: "20057", locations: allLocations[3:]},
	{name: "CoresHub", core: true, locations: allLocations[:2]},
	{name: "SCNet", scnet: true, locations: allLocations[2:]},
	{name: "everything", core: true, scnet: true, locations: allLocations},
}

// TestFaultMatrix: whatever a cloud does, and however much of the clouds does it,
// List, Watch and ChangeImage answer as docs/resilience.md says, and what is not
// hit is not touched.
func TestFaultMatrix(t *testing.T) {
	t.Parallel()
	docs, err := os.ReadFile("../../docs/resilience.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range outages() {
		reason := "none: it stays `LIVE`"
		if o.reason != "" {
			reason = "`" + o.reason + "`"
		}
		if row := fmt.Sprintf("| %s | %s | %s |", o.name, reason, o.change); !strings.Contains(string(docs), row+"\n") {
			t.Errorf("docs/resilience.md has no row\n%s", row)
		}
		for i, r := range reaches {
			if !whole && (!o.short || i != 0 && i != 4) || o.broken != nil && (r.zone != "" || r.region != "") || o.storm && !r.scnet {
				continue
			}
			// On one host a single location cannot refuse connections.
			if o.core.Mode == cloudsim.ModeRefuse && r.zone != "" {
				continue
			}
			t.Run(o.name+"/"+r.name, func(t *testing.T) {
				t.Parallel()
				runOutage(t, o, r)
			})
		}
	}
}

func runOutage(t *testing.T, o outage, r reach) {
	t.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	config := fleet.ServerConfig()
	if o.broken != nil {
		if r.core {
			config = o.broken(config, fleet.URL("core"))
		}
		if r.scnet {
			config = o.broken(config, fleet.URL("scnet"))
		}
	}
	p := start(t, strings.ReplaceAll(config, "poll: {fast: 1s, normal: 2s, idle: 5s}",
		"poll: {fast: 200ms, normal: 200ms, idle: 200ms}\n    timeout: 2s\n    breaker: {min_requests: 1000000}"))
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	if o.broken == nil {
		hit(o, r, fleet)
	}
	hitLocation := func(name string) bool { return o.reason != "" && slices.Contains(r.locations, name) }

	// The locations: hit ones get their reason, the others stay LIVE. A login
	// that fails says so of its cloud.
	states := map[string]*notebookv1.Location{}
	var unreachable []string
	p.until(t, "the outage is seen", func() bool {
		clouds, err := p.clouds.ListClouds(ctx, &notebookv1.ListCloudsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		unreachable = nil
		for _, c := range clouds.GetClouds() {
			if o.broken != nil && len(c.GetLocations()) == 0 {
				if got := strings.TrimPrefix(c.GetReason().String(), "ERROR_REASON_"); got != o.reason {
					t.Fatalf("%s: reason %s, want %s", c.GetName(), got, o.reason)
				}
				unreachable = append(unreachable, c.GetName())
			}
			for _, l := range c.GetLocations() {
				states[l.GetName()] = l
			}
		}
		for _, name := range allLocations {
			l := states[name]
			if l == nil {
				continue
			}
			if hitLocation(name) && l.GetState() != notebookv1.Location_STATE_UNREACHABLE {
				return false
			}
			if !hitLocation(name) && l.GetState() != notebookv1.Location_STATE_LIVE && !o.storm {
				t.Fatalf("%s is %v, though it was not hit", name, l)
			}
		}
		return true
	})
	for _, name := range r.locations {
		l := states[name]
		if l == nil || !hitLocation(name) {
			continue
		}
		unreachable = append(unreachable, name)
		if got := strings.TrimPrefix(l.GetReason().String(), "ERROR_REASON_"); got != o.reason {
			t.Errorf("%s: reason %s, want %s", name, got, o.reason)
		}
	}
	slices.Sort(unreachable)

	// List: all that is known, and what cannot be reached by name.
	known := 0
	resp, err := p.List(ctx, &notebookv1.ListRequest{PageSize: 1000})
	switch nothing := o.broken != nil && r.core && r.scnet; {
	case nothing:
		wantReason(t, "List", err, codes.Unavailable, o.reason)
	case err != nil:
		t.Fatal(err)
	default:
		known = 32
		if o.broken != nil {
			known = 16
		}
		got := slices.Clone(resp.GetUnreachable())
		slices.Sort(got)
		if !slices.Equal(got, unreachable) || len(resp.GetNotebooks()) != known {
			t.Errorf("List: %d notebooks, want %d; unreachable %v, want %v", len(resp.GetNotebooks()), known, got, unreachable)
		}
	}

	// Watch: at once, whole, and with the same word on each location.
	stream, err := p.Watch(ctx, &notebookv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	rows, told := 0, 0
	frames(t, stream, func(f *notebookv1.WatchResponse) bool {
		switch e := f.GetEvent().(type) {
		case *notebookv1.WatchResponse_Location:
			if hitLocation(e.Location.GetName()) && e.Location.GetState() == notebookv1.Location_STATE_UNREACHABLE {
				told++
			}
		case *notebookv1.WatchResponse_Notebook:
			rows++
		}
		return f.GetBookmark().GetKind() == notebookv1.Bookmark_KIND_SNAPSHOT_END
	})
	if rows != known || told < len(slices.DeleteFunc(slices.Clone(unreachable), func(n string) bool { return strings.Count(n, "/") == 1 })) {
		t.Errorf("Watch: %d rows, want %d; %d locations said to be unreachable of %v", rows, known, told, unreachable)
	}

	// ChangeImage, on a notebook that is hit or not.
	if o.broken != nil && r.core && r.zone == "" {
		states["clouds/core/locations/xb3"] = nil
	}
	changeCtx, cancelChange := context.WithTimeout(ctx, 6*time.Second)
	defer cancelChange()
	changed, err := p.ChangeImage(changeCtx, &notebookv1.ChangeImageRequest{
		Name: "clouds/core/locations/xb3/notebooks/" + cloudsim.CoresHubNotebook, Image: "registry.example.com/team/matrix:1", ImageType: "custom",
	})
	if !r.core || o.storm {
		if err != nil || changed.GetChange().GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED {
			t.Errorf("ChangeImage on what is not hit: %v, %v", changed, err)
		}
	} else {
		code, reason := status.Code(err), reasonOf(err)
		want := o.change
		if got := fmt.Sprintf("`%s` / `%s`", strings.ToUpper(snake(code.String())), reason); !strings.HasPrefix(want, got) {
			t.Errorf("ChangeImage: %s, want %s (%v)", got, want, err)
		}
		if n := fleet.CoresHub.Calls("change_image"); n > 1 || strings.HasSuffix(want, "not sent") && n != 0 {
			t.Errorf("ChangeImage was sent %d times", n)
		}
	}

	if o.broken != nil {
		return
	}
	// And back.
	fleet.CoresHub.Heal()
	fleet.SCNet.Heal()
	fleet.SCNet.Set(func(s *cloudsim.SCNetSettings) { s.TokenLifetime = cloudsim.Duration(time.Hour) })
	p.until(t, "all is well again", func() bool {
		resp, err := p.List(ctx, &notebookv1.ListRequest{PageSize: 1000})
		return err == nil && len(resp.GetUnreachable()) == 0 && len(resp.GetNotebooks()) == 32
	})
}

func hit(o outage, r reach, fleet *cloudsim.Fleet) {
	if o.storm {
		fleet.SCNet.Set(func(s *cloudsim.SCNetSettings) { s.TokenLifetime = cloudsim.Duration(time.Millisecond) })
		fleet.SCNet.Expire()
		fleet.SCNet.Set(func(s *cloudsim.SCNetSettings) { s.TokenLifetime = cloudsim.Duration(300 * time.Millisecond) })
		return
	}
	if r.core {
		o.core.Location = r.zone
		fleet.CoresHub.Break(o.core)
	}
	if r.scnet {
		o.scnet.Location = r.region
		fleet.SCNet.Break(o.scnet)
	}
}

func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func wantReason(t *testing.T, what string, err error, code codes.Code, reason string) {
	t.Helper()
	if status.Code(err) != code || reasonOf(err) != reason {
		t.Errorf("%s: %v / %s, want %v / %s", what, status.Code(err), reasonOf(err), code, reason)
	}
}

// snake turns a Go name of a code into its words.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return b.String()
}
