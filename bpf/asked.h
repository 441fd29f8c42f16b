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
#define METHOD_BITS 63ULL
#define ROUTE_SHIFT 54
#define ASKED_NS    (((1ULL << ROUTE_SHIFT) - 1) & ~METHOD_BITS)

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
	return (asked & METHOD_BITS) | asked >> ROUTE_SHIFT << 8;
#else
	return asked & METHOD_BITS;
#endif
}

#endif
