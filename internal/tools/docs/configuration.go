package main

import (
	_ "embed"
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed configuration.md
var configurationHead string

//go:embed configuration.zh-CN.md
var configurationHeadChinese string

//go:embed configuration.zh-CN.yaml
var configurationChinese string

//go:embed example.yaml
var example string

//go:embed replicas.yaml
var replicasExample string

// server is the folder with the types of the file.
const server = "cmd/server"

// configuration is the reference of the configuration file.
func configuration(module fs.FS) (string, error) {
	return configurationIn(module, configurationHead, nil)
}

// configurationInChinese is the same reference in Chinese.
func configurationInChinese(module fs.FS) (string, error) {
	to, err := newCatalogue("configuration.zh-CN.yaml", configurationChinese)
	if err != nil {
		return "", err
	}
	return configurationIn(module, configurationHeadChinese, to)
}

func configurationIn(module fs.FS, head string, to *catalogue) (string, error) {
	src, err := newSource(module)
	if err != nil {
		return "", err
	}
	keys, kinds, err := src.file()
	if err != nil {
		return "", err
	}
	fixed, err := src.fixedKeys()
	if err != nil {
		return "", err
	}
	doc := &document{to: to, fixed: fixed, kinds: kinds, paths: map[string]bool{}}
	doc.learn(keys)
	for path := range fixed {
		if !doc.paths[path] {
			return "", fmt.Errorf("fixedKeys names %s, which is no key", path)
		}
	}
	doc.head(head, keys)
	for _, k := range keys {
		if k.section {
			doc.sectionOf(k)
		}
	}
	return doc.String(), to.check()
}

// file returns the keys of the file.
func (s *source) file() ([]key, []kind, error) {
	p, err := s.pkg(server)
	if err != nil {
		return nil, nil, err
	}
	root, ok := p.types["config"]
	if !ok {
		return nil, nil, errors.New(server + " has no type config")
	}
	sh, err := s.shape(p, root.file, root.what.Type)
	if err != nil {
		return nil, nil, err
	}
	kinds, err := s.kinds(p)
	if err != nil {
		return nil, nil, err
	}
	keys, err := s.keys(sh, "", kinds)
	return keys, kinds, err
}

// kind is a kind of cloud: its settings, and the quota that it documents.
type kind struct {
	name   string
	shape  shape
	budget string // as it would be in the file; empty for none
}

// kinds reads the kinds of clouds, each of which is named with the constructor of its
// package: the first parameter is the settings.
func (s *source) kinds(p *pkg) ([]kind, error) {
	v := p.vars["kinds"]
	list, ok := v.what.(*ast.CompositeLit)
	if !ok {
		return nil, errors.New(server + " has no list kinds")
	}
	var out []kind
	for _, element := range list.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			return nil, fmt.Errorf("%s: not a kind", s.at(element))
		}
		name, err := text(pair.Key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.at(element), err)
		}
		call, ok := pair.Value.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return nil, fmt.Errorf("%s: not a constructor and a budget", s.at(element))
		}
		k := kind{name: name}
		if k.shape, err = s.settings(v.file, call.Args[0]); err != nil {
			return nil, fmt.Errorf("%s: %w", s.at(element), err)
		}
		if k.budget, err = budgetOf(call.Args[1]); err != nil {
			return nil, fmt.Errorf("%s: %w", s.at(element), err)
		}
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b kind) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// settings is the type of a constructor's first parameter.
func (s *source) settings(file *ast.File, constructor ast.Expr) (shape, error) {
	selector, ok := constructor.(*ast.SelectorExpr)
	if !ok {
		return shape{}, errors.New("not the constructor of a package")
	}
	name, ok := selector.X.(*ast.Ident)
	if !ok {
		return shape{}, errors.New("not the constructor of a package")
	}
	p, err := s.own(imported(file, name.Name))
	if err != nil {
		return shape{}, err
	}
	f, ok := p.funcs[selector.Sel.Name]
	if !ok || len(f.what.Type.Params.List) == 0 {
		return shape{}, fmt.Errorf("%s has no %s with settings", p.dir, selector.Sel.Name)
	}
	sh, err := s.shape(p, f.file, f.what.Type.Params.List[0].Type)
	if err == nil && (sh.fields == nil || sh.list) {
		err = errors.New("the settings are no struct")
	}
	return sh, err
}

