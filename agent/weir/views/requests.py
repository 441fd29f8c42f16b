# SPDX-License-Identifier: Apache-2.0
"""Rows of requests for views and the JSON API: one for each pair, protocol, method and status."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from weir.aggregate import Snapshot
from weir.flows.protocols import words
from weir.kernel.layout import Array, duration_bounds
from weir.views import columns
from weir.views.schema import from_plain

_BOUNDS = [f"{bound:.6g}" for bound in duration_bounds().tolist()]


@dataclass(frozen=True)
class RequestRow:
    """One result of a pair's requests. Keys are only added; every key is there in every row.

    ==================== ====== ======================================================================
    key                  unit   meaning
    ==================== ====== ======================================================================
    id                          opaque, the same as long as the row lives
    edge                        id of the pair (``views.rows.EdgeRow``)
    protocol                    tcp: a turn of a protocol that Weir does not parse; else its name
    method, status              as on /metrics
    route                       the pattern that the path fits (--route), "" for none
    outcome                     success, failure, unknown
    requests                    since Weir looks
    duration_sum_seconds s      of those that were answered
    durations                   requests by the upper bound of their bucket, in seconds as text
    ==================== ====== ======================================================================
    """

    id: str
    edge: str
    protocol: str
    method: str
    status: str
    route: str
    outcome: str
    requests: int
    duration_sum_seconds: float
    durations: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, keys in the order above."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, value: object) -> RequestRow:
        """The row again; ValueError says what is wrong."""
        return cls(**from_plain(cls, value))


def request_rows(snapshot: Snapshot) -> list[RequestRow]:
    """One row for each request row of the snapshot whose edge is in it."""
    edges, found = snapshot.edges, []
    ids = columns.opaque_ids([edges["key"], edges["born_ns"]]) if len(edges) else []
    where = dict(zip(snapshot.slots.tolist(), ids, strict=True))
    for row in snapshot.request_rows:
        key = row["key"]
        edge = where.get(int(key["slot"]))
        if edge is None:
            continue
        protocol, method, status, outcome = words(
            *(int(key[name]) for name in ("protocol", "method", "status"))
        )
        route, durations = snapshot.routes[int(key["route"])], durations_of(row["duration"])
        found.append(
            RequestRow(
                f"{edge}/{protocol}/{method}/{status}{route}", edge, protocol, method, status, route, outcome,
                int(row["untimed"]) + sum(durations.values()),
                int(row["sum_ns"]) / 1e9, durations,
            )
        )  # fmt: skip
    return found


def durations_of(buckets: Array) -> dict[str, int]:
    """Counts of the buckets that have any, by their upper bounds."""
    return {_BOUNDS[at]: int(buckets[at]) for at in np.flatnonzero(buckets).tolist()}


def percentile(durations: dict[str, int], q: float) -> float | None:
    """Seconds below which the share ``q`` of them is, within 2.2 %; None where there are none.

    The middle of the bucket that it falls into (geometric: buckets are a sixteenth of an octave wide).
    """
    left = q * sum(durations.values())
    if not left:
        return None
    for bound, count in sorted((float(bound), count) for bound, count in durations.items()):
        left -= count
        if left <= 0:
            return bound / 2 ** (1 / 32) if np.isfinite(bound) else float(duration_bounds()[-2])
    return None
