# SPDX-License-Identifier: Apache-2.0
"""Request rows -> requests by protocol, method and status, and their durations, for every pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from weir.aggregate.labels import Labeller
from weir.aggregate.pairs import Budget
from weir.aggregate.snapshot import U64, Sheet, nothing
from weir.aggregate.sums import Described, Sums
from weir.flows.protocols import words
from weir.flows.tracker import Tracker
from weir.flows.types import Drain
from weir.identity.types import Ends, Observed
from weir.kernel import layout
from weir.kernel.layout import RETIRING
from weir.labels import DURATION_LABELS, REQUEST_LABELS, ROUTE_LABEL
from weir.metrics import DURATIONS, REQUESTS, TCP_SHAPE


class Requests:
    """Two sums over the same rows, by labels with the status and without it."""

    def __init__(self, labeller: Labeller, budget: Budget, routes: Sequence[str] = ()) -> None:
        """Take the patterns of paths that rows are told apart by; without any there is no label for them."""
        self._labeller = labeller
        self._routes = ("", *routes) if routes else ()
        self._tracker = Tracker()
        self._rows: dict[int, set[int]] = {}  # slot -> its rows
        self._slot: dict[int, int] = {}
        self._late = False  # a drain was passed over: names may have changed since
        names, route = labeller.names, (ROUTE_LABEL,) if routes else ()
        self._counts = Sums(REQUESTS, (*names, *REQUEST_LABELS, *route), budget)
        self._durations = Sums(DURATIONS, (*names, *DURATION_LABELS, *route), budget)

    @property
    def series_folded(self) -> int:
        """Series that the budget had no room for."""
        return self._counts.series_folded + self._durations.series_folded

    def update(self, drain: Drain, seen: Observed, ends: Callable[[int], Ends]) -> tuple[Sheet, Sheet]:
        """Take in one drain; requests and durations. ``seen`` is what happened to the edges."""
        rows = drain.request_indexes.astype(np.intp)
        late, self._late = self._late, False
        new, gone = self._tracker.diff(drain.request_indexes, drain.requests["generation"])
        for row in gone.tolist():
            slot = self._slot.pop(row)
            self._rows[slot].discard(row)
            if not self._rows[slot]:
                del self._rows[slot]
        for at in new.tolist():
            row, slot = int(rows[at]), int(drain.requests["key"]["slot"][at])
            self._slot[row] = slot
            self._rows.setdefault(slot, set()).add(row)
        fresh = set(rows[new].tolist())
        renamed = self._rows if late else seen.relabelled.tolist()
        relabelled = {r for slot in renamed for r in self._rows.get(slot, ())} - fresh
        mine = Observed(new, gone, np.array(sorted(relabelled), np.intp))
        where = {int(slot): at for at, slot in enumerate(drain.indexes)} if len(new) or relabelled else {}

        def describe(row: int, status: bool) -> Described:
            return self._describe(drain, int(np.searchsorted(rows, row)), where, ends, status)

        counts, durations = matrices(drain.requests)
        retiring = drain.requests["state"] == RETIRING
        self._counts.change(rows, mine, lambda row: describe(row, True))
        self._durations.change(rows, mine, lambda row: describe(row, False))
        return self._counts.show(rows, counts, retiring), self._durations.show(rows, durations, retiring)

    def pass_over(self) -> tuple[Sheet, Sheet]:
        """Nothing is shown of one drain; what its rows counted comes with the next one that is taken in."""
        self._late = True
        return nothing(REQUESTS), nothing(DURATIONS)

    def survivor(self, row: int) -> int | None:
        """As :meth:`Sums.survivor`."""
        return self._counts.survivor(row)

    def folded(self, row: int, into: int | None) -> None:
        """As :meth:`Sums.folded`."""
        self._counts.folded(row, into)
        self._durations.folded(row, into)

    def _describe(
        self, drain: Drain, at: int, where: dict[int, int], ends: Callable[[int], Ends], status: bool
    ) -> Described:
        key = drain.requests["key"][at]
        slot = int(key["slot"])
        edge = drain.slots["key"][where[slot]] if slot in where else np.zeros(1, layout.EDGE)[0]
        protocol, method, text, outcome = words(*(int(key[n]) for n in ("protocol", "method", "status")))
        route = (self._routes[int(key["route"])],) if self._routes else ()
        own = (protocol, method, text, outcome, *route) if status else (protocol, method, outcome, *route)
        nothing = ("",) * (len(own) - 1 - len(route)) + ("unknown",) + ("",) * len(route)
        if drain.request_indexes[at] == 0 or slot not in where:
            pair = self._labeller.labels(edge, ends(0))
            return Described((*self._labeller.shared(pair, "overflow"), *nothing), TCP_SHAPE, None)
        pair = self._labeller.labels(edge, ends(slot))
        return Described((*pair, *own), TCP_SHAPE, (*self._labeller.shared(pair, "other"), *nothing))


def matrices(rows: layout.Array) -> tuple[U64, U64]:
    """Counters of REQUESTS rows (n,): requests (n, 1), and durations (n, 1 + layout.DURATIONS)."""
    counts = np.zeros((len(rows), REQUESTS.width), np.uint64)
    durations = np.zeros((len(rows), DURATIONS.width), np.uint64)
    counts[:, 0] = rows["untimed"] + rows["duration"].sum(axis=1)
    durations[:, 0] = rows["sum_ns"]
    durations[:, 1:] = rows["duration"]
    return counts, durations
