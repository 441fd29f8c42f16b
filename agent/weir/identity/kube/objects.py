# SPDX-License-Identifier: Apache-2.0
"""The few fields of API objects that Weir reads. Everything else is skipped while it is decoded.

Field names are the API's (https://kubernetes.io/docs/reference/kubernetes-api/); msgspec raises
``msgspec.ValidationError`` where a field has another type.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

#: Annotation of the bookmark that ends a list which is streamed (KEP-3157).
LIST_END = "k8s.io/initial-events-end"


class OwnerReference(msgspec.Struct, omit_defaults=True):
    """``metadata.ownerReferences[]``."""

    kind: str
    name: str
    controller: bool | None = None


class Meta(msgspec.Struct, omit_defaults=True):
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


class PodSpec(msgspec.Struct, omit_defaults=True):
    """``spec`` of a pod."""

    nodeName: str = ""  # noqa: N815
    hostNetwork: bool = False  # noqa: N815


class PodIP(msgspec.Struct, omit_defaults=True):
    """``status.podIPs[]``."""

    ip: str = ""


class Condition(msgspec.Struct, omit_defaults=True):
    """``status.conditions[]``."""

    type: str = ""
    status: str = ""
    lastTransitionTime: datetime | None = None  # noqa: N815


class PodStatus(msgspec.Struct, omit_defaults=True):
    """``status`` of a pod."""

    phase: str = ""
    podIP: str = ""  # noqa: N815
    podIPs: list[PodIP] | None = None  # noqa: N815
    startTime: datetime | None = None  # noqa: N815
    conditions: list[Condition] | None = None


class PodObject(msgspec.Struct, omit_defaults=True):
    """A pod."""

    metadata: Meta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class ServicePort(msgspec.Struct, omit_defaults=True):
    """``spec.ports[]`` of a service."""

    port: int = 0
    protocol: str = "TCP"
    nodePort: int = 0  # noqa: N815


class ServiceSpec(msgspec.Struct, omit_defaults=True):
    """``spec`` of a service."""

    clusterIP: str = ""  # noqa: N815
    clusterIPs: list[str] | None = None  # noqa: N815
    externalIPs: list[str] | None = None  # noqa: N815
    ports: list[ServicePort] | None = None


class Ingress(msgspec.Struct, omit_defaults=True):
    """``status.loadBalancer.ingress[]``."""

    ip: str = ""


class LoadBalancer(msgspec.Struct, omit_defaults=True):
    """``status.loadBalancer``."""

    ingress: list[Ingress] | None = None


class ServiceStatus(msgspec.Struct, omit_defaults=True):
    """``status`` of a service."""

    loadBalancer: LoadBalancer = msgspec.field(default_factory=LoadBalancer)  # noqa: N815


class ServiceObject(msgspec.Struct, omit_defaults=True):
    """A service."""

    metadata: Meta
    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)
    status: ServiceStatus = msgspec.field(default_factory=ServiceStatus)


class NodeAddress(msgspec.Struct, omit_defaults=True):
    """``status.addresses[]``."""

    type: str = ""
    address: str = ""


class NodeStatus(msgspec.Struct, omit_defaults=True):
    """``status`` of a node."""

    addresses: list[NodeAddress] | None = None


class NodeObject(msgspec.Struct, omit_defaults=True):
    """A node."""

    metadata: Meta
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class TargetRef(msgspec.Struct, omit_defaults=True):
    """``endpoints[].targetRef`` of an EndpointSlice."""

    kind: str = ""
    uid: str = ""


class Endpoint(msgspec.Struct, omit_defaults=True):
    """``endpoints[]`` of an EndpointSlice."""

    addresses: list[str] | None = None
    targetRef: TargetRef | None = None  # noqa: N815


class EndpointPort(msgspec.Struct, omit_defaults=True):
    """``ports[]`` of an EndpointSlice: the endpoints' own ports."""

    port: int | None = None
    protocol: str | None = None


class SliceObject(msgspec.Struct, omit_defaults=True):
    """An EndpointSlice (discovery.k8s.io/v1)."""

    metadata: Meta
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None


class Partial(msgspec.Struct, omit_defaults=True):
    """PartialObjectMetadata: what an owner's owner is told by."""

    metadata: Meta


class ListMeta(msgspec.Struct, omit_defaults=True):
    """``metadata`` of a list; ``cont`` is the API's ``continue``."""

    resourceVersion: str = ""  # noqa: N815
    cont: str = msgspec.field(default="", name="continue")


class ListPage(msgspec.Struct, omit_defaults=True):
    """One page of a list, its items not decoded yet."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


class WatchEvent(msgspec.Struct, omit_defaults=True):
    """One line of a watch, its object not decoded yet."""

    type: str
    object: msgspec.Raw


class Status(msgspec.Struct, omit_defaults=True):
    """Kind Status: why a request failed."""

    code: int = 0
    reason: str = ""
    message: str = ""
