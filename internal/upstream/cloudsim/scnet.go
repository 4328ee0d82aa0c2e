package cloudsim

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// SCNetSettings are the ways in which a real SCNet might differ from what is
// documented. They can be switched while it runs.
type SCNetSettings struct {
	// Envelope is the form of a list: "A" ({total, records}), "B" (one record by
	// itself, where there is one), "C" ({total, data}) or "D" (a bare array, and
	// null for nothing).
	Envelope string `json:"envelope"`
	// PageCap is the most rows of a page, whatever is asked for; zero: any.
	PageCap int `json:"page_cap"`
	// RepeatLast answers a page beyond the end with the last one.
	RepeatLast bool `json:"repeat_last"`
	// Drift is how many rows are removed and added after each page of a list.
	Drift int `json:"drift"`
	// OldestFirst turns the order of lists around.
	OldestFirst bool `json:"oldest_first"`
	// Spelling is that of two fields: "example" (imagePath, customizePort) or
	// "table" (iamgePath, customsizePort).
	Spelling string `json:"spelling"`
	// NumbersAsText swaps the types of numbers and of numeric text.
	NumbersAsText bool `json:"numbers_as_text"`
	// TokenLifetime is that of the tokens of the next login.
	TokenLifetime Duration `json:"token_lifetime"`
	// SingleLogin ends the tokens of earlier logins with each new one.
	SingleLogin bool `json:"single_login"`
	// StaleStatus is the HTTP status with which a token that has ended is
	// refused: 200 or 401.
	StaleStatus int `json:"stale_status"`
	// SkewWindow is how far the time of a login may be off.
	SkewWindow Duration `json:"skew_window"`
	// ClockSkew is how far this cloud's clock is ahead.
	ClockSkew Duration `json:"clock_skew"`
	// AIURL is the form of a region's address: "bare", "ai" or "slash".
	AIURL string `json:"ai_url"`
	// Renewed is the form of the answer to a renewal: "string", "object" or
	// "array".
	Renewed string `json:"renewed"`
	// Missing is the answer to a question for a notebook that is not there:
	// "null", "10001" or "10004".
	Missing string `json:"missing"`
	// Regions says of regions what is other than usual: "no-token", "no-ai" (no
	// address), "404" (an address that knows no path) or "gone".
	Regions map[string]string `json:"regions"`
	// Echo repeats the token, the signature or the body in the text of errors.
	Echo bool `json:"echo"`

	// Transition is how long it takes to create, start and stop what is asked for
	// over the API.
	Transition Duration `json:"transition"`
	// CreateToken is the token that create and start accept: "region",
	// "platform" or "both".
	CreateToken string `json:"create_token"`
	// Pool is how many cards a resource group has.
	Pool int `json:"pool"`
	// NoCards is what becomes of a notebook for which there are not enough free
	// cards: "failed" (a while later) or "716865" (refused at once).
	NoCards string `json:"no_cards"`
	// CreateFails and StartFails are why notebooks that are created and started
	// over the API end as failed; empty: they do not.
	CreateFails string `json:"create_fails"`
	StartFails  string `json:"start_fails"`
	// NamesUnique refuses a name that another notebook has.
	NamesUnique bool `json:"names_unique"`
	// StopStopped is the answer to stopping what is stopped: "817140", "716865"
	// or "ok".
	StopStopped string `json:"stop_stopped"`
}

func (s SCNetSettings) validate() error {
	problems := []error{
		oneOf("envelope", s.Envelope, "A", "B", "C", "D"), oneOf("spelling", s.Spelling, "example", "table"),
		oneOf("ai_url", s.AIURL, "bare", "ai", "slash"), oneOf("renewed", s.Renewed, "string", "object", "array"),
		oneOf("missing", s.Missing, "null", "10001", "10004"),
		inRange("page_cap", s.PageCap, 0, 1000), inRange("drift", s.Drift, 0, 50), inRange("stale_status", s.StaleStatus, 200, 599),
		oneOf("create_token", s.CreateToken, "region", "platform", "both"), oneOf("no_cards", s.NoCards, "failed", codeTask),
		oneOf("stop_stopped", s.StopStopped, codeStopped, codeTask, "ok"), inRange("pool", s.Pool, 0, 1_000_000),
	}
	if s.Transition < 0 {
		problems = append(problems, errors.New("transition must not be negative"))
	}
	for id, what := range s.Regions {
		if _, ok := regionNames[id]; !ok {
			problems = append(problems, fmt.Errorf("regions: there is no region %q", id))
		}
		problems = append(problems, oneOf("regions."+id, what, "", "no-token", "no-ai", "404", "gone"))
	}
	return firstProblem(problems...)
}

