// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* udp_records.h: live UDP sockets, for the views. */
#ifndef WEIR_UDP_RECORDS_H
#define WEIR_UDP_RECORDS_H

#include "udp.h"

/* iter/bpf_sk_storage_map, for the views: one record a UDP socket that was seen. */
int udp_records(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct udp_sock_state *u = ctx->value;
	struct weir_record r = {};

	if (!sk || !u || !u->netns || !u->place)
		return 0;
	__builtin_memcpy(r.laddr, u->laddr, 16);
	__builtin_memcpy(r.raddr, u->raddr, 16);
	r.socket = (u64)sk;
	r.sent_bytes = u->sent;
	r.received_bytes = u->received;
	r.born_ns = u->born_ns;
	r.cgroup = u->cgroup;
	r.netns = u->netns;
	r.tgid = u->owner.tgid;
	r.slot = (u32)u->place;
	r.lport = u->lport;
	r.rport = u->rport;
	r.proto = IPPROTO_UDP;
	r.role = u->role;
	r.family = is_mapped(u->raddr) ? 4 : 6;
	__builtin_memcpy(r.comm, u->owner.comm, WEIR_COMM);
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}

#endif
