// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* http2.h: HTTP/2 (RFC 9113) and gRPC over it, stream by stream: frames' heads, and of header blocks the few
 * fields that matter (hpack.h). All else is stepped over.
 *
 * Where bytes were missed, or the connection is older than Weir, a half begins anew with a segment that begins
 * with the head of a frame, and with a table of which nothing is known. Header blocks that are cut within a field
 * (CONTINUATION) are not followed.
 */
#ifndef WEIR_HTTP2_H
#define WEIR_HTTP2_H

#include "http2_ends.h"
#include "http2_frames.h"

#define H2_ENDS 64 /* streams that are ended in one run */

enum h2_outcome { H2_ALL, H2_MORE, H2_LOST };

/* Have at least H2_LOOK bytes at hand, or all that the segment has; how many. */
static __always_inline u32 h2_fill(carrier *ctx, struct half *h, struct h2_half *w)
{
	u32 at = w->at, n = w->n;

	if (at + H2_LOOK <= n)
		return n - at;
	u64 rest = 0;

	if (at < n) {
		u64 *from = (u64 *)&w->window[at % H2_WINDOW], *to = (u64 *)w->window;
		u64 one = from[0], two = from[1], three = from[2], four = from[3];

		to[0] = one, to[1] = two, to[2] = three, to[3] = four;
		rest = n - at;
	} else {
		h->next += at - n;
	}
	w->at = 0;
	w->n = rest;
	if (h->next >= h->end)
		return rest;
	u64 last = h->end - h->next - 1;
	u32 off = h->next - h->pos;

	if (last >= H2_READ)
		last = H2_READ - 1;
	asm volatile("" : "+r"(last), "+r"(rest));
	if (last >= H2_READ || rest >= H2_LOOK)
		return 0;
	asm volatile("" : "+r"(last), "+r"(rest));
	u64 take = last + 1;

	if (carry(ctx, h->at + off, w->window + rest, take))
		return 0;
	h->next += take;
	w->n = rest + take;
	return w->n;
}

/* What ended in this run is counted. */
static __always_inline void h2_count(struct talk *t, struct h2_half *w, u64 now)
{
	u32 results = w->results, unparsed = w->unparsed;

	w->results = 0;
	w->unparsed = 0;
	if (unparsed)
		event_add(WEIR_EV_REQUEST_UNPARSED, unparsed);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < H2_RESULTS; i++) {
		asm volatile("" : "+r"(i));
		if (i >= results)
			break;
		struct h2_result *e = &w->result[i % H2_RESULTS];
		struct weir_requests *r = talk_row(
			t, e->protocol, (e->asked & METHOD_BITS) | e->route << 8, e->status, now);

		if (!r)
			continue;
		if (e->timed)
			request_add(r, e->took, now);
		else
			request_untimed(r, now);
		tap_request(r, e->asked, t->nonce, e->timed ? e->took : TAP_UNANSWERED, now);
	}
}

/* Reads as far as this segment goes. */
static __always_inline enum h2_outcome h2_read(carrier *ctx, struct h2 *c, struct half *h,
					       u32 answers)
{
	struct h2_half *w = &c->half[answers & 1];

	if (h->flags & H2_ANEW) {
		h->flags = 0;
		w->at = w->n = 0;
	}
	if (h->held) { /* what another protocol's program began to read */
#pragma unroll
		for (u32 i = 0; i < TALK_HELD / 8; i++)
			((u64 *)w->window)[i] = h->buffer[i];
		w->n = h->held;
		h->held = 0;
	}
	if (h->state == TALK_START)
		return h2_start(c, h, w, h2_fill(ctx, h, w), answers) ? H2_MORE : H2_ALL;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < H2_STEPS; i++) {
		/* so that clang does not compute all members' addresses before the loop, and keep them */
		asm volatile("" : "+r"(i), "+r"(w), "+r"(c), "+r"(h));
		ONCE(w->found) = h2_fill(ctx, h, w);
		u32 avail = ONCE(w->found);

		if (!avail)
			return H2_ALL;
		u32 state = w->state;

		ONCE(w->taken) = h2_step(h, w, answers, avail);
		u64 taken = ONCE(w->taken);

		if (taken == STEP_MORE)
			return H2_ALL;
		if (taken == STEP_BAD)
			return H2_LOST;
		w->at += taken;
		if (state != H2_FRAME)
			w->left -= taken;
		if (w->open && w->state == H2_FIELD && !w->left)
			h2_block(w);
		if (w->what)
			h2_act(c, w, answers);
		if (h2_path_comes(w) || w->results == H2_RESULTS)
			break;
	}
	return H2_MORE;
}

