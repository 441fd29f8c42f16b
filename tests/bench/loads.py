# SPDX-License-Identifier: Apache-2.0
"""The loads of the paired benchmarks: both ends on ``lo`` of one namespace, each on a CPU of its own."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.bench import spaces
from tests.bench.figures import Bench
from tests.kernel.peers.netns import run


@dataclass(frozen=True)
class Load:
    """``once(seconds)`` runs it and returns (rate, work done); ``cost`` is the unit of CPU time by work."""

    name: str
    rate: str
    cost: str
    form: str
    once: Callable[[float], tuple[float, float]]


@contextmanager
def redis(bench: Bench) -> Iterator[Load]:
    """GET of 100 bytes by 50 clients."""
    options = ["--port", "6379", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    command = spaces.inside(bench.netns, "redis-server", *options, cpu=0)
    with spaces.process(command, bench.cache, stdout=subprocess.DEVNULL):
        client = ["redis-benchmark", "-h", "127.0.0.1", "-c", "50", "-d", "100", "--csv"]

        def requests(count: int, kind: str) -> float:
            said = run(*spaces.inside(bench.netns, *client, "-n", str(count), "-t", kind, cpu=1))
            return float(said.splitlines()[-1].split(",")[1].strip('"'))

        until_open(bench, 6379)
        requests(1000, "set")
        rate = requests(50_000, "get")

        def once(seconds: float) -> tuple[float, float]:
            count = int(rate * seconds)
            return requests(count, "get"), count

        yield Load("redis GET", "requests/s", "µs a request", "{:,.0f}", once)


@contextmanager
def iperf(bench: Bench) -> Iterator[Load]:
    """One stream."""
    command = spaces.inside(bench.netns, "iperf3", "-s", "-B", "127.0.0.1", cpu=0)
    with spaces.process(command, bench.cache, stdout=subprocess.DEVNULL):
        until_open(bench, 5201)

        def once(seconds: float) -> tuple[float, float]:
            client = ("iperf3", "-c", "127.0.0.1", "-t", str(max(1, math.ceil(seconds))), "-J")
            end = json.loads(run(*spaces.inside(bench.netns, *client, cpu=1)))["end"]["sum_received"]
            return float(end["bits_per_second"]) / 1e9, float(end["bytes"]) / 1e6

        yield Load("iperf3", "Gbit/s", "µs a MB", "{:.1f}", once)


def until_open(bench: Bench, port: int) -> None:
    """Wait until something listens there; TimeoutError after 4 s."""
    for _ in range(200):
        with spaces.socket_in(bench.netns) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on {port}")
