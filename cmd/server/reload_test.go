package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// load calls a server without a pause until the test ends.
type load struct {
	calls atomic.Int64
	stop  func()     // and wait
	mu    sync.Mutex // guards wrong
	wrong []string
}

func (l *load) failed(what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) < 10 {
		l.wrong = append(l.wrong, fmt.Sprintf("%s: %v", what, err))
	}
}

func (l *load) check(t *testing.T, moment string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range l.wrong {
		t.Errorf("%s: %s", moment, text)
	}
	l.wrong = nil
}

// startLoad lists over all doors, fresh rows included, and watches.
func startLoad(t *testing.T, g *guarded) *load {
	t.Helper()
	l := &load{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	l.stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(l.stop)
	authorized := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+g.tokens["everywhere"])
	repeat := func(what string, pause time.Duration, call func() error) {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := call(); err != nil && ctx.Err() == nil {
					l.failed(what, err)
				}
				l.calls.Add(1)
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	list := func(client *http.Client) func() error {
		return func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+"/v1/clouds/core/locations/-/notebooks", http.NoBody)
			if err != nil {
				return err
			}
			req.Header.Set("Authorization", "Bearer "+g.tokens["everywhere"])
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("HTTP %d: %s", resp.StatusCode, body)
			}
			return err
		}
	}
	kept, conn := g.web(t), g.dial(t)
	once := &http.Client{Transport: &http.Transport{TLSClientConfig: g.clientTLS(), DisableKeepAlives: true}}
	repeat("List over a kept connection", time.Millisecond, list(kept))
	repeat("List over a new connection", 5*time.Millisecond, list(once))
	notebooks := notebookv1.NewNotebookServiceClient(conn)
	repeat("List over gRPC", time.Millisecond, func() error {
		resp, err := notebooks.List(authorized, &notebookv1.ListRequest{})
		if err == nil && slices.Contains(resp.GetUnreachable(), "clouds/core") {
			err = fmt.Errorf("unreachable: %v", resp.GetUnreachable())
		}
		return err
	})
	stream, err := notebooks.Watch(authorized, &notebookv1.WatchRequest{Parent: "clouds/core"})
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		for {
			frame, err := stream.Recv()
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				l.failed("Watch", err)
				return
			}
			if r := frame.GetReset_(); r != nil {
				l.failed("Watch", fmt.Errorf("reset: %s", r.GetReason()))
			}
			l.calls.Add(1)
		}
	})
	return l
}

// applied waits until the configuration was applied once more.
func (g *guarded) applied(t *testing.T, change func()) {
	t.Helper()
	before := testutil.ToFloat64(g.server.reloads.applied)
	change()
	g.until(t, "the configuration is applied", func() bool { return testutil.ToFloat64(g.server.reloads.applied) > before })
}

