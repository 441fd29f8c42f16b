// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* http2_streams.h: an HTTP/2 connection: the streams that wait for their answers, and what ended just now. */
#ifndef WEIR_HTTP2_STREAMS_H
#define WEIR_HTTP2_STREAMS_H

#include "half.h"
#include "hpack.h"

#define H2_WAYS    4
#define H2_SETS    64  /* so at most 256 streams wait at once */
#define H2_WINDOW  256 /* bytes at hand */
#define H2_LOOK    32  /* as many of them are enough for any step */
#define H2_READ    208
#define H2_RESULTS 32   /* requests that end until they are counted */
#define H2_LONGEST 4096 /* bytes of a path that is looked at */
#define H2_PATHS   12   /* paths of one segment that are looked at, where there are routes */

/* In one run; one is a frame's head, a field, or a string. */
#ifdef WEIR_USER
#define H2_STEPS 22 /* 16 kB at once */
#else
#define H2_STEPS 36
#endif

#define H2_ANEW 1 /* flag of a half: what is in the window is of before */

enum h2_flags {
	H2_GRPC = 1,
	H2_MAYBE = 2, /* it may be gRPC: asked for with a header from before Weir looked */
	H2_TRAILERS = 4,
};

/* A request that waits. All of a connection must fit into 8 kB: what Linux 7.x allocates for a socket's storage. */
struct h2_stream {
	u64 asked; /* when, its lowest bits the enum weir_method; 0: nobody waits here */
	u32 id;
	u16 status;
	u8 flags;
	u8 route;
};

/* What a step came to the end of. */
enum h2_what { H2_NOTHING, H2_BLOCK, H2_RESET, H2_END };

/* A request that ended. */
struct h2_result {
	u64 asked; /* as in the stream */
	u64 took;
	u16 status;
	u8 protocol;
	u8 timed;
	u8 route;
	u8 pad[3];
};

/* Of one direction. */
struct h2_half {
	u8 window[H2_WINDOW + 2 * H2_LOOK];
	u32 at;       /* in the window: what is read next, which may lie behind it */
	u32 n;        /* bytes in the window */
	u32 left;     /* of the header block in this frame */
	u32 after;    /* padding behind it */
	u64 began_ns; /* of the frame's segment */
	u32 stream;
	u8 used;
	u8 state; /* enum h2_state */
	u8 open;  /* a header block that is not whole */
	u8 ends_block;
	u8 ends_stream;
	u8 promise; /* its block is nobody's answer */
	u8 name;
	u8 indexes; /* the field that is read gets an entry in the table */
	struct hpack hpack;
	u64 taken;
	u32 found;
	u8 outcome;  /* enum h2_outcome */
	u8 what;     /* enum h2_what */
	u8 protocol; /* how the request ended; 0: it has not */
	u16 status;
	u32 about; /* stream */
	u32 code;
	u64 end_ns;
	u32 path; /* length of the string that comes now, a path, above it whether it is coded; 0: none does */
	u32 paths; /* so many of this segment's have come */
	u32 unparsed;
	u32 results; /* what ended in this run, to be counted */
	struct h2_result result[H2_RESULTS];
};

struct h2 {
	u64 lost_ns; /* of what was asked before, the answer may have been missed */
	u8 partial;  /* not everything was seen */
	u8 pad[3];
	u32 ended; /* streams that the program which ends them has come to */
	struct h2_half half[2];
	struct h2_stream streams[H2_SETS * H2_WAYS];
};
_Static_assert(sizeof(struct h2) < 8000, "bpf_sk_storage_get on Linux 7.x");

#ifdef WEIR_USER
BPF_F_TABLE("hash", struct tls_key, struct h2, tls_h2s, SIZED, BPF_F_NO_PREALLOC);
BPF_ARRAY(tls_blank_h2, struct h2, 1);

static __always_inline struct h2 *h2_held(holder *held, struct talk *t)
{
	struct tls_key session = ((struct tls_talk *)t)->key;

	return tls_h2s.lookup(&session);
}

/* The same, made if this connection has none yet; NULL where there is no memory. */
static __always_inline struct h2 *h2_make(holder *held, struct talk *t)
{
	struct tls_talk *u = (struct tls_talk *)t;
	struct tls_key session = u->key;
	u32 zero = 0;

	if (!u->streams) {
		struct h2 *blank = tls_blank_h2.lookup(&zero);

		u->streams = 1;
		if (blank)
			tls_h2s.update(&session, blank);
	}
	return tls_h2s.lookup(&session);
}

/* The session is over. */
static __always_inline void h2_over(struct talk *t)
{
	struct tls_key session = ((struct tls_talk *)t)->key;

	tls_h2s.delete(&session);
	tls_talks.delete(&session);
}
#else
BPF_SK_STORAGE(h2s, struct h2);

static __always_inline struct h2 *h2_held(holder *held, struct talk *t)
{
	return h2s.sk_storage_get(held, 0, 0);
}

/* The same, made if this connection has none yet; NULL where there is no memory. */
static __always_inline struct h2 *h2_make(holder *held, struct talk *t)
{
	return h2s.sk_storage_get(held, 0, BPF_SK_STORAGE_GET_F_CREATE);
}

/* What is kept of it goes with its socket. */
static __always_inline void h2_over(struct talk *t)
{
}
#endif

/* Whether what comes now is a path that is to be read. */
static __always_inline u64 h2_path_comes(struct h2_half *w)
{
#ifdef WEIR_ROUTES
	return w->path;
#else
	return 0;
#endif
}

/* The stream's place, or one that is free; NULL if there is none. */
static __always_inline struct h2_stream *h2_find(struct h2 *c, struct h2_half *w, u32 id, u64 free)
{
	u32 set = (id >> 1) % H2_SETS * H2_WAYS;
	u64 found = H2_WAYS;

#pragma unroll
	for (u32 i = 0; i < H2_WAYS; i++) {
		struct h2_stream *s = &c->streams[(set + i) % (H2_SETS * H2_WAYS)];
		u64 waits = not_zero(s->asked), fits = free ^ (waits & (equals(s->id, id) | free));

		/* without a branch: each is one more path to the verifier */
		found = found * (fits ^ 1) + i * fits;
	}
	ONCE(w->found) = found;
	u32 way = ONCE(w->found);

	struct h2_stream *place = NULL;

	if (way < H2_WAYS)
		place = &c->streams[(set + way) % (H2_SETS * H2_WAYS)];
	asm volatile("" : "+r"(place)); /* so that callers ask for it, and not for `way` again */
	return place;
}

#endif
