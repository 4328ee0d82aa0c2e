package access

import (
	"crypto/x509"
	"encoding/asn1"
	"time"
)

// certificates tells who presents a certificate.
type certificates struct {
	subject CertificateSubject
	prefix  string
}

// identity names the caller. The TLS layer has verified the certificate when the
// connection began, which may be long ago: whether it is still good is looked at
// with every call.
func (c *certificates) identity(cert *x509.Certificate, now time.Time) (Identity, error) {
	if now.After(cert.NotAfter) {
		return Identity{}, reject("expired")
	}
	if now.Before(cert.NotBefore) {
		return Identity{}, reject("not yet valid")
	}
	names := c.names(cert)
	switch {
	case len(names) == 0:
		return Identity{}, reject("no subject")
	case len(names) > 1: // whoever it was issued to could be taken for either
		return Identity{}, reject("several subjects")
	case !goodName(names[0]):
		return Identity{}, reject("subject")
	}
	id := Identity{Subject: c.prefix + names[0], Method: MethodCertificate, Expires: cert.NotAfter}
	for _, o := range cert.Subject.Organization {
		if goodName(o) {
			id.Groups = append(id.Groups, c.prefix+o)
		}
	}
	return id, nil
}

var commonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// names are all that the certificate has of the kind that names callers.
func (c *certificates) names(cert *x509.Certificate) []string {
	var out []string
	switch c.subject {
	case SubjectDNS:
		out = cert.DNSNames
	case SubjectEmail:
		out = cert.EmailAddresses
	case SubjectURI:
		for _, u := range cert.URIs {
			out = append(out, u.String())
		}
	default:
		for _, part := range cert.Subject.Names { // Subject.CommonName is the last of them
			if name, ok := part.Value.(string); ok && part.Type.Equal(commonName) {
				out = append(out, name)
			}
		}
	}
	return out
}
