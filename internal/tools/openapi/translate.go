package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// translation is what one description is in the other language.
type translation struct {
	En yaml.Node `yaml:"en"`
	Zh yaml.Node `yaml:"zh"`
}

// code finds what stays as it is in every language: words in backquotes, and the
// names of errors, states and operators.
var code = regexp.MustCompile("`[^`]+`|\\b[A-Z][A-Z_]+[A-Z]\\b")

// wrapped finds a line that goes on in the next. Between Chinese characters a page
// would show a space there.
var wrapped = regexp.MustCompile(`[^\n]\n[^\n\s-]`)

// translate returns a document with every description translated. Nothing may be left
// over on either side, so that whoever changes a description translates it too. What is
// wrong is told all at once, with what has to be filled in.
func translate(document, translations []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(document, &doc); err != nil {
		return nil, err
	}
	var list []translation
	decoder := yaml.NewDecoder(bytes.NewReader(translations))
	decoder.KnownFields(true)
	if err := decoder.Decode(&list); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var problems []string
	known := map[string]*translation{}
	for i := range list {
		t := &list[i]
		if before := known[t.En.Value]; before != nil {
			problems = append(problems, fmt.Sprintf("line %d: this description is in line %d already\n", t.En.Line, before.En.Line))
			continue
		}
		known[t.En.Value] = t
		if t.Zh.Value == "" {
			continue // which is none
		}
		for _, word := range code.FindAllString(t.En.Value, -1) {
			if !strings.Contains(t.Zh.Value, word) {
				problems = append(problems, fmt.Sprintf("line %d: the translation has no %s\n", t.Zh.Line, word))
			}
		}
		if wrapped.MatchString(t.Zh.Value) {
			problems = append(problems, fmt.Sprintf("line %d: the translation has to be one line for each paragraph\n", t.Zh.Line))
		}
	}

	used := map[string]bool{}
	after := 0 // the line of the translation before
	descriptions(&doc, func(n *yaml.Node) {
		english, first := n.Value, !used[n.Value]
		used[english] = true
		t := known[english]
		switch {
		case t != nil && t.Zh.Value != "":
			n.Value, n.Style, after = t.Zh.Value, 0, t.En.Line
			if strings.Contains(n.Value, "\n") {
				n.Style = yaml.LiteralStyle
			}
		case first:
			problems = append(problems, missing(english, t, after))
		}
	})
	unused := slices.DeleteFunc(list, func(t translation) bool { return used[t.En.Value] })
	slices.SortFunc(unused, func(a, b translation) int { return cmp.Compare(a.En.Line, b.En.Line) })
	for _, t := range unused {
		problems = append(problems, fmt.Sprintf("line %d: there is no such description any more; change it or take it out:\n\n%s", t.En.Line, entry(t.En.Value, t.Zh.Value)))
	}
	if len(problems) > 0 {
		return nil, errors.New(strings.Join(problems, "\n"))
	}
	return encode(&doc)
}

// missing tells of a description without a translation.
func missing(english string, t *translation, after int) string {
	if t != nil {
		return fmt.Sprintf("line %d: the translation is empty\n", t.En.Line)
	}
	return fmt.Sprintf("a description has no translation; fill in zh, below the entry of line %d:\n\n%s", after, entry(english, ""))
}

// entry is a translation as it stands in the file.
func entry(english, chinese string) string {
	pair := &yaml.Node{Kind: yaml.MappingNode}
	for _, text := range []string{"en", english, "zh", chinese} {
		n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
		if strings.Contains(text, "\n") {
			n.Style = yaml.LiteralStyle
		}
		pair.Content = append(pair.Content, n)
	}
	out, err := encode(&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{pair}})
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// descriptions calls f for each description, in their order. Examples may have fields
// of that name, which are none.
func descriptions(n *yaml.Node, f func(*yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		for _, c := range n.Content {
			descriptions(c, f)
		}
		return
	}
	for i := 0; i < len(n.Content); i += 2 {
		switch key, value := n.Content[i].Value, n.Content[i+1]; {
		case key == "description" && value.Kind == yaml.ScalarNode:
			f(value)
		case key != "example":
			descriptions(value, f)
		}
	}
}
