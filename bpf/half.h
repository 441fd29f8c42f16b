// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* half.h: reading one direction of a conversation: what a segment has of it, what is kept for the next one. */
#ifndef WEIR_HALF_H
#define WEIR_HALF_H

#include "carrier.h"

/* Index of the first line feed; NO_LINE if there is none. Bytes that are not there are zero. */
static __always_inline u32 line_end(struct half *h, const u64 *b, u32 words)
{
	ONCE(h->found) = NO_LINE;
#pragma unroll
	for (u32 i = 0; i < words; i++) {
		u64 feeds = zero_bytes(b[i] ^ EVERY('\n'));

		if (feeds) {
			ONCE(h->found) = 8 * i + lowest(feeds);
			break;
		}
	}
	return ONCE(h->found);
}

/* One CPU reads a half at a time; the other one's segment, which ends here, is missed if there is something to be
 * read in it. What a socket sends it sends under its lock, one after the other.
 */
static __always_inline int half_enter(struct talk *t, struct half *h, u32 leaves, u64 end)
{
	if (!leaves && swap(&h->busy, 0, 1)) {
		if (end > ONCE(h->next))
			h->missed = 1;
		return 0;
	}
	if (h->missed) {
		h->missed = 0;
		if (h->state >= TALK_START)
			half_lose(t, h);
	}
	return 1;
}

static __always_inline void half_release(struct half *h)
{
	if (ONCE(h->busy))
		swap(&h->busy, 1, 0);
}

/* Requests that wait get no answer any more: another program counts them, where this one may still call it. */
static __always_inline void talk_over(carrier *ctx, struct talk *t)
{
	if (!talk_waiting(t))
		return;
	readers.call(ctx, WEIR_READER_END);
	event_add(WEIR_EV_REQUEST_UNPARSED, talk_waiting(t));
	t->first = t->last;
}

/* What was kept has been read: now the packet. */
static __always_inline void half_goes_on(carrier *ctx, struct talk *t)
{
#ifndef WEIR_USER
	if (ONCE(t->ready) != TALK_DEFERRED)
		return;
	readers.call(ctx, WEIR_READER_DEFERRED);
	swap(&t->ready, TALK_DEFERRED,
	     TALK_READY); /* which is missed: too many programs have run */
#endif
}

/* The last thing that a program does. */
static __always_inline void half_leave(carrier *ctx, struct talk *t, struct half *h)
{
	u32 ends = h->ends;

	h->ends = 0;
	half_release(h);
	half_goes_on(ctx, t);
	if (ends)
		talk_over(ctx, t);
}

/* Whether the segment at hand has what is to be read next. */
static __always_inline int half_wants(struct half *h)
{
	return h->next >= h->pos && h->next < h->end && h->state >= TALK_START;
}

/* The next bytes to be read, behind those that were held; how many in all, 0 for none. */
static __always_inline u32 half_load(carrier *ctx, struct half *h, u64 *b)
{
	u64 last = h->end - h->next - 1,
	    held = h->held; /* there is at least one byte (half_wants) */
	u32 off = h->next - h->pos;

	if (last >= TALK_READ)
		last = TALK_READ - 1;
	/* clang must not know what it is, and has to use what is compared */
	asm volatile("" : "+r"(last), "+r"(held));
	if (last >= TALK_READ || held >= TALK_HELD)
		return 0;
	asm volatile("" : "+r"(last), "+r"(held));
	u64 take = last + 1;
	if (held) {
#pragma unroll
		for (u32 w = 0; w < TALK_HELD / 8; w++)
			b[w] = h->buffer[w];
	} else if (h->state == TALK_START) {
		h->began_ns = h->now;
	}
	if (carry(ctx, h->at + off, (u8 *)b + held, take))
		return 0;
	ONCE(h->found) = held + take;
	return ONCE(h->found);
}

/* Go on behind `taken` of these `n` bytes, or keep them until there are more. */
static __always_inline void half_advance(struct half *h, u64 taken, const u64 *b, u32 n)
{
	if (taken == STEP_MORE) {
		h->next += n - h->held;
		h->held = n;
#pragma unroll
		for (u32 w = 0; w < TALK_HELD / 8; w++)
			h->buffer[w] = b[w];
		return;
	}
	h->next += taken - h->held;
	h->held = 0;
}

/* What was read is no message. */
static __always_inline void talk_refuse(struct talk *t, struct half *h, u32 answers)
{
	u64 oldest = talk_oldest(t);

	if (t->sure) {
		half_lose(t, h);
	} else if (answers) { /* it only looked like a request */
		talk_unknown(t, 0);
		if (oldest)
			talk_answered(t, WEIR_PROTO_TCP, oldest & ~METHOD_BITS, 0, h->began_ns);
	} else if (--t->tries) { /* in the middle of something, it may be */
		talk_push(t, h->began_ns, WEIR_METHOD_NONE);
		h->state = TALK_LOST;
		h->held = 0;
	} else {
		talk_unknown(t, h->began_ns);
	}
}

/* After a step: whether there may be another one. */
static __always_inline int half_took(carrier *ctx, struct talk *t, struct half *h, u32 answers,
				     u64 taken, const u64 *b, u32 n)
{
	if (taken == STEP_BAD) {
		talk_refuse(t, h, answers);
		half_leave(ctx, t, h);
		return 0;
	}
	half_advance(h, taken, b, n);
	return 1;
}

/* After as many steps as a program has: once more, or what is left is more than a program may follow itself. */
static __always_inline void half_again(carrier *ctx, struct talk *t, struct half *h)
{
	readers.call(ctx, t->protocol);
	half_lose(t, h);
	half_leave(ctx, t, h);
}

#endif
