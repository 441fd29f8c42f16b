// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* nat.h: translated connections, learnt from the kernel's own connection tracking when it is about to
 * confirm one, which is after all translation (netfilter's NAT and IPVS alike) and once a connection.
 *
 * What a socket speaks to is not who answers: a client dials a service's address and a backend is
 * reached; a server sees a node's address where a client was masqueraded. So each translated
 * connection has up to two entries, for how its two ends' sockets see it. They are asked when a
 * connection gets its slot. Not by namespace, since the socket's is another than the one that
 * translates; the least recently used go first.
 */
#ifndef WEIR_NAT_H
#define WEIR_NAT_H

#include "base.h"

#ifdef WEIR_NAT
struct nat_key {
	u8 local[16];
	u8 remote[16];
	u16 lport;
	u16 rport;
	u8 proto;
	u8 pad[3];
};

struct nat_to {
	u8 remote[16]; /* who is there really */
	u8 dialled
		[16]; /* what the client dialled; all zero if it dialled no other than the server */
	u16 rport;
	u16 dport;
	u32 pad;
};
BPF_TABLE("lru_hash", struct nat_key, struct nat_to, nat, SIZED);

/* struct nf_conntrack_tuple (include/net/netfilter/nf_conntrack_tuple.h); compared with BTF by
 * agent/weir/kernel/features.py. Ports are in network order.
 */
struct tuple {
	u8 src[16];
	u16 sport;
	u16 l3num;
	u8 dst[16];
	u16 dport;
	u8 proto;
	u8 dir;
};
#endif

/* The far end that is really there, and what was dialled, where the connection is translated. */
static __always_inline void edge_nat(struct weir_edge *e, u16 lport, u16 rport)
{
#ifdef WEIR_NAT
	struct nat_key k = {.lport = lport, .rport = rport, .proto = e->proto};

	__builtin_memcpy(k.local, e->laddr, 16);
	__builtin_memcpy(k.remote, e->raddr, 16);
	struct nat_to *to = nat.lookup(&k);

	if (!to)
		return;
	__builtin_memcpy(e->raddr, to->remote, 16);
	__builtin_memcpy(e->dialled, to->dialled, 16);
	e->dialled_port = to->dport;
	if (e->role == WEIR_SOURCE)
		e->port = to->rport;
#endif
}

#ifdef WEIR_NAT
static __always_inline void tuple_address(u8 *to, const u8 *from, u16 l3num)
{
	if (l3num == AF_INET6) {
		__builtin_memcpy(to, from, 16);
		return;
	}
	u32 *w = (u32 *)to;

	w[0] = w[1] = 0;
	w[2] = bpf_htonl(0xffff);
	w[3] = *(const u32 *)from;
}

static __always_inline int same_end(const u8 *a, u16 aport, const u8 *b, u16 bport, u16 l3num)
{
	const u32 *x = (const u32 *)a, *y = (const u32 *)b;

	if (aport != bport || x[0] != y[0])
		return 0;
	return l3num != AF_INET6 || (x[1] == y[1] && x[2] == y[2] && x[3] == y[3]);
}

/* include/linux/skbuff.h: the low bits of _nfct are enum ip_conntrack_info */
#define NFCT_MASK     7ULL
#define IP_CT_NEW     2
#define IPS_CONFIRMED (1ULL << 3)

/* A packet that begins a connection, after its translation. */
static __always_inline void nat_begin(struct sk_buff *skb)
{
	u64 nfct = PROBE(skb, _nfct);
	struct nf_conn *ct = (struct nf_conn *)(nfct & ~NFCT_MASK);

	if (!ct || (nfct & NFCT_MASK) > IP_CT_NEW)
		return;
	u64 status = PROBE(ct, status);

	if (status & IPS_CONFIRMED)
		return;
	struct tuple o = {}, r = {};

	read_kernel(&o, sizeof(o), &ct->tuplehash[0].tuple);
	read_kernel(&r, sizeof(r), &ct->tuplehash[1].tuple);
	if (o.proto != IPPROTO_TCP && o.proto != IPPROTO_UDP)
		return;
	int dialled = same_end(o.dst, o.dport, r.src, r.sport, o.l3num);

	if (dialled && same_end(o.src, o.sport, r.dst, r.dport, o.l3num))
		return;
	struct nat_key k = {.proto = o.proto};
	struct nat_to to = {};

	if (!dialled) {
		tuple_address(to.dialled, o.dst, o.l3num);
		to.dport = bpf_ntohs(o.dport);
		tuple_address(k.local, o.src, o.l3num);
		__builtin_memcpy(k.remote, to.dialled, 16);
		k.lport = bpf_ntohs(o.sport);
		k.rport = to.dport;
		tuple_address(to.remote, r.src, o.l3num);
		to.rport = bpf_ntohs(r.sport);
		nat.update(&k, &to);
	}
	tuple_address(k.local, r.src, o.l3num);
	tuple_address(k.remote, r.dst, o.l3num);
	k.lport = bpf_ntohs(r.sport);
	k.rport = bpf_ntohs(r.dport);
	tuple_address(to.remote, o.src, o.l3num);
	to.rport = bpf_ntohs(o.sport);
	nat.update(&k, &to);
}

/* kprobe/__nf_conntrack_confirm: once a connection, in every network namespace. */
int nat_confirm(struct pt_regs *ctx, struct sk_buff *skb)
{
	nat_begin(skb);
	return 0;
}

#ifdef HAVE_bpf_nf_ctx__skb
/* netfilter at POSTROUTING and LOCAL_IN, behind the translation; returns NF_ACCEPT on every path. Runs
 * for every packet there, and leaves after looking at its tracking state unless it is the first one.
 */
int nat_packet(struct bpf_nf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	if (skb)
		nat_begin(skb);
	return 1;
}
#endif
#endif

#endif
