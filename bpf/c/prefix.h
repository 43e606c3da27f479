/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The longest prefix of a source; the tries are described in maps.h. Global functions: the verifier looks at each
 * once. */
#pragma once
#include "maps.h"

/* addr in host order. */
__noinline __u32 find4(__u32 generation, __u32 addr)
{
	void *trie = bpf_map_lookup_elem(&prefixes4, &generation);
	__u32 at = addr >> 20, entry;
	struct node *n;

	if (unlikely(!trie))
		return TRIE_NONE;
#pragma unroll
	for (int shift = 16; shift >= 0; shift -= 4) {
		n = bpf_map_lookup_elem(trie, &at);
		if (unlikely(!n))
			return TRIE_NONE;
		entry = n->entry[addr >> shift & 15];
		if (!(entry & TRIE_CHILD))
			return entry;
		at = entry & ~TRIE_CHILD;
	}
	return TRIE_NONE;
}

/* high and low half of the address in host order. */
__noinline __u32 find6(__u32 generation, __u64 high, __u64 low)
{
	void *trie = bpf_map_lookup_elem(&prefixes6, &generation);
	__u32 at = high >> 52, entry;
	struct node *n;

	if (unlikely(!trie))
		return TRIE_NONE;
	high = high << 12 | low >> 52;
	low <<= 12;
	for (int i = 0; i < 29; i++) {
		n = bpf_map_lookup_elem(trie, &at);
		if (unlikely(!n))
			return TRIE_NONE;
		entry = n->entry[high >> 60];
		if (!(entry & TRIE_CHILD))
			return entry;
		at = entry & ~TRIE_CHILD;
		high = high << 4 | low >> 60;
		low <<= 4;
	}
	return TRIE_NONE;
}
