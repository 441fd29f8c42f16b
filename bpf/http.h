// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* http.h: HTTP/1.0 and 1.1 (RFC 9112), message by message: start line, the two header lines that tell how
 * long the body is, chunk sizes. Bodies are stepped over.
 */
#ifndef WEIR_HTTP_H
#define WEIR_HTTP_H

#include "begin.h"
#include "http_fields.h"

/* A chunk's size, in hexadecimal digits; whether there is one. */
static __always_inline int http_chunk(struct half *h, const u64 *words)
{
	const u8 *b = (const u8 *)words;
	u64 size = 0, digits = 0, more = 1;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 13; i++) {
		asm volatile("" : "+r"(i)); /* as a loop that 6.1 takes */
		u64 letter = within(b[i] | 32, 'a', 'f');

		more &= within(b[i], '0', '9') | letter;
		size = size << 4 * more | ((b[i] & 15) + 9 * letter) * more;
		digits += more;
	}
	h->length = size;
	return digits && digits < 13;
}

/* Behind the empty line that ends a head, of so many bytes. */
static __always_inline u64 http_ended(struct talk *t, struct half *h, u32 answers, u64 bytes)
{
	u64 body = http_body(h, answers);

	if (answers && (h->flags & (HTTP_UPGRADE | HTTP_H2C)) == HTTP_UPGRADE)
		http_upgraded(t, h);
	return bytes + body;
}

/* A connection goes on as HTTP/2: the answer that said so was not read. */
static __always_inline void http_missed(struct talk *t)
{
	event_add(WEIR_EV_REQUEST_UNPARSED, talk_waiting(t));
	t->first = t->last;
	t->half[ANSWERS].state = TALK_LOST;
}

/* At a line of a head, or within a long one. */
static __always_inline u64 http_head(struct talk *t, struct half *h, u32 answers, const u64 *b,
				     u32 n)
{
	u32 line = http_skip(h, answers, b), state = h->state;
	u64 taken = line == NO_LINE ? n : line + 1;

	if (state == TALK_START && !answers && (!t->protocol || b[0] == H2_PRI)) {
		if (t->protocol)
			http_missed(t);
		t->protocol = protocol_of(b, n, t->tries > 1);
		if (t->protocol)
			return STEP_OTHER;
	}
	/* of a line that is not whole, its beginning is needed */
	if (line == NO_LINE && n < TALK_HELD && state != HTTP_LINE)
		return STEP_MORE;
	int empty = (b[0] & FIRST(2)) == W4('\r', '\n', 0, 0) || (b[0] & FIRST(1)) == '\n';
	u64 ended = (b[0] & FIRST(1)) == '\n' ? 1 : 2;

	if (state == TALK_START) {
		if (!answers && !t->protocol && n < redis_needs(b))
			return STEP_MORE;
		if (!answers && !t->protocol && redis_begins(b)) {
			t->protocol = WEIR_PROTO_REDIS;
			return STEP_OTHER;
		}
		if (empty && !answers)
			return ended; /* RFC 9112 2.2: empty lines before a request are to be ignored */
		h->state = HTTP_HEADERS;
		if (!(answers ? http_answer(t, h, b) : http_request(t, h, b)))
			return STEP_BAD;
	} else if (state == HTTP_HEADERS) {
		if (empty)
			return http_ended(t, h, answers, ended);
		if (!http_header(h, b, line))
			return STEP_BAD;
	}
	if (line == NO_LINE && h->state == HTTP_HEADERS)
		h->state = HTTP_LINE;
	else if (line != NO_LINE && h->state == HTTP_LINE)
		h->state = HTTP_HEADERS;
	return taken;
}

/* At a chunk's size or at a trailer, or within a long one. */
static __always_inline u64 http_chunks(struct half *h, const u64 *b, u32 n)
{
	u32 line = line_end(h, b, TALK_WORDS), state = h->state;
	u64 taken = line == NO_LINE ? n : line + 1;

	if (line == NO_LINE && n < TALK_HELD && (state == HTTP_CHUNK || state == HTTP_TRAILERS))
		return STEP_MORE;
	if (state == HTTP_TRAILERS || state == HTTP_TRAILER_LINE) {
		int empty = (b[0] & FIRST(2)) == W4('\r', '\n', 0, 0) || (b[0] & FIRST(1)) == '\n';

		if (state == HTTP_TRAILERS && empty)
			h->state = TALK_START;
		else
			h->state = line == NO_LINE ? HTTP_TRAILER_LINE : HTTP_TRAILERS;
		return taken;
	}
	if (state == HTTP_CHUNK && !http_chunk(h, b))
		return STEP_BAD;
	if (line == NO_LINE) {
		h->state = HTTP_CHUNK_LINE;
		return taken;
	}
	h->state = h->length ? HTTP_CHUNK : HTTP_TRAILERS;
	return taken + (h->length ? h->length + 2 : 0); /* with its CRLF */
}

/* Whether what follows the head that was read is HTTP/2. */
static __always_inline u64 http_becomes(struct half *h, u32 answers)
{
	return answers & equals(h->state, TALK_START) & not_zero(h->flags & HTTP_H2C);
}

/* One step: `n` bytes from where the half reads on, the rest of b zero. As many as were taken, STEP_MORE or STEP_BAD. */
static __always_inline u64 http_step(struct talk *t, struct half *h, u32 answers, const u64 *b,
				     u32 n)
{
	return h->state >= HTTP_CHUNK ? http_chunks(h, b, n) : http_head(t, h, answers, b, n);
}

/* Reads messages as far as this segment has them; whether that needs another run. */
static __always_inline int http_read(carrier *ctx, struct talk *t, struct half *h, u32 answers)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < TALK_STEPS; i++) {
		asm volatile("" : "+r"(i));
		u64 b[TALK_WORDS] = {};

		if (!half_wants(h))
			return 0;
		u32 n = half_load(ctx, h, b);

		if (!n)
			return 0;
		u64 taken = http_step(t, h, answers, b, n);

		if (taken == STEP_OTHER)
			return 1; /* with what was held */
		if (taken == STEP_BAD) {
			talk_refuse(t, h, answers);
			return 0;
		}
		if (!answers && !t->protocol && talk_waiting(t))
			t->protocol = WEIR_PROTO_HTTP;
		half_advance(h, taken, b, n);
		if (!answers && t->unrouted)
			return half_wants(h);
		if (http_becomes(h, answers))
			return 1;
	}
	return 1;
}

/* Called by talk_segments and by itself: returns DONE on every path. */
int http_messages(carrier *ctx)
{
	holder *held = holder_of(ctx);
	struct talk *t = held ? talk_held(held) : NULL;

	if (!t)
		return DONE;
	u32 answers = talk_reads(ctx, held, t);
	struct half *h = &t->half[answers & 1];

	ONCE(h->found) = http_read(ctx, t, h, answers);
	if (!answers && t->unrouted)
		http_route(t);
	if (ONCE(h->found)) {
		u32 upgraded = http_becomes(h, answers);

		readers.call(ctx, upgraded ? WEIR_READER_H2_UPGRADE : t->protocol);
		if (upgraded) /* it has no program here */
			http_upgraded(t, h);
		else if (t->protocol > WEIR_PROTO_HTTP)
			talk_unknown(t, h->began_ns);
		else
			half_lose(t, h); /* more than a program may follow itself */
	}
	half_leave(ctx, t, h);
	return DONE;
}

#endif
