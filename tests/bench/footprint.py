# SPDX-License-Identifier: Apache-2.0
"""Memory and CPU time of the agent, and memory of the loader."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from tests.bench import agent, loads, spaces
from tests.bench.figures import Bench, Budget, Section
from tests.bench.holder import Held, held


@dataclass(frozen=True)
class Row:
    """One stretch of time: MB resident (VmRSS, RssAnon), CPU in percent of one core."""

    what: str
    interval: float
    resident: float
    anonymous: float
    cpu: float


def _watch(running: agent.Agent, what: str, interval: float, seconds: float) -> Row:
    running.get("/metrics")
    before, started = running.cpu(), time.monotonic()
    time.sleep(seconds)
    cpu = (running.cpu() - before) / (time.monotonic() - started)
    running.get("/metrics")
    memory = running.memory()
    return Row(what, interval, memory["VmRSS"], memory["RssAnon"], cpu * 100)


def _moving(running: agent.Agent, connections: Held, interval: float, seconds: float) -> Row:
    """Each connection moves once a second."""
    before, started = running.cpu(), time.monotonic()
    while time.monotonic() < started + seconds:
        turn = time.monotonic() + 1
        connections.move()
        time.sleep(max(0.0, turn - time.monotonic()))
    cpu = (running.cpu() - before) / (time.monotonic() - started)
    memory = running.memory()
    what = f"{connections.sockets:,} connections, all move every second"
    return Row(what, interval, memory["VmRSS"], memory["RssAnon"], cpu * 100)


def _connections(bench: Bench, interval: float, seconds: float) -> list[Row]:
    with agent.running(bench, interval=interval) as running:
        running.wait_ready()
        time.sleep(1.2 * interval)
        rows = [_watch(running, "no connections", interval, seconds)]
        with held(bench) as connections:
            connections.grow(bench.size(10_000, 2_000))
            time.sleep(1.2 * interval)
            what = f"{connections.sockets:,} connections, idle"
            rows.append(_watch(running, what, interval, seconds))
            rows.append(_moving(running, connections, interval, seconds))
        return rows


def _busy(bench: Bench, interval: float, seconds: float) -> tuple[Row, float]:
    """While redis is under full load; the second value is requests/s."""
    with loads.redis(bench) as load, agent.running(bench, interval=interval) as running:
        running.wait_ready()
        time.sleep(0.5)
        before, started = running.cpu(), time.monotonic()
        rate, _ = load.once(seconds)
        cpu = (running.cpu() - before) / (time.monotonic() - started)
        memory = running.memory()
        what = f"redis, {rate:,.0f} requests/s"
        return Row(what, interval, memory["VmRSS"], memory["RssAnon"], cpu * 100), rate


def _loader(bench: Bench, variant: str) -> float:
    """Largest resident size of one loader process, MB."""
    command = [sys.executable, "-m", "tests.bench.peak", str(bench.netns.inode), variant]
    done = subprocess.run(
        command, env=spaces.environment(bench.cache), cwd=spaces.ROOT, stdout=subprocess.PIPE, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    return int(done.stdout) / 1e6


_TEXT = """
`weir run` with the UDP plane and default options, one scrape before each stretch. CPU is of all its
threads, with the kernel's time in its iterator, in percent of one core; what the programs take at the
processes that send is not in it (see above). N connections are N sockets that Weir follows.
"""


def _cells(row: Row) -> tuple[str, ...]:
    memory = f"{row.resident:.0f} MB", f"{row.anonymous:.0f} MB"
    return row.what, f"{row.interval:g} s", *memory, f"{row.cpu:.2f} %"


def measure(bench: Bench) -> Section:
    """Agent at 0 and 10,000 connections and under a load of requests; loader."""
    section = Section("Memory and CPU time")
    rows = _connections(bench, 1, bench.size(10, 3))
    if not bench.quick:
        rows += _connections(bench, 5, 15)
    stretches = ((1, 3),) if bench.quick else ((1, 6), (5, 10))
    busy = [_busy(bench, interval, seconds) for interval, seconds in stretches]
    rows += [row for row, _ in busy]
    section.text(_TEXT.strip())
    head = ("state", "interval", "resident", "of it anonymous", "CPU")
    section.table(head, [_cells(row) for row in rows])
    peaks = {name: _loader(bench, name) for name in ("storage", "tracepoint")}
    text = ", ".join(f"{peak:.0f} MB ({name})" for name, peak in peaks.items())
    section.text(f"The loader, which has exited by then, at its peak: {text}.")
    most = max(r.resident for r in rows)
    figure = f"{most:.0f} MB at most (no pods here: this host has no Kubernetes)"
    section.budgets.append(
        Budget("agent memory at 10,000 connections", "≤ 100 MB", figure, None if bench.quick else most <= 100)
    )
    for row, rate in busy:
        met = row.cpu <= 1 if rate > 90_000 or row.cpu > 1 else None
        note = "" if rate > 90_000 else "redis gave fewer requests/s here; the cost does not grow with them"
        figure = f"{row.cpu:.2f} % at {rate:,.0f} requests/s"
        what = f"agent CPU at 100,000 requests/s, interval {row.interval:g} s"
        section.budgets.append(Budget(what, "≤ 1 % of a core", figure, met, note))
    return section
