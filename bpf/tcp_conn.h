// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* tcp_conn.h: a TCP connection's place among the edges, and what begins and ends its state. */
#ifndef WEIR_TCP_CONN_H
#define WEIR_TCP_CONN_H

#include "listen.h"

/* Gives the connection its slot; 0 if its port is out of scope. */
static __always_inline int conn_place(struct sock *sk, struct conn *c, u32 netns, u64 now)
{
	struct weir_edge e = {};
	u16 rport = bpf_ntohs(GET(sk, __sk_common.skc_dport));

	if (!rport)
		rport = c->rport;
	e.port = c->role == WEIR_SOURCE ? rport : tcp_local_port(sk);
	if (!port_in_scope(e.port))
		return 0;
	e.family = sock_addresses(sk, e.laddr, e.raddr);
	e.cgroup = cgroup_id(sock_cgroup(sk));
	e.netns = netns;
	e.proto = IPPROTO_TCP;
	e.role = c->role;
#ifdef WEIR_BY_PROCESS
	__builtin_memcpy(e.comm, c->owner.comm, WEIR_COMM);
#endif
	edge_nat(&e, tcp_local_port(sk), rport);
	fold_remote(&e);
	c->slot = slot_of(&e, c->owner.tgid, now);
	return 1;
}

static __always_inline void conn_live(struct conn *c, struct weir_slot *s)
{
	if (swap(&c->phase, CONN_OPENING, CONN_LIVE) == CONN_OPENING)
		ADD(s->live, 1);
}

static __always_inline void conn_over(struct conn *c)
{
	struct weir_slot *s = slot_at(c->slot);
	u64 before = swap(&c->phase, CONN_LIVE, CONN_ENDED);

	if (s && before == CONN_LIVE) {
		ADD(s->live, -1);
		ADD(s->closed, 1);
	}
	c->phase = CONN_ENDED;
	tracked_add(-1);
}

/* A new connection's state; what an earlier one left on the same socket (or address) goes first. */
static __always_inline struct conn *conn_begin(struct sock *sk, struct conn *left, u64 now)
{
	if (left) {
		if (left->phase != CONN_ENDED)
			conn_over(left); /* neither its close nor its end was seen */
		conn_drop(sk);
	}
	return conn_new(sk, now);
}

/* Nobody saw it begin: it was accepted if that is sure or if its local port is listened on. */
static __always_inline void conn_judge(struct sock *sk, struct conn *c, u32 netns, int accepted)
{
	struct listener *l = listener_find(sk, netns);

	accepted |= l && l->open;
	c->role = accepted ? WEIR_DESTINATION : WEIR_SOURCE;
	if (l && accepted)
		c->owner = l->owner;
}

/* What another connection left on this socket, or on another one at its address: the kernel's counters
 * of one connection never go down.
 */
static __always_inline int conn_stale(struct sock *sk, struct conn *c)
{
	struct tcp_sock *tp = tcp_of(sk);

	return tp && (ONCE(c->sent) > tcp_sent(tp) || ONCE(c->received) > tcp_received(sk, tp));
}

#endif
