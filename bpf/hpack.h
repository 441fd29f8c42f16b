// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* hpack.h: header compression of HTTP/2 (RFC 7541), as far as requests need it.
 *
 * A table's entry is kept as what it means here: which of a few names, and which value of that name. An index
 * counts back from the newest entry and never reaches one that was evicted, so neither sizes nor evictions have
 * to be followed, and no string but those few is decoded: 128 entries are as many as fit in 4096 bytes.
 */
#ifndef WEIR_HPACK_H
#define WEIR_HPACK_H

#include "words.h"

#define HPACK_TABLE  128
#define HPACK_STATIC 61
#define HPACK_LOOK   17 /* bytes of a string that tell what it is */

/* Names that matter; a meaning is one of these above 12 bits, and a value of it below. */
enum hpack_name {
	HPACK_PLAIN,
	HPACK_METHOD,  /* enum weir_method */
	HPACK_STATUS,  /* 100 to 999 */
	HPACK_TYPE,    /* of the content: 1 for gRPC */
	HPACK_GRPC,    /* the status + 1 */
	HPACK_UNKNOWN, /* an entry from before Weir looked */
	HPACK_PATH,    /* its route (routes.h); only where there are any */
	HPACK_NAMES = 8
};

struct hpack {
	u32 inserted;
	u32 known; /* the newest entries that are known */
	u16 table[HPACK_TABLE];
	u16 field
		[HPACK_NAMES]; /* of the header block that is being read: the value of each name, 0: not there */
};

/* 200, 204, 206, 304, 400, 404, 500: entries 8 to 14 */
#define HPACK_STATUSES                                                                      \
	(200ULL | 204ULL << 9 | 206ULL << 18 | 304ULL << 27 | 400ULL << 36 | 404ULL << 45 | \
	 500ULL << 54)

/* What an index stands for; without branches, each of which would be one more path to the verifier. Of the static
 * table (appendix A) 2 and 3 are GET and POST, 8 to 14 statuses, 31 is content-type.
 */
static __always_inline u64 hpack_meaning(struct hpack *p, u64 index)
{
	u64 method = within(index, 2, 3), status = within(index, 8, 14), type = equals(index, 31);
	u64 value = (HPACK_STATUSES >> ((index - 8) * 9 * status) & 511) * status +
		    (WEIR_METHOD_GET + (index - 2) * (WEIR_METHOD_POST - WEIR_METHOD_GET)) * method;
	u64 back = index - HPACK_STATIC - 1, dynamic = under(HPACK_STATIC, index);
	u64 known = dynamic & under(back, p->known), unknown = dynamic & (known ^ 1);
	u64 entry = p->table[(p->inserted - 1 - back) % HPACK_TABLE], path = 0;

#ifdef WEIR_ROUTES /* 4 is "/", 5 "/index.html" */
	path = within(index, 4, 5);
	value += path * (WEIR_ROUTE_ROOT * equals(index, 4) + WEIR_ROUTE_INDEX * equals(index, 5));
#endif

	return (HPACK_METHOD * method + HPACK_STATUS * status + HPACK_TYPE * type +
		HPACK_UNKNOWN * unknown + HPACK_PATH * path)
		       << 12 |
	       value | entry * known;
}

static __always_inline void hpack_insert(struct hpack *p, u64 meaning)
{
	u32 inserted = p->inserted, known = p->known;

	p->table[inserted % HPACK_TABLE] = meaning;
	p->inserted = inserted + 1;
	p->known = known + under(known, HPACK_TABLE);
}

static __always_inline void hpack_apply(struct hpack *p, u64 meaning)
{
	u64 name = meaning >> 12 & (HPACK_NAMES - 1);

	/* 1 for what is not known, so that it is told from 0 */
	p->field[name] = (meaning & 4095) | equals(name, HPACK_UNKNOWN);
}

#define HPACK_LONG 5 /* bytes: an integer that is not read */

/* An integer (5.1) of at most four bytes: its value, and above 32 bits how many bytes it has. Of what is not there
 * (yet) nothing is taken, so that neither is larger than it will be.
 */
static __always_inline u64 hpack_integer(const u8 *b, u64 mask, u64 avail)
{
	u64 value = (b[0] & mask) * under(0, avail), second = equals(value, mask);
	u64 third = second & (b[1] >> 7) & under(1, avail);
	u64 fourth = third & (b[2] >> 7) & under(2, avail);
	u64 longer = fourth & (b[3] >> 7) & under(3, avail);

	value += second * under(1, avail) * (b[1] & 127);
	value += third * under(2, avail) * ((u64)(b[2] & 127) << 7);
	value += fourth * under(3, avail) * ((u64)(b[3] & 127) << 14);
	return (1 + second + third + fourth + longer) << 32 | value;
}

/* A number of up to three digits, plain or by Huffman's code (appendix B: 0 to 2 have five bits, 3 to 9 six), + 1;
 * 0 if it is none.
 */
static __always_inline u64 hpack_number(const u8 *b, u64 huffman, u64 length)
{
	u64 bits = (u64)b[0] << 16 | (u64)b[1] << 8 | b[2], left = 8 * length, value = 0,
	    digits = 0, more = 1;

#pragma unroll
	for (u32 i = 0; i < 3; i++) {
		u64 five = bits >> 19 & 31, six = bits >> 18 & 63, byte = bits >> 16 & 255;
		u64 low = under(five, 3), high = within(six, 0x19, 0x1f);
		u64 size = huffman ? 5 + high : 8;
		u64 digit = huffman ? low * five + high * (six - 0x16) : byte - '0';
		u64 good = huffman ? low | high : within(byte, '0', '9');

		more &= good & at_least(left, size);
		value = value * (1 + 9 * more) + digit * more;
		digits += more;
		bits = bits << size * more & 0xffffff;
		left -= size * more;
	}
	return value * not_zero(digits) + not_zero(digits);
}

