// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* tcp_hooks.h: where the TCP handlers are called from, one set of entry points a variant.
 *
 * storage     tp_btf with socket storage; live sockets are read by an iterator at each drain.
 *             Nothing runs on the data path. Linux 5.12 (atomics that return) and later.
 * tracepoint  raw tracepoints with a hash by socket pointer, read by an iterator at each drain;
 *             sock_send_length and sock_recv_length (Linux 6.3), where they exist, take over a live
 *             socket's counters at each call.
 * kprobe      the same from kprobes, for kernels without these tracepoints.
 *
 * The hooks on the data path only hasten what is counted: all bytes come from the kernel's
 * counters, so a way of sending that has no hook (sendfile, splice, io_uring, kTLS) shows at
 * the next call or at close, never wrong.
 */
#ifndef WEIR_TCP_HOOKS_H
#define WEIR_TCP_HOOKS_H

#include "reset.h"
#include "tcp.h"

#ifdef WEIR_ITERATORS
/* One record a live socket, for the views. */
static __always_inline void tcp_record(struct sock *sk, struct conn *c, struct seq_file *seq)
{
	struct weir_record r = {};
	struct tcp_sock *tp = tcp_of(sk);

	if (!tp)
		return;
	r.family = sock_addresses(sk, r.laddr, r.raddr);
	r.socket = (u64)sk;
	r.sent_bytes = tcp_sent(tp) - c->base_sent;
	r.received_bytes = tcp_received(sk, tp) - c->base_received;
	r.born_ns = c->born_ns;
	r.cgroup = cgroup_id(sock_cgroup(sk));
	r.netns = sock_netns(sk);
	r.tgid = c->owner.tgid;
	r.slot = c->slot;
	r.retransmitted = GET(tp, total_retrans);
	r.srtt_us = GET(tp, srtt_us) >> 3;
	r.lport = GET(sk, __sk_common.skc_num);
	r.rport = bpf_ntohs(GET(sk, __sk_common.skc_dport));
	r.state = GET(sk, __sk_common.skc_state);
	r.proto = IPPROTO_TCP;
	r.role = c->role;
	__builtin_memcpy(r.comm, c->owner.comm, WEIR_COMM);
	bpf_seq_write(seq, &r, sizeof(r));
}
#endif

#ifdef WEIR_STORAGE
/* tp_btf/inet_sock_set_state: every state change of every TCP socket, about four a connection. */
int tcp_state(u64 *ctx)
{
	on_state((struct sock *)ctx[0], (int)ctx[1], (int)ctx[2]);
	return 0;
}

/* tp_btf/tcp_destroy_sock: once a socket, after its close. Finds nothing to do, but for misses. */
int tcp_destroy(u64 *ctx)
{
	on_destroy((struct sock *)ctx[0]);
	return 0;
}

/* tp_btf/tcp_receive_reset: a RST was accepted. */
int tcp_reset_received(u64 *ctx)
{
	on_reset((struct sock *)ctx[0], 0);
	return 0;
}

/* tp_btf/tcp_send_reset: a RST goes out; the socket may be missing (nobody listened). */
int tcp_reset_sent(u64 *ctx)
{
	on_reset((struct sock *)ctx[0], 1);
	return 0;
}

/* iter/bpf_sk_storage_map, at each drain: a few loads a live socket, and a claim if it moved. */
int tcp_drain(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct conn *c = ctx->value;

	if (sk && c && c->phase == CONN_LIVE)
		account(sk, c, 0);
	return 0;
}

/* iter/bpf_sk_storage_map */
int tcp_records(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct conn *c = ctx->value;

	if (sk && c && c->phase != CONN_ENDED)
		tcp_record(sk, c, ctx->meta->seq);
	return 0;
}
#else
#ifdef WEIR_ITERATORS
/* iter/bpf_map_elem, at each drain. A socket may end while it is read: its memory stays a TCP
 * socket's (SLAB_TYPESAFE_BY_RCU), and what a claim takes too much, the next one gives back.
 */
