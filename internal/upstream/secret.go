package upstream

import (
	"errors"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"strings"
)

const redacted = "[redacted]"

// Secret is text that must not be shown. Every usual way of printing it
// (fmt, slog, JSON, YAML, text) gives "[redacted]"; Reveal is the one way to
// the text, for the place that puts it on the wire.
//
// In a configuration file it is {env: NAME}, {file: PATH} or {value: TEXT}.
type Secret struct {
	text    string
	file    string // that the text was read from
	problem string // why the configuration gave no text
}

// NewSecret returns a Secret that holds text.
func NewSecret(text string) Secret { return Secret{text: text} }

// UnmarshalYAML takes a secret from where the configuration says it is. It does
// not fail, so that all problems of a file can be told together: see Problem.
func (s *Secret) UnmarshalYAML(unmarshal func(any) error) error {
	var source struct{ Env, File, Value *string }
	if err := unmarshal(&source); err != nil {
		s.problem = "must be {env: NAME}, {file: PATH} or {value: TEXT}"
		return nil //nolint:nilerr // err holds the text that stands where a source should
	}
	if source.File != nil {
		s.file = *source.File
	}
	var err error
	if s.text, err = resolve(source.Env, source.File, source.Value); err != nil {
		s.problem = err.Error()
	}
	return nil
}

// envName is the form of names that are worth telling.
var envName = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

func resolve(env, file, value *string) (string, error) {
	given := 0
	for _, p := range []*string{env, file, value} {
		if p != nil {
			given++
		}
	}
	if given != 1 {
		return "", errors.New("must be one of {env: NAME}, {file: PATH} and {value: TEXT}")
	}
	var text, where string
	switch {
	case env != nil:
		text, where = os.Getenv(*env), "environment variable"
		if envName.MatchString(*env) { // otherwise it may be the secret itself
			where += " " + *env
		}
	case file != nil:
		data, err := os.ReadFile(*file)
		if err != nil {
			return "", err
		}
		text, where = strings.TrimSpace(string(data)), "file "+*file
	default:
		text, where = *value, "value"
	}
	if text == "" {
		return "", errors.New(where + " is empty or not set")
	}
	return text, nil
}

// Problem says why a configuration gave no text; it is empty when it did.
func (s Secret) Problem() string { return s.problem }

// File is the file that a configuration names for the text, or empty.
func (s Secret) File() string { return s.file }

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
