package scnet_test

import (
	"os"
	"testing"
	"time"

	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
	"github.com/notebookd/notebookd/internal/upstream/scnet"
	"github.com/notebookd/notebookd/internal/upstream/upstreamtest"
)

// codes are what the cloud's own codes come to in a list.
var codes = map[string]upstream.Kind{
	"10001":  upstream.KindFault,
	"10003":  upstream.KindInvalid,
	"10004":  upstream.KindInvalid,
	"10007":  upstream.KindDenied,
	"10009":  upstream.KindDenied,
	"10012":  upstream.KindUnavailable,
	"716020": upstream.KindFault,
	"816822": upstream.KindNotFound,
	"817140": upstream.KindConflict,
	"818218": upstream.KindDenied,
	"424242": upstream.KindRejected, // nobody documents it
}

// TestConformance runs the suite with both ways to get a token, on every form
// in which the cloud may turn out to answer.
func TestConformance(t *testing.T) {
	for i, tt := range []struct {
		name  string
		login bool // else the token of a region is configured
		page  int  // rows of a full page, if not 100
		sim   func(*cloudsim.SCNetSettings)
	}{
		{name: "login", login: true, sim: func(*cloudsim.SCNetSettings) {}},
		{name: "region token, list beside a total", sim: func(s *cloudsim.SCNetSettings) { s.Envelope, s.Spelling, s.NumbersAsText = "C", "table", true }},
		{name: "login, bare list, stale tokens by HTTP status", login: true, sim: func(s *cloudsim.SCNetSettings) {
			s.Envelope, s.StaleStatus, s.AIURL, s.NumbersAsText, s.Missing = "D", 401, "bare", true, "10004"
		}},
		{name: "region token, short pages, last page repeated", page: 50, sim: func(s *cloudsim.SCNetSettings) { s.PageCap, s.RepeatLast, s.Missing = 50, true, "10001" }},
		{name: "login, oldest first", login: true, sim: func(s *cloudsim.SCNetSettings) {
			s.OldestFirst, s.AIURL, s.Spelling, s.SingleLogin = true, "slash", "table", true
		}},
	} {
		if i >= 2 && os.Getenv("NOTEBOOKD_WHOLE") == "" {
			break // the rest is for make campaign
		}
		t.Run(tt.name, func(t *testing.T) {
			upstreamtest.Run(t, func(t *testing.T, client *upstream.Client) upstreamtest.Subject {
				t.Helper()
				s := subject(t, client, tt.login, tt.sim)
				s.PageSize = tt.page
				return s
			})
		})
	}
}

func subject(t *testing.T, client *upstream.Client, login bool, settle func(*cloudsim.SCNetSettings)) upstreamtest.Subject {
	t.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	sim := fleet.SCNet
	sim.Set(func(s *cloudsim.SCNetSettings) { s.Echo = true; settle(s) })
	region := cloudsim.SCNetRegions[0]
	s := upstreamtest.Subject{
		Simulator: sim, Location: region,
		Secrets: []string{cloudsim.SCNetAccessKey, cloudsim.SCNetSecretKey, cloudsim.SCNetPassword},
	}
	var cfg scnet.Config
	// A token that is refused is replaced once, if there is a login.
	attempts := 1
	if login {
		attempts = 2
		cfg = scnet.Config{
			LoginEndpoint: fleet.URL("scnet"), PlatformEndpoint: fleet.URL("scnet"), User: cloudsim.SCNetUser,
			AccessKey: upstream.NewSecret(cloudsim.SCNetAccessKey), SecretKey: upstream.NewSecret(cloudsim.SCNetSecretKey),
		}
	} else {
		token := sim.Token(region)
		cfg = scnet.Config{Regions: []scnet.Region{{ID: region, Endpoint: fleet.URL(region), Token: upstream.NewSecret(token)}}}
		s.Secrets = append(s.Secrets, token)
	}
	if s.Provider, err = scnet.New(cfg, client); err != nil {
		t.Fatal(err)
	}
	fail := func(f ...upstreamtest.Failure) { s.Failures = append(s.Failures, f...) }
	for code, kind := range codes {
		fail(upstreamtest.Failure{Name: "code " + code, Fault: cloudsim.Fault{Mode: cloudsim.ModeCode, Code: code}, Want: kind})
	}
	fail(
		upstreamtest.Failure{Name: "HTTP 401", Want: upstream.KindDenied, Calls: attempts},
		upstreamtest.Failure{Name: "HTTP 403", Want: upstream.KindDenied, Calls: attempts},
		// The gateway of a region without an AI service knows none of its paths.
		upstreamtest.Failure{Name: "HTTP 404", Want: upstream.KindDisabled},
		upstreamtest.Failure{
			Name: "code 10008", Fault: cloudsim.Fault{Mode: cloudsim.ModeCode, Code: "10008"}, Want: upstream.KindDenied, Calls: attempts,
		},
		// The clock runs on until every token has ended. The answers repeat the
		// token, and the signature of the login.
		upstreamtest.Failure{Name: "tokens ended", Want: upstream.KindDenied, Provoke: func() func() {
			sim.Set(func(s *cloudsim.SCNetSettings) { s.ClockSkew = cloudsim.Duration(5 * time.Hour) })
			return func() { sim.Set(func(s *cloudsim.SCNetSettings) { s.ClockSkew = 0 }) }
		}},
	)
	if login {
		fail(
			upstreamtest.Failure{
				Name: "login down", Fault: cloudsim.Fault{Op: "login", Mode: cloudsim.ModeStatus, RetryAfter: 3},
				Want: upstream.KindUnavailable, RetryAfter: 3 * time.Second, Cold: true, Calls: upstreamtest.None,
			},
			upstreamtest.Failure{
				Name: "login refused", Cold: true, Calls: upstreamtest.None, Want: upstream.KindDenied,
				Text: "the clock here differs from the cloud's", Provoke: func() func() {
					sim.Set(func(s *cloudsim.SCNetSettings) { s.ClockSkew = cloudsim.Duration(time.Hour) })
					return func() { sim.Set(func(s *cloudsim.SCNetSettings) { s.ClockSkew = 0 }) }
				},
			},
			upstreamtest.Failure{
				Name: "address unknown", Fault: cloudsim.Fault{Op: "center", Mode: cloudsim.ModeHTML},
				Want: upstream.KindBadResponse, Cold: true, Calls: upstreamtest.None,
			},
		)
	}
	return s
}
