// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* routes.h: which of the configured patterns a path fits. agent/weir/kernel/routes.py makes one table of all patterns,
 * a deterministic automaton over a path's segments, so that a look-up or two for each segment find the first that fits.
 */
#ifndef WEIR_ROUTES_H
#define WEIR_ROUTES_H

#include "base.h"

#define ROUTE_BASIS 14695981039346656037ULL /* FNV-1a, of 64 bits */
#define ROUTE_PRIME 1099511628211ULL

struct route_key {
	u64 word; /* hash of a segment */
	u32 node;
	u32 other; /* 1: any other segment that is not empty; word is 0 */
};

struct route_step {
	u16 node;
	u8 route; /* the pattern that fits if the path ends here, from 1 on; 0: none */
	u8 rest;  /* the one that fits whatever follows */
};

BPF_HASH(route_steps, struct route_key, struct route_step, SIZED);

/* From a node by the segment of this hash; NULL where no pattern goes on. */
static __always_inline struct route_step *route_step(u32 node, u64 word)
{
	struct route_key key = {.word = word, .node = node};
	struct route_step *to = route_steps.lookup(&key);

	if (to || word == ROUTE_BASIS)
		return to;
	key.word = 0;
	key.other = 1;
	return route_steps.lookup(&key);
}

/* Where the path begins in a request line, which may have a URI (RFC 9112 3.2.2); WEIR_LINE where it has none. Through
 * `found`, so that it is any number to the verifier.
 */
static __always_inline u32 route_start(const u8 *line, u32 *found)
{
	u32 spaces = 0, slashes = 0, other = 0;

	ONCE(*found) = WEIR_LINE;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < WEIR_LINE; i++) {
		asm volatile("" : "+r"(i), "+r"(spaces), "+r"(slashes), "+r"(other));
		u64 c = line[i & (WEIR_LINE - 1)], slash = equals(c, '/') & spaces;

		if (!c || (spaces & under(c, '!')))
			break;
		slashes += slash;
		if (slash & (equals(other, 0) | equals(slashes, 3))) {
			ONCE(*found) = i;
			break;
		}
		other |= spaces;
		spaces |= equals(c, ' ');
	}
	return ONCE(*found);
}

/* The route of the path that begins at `at`, of WEIR_LINE bytes with zeros behind them; 0: none fits, or it goes on where
 * nothing is to be seen. Also through `found`.
 */
static __always_inline u32 route_of(const u8 *line, u32 at, u32 *found)
{
	u64 word = ROUTE_BASIS;
	u32 node = 0;

	ONCE(*found) = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < WEIR_LINE; i++) {
		asm volatile("" : "+r"(i), "+r"(word));
		at++;
		if (at >= WEIR_LINE)
			break;
		u64 c = line[at & (WEIR_LINE - 1)];
		u64 ends = within(c, 1, ' ') | equals(c, '?') | equals(c, '#');

		if (!c)
			break;
		if (!(ends | equals(c, '/'))) {
			word = (word ^ c) * ROUTE_PRIME;
			continue;
		}
		struct route_step *to = route_step(node, word);

		ONCE(*found) = 0;
		if (!to)
			break;
		ONCE(*found) = ends ? to->route : to->rest;
		if (ends)
			break;
		node = to->node;
		word = ROUTE_BASIS;
	}
	return ONCE(*found);
}

#endif
