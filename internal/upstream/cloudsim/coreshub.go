package cloudsim

import (
	"cmp"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // the cloud's signature has an MD5 in it; it protects nothing
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CoresHubSettings are the ways in which a real CoresHub might differ from what
// is documented. They can be switched while it runs.
type CoresHubSettings struct {
	// Errors is how errors are told: "code" (HTTP 200 and a code of four digits)
	// or "http" (an HTTP status, and the same as code).
	Errors string `json:"errors"`
	// StrictSignature accepts only signatures that were encoded twice.
	StrictSignature bool `json:"strict_signature"`
	// SignBody is whose MD5 has to be signed: "empty" or "md5".
	SignBody string `json:"sign_body"`
	// PageCap is the most rows of a page, whatever is asked for.
	PageCap int `json:"page_cap"`
	// Drift is how many rows are removed and added after each page of a list.
	Drift int `json:"drift"`
	// NewestFirst turns the order of lists around.
	NewestFirst bool `json:"newest_first"`
	// Quota is how many calls an hour are answered; zero stands for any number.
	Quota int `json:"quota"`
	// UnknownZone is the answer for a zone that the account does not have:
	// "empty" (a list of nothing) or "error".
	UnknownZone string `json:"unknown_zone"`
	// AllowRunning accepts a change of the image of a notebook that is not
	// suspended.
	AllowRunning bool `json:"allow_running"`
	// LateImage answers a change of the image with the old one still shown.
	LateImage bool `json:"late_image"`
	// TransitWords shows words that nobody documents while a notebook stops.
	TransitWords bool `json:"transit_words"`
	// Times is the form of times: "naive" or "zoned".
	Times string `json:"times"`
	// Unset is what stands for nothing: "null", "empty" or "missing".
	Unset string `json:"unset"`
	// Counts is the total in a list: "right", "zero" or "page".
	Counts string `json:"counts"`
	// Echo repeats the request, secrets included, in the text of errors.
	Echo bool `json:"echo"`
}

func (s CoresHubSettings) validate() error {
	return firstProblem(
		oneOf("errors", s.Errors, "code", "http"), oneOf("sign_body", s.SignBody, "empty", "md5"),
		oneOf("unknown_zone", s.UnknownZone, "empty", "error"), oneOf("times", s.Times, "naive", "zoned"),
		oneOf("unset", s.Unset, "null", "empty", "missing"), oneOf("counts", s.Counts, "right", "zero", "page"),
		inRange("page_cap", s.PageCap, 1, 1000), inRange("drift", s.Drift, 0, 50), inRange("quota", s.Quota, 0, 1<<30),
	)
}

// CoresHub is a simulated account on CoresHub. It is safe for concurrent use.
type CoresHub struct {
	*simulator[CoresHubSettings]
	userID string

	used windowCounter
}

// The account of the simulated CoresHub. Nothing here opens anything real.
const (
	CoresHubUserID = "usr-5HY8xxxx"
	CoresHubKeyID  = "SIMULATEDACCESSKEYID"
	CoresHubSecret = "simulated-secret-access-key"
	// CoresHubNotebook is a notebook in the first zone that stays as it is, but
	// for changes that are asked for: the one of the vendor's example.
	CoresHubNotebook = "nb-eiguqichl5hc"
)

// CoresHubZones are the zones that the simulated account has.
var CoresHubZones = []string{"xb3", "xb2", "hb2"}

func newCoresHub(cfg Config) *CoresHub {
	images := []string{
		"xb3-dockerhub.coreshub.cn/aicp/public/tensorflow:2.16.1-gpu-jupyter",
		"xb3-dockerhub.coreshub.cn/aicp/public/pytorch:2.6.0-cuda12.4-jupyter",
		"xb3-dockerhub.coreshub.cn/usr-5hy8xxxx/vllm:0.8.3",
		"registry.example.com/team/finetune:14",
	}
	w := newWorld(cfg.Seed, cfg.now(), species{
		id:     func(w *world, _ time.Time) string { return "nb-" + w.textLocked(alphabet, 12) },
		name:   func(w *world, _ time.Time) string { return "容器实例-" + strconv.Itoa(w.serial) },
		images: images, types: []string{"official", "official", "user", "custom"},
		models: []model{{"gpu", "NVIDIA A800"}, {"gpu", "NVIDIA RTX 4090"}},
		groups: []group{{"rg-7c1f", "rg-7c1f"}},
	}, CoresHubZones[:2], cfg.CoresHubNotebooks)
	c := &CoresHub{
		simulator: newSimulator("coreshub", cfg, w, CoresHubSettings{
			Errors: "code", SignBody: "empty", PageCap: 100, UnknownZone: "empty", Times: "naive", Unset: "null", Counts: "right",
		}, CoresHubKeyID, CoresHubSecret),
		userID: CoresHubUserID,
	}
	w.pin(CoresHubNotebook, func(n *instance) {
		n.name, n.image, n.imageType, n.server = "容器实例-1", images[0], "official", "jupyter"
		n.kuid = "b9a485e4-1672-45fa-a90e-5adf0016fe30"
		n.created = time.Date(2025, 4, 10, 7, 0, 33, 0, time.UTC)
		n.updated = time.Date(2025, 4, 10, 9, 33, 41, 0, time.UTC)
	})
	return c
}

// ServeHTTP implements http.Handler.
func (c *CoresHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "body", http.StatusRequestEntityTooLarge)
		return
	}
	op := "other"
	path := strings.TrimSuffix(r.URL.Path, "/")
	rest, ok := strings.CutPrefix(path, "/aicp/notebooks/namespaces/")
	namespace, tail, _ := strings.Cut(rest, "/")
	switch {
	case ok && r.Method == http.MethodGet && tail == "notebooks":
		op = "list"
	case ok && r.Method == http.MethodPost && tail == "notebooks/change_image":
		op = "change_image"
	}
	zone := r.URL.Query().Get("zone")
	fault := c.faults.pick(op, zone)
	answer(w, r, c, op, fault, func() reply {
		s := c.Settings()
		if problem := c.authenticate(r, body, s); problem != "" {
			return c.refuse(s, 1200, problem, r, body)
		}
		if !c.used.spend(c.world.now(), s.Quota) {
			return c.refuse(s, 2500, "the quota of api calls is exceeded", r, body)
		}
		if !strings.EqualFold(namespace, c.userID) {
			return c.refuse(s, 1400, "access denied to namespace "+namespace, r, body)
		}
		switch op {
		case "list":
			page := c.list(s, zone, r, body)
			c.world.turned(zone, s.Drift)
			return page
		case "change_image":
			return c.changeImage(s, zone, r, body)
		default:
			return c.refuse(s, 1101, "no such action", r, body)
		}
	})
}

