# SPDX-License-Identifier: Apache-2.0
"""Pairs by number, within the series budget."""

from __future__ import annotations

import numpy as np

from weir.aggregate.snapshot import Labels
from weir.kernel.layout import Array
from weir.metrics import Matrix


class Budget:
    """Series that there may be, over all tables; ``since``: what comes now began after this (wall, s)."""

    def __init__(self, room: int, since: float = 0.0) -> None:
        self.room = room
        self.used = 0
        self.since = since


class Pairs:
    """Pairs by number: labels, shape, edges, carry, since when. Numbers of ended pairs are used again."""

    def __init__(self, matrix: Matrix, budget: Budget) -> None:
        self.labels: list[Labels] = []
        self.index: dict[Labels, int] = {}
        self.shape = np.zeros(64, np.uint8)
        self.edges = np.zeros(64, np.int64)
        self.carry = np.zeros((64, matrix.width), np.uint64)
        self.since = np.zeros(64)
        self.kept: set[int] = set()  # pairs outside of the budget
        self.version = 0
        self._series_of = matrix.series_of
        self._budget = budget
        self._free: list[int] = []

    def take(self, labels: Labels, shape: int, always: bool = False) -> int | None:
        """Number of the pair, new or not, that gets one more edge; None when the budget has no room."""
        number = self.index.get(labels)
        known = int(self.shape[number]) if number is not None else 0
        more = self._series_of(known | shape) - self._series_of(known)
        if more and not always and self._budget.used + more > self._budget.room:
            return None
        if number is None:
            number = self._add(labels)
        if more:
            self.shape[number] |= shape
            self.version += 1
        if always and number not in self.kept:
            self.kept.add(number)
            self._budget.used -= self._series_of(known)
        elif number not in self.kept:
            self._budget.used += more
        self.edges[number] += 1
        return number

    def _add(self, labels: Labels) -> int:
        if self._free:
            number = self._free.pop()
            self.labels[number] = labels
        else:
            number = len(self.labels)
            self.labels.append(labels)
            if number == len(self.edges):
                self.shape, self.edges, self.carry = (grown(a, 2 * number) for a in self._arrays())
                self.since = grown(self.since, 2 * number)
        self.index[labels] = number
        self.since[number] = self._budget.since
        return number

    def _arrays(self) -> tuple[Array, Array, Array]:
        return self.shape, self.edges, self.carry

    def sweep(self, kept: bool) -> list[int]:
        """End pairs without edges, those outside of the budget only when ``kept``; return their numbers."""
        ended = []
        for labels, number in [(k, n) for k, n in self.index.items() if not self.edges[n]]:
            if number in self.kept:
                if not kept:
                    continue
                self.kept.discard(number)
            else:
                self._budget.used -= self._series_of(int(self.shape[number]))
            del self.index[labels]
            self.shape[number] = 0
            self.carry[number] = 0
            self._free.append(number)
            self.version += 1
            ended.append(number)
        return ended


def grown(array: Array, size: int) -> Array:
    """Copy of an array with its first axis zero-filled up to ``size``."""
    larger = np.zeros((size, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
