/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* From a frame to a source and a transport header. Everything is read from the linear part of the frame; a
 * transport header that a driver left outside of it is not examined, and does not count against it. */
#pragma once
#include "maps.h"

#define MAX_EXTENSIONS 8

struct packet {
	void *end;       /* of the linear part */
	void *l4;        /* transport header, or null: a later fragment, or not readable */
	__u32 l4_len;    /* from l4 to the end of the IP packet */
	__u32 l3_off;    /* from the start of the frame */
	__u32 bytes;     /* of the IP packet */
	__u32 bad;       /* reason to drop that F_MALFORMED switches on, or 0 */
	__u8 protocol;   /* of l4 */
	bool fragment;   /* first or later */
	bool tiny;       /* a fragment that could hide a TCP header */
	bool plain;      /* no options, no extension headers */
	bool own;        /* source address is destination address */
	bool v6;
};

/* Bytes of the frame from p on, where the linear part is too short to know. */
static __always_inline __u32 frame_left(struct xdp_md *ctx, void *p, void *end, __u32 want)
{
	__u32 left = distance(p, end);

	if (unlikely(left < want))
		left = bpf_xdp_get_buff_len(ctx) - distance((void *)(long)ctx->data, p);
	return left;
}

static __always_inline void parse_ipv4(struct xdp_md *ctx, struct iphdr *ip, struct packet *p)
{
	__u32 head = ip->ihl * 4, frag = bpf_ntohs(ip->frag_off);

	p->bytes = bpf_ntohs(ip->tot_len);
	if (unlikely(ip->version != 4 || head < sizeof(*ip) || p->bytes < head ||
		     frame_left(ctx, ip, p->end, p->bytes) < p->bytes)) {
		p->bad = S_BAD_IP;
		return;
	}
	p->plain = head == sizeof(*ip);
	p->own = ip->saddr == ip->daddr;
	p->protocol = ip->protocol;
	p->l4_len = p->bytes - head;
	p->fragment = frag & (IP_MF | IP_OFFSET);
	if (frag & IP_OFFSET) {
		p->tiny = (frag & IP_OFFSET) == 1 && ip->protocol == IPPROTO_TCP;
		return;
	}
	p->l4 = (void *)ip + head;
}

/* Bits of what extensions() returns, above the offset of the transport header from the IPv6 header. */
#define X_PROTOCOL_SHIFT 16
#define X_FRAGMENT (1 << 24)
#define X_LATER (1 << 25) /* fragment without a transport header */
#define X_TINY (1 << 26)
#define X_BAD (1 << 27)

static __always_inline bool is_extension(__u8 header)
{
	if (likely(header == IPPROTO_TCP || header == IPPROTO_UDP))
		return false;
	switch (header) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
	case IPPROTO_HIP:
	case IPPROTO_SHIM6:
		return true;
	}
	return false;
}

/* Walks the extension headers of the IPv6 packet at l3. A global function: the verifier looks at it once, and not
 * at all that follows once a header. */
__noinline __u32 extensions(struct xdp_md *ctx, __u32 l3, __u32 payload)
{
	void *end = (void *)(long)ctx->data_end, *pos = (void *)(long)ctx->data + (l3 & 31);
	struct ipv6hdr *ip = pos;
	__u32 out = 0, off = sizeof(*ip), len;
	__u8 next, *h;

	if ((void *)(ip + 1) > end)
		return X_BAD;
	next = ip->nexthdr;
	payload &= 0x1ffff;
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		h = pos + (off & 0xfff);
		asm volatile("" : "+r"(h));
		if (payload < 8 || (void *)(h + 8) > end)
			return X_BAD;
		len = 8;
		if (next == IPPROTO_FRAGMENT) {
			__u32 offset = (h[2] << 8 | h[3]) & 0xfff8;

			out |= X_FRAGMENT;
			if (offset)
				return out | X_LATER | (offset == 8 && h[0] == IPPROTO_TCP ? X_TINY : 0);
		} else if (next == IPPROTO_AH) {
			len = (h[1] + 2) * 4;
		} else {
			len = (h[1] + 1) * 8;
		}
		if (len > payload)
			return X_BAD;
		next = h[0];
		payload -= len;
		off += len;
		if (off > 0xfff - 8)
			return X_BAD;
		if (!is_extension(next))
			return out | next << X_PROTOCOL_SHIFT | off;
	}
	return X_BAD;
}

static __always_inline void parse_ipv6(struct xdp_md *ctx, struct ipv6hdr *ip, struct packet *p)
{
	__u32 payload = bpf_ntohs(ip->payload_len), left, x, off;
	void *pos = ip + 1;

	left = frame_left(ctx, pos, p->end, payload);
	if (!payload) /* a jumbogram, as the stack makes them for large GSO packets: the frame tells */
		payload = left;
	p->bytes = sizeof(*ip) + payload;
	if (unlikely(ip->version != 6 || left < payload)) {
		p->bad = S_BAD_IP;
		return;
	}
	p->own = ip->saddr[0] == ip->daddr[0] && ip->saddr[1] == ip->daddr[1] && ip->saddr[2] == ip->daddr[2] &&
		 ip->saddr[3] == ip->daddr[3];
	p->l4 = pos;
	p->l4_len = payload;
	p->protocol = ip->nexthdr;
	p->plain = !is_extension(ip->nexthdr);
	if (likely(p->plain))
		return;
	x = extensions(ctx, p->l3_off, payload);
	off = x & 0xfff;
	p->bad = x & X_BAD ? S_BAD_IP : 0;
	p->fragment = x & X_FRAGMENT;
	p->tiny = x & X_TINY;
	p->protocol = x >> X_PROTOCOL_SHIFT;
	p->l4_len = payload + sizeof(*ip) - off;
	p->l4 = x & (X_BAD | X_LATER) ? 0 : (void *)ip + off;
}
