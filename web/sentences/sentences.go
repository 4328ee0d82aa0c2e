// Package sentences has what a server says in words of its own, in 简体中文: the steps of
// a plan, why a change failed, what is wrong with a filter. Where a code says the same,
// such as a reason, programs have their own words for the code. The web console reads the
// same table. What it has not is shown in English.
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

// table is the Chinese of each sentence. A `{name}` in a sentence stands for what is
// different each time, and stands in the translation for the same:
//
//   - `{n}` is a whole number;
//   - `{field}` has no white space, and `{quoted}` is in double quotes;
//   - `{sentence}` is a sentence of the table itself;
//   - anything else is any text, translated if it is a sentence of the table.
//
//go:embed chinese.json
var table []byte

// template is a sentence with something in it that is different each time.
type template struct {
	form    *regexp.Regexp
	english string
	fixed   int // bytes of it that are always the same
	names   []string
	chinese string
}

var (
	placeholder = regexp.MustCompile(`\{[a-z]+\}`)
	// patterns are what placeholders stand for, where that is not any text.
	patterns = map[string]string{"{n}": `([0-9]+)`, "{field}": `([^\s"]\S*)`, "{quoted}": `("(?:[^"\\]|\\.)*")`}
)

var parsed = sync.OnceValues(func() (map[string]string, []template) {
	all := map[string]string{}
	if err := json.Unmarshal(table, &all); err != nil {
		panic("sentences: " + err.Error()) // built in, and tested
	}
	var templates []template
	for english, zh := range all {
		names := placeholder.FindAllString(english, -1)
		if names == nil {
			continue
		}
		fixed := placeholder.Split(english, -1)
		form := "^" + regexp.QuoteMeta(fixed[0])
		for i, name := range names {
			form += cmp.Or(patterns[name], `(.+)`) + regexp.QuoteMeta(fixed[i+1])
		}
		templates = append(templates, template{regexp.MustCompile("(?s)" + form + "$"), english, len(strings.Join(fixed, "")), names, zh})
		delete(all, english)
	}
	// The one that says the most comes first.
	slices.SortFunc(templates, func(a, b template) int {
		return cmp.Or(cmp.Compare(b.fixed, a.fixed), strings.Compare(a.english, b.english))
	})
	return all, templates
})

// Bounds of what is looked at, since a caller's own text may be in a sentence.
const (
	maxDepth = 4 // sentences within sentences
	maxParts = 5 // sentences that are joined
)

// Chinese returns what a server says in Chinese, and whether that is known. Several
// sentences may be joined by semicolons.
func Chinese(english string) (string, bool) { return chinese(english, maxDepth) }

func chinese(english string, depth int) (string, bool) {
	if zh, ok := one(english, depth); ok {
		return zh, true
	}
	// A sentence may have semicolons of its own, so the longest parts come first.
	parts := strings.Split(english, "; ")
	if len(parts) < 2 || len(parts) > maxParts {
		return "", false
	}
	for n := len(parts) - 1; n > 0; n-- {
		first, ok := one(strings.Join(parts[:n], "; "), depth)
		if !ok {
			continue
		}
		if rest, ok := chinese(strings.Join(parts[n:], "; "), depth); ok {
			return first + "；" + rest, true
		}
	}
	return "", false
}

// one translates one sentence.
func one(english string, depth int) (string, bool) {
	all, templates := parsed()
	if zh, ok := all[english]; ok {
		return zh, true
	}
	for _, t := range templates {
		if zh, ok := t.fill(english, depth); ok {
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

func (t *template) fill(english string, depth int) (string, bool) {
	found := t.form.FindStringSubmatch(english)
	if found == nil {
		return "", false
	}
	all, _ := parsed()
	values := map[string]string{}
	for i, name := range t.names {
		value := found[i+1]
		switch {
		case name != "{sentence}":
			value = cmp.Or(all[value], value)
		case depth == 0:
			return "", false
		default:
			zh, ok := chinese(value, depth-1)
			if !ok {
				return "", false
			}
			value = zh
		}
		values[name] = value
	}
	return placeholder.ReplaceAllStringFunc(t.chinese, func(name string) string { return values[name] }), true
}
