// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* asked.h: a request that waits for its answer, in 64 bits. */
#ifndef WEIR_ASKED_H
#define WEIR_ASKED_H

#include "base.h"
#ifdef WEIR_ROUTES
#include "routes.h"
#endif

/* When it began (64 ns are nothing here, and 208 days too long to wait), its lowest bits its enum
 * weir_method, 0: no protocol known; above all that its route.
 */
#define METHOD_BITS  63ULL
#define ROUTE_SHIFT  54
/* A tap had enough when it began: its path is not kept, so it is not told of either. */
#define TAP_LEFT_OUT (1ULL << 63)
#define ASKED_NS     (((1ULL << ROUTE_SHIFT) - 1) & ~METHOD_BITS)

/* What a tap finds its path by. */
#define TAP_BITS (ASKED_NS | METHOD_BITS | TAP_LEFT_OUT)

/* How long it took, though its days are not known. */
static __always_inline u64 asked_took(u64 asked, u64 now)
{
	s64 took = (now - (asked & ASKED_NS)) << (64 - ROUTE_SHIFT);

	return took > 0 ? took >> (64 - ROUTE_SHIFT) : 0;
}

/* What its row is found by, besides its status: its method, and above 8 bits its route. */
static __always_inline u32 asked_what(u64 asked)
{
#ifdef WEIR_ROUTES
	return (asked & METHOD_BITS) | (asked >> ROUTE_SHIFT & 255) << 8;
#else
	return asked & METHOD_BITS;
#endif
}

#endif
