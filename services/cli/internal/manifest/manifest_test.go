package manifest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, in string, paths ...string) ([]*Document, error) {
	t.Helper()
	return Read(paths, strings.NewReader(in), func(int) {})
}

const route = "kind: Route\nname: %\nspec:\n  hosts: [%.example.com]\n"

func named(name string) string { return strings.ReplaceAll(route, "%", name) }

// TestOrder: directories recursively, by name; what is hidden or of another kind is passed over.
func TestOrder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b.yaml", named("b1")+"---\n# nothing\n---\n"+named("b2")+"...\n")
	write(t, dir, "a/z.yml", named("az"))
	write(t, dir, "c.json", `{"kind":"Route","name":"c1","spec":{}} [{"kind":"Route","name":"c2",`+
		`"spec":{"hosts":["\ud83d\ude00\/"]}}]`)
	write(t, dir, ".hidden.yaml", "!")
	write(t, dir, ".git/x.yaml", "!")
	write(t, dir, "README.md", "!")
	last := write(t, t.TempDir(), "list.yaml", "items:\n- {kind: Service, name: s, spec: {}, uid: x, revision: 4, "+
		"status: {state: live}}\nrevision: 7\n")
	docs, err := read(t, named("in"), "-", dir, last)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range docs {
		got = append(got, d.Name)
		if d.UID != "" || d.Revision != 0 || d.Status != nil {
			t.Errorf("%s keeps what the server sets", d.Ref())
		}
	}
	if want := []string{"in", "az", "b1", "b2", "c1", "c2", "s"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
	if spec := string(docs[5].Spec); spec != `{"hosts":["😀/"]}` {
		t.Error(spec)
	}
}

