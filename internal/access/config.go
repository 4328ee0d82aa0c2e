package access

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Config is the auth section of the configuration. Zero fields have the documented
// default.
type Config struct {
	// Insecure lets doors be reached from elsewhere though nobody is asked who they
	// are, because something else keeps strangers out. Default: false.
	//
	// Whether that is needed is decided where the doors are known.
	Insecure bool `yaml:"insecure"`
	// TokensFile is a file with the hashes of static tokens: a YAML list of subject,
	// groups, sha256 and expires. Default: none.
	TokensFile string `yaml:"tokens_file"`
	// OIDC are issuers of JWTs that are accepted, be they ID tokens or access tokens.
	// Default: none.
	OIDC []OIDCConfig `yaml:"oidc"`
	// Certificates says how client certificates name callers; {} takes its defaults.
	// Goes together with tls.client_ca. Default: none, client certificates name nobody.
	Certificates *CertificateConfig `yaml:"certificates"`
	// Policy are the grants. Who has none may do nothing. Needed with tokens_file, oidc
	// or certificates.
	Policy []Grant `yaml:"policy"`
}

// OIDCConfig is an issuer of JWTs, be they ID tokens or access tokens.
type OIDCConfig struct {
	// Issuer is the URL of the issuer, exactly as in the claim iss of its tokens. Needed.
	Issuer string `yaml:"issuer"`
	// Audiences are whom tokens are for: a token names one of these. Needed.
	Audiences []string `yaml:"audiences"`
	// JWKSURL is the URL of its keys. Default: what its discovery document says.
	JWKSURL string `yaml:"jwks_url"`
	// SubjectClaim is the claim that names the caller. Default: sub.
	SubjectClaim string `yaml:"subject_claim"`
	// GroupsClaim is the claim that lists the caller's groups. Default: groups.
	GroupsClaim string `yaml:"groups_claim"`
	// Prefix comes before subjects and groups in policies, so that no two sources name
	// the same caller. Default: oidc:.
	Prefix *string `yaml:"prefix"`
	// CA is a file with the certificates to trust instead of the system's, in PEM.
	// Default: those of the system.
	CA string `yaml:"ca"`
	// Algorithms are those by which tokens may be signed. Default: every asymmetric one,
	// RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA.
	Algorithms []string `yaml:"algorithms"`
	// Console is the client of the issuer by which the web console signs people in: a
	// public one, for the authorization code flow with PKCE. Its redirect URI is where the
	// console is, with / at the end. Default: none, the console does not offer the issuer.
	Console *ConsoleConfig `yaml:"console"`
}

// ConsoleConfig is the client of an issuer by which the web console signs people in.
type ConsoleConfig struct {
	// ClientID is what the issuer calls the client. It has to be one of audiences: the
	// console sends the ID token, which is for this client. Needed.
	ClientID string `yaml:"client_id"`
	// Scopes are what the console asks for, openid among them. Default: openid and profile.
	Scopes []string `yaml:"scopes"`
	// Origins are scheme and host, as https://token.example, of what else belongs to the
	// issuer and is called by the console, such as its token endpoint, if it is not
	// where the issuer is. Default: none.
	Origins []string `yaml:"origins"`
}

// ScopesOrDefault are the scopes that the console asks for.
func (c *ConsoleConfig) ScopesOrDefault() []string {
	if len(c.Scopes) == 0 {
		return []string{"openid", "profile"}
	}
	return c.Scopes
}

func (c *OIDCConfig) prefix() string {
	if c.Prefix == nil {
		return "oidc:"
	}
	return *c.Prefix
}

// CertificateConfig says how a client certificate names the caller. Its
// organizations are the caller's groups. Who verifies it is none of it.
type CertificateConfig struct {
	// Prefix comes before subjects and groups in policies, so that no two sources name
	// the same caller. Default: cert:.
	Prefix *string `yaml:"prefix"`
	// Subject is the part that names the caller: common_name, dns, uri or email. A
	// certificate that has it more than once names nobody. Default: common_name.
	Subject CertificateSubject `yaml:"subject"`
}

// CertificateSubject is the part of a certificate that names the caller. A
// certificate that has it more than once names nobody.
type CertificateSubject string

// The parts.
const (
	SubjectCommonName CertificateSubject = "common_name"
	SubjectDNS        CertificateSubject = "dns"
	SubjectURI        CertificateSubject = "uri"
	SubjectEmail      CertificateSubject = "email"
)

func (c *CertificateConfig) prefix() string {
	if c.Prefix == nil {
		return "cert:"
	}
	return *c.Prefix
}

