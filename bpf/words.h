// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* words.h: looking at eight bytes at once. The first byte of a word is its lowest (little endian machines only). */
#ifndef WEIR_WORDS_H
#define WEIR_WORDS_H

#include "base.h"

#define B1(c)                      ((u64)(u8)(c))
#define W4(a, b, c, d)             (B1(a) | B1(b) << 8 | B1(c) << 16 | B1(d) << 24)
#define W8(a, b, c, d, e, f, g, h) (W4(a, b, c, d) | W4(e, f, g, h) << 32)
#define LOWER                      0x2020202020202020ULL
#define FIRST(n)                   ((1ULL << 8 * (n)) - 1) /* the first n bytes of a word */
#define EVERY(c)                   (0x0101010101010101ULL * (u8)(c))

/* 0x80 in each byte that is zero; exact in all of them. */
static __always_inline u64 zero_bytes(u64 x)
{
	return ~(((x & EVERY(0x7f)) + EVERY(0x7f)) | x | EVERY(0x7f));
}

/* Index of the lowest byte that has its highest bit set. */
static __always_inline u32 lowest(u64 mask)
{
	return (u32)((((mask & -mask) >> 7) * 0x0001020304050607ULL) >> 56);
}

/* What HTTP/2 begins with (RFC 9113 3.4). */
#define H2_PRI W8('P', 'R', 'I', ' ', '*', ' ', 'H', 'T')

#endif
