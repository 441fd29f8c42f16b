# SPDX-License-Identifier: Apache-2.0
"""API objects → what identity needs of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from weir.identity.cidrs import packed
from weir.identity.kube.networks import Attachment, attachments
from weir.identity.kube.objects import (
    Meta,
    NodeObject,
    PodObject,
    PodStatus,
    ServiceObject,
    SliceObject,
)
from weir.identity.kube.ports import ports_of

#: Annotation of a static pod's mirror: its uid on the node, and in its cgroup's name.
CONFIG_HASH = "kubernetes.io/config.hash"
#: Annotation by which a pod asks for secondary networks (Multi-Network Specification 1.3, section 4).
WANTED = "k8s.v1.cni.cncf.io/networks"
_ENDED = ("Succeeded", "Failed")
#: Condition of a pod whose network is there (KEP-3085).
SANDBOX_READY = "PodReadyToStartContainers"
#: Label by which a Deployment tells its ReplicaSets apart.
TEMPLATE_HASH = "pod-template-hash"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PROTOCOLS = {"TCP": 6, "UDP": 17}
_MAX_ADDRESSES = 16
_MAX_ENDPOINTS = 1000  # of one slice, as the API allows


class Pod(msgspec.Struct, frozen=True):
    """One pod. ``kind`` is its workload's; ``addresses`` are (network, 16 bytes), none for a host's network.

    ``running`` is False once it has ended: its addresses may be another pod's by then. ``local_uid`` is a
    static pod's on its node. Times are seconds since the epoch: ``since`` when it had its addresses
    (``exact``) or, where the API does not tell that, when its node took it on (0: not yet); ``leaving``
    when its deletion was asked for. ``waits`` while it has asked for secondary networks and no status tells
    of them. ``ports`` are those that its annotations mark (:mod:`weir.identity.kube.ports`).
    """

    uid: str
    namespace: str
    name: str
    node: str
    workload: str
    kind: str
    host_network: bool = False
    running: bool = True
    addresses: tuple[tuple[str, bytes], ...] = ()
    attachments: tuple[Attachment, ...] = ()
    labels: dict[str, str] = {}
    local_uid: str = ""
    since: float = 0.0
    exact: bool = False
    leaving: float = float("inf")
    waits: bool = False
    ports: tuple[tuple[int, int], ...] = ()

    def attachment(self, address: bytes) -> Attachment | None:
        """The interface that has an address; None for one that no annotation tells of."""
        return next((a for a in self.attachments if address in a.addresses), None)


def pod_of(item: PodObject, wanted_labels: Collection[str] = ()) -> tuple[Pod, bool]:
    """A pod with the labels that are wanted, and whether its network annotation was not as specified."""
    meta, labels = item.metadata, item.metadata.labels or {}
    networks, bad = attachments(meta.annotations)
    addresses: list[tuple[str, bytes]] = []
    if not item.spec.hostNetwork:
        for text in [p.ip for p in item.status.podIPs or ()] or [item.status.podIP]:
            address = _packed(text)
            if address:
                addresses.append(("", address))
        addresses += [(a.network, address) for a in networks if a.network for address in a.addresses]
    workload, kind = workload_of(item)
    pod = Pod(
        meta.uid, meta.namespace, meta.name, item.spec.nodeName, workload, kind, item.spec.hostNetwork,
        item.status.phase not in _ENDED, tuple(dict.fromkeys(addresses))[:_MAX_ADDRESSES], networks,
        {name: labels[name] for name in wanted_labels if name in labels},
        (meta.annotations or {}).get(CONFIG_HASH, ""),
        *_since(item.status), _leaving(meta), not networks and not bad and WANTED in (meta.annotations or {}),
        ports_of(meta.annotations)[0],
    )  # fmt: skip
    return pod, bad


def _since(status: PodStatus) -> tuple[float, bool]:
    """When the pod's sandbox was ready, network included (KEP-3085, Linux nodes from 1.29 on)."""
    for condition in status.conditions or ():
        if condition.type == SANDBOX_READY and condition.status == "True" and condition.lastTransitionTime:
            return condition.lastTransitionTime.timestamp(), True
    return (status.startTime.timestamp() if status.startTime else 0.0), False


def _leaving(meta: Meta) -> float:
    """When it was asked for: the time stamp is that of the end of the grace period."""
    if meta.deletionTimestamp is None:
        return float("inf")
    return meta.deletionTimestamp.timestamp() - (meta.deletionGracePeriodSeconds or 0)


