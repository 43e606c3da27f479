package resource_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// seeds are the specs of the translator's golden cases: every field is in one of them.
func seeds(t testing.TB, add func(kind int, spec []byte)) {
	t.Helper()
	files, err := filepath.Glob("../translate/testdata/in/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no seeds", err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range strings.SplitSeq(string(raw), "---\n") {
			var o struct {
				Kind string
				Spec json.RawMessage
			}
			if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
				t.Fatal(f, err)
			}
			for i, k := range resource.Kinds {
				if k.Name == o.Kind {
					add(i, o.Spec)
				}
			}
		}
	}
}

// FuzzDecodeSpec: no bytes bring the decoder down, and what it accepts means the same wherever it is read
// again: as the canonical spec, as an event's payload, as the row's document.
func FuzzDecodeSpec(f *testing.F) {
	seeds(f, func(kind int, spec []byte) { f.Add(uint8(kind), spec) })
	for _, raw := range []string{
		`{"timeout":"1h"}`, `{"hosts":["\u0000"]}`, `{"retry":{"backoff":"0.25s"}}`,
		`{"protocol":1}`, `null`, `{"tracing":{"percent":"NaN"}}`,
	} {
		for i := range resource.Kinds {
			f.Add(uint8(i), []byte(raw))
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, raw []byte) {
		k := resource.Kinds[int(n)%len(resource.Kinds)]
		m, v := resource.DecodeSpec(k, raw)
		for _, x := range v {
			if !strings.HasPrefix(x.Path, "$") || x.Message == "" || x.Rule == "" {
				t.Errorf("violation without path, message or rule: %+v", x)
			}
		}
		if (m == nil) != (len(v) > 0) {
			t.Fatalf("message %v with violations %v", m, v)
		}
		if m == nil {
			return
		}
		if v := resource.CheckJSON(raw); len(v) > 0 {
			t.Errorf("the document's check is stricter than the decoder: %v", v)
		}
		valid := resource.Validate(m)
		for _, x := range valid {
			if !strings.HasPrefix(x.Path, "$") || x.Message == "" {
				t.Errorf("violation without path or message: %+v", x)
			}
		}
		canonical, err := resource.CanonicalSpec(m)
		if err != nil {
			t.Fatal(err)
		}
		if v := resource.CheckJSON(canonical); len(v) > 0 {
			t.Errorf("the canonical spec is not fit to be stored: %v", v)
		}
		again, v := resource.DecodeSpec(k, canonical)
		if len(v) > 0 {
			t.Fatalf("the canonical spec %s is refused: %v", canonical, v)
		}
		if twice, err := resource.CanonicalSpec(again); err != nil || !bytes.Equal(twice, canonical) {
			t.Errorf("canonical %s is written as %s: %v", canonical, twice, err)
		}
		if len(resource.Validate(again)) != len(valid) {
			t.Errorf("the canonical spec has other violations")
		}
		o, err := resource.New(resource.Ref{Kind: k.Name, Name: "a"}, m)
		if err != nil {
			t.Fatal(err)
		}
		o.Revision = 7
		read, err := resource.ParsePayload(o.Payload())
		if err != nil {
			t.Fatalf("payload %s: %v", o.Payload(), err)
		}
		if !bytes.Equal(read.Payload(), o.Payload()) || !bytes.Equal(read.Spec, canonical) {
			t.Errorf("payload %s is read as %s with spec %s", o.Payload(), read.Payload(), read.Spec)
		}
		if spec, err := resource.CanonicalSpec(read.Message()); err != nil || !bytes.Equal(spec, canonical) {
			t.Errorf("the payload's spec is %s, not %s: %v", spec, canonical, err)
		}
	})
}

// FuzzCheckJSON: what passes is JSON that every reader takes alike.
func FuzzCheckJSON(f *testing.F) {
	seeds(f, func(_ int, spec []byte) { f.Add(spec) })
	for _, raw := range []string{`{"a":1,"a":2}`, `"\u0000"`, `[1,2`, `{"a":{"b":[{}]}}`, "\xff", `{"":{"":0}}`, `1 2`} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		v := resource.CheckJSON(raw)
		if len(v) == 0 && !json.Valid(raw) {
			t.Error("accepted, and no JSON")
		}
		if len(v) > 0 {
			return
		}
		var x any
		if err := json.Unmarshal(raw, &x); err != nil && !strings.Contains(err.Error(), "cannot unmarshal number") {
			t.Error(err)
		}
		if hasZero(x) {
			t.Error("a zero character was accepted")
		}
	})
}

func hasZero(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(v, "\x00")
	case []any:
		for _, x := range v {
			if hasZero(x) {
				return true
			}
		}
	case map[string]any:
		for k, x := range v {
			if strings.Contains(k, "\x00") || hasZero(x) {
				return true
			}
		}
	}
	return false
}

// FuzzParsePayload: an event may hold anything; what is taken for an object keeps its bytes.
func FuzzParsePayload(f *testing.F) {
	seeds(f, func(kind int, spec []byte) {
		f.Add([]byte(`{"kind":"` + resource.Kinds[kind].Name + `","name":"a","revision":1,"spec":` + string(spec) + `}`))
	})
	f.Add([]byte(`{"kind":"Route","name":"a","revision":2,"deleted":true}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := resource.ParsePayload(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(o.Payload(), raw) {
			t.Error("other bytes")
		}
		if !o.Deleted && o.Message() == nil {
			t.Error("no message")
		}
		_ = resource.Sum(o)
	})
}
