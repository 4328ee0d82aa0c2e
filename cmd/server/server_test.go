package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/testing/protocmp"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// process is a server that a test runs, with both its doors.
type process struct {
	notebookv1.NotebookServiceClient
	clouds  notebookv1.CloudServiceClient
	changes notebookv1.ImageChangeServiceClient
	conn    *grpc.ClientConn
	url     string // of the HTTP door
	server  *server
	log     *buffer
	// stop ends the process as SIGTERM does and waits for it.
	stop func() error
}

// buffer is a bytes.Buffer that several goroutines may use.
type buffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start runs a server on free ports of 127.0.0.1 with a configuration text.
func start(t *testing.T, text string) *process {
	t.Helper()
	cfg, err := parseConfig("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return startConfig(t, cfg)
}

// runServer runs a server until the test ends, and lets the test at it before it opens.
// It does not wait until the server is ready.
func runServer(t *testing.T, cfg *config, prepare func(*server)) *process {
	t.Helper()
	p := &process{log: &buffer{}}
	ctx, cancel := context.WithCancel(context.Background())
	log, level := newLogger(cfg.Log, p.log)
	s, err := newServer(ctx, cfg, log)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	s.level = level
	prepare(s)
	if err := s.listen(ctx); err != nil {
		cancel()
		t.Fatal(err)
	}
	scheme := "http://"
	if cfg.TLS != nil {
		scheme = "https://"
	}
	p.server, p.url = s, scheme+s.httpListener.Addr().String()
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	p.stop = sync.OnceValue(func() error {
		cancel()
		err := <-ended
		s.close()
		return err
	})
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return p
}

func startConfig(t *testing.T, cfg *config) *process {
	t.Helper()
	cfg.GRPC.Address, cfg.HTTP.Address = "127.0.0.1:0", "127.0.0.1:0"
	setDefault(&cfg.Log.Level, "debug")
	setDefault(&cfg.Drain, 5*time.Second)
	p := runServer(t, cfg, func(*server) {})
	s := p.server
	var err error
	p.conn, err = grpc.NewClient(s.grpcListener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	p.NotebookServiceClient = notebookv1.NewNotebookServiceClient(p.conn)
	p.clouds = notebookv1.NewCloudServiceClient(p.conn)
	p.changes = notebookv1.NewImageChangeServiceClient(p.conn)
	t.Cleanup(func() {
		_ = p.conn.Close()
	})
	p.until(t, "ready", func() bool { code, _ := p.get(t, "/readyz"); return code == http.StatusOK })
	return p
}

// until waits for a condition.
func (p *process) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-p.server.inventory.Snapshot().Superseded():
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatalf("still not: %s\n%s", what, p.log)
		}
	}
}

func (p *process) get(t *testing.T, path string) (code int, body string) {
	t.Helper()
	return p.do(t, http.MethodGet, path, "")
}

func (p *process) do(t *testing.T, method, path, body string) (code int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// vendorExample cuts an example answer out of a vendor's page, byte for byte.
func vendorExample(t *testing.T, file, after, before string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.FromSlash("../../internal/upstream/" + file))
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(page), after)
	if !ok {
		t.Fatalf("%s has no %q", file, after)
	}
	if before != "" {
		text, _, _ = strings.Cut(text, before)
	}
	text = strings.TrimSpace(text)
	if !json.Valid([]byte(text)) {
		t.Fatalf("%s: the example is not JSON", file)
	}
	return text
}

const vendorPassword = "9pM28jD7606121T" // the ssh password in SCNet's example

// vendorClouds serves both vendors' example answers and records what is sent.
type vendorClouds struct {
	coreshub, scnet string // example answers

	mu       sync.Mutex // guards requests
	requests []recorded
}

type recorded struct{ method, uri, body string }

