package bpf

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

func denyAll() Ruleset {
	return Ruleset{Deny: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
}

func TestAttachReadsModeBack(t *testing.T) {
	server, client := newNamespace(t), newNamespace(t)
	pair(t, server, client)
	p := open(t, Options{})
	for _, mode := range []Mode{Native, Generic, Native} {
		server.do(t, func() {
			a, err := p.Attach("in", mode)
			if err != nil {
				t.Error(err)
			} else if a.Mode != mode || a.Interface != "in" {
				t.Errorf("attached %+v, want mode %s", a, mode)
			}
		})
	}
	if out := server.ip(t, "link show in"); !strings.Contains(out, "xdp") {
		t.Errorf("ip link shows no xdp: %s", out)
	}
	if err := p.Close(); err != nil { // what is not pinned goes with it
		t.Error(err)
	}
	if out := server.ip(t, "link show in"); strings.Contains(out, "xdp") {
		t.Errorf("still attached: %s", out)
	}
}

func TestAttachRefusals(t *testing.T) {
	server, client := newNamespace(t), newNamespace(t)
	pair(t, server, client)
	other, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "somebody_else", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	p := open(t, Options{})
	server.do(t, func() {
		index := 0
		if a, err := attachedByName("in"); err != nil {
			t.Error(err)
		} else {
			index = a.Index
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: other, Interface: index, Flags: link.XDPDriverMode})
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		for _, mode := range []Mode{Native, Generic} {
			_, err := p.Attach("in", mode)
			if !errors.Is(err, ErrOccupied) || !strings.Contains(err.Error(), "somebody_else") {
				t.Errorf("occupied: %v", err)
			}
		}
		if a, err := attachedTo(index); err != nil || a.ProgramID == 0 {
			t.Errorf("the other program was evicted: %+v %v", a, err)
		}
		if _, err := p.Attach("lo", Native); !errors.Is(err, ErrMode) {
			t.Errorf("native on lo: %v", err)
		}
		if _, err := p.Attach("lo", Offload); !errors.Is(err, ErrHardware) {
			t.Errorf("hw: %v", err)
		}
		if _, err := p.Attach("nothing0", Native); !errors.Is(err, ErrNoInterface) {
			t.Errorf("missing interface: %v", err)
		}
		var e *Error
		if _, err := p.Attach("lo", Native); !errors.As(err, &e) || e.Hint == "" {
			t.Errorf("no hint: %v", err)
		}
	})
}

func TestPinnedOutlivesProcess(t *testing.T) {
	server, client := newNamespace(t), newNamespace(t)
	pair(t, server, client)
	dir := pinDir(t)
	first, err := Open(Options{PinDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, first, denyAll())
	server.do(t, func() {
		if _, err := first.Attach("in", Native); err != nil {
			t.Error(err)
		}
	})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if out := server.ip(t, "link show in"); !strings.Contains(out, "xdp") {
		t.Fatalf("the program went with its agent: %s", out)
	}
	second := open(t, Options{PinDir: dir})
	if s := stats(t, second); s.Passed() != 0 && s.Dropped() == 0 {
		t.Errorf("statistics were not kept: %+v", s)
	}
	apply(t, second, denyAll())
	server.do(t, func() {
		a, err := second.Attach("in", Native)
		if err != nil || a.Mode != Native {
			t.Errorf("take over: %+v %v", a, err)
		}
	})
	// Another size of a state map: the rest is kept, and the interface made anew under its name is taken.
	server.ip(t, "link del in")
	pair(t, server, client)
	third := open(t, Options{PinDir: dir, Sources: 1 << 16})
	apply(t, third, denyAll())
	server.do(t, func() {
		if a, err := third.Attach("in", Native); err != nil || a.ProgramID == 0 {
			t.Errorf("interface made anew: %+v %v", a, err)
		}
	})
}

func TestPinDirElsewhere(t *testing.T) {
	_, err := Open(Options{PinDir: t.TempDir()})
	if !errors.Is(err, ErrNoBPFFS) {
		t.Errorf("pinning outside of a BPF file system: %v", err)
	}
}

func attachedByName(name string) (Attached, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return Attached{}, err
	}
	return attachedTo(iface.Index)
}
