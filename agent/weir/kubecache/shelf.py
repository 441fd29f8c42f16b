# SPDX-License-Identifier: Apache-2.0
"""All objects of one resource in slim form, and what happened since a version.

One thread writes, the event loop reads: a lock. Versions are the API server's, so an agent may go on at
another replica; they are compared as numbers (Kubernetes documents since 1.35 that they can be).
"""

from __future__ import annotations

import gzip
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from weir.identity.kube.objects import LIST_END, Meta
from weir.identity.kube.pods import number_of
from weir.kubecache.slim import Slim, versioned

#: Parts in which a list is told.
PARTS = 256
_EVENTS = 50_000


class _GlanceSpec(msgspec.Struct):
    nodeName: str = ""  # noqa: N815 the API's name


class _Glance(msgspec.Struct):
    metadata: Meta
    spec: _GlanceSpec = msgspec.field(default_factory=_GlanceSpec)


_glance = msgspec.json.Decoder(_Glance).decode


class GoneError(Exception):
    """So far back nothing is known: list again (410)."""


class TooNewError(Exception):
    """A version that this replica has not reached yet (504)."""


@dataclass(frozen=True, slots=True)
class _Event:
    version: int
    number: int
    line: bytes


@dataclass(slots=True)
class _Bucket:
    """Some of the objects, by the number of their uid; ``packed`` are ADDED events of them, compressed."""

    items: dict[int, bytes] = field(default_factory=dict)
    packed: bytes = b""


class Shelf:
    """Objects of one resource. ``changed`` is called, by the thread that writes, when there is news."""

    def __init__(self, slim: Slim, events: int = _EVENTS) -> None:
        self._slim = slim
        self._lock = threading.Lock()
        self._buckets = [_Bucket() for _ in range(PARTS)]
        self._pending: dict[int, bytes] = {}  # b"": deleted
        self._by_node: dict[str, set[int]] = {}
        self._events: deque[_Event] = deque(maxlen=events)
        self._floor = 0
        self._first = 0  # number of the oldest event
        self._chunk: tuple[int, int, bytes] = (0, 0, b"")  # from, to, compressed
        self.version = 0
        self.same = 0
        self.changed: Callable[[], None] = lambda: None

    def put(self, item: Any) -> None:
        """An object; what agents see of it may be the same as before."""
        number = number_of(item.metadata.uid)
        blob = self._slim(item)
        known = self._pending.get(number)
        if (self._bucket(number).items.get(number) if known is None else known) == blob:
            self.same += 1
        else:
            self._pending[number] = blob

    def delete(self, uid: str) -> None:
        """An object is gone."""
        number = number_of(uid)
        if number in self._pending or number in self._bucket(number).items:
            self._pending[number] = b""

    def known(self) -> set[str]:
        """Uids of all."""
        return {_glance(blob).metadata.uid for bucket in self._buckets for blob in bucket.items.values()}

    def at(self, version: str) -> None:
        """All that was put and deleted until now was so at this version."""
        number = int(version)
        with self._lock:
            self.version = max(self.version, number)
            self._floor = self._floor or self.version
            for key, blob in self._pending.items():
                self._apply(key, blob)
            news = bool(self._pending)
            self._pending.clear()
        if news:
            self.changed()

    def _apply(self, key: int, blob: bytes) -> None:
        bucket = self._bucket(key)
        known = bucket.items.pop(key, b"")
        if not known and not blob:
            return  # it came and went
        if known:
            node = _glance(known).spec.nodeName
            self._by_node[node].discard(key)
            if not self._by_node[node]:
                del self._by_node[node]
        if blob:
            bucket.items[key] = blob
            self._by_node.setdefault(_glance(blob).spec.nodeName, set()).add(key)
        bucket.packed = b""
        kind = (b"MODIFIED" if known else b"ADDED") if blob else b"DELETED"
        line = b'{"type":"%s","object":%s}\n' % (kind, versioned(blob or known, self.version))
        if self.version == self._floor and not self._events:
            return  # the first list: nobody can have asked before
        if len(self._events) == self._events.maxlen:
            self._floor = self._events[0].version
            self._first += 1
        self._events.append(_Event(self.version, key, line))

    def _bucket(self, number: int) -> _Bucket:
        return self._buckets[number % PARTS]

    def __len__(self) -> int:
        return sum(len(bucket.items) for bucket in self._buckets)

    def some(self, bucket: int) -> bytes:
        """ADDED events of a part of the objects, compressed; parts are numbered from 0 to PARTS - 1."""
        with self._lock:
            found = self._buckets[bucket]
            if found.items and not found.packed:
                lines = (b'{"type":"ADDED","object":%s}\n' % blob for blob in found.items.values())
                found.packed = gzip.compress(b"".join(lines), 6)
            return found.packed

    def on_node(self, node: str) -> tuple[int, list[bytes]]:
        """(version, pods of a node)."""
        with self._lock:
            return self.version, [self._bucket(key).items[key] for key in self._by_node.get(node, ())]

    def _check(self, version: int) -> None:
        if version > self.version:
            raise TooNewError
        if version < self._floor:
            raise GoneError

    def since(self, version: int) -> tuple[bytes, int]:
        """(the last event of each object after a version, compressed; number of the next event).

        GoneError where the events do not reach back so far, TooNewError where this replica is behind.
        """
        with self._lock:
            self._check(version)
            last = {event.number: event for event in self._events if event.version > version}
            lines = [event.line for event in sorted(last.values(), key=lambda event: event.version)]
            return gzip.compress(b"".join(lines), 1) if lines else b"", self._first + len(self._events)

    def after(self, number: int) -> tuple[bytes, int]:
        """(events from a number on, compressed; number of the next one); GoneError where they are no more."""
        with self._lock:
            end = self._first + len(self._events)
            if number < self._first:
                raise GoneError
            if number == end:
                return b"", end
            if self._chunk[:2] != (number, end):
                lines = [self._events[at - self._first].line for at in range(number, end)]
                self._chunk = number, end, gzip.compress(b"".join(lines), 1)
            return self._chunk[2], end


def bookmark(version: int, end: bool = False) -> bytes:
    """A line that tells a watcher from where it may go on, and whether a list ends here; compressed."""
    marks = {"annotations": {LIST_END: "true"}} if end else {}
    item = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version), **marks}}}
    return gzip.compress(msgspec.json.encode(item) + b"\n", 1)
