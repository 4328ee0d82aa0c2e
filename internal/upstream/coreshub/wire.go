package coreshub

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // the cloud's signature has an MD5 in it; it protects nothing
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/notebookd/notebookd/internal/upstream"
)

// signer signs requests.
// API: https://docs.coreshub.cn/console/developer/api/signature, which leaves
// out the fourth line and the encoding; README.md says what was chosen.
type signer struct {
	keyID, secret upstream.Secret
	once          bool // encode the signature once instead of twice
	hashBody      bool // sign the MD5 of the body instead of that of nothing
}

// signed is a signature and what it was made of.
type signed struct {
	canonical string // the query without the signature
	text      string // the string to sign
	base64    string // the signature itself
	query     string // the query to send, byte for byte
}

// sign signs a request to path, which has to be escaped as it will be sent. It
// adds the access key to params.
func (s signer) sign(method, path string, params url.Values, body []byte) signed {
	params = maps.Clone(params)
	params["access_key_id"] = []string{s.keyID.Reveal()}

	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(params)) {
		for _, value := range slices.Sorted(slices.Values(params[name])) {
			pairs = append(pairs, escape(name)+"="+escape(value))
		}
	}
	if !strings.HasSuffix(path, "/") {
		path += "/" // signed with, sent without
	}
	if !s.hashBody {
		body = nil
	}
	sum := md5.Sum(body) //nolint:gosec // as above

	out := signed{canonical: strings.Join(pairs, "&")}
	out.text = strings.Join([]string{method, path, out.canonical, hex.EncodeToString(sum[:])}, "\n")
	mac := hmac.New(sha256.New, []byte(s.secret.Reveal()))
	mac.Write([]byte(out.text))
	out.base64 = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	signature := url.QueryEscape(out.base64)
	if !s.once {
		signature = url.QueryEscape(signature)
	}
	out.query = out.canonical + "&signature=" + signature
	return out
}

// escape percent-encodes a name or value as the cloud does: a space is %20 and
// a slash stays.
func escape(s string) string {
	return escapes.Replace(url.QueryEscape(s))
}

var escapes = strings.NewReplacer("+", "%20", "%2F", "/")

// forms are the signature as it is, encoded once and (as the redaction of
// errors looks for the encoded form as well) encoded twice.
func (s signed) forms() []upstream.Secret {
	return []upstream.Secret{upstream.NewSecret(s.base64), upstream.NewSecret(url.QueryEscape(s.base64))}
}

// credentialForms are the forms in which a cloud may echo a registry login: the
// password, the password inside JSON text of two styles, and the header that
// registries are asked with.
func credentialForms(username string, password upstream.Secret) []upstream.Secret {
	plain := password.Reveal()
	if plain == "" {
		return nil
	}
	quoted := string(upstream.CompactJSON(plain))
	ascii := strconv.QuoteToASCII(plain)
	return []upstream.Secret{
		password,
		upstream.NewSecret(quoted[1 : len(quoted)-1]),
		upstream.NewSecret(ascii[1 : len(ascii)-1]),
		upstream.NewSecret(base64.StdEncoding.EncodeToString([]byte(username + ":" + plain))),
	}
}

// changeImageBody is the body of change_image. The namespace is in the path
// only, and secret is spelled as in the vendor's sample, not as in its table.
func changeImageBody(req upstream.ImageRequest) []byte {
	type secret struct {
		HasAuth  bool   `json:"has_auth"`
		Username string `json:"username"`
		Password string `json:"password"`
	}
	body := struct {
		Image     string  `json:"image"`
		ImageType string  `json:"image_type"`
		UUID      string  `json:"uuid"`
		Secret    *secret `json:"secret,omitempty"`
	}{Image: req.Image, ImageType: req.ImageType, UUID: req.NotebookID}
	if c := req.Credential; c != nil {
		body.Secret = &secret{HasAuth: true, Username: c.Username, Password: c.Password.Reveal()}
	}
	return upstream.CompactJSON(body)
}

