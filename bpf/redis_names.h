// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* redis_names.h: the commands of Redis that are told apart. */
#ifndef WEIR_REDIS_NAMES_H
#define WEIR_REDIS_NAMES_H

#include "words.h"

/* Commands that have a name of their own; layout.REDIS_METHODS has them in this order. */
enum redis_method {
	REDIS_NONE,
	REDIS_OTHER,
	REDIS_GET,
	REDIS_SET,
	REDIS_DEL,
	REDIS_INCR,
	REDIS_MGET,
	REDIS_MSET,
	REDIS_HGET,
	REDIS_HSET,
	REDIS_HMGET,
	REDIS_HGETALL,
	REDIS_EXISTS,
	REDIS_EXPIRE,
	REDIS_TTL,
	REDIS_SETEX,
	REDIS_SETNX,
	REDIS_INCRBY,
	REDIS_DECR,
	REDIS_LPUSH,
	REDIS_RPUSH,
	REDIS_LPOP,
	REDIS_RPOP,
	REDIS_LRANGE,
	REDIS_LLEN,
	REDIS_SADD,
	REDIS_SREM,
	REDIS_SMEMBERS,
	REDIS_ZADD,
	REDIS_ZRANGE,
	REDIS_ZREM,
	REDIS_ZINCRBY,
	REDIS_EVAL,
	REDIS_EVALSHA,
	REDIS_PUBLISH,
	REDIS_PING,
	REDIS_SCAN,
	REDIS_XADD,
	REDIS_XREAD,
	REDIS_MULTI,
	REDIS_EXEC,
	REDIS_AUTH,
	REDIS_SELECT,
	REDIS_UNLINK,
	REDIS_HDEL,
	REDIS_HINCRBY,
	REDIS_METHODS
};

/* A command's name by its first eight letters, its length; all the names here are no longer. */
static __always_inline u32 redis_method(u64 word, u64 length)
{
	u64 name = word & EVERY(0xdf);

	if (!length || length > 8)
		return REDIS_OTHER;
	name = name << (64 - 8 * length) >> (64 - 8 * length);
#define IS(id, ...)                  \
	if (name == W8(__VA_ARGS__)) \
	return REDIS_##id
	IS(GET, 'G', 'E', 'T', 0, 0, 0, 0, 0);
	IS(SET, 'S', 'E', 'T', 0, 0, 0, 0, 0);
	IS(DEL, 'D', 'E', 'L', 0, 0, 0, 0, 0);
	IS(INCR, 'I', 'N', 'C', 'R', 0, 0, 0, 0);
	IS(MGET, 'M', 'G', 'E', 'T', 0, 0, 0, 0);
	IS(MSET, 'M', 'S', 'E', 'T', 0, 0, 0, 0);
	IS(HGET, 'H', 'G', 'E', 'T', 0, 0, 0, 0);
	IS(HSET, 'H', 'S', 'E', 'T', 0, 0, 0, 0);
	IS(HMGET, 'H', 'M', 'G', 'E', 'T', 0, 0, 0);
	IS(HGETALL, 'H', 'G', 'E', 'T', 'A', 'L', 'L', 0);
	IS(EXISTS, 'E', 'X', 'I', 'S', 'T', 'S', 0, 0);
	IS(EXPIRE, 'E', 'X', 'P', 'I', 'R', 'E', 0, 0);
	IS(TTL, 'T', 'T', 'L', 0, 0, 0, 0, 0);
	IS(SETEX, 'S', 'E', 'T', 'E', 'X', 0, 0, 0);
	IS(SETNX, 'S', 'E', 'T', 'N', 'X', 0, 0, 0);
	IS(INCRBY, 'I', 'N', 'C', 'R', 'B', 'Y', 0, 0);
	IS(DECR, 'D', 'E', 'C', 'R', 0, 0, 0, 0);
	IS(LPUSH, 'L', 'P', 'U', 'S', 'H', 0, 0, 0);
	IS(RPUSH, 'R', 'P', 'U', 'S', 'H', 0, 0, 0);
	IS(LPOP, 'L', 'P', 'O', 'P', 0, 0, 0, 0);
	IS(RPOP, 'R', 'P', 'O', 'P', 0, 0, 0, 0);
	IS(LRANGE, 'L', 'R', 'A', 'N', 'G', 'E', 0, 0);
	IS(LLEN, 'L', 'L', 'E', 'N', 0, 0, 0, 0);
	IS(SADD, 'S', 'A', 'D', 'D', 0, 0, 0, 0);
	IS(SREM, 'S', 'R', 'E', 'M', 0, 0, 0, 0);
	IS(SMEMBERS, 'S', 'M', 'E', 'M', 'B', 'E', 'R', 'S');
	IS(ZADD, 'Z', 'A', 'D', 'D', 0, 0, 0, 0);
	IS(ZRANGE, 'Z', 'R', 'A', 'N', 'G', 'E', 0, 0);
	IS(ZREM, 'Z', 'R', 'E', 'M', 0, 0, 0, 0);
	IS(ZINCRBY, 'Z', 'I', 'N', 'C', 'R', 'B', 'Y', 0);
	IS(EVAL, 'E', 'V', 'A', 'L', 0, 0, 0, 0);
	IS(EVALSHA, 'E', 'V', 'A', 'L', 'S', 'H', 'A', 0);
	IS(PUBLISH, 'P', 'U', 'B', 'L', 'I', 'S', 'H', 0);
	IS(PING, 'P', 'I', 'N', 'G', 0, 0, 0, 0);
	IS(SCAN, 'S', 'C', 'A', 'N', 0, 0, 0, 0);
	IS(XADD, 'X', 'A', 'D', 'D', 0, 0, 0, 0);
	IS(XREAD, 'X', 'R', 'E', 'A', 'D', 0, 0, 0);
	IS(MULTI, 'M', 'U', 'L', 'T', 'I', 0, 0, 0);
	IS(EXEC, 'E', 'X', 'E', 'C', 0, 0, 0, 0);
	IS(AUTH, 'A', 'U', 'T', 'H', 0, 0, 0, 0);
	IS(SELECT, 'S', 'E', 'L', 'E', 'C', 'T', 0, 0);
	IS(UNLINK, 'U', 'N', 'L', 'I', 'N', 'K', 0, 0);
	IS(HDEL, 'H', 'D', 'E', 'L', 0, 0, 0, 0);
	IS(HINCRBY, 'H', 'I', 'N', 'C', 'R', 'B', 'Y', 0);
#undef IS
	return REDIS_OTHER;
}

#endif