// SCNet is a simulated account on SCNet. It is safe for concurrent use. As a
// handler it serves all hosts of the cloud; the host of a region serves that
// region alone.
type SCNet struct {
	*simulator[SCNetSettings]
	user string

	hosts sync.Map // region → base URL

	tokensMu sync.Mutex // guards tokens
	tokens   map[string]grant

	created, released ledger
}

// grant is what a token opens.
type grant struct {
	region  string
	expires time.Time
}

// The account of the simulated SCNet. Nothing here opens anything real.
const (
	SCNetUser      = "simulated"
	SCNetAccessKey = "0123456789abcdef0123456789abcdef"
	SCNetSecretKey = "fedcba9876543210fedcba9876543210"
	// SCNetNotebook is a notebook in the first region that stays as it is: the
	// one of the vendor's example.
	SCNetNotebook = "1896050410550136833"
	// SCNetPassword begins every ssh password of the simulated notebooks.
	SCNetPassword = "simulated-ssh-password-" //nolint:gosec // opens nothing
)

// SCNetRegions are the regions that the simulated account has. The account has
// no AI service in the last one.
var SCNetRegions = []string{"11250", "20057", "20091"}

var regionNames = map[string]string{"11250": "华东一区【昆山】", "20057": "华东四区【山东】", "20091": "华中一区【A区】"}

// snowflakeEpoch is the millisecond from which the ids of notebooks count.
const snowflakeEpoch = 1288834974657

func newSCNet(cfg Config) *SCNet {
	images := []string{
		imageBase + "jupyterlab-simplesdxl-webui:pytorch2.1.0-py3.10-dtk24.04-model",
		SCNetImage,
		imageBase + "codeserver-vllm:0.8.3-py3.10",
	}
	ofGPU := []string{
		gpuImageBase + "jupyterlab-pytorch:2.4.1-py3.11-cuda12.1",
		SCNetGPUImage,
		gpuImageBase + "codeserver-vllm:0.9.1-py3.12-cuda12.4",
	}
	models := []model{{"dcu", "异构加速卡AI"}, {"gpu", "A800"}}
	groups := []group{{"15", "hgk100_ainormal93b0dc03"}, {"16", "ksgpu_ainormal0001"}} // of the models, in their order
	w := newWorld(cfg.Seed+1, cfg.now(), species{
		id: func(w *world, at time.Time) string {
			return strconv.FormatInt((at.UnixMilli()-snowflakeEpoch)<<22|w.rng.Int64N(1<<22), 10)
		},
		name: func(w *world, at time.Time) string {
			return at.In(china).Format("060102150405") + w.textLocked("0123456789", 4)
		},
		images: images, types: make([]string, len(images)),
		models: models, groups: groups,
		fit: func(n *instance) {
			n.group = groups[slices.Index(models, n.model)]
			if n.model.kind == "gpu" {
				n.image = ofGPU[slices.Index(images, n.image)]
			}
		},
	}, SCNetRegions, cfg.Notebooks)
	c := &SCNet{
		simulator: newSimulator("scnet", cfg, w, SCNetSettings{
			Envelope: "A", Spelling: "example", TokenLifetime: Duration(4 * time.Hour), StaleStatus: http.StatusOK,
			SkewWindow: Duration(5 * time.Minute), AIURL: "ai", Renewed: "string", Missing: "null",
			Regions: map[string]string{"20091": "no-ai"}, Transition: Duration(2 * time.Second), CreateToken: "region", Pool: 64,
			NoCards: "failed", StopStopped: codeStopped,
		}, SCNetAccessKey, SCNetSecretKey),
		user: SCNetUser, tokens: map[string]grant{},
	}
	w.pin(SCNetNotebook, func(n *instance) {
		n.name, n.image = "2503021210191107", images[0]
		n.cpu, n.memoryGB, n.cards, n.port, n.task = 24, 110, 1, 1223, "1896050410558525441"
		n.model, n.group = models[0], groups[0]
		n.created = time.Date(2025, 3, 2, 4, 10, 20, 0, time.UTC)
		n.updated = time.Date(2025, 3, 2, 4, 10, 51, 0, time.UTC)
		n.stoppedAt = w.now()
	})
	return c
}

