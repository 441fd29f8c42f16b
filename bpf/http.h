// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* http.h: HTTP/1.0 and 1.1 (RFC 9112), message by message: start line, the two header lines that tell how
 * long the body is, chunk sizes. Bodies are stepped over.
 */
#ifndef WEIR_HTTP_H
#define WEIR_HTTP_H

#include "redis.h"
#include "talk.h"
#include "words.h"

enum http_state {
	HTTP_HEADERS = TALK_STATES, /* at the beginning of a header line */
	HTTP_LINE,                  /* within a long one */
	HTTP_CHUNK,                 /* at a chunk's size */
	HTTP_CHUNK_LINE,            /* within its long extensions */
	HTTP_TRAILERS,
	HTTP_TRAILER_LINE,
};

enum http_flags {
	HTTP_CHUNKED = 1,
	HTTP_LENGTH = 2,
	HTTP_NO_BODY = 4,
	HTTP_SWITCH = 8, /* after this head another protocol is spoken */
	HTTP_INTERIM = 16,
};

/* Within a head: index of the first line feed behind which something begins that matters (content-length,
 * transfer-encoding, the end), else of another one; NO_LINE if there is none.
 */
static __always_inline u32 http_skip(struct half *h, const u64 *b)
{
	ONCE(h->found) = NO_LINE;
#pragma unroll
	for (u32 i = 0; i < TALK_WORDS; i++) {
		u64 feeds = zero_bytes(b[i] ^ EVERY('\n'));

		if (!feeds)
			continue;
		u64 after = b[i] >> 8 | (i + 1 < TALK_WORDS ? b[i + 1] << 56 : 0);
		u64 matters = zero_bytes((after | EVERY(32)) ^ EVERY('c')) |
			      zero_bytes((after | EVERY(32)) ^ EVERY('t')) |
			      zero_bytes((after | EVERY(7)) ^ EVERY('\r' | 7));

		if (matters & feeds) {
			ONCE(h->found) = 8 * i + lowest(matters & feeds);
			break;
		}
		ONCE(h->found) = 8 * i + lowest(feeds);
	}
	return ONCE(h->found);
}

static __always_inline u32 http_method(const u64 *b)
{
	u64 w = b[0];

	if ((w & FIRST(4)) == W4('G', 'E', 'T', ' '))
		return WEIR_METHOD_GET;
	if ((w & FIRST(5)) == (W4('P', 'O', 'S', 'T') | B1(' ') << 32))
		return WEIR_METHOD_POST;
	if ((w & FIRST(5)) == (W4('H', 'E', 'A', 'D') | B1(' ') << 32))
		return WEIR_METHOD_HEAD;
	if ((w & FIRST(4)) == W4('P', 'U', 'T', ' '))
		return WEIR_METHOD_PUT;
	if ((w & FIRST(7)) == (W8('D', 'E', 'L', 'E', 'T', 'E', ' ', 0)))
		return WEIR_METHOD_DELETE;
	if ((w & FIRST(6)) == (W8('P', 'A', 'T', 'C', 'H', ' ', 0, 0)))
		return WEIR_METHOD_PATCH;
	if (w == W8('O', 'P', 'T', 'I', 'O', 'N', 'S', ' '))
		return WEIR_METHOD_OPTIONS;
	if (w == W8('C', 'O', 'N', 'N', 'E', 'C', 'T', ' '))
		return WEIR_METHOD_CONNECT;
	if ((w & FIRST(6)) == (W8('T', 'R', 'A', 'C', 'E', ' ', 0, 0)))
		return WEIR_METHOD_TRACE;
	return WEIR_METHOD_NONE;
}

/* A method that is not among the known ones: capitals and '-', a space, then a path, a URI or '*'. HTTP/2's
 * "PRI * HTTP/2.0" (RFC 9113 3.4) is none.
 */
static __always_inline int http_other(const u64 *words)
{
	const u8 *b = (const u8 *)words;
	u32 length = 0;

	if (words[0] == W8('P', 'R', 'I', ' ', '*', ' ', 'H', 'T'))
		return 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 20; i++) {
		asm volatile("" : "+r"(i)); /* as a loop that 6.1 takes */
		if (length)
			break;
		if (b[i] == ' ') {
			length = i;
			if (i < 3 || (b[i + 1] != '/' && b[i + 1] != '*' && (b[i + 1] | 32) != 'h'))
				return 0;
		} else if ((b[i] < 'A' || b[i] > 'Z') && b[i] != '-') {
			return 0;
		}
	}
	return length != 0;
}

/* The start line of a request; whether it is one. */
static __always_inline int http_request(struct talk *t, struct half *h, const u64 *b)
{
	u32 method = http_method(b);

	if (!method && http_other(b))
		method = WEIR_METHOD_OTHER;
	ONCE(h->found) = method;
	method = ONCE(h->found);
	if (!method)
		return 0;
	u32 waiting = talk_waiting(t);

	if (!talk_push(t, h->began_ns, method & METHOD_BITS))
		return 0;
	if (waiting)
		t->pipelines = 1;
	h->flags = 0;
	h->length = 0;
	return 1;
}

