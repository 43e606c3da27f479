package process

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// PeerUser is the user whose socket is the other end of a TCP connection within this machine, as the kernel has it. It
// is not ok where that end is no socket of this machine, or its connection is closed already.
//
// The kernel is asked for this one socket (sock_diag(7)). /proc/net/tcp would tell it too, but has a line for each
// connection: who opens thousands of them would have each request of theirs read megabytes, before anybody is known.
func PeerUser(peer, own netip.AddrPort) (uid int, ok bool) {
	peer, own = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()), netip.AddrPortFrom(own.Addr().Unmap(), own.Port())
	if peer.Addr().Is4() != own.Addr().Is4() {
		return 0, false
	}
	answer, err := diagnose(peer, own)
	if err != nil {
		return 0, false
	}
	const (
		established  = 1
		state        = 1  // in inet_diag_msg, in bytes
		user         = 64 // the same
		size         = 72
		portOfPeer   = 4
		portOfItself = 6
	)
	// Where there is no such connection the kernel finds who listens at the address.
	if len(answer) < size || answer[state] != established || binary.BigEndian.Uint16(answer[portOfPeer:]) != peer.Port() ||
		binary.BigEndian.Uint16(answer[portOfItself:]) != own.Port() {
		return 0, false
	}
	return int(binary.NativeEndian.Uint32(answer[user:])), true
}

// diagnose asks for the socket at one address that is connected to another: an inet_diag_msg.
func diagnose(at, to netip.AddrPort) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }() // it was only to ask
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return nil, err
	}
	family := byte(unix.AF_INET6)
	if at.Addr().Is4() {
		family = unix.AF_INET
	}
	const byFamily, body = 20, 56 // SOCK_DIAG_BY_FAMILY and the size of inet_diag_req_v2
	q := binary.NativeEndian.AppendUint32(nil, unix.SizeofNlMsghdr+body)
	q = binary.NativeEndian.AppendUint16(q, byFamily)
	q = binary.NativeEndian.AppendUint16(q, unix.NLM_F_REQUEST)
	q = append(q, make([]byte, 8)...) // its number, and from whom it is
	q = append(q, family, unix.IPPROTO_TCP, 0, 0)
	q = binary.NativeEndian.AppendUint32(q, ^uint32(0)) // in any state
	q = binary.BigEndian.AppendUint16(q, at.Port())
	q = binary.BigEndian.AppendUint16(q, to.Port())
	for _, a := range []netip.Addr{at.Addr(), to.Addr()} {
		b := make([]byte, 16)
		copy(b, a.AsSlice())
		q = append(q, b...)
	}
	q = binary.NativeEndian.AppendUint32(q, 0)          // at any interface
	q = binary.NativeEndian.AppendUint64(q, ^uint64(0)) // with any cookie
	if err := unix.Sendto(fd, q, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	answer := make([]byte, 4096)
	n, from, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return nil, err
	}
	if k, ok := from.(*unix.SockaddrNetlink); !ok || k.Pid != 0 || n < unix.SizeofNlMsghdr ||
		binary.NativeEndian.Uint16(answer[4:]) != byFamily {
		return nil, errors.New("the kernel has no such socket")
	}
	return answer[unix.SizeofNlMsghdr:n], nil
}
