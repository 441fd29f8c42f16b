// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* routes.h: which of the configured patterns a path fits. agent/weir/kernel/routes.py makes one table of all patterns,
 * a deterministic automaton over a path's segments, so that a look-up or two for each segment find the first that fits.
 */
#ifndef WEIR_ROUTES_H
#define WEIR_ROUTES_H

#include "base.h"

#define ROUTE_BASIS 14695981039346656037ULL /* FNV-1a, of 64 bits */
#define ROUTE_PRIME 1099511628211ULL

enum route_phase { ROUTE_METHOD, ROUTE_TARGET, ROUTE_URI, ROUTE_PATH };

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

BPF_HASH(route_steps, struct route_key, struct route_step, WEIR_ROUTES);

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

/* The route of a request line (`phase` ROUTE_METHOD) or of a path (ROUTE_TARGET): of its first WEIR_LINE bytes, zeros
 * behind them. 0: none fits, or it goes on where nothing is to be seen. Of a URI (RFC 9112 3.2.2) the path.
 */
static __always_inline u32 route_of(const u8 *line, u32 phase)
{
	u64 word = ROUTE_BASIS;
	u32 node = 0, slashes = 0, rest = 0;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < WEIR_LINE; i++) {
		asm volatile("" : "+r"(i));
		u64 c = line[i & (WEIR_LINE - 1)];
		u64 slash = equals(c, '/'),
		    ends = within(c, 1, ' ') | equals(c, '?') | equals(c, '#');

		if (!c)
			break;

		if (phase == ROUTE_METHOD) {
			phase = c == ' ' ? ROUTE_TARGET : ROUTE_METHOD;
		} else if (phase != ROUTE_PATH) {
			slashes += slash;
			if (ends)
				break;
			phase = slash && (phase == ROUTE_TARGET || slashes == 3) ? ROUTE_PATH
										 : ROUTE_URI;
		} else if (slash | ends) {
			struct route_step *to = route_step(node, word);

			if (!to)
				return 0;
			if (ends)
				return to->route;
			node = to->node;
			rest = to->rest;
			word = ROUTE_BASIS;
		} else {
			word = (word ^ c) * ROUTE_PRIME;
		}
	}
	return rest;
}

#endif
