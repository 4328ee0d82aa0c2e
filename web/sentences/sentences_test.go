package sentences

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// TestCases has the cases that the console's reader of the table is tested with too.
func TestCases(t *testing.T) {
	data, err := os.ReadFile("testdata/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases [][2]*string
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		got, ok := Chinese(*c[0])
		switch want := c[1]; {
		case want == nil && ok:
			t.Errorf("%q is %q, want it unknown", *c[0], got)
		case want == nil && Of(*c[0]) != *c[0]:
			t.Errorf("%q, which is unknown, is told as %q", *c[0], Of(*c[0]))
		case want != nil && (got != *want || Of(*c[0]) != *want):
			t.Errorf("%q is %q, want %q", *c[0], got, *want)
		}
	}
	began := time.Now()
	for _, text := range []string{
		strings.Repeat("a: ", 1300), strings.Repeat("at position 1: ", 270), strings.Repeat("a; ", 1300), "a: b; c: d; e: f; g: h; i", strings.Repeat("not ; ", 600),
	} {
		if got, ok := Chinese(text); ok {
			t.Errorf("%.40q is %.40q", text, got)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("what somebody has typed is looked at for %v", took)
	}
}

// TestTables: each sentence has a translation that is one, with the same placeholders.
func TestTables(t *testing.T) {
	for name, data := range map[string][]byte{"chinese.json": answers, "starting.json": starting} {
		decoder := json.NewDecoder(strings.NewReader(string(data)))
		var texts []string
		for {
			tok, err := decoder.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if text, ok := tok.(string); ok {
				texts = append(texts, text)
			}
		}
		seen := map[string]bool{}
		for i := 0; i+1 < len(texts); i += 2 {
			english, zh := texts[i], texts[i+1]
			if seen[english] {
				t.Errorf("%s: %q is there twice", name, english)
			}
			seen[english] = true
			a, b := placeholder.FindAllString(english, -1), placeholder.FindAllString(zh, -1)
			slices.Sort(a)
			slices.Sort(b)
			if !slices.Equal(a, b) || len(slices.Compact(a)) != len(b) {
				t.Errorf("%s: %q has the placeholders %v, and its translation %v", name, english, a, b)
			}
			if !han(strings.Join(placeholder.Split(zh, -1), "")) && len(b) == 0 || han(english) {
				t.Errorf("%s: %q is no translation of %q", name, zh, english)
			}
		}
	}
}

func han(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return unicode.Is(unicode.Han, r) })
}

// TestEverythingThatTheServerSays reads the sources of the server for what it can say
// to people, and fails for what has no Chinese.
func TestEverythingThatTheServerSays(t *testing.T) {
	s := &sources{t: t, files: token.NewFileSet(), found: map[string]token.Position{}}
	s.read("../../internal/imagechange", everything)
	s.read("../../internal/service", told, assigned)
	s.read("../../internal/inventory", told)
	s.read("../../internal/access", told)
	s.read("../../internal/upstream/coreshub", constants, told)
	s.read("../../internal/upstream/scnet", constants, told)
	s.read("../../cmd/server", told, assigned)
	if len(s.found) < 130 {
		t.Fatalf("only %d sentences were found: what finds them is wrong", len(s.found))
	}
	for _, known := range []string{ // one for each place that is looked at
		"release the old one", "the old notebook is as it was", "the cloud refused it", "this cloud takes none", `must be one of "x"`,
		"this parenthesis closes nothing", `"x" is neither true nor false`, "it is named twice", "the cloud has no such image",
		"the log cannot be written", "no such path, or not with this method", "is not UTF-8", "malformed", "the region has no AI service",
		"the account no longer has this location", "is larger than 7 bytes", "more than 7 parentheses are in each other",
		"The new notebook needs 7 free cards. If there are none, the change fails and the old notebook is started again, if it can be.",
	} {
		if _, ok := s.found[known]; !ok {
			t.Errorf("%q was not found: what finds such sentences is wrong", known)
		}
	}
	for text, at := range s.found {
		if zh, ok := Chinese(text); !ok || !han(zh) {
			t.Errorf("%s: %q has no Chinese; put it into chinese.json", at, text)
		}
	}
	// The table has nothing that is not said.
	whole, templates := ofAnswers().whole, ofAnswers().templates
	elsewhere := []string{"the end", "the registry password was not kept", "must be a valid UUID", "value must be one of the defined enum values"}
	for english := range whole {
		if _, ok := s.found[english]; !ok && !slices.Contains(elsewhere, english) {
			t.Errorf("%q is in chinese.json and never said", english)
		}
	}
	// What is told only in parts, as the table has it.
	var all []string
	for english := range whole {
		all = append(all, english)
	}
	for _, tt := range templates {
		all = append(all, tt.english)
	}
	together := placeholder.ReplaceAllString(strings.Join(all, "\n"), "\x00")
	for _, name := range []string{"filter.go", "order.go"} {
		pieces := s.pieces(filepath.Join("../../internal/service", name))
		if len(pieces) < 3 {
			t.Errorf("%s: only %d pieces of sentences were found", name, len(pieces))
		}
		for piece, at := range pieces {
			if !strings.Contains(together, piece) {
				t.Errorf("%s: %q is in no sentence of chinese.json", at, piece)
			}
		}
	}
}

