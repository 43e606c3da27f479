package resource_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// byJSON reads a payload with encoding/json alone, and says of it what [said] says.
func byJSON(payload []byte) (out string) {
	var o resource.Object
	if err := json.Unmarshal(payload, &o); err != nil {
		return "refused"
	}
	if _, ok := resource.KindByName(o.Kind); !ok {
		return "refused"
	}
	defer func() {
		if recover() != nil {
			out = "refused"
		}
	}()
	if !o.Deleted {
		o.Message()
	}
	return said(&o)
}

func said(o *resource.Object) string {
	return fmt.Sprintf("%q %q %q %d %v %q %q %q %q %s",
		o.Kind, o.Name, o.UID, o.Revision, o.Deleted, o.Owner, o.Labels, o.CreatedAt, o.UpdatedAt, o.Spec)
}

// plain is a payload that has every member but labels, and nothing to escape.
func plain(t testing.TB) []byte {
	t.Helper()
	o, err := resource.New(resource.Ref{Kind: resource.KindRoute, Name: "route-1"}, &configv1.Route{
		Hosts: []string{"host-1.example.com"}, Backends: []*configv1.Backend{{Service: "service-1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	o.UID, o.Owner, o.Revision = "6e5c8d6e", "bench", 12345
	o.CreatedAt, o.UpdatedAt = "2026-11-26T15:17:24.123456Z", "2026-11-26T15:17:25.123456Z"
	return o.Payload()
}

// TestParsePayloadIsJSON: however a payload was damaged, and whichever members it lacks, it is read as encoding/json
// reads it, or refused as that refuses it.
func TestParsePayloadIsJSON(t *testing.T) {
	whole := plain(t)
	var all [][]byte
	for i := range whole {
		all = append(all, whole[:i], whole[i:], slices.Concat(whole[:i], whole[i+1:]))
		for _, c := range []string{
			`"`, `\`, `\n`, `{`, `}`, `}}`, `,`, `:`, `0`, `-`, ` `, "\x01", "\x7f", "\xff", "ü",
			`"a":{},`, `,"revision":7`, `,"deleted":true`,
		} {
			all = append(all, slices.Concat(whole[:i], []byte(c), whole[i:]), slices.Concat(whole[:i], []byte(c), whole[i+1:]))
		}
	}
	for _, some := range []string{
		`{"kind":"Route","name":"r","spec":{}}`, `{"kind":"Route","spec":{}}`,
		`{"kind":"Route","name":"","uid":"","spec":{}}`,
		`{"kind":"Route","name":"r","revision":0,"spec":{}}`, `{"kind":"Route","name":"r","revision":01,"spec":{}}`,
		`{"kind":"Route","name":"r","revision":-5,"spec":{}}`,
		`{"kind":"Route","name":"r","revision":99999999999999999999,"spec":{}}`,
		`{"kind":"Route","name":"r","revision":,"spec":{}}`, `{"kind":"Route","name":"r","revision":5}`,
		`{"kind":"Route","name":"r"}`,
		`{"kind":"Route","name":"r","spec":{},"spec":{}}`, `{"kind":"Route","name":"r","spec":{} }`,
		`{"kind":"Nothing","name":"r","spec":{}}`,
		`{"kind":"Route","name":"r","deleted":true}`, `{"kind":"Route","name":"r","labels":{"a":"b"},"spec":{}}`,
		`{"kind":"Route","name":"r","spec":{}}}`,
	} {
		all = append(all, []byte(some))
	}
	read := 0
	for _, payload := range all {
		want := byJSON(payload)
		got := "refused"
		if o, err := resource.ParsePayload(payload); err == nil {
			got = said(o)
			read++
		}
		if got != want {
			t.Errorf("%q\nis read as\n%s\nencoding/json says\n%s", payload, got, want)
		}
	}
	if read < 100 || read == len(all) {
		t.Errorf("%d of %d payloads are read: these are not the ones that say something", read, len(all))
	}
}

// TestParsePayloads: many are read in their order, and one that cannot be is an error.
func TestParsePayloads(t *testing.T) {
	var payloads [][]byte
	for i := range 1000 {
		payloads = append(payloads, fmt.Appendf(nil, `{"kind":"Route","name":"r%d","spec":{}}`, i))
	}
	for _, n := range []int{0, 1, 127, 128, 129, 1000} {
		objects, err := resource.ParsePayloads(payloads[:n])
		if err != nil || len(objects) != n {
			t.Fatalf("%d of %d, %v", len(objects), n, err)
		}
		for i, o := range objects {
			if o.Name != fmt.Sprint("r", i) {
				t.Fatalf("object %d of %d is %s", i, n, o.Name)
			}
		}
	}
	payloads[777] = []byte(`{`)
	if objects, err := resource.ParsePayloads(payloads); err == nil || objects != nil {
		t.Errorf("%d objects, %v", len(objects), err)
	}
}

// BenchmarkParsePayload is what reading one costs, beside what encoding/json alone takes for it.
func BenchmarkParsePayload(b *testing.B) {
	payload := plain(b)
	b.Run("payload", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := resource.ParsePayload(payload); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var o resource.Object
			if err := json.Unmarshal(payload, &o); err != nil {
				b.Fatal(err)
			}
			o.Message()
		}
	})
}
