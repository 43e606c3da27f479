/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What user space and the program share. The Go side mirrors these structs through bpf2go.
 *
 * Configuration has two generations. A packet reads control.sequence once and uses nothing but that
 * generation; user space fills the other one and then switches with one store. */
#pragma once
#include "kernel.h"

/* Fixed when the program is loaded; the verifier removes what they switch off. */
const volatile __u64 tick_ns = 4000000;        /* length of a jiffy */
const volatile __u64 initial_jiffies = 0;      /* jiffies64 at boot */
const volatile __u32 sketch_mask = 0x0fff;     /* lines of the sketch, less one */
const volatile __u32 insert_budget = 20000;    /* new entries of rate_limit_map a second and CPU */
const volatile __u64 seed = 0;                 /* of the sketch's hash: nobody outside can choose addresses that collide */
const volatile bool test_clock = false;        /* take the time from control.test_now */

#define MAX_POLICIES 16384

struct control {
	__u32 sequence;   /* of the ruleset; its lowest bit is the generation in force */
	__u32 test_case;  /* cursor of the test program */
	__u64 test_now;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} control_map SEC(".maps");

/* config.flags */
#define F_PREFIXES4 (1 << 0)   /* prefixes4 has entries: look there */
#define F_PREFIXES6 (1 << 1)
#define F_MALFORMED (1 << 2)   /* drop what cannot be parsed */
#define F_TCP_FLAGS (1 << 3)   /* drop impossible TCP flags */
#define F_LAND (1 << 4)        /* drop what has its destination for its source */
#define F_TINY (1 << 5)        /* drop fragments that hide the TCP header */
#define F_FRAGMENTS (1 << 6)   /* drop every fragment */
#define F_AMP (1 << 7)         /* drop UDP from the ports in amp_port_map */
#define F_SYN_COOKIES (1 << 8) /* answer SYNs for local listeners in a flood */
#define F_DETECT (1 << 9)      /* count protocols */

#define NO_POLICY 0xffffffff
struct config {
	__u32 flags;
	__u32 default_policy; /* or NO_POLICY */
	__u64 v6_mask;        /* network order: which bits of the first 8 bytes make a source */
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct config);
} config_map SEC(".maps");

#define P_PASS (1 << 0)   /* count what is over the limit, drop nothing */
#define P_COARSE (1 << 1) /* a jiffy is fine enough a clock */
struct policy {
	__u64 period; /* ns a packet */
	__u64 burst;  /* ns that a source may be ahead: (packets - 1) * period */
	__u64 near;   /* half of that: beyond it a source is followed exactly */
	__u32 id;
	__u32 flags;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * MAX_POLICIES);
	__type(key, __u32);
	__type(value, struct policy);
} policy_map SEC(".maps");

/* Longest prefix of the source → what to do with it. Allow list, deny list and policies are one trie: user space
 * resolves which wins, because a lookup costs more than all the rest.
 *
 * A trie is an array of nodes of 16 entries, a cache line each. The first 4,096 nodes are the root, for the first
 * 16 bits of an address; each further node takes 4 bits. An entry is another node or an answer. The kernel's own
 * LPM trie takes one bit a node: at 10,000 prefixes it cost 150 ns a lookup where this costs 15, and freeing it
 * is slow enough to stall a machine. */
#define TRIE_CHILD 0x80000000 /* the rest is the index of a node */
#define TRIE_NONE 0           /* the default policy */
#define TRIE_ALLOW 1
#define TRIE_DENY 2
#define TRIE_POLICY 3 /* and above: id + TRIE_POLICY */
struct node {
	__u32 entry[16];
};
struct trie_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP); /* sizes may differ */
	__uint(max_entries, 4096);
	__uint(key_size, 4); /* clang 14 leaves the types of inner maps out */
	__uint(value_size, sizeof(struct node));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct trie_inner);
} prefixes4 SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct trie_inner);
} prefixes6 SEC(".maps");

/* A bit a UDP source port, a generation of 1,024 words after the other. */
#define AMP_WORDS 1024
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * AMP_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} amp_port_map SEC(".maps");

/* Tier 1: theoretical arrival times, two words a source, both in one cache line; see limit.h. */
struct line {
	__u64 tat[8];
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct line);
} sketch_map SEC(".maps");

/* Tier 2: sources near their limit. Key: the first 8 bytes of an IPv6 address under config.v6_mask, or 4 zero
 * bytes and an IPv4 address (IPv6 sources in ::/32 begin with ff:ff:ff:ff instead). */
struct source {
	__u64 tat;   /* theoretical arrival time, ns */
	__u64 drops; /* packets over the limit */
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, __u64);
	__type(value, struct source);
} rate_limit_map SEC(".maps");

/* Sources that were just refused, so that the next packets of a flood from one address are cheaper still: the
 * source's TAT only grows, so nothing can be due to it before until. A CPU each, because key and until must match. */
#define REFUSED 1024
struct refused {
	__u64 key;
	__u64 until;
	__u64 drops; /* since rate_limit_map was told */
	__u32 sequence;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REFUSED);
	__type(key, __u32);
	__type(value, struct refused);
} refused_map SEC(".maps");

struct budget {
	__u64 window;
	__u64 used;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct budget);
} budget_map SEC(".maps");

/* Every packet counts under exactly one of the reasons; S_HTTP1 and after count request starts besides. */
enum stat {
	S_NOT_IP,
	S_ALLOWED,
	S_NO_POLICY,
	S_UNDER_LIMIT,
	S_OVER_LIMIT_PASSED,
	S_SYN_COOKIE, /* answered */

	S_DENIED, /* the first that drops */
	S_OVER_LIMIT,
	S_BAD_IP,
	S_BAD_TCP,
	S_BAD_UDP,
	S_TCP_NULL,
	S_TCP_XMAS,
	S_TCP_SYN_FIN,
	S_TCP_SYN_RST,
	S_LAND,
	S_TINY_FRAGMENT,
	S_FRAGMENT,
	S_AMPLIFICATION,
	S_ERROR, /* a map could not be read: passed */

	S_HTTP1,
	S_WEBSOCKET,
	S_HTTPS,
	S_HTTPS_ALPN_H1,
	S_HTTPS_ALPN_H2,
	S_HTTP2,
	S_GRPC_MAYBE,

	S_COUNT,
};
/* Read by nobody: bpf2go makes Go's constants of what the object's variables and maps are made of. */
const enum stat *const volatile enum_stat = 0;
struct stat_value {
	__u64 packets;
	__u64 bytes; /* of IP; of the frame where it is not IP */
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, S_COUNT);
	__type(key, __u32);
	__type(value, struct stat_value);
} stats_map SEC(".maps");

struct policy_stat {
	__u64 under;
	__u64 over;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_POLICIES);
	__type(key, __u32);
	__type(value, struct policy_stat);
} policy_stats_map SEC(".maps");

static __always_inline void count(__u32 stat, __u32 bytes)
{
	struct stat_value *v = bpf_map_lookup_elem(&stats_map, &stat);

	if (likely(v)) {
		v->packets++;
		v->bytes += bytes;
	}
}