int tcp_drain(struct bpf_iter__bpf_map_elem *ctx)
{
	u64 *key = ctx->key;
	struct conn *c = ctx->value;

	if (key && c && c->phase == CONN_LIVE)
		account((struct sock *)*key, c, 0);
	return 0;
}

/* iter/bpf_map_elem */
int tcp_records(struct bpf_iter__bpf_map_elem *ctx)
{
	u64 *key = ctx->key;
	struct conn *c = ctx->value;

	if (key && c && c->phase != CONN_ENDED)
		tcp_record((struct sock *)*key, c, ctx->meta->seq);
	return 0;
}
#endif

static __always_inline void on_data(struct sock *sk)
{
	struct conn *c = conn_find(sk);

	if (c && c->phase == CONN_LIVE)
		account(sk, c, 0);
}
#endif

#ifdef WEIR_TRACEPOINT
/* raw_tp/inet_sock_set_state, as tcp_state above. */
int tcp_state(struct bpf_raw_tracepoint_args *ctx)
{
	on_state((struct sock *)ctx->args[0], (int)ctx->args[1], (int)ctx->args[2]);
	return 0;
}

/* raw_tp/tcp_destroy_sock: the socket's memory is free for another after this. */
int tcp_destroy(struct bpf_raw_tracepoint_args *ctx)
{
	on_destroy((struct sock *)ctx->args[0]);
	return 0;
}

int tcp_reset_received(struct bpf_raw_tracepoint_args *ctx)
{
	on_reset((struct sock *)ctx->args[0], 0);
	return 0;
}

int tcp_reset_sent(struct bpf_raw_tracepoint_args *ctx)
{
	on_reset((struct sock *)ctx->args[0], 1);
	return 0;
}

/* raw_tp/sock_send_length, sock_recv_length: on the data path, once a system call. */
int tcp_send(struct bpf_raw_tracepoint_args *ctx)
{
	on_data((struct sock *)ctx->args[0]);
	return 0;
}

int tcp_receive(struct bpf_raw_tracepoint_args *ctx)
{
	on_data((struct sock *)ctx->args[0]);
	return 0;
}
#endif

#ifdef WEIR_KPROBE
BPF_HASH(in_call, u64, u64, 10240); /* by thread: the socket of the call it is in */

/* kprobe/tcp_set_state: all state changes but a child's SYN_RECV, which no handler needs.
 * inet_sk_state_store (listen) has no symbol; listeners come from kprobe/inet_csk_listen_start.
 */
int tcp_state(struct pt_regs *ctx, struct sock *sk, int state)
{
	on_state(sk, GET(sk, __sk_common.skc_state), state);
	return 0;
}

int tcp_listen(struct pt_regs *ctx, struct sock *sk)
{
	on_state(sk, TCP_CLOSE, TCP_LISTEN);
	return 0;
}

/* kprobe/tcp_v4_destroy_sock */
int tcp_destroy(struct pt_regs *ctx, struct sock *sk)
{
	on_destroy(sk);
	return 0;
}

/* kprobe/tcp_reset */
int tcp_reset_received(struct pt_regs *ctx, struct sock *sk)
{
	on_reset(sk, 0);
	return 0;
}

/* kprobe/tcp_v4_send_reset, tcp_v6_send_reset, tcp_send_active_reset */
int tcp_reset_sent(struct pt_regs *ctx, struct sock *sk)
{
	on_reset(sk, 1);
	return 0;
}

/* kprobe/tcp_sendmsg, tcp_recvmsg, and tcp_sendpage before 6.5 */
int tcp_call(struct pt_regs *ctx, struct sock *sk)
{
	u64 id = bpf_get_current_pid_tgid(), key = (u64)sk;

	if (conn_find(sk))
		in_call.update(&id, &key);
	return 0;
}

/* kretprobe of the same */
int tcp_return(struct pt_regs *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), *key = in_call.lookup(&id);

	if (!key)
		return 0;
	struct sock *sk = (struct sock *)*key;

	in_call.delete(&id);
	on_data(sk);
	return 0;
}
#endif

#endif
