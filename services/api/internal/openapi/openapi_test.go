package openapi_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/openapi"
)

type object = map[string]any

// put is an operation of every kind, as the API has one; the API's own are held to the document's rules by package web.
var put = openapi.Operation{
	ID: "put{Kind}", Method: "PUT", Path: "/v1/:kind/:name", Role: auth.Editor, Writes: true, Tag: "{Kinds}",
	Summary: "Write one {kind} of the {kinds}",
	Query:   []string{"wait"}, Headers: []string{"If-Match", "Idempotency-Key"}, Request: "{Kind}",
	Answers: map[int]string{200: "{Kind}", 201: "{Kind}"},
}

func document(t *testing.T, operations ...openapi.Operation) object {
	t.Helper()
	raw, err := openapi.Document(operations)
	if err != nil {
		t.Fatal(err)
	}
	var out object
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// get follows names; nil where there is no such thing.
func get(v any, path ...string) any {
	for _, p := range path {
		m, _ := v.(object)
		v = m[p]
	}
	return v
}

// TestKinds: an operation of every kind is there once for each, by the kind's own words: a client's function is called
// by them, and a policy's plural is not a policie.
func TestKinds(t *testing.T) {
	doc := document(t, put)
	paths, _ := doc["paths"].(object)
	written := slices.DeleteFunc(slices.Clone(resource.Kinds), func(k resource.Kind) bool { return config.KindOf(k.Name).System })
	if len(paths) != len(written) || len(written) == len(resource.Kinds) {
		t.Errorf("%d paths for %d kinds, of which %d may be written", len(paths), len(resource.Kinds), len(written))
	}
	for _, k := range written {
		o := get(paths, "/v1/"+k.Path+"/{name}", "put")
		if get(o, "operationId") != "put"+k.Name || openapi.IDOf(put.ID, k) != "put"+k.Name {
			t.Errorf("%s: %v", k.Name, get(o, "operationId"))
		}
		if ref := get(o, "responses", "201", "content", "application/json", "schema", "$ref"); ref != "#/components/schemas/"+
			k.Name {
			t.Errorf("%s is answered by %v", k.Name, ref)
		}
		if strings.ContainsAny(get(o, "summary").(string), "{}") {
			t.Errorf("%s: %v", k.Name, get(o, "summary"))
		}
	}
	policy := get(paths, "/v1/auth-policies/{name}", "put")
	if got := get(policy, "summary"); got != "Write one auth policy of the auth policies" {
		t.Errorf("summary %q", got)
	}
}

// TestRoles: what an operation needs is said, for each kind its own: a kind that operators write says so in PUT too.
func TestRoles(t *testing.T) {
	doc := document(t, put, openapi.Operation{
		ID: "health", Method: "GET", Path: "/healthz", Tag: "System", Summary: "x",
		Answers: map[int]string{200: "Health"},
	})
	seen := map[string]bool{}
	for _, k := range resource.Kinds {
		if config.KindOf(k.Name).System {
			continue // nobody's token writes it
		}
		o := get(doc, "paths", "/v1/"+k.Path+"/{name}", "put")
		role := auth.ToWrite(k.Name)
		seen[role] = true
		security, _ := json.Marshal(get(o, "security")) // it came from JSON
		if string(security) != `[{"token":["`+role+`"]}]` || !strings.Contains(get(o, "description").(string),
			"Role needed: "+role) {
			t.Errorf("%s: %s and %q, want %s", k.Name, security, get(o, "description"), role)
		}
	}
	if len(seen) < 2 {
		t.Errorf("all kinds have one role, %v: this test shows nothing", seen)
	}
	if open, said := get(doc, "paths", "/healthz", "get", "security").([]any); !said || len(open) != 0 {
		t.Errorf("what is open to everybody does not say so: %v", get(doc, "paths", "/healthz", "get"))
	}
}

// TestRefusals: the statuses of refusals follow from what an operation takes.
func TestRefusals(t *testing.T) {
	base := openapi.Operation{
		ID: "x", Method: "GET", Path: "/v1/x", Tag: "System", Role: auth.Viewer, Summary: "x",
		Answers: map[int]string{200: "Health"},
	}
	for name, c := range map[string]struct {
		change func(o *openapi.Operation)
		want   []string
	}{
		"open":         {func(o *openapi.Operation) { o.Role = "" }, []string{"400"}},
		"readiness":    {func(o *openapi.Operation) { o.Role, o.Path = "", "/readyz" }, []string{"400", "503"}},
		"with a token": {func(*openapi.Operation) {}, []string{"400", "401", "403", "429", "503"}},
		"of one thing": {
			func(o *openapi.Operation) { o.Path = "/v1/revisions/:revision" },
			[]string{"400", "401", "403", "404", "422", "429", "503"},
		},
		"that does something to one thing": {
			func(o *openapi.Operation) { o.Method, o.Path = "POST", "/v1/certificates/:name/renew" },
			[]string{"400", "401", "403", "404", "409", "422", "429", "503"},
		},
		"with a body": {
			func(o *openapi.Operation) { o.Request = "ApplyRequest" },
			[]string{"400", "401", "403", "413", "415", "422", "429", "503"},
		},
		"that can be made twice": {
			func(o *openapi.Operation) { o.Headers = []string{"Idempotency-Key"} },
			[]string{"400", "401", "403", "409", "422", "429", "503"},
		},
		"of one state": {
			func(o *openapi.Operation) { o.Headers = []string{"If-Match"} },
			[]string{"400", "401", "403", "412", "429", "503"},
		},
		"that makes a token": {
			func(o *openapi.Operation) { o.Method, o.Tag = "POST", "Tokens" },
			[]string{"400", "401", "403", "409", "429", "503"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := base
			c.change(&o)
			doc := document(t, o)
			var got []string
			path := strings.NewReplacer(":revision", "{revision}", ":name", "{name}").Replace(o.Path)
			responses, _ := get(doc, "paths", path, strings.ToLower(o.Method), "responses").(object)
			for status, r := range responses {
				if status == "200" {
					continue
				}
				got = append(got, status)
				if get(r, "content", "application/problem+json", "schema", "$ref") != "#/components/schemas/Problem" ||
					get(r, "description") == "" {
					t.Errorf("%s is %v", status, r)
				}
			}
			if slices.Sort(got); !slices.Equal(got, c.want) {
				t.Errorf("it refuses with %v, want %v", got, c.want)
			}
		})
	}
}

// TestETag: answers that show one object say that they have its ETag, and no others do.
func TestETag(t *testing.T) {
	list := openapi.Operation{
		ID: "list{Kinds}", Method: "GET", Path: "/v1/:kind", Role: auth.Viewer, Tag: "{Kinds}",
		Summary: "x", Answers: map[int]string{200: "{Kind}List"},
	}
	remove := openapi.Operation{
		ID: "delete{Kind}", Method: "DELETE", Path: "/v1/:kind/:name", Role: auth.Editor,
		Tag: "{Kinds}", Summary: "x", Answers: map[int]string{200: "Health"},
	}
	doc := document(t, put, list, remove)
	for where, want := range map[[2]string]bool{
		{"/v1/routes/{name}", "put"}: true, {"/v1/routes", "get"}: false,
		{"/v1/routes/{name}", "delete"}: false,
	} {
		if got := get(doc, "paths", where[0], where[1], "responses", "200", "headers", "ETag") != nil; got != want {
			t.Errorf("%v has an ETag: %v, want %v", where, got, want)
		}
	}
}

// TestSchemas: the API's spelling of values is documented, and not the several that protobuf's JSON would take.
func TestSchemas(t *testing.T) {
	doc := document(t)
	schema := func(path ...string) any { return get(doc, append([]string{"components", "schemas"}, path...)...) }
	if port := schema("Listener", "properties", "port"); get(port, "type") != "integer" || get(port, "anyOf") != nil ||
		get(port, "maximum") != 65535.0 {
		t.Errorf("a port is %v", port)
	}
	timeout := schema("RouteSpec", "properties", "timeout")
	if get(timeout, "type") != "string" || get(timeout, "pattern") == nil {
		t.Errorf("a duration is %v", timeout)
	}
	for _, k := range resource.Kinds {
		if required, _ := schema(k.Name, "required").([]any); len(required) != 1 || required[0] != "spec" {
			t.Errorf("%s requires %v", k.Name, required)
		}
		if schema(k.Name, "properties", "kind", "const") != k.Name ||
			schema(k.Name, "properties", "spec", "$ref") != "#/components/schemas/"+k.Name+"Spec" {
			t.Errorf("%s is %v", k.Name, schema(k.Name, "properties"))
		}
		if labels := schema(k.Name+"Patch", "properties", "labels", "type"); len(labels.([]any)) != 2 {
			t.Errorf("a patch of %s cannot remove its labels: %v", k.Name, labels)
		}
	}
	if required, _ := schema("Listener", "required").([]any); !slices.Contains(required, any("name")) ||
		!slices.Contains(required, any("port")) {
		t.Errorf("a listener requires %v: what cannot be zero cannot be left out", required)
	}
	raw, err := json.Marshal(schema())
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"$defs", "google.protobuf", "Infinity", `"patternProperties":{"^(`} {
		if strings.Contains(string(raw), word) {
			t.Errorf("a schema has %s", word)
		}
	}
}

