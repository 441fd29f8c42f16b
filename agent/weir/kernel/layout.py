# SPDX-License-Identifier: Apache-2.0
"""The structs of ``bpf/weir.h`` as numpy dtypes.

The loader compiles :func:`static_asserts` together with the programs, so the two
descriptions cannot differ unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

ABI = 3
SOURCE, DESTINATION = 1, 2
FREE, USED, RETIRING = 0, 1, 2
TCP, UDP = 6, 17
FAILURES = ("refused", "timeout", "unreachable", "reset", "aborted", "local")
EVENTS = (
    "slot_overflow",
    "storage_failed",
    "untracked",
    "late_close",
    "listener_full",
    "claim_lost",
    "reset_unmatched",
    "packet_unreadable",
    "udp_failed",
    "connection_limit",
    "request_overflow",
    "request_late",
    "request_unparsed",
    "talk_failed",
)
#: Events by which something is missing from the figures, or has lost its owner.
LOSSES = (
    "slot_overflow",
    "storage_failed",
    "listener_full",
    "packet_unreadable",
    "udp_failed",
    "connection_limit",
    "request_late",
    "request_unparsed",
    "talk_failed",
)
PROTOCOLS = ("", "tcp", "http", "dns", "redis", "http2", "grpc", "postgresql", "mysql")
#: Programs that are called with a packet: what reads a protocol, and what goes on for one.
READERS = (
    *PROTOCOLS,
    "end",
    "http2 results",
    "http2 end",
    "http2 path",
    "http2 upgrade",
    "defers",
    "deferred",
    "tls",
    "segments",
)
METHODS = (
    "", "_OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
)  # fmt: skip
#: Commands of Redis that have a name of their own, as enum redis_method in ``bpf/redis.h``.
REDIS_METHODS = (
    "", "_OTHER", "GET", "SET", "DEL", "INCR", "MGET", "MSET", "HGET", "HSET", "HMGET", "HGETALL",
    "EXISTS", "EXPIRE", "TTL", "SETEX", "SETNX", "INCRBY", "DECR", "LPUSH", "RPUSH", "LPOP", "RPOP",
    "LRANGE", "LLEN", "SADD", "SREM", "SMEMBERS", "ZADD", "ZRANGE", "ZREM", "ZINCRBY", "EVAL", "EVALSHA",
    "PUBLISH", "PING", "SCAN", "XADD", "XREAD", "MULTI", "EXEC", "AUTH", "SELECT", "UNLINK", "HDEL",
    "HINCRBY",
)  # fmt: skip
#: Kinds of SQL statements, by their first word, as enum sql_method in ``bpf/sql.h``.
SQL_METHODS = (
    "", "_OTHER", "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "BEGIN", "START",
    "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET", "SHOW", "CREATE", "ALTER", "DROP", "TRUNCATE",
    "COPY", "FETCH", "DECLARE", "CLOSE", "CALL", "DO", "EXPLAIN", "ANALYZE", "VACUUM", "LOCK", "LISTEN",
    "NOTIFY", "GRANT", "REVOKE", "PREPARE", "EXECUTE", "DEALLOCATE", "RESET", "DISCARD", "WITH",
    "VALUES", "USE", "LOAD", "MOVE", "PING", "INIT DB",
)  # fmt: skip
#: Buckets of a request's duration: 16 an octave from 2**-20 s on (schema 4 of native histograms).
DURATIONS = 416
BUCKETS = 96
#: Microseconds of one histogram unit (the first four buckets are this wide).
UNIT_US = 4

Array = NDArray[Any]

EDGE = np.dtype(
    [
        ("laddr", "u1", 16),
        ("raddr", "u1", 16),
        ("dialled", "u1", 16),
        ("cgroup", "u8"),
        ("netns", "u4"),
        ("port", "u2"),
        ("family", "u1"),
        ("proto", "u1"),
        ("role", "u1"),
        ("raddr_bits", "u1"),
        ("dialled_port", "u2"),
        ("pad", "u1", 4),
        ("comm", "S16"),
    ]
)

SLOT = np.dtype(
    [
        ("key", EDGE),
        ("state", "u4"),
        ("generation", "u4"),
        ("born_ns", "u8"),
        ("active_ns", "u8"),
        ("tgid", "u4"),
        ("pad", "u4"),
        ("sent_bytes", "u8"),
        ("received_bytes", "u8"),
        ("sent_datagrams", "u8"),
        ("received_datagrams", "u8"),
        ("opened", "u8"),
        ("closed", "u8"),
        ("live", "u8"),
        ("retransmitted", "u8"),
        ("resets_sent", "u8"),
        ("resets_received", "u8"),
        ("failed", "u8", len(FAILURES)),
        ("rtt_sum_us", "u8"),
        ("connect_sum_us", "u8"),
        ("rtt", "u8", BUCKETS),
        ("connect", "u8", BUCKETS),
    ]
)

REQUEST_KEY = np.dtype(
    [
        ("slot", "u4"),
        ("generation", "u4"),
        ("status", "u2"),
        ("route", "u2"),
        ("protocol", "u1"),
        ("method", "u1"),
        ("pad", "u1", 2),
    ]
)

REQUESTS = np.dtype(
    [
        ("key", REQUEST_KEY),
        ("state", "u4"),
        ("generation", "u4"),
        ("born_ns", "u8"),
        ("active_ns", "u8"),
        ("untimed", "u8"),
        ("sum_ns", "u8"),
        ("duration", "u8", DURATIONS),
    ]
)

#: What tells which rows there are.
REQUEST_HEADS = np.dtype([(name, REQUESTS[name]) for name in ("key", "state", "generation", "active_ns")])

RECORD = np.dtype(
    [
        ("laddr", "u1", 16),
        ("raddr", "u1", 16),
        ("socket", "u8"),
        ("sent_bytes", "u8"),
        ("received_bytes", "u8"),
        ("born_ns", "u8"),
        ("cgroup", "u8"),
        ("netns", "u4"),
        ("tgid", "u4"),
        ("slot", "u4"),
        ("retransmitted", "u4"),
        ("srtt_us", "u4"),
        ("lport", "u2"),
        ("rport", "u2"),
        ("state", "u1"),
        ("proto", "u1"),
        ("family", "u1"),
        ("role", "u1"),
        ("pad", "u4"),
        ("comm", "S16"),
    ]
)

#: What `weir tap` asks for.
TAP = np.dtype([("until_ns", "u8"), ("left", "u8"), ("skipped", "u8")])

#: What the agent takes away for a while.
SHED = np.dtype([("requests_until_ns", "u8"), ("pauses", "u8"), ("tap_until_ns", "u8")])

TAPPED = np.dtype(
    [
        ("key", REQUEST_KEY),
        ("ended_ns", "u8"),
        ("took_ns", "u8"),
        ("line", "u1", 128),
    ]
)
#: ``took_ns`` of a request that was never answered.
UNANSWERED = 2**64 - 1

STRUCTS = {
    "weir_edge": EDGE, "weir_slot": SLOT, "weir_request_key": REQUEST_KEY, "weir_requests": REQUESTS,
    "weir_record": RECORD, "weir_tap": TAP, "weir_shed": SHED,
    "weir_tapped": TAPPED,
}  # fmt: skip


def static_asserts() -> str:
    """C text that fails to compile where ``bpf/weir.h`` differs from the dtypes above."""
    return "\n".join(_asserts()) + "\n"


def _asserts() -> Iterator[str]:
    for name, dtype in STRUCTS.items():
        yield f'_Static_assert(sizeof(struct {name}) == {dtype.itemsize}, "{name}");'
        assert dtype.fields is not None
        for field, (kind, offset, *_) in dtype.fields.items():
            at = f"__builtin_offsetof(struct {name}, {field})"
            yield f'_Static_assert({at} == {offset}, "{name}.{field}");'
            size = f"sizeof(((struct {name} *)0)->{field})"
            yield f'_Static_assert({size} == {kind.itemsize}, "{name}.{field} size");'
    yield f'_Static_assert(WEIR_FAILURES == {len(FAILURES)}, "failures");'
    yield f'_Static_assert(WEIR_EVENTS == {len(EVENTS)}, "events");'
    yield f'_Static_assert(WEIR_PROTOCOLS == {len(PROTOCOLS)}, "protocols");'
    yield f'#ifdef WEIR_REQUESTS\n_Static_assert(REDIS_METHODS == {len(REDIS_METHODS)}, "redis");\n#endif'
    yield f'_Static_assert(WEIR_METHODS == {len(METHODS)}, "methods");'
    yield f'_Static_assert(WEIR_DURATIONS == {DURATIONS}, "durations");'
    yield f'_Static_assert(WEIR_BUCKETS == {BUCKETS}, "buckets");'
    yield f'_Static_assert(WEIR_ABI == {ABI}, "abi");'


def bucket_bounds_us() -> Array:
    """Upper bounds (exclusive, microseconds, float64) of the histogram buckets, shape (96,).

    The last one is infinite. A value ``v`` in units of 4 us falls into bucket ``v`` below 4,
    else ``4 * (msb(v) - 1) + next two bits``, as ``hist_bucket`` in ``bpf/count.h``.
    """
    index = np.arange(BUCKETS, dtype=np.int64)
    octave, sub = index // 4, index % 4
    units = np.where(index < 4, index + 1, (4 + sub + 1) << np.maximum(octave - 1, 0))
    bounds = units.astype(np.float64) * UNIT_US
    bounds[-1] = np.inf
    return bounds


def duration_bounds() -> Array:
    """Upper bounds (seconds, float64) of the duration buckets, shape (416,); the last one is infinite.

    Bucket ``i`` ends at 2 ** ((i + 1) / 16 - 20) seconds, as in ``duration_bucket`` of ``bpf/requests.h``.
    """
    bounds: Array = 2.0 ** ((np.arange(DURATIONS) + 1) / 16 - 20)
    bounds[-1] = np.inf
    return bounds
