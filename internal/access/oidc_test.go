package access

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
)

// wantRejected checks the whole text, so that nothing of the credentials is in it.
func wantRejected(t *testing.T, err error, cause string) {
	t.Helper()
	if !errors.Is(err, ErrRejected) || err.Error() != "credentials rejected: "+cause {
		t.Errorf("error is %v, want rejected: %s", err, cause)
	}
}

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func TestJWT(t *testing.T) {
	clock := newClock()
	rs, es, ed := newSigner(t, "rs", jose.RS256), newSigner(t, "es", jose.ES256), newSigner(t, "ed", jose.EdDSA)
	weak := newSigner(t, "own", jose.ES384)
	issuer := newTestIssuer(t, rs, es, ed)
	stranger := newTestIssuer(t, newSigner(t, "rs", jose.RS256))
	foreign := newSigner(t, "rs", jose.RS256) // another key of the same name
	cfg := issuer.config()
	g := newGate(t, Config{OIDC: []OIDCConfig{cfg, {
		Issuer: stranger.url, Audiences: []string{"notebooks"}, CA: stranger.ca, Prefix: new("other:"),
	}}}, Options{Now: clock.now})

	good := issuer.claims(clock)
	now := clock.now()
	der, err := x509.MarshalPKIXPublicKey(rs.public().Key)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	signed := rs.sign(t, good, nil)
	parts := strings.Split(signed, ".")

	for _, tt := range []struct {
		name   string
		bearer string
		cause  string // empty: accepted
	}{
		{"RSA", signed, ""},
		{"ECDSA", es.sign(t, good, nil), ""},
		{"Ed25519", ed.sign(t, good, nil), ""},
		{"PSS with the same key", sign(t, jose.PS512, rs.private, "rs", mustJSON(t, good), nil), ""},
		{"no key named", sign(t, jose.RS256, rs.private, "", mustJSON(t, good), nil), ""},
		{"access token", rs.sign(t, good, map[string]any{"typ": "at+jwt"}), ""},
		{"several audiences", rs.sign(t, good.with(claimSet{"aud": []string{"x", "notebooks"}}), nil), ""},
		{"valid since now", rs.sign(t, good.with(claimSet{"nbf": now.Unix()}), nil), ""},
		{"clock ahead", rs.sign(t, good.with(claimSet{"nbf": now.Add(30 * time.Second).Unix()}), nil), ""},
		{"expired", rs.sign(t, good.with(claimSet{"exp": now.Add(-time.Second).Unix()}), nil), "expired"},
		{"expires now", rs.sign(t, good.with(claimSet{"exp": now.Unix()}), nil), "expired"},
		{"never expires", rs.sign(t, good.with(claimSet{"exp": nil}), nil), "expired"},
		{"not yet valid", rs.sign(t, good.with(claimSet{"nbf": now.Add(2 * time.Minute).Unix()}), nil), "not yet valid"},
		{"nbf no number", rs.sign(t, good.with(claimSet{"nbf": "soon"}), nil), "claims"},
		{"audience", rs.sign(t, good.with(claimSet{"aud": "else"}), nil), "audience"},
		{"no audience", rs.sign(t, good.with(claimSet{"aud": nil}), nil), "audience"},
		{"unknown issuer", rs.sign(t, good.with(claimSet{"iss": "https://evil.example"}), nil), "issuer"},
		{"no issuer", rs.sign(t, good.with(claimSet{"iss": nil}), nil), "issuer"},
		{"another issuer's name", rs.sign(t, good.with(claimSet{"iss": stranger.url}), nil), "signature"},
		{"wrong key", foreign.sign(t, good, nil), "signature"},
		{"wrong key, unnamed", sign(t, jose.RS256, foreign.private, "", mustJSON(t, good), nil), "unknown key"},
		{"key of its own", sign(t, jose.ES384, jose.JSONWebKey{Key: weak.private, KeyID: "own"}, "", mustJSON(t, good), map[string]any{"jwk": weak.public()}), "unknown key"},
		{"unknown kid", foreignKid(t, foreign, good), "unknown key"},
		{"kid of another kind of key", sign(t, jose.RS256, rs.private, "es", mustJSON(t, good), nil), "signature"},
		{"alg none", encode(`{"alg":"none","typ":"JWT"}`) + "." + parts[1] + ".", "algorithm"},
		{"alg None", encode(`{"alg":"None","kid":"rs"}`) + "." + parts[1] + ".", "algorithm"},
		{"no alg", encode(`{"kid":"rs"}`) + "." + parts[1] + "." + parts[2], "algorithm"},
		{"HS256 with the public key", sign(t, jose.HS256, publicPEM, "rs", mustJSON(t, good), nil), "algorithm"},
		{"HS256 with the public key's DER", sign(t, jose.HS256, der, "rs", mustJSON(t, good), nil), "algorithm"},
		{"unsigned", parts[0] + "." + parts[1] + ".", "signature"},
		{"other claims", parts[0] + "." + encode(string(mustJSON(t, good.with(claimSet{"sub": "root"})))) + "." + parts[2], "signature"},
		{"critical header", rs.sign(t, good, map[string]any{"crit": []string{"x"}, "x": 1}), "signature"},
		{"logout token", rs.sign(t, good, map[string]any{"typ": "logout+jwt"}), "type"},
		{"no subject", rs.sign(t, good.with(claimSet{"sub": nil}), nil), "no subject"},
		{"empty subject", rs.sign(t, good.with(claimSet{"sub": ""}), nil), "subject"},
		{"subject with a line feed", rs.sign(t, good.with(claimSet{"sub": "a\nb"}), nil), "subject"},
		{"garbage", "garbage", "unknown"},
		{"dots", "..", "malformed"},
		{"four parts", signed + ".x", "unknown"},
		{"encrypted", "a.b.c.d.e", "unknown"},
		{"payload no JSON", parts[0] + "." + encode("x") + "." + parts[2], "malformed"},
		{"payload no object", parts[0] + "." + encode("[1]") + "." + parts[2], "malformed"},
		{"header no JSON", encode("x") + "." + parts[1] + "." + parts[2], "malformed"},
		{"JSON serialization", `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, "unknown"},
		{"padding", parts[0] + "." + parts[1] + "=." + parts[2], "malformed"},
		{"line feed", signed + "\n", "malformed"},
		{"another spelling of the signature", respell(t, signed), "malformed"},
		{"1 MB", strings.Repeat("a", 1<<20), "too long"},
		{"1 MB JWT", parts[0] + "." + strings.Repeat("A", 1<<20) + "." + parts[2], "too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // the second time it may be remembered
				id, err := g.Authenticate(t.Context(), Credentials{Bearer: tt.bearer})
				if tt.cause != "" {
					wantRejected(t, err, tt.cause)
					if !cmp.Equal(id, Identity{}) {
						t.Errorf("rejected, and yet %v", id)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if id.Subject != "oidc:alice" || !slices.Equal(id.Groups, []string{"oidc:ml", "oidc:ops"}) || id.Method != MethodOIDC || !id.Expires.Equal(time.Unix(now.Add(time.Hour).Unix(), 0)) {
					t.Errorf("identity is %+v", id)
				}
			}
		})
	}
	if _, err := g.Authenticate(t.Context(), Credentials{}); !errors.Is(err, ErrMissing) {
		t.Errorf("without credentials: %v", err)
	}
	clock.advance(time.Hour)
	_, err = g.Authenticate(t.Context(), Credentials{Bearer: signed})
	wantRejected(t, err, "expired") // though it is remembered
}

// respell changes bits of the last character that stand for nothing.
func respell(t *testing.T, token string) string {
	t.Helper()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(token) - 1
	other := token[:last] + string(alphabet[strings.IndexByte(alphabet, token[last])|1])
	signature := func(token string) string {
		data, err := base64.RawURLEncoding.DecodeString(token[strings.LastIndexByte(token, '.')+1:])
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if other == token || signature(other) != signature(token) {
		t.Fatal("not another spelling")
	}
	return other
}

// foreignKid signs with a key that nobody knows, under a name that nobody knows.
func foreignKid(t *testing.T, s *signer, claims claimSet) string {
	t.Helper()
	return sign(t, s.alg, s.private, "nobody", mustJSON(t, claims), nil)
}

func TestClaims(t *testing.T) {
	clock := newClock()
	key := newSigner(t, "k", jose.ES256)
	issuer := newTestIssuer(t, key)
	cfg := issuer.config()
	cfg.SubjectClaim, cfg.GroupsClaim, cfg.Prefix = "email", "https://example.org/roles", new("")
	cfg.JWKSURL = issuer.url + "/keys"
	cfg.Algorithms = []string{"ES256", "ES384"}
	g := newGate(t, Config{OIDC: []OIDCConfig{cfg}}, Options{Now: clock.now})
	claims := issuer.claims(clock).with(claimSet{
		"email": "a@example.org", "https://example.org/roles": "admins", "n": 7, "mixed": []any{"a", 1}, "none": []any{}, "nested": claimSet{"a": "b"},
	})
	id, err := g.Authenticate(t.Context(), Credentials{Bearer: key.sign(t, claims, nil)})
	if err != nil {
		t.Fatal(err)
	}
	want := Identity{
		Subject: "a@example.org", Groups: []string{"admins"}, Method: MethodOIDC, Expires: id.Expires,
		Claims: map[string][]string{
			"iss": {issuer.url}, "aud": {"notebooks"}, "sub": {"alice"}, "groups": {"ml", "ops"},
			"email": {"a@example.org"}, "https://example.org/roles": {"admins"}, "none": {},
		},
	}
	if diff := cmp.Diff(want, id); diff != "" {
		t.Error(diff)
	}
	if n := issuer.discoveries.Load(); n != 0 {
		t.Errorf("%d discoveries though the URL of the keys is configured", n)
	}
	for _, tt := range []struct {
		verified any
		good     bool
	}{{true, true}, {nil, true}, {false, false}, {"true", false}} {
		_, err := g.Authenticate(t.Context(), Credentials{Bearer: key.sign(t, claims.with(claimSet{"email_verified": tt.verified}), nil)})
		if tt.good != (err == nil) {
			t.Errorf("email_verified %v: %v", tt.verified, err)
		}
	}
	rsa := newSigner(t, "k", jose.RS256)
	_, err = g.Authenticate(t.Context(), Credentials{Bearer: rsa.sign(t, claims, nil)})
	wantRejected(t, err, "algorithm")
}

// Each token names another key, and yet the issuer is asked once in 10 s.
func TestFloodOfUnknownKeys(t *testing.T) {
	clock := newClock()
	key, other := newSigner(t, "k", jose.ES256), newSigner(t, "", jose.ES256)
	issuer := newTestIssuer(t, key)
	g := newGate(t, Config{OIDC: []OIDCConfig{issuer.config()}}, Options{Now: clock.now})
	payload := mustJSON(t, issuer.claims(clock))
	flood := func(round int) {
		var calls sync.WaitGroup
		for n := range 100 {
			bearer := sign(t, other.alg, other.private, fmt.Sprintf("%d-%d", round, n), payload, nil)
			calls.Go(func() {
				_, err := g.Authenticate(t.Context(), Credentials{Bearer: bearer})
				wantRejected(t, err, "unknown key")
			})
		}
		calls.Wait()
	}
	for round := range 3 {
		flood(round)
		if n := issuer.fetches.Load(); n != int64(round+1) {
			t.Errorf("round %d: %d fetches", round, n)
		}
		clock.advance(fetchPause - 1)
		flood(round)
		if n := issuer.fetches.Load(); n != int64(round+1) {
			t.Errorf("round %d: %d fetches before the pause was over", round, n)
		}
		clock.advance(1)
	}
	if _, err := g.Authenticate(t.Context(), Credentials{Bearer: key.sign(t, issuer.claims(clock), nil)}); err != nil {
		t.Error(err)
	}
	// A bad signature of a known key says nothing about keys.
	clock.advance(fetchPause)
	before := issuer.fetches.Load()
	_, err := g.Authenticate(t.Context(), Credentials{Bearer: sign(t, other.alg, other.private, "k", payload, nil)})
	wantRejected(t, err, "signature")
	if n := issuer.fetches.Load(); n != before {
		t.Error("a bad signature made the gate ask for keys")
	}
}

func TestConcurrentFirstCallsFetchOnce(t *testing.T) {
	clock := newClock()
	key := newSigner(t, "k", jose.ES256)
	issuer := newTestIssuer(t, key)
	g := newGate(t, Config{OIDC: []OIDCConfig{issuer.config()}}, Options{Now: clock.now})
	if n := issuer.discoveries.Load() + issuer.fetches.Load(); n != 0 {
		t.Fatalf("New asked %d times", n)
	}
	bearer := key.sign(t, issuer.claims(clock), nil)
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() {
			if _, err := g.Authenticate(t.Context(), Credentials{Bearer: bearer}); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if d, f := issuer.discoveries.Load(), issuer.fetches.Load(); d != 1 || f != 1 {
		t.Errorf("%d discoveries, %d fetches", d, f)
	}
}

func TestRotation(t *testing.T) {
	clock := newClock()
	before, after := newSigner(t, "before", jose.ES256), newSigner(t, "after", jose.RS256)
	issuer := newTestIssuer(t, before)
	g := newGate(t, Config{OIDC: []OIDCConfig{issuer.config()}}, Options{Now: clock.now})
	claims := issuer.claims(clock)
	old, fresh := before.sign(t, claims, nil), after.sign(t, claims, nil)
	check := func(bearer, cause string) {
		t.Helper()
		_, err := g.Authenticate(t.Context(), Credentials{Bearer: bearer})
		if cause != "" {
			wantRejected(t, err, cause)
		} else if err != nil {
			t.Error(err)
		}
	}
	check(old, "")
	check(fresh, "unknown key")
	clock.advance(fetchPause)
	issuer.publish(before, after)
	check(fresh, "")
	check(old, "")

	// A key that was withdrawn, perhaps because it was stolen, is not good for long,
	// though no token names an unknown one.
	issuer.publish(after)
	clock.advance(refreshAfter)
	check(old, "") // begins to fetch, and does not wait
	g.fetching.Wait()
	check(old, "unknown key")
	check(fresh, "")
}

func TestIssuerDownAtStart(t *testing.T) {
	clock := newClock()
	key := newSigner(t, "k", jose.ES256)
	issuer := newTestIssuer(t, key)
	issuer.breakWith(down)
	g := newGate(t, Config{OIDC: []OIDCConfig{issuer.config()}}, Options{Now: clock.now})
	call := func() error {
		_, err := g.Authenticate(t.Context(), Credentials{Bearer: key.sign(t, issuer.claims(clock), nil)})
		return err
	}
	asked := int64(0)
	for _, pause := range []time.Duration{1e9, 2e9, 4e9, 8e9, 10e9, 10e9} {
		for range 5 {
			if err := call(); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrRejected) {
				t.Fatalf("error is %v", err)
			}
		}
		if asked++; issuer.discoveries.Load() != asked {
			t.Fatalf("asked %d times, want %d", issuer.discoveries.Load(), asked)
		}
		clock.advance(pause - 1)
		if err := call(); !errors.Is(err, ErrUnavailable) || issuer.discoveries.Load() != asked {
			t.Fatalf("asked %d times, want %d: %v", issuer.discoveries.Load(), asked, err)
		}
		clock.advance(1)
	}
	issuer.breakWith(nil)
	if err := call(); err != nil {
		t.Errorf("the issuer is up again: %v", err)
	}
}

func TestIssuerDownLater(t *testing.T) {
	clock := newClock()
	key := newSigner(t, "k", jose.ES256)
	issuer := newTestIssuer(t, key)
	g := newGate(t, Config{OIDC: []OIDCConfig{issuer.config()}}, Options{Now: clock.now})
	call := func(s *signer) error {
		_, err := g.Authenticate(t.Context(), Credentials{Bearer: s.sign(t, issuer.claims(clock), nil)})
		g.fetching.Wait()
		return err
	}
	if err := call(key); err != nil {
		t.Fatal(err)
	}
	issuer.breakWith(down)
	clock.advance(trustFor - 1)
	if err := call(key); err != nil {
		t.Errorf("keys are known: %v", err)
	}
	if err := call(newSigner(t, "new", jose.ES256)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("nobody can tell whether the key is new: %v", err)
	}
	clock.advance(1)
	if err := call(key); !errors.Is(err, ErrUnavailable) {
		t.Errorf("keys are too old: %v", err)
	}
	clock.advance(fetchPause)
	issuer.breakWith(nil)
	if err := call(key); err != nil {
		t.Errorf("the issuer is up again: %v", err)
	}
}

func TestBadAnswersOfIssuers(t *testing.T) {
	at := func(path string, answer http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != path {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			answer(w, r)
			return true
		}
	}
	text := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
	}
	const discovery, keys = "/.well-known/openid-configuration", "/keys"
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"500":               at(keys, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }),
		"no JSON":           at(keys, text("<html>")),
		"no keys":           at(keys, text(`{"keys":[]}`)),
		"secret key":        at(keys, text(`{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"k"}]}`)),
		"discovery 500":     at(discovery, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }),
		"discovery no JSON": at(discovery, text("<html>")),
		"another issuer":    at(discovery, text(`{"issuer":"https://evil.example","jwks_uri":"https://127.0.0.1/"}`)),
		"redirect in clear": at(keys, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/", http.StatusFound)
		}),
		"endless redirects": at(keys, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, keys, http.StatusFound) }),
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			key := newSigner(t, "k", jose.ES256)
			issuer := newTestIssuer(t, key)
			issuer.breakWith(fault)
			g := newGate(t, Config{OIDC: []OIDCConfig{issuer.config()}}, Options{Now: clock.now})
			_, err := g.Authenticate(t.Context(), Credentials{Bearer: key.sign(t, issuer.claims(clock), nil)})
			if !errors.Is(err, ErrUnavailable) {
				t.Errorf("error is %v", err)
			}
			if len(err.Error()) > 600 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if n := issuer.fetches.Load(); n > maxRedirects+1 {
				t.Errorf("%d fetches", n)
			}
		})
	}
}

func TestIssuerAnswers100MB(t *testing.T) {
	for _, path := range []string{"/keys", "/.well-known/openid-configuration"} {
		clock := newClock()
		key := newSigner(t, "k", jose.ES256)
		issuer := newTestIssuer(t, key)
		issuer.breakWith(func(w http.ResponseWriter, r *http.Request) bool { return r.URL.Path == path && issuer.huge(w, r) })
		g := newGate(t, Config{OIDC: []OIDCConfig{issuer.config()}}, Options{Now: clock.now})
		_, err := g.Authenticate(t.Context(), Credentials{Bearer: key.sign(t, issuer.claims(clock), nil)})
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: error is %v", path, err)
		}
		// What was read is bounded; buffers of connections hold some more.
		if sent := issuer.sent.Load(); sent > 50<<20 {
			t.Errorf("%s: %d bytes were taken", path, sent)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestIssuerHangs(t *testing.T) {
	key := newSigner(t, "k", jose.ES256)
	synctest.Test(t, func(t *testing.T) {
		hang := roundTrip(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		g := newGate(t, Config{OIDC: []OIDCConfig{{Issuer: "https://issuer.example", Audiences: []string{"a"}}}}, Options{HTTPClient: &http.Client{Transport: hang}})
		bearer := key.sign(t, claimSet{"iss": "https://issuer.example", "aud": "a", "sub": "s", "exp": time.Now().Add(time.Hour).Unix()}, nil)
		begin := time.Now()
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() {
				_, err := g.Authenticate(t.Context(), Credentials{Bearer: bearer})
				if took := time.Since(begin); !errors.Is(err, ErrUnavailable) || took != fetchLimit {
					t.Errorf("after %v: %v", took, err)
				}
			})
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := g.Authenticate(ctx, Credentials{Bearer: bearer})
				if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
					t.Errorf("after %v: %v", took, err)
				}
			})
		}
		calls.Wait()

		// Closing does not wait for an issuer that hangs.
		time.Sleep(retryFirst)
		calls.Go(func() {
			if _, err := g.Authenticate(t.Context(), Credentials{Bearer: bearer}); !errors.Is(err, ErrUnavailable) {
				t.Error(err)
			}
		})
		synctest.Wait()
		begin = time.Now()
		g.Close()
		if took := time.Since(begin); took != 0 {
			t.Errorf("closing took %v", took)
		}
		calls.Wait()
		if _, err := g.Authenticate(t.Context(), Credentials{Bearer: bearer}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("closed: %v", err)
		}
	})
}

func TestKeysThatCanBeUsed(t *testing.T) {
	es, rs := newSigner(t, "es", jose.ES256), newSigner(t, "rs", jose.RS256)
	encryption := rs.public()
	encryption.Use = "enc"
	set := mustJSON(t, map[string]any{"keys": []any{
		es.public(), encryption,
		jose.JSONWebKey{Key: rs.private, KeyID: "private"},
		jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "secret"},
		claimSet{"kty": "OKP", "crv": "X448", "x": "AA", "kid": "unknown"},
		"no key", nil,
		claimSet{"kty": "RSA", "e": "AQAB", "n": base64.RawURLEncoding.EncodeToString(append([]byte{0x80}, make([]byte, 127)...)), "kid": "short"},
		rs.public(),
	}})
	keys, err := parseKeys(set)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range keys {
		got = append(got, k.KeyID)
	}
	if !slices.Equal(got, []string{"es", "rs"}) {
		t.Errorf("keys are %v", got)
	}
}

// TestKeysOutliveTheirGate: a gate that takes another one's place needs no issuer for
// the keys that are known.
func TestKeysOutliveTheirGate(t *testing.T) {
	clock := newClock()
	key := newSigner(t, "k", jose.ES256)
	issuer := newTestIssuer(t, key)
	former := newGate(t, Config{OIDC: []OIDCConfig{issuer.config()}}, Options{Now: clock.now})
	credentials := Credentials{Bearer: key.sign(t, issuer.claims(clock), nil)}
	if _, err := former.Authenticate(t.Context(), credentials); err != nil {
		t.Fatal(err)
	}
	issuer.breakWith(down)
	if _, err := newGate(t, Config{OIDC: []OIDCConfig{issuer.config()}}, Options{Now: clock.now, Former: former}).Authenticate(t.Context(), credentials); err != nil {
		t.Errorf("with the keys of the one before: %v", err)
	}
	other := issuer.config()
	other.JWKSURL = issuer.url + "/elsewhere"
	if _, err := newGate(t, Config{OIDC: []OIDCConfig{other}}, Options{Now: clock.now, Former: former}).Authenticate(t.Context(), credentials); !errors.Is(err, ErrUnavailable) {
		t.Errorf("with keys from elsewhere: %v", err)
	}
}
