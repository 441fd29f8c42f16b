# SPDX-License-Identifier: Apache-2.0
"""The one cache of identity: bounded, oldest out first, and it counts what it pushed out."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """``limit`` entries; an entry may have a time to live in seconds of ``clock``."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._entries: dict[K, tuple[V, float]] = {}
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[1] <= self._clock():
            del self._entries[key]
            return None
        return entry[0]

    def put(self, key: K, value: V, ttl: float = float("inf")) -> V:
        if key not in self._entries and len(self._entries) >= self._limit:
            del self._entries[next(iter(self._entries))]
            self.evicted += 1
        self._entries[key] = (value, self._clock() + ttl)
        return value
