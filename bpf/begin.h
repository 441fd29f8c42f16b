// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* begin.h: which protocol a connection's first bytes are of, where it is not HTTP/1 (http.h). */
#ifndef WEIR_BEGIN_H
#define WEIR_BEGIN_H

#include "dns_tcp.h"
#include "ends.h"
#include "http2.h"
#include "http2_upgrade.h"
#ifdef WEIR_ROUTES
#include "http2_path.h"
#endif
#include "mysql.h"
#include "postgres.h"
#include "redis.h"

/* By the first bytes of a client, or in the middle of a connection by those of a turn; 0: none of these. */
static __always_inline u32 protocol_of(const u64 *words, u32 n, u32 middle)
{
	if (h2_begins(words, n, middle))
		return WEIR_PROTO_HTTP2;
	if (pg_begins(words, n, middle))
		return WEIR_PROTO_POSTGRESQL;
	if (dns_begins(words, n))
		return WEIR_PROTO_DNS;
	return mysql_begins(words, n, middle) ? WEIR_PROTO_MYSQL : 0;
}

/* By the first bytes of a server that speaks first: settings of HTTP/2 (RFC 9113 3.4), MySQL's greeting. */
static __always_inline u32 protocol_of_server(carrier *ctx, u64 at, u32 len)
{
	u64 words[2] = {};
	const u8 *b = (const u8 *)words;

	if (len < H2_HEAD || carry(ctx, at, words, H2_HEAD))
		return 0;
	if (b[3] == H2_SETTINGS && !b[4] && h2_control(b))
		return WEIR_PROTO_HTTP2;
	return mysql_greets(b) ? WEIR_PROTO_MYSQL : 0;
}

#endif
