// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* tls_calls.h: calls of TLS libraries as their own threads make them: OpenSSL, GnuTLS and what has the same form.
 *
 * What is written is read at the call's beginning, since the answer may come before it returns; positions count what
 * the library said it took, so that a call that is made again (SSL_ERROR_WANT_WRITE) is read once. What was read is
 * there when the call returns. Programs run where a function begins and at each place where it returns, or where that
 * returns which it ends by jumping to: none changes where a function returns to, as return probes do
 * (agent/weir/tls/code.py, sites.py). Others may call what it jumps to: the call's own return is the one at its stack.
 */
#ifndef WEIR_TLS_CALLS_H
#define WEIR_TLS_CALLS_H

#include "turns.h"

/* A thread's or a goroutine's call; made if there is none yet. */
static __always_inline struct tls_call *call_of(struct tls_key *caller)
{
	struct tls_call *call = tls_calls.lookup(caller), fresh = {};

	if (call)
		return call;
	tls_calls.update(caller, &fresh);
	return tls_calls.lookup(caller);
}

static __always_inline struct tls_call *call_begin(struct tls_key *caller, u64 session, u32 kind)
{
	struct tls_call *call = call_of(caller);

	if (!call)
		return NULL;
	call->session = session;
	call->tgid = bpf_get_current_pid_tgid() >> 32;
	call->began_ns = bpf_ktime_get_ns();
	call->kind = kind;
	return call;
}

/* A call of the running thread. */
static __always_inline struct tls_call *thread_begin(struct pt_regs *ctx, u64 session, u32 kind)
{
	struct tls_key thread = {.id = bpf_get_current_task()};
	struct tls_call *call = call_begin(&thread, session, kind);

	if (call)
		call->stack = PT_REGS_SP(ctx);
	return call;
}

static __always_inline struct tls_key this_thread(void)
{
	struct tls_key thread = {.id = bpf_get_current_task()};

	return thread;
}

/* Its session's conversation; NULL where it is not linked to a connection (yet). */
static __always_inline struct tls_talk *call_talk(struct tls_call *call)
{
	struct tls_key session = {.id = call->session, .tgid = call->tgid};

	return tls_talks.lookup(&session);
}

/* What is sent next by this thread may be the session's. */
static __always_inline void call_unlinked(struct tls_call *call)
{
	if (call->unlinked && call->unlinked != call->session)
		call->several = 1;
	call->unlinked = call->session;
}

/* Plaintext at `from`, at `pos` of those that went this way. */
static __always_inline int tls_bytes(struct pt_regs *ctx, struct tls_call *call, struct tls_talk *u,
				     u32 way, u64 from, u64 pos, s64 size)
{
	struct talk *t = &u->talk;
	struct segment g = {.at = from, .len = size, .leaves = way == TLS_WROTE};

	if (requests_shed())
		return 0;
	g.answers = talk_answers(t, g.leaves);
	g.now = way == TLS_WROTE ? call->began_ns : 0;
	struct half *h = &t->half[g.answers & 1];

	pos += 1ULL << 32;
	if (size <= 0 || (pos + size <= h->seen && pos + size <= h->next))
		return 0;
	if (h->next < pos && h->state >= TALK_START)
		half_lose(t, h);
	if (!talk_bytes(ctx, t, h, &g, pos))
		return 0;
	struct tls_key thread = this_thread();
	struct tls_call *reading = call_of(&thread);

	if (reading) {
		reading->session = u->key.id;
		reading->tgid = u->key.tgid;
		reading->answers = g.answers;
		readers.call(ctx, t->protocol);
	}
	/* there is no such program: its plane is down */
	talk_unknown(t, 0);
	half_release(h);
	return 0;
}

static __always_inline int call_write(struct pt_regs *ctx, struct tls_call *call, u64 buffer,
				      s64 size)
{
	struct tls_talk *u = call ? call_talk(call) : NULL;

	if (!call)
		return 0;
	call->buffer = buffer;
	if (u)
		return tls_bytes(ctx, call, u, TLS_WROTE, buffer, u->pos[TLS_WROTE], size);
	call_unlinked(call);
	return 0;
}

