// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* segment.h: a TCP segment at a cgroup_skb hook, and the conversation that begins with one. */
#ifndef WEIR_SEGMENT_H
#define WEIR_SEGMENT_H

#include "packet.h"
#include "tcp_conn.h"
#include "turns.h"

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4

#define SHUTDOWN_BOTH 3 /* SHUTDOWN_MASK of net/sock.h */

static __always_inline struct conn *conn_of(struct bpf_sock *sk)
{
#ifdef WEIR_STORAGE
	return conns.sk_storage_get(sk, 0, 0);
#else
	return conn_find(plain_sock(sk));
#endif
}

/* Whether requests to this port are to be parsed: PORT_OPAQUE, PORT_SKIP or 0. */
static __always_inline u32 port_kind(struct weir_edge *e, u32 role)
{
	struct server_port server = {.port = e->port};
	u16 port = e->port;
	u8 *kind = NULL;

#ifdef WEIR_REQUEST_PORTS
	kind = request_ports.lookup(&port);
#endif
	if (kind)
		return *kind;
	__builtin_memcpy(server.address, role == WEIR_SOURCE ? e->raddr : e->laddr, 16);
	kind = server_ports.lookup(&server);
	return kind ? *kind : 0;
}

/* A connection's first payload since Weir looks. Where nothing was sent or received before, its streams are
 * read from their first byte on; else each half waits for a turn. Its enum talk_ready from now on.
 */
static __always_inline u64 talk_begin(struct bpf_sock *sk, struct talk *t, struct segment *g)
{
	struct conn *c = conn_of(sk);
	struct tcp_sock *tp = (struct tcp_sock *)plain_sock(sk);

	if (!c || c->phase != CONN_LIVE)
		return TALK_NEW;
	struct weir_slot *s = slot_at(c->slot);

	if (!s)
		return TALK_NEW;
	u64 sent_before = PROBE(tp, bytes_sent) - (g->leaves ? g->len : 0);
	int whole = !sent_before && !PROBE(tp, bytes_received);
	u32 sends = g->leaves ? g->seq : PROBE(tp, snd_nxt), receives = PROBE(tp, rcv_nxt);
	u32 asks = c->role == WEIR_SOURCE ? sends : receives;
	u32 answers = c->role == WEIR_SOURCE ? receives : sends;

	struct weir_shed *shed = shed_at();

	t->pauses = shed ? ONCE(shed->pauses) : 0;
	t->role = c->role;
	t->nonce = asks ^ answers;
	t->half[ASKS].seen = t->half[ASKS].next = (1ULL << 32) | asks;
	t->half[ANSWERS].seen = t->half[ANSWERS].next = (1ULL << 32) | answers;
	t->half[ASKS].state = whole ? TALK_START : TALK_LOST;
	t->half[ANSWERS].state = whole ? TALK_START : TALK_LOST;
	t->tries = whole ? 1 : TALK_TRIES;
	t->slot = c->slot;
	t->generation = s->generation;
	u32 kind = port_kind(&s->key, c->role);

	if (kind == PORT_SKIP)
		return TALK_SKIPPED;
	if (kind)
		talk_plain(t);
	return whole || sent_before || c->role == WEIR_SOURCE ? TALK_READY : TALK_DEFERRED;
}

/* An answerer's end of a connection that it has said nothing on: to a request that came before its first packet. */
static __always_inline int talk_silent(struct bpf_sock *sk, struct segment *g)
{
	struct tcp_sock *tp = (struct tcp_sock *)plain_sock(sk);

	return g->leaves && PROBE(tp, bytes_received) && !PROBE(tp, bytes_sent);
}

/* Packets of this connection were not looked at for a while (requests_shed): whether this CPU may go on, and did begin
 * anew. Who waits for an answer may have got it; streams are at other numbers, maybe by more than 2^31.
 */
static __always_inline int talk_anew(struct bpf_sock *sk, struct talk *t, struct segment *g)
{
	struct weir_shed *shed = shed_at();
	u64 before = ONCE(t->pauses), pauses = shed ? ONCE(shed->pauses) : before;

	if (before == pauses)
		return 1;
	if (swap(&t->pauses, before, pauses) != before)
		return 0; /* another CPU does it */
	struct tcp_sock *tp = (struct tcp_sock *)plain_sock(sk);
	u32 sends = g->leaves ? g->seq : PROBE(tp, snd_nxt);
	u32 receives = g->leaves ? PROBE(tp, rcv_nxt) : g->seq;

#pragma unroll
	for (u32 i = 0; i < 2; i++) {
		struct half *h = &t->half[i];
		u64 leaves = (t->role == WEIR_SOURCE) == (i == ASKS);

		h->seen = h->next = (1ULL << 32) | (leaves ? sends : receives);
		h->held = 0;
		h->missed = 0;
		if (h->state != TALK_OPAQUE)
			h->state = TALK_LOST;
	}
	t->turn = 0;
	talk_drop(t);
	return 1;
}

static __always_inline struct talk *talk_of(struct bpf_sock *sk, struct segment *g)
{
	struct talk *t = talks.sk_storage_get(sk, 0, 0);

	if (t)
		return ONCE(t->ready) == TALK_READY && talk_anew(sk, t, g) ? t : NULL;
	struct conn *c = g->len || talk_silent(sk, g) ? conn_of(sk) : NULL;

	if (!c || c->phase != CONN_LIVE) {
		if (g->len && !g->leaves &&
		    PROBE(plain_sock(sk), __sk_common.skc_state) == TCP_LISTEN)
			g->by = WEIR_READER_DEFERS;
		return NULL;
	}
	t = talks.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!t) {
		event(WEIR_EV_TALK_FAILED);
		return NULL;
	}
	/* two CPUs may meet on a connection's first segments */
	if (swap(&t->ready, TALK_NEW, TALK_BEGINNING))
		return NULL;
	u64 ready = talk_begin(sk, t, g);

	swap(&t->ready, TALK_BEGINNING, ready);
	if (ready == TALK_DEFERRED)
		g->by = WEIR_READER_DEFERRED;
	return ready == TALK_READY ? t : NULL;
}

#endif
