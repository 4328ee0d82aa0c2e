package service

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.einride.tech/aip/filtering"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// Bounds of a filter. The contract bounds the text to 4096 characters before it
// comes here; the bound in bytes is what that can be at most.
const (
	maxFilterBytes = 4096 * utf8.UTFMax
	maxFilterDepth = 100 // parentheses in each other
	maxFilterTerms = 200 // comparisons and texts
	maxFilterEcho  = 40  // characters of a filter or order that an error repeats
)

// filter is a parsed filter over messages of one kind, in the language of
// AIP-160: what a message has, and what a text alone searches, stands in a
// filterSchema. It is immutable and safe for concurrent use; nil matches all.
//
// Its logic has two values. A message either matches or does not, and NOT is
// always the opposite:
//
//   - A value is unset when the message that holds it is, and so is a time, an
//     `optional` number or an attribute that is not there. Every comparison with
//     an unset value is false, `f != x` is always the same as `NOT f = x`, and so
//     both are true of one.
//   - Any other text or number has a value, if only "" or 0.
//   - `f:*` is whether there is something to tell: a text that is not empty, a
//     number that is not 0 (or an `optional` one that is set), a bool that is
//     true, an enum that is not UNSPECIFIED, a time, message or attribute that is
//     set, a list or map that is not empty.
//
// Texts: `=` and `!=` heed the case, and `*` stands for any characters; `:` is
// whether the text contains the value, whatever the case, and knows `*` too; the
// other comparisons are by bytes, and `*` is nothing special to them. For
// numbers, times, bools and enums `:` is the same as `=`.
//
// OR binds tighter than AND, as AIP-160 has it, and terms that just follow each
// other are joined by AND.
type filter[T any] struct {
	test      test[T] // nil matches all
	canonical string
}

// test tells whether a message matches. It never keeps or changes it.
type test[T any] func(T) bool

// match tells whether a message matches.
func (f *filter[T]) match(m T) bool { return f == nil || f.test == nil || f.test(m) }

// key is the filter in one spelling, for binding tokens: filters with one key
// match the same messages. White space, redundant parentheses, kinds of quotes
// and the spelling of fields and enums make no difference. It is empty when all
// match.
func (f *filter[T]) key() string {
	if f == nil {
		return ""
	}
	return f.canonical
}

// filterError says what is wrong with a filter, and where.
type filterError struct {
	// Position is the offset of the place in the text, in bytes from 0.
	Position int
	// Field is the field that it is about, as in the contract, or as the filter
	// has it when there is no such field. It is empty for errors of syntax.
	Field string
	// Problem says what is wrong and what is allowed.
	Problem string
}

// Error implements error.
func (e *filterError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("at position %d: %s", e.Position, e.Problem)
	}
	return fmt.Sprintf("at position %d: %s: %s", e.Position, e.Field, e.Problem)
}

// filterSchema is what filters over one kind of message may name. It is never
// changed.
type filterSchema[T any] struct {
	// fields are the fields by their paths. The keys of a map come on top.
	fields map[string]filterField[T]
	// search tells whether a text that stands alone is in a message. contains
	// tells whether it is in one of its texts.
	search func(m T, contains func(string) bool) bool
}

// parse parses a filter. Its errors are *filterError.
func (s *filterSchema[T]) parse(text string) (*filter[T], error) {
	if strings.TrimSpace(text) == "" {
		return &filter[T]{}, nil
	}
	tokens, err := lexFilter(text)
	if err != nil {
		return nil, err
	}
	p := &filterParser[T]{schema: s, text: text, tokens: tokens}
	all, err := p.expression()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.Type != tokenEnd {
		return nil, failAt(t, "this parenthesis closes nothing") // all else belongs to an expression
	}
	return &filter[T]{test: all.test, canonical: all.key}, nil
}

// parseFilter parses a filter over notebooks, for List and Watch. Its errors are
// *filterError.
func parseFilter(text string) (*filter[*notebookv1.Notebook], error) {
	return notebookSchema.parse(text)
}

// tokenEnd marks the end of the text.
const tokenEnd filtering.TokenType = "END"

// lexFilter returns the tokens without white space and with a tokenEnd.
func lexFilter(text string) ([]filtering.Token, error) {
	if len(text) > maxFilterBytes {
		return nil, &filterError{Problem: "it is too long"}
	}
	if i := invalidAt(text); i >= 0 {
		return nil, &filterError{Position: i, Problem: "it is not valid UTF-8"}
	}
	var (
		lexer  filtering.Lexer
		tokens []filtering.Token
	)
	lexer.Init(text)
	for {
		token, err := lexer.Lex()
		switch {
		case errors.Is(err, io.EOF):
			end := filtering.Position{Offset: int32(len(text))} //nolint:gosec // bounded above
			return append(tokens, filtering.Token{Type: tokenEnd, Position: end}), nil
		case err != nil: // all else is valid text, so it is this
			return nil, &filterError{Position: int(lexer.Position().Offset), Problem: "the quote that begins here is not closed"}
		case token.Type != filtering.TokenTypeWhitespace:
			tokens = append(tokens, token)
		}
	}
}

