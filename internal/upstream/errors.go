package upstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Kind is what a failed call means for the caller and for the breaker.
type Kind int

// The kinds. Only Unavailable, Timeout, Fault and BadResponse count against a
// breaker: the others are answers of a cloud that works, or were never sent.
const (
	// KindBadResponse: the answer is none that the cloud documents, or could
	// not be read: HTML, cut JSON, an unexpected status, too large. It is the
	// zero Kind because whatever is unknown is treated like it.
	KindBadResponse Kind = iota
	// KindUnavailable: no connection, a broken one, or a gateway's 5xx.
	KindUnavailable
	// KindTimeout: the cloud did not answer within our time for one call.
	KindTimeout
	// KindFault: the cloud answered that it failed itself.
	KindFault
	// KindThrottled: the cloud says that it is called too often.
	KindThrottled
	// KindDenied: the cloud refuses our credentials.
	KindDenied
	// KindNotFound: there is no such notebook.
	KindNotFound
	// KindImageNotFound: there is no such image.
	KindImageNotFound
	// KindInvalid: the cloud calls the arguments invalid.
	KindInvalid
	// KindConflict: the notebook or the account is not in a state that allows it.
	KindConflict
	// KindRejected: refused with a code that nobody documents.
	KindRejected
	// KindUnsupported: the cloud has no such operation.
	KindUnsupported
	// KindDisabled: the account cannot use the location. Err says why, in our
	// words, for callers.
	KindDisabled
	// KindCircuitOpen: the breaker is open; nothing was sent.
	KindCircuitOpen
	// KindBudget: our own call budget is spent; nothing was sent.
	KindBudget
)

var kindNames = map[Kind]string{
	KindBadResponse: "bad_response", KindUnavailable: "unavailable", KindTimeout: "timeout", KindFault: "fault",
	KindThrottled: "throttled", KindDenied: "denied", KindNotFound: "not_found", KindImageNotFound: "image_not_found",
	KindInvalid: "invalid", KindConflict: "conflict", KindRejected: "rejected", KindUnsupported: "unsupported",
	KindDisabled: "disabled", KindCircuitOpen: "circuit_open", KindBudget: "budget",
}

// String returns the kind as it stands in logs and metric labels.
func (k Kind) String() string { return kindNames[k] }

// MarshalText implements encoding.TextMarshaler: what is stored names kinds, so
// that their numbers may change.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. A word that is none is
// KindBadResponse, as everything unknown is.
func (k *Kind) UnmarshalText(text []byte) error {
	*k = KindBadResponse
	for kind, name := range kindNames {
		if name == string(text) {
			*k = kind
		}
	}
	return nil
}

// TripsBreaker reports whether a failure of this kind counts against a breaker.
func (k Kind) TripsBreaker() bool {
	switch k {
	case KindBadResponse, KindUnavailable, KindTimeout, KindFault:
		return true
	default:
		return false
	}
}

// Error is the only error that a call to a cloud ends with, apart from the
// caller's own context error.
//
// Error() is for the log: it holds the cloud's own text (shortened, without
// control characters and without the secrets of the call). Callers of the
// service are told Kind and Code in our words only.
type Error struct {
	Cloud    string
	Location string // empty for calls that concern the whole account
	Op       string // list, change_image, …
	Kind     Kind
	Code     string // the cloud's own code, or HTTP status; empty when it gave none
	// Message is the cloud's own text, for the log only.
	Message string
	// RequestID is the cloud's id of the call, if it gave one.
	RequestID string
	// RetryAfter is when to try again; zero when nobody said.
	RetryAfter time.Duration
	// Sent says that bytes may have reached the cloud. When it is false, the
	// cloud was not asked.
	Sent bool
	Err  error
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Cloud)
	if e.Location != "" {
		b.WriteString("/" + e.Location)
	}
	fmt.Fprintf(&b, " %s: %s", e.Op, e.Kind)
	if e.Code != "" {
		fmt.Fprintf(&b, " (code %s)", e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %q", e.Message)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the *Error in err's tree. Errors that are none
// are KindBadResponse, as everything unknown is.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return KindBadResponse
}

// IsContext reports whether err says that the caller's context ended.
func IsContext(err error) bool {
	if _, ok := errors.AsType[*Error](err); ok {
		return false
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// maxMessage bounds the text of a cloud that is kept, in bytes.
const maxMessage = 300

// cleanMessage makes a cloud's text fit for a log line.
func cleanMessage(text string, secrets []Secret) string {
	text = redact(text, secrets)
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxMessage {
		cut := maxMessage
		for cut > 0 && text[cut]&0xC0 == 0x80 { // not inside a rune
			cut--
		}
		text = text[:cut] + "…"
	}
	return strings.TrimSpace(text)
}
