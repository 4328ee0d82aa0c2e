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
	"maps"
	"net/http"
	"slices"
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
	// rediscoverAfter is how old a login may be for a listing of the regions,
	// and how long it is believed that a region cannot be used.
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

// scopePlatform names the breakers of the platform's host.
const scopePlatform = "platform"

// platformGrant is the id of the grant whose token is the platform's own. No
// region can be called that.
const platformGrant = "/platform"

// grant is what one login gave for one region, or for the platform. It does not
// change.
type grant struct {
	id, name string
	token    upstream.Secret // empty: the account is disabled in the region
	lifetime time.Duration   // of the token, from the login on
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
	retryAt    time.Time // after a login that failed: no early renewal before
	// attempts counts logins that ended, and lastErr is how the last one did.
	attempts  uint64
	lastErr   error
	endpoints map[string]endpoint
}

// endpoint is where a region's AI service is.
type endpoint struct {
	base     string    // scheme, host and /ai; empty when there is none
	disabled string    // why there is none
	asked    time.Time // when the platform said so
}

func newSession(p *Provider) *session {
	return &session{p: p, turn: make(chan struct{}, 1), endpoints: map[string]endpoint{}}
}

// want says which tokens will do.
type want struct {
	region  string        // whose token has to be good; empty: none in particular
	refused uint64        // a generation that the cloud no longer accepts; zero: none
	maxAge  time.Duration // of the login; zero: any
}

// holding is what a session has to offer for a want.
type holding struct {
	grants     []grant
	generation uint64
	good       bool // will do
	due        bool // will do, but should be renewed
	attempts   uint64
	lastErr    error
}

func (s *session) look(w want) holding {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	h := holding{grants: s.grants, generation: s.generation, attempts: s.attempts, lastErr: s.lastErr}
	h.good = s.generation != 0 && s.generation != w.refused && (w.maxAge == 0 || now.Sub(s.loggedIn) <= w.maxAge)
	if g, ok := find(s.grants, w.region); ok && !g.token.IsZero() {
		h.good = h.good && now.Before(s.loggedIn.Add(g.lifetime))
		renew := s.loggedIn.Add(max(g.lifetime-g.lifetime/5, g.lifetime-renewBefore))
		h.due = h.good && !now.Before(renew) && !now.Before(s.retryAt)
	}
	return h
}

func find(grants []grant, region string) (grant, bool) {
	i := slices.IndexFunc(grants, func(g grant) bool { return g.id == region })
	if i < 0 {
		return grant{}, false
	}
	return grants[i], true
}

