# SPDX-License-Identifier: Apache-2.0
"""Giving request rows back: those of an edge that leaves, and idle ones when rows run short.

As edges are (:mod:`weir.flows.retire`), in two steps, a drain apart: a row leaves the kernel's table and is
marked; if it stayed silent, its counts go to the row like it of another edge with the same labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from weir.flows.retire import Series
from weir.flows.types import Drain
from weir.kernel.layout import RETIRING, USED
from weir.kernel.side import KernelSide

_BATCH = 512
#: Above this share of used rows, those are given back that were silent for so long.
_PRESSED, _PRESSED_NS = 0.8, 30 * 10**9


class RowRetirer:
    """Watches the drains of one kernel side; before its :class:`Retirer`, which waits for it."""

    def __init__(self, side: KernelSide) -> None:
        self._side = side
        self._marked: dict[int, int] = {}  # row -> when it was active last

    def step(self, drain: Drain, rows: Series, edges: Series) -> None:
        """Free what was marked a drain ago, then mark what is to go."""
        if self._side.maps.requests is None:
            return
        self._finish(drain, rows, edges)
        self._mark(drain)

    def _finish(self, drain: Drain, rows: Series, edges: Series) -> None:
        leaving = self._leaving(drain)
        for at in np.flatnonzero(drain.requests["state"] == RETIRING).tolist()[:_BATCH]:
            row, active = int(drain.request_indexes[at]), int(drain.requests["active_ns"][at])
            if self._marked.get(row) != active:
                self._marked[row] = active  # counted once more (or marked by an agent before this one)
                continue
            slot = int(drain.requests["key"]["slot"][at])
            like = rows.survivor(row)
            target = edges.survivor(slot) if leaving[at] else None
            if like is not None:
                target = int(self._side.maps.requests.view["key"]["slot"][like])  # type: ignore[union-attr]
            rows.folded(row, self._side.fold_requests(row, target))
            del self._marked[row]

    def _mark(self, drain: Drain) -> None:
        going = self._leaving(drain) | self._idle(drain)
        candidates = np.flatnonzero(going & (drain.requests["state"] == USED) & (drain.request_indexes > 0))
        for at in candidates.tolist()[:_BATCH]:
            row = int(drain.request_indexes[at])
            self._side.maps.forget_requests(row)
            self._side.maps.requests.retire(row)  # type: ignore[union-attr]
            self._marked[row] = int(drain.requests["active_ns"][at])

    def _leaving(self, drain: Drain) -> NDArray[np.bool_]:
        """Rows whose edge was marked, and has no connection any more."""
        leaving = drain.indexes[(drain.slots["state"] == RETIRING) & (drain.slots["live"] == 0)]
        found: NDArray[np.bool_] = np.isin(drain.requests["key"]["slot"], leaving)
        return found

    def _idle(self, drain: Drain) -> NDArray[np.bool_]:
        """Rows that were silent for a while, if rows run short."""
        active = drain.requests["active_ns"].astype(np.int64)
        if len(active) <= _PRESSED * self._side.maps.requests.count:  # type: ignore[union-attr]
            return np.zeros(len(active), np.bool_)
        return active < drain.monotonic_ns - _PRESSED_NS
