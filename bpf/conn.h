// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* conn.h: a TCP connection's state, and taking the kernel's own counters over into its slot.
 *
 * The kernel counts every byte in struct tcp_sock. What was already added to the slot is kept
 * beside it; a reader (the iterator, a hook, the close) claims the difference by compare and
 * swap, so readers may meet on one connection and each byte is added once.
 */
#ifndef WEIR_CONN_H
#define WEIR_CONN_H

#include "edge.h"

#define CLAIMED (~0ULL) /* closed: nothing is left to claim */

/* A connection's state stays with a closed socket until this is destroyed: a RST may still follow. */
enum conn_phase { CONN_OPENING, CONN_LIVE, CONN_ENDED };

struct conn {
	u64 sent; /* already in the slot */
	u64 received;
	u64 retransmitted;
	u64 base_sent; /* what the kernel had counted before Weir looked */
	u64 base_received;
	u64 born_ns;
	u64 phase; /* enum conn_phase */
	u32 slot;
	u32 role;
	struct owner owner;
	u16 reset; /* a RST came while it was opening */
	u16 rport; /* what a source dials: its socket forgets that where connect(2) fails (tcp_disconnect) */
};

BPF_ARRAY(tracked, u64, 2); /* how many connections there are, and may be */
/* 0 while connections older than Weir are being looked for; their closes are not ours yet. */
BPF_ARRAY(settled, u64, 1);

#ifdef WEIR_STORAGE
BPF_SK_STORAGE(conns, struct conn);
static __always_inline struct conn *conn_find(struct sock *sk)
{
	return conns.sk_storage_get(sk, NULL, 0);
}

static __always_inline struct conn *conn_make(struct sock *sk)
{
	return conns.sk_storage_get(sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
}

static __always_inline void conn_drop(struct sock *sk)
{
	conns.sk_storage_delete(sk);
}
#else
BPF_TABLE("hash", u64, struct conn, conns, SIZED);
static __always_inline struct conn *conn_find(struct sock *sk)
{
	u64 key = (u64)sk;

	return conns.lookup(&key);
}

static __always_inline struct conn *conn_make(struct sock *sk)
{
	u64 key = (u64)sk;
	struct conn empty = {};

	return conns.lookup_or_try_init(&key, &empty);
}

static __always_inline void conn_drop(struct sock *sk)
{
	u64 key = (u64)sk;

	conns.delete(&key);
}
#endif

static __always_inline void tracked_add(s64 n)
{
	u32 zero = 0;
	u64 *count = tracked.lookup(&zero);

	if (count)
		ADD(*count, n);
}

static __always_inline struct conn *conn_new(struct sock *sk, u64 now)
{
	u32 zero = 0, one = 1;
	u64 *count = tracked.lookup(&zero), *limit = tracked.lookup(&one);

	if (count && limit && ONCE(*count) >= *limit) {
		event(WEIR_EV_CONNECTION_LIMIT);
		return NULL;
	}
	struct conn *c = conn_make(sk);

	if (!c) {
		event(WEIR_EV_STORAGE_FAILED);
		return NULL;
	}
	c->born_ns = now;
	tracked_add(1);
	return c;
}

/* Bytes handed to the network once: retransmits do not count (RFC 4898 tcpEStatsPerfDataOctetsOut). */
static __always_inline u64 tcp_sent(struct tcp_sock *tp)
{
	return GET(tp, bytes_sent) - GET(tp, bytes_retrans);
}

/* bytes_received counts the sequence number of the peer's FIN, which tcp_fin marks by SOCK_DONE. */
static __always_inline u64 tcp_received(struct sock *sk, struct tcp_sock *tp)
{
	u64 n = GET(tp, bytes_received);

	if (n && GET(sk, __sk_common.skc_flags) & (1ULL << SOCK_DONE))
		n--;
	return n;
}

/* Move `counted` from `old` to `now`, and the difference into the slot; last: nothing comes after. */
static __always_inline void claim(u64 *counted, u64 old, u64 now, u64 *total, int last)
{
	if (old == CLAIMED || (old == now && !last))
		return;
	if (swap(counted, old, last ? CLAIMED : now) != old) {
		event(WEIR_EV_CLAIM_LOST);
		if (!last)
			return;
		/* the only other reader has just ended: its value is the one to go on from */
		old = ONCE(*counted);
		if (old == CLAIMED || swap(counted, old, CLAIMED) != old)
			return;
	}
	if (now != old)
		ADD(*total, now - old);
}

static __always_inline void rtt_sample(struct weir_slot *s, struct tcp_sock *tp)
{
	u64 us = GET(tp, srtt_us) >> 3; /* the kernel keeps eight times the value */

	if (!us)
		return;
	ADD(s->rtt[hist_bucket(us)], 1);
	ADD(s->rtt_sum_us, us);
}

/* Take over what the connection gained since last time, with one RTT sample if it moved. */
static __always_inline void account(struct sock *sk, struct conn *c, int last)
{
	struct tcp_sock *tp = tcp_of(sk);
	struct conn *placed = after(c, ONCE(c->phase)); /* conn_live comes after conn_place */
	struct weir_slot *s = slot_at(placed->slot);

	if (!tp || !s)
		return;
	/* what was counted is read before the counter: a claim that succeeds is never negative */
	u64 sent0 = ONCE(c->sent), received0 = ONCE(c->received), again0 = ONCE(c->retransmitted);

#ifndef WEIR_STORAGE /* there only the close, which ends all claims, meets the iterator */
	tp = after(tp, sent0 | received0 | again0);
#endif
	u64 sent = tcp_sent(tp), received = tcp_received(sk, tp), again = GET(tp, total_retrans);
	int moved = sent != sent0 || received != received0;

	if (!moved && again == again0 && !last)
		return;
	claim(&c->sent, sent0, sent, &s->sent_bytes, last);
	claim(&c->received, received0, received, &s->received_bytes, last);
	claim(&c->retransmitted, again0, again, &s->retransmitted, last);
	if (c->phase == CONN_LIVE && (moved || last))
		rtt_sample(s, tp);
	s->active_ns = bpf_ktime_get_ns();
}

#endif