// tokens returns grants that will do, and their generation, logging in if need
// be. Whoever waits for the login of another call shares how it ended, unless
// that call's caller gave up: then it is the turn of the next one. A token that
// still works is worth no waiting: it is renewed by one call, and used by the
// others meanwhile, and by all of them if that fails.
func (s *session) tokens(ctx context.Context, w want) ([]grant, uint64, error) {
	before := s.look(w)
	switch {
	case before.due:
		select {
		case s.turn <- struct{}{}:
		default:
			return before.grants, before.generation, nil
		}
	case before.good:
		return before.grants, before.generation, nil
	default:
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
	defer func() { <-s.turn }()

	have := s.look(w)
	switch {
	case have.good && !have.due:
		return have.grants, have.generation, nil
	case !have.good && have.attempts != before.attempts && have.lastErr != nil:
		return nil, 0, have.lastErr
	}
	grants, err := s.p.login(ctx)
	if err != nil && upstream.IsContext(err) {
		return nil, 0, err
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts++
	s.lastErr = err
	if err != nil {
		s.retryAt = now.Add(renewRetry)
		if have.good {
			return have.grants, have.generation, nil
		}
		return nil, 0, err
	}
	s.generation++
	s.grants, s.loggedIn, s.retryAt = grants, now, time.Time{}
	maps.DeleteFunc(s.endpoints, func(region string, _ endpoint) bool {
		_, ok := find(grants, region)
		return !ok
	})
	return s.grants, s.generation, nil
}

// Why a location is disabled.
const (
	noToken   = "the account is disabled in this region: the login gives no token for it"
	noRegion  = "the account does not have this region: the login does not name it"
	noMaking  = "the login gives no token for the platform, which creates and starts notebooks"
	noService = "the region has no AI service"
)

// token returns the token of a holder, a region or the platform, for a call about
// a region, and its generation. refused is the generation of one that the cloud
// did not accept, or zero. That a region has no token is not believed of a login
// from long ago.
func (s *session) token(ctx context.Context, op, region, holder string, refused uint64) (upstream.Secret, uint64, error) {
	grants, generation, err := s.tokens(ctx, want{region: holder, refused: refused})
	if err != nil {
		return upstream.Secret{}, 0, at(region, err)
	}
	g, ok := find(grants, holder)
	if !ok || g.token.IsZero() {
		newer, newerGeneration, err := s.tokens(ctx, want{region: holder, maxAge: rediscoverAfter})
		if ctx.Err() != nil {
			return upstream.Secret{}, 0, ctx.Err()
		}
		if err == nil { // else what is known stays true
			generation = newerGeneration
			g, ok = find(newer, holder)
		}
	}
	switch {
	case holder == platformGrant && (!ok || g.token.IsZero()):
		return upstream.Secret{}, 0, s.p.disabled(op, region, noMaking)
	case !ok:
		return upstream.Secret{}, 0, s.p.disabled(op, region, noRegion)
	case g.token.IsZero():
		return upstream.Secret{}, 0, s.p.disabled(op, region, noToken)
	}
	return g.token, generation, nil
}

// at is err as the error of a call about a region. It is a copy: several calls
// may share the error of one login.
func at(region string, err error) error {
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		located := *e
		located.Location = region
		return &located
	}
	return err
}

// base returns the address of a region's AI service. The platform is asked when
// it is not known. That there is none is not believed for long.
func (s *session) base(ctx context.Context, op, region string) (string, error) {
	s.mu.Lock()
	known, ok := s.endpoints[region]
	s.mu.Unlock()
	if !ok || known.disabled != "" && time.Since(known.asked) > rediscoverAfter {
		asked, err := s.ask(ctx, region)
		switch {
		case err == nil:
			known = asked
		case !ok || ctx.Err() != nil || upstream.KindOf(err) == upstream.KindDisabled:
			return "", err
		} // else what is known stays true
	}
	if known.disabled != "" {
		return "", s.p.disabled(op, region, known.disabled)
	}
	return known.base, nil
}

// ask asks the platform where a region's AI service is, and keeps the answer.
func (s *session) ask(ctx context.Context, region string) (endpoint, error) {
	s.mu.Lock()
	current := s.endpoints[region].base
	s.mu.Unlock()
	var found endpoint
	err := s.p.withToken(ctx, request{op: opCenter, region: region, class: upstream.ClassLogin}, func(token upstream.Secret) (stale bool, err error) {
		found, stale, err = s.p.center(ctx, region, token, current)
		return stale, err
	})
	if err != nil {
		return endpoint{}, err
	}
	s.mu.Lock()
	s.endpoints[region] = found
	s.mu.Unlock()
	return found, nil
}

// forget has the platform asked again, as nothing is found at the address that
// it gave.
func (s *session) forget(region, base string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endpoints[region].base == base {
		delete(s.endpoints, region)
	}
}

// locations are the regions of a fresh login, and what the platform says of
// them now.
func (s *session) locations(ctx context.Context) ([]upstream.Location, error) {
	grants, _, err := s.tokens(ctx, want{maxAge: rediscoverAfter})
	if err != nil {
		return nil, err
	}
	grants = slices.DeleteFunc(slices.Clone(grants), func(g grant) bool { return g.id == platformGrant })
	out := make([]upstream.Location, len(grants))
	places := make(chan struct{}, s.p.cfg.MaxConcurrent) // held by whoever asks the platform
	var wg sync.WaitGroup
	for i, g := range grants {
		out[i] = upstream.Location{ID: g.id, DisplayName: g.name}
		if g.token.IsZero() {
			out[i].Disabled = noToken
			continue
		}
		wg.Go(func() { // ends with its calls, which end with ctx
			places <- struct{}{}
			defer func() { <-places }()
			out[i].Disabled = s.unusable(ctx, g.id)
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return out, nil
}

// unusable asks the platform why a region cannot be used; the answer is empty
// when it can. When the platform does not answer, what is known stays true, and
// for the rest the region's own calls say what is wrong.
func (s *session) unusable(ctx context.Context, region string) string {
	release, err := s.p.slot(ctx, region)
	if err != nil {
		return ""
	}
	defer release()
	found, err := s.ask(ctx, region)
	if err != nil {
		if e, ok := errors.AsType[*upstream.Error](err); ok && e.Kind == upstream.KindDisabled && e.Err != nil {
			return e.Err.Error() // the token is gone since the login
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.endpoints[region].disabled
	}
	return found.disabled
}

// login gets the tokens of all regions.
// API: https://www.scnet.cn/ac/openapi/doc/2.0/api/safecertification/get-user-tokens-aksk.html
func (p *Provider) login(ctx context.Context) (grants []grant, err error) {
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
			if e, ok := errors.AsType[*upstream.Error](err); ok {
				// What is sent is the configured account, so that is what a
				// code about arguments means.
				if e.Kind == upstream.KindInvalid && !bare(e) {
					e.Kind = upstream.KindDenied
				}
				impersonal(e)
				if skew := time.Since(now).Round(time.Second); e.Kind == upstream.KindDenied && skew.Abs() > maxSkew {
					e.Err = fmt.Errorf("the clock here differs from the cloud's by %v", skew)
				}
			}
			return err
		}
		if grants, err = a.grants(now); err != nil || p.cfg.CreateToken != tokenOfPlatform {
			return err
		}
		var platform []grant
		platform, err = a.platform(now)
		grants = append(grants, platform...)
		return err
	}
	err = p.client.Do(ctx, call)
	return grants, err
}

// impersonal corrects the kind of an error of a call into which nothing of a
// caller goes: it cannot mean a notebook or an argument of theirs. What a bare
// HTTP status says is that the call is not there.
func impersonal(e *upstream.Error) {
	switch e.Kind {
	case upstream.KindInvalid, upstream.KindNotFound, upstream.KindConflict:
		e.Kind = upstream.KindRejected
		if bare(e) {
			e.Kind = upstream.KindBadResponse
		}
	default:
	}
}

// bare reports whether an error's code is an HTTP status, for want of a code of
// the cloud.
func bare(e *upstream.Error) bool { return strings.HasPrefix(e.Code, "HTTP ") }

// maxSkew is how far apart two clocks may be without being worth a word.
const maxSkew = 30 * time.Second

// serverTime is the cloud's time, or ours when it tells none.
func serverTime(h http.Header) time.Time {
	if at, err := http.ParseTime(h.Get("Date")); err == nil {
		return at
	}
	return time.Now()
}

// grants reads the regions of the answer of a login that was made at now by the
// cloud's clock.
func (a answer) grants(now time.Time) ([]grant, error) {
	return a.grantsOf(now, func(id string) bool { return id != platformID && upstream.PlainSegment(id) })
}

// platform reads the grant of the platform, if there is one.
func (a answer) platform(now time.Time) ([]grant, error) {
	found, err := a.grantsOf(now, func(id string) bool { return id == platformID })
	for i := range found {
		found[i].id = platformGrant
	}
	return found, err
}

// platformID is the cluster id of the platform, which has no notebooks.
const platformID = "0"

func (a answer) grantsOf(now time.Time, wanted func(id string) bool) ([]grant, error) {
	var entries []struct {
		ClusterID   upstream.Text `json:"clusterId"`
		ClusterName upstream.Text `json:"clusterName"`
		Token       upstream.Text `json:"token"`
	}
	if json.Unmarshal(a.data, &entries) != nil || len(entries) == 0 {
		return nil, bad("the answer has no list of tokens")
	}
	var out []grant
	seen := map[upstream.Text]bool{}
	for _, e := range entries {
		if !wanted(string(e.ClusterID)) || seen[e.ClusterID] {
			continue
		}
		seen[e.ClusterID] = true
		if !headerSafe(string(e.Token)) {
			return nil, bad("a token has characters that no header can carry")
		}
		lifetime := fallbackLifetime
		if end, ok := expiry(string(e.Token)); ok {
			// A token that has ended already says nothing that can be used: the
			// cloud itself will say when it does not take it.
			if left := end.Sub(now); left > 0 {
				lifetime = left
			}
		}
		out = append(out, grant{
			id: string(e.ClusterID), name: string(e.ClusterName), token: upstream.NewSecret(string(e.Token)), lifetime: lifetime,
		})
	}
	return out, nil
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

// center asks the platform where a region's AI service is. current is the
// address that is in use, if any. stale says that the token was refused.
// API: https://www.scnet.cn/ac/openapi/doc/2.0/api/safecertification/get-center-info.html
func (p *Provider) center(ctx context.Context, region string, token upstream.Secret, current string) (found endpoint, stale bool, err error) {
	call := p.call(request{op: opCenter, region: region, method: http.MethodGet}, p.cfg.PlatformEndpoint+"/ac/openapi/v2/center", token)
	call.Scope, call.Class = scopePlatform, upstream.ClassLogin
	call.Decode = func(resp upstream.Response) error {
		a, err := open(resp)
		if stale = a.stale; err != nil {
			if e, ok := errors.AsType[*upstream.Error](err); ok {
				impersonal(e)
			}
			return err
		}
		found, err = a.endpoint(current)
		found.asked = time.Now()
		return err
	}
	err = p.client.Do(ctx, call)
	return found, stale, err
}

// endpoint reads the answer of center: the current AI address if it still
// stands, as those of one region do not always agree with each other, else the
// first one that is not disabled.
func (a answer) endpoint(current string) (endpoint, error) {
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
	chosen := ""
	for _, u := range urls {
		raw := strings.TrimSpace(string(u.URL))
		if (u.Enable != "" && !strings.EqualFold(string(u.Enable), "true")) || upstream.EndpointProblem(raw) != "" {
			continue
		}
		if base := aiBase(raw); chosen == "" || base == current {
			chosen = base
		}
	}
	if chosen == "" {
		return endpoint{disabled: noService}, nil
	}
	return endpoint{base: chosen}, nil
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
