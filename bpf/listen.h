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
BPF_TABLE("hash", struct listener_key, struct owner, listeners, WEIR_LISTENERS);

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

static __always_inline struct owner *listener_find(struct sock *sk, u32 netns)
{
	struct listener_key k;

	listener_of(sk, netns, &k);
	struct owner *o = listeners.lookup(&k);

	if (o)
		return o;
	__builtin_memset(k.addr, 0, 16);
	return listeners.lookup(&k);
}

static __always_inline void listener_add(struct sock *sk, u32 netns, struct owner *o)
{
	struct listener_key k;

	listener_of(sk, netns, &k);
	if (listeners.update(&k, o))
		event(WEIR_EV_LISTENER_FULL);
}

static __always_inline void listener_remove(struct sock *sk, u32 netns)
{
	struct listener_key k;

	listener_of(sk, netns, &k);
	listeners.delete(&k);
}

#endif
