# SPDX-License-Identifier: Apache-2.0
"""Drain + identity -> snapshot: sums by labels, series budget, counters that never go down.

Rules for a published counter:

* A series is the sum of its edges. It ends with its last edge.
* When an idle edge's slot is given back, its counts go to another edge of the series, in the kernel
  (:meth:`Aggregator.survivor` names it), so that they outlive this process too. Where only edges of
  another protocol are left, they stay here instead, as the series' *carry*.
* When the remote end of an edge gets another name the edge moves to another series. If the old series
  ends by that, all of the edge's counts move, so nothing is lost and nothing is there twice. If it
  lives on, through other edges, it keeps what it has shown (as carry) and the edge counts for the new
  series only from now on: the part that stayed is the edge's *base*. When the old series ends later,
  that part comes after. So no series goes down, and the sum over all series is that of the kernel, to
  the byte. (Moved counts show as a jump where the new series exists already; it is as large as what
  was counted under the wrong name.)
* An edge that the series budget folded stays folded, even when there is room again.

Carry and base end with the process: after a restart all of an edge's counts are under its present name.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from weir import metrics
from weir.aggregate.bases import Bases
from weir.aggregate.compact import compact
from weir.aggregate.labels import Labeller, shape_of
from weir.aggregate.pairs import Pairs, grown
from weir.aggregate.snapshot import U64, AgentValues, Labels, Snapshot
from weir.errors import ConfigError
from weir.flows.types import Drain
from weir.identity.types import Ends, Identifies, Observed
from weir.kernel.layout import RETIRING
from weir.metrics import COLUMN, COLUMNS, SOURCE_SHAPE, TCP_SHAPE, UDP_SHAPE

_FULL = TCP_SHAPE | UDP_SHAPE | SOURCE_SHAPE
#: Room kept free for the pairs that must always find a place: other (by reporter) and overflow.
_RESERVE = 3 * metrics.series_of(_FULL)
_SERIES = np.array([metrics.series_of(shape) for shape in range(_FULL + 1)])
_BYTES = [COLUMN[f"{proto}_{way}_bytes"] for proto in ("tcp", "udp") for way in ("sent", "received")]
_LIVE = COLUMN["live"]


class Aggregator:
    """Sums drains into snapshots; one writer thread."""

    def __init__(
        self,
        identity: Identifies,
        labels: Sequence[str] = (),
        max_series: int = 100_000,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take ``labels`` (of metrics.EXTRA_LABELS) and the budget. ConfigError when they cannot be."""
        if max_series < 2 * _RESERVE:
            raise ConfigError(f"--max-series {max_series}: at least {2 * _RESERVE} are needed")
        self._identity = identity
        self._labeller = Labeller(labels)
        self._pairs = Pairs(max_series - _RESERVE)
        self._clock = clock
        self._values = np.zeros((1024, COLUMNS), np.uint64)  # by slot number, as published last
        self._pair = np.full(1024, -1, np.intp)
        self._unnamed = np.zeros((1024, 2), np.bool_)
        self._shape = np.zeros(1024, np.uint8)
        self._retiring = np.zeros(1024, np.bool_)
        self._freed: set[int] = set()  # slots that were freed since the last drain
        self._labels: dict[int, Labels] = {}  # of each slot, before folding
        self._base = Bases()
        self._folded: Counter[tuple[Labels, int]] = Counter()
        self._folded_slots: dict[int, tuple[Labels, int]] = {}
        self._unattributed = [0, 0]
        self._stages: dict[str, tuple[int, float]] = {}
        self._owners: tuple[Ends, ...] = ()
        self._names: tuple[int, tuple[Labels, ...]] = (-1, ())

    def update(self, drain: Drain) -> Snapshot:
        """Take in one drain and return what is to be shown."""
        started = self._clock()
        seen = self._identity.observe(drain)
        observed = self._clock()
        slots = drain.indexes.astype(np.intp)
        self._reserve(int(slots.max(initial=0)) + 1)
        changed = bool(len(seen.new) or len(seen.gone) or len(seen.relabelled))
        if changed:
            self._change(drain, slots, seen)
        self._freed.clear()
        self._retiring[slots] = drain.slots["state"] == RETIRING
        rows = compact(drain.slots)
        self._count_unattributed(slots, rows)
        self._values[slots] = rows
        numbers, totals = self._sum(slots, rows)
        self._time("identity", observed - started)
        self._time("aggregate", self._clock() - observed)
        for stage, seconds in drain.seconds.items():
            self._time(stage, seconds)
        return self._snapshot(drain, slots, numbers, totals)

    def survivor(self, slot: int) -> int | None:
        """Return a slot of the same series and protocol for the counts of one that is to be freed.

        None where there is none (what is left of the series, if anything, is then kept as carry) and
        for a slot that is not known.
        """
        labels = self._labels.get(slot)
        if labels is None:
            return None
        same = (self._pair == self._pair[slot]) & (self._shape == self._shape[slot])
        others = [
            other
            for other in np.flatnonzero(same).tolist()
            if other != slot and other not in self._freed and self._labels[other] == labels
        ]
        return min(others, key=lambda other: (bool(self._retiring[other]), other), default=None)

    def folded(self, slot: int, into: int | None) -> None:
        """Take note that the kernel freed a slot and moved its counts into another one, if any."""
        self._freed.add(slot)
        if into is None:
            return
        self._values[into] += self._values[slot]
        self._values[slot] = 0
        self._base.hand_over(slot, into)

    def _reserve(self, size: int) -> None:
        if size > len(self._pair):
            size = max(size, 2 * len(self._pair))
            self._pair = grown(self._pair + 1, size) - 1
            self._values = grown(self._values, size)
            self._unnamed = grown(self._unnamed, size)
            self._shape = grown(self._shape, size)
            self._retiring = grown(self._retiring, size)

    def _time(self, stage: str, seconds: float) -> None:
        times, total = self._stages.get(stage, (0, 0.0))
        self._stages[stage] = times + 1, total + seconds

    def _change(self, drain: Drain, slots: NDArray[np.intp], seen: Observed) -> None:
        """Edges come, go and move. Who stays in a series is settled before any series ends."""
        self._retire(seen.gone)
        new = np.flatnonzero(self._pair[slots] < 0).tolist()
        edges = {int(slots[row]): drain.slots["key"][row] for row in new}
        moved = self._leave(drain, slots, seen.relabelled)
        edges.update({slot: edge for slot, _, edge in moved})
        for slot, edge in edges.items():
            self._describe(slot, edge)
        fresh = {slot for slot in edges if self._labels[slot] not in self._pairs.index}
        for slot, edge in edges.items():
            if slot not in fresh:
                self._join(slot, edge)
        ended = {old for _, old, _ in moved if not self._pairs.edges[old] and old not in self._pairs.kept}
        self._base.release(self._pairs.sweep(kept=False))
        for slot in sorted(fresh):
            self._join(slot, edges[slot])
        for slot, old, _ in moved:
            if old not in ended and self._pairs.edges[old]:
                self._leave_behind(slot, old)
        self._base.release(self._pairs.sweep(kept=True))
        self._owners = tuple(map(self._identity.at, slots.tolist()))

    def _retire(self, gone: NDArray[np.intp]) -> None:
        gone = gone[self._pair[gone] >= 0]
        numbers, last = self._pair[gone], self._values[gone]
        last[:, _LIVE] = 0
        for row, slot in enumerate(gone.tolist()):
            del self._labels[slot]
            self._unfold(slot)
            last[row] -= self._base.drop(slot)
        np.add.at(self._pairs.carry, numbers, last)
        np.subtract.at(self._pairs.edges, numbers, 1)
        self._values[gone] = 0
        self._pair[gone] = -1

    def _leave(
        self, drain: Drain, slots: NDArray[np.intp], relabelled: NDArray[np.intp]
    ) -> list[tuple[int, int, np.void]]:
        """Take edges out of the pairs that no longer fit: (slot, old pair, edge) of each."""
        moved = []
        for row in np.searchsorted(slots, relabelled).tolist():
            slot, edge = int(slots[row]), drain.slots["key"][row]
            if self._labeller.labels(edge, self._identity.at(slot)) != self._labels[slot]:
                old = int(self._pair[slot])
                self._pairs.edges[old] -= 1
                self._unfold(slot)
                moved.append((slot, old, edge))
            else:
                self._describe(slot, edge)
        return moved

    def _leave_behind(self, slot: int, old: int) -> None:
        """The old pair lives on: it keeps what the edge has shown there."""
        shown = self._values[slot].copy()
        shown[_LIVE] = 0
        own = shown - self._base.of(slot)
        self._pairs.carry[old] += own
        self._base.leave(slot, old, own)

    def _describe(self, slot: int, edge: np.void) -> None:
        ends = self._identity.at(slot)
        self._unnamed[slot] = [slot != 0 and not end.named for end in (ends.local, ends.remote)]
        labels = self._labeller.labels(edge, ends)
        self._labels[slot] = labels if slot else self._labeller.shared(labels, "overflow")

    def _join(self, slot: int, edge: np.void) -> None:
        labels, shape = self._labels[slot], shape_of(edge) if slot else _FULL
        number = self._pairs.take(labels, shape, always=slot == 0)
        if number is None:
            self._folded_slots[slot] = labels, shape
            self._folded[labels, shape] += 1
            number = self._pairs.take(self._labeller.shared(labels, "other"), shape, always=True)
        self._pair[slot] = -1 if number is None else number
        self._shape[slot] = shape

    def _unfold(self, slot: int) -> None:
        if (key := self._folded_slots.pop(slot, None)) is not None:
            self._folded[key] -= 1
            if not self._folded[key]:
                del self._folded[key]

    def _count_unattributed(self, slots: NDArray[np.intp], rows: U64) -> None:
        before = self._values[slots[:, np.newaxis], _BYTES].sum(axis=1)
        more = rows[:, _BYTES].sum(axis=1) - before
        for end in (0, 1):
            self._unattributed[end] += int(more[self._unnamed[slots, end]].sum())

    def _sum(self, slots: NDArray[np.intp], rows: U64) -> tuple[NDArray[np.intp], U64]:
        """Return pair numbers (p,) and their totals (p, COLUMNS)."""
        pairs = self._pair[slots]
        order = np.argsort(pairs, kind="stable")
        numbers, starts = np.unique(pairs[order], return_index=True)
        totals = self._pairs.carry[numbers]
        if len(rows):
            totals += np.add.reduceat(rows[order], starts, axis=0)
        for slot, base in self._base.items():
            totals[np.searchsorted(numbers, self._pair[slot])] -= base
        return numbers, totals

    def _snapshot(
        self, drain: Drain, slots: NDArray[np.intp], numbers: NDArray[np.intp], totals: U64
    ) -> Snapshot:
        if self._names[0] != self._pairs.version:
            labels = tuple(self._pairs.labels[number] for number in numbers.tolist())
            self._names = self._pairs.version, labels
        shapes = self._pairs.shape[numbers]
        overflow = self._values[0][_BYTES] if len(slots) and slots[0] == 0 else np.zeros(4, np.uint64)
        agent = AgentValues(
            events=drain.events,
            maps=drain.maps,
            programs=drain.programs,
            planes=drain.planes,
            stages=dict(self._stages),
            edges=len(slots),
            series=int(_SERIES[shapes].sum()),
            series_folded=sum(metrics.series_of(shape) for _, shape in self._folded),
            unattributed_bytes=(self._unattributed[0], self._unattributed[1]),
            overflow_bytes=(int(overflow[0] + overflow[2]), int(overflow[1] + overflow[3])),
            labels_truncated=self._labeller.truncated,
            evictions=dict(self._identity.evictions()),
        )
        return Snapshot(
            drain.wall,
            drain.monotonic_ns,
            self._labeller.names,
            self._names[1],
            totals,
            shapes,
            agent,
            drain.slots,
            slots,
            self._owners,
        )
