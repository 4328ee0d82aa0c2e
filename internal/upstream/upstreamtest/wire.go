package upstreamtest

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/notebookd/notebookd/internal/upstream"
)

// wire is the transport of a client under test. It counts the requests and
// remembers the credentials in them, which may be in no error and no notebook.
type wire struct {
	pool *http.Transport

	mu       sync.Mutex // guards what is below
	requests int
	sent     map[string]bool // credentials, in every form in which they may be echoed
}

func newWire() *wire {
	return &wire{pool: &http.Transport{MaxConnsPerHost: 16, MaxIdleConnsPerHost: 4}, sent: map[string]bool{}}
}

// credential is how headers and parameters with credentials are called.
var credential = regexp.MustCompile(`(?i)signature|token|secret|password|key|authorization`)

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests++
	for _, fields := range []map[string][]string{req.Header, req.URL.Query()} {
		for name, values := range fields {
			if !credential.MatchString(name) {
				continue
			}
			for _, value := range values {
				w.sent[value], w.sent[url.QueryEscape(value)] = true, true
				if plain, err := url.QueryUnescape(value); err == nil {
					w.sent[plain] = true
				}
			}
		}
	}
	w.mu.Unlock()
	return w.pool.RoundTrip(req)
}

// CloseIdleConnections is what upstream.Client.Close calls.
func (w *wire) CloseIdleConnections() { w.pool.CloseIdleConnections() }

// count returns how many requests were made so far.
func (w *wire) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests
}

// checkClean looks for credentials in text.
func (r *rig) checkClean(t *testing.T, where, text string) {
	t.Helper()
	r.wire.mu.Lock()
	defer r.wire.mu.Unlock()
	for secret := range r.wire.sent {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows a credential that was sent, %q:\n%s", where, secret, text)
		}
	}
	for _, secret := range r.Secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows %q:\n%s", where, secret, text)
		}
	}
}

// asError returns the *upstream.Error that err has to be.
func asError(t *testing.T, err error) *upstream.Error {
	t.Helper()
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok {
		t.Errorf("error %v (%T), want an *upstream.Error", err, err)
	}
	return e
}

// checkError compares an error with what has to come of a failure.
func (r *rig) checkError(t *testing.T, err error, f Failure, sent bool) {
	t.Helper()
	e := asError(t, err)
	if e == nil {
		return
	}
	if e.Kind != f.Want || e.RetryAfter != f.RetryAfter {
		t.Errorf("kind %v, retry after %v, want %v and %v: %v", e.Kind, e.RetryAfter, f.Want, f.RetryAfter, err)
	}
	if e.Cloud != account || e.Location != r.Location || e.Op == "" {
		t.Errorf("cloud %q, location %q, op %q: %v", e.Cloud, e.Location, e.Op, err)
	}
	if e.Sent != sent || upstream.MaySent(err) != sent {
		t.Errorf("sent = %v, want %v: %v", e.Sent, sent, err)
	}
	if !strings.Contains(err.Error(), f.Text) {
		t.Errorf("%q does not say %q", err, f.Text)
	}
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		r.checkClean(t, "the error", fmt.Sprintf("%s\n%+v\n%#v", cause, cause, cause))
	}
	// The fields themselves, of which Error leaves some out.
	r.checkClean(t, "the error", fmt.Sprintf("%+v", *e))
}
