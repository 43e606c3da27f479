package bpf

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// Reason is why a packet passed or was dropped. Every packet has one.
type Reason string

// Protocol is what a packet begins: an HTTP request, a TLS handshake. They are counted by single packets, so they
// are starts and not connections.
type Protocol string

// reasons and protocols are the names of the counters in enum stat of maps.h, of which [xdpStat] is made.
var (
	reasons = [firstProtocol]Reason{
		xdpStatS_NOT_IP:            "not_ip",
		xdpStatS_ALLOWED:           "allowed",
		xdpStatS_NO_POLICY:         "no_policy",
		xdpStatS_UNDER_LIMIT:       "under_limit",
		xdpStatS_OVER_LIMIT_PASSED: "over_limit_passed",
		xdpStatS_SYN_COOKIE:        "syn_cookie",
		xdpStatS_DENIED:            "denied",
		xdpStatS_OVER_LIMIT:        "over_limit",
		xdpStatS_BAD_IP:            "bad_ip",
		xdpStatS_BAD_TCP:           "bad_tcp",
		xdpStatS_BAD_UDP:           "bad_udp",
		xdpStatS_TCP_NULL:          "tcp_null",
		xdpStatS_TCP_XMAS:          "tcp_xmas",
		xdpStatS_TCP_SYN_FIN:       "tcp_syn_fin",
		xdpStatS_TCP_SYN_RST:       "tcp_syn_rst",
		xdpStatS_LAND:              "land",
		xdpStatS_TINY_FRAGMENT:     "tiny_fragment",
		xdpStatS_FRAGMENT:          "fragment",
		xdpStatS_AMPLIFICATION:     "amplification",
		xdpStatS_ERROR:             "error",
	}
	protocols = [xdpStatS_COUNT - firstProtocol]Protocol{
		xdpStatS_HTTP1 - firstProtocol:         "http1",
		xdpStatS_WEBSOCKET - firstProtocol:     "websocket",
		xdpStatS_HTTPS - firstProtocol:         "https",
		xdpStatS_HTTPS_ALPN_H1 - firstProtocol: "https_alpn_http1",
		xdpStatS_HTTPS_ALPN_H2 - firstProtocol: "https_alpn_h2",
		xdpStatS_HTTP2 - firstProtocol:         "http2",
		xdpStatS_GRPC_MAYBE - firstProtocol:    "grpc_maybe",
	}
)

// firstProtocol is the counter after those of the reasons.
const firstProtocol = xdpStatS_HTTP1

// Drops says whether packets with this reason were dropped. "syn_cookie" was answered; "error" passes.
func (r Reason) Drops() bool {
	i := slices.Index(reasons[:], r)
	return i >= int(xdpStatS_DENIED) && i < int(xdpStatS_ERROR)
}

// Count counts packets; Bytes are those of IP, or of the frame where it is not IP.
type Count struct{ Packets, Bytes uint64 }

// PolicyCount counts the packets that a policy judged.
type PolicyCount struct {
	Under uint64 // within the limit
	Over  uint64 // beyond: dropped, or passed where the policy's action is Pass
}

// Stats are counters since the maps were made, summed over CPUs.
type Stats struct {
	Reasons   map[Reason]Count
	Protocols map[Protocol]Count
	Policies  map[uint32]PolicyCount // by id, those of the ruleset in force
}

// Dropped is the number of packets dropped, for whatever reason.
func (s *Stats) Dropped() (n uint64) {
	for r, c := range s.Reasons {
		if r.Drops() {
			n += c.Packets
		}
	}
	return n
}

// Passed is the number of packets that went on, SYNs answered included.
func (s *Stats) Passed() (n uint64) {
	for r, c := range s.Reasons {
		if !r.Drops() {
			n += c.Packets
		}
	}
	return n
}