/* Nothing more is to be read of this segment, or cannot be. */
static __always_inline void h2_leave(carrier *ctx, struct talk *t, struct h2 *c, struct half *h,
				     struct h2_half *w)
{
	u32 ends = h->ends;

	if (w->outcome != H2_ALL) { /* or more than a program may follow itself */
		c->lost_ns = h->now;
		w->at = w->n = 0;
		half_lose(t, h);
	}
	h->ends = 0;
	w->path = w->paths = 0;
	half_release(h);
	half_goes_on(ctx, t);
	if (ends)
		readers.call(ctx, WEIR_READER_H2_END);
}

/* Called by the program that a connection begins with, and by those that follow it: returns DONE on every
 * path.
 */
int http2_messages(carrier *ctx)
{
	holder *held = holder_of(ctx);
	struct talk *t = held ? talk_held(held) : NULL;

	if (!t)
		return DONE;
	u64 answers = talk_reads(ctx, held, t);
	struct half *h = &t->half[answers & 1];
	struct h2 *c = h2_make(held, t);

	if (!c) {
		event(WEIR_EV_TALK_FAILED);
		talk_plain(t);
		half_leave(ctx, t, h);
		return DONE;
	}
	struct h2_half *w = &c->half[answers & 1];

	ONCE(w->outcome) = h2_read(ctx, c, h, answers);
	if (h2_path_comes(w))
		readers.call(ctx, WEIR_READER_H2_PATH);
	if (ONCE(w->outcome) == H2_MORE && w->results < H2_RESULTS)
		readers.call(ctx, WEIR_PROTO_HTTP2);
	if (w->results | w->unparsed)
		readers.call(ctx, WEIR_READER_H2_RESULTS);
	h2_leave(ctx, t, c, h, w);
	return DONE;
}

/* Called when requests have ended: counts them. Returns DONE on every path. */
int http2_results(carrier *ctx)
{
	holder *held = holder_of(ctx);
	struct talk *t = held ? talk_held(held) : NULL;
	struct h2 *c = t ? h2_held(held, t) : NULL;

	if (!c)
		return DONE;
	u64 answers = talk_reads(ctx, held, t);
	struct half *h = &t->half[answers & 1];
	struct h2_half *w = &c->half[answers & 1];

	h2_count(t, w, h->now);
	if (w->outcome == H2_MORE)
		readers.call(ctx, WEIR_PROTO_HTTP2);
	h2_leave(ctx, t, c, h, w);
	return DONE;
}

/* Called when a connection ends: no answer comes any more. Returns DONE on every path. */
int http2_ends(carrier *ctx)
{
	holder *held = holder_of(ctx);
	struct talk *t = held ? talk_held(held) : NULL;
	struct h2 *c = t ? h2_held(held, t) : NULL;

	if (!c)
		return DONE;
	u64 now = bpf_ktime_get_ns();
	u32 first = c->ended;
	u64 lost = half_lost(&t->half[ASKS]) | half_lost(&t->half[ANSWERS]);

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < H2_ENDS; i++) {
		asm volatile("" : "+r"(i));
		struct h2_stream *s = &c->streams[(first + i) % (H2_SETS * H2_WAYS)];
		u64 asked = s->asked;

		if (!asked || swap(&s->asked, asked, 0) != asked)
			continue;
		u32 protocol = s->flags & H2_GRPC ? WEIR_PROTO_GRPC : WEIR_PROTO_HTTP2;
		struct weir_requests *r = NULL;

		if (lost || s->flags & H2_MAYBE || asked <= (c->lost_ns | METHOD_BITS))
			event(WEIR_EV_REQUEST_UNPARSED); /* nobody knows */
		else
			r = talk_row(t, protocol, (asked & METHOD_BITS) | s->route << 8, 0, now);
		if (r) {
			request_untimed(r, now);
			tap_request(r, asked, t->nonce, TAP_UNANSWERED, now);
		}
	}
	first += H2_ENDS;
	c->ended = first % (H2_SETS * H2_WAYS);
	if (c->ended)
		readers.call(ctx, WEIR_READER_H2_END);
	h2_over(t);
	return DONE;
}

#endif
