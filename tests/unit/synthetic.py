# SPDX-License-Identifier: Apache-2.0
"""Drains made by hand, for tests without a kernel side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weir.flows.types import Drain
from weir.identity.cgroups import CgroupPaths
from weir.identity.cidrs import Cidrs, OwnAddresses, packed
from weir.identity.index import Identity
from weir.identity.kube.names import ClusterNames
from weir.identity.local import LocalOwners
from weir.identity.process import Processes
from weir.identity.runtimes import ContainerNames, Roots
from weir.kernel.layout import (
    DESTINATION,
    METHODS,
    PROTOCOLS,
    REQUESTS,
    SLOT,
    SOURCE,
    TCP,
    USED,
    Array,
    bucket_bounds_us,
    duration_bounds,
)


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def slot(
    local: str = "10.0.0.1",
    remote: str = "203.0.113.9",
    port: int = 443,
    *,
    role: int = SOURCE,
    proto: int = TCP,
    comm: str = "curl",
    netns: int = 4026531840,
    bits: int = 128,
    cgroup: int = 0,
    generation: int = 0,
    **counters: Any,
) -> Array:
    """One row of dtype SLOT, shape ()."""
    row = np.zeros((), SLOT)
    key = row["key"]
    key["laddr"] = np.frombuffer(packed(local), np.uint8)
    key["raddr"] = np.frombuffer(packed(remote), np.uint8)
    key["family"] = 6 if ":" in local else 4
    for name, value in {
        "port": port, "role": role, "proto": proto, "comm": comm.encode(), "netns": netns,
        "raddr_bits": bits, "cgroup": cgroup,
    }.items():  # fmt: skip
        key[name] = value
    row["state"] = USED
    row["generation"] = generation
    for name, value in counters.items():
        row[name] = value
    return row


def roots(tmp: Path) -> Roots:
    """Where a test's runtimes keep what they know."""
    return Roots(tmp / "docker", tmp / "podman", tmp / "nerdctl", tmp / "docker.sock", tmp / "pods")


def client(comm: str = "client", port: int = 6379, **more: Any) -> Array:
    return slot("127.0.0.1", "127.0.0.1", port, comm=comm, **more)


def server(comm: str = "redis-server", port: int = 6379, **more: Any) -> Array:
    return slot("127.0.0.1", "127.0.0.1", port, comm=comm, role=DESTINATION, **more)


def request(
    slot_number: int,
    *,
    protocol: str = "http",
    method: str = "GET",
    status: int = 0,
    seconds: Iterable[float] = (),
    untimed: int = 0,
    row: int = -1,
    generation: int = 0,
) -> Array:
    """One row of dtype REQUESTS, shape (); ``row`` is its number (-1: the next that is free)."""
    found = np.zeros((), REQUESTS)
    key = found["key"]
    key["slot"], key["status"] = slot_number, status
    key["protocol"], key["method"] = PROTOCOLS.index(protocol), METHODS.index(method)
    for value in seconds:
        found["duration"][np.searchsorted(duration_bounds(), value, side="right")] += np.uint64(1)
        found["sum_ns"] += np.uint64(round(value * 1e9))
    found["untimed"], found["generation"], found["state"] = untimed, generation, USED
    found["born_ns"] = row + 1  # where drain() finds its number
    return found


def drain(rows: Mapping[int, Array], requests: Sequence[Array] = (), **more: Any) -> Drain:
    """A drain of slot number -> row, and of request rows."""
    numbers = sorted(rows)
    slots = np.array([rows[n] for n in numbers], SLOT) if numbers else np.zeros(0, SLOT)
    given = [int(r["born_ns"]) - 1 for r in requests]
    wanted = [number if number >= 0 else at + 1 for at, number in enumerate(given)]
    if requests:
        order = np.argsort(wanted)
        more["requests"] = np.array(list(requests), REQUESTS)[order]
        more["request_indexes"] = np.array(wanted, np.uint32)[order]
    return Drain(slots, np.array(numbers, np.uint32), 5 * 10**9, 1_700_000_000.0, **more)


def bucket_of(microseconds: int) -> int:
    """The kernel's bucket of a value."""
    return int(np.searchsorted(bucket_bounds_us(), microseconds, side="right"))


def histogram(values: Iterable[int]) -> Array:
    """Kernel buckets of values in microseconds."""
    found = np.zeros(len(bucket_bounds_us()), np.uint64)
    for value in values:
        found[bucket_of(value)] += np.uint64(1)
    return found


def identity(
    tmp: Path,
    cidrs: Iterable[str] = (),
    own: Callable[[], frozenset[bytes]] = frozenset,
    clock: Callable[[], float] | None = None,
    cgroup2: Path | None = None,
    cluster: ClusterNames | None = None,
) -> Identity:
    """The real thing over folders of the test; without processes the comm names an end."""
    clock = clock or Clock()
    local = LocalOwners(
        CgroupPaths(cgroup2, clock),
        ContainerNames(roots(tmp), clock),
        Processes(tmp / "proc", clock),
        cluster.local if cluster else None,
    )
    return Identity(local, Cidrs(cidrs), OwnAddresses(clock, own), cluster)