// Stats reads the counters. Packets keep counting meanwhile, so sums over several counters may be off by those.
func (p *Program) Stats() (Stats, error) {
	s := Stats{map[Reason]Count{}, map[Protocol]Count{}, map[uint32]PolicyCount{}}
	var perCPU []xdpStatValue
	for i := range len(reasons) + len(protocols) {
		if err := p.coll.Maps[xdpMapStatsMap].Lookup(uint32(i), &perCPU); err != nil {
			return s, fmt.Errorf("read statistics: %w", err)
		}
		var c Count
		for _, v := range perCPU {
			c.Packets += v.Packets
			c.Bytes += v.Bytes
		}
		if i < len(reasons) {
			s.Reasons[reasons[i]] = c
		} else {
			s.Protocols[protocols[i-len(reasons)]] = c
		}
	}
	for _, id := range p.policyIDs() {
		var perCPU []xdpPolicyStat
		if err := p.coll.Maps[xdpMapPolicyStatsMap].Lookup(id, &perCPU); err != nil {
			return s, fmt.Errorf("read statistics of policy %d: %w", id, err)
		}
		var c PolicyCount
		for _, v := range perCPU {
			c.Under += v.Under
			c.Over += v.Over
		}
		s.Policies[id] = c
	}
	return s, nil
}

func (p *Program) policyIDs() (ids []uint32) {
	current := p.current.Load()
	if current == nil {
		return nil
	}
	for _, policy := range current.Policies {
		ids = append(ids, policy.ID)
	}
	if current.Default != nil {
		ids = append(ids, current.Default.ID)
	}
	return ids
}

// Source is an address (of IPv6, a prefix) that came near its limit.
type Source struct {
	Prefix netip.Prefix
	Over   uint64 // packets beyond the limit since the source was last added
}

// TopSources gives the n sources with the most packets over their limit. Sources that stay below half of their
// burst are not followed one by one and never appear.
func (p *Program) TopSources(n int) ([]Source, error) {
	bits := uint8(64)
	if current := p.current.Load(); current != nil && current.IPv6PrefixLen != 0 {
		bits = current.IPv6PrefixLen
	}
	waiting, err := p.refused()
	if err != nil {
		return nil, err
	}
	var all []Source
	var cursor ebpf.MapBatchCursor
	keys, values := make([][8]byte, 8192), make([]xdpSource, 8192)
	for {
		got, err := p.coll.Maps[xdpMapRateLimitMap].BatchLookup(&cursor, keys, values, nil)
		for i := range got {
			if over := values[i].Drops + waiting[keys[i]]; over > 0 {
				all = append(all, Source{sourcePrefix(keys[i], int(bits)), over})
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read sources: %w", err)
		}
	}
	slices.SortFunc(all, func(a, b Source) int {
		return cmp.Or(cmp.Compare(b.Over, a.Over), a.Prefix.Addr().Compare(b.Prefix.Addr()))
	})
	return all[:min(n, len(all))], nil
}

// refused are the drops that the program has not added to rate_limit_map yet, by its keys.
func (p *Program) refused() (map[[8]byte]uint64, error) {
	drops := map[[8]byte]uint64{}
	var cursor ebpf.MapBatchCursor
	m := p.coll.Maps[xdpMapRefusedMap]
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	keys, values := make([]uint32, m.MaxEntries()), make([]xdpRefused, int(m.MaxEntries())*cpus)
	if _, err := m.BatchLookup(&cursor, keys, values, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("read sources: %w", err)
	}
	for _, v := range values {
		if v.Drops > 0 {
			var key [8]byte
			binary.NativeEndian.PutUint64(key[:], v.Key)
			drops[key] += v.Drops
		}
	}
	return drops, nil
}

// sourcePrefix undoes the key of rate_limit_map.
func sourcePrefix(key [8]byte, bits int) netip.Prefix {
	switch binary.BigEndian.Uint32(key[:]) {
	case 0:
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(key[4:])), 32)
	case 0xffffffff:
		clear(key[:4])
	}
	var a [16]byte
	copy(a[:], key[:])
	return netip.PrefixFrom(netip.AddrFrom16(a), bits)
}
