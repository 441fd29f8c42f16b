# SPDX-License-Identifier: Apache-2.0
"""What is new and what is gone between two drains."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from weir.kernel.layout import Array

Rows = NDArray[np.intp]


class Tracker:
    """Tells edges that are new and edges that are gone from slot numbers and generations."""

    def __init__(self) -> None:
        self._generation = np.full(1024, -1, np.int64)  # by slot number; -1: not in use

    def diff(self, indexes: NDArray[np.uint32], generation: Array) -> tuple[Rows, Rows]:
        """Return (row numbers of new edges, slot numbers of those gone), for arrays of shape (n,)."""
        slots = indexes.astype(np.intp)
        size = int(slots.max(initial=0)) + 1
        if size > len(self._generation):
            grown = np.full(max(size, 2 * len(self._generation)), -1, np.int64)
            grown[: len(self._generation)] = self._generation
            self._generation = grown
        current = np.full(len(self._generation), -1, np.int64)
        current[slots] = generation
        changed = current != self._generation
        gone = np.flatnonzero(changed & (self._generation >= 0))
        new = np.flatnonzero(changed[slots])
        self._generation = current
        return new, gone
