package web

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/services/api/internal/openapi"
)

//go:embed docs.html
var docsTemplate string

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

// describe makes the OpenAPI document and its page.
func (a *API) describe() (err error) {
	if a.openAPI, err = a.document(); err != nil {
		return err
	}
	a.docs, err = page(a.openAPI)
	return err
}

func (a *API) docsPage(c echo.Context) error {
	c.Response().Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri "+
		"'none'; form-action 'none'; frame-ancestors 'none'")
	return c.HTMLBlob(http.StatusOK, a.docs)
}

// docsSection is the operations of one tag.
type docsSection struct {
	Tag        string
	Operations []docsOperation
}

type docsOperation struct {
	Method, Path string
	docsEntry
}

type docsEntry struct {
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

// page renders the document as one page without scripts.
func page(document []byte) ([]byte, error) {
	var doc struct {
		Info       struct{ Title, Version, Description string }
		Paths      map[string]map[string]docsEntry
		Components struct {
			Schemas map[string]struct {
				Title, Description string
				Properties         map[string]map[string]any
				Required           []string
			}
		}
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, fmt.Errorf("docs page: %w", err)
	}
	byTag := map[string][]docsOperation{}
	for path, item := range doc.Paths {
		for method, e := range item {
			byTag[e.Tags[0]] = append(byTag[e.Tags[0]], docsOperation{strings.ToUpper(method), path, e})
		}
	}
	var sections []docsSection
	for _, tag := range slices.Sorted(maps.Keys(byTag)) {
		ops := byTag[tag]
		slices.SortFunc(ops, func(x, y docsOperation) int {
			return strings.Compare(x.Path+" "+x.Method,
				y.Path+" "+y.Method)
		})
		sections = append(sections, docsSection{tag, ops})
	}
	t, err := template.New("docs").Funcs(template.FuncMap{"type": typeOf}).Parse(docsTemplate)
	if err != nil {
		return nil, fmt.Errorf("docs page: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, map[string]any{
		"Info": doc.Info, "Sections": sections,
		"Schemas": doc.Components.Schemas,
	}); err != nil {
		return nil, fmt.Errorf("docs page: %w", err)
	}
	return b.Bytes(), nil
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
