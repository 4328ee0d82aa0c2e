package words

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"google.golang.org/protobuf/reflect/protoreflect"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// said returns all texts that the program says through T or a local name of it, by
// where they are. A text that is no constant cannot be translated, and is a failure.
func said(t *testing.T) map[string]token.Position {
	t.Helper()
	texts := map[string]token.Position{}
	files := token.NewFileSet()
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "/words.go") {
			return err
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !says(call.Fun) || len(call.Args) == 0 {
				return true
			}
			text, ok := constant(call.Args[0])
			if !ok {
				t.Errorf("%s: what is said is no constant", files.Position(call.Pos()))
				return true
			}
			texts[text] = files.Position(call.Pos())
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// says reports whether a function is Language.T: l.T, a.l.T, or t, which is what
// the program calls it where it is said often.
func says(f ast.Expr) bool {
	switch f := f.(type) {
	case *ast.SelectorExpr:
		return f.Sel.Name == "T"
	case *ast.Ident:
		return f.Name == "t"
	}
	return false
}

// constant returns the value of a text, or of several that are joined.
func constant(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		x, okX := constant(e.X)
		y, okY := constant(e.Y)
		return x + y, okX && okY && e.Op == token.ADD
	}
	return "", false
}

var verb = regexp.MustCompile(`%(\[\d+\])?[a-z%]`)

// verbs returns the verbs of a format by the number of their value.
func verbs(format string) []string {
	var out []string
	for i, v := range verb.FindAllString(format, -1) {
		if number, rest, ok := strings.Cut(strings.TrimPrefix(v, "%["), "]"); ok {
			v = number + "%" + rest
		} else {
			v = strconv.Itoa(i+1) + v
		}
		out = append(out, v)
	}
	slices.Sort(out)
	return out
}

func han(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return unicode.Is(unicode.Han, r) })
}

// TestEverythingIsTranslated: there is a translation of all that is said, and none
// of what is not.
func TestEverythingIsTranslated(t *testing.T) {
	texts := said(t)
	if len(texts) < 200 {
		t.Fatalf("only %d texts were found: what finds them is wrong", len(texts))
	}
	for text, at := range texts {
		zh, ok := chinese[text]
		switch {
		case !ok:
			t.Errorf("%s: no translation of %q", at, text)
		case !han(zh):
			t.Errorf("%s: %q is no translation of %q", at, zh, text)
		case !slices.Equal(verbs(text), verbs(zh)):
			t.Errorf("%s: %q has other verbs than %q", at, zh, text)
		case strings.Count(text, "`") > 0 && strings.Count(text, "`") != strings.Count(zh, "`"):
			t.Errorf("%s: %q has other backquotes than %q", at, zh, text)
		}
	}
	for text := range chinese {
		if _, ok := texts[text]; !ok {
			t.Errorf("%q is translated and never said", text)
		}
	}
}

