// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* turns.h: requests and answers on TCP connections, from the packets of their sockets.
 *
 * Why cgroup_skb: it sees each segment with its socket, in both directions, also where several went through
 * the stack as one (GSO, GRO), on every kernel and every device. What it misses: segments that came before
 * the socket was established (TCP Fast Open), and content that comes late and then not again: from there on
 * the connection is read anew with its next turn, and what could not be read is counted. Cost: docs/benchmarks.md.
 */
#ifndef WEIR_TURNS_H
#define WEIR_TURNS_H

#include "http.h"
#include "segment.h"

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

/* What is missing before this segment does not come any more: it was sent, or the socket has received it. */
static __always_inline int half_gap(struct bpf_sock *sk, struct segment *g, struct half *h)
{
	if (g->leaves)
		return 1;
	struct tcp_sock *tp = (struct tcp_sock *)plain_sock(sk);

	return (s32)(PROBE(tp, rcv_nxt) - (u32)h->next) > 0;
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

/* Whether the segment has messages to be read; the half is entered then. */
static __always_inline int talk_segment(struct __sk_buff *skb, struct bpf_sock *sk, struct talk *t,
					struct segment *g)
{
	struct half *h = &t->half[g->answers & 1];
	u64 pos = h->seen + (s64)(s32)(g->seq - (u32)h->seen), end = pos + g->len;

	if (end <= h->seen && end <= h->next)
		return 0; /* it comes again */
	if (!half_enter(t, h, g->leaves, end))
		return 0;
	if (h->next < pos && h->state >= TALK_START && half_gap(sk, g, h))
		half_lose(t, h);
	if (!t->protocol && g->answers && h->state == TALK_START && pos == h->next)
		t->protocol = protocol_of_server(skb, g->at, g->len);
	if (end > h->seen)
		talk_news(t, h, g, pos);
	h->pos = pos;
	h->end = end;
	if (half_wants(h)) {
		h->at = g->at;
		h->now = segment_time(g);
		if (!g->answers || t->protocol != WEIR_PROTO_HTTP || !http_at_once(skb, t, h))
			return 1;
	}
	half_leave(t, h);
	return 0;
}

/* A RST of either end, or the answering end's FIN once all before it was seen: who waits gets no answer. So it is if
 * the asking end's own socket was closed, which reads nothing any more (tcp_close), not if it only says no more.
 */
static __always_inline int talk_ends(struct bpf_sock *sk, struct talk *t, struct segment *g)
{
	if (g->flags & TCP_RST)
		return 1;
	if (!(g->flags & TCP_FIN))
		return 0;
	if (g->answers)
		return g->seq + g->len == (u32)t->half[ANSWERS].seen;
	return g->leaves && PROBE(plain_sock(sk), sk_shutdown) == SHUTDOWN_BOTH;
}

/* The conversation that the packet belongs to, if it matters to it. */
static __always_inline struct talk *talk_packet(struct __sk_buff *skb, struct bpf_sock **of,
						struct segment *g)
{
	u32 at = tcp_header(skb), words[4];

	if (!at || bpf_skb_load_bytes(skb, at, words, sizeof(words)))
		return NULL;
	g->seq = bpf_ntohl(words[1]);
	g->flags = bpf_ntohl(words[3]) >> 16 & 255;
	g->at = at + (bpf_ntohl(words[3]) >> 28) * 4;
	g->len = skb->len - g->at;
	g->leaves = packet_leaves(skb);
	if ((s32)g->len < 0 || !(g->len || g->flags & (TCP_FIN | TCP_RST | TCP_SYN)))
		return NULL;
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;
	struct talk *t = NULL;

	if (sk && g->flags & TCP_SYN)
		talks.sk_storage_delete(
			sk); /* what an earlier connection left on the same socket */
	else if (sk)
		t = talk_of(sk, g);
	if (t)
		g->answers = talk_answers(t, g->leaves);
	*of = sk;
	return t;
}

/* Whether messages are to be read, by the protocol's program. */
static __always_inline int talk_on(struct __sk_buff *skb, struct bpf_sock *sk, struct talk *t,
				   struct segment *g)
{
	int reads = g->len && talk_segment(skb, sk, t, g);

	if (!talk_ends(sk, t, g))
		return reads;
	if (reads)
		t->half[g->answers & 1].ends = 1; /* the answer may be in this segment */
	else if (t->protocol == WEIR_PROTO_HTTP2)
		readers.call(skb, WEIR_READER_H2_END);
	else if (talk_waiting(t))
		talk_unanswered(t, segment_time(g));
	return reads;
}

/* cgroup_skb/ingress and egress, one program: returns 1 (pass) on every path. */
int talk_segments(struct __sk_buff *skb)
{
	struct segment g = {};
	struct bpf_sock *sk = NULL;
	struct talk *t = talk_packet(skb, &sk, &g);

	if (t && sk && talk_on(skb, sk, t, &g)) {
		readers.call(skb, t->protocol);
		/* there is no such program: its plane is down */
		if (t->protocol)
			talk_unknown(t, 0);
		half_leave(t, &t->half[g.answers & 1]);
	}
	return 1;
}

#endif
