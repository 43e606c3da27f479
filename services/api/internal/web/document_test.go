package web

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documented is what this test reads of an operation.
type documented struct {
	OperationID, Summary, Description string
	Tags                              []string
	Security                          *[]map[string][]string
	Parameters                        []struct{ Name, In, Description string }
	RequestBody                       *struct {
		Content map[string]struct{ Schema, Example any }
	}
	Responses map[string]struct {
		Description string
		Headers     map[string]struct{ Description string }
		Content     map[string]struct{ Schema any }
	}
}

// TestDocument holds the OpenAPI document to what programs that make clients of it rely on.
func TestDocument(t *testing.T) {
	a := &API{}
	a.metrics = newMetrics(a)
	document, err := a.document()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Servers    []struct{ URL, Description string }
		Tags       []struct{ Name, Description string }
		Paths      map[string]map[string]documented
		Components struct{ Schemas map[string]map[string]any }
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Servers) == 0 || doc.Servers[0].URL != "/" {
		t.Errorf("servers %v: the first is not where the document came from", doc.Servers)
	}
	tags := map[string]bool{}
	for _, tag := range doc.Tags {
		if tag.Description == "" || tags[tag.Name] {
			t.Errorf("tag %s has no description, or stands twice", tag.Name)
		}
		tags[tag.Name] = true
	}
	schemas := doc.Components.Schemas
	for name, schema := range schemas {
		if schema["title"] != name {
			t.Errorf("schema %s has the title %v: a class of another name, or of one that is taken", name, schema["title"])
		}
		delete(schema, "title")
		keywords(t, "schema "+name, schema, schemas)
	}
	for schema, fields := range map[string][]string{
		"CertificateSpec": {"private_key"}, "LicenseSpec": {"key"}, "JwtKey": {"secret"},
		"OpaqueToken": {"value", "sha256"}, "ClusterApiKey": {"key", "sha256"},
	} {
		for _, f := range fields {
			if p, _ := schemas[schema]["properties"].(map[string]any)[f].(map[string]any); p["writeOnly"] != true {
				t.Errorf("%s.%s is a secret, and not writeOnly", schema, f)
			}
		}
	}
	roles := map[string]string{}
	for _, o := range a.operations() {
		roles[o.ID] = o.Role
	}
	ids := map[string]bool{}
	for path, item := range doc.Paths {
		for method, o := range item {
			where := strings.ToUpper(method) + " " + path
			if ids[strings.ToLower(o.OperationID)] || !regexp.MustCompile(`^[a-z]+([A-Z][a-z]+)*$`).MatchString(o.OperationID) {
				t.Errorf("%s: operationId %q stands twice, or makes no good name of a function", where, o.OperationID)
			}
			ids[strings.ToLower(o.OperationID)] = true
			if len(o.Tags) != 1 || !tags[o.Tags[0]] {
				t.Errorf("%s: tags %v, want one that is described", where, o.Tags)
			}
			role, fixed := roles[o.OperationID]
			switch open := fixed && role == ""; {
			case o.Security == nil:
				t.Errorf("%s: security is not said", where)
			case open != (len(*o.Security) == 0):
				t.Errorf("%s: security %v; open to everybody: %v", where, *o.Security, open)
			}
			o.check(t, where, schemas)
		}
	}
	if len(ids) < 50 {
		t.Errorf("only %d operations are found", len(ids))
	}
}

func (o documented) check(t *testing.T, where string, schemas map[string]map[string]any) {
	t.Helper()
	if o.Summary == "" || len(o.Responses) < 2 {
		t.Errorf("%s: no summary, or no refusals", where)
	}
	for _, p := range o.Parameters {
		if p.Description == "" {
			t.Errorf("%s: parameter %s is not described", where, p.Name)
		}
	}
	if o.RequestBody != nil {
		for media, body := range o.RequestBody.Content {
			if body.Example == nil {
				t.Errorf("%s: %s has no example", where, media)
			}
			keywords(t, where, body.Schema, schemas)
		}
	}
	for status, r := range o.Responses {
		if r.Description == "" {
			t.Errorf("%s: status %s is not described", where, status)
		}
		media := slices.Collect(maps.Keys(r.Content))
		if status >= "400" && !slices.Equal(media, []string{"application/problem+json"}) {
			t.Errorf("%s: status %s has %v, want a problem", where, status, media)
		}
		for _, body := range r.Content {
			keywords(t, where, body.Schema, schemas)
		}
	}
}

// keywords looks through a schema for what generators stumble over: references to nothing, titles inside
// (two classes of one name), and objects of which TypeScript's generator makes one that is always empty.
func keywords(t *testing.T, where string, v any, schemas map[string]map[string]any) {
	t.Helper()
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			keywords(t, where, x, schemas)
		}
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok && schemas[strings.TrimPrefix(ref, "#/components/schemas/")] == nil {
			t.Errorf("%s refers to %s, which is not there", where, ref)
		}
		if title, ok := v["title"].(string); ok {
			t.Errorf("%s has a title inside: %s", where, title)
		}
		if v["type"] == "object" && v["properties"] == nil && v["additionalProperties"] == nil &&
			v["patternProperties"] == nil {
			t.Errorf("%s has an object without properties that does not say that it may have any", where)
		}
		for k, x := range v {
			if properties, ok := x.(map[string]any); ok && k == "properties" {
				for name, p := range properties {
					keywords(t, where+"."+name, p, schemas)
				}
				continue
			}
			keywords(t, where, x, schemas)
		}
	}
}