func (c *CertificateConfig) subject() CertificateSubject {
	if c.Subject == "" {
		return SubjectCommonName
	}
	return c.Subject
}

// any reports whether callers are asked who they are.
func (c *Config) any() bool {
	return c.TokensFile != "" || len(c.OIDC) > 0 || c.Certificates != nil
}

// Validate returns all problems joined, those in the files included; the text of
// each begins with its key and ": ". No text holds what stands in a tokens file.
func (c Config) Validate() error {
	_, err := c.read()
	return err
}

// files is what the files of a configuration say.
type files struct {
	tokens map[tokenHash]staticToken
	pools  []*x509.CertPool // of each OIDC; nil for the system's
	files  []string
}

// checker collects what is wrong.
type checker struct{ problems []error }

func (c *checker) problem(key, format string, args ...any) {
	c.problems = append(c.problems, errors.New(key+": "+fmt.Sprintf(format, args...)))
}

func (c *Config) read() (files, error) {
	check := &checker{}
	out := files{pools: make([]*x509.CertPool, len(c.OIDC))}
	if c.TokensFile != "" {
		out.files = append(out.files, c.TokensFile)
		out.tokens = check.tokens(c.TokensFile)
	}
	issuers := map[string]bool{}
	for i := range c.OIDC {
		o, at := &c.OIDC[i], fmt.Sprintf("oidc[%d]", i)
		check.oidc(o, at)
		if o.Issuer != "" && issuers[o.Issuer] {
			check.problem(at+".issuer", "is used twice; one can have several audiences")
		}
		if o.Console != nil {
			check.console(o, at+".console")
		}
		issuers[o.Issuer] = true
		if o.CA != "" {
			if !slices.Contains(out.files, o.CA) {
				out.files = append(out.files, o.CA)
			}
			out.pools[i] = check.pool(o.CA, at+".ca")
		}
	}
	if c.Certificates != nil && !slices.Contains([]CertificateSubject{SubjectCommonName, SubjectDNS, SubjectURI, SubjectEmail}, c.Certificates.subject()) {
		check.problem("certificates.subject", "must be one of common_name, dns, email, uri")
	}
	check.prefixes(c)
	for i := range c.Policy {
		check.grant(&c.Policy[i], fmt.Sprintf("policy[%d]", i), len(c.OIDC))
	}
	switch {
	case c.any() && len(c.Policy) == 0:
		check.problem("policy", "grants nothing to anybody")
	case !c.any() && len(c.Policy) > 0:
		check.problem("policy", "needs tokens_file, oidc or certificates, to know who calls; certificates: {} takes their defaults")
	}
	return out, errors.Join(check.problems...)
}

func (c *checker) tokens(file string) map[tokenHash]staticToken {
	data, err := os.ReadFile(file)
	if err != nil {
		c.problem("tokens_file", "the file cannot be read")
		return nil
	}
	tokens, problems := parseTokens(data)
	for _, p := range problems {
		c.problem("tokens_file", "%s: %s", file, p)
	}
	return tokens
}

func (c *checker) pool(file, at string) *x509.CertPool {
	data, err := os.ReadFile(file)
	if err != nil {
		c.problem(at, "the file cannot be read")
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		c.problem(at, "holds no certificate in PEM")
	}
	return pool
}

func (c *checker) oidc(o *OIDCConfig, at string) {
	switch u, err := url.Parse(o.Issuer); {
	case err != nil || !secure(u):
		c.problem(at+".issuer", "must be an https URL (http only to this host itself)")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		c.problem(at+".issuer", "must have no user, query or fragment")
	}
	if o.JWKSURL != "" {
		switch u, err := url.Parse(o.JWKSURL); {
		case err != nil || !secure(u):
			c.problem(at+".jwks_url", "must be an https URL (http only to this host itself)")
		case u.User != nil || u.Fragment != "":
			c.problem(at+".jwks_url", "must have no user and no fragment")
		}
	}
	if len(o.Audiences) == 0 || slices.Contains(o.Audiences, "") {
		c.problem(at+".audiences", "must name whom tokens are for: without, those for others would be taken too")
	}
	for _, a := range o.Algorithms {
		if !slices.Contains(algorithms, a) {
			c.problem(at+".algorithms", "must be of %s", strings.Join(algorithms, ", "))
			break
		}
	}
}

var (
	// originForm is that of what can stand in a Content-Security-Policy. An address of
	// IPv6 cannot.
	originForm = regexp.MustCompile(`^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$`)
	scopeForm  = regexp.MustCompile(`^[!#-\[\]-~]+$`)
)

// Origin is the origin of a URL.
func Origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