// invalidAt returns where a text stops to be UTF-8, or -1.
func invalidAt(text string) int {
	for i, r := range text {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
				return i
			}
		}
	}
	return -1
}

// filterParser turns tokens into tests. The lexer is the library's, and so is
// the grammar; its parser is not used, since it refuses `( a )`, times, and
// words with a hyphen that are not quoted, takes `NOT(a)` for a call, and knows
// neither bounds nor where in the text an error is.
//
//	expression = factor { [AND] factor } .
//	factor     = term { OR term } .
//	term       = [ NOT | "-" ] ( "(" expression ")" | restriction ) .
//	restriction = path [ comparator value ] .
type filterParser[T any] struct {
	schema *filterSchema[T]
	text   string
	tokens []filtering.Token
	at     int
	depth  int
	terms  int
}

// filterNode is a parsed part of a filter.
type filterNode[T any] struct {
	test test[T]
	key  string
}

func (p *filterParser[T]) peek() filtering.Token { return p.tokens[p.at] }

func (p *filterParser[T]) next() filtering.Token {
	t := p.tokens[p.at]
	if t.Type != tokenEnd {
		p.at++
	}
	return t
}

// adjacent tells whether no white space comes before the next token.
func (p *filterParser[T]) adjacent() bool {
	return p.at > 0 && endOf(p.tokens[p.at-1]) == int(p.peek().Position.Offset)
}

func endOf(t filtering.Token) int { return int(t.Position.Offset) + len(t.Value) }

func (p *filterParser[T]) expression() (filterNode[T], error) {
	var factors []filterNode[T]
	for {
		factor, err := p.factor()
		if err != nil {
			return filterNode[T]{}, err
		}
		factors = append(factors, factor)
		switch p.peek().Type {
		case filtering.TokenTypeAnd:
			p.next()
		case filtering.TokenTypeRightParen, tokenEnd:
			return joinNodes(factors, "AND", allOf), nil
		default: // the next factor follows without a word in between
		}
	}
}

func (p *filterParser[T]) factor() (filterNode[T], error) {
	var terms []filterNode[T]
	for {
		term, err := p.term()
		if err != nil {
			return filterNode[T]{}, err
		}
		terms = append(terms, term)
		if p.peek().Type != filtering.TokenTypeOr {
			return joinNodes(terms, "OR", anyOf), nil
		}
		p.next()
	}
}

func (p *filterParser[T]) term() (filterNode[T], error) {
	t := p.peek()
	switch t.Type {
	case filtering.TokenTypeNot:
		p.next()
		if after := p.peek().Type; p.adjacent() && after != filtering.TokenTypeLeftParen && after != tokenEnd {
			return filterNode[T]{}, failAt(p.peek(), "white space is missing after NOT")
		}
	case filtering.TokenTypeMinus:
		p.next()
		if !p.adjacent() {
			return filterNode[T]{}, failAt(t, "the term that - negates has to follow at once")
		}
	default:
		return p.simple()
	}
	negated, err := p.simple()
	if err != nil {
		return filterNode[T]{}, err
	}
	key := negated.key
	if strings.HasPrefix(key, "NOT ") {
		key = "(" + key + ")" // the grammar has no NOT NOT
	}
	return filterNode[T]{test: negate(negated.test), key: "NOT " + key}, nil
}

func (p *filterParser[T]) simple() (filterNode[T], error) {
	open := p.peek()
	if open.Type != filtering.TokenTypeLeftParen {
		return p.restriction()
	}
	p.next()
	if p.depth++; p.depth > maxFilterDepth {
		return filterNode[T]{}, failAt(open, "more than %d parentheses are in each other", maxFilterDepth)
	}
	inner, err := p.expression()
	if err != nil {
		return filterNode[T]{}, err
	}
	if p.next().Type != filtering.TokenTypeRightParen {
		return filterNode[T]{}, failAt(open, "this parenthesis is not closed")
	}
	p.depth--
	return inner, nil
}

func (p *filterParser[T]) restriction() (filterNode[T], error) {
	start := p.peek()
	if p.terms++; p.terms > maxFilterTerms {
		return filterNode[T]{}, failAt(start, "it has more than %d terms", maxFilterTerms)
	}
	path, err := p.path()
	if err != nil {
		return filterNode[T]{}, err
	}
	op := p.peek()
	if !op.Type.IsComparator() {
		return p.literal(start, strings.Join(path, "."))
	}
	name, f, problem := p.schema.lookup(path)
	if problem != "" {
		return filterNode[T]{}, &filterError{Position: int(start.Position.Offset), Field: name, Problem: problem}
	}
	p.next()
	at := p.peek()
	value, err := p.value()
	if err != nil {
		return filterNode[T]{}, err
	}
	if ops, hint := f.takes(name); !slices.Contains(strings.Fields(ops), string(op.Type)) {
		problem = "it cannot be compared by " + string(op.Type) + ", it takes " + ops + hint
		return filterNode[T]{}, &filterError{Position: int(op.Position.Offset), Field: name, Problem: problem}
	}
	compiled, problem := f.compile(op.Type, value)
	if problem != "" {
		return filterNode[T]{}, &filterError{Position: int(at.Position.Offset), Field: name, Problem: problem}
	}
	if f, ok := f.(speller); ok {
		value = f.spell(value)
	}
	return filterNode[T]{test: compiled, key: name + " " + string(op.Type) + " " + strconv.Quote(value)}, nil
}

