// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* postgres.h: PostgreSQL's protocol 3 (https://www.postgresql.org/docs/current/protocol.html), statement by statement.
 *
 * A client's messages up to a Query, FunctionCall or Sync are one group, which the server ends by ReadyForQuery.
 * Within it each CommandComplete is a statement, which took since the group began or the one before it was complete;
 * an ErrorResponse ends the group's statements. A group without any (Parse and Describe) is one by itself.
 */
#ifndef WEIR_POSTGRES_H
#define WEIR_POSTGRES_H

#include "half.h"
#include "postgres_types.h"
#include "sql.h"

#define PG_STEPS 6
#define PG_ROWS  32 /* rows that are stepped over in one step */

#define PG_READY      6  /* bytes of ReadyForQuery */
#define PG_TAIL_BYTES 40 /* with the longest tag before it */

#define PG_VERSION_3 3
#define PG_SSL       0x04d2162f
#define PG_GSS       0x04d21630

/* flags of the asking half, then of the answering one */
#define PG_ASKED_TLS 1
#define PG_COMPLETED 1

static __always_inline u32 pg_u32(const u8 *b)
{
	return (u32)b[0] << 24 | (u32)b[1] << 16 | (u32)b[2] << 8 | b[3];
}

/* Whether a connection's first bytes are a startup message, or ask for encryption; in the middle of one, whether they
 * may be a Query, Parse or Bind.
 */
static __always_inline int pg_begins(const u64 *words, u32 n, u32 middle)
{
	const u8 *b = (const u8 *)words;
	u32 code = pg_u32(b + 4);

	if (n < 8)
		return 0;
	if (!(b[0] | b[1]) && (code >> 16 == PG_VERSION_3 || code == PG_SSL || code == PG_GSS))
		return 1;
	return middle && (b[0] == 'Q' || b[0] == 'P' || b[0] == 'B') && !b[1] && !b[2] &&
	       pg_u32(b + 1) > 4;
}

static __always_inline u64 pg_ask(struct talk *t, struct half *h, const u64 *words, u32 n)
{
	const u8 *b = (const u8 *)words;
	u64 type = b[0], length = pg_u32(b + 1);

	if (n < 8 && (!type || n < 5))
		return STEP_MORE;
	if (!type) { /* before anything has a type: startup, or for encryption */
		u32 code = pg_u32(b + 4);

		if (code == PG_SSL || code == PG_GSS)
			h->flags = PG_ASKED_TLS;
		else if (code >> 16 != PG_VERSION_3)
			return STEP_BAD;
		return pg_u32(b);
	}
	u64 query = not_zero(type ^ 'Q') ^ 1, parse = not_zero(type ^ 'P') ^ 1;
	u64 ends = pg_in(PG_ENDS, type), belongs = ends | pg_in(PG_GROUP, type);

	if (length < 4 || length >> 30 || !pg_in(PG_ASKS, type))
		return STEP_BAD;
	if ((query | parse) && n < 1 + length && n < 6 + SQL_TEXT)
		return STEP_MORE;
	if (!belongs)
		return 1 + length;
	if (!h->left)
		h->left = h->began_ns;
	/* the text, of a statement without a name */
	u64 named = parse & not_zero(b[5]);
	ONCE(h->found) = sql_method(sql_word(b + 5 + (parse ? 1 : 0)));
	u64 method = ONCE(h->found);

	if ((query | (parse & (named ^ 1))) && !h->method)
		h->method = method;
	if (!ends)
		return 1 + length;
	method = h->method ? h->method : SQL_OTHER;
	ONCE(h->found) = talk_push(t, h->left, method & METHOD_BITS);
	h->left = 0;
	h->method = 0;
	return ONCE(h->found) ? 1 + length : STEP_BAD;
}

/* Steps over rows (of results, of COPY in either direction), of which there may be thousands in a segment. */
static __always_inline void pg_rows(carrier *ctx, struct half *h, u32 answers)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < PG_ROWS; i++) {
		u8 b[8] = {};

		asm volatile("" : "+r"(i));
		if (h->next < h->pos || h->next + 5 > h->end || h->held)
			break;
		u32 off = h->next - h->pos;

		if (carry(ctx, h->at + off, b, 5))
			break;
		u64 length = pg_u32(b + 1);

		if ((b[0] != 'd' && !(answers && b[0] == 'D')) || length < 4 || length >> 30)
			break;
		h->next += 1 + length;
	}
}

