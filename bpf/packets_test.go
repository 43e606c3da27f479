package bpf

import (
	"encoding/binary"
	"net/netip"
)

// packet describes a frame; bytes() builds it with right lengths, which the tests then break.
type packet struct {
	src, dst   string
	vlans      []uint16 // EtherTypes of tags, outermost first
	options    int      // bytes of IPv4 options
	extensions []byte   // kinds of IPv6 extension headers, 8 bytes each (fragment: see frag)
	frag       uint16   // IPv4 flags and offset, or IPv6 offset and M flag
	proto      byte
	sport      uint16
	dport      uint16
	flags      byte
	tcpOptions []byte
	payload    []byte
	pad        int // frame padded to at least this
}

const (
	fin, syn, rst, psh, ack, urg = 1, 2, 4, 8, 16, 32
	tcp, udp                     = 6, 17
)

func (p packet) bytes() []byte {
	be := binary.BigEndian
	var l4 []byte
	switch p.proto {
	case tcp:
		l4 = make([]byte, 20, 60)
		be.PutUint16(l4, p.sport)
		be.PutUint16(l4[2:], p.dport)
		be.PutUint32(l4[4:], 1)
		l4[12] = byte(20+len(p.tcpOptions)) / 4 << 4
		l4[13] = p.flags
		be.PutUint16(l4[14:], 65535)
		l4 = append(l4, p.tcpOptions...)
	case udp:
		l4 = make([]byte, 8)
		be.PutUint16(l4, p.sport)
		be.PutUint16(l4[2:], p.dport)
		be.PutUint16(l4[4:], uint16(8+len(p.payload)))
	}
	l4 = append(l4, p.payload...)

	src, dst := netip.MustParseAddr(p.src), netip.MustParseAddr(p.dst)
	frame := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	for _, tag := range p.vlans {
		frame = be.AppendUint16(frame, tag)
		frame = be.AppendUint16(frame, 100)
	}
	if src.Is4() {
		frame = append(frame, 8, 0)
		ip := make([]byte, 20+p.options)
		ip[0] = 0x40 | byte(5+p.options/4)
		be.PutUint16(ip[2:], uint16(len(ip)+len(l4)))
		be.PutUint16(ip[6:], p.frag)
		ip[8], ip[9] = 64, p.proto
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
		for i := 20; i < len(ip); i++ {
			ip[i] = 1 // no-operation
		}
		var sum uint32
		for i := 0; i < len(ip); i += 2 {
			sum += uint32(be.Uint16(ip[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		be.PutUint16(ip[10:], ^uint16(sum))
		frame = append(frame, ip...)
	} else {
		frame = append(frame, 0x86, 0xdd)
		ip := make([]byte, 40)
		ip[0] = 0x60
		ip[6], ip[7] = p.proto, 64
		copy(ip[8:], src.AsSlice())
		copy(ip[24:], dst.AsSlice())
		var ext []byte
		for i := len(p.extensions) - 1; i >= 0; i-- {
			h := make([]byte, 8)
			h[0] = ip[6]
			if p.extensions[i] == 44 {
				be.PutUint16(h[2:], p.frag)
			}
			ip[6] = p.extensions[i]
			ext = append(h, ext...)
		}
		be.PutUint16(ip[4:], uint16(len(ext)+len(l4)))
		frame = append(append(frame, ip...), ext...)
	}
	frame = append(frame, l4...)
	for len(frame) < p.pad {
		frame = append(frame, 0)
	}
	return frame
}

// l3 is where the IP header begins.
func (p packet) l3() int { return 14 + 4*len(p.vlans) }

// defaultFilters drop what no honest packet looks like, and no port.
func defaultFilters() Filters {
	return Filters{Malformed: true, TCPFlags: true, Land: true, TinyFragment: true}
}

// knownAmplificationPorts are the UDP services most used for amplification: echo protocols, chargen, DNS, NTP,
// NetBIOS, SNMP, CLDAP, SSDP, WS-Discovery, memcached and the like (CISA alert TA14-017A).
func knownAmplificationPorts() []uint16 {
	return []uint16{7, 13, 17, 19, 53, 69, 111, 123, 137, 161, 389, 520, 1900, 3702, 5353, 10001, 11211}
}
