package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// A server in a process of its own is attacked while a friend calls it: List over
// both doors, and a watch. Each attack states how it is to be answered. The friend's
// slowest calls are compared with those of the same run without an attack: times
// alone say nothing on a machine that others use.

var attackFor = flag.Duration("attack", 0, "for how long TestAttacks attacks altogether; default: a short part")

const (
	// attackCanary is in all that attackers send.
	attackCanary = "canary-of-the-attacker"
	// attackRequestTime is the request_time of the servers.
	attackRequestTime = time.Second
	// attackMemory bounds what a server may hold in memory, and attackMemoryRace what
	// one with the race detector may, which never gives back what it had.
	attackMemory, attackMemoryRace = 512 << 20, 4 * 512 << 20
	// attackCalls is how often the friend has to be answered during each attack.
	attackCalls = 10
	// attackSlowdown bounds how much slower the friend's slowest calls may be. The
	// attackers and the friend share the processors with the server, and what the
	// server loses to an attack is a part of that.
	attackSlowdown = 200
	// attackLines bounds the lines in the log that are not about a call.
	attackLines = 20
)

const attackLimits = `
log: {level: info}
limits: {request_time: 1s, connections: 5000, header_bytes: 32768, url_bytes: 8192, message_bytes: 1048576, streams_per_connection: 100}
`

// victim is a server that is attacked, and what is known about it.
type victim struct {
	*child
	t      *testing.T
	client *tls.Config // nil without TLS
	fleet  *cloudsim.Fleet
	friend *friend

	goroutines int // when it is at rest
}

