package bpf

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

var (
	speedRounds = flag.Int("speed-rounds", 5, "rounds of TestSpeed; make bench-xdp takes 11")
	speedBars   = flag.Bool("speed-bars", false, "hold the medians to the bars against a bare XDP_DROP, which make "+
		"bench-xdp does; they hold only "+
		"where a call of the kernel's is cheap: where returns are guarded, a bare drop costs no more and a program that "+
		"calls anything does")
	speedSlack = flag.Float64("speed-slack", 2, "how far over its bar in costs of the simplest limiter a case "+
		"may be, for other "+
		"processors' caches and busy machines; make bench-xdp takes 1")
	speedRepeat = flag.Int("speed-repeat", 200_000, "packets a case and round; make bench-xdp takes 1,000,000")
)

// xdpFilter is Debian's object for "drop the listed sources", the peer that everybody can install.
const xdpFilter = "/usr/lib/x86_64-linux-gnu/bpf/xdpfilt_alw_ip.o"

// speedCase is a program and packet to time; bar is the most it may cost, in costs of a bare XDP_DROP, most in costs of
// the simplest limiter (test_simple), which calls the kernel as often as any has to.
type speedCase struct {
	name string
	prog *ebpf.Program
	pkt  []byte
	prep func()
	want uint32
	bar  float64
	most float64
	ns   []float64
}

// run times one round: the mean that the kernel measured, in whole ns.
func (c *speedCase) run(t testing.TB, repeat int) {
	if c.prep != nil {
		c.prep()
	}
	// An untimed pass brings the working set in and the one of the case before out.
	for range 2 {
		ret, d, err := c.prog.Benchmark(c.pkt, repeat, func() {})
		if err != nil {
			t.Fatal(err)
		}
		if ret != c.want {
			t.Fatalf("%s: verdict %d, want %d", c.name, ret, c.want)
		}
		if len(c.ns) == cap(c.ns) {
			c.ns = slices.Grow(c.ns, 1)
		}
		c.ns = append(c.ns, float64(d.Nanoseconds()))
	}
	c.ns = slices.Delete(c.ns, len(c.ns)-2, len(c.ns)-1)
}

func (c *speedCase) median() float64 {
	s := slices.Sorted(slices.Values(c.ns))
	return s[len(s)/2]
}

func (c *speedCase) least() float64 { return slices.Min(c.ns) }

func setMask(t testing.TB, p *Program, mask uint32) {
	t.Helper()
	var c xdpControl
	m := p.coll.Maps[xdpMapControlMap]
	if err := m.Lookup(uint32(0), &c); err != nil {
		t.Fatal(err)
	}
	c.TestNow = uint64(mask)
	if err := m.Put(uint32(0), &c); err != nil {
		t.Fatal(err)
	}
}

// manyCIDRs makes n IPv4 prefixes of /20 to /32 outside of 10/8 but for one in four, over 16 policies.
func manyCIDRs(n int) []Policy {
	r := rand.New(rand.NewPCG(1, 2))
	policies := make([]Policy, 16)
	for i := range policies {
		policies[i] = Policy{ID: uint32(i + 1), Rate: 1_000_000, Burst: 1_000_000}
	}
	seen := map[netip.Prefix]bool{}
	for len(seen) < n {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], r.Uint32())
		if len(seen)%4 == 0 {
			a[0] = 10
		}
		p := netip.PrefixFrom(netip.AddrFrom4(a), 20+r.IntN(13)).Masked()
		if !seen[p] {
			seen[p] = true
			q := &policies[len(seen)%len(policies)]
			q.CIDRs = append(q.CIDRs, p)
		}
	}
	return policies
}

