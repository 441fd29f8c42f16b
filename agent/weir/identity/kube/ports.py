# SPDX-License-Identifier: Apache-2.0
"""Ports of pods whose requests are not to be parsed, or not to be counted, by the pods' annotations.

``weir/opaque-ports: "5432,6379"`` has connections to these ports counted by their turns, ``weir/skip-ports``
not at all: what ``--opaque-port`` and ``--skip-port`` do for all of a host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weir.identity.kube.pods import Pod

OPAQUE_PORTS, SKIP_PORTS = "weir/opaque-ports", "weir/skip-ports"
#: As in ``bpf/requests.h``.
OPAQUE, SKIP = 1, 2
_MOST = 64

#: (address of 16 bytes, port) → OPAQUE or SKIP
Marks = dict[tuple[bytes, int], int]


def ports_of(annotations: Mapping[str, str] | None) -> tuple[tuple[tuple[int, int], ...], bool]:
    """(port, kind) of a pod's annotations, and whether a part of them is no port (or one too many)."""
    found: dict[int, int] = {}
    bad = False
    for name, kind in ((OPAQUE_PORTS, OPAQUE), (SKIP_PORTS, SKIP)):
        text = (annotations or {}).get(name, "")
        for part in text.split(",", _MOST) if text else ():
            number = part.strip()
            if (
                number.isascii()
                and number.isdecimal()
                and len(number) <= 5
                and 0 < int(number) < 65536
                and len(found) < _MOST
            ):
                found[int(number)] = kind
            else:
                bad = True
    return tuple(found.items()), bad


class MarkedPorts:
    """Those of all pods that have any; not for several threads."""

    def __init__(self) -> None:
        self._pods: dict[str, Pod] = {}

    def put(self, pod: Pod) -> None:
        """A pod as it is now."""
        if pod.ports and pod.running:
            self._pods[pod.uid] = pod
        else:
            self._pods.pop(pod.uid, None)

    def drop(self, uid: str) -> None:
        """A pod is gone."""
        self._pods.pop(uid, None)

    def marks(self) -> Marks:
        """By what their connections are known. Of a pod in its host's network nothing is."""
        return {
            (address, port): kind
            for pod in self._pods.values()
            for _, address in pod.addresses
            for port, kind in pod.ports
        }
