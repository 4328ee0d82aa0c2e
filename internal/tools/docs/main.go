// Docs writes the references that are made of the source: docs/configuration.md of
// the types of the configuration, and docs/errors.md of the enum of the contract. It
// runs in the root of the repository and fails for what says nothing of itself.
package main

import (
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

func main() {
	out := flag.String("o", "docs", "`directory` to write to")
	flag.Parse()
	configuration, err := makeConfiguration()
	if err == nil {
		err = os.WriteFile(filepath.Join(*out, "configuration.md"), configuration, 0o644)
	}
	var reasons []byte
	if err == nil {
		reasons, err = makeErrors("proto/notebook/v1/errors.proto")
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(*out, "errors.md"), reasons, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

//go:embed configuration.md
var configurationIntro string

//go:embed example.yaml
var example string

const module = "github.com/notebookd/notebookd/"

// pkg is a package as its source says it.
type pkg struct {
	dir     string
	structs map[string]*ast.StructType
	names   map[string]ast.Expr // types that are another one by a name of their own
	imports map[string]string   // directory by the name it is imported under
}

// source reads packages once.
type source struct{ packages map[string]*pkg }

func (s *source) load(dir string) (*pkg, error) {
	if p, ok := s.packages[dir]; ok {
		return p, nil
	}
	p := &pkg{dir: dir, structs: map[string]*ast.StructType{}, names: map[string]ast.Expr{}, imports: map[string]string{}}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no source in %s: %w", dir, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, i := range file.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			if local, ok := strings.CutPrefix(path, module); ok {
				p.imports[filepath.Base(path)] = local
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if body, ok := spec.Type.(*ast.StructType); ok {
					p.structs[spec.Name.Name] = body
				} else {
					p.names[spec.Name.Name] = spec.Type
				}
			}
			return true
		})
	}
	s.packages[dir] = p
	return p, nil
}

// row is one key of the configuration.
type row struct{ key, kind, text string }

// fields returns the keys of a struct, and of those in it.
func (s *source) fields(p *pkg, body *ast.StructType, prefix string) ([]row, error) {
	var out []row
	for _, field := range body.Fields.List {
		if field.Tag == nil {
			if len(field.Names) > 0 && !field.Names[0].IsExported() {
				continue // not of the file
			}
			return nil, fmt.Errorf("%s: a field of %s has no yaml tag", p.dir, prefix)
		}
		tag, _ := strconv.Unquote(field.Tag.Value)
		name, _, _ := strings.Cut(reflect.StructTag(tag).Get("yaml"), ",")
		if name == "" {
			continue // inline: the sections of the kinds of clouds
		}
		key := strings.TrimPrefix(prefix+"."+name, ".")
		kind, inner, innerPkg, err := s.kind(p, field.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		text := comment(field)
		if text == "" && inner == nil {
			return nil, fmt.Errorf("%s has no comment", key)
		}
		if len(field.Names) > 0 { // "Endpoint is …" speaks of a Go field
			if rest, ok := strings.CutPrefix(text, field.Names[0].Name+" "); ok {
				text = "`" + name + "` " + rest
			}
		}
		out = append(out, row{key, kind, text})
		if inner != nil {
			if strings.HasPrefix(kind, "list") {
				key += "[]"
			}
			rows, err := s.fields(innerPkg, inner, key)
			if err != nil {
				return nil, err
			}
			out = append(out, rows...)
		}
	}
	return out, nil
}

func comment(field *ast.Field) string {
	var text string
	if field.Doc != nil {
		text = field.Doc.Text()
	}
	if field.Comment != nil {
		text += " " + field.Comment.Text()
	}
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}

// kind names a type in words. inner is its struct, if it has keys of its own.
func (s *source) kind(p *pkg, expr ast.Expr) (kind string, inner *ast.StructType, of *pkg, err error) {
	switch t := expr.(type) {
	case *ast.StarExpr:
		return s.kind(p, t.X)
	case *ast.ArrayType:
		element, inner, of, err := s.kind(p, t.Elt)
		if inner != nil {
			element = "sections"
		}
		return "list of " + strings.Replace(element, "text", "texts", 1), inner, of, err
	case *ast.MapType:
		element, _, _, err := s.kind(p, t.Value)
		return "map of names to " + element + "s", nil, nil, err
	case *ast.Ident:
		if word, ok := map[string]string{
			"string": "text", "bool": "yes or no", "int": "whole number", "uint32": "whole number", "float64": "number",
		}[t.Name]; ok {
			return word, nil, nil, nil
		}
		if body, ok := p.structs[t.Name]; ok {
			return "section", body, p, nil
		}
		if other, ok := p.names[t.Name]; ok {
			return s.kind(p, other)
		}
	case *ast.SelectorExpr:
		name := fmt.Sprintf("%s.%s", t.X, t.Sel)
		switch name {
		case "time.Duration":
			return "duration", nil, nil, nil
		case "upstream.Secret":
			return "secret", nil, nil, nil
		}
		if dir, ok := p.imports[fmt.Sprint(t.X)]; ok {
			other, err := s.load(dir)
			if err != nil {
				return "", nil, nil, err
			}
			return s.kind(other, t.Sel)
		}
	}
	return "", nil, nil, fmt.Errorf("no word for the type %T", expr)
}

// literals returns the first text of each row of the table in a function, or of each
// key of a map, of a file.
func literals(file, in string) ([]string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, decl := range parsed.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Name.Name != in {
				continue
			}
		case *ast.GenDecl:
			spec, ok := d.Specs[0].(*ast.ValueSpec)
			if !ok || spec.Names[0].Name != in {
				continue
			}
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			var first ast.Expr
			switch n := n.(type) {
			case *ast.CompositeLit:
				if len(n.Elts) > 0 {
					first = n.Elts[0]
				}
			case *ast.KeyValueExpr:
				first = n.Key
			}
			if text, ok := first.(*ast.BasicLit); ok && text.Kind == token.STRING {
				value, _ := strconv.Unquote(text.Value)
				out = append(out, value)
			}
			return true
		})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: nothing in %s", file, in)
	}
	return out, nil
}

