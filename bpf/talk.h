// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* talk.h: the conversation on a TCP connection, as far as its requests need it.
 *
 * Each direction is a half: position in the stream up to which bytes were seen, and position of the next
 * byte that its protocol wants to read; what lies in between, a body of known length, is never looked at.
 * Positions go by sequence numbers, so segments that come again or late are read once. A protocol is one
 * function that takes a line's worth of bytes at that position and tells how far to go on (http.h).
 */
#ifndef WEIR_TALK_H
#define WEIR_TALK_H

#include "asked.h"
#include "tap.h"
#include "words.h"

#define TALK_ASKED 16 /* requests on their way at once, on one connection */
#define TALK_HELD  40 /* bytes kept of a line that goes on in the next segment */
#define TALK_READ  88 /* bytes read at once */
#define TALK_WORDS ((TALK_HELD + TALK_READ) / 8)
#define TALK_STEPS \
	5 /* steps of reading in one run of a program, which may follow itself 32 times */

enum talk_half { ASKS, ANSWERS };

/* What a half is reading; those of protocols come after. */
enum talk_state {
	TALK_LOST,   /* out of step: begins anew with the next turn */
	TALK_OPAQUE, /* no messages are to be found here (any more) */
	TALK_TURN,   /* what else comes in this turn is not read */
	TALK_START,  /* at the first byte of a message */
	TALK_TAIL,   /* out of step, but for how an answer ends (PostgreSQL) */
	TALK_STATES,
	TALK_BODY = TALK_STATES + 2 /* HTTP/1: within a body, from here on */
};

/* How far a new conversation has come; what is not one yet, or not to be one, is let be. */
enum talk_ready {
	TALK_NEW,
	TALK_BEGINNING,
	TALK_READY,
	TALK_SKIPPED,
	TALK_DEFERRED, /* what came before its first packet is read (deferred.h) */
};

struct half {
	u64 pos; /* of the segment at hand: position of its payload, and behind it */
	u64 end;
	u64 now;
	u64 at;       /* where that payload starts: in the packet, or in the process's memory */
	u64 seen;     /* position after the last byte that was seen */
	u64 next;     /* position of the next byte to read */
	u64 busy;     /* 1 while a CPU reads */
	u64 began_ns; /* first byte of the message that is being read */
	u64 length;   /* of its body */
	u64 left;     /* elements that are still to come */
	u16 missed;   /* another CPU was reading when a segment came */
	u8 ends;      /* nothing comes behind the segment at hand */
	u8 pad;
	u8 state;
	u8 flags; /* the protocol's own */
	u8 method;
	u8 held;
	u16 status;
	u16 unused;
	u32 found; /* through here, what the verifier must not know is not known to it */
	u64 buffer[TALK_HELD / 8];
};

struct talk {
	u64 asked[TALK_ASKED]; /* see ASKED_NS */
	struct half half[2];   /* by enum talk_half */
	u64 ready;             /* enum talk_ready */
	u64 pauses;            /* weir_shed's, when it was read last */
	u64 row;               /* last row, and above it its generation */
	u32 slot;
	u32 generation;
	u32 first; /* the oldest request without an answer, the number that the next one gets */
	u32 last;
	u8 role;
	u8 protocol; /* enum weir_protocol, once it is known */
	u8 sure;     /* both ends spoke it */
	u8 tries;
	u8 linked; /* its plaintext is read where the process gives it to its TLS library (tls.h) */
	u8 turn;   /* 1 + enum talk_half of the end that spoke last, 0: nobody yet */
	u8 pipelines; /* it asked before it was answered */
	u8 looked;    /* for the TLS session of the segment at hand, in vain */
	u32 nonce;    /* of this connection among those whose state lay here: by their numbers */
	u8 unrouted;  /* the route of the newest request is still to be found, in `line` */
	u8 pad[3];
#ifdef WEIR_ROUTES
	u32 found; /* as in a half */
	u32 pad_again;
	u64 line[WEIR_LINE / 8]; /* a request's first bytes, or its path; and that decoded */
	u64 text[WEIR_LINE / 8];
#endif
};
#ifndef WEIR_USER
BPF_SK_STORAGE(talks, struct talk);
#endif

/* The programs that read a protocol's messages, by enum weir_protocol; 0 is what a connection begins with. */
BPF_PROG_ARRAY(readers, WEIR_READERS);

#define NO_LINE 255

