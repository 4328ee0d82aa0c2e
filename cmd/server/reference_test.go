package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/notebookd/notebookd/internal/access"
)

// referenceText is docs/configuration.md.
func referenceText(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// referenceRow is a line of its tables.
var referenceRow = regexp.MustCompile("(?m)^\\| \\[?`([a-z_.\\[\\]]+)`.*?\\| (.*?) \\| (.*?) \\|")

// typeKeys are the keys of the file as its decoder sees them.
func typeKeys(of reflect.Type, prefix string) []string {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	switch {
	case of == secretType:
		return nil
	case of.Kind() == reflect.Slice:
		return typeKeys(of.Elem(), prefix+"[]")
	case of.Kind() != reflect.Struct:
		return nil
	}
	var out []string
	for i := range of.NumField() {
		field := of.Field(i)
		tag, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if options == "inline" {
			for name, kind := range kinds {
				at := prefix + "." + name
				out = append(append(out, at), typeKeys(reflect.TypeOf(kind.settings()), at)...)
			}
			continue
		}
		if !field.IsExported() {
			continue
		}
		at := strings.TrimPrefix(prefix+"."+tag, ".")
		out = append(append(out, at), typeKeys(field.Type, at)...)
	}
	return out
}

func TestReferenceHasEveryKey(t *testing.T) {
	want := map[string]bool{}
	for _, key := range typeKeys(reflect.TypeFor[config](), "") {
		want[key] = true
	}
	for _, page := range []string{"configuration.md", "configuration.zh-CN.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		told := map[string]bool{}
		for _, row := range referenceRow.FindAllStringSubmatch(string(text), -1) {
			told[row[1]] = true
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("docs/%s has other keys than the file: run `make docs` (-file +reference):\n%s", page, diff)
		}
	}
}

// TestReferenceTellsTheDefaults compares the defaults of the keys whose defaults are
// set in this package.
func TestReferenceTellsTheDefaults(t *testing.T) {
	told := map[string]string{}
	for _, row := range referenceRow.FindAllStringSubmatch(referenceText(t), -1) {
		told[row[1]] = strings.Trim(row[3], "`")
	}
	cfg, err := loadConfig("")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Limits = cfg.Limits.withDefaults(true)
	told["limits.calls_per_second"], _, _ = strings.Cut(told["limits.calls_per_second"], " ")
	told["limits.burst"] = strconv.Itoa(int(2 * cfg.Limits.CallsPerSecond)) // it is told in words
	compared := 0
	for key, value := range leaves(reflect.ValueOf(*cfg), "") {
		var want string
		switch value := value.Interface().(type) {
		case time.Duration:
			d, err := time.ParseDuration(told[key])
			if value == 0 { // set elsewhere
				continue
			}
			if err != nil || d != value {
				want = value.String()
			}
		case string, int, float64:
			if text := fmt.Sprint(value); reflect.ValueOf(value).IsZero() {
				continue
			} else if text != told[key] {
				want = text
			}
		default:
			continue
		}
		if compared++; want != "" {
			t.Errorf("%s: the reference says %q, the default is %s", key, told[key], want)
		}
	}
	if compared < 16 {
		t.Errorf("only %d defaults compared", compared)
	}
}

// leaves are the values of a section and of those in it.
func leaves(value reflect.Value, prefix string) map[string]reflect.Value {
	out := map[string]reflect.Value{}
	for i := range value.NumField() {
		field := value.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		at := strings.TrimPrefix(prefix+"."+field.Tag.Get("yaml"), ".")
		if field.Type.Kind() == reflect.Struct && field.Type != secretType {
			for key, value := range leaves(value.Field(i), at) {
				out[key] = value
			}
			continue
		}
		out[at] = value.Field(i)
	}
	return out
}

// alternative is a key of an example that stands in a comment, since it does not go
// with another.
var alternative = regexp.MustCompile(`(?m)^( *)# ([a-z_]+: )`)

func TestExamplesOfTheReference(t *testing.T) {
	dir := exampleFiles(t)
	for _, name := range []string{"CORESHUB_ACCESS_KEY_ID", "CORESHUB_SECRET_ACCESS_KEY", "SCNET_ACCESS_KEY", "SCNET_SECRET_KEY", "SCNET_TOKEN", "OTLP_TOKEN"} {
		t.Setenv(name, "secret")
	}
	shown := map[string]bool{}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(referenceText(t), -1)
	if len(examples) != 3 {
		t.Fatalf("%d examples, want 3", len(examples))
	}
	for _, example := range examples {
		written := strings.ReplaceAll(example[1], "/etc/notebookd/", dir+"/")
		for _, text := range []string{written, alternative.ReplaceAllString(written, "$1$2")} {
			if _, err := parseConfig("example", []byte(text)); err != nil {
				t.Errorf("%v in\n%s", err, text)
			}
			var root yaml.Node
			if err := yaml.Unmarshal([]byte(text), &root); err != nil {
				t.Fatal(err)
			}
			exampleKeys(root.Content[0], "", shown)
		}
	}
	for _, key := range typeKeys(reflect.TypeFor[config](), "") {
		if !shown[key] {
			t.Errorf("no example shows %s: add it to internal/tools/docs and run `make docs`", key)
		}
	}
}

// exampleKeys notes the keys of a node.
func exampleKeys(node *yaml.Node, path string, out map[string]bool) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			at := strings.TrimPrefix(path+"."+node.Content[i].Value, ".")
			out[at] = true
			exampleKeys(node.Content[i+1], at, out)
		}
	case yaml.SequenceNode:
		for _, item := range node.Content {
			exampleKeys(item, path+"[]", out)
		}
	default:
	}
}

// exampleFiles makes the files that the examples name. It returns their folder.
func exampleFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ca := newAuthority(t)
	cert, key := ca.issue(t, "notebookd", 2)
	_, entry, err := access.NewToken("somebody", nil)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"tls.crt": cert, "tls.key": key, "tokens.yaml": []byte(entry)}
	for _, name := range []string{"clients.crt", "collector.crt", "id.crt", "nats-ca.crt"} {
		files[name] = ca.pem
	}
	for _, name := range []string{"coreshub.secret", "nats.secret", "nats.creds", "nats.seed", "nats.crt", "nats.key"} {
		files[name] = []byte("secret\n")
	}
	names := regexp.MustCompile(`/etc/notebookd/([a-z.-]+)`).FindAllStringSubmatch(referenceText(t), -1)
	for name, text := range files {
		if !slices.ContainsFunc(names, func(m []string) bool { return m[1] == name }) {
			t.Errorf("no example names %s any more", name)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
