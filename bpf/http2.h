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

#define H2_STEPS 36 /* in one run; one is a frame's head, a field, or a string */

#define H2_ENDS 64 /* streams that are ended in one run */

enum h2_outcome { H2_ALL, H2_MORE, H2_LOST };

/* Have at least H2_LOOK bytes at hand, or all that the segment has; how many. */
static __always_inline u32 h2_fill(struct __sk_buff *skb, struct half *h, struct h2_half *w)
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

	if (bpf_skb_load_bytes(skb, h->at + off, w->window + rest, take))
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
		struct weir_requests *r =
			talk_row(t, e->protocol, e->asked & METHOD_BITS, e->status, now);

		if (!r)
			continue;
		if (e->timed) {
			request_add(r, e->took, now);
		} else {
			ADD(r->untimed, 1);
			r->active_ns = now;
		}
	}
}

/* Reads as far as this segment goes. */
static __always_inline enum h2_outcome h2_read(struct __sk_buff *skb, struct h2 *c, struct half *h,
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
		return h2_start(c, h, w, h2_fill(skb, h, w), answers) ? H2_MORE : H2_ALL;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < H2_STEPS; i++) {
		/* so that clang does not compute all members' addresses before the loop, and keep them */
		asm volatile("" : "+r"(i), "+r"(w), "+r"(c), "+r"(h));
		ONCE(w->found) = h2_fill(skb, h, w);
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
		if (w->results == H2_RESULTS)
			break;
	}
	return H2_MORE;
}

/* Nothing more is to be read of this segment, or cannot be. */
static __always_inline void h2_leave(struct __sk_buff *skb, struct talk *t, struct h2 *c,
				     struct half *h, struct h2_half *w)
{
	u32 ends = h->ends;

	if (w->outcome != H2_ALL) { /* or more than a program may follow itself */
		c->lost_ns = h->now;
		w->at = w->n = 0;
		half_lose(t, h);
	}
	h->ends = 0;
	half_release(h);
	if (ends)
		readers.call(skb, WEIR_READER_H2_END);
}

/* cgroup_skb, called by the program that a connection begins with, and by those that follow it: returns 1 (pass) on
 * every path.
 */
int http2_messages(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;
	struct talk *t = sk ? talks.sk_storage_get(sk, 0, 0) : NULL;

	if (!t)
		return 1;
	u64 answers = h2_answers(skb, t);
	struct half *h = &t->half[answers & 1];
	struct h2 *c = h2s.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!c) {
		event(WEIR_EV_TALK_FAILED);
		talk_plain(t);
		half_release(h);
		return 1;
	}
	struct h2_half *w = &c->half[answers & 1];

	ONCE(w->outcome) = h2_read(skb, c, h, answers);
	if (ONCE(w->outcome) == H2_MORE && w->results < H2_RESULTS)
		readers.call(skb, WEIR_PROTO_HTTP2);
	if (w->results | w->unparsed)
		readers.call(skb, WEIR_READER_H2_RESULTS);
	h2_leave(skb, t, c, h, w);
	return 1;
}

/* cgroup_skb, called when requests have ended: counts them. Returns 1 (pass) on every path. */
int http2_results(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;
	struct talk *t = sk ? talks.sk_storage_get(sk, 0, 0) : NULL;
	struct h2 *c = t ? h2s.sk_storage_get(sk, 0, 0) : NULL;

	if (!c)
		return 1;
	u64 answers = h2_answers(skb, t);
	struct half *h = &t->half[answers & 1];
	struct h2_half *w = &c->half[answers & 1];

	h2_count(t, w, h->now);
	if (w->outcome == H2_MORE)
		readers.call(skb, WEIR_PROTO_HTTP2);
	h2_leave(skb, t, c, h, w);
	return 1;
}

/* cgroup_skb, called when a connection ends: no answer comes any more. Returns 1 (pass) on every path. */
int http2_ends(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;
	struct talk *t = sk ? talks.sk_storage_get(sk, 0, 0) : NULL;
	struct h2 *c = t ? h2s.sk_storage_get(sk, 0, 0) : NULL;

	if (!c)
		return 1;
	u64 now = bpf_ktime_get_ns();
	u32 first = c->ended;
	int lost = half_lost(&t->half[ASKS]) || half_lost(&t->half[ANSWERS]);

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
			r = talk_row(t, protocol, asked & METHOD_BITS, 0, now);
		if (r) {
			ADD(r->untimed, 1);
			r->active_ns = now;
		}
	}
	first += H2_ENDS;
	c->ended = first % (H2_SETS * H2_WAYS);
	if (c->ended)
		readers.call(skb, WEIR_READER_H2_END);
	return 1;
}

#endif