def workload_of(item: PodObject) -> tuple[str, str]:
    """(name, kind) of what made the pod; of a CronJob's, the Job's.

    A Deployment names its ReplicaSets by its own name and the hash that the pods' label has
    (pod-template-hash), so no ReplicaSet is asked for. A static pod is owned by its node.
    """
    meta = item.metadata
    owner = meta.controller
    if owner is None:
        return meta.name, "Pod"
    if owner.kind == "Node":
        return meta.name.removesuffix(f"-{item.spec.nodeName}"), "Pod"
    suffix = f"-{(meta.labels or {}).get(TEMPLATE_HASH, '')}"
    if owner.kind == "ReplicaSet" and suffix != "-" and owner.name.endswith(suffix):
        return owner.name.removesuffix(suffix), "Deployment"
    return owner.name, owner.kind


@dataclass(frozen=True, slots=True)
class Service:
    """One service; ``addresses`` are those that can be dialled, 16 bytes each.

    ``node_ports`` are (IP protocol number, port) that can be dialled at any node.
    """

    uid: str
    namespace: str
    name: str
    addresses: tuple[bytes, ...]
    node_ports: tuple[tuple[int, int], ...] = ()


def service_of(item: ServiceObject) -> Service:
    """A service; headless ones have no addresses."""
    spec, meta = item.spec, item.metadata
    texts = [*(spec.clusterIPs or [spec.clusterIP]), *(spec.externalIPs or ())]
    texts += [ingress.ip for ingress in item.status.loadBalancer.ingress or ()]
    found = (_packed(text) for text in texts)
    node_ports = ((_PROTOCOLS.get(port.protocol, 0), port.nodePort) for port in spec.ports or ())
    return Service(
        meta.uid, meta.namespace, meta.name, tuple(dict.fromkeys(filter(None, found)))[:_MAX_ADDRESSES],
        tuple(key for key in node_ports if all(key)),
    )  # fmt: skip


#: Label of an EndpointSlice: the service that it is of.
SERVICE_NAME = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of a service's endpoints: numbers of their pods' uids, packed since there are many.

    ``ports`` are (IP protocol number, port of the endpoints); ``addresses`` those of endpoints that are no
    pods, 16 bytes each.
    """

    uid: str
    namespace: str
    service: str
    packed: bytes = b""
    ports: tuple[tuple[int, int], ...] = ()
    addresses: tuple[bytes, ...] = ()

    def has(self, number: int) -> bool:
        """Whether a pod is among them."""
        wanted = number.to_bytes(16, "big")
        at = self.packed.find(wanted)
        while at > 0 and at % 16:  # across two numbers
            at = self.packed.find(wanted, at + 1)
        return at >= 0

    @property
    def pods(self) -> set[int]:
        """:func:`number_of` of the pods' uids; what is no pod has that of ""."""
        return {int.from_bytes(self.packed[at : at + 16], "big") for at in range(0, len(self.packed), 16)}


def slice_of(item: SliceObject) -> Slice:
    """One EndpointSlice."""
    meta = item.metadata
    targets = (endpoint.targetRef for endpoint in item.endpoints or ())
    uids = {target.uid if target and target.kind == "Pod" else "" for target in targets}
    texts = [t for e in item.endpoints or () if e.targetRef is None for t in e.addresses or ()]
    ports = ((_PROTOCOLS.get(port.protocol or "TCP", 0), port.port or 0) for port in item.ports or ())
    return Slice(
        meta.uid, meta.namespace, (meta.labels or {}).get(SERVICE_NAME, ""), pack(uids),
        tuple(dict.fromkeys(key for key in ports if all(key))),
        tuple(dict.fromkeys(filter(None, map(_packed, texts[:_MAX_ENDPOINTS])))),
    )  # fmt: skip


def pack(uids: Iterable[str]) -> bytes:
    """Numbers of uids, 16 bytes each."""
    return b"".join(sorted(number_of(uid).to_bytes(16, "big") for uid in uids))


@dataclass(frozen=True, slots=True)
class Node:
    """One node and its addresses, 16 bytes each."""

    uid: str
    name: str
    addresses: tuple[bytes, ...]


def node_of(item: NodeObject) -> Node:
    """A node; host names among its addresses are left out."""
    found = (_packed(a.address) for a in item.status.addresses or ())
    return Node(
        item.metadata.uid, item.metadata.name, tuple(dict.fromkeys(filter(None, found)))[:_MAX_ADDRESSES]
    )


def number_of(uid: str) -> int:
    """A uid's number: a UUID's own, else that of a digest."""
    if _UUID.fullmatch(uid):
        return int(uid.replace("-", ""), 16)
    return int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=16).digest(), "big")


def _packed(text: str) -> bytes:
    try:
        return packed(text)
    except ValueError:
        return b""
