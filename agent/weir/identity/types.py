# SPDX-License-Identifier: Apache-2.0
"""What identity hands on: owners, and what changed since the last drain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from weir.flows.types import Drain


@dataclass(frozen=True)
class Owner:
    """One end of an edge.

    ``kind`` is container, unit, process, cidr, service, node, external, overflow, none or, of a pod, what
    made it (deployment, statefulset, …, pod); ``attribution`` says how the name was found: cgroup (cgroup ->
    container, pod or unit), process (tgid or the kernel's comm), netns, address, node, or none where it was
    not. ``uid`` is the pod's; ``pod`` its name, else its uid; ``labels`` those of its labels that are wanted.
    """

    workload: str
    kind: str
    namespace: str = ""
    container_id: str = ""
    runtime: str = ""
    unit: str = ""
    process: str = ""
    pod: str = ""
    attribution: str = "none"
    uid: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def named(self) -> bool:
        """Whether anything is known about this end; bytes of unnamed ends are counted."""
        return self.attribution != "none"


UNKNOWN = Owner("unknown", "none")
EXTERNAL = Owner("external", "external")
NODE = Owner("node", "node", attribution="node")
#: Several workloads of this host share the remote end's addresses: any of them may be it.
LOCAL = Owner("local", "node", attribution="node")
OVERFLOW = Owner("overflow", "overflow")


class Ends(NamedTuple):
    """Who is at both ends of an edge, and where. ``service`` is what was dialled; "" where there is none."""

    local: Owner
    remote: Owner
    service: str = ""
    network_name: str = ""
    interface: str = ""


@dataclass(frozen=True)
class Observed:
    """What one drain changed.

    ``new``: row numbers (of ``drain.slots``) of edges not seen before. ``gone``: slot numbers whose
    edge is no longer there; a slot that was taken back and used again is in both. ``relabelled``:
    slot numbers of older edges one of whose ends has another owner from now on.
    """

    new: NDArray[np.intp]
    gone: NDArray[np.intp]
    relabelled: NDArray[np.intp]


class Identifies(Protocol):
    """What aggregation needs of identity."""

    def observe(self, drain: Drain) -> Observed:
        """Take in one drain; once per drain, before :meth:`at`."""

    def at(self, slot: int) -> Ends:
        """Owners (local, remote) of the edge in a slot of the last drain."""

    def evictions(self) -> Mapping[str, int]:
        """Entries that bounded caches pushed out, by cache; each only grows."""
