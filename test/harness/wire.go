package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Wire is a network namespace with a client in it, and a pair of veths from it to this namespace: what the
// client sends arrives at Interface.
type Wire struct {
	// Interface is this side's end, Node its address.
	Interface string
	Node      netip.Addr
	// Clients are two addresses at the other end.
	Clients [2]netip.Addr
	// Namespace is the other end's, for ip netns exec.
	Namespace string
	// Pins is a directory on a BPF file system of the wire's own, for XDP_PIN_DIR: the machine's may be missing,
	// and what is in it is nobody's business here.
	Pins  string
	bpffs string
	far   string
}

var wires atomic.Int32

// NewWire makes one. It needs root.
func NewWire() (*Wire, error) {
	// The addresses are from the block for benchmarks (RFC 2544), a /29 for each wire of each process.
	n := uint32(os.Getpid())*8 + uint32(wires.Add(1))
	id := strconv.Itoa(int(n))
	base := 0xc6120000 | (n%(1<<13))<<3 // 198.18.0.0/16
	addr := func(i uint32) netip.Addr {
		a := base + i
		return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
	}
	w := &Wire{Interface: "mpn" + id, Node: addr(1), Clients: [2]netip.Addr{addr(2), addr(3)}, Namespace: "mp-test-" + id}
	w.far = "mpc" + id
	if err := errors.Join(ip("netns add "+w.Namespace, "-n "+w.Namespace+" link set lo up"), w.lay()); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	dir, err := os.MkdirTemp("", "marchproxy-bpffs-")
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		return nil, errors.Join(fmt.Errorf("mount a BPF file system: %w", err), os.Remove(dir), w.Close())
	}
	w.bpffs, w.Pins = dir, filepath.Join(dir, "marchproxy")
	return w, nil
}

// ip runs ip(8) with each of these arguments in turn.
func ip(commands ...string) error {
	for _, c := range commands {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", c, err, out)
		}
	}
	return nil
}

// lay joins the two ends.
func (w *Wire) lay() error {
	return ip(
		"link add "+w.Interface+" type veth peer name "+w.far+" netns "+w.Namespace,
		"addr add "+w.Node.String()+"/29 dev "+w.Interface,
		"link set "+w.Interface+" up",
		"-n "+w.Namespace+" addr add "+w.Clients[0].String()+"/29 dev "+w.far,
		"-n "+w.Namespace+" addr add "+w.Clients[1].String()+"/29 dev "+w.far,
		"-n "+w.Namespace+" link set "+w.far+" up",
	)
}

// Again takes the wire away and lays another with the same names and addresses.
func (w *Wire) Again() error { return errors.Join(ip("link del "+w.Interface), w.lay()) }

// Close removes the namespace, and with it the wire, and what is pinned.
func (w *Wire) Close() error {
	var errs []error
	if w.bpffs != "" {
		errs = append(errs, unix.Unmount(w.bpffs, unix.MNT_DETACH), os.Remove(w.bpffs))
	}
	if out, err := exec.Command("ip", "netns", "del", w.Namespace).CombinedOutput(); err != nil {
		errs = append(errs, fmt.Errorf("ip netns del: %w: %s", err, out))
	}
	return errors.Join(errs...)
}

// Dial connects from a client's address. The connection stays in the client's namespace, whoever uses it.
func (w *Wire) Dial(ctx context.Context, network string, from netip.Addr, to string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	out := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, which is in the other namespace now, ends with this
		ns, err := os.Open("/run/netns/" + w.Namespace)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			_ = ns.Close() // read only
		}
		if err != nil {
			out <- result{nil, err}
			return
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
		if strings.HasPrefix(network, "udp") {
			d.LocalAddr = &net.UDPAddr{IP: from.AsSlice()}
		}
		conn, err := d.DialContext(ctx, network, to)
		out <- result{conn, err}
	}()
	r := <-out
	return r.conn, r.err
}