// startVictim starts a server in a process of its own, and its friend.
func startVictim(t *testing.T, withTLS bool) *victim {
	t.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 200})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	v := &victim{t: t, fleet: fleet}
	dir := t.TempDir()
	text := "grpc: {address: 127.0.0.1:0}\nhttp: {address: 127.0.0.1:0}\n" + attackLimits + fleet.ServerConfig()
	if withTLS {
		cert, key, pool := selfSigned(t, dir)
		text += fmt.Sprintf("tls: {cert: %q, key: %q}\n", cert, key)
		v.client = &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	}
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	v.child = startSelf(t, asServer, file)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: v.client, MaxIdleConnsPerHost: 4}}
	t.Cleanup(client.CloseIdleConnections)
	scheme := "http"
	if withTLS {
		scheme = "https"
	}
	ok := eventually(t.Context(), time.Minute, func() bool {
		said := serves.FindSubmatch(v.logged())
		if said == nil {
			return false
		}
		v.address, v.http = string(said[1]), scheme+"://"+string(said[2])
		resp, err := client.Get(v.http + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if !ok {
		t.Fatalf("the server did not become ready:\n%s", v.logged())
	}
	v.friend = v.befriend(client)
	v.goroutines = v.atRest()
	return v
}

// selfSigned writes a certificate for localhost and its key.
func selfSigned(t *testing.T, dir string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return cert, key, pool
}

func (v *victim) logged() []byte {
	data, _ := os.ReadFile(v.log) // there is none yet, perhaps
	return data
}

// metric reads a metric without labels, over the friend's connection.
func (v *victim) metric(name string) (float64, error) {
	text, err := v.friend.get("/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// atRest is the least number of goroutines that is seen for a while.
func (v *victim) atRest() int {
	v.t.Helper()
	least := 0.0
	for range 10 {
		n, err := v.metric("go_goroutines")
		if err != nil {
			v.t.Fatal(err)
		}
		if least == 0 || n < least {
			least = n
		}
		pause(v.t.Context(), 50*time.Millisecond)
	}
	return int(least)
}

// friend calls a server all the time.
type friend struct {
	http *http.Client
	base string

	mu   sync.Mutex // guards what is below
	took []time.Duration
	errs []error
}

func (f *friend) get(path string) (string, error) {
	resp, err := f.http.Get(f.base + path)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("HTTP %d: %.200s", resp.StatusCode, data)
	}
	return string(data), err
}

// befriend starts a friend, who calls until the test ends.
func (v *victim) befriend(client *http.Client) *friend {
	f := &friend{http: client, base: v.http}
	creds := insecure.NewCredentials()
	if v.client != nil {
		creds = credentials.NewTLS(v.client)
	}
	conn, err := grpc.NewClient(v.address, grpc.WithTransportCredentials(creds))
	if err != nil {
		v.t.Fatal(err)
	}
	notebooks := notebookv1.NewNotebookServiceClient(conn)
	ctx, cancel := context.WithCancel(context.Background())
	var calling sync.WaitGroup
	call := func(what string, one func() error) {
		calling.Go(func() {
			for pause(ctx, 2*time.Millisecond) {
				began := time.Now()
				err := one()
				took := time.Since(began)
				if ctx.Err() != nil {
					return
				}
				f.mu.Lock()
				f.took = append(f.took, took)
				if err != nil {
					f.errs = append(f.errs, fmt.Errorf("%s: %w", what, err))
				}
				f.mu.Unlock()
			}
		})
	}
	call("List over gRPC", func() error {
		_, err := notebooks.List(ctx, &notebookv1.ListRequest{PageSize: 20})
		return err
	})
	call("List over REST", func() error {
		_, err := f.get("/v1/notebooks?pageSize=20")
		return err
	})
	calling.Go(func() {
		err := f.watch(ctx, notebooks)
		if ctx.Err() == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.errs = append(f.errs, fmt.Errorf("Watch: %w", err))
		}
	})
	v.t.Cleanup(func() {
		cancel()
		calling.Wait()
		_ = conn.Close()
	})
	return f
}

// watch keeps a watch, and makes sure that frames come.
func (f *friend) watch(ctx context.Context, notebooks notebookv1.NotebookServiceClient) error {
	stream, err := notebooks.Watch(ctx, &notebookv1.WatchRequest{BookmarkInterval: durationpb.New(time.Second)})
	if err != nil {
		return err
	}
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

// sample returns what the friend has seen since it was last asked.
func (f *friend) sample() (took []time.Duration, errs []error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	took, errs = f.took, f.errs
	f.took, f.errs = nil, nil
	return took, errs
}

// answered is how many calls sample would return.
func (f *friend) answered() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.took)
}

// attack is a way to do harm.
type attack struct {
	name    string
	workers int // that attack at once
	// round attacks once and returns how that was answered.
	round func(context.Context, *victim) string
	// want are the answers that may be seen. The first has to be; or any of them.
	want []string
	any  bool
	// slow is for attacks that need nothing but time.
	slow bool
}

// run attacks until ctx ends, and returns how often it was answered how.
func (a *attack) run(ctx context.Context, v *victim) map[string]int {
	var mu sync.Mutex // guards seen
	seen := map[string]int{}
	var workers sync.WaitGroup
	for range a.workers {
		workers.Go(func() {
			for first := true; first || ctx.Err() == nil; first = false {
				answer := a.round(ctx, v)
				if ctx.Err() != nil && (answer == answerTimeUp || answer == answerHolds && !slices.Contains(a.want, answerHolds)) {
					answer = answerTimeUp // it was cut short
				}
				if answer == answerTimeUp && !first {
					return
				}
				mu.Lock()
				seen[answer]++
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return seen
}

// Answers, as rounds tell them. Others are the status of HTTP or gRPC, or the code
// of a GOAWAY or RST_STREAM.
const (
	answerClosed = "closed"
	answerHolds  = "holds" // the server goes on answering over this connection
	answerTimeUp = "time is up"
)

// TestAttacks attacks servers in many ways, each for a bounded time.
func TestAttacks(t *testing.T) {
	each := 40 * time.Millisecond
	if *attackFor > 0 {
		each = *attackFor / time.Duration(len(plainAttacks())+len(secureAttacks()))
	}
	t.Run("plain text", func(t *testing.T) { campaign(t, startVictim(t, false), each, plainAttacks()) })
	t.Run("TLS", func(t *testing.T) { campaign(t, startVictim(t, true), each, secureAttacks()) })
}

// campaign attacks a server in every way. Those attacks that only take time run at
// once.
func campaign(t *testing.T, v *victim, each time.Duration, attacks []*attack) {
	t.Helper()
	var slow []*attack
	quick := map[string][]*attack{}
	var order []string
	for _, a := range attacks {
		if a.slow {
			slow = append(slow, a)
			continue
		}
		quick[a.name] = []*attack{a}
		order = append(order, a.name)
	}
	if slow != nil {
		quick["slow"] = slow
		order = append([]string{"slow"}, order...)
	}
	v.friend.sample()
	pause(t.Context(), max(each, time.Second/2))
	calm, errs := v.friend.sample()
	if len(errs) > 0 || len(calm) < 20 {
		t.Fatalf("the friend has %d calls and %v before any attack", len(calm), errs)
	}
	for _, name := range order {
		t.Run(name, func(t *testing.T) { v.survives(t, quick[name], each, calm) })
	}
	if log := v.logged(); bytes.Contains(log, []byte(attackCanary)) {
		at := bytes.Index(log, []byte(attackCanary))
		t.Errorf("the log has what attackers sent: %s", log[max(0, at-300):min(len(log), at+100)])
	}
}

// survives runs attacks at once and looks at what they did to the server.
func (v *victim) survives(t *testing.T, attacks []*attack, each time.Duration, calm []time.Duration) {
	t.Helper()
	lines := otherLines(v.logged())
	v.friend.sample()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var peak atomic.Int64 // of the memory, in bytes
	var watching sync.WaitGroup
	watching.Go(func() {
		for pause(ctx, 20*time.Millisecond) {
			peak.Store(max(peak.Load(), int64(v.memory(t))))
		}
	})
	if attacks[0].slow {
		each = max(each, attackRequestTime+attackRequestTime/2)
	}
	attacking, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() {
		defer stop()
		if pause(attacking, each) && !eventually(attacking, 30*time.Second, func() bool { return v.friend.answered() >= attackCalls }) {
			t.Error("the friend is not answered")
		}
	})
	for _, a := range attacks {
		running.Go(func() {
			seen := a.run(attacking, v)
			t.Logf("%s: %v", a.name, seen)
			if !slices.ContainsFunc(a.want, func(answer string) bool { return seen[answer] > 0 && (answer == a.want[0] || a.any) }) {
				t.Errorf("%s was not answered with %q: %v", a.name, a.want[0], seen)
			}
			for answer := range seen {
				if !slices.Contains(a.want, answer) && answer != answerTimeUp {
					t.Errorf("%s was answered with %q, want one of %q", a.name, answer, a.want)
				}
			}
		})
	}
	running.Wait()
	took, errs := v.friend.sample()
	cancel()
	watching.Wait()
	for _, err := range errs[:min(len(errs), 3)] {
		t.Errorf("the friend (%d errors in %d calls): %v", len(errs), len(took), err)
	}
	if len(took) > 0 {
		slower := float64(p99(took)) / float64(p99(slices.Clone(calm)))
		t.Logf("friend: %d calls, p99 is %.1f times the usual; memory at most %d MiB", len(took), slower, peak.Load()>>20)
		if slower > attackSlowdown {
			t.Errorf("the friend's p99 is %.0f times the usual", slower)
		}
	}
	limit := int64(attackMemory)
	if withRace() {
		limit = attackMemoryRace
	}
	if peak.Load() > limit {
		t.Errorf("the server held %d MiB", peak.Load()>>20)
	}
	var left float64
	if !eventually(t.Context(), 20*time.Second, func() bool {
		n, err := v.metric("go_goroutines")
		left = n
		return err == nil && int(n) <= v.goroutines+10 // polls and the friend's own calls
	}) {
		t.Errorf("%v goroutines are left, %d were there before any attack", left, v.goroutines)
	}
	log := v.logged()
	if n := otherLines(log) - lines; n > attackLines {
		t.Errorf("%d lines in the log that are about no call, at last: %s", n, log[max(0, len(log)-3000):])
	}
	if at := bytes.Index(log, []byte("panic")); at >= 0 {
		t.Errorf("a panic: %.2000s", log[at:])
	}
}

// withRace reports whether this binary, which is also the server, has the race
// detector.
func withRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// otherLines counts the lines of a log that are not about a call.
func otherLines(log []byte) int {
	return bytes.Count(log, []byte("\n")) - bytes.Count(log, []byte(`msg="finished call"`))
}

// connect opens a connection to a door, which is closed when ctx ends, at the latest.
func (v *victim) connect(ctx context.Context, address string, protocols ...string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(strings.TrimPrefix(address, "http://"), "https://"))
	if err != nil {
		return nil, err
	}
	if v.client != nil && len(protocols) > 0 {
		cfg := v.client.Clone()
		cfg.NextProtos = protocols
		secured := tls.Client(conn, cfg)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		conn = secured
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return &attackConn{conn, stop}, nil
}

type attackConn struct {
	net.Conn
	stop func() bool
}

func (c *attackConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// over is the answer where a connection failed with an error.
func over(ctx context.Context, err error) string {
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return answerTimeUp
	}
	return answerClosed
}

// say sends a text over HTTP/1 and returns the status of the answer, where that is
// the server's own also the name of its code.
func (v *victim) say(ctx context.Context, address, text string) string {
	conn, err := v.connect(ctx, address, "http/1.1")
	if err != nil {
		return over(ctx, err)
	}
	defer func() { _ = conn.Close() }()
	// What is refused early is answered while it is sent.
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() { _, _ = io.WriteString(conn, text) })
	answer := answerOf(ctx, conn)
	_ = conn.Close()
	return answer
}

// answerOf reads the answer to a request over HTTP/1.
func answerOf(ctx context.Context, conn net.Conn) string {
	buf := make([]byte, 16<<10)
	n, err := io.ReadAtLeast(conn, buf, 12)
	if n < 12 {
		return over(ctx, err)
	}
	if !bytes.HasPrefix(buf, []byte("HTTP/1.")) {
		return fmt.Sprintf("no HTTP: %q", buf[:n])
	}
	code := string(buf[9:12])
	for !bytes.Contains(buf[:n], []byte(`"reason":`)) && err == nil && n < len(buf) && bytes.Contains(buf[:n], []byte("application/json")) {
		var more int
		more, err = conn.Read(buf[n:])
		n += more
	}
	if bytes.Contains(buf[:n], []byte(`"domain":"notebookd"`)) || bytes.Contains(buf[:n], []byte(`"domain": "notebookd"`)) {
		code += " with our JSON"
	}
	return code
}

// h2 is the client's end of an HTTP/2 connection.
type h2 struct {
	*http2.Framer
	conn net.Conn
	next uint32 // stream

	block bytes.Buffer
	hpack *hpack.Encoder
}

// h2 opens an HTTP/2 connection to a door and sends its preface.
func (v *victim) h2(ctx context.Context, address string, settings ...http2.Setting) (*h2, error) {
	conn, err := v.connect(ctx, address, "h2")
	if err != nil {
		return nil, err
	}
	c := &h2{Framer: http2.NewFramer(conn, conn), conn: conn, next: 1}
	c.hpack = hpack.NewEncoder(&c.block)
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err = io.WriteString(conn, http2.ClientPreface)
	if err == nil {
		err = c.WriteSettings(settings...)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// fields encodes a header. Names and values take turns.
func (c *h2) fields(pairs ...string) []byte {
	c.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = c.hpack.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}) // to a buffer
	}
	return slices.Clone(c.block.Bytes())
}

// call begins a call over gRPC, or a request over HTTP.
func (c *h2) call(method string, more ...string) (stream uint32, err error) {
	stream = c.next
	c.next += 2
	pairs := []string{":method", "POST", ":scheme", "http", ":path", method, ":authority", "localhost", "content-type", "application/grpc", "te", "trailers", "x-canary", attackCanary}
	return stream, c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.fields(append(pairs, more...)...), EndHeaders: true})
}

