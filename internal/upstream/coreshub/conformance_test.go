package coreshub_test

import (
	"os"
	"strings"
	"testing"

	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
	"github.com/notebookd/notebookd/internal/upstream/coreshub"
	"github.com/notebookd/notebookd/internal/upstream/upstreamtest"
)

// codes are what the cloud's own codes come to in both of its styles of errors.
// In the style of HTTP the code is the status, which does not always say as
// much.
var codes = map[string]struct{ code, http upstream.Kind }{
	"1100": {upstream.KindInvalid, upstream.KindInvalid},
	"1101": {upstream.KindUnsupported, upstream.KindUnsupported},
	"1200": {upstream.KindDenied, upstream.KindDenied},
	"1300": {upstream.KindDenied, upstream.KindDenied},
	"1400": {upstream.KindConflict, upstream.KindDenied}, // 403
	"2100": {upstream.KindNotFound, upstream.KindNotFound},
	"2400": {upstream.KindConflict, upstream.KindDenied}, // 401
	"2500": {upstream.KindThrottled, upstream.KindThrottled},
	"5000": {upstream.KindFault, upstream.KindFault},
	"5100": {upstream.KindUnavailable, upstream.KindUnavailable},
	"4242": {upstream.KindRejected, upstream.KindFault}, // nobody documents it; 500
}

// TestConformance runs the suite on every form in which the cloud may turn out
// to sign, to tell errors and to order lists.
func TestConformance(t *testing.T) {
	for i, tt := range []struct {
		name string
		cfg  func(*coreshub.Config)
		sim  func(*cloudsim.CoresHubSettings)
	}{
		{"as documented", nil, nil},
		{"errors by HTTP status, strict signature, newest first, smaller pages", nil, func(s *cloudsim.CoresHubSettings) {
			s.Errors, s.StrictSignature, s.NewestFirst, s.PageCap = "http", true, true, 50
		}},
		{
			"body signed, times with a zone", func(c *coreshub.Config) { c.SignBody = "md5" },
			func(s *cloudsim.CoresHubSettings) { s.SignBody, s.StrictSignature, s.Times = "md5", true, "zoned" },
		},
		{
			"signature encoded once, counts of a page", func(c *coreshub.Config) { c.SignEncode = "once" },
			func(s *cloudsim.CoresHubSettings) { s.Unset, s.Counts = "missing", "page" },
		},
		{
			// Two names of one namespace: every notebook comes twice.
			"namespaces, counts of nothing", func(c *coreshub.Config) {
				c.UserID, c.Namespaces = "", []string{strings.ToLower(cloudsim.CoresHubUserID), cloudsim.CoresHubUserID}
			},
			func(s *cloudsim.CoresHubSettings) { s.Unset, s.Counts = "empty", "zero" },
		},
	} {
		if i >= 2 && os.Getenv("NOTEBOOKD_WHOLE") == "" {
			break // the rest is for make campaign
		}
		t.Run(tt.name, func(t *testing.T) {
			upstreamtest.Run(t, func(t *testing.T, client *upstream.Client) upstreamtest.Subject {
				t.Helper()
				return subject(t, client, tt.cfg, tt.sim)
			})
		})
	}
}

func subject(
	t *testing.T, client *upstream.Client, configure func(*coreshub.Config), settle func(*cloudsim.CoresHubSettings),
) upstreamtest.Subject {
	t.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	sim := fleet.CoresHub
	sim.Set(func(s *cloudsim.CoresHubSettings) {
		s.Echo = true
		if settle != nil {
			settle(s)
		}
	})
	zone := cloudsim.CoresHubZones[0]
	cfg := coreshub.Config{
		Endpoint: fleet.URL("core"), Zones: cloudsim.CoresHubZones[:2], UserID: cloudsim.CoresHubUserID,
		AccessKeyID: upstream.NewSecret(cloudsim.CoresHubKeyID), SecretAccessKey: upstream.NewSecret(cloudsim.CoresHubSecret),
	}
	if configure != nil {
		configure(&cfg)
	}
	provider, err := coreshub.New(cfg, client)
	if err != nil {
		t.Fatal(err)
	}
	s := upstreamtest.Subject{
		Provider: provider, Simulator: sim, Location: zone, PageSize: sim.Settings().PageCap,
		Image: &upstream.ImageRequest{
			Location: zone, NotebookID: cloudsim.CoresHubNotebook, Namespace: strings.ToLower(cloudsim.CoresHubUserID),
			Image: "registry.example.com/team/conformance:1", ImageType: "custom",
			Credential: &upstream.RegistryCredential{Username: "robot", Password: upstream.NewSecret(`canary "registry" password`)},
		},
		Changes: func() int { return sim.Changes(cloudsim.CoresHubNotebook) },
		Secrets: []string{cloudsim.CoresHubKeyID, cloudsim.CoresHubSecret, "simulated-environment-value", "simulated-jupyter-token"},
	}
	byStatus := sim.Settings().Errors == "http"
	for code, kind := range codes {
		want := kind.code
		if byStatus {
			want = kind.http
		}
		s.Failures = append(s.Failures, upstreamtest.Failure{
			Name: "code " + code, Fault: cloudsim.Fault{Mode: cloudsim.ModeCode, Code: code}, Want: want,
		})
	}
	// These refusals repeat the request, with its signature and its password.
	s.Failures = append(s.Failures, upstreamtest.Failure{
		Name: "quota spent", Want: upstream.KindThrottled, Provoke: func() func() {
			sim.Set(func(s *cloudsim.CoresHubSettings) { s.Quota = 1 })
			_, _ = provider.List(t.Context(), zone) // spends it
			return func() { sim.Set(func(s *cloudsim.CoresHubSettings) { s.Quota = 0 }) }
		},
	})
	if cfg.SignEncode == "once" {
		s.Failures = append(s.Failures, upstreamtest.Failure{
			Name: "signature refused", Want: upstream.KindDenied, Provoke: func() func() {
				sim.Set(func(s *cloudsim.CoresHubSettings) { s.StrictSignature = true })
				return func() { sim.Set(func(s *cloudsim.CoresHubSettings) { s.StrictSignature = false }) }
			},
		})
	}
	return s
}
