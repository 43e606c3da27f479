package bpf

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

var (
	fuzzCases = flag.Int("fuzz-cases", 100_000, "cases of TestAgainstModel; make fuzz-bpf takes 1,000,000 and more")
	fuzzSeed  = flag.Uint64("fuzz-seed", 1, "seed of TestAgainstModel")
)

const batchSize = 16384

// batch sends cases through the real program in one call and gives its verdicts.
func (p *Program) batch(t testing.TB, cases []xdpTestCase) []xdpTestCase {
	t.Helper()
	m := p.coll.Maps[xdpMapTestCaseMap]
	keys := make([]uint32, len(cases))
	for i := range keys {
		keys[i] = uint32(i)
	}
	if _, err := m.BatchUpdate(keys, cases, nil); err != nil {
		t.Fatal(err)
	}
	var c xdpControl
	if err := p.coll.Maps[xdpMapControlMap].Lookup(uint32(0), &c); err != nil {
		t.Fatal(err)
	}
	c.TestCase = 0
	if err := p.coll.Maps[xdpMapControlMap].Put(uint32(0), &c); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.coll.Programs[xdpProgTestBatch].Benchmark(make([]byte, 1024), len(cases), func() {}); err != nil {
		t.Fatal(err)
	}
	if err := p.coll.Maps[xdpMapControlMap].Lookup(uint32(0), &c); err != nil {
		t.Fatal(err)
	}
	if int(c.TestCase) != len(cases) {
		t.Fatalf("the kernel ran %d of %d cases", c.TestCase, len(cases))
	}
	out := make([]xdpTestCase, len(cases))
	for i := range cases {
		if err := m.Lookup(uint32(i), &out[i]); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func (p *Program) testSeed(t testing.TB) uint64 {
	t.Helper()
	var seed uint64
	if err := p.coll.Variables[xdpVarSeed].Get(&seed); err != nil {
		t.Fatal(err)
	}
	return seed
}

func prefixes(s ...string) (list []netip.Prefix) {
	for _, x := range s {
		list = append(list, netip.MustParsePrefix(x))
	}
	return list
}

// randomRuleset makes rulesets whose parts meet often: few addresses, nested prefixes, small bursts.
func randomRuleset(r *rand.Rand) Ruleset {
	flip := func() bool { return r.IntN(2) == 0 }
	policy := func(id uint32) Policy {
		rates := []uint64{1, 10, 1000, 100_000, 3_000_000}
		bursts := []uint64{1, 2, 3, 10, 100, 5000}
		return Policy{
			ID: id, Rate: rates[r.IntN(len(rates))], Burst: bursts[r.IntN(len(bursts))],
			Action: Action(r.IntN(5) / 4),
		}
	}
	out := Ruleset{
		Filters: Filters{
			Malformed: flip(), TCPFlags: flip(), Land: flip(), TinyFragment: flip(),
			Fragments: r.IntN(4) == 0,
		},
		IPv6PrefixLen: []uint8{0, 48, 56, 64, 17}[r.IntN(5)],
	}
	if flip() {
		out.Filters.AmplificationPorts = []uint16{53, 123, 11211, 65535}
	}
	if r.IntN(4) > 0 {
		p := policy(0)
		out.Default = &p
	}
	taken := map[netip.Prefix]int{}
	pick := func(kind int) (list []netip.Prefix) {
		for range r.IntN(6) {
			p := randomAddr(r)
			c := netip.PrefixFrom(p, r.IntN(p.BitLen()+1)).Masked()
			if taken[c]&kind == 0 {
				taken[c] |= kind
				list = append(list, c)
			}
		}
		return list
	}
	for i := range r.IntN(4) {
		p := policy(uint32(i + 1))
		p.CIDRs = pick(1)
		out.Policies = append(out.Policies, p)
	}
	if flip() {
		out.Allow = pick(2)
	}
	if flip() {
		out.Deny = pick(2)
	}
	return out
}

// randomAddr draws from few addresses, so that sources come again and share prefixes.
func randomAddr(r *rand.Rand) netip.Addr {
	if r.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{
			byte([]int{10, 10, 172, 0, 255}[r.IntN(5)]), byte(r.IntN(3)), byte(r.IntN(2)),
			byte(r.IntN(40)),
		})
	}
	var a [16]byte
	a[0], a[1] = byte([]int{0xfd, 0x20, 0}[r.IntN(3)]), byte(r.IntN(2))
	a[5], a[7], a[15] = byte(r.IntN(3)), byte(r.IntN(3)), byte(r.IntN(4))
	return netip.AddrFrom16(a)
}

