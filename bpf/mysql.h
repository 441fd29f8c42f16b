// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* mysql.h: MySQL's and MariaDB's client/server protocol (https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html),
 * command by command. A packet has its length (24 bits) and its number within a command: a command's is 0, its
 * answer begins with 1, and the first byte of that tells an error.
 */
#ifndef WEIR_MYSQL_H
#define WEIR_MYSQL_H

#include "half.h"
#include "sql.h"

#define MYSQL_STEPS 6
#define MYSQL_ROWS  32 /* packets that are stepped over in one step */
#define MYSQL_HEAD  4

enum mysql_command {
	MYSQL_QUIT = 1,
	MYSQL_INIT_DB = 2,
	MYSQL_QUERY = 3,
	MYSQL_PING = 14,
	MYSQL_STMT_PREPARE = 22,
	MYSQL_STMT_EXECUTE = 23,
	MYSQL_STMT_SEND_LONG_DATA = 24,
	MYSQL_STMT_CLOSE = 25,
	MYSQL_STMT_RESET = 26,
	MYSQL_STMT_FETCH = 28,
	MYSQL_RESET_CONNECTION = 31,
	MYSQL_COMMANDS
};

/* capabilities of a client */
#define MYSQL_COMPRESS 0x20
#define MYSQL_SSL      0x800
#define MYSQL_ZSTD     0x4000000

#define MYSQL_GREETED 1 /* flag of the asking half: it has told its capabilities */

static __always_inline u64 mysql_length(const u8 *b)
{
	return (u64)b[0] | (u64)b[1] << 8 | (u64)b[2] << 16;
}

/* Whether a server's first bytes are its greeting: packet 0, protocol version 10, then the server's version. */
static __always_inline int mysql_greets(const u8 *b)
{
	return !b[1] && !b[2] && !b[3] && b[4] == 10 && b[5] >= '0' && b[5] <= '9';
}

/* The text of a query, behind its (empty) attributes where the client knows of such. */
static __always_inline const u8 *mysql_text(const u8 *b)
{
	u64 attributes = not_zero(b[5]) ^ 1;

	asm volatile("" : "+r"(attributes));
	return b + 5 + 2 * (attributes & 1);
}

/* Whether bytes in the middle of a connection are a query, of a kind that is known. */
static __always_inline int mysql_begins(const u64 *words, u32 n, u32 middle)
{
	const u8 *b = (const u8 *)words;

	return middle && n >= 7 + SQL_TEXT / 2 && !b[2] && !b[3] && b[4] == MYSQL_QUERY &&
	       mysql_length(b) < 65535 && sql_method(sql_word(mysql_text(b))) != SQL_OTHER;
}

static __always_inline u64 mysql_ask(struct talk *t, struct half *h, const u64 *words, u32 n)
{
	const u8 *b = (const u8 *)words;
	u64 length = mysql_length(b), command = b[4];

	if (n < MYSQL_HEAD || (n < MYSQL_HEAD + length && n < 7 + SQL_TEXT))
		return STEP_MORE;
	if (b[3] == 255) /* of a long file: from here on it is not told from a command */
		return STEP_BAD;
	if (b[3]) { /* goes on with something */
		u32 can = (u32)b[4] | (u32)b[5] << 8 | (u32)b[7] << 24;

		if (b[3] == 1 && !(h->flags & MYSQL_GREETED) && t->sure) {
			h->flags = MYSQL_GREETED;
			if (can & (MYSQL_SSL | MYSQL_COMPRESS | MYSQL_ZSTD))
				talk_unknown(t, h->began_ns);
		}
		return MYSQL_HEAD + length;
	}
	if (!length || command >= MYSQL_COMMANDS)
		return STEP_BAD;
	if (command == MYSQL_QUIT || command == MYSQL_STMT_SEND_LONG_DATA ||
	    command == MYSQL_STMT_CLOSE)
		return MYSQL_HEAD + length; /* which nobody answers */
	u64 method = SQL_OTHER;

	if (command == MYSQL_QUERY)
		method = sql_method(sql_word(mysql_text(b)));
	else if (command == MYSQL_STMT_EXECUTE)
		method = SQL_EXECUTE;
	else if (command == MYSQL_STMT_PREPARE)
		method = SQL_PREPARE;
	else if (command == MYSQL_PING)
		method = SQL_PING;
	else if (command == MYSQL_INIT_DB)
		method = SQL_INIT_DB;
	else if (command == MYSQL_STMT_FETCH)
		method = SQL_FETCH;
	else if (command == MYSQL_STMT_RESET || command == MYSQL_RESET_CONNECTION)
		method = SQL_RESET;
	ONCE(h->found) = method;
	if (talk_waiting(t))
		t->pipelines = 1;
	return talk_push(t, h->began_ns, ONCE(h->found) & METHOD_BITS) ? MYSQL_HEAD + length
								       : STEP_BAD;
}

static __always_inline u64 mysql_reply(struct talk *t, struct half *h, const u64 *words, u32 n)
{
	const u8 *b = (const u8 *)words;
	u64 length = mysql_length(b), asked = talk_oldest(t);

	if (n < MYSQL_HEAD + 1)
		return STEP_MORE;
	if (!asked) { /* the greeting, and what else is said before the first command */
		if (!t->sure && !mysql_greets(b))
			return STEP_BAD;
		t->sure = 1;
		h->state = TALK_TURN;
		return MYSQL_HEAD + length;
	}
	if (b[3] == 1) {
		t->sure = 1;
		t->first++;
		ONCE(h->found) = b[4] == 0xff ? SQL_ERROR : SQL_OK;
		talk_answered(t, WEIR_PROTO_MYSQL, asked, ONCE(h->found), h->began_ns);
	} else if (
		!t->sure ||
		b[3] == 255) { /* numbers begin anew: an answer's first one is not to be told any more */
		return STEP_BAD;
	}
	if (!talk_waiting(t))
		h->state = TALK_TURN;
	return MYSQL_HEAD + length;
}

/* Steps over packets that go on with an answer or with a file, of which there may be thousands in a segment. */
static __always_inline void mysql_rows(carrier *ctx, struct half *h)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MYSQL_ROWS; i++) {
		u8 b[8] = {};

		asm volatile("" : "+r"(i));
		if (h->next < h->pos || h->next + MYSQL_HEAD > h->end || h->held)
			break;
		u32 off = h->next - h->pos;

		if (carry(ctx, h->at + off, b, MYSQL_HEAD) || b[3] < 2 || b[3] == 255)
			break;
		h->next += MYSQL_HEAD + mysql_length(b);
	}
}

/* Called by the program that a connection begins with and by itself: returns DONE on every path. */
int mysql_messages(carrier *ctx)
{
	holder *held = holder_of(ctx);
	struct talk *t = held ? talk_held(held) : NULL;

	if (!t)
		return DONE;
	u32 answers = talk_reads(ctx, held, t);
	struct half *h = &t->half[answers & 1];

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MYSQL_STEPS; i++) {
		asm volatile("" : "+r"(i), "+r"(t), "+r"(h));
		if (t->sure && h->state == TALK_START)
			mysql_rows(ctx, h);
		u64 b[TALK_WORDS] = {};
		u32 n = half_wants(h) ? half_load(ctx, h, b) : 0;

		if (!n) {
			half_leave(ctx, t, h);
			return DONE;
		}
		u64 taken = answers ? mysql_reply(t, h, b, n) : mysql_ask(t, h, b, n);

		if (!half_took(ctx, t, h, answers, taken, b, n))
			return DONE;
	}
	half_again(ctx, t, h);
	return DONE;
}

#endif
