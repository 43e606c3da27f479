package resource_test

import (
	"testing"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// TestDigest: it is as docs/events.md has others reckon it, and kinds without objects are not in it.
func TestDigest(t *testing.T) {
	state := map[string]resource.KindState{
		"Service": {Count: 2, Hash: "bb"}, "Route": {Count: 1, Hash: "aa"},
		"Gateway": {},
	}
	// printf 'Route 1 aa\nService 2 bb\n' | sha256sum | cut -c 1-32
	if got, want := resource.Digest(state), "ad992896081a0cb38c66e5570546167e"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
