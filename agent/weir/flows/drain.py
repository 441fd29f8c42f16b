# SPDX-License-Identifier: Apache-2.0
"""Reading the kernel side: one :class:`Drain` at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from weir.flows.types import Drain
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

    def drain(self) -> Drain:
        """Take over what live sockets gained, then copy the slots in use."""
        start = self._monotonic_ns()
        self._side.read_counters()
        counted = self._monotonic_ns()
        slots = self._side.maps.slots
        used = slots.used()
        rows = slots.view[used]  # fancy indexing copies
        copied = self._monotonic_ns()
        return Drain(
            slots=rows,
            indexes=used.astype(np.uint32),
            monotonic_ns=counted,
            wall=self._wall(),
            events=self._side.maps.events(),
            programs=self._side.programs(),
            maps=self._side.fill(len(used)),
            seconds={"counters": (counted - start) / 1e9, "copy": (copied - counted) / 1e9},
            planes=self._side.planes(),
        )
