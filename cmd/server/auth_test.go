package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/access"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue makes a certificate, for a server and a client alike, and its key.
func (a *authority) issue(tb testing.TB, name string, serial int64) (cert, key []byte) {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, private.Public(), a.key)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})
}

func (a *authority) pair(tb testing.TB, name string) tls.Certificate {
	tb.Helper()
	pair, err := tls.X509KeyPair(a.issue(tb, name, 2))
	if err != nil {
		tb.Fatal(err)
	}
	return pair
}

// issuer is an OpenID Connect issuer.
type issuer struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func newIssuer(tb testing.TB) *issuer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	i := &issuer{key: key}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
		case "/keys":
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one", Algorithm: "ES256", Use: "sig"}}})
		default:
			http.NotFound(w, r)
		}
	}))
	tb.Cleanup(i.Close)
	return i
}

// token makes a JWT. with changes its claims; key signs it, or the issuer's own when
// nil.
func (i *issuer) token(tb testing.TB, key *ecdsa.PrivateKey, with map[string]any) string {
	tb.Helper()
	if key == nil {
		key = i.key
	}
	claims := map[string]any{
		"iss": i.URL, "aud": "notebooks", "sub": "olga", "groups": []string{"ml"}, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	for name, value := range with {
		claims[name] = value
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "one"}}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		tb.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// guarded is a server that asks who calls, with its files.
type guarded struct {
	*process
	fleet  *cloudsim.Fleet
	dir    string
	ca     *authority
	issuer *issuer
	tokens map[string]string // by subject
}

// file writes a file that the configuration names.
func (g *guarded) file(tb testing.TB, name string, data []byte) {
	tb.Helper()
	path := filepath.Join(g.dir, name)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		tb.Fatal(err)
	}
}

