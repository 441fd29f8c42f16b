// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* dns.h: DNS over UDP (RFC 1035 4.1), query by query: type, response code, how long the answer took.
 *
 * Called for each datagram that was counted (udp.h). A query waits, by its socket, peer and id, for the answer
 * with the same; dns_expired, at each drain, counts those that nobody answered. What it misses: answers from
 * another address than was asked, and multicast (mDNS, LLMNR), which is not looked at.
 */
#ifndef WEIR_DNS_H
#define WEIR_DNS_H

#include "tap.h"
#include "words.h"

#define DNS_TRIES 4 /* datagrams of a socket until it is taken for one without DNS */
#define DNS_TIMEOUT \
	10000000000ULL /* ns; resolvers ask again after 5 s (resolv.conf(5), timeout) or sooner */
#define DNS_NAME 128   /* bytes of a name looked at at once; it has 255 at most */

struct dns_header {
	u16 id;
	u16 flags;
	u16 questions;
	u16 answers;
	u16 authorities;
	u16 additional;
};

/* Of a socket. */
struct dns_state {
	u32 tries; /* datagrams in a row that were no DNS */
	u32 found;
};

struct dns_key {
	u64 socket; /* address of its state */
	u8 raddr[16];
	u16 rport;
	u16 id;
	u32 nonce; /* TCP: of its connection */
};

struct dns_query {
	u64 began_ns;
	u64 place; /* of its flow: slot, and above it the slot's generation */
	u64 type;  /* that was asked for, 0 if it is not known */
};
/* Where more wait than there is room for, those that waited longest are forgotten. */
BPF_TABLE("lru_hash", struct dns_key, struct dns_query, dns_queries, SIZED);

/* Whether these twelve bytes are a query's or an answer's: one question, standard opcode, zero where zero must be. */
static __always_inline int dns_plausible(struct dns_header *h)
{
	u16 flags = bpf_ntohs(h->flags);

	if (h->questions != bpf_htons(1) || flags & 0x7840)
		return 0;
	if (flags & 0x8000)
		return 1;
	return !h->answers && !h->authorities && bpf_ntohs(h->additional) <= 2;
}

/* Index of the first byte that is zero among the next ones, DNS_NAME if there is none; through `found`, so
 * that it is any number to the verifier.
 */
static __always_inline u32 dns_zero(struct __sk_buff *skb, u32 at, u32 end, u32 *found)
{
	u64 b[DNS_NAME / 8] = {}, last = end - at - 1;

	ONCE(*found) = DNS_NAME;
	if (last >= DNS_NAME)
		last = DNS_NAME - 1;
	asm volatile("" : "+r"(last));
	if (last >= DNS_NAME || bpf_skb_load_bytes(skb, at, b, last + 1))
		return DNS_NAME;
#pragma unroll
	for (u32 i = 0; i < DNS_NAME / 8; i++) {
		u64 zeros = zero_bytes(b[i]);

		if (zeros) {
			ONCE(*found) = 8 * i + lowest(zeros);
			break;
		}
	}
	return ONCE(*found);
}

/* The type that a query asks for, behind its name; 0 if the question is not one of a class that is in use. */
static __always_inline u32 dns_type(struct __sk_buff *skb, u32 at, u32 end, u32 *found)
{
	u32 zero = dns_zero(skb, at, end, found);
	u16 question[2];

	if (zero >= DNS_NAME) {
		at += DNS_NAME;
		zero = at < end ? dns_zero(skb, at, end, found) : DNS_NAME;
	}
	if (zero >= DNS_NAME || bpf_skb_load_bytes(skb, at + zero + 1, question, 4) ||
	    question[1] & bpf_htons(0x7f00))
		return 0;
	return bpf_ntohs(question[0]);
}

static __always_inline void dns_count(struct dns_query *q, u32 status, u64 now)
{
	struct weir_request_key key = {.slot = (u32)q->place, .generation = q->place >> 32};
	struct weir_slot *s = slot_at(key.slot);

	if (!s || s->generation != key.generation || s->state == WEIR_FREE) {
		event(WEIR_EV_REQUEST_LATE);
		return;
	}
	key.protocol = WEIR_PROTO_DNS;
	key.status = status;
	key.method = q->type < 256 ? q->type : 0;
	struct weir_requests *r = requests_at(row_of(&key, now));

	u64 took = status ? now - q->began_ns : TAP_UNANSWERED;

	if (!r)
		return;
	if (status)
		request_add(r, took, now);
	else
		request_untimed(r, now);
	tap_request(r, q->began_ns, 0, took, now);
}

/* A datagram with this payload; `state` is its socket's. */
static __always_inline void dns_datagram(struct __sk_buff *skb, u32 at, struct dns_state *state,
					 struct dns_key *k, u64 place, u64 now)
{
	struct dns_header h;

	if (state->tries >= DNS_TRIES || !place)
		return;
	if (bpf_skb_load_bytes(skb, at, &h, sizeof(h)) || !dns_plausible(&h)) {
		state->tries += 1;
		return;
	}
	k->id = h.id;
	struct dns_query *q = dns_queries.lookup(k);

	if (h.flags & bpf_htons(0x8000)) {
		if (!q)
			return;
		struct dns_query known = *q;

		if (dns_queries.delete(k)) /* the same answer on another CPU */
			return;
		state->tries = 0;
		dns_count(&known, 1 + (bpf_ntohs(h.flags) & 15), now);
		return;
	}
	struct dns_query fresh = {.began_ns = now, .place = place};

	fresh.type = dns_type(skb, at + sizeof(h), skb->len, &state->found);
	if (!fresh.type) {
		state->tries += 1;
		return;
	}
	if (q) /* asked again with the same id: the first one was not answered */
		dns_count(q, 0, now);
	dns_queries.update(k, &fresh);
}

#ifdef WEIR_ITERATORS
/* iter/bpf_map_elem, at each drain: queries that nobody answered. */
int dns_expired(struct bpf_iter__bpf_map_elem *ctx)
{
	struct dns_key *key = ctx->key;
	struct dns_query *q = ctx->value;
	u64 now = bpf_ktime_get_ns();

	if (!key || !q || now - q->began_ns < DNS_TIMEOUT || now < q->began_ns)
		return 0;
	struct dns_key k = *key;
	struct dns_query known = *q;

	if (!dns_queries.delete(&k))
		dns_count(&known, 0, now);
	return 0;
}
#endif

#endif
