// Package endpoint says which addresses a service may have.
//
// Envoy reaches more than its clients do: what listens on its own machine, and the metadata service of its cloud, which
// hands out credentials to whoever asks from that machine. Who may write services must not get there by naming such
// an address, in whatever form, nor a DNS name that has it. Whoever runs the api and the xDS server allows some of
// them with ALLOW_ENDPOINTS; nothing that is written through the API does.
package endpoint

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/process"
)

// Setting is the environment variable that allows addresses, in the api and in the xDS server.
const Setting = "ALLOW_ENDPOINTS"

// class is a kind of address that is refused unless it is allowed.
type class struct {
	name, words string
	prefixes    []netip.Prefix
}

// classes are looked at in this order: of 169.254.169.254 it matters that it is a metadata service.
var classes = []class{
	{"metadata", "the address of a cloud's metadata service", prefixes(
		"169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "fd00:ec2::/32", // AWS: instances, ECS, EKS
		"fd20:ce::254/128",   // Google Cloud
		"168.63.129.16/32",   // Azure
		"100.100.100.200/32", // Alibaba Cloud
		"192.0.0.192/32",     // Oracle Cloud
	)},
	{"loopback", "a loopback address", prefixes("127.0.0.0/8", "::1/128")},
	// Linux takes a connection to them for one to itself.
	{"unspecified", "an unspecified address", prefixes("0.0.0.0/8", "::/128")},
	{"link-local", "a link-local address", prefixes("169.254.0.0/16", "fe80::/10")},
	{"multicast", "a multicast or broadcast address", prefixes("224.0.0.0/4", "255.255.255.255/32", "ff00::/8")},
}

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		out[i] = netip.MustParsePrefix(t)
	}
	return out
}

// Allowed is what [Setting] allows; the zero value allows nothing that is refused otherwise.
type Allowed struct {
	classes  []string
	prefixes []netip.Prefix
}

// Read reads [Setting].
func Read(e *process.Env) Allowed {
	a, err := Parse(e.String("ALLOW_ENDPOINTS", ""))
	if err != nil {
		e.Fail(Setting, "%v", err)
	}
	return a
}

// Parse reads a list with commas of classes (loopback, link-local, metadata, unspecified, multicast), addresses and
// prefixes.
func Parse(list string) (Allowed, error) {
	var out Allowed
	for text := range strings.SplitSeq(list, ",") {
		text = strings.TrimSpace(text)
		switch p, err := prefix(text); {
		case text == "":
		case slices.ContainsFunc(classes, func(c class) bool { return c.name == text }):
			out.classes = append(out.classes, text)
		case err != nil:
			return Allowed{}, fmt.Errorf("has %q; give loopback, link-local, metadata, unspecified, multicast, addresses or "+
				"prefixes, with commas: loopback,169.254.10.0/24", text)
		default:
			out.prefixes = append(out.prefixes, p)
		}
	}
	return out, nil
}

func prefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// Refusal says why an address may not be an endpoint, and what would allow it; "" where it may.
func (a Allowed) Refusal(addr netip.Addr) string {
	for i, form := range forms(addr) {
		c := a.refusing(form)
		if c == nil {
			continue
		}
		what := c.words
		if i > 0 {
			what = fmt.Sprintf("another form of %s, %s", form, c.words)
		}
		return fmt.Sprintf("is %s and refused; whoever runs the api and the xDS server can allow it with %s=%s", what,
			Setting, c.name)
	}
	return ""
}

// HostRefusal is [Allowed.Refusal] of an endpoint's host where that can be told without asking DNS: addresses, and
// localhost, which is loopback whatever DNS says (RFC 6761, 6.3).
func (a Allowed) HostRefusal(host string) string {
	if addr, err := netip.ParseAddr(host); err == nil {
		return a.Refusal(addr)
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return a.Refusal(netip.IPv6Loopback())
	}
	return ""
}

// refusing is the class for which an address is refused; nil where it is not.
func (a Allowed) refusing(addr netip.Addr) *class {
	in := func(p netip.Prefix) bool { return p.Contains(addr) }
	for i := range classes {
		c := &classes[i]
		if !slices.ContainsFunc(c.prefixes, in) {
			continue
		}
		if slices.Contains(a.classes, c.name) || slices.ContainsFunc(a.prefixes, in) {
			return nil
		}
		return c
	}
	return nil
}

var (
	compatible = netip.MustParsePrefix("::/96")
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	teredo     = netip.MustParsePrefix("2001::/32")
)

// forms are an address, without its zone and unmapped (::ffff:127.0.0.1), and the IPv4 addresses that gateways on the
// way would make of it.
func forms(addr netip.Addr) []netip.Addr {
	addr = addr.WithZone("").Unmap()
	out := []netip.Addr{addr}
	if addr.Is4() {
		return out
	}
	b := addr.As16()
	four := func(i int) { out = append(out, netip.AddrFrom4([4]byte(b[i:i+4]))) }
	perhaps := func(a [4]byte) { // bytes that may be an address, or padding
		if a[0] != 0 && a[0] < 224 {
			out = append(out, netip.AddrFrom4(a))
		}
	}
	switch {
	case compatible.Contains(addr): // RFC 4291, 2.5.5.1
		if n := binary.BigEndian.Uint32(b[12:]); n > 1 { // :: and ::1 are addresses of their own
			four(12)
		}
	case nat64.Contains(addr): // RFC 6052
		four(12)
	case nat64Local.Contains(addr): // RFC 8215: a network's own prefix in it may be of 48, 56, 64 or 96 bits
		for _, at := range [][4]int{{6, 7, 9, 10}, {7, 9, 10, 11}, {9, 10, 11, 12}, {12, 13, 14, 15}} {
			perhaps([4]byte{b[at[0]], b[at[1]], b[at[2]], b[at[3]]})
		}
	case sixToFour.Contains(addr): // RFC 3056
		four(2)
	case teredo.Contains(addr): // RFC 4380: the server, and the client with each bit turned around
		four(4)
		perhaps([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	}
	// RFC 5214: ISATAP's interface identifier, under any prefix.
	if b[10] == 0x5e && b[11] == 0xfe && b[9] == 0 && b[8]&^2 == 0 {
		four(12)
	}
	return out
}
