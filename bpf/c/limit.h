/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The limit of a source: GCRA on one 64-bit word, the theoretical arrival time (TAT), moved by compare and
 * swap so that any number of CPUs admit what one would.
 *
 * Tier 1 is a sketch that absorbs everybody: two words of one cache line by hash, the lower one decides, and it
 * admits only up to half of the burst. What is beyond goes to tier 2, an exact entry of the source alone. So
 * - a flood from random sources touches one line a packet, whatever their number;
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

/* Raises a word of the sketch to at least this. A plain store: a CPU that raced it may lose the charge of a few
 * packets, which costs less than a second locked instruction for every packet. No branch: who is higher is random
 * in a flood. */
static __always_inline void raise(__u64 *word, __u64 to)
{
	__u64 seen = READ_ONCE(*word), lower = -((seen - to) >> 63);

	*(volatile __u64 *)word = seen ^ ((seen ^ to) & lower);
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
static __always_inline bool over_exact(struct policy *p, __u32 sequence, __u64 h, __u64 *a, __u64 *b, __u64 key, __u64 now,
				       __u64 ahead)
{
	__u32 slot = h >> 48 & (REFUSED - 1);
	struct refused *r = bpf_map_lookup_elem(&refused_map, &slot);
	struct source *s;
	__u64 most = p->near + p->period;
	__u64 floor = now + (ahead < most ? ahead : most);
	__u64 old, tat = 0;

	if (unlikely(!r))
		return false;
	if (r->key == key && r->until > now && r->sequence == sequence) {
		r->drops++;
		return true;
	}
	s = bpf_map_lookup_elem(&rate_limit_map, &key);
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
			most = now + p->burst + p->period;
			if (old > most && __sync_val_compare_and_swap(&s->tat, old, most) == old)
				old = most;
			/* Statistics; not worth a locked instruction. */
			s->drops += 1 + (r->key == key ? r->drops : 0);
			r->key = key;
			r->until = old > p->burst ? old - p->burst : 0;
			r->drops = 0;
			r->sequence = sequence;
			return true;
		}
		tat += p->period;
		if (__sync_val_compare_and_swap(&s->tat, old, tat) == old)
			goto charge;
	}
	__sync_fetch_and_add(&s->tat, p->period);
charge:
	raise(a, tat);
	raise(b, tat);
	return false;
}

static __always_inline bool over_sketch(struct policy *p, __u32 sequence, __u64 key, __u64 now)
{
	__u64 h = mix(key);
	__u32 at = h & sketch_mask, i = h >> 32 & 7, j = (i + 1 + ((h >> 40 & 0xff) * 7 >> 8)) & 7, low;
	struct line *line = bpf_map_lookup_elem(&sketch_map, &at);
	__u64 va, vb, second, seen, tat, ahead;

	if (unlikely(!line))
		return false;
	for (int n = 0; n < RACES; n++) {
		va = READ_ONCE(line->tat[i]);
		vb = READ_ONCE(line->tat[j]);
		/* The lower word decides, so its swap must win; the other is raised to match. Times stay below
		 * 2^63, so the sign of the difference says which it is, without a branch that a flood would make
		 * unpredictable. */
		second = -((vb - va) >> 63);
		seen = va ^ ((va ^ vb) & second);
		low = (i ^ ((i ^ j) & (__u32)second)) & 7;
		tat = seen > now ? seen : now;
		ahead = tat - now;
		if (ahead > p->near)
			return over_exact(p, sequence, h, &line->tat[i], &line->tat[j], key, now, ahead);
		tat += p->period;
		if (likely(__sync_val_compare_and_swap(&line->tat[low], seen, tat) == seen)) {
			raise(&line->tat[(i ^ j ^ low) & 7], tat);
			return false;
		}
	}
	__sync_fetch_and_add(&line->tat[i], p->period);
	__sync_fetch_and_add(&line->tat[j], p->period);
	return false;
}

enum { UNDER, OVER, OVER_PASS, NO_SUCH };

/* What policy id of the ruleset in force says of a packet of source key. A global function: the verifier looks at it once. */
__noinline int judge(__u32 sequence, __u32 id, __u64 key)
{
	__u32 slot = (sequence & 1) * MAX_POLICIES + id;
	struct policy *p = bpf_map_lookup_elem(&policy_map, &slot);
	struct policy_stat *stat;
	bool over;

	if (unlikely(!p))
		return NO_SUCH;
	over = over_sketch(p, sequence, key, clock_ns(p));
	stat = bpf_map_lookup_elem(&policy_stats_map, &id);
	if (likely(stat)) {
		if (over)
			stat->over++;
		else
			stat->under++;
	}
	return !over ? UNDER : p->flags & P_PASS ? OVER_PASS : OVER;
}
