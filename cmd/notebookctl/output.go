package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// The forms of output.
const (
	asTable = "table"
	asWide  = "wide"
	asJSON  = "json"
	asYAML  = "yaml"
	asName  = "name"
)

// outputFlag adds the flag for the form of the output.
func (a *app) outputFlag(cmd *cobra.Command, output *string, forms ...string) {
	cmd.Flags().StringVarP(output, "output", "o", asTable, a.l.T("`form` of the output: %s", a.l.Join(forms)))
	a.completeFlag(cmd, "output", fixed(forms...))
	check := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(forms, *output) {
			return usagef(a.l.T("--output is one of %s, not %q", a.l.Join(forms), *output))
		}
		if check != nil {
			return check(cmd, args)
		}
		return nil
	}
}

// isTable reports whether a form is one for people.
func isTable(form string) bool { return form == asTable || form == asWide }

// compactJSON is a message as the API's JSON, on one line. protojson varies its
// white space on purpose; this does not.
func compactJSON(m proto.Message) ([]byte, error) {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Compact(&out, raw)
	return out.Bytes(), err
}

// indentedJSON is the same for people.
func indentedJSON(m proto.Message, prefix string) ([]byte, error) {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Indent(&out, raw, prefix, "  ")
	return out.Bytes(), err
}

// yamlNode is a message as YAML: the API's JSON in another spelling, in the same
// order.
func yamlNode(m proto.Message) (*yaml.Node, error) {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(raw, &document); err != nil { // JSON is YAML
		return nil, err
	}
	node := document.Content[0]
	blockStyle(node)
	return node, nil
}

// blockStyle takes the braces and quotes of JSON away; the encoder quotes what needs
// to be.
func blockStyle(node *yaml.Node) {
	if len(node.Content) > 0 || node.Kind == yaml.ScalarNode {
		node.Style = 0
	}
	for _, child := range node.Content {
		blockStyle(child)
	}
}

func encodeYAML(w io.Writer, value any) error {
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	return encoder.Close()
}

// writeMessage writes one message by itself, as JSON or YAML.
func writeMessage(w io.Writer, form string, m proto.Message) error {
	if form == asYAML {
		node, err := yamlNode(m)
		if err != nil {
			return err
		}
		return encodeYAML(w, node)
	}
	text, err := indentedJSON(m, "")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}

// writeEvent writes one of many messages that come over time: as a line of JSON or
// a document of YAML.
func writeEvent(w io.Writer, form string, m proto.Message) error {
	if form == asYAML {
		node, err := yamlNode(m)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		out.WriteString("---\n")
		if err := encodeYAML(&out, node); err != nil {
			return err
		}
		_, err = w.Write(out.Bytes())
		return err
	}
	text, err := compactJSON(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

// sequence writes one object with a list, as its elements come, so that a long list
// is not held in memory.
type sequence struct {
	w     io.Writer
	form  string // json or yaml
	field string // of the list
	begun bool
}

// add writes one element.
func (s *sequence) add(m proto.Message) error {
	var out bytes.Buffer
	if s.form == asYAML {
		if !s.begun {
			fmt.Fprintf(&out, "%s:\n", s.field)
		}
		node, err := yamlNode(m)
		if err != nil {
			return err
		}
		var item bytes.Buffer
		if err := encodeYAML(&item, []*yaml.Node{node}); err != nil {
			return err
		}
		for line := range bytes.Lines(item.Bytes()) { // as the lists inside it are
			if len(line) > 1 {
				out.WriteString("  ")
			}
			out.Write(line)
		}
	} else {
		if s.begun {
			out.WriteString(",\n    ")
		} else {
			fmt.Fprintf(&out, "{\n  %q: [\n    ", s.field)
		}
		text, err := indentedJSON(m, "    ")
		if err != nil {
			return err
		}
		out.Write(text)
	}
	s.begun = true
	_, err := s.w.Write(out.Bytes())
	return err
}

// end writes what else is in the object: the fields of a message.
func (s *sequence) end(rest proto.Message) error {
	var out bytes.Buffer
	node, err := yamlNode(rest)
	if err != nil {
		return err
	}
	more := len(node.Content) > 0
	if s.form == asYAML {
		if !s.begun {
			fmt.Fprintf(&out, "%s: []\n", s.field)
		}
		if more {
			if err := encodeYAML(&out, node); err != nil {
				return err
			}
		}
	} else {
		if s.begun {
			out.WriteString("\n  ]")
		} else {
			fmt.Fprintf(&out, "{\n  %q: []", s.field)
		}
		if more {
			text, err := indentedJSON(rest, "")
			if err != nil {
				return err
			}
			text = bytes.TrimSuffix(bytes.TrimPrefix(text, []byte("{")), []byte("\n}"))
			out.WriteByte(',')
			out.Write(text)
		}
		out.WriteString("\n}\n")
	}
	_, err = s.w.Write(out.Bytes())
	return err
}
