// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* dns_tcp.h: DNS over TCP (RFC 1035 4.2.2, RFC 7766): messages behind their length, answered in any order. Queries
 * wait where those of UDP do (dns.h), by their connection's state and their id.
 */
#ifndef WEIR_DNS_TCP_H
#define WEIR_DNS_TCP_H

#include "dns.h"
#include "half.h"

#define DNS_STEPS 4
#define DNS_HEAD  14 /* length and header */

enum dns_tcp_state { DNS_NAMES = TALK_STATES, DNS_TYPE };

/* Whether bytes are the beginning of a query behind its length. */
static __always_inline int dns_begins(const u64 *words, u32 n)
{
	const u8 *b = (const u8 *)words;
	struct dns_header h;

	__builtin_memcpy(&h, b + 2, sizeof(h));
	return n >= DNS_HEAD && !(h.flags & bpf_htons(0x8000)) && (b[0] || b[1] >= DNS_HEAD + 3) &&
	       dns_plausible(&h);
}

/* At the beginning of a message. */
static __always_inline u64 dns_message(struct talk *t, struct half *h, u32 answers, const u8 *b,
				       u32 n)
{
	u64 length = (u64)b[0] << 8 | b[1];
	struct dns_header d;

	if (n < DNS_HEAD)
		return STEP_MORE;
	__builtin_memcpy(&d, b + 2, sizeof(d));
	u32 reply = (d.flags & bpf_htons(0x8000)) != 0;

	if (length < sizeof(d) || reply != answers || (!answers && !dns_plausible(&d)))
		return STEP_BAD;
	struct dns_key k = {.socket = (u64)t, .id = d.id, .nonce = t->nonce};
	struct dns_query *q = dns_queries.lookup(&k), known = {};

	if (q)
		known = *q;
	h->status = 0;
	if (answers) {
		t->sure = 1;
		if (q && !dns_queries.delete(&k)) /* else one more message of an answer */
			h->status = 1 + (bpf_ntohs(d.flags) & 15);
	}
	if (q && (h->status ||
		  !answers)) /* asked again with the same id: the first one was not answered */
		dns_count(&known, h->status, h->began_ns);
	if (answers)
		return 2 + length;
	struct dns_query fresh = {.began_ns = h->began_ns,
				  .place = (u64)t->generation << 32 | t->slot};

	dns_queries.update(&k, &fresh);
	h->length = d.id;
	h->left = length - sizeof(d);
	h->state = DNS_NAMES;
	return DNS_HEAD;
}

/* Within a query's name: to its end, if that is here. */
static __always_inline u64 dns_name(struct half *h, const u64 *words, u32 n)
{
	ONCE(h->found) = NO_LINE;
#pragma unroll
	for (u32 i = 0; i < TALK_WORDS; i++) {
		u64 zeros = zero_bytes(words[i]);

		if (zeros) {
			ONCE(h->found) = 8 * i + lowest(zeros) + 1;
			break;
		}
	}
	u64 taken = ONCE(h->found);

	if (taken > n) /* behind them all is zero */
		taken = n;
	else
		h->state = DNS_TYPE;
	if (taken > h->left)
		return STEP_BAD;
	h->left -= taken;
	return taken;
}

/* At a question's type. */
static __always_inline u64 dns_asks(struct talk *t, struct half *h, const u8 *b, u32 n)
{
	struct dns_key k = {.socket = (u64)t, .id = h->length, .nonce = t->nonce};
	struct dns_query *q = dns_queries.lookup(&k);

	if (n < 4)
		return STEP_MORE;
	if (h->left < 4)
		return STEP_BAD;
	if (q)
		q->type = (u64)b[0] << 8 | b[1];
	h->state = TALK_START;
	return h->left;
}

/* Called by the program that a connection begins with and by itself: returns DONE on every path. */
int dns_messages(carrier *ctx)
{
	holder *held = holder_of(ctx);
	struct talk *t = held ? talk_held(held) : NULL;

	if (!t)
		return DONE;
	u32 answers = talk_reads(ctx, held, t);
	struct half *h = &t->half[answers & 1];

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < DNS_STEPS; i++) {
		asm volatile("" : "+r"(i), "+r"(t), "+r"(h));
		u64 b[TALK_WORDS] = {};
		u32 n = half_wants(h) ? half_load(ctx, h, b) : 0;

		if (!n) {
			half_leave(ctx, t, h);
			return DONE;
		}
		u64 taken = h->state == TALK_START  ? dns_message(t, h, answers, (u8 *)b, n)
			    : h->state == DNS_NAMES ? dns_name(h, b, n)
						    : dns_asks(t, h, (u8 *)b, n);

		if (!half_took(ctx, t, h, answers, taken, b, n))
			return DONE;
	}
	half_again(ctx, t, h);
	return DONE;
}

#endif
