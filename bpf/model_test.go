package bpf

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// model is what the program promises, written without looking at how it keeps it: lists by linear search, limits
// on maps. Only the sketch is modelled as it is, because who shares words with whom decides what is refused.
type model struct {
	r       Ruleset
	tick    uint64
	seed    uint64
	lines   uint64
	sketch  map[uint64][8]uint64
	sources map[uint64]uint64 // TAT
	reasons map[Reason]uint64
}

func newModel(p *Program, r Ruleset, seed uint64) *model {
	return &model{
		r: r, tick: uint64(p.tick), seed: seed, lines: uint64(p.opts.SketchWords) / 8,
		sketch: map[uint64][8]uint64{}, sources: map[uint64]uint64{}, reasons: map[Reason]uint64{},
	}
}

const (
	xdpDrop = 1
	xdpPass = 2
)

// judge gives the verdict on a frame at a time.
func (m *model) judge(frame []byte, now uint64) uint32 {
	reason := m.reason(frame, now)
	m.reasons[reason]++
	if reason.Drops() {
		return xdpDrop
	}
	return xdpPass
}

// header is what parsing yields: protocol -1 where there is no transport header to look at.
type header struct {
	src, dst       netip.Addr
	protocol       int
	l4             []byte // to the end of the frame
	l4Len          int    // of the IP packet from l4
	fragment, tiny bool
	bad            bool
	jumbo          bool
}

func (m *model) reason(frame []byte, now uint64) Reason {
	be := binary.BigEndian
	kind, rest := be.Uint16(frame[12:]), frame[14:]
	for range 2 {
		if kind != 0x8100 && kind != 0x88a8 {
			break
		}
		if len(rest) < 4 {
			return "not_ip"
		}
		kind, rest = be.Uint16(rest[2:]), rest[4:]
	}
	var h header
	short := func() Reason {
		if m.r.Filters.Malformed {
			return "bad_ip"
		}
		return "no_policy"
	}
	switch kind {
	case 0x0800:
		if len(rest) < 20 {
			return short()
		}
		h = parse4(rest)
	case 0x86dd:
		if len(rest) < 40 {
			return short()
		}
		h = parse6(rest)
	default:
		return "not_ip"
	}
	switch longest(m.r.Allow, h.src) - longest(m.r.Deny, h.src) {
	case 0:
	default:
		if longest(m.r.Allow, h.src) > longest(m.r.Deny, h.src) {
			return "allowed"
		}
		return "denied"
	}
	if r := m.filter(&h); r != "" {
		return r
	}
	policy, best := m.r.Default, -1
	for i := range m.r.Policies {
		if n := longest(m.r.Policies[i].CIDRs, h.src); n > best {
			policy, best = &m.r.Policies[i], n
		}
	}
	if policy == nil {
		return "no_policy"
	}
	if !m.over(policy, m.key(h.src), now) {
		return "under_limit"
	}
	if policy.Action == Pass {
		return "over_limit_passed"
	}
	return "over_limit"
}

// longest is the length of the longest prefix with a, or -1.
func longest(list []netip.Prefix, a netip.Addr) int {
	best := -1
	for _, p := range list {
		if p.Contains(a) {
			best = max(best, p.Bits())
		}
	}
	return best
}

func parse4(b []byte) header {
	h := header{src: netip.AddrFrom4([4]byte(b[12:16])), dst: netip.AddrFrom4([4]byte(b[16:20])), protocol: -1}
	head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || head < 20 || total < head || total > len(b) {
		h.bad = true
		return h
	}
	frag := binary.BigEndian.Uint16(b[6:])
	h.fragment = frag&0x3fff != 0
	if offset := frag & 0x1fff; offset != 0 {
		h.tiny = offset == 1 && b[9] == tcp
		return h
	}
	h.protocol, h.l4, h.l4Len = int(b[9]), b[head:], total-head
	return h
}

func parse6(b []byte) header {
	h := header{src: netip.AddrFrom16([16]byte(b[8:24])), dst: netip.AddrFrom16([16]byte(b[24:40])), protocol: -1}
	payload := int(binary.BigEndian.Uint16(b[4:]))
	h.jumbo = payload == 0
	if h.jumbo {
		payload = len(b) - 40
	}
	if b[0]>>4 != 6 || payload > len(b)-40 {
		h.bad = true
		return h
	}
	next, rest := int(b[6]), b[40:]
	for seen := 0; ; seen++ {
		n := 8
		switch next {
		case 0, 43, 60, 135, 139, 140, 44, 51:
		default:
			h.protocol, h.l4, h.l4Len = next, rest, payload
			return h
		}
		if payload < 8 || seen == 8 {
			break
		}
		switch next {
		case 44:
			h.fragment = true
			if offset := binary.BigEndian.Uint16(rest[2:]) & 0xfff8; offset != 0 {
				h.tiny = offset == 8 && rest[0] == tcp
				return h
			}
		case 51:
			n = (int(rest[1]) + 2) * 4
		default:
			n = (int(rest[1]) + 1) * 8
		}
		if n > payload {
			break
		}
		next, rest, payload = int(rest[0]), rest[n:], payload-n
	}
	// A chain that is too long or leaves the packet: not even a fragment.
	h.bad, h.fragment, h.tiny = true, false, false
	return h
}

