// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* http2_upgrade.h: HTTP/1's request that asked for HTTP/2 (RFC 7540 3.2) is answered as its first stream. */
#ifndef WEIR_HTTP2_UPGRADE_H
#define WEIR_HTTP2_UPGRADE_H

#include "http2_streams.h"

/* Called by http_messages behind the head of 101: returns DONE on every path. */
int http2_upgrades(carrier *ctx)
{
	holder *held = holder_of(ctx);
	struct talk *t = held ? talk_held(held) : NULL;

	if (!t)
		return DONE;
	struct half *h = &t->half[ANSWERS];
	struct h2 *c = h2_make(held, t);
	struct h2_stream *s = c ? h2_find(c, &c->half[ANSWERS], 1, 1) : NULL;
	u64 asked = talk_oldest(t), now = h->now;

	h->flags = 0;
	if (c && !asked)
		c->partial = 1; /* whose answer comes is not known */
	if (s && asked) {
		s->id = 1;
		s->route = asked >> ROUTE_SHIFT;
		swap(&s->asked, 0,
		     ((now - asked_took(asked, now)) & ~METHOD_BITS) | (asked & METHOD_BITS));
	}
	t->first += not_zero(asked);
	event_add(WEIR_EV_REQUEST_UNPARSED, talk_waiting(t)); /* behind it, by HTTP/1: nobody's */
	t->first = t->last;
	t->protocol = WEIR_PROTO_HTTP2;
	readers.call(ctx, WEIR_PROTO_HTTP2);
	talk_unknown(t, 0);
	half_leave(ctx, t, h);
	return DONE;
}

#endif
