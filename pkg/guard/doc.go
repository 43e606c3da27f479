// Package guard bounds what those cost a server who have not shown yet who they are: how many connections they hold
// ([Listener]), how often they guess ([Attempts]), and how many are answered at a time ([AtATime]).
//
// The first two count by address, and neither locks out who has shown a secret that is right: a flood from an address
// that others share, behind one translation of addresses or on one machine, costs the others nothing.
package guard

import (
	"net"
	"net/netip"
)

// Source is who a remote address (host:port) counts for: an address, or the network of IPv6 that one customer has.
func Source(remote string) netip.Addr {
	var addr netip.Addr
	if p, err := netip.ParseAddrPort(remote); err == nil {
		addr = p.Addr()
	} else if host, _, err := net.SplitHostPort(remote); err == nil {
		addr, _ = netip.ParseAddr(host) // the zero address is a source like another
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		p, err := addr.Prefix(64)
		if err == nil {
			return p.Addr()
		}
	}
	return addr
}
