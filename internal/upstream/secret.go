package upstream

import (
	"log/slog"
	"net/url"
	"strings"
)

const redacted = "[redacted]"

// Secret is text that must not be shown. Every usual way of printing it
// (fmt, slog, JSON, YAML, text) gives "[redacted]"; Reveal is the one way to
// the text, for the place that puts it on the wire.
type Secret struct{ text string }

// NewSecret returns a Secret that holds text.
func NewSecret(text string) Secret { return Secret{text: text} }

// Reveal returns the text. Its caller may only send it to the cloud or
// compute with it.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether there is no text.
func (s Secret) IsZero() bool { return s.text == "" }

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler, and with it JSON and YAML.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// redact replaces every occurrence of a secret in text that came from
// outside, in the encodings in which a cloud might echo it.
func redact(text string, secrets []Secret) string {
	for _, s := range secrets {
		if s.text == "" {
			continue
		}
		for _, form := range []string{s.text, url.QueryEscape(s.text), url.PathEscape(s.text)} {
			text = strings.ReplaceAll(text, form, redacted)
		}
	}
	return text
}

// CleanURL returns a URL without what may carry a credential: user
// information, query and fragment. Text that is no absolute URL is returned
// with everything from the first '?' or '#' cut off.
func CleanURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" || u.Host == "" {
		if i := strings.IndexAny(raw, "?#"); i >= 0 {
			raw = raw[:i]
		}
		if i := strings.LastIndex(raw, "@"); i >= 0 && strings.Contains(raw[:i], ":") {
			raw = raw[i+1:]
		}
		return raw
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	return u.String()
}
