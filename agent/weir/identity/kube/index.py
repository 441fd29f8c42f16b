# SPDX-License-Identifier: Apache-2.0
"""All that the API told, by uid and by (network, address). Reflectors write, the writer thread reads: a lock.

Networks may overlap: one address in two networks is two pods. A pod that is gone can be found by its uid and
its addresses for a grace time, since its last bytes are read after it; what began after it is not its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from weir.identity.kube.lifetimes import Lifetimes
from weir.identity.kube.pods import Node, Pod, Service, Slice, number_of
from weir.identity.kube.ports import MarkedPorts, Marks
from weir.identity.kube.stays import Holder
from weir.identity.kube.table import Table

#: An address, or (IP protocol number, port) that can be dialled at any node.
Dialled = bytes | tuple[int, int]

#: (namespace, name)
ServiceName = tuple[str, str]
#: (name, kind)
Workload = tuple[str, str]


@dataclass(frozen=True)
class Changes:
    """Addresses and pods that may have other names since the last time; ``everything``: too many to tell."""

    addresses: frozenset[bytes]
    uids: frozenset[str]
    everything: bool = False


def _service_keys(service: Service) -> Iterable[Dialled | ServiceName]:
    return (*service.addresses, *service.node_ports, (service.namespace, service.name))


def _slice_keys(item: Slice) -> Iterable[ServiceName | bytes]:
    """Its service, its namespace, and the addresses that are no pods'."""
    return ((item.namespace, item.service), (item.namespace, ""), *item.addresses)


