// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* deferred.h: a connection's first bytes where they came before it had a socket: to a server that is told of a
 * connection with its first data only (TCP_DEFER_ACCEPT, as Apache's), behind a lost ACK, with SYN cookies. Such a
 * packet is seen at the listener (tcp_check_req); what it brings is kept until the connection's first packet.
 */
#ifndef WEIR_DEFERRED_H
#define WEIR_DEFERRED_H

#include "segment.h"

#define DEFERRED       512
#define DEFERRED_BYTES 2048

struct deferred_key {
	u32 netns;
	u32 seq; /* of the first byte */
	u16 port;
	u16 peer;
};

struct deferred {
	u64 now; /* when it came; 0: not whole yet */
	u32 len; /* of the segment */
	u32 kept;
	u8 bytes[DEFERRED_BYTES];
};

BPF_TABLE("lru_hash", struct deferred_key, struct deferred, deferred, DEFERRED);
BPF_ARRAY(deferred_blank, struct deferred, 1);

static __always_inline u32 deferred_netns(struct sock *sk)
{
	struct net *net = PROBE(sk, __sk_common.skc_net.net);

	return PROBE(net, ns.inum);
}

/* Called for a segment with payload that comes to a listener: returns 1 (pass) on every path. */
int talk_defers(struct __sk_buff *skb)
{
	struct bpf_sock *of = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;
	u32 at = tcp_header(skb), words[4], zero = 0;
	struct deferred_key key = {};

	if (!of || !at || bpf_skb_load_bytes(skb, at, words, sizeof(words)))
		return 1;
	key.netns = deferred_netns(plain_sock(of));
	key.seq = bpf_ntohl(words[1]);
	key.port = bpf_ntohl(words[0]);
	key.peer = bpf_ntohl(words[0]) >> 16;
	at += (bpf_ntohl(words[3]) >> 28) * 4;
	struct deferred *blank = deferred_blank.lookup(&zero), *e = NULL;

	if (skb->len <= at || !in_scope(plain_sock(of), key.netns) || !port_in_scope(key.port))
		return 1;
	if (blank) {
		deferred.update(&key, blank);
		e = deferred.lookup(&key);
	}
	if (!e)
		return 1;
	u64 last = skb->len - at - 1;

	e->len = last + 1;
	if (last >= DEFERRED_BYTES)
		last = DEFERRED_BYTES - 1;
	asm volatile(
		""
		: "+r"(last)); /* clang must not know what it is, and has to use what is compared */
	if (last >= DEFERRED_BYTES)
		return 1;
	asm volatile("" : "+r"(last));
	if (bpf_skb_load_bytes(skb, at, e->bytes, last + 1))
		return 1;
	e->kept = last + 1;
	ONCE(e->now) = bpf_ktime_get_ns();
	return 1;
}

/* What was kept for the connection; NULL if nothing was. */
static __always_inline struct deferred *deferred_of(struct sock *sk, struct deferred_key *key)
{
	key->netns = deferred_netns(sk);
	key->port = PROBE(sk, __sk_common.skc_num);
	key->peer = bpf_ntohs(PROBE(sk, __sk_common.skc_dport));
	struct deferred *e = deferred.lookup(key);

	return e && ONCE(e->now) ? e : NULL;
}

/* Its first segment is read as if it were at hand now. */
static __always_inline void deferred_begin(struct talk *t, struct deferred *e, u32 seq)
{
	struct half *h = &t->half[ASKS];
	u64 pos = (1ULL << 32) | seq;

	h->pos = h->next = pos;
	h->end = pos + e->kept;
	h->seen = pos + e->len;
	h->at = (u64)e->bytes;
	h->now = ONCE(e->now);
	h->state = TALK_START;
	t->half[ANSWERS].state = TALK_START;
	t->tries = 1;
	t->turn = 1 + ASKS;
}

/* Called by talk_segments for a connection that received something before its first packet was seen, and once more
 * when that has been read; calls talk_segments. Returns 1 (pass) on every path.
 */
int talk_deferred(struct __sk_buff *skb)
{
	struct bpf_sock *of = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;
	struct talk *t = of ? talks.sk_storage_get(of, 0, 0) : NULL;
	struct deferred_key key = {};

	if (!t || ONCE(t->ready) != TALK_DEFERRED)
		return 1;
	struct half *h = &t->half[ASKS];

	u32 received = PROBE((struct tcp_sock *)plain_sock(of), bytes_received);

	u32 state = PROBE(plain_sock(of), __sk_common.skc_state);
	/* tcp_rcv_nxt_update has counted a FIN as a byte */
	u32 fin = state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK || state == TCP_CLOSING;

	key.seq = h->pos ? h->pos : h->next - received;
	struct deferred *e = deferred_of(plain_sock(of), &key);

	if (!h->pos && e && e->len + fin == received) {
		u32 plain = t->protocol;
		u64 now = ONCE(e->now);

		deferred_begin(t, e, key.seq);
		if (!plain)
			readers.call(skb, 0);
		talk_unknown(t, now);
	} else if (h->pos && (!e || ONCE(e->now) != h->now)) {
		/* others' bytes took its place meanwhile */
		event_add(WEIR_EV_REQUEST_UNPARSED, talk_waiting(t));
		talk_unknown(t, 0);
	}
	deferred.delete(&key); /* nothing of it stays */
	swap(&t->ready, TALK_DEFERRED, TALK_READY);
	readers.call(skb, WEIR_READER_SEGMENTS);
	return 1;
}

#endif
