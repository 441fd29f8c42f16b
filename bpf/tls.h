// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* tls.h: what the packet plane and the uprobes on TLS libraries share.
 *
 * A session is the library's object (SSL *, gnutls_session_t, *tls.Conn) of one process. The packet plane links
 * it to its connection (tls_link.h), from then on the uprobes read the plaintext (tls_calls.h).
 */
#ifndef WEIR_TLS_H
#define WEIR_TLS_H

#include "talk.h"

#define TLS_CALLS   8192 /* threads within a call; that forgot one were killed in it, and make room */
#define TLS_SOCKETS 4096

/* A session: address and process; a goroutine likewise; a thread: address of its task, and 0. */
struct tls_key {
	u64 id;
	u64 tgid;
};

enum tls_way { TLS_WROTE, TLS_READ, TLS_WAYS };

struct tls_talk {
	struct talk talk; /* first: readers know no more of it */
	struct tls_key key;
	u64 pos[TLS_WAYS]; /* bytes of plaintext so far */
	u64 streams;       /* it has its state of HTTP/2 */
};
BPF_F_TABLE("hash", struct tls_key, struct tls_talk, tls_talks, SIZED, BPF_F_NO_PREALLOC);

enum tls_kind {
	TLS_NONE, /* not within a call */
	TLS_HANDSHAKE,
	TLS_WRITE,
	TLS_READING,
	TLS_READING_EX, /* tells how much through a pointer */
	TLS_WRITE_EX,
};

/* What a thread, or a goroutine, has called its library for. */
struct tls_call {
	u64 session;
	u64 tgid;
	u64 buffer;
	u64 size_at; /* where the library puts how much it was */
	u64 began_ns;
	u64 stack;    /* where the stack was as it began, and is as it returns */
	u64 unlinked; /* session of the last call that is not linked to a connection yet, ... */
	u8 several;   /* ... and there was another one since the thread sent something */
	u8 kind;      /* enum tls_kind */
	u8 answers;   /* enum talk_half that is read */
	u8 pad[5];
};
BPF_TABLE("lru_hash", struct tls_key, struct tls_call, tls_calls, TLS_CALLS);

/* Where a session knows its socket (Go): struct sock → session. */
BPF_TABLE("lru_hash", u64, struct tls_key, tls_sockets, TLS_SOCKETS);

#endif