func (c *checker) console(o *OIDCConfig, at string) {
	switch {
	case o.Console.ClientID == "":
		c.problem(at+".client_id", "is needed")
	case !slices.Contains(o.Audiences, o.Console.ClientID):
		c.problem(at+".client_id", "must be one of audiences too: the console sends the ID token, which is for this client, and it would be refused")
	}
	if u, err := url.Parse(o.Issuer); err == nil && secure(u) && !originForm.MatchString(Origin(u)) {
		c.problem(at, "goes with an issuer that has a name or an address of IPv4: browsers take no other in a Content-Security-Policy")
	}
	for i, scope := range o.Console.Scopes {
		if !scopeForm.MatchString(scope) {
			c.problem(fmt.Sprintf("%s.scopes[%d]", at, i), "must be one scope: printable, without spaces and quotes")
		}
	}
	if len(o.Console.Scopes) > 0 && !slices.Contains(o.Console.Scopes, "openid") {
		c.problem(at+".scopes", "must have openid: without, there is no ID token")
	}
	for i, origin := range o.Console.Origins {
		if u, err := url.Parse(origin); err != nil || !secure(u) || Origin(u) != origin || !originForm.MatchString(origin) {
			c.problem(fmt.Sprintf("%s.origins[%d]", at, i), "must be https and a host, such as https://token.example (http only to this host itself)")
		}
	}
}

// secure reports whether what is fetched from a URL comes from whom it names.
func secure(u *url.URL) bool {
	if u.Host == "" || u.Hostname() == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// prefixes checks that a caller of one source cannot be named as one of another.
func (c *checker) prefixes(cfg *Config) {
	type source struct{ key, prefix string }
	var sources []source
	for i := range cfg.OIDC {
		sources = append(sources, source{fmt.Sprintf("oidc[%d].prefix", i), cfg.OIDC[i].prefix()})
	}
	if cfg.Certificates != nil {
		sources = append(sources, source{"certificates.prefix", cfg.Certificates.prefix()})
	}
	for i, s := range sources {
		if s.prefix == "" {
			if len(sources) > 1 || cfg.TokensFile != "" {
				c.problem(s.key, "must not be empty beside other ways to tell who calls")
			}
			continue
		}
		for j, other := range sources {
			if j != i && other.prefix != "" && strings.HasPrefix(s.prefix, other.prefix) && (s.prefix != other.prefix || j < i) {
				c.problem(s.key, "begins with %s, so that callers could be mistaken for each other", other.key)
			}
		}
	}
}

var (
	cloudForm    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	locationForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}/[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

func (c *checker) grant(g *Grant, at string, issuers int) {
	if !slices.Contains(roles, g.Role) {
		c.problem(at+".role", "must be one of viewer, operator, admin")
	}
	if len(g.Subjects) == 0 && len(g.Groups) == 0 {
		c.problem(at, "names nobody: subjects or groups are needed; the subject * is every caller who was authenticated")
	}
	for _, list := range []struct {
		key   string
		names []string
	}{{"subjects", g.Subjects}, {"groups", g.Groups}} {
		for i, name := range list.names {
			key := fmt.Sprintf("%s.%s[%d]", at, list.key, i)
			switch {
			case !goodName(name):
				c.problem(key, badName)
			case name == Everyone && list.key == "groups":
				c.problem(key, "* is a subject, not a group")
			case name != Everyone && strings.Contains(name, Everyone):
				c.problem(key, "* stands only for itself, not for a part of a name")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.Claims)) {
		if name == "" || g.Claims[name] == "" {
			c.problem(at+".claims", "must have names and values")
		}
	}
	if len(g.Claims) > 0 && issuers == 0 {
		c.problem(at+".claims", "needs oidc: only JWTs have claims")
	}
	if _, named := g.Claims["iss"]; len(g.Claims) > 0 && !named && issuers > 1 && slices.Contains(g.Subjects, Everyone) {
		c.problem(at+".claims", "must have iss too: every issuer says what it likes")
	}
	if len(g.Clouds) > 0 && len(g.Locations) > 0 {
		c.problem(at+".locations", "does not go with clouds: locations name their clouds")
	}
	for i, name := range g.Clouds {
		if !cloudForm.MatchString(name) {
			c.problem(fmt.Sprintf("%s.clouds[%d]", at, i), "must begin with a lower-case letter and hold only a-z, 0-9 and -")
		}
	}
	for i, name := range g.Locations {
		if !locationForm.MatchString(name) {
			c.problem(fmt.Sprintf("%s.locations[%d]", at, i), "must be cloud/location")
		}
	}
}
