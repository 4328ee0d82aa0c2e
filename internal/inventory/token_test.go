package inventory

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func testTokens(tb testing.TB, key byte) *Tokens {
	tb.Helper()
	tokens, err := NewTokens(bytes.Repeat([]byte{key}, 32))
	if err != nil {
		tb.Fatal(err)
	}
	return tokens
}

func TestTokens(t *testing.T) {
	tokens, other := testTokens(t, 1), testTokens(t, 2)
	at := time.Unix(1_790_000_000, 0)
	resume := tokens.Resume("core/xb3", Resume{Epoch: "e1", View: 1 << 31, Revision: 1 << 60, Base: 1<<60 - 5, Time: at})
	page := tokens.Page("core/", "clouds/core/locations/xb3/notebooks/nb-secretname")

	got, err := tokens.OpenResume("core/xb3", resume, "e1")
	if err != nil || got != (Resume{Epoch: "e1", View: 1 << 31, Revision: 1 << 60, Base: 1<<60 - 5, Time: at}) {
		t.Errorf("resume token gives %+v, %v", got, err)
	}
	if got, err := tokens.OpenResume("core/xb3", resume, "e2"); err != nil || got.Epoch != "" {
		t.Errorf("token of another log gives %+v, %v, want no epoch", got, err)
	}
	if after, err := tokens.OpenPage("core/", page); err != nil || !strings.HasSuffix(after, "nb-secretname") {
		t.Errorf("page token gives %q, %v", after, err)
	}
	if strings.Contains(page, "secretname") || len(resume) > 128 {
		t.Errorf("tokens show names or are long: %s %s", page, resume)
	}

	for name, open := range map[string]func() error{
		"another scope":      func() error { _, err := tokens.OpenResume("core/xb2", resume, "e1"); return err },
		"another key":        func() error { _, err := other.OpenResume("core/xb3", resume, "e1"); return err },
		"a page token":       func() error { _, err := tokens.OpenResume("core/", page, "e1"); return err },
		"a resume token":     func() error { _, err := tokens.OpenPage("core/xb3", resume); return err },
		"cut":                func() error { _, err := tokens.OpenPage("core/", page[:10]); return err },
		"empty":              func() error { _, err := tokens.OpenPage("core/", ""); return err },
		"not base64":         func() error { _, err := tokens.OpenPage("core/", "§§§"); return err },
		"with line feeds":    func() error { _, err := tokens.OpenPage("core/", page[:8]+"\n"+page[8:]); return err },
		"with other padding": func() error { _, err := tokens.OpenPage("core/", page+"="); return err },
	} {
		if err := open(); !errors.Is(err, ErrToken) {
			t.Errorf("%s: error %v, want ErrToken", name, err)
		}
	}
}

// FuzzTokens: no text opens unless we sealed it.
func FuzzTokens(f *testing.F) {
	tokens := testTokens(f, 1)
	f.Add(tokens.Page("s", "x"))
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := testTokens(t, 9).OpenPage("s", text); err == nil {
			t.Errorf("%q opened", text)
		}
		if _, err := testTokens(t, 9).OpenResume("s", text, "e"); err == nil {
			t.Errorf("%q opened", text)
		}
	})
}
