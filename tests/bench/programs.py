# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds an event of every program, from the kernel's statistics less what an empty program costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from tests.bench import agent, spaces
from tests.bench.costs import Meter
from tests.bench.empty import empty
from tests.bench.figures import Bench, Budget, Section, spread
from tests.bench.holder import held
from weir.kernel.side import KernelSide

#: A program on a data path may take so many ns (DESIGN section 5).
_BUDGET = 100.0
#: Connections a round, in a full and in a quick run.
_CONNECTIONS = 4000, 1000
#: What would meet it, where it is not met.
_MEND = {
    "tcp_send": "the storage variant, which is taken wherever it loads, has no program there",
    "tcp_receive": "as above",
    "udp_egress": "a coarse clock, ports read from the packet itself, edges looked up before networks",
    "udp_ingress": "as above",
}


def _udp(bench: Bench, rounds: int) -> Meter:
    """Attached to a cgroup of the bench's own: only its packets, same code as for the whole host."""
    with spaces.make_cgroup() as folder, empty("cgroup", "", folder):
        scope = ((folder.stat().st_ino, str(folder)),)
        with (
            agent.loaded(variant="storage", cgroups=scope) as kernel,
            empty("cgroup", "", folder) as nothing,
            empty("run") as run,
            agent.statistics(),
        ):
            meter = Meter(kernel, "UDP", nothing, rounds)

            def send(kind: str, count: int) -> Callable[[], None]:
                return lambda: spaces.traffic(bench.netns, bench.cache, kind, count, cgroup=folder)

            both = ("udp_egress", "udp_ingress")
            few, many = bench.size(20_000, 5_000), bench.size(40_000, 8_000)
            meter.measure(dict.fromkeys(both, "UDP packet, flow as before"), send("udp", many), True)
            meter.measure(dict.fromkeys(both, "UDP packet, another flow"), send("udp_flows", many), True)
            meter.measure(dict.fromkeys(both, "TCP packet (leaves early)"), send("tcp", few), True)
            meter.measure({"udp_create": "UDP socket made"}, send("udp_made", few))
            retiring = Meter(kernel, "all", run, rounds)
            _fold(kernel, retiring, send("udp_edges", 500))
            meter.costs += retiring.costs
            return meter


def _fold(kernel: KernelSide, meter: Meter, make: Callable[[], None]) -> None:
    """Retire all edges but one into that one; user space runs this program, and so it does the empty one."""

    def fold() -> None:
        make()
        slots = kernel.maps.slots
        for index in slots.used().tolist()[2:]:
            kernel.maps.forget_edge(index)
            slots.retire(index)
            meter.nothing.run()
            kernel.fold_slot(index, 1)

    meter.measure({"slot_fold": "idle edge given back"}, fold)


def _tcp(bench: Bench, rounds: int, variant: str) -> Meter:
    """Scoped to the namespace; the look-up that this takes is part of the figures."""
    hook = "tp_btf" if variant == "storage" else "raw_tp"
    tracepoint = "inet_sock_set_state"
    with (
        empty(hook, tracepoint),
        agent.loaded(variant=variant, udp=False, netns=(bench.netns.inode,)) as kernel,
        empty(hook, tracepoint) as nothing,
        agent.statistics(),
    ):
        meter = Meter(kernel, variant, nothing, rounds)
        count, few = bench.size(*_CONNECTIONS), bench.size(20_000, 5_000)
        states = {"tcp_state": "state change of a TCP socket", "tcp_destroy": "TCP socket destroyed"}
        meter.measure(states, lambda: spaces.traffic(bench.netns, bench.cache, "tcp_connections", count))
        if variant == "tracepoint":
            with empty(hook, "sock_send_length") as nothing:
                calls = Meter(kernel, variant, nothing, rounds)
                on_path = {"tcp_send": "send call", "tcp_receive": "receive call"}
                calls.measure(on_path, lambda: spaces.traffic(bench.netns, bench.cache, "tcp", few), True)
                meter.costs += calls.costs
        _iterator(bench, kernel, meter, rounds)
        return meter


def _iterator(bench: Bench, kernel: KernelSide, meter: Meter, rounds: int) -> None:
    """Runs in a loop over warm caches, so the empty program does too."""
    with held(bench) as connections, empty("repeat") as nothing:
        connections.grow(2000)
        kernel.read_counters()

        def read() -> None:
            nothing.repeat(10_000)
            kernel.read_counters()

        def move() -> None:
            connections.move()
            read()

        reading = Meter(kernel, meter.variant, nothing, rounds)
        reading.measure({"tcp_drain": "live connection, idle"}, read)
        reading.measure({"tcp_drain": "live connection, moved"}, move)
        meter.costs += reading.costs


_TEXT = """
From the kernel's run-time statistics (`BPF_ENABLE_STATS`). These put a reading of the clock into what
they measure, so an empty program is measured the same way and its time ({overhead}) taken off: a program
of the same kind attached to the same hook after Weir's (another one, attached before it, takes the
clock's first cache misses), for `tcp_drain` one that the kernel runs in a loop, for `slot_fold` one that
is run from user space. Not in it: the call of the hook itself, some ns. The sender is a Python process,
so caches are as cold as an application leaves them. TCP is scoped to a namespace: on a whole host one
hash look-up less. Both ends of a connection see about ten state changes together; `tcp_drain` runs once a
drain.
"""


def measure(bench: Bench) -> Section:
    """All programs of both TCP variants and of the UDP plane."""
    rounds = bench.size(7, 3)
    meters = [_tcp(bench, rounds, "storage"), _tcp(bench, rounds, "tracepoint"), _udp(bench, rounds)]
    section = Section("What each program costs")
    costs = [cost for meter in meters for cost in meter.costs]
    overhead = ", ".join(f"{statistics.median(m.overhead):.0f} ns {m.variant}" for m in meters)
    section.text(_TEXT.strip().format(overhead=overhead))
    section.table(
        ("program", "variant", "event", "ns an event", "events measured"),
        [(f"`{c.program}`", c.variant, c.event, spread(c.rounds, "{:.0f}"), f"{c.runs:,}") for c in costs],
    )
    for meter in meters[:2]:
        whole = sum(c.ns * c.runs for c in meter.costs[:2]) / (rounds * bench.size(*_CONNECTIONS))
        section.text(f"One connection, both ends, opened and closed: {whole / 1e3:.1f} µs ({meter.variant}).")
    nothing = "TCP, storage variant (the default)", "0 on the data path"
    section.budgets.append(Budget(*nothing, "no program there", True))
    for cost in costs:
        if cost.data_path:
            what, figure = f"`{cost.program}`, {cost.event}", f"{spread(cost.rounds, '{:.0f}')} ns"
            met = cost.ns <= _BUDGET
            mend = "" if met else _MEND[cost.program]
            section.budgets.append(Budget(what, f"≤ {_BUDGET:.0f} ns", figure, met, mend))
    return section
