// Package access says who calls and what they may do.
//
// A [Gate] makes an [Identity] of the credentials that came with a call: a static
// token, a JWT of an OpenID Connect issuer, or a client certificate that was
// verified. Its policy makes [Rights] of an identity. The package knows no
// transport and nothing of what is asked for: whoever opens a door reads the
// credentials, and whoever answers asks the rights. It issues no tokens, keeps no
// sessions, and speaks to nobody but the issuers that the configuration names.
package access

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// ErrMissing means that a call came without credentials.
var ErrMissing = errors.New("no credentials")

// ErrRejected means that the credentials are not good, and will not become so by
// being presented again. Every such error is a *[Rejection].
var ErrRejected = errors.New("credentials rejected")

// ErrUnavailable means that nobody can tell at present whether the credentials are
// good: an issuer cannot be reached. What it wraps is for the log.
var ErrUnavailable = errors.New("credentials cannot be checked")

// Rejection is an [ErrRejected] with its cause.
type Rejection struct {
	// Cause is one of few short texts, such as "expired". It holds nothing of the
	// credentials, so that it can be logged and counted.
	Cause string
}

// Error implements error.
func (r *Rejection) Error() string { return ErrRejected.Error() + ": " + r.Cause }

// Is makes a Rejection an [ErrRejected].
func (r *Rejection) Is(target error) bool { return target == ErrRejected }

func reject(cause string) error { return &Rejection{cause} }

// Method is how a caller was recognized.
type Method string

// The methods.
const (
	MethodNone        Method = "none" // nobody is asked who they are
	MethodToken       Method = "token"
	MethodOIDC        Method = "oidc"
	MethodCertificate Method = "certificate"
)

// Identity is who calls. Its slices and maps are shared by many and must not be
// changed. The zero Identity is nobody, and has no rights.
type Identity struct {
	Subject string
	Groups  []string
	// Claims are those of a JWT that are a string or a list of strings.
	Claims map[string][]string
	Method Method
	// Expires is until when the credentials are good; zero when for ever. A call
	// that lasts longer has to end then.
	Expires time.Time
}

// Anonymous is everybody where nobody is asked who they are.
func Anonymous() Identity { return Identity{Subject: "anonymous", Method: MethodNone} }

// Credentials are what came with a call.
type Credentials struct {
	// Bearer is the token of an Authorization header; see [Bearer]. When there is
	// one it decides alone.
	Bearer string
	// Certificate is the client's certificate, which the TLS layer has verified.
	Certificate *x509.Certificate
}

// Bearer reads an Authorization header. No header is no token; any other that
// holds none is rejected, so that a certificate does not make up for it.
func Bearer(header string) (string, error) {
	if header == "" {
		return "", nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", reject("scheme")
	}
	if token = strings.Trim(token, " "); token == "" {
		return "", reject("empty")
	}
	return token, nil
}

// Options are what a [Gate] needs besides its configuration. Zero fields have the
// documented default.
type Options struct {
	// Logger is told of issuers that fail. Default: none.
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Former is a Gate whose place this one takes: of issuers that are configured as
	// they were it keeps the keys, so that an issuer may be away meanwhile. Default:
	// none.
	Former *Gate
	// HTTPClient asks the issuers; its timeout, redirects and the size of its
	// answers are bounded here. A CA of the configuration is used only if its
	// Transport is nil or an *http.Transport. Default: one of the Gate's own.
	HTTPClient *http.Client
}

// Gate tells who calls and what they may do. It is safe for concurrent use.
type Gate struct {
	open         bool
	now          func() time.Time
	tokens       map[tokenHash]staticToken // never changed
	issuers      map[string]*issuer        // by the iss claim; never changed
	verified     *memo[tokenHash, verified]
	certificates *certificates // nil when they say nothing
	policy       *policy
	files        []string

	stop     context.CancelFunc // ends the fetches under way
	fetching sync.WaitGroup     // of all issuers
}

