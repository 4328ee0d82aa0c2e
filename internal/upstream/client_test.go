package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const canary = "canary+secret/value=="

// roundTripper is a transport in a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body string, header ...string) roundTripper {
	return func(*http.Request) (*http.Response, error) {
		h := http.Header{}
		for i := 0; i+1 < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

// call is a read whose answer must be JSON with status 200.
func call(class Class) Call {
	return Call{
		Op: "list", Location: "xb3", Class: class, Secrets: []Secret{NewSecret(canary)},
		Request: func(ctx context.Context) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodGet, "http://cloud.invalid/list?signature="+url.QueryEscape(canary), nil)
		},
		Decode: func(resp Response) error {
			if resp.Status != http.StatusOK {
				e := HTTPError(resp)
				e.Message = string(resp.Body)
				return e
			}
			var v any
			return json.Unmarshal(resp.Body, &v)
		},
	}
}

func TestDoClassifies(t *testing.T) {
	reset := func(*http.Request) (*http.Response, error) {
		return nil, &url.Error{Op: "Get", URL: "http://cloud.invalid/?signature=" + canary, Err: io.ErrUnexpectedEOF}
	}
	cut := func(*http.Request) (*http.Response, error) {
		body := io.MultiReader(strings.NewReader(`{"data":`), errorReader{})
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(body)}, nil
	}
	for _, tt := range []struct {
		name      string
		transport roundTripper
		kind      Kind
		code      string
		retry     time.Duration
	}{
		{"html with 200", answer(200, "<html>"), KindBadResponse, "HTTP 200", 0},
		{"cut json", answer(200, `{"a":`), KindBadResponse, "HTTP 200", 0},
		{"connection lost in the body", cut, KindUnavailable, "", 0},
		{"connection lost", reset, KindUnavailable, "", 0},
		{"too large", answer(200, strings.Repeat(" ", MaxBody+1)), KindBadResponse, "", 0},
		{"redirection", answer(302, "", "Location", "http://elsewhere.invalid/"), KindBadResponse, "HTTP 302", 0},
		{"400", answer(400, ""), KindInvalid, "HTTP 400", 0},
		{"401", answer(401, canary+" and "+url.QueryEscape(canary)), KindDenied, "HTTP 401", 0},
		{"403", answer(403, ""), KindDenied, "HTTP 403", 0},
		{"404", answer(404, ""), KindNotFound, "HTTP 404", 0},
		{"409", answer(409, ""), KindConflict, "HTTP 409", 0},
		{"429", answer(429, "", "Retry-After", "17"), KindThrottled, "HTTP 429", 17 * time.Second},
		{"502", answer(502, "<html>\x1b[31m"), KindUnavailable, "HTTP 502", 0},
		{"503", answer(503, "", "Retry-After", "99999999"), KindUnavailable, "HTTP 503", time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewClient(ClientConfig{Cloud: "core", Transport: tt.transport})
			err := c.Do(t.Context(), call(ClassRead))
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("error = %v", err)
			}
			if e.Kind != tt.kind || e.Code != tt.code || e.RetryAfter != tt.retry || e.Cloud != "core" || e.Location != "xb3" || e.Op != "list" {
				t.Errorf("error = %+v", e)
			}
			for _, form := range []string{canary, url.QueryEscape(canary), "\x1b"} {
				if text := fmt.Sprintf("%v %+v", err, e); strings.Contains(text, form) {
					t.Errorf("the error holds %q: %s", form, text)
				}
			}
		})
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestReadBody: what is read is what was sent, up to the bound and as far as it came.
func TestReadBody(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
		said int64 // Content-Length; -1: none
		cut  bool
		want error
	}{
		{name: "nothing", said: -1},
		{name: "short", size: 1000, said: -1},
		{name: "short, of a length that is said", size: 1000, said: 1000},
		{name: "shorter than is said", size: 1000, said: 1001, want: io.ErrUnexpectedEOF},
		{name: "a prepared one", size: maxPrepared, said: maxPrepared},
		{name: "as long as a prepared one", size: maxPrepared, said: -1},
		{name: "longer", size: maxPrepared + 1, said: -1},
		{name: "longer, of a length that is said", size: maxPrepared + 1, said: maxPrepared + 1},
		{name: "longer, and cut", size: maxPrepared + 1, said: -1, cut: true, want: io.ErrUnexpectedEOF},
		{name: "the longest", size: MaxBody, said: -1},
		{name: "too long", size: MaxBody + 1, said: -1, want: errTooLarge},
		{name: "said to be too long", size: 1, said: MaxBody + 1, want: errTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sent := bytes.Repeat([]byte("abcdefg"), tt.size/7+1)[:tt.size]
			var body io.Reader = bytes.NewReader(sent)
			if tt.cut {
				body = io.MultiReader(body, errorReader{})
			}
			read, err := readBody(&http.Response{Body: io.NopCloser(body), ContentLength: tt.said}, nil)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error = %v, want %v", err, tt.want)
			}
			if err == nil && !bytes.Equal(read, sent) {
				t.Errorf("%d bytes were read, and are not the %d that were sent", len(read), len(sent))
			}
		})
	}
}

func TestTimeoutIsOursAndCancelIsTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		c := NewClient(ClientConfig{Cloud: "core", Transport: hang, Timeout: 3 * time.Second, Breaker: BreakerConfig{MinRequests: 2}})
		start := time.Now()
		if err := c.Do(t.Context(), call(ClassRead)); KindOf(err) != KindTimeout || time.Since(start) != 3*time.Second {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
		for range 20 { // callers that leave do not open the breaker
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := c.Do(ctx, call(ClassRead)); !IsContext(err) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error = %v, want the caller's own", err)
			}
			cancel()
		}
		if st := c.Breakers()[0]; st.State != BreakerClosed {
			t.Errorf("breaker = %+v", st)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		var transport roundTripper
		down := func(*http.Request) (*http.Response, error) { sent.Add(1); return nil, errors.New("refused") }
		hang := func(r *http.Request) (*http.Response, error) {
			sent.Add(1)
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		transport = down
		var log strings.Builder
		c := NewClient(ClientConfig{
			Cloud: "core", Breaker: BreakerConfig{Window: time.Minute, MinRequests: 4, FailureRatio: 0.5, OpenFor: 30 * time.Second},
			Transport: roundTripper(func(r *http.Request) (*http.Response, error) { return transport(r) }),
			Logger:    slog.New(slog.NewTextHandler(&log, nil)), Metrics: NewMetrics(prometheus.NewRegistry()),
		})
		for range 4 {
			if err := c.Do(t.Context(), call(ClassRead)); KindOf(err) != KindUnavailable {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		err := c.Do(t.Context(), call(ClassRead))
		e, _ := errors.AsType[*Error](err)
		if e == nil || e.Kind != KindCircuitOpen || e.Sent || e.RetryAfter != 20*time.Second || sent.Load() != 4 {
			t.Fatalf("open breaker: %+v, %d sent", e, sent.Load())
		}
		// Writes and other locations have breakers of their own.
		if err := c.Do(t.Context(), call(ClassWrite)); KindOf(err) != KindUnavailable {
			t.Errorf("write: %v", err)
		}
		// A probe whose caller leaves must not wedge the half-open breaker.
		time.Sleep(21 * time.Second)
		transport = hang
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Do(ctx, call(ClassRead)); !IsContext(err) {
			t.Errorf("cancelled probe: %v", err)
		}
		transport = answer(200, "{}")
		if err := c.Do(t.Context(), call(ClassRead)); err != nil {
			t.Errorf("probe after a cancelled one: %v", err)
		}
		if st := c.Breakers()[0]; st.Scope != "xb3" || st.Class != ClassRead || st.State != BreakerClosed || !st.OpenUntil.IsZero() {
			t.Errorf("breaker = %+v", st)
		}
		if got := strings.Count(log.String(), "circuit breaker"); got != 3 {
			t.Errorf("%d log lines for closed → open → half-open → closed:\n%s", got, log.String())
		}
	})
}

func TestRefusalsDoNotOpenTheBreaker(t *testing.T) {
	c := NewClient(ClientConfig{Cloud: "core", Transport: answer(409, ""), Breaker: BreakerConfig{MinRequests: 1}})
	for range 50 {
		if err := c.Do(t.Context(), call(ClassWrite)); KindOf(err) != KindConflict {
			t.Fatal(err)
		}
	}
}

func TestSentTellsTheTruth(t *testing.T) {
	refused := NewClient(ClientConfig{Cloud: "core"})
	defer refused.Close()
	listener := httptest.NewServer(http.NotFoundHandler())
	address := listener.URL
	listener.Close() // nobody listens there any more
	to := func(address string) Call {
		c := call(ClassWrite)
		c.Request = func(ctx context.Context) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader("{}"))
		}
		return c
	}
	if err := refused.Do(t.Context(), to(address)); KindOf(err) != KindUnavailable || MaySent(err) {
		t.Errorf("nobody listens: %v, sent %v", err, MaySent(err))
	}

	arrived := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	}))
	defer hang.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if err := refused.Do(ctx, to(hang.URL)); !IsContext(err) || !MaySent(err) {
		t.Errorf("the caller left during a write: %v, sent %v", err, MaySent(err))
	}
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent int
		c := NewClient(ClientConfig{
			Cloud: "core", Budget: BudgetConfig{CallsPerHour: 1000, Burst: 100, WriteShare: 0.2},
			Transport: roundTripper(func(r *http.Request) (*http.Response, error) { sent++; return answer(200, "{}")(r) }),
		})
		short := func(class Class) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			return c.Do(ctx, call(class))
		}
		for range 80 {
			if err := short(ClassRead); err != nil {
				t.Fatal(err)
			}
		}
		err := short(ClassRead)
		if e, _ := errors.AsType[*Error](err); e == nil || e.Kind != KindBudget || e.Sent || e.RetryAfter <= 0 {
			t.Fatalf("budget spent: %v", err)
		}
		if err := short(ClassWrite); err != nil {
			t.Errorf("the reserve for writes: %v", err)
		}
		// However it is asked, no hour has more than the quota.
		sent = 0
		time.Sleep(2 * time.Hour) // full again
		start := time.Now()
		for time.Since(start) < time.Hour {
			_ = short(ClassRead)
			_ = short(ClassWrite)
			time.Sleep(time.Second)
		}
		if sent > 1000 || sent < 900 {
			t.Errorf("%d calls in an hour, want close to 1000 and not above", sent)
		}
		if perHour, _ := c.Budget(); perHour != 1000 {
			t.Errorf("budget = %d", perHour)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "-5": 0, "soon": 0, "30": 30 * time.Second, " 30 ": 30 * time.Second, "9223372036854775807": time.Hour,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q → %v, want %v", text, got, want)
		}
	}
}

