package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// maxNodes of a file, aliases followed: a few lines of YAML can stand for more than memory holds.
const maxNodes = 1 << 20

// tree is a file of mappings and lists, with what has been read of it: what has not is listed at the end.
type tree struct {
	pos   func(*yaml.Node) Place
	taken map[*yaml.Node]bool
}

// at is a place in a tree; node is nil where the file has nothing.
type at struct {
	tree *tree
	node *yaml.Node
	path string
}

// readYAML reads the documents of a YAML or JSON file, with aliases and merge keys resolved.
func readYAML(file string, raw []byte) ([]at, error) {
	var out []at
	for dec := yaml.NewDecoder(bytes.NewReader(raw)); ; {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))
		}
		left := maxNodes
		for _, root := range n.Content {
			resolved := resolve(root, &left)
			if left <= 0 {
				return nil, fmt.Errorf("%s: its aliases make it too large", file)
			}
			out = append(out, rootOf(file, resolved))
		}
	}
}

func rootOf(file string, n *yaml.Node) at {
	t := &tree{taken: map[*yaml.Node]bool{}, pos: func(n *yaml.Node) Place { return Place{File: file, Line: n.Line} }}
	return at{tree: t, node: n}
}

// textNode, mapNode and listNode are nodes of what comes from elsewhere than YAML; the last two are empty.
func textNode(s string, line int) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Line: line}
}

func mapNode(line int) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: line}
}

func listNode(line int) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: line}
}

// resolve copies a node with what its aliases and merge keys stand for; left is how many nodes there may be.
func resolve(n *yaml.Node, left *int) *yaml.Node {
	if *left--; *left <= 0 {
		return n
	}
	if n.Kind == yaml.AliasNode {
		return resolve(n.Alias, left)
	}
	out := *n
	out.Content = nil
	if n.Kind != yaml.MappingNode {
		for _, c := range n.Content {
			out.Content = append(out.Content, resolve(c, left))
		}
		return &out
	}
	own := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].ShortTag() != "!!merge" {
			own[n.Content[i].Value] = true
			out.Content = append(out.Content, resolve(n.Content[i], left), resolve(n.Content[i+1], left))
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].ShortTag() != "!!merge" {
			continue
		}
		from := resolve(n.Content[i+1], left)
		maps := []*yaml.Node{from}
		if from.Kind == yaml.SequenceNode {
			maps = from.Content
		}
		for _, m := range maps {
			for j := 0; j+1 < len(m.Content); j += 2 {
				if !own[m.Content[j].Value] {
					own[m.Content[j].Value] = true
					out.Content = append(out.Content, m.Content[j], m.Content[j+1])
				}
			}
		}
	}
	return &out
}

// has says whether the file has anything here.
func (a at) has() bool { return a.node != nil && a.node.ShortTag() != "!!null" }

// place is where it stands.
func (a at) place() Place { return a.tree.pos(a.node) }

// get is the value of a key. Names in other cases are the same, as in Traefik's files.
func (a at) get(key string) at {
	out := at{tree: a.tree, path: strings.TrimPrefix(a.path+"."+key, ".")}
	if a.node == nil || a.node.Kind != yaml.MappingNode {
		return out
	}
	for i := 0; i+1 < len(a.node.Content); i += 2 {
		if strings.EqualFold(a.node.Content[i].Value, key) {
			a.read()
			out.node = a.node.Content[i+1]
			return out
		}
	}
	return out
}

// in is get for several keys, one below the other.
func (a at) in(keys ...string) at {
	for _, k := range keys {
		a = a.get(k)
	}
	return a
}

// keys are the names of a mapping, in the file's order.
func (a at) keys() (out []string) {
	if a.node == nil || a.node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(a.node.Content); i += 2 {
		out = append(out, a.node.Content[i].Value)
	}
	return out
}

// list are the elements of a list; what is no list is one of one element.
func (a at) list() (out []at) {
	if !a.has() {
		return nil
	}
	if a.node.Kind != yaml.SequenceNode {
		return []at{a}
	}
	a.read()
	for i, n := range a.node.Content {
		out = append(out, at{a.tree, n, fmt.Sprintf("%s[%d]", a.path, i)})
	}
	return out
}

