# SPDX-License-Identifier: Apache-2.0
"""What the agent does without while it needs more than it may: one optional plane after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

#: What can be taken away, in this order: single requests for ``weir tap``; requests; RTT and connect time on
#: the page; three of four snapshots.
TAP, REQUESTS, RTT, INTERVAL = PLANES = ("tap", "requests", "rtt", "interval")
#: Snapshots come so many times later while :data:`INTERVAL` is taken away.
SLOWER = 4
#: Seconds that CPU time is measured over at least; as long a plane has to show what it was worth.
_WINDOW = 5.0
#: A plane comes back after so many windows below this share of both caps...
_CALM, _BACK = 4, 0.9
#: ...and after twice as many each time that it was too soon, up to so many.
_LONGEST = 128
#: Seconds between two lines that say that nothing is left to be taken away.
_SAY_AGAIN = 600.0

_log = logging.getLogger("weir.overload")


@dataclass(frozen=True)
class Caps:
    """What the agent may use: CPU cores, bytes of resident memory; 0: no cap."""

    cpu: float = 0.0
    memory: int = 0


def resident() -> int:
    """Resident memory of this process in bytes (VmRSS), mapped BPF arrays included."""
    return int(psutil.Process().memory_info().rss)


class Overload:
    """Watches this process; :meth:`look` once a step. Clocks in seconds, ``cpu`` that of all threads."""

    def __init__(
        self,
        caps: Caps,
        interval: float,
        planes: Sequence[str] = PLANES,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
        memory: Callable[[], int] = resident,
        idle: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """``idle`` tells whether nobody uses a plane now: to do without it would be no gain."""
        self._caps, self._planes = caps, tuple(planes)
        self._clock, self._cpu, self._memory = clock, cpu, memory
        self._idle = idle
        self._window = max(_WINDOW, 3 * interval)
        self._count = 0
        self._since = clock()  # of this measurement
        self._spent = cpu()
        self._calm = 0.0  # how long all has been below the caps
        self._calm_wanted = _CALM
        self._back_at = float("-inf")
        self._said = float("-inf")
        self._looked = clock()
        self._seconds = dict.fromkeys(planes, 0.0)

    @property
    def taken(self) -> tuple[str, ...]:
        """Planes that are taken away now."""
        return self._planes[: self._count]

    @property
    def seconds(self) -> Mapping[str, float]:
        """How long each plane was taken away, in all."""
        return dict(self._seconds)

    def look(self) -> tuple[str, ...]:
        """:attr:`taken`, from now on."""
        now = self._clock()
        for plane in self.taken:
            self._seconds[plane] += now - self._looked
        self._looked = now
        if self._caps != Caps() and now - self._since >= self._window:
            self._judge(now)
        return self.taken

    def _judge(self, now: float) -> None:
        spent, memory = self._cpu(), self._memory() if self._caps.memory else 0
        cores, passed = (spent - self._spent) / (now - self._since), now - self._since
        self._since, self._spent = now, spent
        shares = (cores / self._caps.cpu if self._caps.cpu else 0.0,
                  memory / self._caps.memory if self._caps.memory else 0.0)  # fmt: skip
        fields = self._fields(cores, memory)
        if max(shares) > 1:
            self._calm = 0.0
            self._take(now, fields)
        elif max(shares) < _BACK and self._count:
            self._calm += passed
            if self._calm >= self._calm_wanted * self._window:
                self._calm = 0.0
                self._give_back(now, fields)
        else:
            self._calm = 0.0

    def _take(self, now: float, fields: dict[str, str]) -> None:
        if self._count == len(self._planes):
            if now - self._said >= _SAY_AGAIN:
                self._said = now
                _log.error("over the cap, and nothing is left to do without", extra={"fields": fields})
            return
        while self._idle(self._planes[self._count]) and self._count + 1 < len(self._planes):
            self._count += 1
        plane = self._planes[self._count]
        self._count += 1
        whole, wait = now - self._back_at, self._calm_wanted * self._window
        if whole <= 2 * wait:
            self._calm_wanted = min(2 * self._calm_wanted, _LONGEST)
        elif whole > 4 * wait:
            self._calm_wanted = _CALM
        _log.warning("over the cap: the agent does without a plane",
                     extra={"fields": {"plane": plane, **fields}})  # fmt: skip

    def _give_back(self, now: float, fields: dict[str, str]) -> None:
        self._count -= 1
        self._back_at = now
        _log.info("below the cap: a plane is back",
                  extra={"fields": {"plane": self._planes[self._count], **fields}})  # fmt: skip

    def _fields(self, cores: float, memory: int) -> dict[str, str]:
        found: dict[str, str] = {}
        if self._caps.cpu:
            found |= {"cpu": f"{cores:.3f}", "max_cpu": f"{self._caps.cpu:g}"}
        if self._caps.memory:
            found |= {"memory": f"{memory / 2**20:.0f}Mi", "max_memory": f"{self._caps.memory / 2**20:.0f}Mi"}
        return found