// budgetKeys are the fields of a budget, as the file calls them.
var budgetKeys = map[string]string{"CallsPerHour": "calls_per_hour", "Burst": "burst", "WriteShare": "write_share"}

func budgetOf(expr ast.Expr) (string, error) {
	list, ok := expr.(*ast.CompositeLit)
	if !ok {
		return "", errors.New("the budget is not written out")
	}
	var parts []string
	for _, element := range list.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			return "", errors.New("the budget has fields without names")
		}
		name, _ := pair.Key.(*ast.Ident)
		value, _ := pair.Value.(*ast.BasicLit)
		if name == nil || value == nil || budgetKeys[name.Name] == "" {
			return "", errors.New("the budget has a field that the file has not, or no plain value")
		}
		parts = append(parts, budgetKeys[name.Name]+": "+value.Value)
	}
	return strings.Join(parts, ", "), nil
}

// fixedKeys reads which keys take effect at a start only, from the function that
// tells of them at a reload. The value says whether it is only whether the key is
// there at all.
func (s *source) fixedKeys() (map[string]bool, error) {
	p, err := s.pkg(server)
	if err != nil {
		return nil, err
	}
	f, ok := p.funcs["fixedKeys"]
	if !ok {
		return nil, errors.New(server + " has no function fixedKeys")
	}
	out := map[string]bool{}
	ast.Inspect(f.what, func(node ast.Node) bool {
		entry, ok := node.(*ast.CompositeLit)
		if !ok || len(entry.Elts) != 3 {
			return true
		}
		path, err := text(entry.Elts[0])
		if err != nil {
			return true
		}
		comparison, ok := entry.Elts[1].(*ast.BinaryExpr)
		out[path] = ok && comparison.Op == token.EQL
		return false
	})
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: fixedKeys has no list of keys", s.at(f.what))
	}
	return out, nil
}

func text(expr ast.Expr) (string, error) {
	literal, ok := expr.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", errors.New("not a plain text")
	}
	return strconv.Unquote(literal.Value)
}

// document is the reference that is being written.
type document struct {
	strings.Builder
	to    *catalogue
	fixed map[string]bool // see fixedKeys
	kinds []kind
	paths map[string]bool // of all keys
}

func (d *document) learn(keys []key) {
	for _, k := range keys {
		d.paths[k.path] = true
		d.learn(k.keys)
	}
}

// head writes what comes before the sections.
func (d *document) head(text string, keys []key) {
	text = strings.NewReplacer("{{example}}\n", d.to.comments(example), "{{replicas}}\n", d.to.comments(replicasExample)).Replace(text)
	d.WriteString("<!-- Made by `make docs` of the source: change that. -->\n" + text)
	d.WriteString("\n## " + d.to.say("The file") + "\n\n")
	d.table()
	for _, k := range keys {
		name := "`" + k.path + "`"
		if k.section {
			name = "[" + name + "](#" + anchor(k) + ")"
		}
		d.row(name, k)
	}
}

// anchor is what a heading of a section is called in links.
func anchor(k key) string { return strings.NewReplacer(".", "", "[", "", "]", "").Replace(k.path) }

