// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* sock.h: what a struct sock tells of itself: addresses, namespace, cgroup, owner, scope. */
#ifndef WEIR_SOCK_H
#define WEIR_SOCK_H

#include "base.h"

#ifdef WEIR_SCOPE_NETNS
BPF_HASH(scope_netns, u32, u8, SIZED);
#endif
#ifdef WEIR_SCOPE_CGROUP
/* One cgroup id a level of the hierarchy: a socket is in scope if its cgroup has one as ancestor. */
BPF_HASH(scope_cgroup, u64, u32, SIZED);
#endif
#ifdef WEIR_SCOPE_PORT
BPF_HASH(scope_port, u16, u8, SIZED);
#endif

struct owner {
	u32 tgid;
	char comm[WEIR_COMM];
};

static __always_inline u32 sock_netns(struct sock *sk)
{
	struct net *net = GET(sk, __sk_common.skc_net.net);

	return net ? GET(net, ns.inum) : 0;
}

/* The socket's cgroup v2: that of its creator, a listener's for accepted ones. */
static __always_inline struct cgroup *sock_cgroup(struct sock *sk)
{
#ifdef HAVE_sock_cgroup_data__cgroup
	return PROBE(sk, sk_cgrp_data.cgroup);
#else
	/* before 5.15: a pointer, or classid and prioidx with bit 0 set */
	u64 v = PROBE(sk, sk_cgrp_data.val);

	return v & 1 ? NULL : (struct cgroup *)(v & ~3ULL);
#endif
}

static __always_inline u64 cgroup_id(struct cgroup *cg)
{
	struct kernfs_node *kn = cg ? PROBE(cg, kn) : NULL;

	return kn ? PROBE(kn, id) : 0;
}

static __always_inline int cgroup_in_scope(struct cgroup *cg)
{
#ifdef WEIR_SCOPE_CGROUP
	if (!cg)
		return 0;
	u32 level = PROBE(cg, level);

	/* A hierarchy deeper than this is out of scope below; the kernel's own default is no limit. Clang
	 * would count down from an end that the verifier of 6.1 cannot follow, so it is kept from knowing i.
	 */
	for (u32 i = 0; i < 12; i++) {
		asm volatile("" : "+r"(i));
		if (i > level)
			break;
#ifdef HAVE_cgroup__ancestors
		struct cgroup *up = NULL;

		read_kernel(&up, sizeof(up), &cg->ancestors[i]);
		u64 id = cgroup_id(up);
#else
		u64 id = 0;

		read_kernel(&id, sizeof(id), &cg->ancestor_ids[i]);
#endif
		if (scope_cgroup.lookup(&id))
			return 1;
	}
	return 0;
#else
	return 1;
#endif
}

static __always_inline int in_scope(struct sock *sk, u32 netns)
{
#ifdef WEIR_SCOPE_NETNS
	if (!scope_netns.lookup(&netns))
		return 0;
#endif
#ifdef WEIR_SCOPE_CGROUP
	return cgroup_in_scope(sock_cgroup(sk));
#endif
	return 1;
}

static __always_inline int port_in_scope(u16 port)
{
#ifdef WEIR_SCOPE_PORT
	return scope_port.lookup(&port) != NULL;
#else
	return 1;
#endif
}

static __always_inline void map_v4(u8 *to, u32 addr)
{
	((u32 *)to)[0] = 0;
	((u32 *)to)[1] = 0;
	((u32 *)to)[2] = bpf_htonl(0xffff);
	((u32 *)to)[3] = addr;
}

static __always_inline int is_mapped(const u8 *addr)
{
	const u32 *w = (const u32 *)addr;

	return !w[0] && !w[1] && w[2] == bpf_htonl(0xffff);
}

/* Local and remote address of a connected socket; returns the family, 4 or 6. */
static __always_inline u8 sock_addresses(struct sock *sk, u8 *local, u8 *remote)
{
	if (GET(sk, __sk_common.skc_family) == AF_INET) {
		map_v4(local, GET(sk, __sk_common.skc_rcv_saddr));
		map_v4(remote, GET(sk, __sk_common.skc_daddr));
		return 4;
	}
	read_kernel(local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
	read_kernel(remote, 16, &sk->__sk_common.skc_v6_daddr);
	return is_mapped(local) || is_mapped(remote) ? 4 : 6;
}

static __always_inline struct tcp_sock *tcp_of(struct sock *sk)
{
#ifdef WEIR_TYPED
	return (struct tcp_sock *)bpf_skc_to_tcp_sock(sk);
#else
	return (struct tcp_sock *)sk;
#endif
}

/* The local port, also of a TCP socket that has just given it back (tcp_set_state to CLOSE clears
 * skc_num before the tracepoint); 0 if it never had one.
 */
static __always_inline u16 tcp_local_port(struct sock *sk)
{
	u16 port = GET(sk, __sk_common.skc_num);

	if (port)
		return port;
	struct inet_sock *inet = (struct inet_sock *)tcp_of(sk);

	return inet ? bpf_ntohs(PROBE(inet, inet_sport)) : 0;
}

/* A thread's process: the group leader's name, since threads are named after their work. */
static __always_inline void task_owner(struct task_struct *task, struct owner *o)
{
	struct task_struct *leader = PROBE(task, group_leader);

	o->tgid = PROBE(task, tgid);
	if (leader)
		read_kernel_str(o->comm, sizeof(o->comm), &leader->comm);
}

static __always_inline void current_owner(struct owner *o)
{
	task_owner((struct task_struct *)bpf_get_current_task(), o);
}

#endif
