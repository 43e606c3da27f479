package resource_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

const plainRoute = `{"hosts":["h1.example.com"],"backends":[{"service":"s1"}],"timeout":"30s",` +
	`"response_headers":{"set":[{"name":"x-mark","value":"kdkfjdkfjdkf"}]}}`

// BenchmarkDecodeSpec is what one route costs to read.
func BenchmarkDecodeSpec(b *testing.B) {
	k, _ := resource.KindByName(resource.KindRoute)
	b.ReportAllocs()
	for b.Loop() {
		if _, v := resource.DecodeSpec(k, []byte(plainRoute)); len(v) > 0 {
			b.Fatal(v)
		}
	}
}

// BenchmarkCheckJSON is what an apply of a thousand routes costs before anybody decodes it.
func BenchmarkCheckJSON(b *testing.B) {
	var all []string
	for i := range 1000 {
		all = append(all, fmt.Sprintf(`{"kind":"Route","name":"r%d","spec":%s}`, i, plainRoute))
	}
	raw := []byte(`{"resources":[` + strings.Join(all, ",") + `]}`)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if v := resource.CheckJSON(raw); len(v) > 0 {
			b.Fatal(v)
		}
	}
}