// secrets replaces the access key of core, as a mounted secret is: both files at
// once, by a link to another directory.
func (g *guarded) secrets(tb testing.TB, id, key string) {
	tb.Helper()
	version := tb.TempDir()
	for name, text := range map[string]string{"id": id, "key": key} {
		if err := os.WriteFile(filepath.Join(version, name), []byte(text+"\n"), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	link := filepath.Join(g.dir, "secrets")
	if err := os.Symlink(version, link+".new"); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		tb.Fatal(err)
	}
}

// writeTokens writes the tokens file, with a token for each subject.
func (g *guarded) writeTokens(tb testing.TB, subjects ...string) {
	tb.Helper()
	var file strings.Builder
	for _, subject := range subjects {
		token, entry, err := access.NewToken(subject, nil)
		if err != nil {
			tb.Fatal(err)
		}
		if subject == "late" {
			entry += "  expires: 2020-01-01T00:00:00Z\n"
		}
		file.WriteString(entry)
		g.tokens[subject] = token
	}
	g.file(tb, "tokens.yaml", []byte(file.String()))
}

// dial returns a connection that trusts the server and, perhaps, has a certificate.
func (g *guarded) dial(tb testing.TB, client ...tls.Certificate) *grpc.ClientConn {
	tb.Helper()
	conn, err := grpc.NewClient(g.server.grpcListener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(g.clientTLS(client...))))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (g *guarded) clientTLS(client ...tls.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(g.ca.cert)
	return &tls.Config{RootCAs: pool, Certificates: client, MinVersion: tls.VersionTLS12}
}

func (g *guarded) web(tb testing.TB, client ...tls.Certificate) *http.Client {
	tb.Helper()
	transport := &http.Transport{TLSClientConfig: g.clientTLS(client...), ForceAttemptHTTP2: true}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

const guardedPolicy = `
  policy:
    - {role: operator, subjects: [right, "oidc:olga", "cert:robot"], clouds: [core]}
    - {role: viewer, subjects: [viewer], clouds: [core]}
    - {role: operator, subjects: [other], clouds: [scnet]}
    - {role: viewer, subjects: [everywhere]}
    - {role: admin, subjects: [admin]}
`

// startGuarded starts a server with TLS on both doors that asks who calls, on
// simulated clouds. change may change its configuration.
func startGuarded(t *testing.T, change func(text string) string) *guarded {
	t.Helper()
	return startGuardedOn(t, change, func(*guarded) {})
}

// startGuardedOn is startGuarded with what is done before the server starts.
func startGuardedOn(t *testing.T, change func(text string) string, prepare func(*guarded)) *guarded {
	t.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	g := &guarded{fleet: fleet, dir: t.TempDir(), ca: newAuthority(t), issuer: newIssuer(t), tokens: map[string]string{}}
	cert, key := g.ca.issue(t, "notebookd", 3)
	g.file(t, "cert.pem", cert)
	g.file(t, "key.pem", key)
	g.file(t, "ca.pem", g.ca.pem)
	g.writeTokens(t, "right", "viewer", "other", "everywhere", "admin", "nobody", "late")
	g.secrets(t, cloudsim.CoresHubKeyID, cloudsim.CoresHubSecret)
	prepare(g)
	g.configure(t, change)
	cfg, err := loadConfig(filepath.Join(g.dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.GRPC.Address, cfg.HTTP.Address = "127.0.0.1:0", "127.0.0.1:0"
	p := runServer(t, cfg, func(*server) {})
	g.process = p
	client := g.web(t)
	p.until(t, "ready", func() bool {
		resp, err := client.Get(p.url + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return g
}

// configure writes the configuration.
func (g *guarded) configure(t *testing.T, change func(text string) string) {
	t.Helper()
	clouds := strings.NewReplacer(
		"{value: "+cloudsim.CoresHubKeyID+"}", "{file: "+filepath.Join(g.dir, "secrets", "id")+"}",
		"{value: "+cloudsim.CoresHubSecret+"}", "{file: "+filepath.Join(g.dir, "secrets", "key")+"}",
	).Replace(quick(g.fleet))
	text := fmt.Sprintf(`
log: {level: debug}
drain: 5s
reload: 50ms
limits: {calls_per_second: 1000000}
tls: {cert: %[1]s/cert.pem, key: %[1]s/key.pem, client_ca: %[1]s/ca.pem}
auth:
  tokens_file: %[1]s/tokens.yaml
  certificates: {}
  oidc: [{issuer: %[2]q, audiences: [notebooks]}]
`, g.dir, g.issuer.URL) + strings.TrimPrefix(guardedPolicy, "\n") + clouds
	if change != nil {
		text = change(text)
	}
	g.file(t, "config.yaml", []byte(text))
}

// rpc is one call, over both doors.
type rpc struct {
	name   string
	grpc   func(ctx context.Context, conn *grpc.ClientConn) error // nil when there is no such call
	method string                                                 // of HTTP; empty when there is no such call
	path   string
	body   string
	accept string
}

// first receives one message of a stream.
func first[T any](stream grpc.ServerStreamingClient[T], err error) error {
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

func guardedCalls(notebook, change string) []rpc {
	return []rpc{
		{
			name: "List", method: http.MethodGet, path: "/v1/clouds/core/locations/-/notebooks",
			grpc: func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := notebookv1.NewNotebookServiceClient(conn).List(ctx, &notebookv1.ListRequest{Parent: "clouds/core/locations/-"})
				return err
			},
		},
		{
			name: "Watch", method: http.MethodGet, path: "/v1/clouds/core/locations/-/notebooks:watch",
			grpc: func(ctx context.Context, conn *grpc.ClientConn) error {
				return first(notebookv1.NewNotebookServiceClient(conn).Watch(ctx, &notebookv1.WatchRequest{Parent: "clouds/core/locations/-"}))
			},
		},
		{name: "Watch as events", method: http.MethodGet, path: "/v1/clouds/core/locations/-/notebooks:watch", accept: eventStreamType},
		{
			name: "ChangeImage", method: http.MethodPost, path: "/v1/" + notebook + ":changeImage",
			body: `{"image": "registry.example.com/team/finetune:17", "imageType": "custom", "validateOnly": true}`,
			grpc: func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := notebookv1.NewNotebookServiceClient(conn).ChangeImage(ctx, &notebookv1.ChangeImageRequest{
					Name: notebook, Image: "registry.example.com/team/finetune:17", ImageType: "custom", ValidateOnly: true,
				})
				return err
			},
		},
		{
			name: "GetCloud", method: http.MethodGet, path: "/v1/clouds/core",
			grpc: func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := notebookv1.NewCloudServiceClient(conn).GetCloud(ctx, &notebookv1.GetCloudRequest{Name: "clouds/core"})
				return err
			},
		},
		{
			name: "ListClouds", method: http.MethodGet, path: "/v1/clouds",
			grpc: func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := notebookv1.NewCloudServiceClient(conn).ListClouds(ctx, &notebookv1.ListCloudsRequest{})
				return err
			},
		},
		{
			name: "GetImageChange", method: http.MethodGet, path: "/v1/" + change,
			grpc: func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := notebookv1.NewImageChangeServiceClient(conn).GetImageChange(ctx, &notebookv1.GetImageChangeRequest{Name: change})
				return err
			},
		},
		{
			name: "ListImageChanges", method: http.MethodGet, path: "/v1/imageChanges",
			grpc: func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := notebookv1.NewImageChangeServiceClient(conn).ListImageChanges(ctx, &notebookv1.ListImageChangesRequest{})
				return err
			},
		},
		{
			name: "GetCaller", method: http.MethodGet, path: "/v1/caller",
			grpc: func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := notebookv1.NewCallerServiceClient(conn).GetCaller(ctx, &notebookv1.GetCallerRequest{})
				return err
			},
		},
		{
			name: "reflection",
			grpc: func(ctx context.Context, conn *grpc.ClientConn) error {
				stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
				if err != nil {
					return err
				}
				// A stream that was refused may be over before this is sent.
				_ = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
				_, err = stream.Recv()
				return err
			},
		},
		{name: "metrics", method: http.MethodGet, path: "/metrics"},
	}
}

// TestEveryDoor: each call, over both doors, with all kinds of credentials: it is
// answered when they are the right ones, and nothing is told otherwise.
func TestEveryDoor(t *testing.T) {
	g := startGuarded(t, nil)
	notebook := "clouds/core/locations/xb3/notebooks/" + cloudsim.CoresHubNotebook
	conn := g.dial(t)
	right := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+g.tokens["right"])
	made, err := notebookv1.NewNotebookServiceClient(conn).ChangeImage(right, &notebookv1.ChangeImageRequest{
		Name: notebook, Image: "registry.example.com/team/finetune:16", ImageType: "custom", Acknowledge: []string{"NOTEBOOK_RUNNING"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := made.GetChange().GetPrincipal(); got != "right" {
		t.Errorf("the principal is %q", got)
	}
	wrongKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stranger := newAuthority(t)
	none, denied, unknown := codes.Unauthenticated, codes.PermissionDenied, codes.NotFound
	known := map[string]codes.Code{"GetCaller": codes.OK} // who has no role is told so
	// What becomes of each call; by default everything is answered.
	for _, who := range []struct {
		name   string
		bearer string
		cert   []tls.Certificate
		all    codes.Code            // what every call is answered with, unless told otherwise
		but    map[string]codes.Code // by call
	}{
		{name: "nobody", all: none},
		{name: "garbage", bearer: "garbage", all: none},
		{name: "huge garbage", bearer: strings.Repeat("x", 20<<10), all: none},
		{name: "expired token", bearer: g.tokens["late"], all: none},
		{name: "expired JWT", bearer: g.issuer.token(t, nil, map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}), all: none},
		{name: "wrong audience", bearer: g.issuer.token(t, nil, map[string]any{"aud": "mail"}), all: none},
		{name: "wrong issuer", bearer: g.issuer.token(t, nil, map[string]any{"iss": "https://id.example"}), all: none},
		{name: "wrong key", bearer: g.issuer.token(t, wrongKey, nil), all: none},
		{name: "a good certificate and a bad token", bearer: "garbage", cert: []tls.Certificate{g.ca.pair(t, "robot")}, all: none},
		{name: "someone without a role", bearer: g.tokens["nobody"], all: denied, but: known},
		{name: "a JWT without a role", bearer: g.issuer.token(t, nil, map[string]any{"sub": "otto"}), all: denied, but: known},
		{name: "a certificate without a role", cert: []tls.Certificate{g.ca.pair(t, "mallory")}, all: denied, but: known},
		{name: "viewer", bearer: g.tokens["viewer"], but: map[string]codes.Code{"ChangeImage": denied, "metrics": denied}},
		{name: "viewer of everything", bearer: g.tokens["everywhere"], but: map[string]codes.Code{"ChangeImage": denied}},
		{name: "operator of another cloud", bearer: g.tokens["other"], but: map[string]codes.Code{
			"List": denied, "Watch": denied, "Watch as events": denied, "ChangeImage": denied, "GetCloud": denied, "GetImageChange": unknown, "metrics": denied,
		}},
		{name: "the right token", bearer: g.tokens["right"], but: map[string]codes.Code{"metrics": denied}},
		{name: "the right JWT", bearer: g.issuer.token(t, nil, nil), but: map[string]codes.Code{"metrics": denied}},
		{name: "the right certificate", cert: []tls.Certificate{g.ca.pair(t, "robot")}, but: map[string]codes.Code{"metrics": denied}},
		{name: "admin", bearer: g.tokens["admin"]},
	} {
		t.Run(who.name, func(t *testing.T) {
			conn, client := g.dial(t, who.cert...), g.web(t, who.cert...)
			for _, call := range guardedCalls(notebook, made.GetChange().GetName()) {
				want, ok := who.but[call.name]
				if !ok {
					want = who.all
				}
				if call.grpc != nil {
					ctx, cancel := context.WithCancel(t.Context())
					if who.bearer != "" {
						ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+who.bearer)
					}
					if err := call.grpc(ctx, conn); status.Code(err) != want {
						t.Errorf("%s over gRPC: %v, want %v", call.name, err, want)
					}
					cancel()
				}
				if call.method == "" {
					continue
				}
				code, answer := g.ask(t, client, call, who.bearer)
				if want == codes.OK != (code == http.StatusOK) || want != codes.OK && answer.Code != int(want) {
					t.Errorf("%s over HTTP: %d %+v, want %v", call.name, code, answer, want)
				}
			}
			if resp, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
				t.Errorf("health over gRPC: %v, %v", resp, err)
			}
			for _, path := range []string{"/healthz", "/readyz"} {
				if code, _ := g.ask(t, client, rpc{method: http.MethodGet, path: path}, ""); code != http.StatusOK {
					t.Errorf("%s: %d", path, code)
				}
			}
		})
	}
	t.Run("a certificate of strangers", func(t *testing.T) {
		_, err := notebookv1.NewNotebookServiceClient(g.dial(t, stranger.pair(t, "robot"))).List(t.Context(), &notebookv1.ListRequest{})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("over gRPC: %v", err)
		}
		if _, err := g.web(t, stranger.pair(t, "robot")).Get(g.url + "/v1/notebooks"); err == nil {
			t.Error("over HTTP: it was let in")
		}
	})
	t.Run("names in headers", func(t *testing.T) { // are nobody's credentials
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/v1/notebooks", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"Grpc-Metadata-Authorization": "Bearer " + g.tokens["right"], "Grpcgateway-Authorization": "Bearer " + g.tokens["right"],
			"X-Forwarded-For": "127.0.0.1", "X-Forwarded-User": "right", "X-Forwarded-Client-Cert": "cert",
		} {
			req.Header.Set(name, value)
		}
		resp, err := g.web(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("HTTP %d, challenge %q", resp.StatusCode, resp.Header.Get("WWW-Authenticate"))
		}
	})
	for subject, token := range g.tokens {
		if strings.Contains(g.log.String(), token) {
			t.Errorf("the token of %s is in the log", subject)
		}
	}
	if !strings.Contains(g.log.String(), "caller=oidc:olga") || !strings.Contains(g.log.String(), "caller=cert:robot") {
		t.Error("the log does not say who called")
	}
}