func (v *vendorClouds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	v.mu.Lock()
	v.requests = append(v.requests, recorded{r.Method, r.RequestURI, string(body)})
	v.mu.Unlock()
	switch {
	case r.URL.Path == "/ai/openapi/v2/notebook/list":
		_, _ = io.WriteString(w, v.scnet)
	case r.Method == http.MethodPost:
		_, _ = io.WriteString(w, v.coreshub)
	default: // the list has the same object in an array
		var envelope struct{ Data json.RawMessage }
		_ = json.Unmarshal([]byte(v.coreshub), &envelope)
		_, _ = fmt.Fprintf(w, `{"message": "success", "data": [%s], "counts": 1, "ret_code": 0}`, envelope.Data)
	}
}

func startVendorClouds(t *testing.T) (*vendorClouds, *httptest.Server) {
	t.Helper()
	v := &vendorClouds{
		coreshub: vendorExample(t, "coreshub/testdata/vendor-change_image-page.txt", "响应示例", ""),
		scnet:    vendorExample(t, "scnet/testdata/vendor-notebook-list-page.txt", "返回示例:\njson", "5.错误码"),
	}
	server := httptest.NewServer(v)
	t.Cleanup(server.Close)
	return v, server
}

const (
	testSecretKey   = "canary-secret-access-key"
	testRegionToken = "canary-region-token"
)

func vendorConfig(url, dataDir string) string {
	return fmt.Sprintf(`
store: {data_dir: %q}
clouds:
  - name: core
    kind: coreshub
    poll: {fast: 200ms, normal: 200ms, idle: 200ms}
    coreshub:
      endpoint: %s
      zones: [xb3]
      user_id: usr-5HY8xxxx
      access_key_id: {value: QYTESTACCESSKEYID000}
      secret_access_key: {value: %s}
  - name: scnet
    kind: scnet
    poll: {fast: 200ms, normal: 200ms, idle: 200ms}
    scnet:
      read_only: true
      regions: [{id: "11250", endpoint: %q, token: {value: %s}}]
`, dataDir, url, testSecretKey, url, testRegionToken)
}