class ClusterIndex:
    """Pods, services, nodes and the owners of Jobs; ``hurry`` is called when addresses were lost."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        grace: float = 300.0,
        limit: int = 1_000_000,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._limit = limit
        self._lock = threading.RLock()
        self._pods = Lifetimes(clock, wall, grace)
        self._services: Table[Service, Dialled | ServiceName] = Table(_service_keys)
        self._nodes: Table[Node, bytes] = Table(lambda n: n.addresses)
        self._slices: Table[Slice, ServiceName | bytes] = Table(_slice_keys)
        self._by_endpoint = False
        self._marked = MarkedPorts()
        self._backends: dict[ServiceName, Workload | None] = {}
        self._cron: dict[tuple[str, str], str] = {}
        self._addresses: set[bytes] = set()
        self.hurry: Callable[[], None] = lambda: None
        self.dropped = 0

    def put_pod(self, pod: Pod) -> None:
        """A pod as it is now."""
        with self._lock:
            if len(self._pods) >= self._limit and self._pods.pod(pod.uid) is None:
                self.dropped += 1
                return
            self._pods.put(pod)
            self._marked.put(pod)
        self._hasten()

    def delete_pod(self, uid: str) -> None:
        """A pod is gone; it can be found for the grace time."""
        with self._lock:
            self._pods.delete(uid)
            self._marked.drop(uid)
        self._hasten()

    def marked_ports(self) -> Marks:
        """Ports of pods that their annotations mark."""
        with self._lock:
            return self._marked.marks()

    def known_pods(self) -> set[str]:
        """Uids of those that are not gone."""
        with self._lock:
            return self._pods.known()

    def expire(self) -> None:
        """Forget pods whose grace time is over; once in a drain."""
        with self._lock:
            self._pods.expire()

    def put_service(self, service: Service) -> None:
        """A service as it is now."""
        with self._lock:
            self._touch_service(self._services.put(service))

    def delete_service(self, uid: str) -> None:
        """A service is gone."""
        with self._lock:
            self._touch_service(self._services.remove(uid))

    def known_services(self) -> set[str]:
        """Uids."""
        with self._lock:
            return set(self._services.by_uid)

    def put_slice(self, item: Slice) -> None:
        """Some of a service's endpoints, as they are now."""
        with self._lock:
            before = self._slices.by_uid.get(item.uid)
            self._touch_backends(self._slices.put(item))
            self._touch_endpoints(before, item)

    def delete_slice(self, uid: str) -> None:
        """Some of a service's endpoints are gone."""
        with self._lock:
            before = self._slices.by_uid.get(uid)
            self._touch_backends(self._slices.remove(uid))
            self._touch_endpoints(before, None)

    def known_slices(self) -> set[str]:
        """Uids."""
        with self._lock:
            return set(self._slices.by_uid)

    def _touch_backends(self, keys: set[ServiceName | bytes]) -> None:
        for name in keys:
            if isinstance(name, bytes):
                self._addresses.add(name)
                continue
            self._backends.pop(name, None)
            for service in self._services.holders(name):
                self._addresses.update(service.addresses)

    def _touch_endpoints(self, before: Slice | None, after: Slice | None) -> None:
        """Connections to pods that are endpoints no more, or have become it, may have another service."""
        if not self._by_endpoint or before == after:
            return
        old, new = (item.pods if item else set() for item in (before, after))
        same = before is not None and after is not None and before.ports == after.ports
        for number in old ^ new if same else old | new:
            pod = self._pods.numbered(number)
            if pod is not None:
                self._addresses.update(address for _, address in pod.addresses)

    @property
    def by_endpoint(self) -> bool:
        """Whether connections to a pod are labelled by the one service whose endpoint it is."""
        return self._by_endpoint

    def label_by_endpoint(self) -> None:
        """From now on they are: what was dialled is rewritten before anybody sees it."""
        with self._lock:
            self._pods.tell_all()
            self._by_endpoint = True

    def served_by(self, uid: str, proto: int, port: int) -> str:
        """The one service that has a pod's port among its endpoints; "" for none, or several."""
        with self._lock:
            pod = self._pods.pod(uid)
            if pod is None:
                return ""
            number, key = number_of(pod.uid), (proto, port)
            items = self._slices.holders((pod.namespace, ""))
            found = {s.service for s in items if key in s.ports and s.service and s.has(number)}
        return found.pop() if len(found) == 1 else ""

    def endpoint_at(self, address: bytes, proto: int, port: int) -> Slice | None:
        """Who says that an address which is no pod's serves at a port."""
        with self._lock:
            items = self._slices.holders(address)
        return next((s for s in items if s.service and (proto, port) in s.ports), None)

    def backend(self, service: Service) -> Workload | None:
        """The workload of all of a service's endpoints, where it is one."""
        name = service.namespace, service.name
        with self._lock:
            if name not in self._backends:
                numbers = {number for item in self._slices.holders(name) for number in item.pods}
                pods = [self._pods.numbered(number) for number in numbers]
                found = {self.workload(pod) if pod else None for pod in pods}
                if None in found:
                    return None  # a pod that we have not heard of yet
                self._backends[name] = found.pop() if len(found) == 1 else None
            return self._backends[name]

    def put_node(self, node: Node) -> None:
        """A node as it is now."""
        with self._lock:
            self._addresses |= self._nodes.put(node)

    def delete_node(self, uid: str) -> None:
        """A node is gone."""
        with self._lock:
            self._addresses |= self._nodes.remove(uid)

    def known_nodes(self) -> set[str]:
        """Uids."""
        with self._lock:
            return set(self._nodes.by_uid)

    def put_job(self, namespace: str, name: str, cron: str) -> None:
        """A Job of a CronJob ("" for one that is none's). It is remembered after its end, as its pods are."""
        with self._lock:
            if self._cron.get((namespace, name), "") == cron:
                return
            self._cron.pop((namespace, name), None)
            if cron:
                self._cron[namespace, name] = cron
            if len(self._cron) > self._limit:
                del self._cron[next(iter(self._cron))]
            self._pods.touch_job((namespace, name))

    def workload(self, pod: Pod) -> tuple[str, str]:
        """(name, kind) of what made a pod."""
        if pod.kind == "Job" and (cron := self._cron.get((pod.namespace, pod.workload))):
            return cron, "CronJob"
        return pod.workload, pod.kind

    def pod(self, uid: str) -> Pod | None:
        """By uid, also a static pod's local one."""
        with self._lock:
            return self._pods.pod(uid)

    def gone(self, uid: str) -> bool:
        """Whether a pod that was known has ended or was deleted."""
        with self._lock:
            return self._pods.gone(uid)

    def pod_with(self, node: str, device: str) -> Pod | None:
        """Who has a virtual function of a node now, by its PCI or MAC address."""
        with self._lock:
            return self._pods.with_device(node, device)

    def pod_at(self, network: str, address: bytes, born: float | None = None) -> Holder:
        """Who had an address in a network when something to it began (CLOCK_MONOTONIC, s; None: now)."""
        with self._lock:
            return self._pods.at(network, address, born)

    def service_at(self, dialled: Dialled) -> Service | None:
        """Whose address or node port it is."""
        with self._lock:
            return next(reversed(self._services.holders(dialled)), None)

    def node_at(self, address: bytes) -> Node | None:
        """Whose address it is."""
        with self._lock:
            return next(reversed(self._nodes.holders(address)), None)

    def take_changes(self) -> Changes:
        """What changed since the last call."""
        with self._lock:
            addresses, uids, everything = self._pods.take()
            changes = Changes(frozenset(self._addresses | addresses), frozenset(uids), everything)
            self._addresses = set()
            return changes

    def take_lost(self) -> frozenset[bytes]:
        """Addresses that somebody was known to have and has no more, since the last call."""
        with self._lock:
            lost, self._pods.lost = frozenset(self._pods.lost), set()
            return lost

    def lose_again(self, lost: frozenset[bytes]) -> None:
        """Tell of these the next time once more: nothing could be done about them."""
        with self._lock:
            self._pods.lost |= lost

    def sizes(self) -> dict[str, int]:
        """Objects by kind."""
        with self._lock:
            return {
                "pods": len(self._pods), "services": len(self._services), "nodes": len(self._nodes),
                "endpointslices": len(self._slices),
            }  # fmt: skip

    def _touch_service(self, keys: set[Dialled | ServiceName]) -> None:
        self._addresses |= {key for key in keys if isinstance(key, bytes)}
        if any(isinstance(key, tuple) and isinstance(key[0], int) for key in keys):  # dialled at any node
            self._addresses.update(*(node.addresses for node in self._nodes.by_uid.values()))

    def _hasten(self) -> None:
        if self._pods.lost:
            self.hurry()