// Host tells where a region's AI service is served: scheme and host.
func (c *SCNet) Host(region, base string) { c.hosts.Store(region, base) }

// Expire ends all tokens that were given so far.
func (c *SCNet) Expire() {
	c.tokensMu.Lock()
	defer c.tokensMu.Unlock()
	clear(c.tokens)
}

func (c *SCNet) clock(s SCNetSettings) time.Time {
	return c.world.now().Add(time.Duration(s.ClockSkew))
}

// date implements spoiler.
func (c *SCNet) date() time.Time { return c.clock(c.Settings()) }

// ServeHTTP implements http.Handler.
func (c *SCNet) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.serve(w, r, "") }

// region is the handler of a region's own host.
func (c *SCNet) region(id string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(w, r, id) })
}

// route is one call of the API.
type route struct {
	op   string
	work func(s SCNetSettings, r *http.Request, g grant) reply
	// open calls need no token; ai calls are served by the hosts of the regions;
	// which token makes calls take is a setting.
	open, ai, makes bool
}

func (c *SCNet) routes() map[string]route {
	return map[string]route{
		"POST /api/user/v3/tokens":           {op: "login", work: c.login, open: true},
		"GET /ac/openapi/v2/center":          {op: "center", work: c.center},
		"POST /ac/openapi/v2/tokens/next":    {op: "renew", work: c.renew},
		"GET /ac/openapi/v2/tokens/state":    {op: "state", work: c.tokenState},
		"GET /ai/openapi/v2/notebook/list":   {op: "list", work: c.list, ai: true},
		"GET /ai/openapi/v2/notebook/detail": {op: "detail", work: c.detail, ai: true},

		"POST /ac/openapi/v2/notebook/actions/create":  {op: "create", work: c.create, makes: true},
		"POST /ac/openapi/v2/notebook/actions/start":   {op: "start", work: c.start, makes: true},
		"POST /ai/openapi/v2/notebook/actions/stop":    {op: "stop", work: c.stop, ai: true},
		"POST /ai/openapi/v2/notebook/actions/release": {op: "release", work: c.release, ai: true},
		"POST /ai/openapi/v2/notebook/name":            {op: "rename", work: c.rename, ai: true},
		"POST /ai/openapi/v2/image/images":             {op: "images", work: c.images, ai: true},
		"POST /ai/openapi/v2/image/models":             {op: "models", work: c.modelImages, ai: true},
		"GET /ac/openapi/v2/resources/accelerators":    {op: "resources", work: c.resources},
	}
}

// serve answers a call. host is the region whose host it came to, or empty.
func (c *SCNet) serve(w http.ResponseWriter, r *http.Request, host string) {
	s := c.Settings()
	// Read to its end, so that a caller who leaves while nothing is answered is
	// noticed.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "body", http.StatusRequestEntityTooLarge)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	called, known := c.routes()[r.Method+" "+r.URL.Path]
	if !known || called.ai && noService(s.Regions[host]) || !called.ai && host != "" {
		called = route{op: "other", open: true, work: notFound}
	}
	g, valid := c.granted(s, r.Header.Get("token"))
	allowed := true
	if called.makes && valid {
		if g.region == "0" {
			allowed = s.CreateToken != "region"
			g.region = c.concerned(body)
		} else {
			allowed = s.CreateToken != "platform"
		}
	}
	location := host
	if location == "" && called.op != "login" {
		location = g.region
	}
	answer(w, r, c, called.op, c.faults.pick(called.op, location), func() reply {
		s := c.Settings()
		switch {
		case !called.open && !valid:
			out := c.refuse(s, "10008", "token expired", r.Header.Get("token"))
			out.status = s.StaleStatus
			return out
		case !allowed:
			return c.refuse(s, "10008", "insufficient permission", r.Header.Get("token"))
		case called.ai && (g.region == "0" || host != "" && g.region != host):
			return c.refuse(s, "818218", "compute user does not exist", "")
		}
		return called.work(s, r, g)
	})
}

// noService reports whether a region's host knows no path of the AI service.
func noService(what string) bool { return what == "404" || what == "no-ai" || what == "gone" }

func notFound(SCNetSettings, *http.Request, grant) reply {
	return reply{status: http.StatusNotFound, header: http.Header{"Content-Type": {"text/plain"}}, body: []byte("404 page not found\n")}
}

