package bpf

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

// vector is a frame and why it must pass or be dropped, written down by hand from the RFCs named.
type vector struct {
	name  string
	frame []byte
	want  Reason
}

// raw reads hexadecimal bytes, spaces between.
func raw(s string) []byte {
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		panic(err)
	}
	return b
}

// cut is the frame without what follows n bytes.
func (p packet) cut(n int) []byte { return p.bytes()[:n] }

// with is the frame with other bytes at an offset from the IP header.
func (p packet) with(offset int, bytes ...byte) []byte {
	b := p.bytes()
	copy(b[p.l3()+offset:], bytes)
	return b
}

// vectors are for a ruleset with all filters, without limits: what is sound is "no_policy".
func vectors() []vector {
	const sound Reason = "no_policy"
	t4 := packet{src: "192.0.2.1", dst: "192.0.2.2", proto: tcp, sport: 40000, dport: 80, flags: ack}
	t6 := packet{src: "2001:db8::1", dst: "2001:db8::2", proto: tcp, sport: 40000, dport: 80, flags: ack}
	u4 := packet{src: "192.0.2.1", dst: "192.0.2.2", proto: udp, sport: 40000, dport: 53, payload: []byte("query")}
	u6 := packet{src: "2001:db8::1", dst: "2001:db8::2", proto: udp, sport: 40000, dport: 53, payload: []byte("query")}
	flags := func(f byte) []byte { p := t4; p.flags = f; return p.bytes() }
	tagged := func(p packet, tags ...uint16) packet { p.vlans = tags; return p }
	extended := func(p packet, frag uint16, kinds ...byte) packet { p.extensions, p.frag = kinds, frag; return p }
	fragment := func(p packet, f uint16) packet { p.frag = f; return p }
	from := func(p packet, port uint16) packet { p.sport = port; return p }
	same := func(p packet) packet { p.dst, p.dport = p.src, p.sport; return p }
	options := t4
	options.options = 40
	tcpOptions := t4
	tcpOptions.tcpOptions = []byte{2, 4, 5, 180}
	icmp := packet{src: "192.0.2.1", dst: "192.0.2.2", proto: 1, payload: raw("08 00 f7 fd 00 01 00 01")}
	icmp6 := packet{src: "fe80::1", dst: "fe80::2", proto: 58, payload: raw("87 00 00 00 00 00 00 00")}

	return []vector{
		// Ethernet and IEEE 802.1Q
		{"ARP", raw("ff ff ff ff ff ff 02 00 00 00 00 02 08 06 00 01 08 00 06 04 00 01 02 00 00 00 00 02 c0 00 02 01 00 00 " +
			"00 00 00 00 c0 00 02 02"), "not_ip"},
		{"an EtherType nobody has", raw("02 00 00 00 00 01 02 00 00 00 00 02 88 b5 de ad be ef"), "not_ip"},
		{"an IEEE 802.3 length", raw("01 80 c2 00 00 00 02 00 00 00 00 02 00 26 42 42 03 00 00 00"), "not_ip"},
		{"nothing but Ethernet", raw("02 00 00 00 00 01 02 00 00 00 00 02 08 00"), "bad_ip"},
		{"one tag", tagged(t4, 0x8100).bytes(), sound},
		{"two tags", tagged(t4, 0x88a8, 0x8100).bytes(), sound},
		{"two tags, IPv6", tagged(t6, 0x88a8, 0x8100).bytes(), sound},
		{"two tags, SYN+FIN behind", tagged(packet{src: "192.0.2.1", dst: "192.0.2.2", proto: tcp, flags: syn | fin}, 0x88a8,
			0x8100).bytes(), "tcp_syn_fin"},
		{"three tags", tagged(t4, 0x88a8, 0x8100, 0x8100).bytes(), "not_ip"},
		{"a tag cut short", tagged(t4, 0x8100).cut(16), "not_ip"},
		{"a tag and no more", tagged(t4, 0x8100).cut(18), "bad_ip"},

		// IPv4, RFC 791
		{"raw SYN", raw("02 00 00 00 00 01 02 00 00 00 00 02 08 00 45 00 00 28 00 01 40 00 40 06 b6 cc c0 00 02 01 c0 00 " +
			"02 02 9c 40 00 50 00 00 00 01 00 00 00 00 50 02 ff ff 00 00 00 00"), sound},
		{"TCP", t4.bytes(), sound},
		{"TCP, frame padded to 60", packet{src: t4.src, dst: t4.dst, proto: tcp, flags: ack, pad: 60}.bytes(), sound},
		{"40 bytes of options", options.bytes(), sound},
		{
			"SYN+FIN behind options", packet{src: t4.src, dst: t4.dst, proto: tcp, flags: syn | fin, options: 40}.bytes(),
			"tcp_syn_fin",
		},
		{"header cut", t4.cut(14 + 19), "bad_ip"},
		{"header length 4 words", t4.with(0, 0x44), "bad_ip"},
		{"header beyond the packet", t4.with(2, 0, 19), "bad_ip"},
		{"longer than its frame", t4.with(2, 0, 41), "bad_ip"},
		{"version 5", t4.with(0, 0x55), "bad_ip"},
		{"ICMP echo", icmp.bytes(), sound},
		{"GRE", packet{src: t4.src, dst: t4.dst, proto: 47, payload: raw("00 00 08 00")}.bytes(), sound},

		// IPv6, RFC 8200
		{"raw SYN, IPv6", raw("02 00 00 00 00 01 02 00 00 00 00 02 86 dd 60 00 00 00 00 14 06 40 20 01 0d b8 00 00 00 00 " +
			"00 00 00 00 00 00 00 01 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 02 9c 40 00 50 00 00 00 01 00 00 00 00 50 " +
			"02 ff ff 00 00 00 00"), sound},
		{"TCP, IPv6", t6.bytes(), sound},
		{"neighbour solicitation", icmp6.bytes(), sound},
		{"no next header", packet{src: t6.src, dst: t6.dst, proto: 59}.bytes(), sound},
		{"header cut, IPv6", t6.cut(14 + 39), "bad_ip"},
		{"longer than its frame, IPv6", t6.with(4, 0, 21), "bad_ip"},
		{"version 4 in an IPv6 frame", t6.with(0, 0x40), "bad_ip"},
		{"hop-by-hop options", extended(t6, 0, 0).bytes(), sound},
		{"routing", extended(t6, 0, 43).bytes(), sound},
		{"destination options", extended(t6, 0, 60).bytes(), sound},
		{"mobility", extended(t6, 0, 135).bytes(), sound},
		{"host identity", extended(t6, 0, 139).bytes(), sound},
		{"shim6", extended(t6, 0, 140).bytes(), sound},
		// Its length counts words of 4, less 2: of 8 bytes, 0.
		{"authentication header", extended(t6, 0, 51).bytes(), sound},
		{"hop-by-hop, routing, fragment, destination", extended(t6, 0, 0, 43, 44, 60).bytes(), sound},
		{"eight extensions", extended(t6, 0, 0, 60, 60, 60, 60, 60, 60, 60).bytes(), sound},
		{"nine extensions", extended(t6, 0, 0, 60, 60, 60, 60, 60, 60, 60, 60).bytes(), "bad_ip"},
		{"an extension beyond the packet", extended(t6, 0, 60).with(41, 9), "bad_ip"},
		{"SYN+FIN behind extensions", extended(packet{src: t6.src, dst: t6.dst, proto: tcp, flags: syn | fin}, 0, 0, 60).
			bytes(), "tcp_syn_fin"},

		// fragments; RFC 1858, RFC 3128
		{"first fragment", fragment(u4, 0x2000).bytes(), sound},
		{"later fragment", fragment(u4, 0x2010).bytes(), sound},
		{"last fragment", fragment(u4, 0x0010).bytes(), sound},
		{"first fragment, IPv6", extended(u6, 1, 44).bytes(), sound},
		{"later fragment, IPv6", extended(u6, 16<<3|1, 44).bytes(), sound},
		{
			"first fragment with half a TCP header", packet{src: t4.src, dst: t4.dst, proto: tcp, frag: 0x2000}.with(2, 0, 28),
			"tiny_fragment",
		},
		{"TCP at offset 8", fragment(t4, 1).bytes(), "tiny_fragment"},
		{"TCP at offset 8, IPv6", extended(t6, 8, 44).bytes(), "tiny_fragment"},
		{"UDP at offset 8", fragment(u4, 1).bytes(), sound},
		{"do not fragment", fragment(t4, 0x4000).bytes(), sound},

		// TCP, RFC 9293
		{"with options", tcpOptions.bytes(), sound},
		{"header cut by the packet", t4.with(2, 0, 39), "bad_tcp"},
		{"data offset 4", t4.with(20+12, 4<<4), "bad_tcp"},
		{"data offset beyond the packet", t4.with(20+12, 6<<4), "bad_tcp"},
		{"SYN", flags(syn), sound},
		{"SYN+ACK", flags(syn | ack), sound},
		{"FIN+ACK", flags(fin | ack), sound},
		{"RST", flags(rst), sound},
		{"FIN+PSH+URG+ACK", flags(fin | psh | urg | ack), sound},
		{"SYN with ECE and CWR, RFC 3168", flags(syn | 0xc0), sound},
		{"null", flags(0), "tcp_null"},
		{"null but for ECE and CWR", flags(0xc0), "tcp_null"},
		{"SYN+FIN", flags(syn | fin), "tcp_syn_fin"},
		{"SYN+FIN+ACK", flags(syn | fin | ack), "tcp_syn_fin"},
		{"SYN+RST", flags(syn | rst), "tcp_syn_rst"},
		{"xmas", flags(fin | psh | urg), "tcp_xmas"},
		{"everything", flags(0x3f), "tcp_syn_fin"},
		{"land", same(t4).bytes(), "land"},
		{"land, IPv6", same(t6).bytes(), "land"},
		{"a host to itself on another port", packet{
			src: t4.src, dst: t4.src, proto: tcp, sport: 1, dport: 2,
			flags: ack,
		}.bytes(), sound},

		// UDP, RFC 768
		{"UDP", u4.bytes(), sound},
		{"UDP, IPv6", u6.bytes(), sound},
		{"header cut by the packet, UDP", u4.with(2, 0, 27), "bad_udp"},
		{"length below its header", u4.with(20+4, 0, 7), "bad_udp"},
		{"length beyond the packet", u4.with(20+4, 0, 14), "bad_udp"},
		{"length below the packet", u4.with(20+4, 0, 12), sound},
		{"length 0", u4.with(20+4, 0, 0), "bad_udp"},
		{"length 0, IPv6: a jumbogram's, RFC 2675", u6.with(40+4, 0, 0), sound},
		{"land, UDP", same(u4).bytes(), "land"},
		{"from a resolver", from(u4, 53).bytes(), "amplification"},
		{"from a time server, IPv6", from(u6, 123).bytes(), "amplification"},
		{"from memcached, first fragment", fragment(from(u4, 11211), 0x2000).bytes(), "amplification"},
		{"from the port after a forbidden one", from(u4, 54).bytes(), sound},
		{"TCP from port 53", from(t4, 53).bytes(), sound},

		// the lists: they come before what the packet looks like
		{
			"allowed, though SYN+FIN", packet{src: "198.51.100.7", dst: "192.0.2.2", proto: tcp, flags: syn | fin}.bytes(),
			"allowed",
		},
		{"denied", packet{src: "198.51.100.8", dst: "192.0.2.2", proto: tcp, flags: ack}.bytes(), "denied"},
		{
			"denied, IPv6, behind a tag", tagged(packet{src: "2001:db8:bad::1", dst: "2001:db8::2", proto: udp}, 0x8100).bytes(),
			"denied",
		},
		{"beside the denied", packet{src: "198.51.101.8", dst: "192.0.2.2", proto: tcp, flags: ack}.bytes(), sound},
	}
}

