# SPDX-License-Identifier: Apache-2.0
"""Giving idle edges' slots back, oldest first, and sooner when slots run short.

An edge whose remote address has gone to somebody else is cut off at once, so that what comes next has a slot
of its own; it keeps its slot, and its name, until it was silent for a while.

In two steps, a drain apart: first the edge leaves the kernel's table and its slot is marked, so that
nothing new finds it; then, if it stayed silent, its counts are folded into an edge with the same
labels (or go, where it was the last one and its series ends).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from weir.flows.types import Drain
from weir.kernel.layout import RETIRING, USED
from weir.kernel.side import KernelSide

#: Slots retired in one drain at most, so that no drain takes long.
_BATCH = 512
#: Above this share of used slots, ``pressed_ns`` counts instead of ``idle_ns``.
_PRESSED = 0.8
#: So long a slot that was cut off is kept, for its last counts to be scraped.
_KEPT_NS = 300 * 10**9


class Series(Protocol):
    """What the aggregation knows about edges that share labels."""

    def survivor(self, slot: int) -> int | None:
        """Another slot of the same series, None if this is its last edge."""

    def folded(self, slot: int, into: int | None) -> None:
        """The kernel moved a slot's counts into another one (or dropped them with the series)."""


class Retirer:
    """Watches the drains of one kernel side."""

    def __init__(self, side: KernelSide, idle_ns: int = 600 * 10**9, pressed_ns: int = 30 * 10**9) -> None:
        self._side = side
        self._idle_ns = idle_ns
        self._pressed_ns = pressed_ns
        self._marked: dict[int, int] = {}
        self._kept: dict[int, int] = {}  # slots that were cut off, until when they are kept
        self.retired = 0

    def step(self, drain: Drain, series: Series) -> None:
        """Free what was marked a drain ago, then mark what is idle now."""
        self._finish(drain, series)
        self._mark(drain)

    def cut(self, slots: Iterable[int], now_ns: int) -> None:
        """Have the kernel find these edges no more (CLOCK_MONOTONIC); what it finds next is a new edge."""
        view = self._side.maps.slots.view
        for index in slots:
            if view["state"][index] == USED:
                self._side.maps.forget_edge(index)
                self._side.maps.slots.retire(index)
                self._kept[index] = now_ns + min(self._idle_ns, _KEPT_NS)

    def _finish(self, drain: Drain, series: Series) -> None:
        asked = set(drain.requests["key"]["slot"].tolist())  # its request rows go first
        for row in self._leaving(drain)[:_BATCH]:
            index, active = int(drain.indexes[row]), int(drain.slots["active_ns"][row])
            if self._marked.get(index) != active or drain.slots["live"][row] or index in asked:
                self._marked[index] = active  # counted once more (or marked by an agent before this one)
                continue
            into = series.survivor(index)
            if self._side.fold_slot(index, into):
                series.folded(index, into)
                del self._marked[index]
                self._kept.pop(index, None)
                self.retired += 1

    def _leaving(self, drain: Drain) -> list[int]:
        """Row numbers of slots that may be freed: not those that are kept for a while."""
        rows: list[int] = np.flatnonzero(drain.slots["state"] == RETIRING).tolist()
        if not self._kept or self._pressed(drain):
            return rows
        return [r for r in rows if self._kept.get(int(drain.indexes[r]), 0) <= drain.monotonic_ns]

    def _mark(self, drain: Drain) -> None:
        slots = self._side.maps.slots
        before = drain.monotonic_ns - (self._pressed_ns if self._pressed(drain) else self._idle_ns)
        rows = drain.slots
        idle = (rows["state"] == USED) & (rows["live"] == 0) & (rows["active_ns"].astype(np.int64) < before)
        candidates = np.flatnonzero(idle & (drain.indexes > 0))
        oldest = candidates[np.argsort(rows["active_ns"][candidates], kind="stable")][:_BATCH]
        for row in oldest:
            index = int(drain.indexes[row])
            self._side.maps.forget_edge(index)
            slots.retire(index)
            self._marked[index] = int(rows["active_ns"][row])

    def _pressed(self, drain: Drain) -> bool:
        return len(drain.indexes) > _PRESSED * self._side.maps.slots.count
