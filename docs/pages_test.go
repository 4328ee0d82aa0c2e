//go:build docs

package docs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", page))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestEveryCommandIsTested fails for commands in blocks that TestPages does not see.
func TestEveryCommandIsTested(t *testing.T) {
	for _, page := range pages(t) {
		for _, problem := range unseen(read(t, page)) {
			t.Errorf("%s:%s", page, problem)
		}
	}
}

// unseen are the blocks of a page that should be console blocks, or have a fence.
func unseen(page string) []string {
	var problems []string
	fence, before := "", ""
	for i, line := range strings.Split(page, "\n") {
		switch {
		case fence != "":
			if line == fence {
				fence = ""
			}
		case strings.HasPrefix(line, "```"):
			rest := strings.TrimLeft(line, "`")
			fence = line[:len(line)-len(rest)]
			if slices.Contains([]string{"sh", "bash", "shell", "zsh"}, rest) {
				problems = append(problems, fmt.Sprintf("%d: commands are shown in a console block, which is run", i+1))
			}
		case before == "" && (strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "\t")):
			problems = append(problems, fmt.Sprintf("%d: an indented block: commands are shown in a console block, anything else in one of its language", i+1))
		}
		before = strings.TrimSpace(line)
	}
	return problems
}

func TestUnseen(t *testing.T) {
	for page, want := range map[string]int{
		"text\n\n    a command\n    another\n":          1,
		"text\n\n\ta command\n":                         1,
		"text\n```sh\na\n```\n":                         1,
		"text\n```bash\na\n```\n\n    b\n":              2,
		"- item\n    of two lines\n":                    0,
		"```console\n$ a\n\n    indented output\n```\n": 0,
		"````text\n```sh\n````\n":                       0,
		"- item\n\n  more of it\n":                      0,
	} {
		if got := unseen(page); len(got) != want {
			t.Errorf("%q: %v, want %d", page, got, want)
		}
	}
}

// TestEveryPageIsInBothLanguages looks for the translation of each page;
// TestTranslations compares them.
func TestEveryPageIsInBothLanguages(t *testing.T) {
	all := pages(t)
	for _, page := range all {
		if strings.HasSuffix(page, ".zh-CN.md") {
			continue
		}
		if translated := strings.TrimSuffix(page, ".md") + ".zh-CN.md"; !slices.Contains(all, translated) {
			t.Errorf("%s has no translation: write %s", page, translated)
		}
	}
}