func (m *model) filter(h *header) Reason {
	be, f := binary.BigEndian, m.r.Filters
	if h.fragment {
		if f.Fragments {
			return "fragment"
		}
		if f.TinyFragment && (h.tiny || h.protocol == tcp && h.l4Len < 20) {
			return "tiny_fragment"
		}
	}
	bad := Reason("")
	if h.bad {
		bad = "bad_ip"
	}
	switch h.protocol {
	case tcp:
		if h.l4Len < 20 {
			if !h.fragment {
				bad = "bad_tcp"
			}
			break
		}
		if n := int(h.l4[12]>>4) * 4; n < 20 || n > h.l4Len {
			bad = "bad_tcp"
			break
		}
		flags := h.l4[13] & 0x3f
		if f.TCPFlags {
			switch {
			case flags == 0:
				return "tcp_null"
			case flags&syn != 0 && flags&fin != 0:
				return "tcp_syn_fin"
			case flags&syn != 0 && flags&rst != 0:
				return "tcp_syn_rst"
			case flags&ack == 0 && flags&fin != 0 && flags&psh != 0 && flags&urg != 0:
				return "tcp_xmas"
			}
		}
		if f.Land && h.src == h.dst && be.Uint16(h.l4) == be.Uint16(h.l4[2:]) {
			return "land"
		}
	case udp:
		if h.l4Len < 8 {
			if !h.fragment {
				bad = "bad_udp"
			}
			break
		}
		n := int(be.Uint16(h.l4[4:]))
		switch {
		case n == 0 && h.src.Is4(), n > 0 && n < 8, n > h.l4Len && !h.fragment:
			bad = "bad_udp"
		}
		for _, port := range f.AmplificationPorts {
			if port == be.Uint16(h.l4) {
				return "amplification"
			}
		}
		if f.Land && h.src == h.dst && be.Uint16(h.l4) == be.Uint16(h.l4[2:]) {
			return "land"
		}
	}
	if bad != "" && f.Malformed {
		return bad
	}
	return ""
}

// key names a source in 64 bits.
func (m *model) key(a netip.Addr) uint64 {
	var k [8]byte
	if a.Is4() {
		b := a.As4()
		copy(k[4:], b[:])
		return binary.NativeEndian.Uint64(k[:])
	}
	n := int(m.r.IPv6PrefixLen)
	if n == 0 {
		n = 64
	}
	p, err := a.Prefix(n)
	if err != nil {
		panic(err)
	}
	b := p.Addr().As16()
	copy(k[:], b[:8])
	if binary.BigEndian.Uint32(k[:]) == 0 {
		copy(k[:], "\xff\xff\xff\xff")
	}
	return binary.NativeEndian.Uint64(k[:])
}

// over is GCRA: the sketch admits up to half of the burst, an entry for the source alone the rest.
func (m *model) over(p *Policy, key, now uint64) bool {
	period := (1e9 + p.Rate/2) / p.Rate
	burst := (p.Burst - 1) * period
	if burst >= 8*m.tick {
		burst += m.tick
	}
	near := burst / 2

	x := (key ^ m.seed) * 0x9e3779b97f4a7c15
	x ^= x >> 29
	x = (x + bits.RotateLeft64(m.seed, 32)) * 0xbf58476d1ce4e5b9
	x ^= x >> 32
	at := x & (m.lines - 1)
	i := x >> 32 & 7
	j := (i + 1 + (x>>40&255)*7/256) % 8
	line := m.sketch[at]
	defer func() { m.sketch[at] = line }()

	ahead := max(min(line[i], line[j]), now) - now
	if ahead <= near {
		tat := now + ahead + period
		line[i], line[j] = max(line[i], tat), max(line[j], tat)
		return false
	}
	floor := now + min(ahead, near+period)
	old, ok := m.sources[key]
	if !ok {
		old = floor
	}
	tat := max(old, floor)
	if tat-now > burst {
		m.sources[key] = min(old, now+burst+period)
		return true
	}
	tat += period
	m.sources[key] = tat
	line[i], line[j] = max(line[i], tat), max(line[j], tat)
	return false
}
