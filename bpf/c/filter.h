/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What no honest packet looks like, told from the packet alone. */
#pragma once
#include "parse.h"

/* The reason to drop under these flags, or 0. Clears l4 where the header cannot be used. */
static __always_inline __u32 filter(struct packet *p, __u32 flags, __u32 generation)
{
	__u32 bad = p->bad;

	if (unlikely(p->fragment)) {
		if (flags & F_FRAGMENTS)
			return S_FRAGMENT;
		if (p->l4 && p->protocol == IPPROTO_TCP && p->l4_len < sizeof(struct tcphdr))
			p->tiny = true;
		if (p->tiny && flags & F_TINY)
			return S_TINY_FRAGMENT;
	}
	if (!bad && p->l4 && p->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = p->l4;

		if (p->l4_len < sizeof(*tcp)) {
			bad = p->fragment ? 0 : S_BAD_TCP;
			p->l4 = 0;
		} else if ((void *)(tcp + 1) > p->end) {
			p->l4 = 0;
		} else if (tcp->doff < 5 || tcp->doff * 4 > p->l4_len) {
			bad = S_BAD_TCP;
		} else {
			__u8 f = tcp->flags & 0x3f;

			if (flags & F_TCP_FLAGS) {
				if (!f)
					return S_TCP_NULL;
				if ((f & (TCP_SYN | TCP_FIN)) == (TCP_SYN | TCP_FIN))
					return S_TCP_SYN_FIN;
				if ((f & (TCP_SYN | TCP_RST)) == (TCP_SYN | TCP_RST))
					return S_TCP_SYN_RST;
				if ((f & (TCP_FIN | TCP_PSH | TCP_URG | TCP_ACK)) == (TCP_FIN | TCP_PSH | TCP_URG))
					return S_TCP_XMAS;
			}
			if (p->own && flags & F_LAND && tcp->source == tcp->dest)
				return S_LAND;
		}
	} else if (!bad && p->l4 && p->protocol == IPPROTO_UDP) {
		struct udphdr *udp = p->l4;
		__u32 len;

		if (p->l4_len < sizeof(*udp)) {
			bad = p->fragment ? 0 : S_BAD_UDP;
		} else if ((void *)(udp + 1) <= p->end) {
			len = bpf_ntohs(udp->len);
			/* 0 is a jumbogram's; a first fragment is shorter than its datagram. */
			if ((len && len < sizeof(*udp)) || (len > p->l4_len && !p->fragment) || (!len && !p->v6))
				bad = S_BAD_UDP;
			if (flags & F_AMP) {
				__u32 port = bpf_ntohs(udp->source);
				__u32 word = generation * AMP_WORDS + (port >> 6);
				__u64 *bits = bpf_map_lookup_elem(&amp_port_map, &word);

				if (bits && *bits >> (port & 63) & 1)
					return S_AMPLIFICATION;
			}
			if (p->own && flags & F_LAND && udp->source == udp->dest)
				return S_LAND;
		}
	}
	if (unlikely(bad)) {
		p->l4 = 0;
		if (flags & F_MALFORMED)
			return bad;
	}
	return 0;
}
