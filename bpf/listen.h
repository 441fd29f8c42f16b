// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* listen.h: who listens. Accepted sockets are born in a softirq, so their owner is the listener's,
 * and the end that listens is the destination.
 */
#ifndef WEIR_LISTEN_H
#define WEIR_LISTEN_H

#include "conn.h"

struct listener_key {
	u8 addr[16]; /* all zero: any */
	u32 netns;
	u16 port;
	u16 pad;
};
/* Several sockets may share a port (SO_REUSEPORT), and one that closes, as at a reload, must not
 * take the owner of the others' connections with it: entries stay until newer ones push them out.
 */
struct listener {
	struct owner owner; /* of the last one that began to listen */
	u32 open;           /* sockets that listen now, as far as Weir saw them begin */
	u64 began; /* the last ones that began and ended: an event may come twice (tcp.h) */
	u64 ended;
};
BPF_TABLE("lru_hash", struct listener_key, struct listener, listeners, SIZED);

static __always_inline void listener_of(struct sock *sk, u32 netns, struct listener_key *k)
{
	u8 remote[16];

	__builtin_memset(k, 0, sizeof(*k));
	sock_addresses(sk, k->addr, remote);
	if (is_mapped(k->addr) && !((u32 *)k->addr)[3])
		__builtin_memset(k->addr, 0, 16);
	k->netns = netns;
	k->port = tcp_local_port(sk);
}

/* Who listens, or listened last, on the port that a connection came in by. */
static __always_inline struct listener *listener_find(struct sock *sk, u32 netns)
{
	struct listener_key k;

	listener_of(sk, netns, &k);
	struct listener *l = listeners.lookup(&k);

	if (l)
		return l;
	__builtin_memset(k.addr, 0, 16);
	return listeners.lookup(&k);
}

static __always_inline void listener_add(struct sock *sk, u32 netns, struct owner *o)
{
	struct listener_key k;
	struct listener fresh = {.owner = *o, .open = 1, .began = (u64)sk};

	listener_of(sk, netns, &k);
	struct listener *l = listeners.lookup(&k);

	if (l && l->began != (u64)sk) {
		l->owner = *o;
		l->began = (u64)sk;
		l->ended = 0;
		ADD(l->open, 1);
	} else if (!l && listeners.update(&k, &fresh)) {
		event(WEIR_EV_LISTENER_FULL);
	}
}

/* One that was there before: found more than once, counted once. */
static __always_inline void listener_adopt(struct sock *sk, u32 netns, struct owner *o)
{
	struct listener_key k;
	struct listener fresh = {.owner = *o, .open = 1};

	listener_of(sk, netns, &k);
	listeners.insert(&k, &fresh);
}

static __always_inline void listener_remove(struct sock *sk, u32 netns)
{
	struct listener_key k;

	listener_of(sk, netns, &k);
	struct listener *l = listeners.lookup(&k);

	if (l && l->open && l->ended != (u64)sk) {
		l->ended = (u64)sk;
		l->began = 0;
		ADD(l->open, -1);
	}
}

#endif
