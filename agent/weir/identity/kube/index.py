# SPDX-License-Identifier: Apache-2.0
"""All that the API told, by uid and by (network, address). One writer and one reader thread: a lock.

Networks may overlap: one address in two networks is two pods. A pod that is gone can be found by its uid and
its addresses for a grace time, since its last bytes are read after it; a pod that has its address since
takes precedence.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, Protocol, TypeVar

from weir.identity.kube.pods import Node, Pod, Service

Address = tuple[str, bytes]


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


def _pod_keys(pod: Pod) -> Iterable[Address]:
    return pod.addresses


class ClusterIndex:
    """Pods, services, nodes and the owners of Jobs; ``grace`` in seconds of ``clock``."""

    def __init__(self, clock: Callable[[], float], grace: float = 300.0, limit: int = 1_000_000) -> None:
        self._clock = clock
        self._grace = grace
        self._limit = limit
        self._lock = threading.Lock()
        self._pods: Table[Pod, Address] = Table(_pod_keys)
        self._services: Table[Service, bytes] = Table(lambda s: s.addresses)
        self._nodes: Table[Node, bytes] = Table(lambda n: n.addresses)
        self._local: dict[str, str] = {}
        self._cron: dict[tuple[str, str], str] = {}
        self._gone: dict[str, float] = {}  # until when
        self._leaving: deque[tuple[float, str]] = deque()
        self._changed: set[bytes] = set()
        self._changed_uids: set[str] = set()
        self.dropped = 0

    def put_pod(self, pod: Pod) -> None:
        """A pod as it is now."""
        with self._lock:
            if len(self._pods) >= self._limit and pod.uid not in self._pods.by_uid:
                self.dropped += 1
                return
            self._gone.pop(pod.uid, None)
            self._touch(pod.uid, self._pods.put(pod))
            if pod.local_uid:
                self._local[pod.local_uid] = pod.uid

    def delete_pod(self, uid: str) -> None:
        """A pod is gone; it can be found for the grace time."""
        with self._lock:
            if uid in self._pods.by_uid and uid not in self._gone:
                self._gone[uid] = self._clock() + self._grace
                self._leaving.append((self._gone[uid], uid))
                self._touch(uid, set(self._pods.by_uid[uid].addresses))

    def keep_pods(self, node: str | None, uids: set[str]) -> None:
        """After a list: pods (of one node, or all) that it did not have are gone."""
        with self._lock:
            missing = [
                uid for uid, pod in self._pods.by_uid.items()
                if uid not in uids and uid not in self._gone and (node is None or pod.node == node)
            ]  # fmt: skip
        for uid in missing:
            self.delete_pod(uid)

    def expire(self) -> None:
        """Forget pods whose grace time is over; once in a drain."""
        with self._lock:
            now = self._clock()
            while self._leaving and self._leaving[0][0] <= now:
                until, uid = self._leaving.popleft()
                if self._gone.get(uid) != until:
                    continue  # it came back
                del self._gone[uid]
                pod = self._pods.by_uid[uid]
                if self._local.get(pod.local_uid) == uid:
                    del self._local[pod.local_uid]
                self._touch(uid, self._pods.remove(uid))

    def put_service(self, service: Service) -> None:
        """A service as it is now."""
        with self._lock:
            self._changed |= self._services.put(service)

    def delete_service(self, uid: str) -> None:
        """A service is gone."""
        with self._lock:
            self._changed |= self._services.remove(uid)

    def keep_services(self, uids: set[str]) -> None:
        """After a list: others are gone."""
        for uid in set(self._services.by_uid) - uids:
            self.delete_service(uid)

    def put_node(self, node: Node) -> None:
        """A node as it is now."""
        with self._lock:
            self._changed |= self._nodes.put(node)

    def delete_node(self, uid: str) -> None:
        """A node is gone."""
        with self._lock:
            self._changed |= self._nodes.remove(uid)

    def keep_nodes(self, uids: set[str]) -> None:
        """After a list: others are gone."""
        for uid in set(self._nodes.by_uid) - uids:
            self.delete_node(uid)

    def put_job(self, namespace: str, name: str, cron: str) -> None:
        """A Job of a CronJob ("" for one that is none's)."""
        with self._lock:
            if cron:
                self._cron[namespace, name] = cron
            else:
                self._cron.pop((namespace, name), None)

    def workload(self, pod: Pod) -> tuple[str, str]:
        """(name, kind) of what made a pod."""
        if pod.kind == "Job" and (cron := self._cron.get((pod.namespace, pod.workload))):
            return cron, "CronJob"
        return pod.workload, pod.kind

    def pod(self, uid: str) -> Pod | None:
        """By uid, also a static pod's local one."""
        with self._lock:
            return self._pods.by_uid.get(uid) or self._pods.by_uid.get(self._local.get(uid, ""))

    def pod_at(self, network: str, address: bytes) -> Pod | None:
        """Who has an address in a network: a running pod, else one that ended, else one that is gone."""
        with self._lock:
            holders = self._pods.holders((network, address))
            return max(
                enumerate(holders),
                key=lambda item: (item[1].uid not in self._gone, item[1].running, item[0]),
                default=(0, None),
            )[1]

    def service_at(self, address: bytes) -> Service | None:
        """Whose address it is."""
        with self._lock:
            return next(reversed(self._services.holders(address)), None)

    def node_at(self, address: bytes) -> Node | None:
        """Whose address it is."""
        with self._lock:
            return next(reversed(self._nodes.holders(address)), None)

    def take_changes(self) -> tuple[set[bytes], set[str]]:
        """Addresses and pod uids that may have other names since the last call."""
        with self._lock:
            changed = self._changed, self._changed_uids
            self._changed, self._changed_uids = set(), set()
            return changed

    def sizes(self) -> dict[str, int]:
        """Objects by kind."""
        with self._lock:
            return {"pods": len(self._pods), "services": len(self._services), "nodes": len(self._nodes)}

    def _touch(self, uid: str, addresses: set[Address]) -> None:
        self._changed_uids.add(uid)
        self._changed |= {address for _, address in addresses}
