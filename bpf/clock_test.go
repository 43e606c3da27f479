package bpf

import "testing"

// TestClocksAgree: a source whose policy is changed from one that reads the exact clock to one that reads jiffies is
// not held back for what the clocks differ by.
func TestClocksAgree(t *testing.T) {
	p := open(t, Options{})
	frame := packet{src: "192.0.2.1", dst: "192.0.2.2", proto: udp, sport: 1, dport: 2}.bytes()
	passed := func(policy Policy) uint64 {
		apply(t, p, Ruleset{Default: &policy})
		before := stats(t, p)
		if _, _, err := p.prog.Benchmark(frame, 200, func() {}); err != nil {
			t.Fatal(err)
		}
		after := stats(t, p)
		return after.Passed() - before.Passed()
	}
	// A burst of 20 ms is timed exactly, one of 100 ms in jiffies.
	if n := passed(Policy{Rate: 1000, Burst: 20}); n < 20 || n > 40 {
		t.Errorf("%d passed of a burst of 20", n)
	}
	if n := passed(Policy{Rate: 1000, Burst: 100}); n < 70 {
		t.Errorf("%d passed after the change to a burst of 100, of which 20 at most were used", n)
	}
}
