package access

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// Whatever is presented, only what was issued is accepted, and no error tells
// anything of it.
func FuzzBearer(f *testing.F) {
	clock := newClock()
	key := newSigner(f, "k", jose.ES256)
	issuer := newTestIssuer(f, key)
	g := newGate(f, Config{
		OIDC:       []OIDCConfig{issuer.config()},
		TokensFile: writeFile(f, "tokens.yaml", "[{subject: a, sha256: "+hashOf("static")+"}]"),
	}, Options{Now: clock.now})
	good := key.sign(f, issuer.claims(clock), nil)
	parts := strings.Split(good, ".")
	claims, _, _ := strings.Cut(good[len(parts[0])+1:], ".")
	for _, bearer := range []string{
		good, "static", "", ".", "..", "...", parts[0] + "..", parts[0] + "." + claims + ".",
		encode(`{"alg":"none"}`) + "." + claims + ".", encode(`{"alg":"HS256","kid":"k"}`) + "." + claims + ".AA",
		encode(`{"alg":"ES256","kid":"k","crit":["b64"],"b64":false}`) + "." + claims + "." + parts[2],
		encode(`{"alg":"ES256","kid":["k"]}`) + "." + claims + "." + parts[2],
		parts[0] + "." + encode(`{"iss":`) + "." + parts[2],
	} {
		f.Add(bearer)
	}
	causes := map[string]bool{}
	for _, cause := range []string{"too long", "unknown", "malformed", "issuer", "algorithm", "type", "signature", "unknown key"} {
		causes[cause] = true
	}
	f.Fuzz(func(t *testing.T, bearer string) {
		_, err := g.Authenticate(t.Context(), Credentials{Bearer: bearer})
		rejection, ok := errors.AsType[*Rejection](err)
		switch {
		case bearer == "":
			if !errors.Is(err, ErrMissing) {
				t.Errorf("nothing: %v", err)
			}
		case bearer == good || bearer == "static":
			if err != nil {
				t.Error(err)
			}
		case err == nil:
			t.Errorf("%q is accepted", bearer)
		case !ok || !causes[rejection.Cause]:
			t.Errorf("%q: %v", bearer, err)
		}
	})
}

// A file is taken as a whole or not at all, and what was taken is told apart.
func FuzzTokensFile(f *testing.F) {
	for _, text := range []string{
		"[]", "", "- {subject: a, sha256: " + hashOf("x") + "}", "- subject: a\n  groups: [b, c]\n  sha256: " + hashOf("x") + "\n  expires: 2027-01-31T12:00:00Z\n",
		"- &a {subject: a}\n- *a", "- nbd_x", "--- []\n--- []", "- {<<: {subject: a}}", "- {? [a] : b}", "- {subject: !!binary YQ==, sha256: 1}", "\t", "%YAML 9", "- !!set {a, b}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tokens, problems := parseTokens(data)
		for _, p := range problems {
			if len(p) > 200 || strings.ContainsAny(p, "\n\r\x00") {
				t.Errorf("problem %q", p)
			}
		}
		if len(problems) > 0 {
			return
		}
		for hash, token := range tokens {
			if !goodName(token.subject) || hash == (tokenHash{}) && !strings.Contains(string(data), strings.Repeat("0", 64)) {
				t.Errorf("%+v is taken", token)
			}
		}
	})
}
