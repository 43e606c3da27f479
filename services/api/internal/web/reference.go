package web

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"

	"github.com/marchproxy/marchproxy/services/api/internal/openapi"
	"github.com/marchproxy/marchproxy/services/docsite"
)

//go:embed reference.html
var referenceTemplate string

// Document is the OpenAPI document of the API.
func Document() ([]byte, error) {
	a := &API{}
	a.metrics = newMetrics(a)
	return a.document()
}

func (a *API) document() ([]byte, error) {
	var table []openapi.Operation
	for _, o := range a.operations() {
		table = append(table, o.Operation)
	}
	raw, err := openapi.Document(table)
	if err != nil {
		return nil, fmt.Errorf("OpenAPI document: %w", err)
	}
	return raw, nil
}

// section is the operations of one tag.
type section struct {
	Tag        string
	Operations []listed
}

type listed struct {
	Method, Path string
	described
}

type described struct {
	OperationID, Summary, Description string
	Tags                              []string
	Parameters                        []struct {
		Name, In, Description string
		Schema                map[string]any
	}
	RequestBody struct {
		Content map[string]struct{ Schema map[string]any }
	}
	Responses map[string]struct {
		Description string
		Content     map[string]struct{ Schema map[string]any }
	}
}

// reference renders the document for the documentation's page of it, and for its search.
func reference(document []byte) (html, found []byte, err error) {
	var doc struct {
		Info       struct{ Title, Version, Description string }
		Paths      map[string]map[string]described
		Components struct {
			Schemas map[string]struct {
				Title, Description string
				Properties         map[string]map[string]any
				Required           []string
			}
		}
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, nil, fmt.Errorf("API reference: %w", err)
	}
	byTag := map[string][]listed{}
	for path, item := range doc.Paths {
		for method, e := range item {
			byTag[e.Tags[0]] = append(byTag[e.Tags[0]], listed{strings.ToUpper(method), path, e})
		}
	}
	var sections []section
	for _, tag := range slices.Sorted(maps.Keys(byTag)) {
		ops := byTag[tag]
		slices.SortFunc(ops, func(x, y listed) int {
			return strings.Compare(x.Path+" "+x.Method,
				y.Path+" "+y.Method)
		})
		sections = append(sections, section{tag, ops})
	}
	t, err := template.New("reference").Funcs(template.FuncMap{"type": typeOf, "text": marked}).Parse(referenceTemplate)
	if err != nil {
		return nil, nil, fmt.Errorf("API reference: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, map[string]any{
		"Info": doc.Info, "Sections": sections,
		"Schemas": doc.Components.Schemas,
	}); err != nil {
		return nil, nil, fmt.Errorf("API reference: %w", err)
	}
	var entries [][4]string // [address, page, heading, text], as the pages' own are
	add := func(id, heading string, text ...string) {
		entries = append(entries, [4]string{docsite.Reference + "#" + id, "API", heading, strings.Join(text, " ")})
	}
	for _, s := range sections {
		for _, o := range s.Operations {
			add(o.OperationID, o.Method+" "+o.Path, o.Summary, o.Description)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas)) {
		s := doc.Components.Schemas[name]
		text := []string{s.Description}
		for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
			description, _ := s.Properties[field]["description"].(string)
			text = append(text, field+":", description)
		}
		add(name, name, text...)
	}
	if found, err = json.Marshal(entries); err != nil {
		return nil, nil, fmt.Errorf("API reference: %w", err)
	}
	return b.Bytes(), found, nil
}

// marked writes a text with what stands between backquotes as code.
func marked(text string) template.HTML {
	var b strings.Builder
	for i, part := range strings.Split(text, "`") {
		part = template.HTMLEscapeString(part)
		if i%2 == 1 {
			part = "<code>" + part + "</code>"
		}
		b.WriteString(part)
	}
	return template.HTML(b.String()) //nolint:gosec // escaped
}

// typeOf writes a schema in a few words, with links to what it refers to.
func typeOf(schema map[string]any) template.HTML {
	esc := template.HTMLEscapeString
	if ref, ok := schema["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/components/schemas/")
		return template.HTML(`<a href="#` + esc(name) + `">` + esc(name) + `</a>`) //nolint:gosec // escaped
	}
	if several, ok := schema["anyOf"].([]any); ok {
		var parts []string
		for _, x := range several {
			if m, ok := x.(map[string]any); ok {
				parts = append(parts, string(typeOf(m)))
			}
		}
		return template.HTML(strings.Join(parts, " or ")) //nolint:gosec // made of escaped parts
	}
	if items, ok := schema["items"].(map[string]any); ok {
		return "array of " + typeOf(items)
	}
	if values, ok := schema["additionalProperties"].(map[string]any); ok {
		return "map of " + typeOf(values)
	}
	words := []string{fmt.Sprint(schema["type"])}
	if c, ok := schema["const"]; ok {
		words = append(words, fmt.Sprintf("“%v”", c))
	}
	if e, ok := schema["enum"].([]any); ok {
		words = append(words, "one of")
		for _, x := range e {
			words = append(words, fmt.Sprint(x))
		}
	}
	for _, limit := range []string{"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern"} {
		if v, ok := schema[limit]; ok {
			words = append(words, fmt.Sprintf("%s %v", limit, v))
		}
	}
	return template.HTML(esc(strings.Join(words, " "))) //nolint:gosec // escaped
}
