package main

import (
	"errors"
	"fmt"
	"go/ast"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// key is a key of the configuration file.
type key struct {
	path    string // such as clouds[].poll.fast
	words   string // its type
	value   string // its default, or when it is needed; empty where its keys have them
	meaning string
	section bool  // it has keys itself
	keys    []key // of a section
}

// shape is a type, as far as the reference tells of it.
type shape struct {
	one, many string
	list      bool
	fields    *ast.StructType // nil unless it is a section, or a list of them
	file      *ast.File       // that names in fields are of
	pkg       *pkg
}

var plain = map[string]shape{
	"string": {one: "text", many: "texts"}, "bool": {one: "yes or no", many: "yes or no"},
	"int": wholeNumber, "int32": wholeNumber, "int64": wholeNumber, "uint": wholeNumber, "uint16": wholeNumber, "uint32": wholeNumber, "uint64": wholeNumber,
	"float64": {one: "number", many: "numbers"},
}

var wholeNumber = shape{one: "whole number", many: "whole numbers"}

// shape finds out what a type is.
func (s *source) shape(p *pkg, file *ast.File, expr ast.Expr) (shape, error) {
	switch expr := expr.(type) {
	case *ast.StarExpr:
		return s.shape(p, file, expr.X)
	case *ast.Ident:
		if out, ok := plain[expr.Name]; ok {
			return out, nil
		}
		if t, ok := p.types[expr.Name]; ok {
			return s.shape(p, t.file, t.what.Type)
		}
	case *ast.StructType:
		return shape{one: "section", many: "sections", fields: expr, file: file, pkg: p}, nil
	case *ast.ArrayType:
		of, err := s.shape(p, file, expr.Elt)
		if err == nil && (of.list || expr.Len != nil) {
			break
		}
		of.one, of.list = "list of "+of.many, true
		return of, err
	case *ast.MapType:
		of, err := s.shape(p, file, expr.Value)
		if name, ok := expr.Key.(*ast.Ident); err == nil && (!ok || name.Name != "string" || of.fields != nil || of.list) {
			break
		}
		return shape{one: "map of " + of.many + " by name", many: "maps of " + of.many + " by name"}, err
	case *ast.SelectorExpr:
		name, ok := expr.X.(*ast.Ident)
		if !ok {
			break
		}
		switch at := imported(file, name.Name); {
		case at == "time" && expr.Sel.Name == "Duration":
			return shape{one: "duration", many: "durations"}, nil
		case at == s.name+"/internal/upstream" && expr.Sel.Name == "Secret":
			return shape{one: "secret", many: "secrets"}, nil
		default:
			other, err := s.own(at)
			if err != nil {
				return shape{}, fmt.Errorf("%s: %w", s.at(expr), err)
			}
			if t, ok := other.types[expr.Sel.Name]; ok {
				return s.shape(other, t.file, t.what.Type)
			}
		}
	}
	return shape{}, fmt.Errorf("%s: the reference has no words for this type", s.at(expr))
}

// keys are the keys of a section. kinds are those that stand where the sections of
// the kinds of clouds do. All problems are returned together.
func (s *source) keys(sh shape, prefix string, kinds []kind) ([]key, error) {
	var out []key
	var problems []error
	for _, field := range sh.fields.Fields.List {
		if len(field.Names) == 0 {
			problems = append(problems, fmt.Errorf("%s: an embedded field has no key of its own", s.at(field)))
		}
		for _, name := range field.Names {
			if !name.IsExported() {
				continue
			}
			keys, err := s.key(sh, field, name.Name, prefix, kinds)
			out = append(out, keys...)
			problems = append(problems, err)
		}
	}
	return out, errors.Join(problems...)
}

// key is what a field is in the file: one key, or one for each kind of cloud.
func (s *source) key(sh shape, field *ast.Field, name, prefix string, kinds []kind) ([]key, error) {
	tag, options, err := yamlTag(field)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", s.at(field), name, err)
	}
	text := commentOf(field)
	if text == "" {
		return nil, fmt.Errorf("%s: %s has no comment, which would be its text in the reference", s.at(field), name)
	}
	if options == "inline" {
		if len(kinds) == 0 {
			return nil, fmt.Errorf("%s: %s: only the sections of kinds stand for others", s.at(field), name)
		}
		var out []key
		for _, kind := range kinds {
			keys, err := s.keys(kind.shape, prefix+kind.name+".", nil)
			if err != nil {
				return nil, err
			}
			one := key{path: prefix + kind.name, words: "section", section: true, keys: keys}
			one.meaning, one.value = meaningOf(text, name, kind.name)
			out = append(out, one)
		}
		return out, nil
	}
	of, err := s.shape(sh.pkg, sh.file, field.Type)
	if err != nil {
		return nil, err
	}
	out := key{path: prefix + tag, words: of.one, section: of.fields != nil}
	out.meaning, out.value = meaningOf(text, name, tag)
	if out.meaning == "" {
		return nil, fmt.Errorf("%s: the comment of %s tells a default and nothing else", s.at(field), name)
	}
	_, optional := field.Type.(*ast.StarExpr)
	if out.value == "" && (of.fields == nil || of.list || optional) {
		return nil, fmt.Errorf("%s: the comment of %s tells no default: end it with “Default: X.” or “Needed.”", s.at(field), name)
	}
	if of.fields != nil {
		at := out.path
		if of.list {
			at += "[]"
		}
		if out.keys, err = s.keys(of, at+".", kinds); err != nil {
			return nil, err
		}
	}
	return []key{out}, nil
}

