package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// maxDepth of a document: the api takes 32 below the spec.
	maxDepth = 64
	// maxNodes of one resource, aliases followed: a few lines of YAML can stand for more than memory holds.
	maxNodes = 1 << 20
)

// jsonWriter writes a node as JSON, its members in their order.
type jsonWriter struct {
	out   bytes.Buffer
	root  *yaml.Node
	fail  func(n *yaml.Node, format string, args ...any)
	nodes int
	over  bool
}

func (w *jsonWriter) value(n *yaml.Node, depth int) {
	if w.nodes++; w.over || depth > maxDepth || w.nodes > maxNodes {
		if !w.over {
			w.fail(n, "nests too deeply, or its aliases make it too large")
		}
		w.over = true
		return
	}
	switch n.Kind {
	case yaml.AliasNode:
		w.value(n.Alias, depth+1)
	case yaml.MappingNode:
		w.out.WriteByte('{')
		w.members(n, map[string]bool{}, depth)
		w.out.WriteByte('}')
	case yaml.SequenceNode:
		w.out.WriteByte('[')
		for i, c := range n.Content {
			if i > 0 {
				w.out.WriteByte(',')
			}
			w.value(c, depth+1)
		}
		w.out.WriteByte(']')
	default:
		w.scalar(n)
	}
}

// members writes a mapping's members; what a merge key brings in comes last and yields to what is there.
func (w *jsonWriter) members(n *yaml.Node, seen map[string]bool, depth int) {
	var merges []*yaml.Node
	own := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.ShortTag() == "!!merge":
			merges = append(merges, merged(n.Content[i+1])...)
			continue
		case key.Kind != yaml.ScalarNode:
			w.fail(key, "has a key that is no text")
			continue
		case own[key.Value]:
			w.fail(key, "%q stands twice; keep one", key.Value)
			continue
		}
		own[key.Value] = true
		if seen[key.Value] {
			continue
		}
		if len(seen) > 0 {
			w.out.WriteByte(',')
		}
		seen[key.Value] = true
		w.literal(key, key.Value)
		w.out.WriteByte(':')
		w.value(n.Content[i+1], depth+1)
	}
	for _, m := range merges {
		if depth > maxDepth {
			return
		}
		w.members(m, seen, depth+1)
	}
}

func (w *jsonWriter) scalar(n *yaml.Node) {
	if readings := ambiguous(n); readings != "" {
		path, _ := pathTo(w.root, n)
		w.fail(n, "%s %s", path, readings)
		return
	}
	switch tag := n.ShortTag(); tag {
	case "!!str", "!!timestamp", "!!merge": // << is a key of that kind, and as a value just text
		w.literal(n, n.Value)
	case "!!null":
		w.out.WriteString("null")
	case "!!bool", "!!int", "!!float":
		if json.Valid([]byte(n.Value)) { // as it is written: no digit is lost
			w.out.WriteString(n.Value)
			return
		}
		var v any
		if err := n.Decode(&v); err != nil {
			w.fail(n, "%q cannot be read: %v", n.Value, err)
			return
		}
		w.literal(n, v)
	default:
		w.fail(n, "has the tag %s, which has no meaning here; remove it", tag)
	}
}

func (w *jsonWriter) literal(n *yaml.Node, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		w.fail(n, "%q has no form in JSON; write it in quotes if it is text", n.Value)
		return
	}
	w.out.Write(b)
}

// fromJSON reads a stream of JSON values as nodes with their lines. Errors begin with the line.
func fromJSON(raw []byte) ([]*yaml.Node, error) {
	r := &jsonReader{raw: raw, dec: json.NewDecoder(bytes.NewReader(raw)), line: 1}
	r.dec.UseNumber()
	var out []*yaml.Node
	for {
		n, err := r.value(0)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			offset := r.dec.InputOffset()
			if errors.Is(err, io.ErrUnexpectedEOF) {
				offset = int64(len(raw))
			}
			return nil, fmt.Errorf("%d: document %d: is not valid JSON: %s", r.at(offset), len(out)+1,
				strings.TrimPrefix(err.Error(), "json: "))
		}
		out = append(out, n)
	}
}

type jsonReader struct {
	raw []byte
	dec *json.Decoder
	// line is that of offset; reading goes forward, so each byte is counted once.
	line   int
	offset int64
}

func (r *jsonReader) at(offset int64) int {
	if offset > r.offset {
		r.line += bytes.Count(r.raw[r.offset:offset], []byte("\n"))
		r.offset = offset
	}
	return r.line
}

func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	t, err := r.dec.Token()
	if errors.Is(err, io.EOF) && depth > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Line: r.at(r.dec.InputOffset())}
	switch t := t.(type) {
	case json.Delim:
		if depth > maxDepth {
			return nil, errors.New("nests too deeply")
		}
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		if t == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		for r.dec.More() {
			c, err := r.value(depth + 1) // keys and values alike
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, c)
		}
		_, err := r.dec.Token() // its end
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	case string:
		n.Kind, n.Tag, n.Value, n.Style = yaml.ScalarNode, "!!str", t, yaml.DoubleQuotedStyle
	case json.Number:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!float", t.String()
		if !strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!int"
		}
	case bool:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!bool", fmt.Sprint(t)
	default:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!null", "null"
	}
	return n, nil
}
