package resource_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"testing"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// standard is the payload as encoding/json makes it.
func standard(t testing.TB, o *resource.Object) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(o); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// TestPayloadIsJSON: an object's payload is what encoding/json makes of it, byte for byte, whatever the strings in it.
// Stored objects were written by it, and their hash is that of these bytes.
func TestPayloadIsJSON(t *testing.T) {
	words := []string{
		"", "a", "ops", `"`, `\`, "a\"b\\c", "<script>&'", "\x00", "\b\f\n\r\t\x1b", "\x7f",
		"ü", "日本", "\u2028\u2029", "\xff", "a\xc3", "\U0001F600",
		"\ufffd", "2026-11-26T15:17:24.123456Z",
	}
	r := rand.New(rand.NewPCG(1, 2))
	word := func() string { return words[r.IntN(len(words))] + words[r.IntN(len(words))] }
	for range 2000 {
		o, err := resource.New(resource.Ref{Kind: resource.KindRoute, Name: word()}, &configv1.Route{
			Hosts: []string{"<&>.example.com", "ü\u2028"}, Backends: []*configv1.Backend{{Service: "s"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.IntN(4) == 0 {
			o = resource.Tombstone(o.Ref(), 0)
		}
		o.UID, o.Owner, o.CreatedAt, o.UpdatedAt = word(), word(), word(), word()
		o.Revision = []int64{0, 1, 9007199254740993, -1}[r.IntN(4)]
		for range r.IntN(4) {
			if o.Labels == nil {
				o.Labels = map[string]string{}
			}
			o.Labels[word()] = word()
		}
		want := standard(t, o)
		if got := o.Payload(); !bytes.Equal(got, want) {
			t.Fatalf("%q\nwant\n%q", got, want)
		}
		if again := standard(t, o); !bytes.Equal(again, want) { // its spec is a part of the payload now
			t.Fatalf("%q\nafterwards\n%q", want, again)
		}
	}
}

// BenchmarkPayload is what one payload costs beside what encoding/json makes it for.
func BenchmarkPayload(b *testing.B) {
	o, err := resource.New(resource.Ref{Kind: resource.KindRoute, Name: "route-1"}, &configv1.Route{
		Hosts: []string{"host-1.example.com"}, Backends: []*configv1.Backend{{Service: "service-1"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	o.UID, o.Owner, o.Revision = "6e5c8d6e-5c47-4c66-b8a4-9d2e3c1f0a55", "bench", 12345
	o.CreatedAt, o.UpdatedAt = "2026-11-26T15:17:24.123456Z", "2026-11-26T15:17:25.123456Z"
	b.Run("payload", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			x := *o
			x.Payload()
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			standard(b, o)
		}
	})
}