// TestContractIsTranslated: there are words in both languages for every value of
// every enum of the contract that people are shown.
func TestContractIsTranslated(t *testing.T) {
	for _, tt := range []struct {
		enum protoreflect.EnumDescriptor
		say  func(Language, protoreflect.EnumNumber) string
	}{
		{notebookv1.Notebook_State(0).Descriptor(), func(l Language, n protoreflect.EnumNumber) string { return l.State(notebookv1.Notebook_State(n)) }},
		{notebookv1.Location_State(0).Descriptor(), func(l Language, n protoreflect.EnumNumber) string {
			return l.LocationState(notebookv1.Location_State(n))
		}},
		{notebookv1.ImageChange_Phase(0).Descriptor(), func(l Language, n protoreflect.EnumNumber) string { return l.Phase(notebookv1.ImageChange_Phase(n)) }},
		{notebookv1.Cloud_Capability(0).Descriptor(), func(l Language, n protoreflect.EnumNumber) string {
			return l.Capability(notebookv1.Cloud_Capability(n))
		}},
		{notebookv1.Breaker_State(0).Descriptor(), func(l Language, n protoreflect.EnumNumber) string {
			_, state := l.Breaker(&notebookv1.Breaker{State: notebookv1.Breaker_State(n)})
			return state
		}},
		{notebookv1.Breaker_Operation(0).Descriptor(), func(l Language, n protoreflect.EnumNumber) string {
			operation, _ := l.Breaker(&notebookv1.Breaker{Operation: notebookv1.Breaker_Operation(n)})
			return operation
		}},
		{notebookv1.ErrorReason(0).Descriptor(), func(l Language, n protoreflect.EnumNumber) string {
			means, do := l.Reason(notebookv1.ErrorReason(n))
			if n == 0 {
				means, do = l.Pick("none", "无"), l.Pick("nothing", "无") // is never shown
			}
			if means == "" || do == "" || (l == Chinese) != han(do) {
				return ""
			}
			return means
		}},
	} {
		values := tt.enum.Values()
		for i := range values.Len() {
			v := values.Get(i)
			en, zh := tt.say(English, v.Number()), tt.say(Chinese, v.Number())
			if en == "" || han(en) || en == string(v.Name()) || !han(zh) {
				t.Errorf("%s: %q and %q", v.FullName(), en, zh)
			}
		}
	}
	for _, code := range WarningCodes() {
		en, zh := English.Consequence(code), Chinese.Consequence(code)
		if en == "" || han(en) || !han(zh) {
			t.Errorf("%s: %q and %q", code, en, zh)
		}
		if got := Chinese.Warning(&notebookv1.ImageChange_Warning{Code: code}); got != zh {
			t.Errorf("%s: %q", code, got)
		}
		if got := Chinese.Warning(&notebookv1.ImageChange_Warning{Code: code, Message: "of a newer server"}); got != zh+"（of a newer server）" {
			t.Errorf("%s: %q", code, got)
		}
		// The exact sentence of the server, which has a translation of its own.
		if got := Chinese.Warning(&notebookv1.ImageChange_Warning{Code: code, Message: "release the old one"}); got != "释放旧实例" {
			t.Errorf("%s: %q", code, got)
		}
		if got := English.Warning(&notebookv1.ImageChange_Warning{Code: code, Message: "more exact"}); got != "more exact" {
			t.Errorf("%s: %q", code, got)
		}
	}
	if len(WarningCodes()) != len(warnings) {
		t.Errorf("%d codes, %d texts", len(WarningCodes()), len(warnings))
	}
	if got := Chinese.Warning(&notebookv1.ImageChange_Warning{Code: "NEW_ONE", Message: "of a newer server"}); got != "of a newer server" {
		t.Errorf("an unknown warning is %q", got)
	}
}

// TestWhatTheServerSays: it is told in the language, or as it is, and never instead of
// nothing.
func TestWhatTheServerSays(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{Chinese.Said("release the old one"), "释放旧实例"},
		{English.Said("release the old one"), "release the old one"},
		{Chinese.Said("something new"), "something new"},
		{Chinese.Why("原因", "the cloud cannot be read; the old notebook is gone"), "无法读取云上的数据；旧实例已不存在"},
		{Chinese.Why("原因", "something new"), "原因（something new）"},
		{Chinese.Why("", "something new"), "something new"},
		{Chinese.Why("原因", ""), "原因"},
		{English.Why("reason", "the cloud cannot be read"), "the cloud cannot be read"},
		{English.Why("reason", ""), "reason"},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}

func TestDetect(t *testing.T) {
	for _, tt := range []struct {
		all, messages, lang string
		want                Language
	}{
		{"", "", "", English},
		{"", "", "zh_CN.UTF-8", Chinese},
		{"", "", "zh_TW", Chinese},
		{"", "en_US.UTF-8", "zh_CN.UTF-8", English},
		{"C", "zh_CN", "zh_CN", English},
		{"zh_CN.UTF-8", "en_US", "en_US", Chinese},
	} {
		env := map[string]string{"LC_ALL": tt.all, "LC_MESSAGES": tt.messages, "LANG": tt.lang}
		if got := Detect(func(name string) string { return env[name] }); got != tt.want {
			t.Errorf("%v: %s", env, got)
		}
	}
}

func TestTimes(t *testing.T) {
	for d, want := range map[time.Duration][3]string{
		time.Second:          {"1s", "1 second", "1 秒"},
		119 * time.Second:    {"119s", "119 seconds", "119 秒"},
		2 * time.Minute:      {"2m", "2 minutes", "2 分钟"},
		119 * time.Minute:    {"119m", "119 minutes", "119 分钟"},
		47 * time.Hour:       {"47h", "47 hours", "47 小时"},
		49 * time.Hour:       {"2d", "2 days", "2 天"},
		-3 * time.Second:     {"-3s", "3 seconds", "3 秒"},
		400 * 24 * time.Hour: {"400d", "400 days", "400 天"},
	} {
		if got := [3]string{Age(d), English.Span(d), Chinese.Span(d)}; got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	now := time.Date(2026, 3, 2, 4, 10, 20, 0, time.Local)
	if got, want := Chinese.When(now.Add(time.Hour*3), now), "（3 小时后）"; !strings.HasSuffix(got, want) {
		t.Errorf("%q", got)
	}
	if got, want := English.When(now.Add(-time.Hour*3), now), "2026-03-02 01:10:20"; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "(3 hours ago)") {
		t.Errorf("%q", got)
	}
}