// unwrap returns the JSON that a JSON string holds, if it holds an object or an
// array: some fields are documented as strings and are sent as either.
func unwrap(raw json.RawMessage) json.RawMessage {
	raw = bytes.TrimSpace(raw)
	if s := bytes.TrimSpace([]byte(upstream.Scalar(raw))); len(raw) > 0 && raw[0] == '"' && len(s) > 0 && (s[0] == '{' || s[0] == '[') && json.Valid(s) {
		return s
	}
	return raw
}

// envelope is around every answer, errors included.
type envelope struct {
	retCode, message, counts string
	detail                   string // of the vendor's framework, when it answers itself
	meta, data               json.RawMessage
}

func (e *envelope) take(name string, value json.RawMessage) {
	switch name {
	case "ret_code":
		e.retCode = upstream.Scalar(value)
	case "message":
		e.message = upstream.Scalar(value)
	case "detail":
		e.detail = upstream.Scalar(value)
	case "counts":
		e.counts = upstream.Scalar(value)
	case "meta":
		e.meta = value
	case "data":
		e.data = value
	}
}

// answer is an envelope that says success.
type answer struct {
	data      json.RawMessage
	requestID string
	counts    int // what a list says there is in all; zero when it says nothing
}

// bad is the error for an answer that says success and makes no sense. what is
// our own text: nothing of an answer may be in it.
func (a answer) bad(what string) *upstream.Error {
	return &upstream.Error{Kind: upstream.KindBadResponse, Code: "HTTP 200", RequestID: a.requestID, Err: errors.New(what)}
}

// open reads the envelope. Success is HTTP 200 and ret_code 0; everything else
// is an *upstream.Error. The envelope is looked for on any HTTP status, because
// the cloud reports errors in both ways.
func open(resp upstream.Response) (answer, error) {
	var env envelope
	if err := upstream.Members(resp.Body, env.take); err != nil {
		e := upstream.HTTPError(resp)
		if resp.Status == http.StatusForbidden && quotaText(string(resp.Body[:min(len(resp.Body), 4<<10)])) {
			e.Kind = upstream.KindThrottled
		}
		e.Err = errors.New("the answer is no JSON object")
		return answer{}, e
	}
	requestID := ""
	_ = upstream.Members(env.meta, func(name string, value json.RawMessage) { // not an object: no id, then
		if name == "X_REQUEST_ID" {
			requestID = hideParams(upstream.Scalar(value))
		}
	})

	message := cmp.Or(env.message, env.detail)
	e := upstream.HTTPError(resp)
	code, err := strconv.Atoi(env.retCode)
	switch {
	case err != nil:
		e.Err = errors.New("the answer has no ret_code")
	case code != 0:
		e.Code, e.Kind = strconv.Itoa(code), kindOf(code, resp.Status)
	case resp.Status == http.StatusOK:
		counts, _ := strconv.Atoi(env.counts) // a hint at best
		return answer{data: env.data, requestID: requestID, counts: counts}, nil
	}
	if (resp.Status == http.StatusForbidden || code == http.StatusForbidden) && e.Kind == upstream.KindDenied && quotaText(message) {
		e.Kind = upstream.KindThrottled
	}
	e.Message, e.RequestID = hideParams(message), requestID
	return answer{}, e
}

// hideParams hides the parts of a signed URL that a cloud echoes cut off, in
// which case the redaction of whole secrets does not find them.
func hideParams(s string) string {
	if !strings.Contains(s, "=") {
		return s
	}
	return signedParam.ReplaceAllString(s, "$1=[redacted]")
}

var signedParam = regexp.MustCompile(`(?i)(signature|access_key_id)=[^&\s"'<>]+`)

