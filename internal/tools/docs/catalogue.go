package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// catalogue has what a reference says in another language, by what the English one
// says. A text of the source that is changed has no translation any more, and the old
// one is of nothing: whoever changes it is sent to the catalogue, so that no
// translation says what is no longer so.
//
// A nil catalogue is English.
type catalogue struct {
	name    string // of its file
	texts   map[string]string
	used    map[string]bool
	missing []string // in the order of the reference, each once
}

// newCatalogue reads a list of pairs, en and zh.
func newCatalogue(name, file string) (*catalogue, error) {
	var pairs []struct{ EN, ZH string }
	decoder := yaml.NewDecoder(strings.NewReader(file))
	decoder.KnownFields(true)
	if err := decoder.Decode(&pairs); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c := &catalogue{name: name, texts: map[string]string{}, used: map[string]bool{}}
	for _, p := range pairs {
		if p.EN == "" || p.ZH == "" {
			return nil, fmt.Errorf("%s: a pair needs en and zh: %q, %q", name, p.EN, p.ZH)
		}
		if _, twice := c.texts[p.EN]; twice {
			return nil, fmt.Errorf("%s: twice: %q", name, p.EN)
		}
		c.texts[p.EN] = p.ZH
	}
	return c, nil
}

// say is a text in the language of the catalogue.
func (c *catalogue) say(english string) string {
	if c == nil || english == "" {
		return english
	}
	text, ok := c.texts[english]
	if !ok && !c.used[english] {
		c.missing = append(c.missing, english)
	}
	c.used[english] = true
	return text
}

// check returns what is missing, as it is to be added, and what is of nothing.
func (c *catalogue) check() error {
	if c == nil {
		return nil
	}
	var problems []error
	if len(c.missing) > 0 {
		add := make([]map[string]string, len(c.missing))
		for i, english := range c.missing {
			add[i] = map[string]string{"en": english, "zh": ""}
		}
		text, err := yaml.Marshal(add)
		if err != nil {
			return err
		}
		problems = append(problems, fmt.Errorf("%s has no translation of\n%s", c.name, text))
	}
	for english := range c.texts {
		if !c.used[english] {
			problems = append(problems, fmt.Errorf("%s translates what the reference does not say: %q", c.name, english))
		}
	}
	return errors.Join(problems...)
}

// lineComment is a comment after something in a line of YAML.
var lineComment = regexp.MustCompile(`(?m)^([ ]*\S.*?\s# )(.+)$`)

// comments translates the comments of an example.
func (c *catalogue) comments(example string) string {
	return lineComment.ReplaceAllStringFunc(example, func(line string) string {
		parts := lineComment.FindStringSubmatch(line)
		return parts[1] + c.say(parts[2])
	})
}
