package bpf

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// noPolicy as config.default_policy lets sources without a policy pass (maps.h).
const noPolicy = 0xffffffff

// Bits of config.flags and policy.flags (maps.h).
const (
	flagPrefixes4 = 1 << iota
	flagPrefixes6
	flagMalformed
	flagTCPFlags
	flagLand
	flagTiny
	flagFragments
	flagAmplification
	flagSYNCookies
	flagDetect

	policyPass   = 1 << 0
	policyCoarse = 1 << 1
)

// coarseTicks is how many jiffies a burst must last for the clock to be read in jiffies: their error is then at
// most an eighth of the burst, once, and never of the rate.
const coarseTicks = 8

// tables is a ruleset as the maps hold it.
type tables struct {
	trie4, trie6 trie // nil: no prefix
	policies     map[uint32]xdpPolicy
	ports        [1024]uint64
	config       xdpConfig
}

// resolve turns a valid ruleset into tables. tick is the length of a jiffy.
func resolve(r *Ruleset, tick time.Duration) *tables {
	t := &tables{policies: map[uint32]xdpPolicy{}}
	resolvePrefixes(r, func(p netip.Prefix, v uint32) {
		if p.Addr().Is4() {
			t.trie4.insert(p, v)
		} else {
			t.trie6.insert(p, v)
		}
	})
	t.config.DefaultPolicy = noPolicy
	for i := range r.Policies {
		t.policies[r.Policies[i].ID] = packedPolicy(&r.Policies[i], tick)
	}
	if r.Default != nil {
		t.policies[r.Default.ID] = packedPolicy(r.Default, tick)
		t.config.DefaultPolicy = r.Default.ID
	}
	for _, port := range r.Filters.AmplificationPorts {
		t.ports[port>>6] |= 1 << (port & 63)
	}
	for _, f := range []struct {
		on  bool
		bit uint32
	}{
		{t.trie4 != nil, flagPrefixes4},
		{t.trie6 != nil, flagPrefixes6},
		{r.Filters.Malformed, flagMalformed},
		{r.Filters.TCPFlags, flagTCPFlags},
		{r.Filters.Land, flagLand},
		{r.Filters.TinyFragment, flagTiny},
		{r.Filters.Fragments, flagFragments},
		{len(r.Filters.AmplificationPorts) > 0, flagAmplification},
		{r.SYNCookies, flagSYNCookies},
		{!r.NoDetection, flagDetect},
	} {
		if f.on {
			t.config.Flags |= f.bit
		}
	}
	bits := r.IPv6PrefixLen
	if bits == 0 {
		bits = 64
	}
	var mask [8]byte
	binary.BigEndian.PutUint64(mask[:], ^uint64(0)<<(64-bits))
	t.config.V6Mask = binary.NativeEndian.Uint64(mask[:])
	return t
}

// resolvePrefixes makes one table of lists and policies: at each prefix, what the longest list entry that
// covers it says, else its policy; shorter prefixes first. A trie cannot answer "the longest of another kind" at run time.
func resolvePrefixes(r *Ruleset, emit func(netip.Prefix, uint32)) {
	const none = uint64(1) << 32
	type node struct {
		netip.Prefix
		list, policy uint64
	}
	at := map[netip.Prefix]*node{}
	get := func(p netip.Prefix) *node {
		p = p.Masked()
		if at[p] == nil {
			at[p] = &node{p, none, none}
		}
		return at[p]
	}
	for _, p := range r.Policies {
		for _, c := range p.CIDRs {
			get(c).policy = uint64(p.ID) + triePolicy
		}
	}
	for _, p := range r.Allow {
		get(p).list = trieAllow
	}
	for _, p := range r.Deny {
		get(p).list = trieDeny
	}
	sorted := make([]*node, 0, len(at))
	for _, n := range at {
		sorted = append(sorted, n)
	}
	slices.SortFunc(sorted, func(a, b *node) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var above []*node // the chain of prefixes that cover the current one
	for _, n := range sorted {
		for len(above) > 0 && !above[len(above)-1].Contains(n.Addr()) {
			above = above[:len(above)-1]
		}
		if len(above) > 0 {
			parent := above[len(above)-1]
			if n.list == none {
				n.list = parent.list
			}
			if n.policy == none {
				n.policy = parent.policy
			}
		}
		above = append(above, n)
		if n.list != none {
			emit(n.Prefix, uint32(n.list))
		} else {
			emit(n.Prefix, uint32(n.policy))
		}
	}
}

func packedPolicy(p *Policy, tick time.Duration) xdpPolicy {
	period := (second + p.Rate/2) / p.Rate
	o := xdpPolicy{Period: period, Burst: (p.Burst - 1) * period, Id: p.ID}
	if p.Action == Pass {
		o.Flags |= policyPass
	}
	if o.Burst >= coarseTicks*uint64(tick) {
		// A clock that is up to a tick late would refuse what is within the burst: give the tick back.
		o.Flags |= policyCoarse
		o.Burst += uint64(tick)
	}
	o.Near = o.Burst / 2
	return o
}
