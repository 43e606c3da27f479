package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

var (
	floodRounds = flag.Int("flood-rounds", 4, "rounds of TestSYNFlood, each quiet, then flooded; make bench-flood takes 20")
	floodBar    = flag.Float64("flood-bar", 0, "p99 beside the flood, in p99s without, that fails TestSYNFlood; 0: whatever it is; make bench-flood takes 2")
)

// floodRequests is how many a client makes each half of a round.
const floodRequests = 250

// TestSYNFlood: a SYN flood from random sources as fast as the veth takes it, while a client of a real listener
// behind the program connects, asks and gets its answer. Flood and client share the link, its one queue and the
// processor that empties it; client and server have the other processor. The attacker has processor time only when
// the queue is empty: its own would not be the victim's. It fails where a request fails within 5 s, where too few
// SYNs came for a flood, and over -flood-bar, which needs a machine with nothing else to do.
func TestSYNFlood(t *testing.T) {
	server, client := newNamespace(t), newNamespace(t)
	pair(t, server, client)
	p := open(t, Options{})
	apply(t, p, Ruleset{SYNCookies: true, Filters: DefaultFilters(), Default: &Policy{Rate: 100_000, Burst: 100_000}})
	mac := echo(t, server, p)
	// What is sent to other addresses would go on to other hosts, at no cost of this one.
	others, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // data
			asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
			asm.Mov.Imm(asm.R0, 2),                   // XDP_PASS
			asm.Mov.Reg(asm.R4, asm.R2),
			asm.Add.Imm(asm.R4, 34),
			asm.JGT.Reg(asm.R4, asm.R3, "out"),
			asm.LoadMem(asm.R5, asm.R2, 30, asm.Half), // first half of the destination
			asm.JNE.Imm(asm.R5, 18+198<<8, "not"),
			asm.Mov.Imm(asm.R0, 1), // XDP_DROP
			asm.Return().WithSymbol("out"),
			asm.Return().WithSymbol("not"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer others.Close()
	client.do(t, func() {
		out, err := net.InterfaceByName("out")
		if err != nil {
			t.Error(err)
			return
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: others, Interface: out.Index, Flags: link.XDPDriverMode})
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { l.Close() })
	})
	if t.Failed() {
		t.FailNow()
	}
	defer onProcessor(t, 1)()

	var quiet, busy []time.Duration
	var sent uint64
	var flooded time.Duration
	for range *floodRounds {
		quiet = append(quiet, ask(t, client)...)
		stop := flood(t, client, mac)
		start := time.Now()
		busy = append(busy, ask(t, client)...)
		flooded += time.Since(start)
		sent += stop()
		if t.Failed() {
			t.FailNow()
		}
	}
	slices.Sort(quiet)
	slices.Sort(busy)
	at := func(d []time.Duration, percent int) time.Duration { return d[(len(d)-1)*percent/100] }
	ratio := float64(at(busy, 99)) / float64(at(quiet, 99))
	answered := stats(t, p).Reasons["syn_cookie"].Packets
	t.Logf("p50 %s quiet, %s flooded; p99 %s and %s: %.2f times; most %s and %s; %.0f SYNs a second, %d answered",
		at(quiet, 50), at(busy, 50), at(quiet, 99), at(busy, 99), ratio, at(quiet, 100), at(busy, 100),
		float64(sent)/flooded.Seconds(), answered)
	if answered < uint64(1000**floodRounds) {
		t.Errorf("the flood was not one: %d SYNs answered", answered)
	}
	if *floodBar > 0 && ratio > *floodBar {
		t.Errorf("p99 %.2f times the quiet one, bar %.2f", ratio, *floodBar)
	}
}

// ask connects, asks, and says how long each answer took.
func ask(t *testing.T, from namespace) []time.Duration {
	var took []time.Duration
	from.do(t, func() {
		for range floodRequests {
			start := time.Now()
			c, err := net.DialTimeout("tcp", "10.9.0.1:8080", 5*time.Second)
			if err == nil {
				if _, err = c.Write([]byte("ping")); err == nil {
					_, err = io.ReadFull(c, make([]byte, 4))
				}
				c.Close()
			}
			if err != nil {
				t.Error(err)
				return
			}
			took = append(took, time.Since(start))
		}
	})
	return took
}

// onProcessor has all threads of this program run there only, until it is called back.
func onProcessor(t *testing.T, n int) (back func()) {
	var was, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		t.Fatal(err)
	}
	only.Set(n)
	set := func(cpus *unix.CPUSet) {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Error(err)
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil {
				t.Error(err)
			}
			if err := unix.SchedSetaffinity(id, cpus); err != nil && !errors.Is(err, unix.ESRCH) {
				t.Error(err)
			}
		}
	}
	set(&only)
	return func() { set(&was) }
}

const floodEnv = "MARCHPROXY_TEST_FLOOD"

// TestMain runs the tests, or is the attacker of one.
func TestMain(m *testing.M) {
	to := os.Getenv(floodEnv)
	if to == "" {
		os.Exit(m.Run())
	}
	n, err := floodSYNs(to)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(n)
}

// flood starts a process that sends SYNs to the server, and returns when they come. stop ends it, and says how many
// it sent.
func flood(t *testing.T, from namespace, to net.HardwareAddr) (stop func() uint64) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", string(from), "taskset", "-c", "0", "nice", "-n", "19", self)
	cmd.Env = append(os.Environ(), floodEnv+"="+to.String())
	var out, stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	return func() uint64 {
		stdin.Close()
		_, err := io.Copy(&out, stdout)
		if err := errors.Join(err, cmd.Wait()); err != nil {
			t.Fatalf("%v: %s", err, &stderr)
		}
		n, err := strconv.ParseUint(strings.TrimSpace(out.String()), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// floodSYNs sends SYNs from 198.18/15 until standard input ends, and says how many. It writes a space after the
// first thousand.
func floodSYNs(to string) (uint64, error) {
	mac, err := net.ParseMAC(to)
	if err != nil {
		return 0, err
	}
	iface, err := net.InterfaceByName("out")
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	frame := packet{src: "198.18.0.1", dst: "10.9.0.1", proto: tcp, sport: 1024, dport: 8080, flags: syn}.bytes()
	copy(frame, mac)
	for n := uint64(0); ; n++ {
		select {
		case <-stop:
			return n, nil
		default:
		}
		if n == 1000 {
			fmt.Print(" ")
		}
		binary.BigEndian.PutUint32(frame[26:], 0xc6120000|uint32(n)*2654435761>>15)
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: iface.Index}); err != nil && err != unix.ENOBUFS {
			return n, err
		}
	}
}
