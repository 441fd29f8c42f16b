// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* tls_link.h: which TLS session a connection carries. Known when a thread sends a TLS record on the connection
 * from within a call of its TLS library, or as the next thing after one (libraries that write into memory, of
 * which the program then sends it). A segment that leaves while its socket is owned by a caller is sent by that
 * caller: softirqs and timers leave owned sockets alone (sock_owned_by_user, net/sock.h).
 */
#ifndef WEIR_TLS_LINK_H
#define WEIR_TLS_LINK_H

#include "segment.h"
#include "tls.h"

BPF_ARRAY(tls_blank, struct tls_talk, 1);

/* RFC 8446 5.1, 4; RFC 5246 6.2.1 */
#define TLS_RECORD_MAX 18432 /* 2^14 + 2048 */
enum { TLS_RECORD_CCS = 20, TLS_RECORD_HANDSHAKE = 22, TLS_RECORD_DATA = 23 };
enum { TLS_CLIENT_HELLO = 1, TLS_SERVER_HELLO = 2 };

/* Whether these bytes begin a TLS record. */
static __always_inline int tls_record(const u8 *b)
{
	u32 length = (u32)b[3] << 8 | b[4];

	return within(b[0], TLS_RECORD_CCS, TLS_RECORD_DATA) & equals(b[1], 3) & under(b[2], 5) &
	       within(length, 1, TLS_RECORD_MAX);
}

/* Whether nothing went over the connection before: the first messages of both ends are not encrypted. */
static __always_inline int tls_hello(const u8 *b)
{
	return equals(b[0], TLS_RECORD_HANDSHAKE) &
	       within(b[5], TLS_CLIENT_HELLO, TLS_SERVER_HELLO);
}

/* The session on whose behalf the running thread sends on this socket; whether it is known. */
static __always_inline int tls_session(struct sock *sk, struct tls_key *session)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct tls_key thread = {.id = (u64)task}, *known;
	u64 at = (u64)sk, tgid = PROBE(task, tgid);
	struct tls_call *call = tls_calls.lookup(&thread);

	known = tls_sockets.lookup(&at);
	if (known && known->tgid == tgid) {
		*session = *known;
		tls_sockets.delete(&at);
		return 1;
	}
	if (!call)
		return 0;
	session->tgid = call->tgid;
	session->id = call->kind ? call->session : call->several ? 0 : call->unlinked;
	call->unlinked = 0;
	call->several = 0;
	return session->id && session->tgid == tgid;
}

/* Links the session to the connection. `whole`: nothing went over it before. */
static __always_inline void tls_begin(struct talk *t, struct tls_key *session, int whole)
{
	u32 zero = 0;
	struct tls_talk *blank = tls_blank.lookup(&zero);

	if (!blank)
		return;
	tls_talks.update(session, blank); /* of an earlier connection, nobody waits any more */
	struct tls_talk *u = tls_talks.lookup(session);

	if (!u) {
		event(WEIR_EV_TALK_FAILED);
		return;
	}
	struct half *asks = &u->talk.half[ASKS], *answers = &u->talk.half[ANSWERS];

	asks->seen = asks->next = answers->seen = answers->next = 1ULL << 32;
	asks->state = answers->state = whole ? TALK_START : TALK_LOST;
	u->talk.tries = whole ? 1 : TALK_TRIES;
	u->talk.role = t->role;
	u->talk.nonce = t->nonce;
	u->talk.slot = t->slot;
	u->talk.generation = t->generation;
	u->key = *session;
	t->linked = 1;
	talk_unknown(t, 0);
}

/* Whether a segment that leaves, of a connection that no reader understands, begins with a TLS record. Without a
 * branch: each is one more path to the verifier.
 */
static __always_inline u64 tls_leaves(struct __sk_buff *skb, struct talk *t, struct segment *g)
{
	u64 may = g->leaves & at_least(g->len, 6) & at_least(WEIR_PROTO_TCP, t->protocol),
	    n = 6 * may;
	u8 b[8] = {};

	asm volatile("" : "+r"(n));
	if (n)
		bpf_skb_load_bytes(skb, g->at, b, 6);
	return tls_record(b);
}

#endif