// message is a request over gRPC.
func message(m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(data))), data...)
}

// outcome reads frames until one says how the server takes it: the end of the
// connection, or of a stream where that is asked for.
func (c *h2) outcome(ctx context.Context, ofStreams bool) string {
	for {
		frame, err := c.ReadFrame()
		if err != nil {
			return over(ctx, err)
		}
		switch frame := frame.(type) {
		case *http2.GoAwayFrame:
			if frame.ErrCode != http2.ErrCodeNo {
				return "GOAWAY " + frame.ErrCode.String()
			}
		case *http2.RSTStreamFrame:
			if ofStreams {
				return "RST_STREAM " + frame.ErrCode.String()
			}
		case *http2.MetaHeadersFrame:
			if !ofStreams {
				continue
			}
			for _, f := range frame.Fields {
				if f.Name == "grpc-status" {
					code, _ := strconv.Atoi(f.Value)
					return "gRPC " + codes.Code(code).String()
				}
				if f.Name == ":status" && f.Value != "200" {
					return f.Value
				}
			}
		}
	}
}

// flood writes as fast as it can, while it reads what comes back, or nothing where
// the server is not to get rid of it. It returns how the server takes it, or that it
// goes on answering.
func (v *victim) flood(ctx context.Context, address string, reads bool, settings []http2.Setting, write func(*h2) error) string {
	c, err := v.h2(ctx, address, settings...)
	if err != nil {
		return over(ctx, err)
	}
	outcome := make(chan string, 1)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer func() { _ = c.conn.Close() }()
	if reads {
		reading.Go(func() { outcome <- c.outcome(ctx, false) })
	}
	for {
		if err := write(c); err != nil {
			if ctx.Err() != nil {
				return answerHolds
			}
			if !reads {
				return c.outcome(ctx, false)
			}
			return <-outcome
		}
		select {
		case answer := <-outcome:
			if answer == answerTimeUp {
				return answerHolds
			}
			return answer
		default:
		}
	}
}

