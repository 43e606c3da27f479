package resource_test

import (
	"fmt"
	"strings"
	"testing"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// TestListsOfNames: lists that are checked without the validator are refused by the same rules, and what only it knows
// is said by it.
func TestListsOfNames(t *testing.T) {
	many := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprint("c", i))
		}
		return out
	}
	for _, c := range []struct {
		list       []string
		path, rule string
	}{
		{nil, "", ""},
		{many(20000), "", ""},
		{many(20001), "$.listeners[0].certificates", "repeated.max_items"},
		{append(many(100), "c7"), "$.listeners[0].certificates", "repeated.unique"},
		{append(many(100), ""), "$.listeners[0].certificates[100]", "string.min_len"},
		{[]string{strings.Repeat("ä", 63)}, "", ""},
		{[]string{strings.Repeat("ä", 64)}, "$.listeners[0].certificates[0]", "string.max_len"},
	} {
		found := resource.Validate(&configv1.Gateway{
			Listeners: []*configv1.Listener{{Name: "a", Port: 1, Certificates: c.list}},
		})
		if c.rule == "" && len(found) == 0 || len(found) == 1 && found[0].Path == c.path && found[0].Rule == c.rule {
			continue
		}
		t.Errorf("%d names: %v, want %s at %q", len(c.list), found, c.rule, c.path)
	}
	found := resource.Validate(&configv1.Route{
		Hosts:          []string{"a.test", "A.test", "b.test"},
		DirectResponse: &configv1.DirectResponse{Status: 200},
	})
	if len(found) != 1 || found[0].Path != "$.hosts[1]" || found[0].Rule != "string.pattern" {
		t.Errorf("a host in capitals: %v", found)
	}
	if found := resource.Validate(&configv1.ClientAuth{CaCertificate: "ca"}); len(found) != 1 ||
		found[0].Path != "$.hosts" || found[0].Rule != "repeated.min_items" {
		t.Errorf("no hosts: %v", found)
	}
}

func BenchmarkValidateList(b *testing.B) {
	m := &configv1.Gateway{Listeners: []*configv1.Listener{{Name: "a", Port: 1}}}
	for i := range 10000 {
		m.Listeners[0].Certificates = append(m.Listeners[0].Certificates, fmt.Sprint("c", i))
	}
	b.ReportAllocs()
	for range b.N {
		if v := resource.Validate(m); len(v) > 0 {
			b.Fatal(v)
		}
	}
}