// path parses what stands left of a comparator, or a text that is searched for.
func (p *filterParser[T]) path() ([]string, error) {
	var path []string
	for {
		t := p.peek()
		switch {
		case t.Type == filtering.TokenTypeString:
			text, err := unquote(t)
			if err != nil {
				return nil, err
			}
			p.next()
			path = append(path, text)
		case bare(t.Type) && t.Type != filtering.TokenTypeMinus && (path != nil || !t.Type.IsKeyword()):
			path = append(path, p.run(bare))
		default:
			return nil, failAt(t, "a field, a text or ( is expected, not %s", describe(t))
		}
		if p.peek().Type != filtering.TokenTypeDot || !p.adjacent() {
			return path, nil
		}
		p.next()
		if !p.adjacent() {
			return nil, failAt(p.peek(), "a name is expected right after the dot")
		}
	}
}

// literal makes a test of a text that stands alone.
func (p *filterParser[T]) literal(start filtering.Token, text string) (filterNode[T], error) {
	if err := p.ended(); err != nil {
		return filterNode[T]{}, err
	}
	if start.Type != filtering.TokenTypeString {
		switch strings.ToLower(text) {
		case "and", "or", "not", "&&", "||": // never meant as a text, and it would match next to nothing
			return filterNode[T]{}, failAt(start, "AND, OR and NOT are written in capitals; quote the word to search for it")
		}
	}
	search, contains := p.schema.search, containing(text)
	return filterNode[T]{
		test: func(m T) bool { return search(m, contains) },
		key:  strconv.Quote(text),
	}, nil
}

// value parses what stands right of a comparator. Whether it was quoted makes
// no difference.
func (p *filterParser[T]) value() (string, error) {
	t := p.peek()
	switch {
	case t.Type == filtering.TokenTypeString:
		p.next()
		text, err := unquote(t)
		if err != nil {
			return "", err
		}
		return text, p.ended()
	case t.Type == filtering.TokenTypeLeftParen:
		return "", failAt(t, "one value is expected, not a group; repeat the comparison for each value")
	case t.Type == filtering.TokenTypeHas || !inValue(t.Type):
		return "", failAt(t, "a value is expected, not %s", describe(t))
	}
	text := p.run(inValue)
	switch {
	case text == "-":
		return "", failAt(t, "a value is expected, not %s", describe(t))
	case t.Type.IsKeyword() && text == t.Value:
		return "", failAt(t, "a value is expected, not %s; quote the word if it is one", text)
	}
	return text, p.ended()
}

// run takes the tokens that follow each other without white space.
func (p *filterParser[T]) run(of func(filtering.TokenType) bool) string {
	start := p.next().Position.Offset
	for p.adjacent() && of(p.peek().Type) {
		p.next()
	}
	return p.text[start:endOf(p.tokens[p.at-1])]
}

// ended checks that a word ends where it seems to.
func (p *filterParser[T]) ended() error {
	t := p.peek()
	switch {
	case t.Type == tokenEnd || t.Type == filtering.TokenTypeRightParen || !p.adjacent():
		return nil
	case t.Type == filtering.TokenTypeLeftParen:
		return failAt(t, "there are no functions; white space is expected before (")
	default:
		return failAt(t, "white space is expected before %s; quote a text that holds it", describe(t))
	}
}

// bare tells whether a token may be part of a word that is not quoted.
func bare(t filtering.TokenType) bool {
	switch t {
	case filtering.TokenTypeText, filtering.TokenTypeNumber, filtering.TokenTypeHexNumber, filtering.TokenTypeMinus:
		return true
	default:
		return t.IsKeyword()
	}
}

// inValue tells whether a token may be part of a value that is not quoted.
func inValue(t filtering.TokenType) bool {
	return bare(t) || t == filtering.TokenTypeDot || t == filtering.TokenTypeHas
}

func unquote(t filtering.Token) (string, error) {
	text, err := t.Unquote()
	if err != nil {
		return "", failAt(t, `the quoted text holds a \ that is no escape; write \\ for one`)
	}
	return text, nil
}

func failAt(t filtering.Token, format string, args ...any) error {
	return &filterError{Position: int(t.Position.Offset), Problem: fmt.Sprintf(format, args...)}
}

func describe(t filtering.Token) string {
	if t.Type == tokenEnd {
		return "the end"
	}
	return echo(t.Value)
}

// echo quotes a text of a caller, cut short.
func echo(text string) string { return strconv.Quote(excerpt(text)) }

