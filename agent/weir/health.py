# SPDX-License-Identifier: Apache-2.0
"""What the writer thread and the server share: the last snapshot, when it came, and what failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

S = TypeVar("S")

#: A snapshot older than this many intervals means that the agent is stuck.
_STALE = 3


class Health(Generic[S]):
    """State of the writer loop; ``interval`` and ``clock`` in seconds (monotonic)."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._slower = 1
        self._clock = clock
        self._started = clock()
        self._published: tuple[S, float] | None = None
        self._alive: Callable[[], bool] = lambda: True
        self._errors: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._lock = threading.Lock()

    def watch(self, alive: Callable[[], bool]) -> None:
        """Take the question whether the writer thread is alive (``Thread.is_alive``)."""
        self._alive = alive

    @property
    def interval(self) -> float:
        """Seconds between two snapshots, as they are to come now."""
        return self._interval * self._slower

    def slow_down(self, times: int) -> None:
        """Snapshots come so many times later; 1: as they should."""
        self._slower = times

    def publish(self, snapshot: S) -> None:
        """Put the next snapshot out."""
        self._published = snapshot, self._clock()

    def fail(self, stage: str) -> None:
        """Count an error that a stage survived."""
        with self._lock:
            self._errors[stage] = self._errors.get(stage, 0) + 1

    def refuse(self, reason: str) -> None:
        """Count what the server refused."""
        with self._lock:
            self._refused[reason] = self._refused.get(reason, 0) + 1

    @property
    def refused(self) -> Mapping[str, int]:
        """What the server refused, by reason."""
        with self._lock:
            return dict(self._refused)

    @property
    def snapshot(self) -> S | None:
        published = self._published
        return published[0] if published else None

    @property
    def errors(self) -> Mapping[str, int]:
        """Errors survived, by stage."""
        with self._lock:
            return dict(self._errors)

    @property
    def age(self) -> float:
        """Seconds since the last snapshot, since the start before the first one."""
        published = self._published
        return self._clock() - (published[1] if published else self._started)

    def unhealthy(self) -> str:
        """One line why the agent is not healthy; "" when it is."""
        if not self._alive():
            return "the writer thread has ended"
        age, limit = self.age, _STALE * self.interval
        if age > limit:
            what = "the last snapshot is" if self._published else "no snapshot yet after"
            tail = " old" if self._published else ""
            return f"{what} {age:.1f} s{tail}; more than {limit:g} s is too much"
        return ""

    def unready(self) -> str:
        """One line why the agent is not ready; "" once the first snapshot is out."""
        return "" if self._published else "no snapshot yet"