func (c *SCNet) granted(s SCNetSettings, token string) (grant, bool) {
	c.tokensMu.Lock()
	defer c.tokensMu.Unlock()
	g, ok := c.tokens[token]
	return g, ok && c.clock(s).Before(g.expires)
}

func (*SCNet) success(data any) reply {
	return reply{status: http.StatusOK, header: http.Header{"Content-Type": {"application/json;charset=UTF-8"}}, body: plainJSON(struct {
		Code string `json:"code"`
		Msg  string `json:"msg"`
		Data any    `json:"data"`
	}{"0", "success", data})}
}

// refuse is an answer with a code. secret is what an answer that echoes would
// repeat.
func (c *SCNet) refuse(s SCNetSettings, code, text, secret string) reply {
	if s.Echo && secret != "" {
		text += ": " + secret
	}
	return reply{status: http.StatusOK, header: http.Header{"Content-Type": {"application/json;charset=UTF-8"}}, body: plainJSON(struct {
		Code string `json:"code"`
		Msg  string `json:"msg"`
		Data any    `json:"data"`
	}{code, text, nil})}
}

// refusal implements spoiler. The data of some errors is text.
func (c *SCNet) refusal(_ string, code, text string) reply {
	if text == "" {
		text = "simulated"
	}
	return reply{status: http.StatusOK, header: http.Header{"Content-Type": {"application/json;charset=UTF-8"}}, body: plainJSON(struct {
		Code string `json:"code"`
		Msg  string `json:"msg"`
		Data string `json:"data"`
	}{code, text, "simulated"})}
}

// login checks the signature over the three headers and gives a token for each
// region.
func (c *SCNet) login(s SCNetSettings, r *http.Request, _ grant) reply {
	user, key, stamp, signature := r.Header.Get("user"), r.Header.Get("accessKey"), r.Header.Get("timestamp"), r.Header.Get("signature")
	if user == "" || key == "" || stamp == "" || signature == "" {
		return c.refuse(s, "10003", "param_incomplete", "")
	}
	message := `{"accessKey":` + quoteJSON(key) + `,"timestamp":` + quoteJSON(stamp) + `,"user":` + quoteJSON(user) + `}`
	secret, known := c.secretOf(key)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(message))
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	off := c.clock(s).Sub(time.Unix(seconds, 0)).Abs()
	switch {
	case user != c.user:
		return c.refuse(s, "10009", "user does not exist", key)
	case !known:
		return c.refuse(s, "10009", "the access key does not exist", key)
	case !hmac.Equal([]byte(hex.EncodeToString(mac.Sum(nil))), []byte(signature)), err != nil, off > time.Duration(s.SkewWindow):
		return c.refuse(s, "10009", "AK/SK signature check failed", signature)
	}
	expires := c.clock(s).Add(time.Duration(s.TokenLifetime))
	list := []map[string]any{}
	c.tokensMu.Lock()
	defer c.tokensMu.Unlock()
	if s.SingleLogin {
		clear(c.tokens)
	}
	for _, id := range SCNetRegions {
		entry := map[string]any{"clusterId": id, "clusterName": regionNames[id], "token": nil}
		switch s.Regions[id] {
		case "gone":
			continue
		case "no-token":
		default:
			entry["token"] = c.issueLocked(id, expires)
		}
		list = append(list, entry)
	}
	list = append(list, map[string]any{"clusterId": "0", "clusterName": "ac", "token": c.issueLocked("0", expires)})
	return c.success(list)
}

// quoteJSON is text as a JSON string, with the escapes that JSON needs.
func quoteJSON(s string) string { return strings.TrimSuffix(string(plainJSON(s)), "\n") }

// issueLocked makes a token: an HS256 JWT with the vendor's claims.
func (c *SCNet) issueLocked(region string, expires time.Time) string {
	part := func(v any) string {
		return base64.RawURLEncoding.EncodeToString([]byte(strings.TrimSpace(string(plainJSON(v)))))
	}
	text := part(map[string]string{"typ": "JWT", "alg": "HS256"}) + "." + part(map[string]string{
		"computeUser": "simulated", "accountStatus": "Trial", "creator": "ac", "role": "1", "clusterId": region, "user": c.user,
		"expireTime": strconv.FormatInt(expires.UnixMilli(), 10), "invoker": c.dice.text(alphabet, 16), "userId": "1",
	})
	mac := hmac.New(sha256.New, []byte(SCNetSecretKey)) // the cloud's own, whatever keys the account has
	mac.Write([]byte(text))
	token := text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	c.tokens[token] = grant{region, expires}
	return token
}

