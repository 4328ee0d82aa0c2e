package access

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// algorithms are those that need no secret of the issuer's to verify. Whoever can
// verify with another could make tokens as well.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512,
	oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

// skew is by how much an issuer's clock may be ahead of ours.
const skew = time.Minute

// maxVerified bounds how many verified tokens are remembered. To verify a signature
// takes far longer than to find a hash, and callers present the same token with
// every call. A memory that is full of others costs only time.
const maxVerified = 8192

// verified is a token that was good, and is until it expires or the issuer has other
// keys.
type verified struct {
	identity Identity
	keys     *keySet
	ring     *keyRing // that verified it
}

// holds reports whether the token need not be verified again. Keys that are due to be
// fetched again are fetched.
func (v verified) holds() bool { return v.keys.current() == v.ring }

func (v verified) still(now time.Time) (Identity, error) {
	if !now.Before(v.identity.Expires) {
		return Identity{}, reject("expired")
	}
	return v.identity, nil
}

// issuer tells who presents a JWT that it made.
type issuer struct {
	name       string
	audiences  []string
	subject    string // claim
	groups     string // claim
	prefix     string
	algorithms []jose.SignatureAlgorithm
	config     *oidc.Config
	now        func() time.Time
	keys       *keySet
	jwksURL    string // as configured
	ca         string // as configured
}

func newIssuer(cfg OIDCConfig, keys *keySet, now func() time.Time) *issuer {
	i := &issuer{
		name: cfg.Issuer, audiences: cfg.Audiences, subject: cfg.SubjectClaim, groups: cfg.GroupsClaim,
		prefix: cfg.prefix(), now: now, keys: keys, jwksURL: cfg.JWKSURL, ca: cfg.CA,
	}
	if i.subject == "" {
		i.subject = "sub"
	}
	if i.groups == "" {
		i.groups = "groups"
	}
	names := cfg.Algorithms
	if len(names) == 0 {
		names = algorithms
	}
	for _, a := range names {
		i.algorithms = append(i.algorithms, jose.SignatureAlgorithm(a))
	}
	// Of several audiences one is enough, and an issuer's clock may differ from ours:
	// both are looked at here.
	i.config = &oidc.Config{SupportedSigningAlgs: names, SkipClientIDCheck: true, SkipExpiryCheck: true}
	return i
}

// strict decodes only what an encoder makes, so that a token has one spelling.
var strict = base64.RawURLEncoding.Strict()

// claimedIssuer is the iss claim of what may be a JWT. It only chooses who has to
// verify the token.
func claimedIssuer(bearer string) (string, error) {
	parts := strings.Split(bearer, ".")
	if len(parts) != 3 {
		return "", reject("unknown")
	}
	if strings.ContainsAny(bearer, "\r\n") { // the decoder skips them
		return "", reject("malformed")
	}
	var payload []byte
	for i, part := range parts {
		data, err := strict.DecodeString(part)
		if err != nil {
			return "", reject("malformed")
		}
		if i == 1 {
			payload = data
		}
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return "", reject("malformed")
	}
	return claims.Issuer, nil
}

// identity verifies a token, and returns the keys that did.
func (i *issuer) identity(ctx context.Context, bearer string) (Identity, *keyRing, error) {
	jws, err := jose.ParseSignedCompact(bearer, i.algorithms)
	if err != nil {
		if _, ok := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); ok {
			return Identity{}, nil, reject("algorithm")
		}
		return Identity{}, nil, reject("malformed")
	}
	if !isAccess(jws.Signatures[0].Protected.ExtraHeaders[jose.HeaderType]) {
		return Identity{}, nil, reject("type")
	}
	ring, err := i.keys.trusted(ctx)
	if err != nil {
		return Identity{}, nil, err
	}
	signature := &signature{keys: i.keys, ring: ring, jws: jws}
	token, err := oidc.NewVerifier(i.name, signature, i.config).Verify(ctx, bearer)
	switch {
	case signature.err != nil:
		return Identity{}, nil, signature.err
	case err != nil: // it is signed, and yet claims are not what they have to be
		return Identity{}, nil, reject("claims")
	}
	id, err := i.read(token)
	return id, signature.ring, err
}

// isAccess reports whether a token of a type is for access: the same issuer may sign
// others, as those that tell of a logout.
func isAccess(header any) bool {
	if header == nil {
		return true
	}
	name, _ := header.(string)
	switch strings.TrimPrefix(strings.ToLower(name), "application/") {
	case "jwt", "at+jwt", "jose":
		return true
	}
	return false
}

// signature verifies one token for oidc, and tells more about why it failed.
type signature struct {
	keys *keySet
	jws  *jose.JSONWebSignature
	ring *keyRing // the last that was tried
	err  error
}

// VerifySignature implements oidc.KeySet.
func (s *signature) VerifySignature(ctx context.Context, _ string) ([]byte, error) {
	payload, known := s.ring.verify(s.jws)
	if payload == nil && !known {
		old := s.ring
		if s.ring, s.err = s.keys.newer(ctx, old); s.err != nil {
			return nil, s.err
		}
		if s.ring != old {
			payload, known = s.ring.verify(s.jws)
		}
	}
	switch {
	case payload != nil:
		return payload, nil
	case known:
		s.err = reject("signature")
	default:
		s.err = reject("unknown key")
	}
	return nil, s.err
}

// read makes an identity of a token whose signature and issuer are good.
func (i *issuer) read(token *oidc.IDToken) (Identity, error) {
	now := i.now()
	if !slices.ContainsFunc(token.Audience, func(a string) bool { return slices.Contains(i.audiences, a) }) {
		return Identity{}, reject("audience")
	}
	if token.Expiry.IsZero() || !now.Before(token.Expiry) {
		return Identity{}, reject("expired")
	}
	var raw map[string]any
	if err := token.Claims(&raw); err != nil {
		return Identity{}, reject("claims")
	}
	if begin, ok := raw["nbf"]; ok {
		seconds, isNumber := begin.(float64)
		if !isNumber || seconds > float64(now.Add(skew).Unix()) {
			return Identity{}, reject("not yet valid")
		}
	}
	claims := map[string][]string{}
	for name, value := range raw {
		if texts, ok := texts(value); ok {
			claims[name] = texts
		}
	}
	subject := claims[i.subject]
	switch {
	case len(subject) == 0:
		return Identity{}, reject("no subject")
	case len(subject) > 1 || !goodName(subject[0]):
		return Identity{}, reject("subject")
	}
	// An address that nobody has confirmed is one that the caller chose.
	if confirmed, ok := raw["email_verified"]; ok && i.subject == "email" && confirmed != true {
		return Identity{}, reject("email not verified")
	}
	id := Identity{Subject: i.prefix + subject[0], Claims: claims, Method: MethodOIDC, Expires: token.Expiry}
	for _, name := range claims[i.groups] {
		if goodName(name) {
			id.Groups = append(id.Groups, i.prefix+name)
		}
	}
	return id, nil
}

// texts are those of a claim that is a text or a list of texts.
func texts(value any) ([]string, bool) {
	switch value := value.(type) {
	case string:
		return []string{value}, true
	case []any:
		out := make([]string, 0, len(value))
		for _, item := range value {
			text, ok := item.(string)
			if !ok {
				return nil, false
			}
			out = append(out, text)
		}
		return out, true
	default:
		return nil, false
	}
}
