package bpf

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// loaded is a ruleset with n networks in policies of 10,000.
func loaded(n int) Ruleset {
	r := Ruleset{Default: &Policy{ID: 0, Rate: 10_000, Burst: 10_000}}
	for i := range n {
		if i%10_000 == 0 {
			r.Policies = append(r.Policies, Policy{ID: uint32(2 + i/10_000), Rate: 1000, Burst: 1000})
		}
		last := &r.Policies[len(r.Policies)-1]
		last.CIDRs = append(last.CIDRs,
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 14), byte(i >> 6), byte(i << 2)}), 30))
	}
	return r
}

// BenchmarkApply is a change of one policy of one network beside many others. The wait for packets of the generation
// before, which the kernel needs up to some ten milliseconds for and which only the next change meets, is left out.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := open(b, Options{})
			rules := loaded(n)
			began := time.Now()
			apply(b, p, rules)
			load := time.Since(began)
			common := slices.Clip(rules.Policies)
			var all []time.Duration
			change := func(i int) {
				rules.Policies = append(common, Policy{
					ID: 1, Rate: 10, Burst: 10,
					CIDRs: prefixes(fmt.Sprintf("192.0.2.%d/32", i%250)),
				})
				<-p.settled
				began := time.Now()
				apply(b, p, rules)
				all = append(all, time.Since(began))
			}
			change(0) // the other generation takes everything once
			all = all[:0]
			b.ResetTimer()
			for i := range b.N {
				change(i)
			}
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-us")
			b.ReportMetric(float64(load.Milliseconds()), "load-ms")
		})
	}
}

// TestCloseBesideApply: who closes waits for the ruleset that is being written, and for the kernel to have let go of
// the one before. Without that the race detector speaks up.
func TestCloseBesideApply(t *testing.T) {
	p := open(t, Options{})
	applied := make(chan error)
	go func() { applied <- p.Apply(t.Context(), loaded(50_000)) }()
	for p.mu.TryLock() { // until Apply has it
		p.mu.Unlock()
	}
	closed := make(chan error)
	go func() { closed <- p.Close() }()
	if err := <-applied; err != nil {
		t.Error(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
