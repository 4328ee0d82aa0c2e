package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	// fetchLimit is how long the keys of an issuer may take to come.
	fetchLimit = 5 * time.Second
	// maxAnswer is how long an answer of an issuer may be.
	maxAnswer = 1 << 20
	// maxRedirects is how often an issuer may send elsewhere.
	maxRedirects = 3
	// fetchPause is the least time between two fetches, unless one failed: a key that
	// is not known may be new, but whoever makes tokens up can name one each time.
	fetchPause = 10 * time.Second
	// retryFirst is when a fetch that failed is tried again, at the earliest. It
	// doubles with each failure, up to fetchPause.
	retryFirst = time.Second
	// refreshAfter is the age from which keys are fetched again: those that an issuer
	// has withdrawn are not good any more. Until they have come, the old ones are.
	refreshAfter = 10 * time.Minute
	// trustFor is how long keys are good when the issuer cannot be reached.
	trustFor = 24 * time.Hour
)

type key = jose.JSONWebKey

// keyRing is the keys of an issuer as of one fetch. It does not change.
type keyRing struct {
	keys    []key
	fetched time.Time
}

// keySet keeps the keys of an issuer. oidc.RemoteKeySet would do most of it, but it
// asks the issuer for every bad signature, and never forgets a key.
type keySet struct {
	now      func() time.Time
	log      *slog.Logger
	fetch    func() ([]key, error) // bounded in time
	fetching *sync.WaitGroup       // who waits for goroutines

	ring atomic.Pointer[keyRing] // nil before the first fetch that succeeded; stored under mu

	mu       sync.Mutex // guards what is below
	running  chan struct{}
	next     time.Time // no fetch begins before
	failures int       // since the last success
	err      error     // of the last fetch
	closed   bool
}

// current returns keys that can be relied on, or nil. It does not wait, and begins a
// fetch when one is due.
func (s *keySet) current() *keyRing {
	ring := s.ring.Load()
	if ring == nil {
		return nil
	}
	age := s.now().Sub(ring.fetched)
	if age >= refreshAfter {
		s.begin(ring)
	}
	if age >= trustFor {
		return nil
	}
	return ring
}

// trusted is current, but waits for keys when there are none.
func (s *keySet) trusted(ctx context.Context) (*keyRing, error) {
	if ring := s.current(); ring != nil {
		return ring, nil
	}
	ring := s.ring.Load() // none, or too old
	return s.after(ctx, s.begin(ring), ring)
}

// newer returns the keys that an issuer has now, when those of ring do not do. It is
// the same ring again when that is new enough.
func (s *keySet) newer(ctx context.Context, ring *keyRing) (*keyRing, error) {
	return s.after(ctx, s.begin(ring), ring)
}

// begin begins a fetch, unless one is under way or it is too early. The channel is
// closed when the fetch is over; it is nil when there is none. Nothing is begun
// when ring is not the newest.
func (s *keySet) begin(ring *keyRing) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil || s.closed || s.ring.Load() != ring || s.now().Before(s.next) {
		return s.running
	}
	done := make(chan struct{}) // closed by the goroutine when it ends
	s.running = done
	s.fetching.Go(func() { // ends with the fetch, which is bounded
		defer close(done)
		keys, err := s.fetch()
		s.end(keys, err)
	})
	return done
}

func (s *keySet) end(keys []key, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.running, s.err = nil, err
	if err != nil {
		s.next = now.Add(min(retryFirst<<min(s.failures, 8), fetchPause))
		s.failures++
		s.log.Warn("keys of the issuer could not be fetched", "error", err)
		return
	}
	if s.failures > 0 {
		s.log.Info("keys of the issuer are fetched again")
	}
	s.failures, s.next = 0, now.Add(fetchPause)
	s.ring.Store(&keyRing{keys, now})
}

