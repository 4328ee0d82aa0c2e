package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// source reads the packages of a module.
type source struct {
	module   fs.FS
	name     string // of the module
	fset     *token.FileSet
	packages map[string]*pkg // by folder
}

// pkg is what a package declares. Tests are no part of it.
type pkg struct {
	dir   string
	types map[string]declared[*ast.TypeSpec]
	vars  map[string]declared[ast.Expr] // with one name and one value
	funcs map[string]declared[*ast.FuncDecl]
	files []*ast.File
}

// declared is something, and the file whose imports its names are of.
type declared[T any] struct {
	what T
	file *ast.File
}

var moduleLine = regexp.MustCompile(`(?m)^module (\S+)$`)

func newSource(module fs.FS) (*source, error) {
	data, err := fs.ReadFile(module, "go.mod")
	if err != nil {
		return nil, err
	}
	match := moduleLine.FindSubmatch(data)
	if match == nil {
		return nil, fmt.Errorf("go.mod names no module")
	}
	return &source{module: module, name: string(match[1]), fset: token.NewFileSet(), packages: map[string]*pkg{}}, nil
}

// pkg reads the package in a folder.
func (s *source) pkg(dir string) (*pkg, error) {
	if p, ok := s.packages[dir]; ok {
		return p, nil
	}
	names, err := fs.Glob(s.module, path.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	p := &pkg{dir: dir, types: map[string]declared[*ast.TypeSpec]{}, vars: map[string]declared[ast.Expr]{}, funcs: map[string]declared[*ast.FuncDecl]{}}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		data, err := fs.ReadFile(s.module, name)
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(s.fset, name, data, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		p.add(file)
	}
	if len(p.files) == 0 {
		return nil, fmt.Errorf("no Go files in %s", dir)
	}
	s.packages[dir] = p
	return p, nil
}

func (p *pkg) add(file *ast.File) {
	p.files = append(p.files, file)
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv == nil {
				p.funcs[decl.Name.Name] = declared[*ast.FuncDecl]{decl, file}
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					p.types[spec.Name.Name] = declared[*ast.TypeSpec]{spec, file}
				case *ast.ValueSpec:
					if len(spec.Names) == 1 && len(spec.Values) == 1 {
						p.vars[spec.Names[0].Name] = declared[ast.Expr]{spec.Values[0], file}
					}
				}
			}
		}
	}
}

// imported is the path that a file knows under a name.
func imported(file *ast.File, name string) string {
	for _, spec := range file.Imports {
		at, err := strconv.Unquote(spec.Path.Value)
		if err == nil && (spec.Name != nil && spec.Name.Name == name || spec.Name == nil && packageName(at) == name) {
			return at
		}
	}
	return ""
}

var majorVersion = regexp.MustCompile(`/v[0-9]+$`)

// packageName is what a package at a path is usually called.
func packageName(at string) string { return path.Base(majorVersion.ReplaceAllString(at, "")) }

// own returns the package of the module at an import path.
func (s *source) own(at string) (*pkg, error) {
	dir, ok := strings.CutPrefix(at, s.name+"/")
	if !ok {
		return nil, fmt.Errorf("package %q is not of this module", at)
	}
	return s.pkg(dir)
}

// at is the place of something, for problems.
func (s *source) at(node ast.Node) string {
	p := s.fset.Position(node.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}
