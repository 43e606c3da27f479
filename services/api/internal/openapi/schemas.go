package openapi

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/marchproxy/marchproxy/proto/jsonschema"
	_ "github.com/marchproxy/marchproxy/proto/marchproxy/api/v1" // its descriptors
	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// components are the API's schemas, and those of every kind.
func components() (object, error) {
	files, err := jsonschema.Files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("read schemas: %w", err)
	}
	out := object{}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "marchproxy.events.") {
			continue
		}
		raw, err := jsonschema.Files.ReadFile(f.Name())
		if err != nil {
			return nil, fmt.Errorf("read schemas: %w", err)
		}
		var bundle struct {
			Defs map[string]object `json:"$defs"`
		}
		if err := json.Unmarshal(raw, &bundle); err != nil {
			return nil, fmt.Errorf("read schema %s: %w", f.Name(), err)
		}
		for id, schema := range bundle.Defs {
			if name := schemaName(id); name != "" {
				o := simplifyObject(schema)
				require(o, strings.TrimSuffix(id, ".schema.json"))
				describe(o)
				out[name] = o
			}
		}
	}
	generic, ok := out["Object"].(object)
	if !ok {
		return nil, fmt.Errorf("there is no schema of Object")
	}
	for _, k := range resource.Kinds {
		out[k.Name] = kindSchema(generic, k)
		out[k.Name+"Patch"] = patchSchema(generic, k)
		out[k.Name+"List"] = replaceRefs(out["ObjectList"], "Object", k.Name)
	}
	delete(out, "ObjectList")
	if apply, ok := out["ApplyRequest"].(object); ok {
		apply["required"] = []string{"resources"} // if only an empty list: absence may be a mistake
	}
	out["OpenAPI"] = object{
		"type": "object", "additionalProperties": true, "description": "An OpenAPI 3.1 document.",
		"required": []string{"openapi", "paths"},
	}
	out["Health"] = object{
		"type": "object", "additionalProperties": false, "required": []string{"status"},
		"properties": object{"status": object{"type": "string"}},
	}
	for name, schema := range out {
		schema.(object)["title"] = name
	}
	return out, nil
}

// describe folds titles into descriptions. The generator makes a title of a comment's first paragraph, or of
// the message's name, which is then the same for Route and RouteSpec: programs that make clients name a class
// by its title, and leave out the second of two. Components get their own names as titles instead.
func describe(v any) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			describe(x)
		}
	case object:
		if title, ok := v["title"].(string); ok {
			delete(v, "title")
			if strings.HasSuffix(title, ".") { // a paragraph, not a name
				rest, _ := v["description"].(string)
				v["description"] = strings.TrimSpace(title + "\n\n" + rest)
			}
		}
		if text, ok := v["description"].(string); ok {
			v["description"] = strings.ReplaceAll(text, "\n ", "\n") // the blank after a comment's slashes
		}
		for k, x := range v {
			if k == "properties" { // their names are not keywords: a field may be called title
				for _, p := range x.(object) {
					describe(p)
				}
				continue
			}
			describe(x)
		}
	}
}

// require lists the fields that cannot be left out: a field that knows no absence (it is zero then) and
// whose rules refuse zero. The generator lists only those that say so outright. It says of secrets that reads lack
// them.
func require(schema object, message string) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(message))
	if err != nil {
		return // of protobuf's own
	}
	m, ok := d.(protoreflect.MessageDescriptor)
	props, has := schema["properties"].(object)
	if !ok || !has {
		return
	}
	var names []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		p, ok := props[string(f.Name())].(object)
		if !ok {
			continue
		}
		if use, _ := proto.GetExtension(f.Options(),
			configv1.E_Secret).(configv1.Secret); use != configv1.Secret_SECRET_UNSPECIFIED {
			p["writeOnly"] = true
		}
		listed, _ := schema["required"].([]any)
		if slices.Contains(listed, any(string(f.Name()))) || (!f.HasPresence() && refusesZero(p)) {
			names = append(names, string(f.Name()))
		}
	}
	if len(names) > 0 {
		schema["required"] = names
	}
}

func refusesZero(p object) bool {
	for _, rule := range []string{"minLength", "minItems", "minimum"} {
		if n, ok := p[rule].(float64); ok && n >= 1 {
			return true
		}
	}
	return false
}

// schemaName is a component's name: Route's message becomes RouteSpec, since Route is the object with
// its envelope.
func schemaName(id string) string {
	id = strings.TrimSuffix(id, ".schema.json")
	if name, ok := strings.CutPrefix(id, "marchproxy.api.v1."); ok {
		return name
	}
	name, ok := strings.CutPrefix(id, "marchproxy.config.v1.")
	if !ok {
		return ""
	}
	if _, kind := resource.KindByName(name); kind {
		return name + "Spec"
	}
	return name
}