// randomFrame makes mostly sound packets, and breaks a third of them.
func randomFrame(r *rand.Rand) []byte {
	src, dst := randomAddr(r), randomAddr(r)
	for dst.Is4() != src.Is4() {
		dst = randomAddr(r)
	}
	if r.IntN(20) == 0 {
		dst = src
	}
	ports := []uint16{53, 80, 443, 123, 40000, 65535}
	p := packet{
		src: src.String(), dst: dst.String(), proto: []byte{tcp, tcp, tcp, udp, udp, 1, 58, 47}[r.IntN(8)],
		sport: ports[r.IntN(len(ports))], dport: ports[r.IntN(len(ports))], flags: byte(r.Uint32()),
		options: []int{0, 0, 0, 4, 40}[r.IntN(5)], payload: make([]byte, r.IntN(40)), pad: r.IntN(2) * 60,
	}
	if r.IntN(3) > 0 {
		p.flags = []byte{syn, ack, psh | ack, fin | ack, syn | ack}[r.IntN(5)]
	}
	for range []int{0, 0, 0, 1, 2, 3}[r.IntN(6)] {
		p.vlans = append(p.vlans, []uint16{0x8100, 0x88a8}[r.IntN(2)])
	}
	if r.IntN(4) == 0 {
		p.frag = []uint16{0x2000, 1, 0x2001, 0x4000, 8, 0x2040}[r.IntN(6)]
	}
	kinds := []byte{0, 43, 44, 51, 60, 135, 139, 140}
	for range []int{0, 0, 0, 1, 2, 8, 9}[r.IntN(7)] {
		p.extensions = append(p.extensions, kinds[r.IntN(len(kinds))])
	}
	b := p.bytes()
	if r.IntN(3) == 0 {
		switch r.IntN(3) {
		case 0: // cut
			b = b[:14+r.IntN(len(b)-13)]
		case 1: // one byte of the headers
			b[12+r.IntN(len(b)-12)] = byte(r.Uint32())
		case 2: // a length or a nibble
			i := p.l3() + []int{0, 2, 3, 4, 5, 6, 7, 9}[r.IntN(8)]
			if i < len(b) {
				b[i] ^= 1 << r.IntN(8)
			}
		}
	}
	return b[:min(len(b), 512)]
}

// disagreement runs frames through both and describes the first difference.
func disagreement(t testing.TB, p *Program, m *model, cases []xdpTestCase) string {
	t.Helper()
	r := m.r
	clear(m.reasons)
	before := stats(t, p)
	got := p.batch(t, cases)
	after := stats(t, p)
	for i := range cases {
		c := &cases[i]
		want := m.judge(c.Frame[:c.Len], c.Now)
		if got[i].Verdict != want {
			return fmt.Sprintf("case %d: verdict %d, the model says %d\nframe %x\nruleset %+v", i, got[i].Verdict, want,
				c.Frame[:c.Len], r)
		}
	}
	for _, reason := range reasons {
		if n := after.Reasons[reason].Packets - before.Reasons[reason].Packets; n != m.reasons[reason] {
			return fmt.Sprintf("%d packets under %q, the model says %d; all of the model: %v\nruleset %+v", n, reason,
				m.reasons[reason], m.reasons, r)
		}
	}
	return ""
}

