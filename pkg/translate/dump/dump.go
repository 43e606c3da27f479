// Package dump writes what the translator has built so that people can read it, and reads it again. The golden files
// of the translator are made of it: one is the whole of a bare gateway, each other one is what a feature changes
// in that.
//
// A whole dump is YAML, one document for a resource and one for each of its variants, in the order of their titles:
//
//	--- # Cluster web
//	objects: [Service web]
//	body:
//	  '@type': ...
//
// What a document has twice, a listener's filters for instance, is there once, with an anchor that the others refer to.
//
// A difference to it has a section for each document that differs, of hunks as in a unified diff, with three lines
// around what differs. Where a unified diff has the number of a line, it has the line's place in the document, so that
// something new in every gateway does not change every golden file:
//
//	--- # Listener http
//	@@ body.filter_chains[http].filters[marchproxy.connections] @@
//
// A document that is gone is there whole, and so is a new one, unless it is shorter to say what it has beside another
// one, which the section's first line then names:
//
//	--- # Listener https
//	~ Listener http
//
// Nothing is lost: [Apply] makes the whole of a difference and what it is a difference to.
package dump

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// Document is one resource, or one variant of it.
type Document struct {
	// Title says which: its type's name without the package, its own, and of a variant which one.
	Title string
	// Variant is empty for the resource itself, or the field of [translate.Variants] that has it, or "without NAME" for a
	// filter config that has one of its parts closed, or "at PLACE" for what Envoys there get.
	Variant string
	// Body is the resource as protojson has it, with its @type.
	Body map[string]any
	// about is the resource beside its body: what it needs, who may have it.
	about map[string]any
}