func excerpt(text string) string {
	for i, n := 0, 0; i < len(text); n++ {
		if n == maxFilterEcho {
			return text[:i] + "…"
		}
		_, size := utf8.DecodeRuneInString(text[i:])
		i += size
	}
	return text
}

func joinNodes[T any](nodes []filterNode[T], word string, of func([]test[T]) test[T]) filterNode[T] {
	if len(nodes) == 1 {
		return nodes[0]
	}
	tests := make([]test[T], 0, len(nodes))
	keys := make([]string, 0, len(nodes))
	for _, n := range nodes {
		tests = append(tests, n.test)
		keys = append(keys, n.key)
	}
	return filterNode[T]{test: of(tests), key: "(" + strings.Join(keys, " "+word+" ") + ")"}
}

func allOf[T any](tests []test[T]) test[T] {
	return func(m T) bool {
		for _, t := range tests {
			if !t(m) {
				return false
			}
		}
		return true
	}
}

func anyOf[T any](tests []test[T]) test[T] {
	return func(m T) bool {
		for _, t := range tests {
			if t(m) {
				return true
			}
		}
		return false
	}
}

func negate[T any](t test[T]) test[T] { return func(m T) bool { return !t(m) } }

// filterField is something of a message that a filter may name. Which kind it is
// decides what it can be compared with.
type filterField[T any] interface {
	// takes returns the comparators that the field, which has a name, knows, and
	// a hint to add.
	takes(name string) (ops, hint string)
	// compile returns the test `field op value`, or what is wrong with the value.
	compile(op filtering.TokenType, value string) (t test[T], problem string)
}

// speller is a field whose values may be written in more than one way.
type speller interface {
	// spell returns a value, which compile has taken, in the one spelling that
	// stands in keys.
	spell(value string) string
}

// enum is an enum of the contract. Its values begin with one prefix, and the
// first of them, which stands for none, ends with UNSPECIFIED.
type enum interface {
	~int32
	protoreflect.Enum
}

// The kinds of fields. A second result tells whether the value is set.
type (
	textField[T any] func(T) (string, bool)
	timeField[T any] func(T) *timestamppb.Timestamp
	boolField[T any] func(T) bool
	listField[T any] func(T) []string
	mapField[T any]  func(T) map[string]string
	// entryField is the value of one key of a map.
	entryField[T any] struct {
		in  mapField[T]
		key string
	}
	// messageField tells whether the message is set.
	messageField[T any]      func(T) bool
	enumField[T any, E enum] struct {
		get func(T) E
		in  func(T) bool // whether the message that holds it is set; nil when it always is
	}
	intField[T any] struct {
		get      func(T) (int64, bool)
		optional bool // 0 is a value like any other
	}
	floatField[T any] struct {
		get      func(T) (float64, bool)
		optional bool
	}
)

// notebookSchema is what filters of List and Watch may name.
var notebookSchema = filterSchema[*notebookv1.Notebook]{
	fields: notebookFields,
	search: func(n *notebookv1.Notebook, contains func(string) bool) bool {
		image := n.GetImage()
		return contains(n.GetName()) || contains(n.GetDisplayName()) || contains(image.GetUri()) || contains(image.GetDisplayName())
	},
}

