/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* MarchProxy's XDP program: lists, filters, per-source limits, SYN cookies and protocol counts. */
#include "kernel.h"
#include "maps.h"
#include "parse.h"
#include "prefix.h"
#include "filter.h"
#include "limit.h"
#include "cookie.h"
#include "detect.h"

static __always_inline int drop(__u32 reason, __u32 bytes)
{
	count(reason, bytes);
	return XDP_DROP;
}

static __always_inline int pass(__u32 reason, __u32 bytes)
{
	count(reason, bytes);
	return XDP_PASS;
}

SEC("xdp.frags")
int marchproxy_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;
	struct packet p = { .end = (void *)(long)ctx->data_end };
	__u32 zero = 0, sequence, generation, flags, class = TRIE_NONE, id, reason;
	struct control *ctl = bpf_map_lookup_elem(&control_map, &zero);
	struct config *cfg;
	__be16 proto;
	__u64 key;
	void *pos = eth + 1;

	if (unlikely(!ctl || pos > p.end))
		return pass(S_ERROR, 0);
	sequence = READ_ONCE(ctl->sequence);
	generation = sequence & 1;
	cfg = bpf_map_lookup_elem(&config_map, &generation);
	if (unlikely(!cfg))
		return pass(S_ERROR, 0);
	flags = cfg->flags;

	proto = eth->proto;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		struct vlanhdr *tag = pos;

		if (likely(proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD)))
			break;
		pos = tag + 1;
		if (pos > p.end)
			return pass(S_NOT_IP, distance(data, p.end));
		proto = tag->proto;
	}
	p.l3_off = distance(data, pos);

	if (likely(proto == bpf_htons(ETH_P_IP))) {
		struct iphdr *ip = pos;

		p.bytes = distance(pos, p.end);
		if (unlikely((void *)(ip + 1) > p.end)) {
			if (flags & F_MALFORMED)
				return drop(S_BAD_IP, p.bytes);
			return pass(S_NO_POLICY, p.bytes);
		}
		key = (__u64)ip->saddr << 32;
		if (flags & F_PREFIXES4)
			class = find4(generation, bpf_ntohl(ip->saddr));
		parse_ipv4(ctx, ip, &p);
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = pos;

		p.v6 = true;
		p.bytes = distance(pos, p.end);
		if (unlikely((void *)(ip + 1) > p.end)) {
			if (flags & F_MALFORMED)
				return drop(S_BAD_IP, p.bytes);
			return pass(S_NO_POLICY, p.bytes);
		}
		key = (__u64)ip->saddr[1] << 32 | ip->saddr[0];
		key &= cfg->v6_mask;
		if (unlikely(!(__u32)key))
			key |= 0xffffffff;
		if (flags & F_PREFIXES6)
			class = find6(generation, (__u64)bpf_ntohl(ip->saddr[0]) << 32 | bpf_ntohl(ip->saddr[1]),
				      (__u64)bpf_ntohl(ip->saddr[2]) << 32 | bpf_ntohl(ip->saddr[3]));
		parse_ipv6(ctx, ip, &p);
	} else {
		return pass(S_NOT_IP, distance(data, p.end));
	}

	if (unlikely(class == TRIE_ALLOW))
		return pass(S_ALLOWED, p.bytes);
	if (unlikely(class == TRIE_DENY))
		return drop(S_DENIED, p.bytes);

	reason = filter(&p, flags, generation);
	if (unlikely(reason))
		return drop(reason, p.bytes);

	id = class == TRIE_NONE ? cfg->default_policy : class - TRIE_POLICY;
	reason = S_NO_POLICY;
	if (id != NO_POLICY) {
		switch (judge(sequence, id, key)) {
		case UNDER:
			reason = S_UNDER_LIMIT;
			break;
		case OVER:
			return drop(S_OVER_LIMIT, p.bytes);
		case OVER_PASS:
			reason = S_OVER_LIMIT_PASSED;
			break;
		default:
			return pass(S_ERROR, p.bytes);
		}
	}

	if (p.l4 && p.protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = p.l4;

		if ((void *)(tcp + 1) > p.end)
			return pass(reason, p.bytes);
		if ((tcp->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN) {
			if (flags & F_SYN_COOKIES && p.plain && !p.fragment && answer(ctx, p.l3_off, p.v6)) {
				count(S_SYN_COOKIE, p.bytes);
				return XDP_TX;
			}
		} else if (flags & F_DETECT && p.l4_len > tcp->doff * 4 && tcp->doff >= 5) {
			detect(ctx, distance(data, tcp) + tcp->doff * 4, p.l4_len - tcp->doff * 4);
		}
	}
	return pass(reason, p.bytes);
}

#include "batch.h"

char LICENSE[] SEC("license") = "GPL";