// after waits for a fetch that done tells of, and returns the newest keys. They may
// be those of ring only if the issuer said lately that there are no others.
func (s *keySet) after(ctx context.Context, done <-chan struct{}, ring *keyRing) (*keyRing, error) {
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch newest := s.ring.Load(); {
	case newest != nil && newest != ring:
		return newest, nil
	case s.err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, s.err)
	case newest == nil || s.closed:
		return nil, fmt.Errorf("%w: the gate is closed", ErrUnavailable)
	default:
		return newest, nil
	}
}

func (s *keySet) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// verify returns what was signed by a key of the ring. known says that the key that
// the signature names is there.
func (r *keyRing) verify(jws *jose.JSONWebSignature) (payload []byte, known bool) {
	header := jws.Signatures[0].Header
	for i := range r.keys {
		k := &r.keys[i]
		if header.KeyID != "" && header.KeyID != k.KeyID || k.Algorithm != "" && k.Algorithm != header.Algorithm {
			continue
		}
		known = known || header.KeyID != ""
		if payload, err := jws.Verify(k); err == nil {
			return payload, true
		}
	}
	return nil, known
}

// fetchKeys asks an issuer for its keys. Where they are may have changed too.
func fetchKeys(ctx context.Context, client *http.Client, issuer, jwksURL string) ([]key, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	if jwksURL == "" {
		provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), issuer)
		if err != nil {
			return nil, fmt.Errorf("discovery: %w", brief(err))
		}
		var document struct {
			JWKSURL string `json:"jwks_uri"`
		}
		if err := provider.Claims(&document); err != nil {
			return nil, fmt.Errorf("discovery: %w", brief(err))
		}
		u, err := url.Parse(document.JWKSURL)
		if err != nil || !secure(u) {
			return nil, errors.New("discovery: jwks_uri is not an https URL")
		}
		jwksURL = u.String()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, jwksURL, nil)
	if err != nil {
		return nil, brief(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, brief(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", brief(err))
	}
	return parseKeys(body)
}

// parseKeys returns the keys of a set that can verify a signature. What else a set
// holds is for others.
func parseKeys(data []byte) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, errors.New("keys: not a set of keys")
	}
	var out []key
	for _, raw := range set.Keys {
		var k key
		if err := json.Unmarshal(raw, &k); err == nil && usable(&k) {
			out = append(out, k)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("keys: none that can be used")
	}
	return out, nil
}

// minRSA is the least length of RSA keys that RFC 7518 allows.
const minRSA = 2048

func usable(k *key) bool {
	if k.Use != "" && k.Use != "sig" {
		return false
	}
	switch public := k.Key.(type) {
	case *rsa.PublicKey:
		return public.N.BitLen() >= minRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	default: // a secret, or a private key that everybody knows
		return false
	}
}

// brief bounds the text of an error that may quote an answer.
func brief(err error) error {
	const limit = 300
	if mismatch, ok := errors.AsType[*oidc.IssuerMismatchError](err); ok {
		return fmt.Errorf("the document is of another issuer: %.100q", mismatch.Discovered)
	}
	if text := err.Error(); len(text) > limit {
		return errors.New(text[:limit] + "…")
	}
	return err
}

// boundedClient returns a client for issuers. base and pool may be nil.
func boundedClient(base *http.Client, pool *x509.CertPool) *http.Client {
	client := &http.Client{}
	if base != nil {
		*client = *base
	}
	if client.Transport == nil {
		client.Transport = http.DefaultTransport
		if t, ok := client.Transport.(*http.Transport); ok {
			t = t.Clone()
			t.DisableKeepAlives = true // fetches are minutes apart
			client.Transport = t
		}
	}
	if t, ok := client.Transport.(*http.Transport); ok && pool != nil {
		t = t.Clone()
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		t.TLSClientConfig.RootCAs = pool
		client.Transport = t
	}
	client.Transport = bounded{client.Transport}
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects || !secure(req.URL) {
			return errors.New("a redirect that is not followed")
		}
		return nil
	}
	return client
}

// bounded lets only good answers pass, and of those no more than maxAnswer.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK && (resp.StatusCode < 300 || resp.StatusCode > 399) {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("answered with %d", resp.StatusCode)
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	return resp, nil
}
