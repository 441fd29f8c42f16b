# SPDX-License-Identifier: Apache-2.0
"""docs/scale.md, from what was measured."""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import machine
from tests.scale.measure import Load, Start

_TEMPLATE = Path(__file__).with_name("page.md")


@dataclass(frozen=True)
class Figures:
    """Agents against one server: their starts, events with so many readers beside, MB at the end."""

    starts: Sequence[Start]
    loads: Sequence[tuple[int, Load]]
    end: tuple[float, float]

    def median(self, what: Callable[[Start], float]) -> float:
        return statistics.median(map(what, self.starts))

    @property
    def reader(self) -> float:
        """CPU seconds of the server for each watcher, for 1,000 events."""
        (few, alone), (many, crowded) = self.loads
        return max(0.0, (crowded.cost["asked"] - alone.cost["asked"]) / (many - few))


@dataclass(frozen=True)
class Whole:
    """The cluster, the API server's MB, and how long all took, seconds."""

    nodes: int
    pods: int
    services: int
    bytes_of_a_pod: int
    server: float
    seconds: float


@dataclass(frozen=True)
class CacheFigures:
    """``weir kube-cache``: seconds and CPU seconds to its whole list, the API server's for it; MB; and many
    watchers: their number, kB for each, events.
    """

    seconds: float
    own: float
    asked: float
    resident: float
    most: float
    watchers: int
    each: float
    load: Load


def page(whole: Whole, direct: Figures, cached: Figures, cache: CacheFigures) -> str:
    """The page."""
    events, cached_events = direct.loads[0][1], cached.loads[0][1]
    per_list, per_cached_list = direct.median(lambda s: s.asked), cached.median(lambda s: s.asked)
    crowd_each = cache.load.cost["asked"] / cache.watchers
    starts = ["| | from the API server | from `weir kube-cache` |", "|---|---:|---:|"]
    starts += [
        _row("from start to all names", direct, cached, lambda s: f"{s.seconds:.0f} s", lambda s: s.seconds),
        _row("CPU time for that", direct, cached, lambda s: f"{s.own:.1f} s", lambda s: s.own),
        _row("resident memory then", direct, cached, lambda s: f"{s.resident:.0f} MB", lambda s: s.resident),
        _row("at most until then", direct, cached, lambda s: f"{s.most:.0f} MB", lambda s: s.most),
        f"| at most, after 1,000 events/s | {direct.end[1]:.0f} MB | {cached.end[1]:.0f} MB |",
        "| CPU time for 1,000 events at the API server "
        + _both(events.cost["agent"], cached_events.cost["agent"], "{:.3f} s"),
        "| of 1,000 events, told to the agent "
        + _both(1000 * events.heard, 1000 * cached_events.heard, "{:.0f}"),
    ]  # fmt: skip
    return _TEMPLATE.read_text(encoding="utf-8").format(
        nodes=whole.nodes, pods=whole.pods, services=whole.services, size=whole.bytes_of_a_pod,
        today=dt.datetime.now(tz=dt.timezone.utc).date(), seconds=whole.seconds, starts="\n".join(starts),
        machine="\n".join(f"| {what} | {value} |" for what, value in machine.describe()),
        list_direct=per_list, list_cached=per_cached_list, event_direct=1000 * direct.reader,
        event_cached=1000 * crowd_each, server=whole.server, cache=cache, watchers=cache.watchers,
        all_direct=whole.nodes * per_list / 3600, all_cached=whole.nodes * per_cached_list / 60,
        cores_direct=whole.nodes * direct.reader / 10, cores_cached=whole.nodes * crowd_each / 10,
    )  # fmt: skip


def _both(direct: float, cached: float, form: str) -> str:
    return f"| {form.format(direct)} | {form.format(cached)} |"


def _row(
    what: str, direct: Figures, cached: Figures, form: Callable[[Start], str], key: Callable[[Start], float]
) -> str:
    middle = [sorted(figures.starts, key=key)[len(figures.starts) // 2] for figures in (direct, cached)]
    return f"| {what} | {form(middle[0])} | {form(middle[1])} |"