// TestAgainstModel holds the loaded program against the model, packet by packet and reason by reason, under one
// ruleset after the other: what sources have used survives every change.
func TestAgainstModel(t *testing.T) {
	p := open(t, Options{testing: true, SketchWords: 64}) // small: sources share words all the time
	m := newModel(p, Ruleset{}, p.testSeed(t))
	now := uint64(1 << 40)
	for done, round := 0, uint64(0); done < *fuzzCases; round++ {
		r := rand.New(rand.NewPCG(*fuzzSeed, round))
		m.r = randomRuleset(r)
		apply(t, p, m.r)
		cases := make([]xdpTestCase, batchSize)
		for i := range cases {
			frame := randomFrame(r)
			now += []uint64{0, 1, 1000, 1_000_000, 300_000_000}[r.IntN(5)]
			cases[i] = xdpTestCase{Now: now, Len: uint32(len(frame))}
			copy(cases[i].Frame[:], frame)
		}
		if d := disagreement(t, p, m, cases); d != "" {
			t.Fatalf("seed %d, round %d: %s", *fuzzSeed, round, d)
		}
		done += len(cases)
	}
}

// FuzzFrame lets the fuzzer write the frames: many at once, since a call costs 16 ms whatever it carries. Input: for
// each frame a length byte and the bytes. Run it with -fuzzminimizetime 1x: by default every new find is made smaller
// for a minute, which at this price a call is all that would ever happen.
func FuzzFrame(f *testing.F) {
	p := open(f, Options{testing: true, SketchWords: 64})
	rules := Ruleset{
		Default:  &Policy{ID: 1, Rate: 10, Burst: 5},
		Policies: []Policy{{ID: 2, Rate: 1000, Burst: 1, CIDRs: prefixes("10.1.0.0/16", "fd00::/16")}},
		Allow:    prefixes("10.0.0.1/32"), Deny: prefixes("10.0.1.0/24", "2001::/16"),
		Filters: defaultFilters(),
	}
	rules.Filters.AmplificationPorts = []uint16{53}
	apply(f, p, rules)
	r := rand.New(rand.NewPCG(1, 1))
	for range 16 {
		var in []byte
		for range 8 {
			frame := randomFrame(r)
			frame = frame[:min(len(frame), 255)]
			in = append(append(in, byte(len(frame))), frame...)
		}
		f.Add(in)
	}
	m, now := newModel(p, rules, p.testSeed(f)), uint64(1<<40)
	f.Fuzz(func(t *testing.T, in []byte) {
		// What the input before has used is over: what is found is found again by its input alone.
		now += 64 * second
		clear(m.sketch)
		clear(m.sources)
		var cases []xdpTestCase
		for len(in) > 1 && len(cases) < batchSize/2 {
			n := min(int(in[0]), len(in)-1)
			if n >= 14 {
				cases = append(cases, variations(in[1:1+n], now)...)
			}
			in = in[1+n:]
		}
		if len(cases) == 0 {
			return
		}
		if d := disagreement(t, p, m, cases); d != "" {
			t.Fatal(d)
		}
	})
}

// variations are the frame, every shorter one, and those with one bit of its headers turned, a microsecond apart: a
// call costs the same whatever it carries.
func variations(frame []byte, now uint64) (cases []xdpTestCase) {
	add := func(length, bit int) {
		c := xdpTestCase{Now: now + 1000*uint64(len(cases)), Len: uint32(length)}
		copy(c.Frame[:], frame[:length])
		if bit >= 0 {
			c.Frame[bit/8] ^= 1 << (bit % 8)
		}
		cases = append(cases, c)
	}
	for n := len(frame); n >= 14; n-- {
		add(n, -1)
	}
	for bit := 12 * 8; bit < min(len(frame), 80)*8; bit++ {
		add(len(frame), bit)
	}
	return cases
}

// TestModelIsNotBlind: a model that is wrong in one rule is found out.
func TestModelIsNotBlind(t *testing.T) {
	p := open(t, Options{testing: true})
	rules := Ruleset{Default: &Policy{Rate: 10, Burst: 3}}
	apply(t, p, rules)
	frame := packet{src: "10.0.0.1", dst: "10.0.0.2", proto: udp, sport: 1, dport: 2}.bytes()
	cases := make([]xdpTestCase, 8)
	for i := range cases {
		cases[i] = xdpTestCase{Now: 1 << 40, Len: uint32(len(frame))}
		copy(cases[i].Frame[:], frame)
	}
	wrong := newModel(p, Ruleset{Default: &Policy{Rate: 10, Burst: 4}}, p.testSeed(t))
	if disagreement(t, p, wrong, cases) == "" {
		t.Error("a burst of 4 instead of 3 makes no difference")
	}
}
