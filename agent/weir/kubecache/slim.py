# SPDX-License-Identifier: Apache-2.0
"""What agents need of an API object, as JSON of the same form: a tenth of a pod and less."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from weir.identity.kube.networks import ANNOTATIONS
from weir.identity.kube.objects import (
    Meta,
    NodeObject,
    Partial,
    PodObject,
    ServiceObject,
    SliceObject,
)
from weir.identity.kube.pods import CONFIG_HASH, SANDBOX_READY, SERVICE_NAME, TEMPLATE_HASH, WANTED
from weir.identity.kube.ports import OPAQUE_PORTS, SKIP_PORTS

_ANNOTATIONS = {*ANNOTATIONS, CONFIG_HASH, WANTED, OPAQUE_PORTS, SKIP_PORTS}
_MAX_ANNOTATION = 65536
#: What every slim object's JSON begins with; its resource version goes in after it.
PREFIX = b'{"metadata":{'

Slim = Callable[[Any], bytes]


def _kept(texts: dict[str, str] | None, names: Collection[str]) -> dict[str, str] | None:
    kept = {
        name: text for name, text in (texts or {}).items() if name in names and len(text) <= _MAX_ANNOTATION
    }
    return kept or None


def _meta(meta: Meta, labels: Collection[str] = (), annotations: Collection[str] = ()) -> None:
    meta.resourceVersion = ""
    meta.labels = _kept(meta.labels, labels)
    meta.annotations = _kept(meta.annotations, annotations)
    owner = meta.controller
    meta.ownerReferences = [owner] if owner else None


def pods(labels: Collection[str]) -> Slim:
    """Pods, with these labels besides those that tell their workload."""
    wanted = {TEMPLATE_HASH, *labels}

    def slim(item: PodObject) -> bytes:
        _meta(item.metadata, wanted, _ANNOTATIONS)
        status = item.status
        status.conditions = [c for c in status.conditions or () if c.type == SANDBOX_READY] or None
        if status.conditions:
            status.startTime = None if status.conditions[0].status == "True" else status.startTime
        if status.podIPs and len(status.podIPs) == 1:
            status.podIP, status.podIPs = status.podIPs[0].ip, None
        return msgspec.json.encode(item)

    return slim


def plain(item: ServiceObject | NodeObject | Partial) -> bytes:
    """Services, nodes and Jobs: no labels, no annotations."""
    _meta(item.metadata)
    return msgspec.json.encode(item)


def slices(item: SliceObject) -> bytes:
    """EndpointSlices: their service, the uids of their pods, addresses of what is none."""
    _meta(item.metadata, (SERVICE_NAME,))
    for endpoint in item.endpoints or ():
        if endpoint.targetRef is not None:
            endpoint.addresses = None
    return msgspec.json.encode(item)


def versioned(blob: bytes, version: int) -> bytes:
    """A slim object with the version of the event that tells of it."""
    return b'%s"resourceVersion":"%d",%s' % (PREFIX, version, blob[len(PREFIX) :])
