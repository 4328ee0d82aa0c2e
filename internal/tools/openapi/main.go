// Openapi completes the OpenAPI document that protoc-gen-openapi writes with what
// that cannot know from the contract: where the API is, how callers say who they
// are, an id of its own for each operation, the two forms in which a watch comes
// over HTTP, and examples. These are answers of a real server, which a test of
// cmd/server records in the folder examples and keeps true.
//
// Beside it, it writes the same document with its descriptions in Chinese, from a file
// that has a translation of each: openapi.zh-CN.yaml of openapi.yaml and zh-CN.yaml.
//
// Usage: openapi EXAMPLES TRANSLATIONS FILE
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: openapi EXAMPLES TRANSLATIONS FILE")
		os.Exit(2)
	}
	if err := run(os.DirFS(os.Args[1]), os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run(examples fs.FS, translations, file string) error {
	before, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	after, err := complete(before, examples)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	words, err := os.ReadFile(translations)
	if err != nil {
		return err
	}
	translated, err := translate(after, words)
	if err != nil {
		return fmt.Errorf("%s:\n%w", translations, err)
	}
	if err := os.WriteFile(strings.TrimSuffix(file, "yaml")+filepath.Base(translations), translated, 0o644); err != nil {
		return err
	}
	return os.WriteFile(file, after, 0o644)
}

// added is what the document gets beside its paths. Its servers are relative: the
// document is about the server that it is read from.
const added = `
info:
  contact: {name: notebookd, url: "https://github.com/notebookd/notebookd"}
servers:
  - {url: /, description: The server that this document comes from.}
security:
  - {}
  - bearer: []
components:
  securitySchemes:
    bearer:
      type: http
      scheme: bearer
      description: >-
        A token of the server's token file or of its OpenID Connect issuer. A server without
        auth asks for none, and one that knows callers by client certificates asks for those.
  schemas:
    WatchLine:
      type: object
      description: WatchLine is one line of a watch. The last one may be an error.
      properties:
        result: {$ref: "#/components/schemas/WatchResponse"}
        error: {$ref: "#/components/schemas/Status"}
`

// lastEventID is the header with which a browser resumes.
const lastEventID = `
name: Last-Event-ID
in: header
description: Resume token, as EventSource sends it after a connection was lost. It counts instead of resumeToken.
schema: {type: string}
`

// streamed is the answer of a watch.
const streamed = `
application/x-ndjson:
  schema: {$ref: "#/components/schemas/WatchLine"}
text/event-stream:
  schema: {type: string, description: Server-Sent Events. docs/watch.md has their types.}
`

// pathExamples are parts of names that the simulated clouds have.
var pathExamples = map[string]string{"cloud": "core", "location": "xb3", "notebook": "nb-eiguqichl5hc"}

// places tell the bindings of one call apart.
var places = []struct{ path, suffix string }{
	{"/locations/{location}/notebooks", "OfLocation"},
	{"/clouds/{cloud}/notebooks", "OfCloud"},
}

func complete(document []byte, examples fs.FS) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(document, &doc); err != nil {
		return nil, err
	}
	if doc.Kind != yaml.DocumentNode {
		return nil, errors.New("there is no document")
	}
	root := doc.Content[0]
	trim(root)
	more, err := parse([]byte(added))
	if err != nil {
		return nil, err
	}
	merge(root, more)
	if err := pathOnly(get(root, "components", "schemas", "ChangeImageRequest"), "name"); err != nil {
		return nil, fmt.Errorf("ChangeImageRequest: %w", err)
	}
	paths := get(root, "paths")
	if paths == nil {
		return nil, errors.New("there are no paths")
	}
	ids := map[string]bool{}
	for i := 0; i < len(paths.Content); i += 2 {
		path := paths.Content[i].Value
		for j := 1; j < len(paths.Content[i+1].Content); j += 2 {
			id, err := operation(path, paths.Content[i+1].Content[j], examples)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			if ids[id] {
				return nil, fmt.Errorf("%s is there twice", id)
			}
			ids[id] = true
		}
	}
	if err := example(get(root, "components", "schemas", "Status"), examples, "Status.json"); err != nil {
		return nil, err
	}
	// An example of nothing is one of an operation that has gone or was renamed.
	files, err := fs.Glob(examples, "*")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if id, _, _ := strings.Cut(file, "."); !ids[id] && id != "Status" {
			return nil, fmt.Errorf("examples/%s is of no operation", file)
		}
	}
	return encode(&doc)
}