// TestVendorExamples shows both founding payloads through the whole process.
func TestVendorExamples(t *testing.T) {
	_, clouds := startVendorClouds(t)
	dataDir := t.TempDir()
	p := start(t, vendorConfig(clouds.URL, dataDir))

	resp, err := p.List(t.Context(), &notebookv1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := &notebookv1.ListResponse{}
	text, err := os.ReadFile("testdata/vendor-examples.txtpb")
	if err != nil {
		t.Fatal(err)
	}
	if err := prototext.Unmarshal(text, want); err != nil {
		t.Fatal(err)
	}
	// Made by us at run time, or from a countdown.
	ignore := protocmp.IgnoreFields(&notebookv1.Notebook{}, "observe_time", "etag")
	countdown := protocmp.FilterField(&notebookv1.Notebook{}, "expire_time", cmp.Comparer(func(a, b any) bool { return (a == nil) == (b == nil) }))
	if diff := cmp.Diff(want.GetNotebooks(), resp.GetNotebooks(), protocmp.Transform(), ignore, countdown); diff != "" {
		t.Errorf("notebooks over gRPC (-want +got):\n%s", diff)
	}
	for _, n := range resp.GetNotebooks() {
		if strings.HasPrefix(n.GetName(), "clouds/scnet/") {
			// 28 days, 20 hours and 17 minutes from now, to the minute.
			in := time.Until(n.GetExpireTime().AsTime())
			if d := in - (28*24*time.Hour + 20*time.Hour + 17*time.Minute); d.Abs() > 2*time.Minute {
				t.Errorf("expires in %v", in)
			}
		}
	}

	code, body := p.get(t, "/v1/notebooks")
	overREST := &notebookv1.ListResponse{}
	if err := protojson.Unmarshal([]byte(body), overREST); err != nil || code != http.StatusOK {
		t.Fatalf("REST: %d, %v", code, err)
	}
	if diff := cmp.Diff(resp.GetNotebooks(), overREST.GetNotebooks(), protocmp.Transform()); diff != "" {
		t.Errorf("notebooks over REST (-gRPC +REST):\n%s", diff)
	}

	_, metrics := p.get(t, "/metrics")
	_, state := p.get(t, "/v1/clouds")
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	shown := map[string]string{"gRPC": resp.String(), "REST": body, "clouds": state, "metrics": metrics, "log": p.log.String()}
	err = filepath.WalkDir(dataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		shown[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for where, text := range shown {
		for _, secret := range []string{vendorPassword, testSecretKey, testRegionToken} {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in %s", secret, where)
			}
		}
		found = found || strings.HasPrefix(where, dataDir) && strings.Contains(text, "nb-eiguqichl5hc")
	}
	if !found {
		t.Error("the data directory's files were not searched: they do not even hold the notebook")
	}
}

// TestChangeImageOnTheWire looks at what CoresHub is sent.
func TestChangeImageOnTheWire(t *testing.T) {
	v, clouds := startVendorClouds(t)
	dataDir := t.TempDir()
	p := start(t, vendorConfig(clouds.URL, dataDir))
	const password = "canary-registry-password"
	resp, err := p.ChangeImage(t.Context(), &notebookv1.ChangeImageRequest{
		Name: "clouds/core/locations/xb3/notebooks/nb-eiguqichl5hc", Image: "xb3-dockerhub.coreshub.cn/aicp/public/tensorflow:2.16.1-gpu-jupyter",
		ImageType: "official", RegistryCredential: &notebookv1.RegistryCredential{Username: "robot", Password: password},
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetChange().GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED {
		t.Errorf("change = %v", resp.GetChange())
	}
	var posts []recorded
	v.mu.Lock()
	for _, r := range v.requests {
		if r.method == http.MethodPost {
			posts = append(posts, r)
		}
	}
	v.mu.Unlock()
	if len(posts) != 1 {
		t.Fatalf("%d calls of change_image, want 1", len(posts))
	}
	wantBody := `{"image":"xb3-dockerhub.coreshub.cn/aicp/public/tensorflow:2.16.1-gpu-jupyter","image_type":"official","uuid":"nb-eiguqichl5hc",` +
		`"secret":{"has_auth":true,"username":"robot","password":"` + password + `"}}`
	if diff := cmp.Diff(wantBody, posts[0].body); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if prefix := "/aicp/notebooks/namespaces/usr-5hy8xxxx/notebooks/change_image?access_key_id=QYTESTACCESSKEYID000&zone=xb3&signature="; !strings.HasPrefix(posts[0].uri, prefix) ||
		!strings.HasSuffix(posts[0].uri, "%253D") {
		t.Errorf("request = %s", posts[0].uri)
	}
	signature := strings.SplitN(posts[0].uri, "signature=", 2)[1]
	_, metrics := p.get(t, "/metrics")
	_, list := p.get(t, "/v1/notebooks")
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	for where, text := range map[string]string{"log": p.log.String(), "metrics": metrics, "list": list, "answer": resp.String()} {
		for _, secret := range []string{password, signature, testSecretKey} {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in the %s", secret, where)
			}
		}
	}
}

func TestDoorsBesideTheAPI(t *testing.T) {
	_, clouds := startVendorClouds(t)
	p := start(t, vendorConfig(clouds.URL, ""))
	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": "ok", "/metrics": "notebookd_polls_total", "/openapi.yaml": "/v1/notebooks:watch", "/": "<html", "/console.json": `"required":false`,
	} {
		if code, body := p.get(t, path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d without %q", path, code, want)
		}
	}
	_, body := p.get(t, "/openapi.yaml")
	var doc struct {
		OpenAPI string
		Paths   map[string]any
	}
	if err := yaml.Unmarshal([]byte(body), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.") || len(doc.Paths) != 12 {
		t.Errorf("openapi %q with %d paths, %v", doc.OpenAPI, len(doc.Paths), err)
	}
}

// searchFiles wants none of some texts in any file of a directory.
func searchFiles(t *testing.T, dir string, secrets ...string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, secret := range secrets {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds %s", path, secret)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func loggerOf(cfg *config, w io.Writer) *slog.Logger {
	log, _ := newLogger(cfg.Log, w)
	return log
}