// kinds is what the documented codes mean: those of the vendor's general table
// (four digits) and those that are HTTP's.
var kinds = map[int]upstream.Kind{
	1100: upstream.KindInvalid,     // malformed request, missing or bad parameter
	1101: upstream.KindUnsupported, // unknown method
	1200: upstream.KindDenied,      // unknown key or wrong signature
	1300: upstream.KindDenied,      // request expired
	1400: upstream.KindConflict,    // no access, or not in a state that allows it
	2100: upstream.KindNotFound,
	2400: upstream.KindConflict,  // balance too low
	2500: upstream.KindThrottled, // quota, that of calls included
	5000: upstream.KindFault,
	5100: upstream.KindUnavailable, // busy

	400: upstream.KindInvalid,
	401: upstream.KindDenied,
	403: upstream.KindDenied, // unless the text speaks of a quota
	404: upstream.KindNotFound,
	409: upstream.KindConflict,
	422: upstream.KindInvalid,
	429: upstream.KindThrottled,
	500: upstream.KindFault,
	501: upstream.KindUnsupported,
	502: upstream.KindUnavailable,
	503: upstream.KindUnavailable,
	504: upstream.KindUnavailable,
}

// kindOf classifies a ret_code other than 0. A code that nobody documents
// leaves the word to an HTTP status that is clear by itself.
func kindOf(code, status int) upstream.Kind {
	kind, documented := kinds[code]
	switch {
	case status == http.StatusTooManyRequests:
		return upstream.KindThrottled
	case documented:
		return kind
	case code >= 5000 && code < 6000, code > 504 && code < 600, status >= 500:
		return upstream.KindUnavailable
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return upstream.KindDenied
	default:
		return upstream.KindRejected
	}
}

// quotaText reports whether the text of a 403 speaks of a quota.
func quotaText(s string) bool {
	s = strings.ToLower(s)
	return slices.ContainsFunc([]string{
		"quota", "rate limit", "ratelimit", "too many", "too frequent", "throttl", "exceed", "配额", "限额", "限流", "频率", "频繁", "次数",
	}, func(word string) bool { return strings.Contains(s, word) })
}

// notebooks reads the answer of list. A list that is missing or null is no
// empty list, and a row without an id makes the whole of it worthless.
func (a answer) notebooks(zone *time.Location, namespace string, memo *upstream.Memo) ([]upstream.Notebook, error) {
	rows, err := upstream.Elements(a.data)
	if err != nil || rows == nil {
		return nil, a.bad("the answer has no list of notebooks")
	}
	out := make([]upstream.Notebook, len(rows))
	for i, row := range rows {
		n, ok := memo.Decode(row, func() (n upstream.Notebook, lasting, ok bool) {
			n, ok = decodeNotebook(row, zone, namespace)
			return n, true, ok
		})
		if !ok {
			return nil, a.bad("a row of the list has no id")
		}
		out[i] = n
	}
	return out, nil
}

// notebook reads the answer of an operation on one notebook: an object, or an
// array of one.
func (a answer) notebook(zone *time.Location, namespace string) (upstream.Notebook, error) {
	row := a.data
	var rows []json.RawMessage
	if json.Unmarshal(a.data, &rows) == nil && len(rows) == 1 {
		row = rows[0]
	}
	n, ok := decodeNotebook(row, zone, namespace)
	if !ok {
		return upstream.Notebook{}, a.bad("the answer shows no notebook")
	}
	return n, nil
}

// notebook is the cloud's notebook object. The README tables where each field
// goes; fields that are not here are ignored.
type notebook struct {
	uuid, kuid, name, status, reason string
	namespace, userID, rootUserID    string
	userName, email                  string // list only
	image, imageType, serverType     string
	envs, replicaSpecs               json.RawMessage
	createdAt, updatedAt             string
	createAt                         string // the name of createdAt in the tables
	stopTime, autoDelete             string
	server, pip, conda, apt          string
	chargeMode, duration, autoRenew  string
	nextChargeMode                   string
}

