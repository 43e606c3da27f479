package bpf

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

var (
	floodRequests = flag.Int("flood-requests", 200, "requests of TestSYNFlood in each round and case; make "+
		"bench-flood takes 1,000")
	floodRounds = flag.Int("flood-rounds", 3, "rounds of TestSYNFlood; make bench-flood takes 5")
	floodSlack  = flag.Float64("flood-slack", 50, "how far over its bar TestSYNFlood may be: by default only so far "+
		"that a lost SYN shows; make bench-flood takes 1")
)

// floodCase is a way to meet the flood.
type floodCase struct {
	name     string
	from     string        // the link that the flood takes
	program  *ebpf.Program // on "flood"
	took     []time.Duration
	sent     int
	seen     uint64 // of any packets, by the program; the others found the queue full
	answered uint64
	flooded  time.Duration
	bar      float64
}

// TestSYNFlood: a SYN flood from random sources as fast as its link takes it, while a client of a real listener
// behind the program connects, asks and gets its answer: its p99 stays under twice the quiet one.
//
// The flood has a link and a core (the last) of its own, as it has with a card that has several queues, and everything
// else the other cores: a veth runs the receiver's program on the core of the sender. Memory, the program's maps and
// the listener are shared. In turns with it, for comparison: the flood met by a bare XDP_DROP, which is what the
// machine itself costs; by no program; and on the link, so in the queue, of the client.
func TestSYNFlood(t *testing.T) {
	s := newSite(t, Ruleset{SYNCookies: true, Filters: defaultFilters(), Default: &Policy{Rate: 100_000, Burst: 100_000}},
		"2", "4096")
	attacker := newNamespace(t)
	s.server.ip(t, "link add flood type veth peer name out netns "+string(attacker))
	s.server.ip(t, "addr add 10.8.0.1/16 dev flood")
	s.server.ip(t, "link set flood up")
	s.server.ip(t, "route add 198.18.0.0/15 via 10.8.0.2 dev flood")
	attacker.ip(t, "link set out up")
	// What comes back is dropped at once: the attacker's costs are not the server's.
	drop := verdictProgram(t, xdpDrop)
	attacker.do(t, func() { attachUntilEnd(t, "out", drop) })
	s.server.ip(t, "neigh add 10.8.0.2 lladdr "+attacker.mac(t, "out").String()+" dev flood")

	pinAllButLast(t)
	quiet := &floodCase{name: "quiet"}
	cases := []*floodCase{
		{name: "XDP_DROP", from: "flood", program: drop},
		{name: "MarchProxy", from: "flood", program: s.p.prog, bar: 2},
		{name: "no protection", from: "flood", program: verdictProgram(t, xdpPass)},
		{name: "MarchProxy, the client's queue", from: "in"},
	}
	for range *floodRounds {
		for _, c := range cases {
			s.round(t, attacker, quiet)
			s.round(t, attacker, c)
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	for _, c := range append(cases, quiet) {
		p99 := percentile(c.took, 99)
		ratio := float64(p99) / float64(percentile(quiet.took, 99))
		t.Logf("%-32s p50 %9s  p99 %9s  max %9s  %5.2f times  %8.0f SYNs/s sent, %8.0f seen, %8.0f "+
			"answered", c.name, percentile(c.took, 50), p99,
			percentile(c.took, 100), ratio, float64(c.sent)/max(c.flooded.Seconds(), 1),
			float64(c.seen)/max(c.flooded.Seconds(), 1), float64(c.answered)/max(c.flooded.Seconds(), 1))
		if c.bar > 0 && ratio > c.bar**floodSlack {
			t.Errorf("%s: the client's p99 is %.1f times its quiet one, more than %.1f", c.name, ratio, c.bar)
		}
	}
	if n := cases[1].answered; n < 100_000 {
		t.Errorf("the flood was not one: %d SYNs answered", n)
	}
}

// round measures one case once.
func (s *site) round(t *testing.T, attacker namespace, c *floodCase) {
	if c.program != nil {
		var l link.Link
		s.server.do(t, func() { l = attachNow(t, "flood", c.program) })
		if l == nil {
			return
		}
		defer l.Close()
	}
	stop, first, sent := make(chan struct{}), make(chan struct{}), make(chan int, 1)
	start, before := time.Now(), stats(t, s.p)
	if c.from != "" {
		from := attacker
		if c.from == "in" {
			from = s.client
		}
		mac := s.server.mac(t, c.from)
		flooding := from.start(func() { sent <- flood(t, mac, first, stop) })
		<-first
		defer func() {
			close(stop)
			if err := <-flooding; err != nil {
				t.Error(err)
				return
			}
			c.sent += <-sent
			after := stats(t, s.p)
			c.seen += after.Passed() + after.Dropped() - before.Passed() - before.Dropped()
			c.answered += after.Reasons["syn_cookie"].Packets - before.Reasons["syn_cookie"].Packets
			c.flooded += time.Since(start)
		}()
	}
	s.client.do(t, func() {
		ask(t, "10.9.0.1:8080", *floodRequests/4) // attaching and detaching have just stirred the machine
		c.took = append(c.took, ask(t, "10.9.0.1:8080", *floodRequests)...)
	})
}

func percentile(d []time.Duration, p int) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[min(len(d)*p/100, len(d)-1)]
}

// pin lets a thread (0: the caller's) run on these CPUs only.
func pin(thread int, cpus ...int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	return unix.SchedSetaffinity(thread, &set)
}

// pinAllButLast keeps this process off the last core until the test ends.
func pinAllButLast(t *testing.T) {
	t.Helper()
	if runtime.NumCPU() < 2 {
		t.Fatal("a flood needs a core of its own, this machine has one")
	}
	all := make([]int, runtime.NumCPU())
	for i := range all {
		all[i] = i
	}
	everyThread := func(cpus []int) {
		tasks, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			t.Error(err)
		}
		for _, task := range tasks {
			id, err := strconv.Atoi(filepath.Base(task))
			if err == nil {
				err = pin(id, cpus...)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) {
				t.Error(err)
			}
		}
	}
	everyThread(all[:len(all)-1])
	t.Cleanup(func() { everyThread(all) })
}

// verdictProgram gives every packet the same verdict.
func verdictProgram(t *testing.T, verdict int32) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	return prog
}

func attachNow(t *testing.T, ifname string, prog *ebpf.Program) link.Link {
	iface, err := net.InterfaceByName(ifname)
	if err != nil {
		t.Error(err)
		return nil
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: iface.Index, Flags: link.XDPDriverMode})
	if err != nil {
		t.Error(fmt.Errorf("attach to %s: %w", ifname, err))
		return nil
	}
	return l
}

func attachUntilEnd(t *testing.T, ifname string, prog *ebpf.Program) {
	if l := attachNow(t, ifname, prog); l != nil {
		t.Cleanup(func() { l.Close() })
	}
}

// mac is the address of an interface inside.
func (ns namespace) mac(t *testing.T, ifname string) (mac net.HardwareAddr) {
	t.Helper()
	ns.do(t, func() {
		iface, err := net.InterfaceByName(ifname)
		if err != nil {
			t.Error(err)
			return
		}
		mac = iface.HardwareAddr
	})
	return mac
}
