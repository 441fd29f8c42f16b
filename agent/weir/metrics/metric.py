# SPDX-License-Identifier: Apache-2.0
"""What a row of the table is, and a matrix of counters that metrics are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "summary"]

#: Finite bucket bounds (``le``) of the histograms in microseconds: each is a bound of the kernel's buckets.
BOUNDS_US = tuple(1 << power for power in (*range(6, 21), 22, 24))
BUCKETS = len(BOUNDS_US) + 1


@dataclass(frozen=True)
class Metric:
    """One metric. ``name`` is what Prometheus shows; ``labels`` are those it has besides a pair's.

    Of pairs: ``columns`` has the matrix column of each series (``values`` their label values, if
    any; a histogram's column is its sum) and ``shape`` the pairs that have it. Of a histogram,
    ``buckets`` are its columns, which ``starts`` puts together (if it is given), ``bounds`` its finite
    bounds (``le``, seconds) and ``per_second`` the unit of its sum; ``native``: its columns are buckets of
    a native histogram.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    shape: int = 0
    buckets: slice | None = None
    bounds: tuple[float, ...] = tuple(bound / 1e6 for bound in BOUNDS_US)
    starts: tuple[int, ...] = ()
    per_second: float = 1e6
    native: bool = False
    default: bool = True

    @property
    def unit(self) -> str:
        """Base unit, from the name; "" for plain counts."""
        stem = self.name.removesuffix("_total")
        return next((unit for unit in ("bytes", "seconds") if stem.endswith(f"_{unit}")), "")

    @property
    def series(self) -> int:
        """Series of one pair."""
        return len(self.bounds) + 3 if self.kind == "histogram" else len(self.columns)


@dataclass(frozen=True)
class Matrix:
    """A matrix of counters that is summed by labels: its columns, and what is made of them.

    ``gauges`` are column numbers; ``labels`` those it has besides a pair's.
    """

    column: Mapping[str, int]
    width: int
    metrics: tuple[Metric, ...]
    labels: tuple[str, ...] = ()
    gauges: list[int] = field(default_factory=list)

    def series_of(self, shape: int) -> int:
        """Series that a pair of this shape has."""
        return sum(metric.series for metric in self.metrics if metric.shape & shape)
