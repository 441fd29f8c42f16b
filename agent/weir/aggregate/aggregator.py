# SPDX-License-Identifier: Apache-2.0
"""Drain + identity -> snapshot; what is summed by labels is in :mod:`weir.aggregate.sums`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from weir.aggregate.compact import compact
from weir.aggregate.labels import Labeller, shape_of
from weir.aggregate.pairs import Budget, grown
from weir.aggregate.requests import Requests
from weir.aggregate.snapshot import U64, AgentValues, Sheet, Snapshot
from weir.aggregate.sums import Described, Sums
from weir.errors import ConfigError
from weir.flows.types import Drain
from weir.identity.types import Ends, Identifies, Observed
from weir.kernel.layout import REQUESTS as REQUEST_ROWS
from weir.kernel.layout import RETIRING
from weir.metrics import DURATIONS, PAIRS, PAIRS_WITHOUT_RTT, REQUESTS, SOURCE_SHAPE, TCP_SHAPE, UDP_SHAPE
from weir.overload import REQUESTS as REQUESTS_PLANE
from weir.overload import RTT as RTT_PLANE

_FULL = TCP_SHAPE | UDP_SHAPE | SOURCE_SHAPE
#: Room kept free for the pairs that must always find a place: other (by reporter) and overflow.
_RESERVE = 3 * sum(matrix.series_of(_FULL) for matrix in (PAIRS, REQUESTS, DURATIONS))
_SERIES, _SERIES_WITHOUT_RTT = (
    np.array([matrix.series_of(shape) for shape in range(_FULL + 1)]) for matrix in (PAIRS, PAIRS_WITHOUT_RTT)
)
_BYTES = [PAIRS.column[f"{proto}_{way}_bytes"] for proto in ("tcp", "udp") for way in ("sent", "received")]


class Aggregator:
    """Sums drains into snapshots; one writer thread."""

    def __init__(
        self,
        identity: Identifies,
        labels: Sequence[str] = (),
        max_series: int = 100_000,
        *,
        routes: Sequence[str] = (),
        since: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take ``labels`` (of labels.EXTRA_LABELS), the budget, the kernel side's patterns of paths.

        ``since`` is when the kernel side began to count (wall clock, s). ConfigError when they cannot be.
        """
        if max_series < 2 * _RESERVE:
            raise ConfigError(f"--max-series {max_series}: at least {2 * _RESERVE} are needed")
        self._identity = identity
        self._labeller = Labeller(labels)
        self._since = since
        self._budget = budget = Budget(max_series - _RESERVE, since)
        self._sums = Sums(PAIRS, self._labeller.names, budget)
        #: Request rows.
        self.requests = Requests(self._labeller, budget, routes)
        self._routes = ("", *routes)
        self._clock = clock
        self._unnamed = np.zeros((1024, 2), np.bool_)
        self._unattributed = [0, 0]
        self._stages: dict[str, tuple[int, float]] = {}
        self._owners: tuple[Ends, ...] = ()

    def update(self, drain: Drain, without: Sequence[str] = ()) -> Snapshot:
        """Take in one drain and return what is to be shown, ``without`` some of overload.PLANES."""
        started = self._clock()
        seen = self._identity.observe(drain)
        observed = self._clock()
        slots = drain.indexes.astype(np.intp)
        self._name(slots, seen)
        rows = compact(drain.slots)
        self._sums.change(slots, seen, lambda slot: self._describe(drain, slots, slot))
        self._count_unattributed(slots, rows)
        sheet = self._sums.show(slots, rows, drain.slots["state"] == RETIRING)
        asked = REQUESTS_PLANE not in without
        requests, durations = (
            self.requests.update(drain, seen, self._identity.at) if asked else self.requests.pass_over()
        )
        self._time("identity", observed - started)
        self._time("aggregate", self._clock() - observed)
        for stage, seconds in drain.seconds.items():
            self._time(stage, seconds)
        self._budget.since = drain.wall
        return Snapshot(
            drain.wall,
            drain.monotonic_ns,
            self._labeller.names,
            sheet.pairs,
            sheet.values,
            sheet.shapes,
            self._agent(drain, slots, self._series(sheet.shapes, requests, durations, without)),
            drain.slots,
            slots,
            self._owners,
            requests=requests,
            durations=durations,
            request_rows=drain.requests if asked else np.empty(0, REQUEST_ROWS),
            without=tuple(without),
            routes=self._routes,
            since=sheet.since,
        )

    def survivor(self, slot: int) -> int | None:
        """As :meth:`Sums.survivor`, of edges."""
        return self._sums.survivor(slot)

    def folded(self, slot: int, into: int | None) -> None:
        """As :meth:`Sums.folded`, of edges."""
        self._sums.folded(slot, into)

    def _time(self, stage: str, seconds: float) -> None:
        times, total = self._stages.get(stage, (0, 0.0))
        self._stages[stage] = times + 1, total + seconds

    def _name(self, slots: NDArray[np.intp], seen: Observed) -> None:
        """Take note of whose ends have a name."""
        if not any(map(len, (seen.new, seen.gone, seen.relabelled))):
            return
        self._owners = tuple(map(self._identity.at, slots.tolist()))
        size = int(slots.max(initial=0)) + 1
        if size > len(self._unnamed):
            self._unnamed = grown(self._unnamed, max(size, 2 * len(self._unnamed)))
        for slot in {*slots[seen.new].tolist(), *seen.relabelled.tolist()}:
            ends = self._identity.at(slot)
            self._unnamed[slot] = [slot != 0 and not end.named for end in (ends.local, ends.remote)]

    def _describe(self, drain: Drain, slots: NDArray[np.intp], slot: int) -> Described:
        edge = drain.slots["key"][np.searchsorted(slots, slot)]
        labels = self._labeller.labels(edge, self._identity.at(slot))
        if slot == 0:
            return Described(self._labeller.shared(labels, "overflow"), _FULL, None)
        return Described(labels, shape_of(edge), self._labeller.shared(labels, "other"))

    def _count_unattributed(self, slots: NDArray[np.intp], rows: U64) -> None:
        more = self._sums.more(slots, rows, _BYTES)
        for end in (0, 1):
            self._unattributed[end] += int(more[self._unnamed[slots, end]].sum())

    def _series(
        self, shapes: NDArray[np.uint8], requests: Sheet, durations: Sheet, without: Sequence[str]
    ) -> int:
        """How many there are on the page."""
        pairs = _SERIES_WITHOUT_RTT if RTT_PLANE in without else _SERIES
        return (
            int(pairs[shapes].sum())
            + len(requests.pairs) * REQUESTS.series_of(TCP_SHAPE)
            + len(durations.pairs) * DURATIONS.series_of(TCP_SHAPE)
        )

    def _agent(self, drain: Drain, slots: NDArray[np.intp], series: int) -> AgentValues:
        values = self._sums.values
        overflow = values[0][_BYTES] if len(slots) and slots[0] == 0 else np.zeros(4, np.uint64)
        return AgentValues(
            events=drain.events,
            maps=drain.maps,
            programs=drain.programs,
            planes=drain.planes,
            stages=dict(self._stages),
            edges=len(slots),
            series=series,
            series_folded=self._sums.series_folded + self.requests.series_folded,
            unattributed_bytes=(self._unattributed[0], self._unattributed[1]),
            overflow_bytes=(int(overflow[0] + overflow[2]), int(overflow[1] + overflow[3])),
            labels_truncated=self._labeller.truncated,
            evictions=dict(self._identity.evictions()),
            since=self._since,
        )
