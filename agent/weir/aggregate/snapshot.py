# SPDX-License-Identifier: Apache-2.0
"""The frozen state that exports and views read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from weir.flows.types import MapFill, ProgramStats
from weir.identity.cluster import ClusterState
from weir.identity.sriov import VirtualFunction
from weir.identity.types import Ends
from weir.kernel.layout import LOSSES, Array
from weir.kernel.layout import REQUESTS as REQUEST_ROWS
from weir.metrics import DURATIONS, PAIRS, PAIRS_WITHOUT_RTT, REQUESTS, Matrix
from weir.overload import RTT

U64 = NDArray[np.uint64]
Labels = tuple[str, ...]


@dataclass(frozen=True)
class AgentValues:
    """What the agent knows of itself: values of the ``weir_agent_*`` metrics."""

    events: Mapping[str, int] = field(default_factory=dict)
    maps: tuple[MapFill, ...] = ()
    programs: tuple[ProgramStats, ...] = ()
    planes: Mapping[str, str] = field(default_factory=dict)
    #: stage -> (times it ran, seconds in all)
    stages: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    edges: int = 0
    series: int = 0
    series_folded: int = 0
    unattributed_bytes: tuple[int, int] = (0, 0)  # local, remote
    overflow_bytes: tuple[int, int] = (0, 0)  # sent, received
    labels_truncated: int = 0
    vfs_dropped: int = 0
    #: files with TLS probes by library, and those that could not be probed
    tls_files: Mapping[str, int] = field(default_factory=dict)
    tls_files_refused: int = 0
    cluster: ClusterState = field(default_factory=ClusterState)
    evictions: Mapping[str, int] = field(default_factory=dict)
    #: plane -> whether the agent does without it now, and for how many seconds it did in all
    shed: Mapping[str, tuple[bool, float]] = field(default_factory=dict)
    #: When the kernel side began to count, seconds since 1970; 0 where that is not known.
    since: float = 0.0


@dataclass(frozen=True, eq=False)
class Sheet:
    """Series of one matrix: label names, labels of each pair, counters (pairs, width), shapes (pairs,).

    ``since`` (pairs,): when the counters were 0, seconds since 1970; 0 where that is not known.
    """

    names: Labels
    pairs: tuple[Labels, ...]
    values: U64
    shapes: NDArray[np.uint8]
    since: Array


def nothing(matrix: Matrix, names: Labels = ()) -> Sheet:
    """A sheet without pairs."""
    return Sheet(names, (), np.zeros((0, matrix.width), np.uint64), np.zeros(0, np.uint8), np.zeros(0))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One frozen state of everything that is shown; arrays are never written again.

    ``values`` has shape (pairs, metrics.COLUMNS), u64, histograms not cumulative; ``shapes`` (pairs,)
    are the bits ``metrics.*_SHAPE``. ``edges`` (dtype SLOT), ``slots`` (slot numbers) and ``owners``
    (local, remote) have one row an edge, as in the drain.
    """

    wall: float
    monotonic_ns: int
    label_names: Labels
    pairs: tuple[Labels, ...]
    values: U64
    shapes: NDArray[np.uint8]
    agent: AgentValues
    edges: Array
    slots: NDArray[np.intp]
    owners: tuple[Ends, ...]
    vfs: tuple[VirtualFunction, ...] = ()
    #: Requests by protocol, method and status, and how long they took: as ``values``, of other matrices.
    requests: Sheet = field(default_factory=lambda: nothing(REQUESTS))
    durations: Sheet = field(default_factory=lambda: nothing(DURATIONS))

    #: Request rows as drained (dtype layout.REQUESTS).
    request_rows: Array = field(default_factory=lambda: np.empty(0, REQUEST_ROWS))
    #: As :attr:`Sheet.since`, of ``pairs``.
    since: Array = field(default_factory=lambda: np.zeros(0))
    #: Patterns by the number that request rows have for them; "" for none.
    routes: tuple[str, ...] = ("",)
    #: What the agent does without just now, of overload.PLANES.
    without: tuple[str, ...] = ()

    def sheets(self) -> tuple[tuple[Matrix, Sheet], ...]:
        """Everything that is published of pairs."""
        pairs = Sheet(self.label_names, self.pairs, self.values, self.shapes, self.since)
        shown = PAIRS_WITHOUT_RTT if RTT in self.without else PAIRS
        return (shown, pairs), (REQUESTS, self.requests), (DURATIONS, self.durations)

    def losses(self) -> dict[str, int]:
        """Kernel events by which something is missing from the figures, those that happened."""
        return {name: n for name, n in self.agent.events.items() if n and name in LOSSES}

    def column(self, name: str) -> U64:
        """One column of ``values`` by its name in metrics.COLUMN, shape (pairs,)."""
        return self.values[:, PAIRS.column[name]]
