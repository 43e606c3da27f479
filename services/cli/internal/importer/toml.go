package importer

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"go.yaml.in/yaml/v3"
)

// readTOML reads a TOML file as the tree that YAML would be.
func readTOML(file string, raw []byte) (at, error) {
	var any map[string]any
	if err := toml.Unmarshal(raw, &any); err != nil { // what the parser below does not look at: keys that stand twice
		return at{}, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "toml: "))
	}
	p := &unstable.Parser{}
	p.Reset(raw)
	root := mapNode(1)
	table := root
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = root
			keys := keysOf(e)
			for i, k := range keys {
				last := i == len(keys)-1
				table = below(table, k, line(p, e), last && e.Kind == unstable.ArrayTable)
			}
		case unstable.KeyValue:
			put(p, table, e)
		}
	}
	if err := p.Error(); err != nil {
		return at{}, fmt.Errorf("%s: %w", file, err)
	}
	return rootOf(file, root), nil
}

func keysOf(n *unstable.Node) (out []string) {
	for it := n.Key(); it.Next(); {
		out = append(out, string(it.Node().Data))
	}
	return out
}

// line is where a key of an expression stands.
func line(p *unstable.Parser, n *unstable.Node) int {
	it := n.Key()
	if !it.Next() {
		return 1
	}
	return p.Shape(it.Node().Raw).Start.Line
}

// below is the mapping of a key, made where it is new; of a list its last element, or one more.
func below(n *yaml.Node, key string, line int, more bool) *yaml.Node {
	var value *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			value = n.Content[i+1]
		}
	}
	mapping := mapNode(line)
	if value == nil {
		value = mapping
		if more {
			value = listNode(line)
		}
		n.Content = append(n.Content, textNode(key, line), value)
	}
	if value.Kind != yaml.SequenceNode {
		return value
	}
	if more || len(value.Content) == 0 {
		value.Content = append(value.Content, mapping)
	}
	return value.Content[len(value.Content)-1]
}

func put(p *unstable.Parser, table *yaml.Node, e *unstable.Node) {
	keys := keysOf(e)
	at := line(p, e)
	for _, k := range keys[:len(keys)-1] {
		table = below(table, k, at, false)
	}
	table.Content = append(table.Content,
		textNode(keys[len(keys)-1], at), value(p, e.Value(), at))
}

func value(p *unstable.Parser, n *unstable.Node, at int) *yaml.Node {
	switch n.Kind {
	case unstable.Array:
		out := listNode(at)
		for it := n.Children(); it.Next(); {
			out.Content = append(out.Content, value(p, it.Node(), at))
		}
		return out
	case unstable.InlineTable:
		out := mapNode(at)
		for it := n.Children(); it.Next(); {
			put(p, out, it.Node())
		}
		return out
	case unstable.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: string(n.Data), Line: at}
	case unstable.Integer:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strings.ReplaceAll(string(n.Data), "_", ""), Line: at}
	}
	return textNode(string(n.Data), at)
}