func encode(n *yaml.Node) ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(4) // as protoc-gen-openapi does
	if err := errors.Join(encoder.Encode(n), encoder.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// pathOnly takes a field out of a request over HTTP, whose path has it.
func pathOnly(schema *yaml.Node, field string) error {
	properties, required := get(schema, "properties"), get(schema, "required")
	if get(properties, field) == nil || required == nil {
		return errors.New("it has no required " + field)
	}
	for i := 0; i < len(properties.Content); i += 2 {
		if properties.Content[i].Value == field {
			properties.Content = slices.Delete(properties.Content, i, i+2)
			break
		}
	}
	required.Content = slices.DeleteFunc(required.Content, func(n *yaml.Node) bool { return n.Value == field })
	return nil
}

// operation completes one operation and returns its id.
func operation(path string, op *yaml.Node, examples fs.FS) (string, error) {
	id := get(op, "operationId")
	if id == nil {
		return "", errors.New("an operation has no id")
	}
	call := id.Value
	if strings.HasSuffix(call, "_List") || strings.HasSuffix(call, "_Watch") {
		for _, place := range places {
			if strings.Contains(path, place.path) {
				id.Value += place.suffix
				break
			}
		}
	}
	if parameters := get(op, "parameters"); parameters != nil {
		for _, p := range parameters.Content {
			if value := pathExamples[get(p, "name").Value]; value != "" && get(p, "in").Value == "path" {
				set(p, "example", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value})
			}
		}
	}
	if body := get(op, "requestBody", "content", "application/json"); body != nil {
		if err := example(body, examples, id.Value+".request.json"); err != nil {
			return "", err
		}
	}
	good := get(op, "responses", "200")
	if good == nil {
		return "", errors.New("an operation has no good answer")
	}
	if !strings.HasSuffix(call, "_Watch") {
		return id.Value, example(get(good, "content", "application/json"), examples, id.Value+".json")
	}
	content, err := parse([]byte(streamed))
	if err != nil {
		return "", err
	}
	set(good, "content", content)
	header, err := parse([]byte(lastEventID))
	if err != nil {
		return "", err
	}
	parameters := get(op, "parameters")
	if parameters == nil {
		return "", errors.New("a watch has no parameters")
	}
	parameters.Content = append(parameters.Content, header)
	if err := example(get(content, "application/x-ndjson"), examples, id.Value+".json"); err != nil {
		return "", err
	}
	return id.Value, example(get(content, "text/event-stream"), examples, id.Value+".txt")
}

// example gives a node an example: a file of JSON, or of text.
func example(of *yaml.Node, examples fs.FS, file string) error {
	if of == nil {
		return fmt.Errorf("there is no place for %s", file)
	}
	data, err := fs.ReadFile(examples, file)
	if err != nil {
		return err
	}
	if strings.HasSuffix(file, ".txt") {
		set(of, "example", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.LiteralStyle, Value: string(data)})
		return nil
	}
	value, err := parse(data)
	if err != nil {
		return fmt.Errorf("examples/%s: %w", file, err)
	}
	set(of, "example", value)
	return nil
}

// parse reads YAML or JSON, to be written in lines.
func parse(data []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	if doc.Kind != yaml.DocumentNode {
		return nil, errors.New("there is nothing in it")
	}
	var inLines func(n *yaml.Node)
	inLines = func(n *yaml.Node) {
		n.Style = 0
		for _, c := range n.Content {
			inLines(c)
		}
	}
	inLines(doc.Content[0])
	return doc.Content[0], nil
}

// trim takes away the space that comments of the contract begin their lines with.
func trim(n *yaml.Node) {
	if n.Kind == yaml.MappingNode {
		for i := 0; i < len(n.Content); i += 2 {
			if value := n.Content[i+1]; n.Content[i].Value == "description" && value.Kind == yaml.ScalarNode {
				value.Value = strings.ReplaceAll(value.Value, "\n ", "\n")
			}
		}
	}
	for _, c := range n.Content {
		trim(c)
	}
}

// get finds a value by its keys. It is nil if there is none.
func get(n *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		var found *yaml.Node
		for i := 0; n != nil && n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				found = n.Content[i+1]
			}
		}
		n = found
	}
	return n
}

// set sets the value of a key.
func set(n *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content[i+1] = value
			return
		}
	}
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, value)
}

// merge adds to a node what it has not.
func merge(n, more *yaml.Node) {
	for i := 0; i < len(more.Content); i += 2 {
		key, value := more.Content[i].Value, more.Content[i+1]
		if old := get(n, key); old != nil && old.Kind == yaml.MappingNode && value.Kind == yaml.MappingNode {
			merge(old, value)
		} else {
			set(n, key, value)
		}
	}
}
