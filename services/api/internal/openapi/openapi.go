// Package openapi assembles the API's OpenAPI 3.1 document from two sources: the JSON Schema that is
// generated from the protobuf messages, and the table of operations that the handlers are added from.
// Nothing of it is written by hand twice.
package openapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
)

// Operation is one entry of the API.
type Operation struct {
	// ID is unique; in an operation of every kind {Kind} and {Kinds} stand for the kind's name.
	ID, Method string
	// Path as Echo writes it: /v1/:kind/:name.
	Path string
	// Role that is needed at the least; "" for everybody.
	Role string
	// Writes says that it writes an object of its kind, which may need more than Role.
	Writes bool
	// Tag groups operations on the docs page.
	Tag, Summary, Description string
	// Query and Headers name parameters, see [Parameters].
	Query, Headers []string
	// Request is the body's schema, "" for none; {Kind} stands for the kind's name.
	Request string
	// Answers are the schemas of the bodies by status, the first of several separated by |. A schema
	// with a slash is a media type: text/plain.
	Answers map[int]string
}

// Kinds says whether the operation exists once for every kind.
func (o Operation) Kinds() bool { return strings.Contains(o.Path, ":kind") }

// RoleFor is the role that the operation needs for a kind, "" for none or one that the path does not tell.
func (o Operation) RoleFor(kind string) string {
	if o.Writes && kind != "" {
		return auth.ToWrite(kind)
	}
	return o.Role
}

// tagged says whether the answers carry the object's ETag: those to reading and writing one object.
func (o Operation) tagged() bool {
	return o.Kinds() && strings.HasSuffix(o.Path, ":name") && o.Method != http.MethodDelete
}

type object = map[string]any

// Document is the whole document.
func Document(operations []Operation) ([]byte, error) {
	schemas, err := components()
	if err != nil {
		return nil, err
	}
	paths := object{}
	add := func(o Operation, path, kind string, replace *strings.Replacer) error {
		path = template(path)
		item, ok := paths[path].(object)
		if !ok {
			item = object{}
			paths[path] = item
		}
		entry, err := o.entry(path, kind, schemas, replace)
		if err != nil {
			return err
		}
		item[strings.ToLower(o.Method)] = entry
		return nil
	}
	for _, o := range operations {
		if !o.Kinds() {
			if err := add(o, o.Path, "", strings.NewReplacer()); err != nil {
				return nil, err
			}
			continue
		}
		for _, k := range resource.Kinds {
			if config.KindOf(k.Name).System && o.Method != http.MethodGet {
				continue // it would be refused to everybody
			}
			if err := add(o, strings.Replace(o.Path, ":kind", k.Path, 1), k.Name, replacer(k)); err != nil {
				return nil, err
			}
		}
	}
	tags, err := tags(operations, schemas)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{
			"title":   "MarchProxy",
			"version": "v1",
			"description": "Describes gateways, services, routes and what belongs to them; every accepted write is one " +
				"revision, and Envoys serve it milliseconds later.",
			"license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		// The first is the one that tools take: where the document came from, behind a TLS proxy too.
		"servers": []object{
			{"url": "/", "description": "The server that this document came from."},
			{"url": "http://localhost:8000", "description": "`marchproxy dev` (make run)."},
		},
		"tags":  tags,
		"paths": paths,
		"components": object{
			"schemas": schemas,
			"securitySchemes": object{"token": object{
				"type":   "http",
				"scheme": "bearer",
				"description": "A token with the role viewer, editor, operator or admin, each of which may do what those before " +
					"it may; an operation names the least. That of `marchproxy dev` is in a file: `marchproxy token print`.",
			}},
		},
	}, "", " ")
}

func replacer(k resource.Kind) *strings.Replacer {
	if k.Name == "" {
		return strings.NewReplacer("{Kinds}", "Unknown", "{Kind}", "Unknown")
	}
	words := strings.Split(k.Path, "-")
	plural := ""
	for _, w := range words {
		plural += strings.ToUpper(w[:1]) + w[1:]
	}
	many := strings.Join(words, " ")
	return strings.NewReplacer("{Kinds}", plural, "{Kind}", k.Name, "{kinds}", many, "{kind}", singular(many))
}

// singular of a kind's plural.
func singular(plural string) string {
	if stem, ok := strings.CutSuffix(plural, "ies"); ok {
		return stem + "y"
	}
	return strings.TrimSuffix(plural, "s")
}

// IDOf is the operationId of an operation of every kind for one of them.
func IDOf(id string, k resource.Kind) string { return replacer(k).Replace(id) }

// template writes :name as {name}.
func template(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if name, ok := strings.CutPrefix(p, ":"); ok {
			parts[i] = "{" + name + "}"
		}
	}
	return strings.Join(parts, "/")
}

