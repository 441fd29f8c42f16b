// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* http2_path.h: the routes of HTTP/2's paths (routes.h). Of a path that is no index into a table the program that reads
 * frames (http2.h) leaves the string to this one, which reads it whole from the segment, decodes it and goes back.
 */
#ifndef WEIR_HTTP2_PATH_H
#define WEIR_HTTP2_PATH_H

#include "http2.h"

/* agent/weir/kernel/huffman.py: four bits of the code, at a place in its tree. */
struct huffman_step {
	u8 place;
	u8 byte;
	u8 ends; /* 1: a code ends in these bits, that of `byte` */
	u8 pad;
};
BPF_ARRAY(huffman, struct huffman_step, 4096);

/* Decodes t->line into t->text: as much as fits, zeros behind it. */
static __always_inline void path_decode(struct talk *t, u32 length)
{
	const u8 *coded = (const u8 *)t->line;
	u8 *text = (u8 *)t->text;
	u32 place = 0, n = 0;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 2 * WEIR_LINE; i++) {
		asm volatile("" : "+r"(i), "+r"(n));
		if (i >= 2 * length)
			break;
		u64 byte = coded[i / 2 & (WEIR_LINE - 1)];
		u32 index = (place & 255) << 4 | (byte >> 4 * (i & 1 ^ 1) & 15);
		struct huffman_step *step = huffman.lookup(&index);

		if (!step)
			break;
		place = step->place;
		/* written in any case, and over if it is none: without a branch */
		text[n & (WEIR_LINE - 1)] = step->byte;
		n += step->ends & under(n, WEIR_LINE - 1);
	}
	/* where a request line would have a space; a text that fills it all may go on */
	text[n & (WEIR_LINE - 1)] = ' ' * under(n, WEIR_LINE - 1);
}

/* The path of this segment, of which h2_string has told where it is, into t->text; not 0 where it is not all here. */
static __always_inline int path_read(carrier *ctx, struct talk *t, struct half *h,
				     struct h2_half *w)
{
	u64 length = w->path & (H2_LONGEST - 1), from = h->next - w->n + w->at;

	if (from < h->pos || from + length > h->end)
		return 1;
#pragma unroll
	for (u32 i = 0; i < WEIR_LINE / 8; i++) {
		t->line[i] = 0;
		t->text[i] = 0;
	}
	u64 last = length - 1;

	/* as half_load has it */
	asm volatile("" : "+r"(last));
	if (last >= WEIR_LINE - 1)
		return 1;
	asm volatile("" : "+r"(last));
	length = last + 1;
	if (carry(ctx, h->at + (u32)(from - h->pos), t->line, length))
		return 1;
	if (w->path >> 31) {
		path_decode(t, length);
		return 0;
	}
#pragma unroll
	for (u32 i = 0; i < WEIR_LINE / 8; i++)
		t->text[i] = t->line[i];
	((u8 *)t->text)[length & (WEIR_LINE - 1)] = ' ';
	return 0;
}

/* Called where a path is to be read, and calls the program that reads on: returns DONE on every path. */
int http2_path(carrier *ctx)
{
	holder *held = holder_of(ctx);
	struct talk *t = held ? talk_held(held) : NULL;
	struct h2 *c = t ? h2_held(held, t) : NULL;

	if (!c)
		return DONE;
	u64 answers = talk_reads(ctx, held, t);
	struct half *h = &t->half[answers & 1];
	struct h2_half *w = &c->half[answers & 1];

	ONCE(w->found) = path_read(ctx, t, h, w);
	if (ONCE(w->found) || *(u8 *)t->text != '/')
		ONCE(w->found) = 0;
	else
		route_of((u8 *)t->text, 0, &w->found);
	u64 meaning = HPACK_PATH << 12 | (ONCE(w->found) & 255),
	    length = w->path & (H2_LONGEST - 1);

	hpack_apply(&w->hpack, meaning);
	if (w->indexes)
		hpack_insert(&w->hpack, meaning);
	w->at += length;
	w->left -= length;
	w->path = 0;
	if (!w->left)
		h2_block(w);
	if (w->what)
		h2_act(c, w, answers);
	readers.call(ctx, WEIR_PROTO_HTTP2);
	h2_leave(ctx, t, c, h, w);
	return DONE;
}

#endif
