// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* base.h: constants, reading, counting. Every program builds on this.
 *
 * GET(p, member) reads a member of a kernel struct: a plain load, checked by the verifier
 * against BTF, where programs get BTF-typed pointers (WEIR_TYPED), else
 * read_kernel. So handlers are written once for all hooks.
 */
#ifndef WEIR_BASE_H
#define WEIR_BASE_H

#include "weir.h"

#include "kernel.h"

/* bpf_probe_read_user, _kernel, _kernel_str by their numbers (include/uapi/linux/bpf.h). By name BCC takes
 * the older bpf_probe_read, which not all programs may call, where /proc/kallsyms hides addresses (without
 * CAP_SYSLOG).
 */
static int (*read_user)(void *to, u32 size, const void *from) = (void *)112;
static int (*read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static int (*read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;

#define PROBE(p, member)                                    \
	({                                                  \
		typeof((p)->member) v_ = 0;                 \
		read_kernel(&v_, sizeof(v_), &(p)->member); \
		v_;                                         \
	})
#ifdef WEIR_TYPED
#define GET(p, member) ((p)->member)
#else
#define GET(p, member) PROBE(p, member)
#endif

#define ADD(counter, n) __sync_fetch_and_add(&(counter), (n))
#define ONCE(x)         (*(volatile typeof(x) *)&(x))

/* Entries of a map that the loader makes as large as its options say: agent/weir/kernel/plan.py. */
#define SIZED 1

/* p, for loads that must come after the one that gave `loaded`. BPF has no barrier, but an address that
 * depends on a load is one where machines reorder loads (arm64; Documentation/memory-barriers.txt).
 */
static __always_inline void *after(void *p, u64 loaded)
{
	asm volatile("%0 &= 0" : "+r"(loaded));
	return p + loaded;
}

BPF_F_TABLE("array", u32, struct weir_slot, slots, SIZED, BPF_F_MMAPABLE);
BPF_TABLE("percpu_array", u32, u64, events, WEIR_EVENTS);

#ifdef WEIR_NO_CMPXCHG
BPF_HASH(swaps, u64, u8, 1024); /* counters that are being swapped just now, by their address */
#endif

/* Compare and swap; what was there before, so `old` if it was swapped. Before Linux 5.12 BPF has no
 * such atomic: there an entry that only one can insert is the lock, and who comes second loses.
 */
static __always_inline u64 swap(u64 *counter, u64 old, u64 new)
{
#ifdef WEIR_NO_CMPXCHG
	u64 key = (u64)counter, was = ~old;
	u8 one = 1;

	if (swaps.insert(&key, &one))
		return was;
	was = ONCE(*counter);
	if (was == old)
		ONCE(*counter) = new;
	swaps.delete(&key);
	return was;
#else
	return __sync_val_compare_and_swap(counter, old, new);
#endif
}

/* Comparisons without a branch, since each branch is one more path to the verifier: 1 or 0. */
static __always_inline u64 under(s64 a, s64 b)
{
	u64 more = a - b;

	asm volatile("" : "+r"(more)); /* else clang makes it a comparison again */
	more >>= 63;
	asm volatile("" : "+r"(more)); /* or a choice of what it is multiplied with */
	return more;
}

static __always_inline u64 at_least(s64 a, s64 b)
{
	return under(a, b) ^ 1;
}

static __always_inline u64 not_zero(u64 v)
{
	u64 minus = -v;

	asm volatile("" : "+r"(minus));
	minus = (v | minus) >> 63;
	asm volatile("" : "+r"(minus));
	return minus;
}

static __always_inline u64 equals(u64 a, u64 b)
{
	return not_zero(a ^ b) ^ 1;
}

static __always_inline u64 within(s64 v, s64 low, s64 high)
{
	return at_least(v, low) & at_least(high, v);
}

static __always_inline void event_add(u32 which, u64 count)
{
	u64 *n = events.lookup(&which);

	if (n)
		*n += count; /* one CPU's own */
}

static __always_inline void event(u32 which)
{
	event_add(which, 1);
}

/* Bucket of a time in microseconds; layout.bucket_bounds_us is its inverse. */
static __always_inline u64 hist_bucket(u64 us)
{
	u64 v = us >> 2, msb = 0, bucket = v;

	if (v >> 25) {
		bucket = WEIR_BUCKETS - 1;
	} else if (v >= 4) {
#pragma unroll
		for (u32 i = 2; i < 25; i++)
			if (v >> i)
				msb = i;
		bucket = 4 * (msb - 1) + ((v >> (msb - 2)) & 3);
	}
	/* clang knows the bound and would drop the check that the verifier needs */
	asm volatile("" : "+r"(bucket));
	return bucket < WEIR_BUCKETS ? bucket : WEIR_BUCKETS - 1;
}

#endif
