package bpf

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"
)

// Bounds of a [Ruleset].
const (
	MaxPolicies  = 16384            // ids are below it
	MaxPrefixes  = 1 << 20          // of one family, over lists and policies
	MaxRate      = 10_000_000       // packets a second; beyond, whole nanoseconds a packet are too coarse
	MaxBurstTime = 24 * time.Hour   // Burst/Rate
	nanosecond   = uint64(1)        // unit of the program's times
	second       = 1e9 * nanosecond // in that unit
)

// Action is what happens to a packet over the limit.
type Action uint8

// The actions.
const (
	Drop Action = iota // the packet is dropped
	Pass               // the packet is counted and passes: for trying a policy
)

func (a Action) String() string {
	if a == Pass {
		return "pass"
	}
	return "drop"
}

// Policy is a limit for each source address (each IPv6 prefix of [Ruleset.IPv6PrefixLen]) by itself.
type Policy struct {
	// ID names the policy in the maps and in [Stats], below [MaxPolicies]. A policy keeps its statistics as
	// long as it keeps its id.
	ID     uint32
	Name   string
	CIDRs  []netip.Prefix // sources; the longest over all policies wins
	Rate   uint64         // packets per second, 1 to [MaxRate]
	Burst  uint64         // packets at once, at least 1
	Action Action
}

// Filters are the checks that need nothing but the packet. The zero value filters nothing.
type Filters struct {
	Malformed    bool // lengths and header sizes that cannot be
	TCPFlags     bool // no flags, FIN+PSH+URG (xmas), SYN+FIN, SYN+RST
	Land         bool // source address and port are the destination's
	TinyFragment bool // fragments that hide a TCP header
	Fragments    bool // every fragment
	// AmplificationPorts are UDP source ports whose packets are dropped: the answers of abused servers. Put
	// the resolvers and time servers that you use into [Ruleset.Allow].
	AmplificationPorts []uint16
}

// Ruleset is all that the program is told.
type Ruleset struct {
	Policies []Policy
	Default  *Policy // for sources in no policy; its CIDRs stay empty. Nil: they pass
	// Allow and Deny list sources; the longer prefix wins. An allowed source meets no filter and no limit.
	Allow, Deny []netip.Prefix
	Filters     Filters
	// SYNCookies answers SYNs to listeners of this host with cookies once their queue is full
	// (net.ipv4.tcp_syncookies=1) or always (=2).
	SYNCookies bool
	// IPv6PrefixLen is how much of an IPv6 address makes a source: 16 to 64, 0 means 64.
	IPv6PrefixLen uint8
	// NoDetection turns the protocol counters off.
	NoDetection bool
}

// Validate says everything that is wrong, each error beginning with the field.
func (r *Ruleset) Validate() error {
	return errors.Join(r.validateLimits(), r.validateNetworks())
}

// validateLimits checks all but the networks, of which there may be many.
func (r *Ruleset) validateLimits() error {
	var errs []error
	fail := func(field, format string, a ...any) {
		errs = append(errs, fmt.Errorf(field+": "+format, a...))
	}
	ids := map[uint32]string{}
	policy := func(field string, p *Policy) {
		if p.ID >= MaxPolicies {
			fail(field+".id", "%d is not below %d", p.ID, MaxPolicies)
		}
		if other, ok := ids[p.ID]; ok {
			fail(field+".id", "%d is also that of %s", p.ID, other)
		}
		ids[p.ID] = field
		if p.Rate < 1 || p.Rate > MaxRate {
			fail(field+".rate", "%d is not between 1 and %d packets a second", p.Rate, MaxRate)
		} else if p.Burst < 1 || p.Burst > uint64(MaxBurstTime/time.Second)*p.Rate {
			fail(field+".burst", "%d is not between 1 and %s worth of the rate (%d)", p.Burst, MaxBurstTime,
				uint64(MaxBurstTime/time.Second)*p.Rate)
		}
		if p.Action > Pass {
			fail(field+".action", "%d is neither drop nor pass", p.Action)
		}
	}
	for i := range r.Policies {
		policy(fmt.Sprintf("policies[%d]", i), &r.Policies[i])
	}
	if r.Default != nil {
		policy("default", r.Default)
		if len(r.Default.CIDRs) > 0 {
			fail("default.cidrs", "the default policy is for sources that no CIDR names")
		}
	}
	if n := r.IPv6PrefixLen; n != 0 && (n < 16 || n > 64) {
		fail("ipv6_prefix_len", "%d is not between 16 and 64", n)
	}
	return errors.Join(errs...)
}

// validateNetworks checks every prefix against all others. [networks.set] finds the same faults among those that
// changed, without words for them.
func (r *Ruleset) validateNetworks() error {
	var errs []error
	fail := func(field, format string, a ...any) {
		errs = append(errs, fmt.Errorf(field+": "+format, a...))
	}
	owners := make(map[netip.Prefix]place, r.prefixes())
	prefixes := func(field string, list []netip.Prefix, owners map[netip.Prefix]place) {
		for i, p := range list {
			at := place{field, i} // in words only where they are needed: lists are long
			if !p.IsValid() {
				fail(at.String(), "not a prefix")
				continue
			}
			if p.Addr().Is4In6() {
				fail(at.String(), "%s is IPv4 written as IPv6; write it as IPv4", p)
				continue
			}
			key := p.Masked()
			if other, taken := owners[key]; taken {
				fail(at.String(), "%s is already %s", p, other)
				continue
			}
			owners[key] = at
		}
	}
	for i := range r.Policies {
		prefixes(fmt.Sprintf("policies[%d].cidrs", i), r.Policies[i].CIDRs, owners)
	}
	listed := make(map[netip.Prefix]place, len(r.Allow)+len(r.Deny))
	prefixes("allow", r.Allow, listed)
	prefixes("deny", r.Deny, listed)
	v4, v6 := 0, 0
	maps.Copy(owners, listed) // one that is in both takes one place
	for p := range owners {
		if p.Addr().Is4() {
			v4++
		} else {
			v6++
		}
	}
	if v4 > MaxPrefixes || v6 > MaxPrefixes {
		fail("policies", "more than %d prefixes of one family", MaxPrefixes)
	}
	return errors.Join(errs...)
}

// place is where a prefix stands.
type place struct {
	field string
	i     int
}

func (p place) String() string { return fmt.Sprintf("%s[%d]", p.field, p.i) }

// prefixes counts those of the policies.
func (r *Ruleset) prefixes() (n int) {
	for i := range r.Policies {
		n += len(r.Policies[i].CIDRs)
	}
	return n
}