func listPath() string  { return notebookv1.NotebookService_List_FullMethodName }
func watchPath() string { return notebookv1.NotebookService_Watch_FullMethodName }

// drip sends a text a byte at a time and returns how the server ends that.
func (v *victim) drip(ctx context.Context, address, at, text string) string {
	conn, err := v.connect(ctx, address, "http/1.1")
	if err != nil {
		return over(ctx, err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, at); err != nil {
		return over(ctx, err)
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	dripping, done := context.WithCancel(ctx)
	defer done()
	sending.Go(func() {
		for i := 0; pause(dripping, 50*time.Millisecond); i++ {
			if _, err := io.WriteString(conn, text[i%len(text):i%len(text)+1]); err != nil {
				return
			}
		}
	})
	return answerOf(ctx, conn)
}

// unary makes one call over gRPC and returns its code.
func (v *victim) unary(ctx context.Context, request []byte, more ...string) string {
	c, err := v.h2(ctx, v.address)
	if err != nil {
		return over(ctx, err)
	}
	defer func() { _ = c.conn.Close() }()
	stream, err := c.call(listPath(), more...)
	// What the window has room for is enough for a refusal.
	for room := 3; len(request) > 0 && room > 0 && err == nil; room-- {
		n := min(len(request), 16<<10)
		err = c.WriteData(stream, len(request) == n, request[:n])
		request = request[n:]
	}
	if err != nil {
		return over(ctx, err)
	}
	return c.outcome(ctx, true)
}

func post(path, body string, headers ...string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nX-Canary: " + attackCanary + "\r\nContent-Type: application/json\r\nConnection: close\r\n" +
		strings.Join(append(headers, ""), "\r\n") + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

const changePath = "/v1/clouds/core/locations/xb3/notebooks/" + cloudsim.CoresHubNotebook + ":changeImage"

// manyHeaders is a hundred thousand lines of a header.
func manyHeaders() string {
	var b strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&b, "X-%d: %s\r\n", i, attackCanary)
	}
	return b.String()
}

// continuations sends a header that never ends.
func continuations(address func(*victim) string) func(context.Context, *victim) string {
	return func(ctx context.Context, v *victim) string {
		begun := false
		return v.flood(ctx, address(v), true, nil, func(c *h2) error {
			if !begun {
				begun = true
				return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(":method", "POST", ":scheme", "http", ":path", "/"+attackCanary)})
			}
			var pairs []string
			for range 200 {
				pairs = append(pairs, "x-"+strconv.Itoa(mathrand.IntN(1e9)), attackCanary)
			}
			return c.WriteContinuation(1, false, c.fields(pairs...))
		})
	}
}

