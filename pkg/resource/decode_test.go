package resource_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

func kind(t testing.TB, name string) resource.Kind {
	t.Helper()
	k, ok := resource.KindByName(name)
	if !ok {
		t.Fatal("no kind", name)
	}
	return k
}

// rules lists what was found, as "path rule".
func rules(v resource.Violations) string {
	out := make([]string, len(v))
	for i, x := range v {
		out[i] = x.Path + " " + x.Rule
	}
	return strings.Join(out, "; ")
}

func TestDecodeSpecRefuses(t *testing.T) {
	for _, c := range []struct{ kind, raw, want string }{
		{"Route", `{"path":{"prefix":"/\u0000"}}`, "$.path.prefix json.zero"},
		{
			"Route", `{"hosts":["a","b\u0000c"],"direct_response":{"body":"x\u0000"}}`,
			"$.hosts[1] json.zero; $.direct_response.body json.zero",
		},
		{"Gateway", `{"access_log":{"fields":{"a\u0000":"b"}}}`, `$.access_log.fields["a\x00"] json.zero`},
		{"Gateway", `{"access_log":{"fields":{"a":"\u0000"}}}`, `$.access_log.fields.a json.zero`},
		{"Route", `{"timeout":"\u0000"}`, "$.timeout json.type; $.timeout json.zero"},
		{"Route", `{"hosts":["\u0000"],"timeout":"1m30s"}`, "$.hosts[0] json.zero"},
		{"Route", `{"nonsense":1}`, "$.nonsense json.unknown_field"},
		{"Route", `{"hosts":["a"],"hosts":["b"]}`, "$.hosts json.duplicate"},
		{"Route", `{"hosts":"a"}`, "$.hosts json.type"},
		{"Route", `{"hosts":[1]}`, "$.hosts[0] json.type"},
		{"Route", `{"backends":[{"weight":-1},{"weight":1.5},{"weight":4294967296}]}`, "$.backends[0].weight json.type; " +
			"$.backends[1].weight json.type; $.backends[2].weight json.type"},
		{"Route", `{"timeout":"soon"}`, "$.timeout json.type"},
		{"Route", `{"idleTimeout":"1s"}`, "$.idleTimeout json.unknown_field"},
		{"Route", `{"timeout":null,"hosts":null}`, "$.timeout json.type; $.hosts json.type"},
		{"Route", `{"backends":[{"service":"a","weight":"1"}]}`, "$.backends[0].weight json.type"},
		{"Service", `{"protocol":2}`, "$.protocol json.type"},
		{"Service", `{"protocol":"smtp"}`, "$.protocol json.type"},
		{"Service", `{"protocol":1}`, "$.protocol json.type"},
		{"Route", `{"idleTimeout":"1s"}`, "$.idleTimeout json.unknown_field"},
		{"Route", `{"timeout":null,"hosts":null,"path":null}`, "$.timeout json.type; $.hosts json.type; $.path json.type"},
		{"Route", `{"backends":[{"weight":"1"}]}`, "$.backends[0].weight json.type"},
		{"Service", `[]`, "$ json.type"},
		{"Service", `null`, "$ json.type"},
		{"Service", ``, "$ json.syntax"},
		{"Service", `{`, "$ json.syntax"},
		{"Service", `{} {}`, "$ json.trailing"},
		{"Service", "{\"a\":\"\xff\"}", "$ json.utf8"},
		{"Service", strings.Repeat("[", 40), "$ json.depth"},
	} {
		m, v := resource.DecodeSpec(kind(t, c.kind), []byte(c.raw))
		if got := rules(v); got != c.want || m != nil {
			t.Errorf("%s %s: %s, not %s", c.kind, c.raw, got, c.want)
		}
	}
}

// TestDecodeSpecAccepts: what looks like a zero character and is none, and durations as people write them.
func TestDecodeSpecAccepts(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{`{"hosts":["a\\u0000"]}`, `{"hosts":["a\\u0000"]}`},
		{`{"hosts":["\u0001"]}`, `{"hosts":["\u0001"]}`},
		{`{"timeout":"1m30s","idle_timeout":"500ms"}`, `{"timeout":"90s","idle_timeout":"0.500s"}`},
	} {
		m, v := resource.DecodeSpec(kind(t, "Route"), []byte(c.raw))
		if len(v) > 0 {
			t.Errorf("%s: %v", c.raw, v)
			continue
		}
		if got, err := resource.CanonicalSpec(m); err != nil || string(got) != c.want {
			t.Errorf("%s became %s, not %s: %v", c.raw, got, c.want, err)
		}
	}
}

func TestCheckJSON(t *testing.T) {
	for raw, want := range map[string]string{
		`{"kind":"Route","labels":{"a":"\u0000"}}`: "$.labels.a json.zero",
		`[{"\u0000":1}]`:           `$[0]["\x00"] json.zero`,
		`{"a":[1,{"b":2,"b":3}]}`:  "$.a[1].b json.duplicate",
		`{"a":1}{}`:                "$ json.trailing",
		`{"a":}`:                   "$ json.syntax",
		`{"a":"\ud800"}`:           "",
		`"\\u0000"`:                "",
		`{"a":{"b":[null,1e400]}}`: "",
	} {
		if got := rules(resource.CheckJSON([]byte(raw))); got != want {
			t.Errorf("%s: %q, not %q", raw, got, want)
		}
	}
}

// TestManyViolations: a document that is wrong everywhere is answered in a bounded size.
func TestManyViolations(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"x":0`)
	for i := range 5000 {
		fmt.Fprintf(&b, `,"f%d":1`, i)
	}
	b.WriteString("}")
	if _, v := resource.DecodeSpec(kind(t, "Route"), []byte(b.String())); len(v) != 100 {
		t.Errorf("%d violations", len(v))
	}
}

func TestParsePayloadRefuses(t *testing.T) {
	for _, raw := range []string{
		``, `[]`, `{"kind":"Nonsense","name":"a","spec":{}}`, `{"kind":"Nonsense","name":"a","deleted":true}`,
		`{"kind":"Route","name":"a","spec":[]}`, `{"kind":"Route","name":"a"}`,
	} {
		if o, err := resource.ParsePayload([]byte(raw)); err == nil {
			t.Errorf("%s is taken for %v", raw, o.Ref())
		}
	}
}

func TestHash(t *testing.T) {
	a, b := resource.Sum(resource.Tombstone(resource.Ref{Kind: "Route", Name: "a"}, 1)),
		resource.Sum(resource.Tombstone(resource.Ref{Kind: "Route", Name: "b"}, 1))
	if a == b {
		t.Error("two objects have one hash")
	}
	if a.Add(b) != b.Add(a) || a.Add(b).Sub(a) != b {
		t.Error("the order matters")
	}
	tally := resource.Tally{}
	tally.Add("Route", a)
	tally.Add("Route", b)
	tally.Sub("Route", a)
	want := resource.KindState{Count: 1, Hash: b.String()}
	if got := tally.State(); len(got) != 1 || got["Route"] != want || tally.Of("Service") != (resource.KindState{}) {
		t.Errorf("%v", got)
	}
	tally.Sub("Route", b)
	if got := tally.State(); len(got) > 0 {
		t.Errorf("a kind without objects is told of: %v", got)
	}
}
