package manifest

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Where is file:line of a JSONPath below the resource, or of the nearest thing above it that is there.
func (d *Document) Where(path string) string {
	return fmt.Sprintf("%s:%d", d.File, find(d.node, strings.TrimPrefix(path, "$")))
}

func (d *Document) errorAt(path, message string) error {
	return fmt.Errorf("%s: document %d: %s %s", d.Where(path), d.Number, d.Ref(), message)
}

// Says is a sentence about a path of the resource, with its place: what a person reads.
func (d *Document) Says(path, message string) string {
	if path == "$" || path == "$.spec" {
		return fmt.Sprintf("%s: document %d: %s %s", d.Where(path), d.Number, d.Ref(), message)
	}
	return fmt.Sprintf("%s: document %d: %s %s %s", d.Where(path), d.Number, d.Ref(), strings.TrimPrefix(path, "$."),
		message)
}

// find walks down and returns the line of the last thing found.
func find(n *yaml.Node, path string) int {
	line := n.Line
	for path != "" {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		step, rest := cut(path)
		switch n.Kind {
		case yaml.MappingNode:
			next, at := member(n, step)
			if next == nil {
				return line
			}
			n, line = next, at
		case yaml.SequenceNode:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(n.Content) {
				return line
			}
			n, line = n.Content[i], n.Content[i].Line
		default:
			return line
		}
		path = rest
	}
	return line
}

func member(n *yaml.Node, key string) (value *yaml.Node, line int) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1], n.Content[i].Line
		}
	}
	if v := child(n, key); v != nil { // merged in
		return v, v.Line
	}
	return nil, 0
}

// cut splits off a JSONPath's first step: .name, [3] or ["any text"].
func cut(path string) (step, rest string) {
	if strings.HasPrefix(path, `["`) {
		if q, err := strconv.QuotedPrefix(path[1:]); err == nil {
			if s, err := strconv.Unquote(q); err == nil {
				return s, strings.TrimPrefix(path[1+len(q):], "]")
			}
		}
	}
	path = strings.TrimLeft(path, ".[")
	end := strings.IndexAny(path, ".[]")
	if end < 0 {
		return path, ""
	}
	return path[:end], strings.TrimPrefix(path[end:], "]")
}