// TestEverythingOfStarting reads the sources for what can be wrong with a
// configuration, and fails for what has no Chinese.
func TestEverythingOfStarting(t *testing.T) {
	s := &sources{t: t, files: token.NewFileSet(), found: map[string]token.Position{}}
	for _, dir := range []string{"../../cmd/server", "../../internal/access", "../../internal/telemetry", "../../internal/upstream/coreshub", "../../internal/upstream/scnet"} {
		s.read(dir, wrong)
	}
	s.read("../../internal/upstream", wrong, returned)
	s.read("../../internal/telemetry", returned)
	if len(s.found) < 100 {
		t.Fatalf("only %d sentences were found: what finds them is wrong", len(s.found))
	}
	for _, known := range []string{ // one for each place that is looked at
		"unknown key", "must be a whole number", `must be one of "x"`, "must be from 7 to 7", "grants nothing to anybody", "is a plain token; give the sha256 of it",
		"must be a list of tokens", "is no name of a header", "the file holds no certificate", "needed, unless namespaces are given", "only a login gives a token of the platform",
		"must be an http or https URL", "must be {env: NAME}, {file: PATH} or {value: TEXT}", "must be one of {env: NAME}, {file: PATH} and {value: TEXT}", "needs cert and key",
	} {
		if _, ok := s.found[known]; !ok {
			t.Errorf("%q was not found: what finds such sentences is wrong", known)
		}
	}
	for text, at := range s.found {
		if zh := Starting(text); !han(zh) {
			t.Errorf("%s: %q has no Chinese; put it into starting.json", at, text)
		}
	}
	// What others say, which is not looked for: the system, and the reader of YAML.
	for english, want := range map[string]string{
		"configuration: open a b.yaml: no such file or directory":                                            "配置：无法打开 a b.yaml：文件不存在",
		"cert and key: open tls.crt: permission denied":                                                      "cert 和 key：无法打开 tls.crt：没有权限",
		"tokens.yaml: line 2: [0].sha256: is that of [1]":                                                    "tokens.yaml：第 2 行：[0].sha256：与 [1] 相同",
		"tokens.yaml: line 3: not YAML":                                                                      "tokens.yaml：第 3 行：不是 YAML",
		`mapping key "http" already defined at line 1`:                                                       `键 "http" 已在第 1 行定义`,
		"grpc: listen tcp 127.0.0.1:9090: bind: address already in use":                                      "grpc：无法监听 127.0.0.1:9090：端口已被占用",
		"storage: data directory a is in use by another process; give each its own, or share a NATS cluster": "存储：数据目录 a 正被另一个进程使用；请给每个进程单独的目录，或共用一个 NATS 集群",
		"storage: data directory: mkdir /a: permission denied":                                               "存储：数据目录：无法创建目录 /a：没有权限",
		"storage: stream KV_A is not as configured: max age is 5s and should be 9s; change the configuration, or the stream with the nats tool":                                    "存储：流 KV_A 与配置不符（最长保留时间为 5s，应为 9s）；请修改配置，或用 nats 工具修改该流",
		`Get "http://127.0.0.1:1/readyz": dial tcp 127.0.0.1:1: connect: connection refused`:                                                                                       `无法请求 "http://127.0.0.1:1/readyz"：127.0.0.1:1 拒绝连接`,
		"storage: stream KV_A is not as configured: replicas is 1 and should be 3; sealed is true and should be false; change the configuration, or the stream with the nats tool": "存储：流 KV_A 与配置不符（副本数为 1，应为 3；封存为 true，应为 false）；请修改配置，或用 nats 工具修改该流",
		"error reading server preface: EOF": "无法读取服务器的应答：连接被对方关闭",
		"authentication handshake failed: tls: failed to verify certificate: x509: certificate is valid for a, b, not c": "TLS 握手失败：证书未通过验证：证书只适用于 a, b，不适用于 c",
		"dial tcp: lookup nowhere on 10.0.0.2:53: no such host":                                                          "10.0.0.2:53 上找不到主机 nowhere",
		"something that nobody has thought of: and that stays":                                                           "something that nobody has thought of: and that stays",
	} {
		if got := Starting(english); got != want {
			t.Errorf("%q is %q, want %q", english, got, want)
		}
	}
}