static __always_inline int call_read(struct tls_call *call, u64 buffer)
{
	if (!call)
		return 0;
	call->buffer = buffer;
	if (!call_talk(call))
		call_unlinked(call);
	return 0;
}

/* The call returns: so many bytes were taken or are there. */
static __always_inline int call_end(struct pt_regs *ctx, struct tls_call *call, s64 result)
{
	u32 kind = call->kind,
	    way = kind == TLS_WRITE || kind == TLS_WRITE_EX ? TLS_WROTE : TLS_READ;

	call->kind = TLS_NONE;
	if (kind <= TLS_HANDSHAKE || result <= 0)
		return 0;
	if (kind == TLS_READING_EX || kind == TLS_WRITE_EX) {
		result = 0;
		read_user(&result, sizeof(result), (void *)call->size_at);
	}
	struct tls_talk *u = call_talk(call);

	if (!u || result <= 0)
		return 0;
	u64 pos = u->pos[way & 1];

	u->pos[way & 1] = pos + result;
	return tls_bytes(ctx, call, u, way, call->buffer, pos, result);
}

/* The session ends: no answer comes any more. */
static __always_inline int session_end(struct pt_regs *ctx, u64 session)
{
	struct tls_key thread = this_thread();
	struct tls_call *call = call_begin(&thread, session, TLS_NONE);
	struct tls_talk *u = call ? call_talk(call) : NULL;

	if (!u)
		return 0;
	/* with what is kept of it */
	if (u->streams)
		readers.call(ctx, WEIR_READER_H2_END);
	talk_over(ctx, &u->talk);
	struct tls_key key = u->key;

	tls_talks.delete(&key);
	return 0;
}

/* SSL_write(3), gnutls_record_send(3): uprobes where they begin; so are those that follow. */
int tls_write(struct pt_regs *ctx, u64 session, u64 buffer, u64 size)
{
	return call_write(ctx, thread_begin(ctx, session, TLS_WRITE), buffer, (s64)size);
}

int tls_write_ex(struct pt_regs *ctx, u64 session, u64 buffer, u64 size, u64 size_at)
{
	struct tls_call *call = thread_begin(ctx, session, TLS_WRITE_EX);

	if (call)
		call->size_at = size_at;
	return call_write(ctx, call, buffer, (s64)size);
}

int tls_read(struct pt_regs *ctx, u64 session, u64 buffer)
{
	return call_read(thread_begin(ctx, session, TLS_READING), buffer);
}

int tls_read_ex(struct pt_regs *ctx, u64 session, u64 buffer, u64 size, u64 size_at)
{
	struct tls_call *call = thread_begin(ctx, session, TLS_READING_EX);

	if (call)
		call->size_at = size_at;
	return call_read(call, buffer);
}

int tls_handshake(struct pt_regs *ctx, u64 session)
{
	return call_read(thread_begin(ctx, session, TLS_HANDSHAKE), 0);
}

/* Where they return, at an instruction that nobody else comes to; the stack is not yet as it was. */
int tls_leave(struct pt_regs *ctx)
{
	struct tls_key thread = this_thread();
	struct tls_call *call = tls_calls.lookup(&thread);

	return call ? call_end(ctx, call, (s32)PT_REGS_RC(ctx)) : 0;
}

/* The same, at the return of what they end by jumping to. */
int tls_return(struct pt_regs *ctx)
{
	struct tls_key thread = this_thread();
	struct tls_call *call = tls_calls.lookup(&thread);

	if (!call || call->stack != PT_REGS_SP(ctx))
		return 0;
	return call_end(ctx, call, (s32)PT_REGS_RC(ctx));
}

/* SSL_free(3), gnutls_deinit(3) */
int tls_free(struct pt_regs *ctx, u64 session)
{
	return session_end(ctx, session);
}

#endif