// floods are those of an HTTP/2 door, with the answer to each.
func floods(door string, address func(*victim) string, want map[string][]string) []*attack {
	path := listPath()
	open := func(c *h2) (uint32, error) { return c.call(path) }
	all := []*attack{
		{name: "rapid reset", workers: 1, round: func(ctx context.Context, v *victim) string {
			return v.flood(ctx, address(v), true, nil, func(c *h2) error {
				stream, err := open(c)
				if err != nil {
					return err
				}
				return c.WriteRSTStream(stream, http2.ErrCodeCancel)
			})
		}},
		{name: "PING flood", workers: 1, round: func(ctx context.Context, v *victim) string {
			return v.flood(ctx, address(v), true, nil, func(c *h2) error { return c.WritePing(false, [8]byte{1}) })
		}},
		{name: "PING flood, no answer read", workers: 1, round: func(ctx context.Context, v *victim) string {
			return v.flood(ctx, address(v), false, nil, func(c *h2) error { return c.WritePing(false, [8]byte{1}) })
		}},
		{name: "SETTINGS flood", workers: 1, round: func(ctx context.Context, v *victim) string {
			return v.flood(ctx, address(v), true, nil, func(c *h2) error {
				return c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
			})
		}},
		{name: "SETTINGS flood, no answer read", workers: 1, round: func(ctx context.Context, v *victim) string {
			return v.flood(ctx, address(v), false, nil, func(c *h2) error {
				return c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
			})
		}},
		{name: "WINDOW_UPDATE flood", workers: 1, round: func(ctx context.Context, v *victim) string {
			return v.flood(ctx, address(v), true, nil, func(c *h2) error { return c.WriteWindowUpdate(0, 1) })
		}},
		{name: "empty DATA flood", workers: 1, round: func(ctx context.Context, v *victim) string {
			return v.flood(ctx, address(v), true, nil, func(c *h2) error {
				if c.next == 1 {
					if _, err := open(c); err != nil {
						return err
					}
				}
				return c.WriteData(1, false, nil)
			})
		}},
		{name: "CONTINUATION flood", workers: 1, round: continuations(address)},
		{name: "random frames", workers: 1, round: func(ctx context.Context, v *victim) string {
			var rng [32]byte
			_, _ = rand.Read(rng[:]) // it never fails
			random := mathrand.New(mathrand.NewChaCha8(rng))
			return v.flood(ctx, address(v), true, nil, func(c *h2) error {
				payload := make([]byte, random.IntN(200))
				for i := range payload {
					payload[i] = byte(random.Uint32())
				}
				copy(payload, attackCanary)
				return c.WriteRawFrame(http2.FrameType(random.IntN(12)), http2.Flags(random.Uint32()), uint32(random.IntN(8)), payload)
			})
		}},
	}
	for _, a := range all {
		a.want = want[a.name]
		if a.want == nil {
			a.want = []string{answerHolds, answerClosed, "GOAWAY ENHANCE_YOUR_CALM"} // whatever suits the server
		}
		a.any, a.name = true, door+": "+a.name
	}
	return all
}