// TestScalars: YAML's ways to write a value, as JSON.
func TestScalars(t *testing.T) {
	in := `
kind: Route
name: r
spec: &all
  text: [yes, "1", '2', 2026-11-24, 1.2.3, "", ~x]
  words: [no, on, Off, y, 2027-01-31T00:00:00Z, 127.0.0.1:80, "22:22", '010', !!str 010, "1_000", "0b1"]
  bool: [true, False]
  null: [~, null]
  numbers: [1, 0x10, 1.50, 1e3, 18446744073709551615, -1]
  404: key
  fold: >-
    one
    two
  twice: {a: &a 1, b: *a}
  merge: {<<: {x: 1, y: 2}, y: 3}
`
	docs, err := read(t, in, "-")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"text":["yes","1","2","2026-11-24","1.2.3","","~x"],"words":["no","on","Off","y","2027-01-31T00:00:00Z",` +
		`"127.0.0.1:80","22:22","010","010","1_000","0b1"],"bool":[true,false],"null":[null,null],` +
		`"numbers":[1,16,1.50,1e3,18446744073709551615,-1],"404":"key","fold":"one two","twice":{"a":1,"b":1},` +
		`"merge":{"y":3,"x":1}}`
	if got := string(docs[0].Spec); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestMistakes: each is said with file, line and document.
func TestMistakes(t *testing.T) {
	deep := "kind: Route\nname: r\nspec: " + strings.Repeat("[", 80) + strings.Repeat("]", 80)
	bomb := "kind: Route\nname: r\nspec:\n  a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'j'; c++ {
		p := string(c - 1)
		bomb += "  " + string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+p+",", 10), ",") + "]\n"
	}
	for name, c := range map[string]struct{ text, want string }{
		"unknown member": {
			named("a") + "---\n" + named("b") + "extra: 1\n",
			`f.yaml:10: document 2: "extra" is unknown; a resource has kind, name, spec, owner, labels,`,
		},
		"misspelt":   {"kind: Route\nnam: a\nspec: {}\n", `f.yaml:2: document 1: "nam" is unknown`},
		"no kind":    {"name: a\nspec: {}\n", "f.yaml:1: document 1: kind is missing"},
		"no spec":    {"kind: Route\nname: a\n", "f.yaml:1: document 1: spec is missing"},
		"empty spec": {"kind: Route\nname: a\nspec:\n", "f.yaml:1: document 1: spec is empty"},
		"a text":     {"hello\n", "f.yaml:1: document 1: is no resource"},
		"a key twice": {
			"kind: Route\nname: a\nspec:\n  hosts: [a]\n  hosts: [b]\n",
			`f.yaml:5: document 1: "hosts" stands twice`,
		},
		"broken": {named("a") + "---\nkind: [\n", "f.yaml:"},
		"wrong type": {"kind: [Route]\nname: a\nspec: {}\n", "f.yaml:1: document 1: kind must be a " +
			"string, in quotes"},
		"a number as name": {"kind: Route\nname: 7\nspec: {}\n", "f.yaml:2: document 1: name must be a string, in quotes"},
		"a number as a label": {
			"kind: Route\nname: a\nspec: {}\nlabels:\n  team: web\n  version: 1.10\n",
			"f.yaml:6: document 1: labels.version must be a string, in quotes",
		},
		"true as a label": {
			"kind: Route\nname: a\nspec: {}\nlabels: {a.b: true}\n",
			`f.yaml:4: document 1: labels["a.b"] must be a string, in quotes`,
		},
		"null as a label": {
			"kind: Route\nname: a\nspec: {}\nlabels:\n  team:\n",
			`f.yaml:5: document 1: labels.team is null; write "" where`,
		},
		"octal": {
			"kind: Gateway\nname: g\nspec:\n  listeners:\n  - name: a\n    port: 010\n",
			`f.yaml:6: document 1: spec.listeners[0].port is 010, which is 8 to some readers of YAML and 10 to others; write ` +
				`8 or 10, or "010" in quotes`,
		},
		"octal as label": {
			"kind: Route\nname: a\nlabels: {mode: -0777}\nspec: {}\n",
			"f.yaml:3: document 1: labels.mode is -0777, which is -511 to some readers of YAML and -777 to others",
		},
		"octal by tag": {"kind: Route\nname: a\nspec: {n: !!int \"010\"}\n", "f.yaml:3: document 1: spec.n is " +
			"010, which is 8"},
		"octal of no octal": {"kind: Route\nname: a\nspec: {n: 089}\n", "f.yaml:3: document 1: spec.n is 089, which is a " +
			"number to some readers of YAML and text to others"},
		"octal with an o": {"kind: Route\nname: a\nspec: {n: [1, 0o17]}\n", "f.yaml:3: document 1: spec.n[1] is 0o17, " +
			"which is a number to some"},
		"binary": {"kind: Route\nname: a\nspec: {n: 0b11}\n", "f.yaml:3: document 1: spec.n is 0b11, which is " +
			"a number to some"},
		"underscores": {"kind: Route\nname: a\nspec: {n: 1_000}\n", "f.yaml:3: document 1: spec.n is 1_000, which " +
			"is a number to some"},
		"base of 60": {"kind: Route\nname: a\nspec: {n: {m: 22:22}}\n", `f.yaml:3: document 1: spec.n.m is 22:22,` +
			` which is a number to the base of 60 to some readers of YAML and text to others; write "22:22" in quotes`},
		"a list twice":      {"items: []\nitems: []\n", `f.yaml:2: document 1: "items" stands twice`},
		"an envelope twice": {"kind: Route\nname: a\nname: b\nspec: {}\n", `f.yaml:3: document 1: "name" stands twice`},
		"beside a list":     {"owner: me\nresources: []\n", `f.yaml:1: document 1: "owner" stands beside a list`},
		"not a number": {
			"kind: Route\nname: a\nspec: {weight: .inf}\n",
			`f.yaml:3: document 1: ".inf" has no form in JSON`,
		},
		"a tag": {
			"kind: Route\nname: a\nspec: {weight: !secret x}\n",
			"f.yaml:3: document 1: has the tag !secret",
		},
		"the same twice": {named("a") + "---\n" + named("b") + "---\n" + named("a"), "f.yaml:12: document 3: Route/a " +
			"is described twice; it stands in "},
		"deep":             {deep, "f.yaml:3: document 1: nests too deeply"},
		"aliases of bombs": {bomb, "nests too deeply, or its aliases make it too large"},
		"itself":           {"kind: Route\nname: r\nspec: &s\n  a: *s\n", "f.yaml:"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, "", write(t, t.TempDir(), "f.yaml", c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
	for name, c := range map[string]struct{ text, want string }{
		"json broken": {"{\"kind\": \"Route\",\n\"name\" \"a\"}", "f.json:2: document 1: is not valid JSON: " +
			"invalid character"},
		"json cut off": {"{\"kind\": \"Route\",\n", "f.json:2: document 1: is not valid JSON: unexpected EOF"},
		"json twice": {
			"{\"kind\":\"Route\",\"name\":\"a\",\n\"spec\":{\"a\":1,\n\"a\":2}}",
			`f.json:3: document 1: "a" stands twice`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, "", write(t, t.TempDir(), "f.json", c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
	if _, err := read(t, "", t.TempDir()); err == nil ||
		!strings.Contains(err.Error(), "holds no .yaml, .yml or .json file") {
		t.Error(err)
	}
	if _, err := read(t, "", "/nowhere.yaml"); err == nil || !strings.Contains(err.Error(), "/nowhere.yaml") {
		t.Error(err)
	}
}

// TestWhere: a path of the api is a line of the file.
func TestWhere(t *testing.T) {
	path := write(t, t.TempDir(), "f.yaml", "kind: Gateway\nname: g\nspec:\n  listeners:\n  - name: a\n    port: 1\n  - "+
		"name: b\n    port: 2\n  access_log:\n    fields:\n      \"a.b\": \"%X%\"\n")
	docs, err := read(t, "", path)
	if err != nil {
		t.Fatal(err)
	}
	for at, line := range map[string]string{
		"$": "1", "$.name": "2", "$.spec": "3", "$.spec.listeners[1].port": "8", "$.spec.listeners[1].certificates[0]": "7",
		`$.spec.access_log.fields["a.b"]`: "11", "$.spec.listeners[9]": "4", "$.spec.nothing": "3",
	} {
		if got := docs[0].Where(at); got != path+":"+line {
			t.Errorf("%s is at %s, want line %s", at, got, line)
		}
	}
	if got := docs[0].Says("$.spec.listeners[1].port", "is taken"); got != path+":8: document 1: Gateway/g "+
		"spec.listeners[1].port is taken" {
		t.Error(got)
	}
}

// FuzzRoundTrip: what is written as YAML is read back as it was.
func FuzzRoundTrip(f *testing.F) {
	for _, seed := range []string{
		`{"a":"yes","b":["1","true","~","null","","<<",">","- x","#","a: b","2026-01-01","0x1","1e3",".inf",` +
			`" lead","trail "]}`,
		`{"pem":"-----BEGIN-----\nabc\n-----END-----\n","tabs":"a\n\tb","trail":"a \nb","cr":"a\r\nb","nl":"\n",` +
			`"two":"a\n\n"}`,
		`{"n":[1,-1,1.5,1e30,12345678901234567890],"s":["010","0o7","0b1","1_0","1:30","22:22:22","1:1.5","-08","+1","00"],` +
			`"t":true,"x":{"":1,"y":{},"z":[]},"<<":{"k":"v"},"e":"😀\u0085\u2028"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		var v any
		if json.Unmarshal([]byte(in), &v) != nil || strings.Count(in, "[")+strings.Count(in, "{") > 20 ||
			strings.ContainsRune(in, '\ufffd') {
			return
		}
		raw, err := json.Marshal(map[string]any{"kind": "Route", "name": "r", "spec": map[string]any{"v": v}})
		if err != nil {
			t.Fatal(err)
		}
		out, err := YAML(raw)
		if err != nil {
			t.Fatal(err)
		}
		docs, errs := parse("f.yaml", out)
		if len(errs) > 0 || len(docs) != 1 {
			t.Fatalf("%v\n%s", errs, out)
		}
		var back map[string]any
		if err := json.Unmarshal(docs[0].Spec, &back); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(back["v"], v) {
			t.Errorf("%s\nbecame\n%s\n%s", in, out, docs[0].Spec)
		}
	})
}

