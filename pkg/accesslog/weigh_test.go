package accesslog

import (
	"testing"
	"time"
)

// TestShare: whatever an Envoy is asked, the share finds its place within three seconds, so that no more entries come than
// were asked for by a quarter, and no fewer than half where there are as many.
func TestShare(t *testing.T) {
	for _, rate := range []float64{0, 3, 499, 600, 5_000, 80_000, 1_000_000} {
		tail := &Tail{share: whole, rate: MaxRate}
		coming := func() float64 { return rate * float64(tail.share) / whole }
		run := func(what string) {
			for range int(3 * time.Second / look) {
				tail.seen = int(coming() * look.Seconds())
				tail.weigh(look)
			}
			if got := coming(); got > 1.25*MaxRate+4 || got < 0.5*min(rate, MaxRate) {
				t.Errorf("%s, %v requests a second: %v are told of, share %d", what, rate, got, tail.share)
			}
		}
		run("at first")
		rate /= 10
		for range 2 {
			run("a tenth of it")
		}
		rate *= 100
		run("a hundred times that")
	}
}