// TestWarningsHaveWords: notebookctl has words for the code of each warning, for where
// there is nothing else of it.
func TestWarningsHaveWords(t *testing.T) {
	data, err := os.ReadFile("../../internal/imagechange/plan.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`\bWarning\w+\s+= "([A-Z_]+)"`).FindAllStringSubmatch(string(data), -1)
	if len(codes) < 6 {
		t.Fatalf("only %d codes were found", len(codes))
	}
	const file = "../../cmd/notebookctl/internal/words/contract.go"
	words, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range codes {
		if !strings.Contains(string(words), strconv.Quote(code[1])) {
			t.Errorf("%s has no words for the warning %s", file, code[1])
		}
	}
}

// TestRulesOfTheContract: what the rules of the contract say of requests that break
// them is Chinese too.
func TestRulesOfTheContract(t *testing.T) {
	validator, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	long, late := strings.Repeat("a b", 3000), durationpb.New(1000*time.Hour)
	said := map[string]string{}
	for _, request := range []proto.Message{
		&notebookv1.ListRequest{Parent: long, Filter: long, OrderBy: long, PageSize: -1, PageToken: long, MaxStaleness: durationpb.New(-1)},
		&notebookv1.WatchRequest{Parent: "x", Filter: long, ResumeToken: long, Snapshot: 77, BookmarkInterval: durationpb.New(1)},
		&notebookv1.ChangeImageRequest{},
		&notebookv1.ChangeImageRequest{
			Name: long, Image: long, ImageType: long, RegistryCredential: &notebookv1.RegistryCredential{Username: long, Password: long},
			RequestId: "x", Etag: long, Acknowledge: slices.Repeat([]string{"x y"}, 20), Reason: long, Wait: late,
		},
		&notebookv1.ChangeImageRequest{RegistryCredential: &notebookv1.RegistryCredential{}},
		&notebookv1.GetCloudRequest{Name: "x"},
		&notebookv1.GetImageChangeRequest{Name: "x"},
		&notebookv1.ListImageChangesRequest{Filter: long, PageSize: -1, PageToken: long},
	} {
		problems, ok := errors.AsType[*protovalidate.ValidationError](validator.Validate(request))
		if !ok {
			t.Fatalf("%T breaks no rule", request)
		}
		for _, v := range problems.Violations {
			said[v.Proto.GetMessage()] = protovalidate.FieldPathString(v.Proto.GetField())
		}
	}
	if len(said) < 20 {
		t.Fatalf("only %d rules are broken", len(said))
	}
	for message, field := range said {
		if zh, ok := Chinese(field + ": " + message); !ok || !han(zh) {
			t.Errorf("%s: %q has no Chinese; put it into chinese.json", field, message)
		}
	}
}

// TestReasonsAreKnown: the console knows every reason of the contract. That it has
// words for what it knows is a matter of its types.
func TestReasonsAreKnown(t *testing.T) {
	contract, err := os.ReadFile("../../proto/notebook/v1/errors.proto")
	if err != nil {
		t.Fatal(err)
	}
	console, err := os.ReadFile("../src/api/reasons.ts")
	if err != nil {
		t.Fatal(err)
	}
	find := func(form string, in []byte) []string {
		var out []string
		for _, m := range regexp.MustCompile(form).FindAllSubmatch(in, -1) {
			if name := string(m[1]); name != "UNSPECIFIED" {
				out = append(out, name)
			}
		}
		slices.Sort(out)
		return out
	}
	want, got := find(`(?m)^  ERROR_REASON_([A-Z_]+) = `, contract), find(`(?m)^  "([A-Z_]+)",$`, console)
	if len(want) < 30 || !slices.Equal(want, got) {
		t.Errorf("the reasons of the contract are %v, those of the console %v", want, got)
	}
}

// sources collects what is said, with samples of what is different each time.
type sources struct {
	t     *testing.T
	files *token.FileSet
	found map[string]token.Position
}

// finder gets what is said by a node, with the calls and declarations that it is in.
type finder func(s *sources, n ast.Node, in []ast.Node)

func (s *sources) read(dir string, finders ...finder) {
	s.t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(paths) == 0 {
		s.t.Fatalf("%s: %v", dir, err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(s.files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			s.t.Fatal(err)
		}
		var in []ast.Node
		ast.Inspect(file, func(n ast.Node) bool {
			if n == nil {
				in = in[:len(in)-1]
				return true
			}
			for _, find := range finders {
				find(s, n, in)
			}
			in = append(in, n)
			return true
		})
	}
}

// say notes a sentence. What has no letters, or is no text, is none.
func (s *sources) say(e ast.Expr) {
	text, ok := sample(e)
	if !ok || !strings.ContainsFunc(text, unicode.IsLetter) {
		return
	}
	// undone joins what it says to what was said before.
	s.found[strings.TrimPrefix(text, "; ")] = s.files.Position(e.Pos())
}

// unknown stands for what is different each time.
const unknown = `"x"`

// sample returns a text as it could be; false where nothing of it is known.
func sample(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.ParenExpr:
		return sample(e.X)
	case *ast.BinaryExpr:
		x, okX := sample(e.X)
		y, okY := sample(e.Y)
		return x + y, e.Op == token.ADD && (okX || okY)
	case *ast.CallExpr:
		if nameOf(e.Fun) == "Sprintf" {
			return formatted(e.Args[0])
		}
	}
	return unknown, false
}

// formatted is a sample of a format with its values.
func formatted(e ast.Expr) (string, bool) {
	text, ok := sample(e)
	return regexp.MustCompile(`%[a-z]`).ReplaceAllStringFunc(text, func(verb string) string {
		if verb == "%d" {
			return "7"
		}
		return unknown
	}), ok
}

func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.IndexExpr:
		return nameOf(e.X)
	}
	return ""
}