/* What a step of reading tells besides how many bytes it took. */
#define STEP_MORE  0       /* too few bytes to tell */
#define STEP_BAD   (~0ULL) /* not this protocol, or not to be understood */
#define STEP_OTHER (~1ULL) /* the protocol of another program */

static __always_inline u32 talk_answers(struct talk *t, u32 leaves)
{
	return (t->role == WEIR_SOURCE) != leaves;
}

static __always_inline u32 talk_waiting(struct talk *t)
{
	return t->last - t->first;
}

static __always_inline int talk_push(struct talk *t, u64 began_ns, u32 method)
{
	u32 last = t->last;

	if (last - t->first >= TALK_ASKED)
		return 0;
	t->asked[last % TALK_ASKED] = (began_ns & ASKED_NS) | method;
	t->last = last + 1;
	return 1;
}

/* The oldest request, with its method; 0 if there is none. */
static __always_inline u64 talk_oldest(struct talk *t)
{
	return talk_waiting(t) ? t->asked[t->first % TALK_ASKED] : 0;
}

static __always_inline void half_begin(struct half *h, u64 pos)
{
	h->state = TALK_START;
	h->next = pos;
	h->held = 0;
}

/* Out of step. Requests that are not seen by that are counted as one; answers, by the requests they were for. Within
 * the body of a request that was read, nothing is lost: if more come behind it in the same turn, their answers tell.
 */
static __always_inline void half_lose(struct talk *t, struct half *h)
{
	u64 body = equals(t->protocol, WEIR_PROTO_HTTP) & at_least(h->state, TALK_BODY);

	h->state = TALK_LOST;
	h->held = 0;
	if (h != &t->half[ASKS])
		t->pipelines = 1;
	else if (!body || t->pipelines)
		event(WEIR_EV_REQUEST_UNPARSED);
}

/* The row of this result (`what`: as asked_what has it) on this connection; NULL if its edge is gone. */
static __always_inline struct weir_requests *talk_row(struct talk *t, u32 protocol, u32 what,
						      u32 status, u64 now)
{
	u32 method = what & 255, route = what >> 8;
	u64 place = ONCE(t->row);
	struct weir_requests *r = requests_at((u32)place);

	if (place && r && r->state == WEIR_USED && r->generation == place >> 32 &&
	    r->key.slot == t->slot && r->key.generation == t->generation &&
	    r->key.status == status && r->key.method == method && r->key.protocol == protocol &&
	    r->key.route == route)
		return r;
	struct weir_slot *s = slot_at(t->slot);

	if (!s || s->generation != t->generation || s->state == WEIR_FREE) {
		event(WEIR_EV_REQUEST_LATE);
		return NULL;
	}
	struct weir_request_key key = {.slot = t->slot, .generation = t->generation};

	key.protocol = protocol;
	key.method = method;
	key.status = status;
	key.route = route;
	u32 row = row_of(&key, now);

	r = requests_at(row);
	if (r && row)
		t->row = (u64)r->generation << 32 | row;
	return r;
}

static __always_inline void talk_answered(struct talk *t, u32 protocol, u64 asked, u32 status,
					  u64 now)
{
	u64 took = asked_took(asked, now);
	u32 what = protocol == WEIR_PROTO_HTTP ? asked_what(asked) : asked & METHOD_BITS;
	struct weir_requests *r = talk_row(t, protocol, what, status, now);

	if (!r)
		return;
	request_add(r, took, now);
	tap_request(r, asked & TAP_BITS, t->nonce, took, now);
}

/* Whether something of it was not read, said already or not: what had come before a segment that was late was seen, and
 * does not come again.
 */
static __always_inline u64 half_lost(struct half *h)
{
	return equals(h->state, TALK_LOST) | equals(h->state, TALK_TAIL) | not_zero(h->missed) |
	       (at_least(h->state, TALK_START) & under(h->next, h->seen));
}

/* From here on nothing but turns: no protocol that is known, or one that gave way to another. */
static __always_inline void talk_plain(struct talk *t)
{
	t->protocol = WEIR_PROTO_TCP;
	t->half[ASKS].state = TALK_OPAQUE;
	t->half[ANSWERS].state = TALK_OPAQUE;
}

/* Nothing that is known: the request that began it waits for its answer all the same. */
static __always_inline void talk_unknown(struct talk *t, u64 began_ns)
{
	talk_plain(t);
	t->first = t->last = 0;
	if (began_ns)
		talk_push(t, began_ns, WEIR_METHOD_NONE);
}

#endif
