package bpf

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestChangesAreRulesets: after any sequence of changes the kernel holds what each ruleset means when it is put
// together from nothing, and what contradicts itself changes nothing.
func TestChangesAreRulesets(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			p := open(t, Options{})
			r := rand.New(rand.NewPCG(seed, 0))
			var rules Ruleset
			taken := 0
			for step := range 150 {
				next := mutated(r, rules)
				valid := next.Validate()
				err := p.Apply(t.Context(), next)
				if (err == nil) != (valid == nil) || err != nil && err.Error() != valid.Error() {
					t.Fatalf("step %d: Apply says %v, Validate %v", step, err, valid)
				}
				if err == nil {
					rules = next
					taken++
				}
				compare(t, p, rules, step)
			}
			if taken < 50 || taken == 150 {
				t.Errorf("%d of 150 rulesets were valid; both kinds are to be tried", taken)
			}
		})
	}
}

// compare holds kernel, kept state and reference against each other.
func compare(t *testing.T, p *Program, rules Ruleset, step int) {
	t.Helper()
	want4, want6 := reference(&rules)
	for _, f := range []struct {
		want nodes
		is   *trie
		bits int
	}{{want4, &p.networks.trie4, 32}, {want6, &p.networks.trie6, 128}} {
		if (f.want == nil) != (f.is.prefixes == 0) {
			t.Fatalf("step %d: %d prefixes, the reference has %d nodes", step, f.is.prefixes, len(f.want))
		}
		if f.want == nil {
			continue
		}
		if d := f.want.differences(f.is.nodes, f.bits); len(d) > 0 {
			t.Fatalf("step %d: kept: %q", step, d)
		}
		if used := len(f.is.nodes) - len(f.is.free); used != len(f.want) {
			t.Fatalf("step %d: %d nodes are in use, the reference needs %d", step, used, len(f.want))
		}
	}
	if d, err := p.Differences(rules); err != nil || len(d) > 0 {
		t.Fatalf("step %d: kernel: %q %v", step, d, err)
	}
}

// mutated changes a few things of a ruleset, at times to nonsense, and never memory that the old one uses.
func mutated(r *rand.Rand, old Ruleset) Ruleset {
	next := old
	next.Policies = slices.Clone(old.Policies)
	list := func(have []netip.Prefix) []netip.Prefix {
		out := slices.Clone(have)
		for range 1 + r.IntN(4) {
			switch i := len(out); {
			case i > 0 && r.IntN(3) == 0:
				i = r.IntN(i)
				out = slices.Delete(out, i, i+1)
			case i > 0 && r.IntN(20) == 0:
				out = append(out, out[r.IntN(i)]) // twice: refused
			default:
				out = append(out, somePrefix(r))
			}
		}
		if r.IntN(8) == 0 {
			r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
		}
		if r.IntN(30) == 0 {
			return nil
		}
		return out
	}
	for range 1 + r.IntN(3) {
		switch n := len(next.Policies); {
		case r.IntN(6) == 0:
			next.Allow = list(next.Allow)
		case r.IntN(6) == 0:
			next.Deny = list(next.Deny)
		case n == 0 || r.IntN(5) == 0:
			next.Policies = append(next.Policies, Policy{ID: uint32(r.IntN(40)), Rate: 10, Burst: 10, CIDRs: list(nil)})
		case r.IntN(6) == 0:
			i := r.IntN(n)
			next.Policies = slices.Delete(next.Policies, i, i+1)
		case n > 1 && r.IntN(4) == 0: // networks that change their policy
			i, j := r.IntN(n), r.IntN(n)
			next.Policies[i].CIDRs, next.Policies[j].CIDRs = next.Policies[j].CIDRs, next.Policies[i].CIDRs
		default:
			i := r.IntN(n)
			next.Policies[i].CIDRs = list(next.Policies[i].CIDRs)
		}
	}
	return next
}

// somePrefix is of any length, and shares bits with others so that they lie in each other.
func somePrefix(r *rand.Rand) netip.Prefix {
	bits := func(n int) byte { return byte(r.IntN(2)*0x80 | r.IntN(2)*0x11 | r.IntN(n)) }
	if r.IntN(2) == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, bits(2), bits(2), bits(4)}), r.IntN(33)).Masked()
	}
	a := [16]byte{0x20, 1, bits(2), bits(2), bits(2), 0, 0, bits(4), bits(2), 15: bits(4)}
	return netip.PrefixFrom(netip.AddrFrom16(a), r.IntN(129)).Masked()
}
