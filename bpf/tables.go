package bpf

import (
	"encoding/binary"
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

// tables is what a ruleset says besides networks, as the maps hold it.
type tables struct {
	policies map[uint32]xdpPolicy
	ports    [1024]uint64
	config   xdpConfig
}

// pack turns a valid ruleset, whose networks are in n, into tables. tick is the length of a jiffy.
func pack(r *Ruleset, n *networks, tick time.Duration) *tables {
	t := &tables{policies: map[uint32]xdpPolicy{}}
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
		{n.trie4.prefixes > 0, flagPrefixes4},
		{n.trie6.prefixes > 0, flagPrefixes6},
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