// TestReloadUnderLoad: access keys, certificates, clouds and limits change while
// calls are made without a pause, and none of them fails.
func TestReloadUnderLoad(t *testing.T) {
	g := startGuarded(t, nil)
	more, err := cloudsim.Start(cloudsim.Config{Seed: 7, CoresHubNotebooks: 5})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(more.Close)
	l := startLoad(t, g)
	during := func(what string, f func()) {
		t.Helper()
		calls := l.calls.Load()
		f()
		g.until(t, "calls go on", func() bool { return l.calls.Load() > calls+50 })
		l.check(t, what)
	}
	everywhere := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+g.tokens["everywhere"])
	notebooks := notebookv1.NewNotebookServiceClient(g.dial(t))
	fresh := func() { // the cloud itself is asked
		t.Helper()
		if _, err := notebooks.List(everywhere, &notebookv1.ListRequest{Parent: "clouds/core", MaxStaleness: durationpb.New(0)}); err != nil {
			t.Errorf("fresh rows: %v", err)
		}
	}

	const newID, newKey = "ANOTHERACCESSKEYID00", "another-secret-access-key"
	during("keys", func() {
		g.fleet.CoresHub.SetKeys(map[string]string{cloudsim.CoresHubKeyID: cloudsim.CoresHubSecret, newID: newKey})
		g.applied(t, func() { g.secrets(t, newID, newKey) })
		fresh()
		g.fleet.CoresHub.SetKeys(map[string]string{newID: newKey}) // the old one is gone
		fresh()
	})
	serial := func() int64 {
		t.Helper()
		conn, err := tls.Dial("tcp", g.server.httpListener.Addr().String(), g.clientTLS())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	during("certificates", func() {
		if got := serial(); got != 3 {
			t.Errorf("the certificate has serial %d", got)
		}
		cert, key := g.ca.issue(t, "notebookd", 99)
		// One file at a time: a certificate with the key of another one is refused.
		g.file(t, "cert.pem", cert)
		g.until(t, "half of it is refused", func() bool { return testutil.ToFloat64(g.server.reloads.success) == 0 })
		if got := serial(); got != 3 {
			t.Errorf("half of a certificate is used: serial %d", got)
		}
		g.applied(t, func() { g.file(t, "key.pem", key) })
		if got := serial(); got != 99 {
			t.Errorf("the certificate has serial %d, want the new one", got)
		}
	})
	clouds := func() []string {
		t.Helper()
		resp, err := notebookv1.NewCloudServiceClient(g.dial(t)).ListClouds(everywhere, &notebookv1.ListCloudsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, c := range resp.GetClouds() {
			out = append(out, strings.TrimPrefix(c.GetName(), "clouds/"))
		}
		return out
	}
	another := func(text string) string {
		section := strings.SplitN(quick(more), "  - name: scnet", 2)[0]
		section = strings.Replace(strings.TrimPrefix(section, "clouds:\n"), "name: core", "name: more", 1)
		return text + section
	}
	during("a cloud added", func() {
		g.applied(t, func() { g.configure(t, another) })
		g.until(t, "it is read", func() bool {
			resp, err := notebooks.List(everywhere, &notebookv1.ListRequest{Parent: "clouds/more"})
			return err == nil && resp.GetTotalSize() > 0
		})
		if got := clouds(); !slices.Equal(got, []string{"core", "more", "scnet"}) {
			t.Errorf("the clouds are %v", got)
		}
	})
	during("a cloud removed", func() {
		g.applied(t, func() { g.configure(t, nil) })
		if got := clouds(); !slices.Equal(got, []string{"core", "scnet"}) {
			t.Errorf("the clouds are %v", got)
		}
		resp, err := notebooks.List(everywhere, &notebookv1.ListRequest{PageSize: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range resp.GetNotebooks() {
			if strings.HasPrefix(n.GetName(), "clouds/more/") {
				t.Fatalf("%s is still there", n.GetName())
			}
		}
	})
	during("a bad file", func() {
		g.configure(t, func(text string) string { return text + "drian: 1s\nhttp: {hsts: -1s}\n" })
		g.until(t, "it is refused", func() bool { return testutil.ToFloat64(g.server.reloads.success) == 0 })
		g.until(t, "its problems are in the log", func() bool {
			return strings.Contains(g.log.String(), "drian: unknown key") && strings.Contains(g.log.String(), "must not be negative")
		})
		g.applied(t, func() { g.configure(t, nil) })
		if testutil.ToFloat64(g.server.reloads.success) != 1 {
			t.Error("the metric says that it is refused")
		}
	})
	during("what needs a restart", func() {
		g.applied(t, func() {
			g.configure(t, func(text string) string { return text + "store: {tombstones: 1h}\nhttp: {address: 127.0.0.1:1}\n" })
		})
		if !strings.Contains(g.log.String(), "key=store") || !strings.Contains(g.log.String(), "key=http.address") {
			t.Error("the log does not say so")
		}
	})
	l.stop()
	l.check(t, "at the end")
	g.applied(t, func() {
		g.configure(t, func(text string) string {
			return strings.Replace(text, "calls_per_second: 1000000", "calls_per_second: 0.1, burst: 1", 1)
		})
	})
	for range 2 { // one may be left
		_, err = notebooks.List(everywhere, &notebookv1.ListRequest{})
	}
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(fmt.Sprint(status.Convert(err).Details()), "RATE_LIMITED") {
		t.Errorf("with a limit of a call in ten seconds: %v", err)
	}
}

// TestHangup: a signal lets the configuration be read at once.
func TestHangup(t *testing.T) {
	t.Run("taken-back", func(t *testing.T) {
		g := startGuarded(t, nil)
		g.configure(t, func(text string) string { return text + "drian: 1s\n" })
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		g.until(t, "it is refused", func() bool { return testutil.ToFloat64(g.server.reloads.success) == 0 })
		g.applied(t, func() { g.configure(t, nil) })
	})
	g := startGuarded(t, func(text string) string { return strings.Replace(text, "reload: 50ms", "reload: 1h", 1) })
	g.applied(t, func() {
		g.configure(t, func(text string) string {
			return strings.NewReplacer("reload: 50ms", "reload: 1h", "log: {level: debug}", "log: {level: error}").Replace(text)
		})
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	})
	if g.server.level.Level().String() != "ERROR" {
		t.Errorf("the log has level %v", g.server.level.Level())
	}
}

// TestChangeOutlivesReloads: an image change that takes several steps goes on with the
// keys of the day, waits while its cloud is not configured, and is made once.
func TestChangeOutlivesReloads(t *testing.T) {
	if !whole {
		t.Skip("half a minute: a part of `make campaign`")
	}
	t.Parallel()
	g := startGuarded(t, nil)
	g.fleet.SCNet.Set(func(s *cloudsim.SCNetSettings) { s.Transition = cloudsim.Duration(3 * time.Second) })
	admin := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+g.tokens["admin"])
	conn := g.dial(t)
	notebooks, changes := notebookv1.NewNotebookServiceClient(conn), notebookv1.NewImageChangeServiceClient(conn)
	request := &notebookv1.ChangeImageRequest{Name: scnetNotebook, Image: cloudsim.SCNetImage, ValidateOnly: true}
	plan, err := notebooks.ChangeImage(admin, request)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range plan.GetChange().GetWarnings() {
		request.Acknowledge = append(request.Acknowledge, w.GetCode())
	}
	request.ValidateOnly, request.Wait = false, durationpb.New(0)
	made, err := notebooks.ChangeImage(admin, request)
	if err != nil {
		t.Fatal(err)
	}
	g.until(t, "the new notebook is asked for", func() bool { return g.fleet.SCNet.Calls("create") == 1 })
	const key, secret = "abcdefabcdefabcdefabcdefabcdefab", "bcdefabcdefabcdefabcdefabcdefabc"
	rotated := func(text string) string {
		return strings.NewReplacer(cloudsim.SCNetAccessKey, key, cloudsim.SCNetSecretKey, secret).Replace(text)
	}
	g.fleet.SCNet.SetKeys(map[string]string{key: secret}) // the old one and its tokens end at once
	g.fleet.SCNet.Expire()
	g.applied(t, func() {
		g.configure(t, func(text string) string { // gone, and back with the new key
			before, _, _ := strings.Cut(text, "  - name: scnet")
			return before
		})
	})
	g.until(t, "the change waits", func() bool { return strings.Contains(g.log.String(), "its cloud is not configured any more") })
	g.applied(t, func() { g.configure(t, rotated) })
	g.until(t, "the change is made", func() bool {
		got, err := changes.GetImageChange(admin, &notebookv1.GetImageChangeRequest{Name: made.GetChange().GetName()})
		return err == nil && got.GetImageChange().GetPhase() == notebookv1.ImageChange_PHASE_SUCCEEDED
	})
	if n := g.fleet.SCNet.Calls("create"); n != 1 {
		t.Errorf("%d notebooks were asked for", n)
	}
	if n := strings.Count(g.log.String(), "image change taken up"); n > 2 {
		t.Errorf("it was taken up %d times", n)
	}
}
