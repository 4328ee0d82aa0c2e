package inventory

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// Tokens seals and opens page tokens and resume tokens: opaque to callers,
// authenticated and encrypted (AES-256-GCM), and bound to what they were made
// for. Its key is in the log, so every replica and every restart accepts them.
// It is safe for concurrent use.
type Tokens struct {
	page, resume cipher.AEAD
	epoch        atomic.Pointer[hashedEpoch] // the last one
}

type hashedEpoch struct {
	epoch string
	hash  []byte
}

// NewTokens returns the Tokens of a key.
func NewTokens(key []byte) (*Tokens, error) {
	page, err := newAEAD(key, "page token")
	if err != nil {
		return nil, err
	}
	resume, err := newAEAD(key, "resume token")
	if err != nil {
		return nil, err
	}
	return &Tokens{page: page, resume: resume}, nil
}

func newAEAD(key []byte, purpose string) (cipher.AEAD, error) {
	derived, err := hkdf.Expand(sha256.New, key, "notebookd "+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// ErrToken says that a token was not made by this service, or for another use.
var ErrToken = errors.New("token not valid here")

var tokenText = base64.RawURLEncoding.Strict()

// open decodes and opens a token, which has exactly one form: the decoder's
// leniency about line feeds is taken away.
func open(aead cipher.AEAD, scope, token string) ([]byte, error) {
	raw, err := tokenText.DecodeString(token)
	if err != nil || strings.ContainsAny(token, "\r\n") {
		return nil, ErrToken
	}
	plain, err := aead.Open(nil, nil, raw, []byte(scope))
	if err != nil {
		return nil, ErrToken
	}
	return plain, nil
}

// Page seals the name after which the next page begins. scope stands for all
// that must stay the same from page to page.
func (t *Tokens) Page(scope, after string) string {
	return tokenText.EncodeToString(t.page.Seal(nil, nil, []byte(after), []byte(scope))) //nolint:gosec // this AEAD makes its own nonce
}

// OpenPage is the inverse of Page.
func (t *Tokens) OpenPage(scope, token string) (after string, err error) {
	plain, err := open(t.page, scope, token)
	return string(plain), err
}

// Resume is what a resume token holds.
type Resume struct {
	Epoch    string // the log that Revision belongs to
	Revision uint64 // the caller was told every row whose version is not newer
	// Base is the revision that the caller knew everything of when it was told
	// these: of rows with newer versions it may still hold what they were then. It
	// is Revision but in the middle of a walk, and never above it.
	Base uint64
	View uint32    // stands for what the caller could be told of
	Time time.Time // when that was so, to the second
}

// Resume seals a point in a watch. scope stands for its parent and filter.
func (t *Tokens) Resume(scope string, r Resume) string {
	plain := binary.AppendUvarint(nil, r.Revision)
	plain = binary.AppendUvarint(plain, r.Revision-min(r.Base, r.Revision))
	plain = binary.AppendUvarint(plain, uint64(max(r.Time.Unix(), 0)))
	plain = binary.BigEndian.AppendUint32(plain, r.View)
	plain = append(plain, t.epochHash(r.Epoch)...)
	return tokenText.EncodeToString(t.resume.Seal(nil, nil, plain, []byte(scope))) //nolint:gosec // this AEAD makes its own nonce
}

// OpenResume is the inverse of Resume. The epoch comes back as epoch when it is
// that one, and as "" when it is another.
func (t *Tokens) OpenResume(scope, token, epoch string) (Resume, error) {
	plain, err := open(t.resume, scope, token)
	if err != nil {
		return Resume{}, err
	}
	revision, n := binary.Uvarint(plain)
	if n <= 0 {
		return Resume{}, ErrToken
	}
	behind, k := binary.Uvarint(plain[n:])
	if k <= 0 || behind > revision {
		return Resume{}, ErrToken
	}
	n += k
	seconds, m := binary.Uvarint(plain[n:])
	if m <= 0 {
		return Resume{}, ErrToken
	}
	r := Resume{Revision: revision, Base: revision - behind, Time: time.Unix(int64(seconds), 0)} //nolint:gosec // sealed by us
	n += m
	if len(plain) < n+4 {
		return Resume{}, ErrToken
	}
	r.View = binary.BigEndian.Uint32(plain[n:])
	if string(plain[n+4:]) == string(t.epochHash(epoch)) {
		r.Epoch = epoch
	}
	return r, nil
}

// epochHash keeps tokens short.
func (t *Tokens) epochHash(epoch string) []byte {
	if last := t.epoch.Load(); last != nil && last.epoch == epoch {
		return last.hash
	}
	sum := sha256.Sum256([]byte(epoch))
	t.epoch.Store(&hashedEpoch{epoch, sum[:8]})
	return sum[:8]
}
