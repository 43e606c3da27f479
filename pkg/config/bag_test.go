package config

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestBag compares bags with maps of counts, over random changes of few members.
func TestBag(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	bags, want := map[int]bag[int]{}, map[int]map[int]int{}
	for range 100_000 {
		k, x, by := rng.IntN(3), rng.IntN(4), 1
		if want[k] == nil {
			want[k] = map[int]int{}
		}
		if want[k][x] > 0 && rng.IntN(2) == 0 {
			by = -1
		}
		put(bags, k, x, by)
		if want[k][x] += by; want[k][x] == 0 {
			delete(want[k], x)
		}
		got := slices.Sorted(bags[k].all())
		if !slices.Equal(got, slices.Sorted(maps.Keys(want[k]))) || bags[k].len() != len(got) {
			t.Fatalf("%v of %+v, want %v", got, bags[k], want[k])
		}
		if _, there := bags[k]; there != (len(got) > 0) {
			t.Fatalf("an empty bag stays")
		}
	}
}
