# SPDX-License-Identifier: Apache-2.0
"""What the kernel side does without while its agent has too much to do: ``weir_shed`` of ``bpf/weir.h``."""

from __future__ import annotations

import time
from collections.abc import Callable

from weir.kernel.layout import SHED, TAP
from weir.kernel.maps import Mapped, Maps


class KernelShed:
    """Takes planes away for ``lease`` seconds at a time: if the agent ends, they come back by themselves."""

    def __init__(self, maps: Maps, lease: float, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._row = Mapped(maps.fd("shed"), 1, SHED).view
        self._tap = Mapped(maps.fd("tap"), 1, TAP).view
        self._lease_ns, self._now = int(lease * 1e9), monotonic_ns
        self.without(tap=False, requests=False)  # an agent before this one may have been killed

    def without(self, *, tap: bool, requests: bool) -> None:
        """Take away or give back, until the lease ends or the next call."""
        now, row = self._now(), self._row
        until = now + self._lease_ns
        if requests and int(row["requests_until_ns"][0]) <= now:  # or a lease ended while the agent was held
            row["pauses"][0] += 1  # before the pause: who reads again knows that there was one
        row["requests_until_ns"][0] = until if requests else 0
        row["tap_until_ns"][0] = until if tap else 0

    def tapped(self) -> bool:
        """Whether somebody asks for single requests now."""
        return int(self._tap["until_ns"][0]) > self._now()
