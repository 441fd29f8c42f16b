// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* http2_frames.h: the steps of reading: a frame's head, a field of a header block, a string. */
#ifndef WEIR_HTTP2_FRAMES_H
#define WEIR_HTTP2_FRAMES_H

#include "http2_start.h"

#define H2_RUN 6 /* fields of one byte that are read together */

enum h2_state { H2_FRAME, H2_FIELD, H2_NAME, H2_VALUE };

/* At the head of a frame. */
static __always_inline u64 h2_frame(struct h2_half *w, const u8 *b, u32 avail, u32 answers, u64 now)
{
	if (avail < H2_HEAD + 4)
		if (avail < H2_HEAD || avail < h2_needs(b))
			return STEP_MORE;
	u64 head = h2_head(b), length = head >> 40, type = head >> 32 & 255,
	    flags = head >> 24 & 255;
	u32 stream = h2_stream_of(b);
	/* without branches: each is one more path to the verifier */
	u64 headers = equals(type, H2_HEADERS), promise = equals(type, H2_PUSH_PROMISE);
	u64 more = equals(type, H2_CONTINUATION), reset = equals(type, H2_RST_STREAM);
	u64 data = equals(type, H2_DATA), about = not_zero(stream), ends = flags & H2_END_STREAM;
	u64 connection =
		equals(type, H2_SETTINGS) | equals(type, H2_PING) | equals(type, H2_GOAWAY);
	u64 padded = (flags >> 3 & 1) & (headers | promise), open = w->open;
	u64 before = padded + 4 * promise + 5 * (flags >> 5 & headers), pads = b[H2_HEAD] * padded;
	u64 bad = (open ^ more) | (more & (equals(stream, w->stream) ^ 1)) | (connection & about) |
		  ((headers | data | reset) & (about ^ 1)) |
		  ((headers | promise) & under(length, before + pads));

	if (bad)
		return STEP_BAD;
	w->began_ns = now;
	w->what = reset * H2_RESET + (data & ends & answers) * H2_END;
	w->about = stream;
	w->code = bpf_ntohl(*(u32 *)(b + H2_HEAD));
	if (!(headers | promise | more))
		return H2_HEAD + length;
	if (!more) {
		w->ends_stream = ends;
		w->promise = promise;
		*(u64 *)w->hpack.field = 0;
		*(u64 *)(w->hpack.field + 4) = 0;
	}
	w->stream = stream;
	w->left = length - before - pads;
	w->after = pads;
	w->ends_block = flags & H2_END_HEADERS;
	w->open = 1;
	w->state = H2_FIELD;
	return H2_HEAD + before;
}

/* More fields of one byte, as most are; how many. */
static __always_inline u64 h2_indexes(struct h2_half *w, const u8 *b, u64 left, u64 avail)
{
	u64 more = 1, taken = 0;

#pragma unroll
	for (u32 i = 0; i < H2_RUN; i++) {
		more &= (b[i] >> 7) & (equals(b[i], 255) ^ 1) & under(i, left) & under(i, avail);
		/* what is not there is put where nobody looks */
		hpack_apply(&w->hpack, hpack_meaning(&w->hpack, b[i] & 127) * more);
		taken += more;
	}
	return taken;
}

/* At a field's beginning (RFC 7541 6). */
static __always_inline u64 h2_field(struct h2_half *w, const u8 *b, u32 avail)
{
	u64 kind = b[0] & 128 ? 127 : b[0] & 64 ? 63 : b[0] & 32 ? 31 : 15;

	ONCE(w->found) = kind;
	u64 mask = ONCE(w->found), number = hpack_integer(b, mask, avail), bytes = number >> 32;
	u64 index = (u32)number;

	if (bytes == HPACK_LONG || bytes > w->left)
		return STEP_BAD;
	if (bytes > avail)
		return STEP_MORE;
	if (mask == 31) /* the size of the table */
		return bytes;
	u64 meaning = hpack_meaning(&w->hpack, index);

	if (mask == 127) {
		hpack_apply(&w->hpack, meaning);
		return bytes + h2_indexes(w, b + (bytes & 7), w->left - bytes, avail - bytes);
	}
	w->indexes = mask == 63;
	w->name = meaning >> 12;
	w->state = index ? H2_VALUE : H2_NAME;
	if (!index || meaning >> 12)
		return bytes;
	/* nothing that matters: its value is stepped over */
	u64 value = hpack_integer(b + (bytes & 7), 127, avail - bytes),
	    both = bytes + (value >> 32);

	if (value >> 32 == HPACK_LONG || both + (u32)value > w->left)
		return STEP_BAD;
	if (both > avail)
		return bytes;
	w->state = H2_FIELD;
	if (mask == 63)
		hpack_insert(&w->hpack, 0);
	return both + (u32)value;
}

/* At a string's beginning (RFC 7541 5.2). */
static __always_inline u64 h2_string(struct h2_half *w, const u8 *b, u32 avail)
{
	u64 number = hpack_integer(b, 127, avail), bytes = number >> 32, length = (u32)number;
	u64 huffman = b[0] >> 7, fits = under(length, HPACK_LOOK);
	u64 look = length * fits + HPACK_LOOK * (fits ^ 1);

	if (bytes == HPACK_LONG || bytes + length > w->left)
		return STEP_BAD;
	if (bytes + look > avail)
		return STEP_MORE;
	const u8 *text = b + (bytes & 7);

	if (w->state == H2_NAME) {
		w->name = hpack_name(text, huffman, length);
		w->state = H2_VALUE;
		return bytes + length;
	}
#ifdef WEIR_ROUTES
	if (w->name == HPACK_PATH && length && length < H2_LONGEST && w->paths < H2_PATHS) {
		w->paths++;
		w->path = huffman << 31 | length;
		w->state = H2_FIELD;
		return bytes; /* the string itself is read by another program */
	}
#endif
	ONCE(w->found) = hpack_value(w->name, text, huffman, length);
	u64 meaning = ONCE(w->found);

	hpack_apply(&w->hpack, meaning);
	if (w->indexes)
		hpack_insert(&w->hpack, meaning);
	w->state = H2_FIELD;
	return bytes + length;
}

/* The frame's part of a header block was read. */
static __always_inline void h2_block(struct h2_half *w)
{
	w->state = H2_FRAME;
	w->at += w->after;
	if (!w->ends_block)
		return;
	w->open = 0;
	if (w->promise)
		return;
	w->what = H2_BLOCK;
	w->about = w->stream;
}

static __always_inline u64 h2_step(struct half *h, struct h2_half *w, u32 answers, u32 avail)
{
	const u8 *b = &w->window[w->at % H2_WINDOW];

	if (w->state == H2_FRAME)
		return h2_frame(w, b, avail, answers, h->now);
	return w->state == H2_FIELD ? h2_field(w, b, avail) : h2_string(w, b, avail);
}

#endif
