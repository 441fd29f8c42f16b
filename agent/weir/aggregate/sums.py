# SPDX-License-Identifier: Apache-2.0
"""Counters of many rows summed by labels, within the series budget: series that never go down.

Rules for a published counter (a row is an edge, or one of its request rows):

* A series is the sum of its rows. It ends with its last row.
* When an idle row is given back, its counts go to another row of the series, in the kernel
  (:meth:`Sums.survivor` names it), so that they outlive this process too. Where only rows of
  another shape are left, they stay here instead, as the series' *carry*.
* When the remote end of a row gets another name the row moves to another series. If the old series
  ends by that, all of the row's counts move, so nothing is lost and nothing is there twice. If it
  lives on, through other rows, it keeps what it has shown (as carry) and the row counts for the new
  series only from now on: the part that stayed is the row's *base*. When the old series ends later,
  that part comes after. So no series goes down, and the sum over all series is that of the kernel, to
  the byte. (Moved counts show as a jump where the new series exists already; it is as large as what
  was counted under the wrong name.)
* A row that the series budget folded stays folded, even when there is room again.

Carry and base end with the process: after a restart all of a row's counts are under its present name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weir.aggregate.bases import Bases
from weir.aggregate.pairs import Budget, Pairs, grown
from weir.aggregate.snapshot import U64, Labels, Sheet
from weir.identity.types import Observed
from weir.metrics import Matrix


class Described(NamedTuple):
    """Labels of a row, the bits of its shape, and those of the pair that takes it where there is no room.

    Without ``other`` there is always room.
    """

    labels: Labels
    shape: int
    other: Labels | None


class Sums:
    """Rows by number, summed by labels; ``names`` are those of the labels."""

    def __init__(self, matrix: Matrix, names: Labels, budget: Budget) -> None:
        self._matrix = matrix
        self._names = names
        self._pairs = Pairs(matrix, budget)
        self.values = np.zeros((1024, matrix.width), np.uint64)  # by row number, as published last
        self._pair = np.full(1024, -1, np.intp)
        self._shape = np.zeros(1024, np.uint8)
        self._retiring = np.zeros(1024, np.bool_)
        self._freed: set[int] = set()  # rows that were freed since the last drain
        self._labels: dict[int, Labels] = {}  # of each row, before folding
        self._base = Bases(matrix.width)
        self._folded: Counter[tuple[Labels, int]] = Counter()
        self._folded_rows: dict[int, tuple[Labels, int]] = {}
        self._shown: tuple[int, tuple[Labels, ...]] = (-1, ())

    @property
    def series_folded(self) -> int:
        """Series that the budget had no room for."""
        return sum(self._matrix.series_of(shape) for _, shape in self._folded)

    def change(self, rows: NDArray[np.intp], seen: Observed, describe: Callable[[int], Described]) -> None:
        """Rows (n,) of one drain, by number; before :meth:`show`.

        ``describe`` tells about a row that is new, or one of whose ends has another name.
        """
        self._reserve(int(rows.max(initial=0)) + 1)
        if len(seen.new) or len(seen.gone) or len(seen.relabelled):
            self._change(rows, seen, describe)
        self._freed.clear()

    def show(self, rows: NDArray[np.intp], values: U64, retiring: NDArray[np.bool_]) -> Sheet:
        """The sums of the drain's rows (n,) with these counters (n, width)."""
        self._retiring[rows] = retiring
        self.values[rows] = values
        numbers, totals = self._sum(rows, values)
        if self._shown[0] != self._pairs.version:
            labels = tuple(self._pairs.labels[number] for number in numbers.tolist())
            self._shown = self._pairs.version, labels
        pairs = self._pairs
        return Sheet(self._names, self._shown[1], totals, pairs.shape[numbers], pairs.since[numbers])

    def more(self, rows: NDArray[np.intp], values: U64, columns: list[int]) -> U64:
        """What these columns of the rows gained since the last drain, summed (n,); before :meth:`show`."""
        before: U64 = self.values[rows[:, np.newaxis], columns].sum(axis=1)
        gained: U64 = values[:, columns].sum(axis=1) - before
        return gained

    def survivor(self, row: int) -> int | None:
        """Return a row of the same series and shape for the counts of one that is to be freed.

        None where there is none (what is left of the series, if anything, is then kept as carry) and
        for a row that is not known.
        """
        labels = self._labels.get(row)
        if labels is None:
            return None
        same = (self._pair == self._pair[row]) & (self._shape == self._shape[row])
        others = [
            other
            for other in np.flatnonzero(same).tolist()
            if other != row and other not in self._freed and self._labels[other] == labels
        ]
        return min(others, key=lambda other: (bool(self._retiring[other]), other), default=None)

    def folded(self, row: int, into: int | None) -> None:
        """Take note that the kernel freed a row and moved its counts into another one, if any."""
        self._freed.add(row)
        if into is None:
            return
        self._reserve(into + 1)
        if into in self._freed:  # freed a moment ago, and taken again for this
            self._retire(np.array([into]))
            self._freed.discard(into)
        self.values[into] += self.values[row]
        self.values[row] = 0
        self._base.hand_over(row, into)

    def _reserve(self, size: int) -> None:
        if size > len(self._pair):
            size = max(size, 2 * len(self._pair))
            self._pair = grown(self._pair + 1, size) - 1
            self.values = grown(self.values, size)
            self._shape = grown(self._shape, size)
            self._retiring = grown(self._retiring, size)

    def _change(self, rows: NDArray[np.intp], seen: Observed, describe: Callable[[int], Described]) -> None:
        """Rows come, go and move. Who stays in a series is settled before any series ends."""
        self._retire(seen.gone)
        coming = dict.fromkeys(rows[self._pair[rows] < 0].tolist())
        moved, began = [], {}
        told: dict[int, Described] = {}
        for row in seen.relabelled.tolist():
            told[row] = describe(row)
            if told[row].labels != self._labels[row]:
                moved.append((row, int(self._pair[row])))
                began[row] = self._pairs.since[self._pair[row]]
                self._pairs.edges[self._pair[row]] -= 1
                self._unfold(row)
        coming.update(dict.fromkeys(row for row, _ in moved))
        for row in coming:
            told[row] = told.get(row) or describe(row)
            self._labels[row] = told[row].labels
        fresh = {row for row in coming if self._labels[row] not in self._pairs.index}
        for row in coming:
            if row not in fresh:
                self._join(row, told[row])
        ended = {old for _, old in moved if not self._pairs.edges[old] and old not in self._pairs.kept}
        self._base.release(self._pairs.sweep(kept=False))
        for row in sorted(fresh):
            self._join(row, told[row])
        for row, old in moved:
            if old not in ended and self._pairs.edges[old]:
                self._leave_behind(row, old)
            elif row in fresh:  # all of its counts came with it
                number = self._pair[row]
                self._pairs.since[number] = min(self._pairs.since[number], began[row])
        self._base.release(self._pairs.sweep(kept=True))

    def _retire(self, gone: NDArray[np.intp]) -> None:
        gone = gone[gone < len(self._pair)]
        gone = gone[self._pair[gone] >= 0]
        numbers, last = self._pair[gone], self.values[gone]
        last[:, self._matrix.gauges] = 0
        for at, row in enumerate(gone.tolist()):
            del self._labels[row]
            self._unfold(row)
            last[at] -= self._base.drop(row)
        np.add.at(self._pairs.carry, numbers, last)
        np.subtract.at(self._pairs.edges, numbers, 1)
        self.values[gone] = 0
        self._pair[gone] = -1

    def _leave_behind(self, row: int, old: int) -> None:
        """The old pair lives on: it keeps what the row has shown there."""
        shown = self.values[row].copy()
        shown[self._matrix.gauges] = 0
        own = shown - self._base.of(row)
        self._pairs.carry[old] += own
        self._base.leave(row, old, own)

    def _join(self, row: int, told: Described) -> None:
        number = self._pairs.take(told.labels, told.shape, always=told.other is None)
        if number is None:
            assert told.other is not None
            self._folded_rows[row] = told.labels, told.shape
            self._folded[told.labels, told.shape] += 1
            number = self._pairs.take(told.other, told.shape, always=True)
        self._pair[row] = -1 if number is None else number
        self._shape[row] = told.shape

    def _unfold(self, row: int) -> None:
        if (key := self._folded_rows.pop(row, None)) is not None:
            self._folded[key] -= 1
            if not self._folded[key]:
                del self._folded[key]

    def _sum(self, rows: NDArray[np.intp], values: U64) -> tuple[NDArray[np.intp], U64]:
        """Return pair numbers (p,) and their totals (p, width)."""
        pairs = self._pair[rows]
        order = np.argsort(pairs, kind="stable")
        numbers, starts = np.unique(pairs[order], return_index=True)
        totals = self._pairs.carry[numbers]
        if len(values):
            totals += np.add.reduceat(values[order], starts, axis=0)
        for row, base in self._base.items():
            totals[np.searchsorted(numbers, self._pair[row])] -= base
        return numbers, totals
