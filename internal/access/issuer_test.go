package access

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// clock is a time that tests move.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Now().UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

// signer is a key of an issuer.
type signer struct {
	kid     string
	alg     jose.SignatureAlgorithm
	private any
}

func newSigner(tb testing.TB, kid string, alg jose.SignatureAlgorithm) *signer {
	tb.Helper()
	var private any
	var err error
	switch alg {
	case jose.ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return &signer{kid, alg, private}
}

func (s *signer) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: s.private.(crypto.Signer).Public(), KeyID: s.kid, Use: "sig"}
}

type claimSet map[string]any

// with returns the claims with others changed; nil removes one.
func (c claimSet) with(more claimSet) claimSet {
	out := claimSet{}
	for name, value := range c {
		out[name] = value
	}
	for name, value := range more {
		if out[name] = value; value == nil {
			delete(out, name)
		}
	}
	return out
}

// sign makes a JWT. The header's kid is that of the key unless header has another.
func (s *signer) sign(tb testing.TB, claims any, header map[string]any) string {
	tb.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		tb.Fatal(err)
	}
	return sign(tb, s.alg, s.private, s.kid, payload, header)
}

func sign(tb testing.TB, alg jose.SignatureAlgorithm, key any, kid string, payload []byte, header map[string]any) string {
	tb.Helper()
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		opts.WithHeader("kid", kid)
	}
	for name, value := range header {
		opts.WithHeader(jose.HeaderKey(name), value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	if err != nil {
		tb.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// testIssuer is an issuer on this host, with faults.
type testIssuer struct {
	url string
	ca  string // file

	discoveries, fetches atomic.Int64 // how often it was asked
	sent                 atomic.Int64 // bytes of a huge answer

	mu   sync.Mutex // guards what is below
	keys []jose.JSONWebKey
	// fault, when it is not nil, answers in place of the issuer. It reports false for
	// what it leaves to the issuer.
	fault func(w http.ResponseWriter, r *http.Request) bool
}

func newTestIssuer(tb testing.TB, keys ...*signer) *testIssuer {
	tb.Helper()
	i := &testIssuer{}
	i.publish(keys...)
	server := httptest.NewTLSServer(i)
	server.Config.ErrorLog = nil
	tb.Cleanup(server.Close)
	i.url = server.URL
	i.ca = filepath.Join(tb.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(i.ca, block, 0o600); err != nil {
		tb.Fatal(err)
	}
	return i
}

func (i *testIssuer) publish(keys ...*signer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = nil
	for _, k := range keys {
		i.keys = append(i.keys, k.public())
	}
}

func (i *testIssuer) breakWith(fault func(http.ResponseWriter, *http.Request) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fault = fault
}

func (i *testIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	keys, fault := i.keys, i.fault
	i.mu.Unlock()
	discovery := r.URL.Path == "/.well-known/openid-configuration"
	if discovery {
		i.discoveries.Add(1)
	} else {
		i.fetches.Add(1)
	}
	if fault != nil && fault(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if discovery {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.url, "jwks_uri": i.url + "/keys"})
		return
	}
	_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: keys})
}

// huge answers with 100 MB, as far as they are taken.
func (i *testIssuer) huge(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Type", "application/json")
	block := make([]byte, 64<<10)
	for n := range block {
		block[n] = ' '
	}
	for range 100 << 20 / len(block) {
		n, err := w.Write(block)
		i.sent.Add(int64(n))
		if err != nil {
			break
		}
	}
	return true
}

func down(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }

// claims are good ones, for an hour.
func (i *testIssuer) claims(c *clock) claimSet {
	now := c.now()
	return claimSet{
		"iss": i.url, "aud": "notebooks", "sub": "alice", "groups": []string{"ml", "ops"},
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
}

func (i *testIssuer) config() OIDCConfig {
	return OIDCConfig{Issuer: i.url, Audiences: []string{"other", "notebooks"}, CA: i.ca}
}

// everyone lets every caller see everything.
var everyone = []Grant{{Role: Viewer, Subjects: []string{Everyone}}}

func newGate(tb testing.TB, cfg Config, opts Options) *Gate {
	tb.Helper()
	if cfg.Policy == nil {
		cfg.Policy = everyone
	}
	g, err := New(cfg, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(g.Close)
	return g
}