// authenticate checks the signature as the vendor's own servers are known to: it
// parses the query, takes the signature out, writes the rest down again and
// compares.
func (c *CoresHub) authenticate(r *http.Request, body []byte, s CoresHubSettings) (problem string) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "the query cannot be read"
	}
	given := query["signature"]
	if len(given) != 1 {
		return "signature is missing"
	}
	delete(query, "signature")
	secret, ok := c.secretOf(query.Get("access_key_id"))
	if !ok {
		return "the access key does not exist"
	}
	var pairs []string
	for name, values := range query {
		for _, value := range values {
			pairs = append(pairs, quote(name)+"="+quote(value))
		}
	}
	// Sorted by name, then by value: '=' sorts below everything that follows a
	// longer name here, but not in general, so the names are compared alone.
	slices.SortFunc(pairs, func(a, b string) int {
		an, av, _ := strings.Cut(a, "=")
		bn, bv, _ := strings.Cut(b, "=")
		return cmp.Or(cmp.Compare(an, bn), cmp.Compare(av, bv))
	})
	if s.SignBody == "empty" {
		body = nil
	}
	sum := md5.Sum(body) //nolint:gosec // as above
	path := strings.TrimSuffix(r.URL.EscapedPath(), "/") + "/"
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = fmt.Fprintf(mac, "%s\n%s\n%s\n%s", r.Method, path, strings.Join(pairs, "&"), hex.EncodeToString(sum[:]))
	want := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	twice := subtle.ConstantTimeCompare([]byte(given[0]), []byte(url.QueryEscape(want))) == 1
	once := subtle.ConstantTimeCompare([]byte(given[0]), []byte(want)) == 1
	if !twice && (!once || s.StrictSignature) {
		return "the signature does not match"
	}
	return ""
}