// arguments are the functions that tell people something, and which argument it is.
var arguments = map[string]int{
	"newStatus": 2, "Error": 2, "ErrorWith": 2, "notFound": 1, "writeBound": 3, "reject": 0, "failAt": 1, "disable": 1, "setDisabled": 1,
}

// fields are those of structs that are told to people.
var fields = map[string][]string{
	"meaning": {"", "", "message"}, "FieldViolation": {"", "Problem"}, "FieldError": {"", "Problem"}, "queryError": {"", "problem"},
	"filterError": {"", "", "Problem"}, "orderError": {"", "Problem"}, "Rejection": {"Cause"}, "endpoint": {"disabled"},
}

// results are functions whose last result is told to people.
var results = []string{"compile", "compileNumber", "lookup", "failureText"}

// told finds what is told by one of these.
func told(s *sources, n ast.Node, in []ast.Node) {
	switch n := n.(type) {
	case *ast.CallExpr:
		name := nameOf(n.Fun)
		i, ok := arguments[name]
		if !ok || len(n.Args) <= i || aboutStatus(n) {
			return
		}
		if name == "failAt" {
			if text, ok := formatted(n.Args[i]); ok {
				s.found[text] = s.files.Position(n.Pos())
			}
			return
		}
		s.say(n.Args[i])
	case *ast.CompositeLit:
		names := fields[nameOf(n.Type)]
		if m, ok := n.Type.(*ast.MapType); ok { // the name of the type is left out in its values
			names = fields[nameOf(m.Value)]
			for _, e := range n.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok && names != nil {
					if lit, ok := kv.Value.(*ast.CompositeLit); ok && lit.Type == nil {
						s.sayFields(lit, names)
					}
				}
			}
			return
		}
		s.sayFields(n, names)
	case *ast.ReturnStmt:
		for _, outer := range slices.Backward(in) {
			if _, ok := outer.(*ast.FuncLit); ok {
				return
			}
			if f, ok := outer.(*ast.FuncDecl); ok {
				if slices.Contains(results, f.Name.Name) && len(n.Results) > 0 {
					s.say(n.Results[len(n.Results)-1])
				}
				return
			}
		}
	}
}

