package resource

import (
	"regexp"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// patterns collects the regular expressions of a message's rules, and of those below it.
func patterns(d protoreflect.MessageDescriptor, found map[string]string, seen map[protoreflect.FullName]bool) {
	if seen[d.FullName()] {
		return
	}
	seen[d.FullName()] = true
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		rules, _ := proto.GetExtension(f.Options(), validate.E_Field).(*validate.FieldRules)
		for _, r := range []*validate.FieldRules{
			rules, rules.GetRepeated().GetItems(), rules.GetMap().GetKeys(), rules.GetMap().GetValues(),
		} {
			if p := r.GetString().GetPattern(); p != "" {
				found[p] = string(f.FullName())
			}
		}
		if f.Message() != nil {
			patterns(f.Message(), found, seen)
		}
	}
}

// TestForms: each regular expression of the schema has its sentence, whose examples it takes.
func TestForms(t *testing.T) {
	found := map[string]string{}
	for _, k := range Kinds {
		patterns(k.New().ProtoReflect().Descriptor(), found, map[protoreflect.FullName]bool{})
	}
	if len(found) < 20 {
		t.Fatalf("only %d expressions are found", len(found))
	}
	quoted := regexp.MustCompile(`"([^"]*)"`)
	for p, field := range found {
		sentence := forms[p]
		if sentence == "" {
			t.Errorf("%s: pkg/resource/forms.go has no sentence for %s", field, p)
		}
		examples := quoted.FindAllStringSubmatch(sentence, -1)
		if len(examples) == 0 && !strings.Contains(sentence, "openssl") && !strings.Contains(sentence, "64 of") {
			t.Errorf("%s: no example in: %s", field, sentence)
		}
		for _, x := range examples {
			if !regexp.MustCompile(p).MatchString(x[1]) {
				t.Errorf("%s: the example %s is not taken", field, x[0])
			}
		}
	}
	for p := range forms {
		if found[p] == "" {
			t.Errorf("pkg/resource/forms.go has a sentence for %s, which is not in the schema", p)
		}
	}
}

// TestFormsAreSaid: a person sees the sentence, not the expression.
func TestFormsAreSaid(t *testing.T) {
	for _, c := range []struct{ kind, spec, path, says string }{
		{KindRoute, `{"hosts":["HTTP://a.test"],"direct_response":{"status":200}}`, "$.hosts[0]", `"shop.example.com"`},
		{
			KindLicense, `{"key":"PENG-ABCD-EFGH-IJKL-MNOP-XJG5","expires_at":"tomorrow"}`, "$.expires_at",
			`"2027-01-31T00:00:00Z"`,
		},
		{
			KindGateway, `{"listeners":[{"name":"h","port":80}],"access_log":{"fields":{"a b":"x"}}}`,
			`$.access_log.fields["a b"]`, `"duration_ms"`,
		},
		{
			KindRoute, `{"direct_response":{"status":200},"response_headers":{"set":[{"name":"x","value":"a\tb"},` +
				`{"name":"y","value":"a\u0001"}]}}`,
			"$.response_headers.set[1].value", "without control characters",
		},
		{
			KindRoute, `{"backends":[{"service":"a"}],"rewrite":{"regex":{"pattern":"x","substitution":"/a b"}}}`,
			"$.rewrite.regex.substitution", "without spaces",
		},
	} {
		k, _ := KindByName(c.kind)
		m, v := DecodeSpec(k, []byte(c.spec))
		if len(v) > 0 {
			t.Fatal(v)
		}
		v = Validate(m)
		if len(v) != 1 || v[0].Path != c.path || !strings.Contains(v[0].Message, c.says) ||
			strings.Contains(v[0].Message, "^") {
			t.Errorf("%s %s: %v", c.kind, c.spec, v)
		}
	}
}
