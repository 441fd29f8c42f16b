# SPDX-License-Identifier: Apache-2.0
"""Edge and owners -> label tuple."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from weir.aggregate.snapshot import Labels
from weir.identity import cidrs
from weir.identity.types import Ends, Owner
from weir.kernel import layout
from weir.labels import PAIR_LABELS, label_sources
from weir.metrics import SOURCE_SHAPE, TCP_SHAPE, UDP_SHAPE

_LABEL_SIZE = 200


class Labeller:
    """Label tuples of edges: PAIR_LABELS, then the extra ones."""

    def __init__(self, extra: Iterable[str]) -> None:
        self._extra = label_sources(extra)
        self.names = (*PAIR_LABELS, *self._extra)
        self.truncated = 0

    def labels(self, edge: np.void, ends: Ends) -> Labels:
        local, remote = ends.local, ends.remote
        incoming = int(edge["role"]) == layout.DESTINATION
        source, destination = (remote, local) if incoming else (local, remote)
        port = int(edge["port"])
        pair = (
            "destination" if incoming else "source",
            source.namespace,
            source.workload,
            destination.namespace,
            destination.workload,
            ends.service,
            str(port) if port else "",
            ends.network_name,
            remote.attribution if local.named else "none",
        )
        extra = (self._value(name, edge, ends, source, destination) for name in self._extra)
        return tuple(self._clean(value) for value in (*pair, *extra))

    def shared(self, labels: Labels, workload: str) -> Labels:
        """Labels of the pair that stands for many, of the same reporter."""
        pair = (labels[0], "", workload, "", workload, "", "", "", "none")
        return pair + ("",) * len(self._extra)

    def _value(self, name: str, edge: np.void, ends: Ends, source: Owner, destination: Owner) -> str:
        incoming = int(edge["role"]) == layout.DESTINATION
        if name == "process":
            return (destination if incoming else source).process
        if name.endswith("_address"):
            remote = (name == "source_address") == incoming
            return _address(edge, remote)
        if name.endswith("_pod"):
            return (source if name == "source_pod" else destination).pod
        if name == "interface":
            return ends.interface
        owner = source if name.startswith("source_") else destination
        return dict(owner.labels).get(self._extra[name], "")

    def _clean(self, value: str) -> str:
        if len(value) > _LABEL_SIZE:
            self.truncated += 1
            value = value[:_LABEL_SIZE]
        return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _address(edge: np.void, remote: bool) -> str:
    if not remote:
        return cidrs.text(bytes(edge["laddr"]))
    bits = int(edge["raddr_bits"])
    if bits == 0:
        return "any"
    address = cidrs.text(bytes(edge["raddr"]))
    return address if bits == 128 else f"{address}/{bits - 96 if int(edge['family']) == 4 else bits}"


def shape_of(edge: np.void) -> int:
    """Which series the pair of an edge needs: bits metrics.*_SHAPE."""
    if int(edge["proto"]) == layout.UDP:
        return UDP_SHAPE
    return TCP_SHAPE if int(edge["role"]) == layout.DESTINATION else TCP_SHAPE | SOURCE_SHAPE
