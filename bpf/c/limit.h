/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The limit of a source: GCRA on one 64-bit word, the theoretical arrival time (TAT), moved by compare and
 * swap so that any number of CPUs admit what one would.
 *
 * Tier 1 is a sketch that absorbs everybody: two words by hash, the lower one decides, and it admits only up to
 * half of the burst. What is beyond goes to tier 2, an exact entry of the source alone. So
 * - a flood from random sources touches two words a packet, whatever their number;
 * - nobody gets more than the limit: the lower word is never below the source's own TAT, and where an entry is
 *   behind because its source was quiet in between, the sketch has admitted at most half a burst since;
 * - who shares both words with busier sources keeps its rate and half of its burst.
 * Only where the entries of tier 2 are needed faster than the insert budget allows does the sketch refuse. */
#pragma once
#include "maps.h"

#define RACES 4 /* then the word is charged blindly: at most one packet a CPU too many */

static __always_inline __u64 clock_ns(const struct policy *p)
{
	if (test_clock) {
		__u32 zero = 0;
		struct control *ctl = bpf_map_lookup_elem(&control_map, &zero);

		return ctl ? ctl->test_now : 0;
	}
	if (likely(p->flags & P_COARSE))
		return (bpf_jiffies64() - initial_jiffies) * tick_ns;
	return bpf_ktime_get_ns();
}

/* Two rounds of multiply and fold; the seed enters before and between them. */
static __always_inline __u64 mix(__u64 key)
{
	key = (key ^ seed) * 0x9e3779b97f4a7c15ULL;
	key ^= key >> 29;
	key = (key + (seed >> 32 | seed << 32)) * 0xbf58476d1ce4e5b9ULL;
	return key ^ key >> 32;
}

static __always_inline void raise(__u64 *word, __u64 seen, __u64 to)
{
	if (seen < to)
		__sync_val_compare_and_swap(word, seen, to);
}

static __always_inline bool may_insert(__u64 now)
{
	__u32 zero = 0;
	struct budget *b = bpf_map_lookup_elem(&budget_map, &zero);
	__u64 window = now >> 30;

	if (!b)
		return false;
	if (b->window != window) {
		b->window = window;
		b->used = 0;
	}
	return b->used++ < insert_budget;
}

/* Tier 2. ahead is how far the sketch believes the source to be in front of now. */
static __always_inline bool over_exact(struct policy *p, __u64 *a, __u64 *b, __u64 key, __u64 now, __u64 ahead)
{
	struct source *s = bpf_map_lookup_elem(&rate_limit_map, &key);
	__u64 most = p->near + p->period;
	__u64 floor = now + (ahead < most ? ahead : most);
	__u64 old, tat = 0;

	if (!s && may_insert(now)) {
		struct source fresh = { .tat = floor };

		bpf_map_update_elem(&rate_limit_map, &key, &fresh, BPF_NOEXIST);
		s = bpf_map_lookup_elem(&rate_limit_map, &key);
	}
	if (!s) {
		if (ahead > p->burst)
			return true;
		tat = now + ahead + p->period;
		goto charge;
	}
	for (int i = 0; i < RACES; i++) {
		old = READ_ONCE(s->tat);
		tat = old > floor ? old : floor;
		if (tat - now > p->burst) {
			/* Further ahead than this policy lets anyone get: it was another policy's. */
			if (old > now + p->burst + p->period)
				__sync_val_compare_and_swap(&s->tat, old, now + p->burst + p->period);
			__sync_fetch_and_add(&s->drops, 1);
			return true;
		}
		tat += p->period;
		if (__sync_val_compare_and_swap(&s->tat, old, tat) == old)
			goto charge;
	}
	__sync_fetch_and_add(&s->tat, p->period);
charge:
	raise(a, READ_ONCE(*a), tat);
	raise(b, READ_ONCE(*b), tat);
	return false;
}

static __always_inline bool over_sketch(struct policy *p, __u64 key, __u64 now)
{
	__u64 h = mix(key);
	__u32 i = h & sketch_mask, j = (h >> 32 & sketch_mask) + sketch_mask + 1;
	__u64 *a = bpf_map_lookup_elem(&sketch_map, &i);
	__u64 *b = bpf_map_lookup_elem(&sketch_map, &j);
	__u64 va, vb, tat, ahead = 0;

	if (unlikely(!a || !b))
		return false;
	for (int n = 0; n < RACES; n++) {
		va = READ_ONCE(*a);
		vb = READ_ONCE(*b);
		tat = va < vb ? va : vb;
		tat = tat > now ? tat : now;
		ahead = tat - now;
		if (ahead > p->near)
			goto exact;
		tat += p->period;
		/* The lower word decides, so its swap must win; the other is only raised to match. */
		if (va <= vb) {
			if (likely(__sync_val_compare_and_swap(a, va, tat) == va)) {
				raise(b, vb, tat);
				return false;
			}
		} else if (likely(__sync_val_compare_and_swap(b, vb, tat) == vb)) {
			raise(a, va, tat);
			return false;
		}
	}
	__sync_fetch_and_add(a, p->period);
	__sync_fetch_and_add(b, p->period);
	return false;
exact:
	return over_exact(p, a, b, key, now, ahead);
}

enum { UNDER, OVER, OVER_PASS, NO_SUCH };

/* What policy id of a generation says of a packet of source key. A global function: the verifier looks at it once. */
__noinline int judge(__u32 generation, __u32 id, __u64 key)
{
	__u32 slot = generation * MAX_POLICIES + id;
	struct policy *p = bpf_map_lookup_elem(&policy_map, &slot);
	struct policy_stat *stat;
	bool over;

	if (unlikely(!p))
		return NO_SUCH;
	over = over_sketch(p, key, clock_ns(p));
	stat = bpf_map_lookup_elem(&policy_stats_map, &id);
	if (likely(stat)) {
		if (over)
			stat->over++;
		else
			stat->under++;
	}
	return !over ? UNDER : p->flags & P_PASS ? OVER_PASS : OVER;
}
