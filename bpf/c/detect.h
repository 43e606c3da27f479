/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Counts what a request starts with. It looks at single packets, so it counts starts and not connections, may
 * be wrong in the middle of a stream, and therefore never decides anything. */
#pragma once
#include "maps.h"

#define SCAN_BYTES 1024    /* of a GET, for an Upgrade header */
#define TLS_EXTENSIONS 24
#define FURTHEST 4000      /* offset in the frame */

/* n readable bytes at off, or null. The barrier keeps the compiler from computing the address anew in another
 * register, which the verifier would not know to be checked. */
static __always_inline __u8 *at(struct xdp_md *ctx, __u32 off, __u32 n)
{
	__u8 *p;

	if (off > FURTHEST)
		return 0;
	p = (void *)(long)ctx->data + off;
	asm volatile("" : "+r"(p));
	if ((void *)(p + n) > (void *)(long)ctx->data_end)
		return 0;
	return p;
}

#define WORD(a, b, c, d) ((__u32)(a) | (b) << 8 | (c) << 16 | (__u32)(d) << 24)

static __always_inline bool is_method(__u32 w, __u32 next)
{
	switch (w) {
	case WORD('G', 'E', 'T', ' '):
	case WORD('P', 'U', 'T', ' '):
		return true;
	case WORD('P', 'O', 'S', 'T'):
	case WORD('H', 'E', 'A', 'D'):
		return (__u8)next == ' ';
	case WORD('P', 'A', 'T', 'C'):
	case WORD('T', 'R', 'A', 'C'):
		return (next & 0xffff) == (w == WORD('P', 'A', 'T', 'C') ? ('H' | ' ' << 8) : ('E' | ' ' << 8));
	case WORD('D', 'E', 'L', 'E'):
		return (next & 0xffffff) == ('T' | 'E' << 8 | ' ' << 16);
	case WORD('O', 'P', 'T', 'I'):
		return next == WORD('O', 'N', 'S', ' ');
	case WORD('C', 'O', 'N', 'N'):
		return next == WORD('E', 'C', 'T', ' ');
	}
	return false;
}

/* A header line that begins with "upgrade:" and names websocket. */
static __always_inline bool is_websocket(struct xdp_md *ctx, __u32 off)
{
	__u64 window = 0;

	for (__u32 i = 0; i < SCAN_BYTES; i++) {
		__u8 *p = at(ctx, off + i, 1);

		if (!p)
			return false;
		window = window << 8 | (*p | 0x20);
		if (window == 0x757067726164653aULL) { /* "upgrade:" */
			p = at(ctx, off + i + 1, 10);
			if (!p)
				return false;
			p += *p == ' ';
			return (p[0] | 0x20) == 'w' && (p[1] | 0x20) == 'e' && (p[2] | 0x20) == 'b' &&
			       (p[3] | 0x20) == 's' && (p[4] | 0x20) == 'o' && (p[5] | 0x20) == 'c' &&
			       (p[6] | 0x20) == 'k' && (p[7] | 0x20) == 'e' && (p[8] | 0x20) == 't';
		}
	}
	return false;
}

/* ALPN of a ClientHello, as far as it is in this packet. h2 alone is what gRPC clients offer and browsers do
 * not; h2 first and others after it is HTTP. */
static __always_inline void alpn(struct xdp_md *ctx, __u32 off, __u32 bytes)
{
	__u8 *p;

	off += 43; /* record, handshake, version, random */
	if (!(p = at(ctx, off, 1)))
		return;
	off += 1 + p[0]; /* session */
	if (!(p = at(ctx, off, 2)))
		return;
	off += 2 + ((p[0] << 8 | p[1]) & 0x7ff); /* cipher suites */
	if (!(p = at(ctx, off, 1)))
		return;
	off += 1 + p[0] + 2; /* compression; length of the extensions */
	for (int i = 0; i < TLS_EXTENSIONS; i++) {
		if (!(p = at(ctx, off, 10)))
			return;
		if (!p[0] && p[1] == 16) { /* type, length, length of the list, then length and name of the first */
			if (p[6] == 2 && p[7] == 'h' && p[8] == '2') {
				count(S_HTTPS_ALPN_H2, bytes);
				if (!p[4] && p[5] == 3)
					count(S_GRPC_MAYBE, bytes);
			} else if (p[6] == 8 && p[7] == 'h' && p[8] == 't' && p[9] == 't') {
				count(S_HTTPS_ALPN_H1, bytes);
			}
			return;
		}
		off += 4 + ((p[2] << 8 | p[3]) & 0xfff);
	}
}

__noinline int detect(struct xdp_md *ctx, __u32 off, __u32 bytes)
{
	__u8 *p = at(ctx, off, 8);
	__u32 w, next;

	if (!p)
		return 0;
	__builtin_memcpy(&w, p, 4);
	__builtin_memcpy(&next, p + 4, 4);
	if ((w & 0xffff) == (0x16 | 3 << 8)) { /* TLS handshake record; ClientHello */
		if (p[5] == 1) {
			count(S_HTTPS, bytes);
			alpn(ctx, off, bytes);
		}
	} else if (w == WORD('P', 'R', 'I', ' ') && next == WORD('*', ' ', 'H', 'T')) {
		/* Browsers speak HTTP/2 over TLS alone: in the clear it is often gRPC. */
		count(S_HTTP2, bytes);
		count(S_GRPC_MAYBE, bytes);
	} else if (is_method(w, next)) {
		count(S_HTTP1, bytes);
		if (w == WORD('G', 'E', 'T', ' ') && is_websocket(ctx, off + 4))
			count(S_WEBSOCKET, bytes);
	}
	return 0;
}
