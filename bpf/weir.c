// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* weir.c: all programs, in one compile. The loader puts the included files in here (BCC rewrites
 * only the main text), defines what is wanted and attaches it: agent/weir/kernel/plan.py.
 *
 * WEIR_STORAGE | WEIR_TRACEPOINT | WEIR_KPROBE  how TCP is watched (tcp_hooks.h)
 * WEIR_UDP, WEIR_ITERATORS                      UDP flows; views and what was there before
 * WEIR_REQUESTS, WEIR_REQUEST_PORTS             requests on TCP connections; ports where they are not looked for
 * WEIR_ROUTES                                   patterns of paths; WEIR_ROUTE_ROOT, _INDEX: those of HPACK's table
 * WEIR_TLS                                      TLS sessions are read by uprobes (weir_tls.c)
 * WEIR_NAT, WEIR_SCOPE_*                        translated connections; what is watched, where that is not all
 * WEIR_BY_PROCESS                               the process name is part of an edge
 */
#ifdef WEIR_STORAGE
#define WEIR_TYPED
#endif
#include "tcp_hooks.h"
#include "retire.h"
#ifdef WEIR_UDP
#include "udp.h"
#ifdef WEIR_ITERATORS
#include "udp_records.h"
#endif
#endif
#ifdef WEIR_REQUESTS
#include "segments.h"
#endif
#ifdef WEIR_ITERATORS
#include "discover.h"
#endif
