// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* turns.h: what new bytes on a connection mean to its conversation, whatever brought them (carrier.h): turns, where
 * messages begin, where reading begins anew.
 */
#ifndef WEIR_TURNS_H
#define WEIR_TURNS_H

#include "http.h"

#define TALK_TRIES 4 /* turns of an older connection until it is taken for nothing that is known */

/* Bytes that go one way: a TCP segment, or what a process gave its TLS library at once. */
struct segment {
	u32 seq;
	u64 at;  /* where the payload starts: struct half */
	u32 len; /* of the payload */
	u32 flags;
	u32 leaves;
	u32 answers; /* enum talk_half */
	u32 by;      /* the program that it is for, 0: this one */
	u64 now;     /* 0: not asked for yet */
};

static __always_inline u64 segment_time(struct segment *g)
{
	if (!g->now)
		g->now = bpf_ktime_get_ns();
	return g->now;
}

/* Whose answers come next is not sure any more. */
static __always_inline void talk_drop(struct talk *t)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < TALK_ASKED; i++) {
		asm volatile("" : "+r"(i));
		if (!talk_waiting(t))
			break;
		if (talk_oldest(t) & METHOD_BITS)
			event(WEIR_EV_REQUEST_UNPARSED);
		t->first++;
	}
}

/* The asking end begins a turn. */
static __always_inline void talk_asks(struct talk *t, struct segment *g, u64 pos)
{
	struct half *asks = &t->half[ASKS], *answers = &t->half[ANSWERS];

	if (t->protocol == WEIR_PROTO_TCP) {
		talk_unknown(t, segment_time(g));
		return;
	}
	if (asks->state == TALK_LOST) {
		talk_drop(t);
		half_begin(asks, pos);
		answers->state = TALK_LOST; /* until an answer begins a segment */
	} else if (answers->state == TALK_LOST || answers->state == TALK_OPAQUE) {
		talk_drop(t);
		answers->state = TALK_LOST;
	}
}

/* The answering end begins a turn. */
static __always_inline void talk_replies(struct talk *t, struct segment *g)
{
	struct half *asks = &t->half[ASKS];

	if (!t->protocol && asks->state != TALK_LOST)
		talk_unknown(t, asks->held ? asks->began_ns : 0); /* it speaks first, or too soon */
	u64 oldest = talk_oldest(t);

	if (oldest && !(oldest & METHOD_BITS)) {
		t->first++;
		talk_answered(t, WEIR_PROTO_TCP, oldest, 0, segment_time(g));
	}
}

/* New bytes in a half. Only its own direction changes a half that is read: both may be at work at once. */
static __always_inline void talk_news(struct talk *t, struct half *h, struct segment *g, u64 pos)
{
	u64 seen = h->seen, begins = t->turn != 1 + g->answers;

	h->seen = pos + g->len;
	if (t->protocol == WEIR_PROTO_HTTP2) { /* has no turns */
		if (h->state == TALK_LOST) {
			half_begin(h, pos < seen ? seen : pos);
			h->flags = H2_ANEW;
		}
		return;
	}
	if (begins) {
		t->turn = 1 + g->answers;
		if (g->answers)
			talk_replies(t, g);
		else
			talk_asks(t, g, pos);
	}
	u32 waiting = g->answers ? talk_waiting(t) : 0;

	/* another request was sent meanwhile; or this may be the one that is waited for (DNS tells by its id) */
	if ((h->state == TALK_TURN && waiting) ||
	    (h->state == TALK_LOST &&
	     (waiting == 1 || (g->answers && t->protocol == WEIR_PROTO_DNS))))
		half_begin(h, pos < seen ? seen : pos);
	else
		return;
	if (t->protocol == WEIR_PROTO_POSTGRESQL && g->answers && !begins)
		h->state = TALK_TAIL;
}

/* New bytes at `pos`: whether there are messages to be read in them; else the half is left. */
static __always_inline int talk_bytes(carrier *ctx, struct talk *t, struct half *h,
				      struct segment *g, u64 pos)
{
	u64 end = pos + g->len;

	if (!t->protocol && g->answers && h->state == TALK_START && pos == h->next)
		t->protocol = protocol_of_server(ctx, g->at, g->len);
	if (end > h->seen)
		talk_news(t, h, g, pos);
	h->pos = pos;
	h->end = end;
	if (half_wants(h)) {
		h->at = g->at;
		h->now = segment_time(g);
		if (!g->answers || t->protocol != WEIR_PROTO_HTTP || !http_at_once(ctx, t, h))
			return 1;
	}
	half_release(h);
	return 0;
}

#endif