// makeConfiguration makes the reference of the configuration file.
func makeConfiguration() ([]byte, error) {
	s := &source{packages: map[string]*pkg{}}
	server, err := s.load("cmd/server")
	if err != nil {
		return nil, err
	}
	rows, err := s.fields(server, server.structs["config"], "")
	if err != nil {
		return nil, err
	}
	kinds, err := literals("cmd/server/clouds.go", "kinds")
	if err != nil {
		return nil, err
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		p, err := s.load("internal/upstream/" + kind)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{"clouds[]." + kind, "section", "of a cloud of the kind `" + kind + "`."})
		of, err := s.fields(p, p.structs["Config"], "clouds[]."+kind)
		if err != nil {
			return nil, err
		}
		rows = append(rows, of...)
	}
	fixed, err := literals("cmd/server/reload.go", "fixedKeys")
	if err != nil {
		return nil, err
	}
	restart := func(key string) bool {
		return slices.ContainsFunc(fixed, func(f string) bool { return key == f || strings.HasPrefix(key, f+".") })
	}
	var out bytes.Buffer
	out.WriteString(strings.Replace(configurationIntro, "EXAMPLE", strings.TrimSpace(example), 1))
	for _, section := range sections(rows) {
		fmt.Fprintf(&out, "\n## `%s`\n", section.key)
		if section.kind != "" {
			text := section.text
			if text != "" {
				text = ": " + text
			}
			fmt.Fprintf(&out, "\nA %s%s%s\n", section.kind, text, map[bool]string{true: " ↻"}[restart(section.key)])
		}
		if len(section.rows) == 0 {
			continue
		}
		out.WriteString("\n| Key | Type | Meaning |\n|---|---|---|\n")
		for _, r := range section.rows {
			mark := ""
			if restart(r.key) && !restart(section.key) {
				mark = " ↻"
			}
			fmt.Fprintf(&out, "| `%s`%s | %s | %s |\n", r.key, mark, r.kind, r.text)
		}
	}
	return out.Bytes(), nil
}

type section struct {
	row
	rows []row
}

// sections groups rows: by the first part of their keys, and clouds by kind.
func sections(rows []row) []*section {
	var out []*section
	for _, r := range rows {
		parts := strings.Split(r.key, ".")
		top := strings.TrimSuffix(parts[0], "[]")
		if len(parts) == 2 && parts[0] == "clouds[]" && r.kind == "section" && strings.HasPrefix(r.text, "of a cloud of the kind") {
			out = append(out, &section{row: r})
			continue
		}
		last := func() *section { return out[len(out)-1] }
		if len(out) == 0 || last().key != top && !strings.HasPrefix(r.key, last().key+".") {
			out = append(out, &section{row: r})
			continue
		}
		last().rows = append(last().rows, r)
	}
	return out
}