// assigned finds what is told once it is known which it is.
func assigned(s *sources, n ast.Node, _ []ast.Node) {
	assignment, ok := n.(*ast.AssignStmt)
	if !ok || len(assignment.Lhs) != len(assignment.Rhs) {
		return
	}
	for i, left := range assignment.Lhs {
		if name := nameOf(left); name == "message" || name == "problem" {
			s.say(assignment.Rhs[i])
		}
	}
}

// problemKey is the key that a problem begins with.
var problemKey = regexp.MustCompile(`^[a-z0-9_.\[\]"]*: `)

// wrong finds what is wrong with a configuration: what functions called problem are
// given, and what is said elsewhere in the same words each time.
func wrong(s *sources, n ast.Node, in []ast.Node) {
	note := func(e ast.Expr, from func(ast.Expr) (string, bool)) {
		if text, ok := from(e); ok && text != "" {
			key := problemKey.FindString(text)
			if text = text[len(key):]; text != unknown && (key != "" || strings.Contains(text, " ")) {
				s.found[text] = s.files.Position(e.Pos())
			}
		}
	}
	switch n := n.(type) {
	case *ast.CallExpr:
		if nameOf(n.Fun) != "problem" {
			return
		}
		for _, arg := range n.Args { // the key is one of them, or in the text
			if _, isText := arg.(*ast.BasicLit); isText {
				note(arg, formatted)
			} else {
				note(arg, sample)
			}
		}
	case *ast.AssignStmt:
		for i, left := range n.Lhs {
			if nameOf(left) == "problem" && len(n.Lhs) == len(n.Rhs) {
				note(n.Rhs[i], sample)
			}
		}
	case *ast.ValueSpec:
		for i, name := range n.Names {
			if len(n.Values) == len(n.Names) && name.Name == "badName" {
				note(n.Values[i], sample)
			}
			if lit, ok := valueOf(n, i).(*ast.CompositeLit); ok && name.Name == "forms" {
				for _, e := range lit.Elts {
					note(e.(*ast.KeyValueExpr).Value, sample)
				}
			}
		}
	case *ast.ReturnStmt: // of parseTokens, which returns all problems
		for _, outer := range in {
			if f, ok := outer.(*ast.FuncDecl); ok && f.Name.Name == "parseTokens" {
				for _, result := range n.Results {
					if lit, ok := result.(*ast.CompositeLit); ok {
						for _, e := range lit.Elts {
							note(e, sample)
						}
					}
				}
			}
		}
	}
}

