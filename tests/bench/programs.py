# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds an event of every program, from the kernel's statistics less what an empty program costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench import agent, spaces
from tests.bench.empty import Empty, empty
from tests.bench.figures import Bench, Budget, Section, spread
from tests.bench.holder import held
from weir.kernel.side import KernelSide

#: A program on a data path may take so many ns (DESIGN section 5).
_BUDGET = 100.0


@dataclass(frozen=True)
class Cost:
    """ns of one program at one kind of event: a value a round."""

    variant: str
    program: str
    event: str
    rounds: list[float]
    runs: int
    data_path: bool = False

    @property
    def ns(self) -> float:
        return statistics.median(self.rounds)


class Meter:
    """Measures the programs of one kernel side while something happens."""

    def __init__(self, kernel: KernelSide, variant: str, nothing: Empty, rounds: int) -> None:
        self._kernel, self._variant, self.nothing, self._rounds = kernel, variant, nothing, rounds
        self.costs: list[Cost] = []
        self.overhead: list[float] = []

    def measure(self, events: dict[str, str], happen: Callable[[], object], data_path: bool = False) -> None:
        """``events``: program -> what it meets."""
        found: dict[str, list[float]] = {program: [] for program in events}
        runs = dict.fromkeys(events, 0)
        for _ in range(self._rounds):
            before = self._kernel.programs()
            self.nothing.mark()
            happen()
            nothing = self.nothing.ns() or statistics.median(self.overhead)
            self.overhead.append(nothing)
            for program, (ns, times) in agent.gained(before, self._kernel.programs()).items():
                if program in events and times:
                    found[program].append(ns / times - nothing)
                    runs[program] += times
        for program, event in events.items():
            if found[program]:
                self.costs.append(
                    Cost(self._variant, program, event, found[program], runs[program], data_path)
                )


def _udp(bench: Bench, rounds: int) -> Meter:
    """Attached to a cgroup of the bench's own: only its packets, same code as for the whole host."""
    with spaces.make_cgroup() as folder, empty("cgroup", "", folder) as nothing:
        scope = ((folder.stat().st_ino, str(folder)),)
        with agent.loaded(variant="storage", cgroups=scope) as kernel, agent.statistics():
            meter = Meter(kernel, "UDP", nothing, rounds)

            def send(kind: str, count: int) -> Callable[[], None]:
                return lambda: spaces.traffic(bench.netns, bench.cache, kind, count, cgroup=folder)

            both = ("udp_egress", "udp_ingress")
            few, many = bench.size(20_000, 5_000), bench.size(40_000, 8_000)
            meter.measure(dict.fromkeys(both, "UDP packet, flow as before"), send("udp", many), True)
            meter.measure(dict.fromkeys(both, "UDP packet, another flow"), send("udp_flows", many), True)
            meter.measure(dict.fromkeys(both, "TCP packet (leaves early)"), send("tcp", few), True)
            meter.measure({"udp_create": "UDP socket made"}, send("udp_sockets", few))
            with empty("run", "") as run:
                _fold(kernel, Meter(kernel, "all", run, rounds), send("udp_edges", 500), meter.costs)
            return meter


def _fold(kernel: KernelSide, meter: Meter, make: Callable[[], None], costs: list[Cost]) -> None:
    """Retire all edges but one into that one; user space runs this program, and so it does the empty one."""

    def fold() -> None:
        make()
        slots = kernel.maps.slots
        for index in slots.used().tolist()[2:]:
            kernel.maps.forget_edge(index)
            slots.retire(index)
            meter.nothing.run(1)
            kernel.fold_slot(index, 1)

    meter.measure({"slot_fold": "idle edge given back"}, fold)
    costs += meter.costs


def _tcp(bench: Bench, rounds: int, variant: str) -> Meter:
    """Scoped to the namespace; the look-up that this takes is part of the figures."""
    hook = "tp_btf" if variant == "storage" else "raw_tp"
    with (
        empty(hook, "inet_sock_set_state") as nothing,
        agent.statistics(),
        agent.loaded(variant=variant, udp=False, netns=(bench.netns.inode,)) as kernel,
    ):
        meter = Meter(kernel, variant, nothing, rounds)
        count = bench.size(4000, 1000)
        states = {"tcp_state": "state change of a TCP socket", "tcp_destroy": "TCP socket destroyed"}
        meter.measure(states, lambda: spaces.traffic(bench.netns, bench.cache, "tcp_connections", count))
        if variant == "tracepoint":
            calls = {"tcp_send": "send call", "tcp_receive": "receive call"}
            few = bench.size(20_000, 5_000)
            meter.measure(calls, lambda: spaces.traffic(bench.netns, bench.cache, "tcp", few), True)
        with held(bench) as connections:
            connections.grow(2000)
            kernel.read_counters()
            meter.measure({"tcp_drain": "live connection, idle"}, kernel.read_counters)

            def move() -> None:
                connections.move()
                kernel.read_counters()

            meter.measure({"tcp_drain": "live connection, moved"}, move)
        return meter


_TEXT = """
From the kernel's run-time statistics (`BPF_ENABLE_STATS`), which take a clock reading into what they measure: so
a program that returns at once is attached to the same hook ({least:.0f} to {most:.0f} ns a run, by the same
statistics), and its time is taken off. Not in it: the tracepoint's own call, some ns. The sender is a Python
process, so caches are as cold as a real application leaves them. TCP is scoped to a namespace: for a whole host
a hash look-up goes. A connection makes about nine state changes in all, both ends counted; `tcp_drain` runs once
a drain, nothing of the storage variant runs on the data path.
"""


def measure(bench: Bench) -> Section:
    """All programs of both TCP variants and of the UDP plane."""
    rounds = bench.size(7, 3)
    meters = [_tcp(bench, rounds, "storage"), _tcp(bench, rounds, "tracepoint"), _udp(bench, rounds)]
    section = Section("What each program costs")
    costs = [cost for meter in meters for cost in meter.costs]
    empties = [ns for meter in meters for ns in meter.overhead]
    section.text(_TEXT.strip().format(least=min(empties), most=max(empties)))
    section.table(
        ("program", "variant", "event", "ns an event", "events measured"),
        [(f"`{c.program}`", c.variant, c.event, spread(c.rounds, "{:.0f}"), f"{c.runs:,}") for c in costs],
    )
    what = "TCP, storage variant (the default)"
    section.budgets.append(Budget(what, "0 on the data path", "no program there", True))
    for cost in costs:
        if cost.data_path:
            what, figure = f"`{cost.program}`, {cost.event}", f"{spread(cost.rounds, '{:.0f}')} ns"
            section.budgets.append(Budget(what, f"≤ {_BUDGET:.0f} ns", figure, cost.ns <= _BUDGET))
    return section
