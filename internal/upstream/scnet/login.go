package scnet

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/notebookd/notebookd/internal/upstream"
)

const (
	// fallbackLifetime is for tokens that do not say when they end.
	fallbackLifetime = 4 * time.Hour
	// renewBefore the end of a token a new one is got, or in the last fifth of
	// its life, whichever is later.
	renewBefore = 5 * time.Minute
	// renewRetry is how long tokens that still work are used after an early
	// renewal failed.
	renewRetry = 30 * time.Second
	// rediscoverAfter is how old a login may be for a listing of the regions.
	rediscoverAfter = time.Minute
)

// sign is the signature of a login: the HMAC of the three headers as compact
// JSON, with the secret key as it is written.
// API: https://www.scnet.cn/ac/openapi/doc/2.0/api/safecertification/get-user-tokens-aksk.html
func sign(accessKey, timestamp, user string, secretKey upstream.Secret) string {
	message := upstream.CompactJSON(struct {
		AccessKey string `json:"accessKey"`
		Timestamp string `json:"timestamp"`
		User      string `json:"user"`
	}{accessKey, timestamp, user})
	mac := hmac.New(sha256.New, []byte(secretKey.Reveal()))
	mac.Write(message)
	return hex.EncodeToString(mac.Sum(nil))
}

// grant is what one login gave for one region. It does not change.
type grant struct {
	id, name string
	token    upstream.Secret // empty: the account is disabled in the region
}

// session holds the tokens of an account, one for each region, and the address
// of each region's AI service. One login gives all tokens.
type session struct {
	p *Provider
	// turn has one place, which who logs in holds: calls that need a login at
	// the same time wait for it and share what it gave.
	turn chan struct{}

	mu         sync.Mutex // guards what is below
	grants     []grant    // in the cloud's order; replaced as a whole
	generation uint64     // of grants; zero before the first login
	loggedIn   time.Time
	renewAt    time.Time
	endAt      time.Time // of the token that ends first
	retryAt    time.Time // no early renewal before
	// attempts counts logins that ended, and lastErr is how the last one did.
	attempts  uint64
	lastErr   error
	endpoints map[string]endpoint
}

// endpoint is where a region's AI service is.
type endpoint struct {
	base     string // scheme, host and /ai; empty when there is none
	disabled string // why there is none
}

func newSession(p *Provider) *session {
	return &session{p: p, turn: make(chan struct{}, 1), endpoints: map[string]endpoint{}}
}

// tokens returns the grants of the newest login and their generation. It logs
// in when there is none, when the tokens are about to end, when their
// generation is that of refused ones, or when the login is older than maxAge
// (zero: any age will do).
func (s *session) tokens(ctx context.Context, refused uint64, maxAge time.Duration) ([]grant, uint64, error) {
	s.mu.Lock()
	attempts := s.attempts
	s.mu.Unlock()
	if grants, generation, ok := s.usable(refused, maxAge); ok {
		return grants, generation, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	if grants, generation, ok := s.usable(refused, maxAge); ok {
		return grants, generation, nil
	}
	s.mu.Lock()
	tried, err := s.attempts != attempts, s.lastErr
	s.mu.Unlock()
	if tried && err != nil {
		return nil, 0, err // that of the login for which this call waited
	}

	grants, lifetime, err := s.p.login(ctx)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if upstream.IsContext(err) {
			return nil, 0, err // whoever waits tries by itself
		}
		s.attempts++
		s.lastErr = err
		if s.generation != 0 && s.generation != refused && maxAge == 0 && now.Before(s.endAt) {
			s.retryAt = now.Add(renewRetry)
			s.lastErr = nil
			return s.grants, s.generation, nil
		}
		return nil, 0, err
	}
	s.attempts++
	s.lastErr = nil
	s.generation++
	s.grants, s.loggedIn = grants, now
	s.endAt = now.Add(lifetime)
	s.renewAt = now.Add(max(lifetime*4/5, lifetime-renewBefore))
	return s.grants, s.generation, nil
}

// usable returns the tokens if a new login is not needed.
func (s *session) usable(refused uint64, maxAge time.Duration) ([]grant, uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case s.generation == 0, s.generation == refused, !now.Before(s.endAt):
		return nil, 0, false
	case maxAge > 0 && now.Sub(s.loggedIn) > maxAge:
		return nil, 0, false
	case !now.Before(s.renewAt) && !now.Before(s.retryAt):
		return nil, 0, false
	}
	return s.grants, s.generation, true
}

