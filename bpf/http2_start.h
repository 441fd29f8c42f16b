// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* http2_start.h: how HTTP/2 is known (RFC 9113 3.4, 4.1), at a connection's first bytes and in the middle. */
#ifndef WEIR_HTTP2_START_H
#define WEIR_HTTP2_START_H

#include "http2_streams.h"

#define H2_HEAD    9
#define H2_PREFACE 24

enum h2_type {
	H2_DATA,
	H2_HEADERS,
	H2_PRIORITY_FRAME,
	H2_RST_STREAM,
	H2_SETTINGS,
	H2_PUSH_PROMISE,
	H2_PING,
	H2_GOAWAY,
	H2_WINDOW_UPDATE,
	H2_CONTINUATION,
};

enum h2_flag { H2_END_STREAM = 1, H2_ACK = 1, H2_END_HEADERS = 4, H2_PADDED = 8, H2_PRIORITY = 32 };

/* A frame's head but for the last byte: length (24 bits), type, flags (8 each), upper 24 bits of the stream. */
static __always_inline u64 h2_head(const u8 *b)
{
	return __builtin_bswap64(*(u64 *)b);
}

static __always_inline u32 h2_stream_of(const u8 *b)
{
	return (h2_head(b) << 8 | b[8]) & 0x7fffffff;
}

/* How many bytes of a frame its head needs to be understood. */
static __always_inline u32 h2_needs(const u8 *b)
{
	return b[3] == H2_RST_STREAM ? H2_HEAD + 4 : H2_HEAD + (b[4] >> 3 & 1);
}

/* Whether ten bytes can hardly be anything but the beginning of a header block, by its first field: method,
 * path or scheme of a request; status of an answer (or an entry of the table: its trailers).
 */
static __always_inline int h2_headers(const u8 *b, u32 answers)
{
	u64 head = h2_head(b), length = head >> 40, flags = head >> 24 & 255;
	u64 prefix = (flags >> 5 & 1) * 5;

	asm volatile("" : "+r"(prefix)); /* else clang makes it the bit of an address */
	u64 field = b[H2_HEAD + prefix];

	if ((head >> 32 & 255) != H2_HEADERS ||
	    flags & ~(H2_END_STREAM | H2_END_HEADERS | H2_PRIORITY) || !(flags & H2_END_HEADERS) ||
	    !length || length > 16384 || b[5] & 128 || !(b[8] & 1))
		return 0;
	if (answers)
		return within(field, 0x88, 0x8e) || within(field, 0xbe, 0xff) || field == 0x48 ||
		       field == 0x08;
	return within(field, 0x82, 0x87);
}

/* Whether they are a frame of fixed size as one may begin a segment. */
static __always_inline int h2_control(const u8 *b)
{
	u64 head = h2_head(b), length = head >> 40, type = head >> 32 & 255,
	    flags = head >> 24 & 255;
	u32 stream = h2_stream_of(b);

	if (b[5] & 128)
		return 0;
	if (type == H2_PING)
		return length == 8 && flags <= H2_ACK && !stream;
	if (type == H2_SETTINGS)
		return !stream &&
		       (flags ? flags == H2_ACK && !length : length % 6 == 0 && length <= 120);
	if (type == H2_WINDOW_UPDATE)
		return length == 4 && !flags && !(b[H2_HEAD] & 128);
	return type == H2_RST_STREAM && length == 4 && !flags && stream & 1;
}

/* Whether a connection's first bytes are HTTP/2; in the middle of one, whether a segment's are. */
static __always_inline int h2_begins(const u64 *words, u32 n, u32 middle)
{
	return words[0] == H2_PRI || (middle && n > H2_HEAD && h2_headers((const u8 *)words, 0));
}

/* At the first byte of a half, or where it begins anew; whether frames can be read. */
static __always_inline int h2_start(struct h2 *c, struct half *h, struct h2_half *w, u32 avail,
				    u32 answers)
{
	const u8 *b = w->window;
	u64 preface = equals(*(u64 *)b, H2_PRI) & (answers ^ 1);

	if (avail < H2_HEAD || avail < H2_HEAD + (b[4] & H2_PRIORITY ? 6 : not_zero(b[2])))
		return 0;
	if (!preface && !h2_headers(b, answers) && !h2_control(b)) {
		h->state = TALK_LOST; /* another segment may begin with one */
		w->at = w->n = 0;
		return 0;
	}
	if (w->used) { /* something was missed */
		c->lost_ns = h->now;
		w->hpack.known = 0;
	}
	if (w->used || (!answers && !preface))
		c->partial = 1;
	w->used = 1;
	w->open = 0;
	w->state = 0;
	h->state = TALK_STATES;
	w->at = preface * H2_PREFACE;
	return 1;
}

#endif
