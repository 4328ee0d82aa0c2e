package access

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// tokenPrefix makes a token that was published by mistake easy to find.
const tokenPrefix = "nbd_"

// tokenHash is the SHA-256 of a token. A token of [NewToken] is 256 bits of chance,
// so that a slow hash would protect nothing more.
type tokenHash [sha256.Size]byte

// staticToken is an entry of the tokens file.
type staticToken struct {
	subject string
	groups  []string
	expires time.Time // zero: never
}

func (t staticToken) identity(now time.Time) (Identity, error) {
	if !t.expires.IsZero() && !now.Before(t.expires) {
		return Identity{}, reject("expired")
	}
	return Identity{Subject: t.subject, Groups: t.groups, Method: MethodToken, Expires: t.expires}, nil
}

// tokenEntry is an entry as it is written.
type tokenEntry struct {
	Subject string   `yaml:"subject"`
	Groups  []string `yaml:"groups,flow,omitempty"`
	SHA256  string   `yaml:"sha256"`
}

// NewToken makes a static token, and the entry that lets the tokens file know it:
// an item of its YAML list. The token itself is kept nowhere.
func NewToken(subject string, groups []string) (token, entry string, err error) {
	if !goodName(subject) {
		return "", "", errors.New("subject: " + badName)
	}
	for _, name := range groups {
		if !goodName(name) {
			return "", "", errors.New("groups: " + badName)
		}
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	hash := sha256.Sum256([]byte(token))
	text, err := yaml.Marshal([]tokenEntry{{subject, groups, hex.EncodeToString(hash[:])}})
	if err != nil {
		return "", "", fmt.Errorf("entry of a token: %w", err)
	}
	return token, string(text), nil
}

const badName = "must be a text of at most 1024 bytes without control characters"

// tokensFile reads a tokens file. Nothing that stands in the file gets into a
// problem, since it may be a token that was put in the wrong place: problems tell
// the line and the index.
type tokensFile struct {
	tokens   map[tokenHash]staticToken
	first    map[tokenHash]int // index of the entry that has it
	problems []string
}

// parseTokens returns the tokens of a file, and all problems with it.
func parseTokens(data []byte) (map[tokenHash]staticToken, []string) {
	f := &tokensFile{tokens: map[tokenHash]staticToken{}, first: map[tokenHash]int{}}
	var root yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	switch err := decoder.Decode(&root); {
	case errors.Is(err, io.EOF):
		return nil, []string{"the file is empty; a list without tokens is []"}
	case err != nil:
		return nil, []string{notYAML(err)}
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 || root.Content[0].Kind != yaml.SequenceNode {
		return nil, []string{"must be a list of tokens"}
	}
	for i, node := range root.Content[0].Content {
		f.entry(node, i)
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		f.problems = append(f.problems, "more than one document")
	}
	return f.tokens, f.problems
}

var yamlLine = regexp.MustCompile(`^yaml: (line \d+: )`)

// notYAML tells where a file is not YAML. The decoder's own text may quote it.
func notYAML(err error) string {
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		return m[1] + "not YAML"
	}
	return "not YAML"
}

func (f *tokensFile) problem(node *yaml.Node, index int, text string) {
	f.problems = append(f.problems, fmt.Sprintf("line %d: [%d]%s", node.Line, index, text))
}

func (f *tokensFile) entry(node *yaml.Node, index int) {
	if node.Kind != yaml.MappingNode {
		f.problem(node, index, ": must have subject and sha256; plain tokens are not kept here")
		return
	}
	var token staticToken
	var hash tokenHash
	hashed := false
	given := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name := key.Value
		switch name {
		case "subject", "groups", "sha256", "expires":
			if given[name] {
				f.problem(key, index, "."+name+": is given twice")
				continue
			}
			given[name] = true
		}
		switch name {
		case "subject":
			if !text(value) || !goodName(value.Value) {
				f.problem(value, index, ".subject: "+badName)
			}
			token.subject = value.Value
		case "groups":
			token.groups = f.groups(value, index)
		case "sha256":
			hash, hashed = f.hash(value, index)
		case "expires":
			var err error
			if token.expires, err = time.Parse(time.RFC3339, value.Value); err != nil || value.Kind != yaml.ScalarNode {
				f.problem(value, index, ".expires: must be a time such as 2027-01-31T12:00:00Z")
			}
		case "token":
			f.problem(key, index, ".token: plain tokens are not kept here; give the sha256 of it")
		default:
			f.problem(key, index, ": unknown key; known are subject, groups, sha256 and expires")
		}
	}
	for _, name := range []string{"subject", "sha256"} {
		if !given[name] {
			f.problem(node, index, "."+name+": is needed")
		}
	}
	if !hashed {
		return
	}
	if first, ok := f.first[hash]; ok {
		f.problem(node, index, fmt.Sprintf(".sha256: is that of [%d]", first))
		return
	}
	f.first[hash] = index
	f.tokens[hash] = token
}

func (f *tokensFile) groups(node *yaml.Node, index int) []string {
	if node.Kind != yaml.SequenceNode {
		f.problem(node, index, ".groups: must be a list")
		return nil
	}
	var out []string
	for _, item := range node.Content {
		if !text(item) || !goodName(item.Value) {
			f.problem(item, index, ".groups: "+badName)
			continue
		}
		out = append(out, item.Value)
	}
	return out
}

func (f *tokensFile) hash(node *yaml.Node, index int) (tokenHash, bool) {
	var hash tokenHash
	raw, err := hex.DecodeString(node.Value)
	switch {
	case node.Kind != yaml.ScalarNode || err != nil || len(raw) != len(hash):
		problem := ".sha256: must be 64 hexadecimal digits"
		if strings.HasPrefix(node.Value, tokenPrefix) {
			problem = ".sha256: is a plain token; give the sha256 of it"
		}
		f.problem(node, index, problem)
		return hash, false
	case tokenHash(raw) == sha256.Sum256(nil):
		f.problem(node, index, ".sha256: is that of nothing")
		return hash, false
	}
	return tokenHash(raw), true
}

// text reports whether a node is a text, and not what YAML takes for something
// else, as null or a reference.
func text(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.Tag != "!!null"
}
