# SPDX-License-Identifier: Apache-2.0
"""How long a drain takes with many live connections, really opened."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.bench import agent
from tests.bench.figures import Bench, Budget, Section
from tests.bench.holder import Held, held
from weir.flows.drain import Drainer

_MILLION = 1_000_000
#: Kernel memory of a socket with its file, and what is left to the machine.
_SOCKET_BYTES, _SPARE_BYTES = 6000, 3 * 10**9
#: Seconds that opening may take.
_PATIENCE = 75.0


@dataclass(frozen=True)
class Point:
    """Seconds of a drain's iterator at one number of live sockets."""

    variant: str
    sockets: int
    edges: int
    idle: float
    moved: float
    copy: float
    found: float


def _point(drainer: Drainer, held_: Held, variant: str, found: float, rounds: int) -> Point:
    drainer.drain()
    idle = [drainer.drain() for _ in range(rounds)]
    moved = []
    for _ in range(3):
        held_.move()
        moved.append(drainer.drain().seconds["counters"])
    middle = statistics.median(d.seconds["counters"] for d in idle)
    copy = statistics.median(d.seconds["copy"] for d in idle)
    return Point(variant, held_.sockets, len(idle[0].slots), middle, statistics.median(moved), copy, found)


def _available() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


def _points(bench: Bench, sizes: Sequence[int]) -> list[Point]:
    points = []
    netns = (bench.netns.inode,)
    room = 2 * _MILLION
    with (
        held(bench) as connections,
        agent.loaded(variant="storage", udp=False, netns=netns, connections=room) as kernel,
    ):
        drainer, rate = Drainer(kernel), 0.0
        for size in sizes:
            more = size - connections.sockets
            if more * rate > _PATIENCE or _available() < more * _SOCKET_BYTES + _SPARE_BYTES:
                break
            started = time.monotonic()
            connections.grow(size)
            rate = (time.monotonic() - started) / more
            points.append(_point(drainer, connections, "storage", 0, bench.size(7, 3)))
            if size == sizes[1]:
                points.append(_other(bench, connections))
    return points


def _other(bench: Bench, connections: Held) -> Point:
    """The hash variant, which finds all connections there already."""
    started = time.monotonic()
    with agent.loaded(variant="tracepoint", udp=False, netns=(bench.netns.inode,)) as kernel:
        took = time.monotonic() - started
        return _point(Drainer(kernel), connections, "tracepoint", took, bench.size(5, 2))


def _slope(points: Sequence[Point], name: str) -> float:
    """ns a connection, through the smallest and the largest."""
    sizes, seconds = [p.sockets for p in points], [getattr(p, name) for p in points]
    return float(np.polyfit(sizes, seconds, 1)[0]) * 1e9


_TEXT = """
Live connections in one namespace, both ends on `lo`; Weir follows each end, so N live connections here
are N sockets. *Idle*: nothing moved since the drain before; *moved*: one byte over each. Times are of the
iterator (`Drainer.drain`); the copy of the slots comes on top.
"""


def measure(bench: Bench) -> Section:
    """10,000, 100,000 and a million live sockets, as far as the machine goes."""
    sizes = (2_000, 10_000) if bench.quick else (10_000, 100_000, 300_000, _MILLION)
    points = _points(bench, sizes)
    mine = [p for p in points if p.variant == "storage"]
    section = Section("Drain")
    section.text(_TEXT.strip())
    head = ("variant", "live", "edges", "idle", "each", "all moved", "each", "copy")
    section.table(head, [_row(p) for p in points])
    most, moved = mine[-1], _slope(mine, "moved")
    really = most.sockets >= _MILLION
    how = "measured" if really else f"extrapolated from {most.sockets:,}"
    seconds = most.moved if really else moved * _MILLION / 1e9
    section.text(
        f"Slope: {_slope(mine, 'idle'):.0f} ns a live connection when idle, {moved:.0f} ns when it moved.",
        f"A million live connections that all moved: {seconds:.2f} s ({how}).",
    )
    for p in points:
        if p.found:
            section.text(
                f"A start of the {p.variant} variant that finds {p.sockets:,} live connections takes",
                f"{p.found:.2f} s, compiling included.",
            )
    met = None if bench.quick else seconds <= 1
    section.budgets.append(Budget("1,000,000 live connections", "≤ 1 s", f"{seconds:.2f} s ({how})", met))
    return section


def _row(p: Point) -> tuple[str, ...]:
    def both(seconds: float) -> tuple[str, str]:
        return f"{seconds * 1e3:.1f} ms", f"{seconds / p.sockets * 1e9:.0f} ns"

    where = p.variant, f"{p.sockets:,}", f"{p.edges:,}"
    return (*where, *both(p.idle), *both(p.moved), f"{p.copy * 1e3:.1f} ms")