// TestSecrets: a secrets file puts each secret where it belongs, by kid and name, and nothing else is changed.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secrets.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const files = `
kind: Certificate
name: web
spec: {chain: c, facts: {has_private_key: true}}
---
kind: License
name: main
spec: {facts: {has_key: true}, max_proxies: 12345678901234567890}
---
kind: AuthPolicy
name: staff
spec:
  jwt: {keys: [{kid: a.b/c, algorithm: HS256}, {kid: two, algorithm: ES256, public_key: p}, {kid: x, algorithm: HS512, secret: s}]}
  tokens: [{name: ci}, {name: cd, sha256: ab}]
`
	read := func() []*Document {
		t.Helper()
		docs, err := Read([]string{"-"}, strings.NewReader(files), func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		return docs
	}
	docs := read()
	var withheld []string
	for _, d := range docs {
		withheld = append(withheld, d.Content().Withheld()...)
	}
	if got := strings.Join(withheld, " "); got != "private_key key jwt.keys.a.b/c.secret tokens.ci.value" {
		t.Errorf("withheld: %s", got)
	}
	for path, want := range map[string]string{
		"$.spec.jwt.keys[0].secret": "jwt.keys.a.b/c.secret", "$.spec.tokens[1]": "tokens.cd.value", "$.spec.tokens[9]": "",
		"$.spec.jwt.keys[1].public_key": "", "$.spec": "",
	} {
		if got := docs[2].SecretField(path); got != want {
			t.Errorf("%s is called %q, want %q", path, got, want)
		}
	}
	write("Certificate/web: {private_key: pem}\nLicense/main: {key: 7}\nAuthPolicy/staff: {jwt.keys.a.b/c.secret: " +
		"first, tokens.cd.value: second}\n")
	if err := AddSecrets(path, docs); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		`{"chain":"c","facts":{"has_private_key":true},"private_key":"pem"}`,
		`{"facts":{"has_key":true},"key":"7","max_proxies":12345678901234567890}`,
		`{"jwt":{"keys":[{"algorithm":"HS256","kid":"a.b/c","secret":"first"},{"algorithm":"ES256","kid":"two",` +
			`"public_key":"p"},` +
			`{"algorithm":"HS512","kid":"x","secret":"s"}]},"tokens":[{"name":"ci"},{"name":"cd","sha256":"ab",` +
			`"value":"second"}]}`,
	} {
		if got := string(docs[i].Spec); got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	}
	write("AuthPolicy/staff: {jwt.keys.x.secret: hush, jwt.keys.none.secret: hush}\nService/web: {key: hush}\n" +
		"Certificate/web: {chain: hush}\n")
	err := AddSecrets(path, read())
	for _, want := range []string{
		"jwt.keys.x.secret stands in the files as well", "jwt.keys.none.secret is no secret",
		"Service/web is not in the files", "Certificate/web chain is no secret",
	} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v\nlacks %q, or repeats a secret", err, want)
		}
	}
}

// TestWithout: a member is taken out, and the others stay as they are.
func TestWithout(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":1,"k":[{"k":2}],"b":{"k":3}}`: `{"a":1,"b":{"k":3}}`, `{"k":1}`: `{}`, `{}`: `{}`,
		`{"b":1.50,"a":"<"}`: `{"b":1.50,"a":"<"}`,
	} {
		if got, err := Without([]byte(in), "k"); err != nil || string(got) != want {
			t.Errorf("%s: %s %v", in, got, err)
		}
	}
}
