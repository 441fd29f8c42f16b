// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* retire.h: giving an idle edge's slot back without any series going down.
 *
 * User space runs slot_fold (BPF_PROG_TEST_RUN) when an edge was idle for long and its key is out
 * of the table. What it counted moves to another edge with the same labels, by atomic adds, since
 * the kernel may be counting there; being one program run, no kill -9 can fall into the middle.
 */
#ifndef WEIR_RETIRE_H
#define WEIR_RETIRE_H

#include "edge.h"

#define FIRST_COUNTER (__builtin_offsetof(struct weir_slot, sent_bytes) / 8)
#define COUNTERS      (sizeof(struct weir_slot) / 8)
#define NO_SLOT       (~0U)

/* raw_tp, never attached; args: slot to free, slot that takes its counts (or NO_SLOT). */
int slot_fold(struct bpf_raw_tracepoint_args *ctx)
{
	u32 from = ctx->args[0], to = ctx->args[1];
	struct weir_slot *f = slots.lookup(&from), *t = NULL;
	u32 generation;

	if (!f || f->state != WEIR_RETIRING || f->live)
		return 1;
	if (to != NO_SLOT) {
		t = slots.lookup(&to);
		if (!t || t->state == WEIR_FREE)
			return 2;
	}
	generation = f->generation;
	u64 *source = (u64 *)f, *target = (u64 *)t;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < COUNTERS; i++) {
		if (i >= FIRST_COUNTER && target && source[i])
			__sync_fetch_and_add(&target[i], source[i]);
		ONCE(source[i]) = 0; /* else clang makes it a memset, which BPF lacks */
	}
	f->generation = generation + 1; /* and the state is WEIR_FREE, 0 */
	if (from)
		free_slots.push(&from, 0);
	return 0;
}

#endif
