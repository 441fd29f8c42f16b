// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* redis.h: Redis and what speaks its protocol (RESP 2 and 3, https://redis.io/docs/reference/protocol-spec),
 * command by command. A command is an array of bulk strings; inline commands are not read.
 */
#ifndef WEIR_REDIS_H
#define WEIR_REDIS_H

#include "half.h"
#include "redis_names.h"
#include "words.h"

#define REDIS_STEPS  8 /* in one run; one is a line, or a command's name */
#define REDIS_DIGITS 13

enum redis_state {
	REDIS_BULK = TALK_STATES, /* at the head of a command's further argument */
	REDIS_NAME,               /* at the first one's text */
	REDIS_MORE,               /* at an element of an answer's array */
	REDIS_LINE,               /* within a long line */
};

/* A reply's status in a row. */
enum redis_status { REDIS_OK = 1, REDIS_ERROR };

/* The number behind a line's first character, -1 (null) as 0; whether there is one. */
static __always_inline int redis_number(const u64 *words, u64 *number)
{
	const u8 *b = (const u8 *)words;
	u64 value = 0, digits = 0, more = 1, minus = within(b[1], '-', '-');

#pragma clang loop unroll(disable)
	for (u32 i = 1; i <= REDIS_DIGITS; i++) {
		asm volatile("" : "+r"(i));
		more &= within(b[i], '0', '9') | (minus & at_least(1, i));
		u64 digit = more & within(b[i], '0', '9');

		value = value * (1 + 9 * digit) + (b[i] & 15) * digit;
		digits += digit;
	}
	*number = minus ? 0 : value;
	return digits && digits < REDIS_DIGITS;
}

/* How many of a connection's first bytes tell whether they are a command. */
static __always_inline u32 redis_needs(const u64 *words)
{
	const u8 *b = (const u8 *)words;

	return b[0] != '*' ? 1 : within(b[2], '0', '9') ? 6 : 5;
}

/* Whether a connection's first bytes are a command: an array with a bulk string in it. */
static __always_inline int redis_begins(const u64 *words)
{
	const u8 *b = (const u8 *)words;

	return b[0] == '*' && within(b[1], '1', '9') &&
	       ((b[2] == '\r' && b[3] == '\n' && b[4] == '$') ||
		(within(b[2], '0', '9') && b[3] == '\r' && b[4] == '\n' && b[5] == '$'));
}

/* Of a command: its array's head, its arguments' heads; texts are stepped over, but for the first one's. */
static __always_inline u64 redis_command(struct talk *t, struct half *h, const u64 *b, u64 line)
{
	u32 state = h->state;
	u64 number, first = b[0] & 255;

	if (state == REDIS_NAME) {
		ONCE(h->found) = redis_method(b[0], h->length);
		u32 method = ONCE(h->found);

		if (talk_waiting(t))
			t->pipelines = 1;
		if (!talk_push(t, h->began_ns, method & METHOD_BITS))
			return STEP_BAD;
		h->state = h->left ? REDIS_BULK : TALK_START;
		return h->length + 2;
	}
	if (!redis_number(b, &number))
		return STEP_BAD;
	if (state == TALK_START) {
		if (first != '*' || !number)
			return STEP_BAD;
		h->left = number;
		h->flags = 0; /* its name is not known yet */
		h->state = REDIS_BULK;
		return line;
	}
	if (first != '$' || !h->left)
		return STEP_BAD;
	h->left--;
	if (!h->flags) {
		h->flags = 1;
		h->length = number;
		h->state = REDIS_NAME;
		return line;
	}
	if (!h->left)
		h->state = TALK_START;
	return line + number + 2;
}

/* Of an answer: each line; of bulk strings the text is stepped over. */
static __always_inline u64 redis_reply(struct talk *t, struct half *h, const u64 *b, u64 line)
{
	u64 first = b[0] & 255, number = 0, taken = line, more = 0;
	int bulk = first == '$' || first == '=' || first == '!';

	if (bulk || first == '*' || first == '~' || first == '%' || first == '>') {
		if (!redis_number(b, &number))
			return STEP_BAD;
		if (bulk)
			taken += (b[0] >> 8 & 255) == '-' ? 0 : number + 2;
		else
			more = first == '%' ? 2 * number : number;
	} else if (first != '+' && first != '-' && first != ':' && first != '_' && first != '#' &&
		   first != ',' && first != '(') {
		return STEP_BAD;
	}
	if (h->state == TALK_START) {
		u64 asked = talk_oldest(t);

		h->left = 1;
		if (asked && first != '>') { /* else a push message, nobody's answer */
			t->sure = 1;
			t->first++;
			ONCE(h->found) = first == '-' || first == '!' ? REDIS_ERROR : REDIS_OK;
			talk_answered(t, WEIR_PROTO_REDIS, asked, ONCE(h->found), h->began_ns);
			if (!t->pipelines && !talk_waiting(t)) {
				h->state = TALK_TURN;
				return taken;
			}
		}
	}
	h->left += more - 1;
	h->state = h->left ? REDIS_MORE : TALK_START;
	return taken;
}

static __always_inline u64 redis_step(struct talk *t, struct half *h, u32 answers, const u64 *b,
				      u32 n)
{
	u32 state = h->state;

	if (state == REDIS_NAME) {
		if (n < 8 && n < h->length)
			return STEP_MORE;
		return redis_command(t, h, b, 0);
	}
	u32 line = line_end(h, b, TALK_WORDS);

	if (state == REDIS_LINE) { /* the rest of a line of which nothing is wanted */
		if (line == NO_LINE)
			return n;
		h->state = h->left ? REDIS_MORE : TALK_START;
		return line + 1;
	}
	if (line == NO_LINE && n < TALK_HELD)
		return STEP_MORE;
	u64 taken = line == NO_LINE ? n : line + 1;

	taken = answers ? redis_reply(t, h, b, taken) : redis_command(t, h, b, taken);
	if (line == NO_LINE && taken != STEP_BAD && h->state != TALK_TURN) {
		if (!answers)
			return STEP_BAD;
		h->state = REDIS_LINE; /* a long status or error */
	}
	return taken;
}

/* Called by the program that a connection begins with and by itself: returns DONE on every path. */
int redis_messages(carrier *ctx)
{
	holder *held = holder_of(ctx);
	struct talk *t = held ? talk_held(held) : NULL;

	if (!t)
		return DONE;
	u32 answers = talk_reads(ctx, held, t);
	struct half *h = &t->half[answers & 1];

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < REDIS_STEPS; i++) {
		asm volatile("" : "+r"(i));
		u64 b[TALK_WORDS] = {};
		u32 n = half_wants(h) ? half_load(ctx, h, b) : 0;

		if (!n) {
			half_leave(ctx, t, h);
			return DONE;
		}
		u64 taken = redis_step(t, h, answers, b, n);

		if (!half_took(ctx, t, h, answers, taken, b, n))
			return DONE;
	}
	half_again(ctx, t, h);
	return DONE;
}

#endif