func yamlTag(field *ast.Field) (name, options string, err error) {
	var tag string
	if field.Tag != nil {
		text, err := strconv.Unquote(field.Tag.Value)
		if err != nil {
			return "", "", err
		}
		tag = reflect.StructTag(text).Get("yaml")
	}
	name, options, _ = strings.Cut(tag, ",")
	if name == "" && options != "inline" || name == "-" {
		return "", "", errors.New("has no key: a field of the file has a yaml tag, another one is not exported")
	}
	return name, options, nil
}

// commentOf is the first paragraph of a field's comments on one line. What follows is
// for those who read the code.
func commentOf(field *ast.Field) string {
	for _, group := range []*ast.CommentGroup{field.Doc, field.Comment} {
		first, _, _ := strings.Cut(group.Text(), "\n\n")
		if text := strings.Join(strings.Fields(first), " "); text != "" {
			return text
		}
	}
	return ""
}

// defaultClause is the part of a comment that tells the default, from the beginning of
// a sentence or clause to its end.
var defaultClause = regexp.MustCompile(`(^|[.;] )(?:[Dd]efault:? ([^;]+?)|([Nn]eeded\b[^;]*?))(\. |\.?$|;)`)

// meaningOf takes the default out of a comment, and calls the field by
// its key.
func meaningOf(text, field, tag string) (meaning, value string) {
	if m := defaultClause.FindStringSubmatchIndex(text); m != nil {
		if m[4] >= 0 {
			value = text[m[4]:m[5]]
		} else {
			value = lower(text[m[6]:m[7]])
		}
		before, after := text[:m[0]], text[m[1]:]
		if before != "" && !strings.HasSuffix(before, ".") {
			before += "."
		}
		text = strings.TrimSpace(before + " " + after)
	}
	if rest, ok := strings.CutPrefix(text, field+" "); ok {
		text = "`" + tag + "` " + rest
		for _, verb := range []string{"is ", "are "} { // the key stands beside it
			text = strings.TrimPrefix(text, "`"+tag+"` "+verb)
		}
	}
	if text == "" {
		return "", value
	}
	return strings.TrimSuffix(upper(text), ".") + ".", value
}

// upper is a text that is not empty with a large first letter.
func upper(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}

func lower(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToLower(r)) + s[n:]
}
