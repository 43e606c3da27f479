package process

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// PeerUser is the user whose socket is the other end of a TCP connection within this machine, as the kernel has it. It
// is not ok where that end is no socket of this machine, or its connection is closed already.
func PeerUser(peer, own netip.AddrPort) (uid int, ok bool) {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		raw, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			f := strings.Fields(line) // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
			const established = "01"
			if len(f) < 10 || f[3] != established || !isAt(f[1], peer) || !isAt(f[2], own) {
				continue
			}
			uid, err := strconv.Atoi(f[7])
			return uid, err == nil
		}
	}
	return 0, false
}

// isAt compares an address of the kernel's table with one; a socket for IPv6 has those of IPv4 as mapped ones.
func isAt(entry string, a netip.AddrPort) bool {
	ip, port := a.Addr().Unmap(), fmt.Sprintf(":%04X", a.Port())
	return entry == words(ip.AsSlice())+port || ip.Is4() && entry == words(netip.AddrFrom16(ip.As16()).AsSlice())+port
}

// words are an address as the kernel prints it: words of 32 bits in the machine's own order.
func words(b []byte) string {
	var out strings.Builder
	for ; len(b) >= 4; b = b[4:] {
		fmt.Fprintf(&out, "%08X", binary.NativeEndian.Uint32(b))
	}
	return out.String()
}
