// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* http_start.h: the start lines of HTTP/1.0 and 1.1 (RFC 9112 3, 4): methods and statuses. */
#ifndef WEIR_HTTP_START_H
#define WEIR_HTTP_START_H

#include "half.h"
#include "words.h"

enum http_flags {
	HTTP_CHUNKED = 1,
	HTTP_LENGTH = 2,
	HTTP_NO_BODY = 4,
	HTTP_SWITCH = 8, /* after this head another protocol is spoken */
	HTTP_INTERIM = 16,
	HTTP_UPGRADE = 32, /* so it is, and one of its fields tells which one (RFC 9110 15.2.2) */
	HTTP_H2C = 64,     /* HTTP/2 (RFC 7540 3.2), which RFC 9113 has no more */
};

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

	if (words[0] == H2_PRI)
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
	t->asked[(t->last - 1) % TALK_ASKED] |=
		tap_line(t->asked[(t->last - 1) % TALK_ASKED], t->nonce, b, h->now);
#ifdef WEIR_ROUTES
#pragma unroll
	for (u32 i = 0; i < TALK_WORDS; i++)
		t->line[i] = b[i];
	t->unrouted = 1;
#endif
	h->flags = 0;
	h->length = 0;
	return 1;
}

_Static_assert(TALK_WORDS == WEIR_LINE / 8,
	       "a request's first bytes are as many as are read at once");

#ifdef WEIR_ROUTES
/* The route of the request that was read just now. */
static __always_inline void http_route(struct talk *t)
{
	u32 at = route_start((u8 *)t->line, &t->found);
	u64 route = route_of((u8 *)t->line, at, &t->found);

	t->unrouted = 0;
	t->asked[(t->last - 1) % TALK_ASKED] |= (route & 255) << ROUTE_SHIFT;
}
#else
static __always_inline void http_route(struct talk *t)
{
}
#endif

/* What the answer in h->status means for what follows. */
static __always_inline u32 http_kind(u32 status, u32 method)
{
	u64 upgrade = within(status, 101, 101), interim = within(status, 100, 199) & (upgrade ^ 1);
	u64 tunnel =
		within(method, WEIR_METHOD_CONNECT, WEIR_METHOD_CONNECT) & within(status, 200, 299);
	u64 empty = within(method, WEIR_METHOD_HEAD, WEIR_METHOD_HEAD) | within(status, 204, 204) |
		    within(status, 304, 304) | interim | upgrade;

	return interim * HTTP_INTERIM | tunnel * HTTP_SWITCH | upgrade * HTTP_UPGRADE |
	       empty * HTTP_NO_BODY;
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

	if (h->flags & (HTTP_INTERIM | HTTP_UPGRADE))
		return 1; /* the answer is still to come, or what it means */
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
static __always_inline int http_at_once(carrier *ctx, struct talk *t, struct half *h)
{
	u64 b[2];

	if (t->pipelines || h->state != TALK_START || h->held || h->next != h->pos ||
	    talk_waiting(t) != 1)
		return 0;
	if (carry(ctx, h->at, b, sizeof(b)))
		return 0;
	u64 asked = talk_oldest(t);
	u32 status = http_status(b);

	if (!status ||
	    http_kind(status, asked & METHOD_BITS) & (HTTP_INTERIM | HTTP_SWITCH | HTTP_UPGRADE))
		return 0;
	h->state = TALK_TURN;
	t->sure = 1;
	t->first++;
	ONCE(h->status) = status;
	talk_answered(t, WEIR_PROTO_HTTP, asked, ONCE(h->status), h->now);
	return 1;
}

#endif
