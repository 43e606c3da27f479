package bpf

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// attachedTo asks the kernel (rtnetlink, IFLA_XDP) what runs on an interface; ProgramID is 0 where nothing does.
func attachedTo(ifindex int) (Attached, error) {
	dump, err := syscall.NetlinkRIB(syscall.RTM_GETLINK, syscall.AF_UNSPEC)
	if err != nil {
		return Attached{}, fmt.Errorf("list interfaces: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return Attached{}, fmt.Errorf("list interfaces: %w", err)
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Type != syscall.RTM_NEWLINK || int(binary.NativeEndian.Uint32(m.Data[4:])) != ifindex {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		if err != nil {
			return Attached{}, fmt.Errorf("list interfaces: %w", err)
		}
		a := Attached{Index: ifindex}
		for _, attr := range attrs {
			switch attr.Attr.Type &^ unix.NLA_F_NESTED {
			case unix.IFLA_IFNAME:
				a.Interface = unix.ByteSliceToString(attr.Value)
			case unix.IFLA_XDP:
				a.Mode, a.ProgramID = parseXDP(attr.Value)
			}
		}
		return a, nil
	}
	return Attached{}, ErrNoInterface
}

// parseXDP reads the nested attributes of IFLA_XDP.
func parseXDP(b []byte) (mode Mode, id uint32) {
	for len(b) >= 4 {
		n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if n < 4 || n > len(b) {
			return mode, id
		}
		switch v := b[4:n]; {
		case kind == unix.IFLA_XDP_ATTACHED && len(v) >= 1:
			switch v[0] {
			case 1: // XDP_ATTACHED_DRV
				mode = Native
			case 2: // XDP_ATTACHED_SKB
				mode = Generic
			case 3: // XDP_ATTACHED_HW
				mode = Offload
			case 4: // XDP_ATTACHED_MULTI
				mode = "several"
			}
		case kind >= unix.IFLA_XDP_PROG_ID && kind <= unix.IFLA_XDP_HW_PROG_ID && len(v) >= 4 && id == 0:
			id = binary.NativeEndian.Uint32(v)
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return mode, id
}
