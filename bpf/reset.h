// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* reset.h: RST segments sent and received, on the edge of their connection. */
#ifndef WEIR_RESET_H
#define WEIR_RESET_H

#include "conn.h"

/* The socket may be missing (nobody listened) or be a request's or TIME_WAIT's small one, which has
 * no more than its common part; where Weir is scoped, what cannot be placed is not ours.
 */
static __always_inline void reset_unmatched(struct sock *sk)
{
#ifdef WEIR_SCOPE_NETNS
	u32 netns = sk ? sock_netns(sk) : 0;

	if (!scope_netns.lookup(&netns))
		return;
#endif
#if defined(WEIR_SCOPE_CGROUP) || defined(WEIR_SCOPE_PORT)
	return;
#endif
	event(WEIR_EV_RESET_UNMATCHED);
}

static __always_inline void on_reset(struct sock *sk, int sent)
{
	struct conn *c = NULL;

	if (sk) /* no ?: here, of which BCC thinks that it gives kernel memory */
		c = conn_find(sk);
	struct weir_slot *s = c && c->slot ? slot_at(c->slot) : NULL;

	if (!c)
		reset_unmatched(sk);
	else if (!s)
		c->reset = 1; /* a refused connect is a failure and counted as one */
	else if (sent)
		ADD(s->resets_sent, 1);
	else
		ADD(s->resets_received, 1);
}

#endif