var notebookFields = map[string]filterField[*notebookv1.Notebook]{
	"cloud":         textField[*notebookv1.Notebook](func(n *notebookv1.Notebook) (string, bool) { return nameSegment(n.GetName(), 1), true }),
	"location":      textField[*notebookv1.Notebook](func(n *notebookv1.Notebook) (string, bool) { return nameSegment(n.GetName(), 3), true }),
	"name":          ownText((*notebookv1.Notebook).GetName),
	"display_name":  ownText((*notebookv1.Notebook).GetDisplayName),
	"state":         ownEnum((*notebookv1.Notebook).GetState),
	"cloud_state":   ownText((*notebookv1.Notebook).GetCloudState),
	"state_message": ownText((*notebookv1.Notebook).GetStateMessage),
	"server_type":   ownText((*notebookv1.Notebook).GetServerType),
	"namespace":     ownText((*notebookv1.Notebook).GetNamespace),
	"owner_id":      ownText((*notebookv1.Notebook).GetOwnerId),
	"root_owner_id": ownText((*notebookv1.Notebook).GetRootOwnerId),
	"create_time":   ownTime((*notebookv1.Notebook).GetCreateTime),
	"update_time":   ownTime((*notebookv1.Notebook).GetUpdateTime),
	"observe_time":  ownTime((*notebookv1.Notebook).GetObserveTime),
	"stop_time":     ownTime((*notebookv1.Notebook).GetStopTime),
	"expire_time":   ownTime((*notebookv1.Notebook).GetExpireTime),
	"progress": floatField[*notebookv1.Notebook]{
		get:      func(n *notebookv1.Notebook) (float64, bool) { return n.GetProgress(), n != nil && n.Progress != nil },
		optional: true,
	},
	"env_names":  ownList((*notebookv1.Notebook).GetEnvNames),
	"attributes": mapField[*notebookv1.Notebook]((*notebookv1.Notebook).GetAttributes),
	"etag":       ownText((*notebookv1.Notebook).GetEtag),

	"image":              messageOf((*notebookv1.Notebook).GetImage),
	"image.uri":          textOf((*notebookv1.Notebook).GetImage, (*notebookv1.Image).GetUri),
	"image.display_name": textOf((*notebookv1.Notebook).GetImage, (*notebookv1.Image).GetDisplayName),
	"image.type":         textOf((*notebookv1.Notebook).GetImage, (*notebookv1.Image).GetType),
	"image.size_bytes":   intOf((*notebookv1.Notebook).GetImage, (*notebookv1.Image).GetSizeBytes),

	"resources": messageOf((*notebookv1.Notebook).GetResources),
	"resources.cpu_cores": floatField[*notebookv1.Notebook]{get: func(n *notebookv1.Notebook) (float64, bool) {
		r := n.GetResources()
		return r.GetCpuCores(), r != nil
	}},
	"resources.memory_bytes":      intOf((*notebookv1.Notebook).GetResources, (*notebookv1.Resources).GetMemoryBytes),
	"resources.accelerator":       messageOf(accelerator),
	"resources.accelerator.type":  textOf(accelerator, (*notebookv1.Accelerator).GetType),
	"resources.accelerator.model": textOf(accelerator, (*notebookv1.Accelerator).GetModel),
	"resources.accelerator.count": intOf(accelerator, (*notebookv1.Accelerator).GetCount),
	"resources.accelerator.available_count": intField[*notebookv1.Notebook]{
		get: func(n *notebookv1.Notebook) (int64, bool) {
			a := accelerator(n)
			return int64(a.GetAvailableCount()), a != nil && a.AvailableCount != nil
		},
		optional: true,
	},
	"resources.accelerator.max_count": intField[*notebookv1.Notebook]{
		get: func(n *notebookv1.Notebook) (int64, bool) {
			a := accelerator(n)
			return int64(a.GetMaxCount()), a != nil && a.MaxCount != nil
		},
		optional: true,
	},

	"resource_group":      messageOf((*notebookv1.Notebook).GetResourceGroup),
	"resource_group.id":   textOf((*notebookv1.Notebook).GetResourceGroup, (*notebookv1.ResourceGroup).GetId),
	"resource_group.code": textOf((*notebookv1.Notebook).GetResourceGroup, (*notebookv1.ResourceGroup).GetCode),

	"endpoints":             messageOf((*notebookv1.Notebook).GetEndpoints),
	"endpoints.service_ip":  textOf((*notebookv1.Notebook).GetEndpoints, (*notebookv1.Endpoints).GetServiceIp),
	"endpoints.service_url": textOf((*notebookv1.Notebook).GetEndpoints, (*notebookv1.Endpoints).GetServiceUrl),
	"endpoints.ssh_url":     textOf((*notebookv1.Notebook).GetEndpoints, (*notebookv1.Endpoints).GetSshUrl),
	"endpoints.custom_port": intOf((*notebookv1.Notebook).GetEndpoints, (*notebookv1.Endpoints).GetCustomPort),

	"mirrors":       messageOf((*notebookv1.Notebook).GetMirrors),
	"mirrors.pip":   textOf((*notebookv1.Notebook).GetMirrors, (*notebookv1.Mirrors).GetPip),
	"mirrors.conda": textOf((*notebookv1.Notebook).GetMirrors, (*notebookv1.Mirrors).GetConda),
	"mirrors.apt":   textOf((*notebookv1.Notebook).GetMirrors, (*notebookv1.Mirrors).GetApt),
}

func accelerator(n *notebookv1.Notebook) *notebookv1.Accelerator {
	return n.GetResources().GetAccelerator()
}

// imageChangeSchema is what filters of ListImageChanges may name.
var imageChangeSchema = filterSchema[*notebookv1.ImageChange]{
	fields: imageChangeFields,
	search: func(c *notebookv1.ImageChange, contains func(string) bool) bool {
		return contains(c.GetNotebook()) || contains(c.GetNewNotebook()) || contains(c.GetFromImage()) || contains(c.GetToImage()) ||
			contains(c.GetPrincipal()) || contains(c.GetReason())
	},
}

