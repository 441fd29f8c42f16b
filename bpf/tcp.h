// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* tcp.h: the life of a TCP connection, from its state changes. One set of handlers; the entry
 * points (tp_btf, raw tracepoint, kprobe) are in tcp_hooks.h.
 *
 * Each event may come twice: the kernel skips a program that is already running on its CPU (and
 * counts the miss), which a preemption or a softirq brings about, so the loader attaches it twice
 * (plan.py), and the second one finds done what the first one did.
 */
#ifndef WEIR_TCP_H
#define WEIR_TCP_H

#include "tcp_conn.h"

static __always_inline void on_established(struct sock *sk, int old, u32 netns, u64 now)
{
	struct conn *c = conn_find(sk);
	int fresh = !c || c->phase != CONN_OPENING;

	if (c && c->phase == CONN_LIVE && !conn_stale(sk, c))
		return; /* the event's other copy */
	if (fresh) {
		c = conn_begin(sk, c, now);
		if (!c)
			return;
		conn_judge(sk, c, netns, old == TCP_SYN_RECV);
	}
	if (!conn_place(sk, c, netns, now)) {
		tracked_add(-1);
		conn_drop(sk);
		return;
	}
	struct weir_slot *s = slot_at(c->slot);

	if (!s)
		return;
	conn_live(c, s);
	ADD(s->opened, 1);
	s->active_ns = now;
	if (fresh || old != TCP_SYN_SENT)
		return;
	u64 us = (now - c->born_ns) / 1000;

	ADD(s->connect[hist_bucket(us)], 1);
	ADD(s->connect_sum_us, us);
}

static __always_inline u32 failure_of(struct sock *sk)
{
	int err = GET(sk, sk_err);

	if (err == ECONNREFUSED)
		return WEIR_REFUSED;
	if (err == ETIMEDOUT)
		return WEIR_TIMEOUT;
	if (err == EHOSTUNREACH || err == ENETUNREACH)
		return WEIR_UNREACHABLE;
	if (err == ECONNRESET)
		return WEIR_RESET;
	return tcp_local_port(sk) ? WEIR_ABORTED : WEIR_LOCAL;
}

static __always_inline void conn_end(struct sock *sk, struct conn *c)
{
	account(sk, c, 1);
	conn_over(c);
}

static __always_inline void on_failed(struct sock *sk, struct conn *c, u32 why, u32 netns, u64 now)
{
	if (!conn_place(sk, c, netns, now)) {
		tracked_add(-1);
		conn_drop(sk);
		return;
	}
	struct weir_slot *s = slot_at(c->slot);

	if (s) {
		ADD(s->failed[why < WEIR_FAILURES ? why : WEIR_ABORTED], 1);
		s->active_ns = now;
	}
	conn_end(sk, c); /* with the SYNs that were sent again */
}

/* Its ESTABLISHED was missed (see on_destroy): give it a slot now, so that nothing is lost. */
static __always_inline int conn_late(struct sock *sk, struct conn *c, u32 netns, u64 now)
{
	if (!conn_place(sk, c, netns, now))
		return 0;
	struct weir_slot *s = slot_at(c->slot);

	if (!s)
		return 0;
	conn_live(c, s);
	ADD(s->opened, 1);
	return 1;
}

/* Closed and never seen before: the kernel's counters still hold all of it. */
static __always_inline void on_untracked(struct sock *sk, u32 netns, u64 now)
{
	u32 zero = 0;
	u64 *ready = settled.lookup(&zero);

	if (!ready || !*ready)
		return;
	struct conn *c = conn_make(sk);

	if (!c) {
		event(WEIR_EV_STORAGE_FAILED);
		return;
	}
	conn_judge(sk, c, netns, 0);
	tracked_add(1);
	if (conn_late(sk, c, netns, now)) {
		event(WEIR_EV_UNTRACKED);
		conn_end(sk, c);
	} else {
		tracked_add(-1);
		conn_drop(sk);
	}
}

static __always_inline void on_state(struct sock *sk, int old, int new)
{
	if (new != TCP_SYN_SENT &&new != TCP_ESTABLISHED &&new != TCP_LISTEN &&new != TCP_CLOSE)
		return;
	u16 family = GET(sk, __sk_common.skc_family);

	if (GET(sk, sk_protocol) != IPPROTO_TCP || (family != AF_INET && family != AF_INET6))
		return;
	u32 netns = sock_netns(sk);

	if (!in_scope(sk, netns))
		return;
	u64 now = bpf_ktime_get_ns();
	struct conn *c;

	if (new == TCP_SYN_SENT) {
		c = conn_find(sk);
		if (c && c->phase == CONN_OPENING)
			return; /* the event's other copy */
		c = conn_begin(sk, c, now);
		if (c) {
			c->role = WEIR_SOURCE;
			c->rport = bpf_ntohs(GET(sk, __sk_common.skc_dport));
			current_owner(&c->owner);
		}
	} else if (new == TCP_ESTABLISHED) {
		on_established(sk, old, netns, now);
	} else if (new == TCP_LISTEN) {
		struct owner o = {};

		current_owner(&o);
		listener_add(sk, netns, &o);
	} else if (new == TCP_CLOSE && old == TCP_LISTEN) {
		listener_remove(sk, netns);
	} else if (new == TCP_CLOSE) {
		c = conn_find(sk);
		if (c && c->phase == CONN_ENDED)
			return;
		if (!c && old != TCP_SYN_SENT && old != TCP_SYN_RECV)
			on_untracked(sk, netns, now);
		else if (c && old == TCP_SYN_SENT)
			on_failed(sk, c, failure_of(sk), netns, now);
		else if (c && (c->phase == CONN_LIVE || conn_late(sk, c, netns, now)))
			conn_end(sk, c);
	}
}

/* Opening still when its socket goes: the kernel has an RTT only of connections that were established.
 * The application has taken sk_err by now, so the reason comes from what was seen on the way.
 */
static __always_inline void opening_destroyed(struct sock *sk, struct conn *c)
{
	struct tcp_sock *tp = tcp_of(sk);
	u32 netns = sock_netns(sk), why = c->reset ? WEIR_REFUSED : failure_of(sk);
	u64 now = bpf_ktime_get_ns();

	if (tp && GET(tp, srtt_us)) {
		if (conn_late(sk, c, netns, now))
			conn_end(sk, c);
		else
			tracked_add(-1);
		return;
	}
	/* connect(2) has waited to the end, and nobody refused; or what was sent was sent again */
	if (!c->reset && !GET(sk, __sk_common.skc_dport))
		why = WEIR_TIMEOUT;
	else if (why == WEIR_ABORTED && tp && GET(tp, total_retrans))
		why = WEIR_TIMEOUT;
	on_failed(sk, c, why, netns, now);
}

/* Last chance: a close that both copies of on_state missed is caught here, where the socket goes. */
static __always_inline void on_destroy(struct sock *sk)
{
	struct conn *c = conn_find(sk);

	if (!c)
		return;
	if (c->phase != CONN_ENDED)
		event(WEIR_EV_LATE_CLOSE);
	if (c->phase == CONN_LIVE)
		conn_end(sk, c);
	else if (c->phase == CONN_OPENING)
		opening_destroyed(sk, c);
	conn_drop(sk);
}

#endif
