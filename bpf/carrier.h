// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* carrier.h: what brings the bytes of a conversation to the programs that read it: a packet (cgroup_skb), or
 * memory of the process that hands them to its TLS library (WEIR_USER; uprobes, tls_calls.h). Readers are
 * written once and compiled for both.
 */
#ifndef WEIR_CARRIER_H
#define WEIR_CARRIER_H

#include "talk.h"

#ifdef WEIR_USER
#include "tls.h"

typedef struct pt_regs carrier;

#define DONE 0 /* what a uprobe's program returns: perf has no business with it */

/* Copies `n` bytes from an address of the process; not 0 where they cannot be read. */
static __always_inline long carry(carrier *ctx, u64 from, void *to, u32 n)
{
	return read_user(to, n, (void *)from);
}

/* What the conversation at hand is found by: the thread's call. */
typedef struct tls_call holder;

static __always_inline holder *holder_of(carrier *ctx)
{
	struct tls_key thread = {.id = bpf_get_current_task()};

	return tls_calls.lookup(&thread);
}

static __always_inline struct talk *talk_held(holder *held)
{
	struct tls_key session = {};

	session.id = ONCE(held->session);
	session.tgid = ONCE(held->tgid);
	return (struct talk *)tls_talks.lookup(&session);
}

/* Which half of it is read: enum talk_half. */
static __always_inline u64 talk_reads(carrier *ctx, holder *held, struct talk *t)
{
	return not_zero(ONCE(held->answers));
}
#else
typedef struct __sk_buff carrier;

#define DONE 1 /* what a packet's program returns: it passes */

/* Copies `n` bytes of the packet, of which there are so many; 0. Or those that deferred.h kept. */
static __always_inline long carry(carrier *ctx, u64 at, void *to, u32 n)
{
	if (at >> 32)
		return read_kernel(to, n, (void *)at);
	return bpf_skb_load_bytes(ctx, at, to, n);
}

/* Whether the packet leaves: those that arrived have been at an interface. */
static __always_inline u64 packet_leaves(struct __sk_buff *skb)
{
	return not_zero(skb->ingress_ifindex) ^ 1;
}

/* What the conversation at hand is found by: the packet's socket. */
typedef struct bpf_sock holder;

static __always_inline holder *holder_of(carrier *ctx)
{
	return ctx->sk ? bpf_sk_fullsock(ctx->sk) : NULL;
}

static __always_inline struct talk *talk_held(holder *held)
{
	return talks.sk_storage_get(held, 0, 0);
}

/* Which half of it is read: enum talk_half. */
static __always_inline u64 talk_reads(carrier *ctx, holder *held, struct talk *t)
{
	return (equals(t->role, WEIR_SOURCE) ^ packet_leaves(ctx)) &
	       (equals(ONCE(t->ready), TALK_DEFERRED) ^ 1);
}
#endif

#endif
