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

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
)

//go:embed errors.md
var errorsHead string

//go:embed errors.zh-CN.md
var errorsHeadChinese string

//go:embed errors.zh-CN.yaml
var errorsChinese string

// contract is the folder with the enum, which is generated with the comments of the
// contract.
const contract = "gen/notebook/v1"

// reasonPrefix is left out where a reason is told.
const reasonPrefix = "ERROR_REASON_"

// reason is a reason of errors.
type reason struct {
	name        string
	codes       []code.Code
	meaning, do string
}

// errorReasons is the reference of errors.
func errorReasons(module fs.FS) (string, error) {
	return errorReasonsIn(module, errorsHead, nil)
}

// errorReasonsInChinese is the same reference in Chinese.
func errorReasonsInChinese(module fs.FS) (string, error) {
	to, err := newCatalogue("errors.zh-CN.yaml", errorsChinese)
	if err != nil {
		return "", err
	}
	return errorReasonsIn(module, errorsHeadChinese, to)
}

func errorReasonsIn(module fs.FS, head string, to *catalogue) (string, error) {
	src, err := newSource(module)
	if err != nil {
		return "", err
	}
	reasons, err := src.reasons()
	if err != nil {
		return "", err
	}
	var out strings.Builder
	out.WriteString("<!-- Made by `make docs` of proto/notebook/v1/errors.proto: change that. -->\n" + head)
	out.WriteString("\n" + to.say("| Reason | gRPC code | HTTP | Meaning | What to do |") + "\n|---|---|---|---|---|\n")
	for _, r := range reasons {
		var names, statuses []string
		for _, c := range r.codes {
			names = append(names, "`"+c.String()+"`")
			statuses = append(statuses, strconv.Itoa(runtime.HTTPStatusFromCode(codes.Code(c))))
		}
		cells := []string{"`" + r.name + "`", strings.Join(names, ", "), strings.Join(slices.Compact(statuses), ", "), to.say(r.meaning), to.say(r.do)}
		for i, cell := range cells {
			cells[i] = strings.ReplaceAll(cell, "|", `\|`)
		}
		out.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	return out.String(), to.check()
}

// reasons reads the enum. All problems are returned together.
func (s *source) reasons() ([]reason, error) {
	p, err := s.pkg(contract)
	if err != nil {
		return nil, err
	}
	var out []reason
	var problems []error
	for _, file := range p.files {
		for _, decl := range file.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok || group.Tok != token.CONST {
				continue
			}
			for _, spec := range group.Specs {
				value, ok := spec.(*ast.ValueSpec)
				if !ok {
					continue
				}
				if of, ok := value.Type.(*ast.Ident); !ok || of.Name != "ErrorReason" {
					continue
				}
				name := strings.TrimPrefix(value.Names[0].Name, "ErrorReason_"+reasonPrefix)
				if name == "UNSPECIFIED" {
					continue
				}
				r, err := parseReason(name, value.Doc.Text())
				if err != nil {
					problems = append(problems, fmt.Errorf("%s: %w", name, err))
				}
				out = append(out, r)
			}
		}
	}
	if len(out) == 0 {
		problems = append(problems, errors.New("there is no reason"))
	}
	return out, errors.Join(problems...)
}

// doLine begins what to do, on a line of its own.
var doLine = regexp.MustCompile(`(?m)^Do: `)

// word is what may be the name of a code.
var word = regexp.MustCompile(`\b[A-Z][A-Z_]+\b`)

// onlyCodes is what is between the codes of a sentence that tells nothing else.
var onlyCodes = regexp.MustCompile(`^(?:[A-Z_]+|, or | or |, )+$`)

// parseReason takes a comment apart: “CODE. What it means.” and, on another line,
// “Do: what to do.”, as the contract has them.
func parseReason(name, comment string) (reason, error) {
	r := reason{name: name}
	at := doLine.FindAllStringIndex(comment, -1)
	if len(at) != 1 {
		return r, errors.New("the comment needs one line that begins with “Do: ” and says what to do")
	}
	before := strings.Join(strings.Fields(comment[:at[0][0]]), " ")
	r.do = strings.Join(strings.Fields(comment[at[0][1]:]), " ")
	first, rest, _ := strings.Cut(before, ". ")
	first = strings.TrimSuffix(first, ".")
	for _, name := range word.FindAllString(first, -1) {
		if c, ok := code.Code_value[name]; ok && !slices.Contains(r.codes, code.Code(c)) {
			r.codes = append(r.codes, code.Code(c))
		}
	}
	if len(r.codes) == 0 {
		return r, errors.New("the first sentence of the comment names no code of gRPC")
	}
	r.meaning = before
	if onlyCodes.MatchString(first) {
		r.meaning = rest
	}
	if r.meaning == "" || r.do == "" {
		return r, errors.New("the comment has no meaning, or nothing to do")
	}
	r.do = upper(r.do)
	return r, nil
}
