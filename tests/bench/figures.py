# SPDX-License-Identifier: Apache-2.0
"""What a benchmark gives back, and how figures are written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.quiet import Meter
from tests.kernel.peers.netns import Netns


@dataclass(frozen=True)
class Budget:
    """One row of the budget table; ``met`` None: could not be told. ``note``: what would meet it, or why."""

    what: str
    budget: str
    figure: str
    met: bool | None
    note: str = ""


@dataclass
class Section:
    """One chapter of docs/benchmarks.md in Markdown."""

    title: str
    lines: list[str] = field(default_factory=list)
    budgets: list[Budget] = field(default_factory=list)

    def text(self, *lines: str) -> None:
        """Add a paragraph."""
        self.lines += [" ".join(lines), ""]

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table; all columns but the first are figures."""
        self.lines.append("| " + " | ".join(head) + " |")
        self.lines.append("|---" + "|---:" * (len(head) - 1) + "|")
        self.lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
        self.lines.append("")


@dataclass(frozen=True)
class Bench:
    """What every benchmark is given: namespaces to work in and for the agent's own traffic."""

    quick: bool
    netns: Netns
    agent_netns: Netns
    cache: Path
    meter: Meter

    def size(self, full: int, quick: int) -> int:
        """A size that depends on how thorough the run is."""
        return quick if self.quick else full


def spread(values: Sequence[float], form: str = "{:.1f}") -> str:
    """``median (least to most)``."""
    low, middle, high = (form.format(v) for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Bounds that hold the median with this confidence (order statistics); all values if they are few."""
    ordered, n, k = sorted(values), len(values), 0
    while 2 * sum(math.comb(n, i) for i in range(k + 2)) / 2**n <= 1 - confidence:
        k += 1
    return ordered[k], ordered[n - 1 - k]


def verdict(met: bool | None) -> str:
    """A word for the table."""
    return {True: "met", False: "**not met**", None: "not settled"}[met]
