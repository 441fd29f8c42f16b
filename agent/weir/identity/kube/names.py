# SPDX-License-Identifier: Apache-2.0
"""From what the API told to owners: the pod of a cgroup, the pod behind an address, services, nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from weir.identity.kube.index import Changes, ClusterIndex
from weir.identity.kube.pods import Pod, Service
from weir.identity.sriov import VirtualFunction
from weir.identity.types import NODE, UNKNOWN, Owner


@dataclass(frozen=True)
class Place:
    """Where a local address is. ``network`` is "" for the cluster's default one, None while nobody knows."""

    network: str | None = ""
    interface: str = ""


_HOST = Place()
_NOT_KNOWN = Place(None)


@dataclass(frozen=True)
class Found:
    """Who is at an address: the pod's ``uid`` ("" for anything else) and its owner; None: nobody we know."""

    uid: str
    owner: Owner | None


_NOBODY = Found("", None)


class ClusterNames:
    """Owners from a :class:`ClusterIndex`. ``node`` is this host's name in the cluster.

    Pods with the ``external`` label (name, value) are classed as external.
    """

    def __init__(self, index: ClusterIndex, node: str = "", external: tuple[str, str] | None = None) -> None:
        self.index = index
        self.node = node
        self._external = external

    def take_changes(self) -> Changes:
        """What may have other names now; forgets what is too old."""
        self.index.expire()
        return self.index.take_changes()

    def local(self, bare: Owner) -> Owner:
        """The owner of a local container or process whose pod's uid is known, with the API's names."""
        pod = self.index.pod(bare.uid)
        return bare if pod is None else self._named(pod, bare)

    def place(self, uid: str, address: bytes) -> Place:
        """The network and interface of a local pod's address; 16 bytes."""
        pod = self.index.pod(uid)
        if pod is None:
            return _NOT_KNOWN
        if pod.host_network:
            return _HOST
        found = pod.attachment(address)
        if found is not None:
            return Place(found.network, found.interface)
        return _HOST if ("", address) in pod.addresses and not pod.waits else _NOT_KNOWN

    def at(self, network: str, address: bytes, born: float | None = None) -> Found:
        """The pod that had an address when something to it began, UNKNOWN where it may be two."""
        pod, sure = self.index.pod_at(network, address, born)
        if pod is None:
            return _NOBODY if sure else Found("", UNKNOWN)
        return Found(pod.uid, self._named(pod, Owner("", "", attribution="address")))

    def service(self, address: bytes, proto: int, port: int) -> str:
        """The service that is dialled by an address of its own, or at a node's port; "" if none is."""
        service = self._dialled(address, proto, port)
        return service.name if service else ""

    def behind(self, address: bytes, proto: int, port: int) -> Owner | None:
        """Who answers for a service when it is not known which endpoint: their workload, if it is one."""
        service = self._dialled(address, proto, port)
        if service is None:
            return None
        workload, kind = self.index.backend(service) or (f"service/{service.name}", "service")
        return Owner(workload, kind.lower(), service.namespace, attribution="address")

    def served(self, uid: str, proto: int, port: int) -> str:
        """The service of a pod that was reached without translation, where that is to be told; else ""."""
        return self.index.served_by(uid, proto, port) if self.index.by_endpoint else ""

    def endpoint(self, address: bytes, proto: int, port: int) -> Owner | None:
        """What a service's endpoint is called that is no pod."""
        found = self.index.endpoint_at(address, proto, port)
        if found is None:
            return None
        return Owner(f"service/{found.service}", "service", found.namespace, attribution="address")

    def _dialled(self, address: bytes, proto: int, port: int) -> Service | None:
        service = self.index.service_at(address)
        if service is None and self.index.node_at(address) is not None:
            service = self.index.service_at((proto, port))
        return service

    def node_at(self, address: bytes) -> Owner | None:
        """The node that has an address."""
        node = self.index.node_at(address)
        return self._as_node(node.name) if node else None

    def vf(self, vf: VirtualFunction) -> VirtualFunction:
        """A virtual function of this host with its pod, by PCI address, else by MAC address."""
        for device in filter(None, (vf.pci_address.lower(), vf.mac.lower())):
            pod = self.index.pod_with(self.node, device)
            if pod is not None:
                networks = (a.network for a in pod.attachments if device in (a.pci_address, a.mac))
                return replace(vf, namespace=pod.namespace, pod=pod.name, network_name=next(networks, ""))
        return vf

    def gone(self, uid: str) -> bool:
        """Whether a pod has ended: what it had may be somebody else's."""
        return self.index.gone(uid)

    def alone(self, uid: str) -> bool:
        """Whether a pod has a network namespace of its own."""
        pod = self.index.pod(uid)
        return pod is not None and not pod.host_network

    @property
    def here(self) -> Owner:
        """This node."""
        return self._as_node(self.node) if self.node else NODE

    @staticmethod
    def _as_node(name: str) -> Owner:
        return Owner(f"node/{name}", "node", attribution="node")

    def _named(self, pod: Pod, bare: Owner) -> Owner:
        workload, kind = self.index.workload(pod)
        namespace = pod.namespace
        if self._external and pod.labels.get(self._external[0]) == self._external[1]:
            namespace, workload, kind = "", "external", "external"
        return replace(
            bare, workload=workload, kind=kind.lower(), namespace=namespace, pod=pod.name, uid=pod.uid,
            labels=tuple(pod.labels.items()),
        )  # fmt: skip