// quote is the percent-encoding that the vendor's code uses.
func quote(s string) string {
	var b strings.Builder
	for i := range len(s) {
		ch := s[i]
		switch {
		case ch >= 'A' && ch <= 'Z', ch >= 'a' && ch <= 'z', ch >= '0' && ch <= '9', strings.IndexByte("-_.~/", ch) >= 0:
			b.WriteByte(ch)
		default:
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	return b.String()
}

type coresHubEnvelope struct {
	Message string            `json:"message"`
	Meta    map[string]string `json:"meta"`
	Data    any               `json:"data,omitempty"`
	Counts  *int              `json:"counts,omitempty"`
	RetCode int               `json:"ret_code"`
}

func (c *CoresHub) reply(status int, e coresHubEnvelope) reply {
	e.Meta = map[string]string{"X_REQUEST_ID": c.dice.text("0123456789abcdef", 8), "X_REQUEST_USER": c.userID}
	return reply{status: status, header: http.Header{"Content-Type": {"application/json"}}, body: escapeJSON(e)}
}

// httpCodes is the other style of errors: what stands there for a code.
var httpCodes = map[int]int{
	1100: 422, 1101: 501, 1200: 401, 1300: 401, 1400: 403, 2100: 404, 2400: 401, 2500: 429, 5000: 500, 5100: 503,
}

func (c *CoresHub) refuse(s CoresHubSettings, code int, text string, r *http.Request, body []byte) reply {
	status := http.StatusOK
	if s.Errors == "http" {
		status = cmp.Or(httpCodes[code], http.StatusInternalServerError)
		code = status
	}
	if s.Echo && r != nil {
		text += ": " + r.Method + " " + r.URL.RequestURI() + " " + string(body)
	}
	return c.reply(status, coresHubEnvelope{Message: text, RetCode: code})
}

// refusal implements spoiler.
func (c *CoresHub) refusal(_ string, code, text string) reply {
	number, err := strconv.Atoi(code)
	if err != nil {
		number = 9999
	}
	return c.refuse(c.Settings(), number, cmp.Or(text, "simulated"), nil, nil)
}

func (c *CoresHub) list(s CoresHubSettings, zone string, r *http.Request, body []byte) reply {
	q := r.URL.Query()
	limit, offset := 10, 0
	for name, field := range map[string]*int{"limit": &limit, "offset": &offset} {
		if text := q.Get(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 {
				return c.refuse(s, 1100, name+" must be a number from 0 on", r, body)
			}
			*field = n
		}
	}
	limit = min(limit, s.PageCap)
	if zone == "" {
		return c.refuse(s, 1100, "zone is missing", r, body)
	}
	from, err := c.bound(q.Get("start_at"))
	to, err2 := c.bound(q.Get("end_at"))
	if err != nil || err2 != nil {
		return c.refuse(s, 1100, "start_at and end_at must be times", r, body)
	}
	newest := s.NewestFirst != slices.Contains([]string{"true", "True", "1"}, q.Get("reverse"))

	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.placeLocked(zone)
	if p == nil && s.UnknownZone == "error" {
		return c.refuse(s, 2100, "zone "+zone+" does not exist", r, body)
	}
	var match []*instance
	if p != nil {
		p.renameLocked(time.Now())
		for _, n := range p.list {
			switch {
			case !strings.Contains(n.name, q.Get("name")),
				len(q["status"]) > 0 && !slices.Contains(q["status"], c.word(n, s)),
				q.Get("owner") != "" && q.Get("owner") != c.userID,
				!from.IsZero() && n.created.Before(from), !to.IsZero() && n.created.After(to):
				continue
			}
			match = append(match, n)
		}
	}
	if newest {
		match = slices.Clone(match)
		slices.Reverse(match)
	}
	total := len(match)
	match = match[min(offset, total):min(offset+limit, total)]
	rows := make([]map[string]any, len(match))
	for i, n := range match {
		rows[i] = c.row(n, s)
		rows[i]["user_name"], rows[i]["email"] = "simulated", "team@example.com"
	}
	counts := map[string]int{"right": total, "zero": 0, "page": len(rows)}[s.Counts]
	out := c.reply(http.StatusOK, coresHubEnvelope{Message: "success", Data: rows, Counts: &counts})
	out.finish = w.stampLocked(p)
	return out
}

// china is the zone of the vendor's times.
var china = time.FixedZone("CST", 8*3600)

func (c *CoresHub) bound(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	return time.ParseInLocation("2006-01-02 15:04:05", strings.Replace(text, "T", " ", 1), china)
}

// word is the cloud's word for a phase. Those of the last two are not public.
func (c *CoresHub) word(n *instance, s CoresHubSettings) string {
	switch n.phase {
	case running:
		return "Running"
	case failed:
		return "Failed"
	case stopped:
		return "Suspended"
	case stopping:
		if s.TransitWords {
			return "Stopping"
		}
		return "Running"
	case creating, starting:
	}
	return "Pending"
}

var coresHubReasons = map[string]string{"Pending": "排队中", "Running": "运行中", "Suspended": "已暂停", "Stopping": "停止中"}

// row is the notebook object.
func (c *CoresHub) row(n *instance, s CoresHubSettings) map[string]any {
	stamp := func(t time.Time) string {
		if s.Times == "zoned" {
			return t.UTC().Format("2006-01-02T15:04:05.000Z")
		}
		return t.In(china).Format("2006-01-02T15:04:05")
	}
	word := c.word(n, s)
	row := map[string]any{
		"uuid": n.id, "kuid": n.kuid, "name": n.name, "status": word, "reason": cmp.Or(n.failure, coresHubReasons[word]),
		"namespace": strings.ToLower(c.userID), "user_id": c.userID, "root_user_id": "",
		"image": n.image, "image_type": n.imageType, "server_type": n.server,
		"envs":       []map[string]string{{"name": "HF_HOME", "value": "simulated-environment-value"}},
		"created_at": stamp(n.created), "updated_at": stamp(n.updated),
		"pip": "aliyun", "conda": "conda", "apt": "ubuntu",
		// The vendor's page is cut off before these; its create request has them.
		"replica_specs": map[string]any{
			"replicas": 1, "specs": "sku-simulated", "custom_cpu": n.cpu, "custom_memory": n.memoryGB,
			"custom_gpu": n.cards, "custom_gpu_name": n.model.name, "rg_id": n.group.id,
		},
		"charge_mode": "elastic", "duration": 3600, "auto_renew": 0,
	}
	if n.phase == running {
		row["server"] = "https://ai.coreshub.cn/xb3a/notebook/jupyter/" + strings.ToLower(c.userID) + "/" + n.id + "/?token=simulated-jupyter-token"
	}
	for _, name := range []string{"server", "stop_time", "auto_delete_time", "next_charge_mode"} {
		if _, set := row[name]; !set {
			switch s.Unset {
			case "null":
				row[name] = nil
			case "empty":
				row[name] = ""
			}
		}
	}
	return row
}

func (c *CoresHub) changeImage(s CoresHubSettings, zone string, r *http.Request, body []byte) reply {
	var req struct {
		Image     string `json:"image"`
		ImageType string `json:"image_type"`
		UUID      string `json:"uuid"`
		Secret    *struct {
			HasAuth  bool   `json:"has_auth"`
			Username string `json:"username"`
			Password string `json:"password"`
		} `json:"secret"`
	}
	if err := json.Unmarshal(body, &req); err != nil {
		return c.refuse(s, 1100, "the body is not as documented", r, body)
	}
	if req.Image == "" || req.ImageType == "" || req.UUID == "" {
		return c.refuse(s, 1100, "image, image_type and uuid are needed", r, body)
	}
	if !slices.Contains([]string{"official", "user", "custom"}, req.ImageType) {
		return c.refuse(s, 1100, "image_type is not known", r, body)
	}
	if req.Secret != nil && req.Secret.HasAuth && (req.Secret.Username == "" || req.Secret.Password == "") {
		return c.refuse(s, 1100, "a login needs username and password", r, body)
	}
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.placeLocked(zone)
	var n *instance
	if p != nil {
		n = p.byID[req.UUID]
	}
	switch {
	case n == nil:
		return c.refuse(s, 2100, "the notebook does not exist", r, body)
	case n.phase != stopped && !s.AllowRunning:
		return c.refuse(s, 1400, "the notebook is not suspended", r, body)
	}
	c.changes.add(n.id)
	before := c.row(n, s)
	n.image, n.imageType, n.updated = req.Image, req.ImageType, w.now()
	row := c.row(n, s)
	if s.LateImage {
		row["image"], row["image_type"] = before["image"], before["image_type"]
	}
	return c.reply(http.StatusOK, coresHubEnvelope{Message: "success", Data: row})
}