// Resources are the documents of these resources, in order.
func Resources(all []*translate.Resource) ([]Document, error) {
	var out []Document
	for _, r := range all {
		if err := add(&out, r, title(r.Key), ""); err != nil {
			return nil, err
		}
		for _, part := range slices.Sorted(maps.Keys(r.Parts)) {
			variant := "without " + part
			if err := add(&out, r.Without(map[string]bool{part: true}), title(r.Key), variant); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(out, func(a, b Document) int { return strings.Compare(a.Title, b.Title) })
	return out, nil
}

// add takes a resource with its variants, and theirs.
func add(out *[]Document, r *translate.Resource, name, variant string) error {
	if r == nil {
		return nil
	}
	d := Document{Title: name, Variant: variant, about: about(r)}
	if variant != "" {
		d.Title += " (" + variant + ")"
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(r.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Title, err)
	}
	if err := json.Unmarshal(raw, &d.Body); err != nil {
		return fmt.Errorf("%s: %w", d.Title, err)
	}
	*out = append(*out, d)
	for _, v := range []struct {
		name string
		r    *translate.Resource
	}{{"over limit", r.OverLimit}, {"per route", r.PerRoute}, {"plain", r.Plain}} {
		below := v.name
		if variant != "" {
			below = variant + ", " + v.name
		}
		if err := add(out, v.r, name, below); err != nil {
			return err
		}
	}
	for _, p := range r.Places() {
		if err := add(out, r.At(p), name, "at "+p.String()); err != nil {
			return err
		}
	}
	return nil
}

func title(k translate.Key) string {
	typ := string(k.Type)
	return typ[strings.LastIndexByte(typ, '.')+1:] + " " + k.Name
}

// about is everything of a resource that is not its body, as far as it has it. The version is the body's digest.
func about(r *translate.Resource) map[string]any {
	out := map[string]any{}
	put := func(name string, values ...string) {
		if len(values) > 0 && values[0] != "" {
			out[name] = texts(values)
		}
	}
	put("clusters", r.Clusters...)
	put("secrets", r.Secrets...)
	put("policies", r.Policies...)
	put("carrier", r.Carrier)
	put("parts", slices.Sorted(maps.Keys(r.Parts))...)
	put("leaving", slices.Sorted(maps.Keys(r.Leaving))...)
	var needs, objects []string
	for _, k := range r.Needs {
		needs = append(needs, title(k))
	}
	for _, o := range r.Objects {
		objects = append(objects, o.String())
	}
	put("needs", needs...)
	put("objects", objects...)
	var together []any
	for _, group := range r.Together {
		together = append(together, texts(group))
	}
	if together != nil {
		out["together"] = together
	}
	for name, set := range map[string]bool{"by_name": r.ByName, "after_routes": r.AfterRoutes, "partial": r.Partial} {
		if set {
			out[name] = true
		}
	}
	return out
}

func texts(in []string) []any {
	out := make([]any, len(in))
	for i, s := range in {
		out[i] = s
	}
	return out
}

const rule = "--- # "

// Whole writes documents.
func Whole(docs []Document) []byte {
	var out strings.Builder
	for _, d := range docs {
		out.WriteString(rule + d.Title + "\n")
		for _, l := range d.lines() {
			out.WriteString(l.text + "\n")
		}
	}
	return []byte(out.String())
}

// Read reads what [Whole] has written.
func Read(whole []byte) ([]Document, error) {
	var out []Document
	for s := range sections(whole) {
		var v map[string]any
		if err := yaml.Unmarshal([]byte(strings.Join(s.lines, "\n")+"\n"), &v); err != nil {
			return nil, fmt.Errorf("%s: %w", s.title, err)
		}
		d := Document{Title: s.title}
		d.Body, _ = v["body"].(map[string]any)
		if d.Body == nil {
			return nil, fmt.Errorf("%s: it has no body", s.title)
		}
		delete(v, "body")
		d.about = v
		if _, of, is := strings.Cut(strings.TrimSuffix(s.title, ")"), " ("); is {
			d.Variant = of
		}
		out = append(out, d)
	}
	return out, nil
}

// line is one of a document, with its place in it.
type line struct{ text, place string }

func (d Document) lines() []line {
	w := &writer{times: map[string]int{}, anchors: map[string]string{}}
	w.count(d.Body)
	var out []line
	if len(d.about) > 0 {
		out = w.write(d.about, "")
	}
	return append(out, w.write(map[string]any{"body": d.Body}, "")...)
}

// writer writes one document.
type writer struct {
	// times is how often something large is there, and anchors what is called, by how they are written in JSON.
	times   map[string]int
	anchors map[string]string
}

// large is how long something is in JSON that is not written twice.
const large = 1000

// same is what a message or a list is known by that is not written twice; "" of what may be.
func same(v any) string {
	switch v.(type) {
	case map[string]any, []any:
	default:
		return ""
	}
	raw, err := json.Marshal(v)
	if err != nil || len(raw) < large { // it came from JSON
		return ""
	}
	return string(raw)
}

// count looks for what is there more than once. What is in something that was counted already is not counted again: it
// is written where that is.
func (w *writer) count(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, x := range v {
			if key := same(x); key != "" {
				if w.times[key]++; w.times[key] > 1 {
					continue
				}
			}
			w.count(x)
		}
	case []any:
		for _, x := range v {
			w.count(x)
		}
	}
}

// anchor names what is written for the first of several times, and says whether it was written before.
func (w *writer) anchor(key string, v any) (name string, written bool) {
	id := same(v)
	if w.times[id] < 2 {
		return "", false
	}
	if name, written = w.anchors[id]; written {
		return name, true
	}
	name = unfit.ReplaceAllString(key, "-")
	for _, taken := range w.anchors {
		if taken == name {
			name = fmt.Sprint(name, "-", len(w.anchors))
			break
		}
	}
	w.anchors[id] = name
	return name, false
}

// unfit is what no anchor may have.
var unfit = regexp.MustCompile(`[^A-Za-z0-9_-]`)

// write has a place for each line, no two the same: the element of a list goes by its name where all of them have one.
func (w *writer) write(v any, place string) []line {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			return []line{{"{}", place}}
		}
		var out []line
		for _, key := range slices.Sorted(maps.Keys(v)) {
			at, name := strings.TrimPrefix(place+"."+key, "."), scalar(key)[0]
			head := line{name + ":", at}
			if anchor, written := w.anchor(key, v[key]); written {
				out = append(out, line{head.text + " *" + anchor, at})
				continue
			} else if anchor != "" {
				head.text += " &" + anchor
			}
			below := w.write(v[key], at)
			switch x := v[key].(type) {
			case map[string]any:
				if len(x) > 0 {
					out = append(append(out, head), indent(below, "  ")...)
					continue
				}
			case []any:
				if len(x) > 0 {
					out = append(append(out, head), below...)
					continue
				}
			}
			below[0].text = name + ": " + below[0].text
			out = append(out, below...)
		}
		return out
	case []any:
		if len(v) == 0 {
			return []line{{"[]", place}}
		}
		var out []line
		named := names(v)
		for i, x := range v {
			at := strconv.Itoa(i)
			if named != nil {
				at = named[i]
			}
			below := indent(w.write(x, place+"["+at+"]"), "  ")
			below[0].text = "- " + below[0].text[2:]
			out = append(out, below...)
		}
		return out
	}
	var out []line
	for i, text := range scalar(v) {
		at := place
		if i > 0 {
			at += " line " + strconv.Itoa(i)
		}
		out = append(out, line{text, at})
	}
	return out
}

// names are those of a list's elements, nil where one has none or two have the same.
func names(list []any) []string {
	var out []string
	for _, x := range list {
		m, _ := x.(map[string]any)
		name, ok := m["name"].(string)
		if !ok || slices.Contains(out, name) {
			return nil
		}
		out = append(out, name)
	}
	return out
}

func indent(in []line, by string) []line {
	for i := range in {
		if in[i].text != "" { // an empty line of a text stays one
			in[i].text = by + in[i].text
		}
	}
	return in
}

func scalar(v any) []string {
	raw, err := yaml.Marshal(v)
	if err != nil {
		panic(err) // it came from JSON
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
}
