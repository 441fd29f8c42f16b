# SPDX-License-Identifier: Apache-2.0
"""Scrapes of many series over HTTP, beside prometheus_client's own renderer."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest

from tests.bench import spaces
from tests.bench.figures import Bench, Budget, Section
from tests.unit import synthetic
from weir.aggregate import Aggregator, Snapshot
from weir.export.app import App
from weir.export.prometheus import Exposition, PairCollector
from weir.export.server import Server
from weir.flows.types import Drain
from weir.health import Health
from weir.kernel.layout import SLOT


@dataclass(frozen=True)
class Page:
    """Seconds of the scrapes of one snapshot, and of what else was measured."""

    series: int
    first: float
    plain: float
    packed: float
    size: int
    packed_size: int
    by_client: float
    step: float
    step_during: float


def _drain(pairs: int) -> Drain:
    """Edges of so many client processes, each with counts in all columns."""
    rng = np.random.default_rng(1)
    row = synthetic.client("client")
    rows = np.repeat(row[np.newaxis], pairs)
    rows["key"]["comm"] = [f"client-{number}".encode() for number in range(pairs)]
    for name in SLOT.names or ():
        if name not in ("key", "state", "generation", "tgid", "pad", "live"):
            rows[name] = rng.integers(1, 10**7, rows[name].shape)
    return Drain(rows, np.arange(1, pairs + 1, dtype=np.uint32), 5 * 10**9, 1.7e9)


def _aggregator(folder: Path) -> Aggregator:
    return Aggregator(synthetic.identity(folder), (), 200_000)


@contextmanager
def _served(bench: Bench, health: Health[Snapshot]) -> Iterator[int]:
    server = Server("127.0.0.1:0", health, App(health, Exposition(health, "bench", []), list, list))
    with spaces.entered(bench.agent_netns):
        server.start()
    try:
        yield server.address[1]
    finally:
        server.stop()


def _client(bench: Bench, *arguments: object) -> list[str]:
    words = map(str, arguments)
    return spaces.inside(bench.agent_netns, sys.executable, "-m", "tests.bench.fetch", *words)


def _fetch(bench: Bench, port: int, times: int, encoding: str) -> list[tuple[float, int]]:
    done = subprocess.run(
        _client(bench, port, times, encoding), env=spaces.environment(bench.cache), cwd=spaces.ROOT,
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return [(float(seconds), int(size)) for seconds, size in json.loads(done.stdout)]


def _steps(aggregator: Aggregator, drain: Drain, health: Health[Snapshot], seconds: float) -> float:
    """Longest aggregation of those made every 50 ms, seconds."""
    longest, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        step = timeit.timeit(lambda: health.publish(aggregator.update(drain)), number=1)
        longest = max(longest, step)
        time.sleep(0.05)
    return longest


def _page(bench: Bench, wanted: int) -> Page:
    rounds = bench.size(7, 3)
    health: Health[Snapshot] = Health(1)
    with tempfile.TemporaryDirectory(prefix=spaces.PREFIX) as folder:
        each = _aggregator(Path(folder)).update(_drain(1)).agent.series
        aggregator, drain = _aggregator(Path(folder)), _drain(-(-wanted // each))
        snapshot = aggregator.update(drain)
        health.publish(snapshot)
        with _served(bench, health) as port:
            first, *later = _fetch(bench, port, 1 + rounds, "identity")
            packed = _fetch(bench, port, rounds, "gzip")
            quiet = _steps(aggregator, drain, health, 1)
            with spaces.process(
                _client(bench, port, 1000, "identity"), bench.cache, stdout=subprocess.DEVNULL
            ):
                time.sleep(0.5)
                during = _steps(aggregator, drain, health, 2)
    registry = CollectorRegistry()
    registry.register(PairCollector(snapshot))
    by_client = timeit.repeat(lambda: generate_latest(registry), number=1, repeat=bench.size(3, 1))
    plain, gzip = (statistics.median(s for s, _ in found) for found in (later, packed))
    sizes, mine = (first[1], packed[0][1]), snapshot.agent.series
    return Page(mine, first[0], plain, gzip, *sizes, statistics.median(by_client), quiet, during)


_TEXT = """
The agent's own server on a snapshot of made-up pairs (all of TCP's series each), read by another process
over HTTP. *First*: no label string is there yet. *Library*: `generate_latest` of prometheus_client on the
same snapshot, without HTTP. *Step*: the longest aggregation of a drain, alone and while one scrape
follows the other: Python's threads take turns, nobody waits for the page.
"""


def _cells(p: Page) -> tuple[str, ...]:
    times = (f"{seconds:.3f} s" for seconds in (p.first, p.plain, p.packed))
    sizes = f"{p.size / 1e6:.1f} MB", f"{p.packed_size / 1e6:.2f} MB"
    steps = f"{p.step * 1e3:.0f} ms", f"{p.step_during * 1e3:.0f} ms"
    return f"{p.series:,}", *times, *sizes, f"{p.by_client:.2f} s", *steps


def measure(bench: Bench) -> Section:
    """10,000 and 100,000 series."""
    pages = [_page(bench, wanted) for wanted in ((10_000,) if bench.quick else (10_000, 100_000))]
    section = Section("Scrape")
    section.text(_TEXT.strip())
    head = ("series", "first", "later", "gzip", "page", "gzip page", "library", "step", "step during scrapes")
    section.table(head, [_cells(page) for page in pages])
    most = pages[-1]
    figure = f"{max(most.first, most.packed):.2f} s ({most.series:,} series)"
    met = None if bench.quick else max(most.first, most.packed) <= 1
    section.budgets.append(Budget("scrape of 100,000 series", "≤ 1 s", figure, met))
    figure = f"a step takes {most.step_during * 1e3:.0f} ms, alone {most.step * 1e3:.0f} ms"
    section.budgets.append(Budget("a scrape never blocks the drain", "", figure, most.step_during < 0.5))
    return section
