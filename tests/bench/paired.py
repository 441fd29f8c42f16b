# SPDX-License-Identifier: Apache-2.0
"""Throughput and CPU time of a load with and without the agent, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from tests.bench import agent, loads
from tests.bench.figures import Bench, Budget, Section, interval
from tests.bench.loads import Load

_SECONDS = 1.5
_BUDGET, _BUDGET_REQUESTS = 0.99, 0.96
#: A pair is measured again when others took more than this share of the machine.
_OTHERS = 0.02
#: After so many seconds a benchmark ends with the pairs that it has.
_PATIENCE = 190.0
#: What is measured between two runs without an agent; None: again without one, which shows the noise.
CONDITIONS: dict[str, tuple[str, ...] | None] = {
    "off (noise)": None,
    "storage": ("--tcp", "storage", "--no-udp", "--no-requests"),
    "storage + UDP": ("--tcp", "storage", "--no-requests"),
    "storage + UDP + requests": ("--tcp", "storage"),
    "tracepoint": ("--tcp", "tracepoint", "--no-udp", "--no-requests"),
}


@dataclass(frozen=True)
class Run:
    """One run: rate, CPU microseconds by work (the agent's included), share of the machine others took."""

    rate: float
    cost: float
    others: float


@dataclass(frozen=True)
class Pair:
    """A run with an agent, and the means of those without one just before and after it."""

    on: Run
    off: Run

    @property
    def others(self) -> float:
        return max(self.on.others, self.off.others)


def _once(bench: Bench, load: Load) -> Run:
    before = bench.meter.read()
    rate, amount = load.once(0.5 if bench.quick else _SECONDS)
    used = bench.meter.read().since(before)
    return Run(rate, used.own / amount * 1e6, used.others)


def _pairs(bench: Bench, load: Load) -> dict[str, list[Pair]]:
    """Condition -> pairs; the quiet ones where there are enough of these."""
    found: dict[str, list[Pair]] = {name: [] for name in CONDITIONS}
    wanted, end = bench.size(9, 1), time.monotonic() + _PATIENCE
    _once(bench, load)
    before = _once(bench, load)
    for number in range(2 * wanted):
        names = list(CONDITIONS)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            pairs = found[name]
            if sum(p.others <= _OTHERS or bench.quick for p in pairs) >= wanted:
                continue
            options = CONDITIONS[name]
            with agent.running(bench, *options) if options else nullcontext() as running:
                if running:
                    running.wait_ready()
                on = _once(bench, load)
            after = _once(bench, load)
            off = (before.rate + after.rate) / 2, (before.cost + after.cost) / 2
            pairs.append(Pair(on, Run(*off, max(before.others, after.others))))
            before = after
        if time.monotonic() > end:
            break
    return {name: _best(pairs, wanted) for name, pairs in found.items()}


def _best(pairs: list[Pair], wanted: int) -> list[Pair]:
    """The quietest, at most as many as wanted: chosen by what others did, never by the result."""
    return sorted(pairs, key=lambda p: p.others)[:wanted]


def _ratio(values: Sequence[float]) -> str:
    low, high = interval(values)
    return f"**{statistics.median(values):.3f}** ({low:.3f} to {high:.3f})"


def _median(pairs: Sequence[Pair], what: Callable[[Pair], float], form: str) -> str:
    return form.format(statistics.median(map(what, pairs)))


_TEXT = f"""
Each run with an agent (`weir run --interval 1`; its start is not part of the run) is compared with the
mean of the runs without one just before and after it; the order of the agents turns. `off (noise)` is a
run without an agent treated the same way. Both ends are on `lo` of one namespace, each on a CPU of its
own. In brackets: the interval that holds the median with 95 % confidence (order statistics; all values
where there are fewer than six pairs). *CPU* is the time of both ends and the agent by work done. Pairs
during which others took more than {_OTHERS:.0%} of the machine are measured again while there is time,
and the quietest are kept.
"""


def _section(bench: Bench, title: str, load: Load) -> Section:
    section, rows = Section(title), []
    for name, pairs in _pairs(bench, load).items():
        ratios = [p.on.rate / p.off.rate for p in pairs]
        rows.append((
            name, len(pairs), _median(pairs, lambda p: p.off.rate, load.form),
            _median(pairs, lambda p: p.on.rate, load.form), _ratio(ratios),
            _ratio([p.on.cost / p.off.cost for p in pairs]),
            _median(pairs, lambda p: p.on.cost, "{:.1f}"), f"{max(p.others for p in pairs):.1%}",
        ))  # fmt: skip
        if CONDITIONS[name]:
            section.budgets.append(_budget(f"{load.name}, {name}", ratios))
    section.text(_TEXT.strip())
    titles = f"off, {load.rate}", f"on, {load.rate}", "throughput, on / off", "CPU, on / off"
    section.table(("agent", "pairs", *titles, f"CPU on, {load.cost}", "others, at most"), rows)
    return section


def _budget(what: str, ratios: Sequence[float]) -> Budget:
    low, high = interval(ratios)
    wanted = _BUDGET_REQUESTS if "requests" in what else _BUDGET
    clear = len(ratios) >= 6 and not low < wanted <= high
    met = low >= wanted if clear else None
    note = "" if met else f"{wanted} is within the noise: a quieter machine, more pairs"
    if met is False:
        note = "the storage variant, which is taken wherever it loads"
        if "UDP" in what:
            note = "the kernel's way to cgroup_skb, which every TCP packet goes too; `--no-udp` spares it"
    figure = f"{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})"
    return Budget(what, f"≥ {wanted}", figure, met, note)


def measure_redis(bench: Bench) -> Section:
    """GET of 100 bytes by 50 clients."""
    with loads.redis(bench) as load:
        return _section(bench, "redis GET, paired", load)


def measure_iperf(bench: Bench) -> Section:
    """One TCP stream."""
    with loads.iperf(bench) as load:
        return _section(bench, "One iperf3 stream, paired", load)
