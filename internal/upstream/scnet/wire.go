package scnet

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/notebookd/notebookd/internal/upstream"
)

// envelope is around every answer, errors included. Data is decoded only after
// success: with an error it may be of any shape.
type envelope struct {
	code, msg string
	message   string // of the web console's services, when they show through
	data      json.RawMessage
}

func (e *envelope) take(name string, value json.RawMessage) {
	switch name {
	case "code":
		e.code = upstream.Scalar(value)
	case "msg":
		e.msg = upstream.Scalar(value)
	case "message":
		e.message = upstream.Scalar(value)
	case "data":
		e.data = value
	}
}

// answer is an answer, read as far as its envelope.
type answer struct {
	status int // of HTTP
	data   json.RawMessage
	// stale says that the token was refused and that another may not be.
	stale bool
}

// bad is the error for an answer that says success and makes no sense. what is
// our own text: nothing of an answer may be in it.
func bad(what string) *upstream.Error {
	return &upstream.Error{Kind: upstream.KindBadResponse, Code: "HTTP 200", Err: errors.New(what)}
}

// open reads the envelope. Success is HTTP 2xx and code "0"; everything else is
// an *upstream.Error. The envelope is looked for on any HTTP status.
func open(resp upstream.Response) (answer, error) {
	var env envelope
	a := answer{status: resp.Status}
	if err := upstream.Members(resp.Body, env.take); err != nil {
		e := upstream.HTTPError(resp)
		e.Err = errors.New("the answer is no JSON object")
		a.stale = refused(resp.Status)
		return a, e
	}
	e := upstream.HTTPError(resp)
	switch code := env.code; {
	case code == "":
		e.Err = errors.New("the answer has no code")
	case code != "0":
		e.Code, e.Kind = code, kindOf(code, resp.Status)
	case resp.Status >= 200 && resp.Status < 300:
		a.data = env.data
		return a, nil
	}
	a.stale = e.Code == codeToken && e.Kind == upstream.KindDenied || refused(resp.Status)
	e.Message = cmp.Or(env.msg, env.message)
	return a, e
}

// codeToken is "insufficient permission" in the vendor's table; in practice it
// is the answer to a token that has expired.
const codeToken = "10008"

// codeStopped is the answer to stopping what is stopped already.
const codeStopped = "817140"

// kinds is what the known codes mean: those of the vendor's table and those
// that its container, file and console services are known to give.
var kinds = map[string]upstream.Kind{
	"10001":   upstream.KindFault,
	"10003":   upstream.KindInvalid, // parameters missing
	"10004":   upstream.KindInvalid,
	"10007":   upstream.KindDenied, // user frozen
	codeToken: upstream.KindDenied,
	"10009":   upstream.KindDenied,      // no permission; at the login: user or signature not accepted
	"10010":   upstream.KindInvalid,     // file check failed
	"10011":   upstream.KindInvalid,     // file too large
	"10012":   upstream.KindUnavailable, // connection interrupted

	"716020": upstream.KindFault,    // database
	"716864": upstream.KindRejected, // script
	"716865": upstream.KindRejected, // task not created
	"716866": upstream.KindRejected, // task not deleted
	"716870": upstream.KindRejected, // number of instances
	"816304": upstream.KindInvalid,  // card type not in the region
	"816822": upstream.KindNotFound, // no such task

	codeStopped: upstream.KindConflict,
	"818218":    upstream.KindDenied,   // no such user in the region
	"820000":    upstream.KindInvalid,  // parameter name
	"1004":      upstream.KindInvalid,  // parameter empty
	"911020":    upstream.KindNotFound, // no such file
	"911021":    upstream.KindConflict, // file exists
}

func documented(code string) bool {
	_, ok := kinds[code]
	return ok
}