// TestGetCaller: each caller is told who they are, how that is known, and what of the
// policy is theirs, the same over both doors.
func TestGetCaller(t *testing.T) {
	g := startGuarded(t, func(text string) string {
		return strings.Replace(text, "  policy:\n", `  policy:
    - {role: viewer, groups: ["oidc:ml"]}
    - {role: admin, groups: ["oidc:ml"], locations: [core/xb3, scnet/11250]}
    - {role: viewer, subjects: ["cert:robot"], locations: [core/xb2]}
`, 1)
	})
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	grant := func(role notebookv1.Grant_Role, parent string) *notebookv1.Grant {
		return &notebookv1.Grant{Role: role, Parent: parent}
	}
	viewer, operator, admin := notebookv1.Grant_ROLE_VIEWER, notebookv1.Grant_ROLE_OPERATOR, notebookv1.Grant_ROLE_ADMIN
	for name, tt := range map[string]struct {
		bearer string
		cert   []tls.Certificate
		want   *notebookv1.Caller
	}{
		"a token": {bearer: g.tokens["viewer"], want: &notebookv1.Caller{
			Subject: "viewer", Method: notebookv1.Caller_METHOD_TOKEN, Grants: []*notebookv1.Grant{grant(viewer, "clouds/core")},
		}},
		"admin": {bearer: g.tokens["admin"], want: &notebookv1.Caller{
			Subject: "admin", Method: notebookv1.Caller_METHOD_TOKEN, Grants: []*notebookv1.Grant{grant(admin, "clouds/-")},
		}},
		"nobody in the policy": {bearer: g.tokens["nobody"], want: &notebookv1.Caller{Subject: "nobody", Method: notebookv1.Caller_METHOD_TOKEN}},
		"a JWT": {bearer: g.issuer.token(t, nil, map[string]any{"exp": expires.Unix()}), want: &notebookv1.Caller{
			Subject: "oidc:olga", Method: notebookv1.Caller_METHOD_OIDC, Groups: []string{"oidc:ml"}, ExpireTime: timestamppb.New(expires),
			Grants: []*notebookv1.Grant{
				grant(viewer, "clouds/-"), grant(operator, "clouds/core"), grant(admin, "clouds/core/locations/xb3"), grant(admin, "clouds/scnet/locations/11250"),
			},
		}},
		"a certificate": {cert: []tls.Certificate{g.ca.pair(t, "robot")}, want: &notebookv1.Caller{
			Subject: "cert:robot", Method: notebookv1.Caller_METHOD_CERTIFICATE, Grants: []*notebookv1.Grant{grant(operator, "clouds/core")},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if tt.bearer != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+tt.bearer)
			}
			resp, err := notebookv1.NewCallerServiceClient(g.dial(t, tt.cert...)).GetCaller(ctx, &notebookv1.GetCallerRequest{})
			if err != nil {
				t.Fatal(err)
			}
			got := resp.GetCaller()
			if len(tt.cert) > 0 {
				tt.want.ExpireTime = timestamppb.New(tt.cert[0].Leaf.NotAfter)
			}
			if diff := cmp.Diff(tt.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("over gRPC (-want +got):\n%s", diff)
			}
			body := g.text(t, g.web(t, tt.cert...), "/v1/caller", tt.bearer)
			rest := &notebookv1.GetCallerResponse{}
			if err := protojson.Unmarshal([]byte(body), rest); err != nil {
				t.Fatalf("%v in %s", err, body)
			}
			if diff := cmp.Diff(tt.want, rest.GetCaller(), protocmp.Transform()); diff != "" {
				t.Errorf("over HTTP (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCallerOfAnOpenServer: where nobody is asked, everybody may do everything, and is
// told the address that stands for them.
func TestCallerOfAnOpenServer(t *testing.T) {
	p, _ := startQuick(t, cloudsim.Config{Seed: 1, Notebooks: 1})
	want := &notebookv1.Caller{
		Subject: "127.0.0.1", Method: notebookv1.Caller_METHOD_NONE, Grants: []*notebookv1.Grant{{Role: notebookv1.Grant_ROLE_ADMIN, Parent: "clouds/-"}},
	}
	resp, err := notebookv1.NewCallerServiceClient(p.conn).GetCaller(t.Context(), &notebookv1.GetCallerRequest{})
	if diff := cmp.Diff(want, resp.GetCaller(), protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("over gRPC: %v (-want +got):\n%s", err, diff)
	}
	stream, err := reflectionpb.NewServerReflectionClient(p.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	services, err := stream.Recv()
	if err != nil || !strings.Contains(services.String(), `"notebook.v1.CallerService"`) {
		t.Errorf("reflection tells of %v, %v", services, err)
	}
	rest := &notebookv1.GetCallerResponse{}
	if _, body := p.get(t, "/v1/caller"); protojson.Unmarshal([]byte(body), rest) != nil || !proto.Equal(rest.GetCaller(), want) {
		t.Errorf("over HTTP: %s", body)
	}
}

// text makes a GET over HTTP and returns the body.
func (g *guarded) text(t *testing.T, client *http.Client, path, bearer string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// answered is the body of an error over HTTP.
type answered struct {
	Code    int
	Message string
	Details []map[string]any
}

// ask makes a call over HTTP and reads the first line of its answer.
func (g *guarded) ask(t *testing.T, client *http.Client, call rpc, bearer string) (code int, answer answered) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, call.method, g.url+call.path, strings.NewReader(call.body))
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	if call.accept != "" {
		req.Header.Set("Accept", call.accept)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", call.name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil && err != io.EOF { //nolint:errorlint // a Reader's
		t.Fatalf("%s: %v", call.name, err)
	}
	if resp.StatusCode != http.StatusOK {
		_ = json.Unmarshal([]byte(line), &answer)
	}
	return resp.StatusCode, answer
}

// TestRevoked: a watch ends when its caller's token is taken out of the file, when
// its JWT expires, and when its role is taken away, over every door.
func TestRevoked(t *testing.T) {
	g := startGuarded(t, nil)
	conn, client := g.dial(t), g.web(t)
	type ending struct {
		name string
		err  chan error
	}
	var open []ending
	begin := func(name, bearer string) {
		over := ending{name + " over gRPC", make(chan error, 1)}
		ctx := t.Context()
		if bearer != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+bearer)
		}
		stream, err := notebookv1.NewNotebookServiceClient(conn).Watch(ctx, &notebookv1.WatchRequest{BookmarkInterval: durationpb.New(time.Minute)})
		if err := first(stream, err); err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				if _, err := stream.Recv(); err != nil {
					over.err <- err
					return
				}
			}
		}()
		events := ending{name + " as events", make(chan error, 1)}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/v1/notebooks:watch", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		req.Header.Set("Accept", eventStreamType)
		resp, err := client.Do(req)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(err, resp)
		}
		go func() {
			defer func() { _ = resp.Body.Close() }()
			all, _ := io.ReadAll(resp.Body)
			_, last, _ := strings.Cut(string(all), "event: end\n")
			_, data, _ := strings.Cut(last, "data: ")
			var answer answered
			_ = json.Unmarshal([]byte(strings.TrimSpace(data)), &answer)
			events.err <- status.Error(codes.Code(answer.Code), answer.Message)
		}()
		open = append(open, over, events)
	}
	want := func(code codes.Code) {
		t.Helper()
		for _, each := range open {
			select {
			case err := <-each.err:
				if status.Code(err) != code {
					t.Errorf("%s ended with %v, want %v", each.name, err, code)
				}
			case <-time.After(20 * time.Second):
				t.Errorf("%s goes on", each.name)
			}
		}
		open = nil
	}
	begin("a JWT that expires", g.issuer.token(t, nil, map[string]any{"exp": time.Now().Add(2 * time.Second).Unix()}))
	want(codes.Unauthenticated)
	begin("a token that is taken away", g.tokens["viewer"])
	g.writeTokens(t, "right", "everywhere")
	want(codes.Unauthenticated)
	begin("a role that is taken away", g.tokens["right"])
	g.configure(t, func(text string) string { return strings.ReplaceAll(text, "[right, ", "[") })
	want(codes.PermissionDenied)
	conn, client = g.dial(t, g.ca.pair(t, "robot")), g.web(t, g.ca.pair(t, "robot"))
	begin("a certificate of an authority that is not believed any more", "")
	g.file(t, "ca.pem", newAuthority(t).pem)
	want(codes.Unauthenticated)
	if _, err := notebookv1.NewNotebookServiceClient(conn).List(t.Context(), &notebookv1.ListRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a call over the old connection: %v", err)
	}
	conn, client = g.dial(t), g.web(t)
	begin("one who may see less", g.tokens["everywhere"])
	g.configure(t, func(text string) string {
		return strings.ReplaceAll(text, "{role: viewer, subjects: [everywhere]}", "{role: viewer, subjects: [everywhere], clouds: [scnet]}")
	})
	for _, each := range open {
		select {
		case err := <-each.err:
			if err != io.EOF && status.Code(err) != codes.OK { //nolint:errorlint // a stream's
				t.Errorf("%s ended with %v, want to be told to come again", each.name, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%s goes on", each.name)
		}
	}
}

// TestAuthComesAndGoes: who watched while nobody was asked is asked when callers are,
// and doors that others can reach do not open by a reload.
func TestAuthComesAndGoes(t *testing.T) {
	open := func(text string) string {
		before, rest, _ := strings.Cut(text, "auth:\n")
		_, after, _ := strings.Cut(rest, "clouds:\n")
		return strings.Replace(before, ", client_ca: ", " }#", 1) + "clouds:\n" + after
	}
	g := startGuarded(t, open)
	stream, err := notebookv1.NewNotebookServiceClient(g.dial(t)).Watch(t.Context(), &notebookv1.WatchRequest{BookmarkInterval: durationpb.New(time.Minute)})
	if err := first(stream, err); err != nil {
		t.Fatal(err)
	}
	g.applied(t, func() { g.configure(t, nil) })
	for {
		if _, err := stream.Recv(); err != nil {
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("the watch of nobody ended with %v", err)
			}
			break
		}
	}
	g.server.cfg.GRPC.Address = ":9090" // as if it had been started there
	g.configure(t, open)
	g.until(t, "it is refused", func() bool { return strings.Contains(g.log.String(), "auth: is needed") })
	if _, err := notebookv1.NewNotebookServiceClient(g.dial(t)).List(t.Context(), &notebookv1.ListRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("afterwards: %v", err)
	}
}