// TestMistakes: an operation that the document cannot describe is an error at the start, which names it.
func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		change func(o *openapi.Operation)
		says   string
	}{
		"a parameter that nobody describes": {
			func(o *openapi.Operation) { o.Query = []string{"colour"} },
			"parameter colour",
		},
		"a header that nobody describes": {
			func(o *openapi.Operation) { o.Headers = []string{"X-Colour"} },
			"parameter X-Colour",
		},
		"a body of no schema":       {func(o *openapi.Operation) { o.Request = "Colour" }, "no schema Colour"},
		"a body without an example": {func(o *openapi.Operation) { o.Request = "Problem" }, "no example of Problem"},
		"an answer of no schema": {
			func(o *openapi.Operation) { o.Answers = map[int]string{200: "{Kind}|Colour"} },
			"no schema Colour",
		},
		"a tag that nobody describes": {
			func(o *openapi.Operation) { o.Path, o.Tag, o.Request, o.Answers = "/v1/colours", "Colours", "", nil },
			`tag "Colours"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := put
			c.change(&o)
			if _, err := openapi.Document([]openapi.Operation{o}); err == nil || !strings.Contains(err.Error(), c.says) ||
				!strings.Contains(err.Error(), "put{Kind}") {
				t.Errorf("%v, want %q of operation put{Kind}", err, c.says)
			}
		})
	}
}

// TestParameters: of each parameter the example is taken, and what is beyond its limits is refused in a sentence.
func TestParameters(t *testing.T) {
	for name, p := range openapi.Parameters {
		if p.Description == "" || !slices.Contains([]string{"string", "integer", "boolean"}, p.Type) {
			t.Errorf("%s is not described, or a %q", name, p.Type)
		}
		if p.Pattern != "" && p.Example == "" {
			t.Errorf("%s has a pattern and no example to show in its place", name)
		}
		if p.Example != "" && p.Check(p.Example) != "" {
			t.Errorf("%s: its own example %s", name, p.Check(p.Example))
		}
		if p.Check("a\x00b") == "" || p.Check("\xff") == "" {
			t.Errorf("%s may have characters that PostgreSQL refuses", name)
		}
	}
	limit, names, wait, dry, since := openapi.Parameters["limit"], openapi.Parameters["name"], openapi.Parameters["wait"],
		openapi.Parameters["dry_run"], openapi.Parameters["since"]
	for _, c := range []struct {
		p     openapi.Parameter
		value string
		says  string
	}{
		{limit, "1", ""},
		{limit, "1000", ""},
		{limit, "0", "from 1 to 1000"},
		{limit, "1001", "from 1 to 1000"},
		{limit, "1.5", "whole number"},
		{limit, "99999999999999999999", "whole number"},
		{limit, "", "whole number"},
		{names, strings.Repeat("a", 63), ""},
		{names, strings.Repeat("a", 64), "at most 63"},
		{names, "Web", "look like web"},
		{names, "web-", "look like web"},
		{wait, "live", ""},
		{wait, "yes", "live or false"},
		{dry, "true", ""},
		{dry, "1", "true or false"},
		{since, "2026-01-31", "look like"},
		{openapi.Parameters["message"], strings.Repeat("é", 1024), ""},
		{openapi.Parameters["message"], strings.Repeat("é", 1025), "at most 1024"},
	} {
		if got := c.p.Check(c.value); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%.40q: %q, want %q", c.value, got, c.says)
		}
	}
}
