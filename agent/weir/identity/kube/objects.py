# SPDX-License-Identifier: Apache-2.0
"""The few fields of API objects that Weir reads. Everything else is skipped while it is decoded.

Field names are the API's (https://kubernetes.io/docs/reference/kubernetes-api/); msgspec raises
``msgspec.ValidationError`` where a field has another type.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class OwnerReference(msgspec.Struct):
    """``metadata.ownerReferences[]``."""

    kind: str
    name: str
    controller: bool | None = None


class Meta(msgspec.Struct):
    """``metadata`` of any object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815 the API's names
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    ownerReferences: list[OwnerReference] | None = None  # noqa: N815
    deletionTimestamp: datetime | None = None  # noqa: N815
    deletionGracePeriodSeconds: int | None = None  # noqa: N815

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages the object."""
        return next((owner for owner in self.ownerReferences or () if owner.controller), None)


class PodSpec(msgspec.Struct):
    """``spec`` of a pod."""

    nodeName: str = ""  # noqa: N815
    hostNetwork: bool = False  # noqa: N815


class PodIP(msgspec.Struct):
    """``status.podIPs[]``."""

    ip: str = ""


class Condition(msgspec.Struct):
    """``status.conditions[]``."""

    type: str = ""
    status: str = ""
    lastTransitionTime: datetime | None = None  # noqa: N815


class PodStatus(msgspec.Struct):
    """``status`` of a pod."""

    phase: str = ""
    podIP: str = ""  # noqa: N815
    podIPs: list[PodIP] | None = None  # noqa: N815
    startTime: datetime | None = None  # noqa: N815
    conditions: list[Condition] | None = None


class PodObject(msgspec.Struct):
    """A pod."""

    metadata: Meta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class ServicePort(msgspec.Struct):
    """``spec.ports[]`` of a service."""

    port: int = 0
    protocol: str = "TCP"
    nodePort: int = 0  # noqa: N815


class ServiceSpec(msgspec.Struct):
    """``spec`` of a service."""

    clusterIP: str = ""  # noqa: N815
    clusterIPs: list[str] | None = None  # noqa: N815
    externalIPs: list[str] | None = None  # noqa: N815
    ports: list[ServicePort] | None = None


class Ingress(msgspec.Struct):
    """``status.loadBalancer.ingress[]``."""

    ip: str = ""


class LoadBalancer(msgspec.Struct):
    """``status.loadBalancer``."""

    ingress: list[Ingress] | None = None


class ServiceStatus(msgspec.Struct):
    """``status`` of a service."""

    loadBalancer: LoadBalancer = msgspec.field(default_factory=LoadBalancer)  # noqa: N815


class ServiceObject(msgspec.Struct):
    """A service."""

    metadata: Meta
    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)
    status: ServiceStatus = msgspec.field(default_factory=ServiceStatus)


class NodeAddress(msgspec.Struct):
    """``status.addresses[]``."""

    type: str = ""
    address: str = ""


class NodeStatus(msgspec.Struct):
    """``status`` of a node."""

    addresses: list[NodeAddress] | None = None


class NodeObject(msgspec.Struct):
    """A node."""

    metadata: Meta
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class TargetRef(msgspec.Struct):
    """``endpoints[].targetRef`` of an EndpointSlice."""

    kind: str = ""
    uid: str = ""


class Endpoint(msgspec.Struct):
    """``endpoints[]`` of an EndpointSlice."""

    targetRef: TargetRef | None = None  # noqa: N815


class SliceObject(msgspec.Struct):
    """An EndpointSlice (discovery.k8s.io/v1)."""

    metadata: Meta
    endpoints: list[Endpoint] | None = None


class Partial(msgspec.Struct):
    """PartialObjectMetadata: what an owner's owner is told by."""

    metadata: Meta


class ListMeta(msgspec.Struct):
    """``metadata`` of a list; ``cont`` is the API's ``continue``."""

    resourceVersion: str = ""  # noqa: N815
    cont: str = msgspec.field(default="", name="continue")


class ListPage(msgspec.Struct):
    """One page of a list, its items not decoded yet."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


class WatchEvent(msgspec.Struct):
    """One line of a watch, its object not decoded yet."""

    type: str
    object: msgspec.Raw


class Status(msgspec.Struct):
    """Kind Status: why a request failed."""

    code: int = 0
    reason: str = ""
    message: str = ""
