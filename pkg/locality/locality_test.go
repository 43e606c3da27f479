package locality

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// TestEnvoy: a place is the same after it was a locality of Envoy, whatever is known of it.
func TestEnvoy(t *testing.T) {
	for _, c := range []struct {
		place Place
		envoy *corev3.Locality
	}{
		{Place{}, nil},
		{Place{Cloud: "aws"}, &corev3.Locality{Region: "aws"}},
		{Place{"aws", "eu", "a"}, &corev3.Locality{Region: "aws/eu", Zone: "a"}},
		{Place{Region: "eu"}, &corev3.Locality{Region: "/eu"}},
		{Place{Zone: "a"}, &corev3.Locality{Zone: "a"}},
	} {
		if got := c.place.EnvoyRegion(); got != c.envoy.GetRegion() {
			t.Errorf("%v is in the region %q for Envoy, want %v", c.place, got, c.envoy)
		}
		if got := FromEnvoy(c.envoy); got != c.place {
			t.Errorf("%v is %v of Envoy's, want %v", c.envoy, got, c.place)
		}
	}
}

// TestDistance: names count with what they are in, as far as that is known, in either direction.
func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b Place
		want int
	}{
		{Place{"aws", "eu", "a"}, Place{"aws", "eu", "a"}, SameZone},
		{Place{"aws", "eu", "a"}, Place{"aws", "", "a"}, SameZone},
		{Place{"", "", "a"}, Place{"aws", "eu", "a"}, SameZone},
		{Place{"aws", "eu", "a"}, Place{"aws", "us", "a"}, SameCloud},
		{Place{"aws", "eu", "a"}, Place{"gcp", "eu", "a"}, Elsewhere},
		{Place{"aws", "eu", "a"}, Place{"aws", "eu", "b"}, SameRegion},
		{Place{"aws", "eu", ""}, Place{"aws", "eu", ""}, SameRegion},
		{Place{"aws", "", ""}, Place{"aws", "eu", "b"}, SameCloud},
		{Place{}, Place{}, Elsewhere},
		{Place{}, Place{"aws", "eu", "a"}, Elsewhere},
	} {
		if got, back := c.a.Distance(c.b), c.b.Distance(c.a); got != c.want || back != c.want {
			t.Errorf("from %v to %v: %d and %d, want %d", c.a, c.b, got, back, c.want)
		}
	}
}

// TestHas: what a pattern leaves empty is anything, and nothing else.
func TestHas(t *testing.T) {
	all := Place{"aws", "eu", "a"}
	for _, p := range []Place{{}, {Cloud: "aws"}, {Region: "eu"}, {Zone: "a"}, all} {
		if !p.Has(all) {
			t.Errorf("%v has not %v", p, all)
		}
	}
	for _, p := range []Place{{Cloud: "gcp"}, {Region: "us"}, {"aws", "eu", "b"}} {
		if p.Has(all) {
			t.Errorf("%v has %v", p, all)
		}
	}
	if (Place{Cloud: "aws"}).Has(Place{}) {
		t.Error("a cloud has what is nowhere")
	}
}