// text is a scalar, or "".
func (a at) text() string {
	if a.node == nil || a.node.Kind != yaml.ScalarNode || a.node.ShortTag() == "!!null" {
		return ""
	}
	a.read()
	return a.node.Value
}

// texts are the scalars of a list, or of a text with commas between.
func (a at) texts() (out []string) {
	for _, x := range a.list() {
		if a.node.Kind != yaml.SequenceNode {
			for part := range strings.SplitSeq(x.text(), ",") {
				if part = strings.TrimSpace(part); part != "" {
					out = append(out, part)
				}
			}
			continue
		}
		out = append(out, x.text())
	}
	return out
}

// yes says whether it is true (or 1, as databases have it).
func (a at) yes() bool {
	on, _ := strconv.ParseBool(a.text())
	return on
}

// number is a whole number, 0 where there is none.
func (a at) number() uint32 {
	n, _ := strconv.ParseUint(a.text(), 10, 32)
	return uint32(n)
}

// duration is one as Go, Envoy and Traefik write it (30s, or a number of seconds); nil for none. ok is false for what
// is none.
func (a at) duration() (d *durationpb.Duration, ok bool) {
	if !a.has() {
		return nil, true
	}
	return parseDuration(a.text())
}

func parseDuration(s string) (*durationpb.Duration, bool) {
	if d, err := time.ParseDuration(s); err == nil {
		return durationpb.New(d), true
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil && n >= 0 && n < 1e8 {
		return durationpb.New(time.Duration(n * float64(time.Second))), true
	}
	return nil, false
}

// read notes that it has been looked at, which says nothing of what is below it.
func (a at) read() { a.tree.taken[a.node] = true }

// done says that all of it is done, or means nothing here.
func (a at) done() {
	if a.node == nil {
		return
	}
	a.read()
	for _, c := range a.node.Content {
		at{a.tree, c, ""}.done()
	}
}

// rest calls f with what has not been read, as high up in the tree as can be.
func (a at) rest(f func(a at, key *yaml.Node)) {
	switch {
	case a.node == nil:
	case a.node.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(a.node.Content); i += 2 {
			key, value := a.node.Content[i], a.node.Content[i+1]
			below := at{a.tree, value, strings.TrimPrefix(a.path+"."+key.Value, ".")}
			switch {
			case below.untouched():
				f(below, key)
			default:
				below.rest(f)
			}
		}
	case a.node.Kind == yaml.SequenceNode:
		for i, n := range a.node.Content {
			below := at{a.tree, n, fmt.Sprintf("%s[%d]", a.path, i)}
			if below.untouched() {
				f(below, n)
			} else {
				below.rest(f)
			}
		}
	}
}

// untouched says whether nothing of it has been read.
func (a at) untouched() bool {
	if a.tree.taken[a.node] {
		return false
	}
	for _, c := range a.node.Content {
		if !(at{a.tree, c, ""}).untouched() {
			return false
		}
	}
	return true
}

// json is it in JSON.
func (a at) json() ([]byte, error) {
	var v any
	if err := a.node.Decode(&v); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

var steps = regexp.MustCompile(`\.([A-Za-z0-9_]+)|\[([0-9]+)\]`)

// lineOf is the line of a path ($.routes[0].prefix), or of the nearest thing above it that is there.
func lineOf(roots []at, path string) int {
	if len(roots) == 0 {
		return 1
	}
	a, line := roots[0], roots[0].node.Line
	for _, m := range steps.FindAllStringSubmatch(path, -1) {
		next := a.get(m[1])
		if m[1] == "" {
			i, _ := strconv.Atoi(m[2])
			if items := a.list(); i < len(items) {
				next = items[i]
			} else {
				next = at{}
			}
		}
		if next.node == nil {
			break
		}
		a, line = next, next.node.Line
	}
	return line
}