// TestVectors: frames of every shape, one by one, through the program as it is attached. Each counts once, under the
// reason that stands beside it.
func TestVectors(t *testing.T) {
	p := open(t, Options{})
	rules := Ruleset{
		Filters: defaultFilters(),
		Allow:   prefixes("198.51.100.7/32"), Deny: prefixes("198.51.100.0/24", "2001:db8:bad::/48"),
	}
	rules.Filters.AmplificationPorts = []uint16{53, 123, 11211}
	apply(t, p, rules)
	for _, v := range vectors() {
		if got := sole(t, p, v.frame); got != v.want {
			t.Errorf("%s: %q, want %q\n%x", v.name, got, v.want, v.frame)
		}
	}

	rules.Filters.Fragments = true
	apply(t, p, rules)
	u4 := packet{src: "192.0.2.1", dst: "192.0.2.2", proto: udp, frag: 0x2000}
	u6 := packet{src: "2001:db8::1", dst: "2001:db8::2", proto: udp, frag: 16 << 3, extensions: []byte{44}}
	for _, frame := range [][]byte{u4.bytes(), u6.bytes()} {
		if got := sole(t, p, frame); got != "fragment" {
			t.Errorf("all fragments forbidden: %q\n%x", got, frame)
		}
	}

	apply(t, p, Ruleset{})
	for _, v := range vectors() {
		if got := sole(t, p, v.frame); got != "no_policy" && got != "not_ip" {
			t.Errorf("no filter, no list, %s: %q", v.name, got)
		}
	}
}

