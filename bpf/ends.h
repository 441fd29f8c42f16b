// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* ends.h: a conversation that ends while requests wait. */
#ifndef WEIR_ENDS_H
#define WEIR_ENDS_H

#include "http2_streams.h"

/* No answer comes any more. If the answers could not be followed, nobody knows whether there was one. */
static __always_inline void talk_unanswered(struct talk *t, u64 now)
{
	u64 lost = half_lost(&t->half[ANSWERS]);

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < TALK_ASKED; i++) {
		asm volatile("" : "+r"(i));
		u64 asked = talk_oldest(t);

		if (!asked)
			break;
		t->first++;
		if (!(asked & METHOD_BITS))
			continue;
		if (lost) {
			event(WEIR_EV_REQUEST_UNPARSED);
			continue;
		}
		struct weir_requests *r = talk_row(t, t->protocol, asked_what(asked), 0, now);

		if (!r)
			continue;
		request_untimed(r, now);
		tap_request(r, asked & TAP_BITS, t->nonce, TAP_UNANSWERED, now);
	}
}

/* Called when a connection ends, but for HTTP/2 (http2_ends): no answer comes any more. Returns DONE on every path. */
int talk_end(carrier *ctx)
{
	holder *held = holder_of(ctx);
	struct talk *t = held ? talk_held(held) : NULL;

	if (!t)
		return DONE;
	talk_unanswered(t, bpf_ktime_get_ns());
	h2_over(t);
	return DONE;
}

#endif
