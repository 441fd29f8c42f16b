// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* tls_forget.h: sessions go on after a time in which nobody was told what they carried. */
#ifndef WEIR_TLS_FORGET_H
#define WEIR_TLS_FORGET_H

#include "tls_calls.h"

/* raw_tp, never attached; args: a session's address, and its process. What comes next is read anew, as of a
 * connection older than the probes, and of what was on its way nobody knows.
 */
int tls_forget(struct bpf_raw_tracepoint_args *ctx)
{
	struct tls_key key = {.id = ctx->args[0], .tgid = ctx->args[1]};
	struct tls_talk *u = tls_talks.lookup(&key);

	if (!u)
		return 0;
	struct talk *t = &u->talk;
	struct h2 *c = u->streams ? tls_h2s.lookup(&key) : NULL;

	talk_drop(t);
	half_lose(t, &t->half[ASKS]);
	half_lose(t, &t->half[ANSWERS]);
	t->turn = 0;
	if (c) {
		c->lost_ns = bpf_ktime_get_ns();
		c->half[ASKS].at = c->half[ASKS].n = 0;
		c->half[ANSWERS].at = c->half[ANSWERS].n = 0;
	}
	return 0;
}

#endif
