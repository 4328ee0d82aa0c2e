package access

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func hashOf(token string) string {
	hash := sha256.Sum256([]byte(token))
	return hex.EncodeToString(hash[:])
}

func writeFile(tb testing.TB, name, text string) string {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}

func TestStaticTokens(t *testing.T) {
	clock := newClock()
	file := writeFile(t, "tokens.yaml", `
- subject: ci
  groups: [robots, builders]
  sha256: `+hashOf("first")+`
- {subject: old, sha256: `+strings.ToUpper(hashOf("second"))+`, expires: `+clock.now().Add(time.Minute).UTC().Format(time.RFC3339Nano)+`}
`)
	g := newGate(t, Config{TokensFile: file}, Options{Now: clock.now})
	id, err := g.Authenticate(t.Context(), Credentials{Bearer: "first"})
	if err != nil || id.Subject != "ci" || !slices.Equal(id.Groups, []string{"robots", "builders"}) || id.Method != MethodToken || !id.Expires.IsZero() {
		t.Errorf("%+v, %v", id, err)
	}
	if id, err = g.Authenticate(t.Context(), Credentials{Bearer: "second"}); err != nil || id.Subject != "old" || !id.Expires.Equal(clock.now().Add(time.Minute)) {
		t.Errorf("%+v, %v", id, err)
	}
	clock.advance(time.Minute)
	_, err = g.Authenticate(t.Context(), Credentials{Bearer: "second"})
	wantRejected(t, err, "expired")
	for _, bearer := range []string{"third", "First", "first ", hashOf("first"), "a.b.c"} {
		_, err = g.Authenticate(t.Context(), Credentials{Bearer: bearer})
		wantRejected(t, err, "unknown")
	}
	if !slices.Equal(g.Files(), []string{file}) {
		t.Errorf("files are %v", g.Files())
	}
}

func TestNewToken(t *testing.T) {
	subjects := []string{"ci", "true", "null", "1e3", "-", "a: b # c", `"`, "日本", "*", "~"}
	var entries strings.Builder
	tokens := map[string]string{}
	for _, subject := range subjects {
		token, entry, err := NewToken(subject, []string{"g", "no"})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(token, "nbd_") || len(token) != len("nbd_")+43 {
			t.Errorf("token is %q", token)
		}
		if strings.Contains(entry, token) {
			t.Error("the entry holds the token")
		}
		entries.WriteString(entry)
		tokens[token] = subject
	}
	if len(tokens) != len(subjects) {
		t.Error("the same token twice")
	}
	g := newGate(t, Config{TokensFile: writeFile(t, "tokens.yaml", entries.String())}, Options{})
	for token, subject := range tokens {
		id, err := g.Authenticate(t.Context(), Credentials{Bearer: token})
		if err != nil || id.Subject != subject || !slices.Equal(id.Groups, []string{"g", "no"}) {
			t.Errorf("%q: %+v, %v", subject, id, err)
		}
	}
	for _, bad := range []string{"", "a\nb", strings.Repeat("a", maxName+1), "\xff"} {
		if _, _, err := NewToken(bad, nil); err == nil {
			t.Errorf("subject %q is accepted", bad)
		}
		if _, _, err := NewToken("a", []string{bad}); err == nil {
			t.Errorf("group %q is accepted", bad)
		}
	}
}

func TestProblemsOfTokensFiles(t *testing.T) {
	token, _, err := NewToken("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	h := hashOf("x")
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"empty list", "[]", nil},
		{"empty", "", []string{"the file is empty; a list without tokens is []"}},
		{"only a comment", "# none\n", []string{"the file is empty; a list without tokens is []"}},
		{"map", "tokens: []", []string{"must be a list of tokens"}},
		{"text", token, []string{"must be a list of tokens"}},
		{"no YAML", "- {subject: a\n- }" + token, []string{"line 1: not YAML"}},
		{"two documents", "[]\n---\n- " + token, []string{"more than one document"}},
		{"plain tokens", "- " + token + "\n- subject: a\n  token: " + token, []string{
			"line 1: [0]: must have subject and sha256; plain tokens are not kept here",
			"line 3: [1].token: plain tokens are not kept here; give the sha256 of it",
			"line 2: [1].sha256: is needed",
		}},
		{"plain token as hash", "- {subject: a, sha256: " + token + "}", []string{"line 1: [0].sha256: is a plain token; give the sha256 of it"}},
		{"token as key", "- {subject: a, sha256: " + h + ", " + token + ": x}", []string{"line 1: [0]: unknown key; known are subject, groups, sha256 and expires"}},
		{"token as anchor", "- &" + token + " {subject: a, sha256: " + h + "}\n- *" + token, []string{"line 2: [1]: must have subject and sha256; plain tokens are not kept here"}},
		{"unknown anchor", "- *" + token, []string{"not YAML"}},
		{"bad hex", "- {subject: a, sha256: " + h[1:] + "g}", []string{"line 1: [0].sha256: must be 64 hexadecimal digits"}},
		{"short hex", "- {subject: a, sha256: " + h[2:] + "}", []string{"line 1: [0].sha256: must be 64 hexadecimal digits"}},
		{"hash of nothing", "- {subject: a, sha256: " + hashOf("") + "}", []string{"line 1: [0].sha256: is that of nothing"}},
		{"twice", "- {subject: a, sha256: " + h + "}\n- {subject: b, sha256: " + strings.ToUpper(h) + "}", []string{"line 2: [1].sha256: is that of [0]"}},
		{"key twice", "- {subject: a, subject: b, sha256: " + h + "}", []string{"line 1: [0].subject: is given twice"}},
		{"null subject", "- {subject: ~, sha256: " + h + "}", []string{"line 1: [0].subject: " + badName}},
		{"groups", "- {subject: a, sha256: " + h + ", groups: x}\n- {subject: a, sha256: " + hashOf("y") + ", groups: [a, '', [b]]}", []string{
			"line 1: [0].groups: must be a list", "line 2: [1].groups: " + badName, "line 2: [1].groups: " + badName,
		}},
		{"all together", "- {}\n-\n  sha256: x\n  expires: tomorrow\n", []string{
			"line 1: [0].subject: is needed", "line 1: [0].sha256: is needed",
			"line 3: [1].sha256: must be 64 hexadecimal digits", "line 4: [1].expires: must be a time such as 2027-01-31T12:00:00Z", "line 3: [1].subject: is needed",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := writeFile(t, "tokens.yaml", tt.text)
			err := Config{TokensFile: file, Policy: everyone}.Validate()
			var want []string
			for _, text := range tt.want {
				want = append(want, "tokens_file: "+file+": "+text)
			}
			if got := problems(err); !slices.Equal(got, want) {
				t.Errorf("problems are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if err != nil && strings.Contains(err.Error(), token[len(tokenPrefix):]) {
				t.Error("a problem holds the token")
			}
		})
	}
}

// problems are the texts that Validate joined.
func problems(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}