// New returns a Gate. It reads the files that the configuration names and asks no
// issuer: one that is down must not keep a server from starting. Its error holds
// every problem, as that of [Config.Validate] does.
func New(cfg Config, opts Options) (*Gate, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	read, err := cfg.read()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	g := &Gate{
		open: !cfg.any(), now: opts.Now, tokens: read.tokens, files: read.files,
		issuers: map[string]*issuer{}, verified: newMemo[tokenHash, verified](maxVerified),
		policy: newPolicy(cfg.Policy), stop: stop,
	}
	if cfg.Certificates != nil {
		g.certificates = &certificates{subject: cfg.Certificates.subject(), prefix: cfg.Certificates.prefix()}
	}
	for i, o := range cfg.OIDC {
		client := boundedClient(opts.HTTPClient, read.pools[i])
		keys := &keySet{
			now: opts.Now, log: opts.Logger.With("issuer", o.Issuer), fetching: &g.fetching,
			fetch: func() ([]key, error) { return fetchKeys(ctx, client, o.Issuer, o.JWKSURL) },
		}
		if opts.Former != nil {
			if former, ok := opts.Former.issuers[o.Issuer]; ok && former.jwksURL == o.JWKSURL && former.ca == o.CA {
				keys.ring.Store(former.keys.ring.Load())
			}
		}
		g.issuers[o.Issuer] = newIssuer(o, keys, opts.Now)
	}
	return g, nil
}

// Close ends what the gate has under way with issuers and waits for it. From then
// on the gate knows only the keys it has.
func (g *Gate) Close() {
	for _, i := range g.issuers {
		i.keys.close()
	}
	g.stop()
	g.fetching.Wait()
}

// Open reports whether nobody is asked who they are: no method is configured.
func (g *Gate) Open() bool { return g.open }

// Files are the files that New has read. A change of one needs a new Gate.
func (g *Gate) Files() []string { return append([]string(nil), g.files...) }

// Authenticate tells who presents the credentials. Its errors are [ErrMissing],
// [ErrRejected], [ErrUnavailable], or that of ctx when it ended while an issuer was
// asked.
func (g *Gate) Authenticate(ctx context.Context, c Credentials) (Identity, error) {
	switch {
	case g.open:
		return Anonymous(), nil
	case c.Bearer != "":
		return g.bearer(ctx, c.Bearer)
	case c.Certificate != nil && g.certificates != nil:
		return g.certificates.identity(c.Certificate, g.now())
	default:
		return Identity{}, ErrMissing
	}
}

// maxBearer bounds what is looked at. Headers are seldom allowed to be longer.
const maxBearer = 16 << 10

func (g *Gate) bearer(ctx context.Context, bearer string) (Identity, error) {
	if len(bearer) > maxBearer {
		return Identity{}, reject("too long")
	}
	// Comparing takes a time that depends on the hashes, not on the tokens: who
	// learns that a hash begins like a stored one has learnt nothing about a token
	// of that hash.
	hash := tokenHash(sha256.Sum256([]byte(bearer)))
	if token, ok := g.tokens[hash]; ok {
		return token.identity(g.now())
	}
	if len(g.issuers) == 0 {
		return Identity{}, reject("unknown")
	}
	if known, ok := g.verified.get(hash); ok && known.holds() {
		return known.still(g.now())
	}
	name, err := claimedIssuer(bearer)
	if err != nil {
		return Identity{}, err
	}
	issuer, ok := g.issuers[name]
	if !ok {
		return Identity{}, reject("issuer")
	}
	id, ring, err := issuer.identity(ctx, bearer)
	if err != nil {
		return Identity{}, err
	}
	g.verified.put(hash, verified{id, issuer.keys, ring})
	return id, nil
}

// Rights are what an identity may do. Those of the identities to whom the same
// grants apply are one value.
func (g *Gate) Rights(id Identity) *Rights {
	if g.open {
		return Unrestricted()
	}
	return g.policy.rights(id)
}

// maxName bounds names of subjects and groups.
const maxName = 1024

// goodName reports whether a name can be a subject or a group: what nobody can read
// in a log is none.
func goodName(name string) bool {
	return name != "" && len(name) <= maxName && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}
