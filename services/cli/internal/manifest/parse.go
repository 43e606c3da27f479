package manifest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// parser turns one document of a file into resources.
type parser struct {
	file   string
	number int
	out    []*Document
	errs   []error
}

func (p *parser) fail(n *yaml.Node, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s:%d: document %d: %s", p.file, n.Line, p.number, fmt.Sprintf(format, args...)))
}

// besides lists what may stand beside a list of resources without meaning anything here.
var besides = []string{"kind", "revision", "next_cursor"}

func (p *parser) document(n *yaml.Node) {
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null": // an empty document
	case n.Kind == yaml.SequenceNode:
		p.list(n)
	case n.Kind != yaml.MappingNode:
		p.fail(n, "is no resource; it must have kind, name and spec")
	case child(n, "spec") == nil && (child(n, "items") != nil || child(n, "resources") != nil):
		seen := map[string]bool{}
		for i := 0; i < len(n.Content); i += 2 {
			switch key := n.Content[i].Value; {
			case seen[key]:
				p.fail(n.Content[i], "%q stands twice; keep one", key)
			case key == "items" || key == "resources":
				p.list(n.Content[i+1])
			case !slices.Contains(besides, key):
				p.fail(n.Content[i], "%q stands beside a list of resources, where it has no meaning; say it with a flag, "+
					"or remove it", key)
			}
			seen[n.Content[i].Value] = true
		}
	default:
		p.resource(n)
	}
}

func (p *parser) list(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.SequenceNode {
		p.fail(n, "must be a list of resources")
		return
	}
	for _, item := range n.Content {
		p.resource(item)
	}
}

func (p *parser) resource(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n, "is no resource; it must have kind, name and spec")
		return
	}
	before := len(p.errs)
	known := envelope()
	for i := 0; i < len(n.Content); i += 2 {
		if key := n.Content[i]; !slices.Contains(known, key.Value) && key.Value != "<<" {
			p.fail(key, "%q is unknown; a resource has %s", key.Value, strings.Join(known, ", "))
		}
	}
	for _, name := range []string{"kind", "name", "spec"} {
		if child(n, name) == nil {
			p.fail(n, "%s is missing; a resource has kind, name and spec", name)
		}
	}
	if len(p.errs) > before {
		return
	}
	w := &jsonWriter{root: n, fail: p.fail}
	w.value(n, 0)
	if len(p.errs) > before {
		return
	}
	d := &Document{File: p.file, Number: p.number, node: n}
	if owner := child(n, "owner"); owner != nil {
		d.OwnerGiven = owner.ShortTag() != "!!null"
	}
	if err := json.Unmarshal(w.out.Bytes(), &d.Object); err != nil {
		v := resource.Misfit(w.out.Bytes(), err)
		p.errs = append(p.errs, fmt.Errorf("%s: document %d: %s %s", d.Where(v.Path), p.number,
			strings.TrimPrefix(v.Path, "$."), v.Message))
		return
	}
	if string(d.Spec) == "null" {
		p.fail(n, "spec is empty")
		return
	}
	if labels := child(n, "labels"); labels != nil { // of a map of strings, encoding/json makes null an empty text
		for name := range d.Labels {
			if v := child(labels, name); v != nil && v.ShortTag() == "!!null" {
				p.fail(v, "labels.%s is null; write \"\" where an empty value is meant, or leave it out", name)
			}
		}
		if len(p.errs) > before {
			return
		}
	}
	// What the server sets may be there, so that what was read can be written; it is not sent back.
	d.Object = api.Object{Kind: d.Kind, Name: d.Name, Spec: d.Spec, Owner: d.Owner, Labels: d.Labels}
	p.out = append(p.out, d)
}

// envelope lists the members of a resource.
func envelope() []string {
	var out []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[api.Object]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		out = append(out, name)
	}
	return out
}

// child is the value of a mapping's key; nil where there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch {
		case n.Content[i].Value == key:
			return n.Content[i+1]
		case n.Content[i].ShortTag() == "!!merge":
			for _, m := range merged(n.Content[i+1]) {
				if found := child(m, key); found != nil {
					return found
				}
			}
		}
	}
	return nil
}

// merged are the mappings that a merge key brings in.
func merged(n *yaml.Node) []*yaml.Node {
	switch n.Kind {
	case yaml.AliasNode:
		return merged(n.Alias)
	case yaml.MappingNode:
		return []*yaml.Node{n}
	case yaml.SequenceNode:
		var out []*yaml.Node
		for _, c := range n.Content {
			out = append(out, merged(c)...)
		}
		return out
	default:
		return nil
	}
}