func TestSecretsPrintNothing(t *testing.T) {
	s := NewSecret(canary)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "struct", struct{ S Secret }{s})
	data, err := json.Marshal(map[string]any{"s": s, "p": &s})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q %x", s, &s, s, s, s, s), fmt.Sprintf("%+v", struct{ S Secret }{s}), log.String(), string(data)} {
		if strings.Contains(text, "canary") || strings.Contains(text, fmt.Sprintf("%x", "canary")) {
			t.Errorf("shown: %s", text)
		}
	}
	if s.Reveal() != canary {
		t.Error("the text is lost")
	}
}

func TestCleanURL(t *testing.T) {
	for raw, want := range map[string]string{
		"": "", "ssh user@host": "ssh user@host", "host:22": "host:22",
		"https://user:pw@n-1.scnet.cn:58043/lab?token=abc#frag": "https://n-1.scnet.cn:58043/lab",
		"/xb3a/notebook/?token=abc":                             "/xb3a/notebook/",
		"root:pw@10.0.0.1":                                      "10.0.0.1",
		"http://[::1":                                           "http://[::1",
	} {
		if got := CleanURL(raw); got != want {
			t.Errorf("%q → %q, want %q", raw, got, want)
		}
	}
}

// TestConfigure: what was spent stays spent when the budget is another, and an open
// breaker stays open unless it is to work otherwise.
func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		breaker := BreakerConfig{MinRequests: 2, OpenFor: time.Hour}
		c := NewClient(ClientConfig{Cloud: "core", Transport: answer(503, ""), Budget: BudgetConfig{CallsPerHour: 3600, Burst: 100}, Breaker: breaker})
		call := call(ClassRead)
		call.Decode = func(r Response) error { return HTTPError(r) }
		for range 2 {
			_ = c.Do(t.Context(), call)
		}
		_, before := c.Budget()
		c.Configure(time.Second, breaker, BudgetConfig{CallsPerHour: 7200, Burst: 200})
		perHour, left := c.Budget()
		if perHour != 7200 || left != before {
			t.Errorf("the budget is %d with %d left, want 7200 with %d", perHour, left, before)
		}
		if err := c.Do(t.Context(), call); KindOf(err) != KindCircuitOpen {
			t.Errorf("the breaker has forgotten: %v", err)
		}
		breaker.MinRequests = 10
		c.Configure(time.Second, breaker, BudgetConfig{})
		if err := c.Do(t.Context(), call); KindOf(err) != KindUnavailable {
			t.Errorf("the breaker still works as before: %v", err)
		}
		if perHour, _ := c.Budget(); perHour != 0 {
			t.Errorf("there is still a budget of %d", perHour)
		}
		c.transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		began := time.Now()
		if err := c.Do(t.Context(), call); KindOf(err) != KindTimeout || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
