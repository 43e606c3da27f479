package bpf

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// offer sends pkt through the program on two CPUs for d and gives the time it took.
func offer(t *testing.T, p *Program, pkt []byte, d time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for time.Since(start) < d {
				if _, _, err := p.prog.Benchmark(pkt, 200_000, func() {}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// TestLimitIsExact: a source far over its limit, on two CPUs at once, gets its limit and one burst.
func TestLimitIsExact(t *testing.T) {
	p := open(t, Options{testing: true, realClock: true})
	// The burst bridges the pauses between two runs of the kernel's test facility.
	const rate, burst = 10_000, 10_000
	apply(t, p, Ruleset{Default: &Policy{Rate: rate, Burst: burst}})
	pkt := packet{src: "10.0.0.1", dst: "10.0.0.2", proto: udp, sport: 1000, dport: 2000}.bytes()
	took := offer(t, p, pkt, 5*time.Second)
	got, want := float64(stats(t, p).Reasons["under_limit"].Packets), burst+rate*took.Seconds()
	t.Logf("admitted %.0f, the limit gives %.0f: %+.2f%%", got, want, 100*(got/want-1))
	if got < 0.99*want || got > 1.01*want {
		t.Errorf("admitted %.0f packets in %s, want %.0f within 1%%", got, took, want)
	}
	top, err := p.TopSources(1)
	if err != nil || len(top) != 1 || top[0].Prefix.String() != "10.0.0.1/32" || top[0].Over == 0 {
		t.Errorf("top sources %v %v, want 10.0.0.1", top, err)
	}
}

// TestFloodHarmsNobody: while packets come from 16.7 million random sources, sources under their limit lose nothing.
func TestFloodHarmsNobody(t *testing.T) {
	p := open(t, Options{testing: true, realClock: true})
	apply(t, p, Ruleset{Default: &Policy{Rate: 10_000, Burst: 10_000}})
	setMask(t, p, 1<<24-1)
	pkt := packet{src: "10.0.0.1", dst: "10.0.0.2", proto: udp, sport: 1000, dport: 2000}.bytes()
	flooded := make(chan error, 1)
	go func() {
		_, _, err := p.coll.Programs[xdpProgTestFlood].Benchmark(pkt, 20_000_000, func() {})
		flooded <- err
	}()
	honest := 0
	pace := time.NewTicker(10 * time.Millisecond) // 20 packets each: a fifth of the limit
	defer pace.Stop()
	for done := false; !done; {
		select {
		case err := <-flooded:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		case <-pace.C:
		}
		for i := range 20 {
			pkt := packet{src: "192.0.2.1", dst: "10.0.0.2", proto: udp, sport: uint16(i), dport: 2000}.bytes()
			ret, err := p.prog.Run(&ebpf.RunOptions{Data: pkt})
			if err != nil {
				t.Fatal(err)
			}
			if ret != xdpPass {
				t.Fatalf("honest packet %d was dropped", honest)
			}
			honest++
		}
	}
	s := stats(t, p)
	t.Logf("%d honest packets beside %d of the flood", honest, s.Reasons["under_limit"].Packets)
	if s.Dropped() != 0 || honest < 20 {
		t.Errorf("dropped %d packets of sources that are all under their limit; %d honest packets", s.Dropped(), honest)
	}
}

// TestSwapKeepsCounters: a source that has used its limit up gets nothing new from a change of rulesets.
func TestSwapKeepsCounters(t *testing.T) {
	p := open(t, Options{testing: true, realClock: true})
	rules := Ruleset{Default: &Policy{ID: 1, Rate: 1, Burst: 100}}
	apply(t, p, rules)
	pkt := packet{src: "10.0.0.1", dst: "10.0.0.2", proto: udp, sport: 1000, dport: 2000}.bytes()
	for i := range 20 {
		if _, _, err := p.prog.Benchmark(pkt, 1000, func() {}); err != nil {
			t.Fatal(err)
		}
		rules.Policies = []Policy{{ID: uint32(2 + i), Rate: 1, Burst: 100, CIDRs: prefixes("10.0.0.0/8")}}
		apply(t, p, rules)
	}
	if n := stats(t, p).Reasons["under_limit"].Packets; n < 100 || n > 110 {
		t.Errorf("%d packets passed over 20 changes of the policy, want the burst of 100 and a few", n)
	}
}

// TestSwapForbidsThroughout: what both rulesets forbid never passes while they are swapped.
func TestSwapForbidsThroughout(t *testing.T) {
	p := open(t, Options{testing: true, realClock: true})
	a, b := Ruleset{Deny: prefixes("10.0.0.0/8")}, Ruleset{Deny: prefixes("10.0.0.0/16", "192.0.2.0/24")}
	apply(t, p, a)
	pkt := packet{src: "10.0.0.1", dst: "10.0.0.2", proto: udp, sport: 1000, dport: 2000}.bytes()
	done := make(chan error, 1)
	go func() {
		_, _, err := p.prog.Benchmark(pkt, 20_000_000, func() {})
		done <- err
	}()
	swaps := 0
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			s := stats(t, p)
			if n := s.Passed(); n != 0 || swaps < 4 {
				t.Errorf("%d packets passed in %d swaps", n, swaps)
			}
			return
		default:
			apply(t, p, b)
			apply(t, p, a)
			swaps += 2
		}
	}
}

// TestSwapKeepsLimit: a source far over its limit, on two CPUs, gets its limit and not more while rulesets with the
// same limit for it are swapped without a pause, by other policies of other prefixes, among 10,000 other networks that
// change too.
func TestSwapKeepsLimit(t *testing.T) {
	p := open(t, Options{testing: true, realClock: true})
	const rate, burst = 10_000, 10_000
	ruleset := func(id uint32, source string, others int) Ruleset {
		r := loaded(others)
		for i := range r.Policies {
			r.Policies[i].ID += 10
		}
		r.Default = nil
		r.Policies = append(r.Policies, Policy{ID: id, Rate: rate, Burst: burst, CIDRs: prefixes(source)})
		return r
	}
	both := []Ruleset{ruleset(1, "192.0.2.0/24", 10_000), ruleset(2, "192.0.0.0/16", 9_900)}
	apply(t, p, both[0])
	pkt := packet{src: "192.0.2.1", dst: "10.0.0.2", proto: udp, sport: 1000, dport: 2000}.bytes()
	done, ended, swaps := make(chan struct{}), make(chan struct{}), 0
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				swaps++
				if err := p.Apply(context.Background(), both[swaps%2]); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	took := offer(t, p, pkt, 5*time.Second)
	close(done)
	<-ended
	s := stats(t, p)
	got, want := float64(s.Reasons["under_limit"].Packets), burst+rate*took.Seconds()
	t.Logf("admitted %.0f in %d swaps, the limit gives %.0f: %+.2f%%", got, swaps, want, 100*(got/want-1))
	if got < 0.99*want || got > 1.01*want {
		t.Errorf("admitted %.0f packets in %s, want %.0f within 1%%", got, took, want)
	}
	if others := s.Passed() - s.Reasons["under_limit"].Packets; others != 0 || swaps < 20 {
		t.Errorf("%d packets passed by no limit in %d swaps", others, swaps)
	}
}

// TestVerifierBudget: the verifier's work stays far from the million instructions at which it gives up.
func TestVerifierBudget(t *testing.T) {
	info, err := open(t, Options{}).prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	n, ok := info.VerifiedInstructions()
	t.Logf("%d instructions verified", n)
	if !ok || n > 300_000 {
		t.Errorf("%d instructions verified, the budget is 300,000", n)
	}
}
