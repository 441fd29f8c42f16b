// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* http2_ends.h: what the end of a header block, of an answer or of a stream means for the request. */
#ifndef WEIR_HTTP2_ENDS_H
#define WEIR_HTTP2_ENDS_H

#include "http2_streams.h"

/* gRPC's codes (statuscodes.md of gRPC), + 1 as a row has them. */
enum grpc_status {
	GRPC_CANCELLED = 2,
	GRPC_UNKNOWN = 3,
	GRPC_DENIED = 8,
	GRPC_EXHAUSTED = 9,
	GRPC_UNIMPLEMENTED = 13,
	GRPC_INTERNAL = 14,
	GRPC_UNAVAILABLE = 15,
	GRPC_UNAUTHENTICATED = 17,
	GRPC_NOT_KNOWN = 18, /* it was told by a header from before Weir looked */
};

/* The request has ended: so it is to be counted. end_ns 0: without a duration. */
static __always_inline void h2_ends_as(struct h2_half *w, u32 protocol, u32 status, u64 end_ns)
{
	w->protocol = protocol;
	w->status = status;
	w->end_ns = end_ns;
}

/* A result, once for both directions. */
static __always_inline void h2_result(struct h2_half *w, struct h2_stream *s)
{
	u64 asked = s->asked, began = asked & ~METHOD_BITS, end_ns = w->end_ns;
	struct h2_result *r = &w->result[w->results % H2_RESULTS];

	if (!asked || swap(&s->asked, asked, 0) != asked)
		return;
	r->asked = asked;
	r->status = w->status;
	r->route = s->route;
	r->timed = not_zero(end_ns);
	r->took = end_ns > began ? end_ns - began : 0;
	r->protocol = w->protocol;
	w->results++;
}

/* As gRPC's http-grpc-status-mapping.md has it, where a server tells no status of gRPC. */
static __always_inline u32 grpc_of_http(u32 status)
{
	u64 internal = equals(status, 400), who = equals(status, 401), denied = equals(status, 403);
	u64 none = equals(status, 404), busy = equals(status, 429) | within(status, 502, 504);

	return GRPC_UNKNOWN + internal * (GRPC_INTERNAL - GRPC_UNKNOWN) +
	       who * (GRPC_UNAUTHENTICATED - GRPC_UNKNOWN) + denied * (GRPC_DENIED - GRPC_UNKNOWN) +
	       none * (GRPC_UNIMPLEMENTED - GRPC_UNKNOWN) +
	       busy * (GRPC_UNAVAILABLE - GRPC_UNKNOWN);
}

/* Of RST_STREAM's code (RFC 9113 7), as gRPC's protocol-http2.md maps them. */
static __always_inline u32 grpc_of_reset(u32 code)
{
	u64 refused = equals(code, 7), cancel = equals(code, 8), calm = equals(code, 11),
	    bad = equals(code, 12);

	return GRPC_INTERNAL + refused * (GRPC_UNAVAILABLE - GRPC_INTERNAL) -
	       cancel * (GRPC_INTERNAL - GRPC_CANCELLED) - calm * (GRPC_INTERNAL - GRPC_EXHAUSTED) -
	       bad * (GRPC_INTERNAL - GRPC_DENIED);
}

/* A request's header block is whole. */
static __always_inline void h2_asked(struct h2_half *w, struct h2_stream *s)
{
	u64 method = w->hpack.field[HPACK_METHOD], unknown = w->hpack.field[HPACK_UNKNOWN];

	if (!method) { /* trailers; or it told its method by a header that is not known */
		if (unknown)
			w->unparsed++;
		return;
	}
	if (!s) { /* more at once than can be followed */
		w->unparsed++;
		return;
	}
	u64 grpc = w->hpack.field[HPACK_TYPE] & H2_GRPC;
	u64 maybe = not_zero(unknown) & (grpc ^ 1) & equals(method, WEIR_METHOD_POST);

	s->id = w->stream;
	s->route = w->hpack.field[HPACK_PATH];
	s->status = 0;
	s->flags = grpc * H2_GRPC | maybe * H2_MAYBE;
	swap(&s->asked, 0, (w->began_ns & ~METHOD_BITS) | (method & METHOD_BITS));
}

/* The answer is whole, and told no status of gRPC. */
static __always_inline void h2_ended(struct h2_half *w, struct h2_stream *s, u64 unknown)
{
	u32 flags = s->flags, status = s->status;

	if (flags & H2_GRPC)
		h2_ends_as(w, WEIR_PROTO_GRPC, unknown ? GRPC_NOT_KNOWN : grpc_of_http(status),
			   w->began_ns);
	else if (unknown && flags & H2_TRAILERS)
		h2_ends_as(w, WEIR_PROTO_GRPC, GRPC_NOT_KNOWN, w->began_ns);
	else if (status)
		h2_ends_as(w, WEIR_PROTO_HTTP2, status, w->began_ns);
}

/* A header block of an answer is whole. */
static __always_inline void h2_answered(struct h2_half *w, struct h2_stream *s)
{
	u32 status = w->hpack.field[HPACK_STATUS];
	u32 grpc = w->hpack.field[HPACK_GRPC], unknown = w->hpack.field[HPACK_UNKNOWN];

	if (within(status, 100, 199))
		return;
	if (status)
		s->status = status;
	else
		s->flags |= H2_TRAILERS;
	if (status && !(s->flags & (H2_GRPC | H2_MAYBE)))
		h2_ends_as(w, WEIR_PROTO_HTTP2, status, w->began_ns);
	else if (grpc)
		h2_ends_as(w, WEIR_PROTO_GRPC, grpc, w->began_ns);
	else if (w->ends_stream)
		h2_ended(w, s, unknown);
}

/* RST_STREAM of either end: who waits gets no answer. */
static __always_inline void h2_reset(struct h2_half *w, struct h2_stream *s)
{
	if (s->flags & H2_GRPC)
		h2_ends_as(w, WEIR_PROTO_GRPC, grpc_of_reset(w->code), w->began_ns);
	else if (s->status)
		h2_ends_as(w, WEIR_PROTO_HTTP2, s->status, w->began_ns);
	else
		h2_ends_as(w, WEIR_PROTO_HTTP2, 0, 0);
}

/* What was read to its end, for the stream it is about. */
static __always_inline void h2_act(struct h2 *c, struct h2_half *w, u32 answers)
{
	u32 what = w->what;
	u64 asks = equals(what, H2_BLOCK) & (answers ^ 1);
	struct h2_stream *s = h2_find(c, w, w->about, asks);

	w->what = H2_NOTHING;
	w->protocol = 0;
	if (asks) {
		h2_asked(w, s);
		return;
	}
	if (!s) { /* an answered one's trailers, or one that was asked before Weir looked */
		if (what == H2_BLOCK && w->hpack.field[HPACK_STATUS] >= 200 && c->partial &&
		    w->stream & 1)
			w->unparsed++;
		return;
	}
	if (what == H2_BLOCK)
		h2_answered(w, s);
	else if (what == H2_RESET)
		h2_reset(w, s);
	else if (s->status)
		h2_ended(w, s, 0);
	if (w->protocol)
		h2_result(w, s);
}

#endif
