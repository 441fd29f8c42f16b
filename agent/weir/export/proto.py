# SPDX-License-Identifier: Apache-2.0
"""Protobuf exposition, the one that carries native histograms.

Messages and field numbers are those of io/prometheus/client/metrics.proto of prometheus/client_model, each
MetricFamily with its length before it
(https://prometheus.io/docs/instrumenting/exposition_formats/#protobuf-format).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np
from prometheus_client.core import Metric as Family

from weir.aggregate import Snapshot
from weir.aggregate.snapshot import Sheet
from weir.export.text import published
from weir.kernel.layout import Array
from weir.metrics import Matrix, Metric

CONTENT_TYPE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
_TYPES = {"counter": 0, "gauge": 1, "summary": 2, "unknown": 3, "histogram": 4}
#: Of native histograms: 2**SCHEMA buckets an octave; bucket i ends at 2**(i / 2**SCHEMA) seconds.
_SCHEMA, _AN_OCTAVE = 4, 16
#: Number of the kernel's first bucket there: it ends at 2**(1/16 - 20) s (layout.duration_bounds).
_FIRST = 1 - 20 * _AN_OCTAVE
#: What is not above this counts in the zero bucket, which stays empty: there are no shorter times.
_ZERO_THRESHOLD = 2.0**-30
#: Empty buckets that are cheaper written than left out.
_GAP = 2


def wanted(accept: str) -> bool:
    """Whether a scraper asks for this format (Prometheus does where native histograms are on)."""
    for part in accept.split(","):
        kind, *parameters = (p.strip() for p in part.split(";"))
        if kind == "application/vnd.google.protobuf":
            given = dict(p.partition("=")[::2] for p in parameters)
            if given.get("proto") == "io.prometheus.client.MetricFamily":
                return given.get("q") != "0" and given.get("encoding", "delimited") == "delimited"
    return False


def pieces(snapshot: Snapshot) -> Iterator[bytes]:
    """Families of all pairs."""
    for matrix, sheet in snapshot.sheets():
        labels = [b"".join(map(_label, sheet.names, pair)) for pair in sheet.pairs]
        for metric in matrix.metrics:
            if metric.default:
                yield _delimited(_head(metric) + b"".join(_samples(metric, matrix, sheet, labels)))


def families(found: Iterable[Family]) -> Iterator[bytes]:
    """Families of the library: counters, gauges and summaries."""
    for family in found:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        body = _text(1, name) + _text(2, family.documentation) + _number(3, _TYPES.get(family.type, 3))
        yield _delimited(body + b"".join(_plain(family)))


def _plain(family: Family) -> Iterator[bytes]:
    summaries: dict[bytes, dict[str, float]] = {}
    for sample in family.samples:
        labels = b"".join(_label(name, value) for name, value in sample.labels.items())
        if family.type == "summary":
            summaries.setdefault(labels, {})[sample.name.rpartition("_")[2]] = sample.value
        elif not sample.name.endswith("_created"):
            field = {"counter": 3, "gauge": 2}.get(family.type, 5)
            yield _message(4, labels + _message(field, _double(1, sample.value)))
    for labels, of in summaries.items():
        summary = _number(1, int(of["count"])) + _double(2, of["sum"])
        yield _message(4, labels + _message(4, summary))


def _head(metric: Metric) -> bytes:
    return _text(1, metric.name) + _text(2, metric.help) + _number(3, _TYPES[metric.kind])


def _samples(metric: Metric, matrix: Matrix, sheet: Sheet, labels: list[bytes]) -> Iterator[bytes]:
    rows = np.flatnonzero(sheet.shapes & metric.shape)
    since = sheet.since[rows].tolist() if metric.kind != "gauge" else [0.0] * len(rows)
    columns = [sheet.values[rows, matrix.column[name]].tolist() for name in metric.columns]
    if metric.buckets is not None:
        native = sheet.values[rows, metric.buckets] if metric.native else None
        classic = np.cumsum(published(metric, sheet.values[rows]), axis=1).tolist()
        for at, row in enumerate(rows.tolist()):
            total = columns[0][at] / metric.per_second
            body = _histogram(metric, classic[at], total) + _created(15, since[at])
            body += _native(native[at]) if native is not None else b""
            yield _message(4, labels[row] + _message(7, body))
        return
    field = 3 if metric.kind == "counter" else 2
    own = [_label(metric.labels[0], value) for value in metric.values] or [b""]
    for at, row in enumerate(rows.tolist()):
        created = _created(3, since[at])
        for label, column in zip(own, columns, strict=True):
            yield _message(4, labels[row] + label + _message(field, _double(1, column[at]) + created))


def _created(field: int, since: float) -> bytes:
    """A google.protobuf.Timestamp, of which a scraper makes the zero before the first sample."""
    if not since:
        return b""
    seconds, rest = divmod(since, 1)
    return _message(field, _number(1, int(seconds)) + _number(2, int(rest * 1e9)))


def _histogram(metric: Metric, cumulative: list[int], total: float) -> bytes:
    bounds = (*metric.bounds, float("inf"))
    buckets = (
        _message(3, _number(1, count) + _double(2, bound))
        for count, bound in zip(cumulative, bounds, strict=True)
    )
    return _number(1, cumulative[-1]) + _double(2, total) + b"".join(buckets)


def _native(buckets: Array) -> bytes:
    """Spans and deltas of the kernel's buckets (layout.DURATIONS,); the last, open one counts as closed."""
    counts = buckets.tolist()
    out = [_signed(5, _SCHEMA), _double(6, _ZERO_THRESHOLD), _number(7, 0)]
    deltas: list[bytes] = []
    before = end = 0
    for start, stop in _runs(np.flatnonzero(buckets).tolist()):
        offset = start + _FIRST if not deltas else start - end
        out.append(_message(12, _signed(1, offset) + _number(2, stop - start)))
        for count in counts[start:stop]:
            deltas.append(_signed(13, count - before))
            before = count
        end = stop
    if not deltas:
        out.append(_message(12, _signed(1, 0) + _number(2, 0)))  # native all the same
    return b"".join(out + deltas)


def _runs(used: list[int]) -> Iterator[tuple[int, int]]:
    """Runs of buckets from their numbers, with gaps of up to ``_GAP`` in them."""
    start = end = -1
    for at in used:
        if end < 0:
            start = at
        elif at - end > _GAP:
            yield start, end
            start = at
        end = at + 1
    if end >= 0:
        yield start, end


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _delimited(body: bytes) -> bytes:
    return _varint(len(body)) + body


def _message(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _delimited(body)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _label(name: str, value: str) -> bytes:
    return _message(1, _text(1, name) + _text(2, value))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _signed(field: int, value: int) -> bytes:
    return _number(field, value << 1 if value >= 0 else (-value << 1) - 1)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)
