// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* tls_go.h: Go's crypto/tls. Arguments are in registers since Go 1.17 (amd64, arm64 since 1.18: the runtime's
 * cmd/compile/abi-internal.md); a call is known by its goroutine, which may go on in another thread. The session
 * tells its socket: tls.Conn.conn is an interface of a *net.TCPConn, whose first word points to a netFD, whose
 * poll.FD begins with 16 bytes of a mutex and the descriptor.
 */
#ifndef WEIR_TLS_GO_H
#define WEIR_TLS_GO_H

#include "tls_calls.h"

#ifdef bpf_target_x86 /* BCC's helpers.h, which has no macro for these registers */
#define GO_ARG(ctx, n)    ((n) == 0 ? (ctx)->ax : (n) == 1 ? (ctx)->bx : (ctx)->cx)
#define GO_GOROUTINE(ctx) ((ctx)->r14)
#else
#define GO_ARG(ctx, n)    ((ctx)->regs[n])
#define GO_GOROUTINE(ctx) ((ctx)->regs[28])
#endif

static __always_inline u64 user_word(u64 at)
{
	u64 word = 0;

	read_user(&word, sizeof(word), (void *)at);
	return word;
}

/* The process's socket of this number; 0 if it is none. */
static __always_inline u64 socket_of_fd(u32 fd)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct files_struct *files = PROBE(task, files);
	struct fdtable *table = PROBE(files, fdt);

	if (fd >= PROBE(table, max_fds))
		return 0;
	struct file **open = PROBE(table, fd), *file = NULL;

	read_kernel(&file, sizeof(file), &open[fd]);
	struct socket *so = PROBE(file, private_data);

	return so && PROBE(so, file) == file ? (u64)PROBE(so, sk) : 0;
}

static __always_inline struct tls_key this_goroutine(struct pt_regs *ctx)
{
	struct tls_key goroutine = {.id = GO_GOROUTINE(ctx)};

	goroutine.tgid = bpf_get_current_pid_tgid() >> 32;
	return goroutine;
}

/* Tells the packet plane which socket the session speaks on. */
static __always_inline void go_unlinked(u64 session)
{
	struct tls_key key = {.id = session};
	u64 descriptor = user_word(user_word(session + 8)),
	    sk = socket_of_fd((u32)user_word(descriptor + 16));

	key.tgid = bpf_get_current_pid_tgid() >> 32;
	if (sk)
		tls_sockets.update(&sk, &key);
}

static __always_inline struct tls_call *go_begin(struct pt_regs *ctx, u32 kind)
{
	struct tls_key goroutine = this_goroutine(ctx);
	u64 session = GO_ARG(ctx, 0);
	struct tls_call *call = call_begin(&goroutine, session, kind);

	if (!call)
		return NULL;
	call->buffer = GO_ARG(ctx, 1);
	if (!call_talk(call))
		go_unlinked(session);
	return call;
}

/* crypto/tls.(*Conn).clientHandshake and .serverHandshake: once a connection, before its first record. */
int go_handshake(struct pt_regs *ctx)
{
	go_unlinked(GO_ARG(ctx, 0));
	return 0;
}

int go_write(struct pt_regs *ctx)
{
	struct tls_call *call = go_begin(ctx, TLS_WRITE);
	struct tls_talk *u = call ? call_talk(call) : NULL;

	return u ? tls_bytes(ctx, call, u, TLS_WROTE, call->buffer, u->pos[TLS_WROTE],
			     (s64)GO_ARG(ctx, 2))
		 : 0;
}

/* The same where it is come to once in each call, which writes all or ends the connection: no return is needed. */
int go_write_once(struct pt_regs *ctx)
{
	struct tls_call *call = go_begin(ctx, TLS_NONE);
	struct tls_talk *u = call ? call_talk(call) : NULL;
	u64 size = GO_ARG(ctx, 2);

	if (!u)
		return 0;
	u64 pos = u->pos[TLS_WROTE];

	u->pos[TLS_WROTE] = pos + size;
	return tls_bytes(ctx, call, u, TLS_WROTE, call->buffer, pos, (s64)size);
}

int go_read(struct pt_regs *ctx)
{
	go_begin(ctx, TLS_READING);
	return 0;
}

int go_return(struct pt_regs *ctx)
{
	struct tls_key goroutine = this_goroutine(ctx);
	struct tls_call *call = tls_calls.lookup(&goroutine);

	return call ? call_end(ctx, call, (s64)GO_ARG(ctx, 0)) : 0;
}

int go_close(struct pt_regs *ctx)
{
	return session_end(ctx, GO_ARG(ctx, 0));
}

#endif
