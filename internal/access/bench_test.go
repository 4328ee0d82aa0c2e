package access

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// team is a policy of many teams.
func team() []Grant {
	var out []Grant
	for n := range 100 {
		out = append(out, Grant{Role: Operator, Groups: []string{fmt.Sprintf("oidc:team-%d", n)}, Locations: []string{fmt.Sprintf("a/l%d", n), fmt.Sprintf("b/l%d", n)}})
	}
	return append(out, Grant{Role: Viewer, Subjects: []string{Everyone}, Clouds: []string{"public"}})
}

func BenchmarkToken(b *testing.B) {
	var file strings.Builder
	for n := range 1000 {
		fmt.Fprintf(&file, "- {subject: s%d, groups: ['oidc:team-%d'], sha256: %s}\n", n, n%100, hashOf(fmt.Sprint(n)))
	}
	token, entry, err := NewToken("s", []string{"oidc:team-1", "oidc:team-2"})
	if err != nil {
		b.Fatal(err)
	}
	file.WriteString(entry)
	g := newGate(b, Config{TokensFile: writeFile(b, "tokens.yaml", file.String()), Policy: team()}, Options{})
	benchmark(b, g, token, func() {})
}

// What it costs to verify a token, and to know it again.
func BenchmarkJWT(b *testing.B) {
	clock := newClock()
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA} {
		key := newSigner(b, "k", alg)
		issuer := newTestIssuer(b, key)
		g := newGate(b, Config{OIDC: []OIDCConfig{issuer.config()}, Policy: team()}, Options{Now: clock.now})
		token := key.sign(b, issuer.claims(clock).with(claimSet{"groups": []string{"team-1", "team-2", "everybody"}, "name": "Alice", "email": "alice@example.org"}), nil)
		b.Run(string(alg)+"/verified", func(b *testing.B) {
			known := g.verified
			defer func() { g.verified = known }()
			g.verified = newMemo[tokenHash, verified](2)
			benchmark(b, g, token, func() { clear(g.verified.new); clear(g.verified.old) })
		})
		b.Run(string(alg)+"/known", func(b *testing.B) { benchmark(b, g, token, func() {}) })
	}
}

func benchmark(b *testing.B, g *Gate, token string, before func()) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		before()
		id, err := g.Authenticate(b.Context(), Credentials{Bearer: token})
		if err != nil {
			b.Fatal(err)
		}
		if r := g.Rights(id); !r.May(Operator, "b", "l1") || r.SeesAll() {
			b.Fatal("wrong rights")
		}
	}
}

func BenchmarkParallel(b *testing.B) {
	token, entry, err := NewToken("s", []string{"oidc:team-1"})
	if err != nil {
		b.Fatal(err)
	}
	g := newGate(b, Config{TokensFile: writeFile(b, "tokens.yaml", entry), Policy: team()}, Options{})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id, err := g.Authenticate(b.Context(), Credentials{Bearer: token})
			if err != nil || g.Rights(id).Nothing() {
				b.Error(err)
			}
		}
	})
}