// sectionOf writes a section, and those of the kinds of clouds after it.
func (d *document) sectionOf(k key) {
	d.WriteString("\n## " + k.path + "\n\n" + d.to.say(d.marked(k.meaning)) + "\n\n")
	d.table()
	kinds := d.rows(k.keys)
	for _, k := range kinds {
		d.WriteString("\n### " + k.path + "\n\n")
		name := k.path[strings.LastIndex(k.path, ".")+1:]
		at := slices.IndexFunc(d.kinds, func(k kind) bool { return k.name == name })
		if budget := d.kinds[at].budget; budget != "" {
			fmt.Fprintf(d, d.to.say("The quota that the cloud documents: `budget: {%s}`.")+"\n\n", budget)
		} else {
			d.WriteString(d.to.say("The cloud documents no quota.") + "\n\n")
		}
		d.table()
		d.rows(k.keys)
	}
}

// rows writes keys and those below them. It returns the kinds of clouds, which get
// sections of their own.
func (d *document) rows(keys []key) (kinds []key) {
	for _, k := range keys {
		if d.isKind(k) {
			d.row("[`"+k.path+"`](#"+anchor(k)+")", k)
			kinds = append(kinds, k)
			continue
		}
		d.row("`"+k.path+"`", k)
		kinds = append(kinds, d.rows(k.keys)...)
	}
	return kinds
}

func (d *document) isKind(k key) bool {
	return k.section && slices.ContainsFunc(d.kinds, func(other kind) bool { return k.path == "clouds[]."+other.name })
}

func (d *document) table() {
	d.WriteString(d.to.say("| Key | Type | Default | Restart | |") + "\n|---|---|---|---|---|\n")
}

func (d *document) row(name string, k key) {
	value := d.value(k.value)
	if !onlyCode.MatchString(value) {
		value = d.to.say(value)
	}
	cells := []string{name, d.to.say(k.words), value, d.to.say(d.restart(k.path)), d.to.say(d.marked(k.meaning))}
	for i, cell := range cells {
		cells[i] = strings.ReplaceAll(cell, "|", `\|`)
	}
	d.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// onlyCode is a default that is the same in every language.
var onlyCode = regexp.MustCompile("^`[^`]*`$")

// restart says what about a key takes a restart.
func (d *document) restart(path string) string {
	if onlyIts, ok := d.fixed[path]; ok {
		if onlyIts {
			return "to add or remove it"
		}
		return "yes"
	}
	for above := path; above != ""; above = above[:max(strings.LastIndexByte(above, '.'), 0)] {
		if onlyIts, ok := d.fixed[strings.TrimSuffix(above, "[]")]; ok && !onlyIts {
			return "yes"
		}
	}
	return ""
}

var oneWord = regexp.MustCompile(`^[^ ]*[^a-z ][^ ]*$`)

// words are defaults that are no text of the file.
var words = []string{"none", "needed", "all"}

// value is a default as it is shown: as code where it could stand in the file.
func (d *document) value(value string) string {
	switch {
	case value == "" || slices.Contains(words, value):
		return value
	case !strings.Contains(value, " "):
		return "`" + value + "`"
	}
	first, rest, _ := strings.Cut(value, ",")
	if rest != "" && oneWord.MatchString(first) && !d.isName(first) {
		return "`" + first + "`," + d.marked(rest)
	}
	return d.marked(value)
}

// names are what may be the name of a key, and sets in braces.
var names = regexp.MustCompile("`[^`]*`|" + `\{[^}]*\}|[a-z0-9]+(?:[._\[\]][a-z0-9_]+)+`)

// marked is a text with the names of keys shown as code.
func (d *document) marked(text string) string {
	return names.ReplaceAllStringFunc(text, func(name string) string {
		if name[0] == '{' || d.isName(name) {
			return "`" + name + "`"
		}
		return name
	})
}

// isName reports whether a word is the whole path of a key, or one with more than one
// word in it, which is nothing else.
func (d *document) isName(word string) bool {
	if d.paths[word] {
		return true
	}
	for path := range d.paths {
		if strings.Contains(word, "_") && strings.HasSuffix(path, "."+word) {
			return true
		}
	}
	return false
}