// refused reports whether an HTTP status says that the token was not accepted.
func refused(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// kindOf classifies a code other than 0. A status that speaks of the caller
// stands above any code; another status that is clear by itself has the word
// only where nobody documents the code.
func kindOf(code string, status int) upstream.Kind {
	kind, known := kinds[code]
	switch {
	case status == http.StatusTooManyRequests:
		return upstream.KindThrottled
	case refused(status):
		return upstream.KindDenied
	case known:
		return kind
	case status >= 500:
		return upstream.KindUnavailable
	case status == http.StatusNotFound:
		return upstream.KindNotFound
	default:
		return upstream.KindRejected
	}
}

// empty reports whether an answer has no data, or nothing but nulls.
func (a answer) empty() bool {
	if len(a.data) == 0 || string(a.data) == "null" {
		return true
	}
	var list []json.RawMessage
	if json.Unmarshal(a.data, &list) == nil {
		return len(list) == 0
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(a.data, &object) != nil {
		return string(a.data) == `""`
	}
	for _, value := range object {
		if string(value) != "null" {
			return false
		}
	}
	return true
}

// page is one page of a list of notebooks or images.
type page struct {
	rows  []json.RawMessage
	total int // -1 when the answer has none
}

// page reads data in any of the shapes that the vendor's page and the clients
// know: {total, records}, one record by itself, {total, data}, a bare array,
// null. strict accepts only the first.
func (a answer) page(strict bool) (page, error) {
	p := page{total: -1}
	if len(a.data) == 0 {
		return p, bad("the answer has no data")
	}
	switch a.data[0] {
	case '{':
	case '[':
		var err error
		if p.rows, err = upstream.Elements(a.data); strict || err != nil {
			return p, bad("the data is a bare list")
		}
		return p, nil
	case 'n':
		if strict {
			return p, bad("the data is null")
		}
		return p, nil
	default:
		return p, bad("the data is no object")
	}
	var list, other json.RawMessage
	id := ""
	err := upstream.Members(a.data, func(name string, value json.RawMessage) {
		switch name {
		case "total":
			if n, err := strconv.Atoi(upstream.Scalar(value)); err == nil && n >= 0 {
				p.total = n
			}
		case "records":
			list = value
		case "data":
			other = value
		case "id":
			id = upstream.Scalar(value)
		}
	})
	if err != nil {
		return p, bad("the data cannot be read")
	}
	if list == nil && !strict {
		list = other
	}
	if list == nil && !strict && id != "" {
		p.rows, p.total = []json.RawMessage{a.data}, 1
		return p, nil
	}
	if p.rows, err = upstream.Elements(list); err != nil || p.rows == nil && p.total != 0 {
		return p, bad("the data has no list of notebooks")
	}
	return p, nil
}

// image is the cloud's record of an image, as far as it is needed.
type image struct {
	Path            upstream.Text `json:"path"`
	Version         upstream.Text `json:"version"` // name:tag
	Name            upstream.Text `json:"name"`    // not in the records of model images
	Tag             upstream.Text `json:"tag"`
	ImageSize       upstream.Text `json:"imageSize"` // bytes
	Status          upstream.Text `json:"status"`
	AcceleratorType upstream.Text `json:"acceleratorType"`
}

// nameTag is what create wants as the name of an image.
func (i image) nameTag() string {
	switch {
	case i.Version != "":
		return string(i.Version)
	case i.Name != "" && i.Tag != "":
		return string(i.Name + ":" + i.Tag)
	}
	return string(i.Path[strings.LastIndex(string(i.Path), "/")+1:])
}

// size is in bytes; zero when the record does not say.
func (i image) size() int64 {
	if n := whole(string(i.ImageSize), math.MaxInt64); n > 0 {
		return n
	}
	return memory(string(i.ImageSize)) // the vendor's table has 120GB
}

// notebook is the cloud's record. The README tables where each field goes;
// fields that are not here are ignored.
type notebook struct {
	ID                upstream.Text `json:"id"`
	NotebookName      upstream.Text `json:"notebookName"`
	NotebookStatus    upstream.Text `json:"notebookStatus"`
	ImageName         upstream.Text `json:"imageName"`
	ImagePath         upstream.Text `json:"imagePath"`
	IamgePath         upstream.Text `json:"iamgePath"` // the spelling in the vendor's table
	ImageSize         upstream.Text `json:"imageSize"`
	CPUNumber         upstream.Text `json:"cpuNumber"`
	RAMSize           upstream.Text `json:"ramSize"`
	AcceleratorType   upstream.Text `json:"acceleratorType"`
	AcceleratorNumber upstream.Text `json:"acceleratorNumber"`
	AcceleratorMode   upstream.Text `json:"acceleratorMode"`
	FreeNumber        upstream.Text `json:"freeNumber"`
	MaxNumber         upstream.Text `json:"maxNumber"`
	ResourceGroupID   upstream.Text `json:"resourceGroupId"`
	ResourceGroupCode upstream.Text `json:"resourceGroupCode"`
	CreateTime        upstream.Text `json:"createTime"`
	UpdateTime        upstream.Text `json:"updateTime"`
	ReleaseTime       upstream.Text `json:"releaseTime"`
	Progress          upstream.Text `json:"progress"`
	ServiceIP         upstream.Text `json:"serviceIp"`
	ServiceURL        upstream.Text `json:"serviceUrl"`
	SSHURL            upstream.Text `json:"sshUrl"`
	SSHPassword       upstream.Text `json:"sshPassword"` // read only to be taken out
	CustomizePort     upstream.Text `json:"customizePort"`
	CustomsizePort    upstream.Text `json:"customsizePort"` // the spelling in the vendor's table
	ErrorMessage      upstream.Text `json:"errorMessage"`
	Message           upstream.Text `json:"message"`
	StartType         upstream.Text `json:"startType"`
	MaxTimeout        upstream.Text `json:"maxTimeout"`
	TaskID            upstream.Text `json:"taskId"`
	EnoughResource    upstream.Text `json:"enoughResource"`
	ContainerID       upstream.Text `json:"containerId"`
	ContainerType     upstream.Text `json:"containerType"`
	Node              upstream.Text `json:"node"`
	Command           upstream.Text `json:"command"`
}

// states are the documented status words.
var states = map[upstream.Text]upstream.State{
	"Creating":   upstream.StateCreating,
	"Restarting": upstream.StateStarting,
	"Running":    upstream.StateRunning,
	"Shutting":   upstream.StateStopping,
	"Terminated": upstream.StateStopped,
	"Failed":     upstream.StateFailed,
}

// volatileAttributes change without anything happening to the notebook.
var volatileAttributes = []string{"enoughResource"}

// decodeNotebook reads one record that was received at now. It reports false
// for anything without an id that can stand in a resource name.
func decodeNotebook(raw json.RawMessage, zone *time.Location, now time.Time) (upstream.Notebook, bool) {
	var w notebook
	if json.Unmarshal(raw, &w) != nil || !upstream.UsableID(string(w.ID)) {
		return upstream.Notebook{}, false
	}
	// What people and programs wrote may repeat the ssh password.
	safe := func(text string) string { return without(w.SSHPassword, text) }
	n := upstream.Notebook{
		ID:           string(w.ID),
		DisplayName:  string(w.NotebookName),
		State:        states[w.NotebookStatus],
		CloudState:   string(w.NotebookStatus),
		StateMessage: safe(first(w.ErrorMessage, w.Message)),
		Image: upstream.Image{
			URI:         first(w.ImagePath, w.IamgePath),
			DisplayName: string(w.ImageName),
			SizeBytes:   whole(string(w.ImageSize), math.MaxInt64),
		},
		Resources: upstream.Resources{
			CPUCores:    cores(string(w.CPUNumber)),
			MemoryBytes: memory(string(w.RAMSize)),
			Accelerator: upstream.Accelerator{
				Type:      strings.ToLower(string(w.AcceleratorType)),
				Model:     string(w.AcceleratorMode),
				Count:     int32(whole(string(w.AcceleratorNumber), math.MaxInt32)), //nolint:gosec // bounded
				Available: cards(string(w.FreeNumber)),
				Max:       cards(string(w.MaxNumber)),
			},
		},
		ResourceGroup: upstream.ResourceGroup{ID: string(w.ResourceGroupID), Code: string(w.ResourceGroupCode)},
		CreateTime:    upstream.ParseTime(string(w.CreateTime), zone),
		UpdateTime:    upstream.ParseTime(string(w.UpdateTime), zone),
		Endpoints: upstream.Endpoints{
			ServiceIP:  string(w.ServiceIP),
			ServiceURL: safe(upstream.CleanURL(string(w.ServiceURL))),
			SSHURL:     safe(upstream.CleanURL(string(w.SSHURL))),
			CustomPort: int32(whole(first(w.CustomizePort, w.CustomsizePort), math.MaxUint16)), //nolint:gosec // bounded
		},
	}
	if left, ok := countdown(string(w.ReleaseTime)); ok {
		n.ExpireTime = now.UTC().Truncate(time.Minute).Add(left)
	}
	if f, err := strconv.ParseFloat(strings.TrimSpace(string(w.Progress)), 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
		n.Progress = &f
	}
	keep := func(name string, value upstream.Text) {
		if value == "" {
			return
		}
		if n.Attributes == nil {
			n.Attributes = map[string]string{}
		}
		n.Attributes[name] = string(value)
	}
	if w.ErrorMessage != "" {
		keep("message", upstream.Text(safe(string(w.Message))))
	}
	keep("startType", w.StartType)
	keep("maxTimeout", w.MaxTimeout)
	keep("taskId", w.TaskID)
	keep("enoughResource", w.EnoughResource)
	keep("containerId", w.ContainerID)
	keep("containerType", w.ContainerType)
	keep("node", w.Node)
	keep("command", upstream.Text(safe(string(w.Command))))
	return n, true
}

// shortestPassword is the length in bytes from which on a password is looked
// for in other fields. A shorter one is too likely to be there by chance.
const shortestPassword = 6

// without takes a password out of a text, at worst with the rest of the text.
func without(password upstream.Text, text string) string {
	if len(password) < shortestPassword {
		return text
	}
	text = strings.ReplaceAll(text, string(password), upstream.Secret{}.String())
	if strings.Contains(text, string(password)) {
		return ""
	}
	return text
}

func first(a, b upstream.Text) string {
	if a != "" {
		return string(a)
	}
	return string(b)
}

// whole reads a whole number from 0 to limit, else zero.
func whole(s string, limit int64) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n < 0 || n > limit {
		return 0
	}
	return n
}

// cards reads a number of cards; nil when there is none that makes sense.
func cards(s string) *int32 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 32)
	if err != nil || n < 0 {
		return nil
	}
	v := int32(n)
	return &v
}

