package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"
)

// certificate makes one as it is on the wire, and parses it.
func certificate(t *testing.T, template x509.Certificate, clock *clock) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	template.NotBefore, template.NotAfter = clock.now().Add(-time.Hour), clock.now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificates(t *testing.T) {
	clock := newClock()
	spiffe, err := url.Parse("spiffe://example.org/team/a")
	if err != nil {
		t.Fatal(err)
	}
	full := certificate(t, x509.Certificate{
		Subject:  pkix.Name{CommonName: "worker", Organization: []string{"ml", "ops"}},
		DNSNames: []string{"worker.example.org"}, URIs: []*url.URL{spiffe}, EmailAddresses: []string{"w@example.org"},
	}, clock)
	several := certificate(t, x509.Certificate{
		Subject:  pkix.Name{CommonName: "a", ExtraNames: []pkix.AttributeTypeAndValue{{Type: commonName, Value: "b"}, {Type: commonName, Value: "a"}}},
		DNSNames: []string{"a", "b"}, URIs: []*url.URL{spiffe, spiffe}, EmailAddresses: []string{"a@b", "c@d"},
	}, clock)
	empty := certificate(t, x509.Certificate{Subject: pkix.Name{Organization: []string{"ml"}}}, clock)
	ugly := certificate(t, x509.Certificate{Subject: pkix.Name{CommonName: "a\nb"}}, clock)
	for _, tt := range []struct {
		name  string
		cfg   CertificateConfig
		cert  *x509.Certificate
		want  string
		cause string
	}{
		{"default", CertificateConfig{}, full, "cert:worker", ""},
		{"common name", CertificateConfig{Subject: SubjectCommonName}, full, "cert:worker", ""},
		{"dns", CertificateConfig{Subject: SubjectDNS}, full, "cert:worker.example.org", ""},
		{"uri", CertificateConfig{Subject: SubjectURI, Prefix: new("")}, full, "spiffe://example.org/team/a", ""},
		{"email", CertificateConfig{Subject: SubjectEmail, Prefix: new("x:")}, full, "x:w@example.org", ""},
		{"several common names", CertificateConfig{}, several, "", "several subjects"},
		{"several dns", CertificateConfig{Subject: SubjectDNS}, several, "", "several subjects"},
		{"several uri", CertificateConfig{Subject: SubjectURI}, several, "", "several subjects"},
		{"several email", CertificateConfig{Subject: SubjectEmail}, several, "", "several subjects"},
		{"no common name", CertificateConfig{}, empty, "", "no subject"},
		{"no dns", CertificateConfig{Subject: SubjectDNS}, empty, "", "no subject"},
		{"line feed", CertificateConfig{}, ugly, "", "subject"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGate(t, Config{Certificates: &tt.cfg}, Options{Now: clock.now})
			id, err := g.Authenticate(t.Context(), Credentials{Certificate: tt.cert})
			if tt.cause != "" {
				wantRejected(t, err, tt.cause)
				return
			}
			groups := []string{tt.cfg.prefix() + "ml", tt.cfg.prefix() + "ops"}
			if err != nil || id.Subject != tt.want || !slices.Equal(id.Groups, groups) || id.Method != MethodCertificate || !id.Expires.Equal(tt.cert.NotAfter) {
				t.Errorf("%+v, %v", id, err)
			}
		})
	}

	g := newGate(t, Config{Certificates: &CertificateConfig{}, TokensFile: writeFile(t, "tokens.yaml", "[{subject: a, sha256: "+hashOf("good")+"}]")}, Options{Now: clock.now})
	_, err = g.Authenticate(t.Context(), Credentials{Bearer: "bad", Certificate: full})
	wantRejected(t, err, "unknown")
	if id, err := g.Authenticate(t.Context(), Credentials{Bearer: "good", Certificate: full}); err != nil || id.Subject != "a" {
		t.Errorf("a bearer decides alone: %+v, %v", id, err)
	}
	clock.advance(time.Hour + time.Second)
	_, err = g.Authenticate(t.Context(), Credentials{Certificate: full})
	wantRejected(t, err, "expired")
	clock.advance(-3 * time.Hour)
	_, err = g.Authenticate(t.Context(), Credentials{Certificate: full})
	wantRejected(t, err, "not yet valid")

	// A certificate that nobody asked for is no credential.
	g = newGate(t, Config{TokensFile: writeFile(t, "tokens.yaml", "[]")}, Options{Now: clock.now})
	if _, err := g.Authenticate(t.Context(), Credentials{Certificate: full}); !errors.Is(err, ErrMissing) {
		t.Error(err)
	}
}