func (c *SCNet) center(s SCNetSettings, r *http.Request, g grant) reply {
	if g.region == "0" {
		return c.refuse(s, "10001", "internal_error", "")
	}
	type link map[string]any
	urls := []link{}
	if s.Regions[g.region] != "no-ai" {
		base := "http://" + r.Host
		if host, ok := c.hosts.Load(g.region); ok {
			base, _ = host.(string)
		}
		base += map[string]string{"bare": "", "ai": "/ai", "slash": "/ai/"}[s.AIURL]
		urls = append(urls, link{"enable": "false", "version": "2.4.3", "url": "http://127.0.0.1:1/ai"}, link{"enable": "true", "version": "2.4.3", "url": base})
	}
	id, _ := strconv.Atoi(g.region)
	return c.success(map[string]any{
		"id": id, "name": regionNames[g.region], "description": "simulated",
		"clusterUserInfo": map[string]string{"userName": "simulated", "homePath": "/public/home/simulated"},
		"ingressUrls":     []link{}, "hpcUrls": []link{}, "efileUrls": []link{}, "eshellUrls": []link{}, "aiUrls": urls,
	})
}

func (c *SCNet) renew(s SCNetSettings, r *http.Request, g grant) reply {
	c.tokensMu.Lock()
	token := c.issueLocked(g.region, c.clock(s).Add(time.Duration(s.TokenLifetime)))
	delete(c.tokens, r.Header.Get("token"))
	c.tokensMu.Unlock()
	one := map[string]string{"token": token}
	return c.success(map[string]any{"string": token, "object": one, "array": []map[string]string{one}}[s.Renewed])
}

func (c *SCNet) tokenState(SCNetSettings, *http.Request, grant) reply {
	return c.success("token is valid")
}

func (c *SCNet) list(s SCNetSettings, r *http.Request, g grant) reply {
	q := r.URL.Query()
	page, size := 1, 20
	for name, field := range map[string]*int{"page": &page, "size": &size} {
		if text := q.Get(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				return c.refuse(s, "10004", "param_invalid", "")
			}
			*field = n
		}
	}
	if s.PageCap > 0 {
		size = min(size, s.PageCap)
	}
	out := c.page(s, g.region, q.Get("notebookName"), q.Get("notebookStatus"), page, size)
	c.world.turned(g.region, s.Drift)
	return out
}

func (c *SCNet) page(s SCNetSettings, region, name, status string, page, size int) (out reply) {
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.placeLocked(region)
	w.ripenLocked(p)
	p.renameLocked(time.Now())
	defer func() { out.finish = w.stampLocked(p) }()
	match := []*instance{}
	for _, n := range p.list {
		if strings.Contains(n.name, name) && (status == "" || scnetWords[n.phase] == status) {
			match = append(match, n)
		}
	}
	if !s.OldestFirst {
		slices.Reverse(match)
	}
	total := len(match)
	if last := max((total+size-1)/size, 1); s.RepeatLast && page > last {
		page = last
	}
	match = match[min((page-1)*size, total):min(page*size, total)]
	free := map[group]int{}
	for _, n := range match {
		if _, ok := free[n.group]; !ok {
			free[n.group] = p.free(s, n.group)
		}
	}
	rows := make([]map[string]any, len(match))
	for i, n := range match {
		rows[i] = c.record(n, s, free[n.group])
	}
	switch {
	case s.Envelope == "B" && len(rows) == 1 && total == 1:
		return c.success(rows[0])
	case s.Envelope == "C":
		return c.success(map[string]any{"data": rows, "total": total})
	case s.Envelope == "D" && len(rows) == 0:
		return c.success(nil)
	case s.Envelope == "D":
		return c.success(rows)
	}
	return c.success(map[string]any{"total": total, "records": rows})
}

func (c *SCNet) detail(s SCNetSettings, r *http.Request, g grant) reply {
	id := r.URL.Query().Get("notebookId")
	if id == "" {
		return c.refuse(s, "10003", "param_incomplete", "")
	}
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.placeLocked(g.region)
	w.ripenLocked(p)
	n, ok := p.byID[id]
	switch {
	case ok:
		return c.success(c.record(n, s, p.free(s, n.group)))
	case s.Missing == "null":
		return c.success(nil)
	default:
		return c.refuse(s, s.Missing, map[string]string{"10001": "internal_error", "10004": "param_invalid"}[s.Missing], "")
	}
}

