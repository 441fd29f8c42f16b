// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* segments.h: requests and answers on TCP connections, from the packets of their sockets.
 *
 * Why cgroup_skb: it sees each segment with its socket, in both directions, also where several went through
 * the stack as one (GSO, GRO), on every kernel and every device. What it misses: segments that came before
 * the socket was established (deferred.h; not TCP Fast Open's), and content that comes late and then not again: from there on
 * the connection is read anew with its next turn, and what could not be read is counted. Cost: docs/benchmarks.md.
 */
#ifndef WEIR_SEGMENTS_H
#define WEIR_SEGMENTS_H

#include "deferred.h"
#ifdef WEIR_TLS
#include "tls_link.h"
#endif

/* What is missing before this segment does not come any more: it was sent, or the socket has received it. */
static __always_inline int half_gap(struct bpf_sock *sk, struct segment *g, struct half *h)
{
	if (g->leaves)
		return 1;
	struct tcp_sock *tp = (struct tcp_sock *)plain_sock(sk);

	return (s32)(PROBE(tp, rcv_nxt) - (u32)h->next) > 0;
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
	return talk_bytes(skb, t, h, g, pos);
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
#ifdef WEIR_TLS
	if (t->linked)
		return 0;
	if (g->leaves && t->looked) {
		t->looked = 0; /* not linked */
	} else if (tls_leaves(skb, t, g)) {
		t->looked =
			1; /* what a socket sends it sends under its lock, one after the other */
		readers.call(skb, WEIR_READER_TLS);
		t->looked = 0;
	}
#endif
	int reads = g->len && talk_segment(skb, sk, t, g);

	if (!talk_ends(sk, t, g))
		return reads;
	if (reads)
		t->half[g->answers & 1].ends = 1; /* the answer may be in this segment */
	else if (t->protocol == WEIR_PROTO_HTTP2)
		readers.call(skb, WEIR_READER_H2_END);
	else
		talk_over(skb, t);
	return reads;
}

/* cgroup_skb/ingress and egress, one program: returns 1 (pass) on every path. */
int talk_segments(struct __sk_buff *skb)
{
	struct segment g = {};
	struct bpf_sock *sk = NULL;

	if (requests_shed())
		return 1;
	struct talk *t = talk_packet(skb, &sk, &g);

	if (g.by)
		readers.call(skb, g.by);
	if (t && sk && talk_on(skb, sk, t, &g)) {
		readers.call(skb, t->protocol);
		/* there is no such program: its plane is down */
		if (t->protocol)
			talk_unknown(t, 0);
		half_leave(skb, t, &t->half[g.answers & 1]);
	}
	return 1;
}

#ifdef WEIR_TLS
/* Called by talk_segments, and calls it again if the connection cannot be linked: returns 1 (pass) on every path. */
int tls_links(struct __sk_buff *skb)
{
	struct segment g = {};
	struct bpf_sock *of = NULL;
	struct tls_key session = {};
	u8 b[8] = {};
	struct talk *t = talk_packet(skb, &of, &g);

	if (!t || !of)
		return 1;
	struct sock *sk = plain_sock(of);

	if (PROBE(sk, sk_lock.owned) && tls_session(sk, &session)) {
		bpf_skb_load_bytes(skb, g.at, b, 6);
		tls_begin(t, &session, tls_hello(b));
	}
	if (!t->linked)
		readers.call(skb, WEIR_READER_SEGMENTS);
	return 1;
}
#endif

#endif