// TestLinks follows the relative links of all pages to the file and the heading.
func TestLinks(t *testing.T) {
	all := append(pages(t), "CONTRIBUTING.md", "CONTRIBUTING.zh-CN.md")
	err := filepath.WalkDir(filepath.Join("..", "examples"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == "node_modules" {
			return filepath.SkipDir
		}
		if err == nil && filepath.Ext(path) == ".md" {
			all = append(all, strings.TrimPrefix(filepath.ToSlash(path), "../"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	followed := 0
	for _, page := range all {
		for _, link := range links(read(t, page)) {
			followed++
			target, fragment, _ := strings.Cut(link, "#")
			if target = filepath.ToSlash(filepath.Join(filepath.Dir(page), target)); strings.HasPrefix(link, "#") {
				target = page
			}
			if _, err := os.Stat(filepath.Join("..", target)); err != nil {
				t.Errorf("%s: there is nothing at %s", page, link)
				continue
			}
			if fragment != "" && filepath.Ext(target) == ".md" && !slices.Contains(anchors(read(t, target)), fragment) {
				t.Errorf("%s: %s has no heading #%s", page, target, fragment)
			}
		}
	}
	if followed < 100 {
		t.Errorf("only %d links were found", followed)
	}
}

var (
	fenced    = regexp.MustCompile("(?ms)^(`{3,})[^`\n]*\n.*?^`{3,}$")
	code      = regexp.MustCompile("`[^`\n]*`")
	link      = regexp.MustCompile(`\]\(<?([^)\s>]+)`)
	elsewhere = regexp.MustCompile(`^[a-z][a-z+.-]*:`)
	heading   = regexp.MustCompile(`(?m)^#{1,6} +(.*?)(?: +#+)?$`)
	linkText  = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// links are the relative links of a page.
func links(page string) []string {
	var all []string
	for _, found := range link.FindAllStringSubmatch(code.ReplaceAllString(fenced.ReplaceAllString(page, ""), ""), -1) {
		if !elsewhere.MatchString(found[1]) {
			all = append(all, found[1])
		}
	}
	return all
}

// anchors are what the headings of a page are called in links, as GitHub calls them.
func anchors(page string) []string {
	var all []string
	seen := map[string]int{}
	for _, found := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(page, ""), -1) {
		text := linkText.ReplaceAllString(found[1], "$1")
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r):
				return unicode.ToLower(r)
			}
			return -1
		}, text)
		n := seen[name]
		seen[name]++
		if n > 0 {
			name += "-" + strconv.Itoa(n)
		}
		all = append(all, name)
	}
	return all
}

func TestLinksAndAnchors(t *testing.T) {
	page := "# One `thing`, and [more](a.md#b)\n## clouds[].coreshub\n## 云发生故障时\n### 续传：令牌\n# A_b - c\n# A_b - c\n" +
		"```text\n# no heading [x](y.md)\n```\n[a](b.md) `[c](d.md)` [`e`](#f) [g](https://h) ![i](j.png)\n"
	if got, want := strings.Join(links(page), " "), "a.md#b b.md #f j.png"; got != want {
		t.Errorf("links %q, want %q", got, want)
	}
	if got, want := strings.Join(anchors(page), " "), "one-thing-and-more cloudscoreshub 云发生故障时 续传令牌 a_b---c a_b---c-1"; got != want {
		t.Errorf("anchors %q, want %q", got, want)
	}
}

var (
	shownYAML    = regexp.MustCompile("(?ms)^(<!-- file:[^\n]*\n)?```yaml\n(.*?)^```$")
	usualFile    = regexp.MustCompile(`/(?:etc/notebookd|run/secrets(?:/notebookd)?|var/lib/notebookd)(/[\w.-]+)?`)
	fromVariable = regexp.MustCompile(`\{env: (\w+)\}`)
	settings     = []string{"grpc", "http", "tls", "auth", "limits", "watch", "store", "log", "debug", "drain", "reload", "clouds", "tracing"}
)

// TestConfigurations has the server check the configurations that pages show. What
// they leave out, and the files that they name, are made up. Those that are written to
// a file are used by their pages.
func TestConfigurations(t *testing.T) {
	checked := 0
	for _, page := range pages(t) {
		for _, found := range shownYAML.FindAllStringSubmatch(read(t, page), -1) {
			var config map[string]any
			if err := yaml.Unmarshal([]byte(found[2]), &config); err != nil {
				t.Errorf("%s: %v in\n%s", page, err, found[2])
				continue
			}
			if found[1] != "" || !allSettings(config) {
				continue
			}
			checked++
			if err := checkConfig(t, found[2], config); err != nil {
				t.Errorf("%s: %v of\n%s", page, err, found[2])
			}
		}
	}
	if checked == 0 {
		t.Error("no page shows a configuration")
	}
}

// allSettings reports whether a file is a configuration of the server.
func allSettings(config map[string]any) bool {
	for key := range config {
		if !slices.Contains(settings, key) {
			return false
		}
	}
	return true
}

// checkConfig asks the server about a configuration.
func checkConfig(t *testing.T, text string, config map[string]any) error {
	t.Helper()
	dir := t.TempDir()
	if _, ok := config["clouds"]; !ok {
		text += "\nclouds: [{name: core, kind: coreshub, coreshub: {zones: [xb3], user_id: usr-1, access_key_id: {value: a}, secret_access_key: {value: b}}}]\n"
	}
	if auth, ok := config["auth"].(map[string]any); ok && auth["policy"] == nil {
		text = strings.Replace(text, "auth:\n", "auth:\n  policy: [{role: viewer, subjects: [\"*\"]}]\n", 1)
	}
	cert, key := selfSigned(t)
	var err error
	text = usualFile.ReplaceAllStringFunc(text, func(path string) string {
		name := filepath.Base(path)
		file := filepath.Join(dir, name)
		content := []byte("secret\n")
		switch ext := filepath.Ext(name); {
		case ext == "":
			if mkdir := os.MkdirAll(file, 0o700); mkdir == nil && strings.HasPrefix(path, "/var/") {
				return file
			}
			_ = os.Remove(file)
		case ext == ".crt" || ext == ".pem":
			content = cert
		case ext == ".key":
			content = key
		case name == "tokens.yaml":
			content = []byte("[{subject: ci, sha256: " + strings.Repeat("0", 64) + "}]\n")
		}
		if failed := os.WriteFile(file, content, 0o600); failed != nil {
			err = failed
		}
		return file
	})
	file := filepath.Join(dir, "checked.yaml")
	if err == nil {
		err = os.WriteFile(file, []byte(text), 0o600)
	}
	if err != nil {
		return err
	}
	check := exec.Command(filepath.Join(programs, "server"), "--config", file, "--check-config")
	check.Env = os.Environ()
	for _, name := range fromVariable.FindAllStringSubmatch(text, -1) {
		check.Env = append(check.Env, name[1]+"=secret")
	}
	if out, err := check.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// selfSigned is a certificate that is its own authority, and its key, in PEM.
func selfSigned(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "notebookd"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}
