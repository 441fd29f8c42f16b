# SPDX-License-Identifier: Apache-2.0
"""Text exposition of all pairs from label strings that are kept between scrapes.

The same bytes as the library's ``generate_latest`` of ``PairCollector``, at a small part of its
time. Format: https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import accumulate

import numpy as np
from prometheus_client.utils import floatToGoString

from weir.aggregate import Snapshot
from weir.aggregate.snapshot import Labels, Sheet
from weir.kernel.layout import Array
from weir.metrics import MATRICES, Matrix, Metric

#: Pairs in one piece of the page: bounds the memory of a scrape.
_PIECE = 500
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})

_log = logging.getLogger(__name__)


def decimal(value: float) -> str:
    """Write a number as the library does."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def number(value: int) -> str:
    """Write a count as the library does."""
    return f"{value}.0" if value < 1_000_000 else decimal(value)


def les(metric: Metric) -> tuple[str, ...]:
    """``le`` of a histogram's buckets, the last one +Inf."""
    return (*map(decimal, metric.bounds), "+Inf")


def published(metric: Metric, values: Array) -> Array:
    """A histogram's buckets (pairs, bounds + 1), not cumulative."""
    buckets: Array = values[:, metric.buckets]
    return np.add.reduceat(buckets, metric.starts, axis=1) if metric.starts else buckets


class PairLabels:
    """Label strings of pairs, in order of label names, ready to take in one more label."""

    def __init__(self, names: Labels, pairs: tuple[Labels, ...], known: PairLabels | None = None) -> None:
        self.names = names
        self.pairs = pairs
        self._order = sorted(range(len(names)), key=names.__getitem__)
        old: dict[Labels, list[str]] = known._parts if known is not None and known.names == names else {}
        self._parts: dict[Labels, list[str]] = {pair: old.get(pair) or self._escape(pair) for pair in pairs}

    def _escape(self, pair: Labels) -> list[str]:
        return [f'{self.names[at]}="{pair[at].translate(_ESCAPES)}"' for at in self._order]

    def around(self, rows: list[int], label: str) -> list[tuple[str, str]]:
        """For each pair: what comes before and after the label of this name."""
        at = sum(name < label for name in self.names)
        parts = [self._parts[self.pairs[row]] for row in rows]
        return [("".join(f"{p}," for p in part[:at]), "".join(f",{p}" for p in part[at:])) for part in parts]

    def plain(self, rows: list[int]) -> list[str]:
        """For each pair: all of its labels."""
        return [",".join(self._parts[self.pairs[row]]) for row in rows]


class TextRenderer:
    """Writes pages; ``failed`` is told the stage when a family cannot be written."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self._failed = failed
        self._labels = [PairLabels((), ()) for _ in MATRICES]

    def pieces(self, snapshot: Snapshot) -> Iterator[bytes]:
        """Yield the page; a family that fails ends there, and the others are written."""
        for at, (matrix, sheet) in enumerate(snapshot.sheets()):
            labels = self._labels[at]
            if labels.pairs is not sheet.pairs or labels.names != sheet.names:
                labels = self._labels[at] = PairLabels(sheet.names, sheet.pairs, labels)
            for metric in matrix.metrics:
                if not metric.default:
                    continue
                try:
                    yield from _family(metric, matrix, sheet, labels)
                except Exception:  # noqa: BLE001 a page with a gap is worth more than none
                    _log.exception("%s could not be written", metric.name)
                    self._failed("export")


def _family(metric: Metric, matrix: Matrix, sheet: Sheet, labels: PairLabels) -> Iterator[bytes]:
    escaped = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {metric.name} {escaped}\n# TYPE {metric.name} {metric.kind}\n".encode()
    rows = np.flatnonzero(sheet.shapes & metric.shape)
    columns = [matrix.column[name] for name in metric.columns]
    write = _histogram if metric.buckets is not None else _labelled if metric.values else _plain
    for start in range(0, len(rows), _PIECE):
        part = rows[start : start + _PIECE]
        yield "".join(write(metric, columns, sheet.values[part], labels, part.tolist())).encode()


def _plain(
    metric: Metric, columns: list[int], values: Array, labels: PairLabels, rows: list[int]
) -> Iterator[str]:
    column = values[:, columns[0]].tolist()
    for text, value in zip(labels.plain(rows), column, strict=True):
        yield f"{metric.name}{{{text}}} {number(value)}\n"


def _labelled(
    metric: Metric, columns: list[int], values: Array, labels: PairLabels, rows: list[int]
) -> Iterator[str]:
    (label,) = metric.labels
    own = [f'{label}="{value}"' for value in metric.values]
    matrix = values[:, columns].tolist()
    for (before, after), counts in zip(labels.around(rows, label), matrix, strict=True):
        for text, value in zip(own, counts, strict=True):
            yield f"{metric.name}{{{before}{text}{after}}} {number(value)}\n"


def _histogram(
    metric: Metric, columns: list[int], values: Array, labels: PairLabels, rows: list[int]
) -> Iterator[str]:
    name = metric.name
    sums = (values[:, columns[0]] / metric.per_second).tolist()
    matrix = published(metric, values).tolist()
    own = [f'le="{le}"' for le in les(metric)]
    texts = zip(labels.around(rows, "le"), labels.plain(rows), strict=True)
    for ((before, after), text), counts, total in zip(texts, matrix, sums, strict=True):
        head = f"{name}_bucket{{{before}"
        for le, value in zip(own, accumulate(counts), strict=True):
            yield f"{head}{le}{after}}} {number(value)}\n"
        yield f"{name}_count{{{text}}} {number(sum(counts))}\n"
        yield f"{name}_sum{{{text}}} {decimal(total)}\n"