var amount = regexp.MustCompile(`^\s*([0-9]+(?:\.[0-9]+)?)\s*(\S*)\s*$`)

// quantity splits a number from the unit behind it.
func quantity(s string) (float64, string, bool) {
	m := amount.FindStringSubmatch(s)
	if m == nil {
		return 0, "", false
	}
	v, err := strconv.ParseFloat(m[1], 64)
	return v, m[2], err == nil
}

// cores reads a number of processor cores such as 24核心, 10核 or 0.5核心.
func cores(s string) float64 {
	v, unit, ok := quantity(s)
	if !ok || v > 1e6 || unit != "" && !strings.HasPrefix(unit, "核") {
		return 0
	}
	return v
}

// memoryUnits are the units of memory, upper case, without the final B. They
// are powers of two: the cloud's machines have 2^30 bytes to the GB.
var memoryUnits = map[string]float64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

// memory reads an amount of memory such as 110GB, in bytes.
func memory(s string) int64 {
	v, unit, ok := quantity(s)
	if !ok {
		return 0
	}
	unit = strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(unit), "B"), "I")
	bytes := v * memoryUnits[unit]
	if bytes >= math.MaxInt64 {
		return 0
	}
	return int64(bytes)
}

var countdownForm = regexp.MustCompile(`^(?:([0-9]+)天)?(?:([0-9]+)(?:小时|时))?(?:([0-9]+)(?:分钟|分))?(?:([0-9]+)秒)?$`)

// maxCountdown bounds what is believed of a countdown: 100 years.
const maxCountdown = 100 * 365 * 24 * time.Hour

// countdown reads the time left until the automatic release, such as
// 28天20小时17分钟. It reports false for any other text.
func countdown(s string) (time.Duration, bool) {
	s = strings.Join(strings.Fields(s), "")
	m := countdownForm.FindStringSubmatch(s)
	if s == "" || m == nil {
		return 0, false
	}
	var left time.Duration
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(m[i+1], 10, 64)
		if err != nil || n > int64(maxCountdown/unit) {
			return 0, false
		}
		left += time.Duration(n) * unit
	}
	return left, left <= maxCountdown
}
