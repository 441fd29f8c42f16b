// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* postgres_types.h: types of PostgreSQL's messages. */
#ifndef WEIR_POSTGRES_TYPES_H
#define WEIR_POSTGRES_TYPES_H

#include "words.h"

/* Sets of message types, by a letter's lowest six bits ('3' and 's' are one, both are a server's). */
#define PG_BIT(c) (1ULL << ((c)&63))
#define PG_GROUP  (PG_BIT('P') | PG_BIT('B') | PG_BIT('E') | PG_BIT('D') | PG_BIT('C'))
#define PG_ENDS   (PG_BIT('Q') | PG_BIT('S') | PG_BIT('F'))
#define PG_ASKS                                                                       \
	(PG_GROUP | PG_ENDS | PG_BIT('H') | PG_BIT('p') | PG_BIT('X') | PG_BIT('d') | \
	 PG_BIT('c') | PG_BIT('f'))
#define PG_ANSWERS                                                                           \
	(PG_BIT('D') | PG_BIT('T') | PG_BIT('1') | PG_BIT('2') | PG_BIT('3') | PG_BIT('S') | \
	 PG_BIT('N') | PG_BIT('A') | PG_BIT('K') | PG_BIT('R') | PG_BIT('n') | PG_BIT('t') | \
	 PG_BIT('s') | PG_BIT('G') | PG_BIT('H') | PG_BIT('W') | PG_BIT('d') | PG_BIT('c') | \
	 PG_BIT('V') | PG_BIT('I') | PG_BIT('v') | PG_BIT('C') | PG_BIT('E') | PG_BIT('Z'))

static __always_inline u64 pg_in(u64 set, u64 type)
{
	return set >> (type & 63) & 1;
}

#endif
