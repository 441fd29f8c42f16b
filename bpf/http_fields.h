// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* http_fields.h: what of the fields of an HTTP/1 head matters: how long the body is (RFC 9112 6), and which
 * protocol an upgrade leads to (RFC 9110 7.8).
 */
#ifndef WEIR_HTTP_FIELDS_H
#define WEIR_HTTP_FIELDS_H

#include "http_start.h"

enum http_state {
	HTTP_HEADERS = TALK_STATES, /* at the beginning of a header line */
	HTTP_LINE,                  /* within a long one */
	HTTP_CHUNK,                 /* at a chunk's size */
	HTTP_CHUNK_LINE,            /* within its long extensions */
	HTTP_TRAILERS,
	HTTP_TRAILER_LINE,
};
_Static_assert(HTTP_CHUNK == TALK_BODY, "half_lose");

/* Within a head: index of the first line feed behind which something begins that matters (content-length,
 * transfer-encoding, the end, and upgrade where there may be one), else of another one; NO_LINE if there is none.
 */
static __always_inline u32 http_skip(struct half *h, u32 answers, const u64 *b)
{
	/* at the start line, it is not known yet */
	u64 switches = equals(h->state, TALK_START) | not_zero(h->flags & HTTP_UPGRADE);
	u64 upgrade = EVERY(1) * (switches & answers);

	ONCE(h->found) = NO_LINE;
#pragma unroll
	for (u32 i = 0; i < TALK_WORDS; i++) {
		u64 feeds = zero_bytes(b[i] ^ EVERY('\n'));

		if (!feeds)
			continue;
		u64 after = b[i] >> 8 | (i + 1 < TALK_WORDS ? b[i + 1] << 56 : 0);
		u64 matters = zero_bytes((after | EVERY(32)) ^ EVERY('c')) |
			      zero_bytes((after | EVERY(32) | upgrade) ^ (EVERY('t') | upgrade)) |
			      zero_bytes((after | EVERY(7)) ^ EVERY('\r' | 7));

		if (matters & feeds) {
			ONCE(h->found) = 8 * i + lowest(matters & feeds);
			break;
		}
		ONCE(h->found) = 8 * i + lowest(feeds);
	}
	return ONCE(h->found);
}

/* A header line; whether it could be read. */
static __always_inline int http_header(struct half *h, const u64 *words, u32 line)
{
	const u8 *b = (const u8 *)words;

	if ((words[0] | LOWER) == W8('t', 'r', 'a', 'n', 's', 'f', 'e', 'r') &&
	    (words[1] | LOWER) == W8('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') &&
	    (b[16] | 32) == 'g' && b[17] == ':') {
		h->flags |=
			HTTP_CHUNKED; /* the only one that is left, and always the last (RFC 9112 6.1) */
		return 1;
	}
	if ((words[0] | LOWER) == W8('u', 'p', 'g', 'r', 'a', 'd', 'e', ':')) {
		u64 blank = equals(b[8], ' ');

		if (h->flags & HTTP_UPGRADE && (b[8 + blank] | 32) == 'h' && b[9 + blank] == '2' &&
		    (b[10 + blank] | 32) == 'c' && b[11 + blank] <= ' ')
			h->flags |= HTTP_H2C;
		return 1;
	}
	if ((words[0] | LOWER) != W8('c', 'o', 'n', 't', 'e', 'n', 't', '-') ||
	    (words[1] & FIRST(7) | (LOWER & FIRST(7))) != W8('l', 'e', 'n', 'g', 't', 'h', ':', 0))
		return 1;
	u64 length = 0, digits = 0, more = 1;

#pragma clang loop unroll(disable)
	for (u32 i = 15; i < 15 + 24; i++) {
		asm volatile("" : "+r"(i)); /* as a loop that 6.1 takes */
		u64 digit = within(b[i], '0', '9'),
		    space = within(b[i], ' ', ' ') | within(b[i], '\t', '\t');

		more &= digit | (space & (not_zero(digits) ^ 1));
		digit &= more;
		length = length * (1 + 9 * digit) + (b[i] & 15) * digit;
		digits += digit;
	}
	if (!digits || digits > 18 || line == NO_LINE)
		return 0;
	h->length = length;
	h->flags |= HTTP_LENGTH;
	return 1;
}

/* The head is whole: what follows (RFC 9112 6.3); how many bytes to step over. */
static __always_inline u64 http_body(struct half *h, u32 answers)
{
	h->state = TALK_START;
	if (h->flags & HTTP_NO_BODY)
		return 0;
	if (h->flags & HTTP_CHUNKED) {
		h->state = HTTP_CHUNK;
		return 0;
	}
	if (h->flags & HTTP_LENGTH)
		return h->length;
	if (answers)
		h->state = TALK_OPAQUE; /* until the connection ends */
	return 0;
}

/* An upgrade's head is whole: its request has been answered, or is HTTP/2's first stream (http2_upgrade.h). */
static __always_inline void http_upgraded(struct talk *t, struct half *h)
{
	u64 asked = talk_oldest(t);

	if (asked) {
		t->first++;
		talk_answered(t, WEIR_PROTO_HTTP, asked, ONCE(h->status), h->began_ns);
	}
	talk_plain(t);
}

#endif
