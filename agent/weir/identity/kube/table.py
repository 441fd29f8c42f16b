# SPDX-License-Identifier: Apache-2.0
"""Objects by uid and by their keys."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, Protocol, TypeVar


class _Named(Hashable, Protocol):
    @property
    def uid(self) -> str:
        """What it is known by."""


T = TypeVar("T", bound=_Named)
K = TypeVar("K", bound=Hashable)


class Table(Generic[T, K]):
    """Objects by uid, and by each of their keys in the order in which they got them."""

    def __init__(self, keys: Callable[[T], Iterable[K]]) -> None:
        self._keys = keys
        self.by_uid: dict[str, T] = {}
        self._by_key: dict[K, dict[str, None]] = {}

    def put(self, item: T) -> set[K]:
        """Add or replace; the keys whose holders changed."""
        before = self.by_uid.get(item.uid)
        if before == item:
            return set()
        old = set(self._keys(before)) if before is not None else set()
        new = set(self._keys(item))
        for key in old - new:
            self._drop(key, item.uid)
        for key in new - old:
            self._by_key.setdefault(key, {})[item.uid] = None
        self.by_uid[item.uid] = item
        return old | new

    def remove(self, uid: str) -> set[K]:
        """Take one out; the keys that it had."""
        item = self.by_uid.pop(uid, None)
        keys = set(self._keys(item)) if item is not None else set()
        for key in keys:
            self._drop(key, uid)
        return keys

    def holders(self, key: K) -> list[T]:
        """Who has a key, the youngest holder last."""
        return [self.by_uid[uid] for uid in self._by_key.get(key, ())]

    def _drop(self, key: K, uid: str) -> None:
        holders = self._by_key[key]
        del holders[uid]
        if not holders:
            del self._by_key[key]

    def __len__(self) -> int:
        return len(self.by_uid)

    @property
    def keys(self) -> int:
        """Keys that anybody has."""
        return len(self._by_key)