// access is what a call to a region needs.
type access struct {
	base       string // scheme, host and /ai
	token      upstream.Secret
	generation uint64 // of the token; zero for one of the configuration
}

// access finds the token and the address of a region. refused is the generation
// of a token that the cloud did not accept, or zero.
func (s *session) access(ctx context.Context, region string, refused uint64) (access, error) {
	grants, generation, err := s.tokens(ctx, refused, 0)
	if err != nil {
		return access{}, s.at(region, err)
	}
	for _, g := range grants {
		if g.id != region {
			continue
		}
		if g.token.IsZero() {
			return access{}, s.p.disabled(region, noToken)
		}
		at, err := s.endpoint(ctx, g, generation, false)
		if err != nil {
			return access{}, err
		}
		if at.disabled != "" {
			return access{}, s.p.disabled(region, at.disabled)
		}
		return access{base: at.base, token: g.token, generation: generation}, nil
	}
	return access{}, s.p.disabled(region, "the login gives no token for this region")
}

// at is err as the error of a call about a region.
func (s *session) at(region string, err error) error {
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		located := *e
		located.Location = region
		return &located
	}
	return err
}

// Why a location is disabled.
const (
	noToken   = "the account is disabled in this region: the login gives no token for it"
	noService = "the region has no AI service"
)

// endpoint returns where a region's AI service is, asking the platform when
// that is not known, or when ask is set.
func (s *session) endpoint(ctx context.Context, g grant, generation uint64, ask bool) (endpoint, error) {
	s.mu.Lock()
	at, known := s.endpoints[g.id]
	s.mu.Unlock()
	if known && !ask {
		return at, nil
	}
	at, stale, err := s.p.center(ctx, g)
	if stale {
		if grants, _, loginErr := s.tokens(ctx, generation, 0); loginErr == nil {
			for _, renewed := range grants {
				if renewed.id == g.id && !renewed.token.IsZero() {
					at, _, err = s.p.center(ctx, renewed)
				}
			}
		}
	}
	if err != nil {
		return endpoint{}, err
	}
	s.mu.Lock()
	s.endpoints[g.id] = at
	s.mu.Unlock()
	return at, nil
}

// locations are the regions of a fresh login, and what the platform says of
// them now.
func (s *session) locations(ctx context.Context) ([]upstream.Location, error) {
	grants, generation, err := s.tokens(ctx, 0, rediscoverAfter)
	if err != nil {
		return nil, err
	}
	out := make([]upstream.Location, 0, len(grants))
	for _, g := range grants {
		location := upstream.Location{ID: g.id, DisplayName: g.name}
		if g.token.IsZero() {
			location.Disabled = noToken
		} else if at, err := s.endpoint(ctx, g, generation, true); err == nil {
			location.Disabled = at.disabled
		} else if ctx.Err() != nil {
			return nil, ctx.Err()
		} // else the region's own calls say what is wrong
		out = append(out, location)
	}
	return out, nil
}

// login gets the tokens of all regions. lifetime is that of the one that ends
// first.
// API: https://www.scnet.cn/ac/openapi/doc/2.0/api/safecertification/get-user-tokens-aksk.html
func (p *Provider) login(ctx context.Context) (grants []grant, lifetime time.Duration, err error) {
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	signature := sign(p.cfg.AccessKey.Reveal(), timestamp, p.cfg.User, p.cfg.SecretKey)
	call := upstream.Call{
		Op: opLogin, Scope: opLogin, Class: upstream.ClassLogin,
		Secrets: []upstream.Secret{p.cfg.AccessKey, p.cfg.SecretKey, upstream.NewSecret(signature)},
	}
	call.Request = func(ctx context.Context) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.cfg.LoginEndpoint+"/api/user/v3/tokens", http.NoBody)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", "application/json")
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("user", p.cfg.User)
		req.Header.Set("accessKey", p.cfg.AccessKey.Reveal())
		req.Header.Set("timestamp", timestamp)
		req.Header.Set("signature", signature)
		return req, nil
	}
	call.Decode = func(resp upstream.Response) error {
		now := serverTime(resp.Header)
		a, err := open(resp)
		if err != nil {
			if e, ok := errors.AsType[*upstream.Error](err); ok && e.Kind == upstream.KindDenied {
				if skew := time.Since(now).Round(time.Second); skew.Abs() > maxSkew {
					e.Err = fmt.Errorf("the clock here differs from the cloud's by %v", skew)
				}
			}
			return err
		}
		grants, lifetime, err = a.grants(now)
		return err
	}
	err = p.client.Do(ctx, call)
	return grants, lifetime, err
}

