// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* discover.h: what was there before Weir. Read once by the loader, then gone.
 *
 * iter/task_file walks every file of every process, so it finds each socket together with its
 * owner, in every network namespace. Sockets that no process holds (closed by the application
 * and still sending, or not yet accepted) come from iter/tcp, a namespace at a time.
 */
#ifndef WEIR_DISCOVER_H
#define WEIR_DISCOVER_H

#include "tcp.h"
#ifdef WEIR_UDP
#include "udp.h"
#endif

/* include/net/sock.h: the application chose the local address, the local port */
#define SOCK_BINDADDR_LOCK 4
#define SOCK_BINDPORT_LOCK 8
/* include/uapi/linux/stat.h */
#define S_IFMT             0170000
#define S_IFSOCK           0140000

static __always_inline u8 sock_locks(struct sock *sk)
{
	return GET(sk, sk_userlocks) >> SHIFT_sock__sk_userlocks;
}

/* Nobody saw who began: the end that listens, or did and gave its port to those it accepted, is
 * the destination. A client that binds its port itself is taken for one too.
 */
static __always_inline u32 role_of_old(struct sock *sk, struct listener *listener)
{
	return (listener && listener->open) || sock_locks(sk) & SOCK_BINDPORT_LOCK
		       ? WEIR_DESTINATION
		       : WEIR_SOURCE;
}

static __always_inline void conn_adopt(struct sock *sk, struct owner *o)
{
	u8 state = GET(sk, __sk_common.skc_state);

	if (state == TCP_CLOSE || state == TCP_LISTEN || state == TCP_NEW_SYN_RECV ||
	    state == TCP_TIME_WAIT || state == TCP_SYN_RECV)
		return;
	u32 netns = sock_netns(sk);

	if (!in_scope(sk, netns) || conn_find(sk))
		return;
	u64 now = bpf_ktime_get_ns();
	struct conn *c = conn_new(sk, now);
	struct tcp_sock *tp = tcp_of(sk);

	if (!c || !tp)
		return;
	struct listener *listener = listener_find(sk, netns);

	c->role = role_of_old(sk, listener);
	if (o)
		c->owner = *o;
	else if (listener)
		c->owner = listener->owner;
	c->base_sent = c->sent = tcp_sent(tp);
	c->base_received = c->received = tcp_received(sk, tp);
	c->retransmitted = GET(tp, total_retrans);
	if (state == TCP_SYN_SENT)
		return;
	if (!conn_place(sk, c, netns, now)) {
		tracked_add(-1);
		conn_drop(sk);
		return;
	}
	struct weir_slot *s = slot_at(c->slot);

	if (s)
		conn_live(c, s);
}

#ifdef HAVE_BPF_FUNC_sock_from_file
static __always_inline struct sock *file_sock(struct file *file)
{
	if (!file)
		return NULL;
	struct socket *sock = bpf_sock_from_file(file);

	return sock ? sock->sk : NULL;
}
#else
/* Before Linux 5.11: a file of a socket's inode, whose socket points back to it. */
static __always_inline struct sock *file_sock(struct file *file)
{
	struct inode *inode = file ? PROBE(file, f_inode) : NULL;

	if (!inode || (PROBE(inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	struct socket *sock = PROBE(file, private_data);

	return sock && PROBE(sock, file) == file ? PROBE(sock, sk) : NULL;
}
#endif

static __always_inline int is_inet(struct sock *sk, u16 proto)
{
	u16 family = GET(sk, __sk_common.skc_family);

	return (family == AF_INET || family == AF_INET6) && GET(sk, sk_protocol) == proto;
}

/* Iterators have socket storage since 5.11 too; without it a UDP socket is known from its first datagram. */
#if defined(WEIR_UDP) && defined(HAVE_BPF_FUNC_sock_from_file)
#define ADOPT_UDP
static __always_inline void udp_adopt(struct sock *sk, struct owner *o)
{
	u16 lport = GET(sk, __sk_common.skc_num);

	if (!lport || !in_scope(sk, sock_netns(sk)))
		return;
	struct udp_sock_state *u = udp_socks.sk_storage_get(sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!u || u->owner.tgid)
		return;
	u->owner = *o;
	if (u->born_ns)
		return;
	u->born_ns = bpf_ktime_get_ns();
	if (GET(sk, __sk_common.skc_dport) || !(sock_locks(sk) & SOCK_BINDADDR_LOCK))
		u->role = role_of_old(sk, NULL);
	else
		u->role = WEIR_DESTINATION; /* bound to an address, to no peer: a server */
}
#endif

/* iter/task_file, before anything is attached, since what comes in is judged by who listens, and
 * once more after it, for what began in between.
 */
int find_listeners(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct sock *sk = file_sock(ctx->file);
	struct owner o = {};

	if (!sk || !task)
		return 0;
	task_owner(task, &o);
	if (is_inet(sk, IPPROTO_TCP) && GET(sk, __sk_common.skc_state) == TCP_LISTEN) {
		u32 netns = sock_netns(sk);

		if (in_scope(sk, netns))
			listener_adopt(sk, netns, &o);
	}
#ifdef ADOPT_UDP
	if (is_inet(sk, IPPROTO_UDP))
		udp_adopt(sk, &o);
#endif
	return 0;
}

/* iter/task_file, after attaching */
int find_connections(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct sock *sk = file_sock(ctx->file);
	struct owner o = {};

	if (!sk || !task || !is_inet(sk, IPPROTO_TCP))
		return 0;
	task_owner(task, &o);
	conn_adopt(sk, &o);
	return 0;
}

/* iter/tcp, last: in the reader's network namespace */
int find_orphans(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;

	if (!skc)
		return 0;
	struct tcp_sock *tp = (struct tcp_sock *)bpf_skc_to_tcp_sock(skc);

	if (tp && is_inet((struct sock *)tp, IPPROTO_TCP))
		conn_adopt((struct sock *)tp, NULL);
	return 0;
}

#endif