/* "application/grpc", with a suffix or parameters or without; not "application/grpc-web". */
static __always_inline u64 hpack_grpc(const u8 *b, u64 huffman, u64 length)
{
	u64 first = *(u64 *)b, second = *(u64 *)(b + 8);
	u64 plain = equals(first, W8('a', 'p', 'p', 'l', 'i', 'c', 'a', 't')) &
		    equals(second, W8('i', 'o', 'n', '/', 'g', 'r', 'p', 'c')) &
		    at_least(length, 16);
	u64 coded = equals(first, 0x4c3d260d62d0751dULL) & equals(second & FIRST(3), 0x64654d) &
		    at_least(length, 11);

	plain &= equals(length, 16) | equals(b[16], '+') | equals(b[16], ';');
	coded &= equals(length, 11) |
		 b[11] >> 7; /* a '-' begins with a bit of 0, those two with one of 1 */
	return huffman ? coded : plain;
}

#define HPACK_IS(plain, size, coded, bits)          \
	(equals(key, huffman ? (coded) : (plain)) & \
	 equals(length, huffman ? ((bits) + 7) / 8 : (size)))

/* A method, by its text or its code. */
static __always_inline u64 hpack_method(const u8 *b, u64 huffman, u64 length)
{
	u64 key = *(u64 *)b & FIRST(length & 7), method = 0;

	method += WEIR_METHOD_GET * HPACK_IS(W4('G', 'E', 'T', 0), 3, 0x7f83c5, 21);
	method += WEIR_METHOD_HEAD * HPACK_IS(W4('H', 'E', 'A', 'D'), 4, 0xff1b82c7, 27);
	method += WEIR_METHOD_POST * HPACK_IS(W4('P', 'O', 'S', 'T'), 4, 0xff76abd7, 28);
	method += WEIR_METHOD_PUT * HPACK_IS(W4('P', 'U', 'T', 0), 3, 0x7fc3d7, 21);
	method += WEIR_METHOD_DELETE *
		  HPACK_IS(W8('D', 'E', 'L', 'E', 'T', 'E', 0, 0), 6, 0x3ff80d3e83bfULL, 42);
	method += WEIR_METHOD_CONNECT *
		  HPACK_IS(W8('C', 'O', 'N', 'N', 'E', 'C', 'T', 0), 7, 0xffb7179c4eabbdULL, 49);
	method += WEIR_METHOD_OPTIONS *
		  HPACK_IS(W8('O', 'P', 'T', 'I', 'O', 'N', 'S', 0), 7, 0x7f775a4d7eafd5ULL, 49);
	method += WEIR_METHOD_TRACE *
		  HPACK_IS(W8('T', 'R', 'A', 'C', 'E', 0, 0, 0), 5, 0x3fd81bb6dfULL, 34);
	method += WEIR_METHOD_PATCH *
		  HPACK_IS(W8('P', 'A', 'T', 'C', 'H', 0, 0, 0), 5, 0xffd8fb0ed7ULL, 34);
	return method + (not_zero(method) ^ 1) * WEIR_METHOD_OTHER;
}

/* A name that is no index into a table. */
static __always_inline u64 hpack_name(const u8 *b, u64 huffman, u64 length)
{
	u64 word = *(u64 *)b, key = word & FIRST(length & 7), name = 0;
	u64 rest = *(u64 *)(b + 8);

	name += HPACK_METHOD *
		HPACK_IS(W8(':', 'm', 'e', 't', 'h', 'o', 'd', 0), 7, 0xe4395349b9ULL, 40);
	name += HPACK_STATUS *
		HPACK_IS(W8(':', 's', 't', 'a', 't', 'u', 's', 0), 7, 0xa3368d84b8ULL, 38);
	u64 grpc = huffman ? equals(word, 0x8fda3412b2c8ca9aULL) & equals(length, 8)
			   : equals(word, W8('g', 'r', 'p', 'c', '-', 's', 't', 'a')) &
				     equals(rest & FIRST(3), W4('t', 'u', 's', 0)) &
				     equals(length, 11);
	u64 type = huffman ? equals(word, 0x59f5c94a6a49ea21ULL) & equals(rest & 255, 0x7f) &
				     equals(length, 9)
			   : equals(word, W8('c', 'o', 'n', 't', 'e', 'n', 't', '-')) &
				     equals(rest & FIRST(4), W4('t', 'y', 'p', 'e')) &
				     equals(length, 12);

#ifdef WEIR_ROUTES
	name += HPACK_PATH * HPACK_IS(W8(':', 'p', 'a', 't', 'h', 0, 0, 0), 5, 0x3fd358b9, 30);
#endif
	return name + HPACK_GRPC * grpc + HPACK_TYPE * type;
}

/* What a string means as a value of this name. */
static __always_inline u64 hpack_value(u64 name, const u8 *b, u64 huffman, u64 length)
{
	u64 value = 0, number;

	if (name == HPACK_METHOD) {
		value = hpack_method(b, huffman, length);
	} else if (name == HPACK_TYPE) {
		value = hpack_grpc(b, huffman, length);
	} else if (name == HPACK_STATUS || name == HPACK_GRPC) {
		number = hpack_number(b, huffman, length);
		value = name == HPACK_GRPC ? number : number - not_zero(number);
	}
	return name << 12 | value;
}

#endif