// maxSkew is how far apart two clocks may be without being worth a word.
const maxSkew = 30 * time.Second

// serverTime is the cloud's time, or ours when it tells none.
func serverTime(h http.Header) time.Time {
	if at, err := http.ParseTime(h.Get("Date")); err == nil {
		return at
	}
	return time.Now()
}

// grants reads the answer of a login that was made at now by the cloud's clock.
func (a answer) grants(now time.Time) ([]grant, time.Duration, error) {
	var entries []struct {
		ClusterID   upstream.Text `json:"clusterId"`
		ClusterName upstream.Text `json:"clusterName"`
		Token       upstream.Text `json:"token"`
	}
	if json.Unmarshal(a.data, &entries) != nil || len(entries) == 0 {
		return nil, 0, bad("the answer has no list of tokens")
	}
	lifetime := fallbackLifetime
	var out []grant
	seen := map[upstream.Text]bool{}
	for _, e := range entries {
		// "0" is the platform, which has no notebooks.
		if e.ClusterID == "0" || !upstream.PlainSegment(string(e.ClusterID)) || seen[e.ClusterID] {
			continue
		}
		seen[e.ClusterID] = true
		if !headerSafe(string(e.Token)) {
			return nil, 0, bad("a token has characters that no header can carry")
		}
		out = append(out, grant{id: string(e.ClusterID), name: string(e.ClusterName), token: upstream.NewSecret(string(e.Token))})
		if end, ok := expiry(string(e.Token)); ok {
			if left := end.Sub(now); left > 0 {
				lifetime = min(lifetime, left)
			}
		}
	}
	return out, lifetime, nil
}

func headerSafe(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// expiry reads when a token ends from its claims: expireTime, in milliseconds
// as text.
func expiry(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		ExpireTime upstream.Text `json:"expireTime"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return time.Time{}, false
	}
	ms, err := strconv.ParseInt(string(claims.ExpireTime), 10, 64)
	if err != nil || ms <= 0 {
		return time.Time{}, false
	}
	return time.UnixMilli(ms), true
}

// center asks the platform where a region's AI service is. stale says that the
// token was refused.
// API: https://www.scnet.cn/ac/openapi/doc/2.0/api/safecertification/get-center-info.html
func (p *Provider) center(ctx context.Context, g grant) (at endpoint, stale bool, err error) {
	call := p.call(opCenter, g.id, p.cfg.PlatformEndpoint+"/ac/openapi/v2/center", g.token)
	call.Scope, call.Class = "platform", upstream.ClassLogin
	call.Decode = func(resp upstream.Response) error {
		a, err := open(resp)
		if stale = a.stale; err != nil {
			return err
		}
		at, err = a.endpoint()
		return err
	}
	err = p.client.Do(ctx, call)
	return at, stale, err
}

// endpoint reads the answer of center: the first AI URL that is not disabled.
func (a answer) endpoint() (endpoint, error) {
	var data struct {
		AIURLs json.RawMessage `json:"aiUrls"`
	}
	if len(a.data) == 0 || a.data[0] != '{' || json.Unmarshal(a.data, &data) != nil {
		return endpoint{}, bad("the answer has no region")
	}
	var urls []struct {
		Enable upstream.Text `json:"enable"` // "true" or true
		URL    upstream.Text `json:"url"`
	}
	if data.AIURLs != nil && json.Unmarshal(data.AIURLs, &urls) != nil {
		return endpoint{}, bad("aiUrls cannot be read")
	}
	for _, u := range urls {
		base := strings.TrimSpace(string(u.URL))
		if (u.Enable != "" && !strings.EqualFold(string(u.Enable), "true")) || upstream.EndpointProblem(base) != "" {
			continue
		}
		return endpoint{base: aiBase(base)}, nil
	}
	return endpoint{disabled: noService}, nil
}

// aiBase is the address of a region's AI service, which is given with and
// without /ai, with and without a slash at the end.
func aiBase(url string) string {
	url = strings.TrimRight(url, "/")
	if !strings.HasSuffix(url, "/ai") {
		url += "/ai"
	}
	return url
}
