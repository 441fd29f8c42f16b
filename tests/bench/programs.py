# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds an event of every program, from the kernel's statistics less what an empty program costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
        self._kernel, self._variant, self._nothing, self._rounds = kernel, variant, nothing, rounds
        self.costs: list[Cost] = []
        self.overhead: list[float] = []

    def measure(self, events: dict[str, str], happen: Callable[[], object], data_path: bool = False) -> None:
        """``events``: program -> what it meets."""
        found: dict[str, list[float]] = {program: [] for program in events}
        runs = dict.fromkeys(events, 0)
        for _ in range(self._rounds):
            before = self._kernel.programs()
            self._nothing.mark()
            happen()
            nothing = self._nothing.ns() or statistics.median(self.overhead)
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
            with empty("run", "") as run:
                run.run(1000)
                meter.overhead.append(run.ns())
                sockets = send("udp_sockets", few)
                meter.measure({"udp_create": "UDP socket made"}, sockets)
                _fold(kernel, Meter(kernel, "all", run, rounds), bench, folder, meter.costs)
            return meter


def _fold(kernel: KernelSide, meter: Meter, bench: Bench, folder: Path, costs: list[Cost]) -> None:
    def fold() -> None:
        spaces.traffic(bench.netns, bench.cache, "udp_edges", 500, cgroup=folder)
        slots = kernel.maps.slots
        for index in slots.used().tolist()[2:]:
            kernel.maps.forget_edge(index)
            slots.retire(index)
            kernel.fold_slot(index, 1)

    meter.overhead.append(20.0)
    meter.measure({"slot_fold": "idle edge given back"}, fold)
    costs += meter.costs


def _tcp(bench: Bench, rounds: int, variant: str) -> Meter:
    """Scoped to the namespace; the look-up that this takes is part of the figures."""
    hook = "tp_btf" if variant == "storage" else "raw_tp"
    with empty(hook, "inet_sock_set_state") as nothing, agent.statistics():
        with agent.loaded(variant=variant, udp=False, netns=(bench.netns.inode,)) as kernel:
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
                moved: Callable[[], object] = lambda: (connections.move(), kernel.read_counters())
                meter.measure({"tcp_drain": "live connection, moved"}, moved)
            return meter


def measure(bench: Bench) -> Section:
    """All programs of both TCP variants and of the UDP plane."""
    rounds = bench.size(7, 3)
    meters = [_tcp(bench, rounds, "storage"), _tcp(bench, rounds, "tracepoint"), _udp(bench, rounds)]
    section = Section("What each program costs")
    costs = [cost for meter in meters for cost in meter.costs]
    section.text("_placeholder_")
    section.table(
        ("program", "variant", "event", "ns an event", "events measured"),
        [(f"`{c.program}`", c.variant, c.event, spread(c.rounds, "{:.0f}"), c.runs) for c in costs],
    )
    for variant in ("storage", "tracepoint"):
        on_path = [c for c in costs if c.data_path and c.variant == variant]
        worst = max(on_path, key=lambda c: c.ns, default=None)
        figure = f"{worst.ns:.0f} ns (`{worst.program}`)" if worst else "nothing on the data path"
        section.budgets.append(Budget(f"TCP programs, {variant}", "", figure, not worst or worst.ns <= 100))
    return section
