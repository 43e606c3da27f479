/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* SYN cookies for a listener of this host, without netfilter. bpf_tcp_gen_syncookie declines as long as the
 * listener's queue has room (net.ipv4.tcp_syncookies=1), so this costs nothing but a lookup in peace and takes over
 * in a flood; with =2 it always answers. It also stamps the listener as overflowed, without which the kernel would
 * reset the connection when the ACK with the cookie arrives. The answer carries no timestamp (the kernel's offset
 * of it is secret), so connections made this way have neither window scaling nor SACK. */
#pragma once
#include "maps.h"

struct synack {
	struct tcphdr tcp;
	__u8 mss[4];
};

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __u64 sum16(const void *p, int bytes)
{
	const __u16 *w = p;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < bytes / 2; i++)
		sum += w[i];
	return sum;
}

static __always_inline __u64 sum32(const __u32 *w, int words)
{
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < words; i++)
		sum += w[i];
	return sum;
}

/* Turns the SYN at l3 (no IP options) into a SYN-ACK to send back; false: leave it to the stack. */
__noinline int answer(struct xdp_md *ctx, __u32 l3, __u32 v6)
{
	struct {
		union {
			struct iphdr v4;
			struct ipv6hdr v6;
		} ip;
		union {
			struct tcphdr tcp;
			__u8 bytes[60];
		};
	} in = {};
	struct bpf_sock_tuple tuple = {};
	struct synack out = {};
	struct bpf_sock *sk;
	__u32 ip_len = v6 ? sizeof(in.ip.v6) : sizeof(in.ip.v4), tcp_len;
	__u8 mac[6];
	__u64 sum;
	__s64 cookie = -1;
	void *data, *end;
	struct ethhdr *eth;

	l3 &= 31;
	if (v6 ? bpf_xdp_load_bytes(ctx, l3, &in.ip, sizeof(in.ip.v6)) : bpf_xdp_load_bytes(ctx, l3, &in.ip, sizeof(in.ip.v4)))
		return false;
	if (bpf_xdp_load_bytes(ctx, l3 + ip_len, &in.tcp, sizeof(in.tcp)))
		return false;
	tcp_len = in.tcp.doff * 4;
	if (tcp_len < sizeof(in.tcp))
		return false;
	if (tcp_len > sizeof(in.tcp) &&
	    bpf_xdp_load_bytes(ctx, l3 + ip_len + sizeof(in.tcp), in.bytes + sizeof(in.tcp), tcp_len - sizeof(in.tcp)))
		return false;

	if (v6) {
		__builtin_memcpy(tuple.ipv6.saddr, in.ip.v6.saddr, 32);
		tuple.ipv6.sport = in.tcp.source;
		tuple.ipv6.dport = in.tcp.dest;
		sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(&tuple.ipv4.saddr, &in.ip.v4.saddr, 8);
		tuple.ipv4.sport = in.tcp.source;
		tuple.ipv4.dport = in.tcp.dest;
		sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return false;
	if (sk->state == TCP_LISTEN)
		cookie = bpf_tcp_gen_syncookie(sk, &in.ip, sizeof(in.ip), &in.tcp, tcp_len);
	bpf_sk_release(sk);
	if (cookie < 0)
		return false;

	if (bpf_xdp_adjust_tail(ctx, (int)(l3 + ip_len + sizeof(out)) - (int)bpf_xdp_get_buff_len(ctx)))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	if ((void *)(eth + 1) > end)
		return false;
	__builtin_memcpy(mac, eth->dest, 6);
	__builtin_memcpy(eth->dest, eth->source, 6);
	__builtin_memcpy(eth->source, mac, 6);

	out.tcp.source = in.tcp.dest;
	out.tcp.dest = in.tcp.source;
	out.tcp.seq = bpf_htonl((__u32)cookie);
	out.tcp.ack_seq = bpf_htonl(bpf_ntohl(in.tcp.seq) + 1);
	out.tcp.doff = sizeof(out) / 4;
	out.tcp.flags = TCP_SYN | TCP_ACK;
	out.tcp.window = 0xffff;
	out.mss[0] = 2;
	out.mss[1] = 4;
	out.mss[2] = cookie >> 40;
	out.mss[3] = cookie >> 32;
	sum = sum16(&out, sizeof(out)) + bpf_htons(IPPROTO_TCP) + bpf_htons(sizeof(out));
	if (v6) {
		sum += sum32(in.ip.v6.saddr, 8);
		out.tcp.check = fold(sum);
		in.ip.v6.payload_len = bpf_htons(sizeof(out));
		in.ip.v6.hop_limit = 64;
		__builtin_memcpy(in.ip.v6.saddr, tuple.ipv6.daddr, 16);
		__builtin_memcpy(in.ip.v6.daddr, tuple.ipv6.saddr, 16);
		if (bpf_xdp_store_bytes(ctx, l3, &in.ip, sizeof(in.ip.v6)))
			return false;
	} else {
		sum += sum32(&in.ip.v4.saddr, 2);
		out.tcp.check = fold(sum);
		in.ip.v4.tot_len = bpf_htons(sizeof(in.ip.v4) + sizeof(out));
		in.ip.v4.id = 0;
		in.ip.v4.frag_off = bpf_htons(IP_DF);
		in.ip.v4.ttl = 64;
		in.ip.v4.saddr = tuple.ipv4.daddr;
		in.ip.v4.daddr = tuple.ipv4.saddr;
		in.ip.v4.check = 0;
		in.ip.v4.check = fold(sum16(&in.ip.v4, sizeof(in.ip.v4)));
		if (bpf_xdp_store_bytes(ctx, l3, &in.ip, sizeof(in.ip.v4)))
			return false;
	}
	return !bpf_xdp_store_bytes(ctx, l3 + ip_len, &out, sizeof(out));
}