var scnetWords = map[phase]string{
	creating: "Creating", starting: "Restarting", running: "Running", stopping: "Shutting", stopped: "Terminated", failed: "Failed",
}

// keptFor is how long a notebook that is off is kept.
const keptFor = 30 * 24 * time.Hour

// record is a notebook as list and detail show it.
func (c *SCNet) record(n *instance, s SCNetSettings, free int) map[string]any {
	imageName := cmp.Or(n.imageName, n.image[strings.LastIndex(n.image, "/")+1:])
	row := map[string]any{
		"id": n.id, "notebookName": n.name, "notebookStatus": scnetWords[n.phase], "imageName": imageName, "imagePath": n.image,
		"cpuNumber": strconv.Itoa(n.cpu) + "核心", "acceleratorType": n.model.kind, "acceleratorNumber": n.cards, "acceleratorMode": n.model.name,
		"resourceGroupCode": n.group.code, "resourceGroupId": n.group.id, "ramSize": strconv.Itoa(n.memoryGB) + "GB", "imageSize": sizeOf(n.image),
		"createTime": n.created.In(china).Format(time.DateTime), "updateTime": n.updated.In(china).Format(time.DateTime),
		"releaseTime": nil, "progress": nil, "startType": "normal", "maxTimeout": nil, "sshPassword": SCNetPassword + n.id[len(n.id)-6:],
		"serviceIp": "10.68.206." + strconv.Itoa(n.cpu), "serviceUrl": nil, "sshUrl": nil, "taskId": n.task,
		"enoughResource": free >= n.cards, "containerId": nil, "containerType": nil, "node": "10.13.1.15",
		"maxNumber": 8, "freeNumber": free, "command": nil, "customizePort": nil, "message": nil, "errorMessage": nil,
	}
	switch n.phase {
	case stopped, failed:
		left := keptFor - c.world.now().Sub(n.stoppedAt)%keptFor
		row["releaseTime"] = countdown(left)
	case creating:
		row["progress"] = 40
	case starting, running, stopping:
	}
	if n.failure != "" {
		row["errorMessage"] = n.failure
	}
	if n.port != 0 {
		row["customizePort"] = strconv.Itoa(n.port)
		row["command"] = "python /root/app.py --port " + strconv.Itoa(n.port)
	}
	if s.Spelling == "table" {
		row["iamgePath"], row["customsizePort"] = row["imagePath"], row["customizePort"]
		delete(row, "imagePath")
		delete(row, "customizePort")
	}
	if s.NumbersAsText {
		for _, name := range []string{"acceleratorNumber", "maxNumber", "freeNumber"} {
			row[name] = fmt.Sprint(row[name])
		}
		for _, name := range []string{"id", "imageSize", "resourceGroupId", "taskId"} {
			row[name] = json.Number(fmt.Sprint(row[name]))
		}
	}
	return row
}

// countdown is a time left as the cloud writes it; parts that are nothing are
// left out.
func countdown(left time.Duration) string {
	minutes := int(left / time.Minute)
	var b strings.Builder
	for _, part := range []struct {
		n    int
		unit string
	}{{minutes / 1440, "天"}, {minutes / 60 % 24, "小时"}, {minutes % 60, "分钟"}} {
		if part.n > 0 {
			fmt.Fprintf(&b, "%d%s", part.n, part.unit)
		}
	}
	return b.String()
}

// patch also ends the tokens of regions that the account has lost.
func (c *SCNet) patch(data []byte) error {
	if err := c.simulator.patch(data); err != nil {
		return err
	}
	c.revoke()
	return nil
}

// Set is as that of all simulators, and ends the tokens of regions that the
// account has lost.
func (c *SCNet) Set(change func(*SCNetSettings)) {
	c.simulator.Set(change)
	c.revoke()
}

func (c *SCNet) revoke() {
	s := c.Settings()
	c.tokensMu.Lock()
	defer c.tokensMu.Unlock()
	maps.DeleteFunc(c.tokens, func(_ string, g grant) bool {
		what := s.Regions[g.region]
		return what == "no-token" || what == "gone"
	})
}

// Token gives a token of a region that ends after the lifetime of the settings,
// for configurations that name one instead of a login.
func (c *SCNet) Token(region string) string {
	s := c.Settings()
	c.tokensMu.Lock()
	defer c.tokensMu.Unlock()
	return c.issueLocked(region, c.clock(s).Add(time.Duration(s.TokenLifetime)))
}
