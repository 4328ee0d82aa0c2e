// Package sentences has what a server says in words of its own, in 简体中文: the steps of
// a plan, why a change failed, what is wrong with a filter, or with a configuration. Where
// a code says the same, such as a reason, programs have their own words for the code. The
// web console reads the same table of answers. What is in no table is shown in English.
package sentences

import (
	"cmp"
	_ "embed" // for the table
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Each table has the Chinese of sentences. A `{name}` in a sentence stands for what is
// different each time, and stands in the translation for the same:
//
//   - `{n}` is a whole number;
//   - `{field}` and `{word}` have no white space, and `{quoted}` is in double quotes;
//   - `{sentence}` is a sentence of the table itself;
//   - anything else is any text, translated if it is a sentence of the table.
var (
	// answers are what callers are told.
	//
	//go:embed chinese.json
	answers []byte
	// starting is what who starts a server is told: what is wrong with its
	// configuration, and why it does not serve.
	//
	//go:embed starting.json
	starting []byte
)

// template is a sentence with something in it that is different each time.
type template struct {
	form    *regexp.Regexp
	english string
	fixed   int // bytes of it that are always the same
	names   []string
	chinese string
}

// table is what a file has. It is immutable.
type table struct {
	whole     map[string]string
	templates []template
}

const oneWord = `([^\s"]\S*)`

var (
	placeholder = regexp.MustCompile(`\{[a-z]+\}`)
	// patterns are what placeholders stand for, where that is not any text.
	patterns = map[string]string{"{n}": `([0-9]+)`, "{field}": oneWord, "{word}": oneWord, "{quoted}": `("(?:[^"\\]|\\.)*")`}
)

var (
	ofAnswers  = sync.OnceValue(func() *table { return parse(answers) })
	ofStarting = sync.OnceValue(func() *table { return parse(starting) })
)

func parse(data []byte) *table {
	t := &table{whole: map[string]string{}}
	if err := json.Unmarshal(data, &t.whole); err != nil {
		panic("sentences: " + err.Error()) // built in, and tested
	}
	for english, zh := range t.whole {
		names := placeholder.FindAllString(english, -1)
		if names == nil {
			continue
		}
		fixed := placeholder.Split(english, -1)
		form := "^" + regexp.QuoteMeta(fixed[0])
		for i, name := range names {
			form += cmp.Or(patterns[name], `(.+)`) + regexp.QuoteMeta(fixed[i+1])
		}
		t.templates = append(t.templates, template{regexp.MustCompile("(?s)" + form + "$"), english, len(strings.Join(fixed, "")), names, zh})
		delete(t.whole, english)
	}
	// The one that says the most comes first, and {sentence} before a {text} of any kind.
	slices.SortFunc(t.templates, func(a, b template) int {
		return cmp.Or(cmp.Compare(b.fixed, a.fixed), strings.Compare(a.english, b.english))
	})
	return t
}

// Bounds of what is looked at, since a caller's own text may be in a sentence.
const (
	maxDepth = 4 // sentences within sentences
	maxParts = 5 // sentences that are joined
)

// Chinese returns what a server says in Chinese, and whether that is known. Several
// sentences may be joined by semicolons.
func Chinese(english string) (string, bool) { return ofAnswers().chinese(english, maxDepth) }

// Starting returns in Chinese what who starts a server is told, or as it is.
func Starting(english string) string {
	if zh, ok := ofStarting().chinese(english, maxDepth); ok {
		return zh
	}
	return english
}

func (t *table) chinese(english string, depth int) (string, bool) {
	if zh, ok := t.one(english, depth); ok {
		return zh, true
	}
	// A sentence may have semicolons of its own, so the longest parts come first.
	parts := strings.Split(english, "; ")
	if len(parts) < 2 || len(parts) > maxParts {
		return "", false
	}
	for n := len(parts) - 1; n > 0; n-- {
		first, ok := t.one(strings.Join(parts[:n], "; "), depth)
		if !ok {
			continue
		}
		if rest, ok := t.chinese(strings.Join(parts[n:], "; "), depth); ok {
			return first + "；" + rest, true
		}
	}
	return "", false
}

// one translates one sentence.
func (t *table) one(english string, depth int) (string, bool) {
	if zh, ok := t.whole[english]; ok {
		return zh, true
	}
	for i := range t.templates {
		if zh, ok := t.fill(&t.templates[i], english, depth); ok {
			return zh, true
		}
	}
	return "", false
}

// Wanted reports whether the locale is a Chinese one, as the variables of POSIX have it:
// the first that is set decides.
func Wanted(env func(string) string) bool {
	value := cmp.Or(env("LC_ALL"), env("LC_MESSAGES"), env("LANG"))
	return strings.HasPrefix(strings.ToLower(value), "zh")
}

// Of returns what a server says in Chinese, or as it is.
func Of(english string) string {
	if chinese, ok := Chinese(english); ok {
		return chinese
	}
	return english
}

func (t *table) fill(with *template, english string, depth int) (string, bool) {
	found := with.form.FindStringSubmatch(english)
	if found == nil {
		return "", false
	}
	values := map[string]string{}
	for i, name := range with.names {
		value := found[i+1]
		switch {
		case name != "{sentence}":
			value = cmp.Or(t.whole[value], value)
		case depth == 0:
			return "", false
		default:
			zh, ok := t.chinese(value, depth-1)
			if !ok {
				return "", false
			}
			value = zh
		}
		values[name] = value
	}
	return placeholder.ReplaceAllStringFunc(with.chinese, func(name string) string { return values[name] }), true
}
