// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* sql.h: the kinds of SQL statements that are told apart, by a statement's first word. */
#ifndef WEIR_SQL_H
#define WEIR_SQL_H

#include "words.h"

/* layout.SQL_METHODS has them in this order. */
enum sql_method {
	SQL_NONE,
	SQL_OTHER,
	SQL_SELECT,
	SQL_INSERT,
	SQL_UPDATE,
	SQL_DELETE,
	SQL_MERGE,
	SQL_REPLACE,
	SQL_BEGIN,
	SQL_START,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_SAVEPOINT,
	SQL_RELEASE,
	SQL_SET,
	SQL_SHOW,
	SQL_CREATE,
	SQL_ALTER,
	SQL_DROP,
	SQL_TRUNCATE,
	SQL_COPY,
	SQL_FETCH,
	SQL_DECLARE,
	SQL_CLOSE,
	SQL_CALL,
	SQL_DO,
	SQL_EXPLAIN,
	SQL_ANALYZE,
	SQL_VACUUM,
	SQL_LOCK,
	SQL_LISTEN,
	SQL_NOTIFY,
	SQL_GRANT,
	SQL_REVOKE,
	SQL_PREPARE,
	SQL_EXECUTE,
	SQL_DEALLOCATE,
	SQL_RESET,
	SQL_DISCARD,
	SQL_WITH,
	SQL_VALUES,
	SQL_USE,
	SQL_LOAD,
	SQL_MOVE,
	SQL_PING,
	SQL_INIT_DB,
	SQL_METHODS
};

/* A reply's status in a row. */
enum sql_status { SQL_OK = 1, SQL_ERROR };

#define SQL_TEXT 16 /* bytes of a statement in which its first word is looked for */

/* The first word of a statement in capitals, at most eight letters, behind at most seven blanks or brackets. */
static __always_inline u64 sql_word(const u8 *b)
{
	u64 word = 0, more = 1, blanks = 0;

#pragma unroll
	for (u32 i = 0; i < 7; i++) {
		more &= within(b[i], '\t', '\r') | within(b[i], ' ', ' ') | within(b[i], '(', '(');
		blanks += more;
	}
	more = 1;
	asm volatile("" : "+r"(blanks));
	b += blanks & 7;
#pragma unroll
	for (u32 i = 0; i < 8; i++) {
		more &= within(b[i] | 32, 'a', 'z');
		word |= (u64)(b[i] & 0xdf) * more << 8 * i;
	}
	return word;
}

/* The kind of statement that begins with this word. Without branches: each is one more path to the verifier. */
static __always_inline u64 sql_method(u64 word)
{
	u64 method = 0;

#define IS(id, ...) method += SQL_##id * (not_zero(word ^ W8(__VA_ARGS__)) ^ 1)
	IS(SELECT, 'S', 'E', 'L', 'E', 'C', 'T', 0, 0);
	IS(INSERT, 'I', 'N', 'S', 'E', 'R', 'T', 0, 0);
	IS(UPDATE, 'U', 'P', 'D', 'A', 'T', 'E', 0, 0);
	IS(DELETE, 'D', 'E', 'L', 'E', 'T', 'E', 0, 0);
	IS(MERGE, 'M', 'E', 'R', 'G', 'E', 0, 0, 0);
	IS(REPLACE, 'R', 'E', 'P', 'L', 'A', 'C', 'E', 0);
	IS(BEGIN, 'B', 'E', 'G', 'I', 'N', 0, 0, 0);
	IS(START, 'S', 'T', 'A', 'R', 'T', 0, 0, 0);
	IS(COMMIT, 'C', 'O', 'M', 'M', 'I', 'T', 0, 0);
	IS(ROLLBACK, 'R', 'O', 'L', 'L', 'B', 'A', 'C', 'K');
	IS(SAVEPOINT, 'S', 'A', 'V', 'E', 'P', 'O', 'I', 'N');
	IS(RELEASE, 'R', 'E', 'L', 'E', 'A', 'S', 'E', 0);
	IS(SET, 'S', 'E', 'T', 0, 0, 0, 0, 0);
	IS(SHOW, 'S', 'H', 'O', 'W', 0, 0, 0, 0);
	IS(CREATE, 'C', 'R', 'E', 'A', 'T', 'E', 0, 0);
	IS(ALTER, 'A', 'L', 'T', 'E', 'R', 0, 0, 0);
	IS(DROP, 'D', 'R', 'O', 'P', 0, 0, 0, 0);
	IS(TRUNCATE, 'T', 'R', 'U', 'N', 'C', 'A', 'T', 'E');
	IS(COPY, 'C', 'O', 'P', 'Y', 0, 0, 0, 0);
	IS(FETCH, 'F', 'E', 'T', 'C', 'H', 0, 0, 0);
	IS(DECLARE, 'D', 'E', 'C', 'L', 'A', 'R', 'E', 0);
	IS(CLOSE, 'C', 'L', 'O', 'S', 'E', 0, 0, 0);
	IS(CALL, 'C', 'A', 'L', 'L', 0, 0, 0, 0);
	IS(DO, 'D', 'O', 0, 0, 0, 0, 0, 0);
	IS(EXPLAIN, 'E', 'X', 'P', 'L', 'A', 'I', 'N', 0);
	IS(ANALYZE, 'A', 'N', 'A', 'L', 'Y', 'Z', 'E', 0);
	IS(VACUUM, 'V', 'A', 'C', 'U', 'U', 'M', 0, 0);
	IS(LOCK, 'L', 'O', 'C', 'K', 0, 0, 0, 0);
	IS(LISTEN, 'L', 'I', 'S', 'T', 'E', 'N', 0, 0);
	IS(NOTIFY, 'N', 'O', 'T', 'I', 'F', 'Y', 0, 0);
	IS(GRANT, 'G', 'R', 'A', 'N', 'T', 0, 0, 0);
	IS(REVOKE, 'R', 'E', 'V', 'O', 'K', 'E', 0, 0);
	IS(PREPARE, 'P', 'R', 'E', 'P', 'A', 'R', 'E', 0);
	IS(EXECUTE, 'E', 'X', 'E', 'C', 'U', 'T', 'E', 0);
	IS(DEALLOCATE, 'D', 'E', 'A', 'L', 'L', 'O', 'C', 'A');
	IS(RESET, 'R', 'E', 'S', 'E', 'T', 0, 0, 0);
	IS(DISCARD, 'D', 'I', 'S', 'C', 'A', 'R', 'D', 0);
	IS(WITH, 'W', 'I', 'T', 'H', 0, 0, 0, 0);
	IS(VALUES, 'V', 'A', 'L', 'U', 'E', 'S', 0, 0);
	IS(USE, 'U', 'S', 'E', 0, 0, 0, 0, 0);
	IS(LOAD, 'L', 'O', 'A', 'D', 0, 0, 0, 0);
	IS(MOVE, 'M', 'O', 'V', 'E', 0, 0, 0, 0);
#undef IS
	return method + (not_zero(method) ^ 1) * SQL_OTHER;
}

#endif