// sole runs one frame and gives the one reason that counted it, whose verdict must be the program's.
func sole(t *testing.T, p *Program, frame []byte) (reason Reason) {
	t.Helper()
	before := stats(t, p)
	verdict, _, err := p.prog.Test(frame)
	if err != nil {
		t.Fatal(err)
	}
	after := stats(t, p)
	var n uint64
	for r, c := range after.Reasons {
		if d := c.Packets - before.Reasons[r].Packets; d > 0 {
			reason, n = r, n+d
		}
	}
	want := uint32(xdpPass)
	if reason.Drops() {
		want = xdpDrop
	}
	if n != 1 || verdict != want {
		t.Errorf("counted %d times, at last as %q, verdict %d\n%x", n, reason, verdict, frame)
	}
	return reason
}

// clientHello is one of TLS 1.2 or 1.3 (RFC 8446 §4.1.2) with these protocols in its ALPN extension (RFC 7301), none
// without.
func clientHello(protocols ...string) []byte {
	be := binary.BigEndian
	extensions := raw("00 00 00 0e 00 0c 00 00 09") // server_name
	extensions = append(extensions, "localhost"...)
	if len(protocols) > 0 {
		var list []byte
		for _, name := range protocols {
			list = append(append(list, byte(len(name))), name...)
		}
		extensions = append(extensions, 0, 16)
		extensions = be.AppendUint16(extensions, uint16(2+len(list)))
		extensions = be.AppendUint16(extensions, uint16(len(list)))
		extensions = append(extensions, list...)
	}
	extensions = append(extensions, raw("00 2b 00 03 02 03 04")...) // supported_versions
	body := append(raw("03 03"), make([]byte, 32)...)               // version, random
	body = append(append(body, 32), make([]byte, 32)...)            // session
	body = append(body, raw("00 04 13 01 13 02 01 00")...)          // cipher suites, compression
	body = be.AppendUint16(body, uint16(len(extensions)))
	body = append(body, extensions...)
	out := be.AppendUint16(raw("16 03 01"), uint16(4+len(body)))
	out = append(out, 1, 0)
	return append(be.AppendUint16(out, uint16(len(body))), body...)
}

