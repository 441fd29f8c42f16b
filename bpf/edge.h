// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* edge.h: from an edge to its slot; folding of remote addresses into networks. */
#ifndef WEIR_EDGE_H
#define WEIR_EDGE_H

#include "nat.h"
#include "sock.h"

BPF_TABLE("hash", struct weir_edge, u32, edges, SIZED);
/* Slots nobody uses; user space fills it and gives slots back. */
BPF_STACK(free_slots, u32, SIZED);

struct fold_key {
	u32 bits;
	u8 addr[16];
};

/* How many leading bits of a remote address to keep, by the local end's role. */
struct fold {
	u8 source;
	u8 destination;
	u8 pad[2];
};
BPF_F_TABLE("lpm_trie", struct fold_key, struct fold, folds, SIZED, BPF_F_NO_PREALLOC);

static __always_inline void fold_remote(struct weir_edge *e)
{
	struct fold_key k = {.bits = 128};
	u32 *w = (u32 *)e->raddr;

	__builtin_memcpy(k.addr, e->raddr, 16);
	e->raddr_bits = 128;
	struct fold *f = folds.lookup(&k);

	if (!f)
		return;
	u32 keep = e->role == WEIR_SOURCE ? f->source : f->destination;

	if (keep >= 128)
		return;
	e->raddr_bits = keep;
#pragma unroll
	for (u32 i = 0; i < 4; i++) {
		u32 bits = keep > 32 * i ? keep - 32 * i : 0;

		if (bits < 32)
			w[i] &= bpf_htonl(bits ? ~0U << (32 - bits) : 0);
	}
}

/* The slot of an edge, taken from the free ones if it is new; 0 (overflow) if there is none. */
static __always_inline u32 slot_of(struct weir_edge *e, u32 tgid, u64 now)
{
	u32 fresh = 0, *known = edges.lookup(e);

	if (known)
		return *known;
	if (free_slots.pop(&fresh)) {
		event(WEIR_EV_SLOT_OVERFLOW);
		return 0;
	}
	struct weir_slot *s = slots.lookup(&fresh);

	if (!s)
		return 0;
	__builtin_memcpy(&s->key, e, sizeof(*e));
	s->born_ns = now;
	s->active_ns = now;
	s->tgid = tgid;
	/* an atomic that returns is a barrier: who sees the state sees the key; generation is above it */
	u64 *state = (u64 *)&s->state, free = ONCE(*state);

	swap(state, free, free | WEIR_USED);
	if (!edges.insert(e, &fresh))
		return fresh;
	/* another CPU was first, or the table is full */
	s->state = WEIR_FREE;
	free_slots.push(&fresh, 0);
	known = edges.lookup(e);
	if (known)
		return *known;
	event(WEIR_EV_SLOT_OVERFLOW);
	return 0;
}

static __always_inline struct weir_slot *slot_at(u32 index)
{
	return slots.lookup(&index);
}

#endif