func (o Operation) entry(path, kind string, schemas object, replace *strings.Replacer) (object, error) {
	e := object{
		"operationId": replace.Replace(o.ID), "tags": []string{replace.Replace(o.Tag)},
		"summary": replace.Replace(o.Summary),
	}
	if o.Description != "" {
		e["description"] = replace.Replace(o.Description)
	}
	e["security"] = []object{} // open to everybody, said outright: absence would mean that nobody has thought of it
	if role := o.RoleFor(kind); role != "" {
		e["security"] = []object{{"token": []string{role}}}
		e["description"] = strings.TrimSpace(fmt.Sprint(replace.Replace(o.Description), "\n\nRole needed: ", role, "."))
	}
	var params []object
	for _, part := range strings.Split(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			params = append(params, Parameters[strings.TrimSuffix(name, "}")].object("path", strings.TrimSuffix(name, "}")))
		}
	}
	for _, in := range []struct {
		where string
		names []string
	}{{"query", o.Query}, {"header", o.Headers}} {
		for _, name := range in.names {
			p, ok := Parameters[name]
			if !ok {
				return nil, fmt.Errorf("operation %s: parameter %s is not described", o.ID, name)
			}
			params = append(params, p.object(in.where, name))
		}
	}
	if len(params) > 0 {
		e["parameters"] = params
	}
	if o.Request != "" {
		media := "application/json"
		if o.Method == http.MethodPatch {
			media = "application/merge-patch+json"
		}
		ref, err := refer(replace.Replace(o.Request), schemas)
		if err != nil {
			return nil, fmt.Errorf("operation %s: %w", o.ID, err)
		}
		example, err := exampleOf(replace.Replace(o.Request))
		if err != nil {
			return nil, fmt.Errorf("operation %s: %w", o.ID, err)
		}
		e["requestBody"] = object{"required": true, "content": object{media: object{"schema": ref, "example": example}}}
	}
	responses := object{}
	for status, schema := range o.Answers {
		r, err := response(status, replace.Replace(schema), schemas)
		if err != nil {
			return nil, fmt.Errorf("operation %s: %w", o.ID, err)
		}
		if o.tagged() {
			r["headers"] = object{"ETag": object{
				"description": "The object's revision, for If-Match and If-None-Match. Absent where nothing was read or " +
					"written (dry_run).",
				"schema": object{"type": "string", "examples": []string{`"17"`}},
			}}
		}
		responses[strconv.Itoa(status)] = r
	}
	for _, status := range o.problems() {
		responses[strconv.Itoa(status)] = object{
			"description": problemText[status],
			"content":     object{"application/problem+json": object{"schema": object{"$ref": "#/components/schemas/Problem"}}},
		}
	}
	e["responses"] = responses
	return e, nil
}

func response(status int, schema string, schemas object) (object, error) {
	r := object{"description": answerText[status]}
	switch {
	case schema == "":
	case strings.Contains(schema, "/"):
		r["content"] = object{schema: object{"schema": object{"type": "string"}}}
	default:
		ref, err := refer(schema, schemas)
		if err != nil {
			return nil, err
		}
		r["content"] = object{"application/json": object{"schema": ref}}
	}
	return r, nil
}

func refer(schema string, schemas object) (object, error) {
	var several []object
	for name := range strings.SplitSeq(schema, "|") {
		if _, ok := schemas[name]; !ok {
			return nil, fmt.Errorf("there is no schema %s", name)
		}
		several = append(several, object{"$ref": "#/components/schemas/" + name})
	}
	if len(several) == 1 {
		return several[0], nil
	}
	return object{"anyOf": several}, nil
}

// problems are the statuses of the refusals that follow from the operation's form.
func (o Operation) problems() []int {
	if o.Role == "" && o.Request == "" { // what is sent to an operation for everybody is a credential
		if o.Path == "/readyz" || o.Tag == "Session" { // the database may be away
			return []int{400, 503}
		}
		return []int{400}
	}
	out := []int{400, 401, 403, 429, 503}
	if strings.Contains(o.Path, ":") {
		out = append(out, 404, 422)
		if o.Method == http.MethodPost { // it does something to what is there, which may not be as it needs it
			out = append(out, 409)
		}
	}
	if o.Request != "" {
		out = append(out, 413, 415, 422)
	}
	if slices.Contains(o.Headers, "Idempotency-Key") {
		out = append(out, 409, 422)
	}
	if slices.Contains(o.Headers, "If-Match") {
		out = append(out, 412)
	}
	if (o.Tag == "Tokens" || o.Tag == "Users") && o.Method != http.MethodGet || o.Tag == "Account" {
		out = append(out, 409)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
