/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* For tests alone, never loaded in production: one BPF_PROG_TEST_RUN costs 16 ms of waiting whatever its repeat,
 * so this feeds the real program one prepared packet a repetition. */
#pragma once
#include "maps.h"

#define CASE_BYTES 512
struct test_case {
	__u64 now;
	__u32 len;
	__u32 verdict; /* out */
	__u8 frame[CASE_BYTES];
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct test_case);
} test_case_map SEC(".maps");

int marchproxy_xdp(struct xdp_md *ctx);

SEC("xdp.frags")
int test_batch(struct xdp_md *ctx)
{
	__u32 zero = 0, i, len;
	struct control *ctl = bpf_map_lookup_elem(&control_map, &zero);
	struct test_case *c;

	if (!ctl)
		return XDP_ABORTED;
	i = ctl->test_case++;
	c = bpf_map_lookup_elem(&test_case_map, &i);
	if (!c)
		return XDP_ABORTED;
	len = c->len;
	if (len < 14 || len > CASE_BYTES)
		return XDP_ABORTED;
	if (bpf_xdp_adjust_tail(ctx, (int)len - (int)bpf_xdp_get_buff_len(ctx)))
		return XDP_ABORTED;
	if (bpf_xdp_store_bytes(ctx, 0, c->frame, len))
		return XDP_ABORTED;
	ctl->test_now = c->now;
	c->verdict = marchproxy_xdp(ctx);
	return c->verdict;
}

/* A flood: a random source address in 10/8 under the mask in test_now, then the real program. */
SEC("xdp.frags")
int test_flood(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0;
	struct control *ctl = bpf_map_lookup_elem(&control_map, &zero);
	struct iphdr *ip = data + sizeof(struct ethhdr);

	if (!ctl || (void *)(ip + 1) > end)
		return XDP_ABORTED;
	ip->saddr = bpf_htonl(0x0a000000 | (bpf_get_prandom_u32() & (__u32)ctl->test_now));
	return marchproxy_xdp(ctx);
}

/* The least that a program can do, with and without the flood's random address. */
SEC("xdp.frags")
int test_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp.frags")
int test_flood_drop(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0;
	struct control *ctl = bpf_map_lookup_elem(&control_map, &zero);
	struct iphdr *ip = data + sizeof(struct ethhdr);

	if (!ctl || (void *)(ip + 1) > end)
		return XDP_ABORTED;
	ip->saddr = bpf_htonl(0x0a000000 | (bpf_get_prandom_u32() & (__u32)ctl->test_now));
	return test_drop(ctx);
}

/* The least that a limit by source can be: a look at the address, a clock, one word moved by compare and swap, two
 * counts. It limits nothing well; it calls what the kernel makes dear on some processors (guards of returns and of
 * indirect calls), so that what the real program costs more is its own. */
SEC("xdp.frags")
int test_simple(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	__u32 zero = 0, at, bytes;
	struct policy_stat *stat;
	struct line *line;
	__u64 now, seen, tat;

	if ((void *)(ip + 1) > end || eth->proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	bytes = distance(ip, end);
	now = bpf_jiffies64() * tick_ns;
	at = mix(ip->saddr) & sketch_mask;
	line = bpf_map_lookup_elem(&sketch_map, &at);
	stat = bpf_map_lookup_elem(&policy_stats_map, &zero);
	if (!line || !stat)
		return XDP_ABORTED;
	seen = READ_ONCE(line->tat[0]);
	tat = (seen > now ? seen : now) + 1;
	__sync_val_compare_and_swap(&line->tat[0], seen, tat);
	stat->under++;
	count(S_UNDER_LIMIT, bytes);
	return XDP_PASS;
}
