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
#: No tuple
V = TypeVar("V", bound=int | str)


class Holders(Generic[K, V]):
    """Values by key in the order in which they came; the usual single one takes no container."""

    def __init__(self) -> None:
        self._held: dict[K, V | tuple[V, ...]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: K) -> tuple[V, ...]:
        """All of a key, the youngest last."""
        held: V | tuple[V, ...] = self._held.get(key, ())
        return held if isinstance(held, tuple) else (held,)

    def add(self, key: K, value: V) -> None:
        """One more; it must not be there yet."""
        self._held[key] = (*self.get(key), value) if key in self._held else value

    def drop(self, key: K, value: V) -> None:
        """One less; it must be there."""
        rest = tuple(other for other in self.get(key) if other != value)
        if rest:
            self._held[key] = rest[0] if len(rest) == 1 else rest
        else:
            del self._held[key]


class Table(Generic[T, K]):
    """Objects by uid, and by each of their keys in the order in which they got them."""

    def __init__(self, keys: Callable[[T], Iterable[K]]) -> None:
        self._keys = keys
        self.by_uid: dict[str, T] = {}
        self._holders: Holders[K, str] = Holders()

    def put(self, item: T) -> set[K]:
        """Add or replace; the keys whose holders changed."""
        before = self.by_uid.get(item.uid)
        if before == item:
            return set()
        old = set(self._keys(before)) if before is not None else set()
        new = set(self._keys(item))
        for key in old - new:
            self._holders.drop(key, item.uid)
        for key in new - old:
            self._holders.add(key, item.uid)
        self.by_uid[item.uid] = item
        return old | new

    def remove(self, uid: str) -> set[K]:
        """Take one out; the keys that it had."""
        item = self.by_uid.pop(uid, None)
        keys = set(self._keys(item)) if item is not None else set()
        for key in keys:
            self._holders.drop(key, uid)
        return keys

    def holders(self, key: K) -> list[T]:
        """Who has a key, the youngest holder last."""
        return [self.by_uid[uid] for uid in self._holders.get(key)]

    def __len__(self) -> int:
        return len(self.by_uid)

    @property
    def keys(self) -> int:
        """Keys that anybody has."""
        return len(self._holders)
