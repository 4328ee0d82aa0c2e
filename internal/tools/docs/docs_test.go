package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestReferencesAreUpToDate(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	for name, made := range references {
		want, err := made(os.DirFS(root))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("docs/%s is stale: run `make docs` (-made +committed):\n%s", name, diff)
		}
	}
}

// A small module, whose parts the tests below replace.
const (
	goMod = "module example.com/m\n\ngo 1.26\n"
	types = `package main

import (
	"time"

	"example.com/m/internal/auth"
	"example.com/m/internal/upstream"
)

type config struct {
	// Door is a door.
	Door doorConfig ` + "`yaml:\"door\"`" + `
	Auth *auth.Config ` + "`yaml:\"auth\"`" + ` // who may call; default: none
	// Clouds are accounts; see door.max_time. Needed, at least one.
	Clouds []cloudConfig ` + "`yaml:\"clouds\"`" + `

	path string
}

type doorConfig struct {
	MaxTime time.Duration ` + "`yaml:\"max_time\"`" + ` // for one call; default 1m0.5s
	// Words is what a|b means. Default: {}. More of it.
	//
	// Not for the reference.
	Words map[string]upstream.Secret ` + "`yaml:\"words\"`" + `
}

type cloudConfig struct {
	// Name of it. Needed.
	Name string ` + "`yaml:\"name\"`" + `
	// Rest is of the kind. Needed.
	Rest map[string]any ` + "`yaml:\",inline\"`" + `
}
`
	kindsFile = `package main

import "example.com/m/internal/toy"

var kinds = map[string]kind{
	"toy": kindOf(toy.New, upstream.BudgetConfig{CallsPerHour: 10}),
}

func fixedKeys(a, b *config) []string {
	for _, part := range []struct{ key string; before, after any }{
		{"door", a.Door, b.Door},
		{"auth", a.Auth == nil, b.Auth == nil},
	} {
		_ = part
	}
	return nil
}
`
	authFile = "package auth\n\n// Config is a Config.\ntype Config struct {\n\t// Roles are words. Default: x,y.\n\tRoles []Role `yaml:\"roles\"`\n}\n\ntype Role string\n"
	toyFile  = "package toy\n\ntype Config struct {\n\t// Big says so. Default: false.\n\tBig bool `yaml:\"big\"`\n}\n\nfunc New(c Config, x int) error { return nil }\n"
)

func module() fstest.MapFS {
	return fstest.MapFS{
		"go.mod":                   {Data: []byte(goMod)},
		"cmd/server/config.go":     {Data: []byte(types)},
		"cmd/server/kinds.go":      {Data: []byte(kindsFile)},
		"internal/auth/auth.go":    {Data: []byte(authFile)},
		"internal/toy/toy.go":      {Data: []byte(toyFile)},
		"internal/toy/toy_test.go": {Data: []byte("no Go")},
	}
}

func TestConfiguration(t *testing.T) {
	text, err := configuration(module())
	if err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(text, "\n## The file\n")
	want := "\n" + strings.Join([]string{
		"| Key | Type | Default | Restart | |", "|---|---|---|---|---|",
		"| [`door`](#door) | section |  | yes | A door. |",
		"| [`auth`](#auth) | section | none | to add or remove it | Who may call. |",
		"| [`clouds`](#clouds) | list of sections | needed, at least one |  | Accounts; see `door.max_time`. |",
		"", "## door", "", "A door.", "",
		"| Key | Type | Default | Restart | |", "|---|---|---|---|---|",
		"| `door.max_time` | duration | `1m0.5s` | yes | For one call. |",
		"| `door.words` | map of secrets by name | `{}` | yes | What a\\|b means. More of it. |",
		"", "## auth", "", "Who may call.", "",
		"| Key | Type | Default | Restart | |", "|---|---|---|---|---|",
		"| `auth.roles` | list of texts | `x,y` |  | Words. |",
		"", "## clouds", "", "Accounts; see `door.max_time`.", "",
		"| Key | Type | Default | Restart | |", "|---|---|---|---|---|",
		"| `clouds[].name` | text | needed |  | `name` of it. |",
		"| [`clouds[].toy`](#cloudstoy) | section | needed |  | Of the kind. |",
		"", "### clouds[].toy", "", "The quota that the cloud documents: `budget: {calls_per_hour: 10}`.", "",
		"| Key | Type | Default | Restart | |", "|---|---|---|---|---|",
		"| `clouds[].toy.big` | yes or no | `false` |  | `big` says so. |", "",
	}, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reference (-want +got):\n%s", diff)
	}
}