static __always_inline u64 pg_reply(struct talk *t, struct half *h, const u64 *words, u32 n)
{
	const u8 *b = (const u8 *)words;
	u64 type = b[0], length = pg_u32(b + 1), asked = talk_oldest(t);
	struct half *asks = &t->half[ASKS];

	if (asks->flags & PG_ASKED_TLS) {
		asks->flags = 0;
		if (type == 'S' || type == 'G') {
			talk_plain(t);
			return n;
		}
		return type == 'N' ? 1 : STEP_BAD;
	}
	u64 complete = not_zero(type ^ 'C') ^ 1, failed = not_zero(type ^ 'E') ^ 1,
	    ready = not_zero(type ^ 'Z') ^ 1;

	if (n < 5 || (complete && n < 1 + length && n < 5 + SQL_TEXT))
		return STEP_MORE;
	if (length < 4 || length >> 30 || !pg_in(PG_ANSWERS, type))
		return STEP_BAD;
	t->sure = 1;
	u64 counts = complete | failed | (ready & (h->flags ^ PG_COMPLETED)) |
		     (not_zero(type ^ 'I') ^ 1);
	u64 method = SQL_OTHER;

	if (complete)
		method = sql_method(sql_word(b + 5));
	else if (failed && !h->flags)
		method = asked & METHOD_BITS;
	else if (ready)
		method = SQL_PREPARE;
	ONCE(h->found) = method;
	if (asked && counts) {
		u64 began = asked & ~METHOD_BITS;

		if (h->flags && h->left > began) /* the statement before this one */
			began = h->left & ~METHOD_BITS;
		h->status = failed ? SQL_ERROR : SQL_OK;
		talk_answered(t, WEIR_PROTO_POSTGRESQL, began | ONCE(h->found), ONCE(h->status),
			      h->now);
		h->flags = PG_COMPLETED;
		h->left = h->now;
	}
	if (asked && ready) {
		t->first++;
		h->flags = 0;
	}
	return 1 + length;
}

/* Of an answer that could not be followed, for the only query that waits: whether the segment ends it, as one does by
 * CommandComplete and ReadyForQuery. A failure is not known again.
 */
static __always_inline void pg_tail(carrier *ctx, struct talk *t, struct half *h)
{
	u64 words[PG_TAIL_BYTES / 8 + 1] = {}, found = 0;
	const u8 *b = (const u8 *)words;
	u32 off = h->end - h->pos - PG_TAIL_BYTES;

	h->next = h->end;
	if (h->end - h->pos < PG_TAIL_BYTES || carry(ctx, h->at + off, words, PG_TAIL_BYTES))
		return;
	const u8 *z = b + PG_TAIL_BYTES - PG_READY;

	if (z[0] != 'Z' || pg_u32(z + 1) != 5)
		return;
#pragma unroll
	for (u32 i = 0; i < 26; i++) { /* the shortest tag has three letters */
		u64 length = PG_TAIL_BYTES - PG_READY - i - 1; /* if it begins here */
		u64 fits = (not_zero(b[i] ^ 'C') ^ 1) & (not_zero(pg_u32(b + i + 1) ^ length) ^ 1);

		found = found * (fits ^ 1) + (i + 5) * fits;
	}
	u64 asked = talk_oldest(t);

	h->state = TALK_START;
	t->first++;
	asm volatile("" : "+r"(found));
	if (!asked || !found || h->flags) {
		event(WEIR_EV_REQUEST_UNPARSED);
		h->flags = 0;
		return;
	}
	found &= 31;
	ONCE(h->found) = sql_method(sql_word(b + found));
	talk_answered(t, WEIR_PROTO_POSTGRESQL, (asked & ~METHOD_BITS) | ONCE(h->found), SQL_OK,
		      h->now);
}

/* Called by the program that a connection begins with and by itself: returns DONE on every path. */
int postgres_messages(carrier *ctx)
{
	holder *held = holder_of(ctx);
	struct talk *t = held ? talk_held(held) : NULL;

	if (!t)
		return DONE;
	u32 answers = talk_reads(ctx, held, t);
	struct half *h = &t->half[answers & 1];

	if (h->state == TALK_TAIL) {
		pg_tail(ctx, t, h);
		half_leave(ctx, t, h);
		return DONE;
	}
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < PG_STEPS; i++) {
		asm volatile("" : "+r"(i), "+r"(t), "+r"(h));
		if (t->sure)
			pg_rows(ctx, h, answers);
		u64 b[TALK_WORDS] = {};
		u32 n = half_wants(h) ? half_load(ctx, h, b) : 0;

		if (!n) {
			half_leave(ctx, t, h);
			return DONE;
		}
		u64 taken = answers ? pg_reply(t, h, b, n) : pg_ask(t, h, b, n);

		if (!half_took(ctx, t, h, answers, taken, b, n))
			return DONE;
	}
	half_again(ctx, t, h);
	return DONE;
}

#endif
