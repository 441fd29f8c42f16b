# SPDX-License-Identifier: Apache-2.0
"""The time of programs by the kernel's statistics, less what these take themselves."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench import agent
from tests.bench.empty import Empty
from weir.kernel.side import KernelSide


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
        self._kernel, self.variant, self.nothing, self._rounds = kernel, variant, nothing, rounds
        self.costs: list[Cost] = []
        self.overhead: list[float] = []

    def measure(self, events: dict[str, str], happen: Callable[[], object], data_path: bool = False) -> None:
        """``events``: program -> what it meets while ``happen`` runs, and the empty program beside it."""
        found: dict[str, list[float]] = {program: [] for program in events}
        runs = dict.fromkeys(events, 0)
        for _ in range(self._rounds):
            before = self._kernel.programs()
            self.nothing.mark()
            happen()
            nothing = self.nothing.ns()
            self.overhead.append(nothing)
            for program, (ns, times) in agent.gained(before, self._kernel.programs()).items():
                if program in events and times:
                    found[program].append(ns / times - nothing)
                    runs[program] += times
        for program, event in events.items():
            if found[program]:
                self.costs.append(
                    Cost(self.variant, program, event, found[program], runs[program], data_path)
                )
