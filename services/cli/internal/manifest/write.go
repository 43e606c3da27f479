package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/marchproxy/marchproxy/pkg/api"
)

// File is a resource as files have it: what its author decides, without what the server sets.
type File struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Owner and Labels are nil where they are not said; empty ones say that there are none.
	Owner  *string           `json:"owner,omitempty"`
	Labels map[string]string `json:"labels,omitzero"`
	Spec   json.RawMessage   `json:"spec"`
}

// FileOf leaves out what the server sets.
func FileOf(o api.Object) File {
	f := File{Kind: o.Kind, Name: o.Name, Labels: o.Labels, Spec: o.Spec}
	if o.Owner != "" {
		f.Owner = &o.Owner
	}
	return f
}

// Content is the document's resource as its author wrote it.
func (d *Document) Content() File {
	f := FileOf(d.Object)
	if d.OwnerGiven {
		f.Owner = &d.Owner
	}
	return f
}

// Without is a JSON object without one of its members; the others keep their order.
func Without(raw json.RawMessage, member string) (json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil { // the brace
		return nil, fmt.Errorf("read spec: %w", err)
	}
	var out bytes.Buffer
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("read spec: %w", err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fmt.Errorf("read spec: %w", err)
		}
		if name == member {
			continue
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			return nil, fmt.Errorf("write spec: %w", err)
		}
		if out.Len() > 0 {
			out.WriteByte(',')
		}
		out.Write(quoted)
		out.WriteByte(':')
		out.Write(value)
	}
	return append(append([]byte("{"), out.Bytes()...), '}'), nil
}

// YAML writes a JSON value as YAML, its members in their order.
func YAML(raw []byte) ([]byte, error) {
	nodes, err := fromJSON(raw)
	if err != nil || len(nodes) != 1 {
		return nil, fmt.Errorf("write YAML: line %w", err)
	}
	style(nodes[0])
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(nodes[0]); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b.Bytes(), enc.Close()
}

// quoted are words that some reader of YAML takes for something else than text.
var quoted = []string{"y", "n", "yes", "no", "on", "off", "<<"}

func style(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.Style = 0
		switch {
		case slices.Contains(quoted, strings.ToLower(n.Value)), ambiguous(n) != "":
			n.Style = yaml.DoubleQuotedStyle
		case strings.Contains(n.Value, "\n") && !plain(n.Value):
			n.Style = yaml.DoubleQuotedStyle
		}
	}
	for _, c := range n.Content {
		style(c)
	}
}

// plain says whether a text of several lines can be written as one, without escapes.
func plain(s string) bool {
	for line := range strings.SplitSeq(s, "\n") {
		if strings.TrimSpace(line) != line {
			return false
		}
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') })
}

// WriteYAML writes values as YAML documents.
func WriteYAML[T any](w io.Writer, values []T) error {
	for i, v := range values {
		raw, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("write YAML: %w", err)
		}
		out, err := YAML(raw)
		if err != nil {
			return err
		}
		if i > 0 {
			out = append([]byte("---\n"), out...)
		}
		if _, err := w.Write(out); err != nil {
			return err
		}
	}
	return nil
}
