# SPDX-License-Identifier: Apache-2.0
"""What edges that moved to another series left behind in their old ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from weir.aggregate.snapshot import U64


class Bases:
    """Counts (width,) of a row that another pair shows; few rows have any."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._left: dict[int, dict[int, U64]] = {}  # slot -> pair -> counts

    def of(self, slot: int) -> U64:
        """All that the edge left behind; to be taken off its counts."""
        return sum(self._left.get(slot, {}).values(), np.zeros(self._width, np.uint64))

    def items(self) -> Iterator[tuple[int, U64]]:
        """Slot and counts of every edge that left something."""
        return ((slot, self.of(slot)) for slot in self._left)

    def leave(self, slot: int, pair: int, counts: U64) -> None:
        """Take note that ``pair`` goes on showing these counts of the edge."""
        pairs = self._left.setdefault(slot, {})
        pairs[pair] = pairs.get(pair, np.uint64(0)) + counts

    def drop(self, slot: int) -> U64:
        """Forget an edge that is gone; return what it had left behind."""
        counts = self.of(slot)
        self._left.pop(slot, None)
        return counts

    def hand_over(self, slot: int, into: int) -> None:
        """The edge's counts are another one's now."""
        for pair, counts in self._left.pop(slot, {}).items():
            self.leave(into, pair, counts)

    def release(self, ended: Collection[int]) -> None:
        """These pairs have ended: what was left there belongs to its edges again."""
        gone = set(ended)
        for slot, pairs in list(self._left.items()) if gone else ():
            for pair in gone & pairs.keys():
                del pairs[pair]
            if not pairs:
                del self._left[slot]