// take reads a member of the object.
func (w *notebook) take(name string, value json.RawMessage) {
	var to *string
	switch name {
	case "uuid":
		to = &w.uuid
	case "kuid":
		to = &w.kuid
	case "name":
		to = &w.name
	case "status":
		to = &w.status
	case "reason":
		to = &w.reason
	case "namespace":
		to = &w.namespace
	case "user_id":
		to = &w.userID
	case "root_user_id":
		to = &w.rootUserID
	case "user_name":
		to = &w.userName
	case "email":
		to = &w.email
	case "image":
		to = &w.image
	case "image_type":
		to = &w.imageType
	case "server_type":
		to = &w.serverType
	case "created_at":
		to = &w.createdAt
	case "create_at":
		to = &w.createAt
	case "updated_at":
		to = &w.updatedAt
	case "stop_time":
		to = &w.stopTime
	case "auto_delete_time":
		to = &w.autoDelete
	case "server":
		to = &w.server
	case "pip":
		to = &w.pip
	case "conda":
		to = &w.conda
	case "apt":
		to = &w.apt
	case "charge_mode":
		to = &w.chargeMode
	case "duration":
		to = &w.duration
	case "auto_renew":
		to = &w.autoRenew
	case "next_charge_mode":
		to = &w.nextChargeMode
	case "envs":
		w.envs = value
	case "replica_specs":
		w.replicaSpecs = value
	}
	if to != nil {
		*to = upstream.Scalar(value)
	}
}

// states are the documented status words.
var states = map[string]upstream.State{
	"Pending":   upstream.StateStarting,
	"Running":   upstream.StateRunning,
	"Failed":    upstream.StateFailed,
	"Suspended": upstream.StateStopped,
}

// decodeNotebook reads one notebook object that was asked for in namespace. It
// reports false for anything without an id that can stand in a resource name.
func decodeNotebook(raw json.RawMessage, zone *time.Location, namespace string) (upstream.Notebook, bool) {
	var w notebook
	if upstream.Members(raw, w.take) != nil || !upstream.UsableID(w.uuid) {
		return upstream.Notebook{}, false
	}
	n := upstream.Notebook{
		ID:           w.uuid,
		DisplayName:  w.name,
		State:        states[w.status],
		CloudState:   w.status,
		StateMessage: w.reason,
		Image:        upstream.Image{URI: w.image, Type: w.imageType},
		ServerType:   w.serverType,
		Namespace:    cmp.Or(w.namespace, namespace), // a change of the image has to find it again
		OwnerID:      w.userID,
		RootOwnerID:  w.rootUserID,
		CreateTime:   upstream.ParseTime(cmp.Or(w.createdAt, w.createAt), zone),
		UpdateTime:   upstream.ParseTime(w.updatedAt, zone),
		StopTime:     upstream.ParseTime(w.stopTime, zone),
		ExpireTime:   upstream.ParseTime(w.autoDelete, zone),
		Endpoints:    upstream.Endpoints{ServiceURL: upstream.CleanURL(w.server)},
		Mirrors:      upstream.Mirrors{Pip: w.pip, Conda: w.conda, APT: w.apt},
		EnvNames:     envNames(w.envs),
	}
	keep := func(name, value string) {
		if value == "" {
			return
		}
		if n.Attributes == nil {
			n.Attributes = make(map[string]string, len(specFields)) // about as many as there will be
		}
		n.Attributes[name] = value
	}
	keep("kuid", w.kuid)
	keep("user_name", w.userName)
	keep("email", w.email)
	keep("charge_mode", w.chargeMode)
	keep("duration", w.duration)
	keep("auto_renew", w.autoRenew)
	keep("next_charge_mode", w.nextChargeMode)
	for i, spec := range replicaSpecs(w.replicaSpecs) {
		prefix := "replica_specs."
		if i > 0 {
			prefix += strconv.Itoa(i) + "."
		} else {
			n.Resources = resources(spec)
		}
		for _, name := range specFields {
			keep(prefix+name, specText(spec[name]))
		}
	}
	return n, true
}