// imageChangeFields are the fields of an image change by their paths. The steps
// and the warnings are none of them: they are words for people, and the warnings
// that were accepted are in acknowledged.
var imageChangeFields = map[string]filterField[*notebookv1.ImageChange]{
	"cloud":            textField[*notebookv1.ImageChange](func(c *notebookv1.ImageChange) (string, bool) { return nameSegment(c.GetNotebook(), 1), true }),
	"location":         textField[*notebookv1.ImageChange](func(c *notebookv1.ImageChange) (string, bool) { return nameSegment(c.GetNotebook(), 3), true }),
	"name":             ownText((*notebookv1.ImageChange).GetName),
	"notebook":         ownText((*notebookv1.ImageChange).GetNotebook),
	"new_notebook":     ownText((*notebookv1.ImageChange).GetNewNotebook),
	"from_image":       ownText((*notebookv1.ImageChange).GetFromImage),
	"to_image":         ownText((*notebookv1.ImageChange).GetToImage),
	"image_type":       ownText((*notebookv1.ImageChange).GetImageType),
	"phase":            ownEnum((*notebookv1.ImageChange).GetPhase),
	"principal":        ownText((*notebookv1.ImageChange).GetPrincipal),
	"reason":           ownText((*notebookv1.ImageChange).GetReason),
	"request_id":       ownText((*notebookv1.ImageChange).GetRequestId),
	"create_time":      ownTime((*notebookv1.ImageChange).GetCreateTime),
	"update_time":      ownTime((*notebookv1.ImageChange).GetUpdateTime),
	"sent":             boolField[*notebookv1.ImageChange]((*notebookv1.ImageChange).GetSent),
	"cloud_request_id": ownText((*notebookv1.ImageChange).GetCloudRequestId),
	"acknowledged":     ownList((*notebookv1.ImageChange).GetAcknowledged),

	"failure":            messageOf((*notebookv1.ImageChange).GetFailure),
	"failure.reason":     enumOf((*notebookv1.ImageChange).GetFailure, (*notebookv1.ImageChange_Failure).GetReason),
	"failure.message":    textOf((*notebookv1.ImageChange).GetFailure, (*notebookv1.ImageChange_Failure).GetMessage),
	"failure.cloud_code": textOf((*notebookv1.ImageChange).GetFailure, (*notebookv1.ImageChange_Failure).GetCloudCode),
}

func ownText[T any](get func(T) string) textField[T] {
	return func(m T) (string, bool) { return get(m), true }
}

func ownTime[T any](get func(T) *timestamppb.Timestamp) timeField[T] { return get }

func ownList[T any](get func(T) []string) listField[T] { return get }

func ownEnum[T any, E enum](get func(T) E) enumField[T, E] { return enumField[T, E]{get: get} }

func textOf[T, M any](parent func(T) *M, get func(*M) string) textField[T] {
	return func(m T) (string, bool) {
		in := parent(m)
		return get(in), in != nil
	}
}

func enumOf[T, M any, E enum](parent func(T) *M, get func(*M) E) enumField[T, E] {
	return enumField[T, E]{get: func(m T) E { return get(parent(m)) }, in: messageOf(parent)}
}

func intOf[T, M any, V int32 | int64](parent func(T) *M, get func(*M) V) intField[T] {
	return intField[T]{get: func(m T) (int64, bool) {
		in := parent(m)
		return int64(get(in)), in != nil
	}}
}

func messageOf[T, M any](get func(T) *M) messageField[T] {
	return func(m T) bool { return get(m) != nil }
}

// nameSegment returns a segment of a resource name, counted from 0, without
// splitting all of it.
func nameSegment(name string, i int) string {
	for ; i > 0; i-- {
		_, name, _ = strings.Cut(name, "/")
	}
	segment, _, _ := strings.Cut(name, "/")
	return segment
}

// lookup returns the field of a path and its path in one spelling.
func (s *filterSchema[T]) lookup(path []string) (name string, f filterField[T], problem string) {
	first, key := snake(path[0]), strings.Join(path[1:], ".")
	if in, ok := s.fields[first].(mapField[T]); ok && len(path) > 1 {
		return first + "." + strconv.Quote(key), entryField[T]{in, key}, ""
	}
	parts := make([]string, 0, len(path))
	for _, part := range path {
		parts = append(parts, snake(part))
	}
	name = strings.Join(parts, ".")
	if f, ok := s.fields[name]; ok {
		return name, f, ""
	}
	asked := excerpt(strings.Join(path, "."))
	for i := min(len(parts)-1, 2); i > 0; i-- { // no message is deeper
		parent := strings.Join(parts[:i], ".")
		if _, ok := s.fields[parent].(messageField[T]); ok {
			return asked, nil, "there is no such field; " + parent + " has " + strings.Join(s.under(parent+"."), ", ")
		}
	}
	return asked, nil, "there is no such field (quote a text that holds a comparator); the fields are " + strings.Join(s.under(""), ", ")
}

