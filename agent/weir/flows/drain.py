# SPDX-License-Identifier: Apache-2.0
"""Reading the kernel side: one :class:`Drain` at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from weir.flows.types import Drain
from weir.kernel.layout import REQUEST_HEADS, REQUESTS, Array
from weir.kernel.side import KernelSide


class Drainer:
    """Drains one kernel side; clocks are passed in."""

    def __init__(
        self,
        side: KernelSide,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._side = side
        self._monotonic_ns = monotonic_ns
        self._wall = wall

    def drain(self, *, requests: bool = True) -> Drain:
        """Take over what live sockets gained, then copy the slots in use.

        Without ``requests`` only the heads of their rows are read (layout.REQUEST_HEADS), not the counts.
        """
        start = self._monotonic_ns()
        self._side.read_counters()
        counted = self._monotonic_ns()
        rows_of_requests, numbers = self._requests(requests)
        slots = self._side.maps.slots
        used = slots.used()
        rows = slots.view[used]  # fancy indexing copies
        copied = self._monotonic_ns()
        return Drain(
            slots=rows,
            indexes=used.astype(np.uint32),
            monotonic_ns=counted,
            wall=self._wall(),
            requests=rows_of_requests,
            request_indexes=numbers,
            events=self._side.maps.events(),
            programs=self._side.programs(),
            maps=self._side.fill(len(used), len(numbers)),
            seconds={"counters": (counted - start) / 1e9, "copy": (copied - counted) / 1e9},
            planes=self._side.planes(),
        )

    def _requests(self, whole: bool) -> tuple[Array, NDArray[np.uint32]]:
        """Rows in use and their numbers; before the slots, so that each one's slot is among those."""
        table = self._side.maps.requests
        if table is None:
            return np.empty(0, REQUESTS), np.empty(0, np.uint32)
        used = table.used()
        if whole:
            return table.view[used], used.astype(np.uint32)
        heads = np.empty(len(used), REQUEST_HEADS)
        for name in REQUEST_HEADS.names or ():
            heads[name] = table.view[name][used]
        return heads, used.astype(np.uint32)
