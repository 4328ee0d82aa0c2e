package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// What follows is for the dialects: how to read JSON of clouds that are loose
// with types, and what may become a part of a resource name.

// Text is a JSON string, number or boolean as text. Everything else, null and
// a value of another shape, is no text, and no error: a field that changes its
// shape must not take a listing down.
type Text string

// UnmarshalJSON implements json.Unmarshaler.
func (t *Text) UnmarshalJSON(raw []byte) error {
	*t = Text(Scalar(raw))
	return nil
}

// Scalar reads one JSON value as Text does.
func Scalar(raw []byte) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return ""
	}
	switch raw[0] {
	case '"':
		// Most need no decoder.
		if plain := raw[1:max(len(raw)-1, 1)]; len(raw) > 1 && raw[len(raw)-1] == '"' && plainText(plain) {
			return string(plain)
		}
		if text, err := jsontext.AppendUnquote(nil, raw); err == nil {
			return string(text)
		}
		var s string // it takes text that is not UTF-8
		if json.Unmarshal(raw, &s) != nil {
			return ""
		}
		return s
	case 'n', '{', '[':
		return ""
	default:
		return string(raw)
	}
}

// plainText reports whether the inside of a JSON string stands for itself.
func plainText(inside []byte) bool {
	for _, c := range inside {
		if c < ' ' || c == '"' || c == '\\' {
			return false
		}
	}
	return utf8.Valid(inside)
}

// Members calls visit with every member of a JSON object, in its order, a name that
// comes twice included. Values are parts of raw, not copies. It fails when raw is
// anything but one object, and then what was visited means nothing.
func Members(raw []byte, visit func(name string, value json.RawMessage)) error {
	dec := looseDecoder(raw)
	defer decoders.Put(dec)
	if t, err := dec.ReadToken(); err != nil || t.Kind() != '{' {
		return errNotJSON
	}
	for dec.PeekKind() != '}' {
		token, err := dec.ReadToken()
		if err != nil {
			return errNotJSON
		}
		name := token.String()
		value, err := dec.ReadValue()
		if err != nil {
			return errNotJSON
		}
		end := int(dec.InputOffset())
		visit(name, raw[end-len(value):end:end])
	}
	return closed(dec)
}

// Elements returns the elements of a JSON array: parts of raw, not copies. Null is
// an array that is nil. It fails when raw is anything else.
func Elements(raw []byte) ([]json.RawMessage, error) {
	dec := looseDecoder(raw)
	defer decoders.Put(dec)
	t, err := dec.ReadToken()
	switch {
	case err == nil && t.Kind() == 'n':
		if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
			return nil, errNotJSON
		}
		return nil, nil
	case err != nil || t.Kind() != '[':
		return nil, errNotJSON
	}
	out := []json.RawMessage{}
	for dec.PeekKind() != ']' {
		value, err := dec.ReadValue()
		if err != nil {
			return nil, errNotJSON
		}
		end := int(dec.InputOffset())
		out = append(out, json.RawMessage(raw[end-len(value):end:end]))
	}
	if err := closed(dec); err != nil {
		return nil, err
	}
	return out, nil
}

// errNotJSON does not quote what was read.
var errNotJSON = errors.New("not the JSON that was expected")

// decoders are *jsontext.Decoder to be used again.
var decoders = sync.Pool{New: func() any { return new(jsontext.Decoder) }}

// looseDecoder reads what encoding/json reads. The caller puts it back.
func looseDecoder(raw []byte) *jsontext.Decoder {
	dec := decoders.Get().(*jsontext.Decoder)
	dec.Reset(bytes.NewBuffer(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return dec
}

// closed reads the end of an object or an array, after which nothing may follow.
func closed(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return errNotJSON
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return errNotJSON
	}
	return nil
}

// CompactJSON is v as JSON in one line, without the escapes for HTML. It is for
// values that can be encoded, such as structs of strings, and panics on others.
func CompactJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("upstream: not a value for JSON: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// PlainSegment reports whether s can stand in a URL's path, and in a resource
// name, as it is.
func PlainSegment(s string) bool {
	return strings.Trim(s, ".") != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}) < 0
}

// UsableID reports whether a cloud's id can be the last part of a resource name.
func UsableID(id string) bool {
	return id != "" && strings.IndexFunc(id, func(r rune) bool {
		return r == '/' || r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}) < 0
}

// ParseZone reads a time zone: an offset such as +08:00, or an IANA name. It
// refuses the zone of the machine, which would make the same answer mean
// something else elsewhere.
func ParseZone(name string) (*time.Location, error) {
	if at, err := time.Parse("-07:00", name); err == nil {
		_, seconds := at.Zone()
		return time.FixedZone("", seconds), nil
	}
	if name == "" || name == "Local" {
		return nil, errors.New("no time zone of its own")
	}
	return time.LoadLocation(name)
}

// EndpointProblem says what is wrong with the URL of a cloud's endpoint, or
// nothing. It does not repeat the URL: somebody may have put a password there.
func EndpointProblem(raw string) string {
	switch u, err := url.Parse(raw); {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return "must be an http or https URL"
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "must have neither user information nor query nor fragment"
	}
	return ""
}

// timeLayouts are the forms of times with and without a zone. Go reads a
// fraction of a second after any of them.
var timeLayouts = []string{"2006-01-02T15:04:05", "2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05Z07"}

// ParseTime reads a time of a cloud, in UTC. A time that names no zone is in
// zone. Numbers are seconds or milliseconds since 1970. The result is zero for
// a text that is no time, and for times before 1970 or after 9999, which stand
// for none and which the contract cannot hold.
func ParseTime(s string, zone *time.Location) time.Time {
	s = strings.TrimSpace(s)
	var at time.Time
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		switch len(s) {
		case 10:
			at = time.Unix(n, 0)
		case 13:
			at = time.UnixMilli(n)
		}
	} else if len(s) > 11 {
		if s[10] == ' ' || s[10] == 't' {
			s = s[:10] + "T" + s[11:]
		}
		s = s[:11] + strings.ReplaceAll(s[11:], " ", "")
		for _, layout := range timeLayouts {
			if t, err := time.ParseInLocation(layout, s, zone); err == nil {
				at = t
				break
			}
		}
	}
	at = at.UTC()
	if at.Unix() <= 0 || at.Year() > 9999 {
		return time.Time{}
	}
	return at
}