func grpcDoor(v *victim) string { return v.address }
func httpDoor(v *victim) string { return v.http }

// garbage sends random bytes to a door.
func garbage(address func(*victim) string) func(context.Context, *victim) string {
	return func(ctx context.Context, v *victim) string {
		conn, err := v.connect(ctx, address(v))
		if err != nil {
			return over(ctx, err)
		}
		defer func() { _ = conn.Close() }()
		bytes := make([]byte, 64+mathrand.IntN(4000))
		_, _ = rand.Read(bytes) // it never fails
		copy(bytes[mathrand.IntN(8):], attackCanary)
		if _, err := conn.Write(append(bytes, "\r\n\r\n"...)); err != nil {
			return over(ctx, err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil && ctx.Err() != nil {
			return answerTimeUp
		}
		return answerClosed
	}
}

// plainAttacks are those on a server without TLS.
func plainAttacks() []*attack {
	nested := strings.Repeat("(", 2000) + attackCanary
	deep := `{"image": ` + strings.Repeat(`[`, 200_000) + attackCanary
	headers, bomb := manyHeaders(), gzipped(8<<20)
	all := []*attack{
		{name: "HTTP: header a byte at a time", slow: true, workers: 50, want: []string{answerClosed}, round: func(ctx context.Context, v *victim) string {
			return v.drip(ctx, v.http, "GET /"+attackCanary+" HTTP/1.1\r\nHost: localhost\r\n", "X-Slow: "+attackCanary+"\r\n")
		}},
		{name: "HTTP: body a byte at a time", slow: true, workers: 50, want: []string{"408 with our JSON"}, round: func(ctx context.Context, v *victim) string {
			return v.drip(ctx, v.http, "POST "+changePath+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", `{"image": "`+attackCanary)
		}},
		{name: "gRPC: HTTP/1 a byte at a time", slow: true, workers: 50, want: []string{answerClosed}, round: func(ctx context.Context, v *victim) string {
			conn, err := v.connect(ctx, v.address)
			if err != nil {
				return over(ctx, err)
			}
			defer func() { _ = conn.Close() }()
			for i := 0; pause(ctx, 50*time.Millisecond); i++ {
				if _, err := conn.Write([]byte{("GET /" + attackCanary)[i%20]}); err != nil {
					return over(ctx, err)
				}
			}
			return answerTimeUp
		}},
		{name: "gRPC: no preface", slow: true, workers: 50, want: []string{answerClosed}, round: func(ctx context.Context, v *victim) string {
			conn, err := v.connect(ctx, v.address)
			if err != nil {
				return over(ctx, err)
			}
			defer func() { _ = conn.Close() }()
			_, err = io.Copy(io.Discard, conn)
			if err == nil {
				return answerClosed
			}
			return over(ctx, err)
		}},
		{name: "gRPC: calls without a message", slow: true, workers: 10, want: []string{"gRPC DeadlineExceeded"}, round: func(ctx context.Context, v *victim) string {
			c, err := v.h2(ctx, v.address)
			if err != nil {
				return over(ctx, err)
			}
			defer func() { _ = c.conn.Close() }()
			for i := range 100 {
				if _, err := c.call([]string{listPath(), watchPath()}[i%2], "grpc-timeout", "99999999H"); err != nil {
					return over(ctx, err)
				}
			}
			return c.outcome(ctx, true)
		}},
		{name: "HTTP: 100,000 headers", workers: 2, want: []string{"431", answerClosed}, round: func(ctx context.Context, v *victim) string {
			return v.say(ctx, v.http, "GET /v1/notebooks HTTP/1.1\r\nHost: localhost\r\n"+headers+"\r\n")
		}},
		{name: "HTTP: long URL", workers: 2, want: []string{"414 with our JSON", answerClosed}, round: func(ctx context.Context, v *victim) string {
			return v.say(ctx, v.http, "GET /v1/notebooks?pageToken="+strings.Repeat("A", 10_000)+attackCanary+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		}},
		{name: "HTTP: large body", workers: 2, want: []string{"413 with our JSON", answerClosed}, round: func(ctx context.Context, v *victim) string {
			return v.say(ctx, v.http, post(changePath, `{"image": "`+strings.Repeat(attackCanary, 100_000)+`"}`))
		}},
		{name: "HTTP: deep JSON", workers: 2, want: []string{"400 with our JSON", answerClosed}, round: func(ctx context.Context, v *victim) string {
			return v.say(ctx, v.http, post(changePath, deep))
		}},
		{name: "HTTP: gzip bomb", workers: 2, want: []string{"400 with our JSON", answerClosed}, round: func(ctx context.Context, v *victim) string {
			return v.say(ctx, v.http, post(changePath, bomb, "Content-Encoding: gzip"))
		}},
		{name: "gRPC: gzip bomb", workers: 2, want: []string{"gRPC ResourceExhausted", answerClosed}, round: func(ctx context.Context, v *victim) string {
			return v.unary(ctx, append(binary.BigEndian.AppendUint32([]byte{1}, uint32(len(bomb))), bomb...), "grpc-encoding", "gzip")
		}},
		{name: "gRPC: giant page token", workers: 2, want: []string{"gRPC InvalidArgument", answerClosed}, round: func(ctx context.Context, v *victim) string {
			return v.unary(ctx, message(&notebookv1.ListRequest{PageToken: strings.Repeat(attackCanary, 2000)}))
		}},
		{name: "gRPC: giant message", workers: 2, want: []string{"gRPC ResourceExhausted", answerClosed}, round: func(ctx context.Context, v *victim) string {
			return v.unary(ctx, append(binary.BigEndian.AppendUint32([]byte{0}, 2<<20), attackCanary...))
		}},
		{name: "gRPC: giant filter", workers: 2, want: []string{"gRPC InvalidArgument", answerClosed}, round: func(ctx context.Context, v *victim) string {
			return v.unary(ctx, message(&notebookv1.ListRequest{Filter: strings.Repeat(attackCanary+" ", 2000)}))
		}},
		{name: "gRPC: nested filter", workers: 2, want: []string{"gRPC InvalidArgument", answerClosed}, round: func(ctx context.Context, v *victim) string {
			return v.unary(ctx, message(&notebookv1.ListRequest{Filter: nested}))
		}},
		{name: "10,000 connections", workers: 1, want: []string{answerClosed}, round: manyConnections},
		{name: "HTTP: garbage", workers: 4, want: []string{answerClosed}, round: garbage(httpDoor)},
		{name: "gRPC: garbage", workers: 4, want: []string{answerClosed}, round: garbage(grpcDoor)},
		{name: "HTTP: answers that nobody reads", workers: 10, want: []string{answerHolds}, round: func(ctx context.Context, v *victim) string {
			conn, err := v.connect(ctx, v.http)
			if err != nil {
				return over(ctx, err)
			}
			defer func() { _ = conn.Close() }()
			for ctx.Err() == nil { // until nothing more goes out
				_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
				if _, err := io.WriteString(conn, strings.Repeat("GET /v1/notebooks?pageSize=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n", 100)); errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
			}
			<-ctx.Done()
			return answerHolds
		}},
		{name: "gRPC: answers that nobody reads", workers: 1, want: []string{answerHolds}, round: func(ctx context.Context, v *victim) string {
			request := message(&notebookv1.ListRequest{PageSize: 1000})
			return v.flood(ctx, v.address, true, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}, func(c *h2) error {
				stream, err := c.call(listPath())
				if err != nil {
					return err
				}
				return c.WriteData(stream, true, request)
			})
		}},
	}
	return append(all, floods("gRPC", grpcDoor, map[string][]string{
		"PING flood":                     {"GOAWAY ENHANCE_YOUR_CALM", answerClosed},
		"PING flood, no answer read":     {answerHolds, "GOAWAY ENHANCE_YOUR_CALM", answerClosed}, // closed a second later
		"SETTINGS flood, no answer read": {answerHolds, answerClosed},
		"CONTINUATION flood":             {answerClosed, "GOAWAY PROTOCOL_ERROR"},
		"random frames":                  {answerClosed, "GOAWAY PROTOCOL_ERROR", "GOAWAY ENHANCE_YOUR_CALM"},
	})...)
}

// secureAttacks are those on a server with TLS.
func secureAttacks() []*attack {
	handshake := func(address func(*victim) string) func(context.Context, *victim) string {
		return func(ctx context.Context, v *victim) string {
			conn, err := v.connect(ctx, address(v))
			if err != nil {
				return over(ctx, err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := conn.Write([]byte{22, 3, 1, 2, 0, 1, 0}); err != nil { // the begin of a ClientHello
				return over(ctx, err)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil {
				return over(ctx, err)
			}
			return answerClosed
		}
	}
	all := []*attack{
		{name: "HTTP: handshakes that never end", slow: true, workers: 100, want: []string{answerClosed}, round: handshake(httpDoor)},
		{name: "gRPC: handshakes that never end", slow: true, workers: 100, want: []string{answerClosed}, round: handshake(grpcDoor)},
		{name: "HTTP/2: no preface", slow: true, any: true, workers: 20, want: []string{answerTimeUp, answerClosed}, round: func(ctx context.Context, v *victim) string {
			conn, err := v.connect(ctx, v.http, "h2")
			if err != nil {
				return over(ctx, err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.Copy(io.Discard, conn); err != nil {
				return over(ctx, err)
			}
			return answerClosed
		}},
		{name: "HTTP: garbage", workers: 4, want: []string{answerClosed}, round: garbage(httpDoor)},
		{name: "gRPC: garbage", workers: 4, want: []string{answerClosed}, round: garbage(grpcDoor)},
	}
	return append(all, floods("HTTP/2", httpDoor, map[string][]string{
		"rapid reset":                    {"GOAWAY ENHANCE_YOUR_CALM", answerHolds, answerClosed},
		"PING flood, no answer read":     {answerHolds, answerClosed, "GOAWAY ENHANCE_YOUR_CALM"}, // once ten thousand answers wait
		"SETTINGS flood, no answer read": {answerHolds, answerClosed},
		"CONTINUATION flood":             {"GOAWAY PROTOCOL_ERROR", "GOAWAY COMPRESSION_ERROR", answerClosed},
		"random frames":                  {"GOAWAY PROTOCOL_ERROR", "GOAWAY FRAME_SIZE_ERROR", "GOAWAY COMPRESSION_ERROR", "GOAWAY FLOW_CONTROL_ERROR", "GOAWAY STREAM_CLOSED", answerClosed},
	})...)
}

// gzipped is a number of zeros.
func gzipped(n int) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(make([]byte, n)) // to a buffer
	_ = w.Close()
	return b.String()
}

// manyConnections opens 10,000 connections, and keeps those that the server keeps.
func manyConnections(ctx context.Context, v *victim) string {
	closed := 0
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range 10_000 {
		conn, err := v.connect(context.WithoutCancel(ctx), []string{v.http, v.address}[i%2])
		if err != nil {
			closed++
			continue
		}
		conns = append(conns, conn)
	}
	// The server may be behind with those that are many.
	open := slices.Clone(conns)
	for until := time.Now().Add(20 * time.Second); closed < 10_000-5000 && time.Now().Before(until); {
		open = slices.DeleteFunc(open, func(c net.Conn) bool {
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := c.Read(make([]byte, 100))
			gone := err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
			if gone {
				closed++
			}
			return gone
		})
	}
	if closed < 10_000-5000 {
		return fmt.Sprintf("only %d closed", closed)
	}
	return answerClosed
}
