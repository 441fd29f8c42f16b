// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* tap.h: single requests told to `weir tap`, a few a second and only while it asks for them: the map `tap` says until
 * when and how many more. Nothing of a request's text is kept at any other time.
 */
#ifndef WEIR_TAP_H
#define WEIR_TAP_H

#include "asked.h"
#include "requests.h"

#define TAP_LINES \
	1024 /* requests whose first lines are kept at once; beyond, the oldest ones are forgotten */
#define TAP_BYTES      (256 * 1024) /* of the ring: whole pages, of whatever size (4 to 64 kB) */
#define TAP_UNANSWERED (~0ULL)

struct tap_key {
	u64 asked; /* as in a conversation: when, and the method */
	u64 nonce; /* of the connection */
};

BPF_F_TABLE("array", u32, struct weir_tap, tap, 1, BPF_F_MMAPABLE);
BPF_TABLE("lru_hash", struct tap_key, struct weir_line, tap_lines, TAP_LINES);
#ifndef PAGE_SIZE
#define PAGE_SIZE 4096 /* BCC counts in pages */
#endif
BPF_RINGBUF_OUTPUT(tapped, TAP_BYTES / PAGE_SIZE);

/* Who asks to be told of requests now; NULL if nobody does. */
static __always_inline struct weir_tap *tap_at(u64 now)
{
	u32 zero = 0;
	struct weir_tap *asks = tap.lookup(&zero);

	if (!asks || ONCE(asks->until_ns) <= now)
		return NULL;
	struct weir_shed *s = shed_at();

	return s && ONCE(s->tap_until_ns) <= now ? asks : NULL;
}

/* A request's first bytes, to be told with its answer; TAP_LEFT_OUT if that will not be looked at. */
static __always_inline u64 tap_line(u64 asked, u64 nonce, const u64 *line, u64 now)
{
	struct tap_key key = {.asked = asked, .nonce = nonce};
	struct weir_tap *asks = tap_at(now);

	if (!asks)
		return 0;
	if (!ONCE(asks->left))
		return TAP_LEFT_OUT;
	tap_lines.update(&key, (struct weir_line *)line);
	return 0;
}

/* A request has ended as its row says; took: TAP_UNANSWERED for no answer. */
static __always_inline void tap_request(struct weir_requests *r, u64 asked, u64 nonce, u64 took,
					u64 now)
{
	struct weir_tap *asks = tap_at(now);

	if (!asks)
		return;
	u64 left = ONCE(asks->left) & -(u64) !(asked & TAP_LEFT_OUT);
	struct weir_tapped *told = left ? tapped.ringbuf_reserve(sizeof(*told)) : NULL;

	if (!told) {
		ADD(asks->skipped, 1);
		return;
	}
	struct tap_key key = {.asked = asked, .nonce = nonce};
	struct weir_line *line = tap_lines.lookup(&key);

	ONCE(asks->left) = left - 1; /* about: it is a bound, not a count */
	told->key = r->key;
	told->ended_ns = now;
	told->took_ns = took;
	told->line.bytes[0] = 0;
	if (line)
		told->line = *line;
	tapped.ringbuf_submit(told, 1); /* BPF_RB_NO_WAKEUP: who asks comes and looks */
}

#endif
