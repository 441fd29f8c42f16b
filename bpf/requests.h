// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* requests.h: requests counted by edge, protocol, method and status, with how long they took. */
#ifndef WEIR_REQUESTS_H
#define WEIR_REQUESTS_H

#include "edge.h"

BPF_F_TABLE("array", u32, struct weir_requests, requests, SIZED, BPF_F_MMAPABLE);
BPF_TABLE("hash", struct weir_request_key, u32, request_rows, SIZED);
/* Rows nobody uses; user space fills it and gives rows back. */
BPF_STACK(free_requests, u32, SIZED);

/* What the agent takes away for a while. */
BPF_F_TABLE("array", u32, struct weir_shed, shed, 1, BPF_F_MMAPABLE);

enum { PORT_OPAQUE = 1, PORT_SKIP };

/* Servers whose pods say so by annotations; user space keeps it. */
struct server_port {
	u8 address[16];
	u16 port;
	u8 pad[6];
};
BPF_F_TABLE("hash", struct server_port, u8, server_ports, 4096, BPF_F_NO_PREALLOC);

#ifdef WEIR_REQUEST_PORTS
BPF_HASH(request_ports, u16, u8, SIZED);
#endif

static __always_inline struct weir_requests *requests_at(u32 index)
{
	return requests.lookup(&index);
}

static __always_inline struct weir_shed *shed_at(void)
{
	u32 zero = 0;

	return shed.lookup(&zero);
}

/* Whether requests are not to be read now: the agent has too much to do, or had until a moment ago. */
static __always_inline int requests_shed(void)
{
	struct weir_shed *s = shed_at();
	u64 until = s ? ONCE(s->requests_until_ns) : 0;

	return until && until > bpf_ktime_get_ns();
}

/* A time in units of 2^-30 s, so that powers of two are those of seconds. */
static __always_inline u64 binary_ns(u64 ns)
{
	/* 2^60 / 10^9; the product of a larger time would not fit */
	return ns >> 32 ? ((ns >> 8) * 1152921505ULL) >> 22 : (ns * 1152921505ULL) >> 30;
}

/* Bucket of a duration; layout.duration_bounds is its inverse. */
static __always_inline u64 duration_bucket(u64 ns)
{
	u64 v = binary_ns(ns) | 1, msb = 0;

#pragma unroll
	for (u32 bits = 32; bits; bits >>= 1)
		msb += not_zero(v >> msb >> bits) * bits;
	/* the 16 bits below the highest one against 2^(k/16), k from 1 to 15 */
	u64 part = (v << (63 - msb) >> 47) & 0xffff, below = 0;

	below += under(part, 2902); /* (2^(1/16) - 1) * 2^16 */
	below += under(part, 5932);
	below += under(part, 9096);
	below += under(part, 12400);
	below += under(part, 15851);
	below += under(part, 19454);
	below += under(part, 23217);
	below += under(part, 27146);
	below += under(part, 31250);
	below += under(part, 35535);
	below += under(part, 40010);
	below += under(part, 44682);
	below += under(part, 49562);
	below += under(part, 54658);
	below += under(part, 59979);
	u64 bucket = msb * 16 + 15 - below;

	if (bucket < 160) /* 2^10 units are 2^-20 s */
		return 0;
	return bucket - 160 < WEIR_DURATIONS ? bucket - 160 : WEIR_DURATIONS - 1;
}

/* The row of a key, taken from the free ones if it is new; 0 (overflow) if there is none. */
static __always_inline u32 row_of(struct weir_request_key *key, u64 now)
{
	u32 fresh = 0, *known = request_rows.lookup(key);

	if (known)
		return *known;
	if (free_requests.pop(&fresh)) {
		event(WEIR_EV_REQUEST_OVERFLOW);
		return 0;
	}
	struct weir_requests *r = requests_at(fresh);

	if (!r)
		return 0;
	__builtin_memcpy(&r->key, key, sizeof(*key));
	r->born_ns = now;
	r->active_ns = now;
	/* as slot_of has it */
	u64 *state = (u64 *)&r->state, free = ONCE(*state);

	swap(state, free, free | WEIR_USED);
	if (!request_rows.insert(key, &fresh))
		return fresh;
	r->state = WEIR_FREE;
	free_requests.push(&fresh, 0);
	known = request_rows.lookup(key);
	if (known)
		return *known;
	event(WEIR_EV_REQUEST_OVERFLOW);
	return 0;
}

static __always_inline void request_add(struct weir_requests *r, u64 took, u64 now)
{
	u64 bucket = duration_bucket(took);

	asm volatile(
		""
		: "+r"(bucket)); /* clang knows the bound and would drop the verifier's check */
	if (bucket < WEIR_DURATIONS)
		ADD(r->duration[bucket], 1);
	ADD(r->sum_ns, took);
	r->active_ns = now;
}

/* A request that was never answered. */
static __always_inline void request_untimed(struct weir_requests *r, u64 now)
{
	ADD(r->untimed, 1);
	r->active_ns = now;
}

#define FIRST_REQUEST (__builtin_offsetof(struct weir_requests, untimed) / 8)
#define REQUEST_WORDS (sizeof(struct weir_requests) / 8)

/* raw_tp, never attached; args: row to free, slot that takes its counts (or ~0: nobody). As slot_fold in
 * retire.h; the row that took the counts, or ~0 for none, ~1 if the row is not idle (any more).
 */
int requests_fold(struct bpf_raw_tracepoint_args *ctx)
{
	u32 from = ctx->args[0], slot = ctx->args[1], into = ~0U, generation;
	struct weir_requests *f = requests_at(from), *t = NULL;

	if (!f || f->state != WEIR_RETIRING)
		return ~1U;
	struct weir_slot *s = slot == ~0U ? NULL : slot_at(slot);

	if (s) {
		struct weir_request_key key = f->key;

		key.slot = slot;
		key.generation = s->generation;
		into = row_of(&key, f->active_ns);
		t = requests_at(into);
	}
	generation = f->generation;
	u64 *source = (u64 *)f,
	    *target = (u64 *)(t ? t : f); /* with nobody to take them, they go */

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < REQUEST_WORDS; i++) {
		if (i >= FIRST_REQUEST && source[i])
			__sync_fetch_and_add(&target[i], source[i]);
		ONCE(source[i]) = 0;
	}
	f->generation = generation + 1;
	if (from)
		free_requests.push(&from, 0);
	return into;
}

#endif