func TestConfigurationNeedsText(t *testing.T) {
	for _, tt := range []struct{ name, file, old, new, want string }{
		{"no comment", "cmd/server/config.go", "	// Name of it. Needed.\n", "", "Name has no comment"},
		{"no tag", "cmd/server/config.go", "`yaml:\"name\"`", "", "Name: has no key"},
		{"no default", "cmd/server/config.go", "of it. Needed.", "of it.", "the comment of Name tells no default"},
		{"no default of a section that may lack", "cmd/server/config.go", "; default: none", "", "the comment of Auth tells no default"},
		{"only a default", "cmd/server/config.go", "Name of it. Needed.", "Needed.", "tells a default and nothing else"},
		{"no comment in another package", "internal/auth/auth.go", "	// Roles are words. Default: x,y.\n", "", "internal/auth/auth.go:5: Roles has no comment"},
		{"no comment in a kind", "internal/toy/toy.go", "	// Big says so. Default: false.\n", "", "Big has no comment"},
		{"a type without words", "cmd/server/config.go", "Name string", "Name chan int", "no words for this type"},
		{"a type of elsewhere", "cmd/server/config.go", "Name string", "Name time.Month", `package "time" is not of this module`},
		{"an embedded field", "internal/toy/toy.go", "	Big bool", "	Other\n	Big bool", "an embedded field"},
		{"a fixed key that is none", "cmd/server/kinds.go", `{"door",`, `{"dor",`, "fixedKeys names dor, which is no key"},
		{"no fixed keys", "cmd/server/kinds.go", "func fixedKeys", "func otherKeys", "no function fixedKeys"},
		{"no kinds", "cmd/server/kinds.go", "var kinds", "var others", "no list kinds"},
		{"a kind without a constructor", "cmd/server/kinds.go", "toy.New", "toy.Old", "has no Old with settings"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := module()
			text := string(files[tt.file].Data)
			if !strings.Contains(text, tt.old) {
				t.Fatalf("%s does not hold %q", tt.file, tt.old)
			}
			files[tt.file] = &fstest.MapFile{Data: []byte(strings.Replace(text, tt.old, tt.new, 1))}
			if _, err := configuration(files); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestCatalogue(t *testing.T) {
	to, err := newCatalogue("x.yaml", "- {en: A door., zh: 一扇门。}\n- {en: of it, zh: 它的}\n- {en: old, zh: 旧}\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := to.say("A door.") + to.say(""); got != "一扇门。" {
		t.Errorf("got %q", got)
	}
	got := to.comments("a: 1   # of it\nb: \"#1\"\n  # c: 2\n  # d: 3  # of it\n")
	if want := "a: 1   # 它的\nb: \"#1\"\n  # c: 2\n  # d: 3  # 它的\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	to.say("A window.")
	to.say("A window.")
	err = to.check()
	if err == nil || strings.Count(err.Error(), "- en: A window.\n  zh: \"\"\n") != 1 || !strings.Contains(err.Error(), `does not say: "old"`) || strings.Contains(err.Error(), "of it") {
		t.Errorf("check: %v", err)
	}
	for name, file := range map[string]string{
		"twice": "- {en: a, zh: b}\n- {en: a, zh: c}\n", "needs en and zh": "- {en: a}\n", "not found": "- {en: a, zh: b, de: c}\n", "cannot unmarshal": "a: b\n",
	} {
		if _, err := newCatalogue("x.yaml", file); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: got %v, want %q", file, err, name)
		}
	}
	var english *catalogue
	if english.say("A door.") != "A door." || english.check() != nil {
		t.Error("English is translated")
	}
}

// TestTranslationNeedsEachText changes a text of the source: its translation is of
// nothing then, and it has none itself.
func TestTranslationNeedsEachText(t *testing.T) {
	_, err := configurationIn(module(), "", &catalogue{name: "x.yaml", texts: map[string]string{"A gate.": "一扇大门。"}, used: map[string]bool{}})
	if err == nil || !strings.Contains(err.Error(), "- en: A door.\n") || !strings.Contains(err.Error(), `does not say: "A gate."`) {
		t.Errorf("got %v", err)
	}
}

func TestParseReason(t *testing.T) {
	for _, tt := range []struct{ name, comment, want, problem string }{
		{"one code", "NOT_FOUND. No such\nthing. None.\nDo: look\nelsewhere. Or not.\n", "NOT_FOUND|No such thing. None.|Look elsewhere. Or not.", ""},
		{"a list of codes", "ABORTED, INTERNAL or UNKNOWN. It failed.\nDo: wait.\n", "ABORTED INTERNAL UNKNOWN|It failed.|Wait.", ""},
		{"codes in a sentence", "UNAVAILABLE, or INTERNAL when the cloud says HTTP. It failed.\nDo: wait.\n", "UNAVAILABLE INTERNAL|UNAVAILABLE, or INTERNAL when the cloud says HTTP. It failed.|Wait.", ""},
		{"nothing to do", "NOT_FOUND. No such thing.\n", "", "needs one line"},
		{"twice to do", "NOT_FOUND. No such thing.\nDo: a.\nDo: b.\n", "", "needs one line"},
		{"no code", "No such thing.\nDo: look elsewhere.\n", "", "names no code"},
		{"a code that is none", "GONE. No such thing.\nDo: look elsewhere.\n", "", "names no code"},
		{"only a code", "NOT_FOUND.\nDo: look elsewhere.\n", "", "no meaning"},
		{"no comment", "", "", "needs one line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := parseReason("X", tt.comment)
			if tt.problem != "" {
				if err == nil || !strings.Contains(err.Error(), tt.problem) {
					t.Errorf("got %v, want %q", err, tt.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var codes []string
			for _, c := range r.codes {
				codes = append(codes, c.String())
			}
			if got := strings.Join(codes, " ") + "|" + r.meaning + "|" + r.do; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestErrorReasonsNeedsEach(t *testing.T) {
	root := os.DirFS(filepath.Join("..", "..", ".."))
	text, err := fs.ReadFile(root, contract+"/errors.pb.go")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{"go.mod": {Data: []byte(goMod)}, contract + "/errors.pb.go": {Data: []byte(strings.ReplaceAll(string(text), "// Do: ", "// "))}}
	_, err = errorReasons(files)
	if err == nil || strings.Count(err.Error(), "needs one line") != strings.Count(string(text), "// Do: ") {
		t.Errorf("not every reason is missed: %v", err)
	}
}