// kindSchema is Object with the spec of one kind.
func kindSchema(generic object, k resource.Kind) object {
	out, props := clone(generic)
	out["required"] = []string{"spec"} // the path says the rest
	props["kind"] = object{"type": "string", "const": k.Name, "description": "Its kind, which the path has said already."}
	props["spec"] = object{"$ref": "#/components/schemas/" + k.Name + "Spec"}
	return out
}

// patchSchema is an RFC 7396 merge patch: any part of spec, owner and labels; null removes.
func patchSchema(generic object, k resource.Kind) object {
	_, props := clone(generic)
	return object{
		"type": "object", "additionalProperties": false,
		"description": "An RFC 7396 merge patch of spec, owner and labels: what is given replaces, null removes.",
		"properties": object{
			"spec":  object{"type": "object", "additionalProperties": true, "description": "A part of " + k.Name + "Spec."},
			"owner": object{"anyOf": []any{props["owner"], object{"type": "null"}}},
			"labels": object{
				"type":                 []string{"object", "null"},
				"additionalProperties": object{"type": []string{"string", "null"}},
			},
		},
	}
}

func clone(o object) (out, props object) {
	out, props = object{}, object{}
	for k, v := range o {
		out[k] = v
	}
	if p, ok := o["properties"].(object); ok {
		for k, v := range p {
			props[k] = v
		}
	}
	out["properties"] = props
	return out, props
}

func replaceRefs(v any, from, to string) any {
	switch v := v.(type) {
	case object:
		out := object{}
		for k, x := range v {
			if k == "$ref" && x == "#/components/schemas/"+from {
				x = "#/components/schemas/" + to
			}
			out[k] = replaceRefs(x, from, to)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = replaceRefs(x, from, to)
		}
		return out
	default:
		return v
	}
}

// camelCase are the patterns under which protobuf's JSON takes a second spelling of every name; the API
// takes snake_case only.
var camelCase = regexp.MustCompile(`^\^\([a-zA-Z0-9|]+\)\$$`)

// durations as Go and the Gateway API write them.
const duration = `^([0-9]+(\.[0-9]+)?(h|m|s|ms|us|µs|ns))+$`

// simplify turns protobuf's JSON, which takes several spellings of a value, into what the API documents:
// numbers are numbers, enums are their names.
func simplify(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = simplify(x)
		}
		return out
	case object:
		return simplifyObject(v)
	default:
		return v
	}
}

func simplifyObject(v object) object {
	out := object{}
	for k, x := range v {
		switch k {
		case "$schema", "$id":
		case "default":
			if x != "" && x != false && x != 0.0 { // protobuf's zero is absence, which the descriptions explain
				out[k] = x
			}
		case "patternProperties":
			rest := object{}
			for pattern, schema := range x.(object) {
				if !camelCase.MatchString(pattern) {
					rest[pattern] = simplify(schema)
				}
			}
			if len(rest) > 0 {
				out[k] = rest
			}
		case "$ref":
			id := strings.TrimPrefix(x.(string), "#/$defs/")
			switch id {
			case "google.protobuf.Struct.schema.json":
				out["type"], out["additionalProperties"] = "object", true // without it, TypeScript's says: none
			case "google.protobuf.Duration.schema.json":
				out["type"], out["pattern"], out["examples"] = "string", duration, []string{"30s"}
			default:
				out[k] = "#/components/schemas/" + schemaName(id)
			}
		case "anyOf":
			for key, y := range spelling(x.([]any)) {
				out[key] = y
			}
		default:
			out[k] = simplify(x)
		}
	}
	return out
}

// spelling chooses the one spelling that is documented.
func spelling(alternatives []any) object {
	var number object
	for _, a := range alternatives {
		o, ok := a.(object)
		if !ok {
			continue
		}
		switch {
		case o["enum"] != nil && o["type"] == "string" && !isFloat(o):
			return object{"type": "string", "enum": o["enum"]}
		case o["type"] == "integer" || o["type"] == "number":
			number = o
		}
	}
	out := object{}
	for k, v := range number {
		out[k] = v
	}
	if out["type"] == "integer" && out["maximum"] == nil && out["enum"] == nil {
		out["format"], out["minimum"], out["maximum"] = "int64", math.MinInt64, math.MaxInt64
	}
	return out
}

// isFloat recognises the names of numbers that JSON cannot write.
func isFloat(o object) bool {
	values, ok := o["enum"].([]any)
	return ok && len(values) > 0 && values[0] == "Infinity"
}