// under returns the names of the fields under a prefix, sorted.
func (s *filterSchema[T]) under(prefix string) []string {
	var names []string
	for path := range s.fields {
		if name, ok := strings.CutPrefix(path, prefix); ok && !strings.Contains(name, ".") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// snake turns the JSON spelling of a field into that of the contract.
func snake(name string) string {
	if !strings.ContainsFunc(name, isUpper) {
		return name
	}
	var b strings.Builder
	for _, r := range name {
		if isUpper(r) {
			b.WriteByte('_')
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

func isUpper(r rune) bool { return 'A' <= r && r <= 'Z' }

// anything is the value of a test of presence.
const anything = "*"

// everyComparator is what fields take that have an order.
const everyComparator = "= != < <= > >= :"

func (f textField[T]) compile(op filtering.TokenType, value string) (test[T], string) {
	var is func(string) bool
	switch {
	case op == filtering.TokenTypeNotEquals:
		equal, problem := f.compile(filtering.TokenTypeEquals, value)
		return negate(equal), problem
	case op == filtering.TokenTypeEquals:
		is = like(value)
	case op == filtering.TokenTypeHas && value == anything:
		is = func(s string) bool { return s != "" }
	case op == filtering.TokenTypeHas:
		is = containing(value)
	default:
		holds := relation(op)
		is = func(s string) bool { return holds(strings.Compare(s, value)) }
	}
	return func(m T) bool {
		s, ok := f(m)
		return ok && is(s)
	}, ""
}

func (textField[T]) takes(string) (ops, hint string) { return everyComparator, "" }

func (f entryField[T]) compile(op filtering.TokenType, value string) (test[T], string) {
	in, key := f.in, f.key
	if op == filtering.TokenTypeHas && value == anything { // it may be there and empty
		return func(m T) bool {
			_, ok := in(m)[key]
			return ok
		}, ""
	}
	return textField[T](func(m T) (string, bool) {
		value, ok := in(m)[key]
		return value, ok
	}).compile(op, value)
}

func (entryField[T]) takes(string) (ops, hint string) { return everyComparator, "" }

func (f mapField[T]) compile(_ filtering.TokenType, value string) (test[T], string) {
	is := like(value)
	return func(m T) bool {
		for key := range f(m) {
			if is(key) {
				return true
			}
		}
		return false
	}, ""
}

func (mapField[T]) takes(name string) (ops, hint string) {
	return ":", " (" + name + ":KEY) for whether it has a key; " + name + ".KEY takes the others"
}

func (f listField[T]) compile(_ filtering.TokenType, value string) (test[T], string) {
	is := like(value)
	return func(m T) bool { return slices.ContainsFunc(f(m), is) }, ""
}

func (listField[T]) takes(string) (ops, hint string) {
	return ":", " for whether the list holds a value"
}

func (f messageField[T]) compile(_ filtering.TokenType, value string) (test[T], string) {
	if value != anything {
		return nil, "a message takes only :* for whether it is set; compare its fields"
	}
	return test[T](f), ""
}

func (messageField[T]) takes(string) (ops, hint string) {
	return ":", "* for whether it is set; its fields take more"
}

func (f boolField[T]) compile(op filtering.TokenType, value string) (test[T], string) {
	switch {
	case op == filtering.TokenTypeHas && value == anything:
		return test[T](f), ""
	case value != "true" && value != "false":
		return nil, echo(value) + " is neither true nor false"
	case (value == "true") == (op != filtering.TokenTypeNotEquals):
		return test[T](f), ""
	default:
		return negate(test[T](f)), ""
	}
}

func (boolField[T]) takes(string) (ops, hint string) { return "= != :", "" }

func (f enumField[T, E]) compile(op filtering.TokenType, value string) (test[T], string) {
	var is test[T]
	if op == filtering.TokenTypeHas && value == anything {
		get := f.get
		is = func(m T) bool { return get(m) != 0 }
	} else {
		values := E(0).Descriptor().Values()
		v := values.ByName(protoreflect.Name(f.prefix() + f.spell(value)))
		if v == nil {
			words := make([]string, 0, values.Len())
			for i := range values.Len() {
				words = append(words, string(values.Get(i).Name()))
			}
			return nil, echo(value) + " is none of " + strings.Join(words, ", ") + "; " + f.prefix() + " may be left out"
		}
		get, want := f.get, E(v.Number())
		is = func(m T) bool { return get(m) == want }
	}
	if in := f.in; in != nil {
		set := is
		is = func(m T) bool { return in(m) && set(m) }
	}
	if op == filtering.TokenTypeNotEquals {
		return negate(is), ""
	}
	return is, ""
}

func (enumField[T, E]) takes(string) (ops, hint string) { return "= != :", "" }

// spell returns a value without its prefix, as most write it.
func (f enumField[T, E]) spell(value string) string { return strings.TrimPrefix(value, f.prefix()) }

// prefix is what the names of all values begin with.
func (enumField[T, E]) prefix() string {
	return strings.TrimSuffix(string(E(0).Descriptor().Values().Get(0).Name()), "UNSPECIFIED")
}

func (f timeField[T]) compile(op filtering.TokenType, value string) (test[T], string) {
	if op == filtering.TokenTypeHas && value == anything {
		return func(m T) bool { return f(m) != nil }, ""
	}
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		return nil, echo(value) + " is not a time like 2026-01-31T08:00:00Z or 2026-01-31T16:00:00+08:00"
	}
	want := timestamppb.New(t)
	if op == filtering.TokenTypeNotEquals {
		return func(m T) bool { return compareTimes(f(m), want) != 0 }, ""
	}
	holds := relation(op)
	return func(m T) bool {
		t := f(m)
		return t != nil && holds(compareTimes(t, want))
	}, ""
}

func (timeField[T]) takes(string) (ops, hint string) { return everyComparator, "" }

func (f intField[T]) compile(op filtering.TokenType, value string) (test[T], string) {
	return compileNumber(f.get, f.optional, op, value, filterNumber.compareInt)
}

func (intField[T]) takes(string) (ops, hint string) { return everyComparator, "" }

func (f floatField[T]) compile(op filtering.TokenType, value string) (test[T], string) {
	get := func(m T) (float64, bool) {
		v, ok := f.get(m)
		return v, ok && v == v // not a number is no value
	}
	return compileNumber(get, f.optional, op, value, filterNumber.compareFloat)
}

func (floatField[T]) takes(string) (ops, hint string) { return everyComparator, "" }

func compileNumber[T any, V int64 | float64](
	get func(T) (V, bool), optional bool, op filtering.TokenType, value string, compare func(filterNumber, V) int,
) (test[T], string) {
	if op == filtering.TokenTypeHas && value == anything {
		return func(m T) bool {
			v, ok := get(m)
			return ok && (optional || v != 0)
		}, ""
	}
	want, ok := parseNumber(value)
	if !ok {
		return nil, echo(value) + " is not a number like 4, 0.5 or 1e9"
	}
	if op == filtering.TokenTypeNotEquals {
		return func(m T) bool {
			v, ok := get(m)
			return !ok || compare(want, v) != 0
		}, ""
	}
	holds := relation(op)
	return func(m T) bool {
		v, ok := get(m)
		return ok && holds(compare(want, v))
	}, ""
}

// filterNumber is a number of a filter. One that is whole and fits is kept exactly,
// since sizes in bytes may be greater than a float can tell apart.
type filterNumber struct {
	whole bool
	i     int64
	f     float64
}

func parseNumber(text string) (filterNumber, bool) {
	if strings.Trim(text, "0123456789+-.eE") != "" { // Go reads more: 0x1p4, Inf, 1_0
		return filterNumber{}, false
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return filterNumber{whole: true, i: i, f: float64(i)}, true
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return filterNumber{}, false
	}
	if i := int64(f); f >= -1<<63 && f < 1<<63 && float64(i) == f {
		return filterNumber{whole: true, i: i, f: f}, true
	}
	return filterNumber{f: f}, true
}

// compareInt compares v with the number.
func (x filterNumber) compareInt(v int64) int {
	switch {
	case x.whole:
		return cmp.Compare(v, x.i)
	case x.f >= 1<<63:
		return -1
	case x.f < -1<<63:
		return 1
	default: // a fraction, so less than 2^53, where rounding v changes nothing
		return cmp.Compare(float64(v), x.f)
	}
}

// compareFloat compares v with the number.
func (x filterNumber) compareFloat(v float64) int { return cmp.Compare(v, x.f) }

// compareTimes compares two times. One that is unset comes first.
func compareTimes(a, b *timestamppb.Timestamp) int {
	switch {
	case a == nil || b == nil:
		return cmp.Compare(isSet(a), isSet(b))
	case a.GetSeconds() != b.GetSeconds():
		return cmp.Compare(a.GetSeconds(), b.GetSeconds())
	default:
		return cmp.Compare(a.GetNanos(), b.GetNanos())
	}
}

func isSet(t *timestamppb.Timestamp) int {
	if t == nil {
		return 0
	}
	return 1
}

// relation returns what a comparator makes of the result of a comparison. It is
// not asked for !=, which has its own meaning for what is unset.
func relation(op filtering.TokenType) func(int) bool {
	switch op {
	case filtering.TokenTypeLessThan:
		return func(c int) bool { return c < 0 }
	case filtering.TokenTypeLessEquals:
		return func(c int) bool { return c <= 0 }
	case filtering.TokenTypeGreaterThan:
		return func(c int) bool { return c > 0 }
	case filtering.TokenTypeGreaterEquals:
		return func(c int) bool { return c >= 0 }
	default: // = and :
		return func(c int) bool { return c == 0 }
	}
}

// like returns whether a text is a pattern in which * stands for any characters.
func like(pattern string) func(string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return func(s string) bool { return s == pattern }
	}
	first, middle, last := parts[0], parts[1:len(parts)-1], parts[len(parts)-1]
	return func(s string) bool {
		if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
			return false
		}
		s = s[len(first) : len(s)-len(last)]
		// Taking each part where it comes first leaves the most to the rest, so
		// nothing has to be tried twice.
		for _, part := range middle {
			i := strings.Index(s, part)
			if i < 0 {
				return false
			}
			s = s[i+len(part):]
		}
		return true
	}
}

// containing returns whether a text contains a pattern, whatever the case.
func containing(pattern string) func(string) bool {
	pattern = strings.ToLower(pattern)
	is := func(s string) bool { return strings.Contains(s, pattern) }
	if strings.Contains(pattern, "*") {
		is = like("*" + pattern + "*")
	}
	return func(s string) bool { return is(strings.ToLower(s)) }
}
