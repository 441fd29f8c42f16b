# SPDX-License-Identifier: Apache-2.0
"""Kernel columns (numpy) to the plain values that rows show; each function takes all rows at once."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from weir.identity.cidrs import text
from weir.kernel.layout import DESTINATION, SOURCE, TCP, UDP, Array, bucket_bounds_us

#: include/net/tcp_states.h, by number; 0 is no TCP state.
TCP_STATES = (
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
    "BOUND_INACTIVE",
)
ROLES = {SOURCE: "source", DESTINATION: "destination"}
PROTOCOLS = {TCP: "tcp", UDP: "udp"}
#: What a remote end is called when all addresses were folded into one edge.
ANY = "*"

_V4_BITS = 96
_ALL_BITS = 128


def state_name(number: int) -> str:
    """Name of a TCP state; its number as text where the kernel has one that we do not know."""
    return TCP_STATES[number] if number < len(TCP_STATES) else str(number)


def addresses(column: Array) -> list[str]:
    """Text of addresses, shape (n, 16) u1; v4-mapped ones as IPv4."""
    return [text(raw) for raw in _bytes_of_rows(column)]


def networks(column: Array, bits: Array) -> list[str]:
    """Text of remote ends, shapes (n, 16) and (n,): address, CIDR where folded, ``*`` for all of them."""
    return [_network(raw, n) for raw, n in zip(_bytes_of_rows(column), bits.tolist(), strict=True)]


def names(column: Array) -> list[str]:
    """Text of zero-terminated names, shape (n,) S16."""
    return [raw.partition(b"\0")[0].decode("utf-8", "replace") for raw in column.tolist()]


def seconds_since(column: Array, monotonic_ns: int) -> list[float | None]:
    """Seconds from each CLOCK_MONOTONIC time (ns, shape (n,)) to now, never below 0; None where it is 0."""
    return [max(0, monotonic_ns - ns) / 1e9 if ns else None for ns in column.tolist()]


def percentiles_us(histograms: Array, share: float) -> list[float | None]:
    """Percentile (``share`` in 0..1) of each log-linear histogram, shape (n, 96), in microseconds.

    Linear between the bounds of its bucket; the lower bound in the last, open one; None where nothing
    was counted.
    """
    if not len(histograms):
        return []
    upper = bucket_bounds_us()
    lower = np.concatenate(([0.0], upper[:-1]))
    upper[-1] = lower[-1]
    counts = histograms.astype(np.float64)
    sums = np.cumsum(counts, axis=1)
    wanted = sums[:, -1] * share
    bucket = np.argmax(sums >= wanted[:, None], axis=1)
    rows = np.arange(len(counts))
    inside = counts[rows, bucket]
    part = np.divide(
        wanted - (sums[rows, bucket] - inside), inside, out=np.zeros(len(counts)), where=inside > 0
    )
    values: NDArray[np.float64] = lower[bucket] + part * (upper - lower)[bucket]
    empty = sums[:, -1] == 0
    return [None if none else round(v, 1) for v, none in zip(values.tolist(), empty.tolist(), strict=True)]


def opaque_ids(columns: Sequence[Array]) -> list[str]:
    """A stable text for each row, 16 hex digits, hashed from the bytes of the columns (n rows each)."""
    parts = [_bytes_of_rows(column) for column in columns]
    return [blake2b(b"".join(row), digest_size=8).hexdigest() for row in zip(*parts, strict=True)]


def _bytes_of_rows(column: Array) -> list[bytes]:
    flat = np.ascontiguousarray(column)
    size = flat.nbytes // len(flat) if len(flat) else 0
    whole = flat.tobytes()
    return [whole[i * size : (i + 1) * size] for i in range(len(flat))]


def _network(raw: bytes, bits: int) -> str:
    if bits == 0:
        return ANY
    if bits >= _ALL_BITS:
        return text(raw)
    address = ipaddress.IPv6Address(raw)
    if address.ipv4_mapped is not None and bits >= _V4_BITS:
        return f"{address.ipv4_mapped}/{bits - _V4_BITS}"
    return f"{address}/{bits}"
