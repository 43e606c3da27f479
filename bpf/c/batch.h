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
