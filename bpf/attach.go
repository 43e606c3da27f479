package bpf

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Mode is where in the receive path the program runs.
type Mode string

// The modes.
const (
	Native  Mode = "native" // in the driver, before the kernel makes a packet buffer
	Generic Mode = "skb"    // after it: every interface can, at the cost of most of the speed
	Offload Mode = "hw"     // in the network card
)

// Attached is what the kernel says about an interface, read back after the fact.
type Attached struct {
	Interface string
	Index     int
	Mode      Mode   // achieved, not asked for
	ProgramID uint32 // as in bpftool prog show id
}

// Attach puts the program on an interface, or in place of the one that an earlier life of the agent left there,
// without a packet in between that meets none (unless the mode changes, which the kernel cannot do in one step).
// It never evicts another program.
//
// Errors: [*Error] around [ErrNoInterface], [ErrOccupied], [ErrMode], [ErrHardware] or [ErrPermission].
func (p *Program) Attach(ifname string, mode Mode) (Attached, error) {
	fail := func(err error, hint string) (Attached, error) {
		return Attached{}, &Error{Op: "attach", On: ifname, Err: err, Hint: hint}
	}
	var flag link.XDPAttachFlags
	switch mode {
	case Native:
		flag = link.XDPDriverMode
	case Generic:
		flag = link.XDPGenericMode
	case Offload:
		return fail(fmt.Errorf("%w: cards that run BPF (nfp) have neither a clock nor LRU maps nor the kernel's sockets, "+
			"which limits and SYN cookies need", ErrHardware),
			"use native, or skb where the driver has no XDP")
	default:
		return fail(fmt.Errorf("mode %q is none of native, skb, hw", mode), "")
	}
	iface, err := net.InterfaceByName(ifname)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNoInterface, err), "ip link shows the interfaces of this network namespace")
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.inheritSources(); err != nil {
		return fail(err, "")
	}
	if l, ok, err := p.takeOver(iface, mode); err != nil {
		return fail(err, "")
	} else if ok {
		return p.attached(iface, l)
	}
	if other, err := attachedTo(iface.Index); err != nil {
		return fail(err, "")
	} else if other.ProgramID != 0 {
		return fail(fmt.Errorf("%w: %s", ErrOccupied, describe(other)), occupied(ifname, other))
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: p.prog, Interface: iface.Index, Flags: flag})
	switch {
	case err == nil:
	case errors.Is(err, unix.EBUSY):
		other, _ := attachedTo(iface.Index)
		return fail(fmt.Errorf("%w: %s", ErrOccupied, describe(other)), occupied(ifname, other))
	case errors.Is(err, unix.EPERM):
		return fail(fmt.Errorf("%w: %w", ErrPermission, err), permissionHint())
	case mode == Native:
		return fail(fmt.Errorf("%w: %w", ErrMode, err), "use skb, which every driver can; some drivers refuse native XDP "+
			"for a large MTU or with too many queues")
	default:
		return fail(fmt.Errorf("%w: %w", ErrMode, err), "")
	}
	if p.opts.PinDir != "" {
		if err := l.Pin(p.linkPath(ifname)); err != nil {
			return fail(errors.Join(err, l.Close()), "")
		}
	}
	return p.attached(iface, l)
}

func (p *Program) linkPath(ifname string) string {
	return filepath.Join(p.opts.PinDir, "link-"+ifname)
}

// takeOver updates the link of this or an earlier life, if there is one that is on the interface as it is now.
func (p *Program) takeOver(iface *net.Interface, mode Mode) (l link.Link, ok bool, err error) {
	l = p.links[iface.Name]
	if l == nil && p.opts.PinDir != "" {
		l, err = link.LoadPinnedLink(p.linkPath(iface.Name), nil)
		if errors.Is(err, os.ErrNotExist) {
			return nil, false, nil
		} else if err != nil {
			return nil, false, fmt.Errorf("open the pinned link: %w", err)
		}
	}
	if l == nil {
		return nil, false, nil
	}
	now, err := attachedTo(iface.Index)
	if err != nil {
		return nil, false, errors.Join(err, l.Close())
	}
	info, err := l.Info()
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("read the pinned link: %w", err), l.Close())
	}
	// The link of an interface that was deleted and made anew under the same name points nowhere.
	if x := info.XDP(); x != nil && int(x.Ifindex) == iface.Index && now.Mode == mode {
		if err := l.Update(p.prog); err == nil {
			return l, true, nil
		} else if !errors.Is(err, unix.ENOLINK) {
			return nil, false, errors.Join(fmt.Errorf("update the link: %w", err), l.Close())
		}
	}
	delete(p.links, iface.Name)
	return nil, false, drop(l, p.opts.PinDir != "")
}

func drop(l link.Link, pinned bool) error {
	var err error
	if pinned {
		if err = l.Unpin(); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(err, l.Close())
}

// attached keeps the link and reads back what the kernel made of it.
func (p *Program) attached(iface *net.Interface, l link.Link) (Attached, error) {
	p.links[iface.Name] = l
	a, err := attachedTo(iface.Index)
	if err != nil {
		return a, &Error{Op: "read back", On: iface.Name, Err: err}
	}
	info, err := p.prog.Info()
	if err != nil {
		return a, &Error{Op: "read back", On: iface.Name, Err: err}
	}
	if id, ok := info.ID(); !ok || uint32(id) != a.ProgramID {
		return a, &Error{Op: "read back", On: iface.Name, Err: fmt.Errorf("%w: %s", ErrOccupied, describe(a))}
	}
	return a, p.unpinOutdated()
}

// occupied is what an operator can do about another program. One of MarchProxy's own is what an agent with another
// XDP_PIN_DIR has left.
func occupied(ifname string, other Attached) string {
	for _, at := range bpfMounts() {
		for _, pattern := range []string{at + "/link-" + ifname, at + "/*/link-" + ifname} {
			found, err := filepath.Glob(pattern)
			if err != nil {
				continue
			}
			for _, path := range found {
				if leadsTo(path, other.ProgramID) {
					dir := filepath.Dir(path)
					return "an agent with XDP_PIN_DIR=" + dir + " has left it: set XDP_PIN_DIR to that, or rm -r " + dir
				}
			}
		}
	}
	return "detach it, or use another interface; MarchProxy does not evict programs"
}

// leadsTo says whether a pinned link is that of a program.
func leadsTo(path string, program uint32) bool {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return false
	}
	defer l.Close()
	info, err := l.Info()
	return err == nil && uint32(info.Program) == program
}

// describe names a program for an operator.
func describe(a Attached) string {
	if a.ProgramID == 0 {
		return "gone again"
	}
	s := fmt.Sprintf("id %d, %s mode", a.ProgramID, a.Mode)
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(a.ProgramID))
	if err != nil {
		return s
	}
	defer prog.Close()
	if info, err := prog.Info(); err == nil {
		s = fmt.Sprintf("%q, %s", info.Name, s)
	}
	return s
}