// TestHealthOfClouds: how the process does is told to everybody, how a cloud does to
// those who may see it.
func TestHealthOfClouds(t *testing.T) {
	g := startGuarded(t, nil)
	client := healthpb.NewHealthClient(g.dial(t))
	as := func(subject string) context.Context {
		if subject == "" {
			return t.Context()
		}
		return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+g.tokens[subject])
	}
	for subject, want := range map[string]struct {
		listed int
		core   codes.Code
	}{"": {1, codes.Unauthenticated}, "nobody": {1, codes.NotFound}, "viewer": {2, codes.OK}, "other": {2, codes.NotFound}, "everywhere": {3, codes.OK}} {
		list, err := client.List(as(subject), &healthpb.HealthListRequest{})
		if err != nil || len(list.GetStatuses()) != want.listed {
			t.Errorf("%q is told of %v: %v", subject, list.GetStatuses(), err)
		}
		if _, err := client.Check(as(subject), &healthpb.HealthCheckRequest{Service: "clouds/core"}); status.Code(err) != want.core {
			t.Errorf("%q asks for core: %v, want %v", subject, err, want.core)
		}
		if err := first(client.Watch(as(subject), &healthpb.HealthCheckRequest{Service: "clouds/core"})); status.Code(err) != want.core {
			t.Errorf("%q watches core: %v, want %v", subject, err, want.core)
		}
	}
	if err := first(client.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: strings.Repeat("x", 1000)})); status.Code(err) != codes.NotFound {
		t.Errorf("a long name: %v", err)
	}
}

// TestHealthRevoked: who watches the health of a cloud is told no more when it may not
// see the cloud any more.
func TestHealthRevoked(t *testing.T) {
	g := startGuarded(t, nil)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+g.tokens["viewer"])
	stream, err := healthpb.NewHealthClient(g.dial(t)).Watch(ctx, &healthpb.HealthCheckRequest{Service: "clouds/core"})
	if err := first(stream, err); err != nil {
		t.Fatal(err)
	}
	g.writeTokens(t, "right", "everywhere")
	for {
		if _, err := stream.Recv(); err != nil {
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("it ended with %v", err)
			}
			return
		}
	}
}