// specFields are the documented fields of replica_specs.
var specFields = []string{
	"replicas", "specs", "replica_type", "rg_id", "custom_cpu", "custom_memory", "custom_gpu", "custom_gpu_list",
	"custom_gpu_name", "custom_gpu_memory", "custom_gpu_type", "custom_system_disk_size", "custom_data_disk_size",
	"custom_infiniband", "custom_aipods_type", "custom_hashrate_allocation", "custom_network_description",
	"custom_cpu_model", "custom_cpu_manufacturer", "template_id",
}

// replicaSpecs reads replica_specs, which is documented as an object and as a
// list in one line.
func replicaSpecs(raw json.RawMessage) []map[string]json.RawMessage {
	raw = unwrap(raw)
	list, err := upstream.Elements(raw)
	if err != nil {
		list = []json.RawMessage{raw}
	}
	var specs []map[string]json.RawMessage
	for _, element := range list {
		spec := make(map[string]json.RawMessage, len(specFields))
		err := upstream.Members(element, func(name string, value json.RawMessage) { spec[name] = value })
		if err == nil && len(spec) > 0 {
			specs = append(specs, spec)
		}
	}
	return specs
}

// specText is a field of replica_specs as text; a list of texts is joined.
func specText(raw json.RawMessage) string {
	if len(raw) == 0 || raw[0] != '[' {
		return upstream.Scalar(raw)
	}
	list, err := upstream.Elements(raw)
	if err != nil {
		return upstream.Scalar(raw)
	}
	parts := make([]string, 0, len(list))
	for _, element := range list {
		if t := upstream.Scalar(element); t != "" {
			parts = append(parts, t)
		}
	}
	return strings.Join(parts, ",")
}

// resources is the part of replica_specs whose meaning is clear without a unit.
func resources(spec map[string]json.RawMessage) upstream.Resources {
	r := upstream.Resources{CPUCores: quantity(spec["custom_cpu"])}
	count := quantity(spec["custom_gpu"])
	if count == float64(int32(count)) {
		r.Accelerator.Count = int32(count)
	}
	r.Accelerator.Model = upstream.Scalar(spec["custom_gpu_name"])
	if r.Accelerator.Model == "" {
		r.Accelerator.Model = upstream.Scalar(spec["custom_gpu_type"])
	}
	if r.Accelerator.Count > 0 || r.Accelerator.Model != "" {
		r.Accelerator.Type = "gpu"
	}
	return r
}

// quantity reads a number that makes sense as an amount, else zero.
func quantity(raw json.RawMessage) float64 {
	v, err := strconv.ParseFloat(strings.TrimSpace(upstream.Scalar(raw)), 64)
	if err != nil || !(v > 0 && v < 1e6) {
		return 0
	}
	return v
}

// envNames returns the names of environment variables, sorted, each once. No
// value leaves this function: where it is not certain what is a name, the
// variable is left out. In text that is no JSON only the part before the first
// '=' is certain, as nobody says how further variables would be set apart.
func envNames(raw json.RawMessage) []string {
	if raw = unwrap(raw); len(raw) <= len(`""`) {
		return nil
	}
	var names []string
	add := func(s string) {
		if s = strings.TrimSpace(s); envName.MatchString(s) {
			names = append(names, s)
		}
	}
	assignment := func(s string) {
		if name, _, ok := strings.Cut(s, "="); ok {
			add(name)
		}
	}
	var list []json.RawMessage
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) == nil && object["value"] != nil {
		raw = slices.Concat([]byte("["), raw, []byte("]")) // one variable, not a map of them
	}
	switch {
	case json.Unmarshal(raw, &list) == nil:
		for _, element := range list {
			var variable struct {
				Name upstream.Text `json:"name"`
				Key  upstream.Text `json:"key"`
			}
			switch {
			case json.Unmarshal(element, &variable) != nil:
				assignment(upstream.Scalar(element))
			case variable.Name != "":
				add(string(variable.Name))
			default:
				add(string(variable.Key))
			}
		}
	case object != nil:
		for name := range object {
			add(name)
		}
	default:
		assignment(upstream.Scalar(raw))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// envName is the form of a name that no value is likely to have with a '=' or
// anything else of another variable in it.
var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,254}$`)