/* What the answer in h->status means for what follows. */
static __always_inline u32 http_kind(u32 status, u32 method)
{
	u64 interim = within(status, 100, 199) & (within(status, 101, 101) ^ 1);
	u64 tunnel = within(status, 101, 101) |
		     (within(method, WEIR_METHOD_CONNECT, WEIR_METHOD_CONNECT) &
		      within(status, 200, 299));
	u64 empty = within(method, WEIR_METHOD_HEAD, WEIR_METHOD_HEAD) | within(status, 204, 204) |
		    within(status, 304, 304) | interim;

	return interim * HTTP_INTERIM | tunnel * HTTP_SWITCH | empty * HTTP_NO_BODY;
}

/* The status in an answer's first 16 bytes; 0 if they are none. */
static __always_inline u32 http_status(const u64 *words)
{
	const u8 *b = (const u8 *)words;

	if ((words[0] & FIRST(7)) != W8('H', 'T', 'T', 'P', '/', '1', '.', 0) || b[8] != ' ' ||
	    !(within(b[9], '1', '9') & within(b[10], '0', '9') & within(b[11], '0', '9')))
		return 0;
	return (b[9] & 15) * 100 + (b[10] & 15) * 10 + (b[11] & 15);
}

/* The start line of an answer; whether it is one. */
static __always_inline int http_answer(struct talk *t, struct half *h, const u64 *words)
{
	u32 status = http_status(words);

	if (!status)
		return 0;
	t->sure = 1;
	h->length = 0;
	h->status = status;
	h->method = talk_oldest(t) & METHOD_BITS;
	h->flags = http_kind(ONCE(h->status), ONCE(h->method));
	u64 asked = talk_oldest(t);

	if (h->flags & HTTP_INTERIM)
		return 1; /* the answer is still to come */
	if (asked) {
		t->first++;
		talk_answered(t, WEIR_PROTO_HTTP, asked, ONCE(h->status), h->began_ns);
	} else if (t->half[ASKS].state == TALK_LOST) {
		event(WEIR_EV_REQUEST_UNPARSED); /* of a request that was not seen */
	}
	/* Without pipelining, what else comes is this answer, until there is another request. */
	if (h->flags & HTTP_SWITCH)
		talk_plain(t);
	else if (!t->pipelines && !talk_waiting(t))
		h->state = TALK_TURN;
	return 1;
}

/* The usual answer: to the only request that waits, its first line whole in this segment. Whether it was one. */
static __always_inline int http_at_once(struct __sk_buff *skb, struct talk *t, struct half *h)
{
	u64 b[2];

	if (t->pipelines || h->state != TALK_START || h->held || h->next != h->pos ||
	    talk_waiting(t) != 1)
		return 0;
	if (bpf_skb_load_bytes(skb, h->at, b, sizeof(b)))
		return 0;
	u64 asked = talk_oldest(t);
	u32 status = http_status(b);

	if (!status || http_kind(status, asked & METHOD_BITS) & (HTTP_INTERIM | HTTP_SWITCH))
		return 0;
	h->state = TALK_TURN;
	t->sure = 1;
	t->first++;
	ONCE(h->status) = status;
	talk_answered(t, WEIR_PROTO_HTTP, asked, ONCE(h->status), h->now);
	return 1;
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

/* At a line of a head, or within a long one. */
static __always_inline u64 http_head(struct talk *t, struct half *h, u32 answers, const u64 *b,
				     u32 n)
{
	u32 line = http_skip(h, b), state = h->state;
	u64 taken = line == NO_LINE ? n : line + 1;

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
			return ended + http_body(h, answers);
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

/* One step: `n` bytes from where the half reads on, the rest of b zero. How many were taken (a body that is
 * stepped over counts), STEP_MORE or STEP_BAD.
 */
static __always_inline u64 http_step(struct talk *t, struct half *h, u32 answers, const u64 *b,
				     u32 n)
{
	return h->state >= HTTP_CHUNK ? http_chunks(h, b, n) : http_head(t, h, answers, b, n);
}

/* Reads messages as far as this segment has them; whether that needs another run. */
static __always_inline int http_read(struct __sk_buff *skb, struct talk *t, struct half *h,
				     u32 answers)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < TALK_STEPS; i++) {
		asm volatile("" : "+r"(i));
		u64 b[TALK_WORDS] = {};

		if (!half_wants(h))
			return 0;
		u32 n = half_load(skb, h, b);

		if (!n)
			return 0;
		u64 taken = http_step(t, h, answers, b, n);

		if (taken == STEP_OTHER) {
			return 1; /* with what was held */
		}
		if (taken == STEP_BAD) {
			talk_refuse(t, h, answers);
			return 0;
		}
		if (!answers && !t->protocol && talk_waiting(t))
			t->protocol = WEIR_PROTO_HTTP;
		half_advance(h, taken, b, n);
	}
	return 1;
}

/* cgroup_skb, called by talk_segments and by itself: returns 1 (pass) on every path. */
int http_messages(struct __sk_buff *skb)
{
	struct talk *t = talk_again(skb);

	if (!t)
		return 1;
	u32 answers = talk_answers(t, packet_leaves(skb));
	struct half *h = &t->half[answers & 1];

	if (http_read(skb, t, h, answers)) {
		readers.call(skb, t->protocol);
		half_lose(t, h); /* more than a program may follow itself */
	}
	half_leave(t, h);
	return 1;
}

#endif
