# SPDX-License-Identifier: Apache-2.0
"""API objects → what identity needs of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from weir.identity.cidrs import packed
from weir.identity.kube.networks import Attachment, attachments
from weir.identity.kube.objects import NodeObject, PodObject, ServiceObject

#: Annotation of a static pod's mirror: its uid on the node, and in its cgroup's name.
CONFIG_HASH = "kubernetes.io/config.hash"
_ENDED = ("Succeeded", "Failed")
_MAX_ADDRESSES = 16


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. ``kind`` is its workload's; ``addresses`` are (network, 16 bytes), none for a host's network.

    ``running`` is False once it has ended: its addresses may be another pod's by then. ``local_uid`` is a
    static pod's on its node.
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
    labels: Mapping[str, str] = field(default_factory=dict)
    local_uid: str = ""

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
    )  # fmt: skip
    return pod, bad


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
    suffix = f"-{(meta.labels or {}).get('pod-template-hash', '')}"
    if owner.kind == "ReplicaSet" and suffix != "-" and owner.name.endswith(suffix):
        return owner.name.removesuffix(suffix), "Deployment"
    return owner.name, owner.kind


@dataclass(frozen=True, slots=True)
class Service:
    """One service; ``addresses`` are those that can be dialled, 16 bytes each."""

    uid: str
    namespace: str
    name: str
    addresses: tuple[bytes, ...]


def service_of(item: ServiceObject) -> Service:
    """A service; headless ones have no addresses."""
    spec, meta = item.spec, item.metadata
    texts = [*(spec.clusterIPs or [spec.clusterIP]), *(spec.externalIPs or ())]
    texts += [ingress.ip for ingress in item.status.loadBalancer.ingress or ()]
    found = (_packed(text) for text in texts)
    return Service(
        meta.uid, meta.namespace, meta.name, tuple(dict.fromkeys(filter(None, found)))[:_MAX_ADDRESSES]
    )


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


def _packed(text: str) -> bytes:
    try:
        return packed(text)
    except ValueError:
        return b""