// TestProtocols: what the first bytes of a connection are counted as, and that nothing of it is dropped.
func TestProtocols(t *testing.T) {
	p := open(t, Options{})
	apply(t, p, Ruleset{Filters: defaultFilters()})
	upgrade := "GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
	for _, c := range []struct {
		name string
		data []byte
		want string // protocols, spaces between, as in [Stats]
	}{
		{"GET", []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"), "http1"},
		{"HEAD", []byte("HEAD / HTTP/1.1\r\n"), "http1"},
		{"POST", []byte("POST / HTTP/1.1\r\n"), "http1"},
		{"PUT", []byte("PUT / HTTP/1.1\r\n"), "http1"},
		{"DELETE", []byte("DELETE / HTTP/1.1\r\n"), "http1"},
		{"CONNECT", []byte("CONNECT example.com:443 HTTP/1.1\r\n"), "http1"},
		{"OPTIONS", []byte("OPTIONS * HTTP/1.1\r\n"), "http1"},
		{"TRACE", []byte("TRACE / HTTP/1.1\r\n"), "http1"},
		{"PATCH", []byte("PATCH / HTTP/1.1\r\n"), "http1"},
		{"a method in lower case, RFC 9110 §9.1", []byte("get / HTTP/1.1\r\n"), ""},
		{"a word that begins like a method", []byte("POSTAL CODES"), ""},
		{"an answer", []byte("HTTP/1.1 200 OK\r\n"), ""},
		{"WebSocket, RFC 6455", []byte(upgrade), "http1 websocket"},
		{
			"WebSocket, other case", []byte(strings.Replace(upgrade, "Upgrade: websocket", "UPGRADE:WebSocket", 1)),
			"http1 websocket",
		},
		{"an upgrade to something else", []byte(strings.Replace(upgrade, "websocket", "h2c-or-other", 1)), "http1"},
		{"a POST with the header", []byte("POST" + upgrade[3:]), "http1"},
		{"TLS without ALPN", clientHello(), "https"},
		{"TLS, http/1.1", clientHello("http/1.1"), "https https_alpn_http1"},
		{"TLS, a browser: h2, http/1.1", clientHello("h2", "http/1.1"), "https https_alpn_h2"},
		{"TLS, gRPC's client: h2 alone", clientHello("h2"), "https https_alpn_h2 grpc_maybe"},
		{"TLS, another protocol", clientHello("imap4rev1"), "https"},
		{"TLS, cut in the session", clientHello("h2")[:60], "https"},
		{"TLS, not a ClientHello", raw("16 03 03 00 04 0e 00 00 00"), ""},
		{"TLS application data", raw("17 03 03 00 10 00 00 00 00 00 00 00 00"), ""},
		{"HTTP/2 preface, RFC 9113 §3.4", []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "http2 grpc_maybe"},
		{"seven bytes", []byte("GET / H"), ""},
		{"SSH", []byte("SSH-2.0-OpenSSH_9.2\r\n"), ""},
	} {
		for _, shape := range []packet{
			{src: "192.0.2.1", dst: "192.0.2.2"},
			{src: "2001:db8::1", dst: "2001:db8::2", extensions: []byte{60}},
			{
				src: "192.0.2.1", dst: "192.0.2.2", vlans: []uint16{0x88a8, 0x8100}, options: 4,
				tcpOptions: raw("01 01 08 0a 00 00 00 01 00 00 00 01"),
			},
		} {
			shape.proto, shape.flags, shape.sport, shape.dport, shape.payload = tcp, psh|ack, 40000, 10000, c.data
			before := stats(t, p)
			if got := sole(t, p, shape.bytes()); got != "no_policy" {
				t.Errorf("%s: %q, want it to pass", c.name, got)
			}
			after := stats(t, p)
			var got []string
			for _, name := range protocols {
				if after.Protocols[name].Packets > before.Protocols[name].Packets {
					got = append(got, string(name))
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s, from %s: counted as %q, want %q", c.name, shape.src, got, c.want)
			}
		}
	}
}