// TestSpeed holds the program to its bars in costs of the simplest limiter in the same run. The least of the rounds is
// taken: what else runs on the machine only adds.
func TestSpeed(t *testing.T) {
	syn64 := packet{
		src: "10.0.0.1", dst: "192.0.2.1", proto: tcp, sport: 40000, dport: 80, flags: syn,
		tcpOptions: []byte{2, 4, 5, 0xb4}, pad: 64,
	}.bytes()
	get512 := packet{
		src: "10.0.0.1", dst: "192.0.2.1", proto: tcp, sport: 40000, dport: 80, flags: psh | ack,
		payload: append([]byte("POST /index.html HTTP/1.1\r\nHost: example.test\r\n"), make([]byte, 411)...),
	}.bytes()
	v6 := packet{src: "fd00::1", dst: "fd00::2", proto: tcp, sport: 40000, dport: 80, flags: ack, pad: 78}.bytes()

	generous := Policy{ID: 0, Rate: MaxRate, Burst: 10 * MaxRate}
	strict := Policy{ID: 0, Rate: 1, Burst: 1000}
	load := func(r Ruleset) *Program {
		r.Filters, r.SYNCookies = defaultFilters(), false
		r.Filters.AmplificationPorts = knownAmplificationPorts()
		p := open(t, Options{testing: true, realClock: true})
		apply(t, p, r)
		return p
	}
	quiet, over, cidrs := load(Ruleset{Default: &generous}), load(Ruleset{Default: &strict}),
		load(Ruleset{Default: &generous, Policies: manyCIDRs(10000)})
	drop := func(p *Program) *ebpf.Program { return p.coll.Programs[xdpProgTestDrop] }
	flood := func(p *Program) *ebpf.Program { return p.coll.Programs[xdpProgTestFlood] }

	var cases []*speedCase
	add := func(name string, prog *ebpf.Program, pkt []byte, want uint32, bar, most float64) *speedCase {
		c := &speedCase{name: name, prog: prog, pkt: pkt, want: want, bar: bar, most: most}
		cases = append(cases, c)
		return c
	}
	const dropped, passed = 1, 2
	base := add("bare XDP_DROP", drop(quiet), syn64, dropped, 0, 0)
	simple := add("the simplest limiter", quiet.coll.Programs[xdpProgTestSimple], syn64, passed, 0, 0)
	add("under the limit, SYN of 64 B", quiet.prog, syn64, passed, 3.0, 3)
	add("under the limit, POST of 512 B", quiet.prog, get512, passed, 3.0, 3)
	add("under the limit, IPv6", quiet.prog, v6, passed, 3.0, 3)
	add("over the limit", over.prog, syn64, dropped, 3.0, 3)
	wrapped := add("bare XDP_DROP behind the random source", quiet.coll.Programs[xdpProgTestFloodDrop], syn64,
		dropped, 0, 0)
	wrapped.prep = func() { setMask(t, quiet, 1<<24-1) }
	for _, n := range []uint32{1 << 10, 1 << 17, 1 << 24} {
		c := add(fmt.Sprintf("%d random sources", n), flood(quiet), syn64, passed, 3.5, 4)
		c.prep = func() { setMask(t, quiet, n-1) }
	}
	add("10,000 CIDRs, one source", cidrs.prog, syn64, passed, 5.0, 5)
	c := add("10,000 CIDRs, 131072 random sources", flood(cidrs), syn64, passed, 5.0, 5)
	c.prep = func() { setMask(t, cidrs, 1<<17-1) }
	c = add("10,000 CIDRs, 16777216 random sources", flood(cidrs), syn64, passed, 5.0, 5)
	c.prep = func() { setMask(t, cidrs, 1<<24-1) }
	for _, hit := range []bool{true, false} {
		if prog, want := loadXDPFilter(t, hit); prog != nil {
			add(fmt.Sprintf("xdp-filter, 10,000 denied, hit %v", hit), prog, syn64, want, 0, 0)
		}
	}

	for range *speedRounds {
		for _, c := range cases {
			c.run(t, *speedRepeat)
		}
	}
	random := func(c *speedCase) bool { return c.prog == flood(quiet) || c.prog == flood(cidrs) }
	t.Logf("%-42s %8s %8s %11s %6s %12s %6s", "case", "median", "least", "of a drop", "bar", "of simplest", "most")
	for _, c := range cases {
		median, least := c.median(), c.least()
		if random(c) { // the random source is the test's own cost
			median -= wrapped.median() - base.median()
			least -= wrapped.least() - base.least()
		}
		ofDrop, ofSimple := median/base.median(), least/simple.least()
		t.Logf("%-42s %8.0f %8.0f %11.2f %6.1f %12.2f %6.1f", c.name, median, least, ofDrop, c.bar, ofSimple, c.most)
		if *speedBars && c.bar > 0 && ofDrop > c.bar {
			t.Errorf("%s costs %.2f times a bare XDP_DROP, more than %.1f", c.name, ofDrop, c.bar)
		}
		if c.most > 0 && ofSimple > c.most**speedSlack {
			t.Errorf("%s costs %.2f times the simplest limiter, more than %.1f", c.name, ofSimple, c.most)
		}
	}
}

// loadXDPFilter gives xdp-filter with 10,000 denied sources, one of them 10.0.0.1 if hit, or nil where it is not
// installed (scripts/bpf-peers).
func loadXDPFilter(t *testing.T, hit bool) (*ebpf.Program, uint32) {
	if _, err := os.Stat(xdpFilter); err != nil {
		return nil, 0
	}
	spec, err := ebpf.LoadCollectionSpec(xdpFilter)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
	}
	delete(spec.Maps, ".xdp_run_config")
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	value := make([]uint64, ebpf.MustPossibleCPU())
	for i := range value {
		value[i] = 1 // match the source
	}
	for i := range uint32(9999) {
		if err := c.Maps["filter_ipv4"].Put([4]byte{198, 18, byte(i >> 8), byte(i)}, value); err != nil {
			t.Fatal(err)
		}
	}
	want := uint32(2)
	if hit {
		want = 1
		if err := c.Maps["filter_ipv4"].Put([4]byte{10, 0, 0, 1}, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, prog := range c.Programs {
		return prog, want
	}
	return nil, 0
}