func valueOf(n *ast.ValueSpec, i int) ast.Expr {
	if i < len(n.Values) {
		return n.Values[i]
	}
	return nil
}

// returned finds what is wrong with a value, where functions that look at one return it.
func returned(s *sources, n ast.Node, in []ast.Node) {
	ret, ok := n.(*ast.ReturnStmt)
	if !ok || len(ret.Results) == 0 {
		return
	}
	for _, outer := range in {
		f, ok := outer.(*ast.FuncDecl)
		if !ok || !slices.Contains([]string{"EndpointProblem", "resolve", "tls"}, f.Name.Name) {
			continue
		}
		last := ret.Results[len(ret.Results)-1]
		if call, ok := last.(*ast.CallExpr); ok && nameOf(call.Fun) == "New" {
			last = call.Args[0]
		}
		if text, ok := sample(last); ok && !strings.HasPrefix(text, unknown) {
			s.say(last)
		}
	}
}

// aboutStatus reports whether a call is one of grpc's own, or of a log, of the same name.
func aboutStatus(n *ast.CallExpr) bool {
	selector, ok := n.Fun.(*ast.SelectorExpr)
	return ok && nameOf(selector.X) != "service" && nameOf(selector.X) != "inv"
}

func (s *sources) sayFields(n *ast.CompositeLit, names []string) {
	for i, e := range n.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if name := nameOf(kv.Key); name != "" && slices.Contains(names, name) {
				s.say(kv.Value)
			}
		} else if i < len(names) && names[i] != "" {
			s.say(e)
		}
	}
}

// constants finds the sentences among the constants of a package.
func constants(s *sources, n ast.Node, in []ast.Node) {
	spec, ok := n.(*ast.ValueSpec)
	if !ok || len(in) == 0 {
		return
	}
	if d, ok := in[len(in)-1].(*ast.GenDecl); !ok || d.Tok != token.CONST {
		return
	}
	for _, value := range spec.Values {
		if text, ok := sample(value); ok && sentence.MatchString(text) {
			s.say(value)
		}
	}
}

var sentence = regexp.MustCompile(`[a-z]:? [a-z]`)

// silent are functions whose arguments people are not told: those of logs and errors.
var silent = []string{"Debug", "Info", "Warn", "Error", "Log", "Errorf", "New", "NewCounterVec", "NewHistogramVec", "NewCounter", "NewGaugeFunc", "NewDesc", "panic"}

// everything finds all texts of several words but those in logs and errors.
func everything(s *sources, n ast.Node, in []ast.Node) {
	e, ok := n.(ast.Expr)
	if !ok {
		return
	}
	text, ok := sample(e)
	if !ok || !sentence.MatchString(text) {
		return
	}
	for _, outer := range in {
		switch outer := outer.(type) {
		case *ast.CallExpr:
			if name := nameOf(outer.Fun); name == "Sprintf" || slices.Contains(silent, name) {
				return
			}
		case *ast.FuncDecl:
			if outer.Name.Name == "Error" {
				return
			}
		case *ast.BinaryExpr:
			return // it was seen as a whole
		}
	}
	s.say(e)
}

// pieces are the texts of several words in a file, cut where something else comes in.
func (s *sources) pieces(path string) map[string]token.Position {
	s.t.Helper()
	file, err := parser.ParseFile(s.files, path, nil, parser.SkipObjectResolution)
	if err != nil {
		s.t.Fatal(err)
	}
	out := map[string]token.Position{}
	ast.Inspect(file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && nameOf(call.Fun) == "New" {
			return false // errors.New, which nobody is told
		}
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		text, err := strconv.Unquote(lit.Value)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, piece := range regexp.MustCompile(`%[a-z]`).Split(text, -1) {
			if sentence.MatchString(piece) {
				out[piece] = s.files.Position(lit.Pos())
			}
		}
		return true
	})
	return out
}
