# SPDX-License-Identifier: Apache-2.0
"""The watches that fill the index, and how they fare."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from weir.identity.cluster import ClusterState
from weir.identity.kube.api import Api
from weir.identity.kube.index import ClusterIndex
from weir.identity.kube.objects import NodeObject, Partial, PodObject, ServiceObject, SliceObject
from weir.identity.kube.pods import node_of, pod_of, service_of, slice_of
from weir.identity.kube.ports import ports_of
from weir.identity.kube.reflector import Reflector, Resource

#: Lists of all pods a second, by all agents together, where there are more nodes than a few.
_LISTS, _FEW, _LONGEST_SPREAD = 100.0, 100, 60.0
#: Seconds that this waits for the nodes to be counted.
_FOR_NODES = 5.0


def _stay(_: object) -> None:
    """What is no more is remembered."""


class ClusterWatch:
    """Threads that keep a :class:`ClusterIndex` up to date; the pods of this ``node`` come first."""

    def __init__(
        self,
        api: Api,
        index: ClusterIndex,
        node: str = "",
        labels: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._clock = clock
        self._labels = frozenset(labels)
        self._bad_networks = self._bad_ports = 0
        self._reflectors: list[Reflector[Any]] = [
            Reflector(api, resource) for resource in self._resources(node)
        ]

    def _resources(self, node: str) -> list[Resource[Any]]:
        index = self._index
        first = f"spec.nodeName={node}" if node else ""
        return [
            Resource("pods", "/api/v1/pods", PodObject, self._put_pod, index.delete_pod,
                     index.known_pods, first=first, spread=self._spread),
            Resource("services", "/api/v1/services", ServiceObject,
                     lambda o: index.put_service(service_of(o)), index.delete_service, index.known_services),
            Resource("endpointslices", "/apis/discovery.k8s.io/v1/endpointslices", SliceObject,
                     lambda o: index.put_slice(slice_of(o)), index.delete_slice, index.known_slices),
            Resource("nodes", "/api/v1/nodes", NodeObject, lambda o: index.put_node(node_of(o)),
                     index.delete_node, index.known_nodes),
            Resource("jobs", "/apis/batch/v1/jobs", Partial, self._put_job, _stay, set, metadata_only=True),
        ]  # fmt: skip

    def _spread(self) -> float:
        """Seconds over which the agents of all nodes list all pods, where they are started together."""
        next(r for r in self._reflectors if r.resource == "nodes").synced.wait(_FOR_NODES)
        nodes = self._index.sizes()["nodes"]
        return min(nodes / _LISTS, _LONGEST_SPREAD) if nodes > _FEW else 0.0

    def _put_pod(self, item: PodObject) -> None:
        pod, bad = pod_of(item, self._labels)
        self._bad_networks += bad
        self._bad_ports += ports_of(item.metadata.annotations)[1]
        self._index.put_pod(pod)

    def _put_job(self, item: Partial) -> None:
        owner = item.metadata.controller
        cron = owner.name if owner and owner.kind == "CronJob" else ""
        self._index.put_job(item.metadata.namespace, item.metadata.name, cron)

    def start(self) -> None:
        """Begin to watch."""
        for reflector in self._reflectors:
            reflector.start()

    def wait(self, seconds: float) -> bool:
        """Wait for the pods of this node, at most so long; whether they are there."""
        return self._reflectors[0].near.wait(seconds)

    def stop(self) -> None:
        """End; the threads are daemons and go with the process at the latest."""
        for reflector in self._reflectors:
            reflector.stop()

    def state(self) -> ClusterState:
        """How the watches fare now."""
        now = self._clock()
        events = Counter[tuple[str, str]]()
        for reflector in self._reflectors:
            for event, times in list(reflector.counts.items()):
                events[reflector.resource, event] = times
        events["pods", "bad_network_status"] = self._bad_networks
        events["pods", "bad_ports"] = self._bad_ports
        events["pods", "dropped"] = self._index.dropped
        ages = {reflector.resource: now - reflector.heard for reflector in self._reflectors}
        return ClusterState(ages, events, self._index.sizes())
