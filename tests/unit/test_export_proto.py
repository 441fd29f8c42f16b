# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from tests.unit.synthetic import client, drain, histogram, identity, request, server, slot
from weir.aggregate import Aggregator
from weir.export import proto
from weir.export.prometheus import PairCollector
from weir.kernel.layout import UDP, duration_bounds

Fields = list[tuple[int, Any]]
_KIND = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily"


def fields(data: bytes) -> Fields:
    """Field numbers and values of a message: numbers, floats, bytes."""
    found: Fields = []
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            found.append((tag >> 3, value))
        elif tag & 7 == 1:
            found.append((tag >> 3, struct.unpack_from("<d", data, at)[0]))
            at += 8
        else:
            assert tag & 7 == 2
            size, at = _varint(data, at)
            found.append((tag >> 3, data[at : at + size]))
            at += size
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 128:
            return value, at


def _signed(value: int) -> int:
    return value >> 1 ^ -(value & 1)


def families(pieces: Iterator[bytes]) -> dict[str, Fields]:
    """Name -> fields of each MetricFamily."""
    data, at, found = b"".join(pieces), 0, {}
    while at < len(data):
        size, at = _varint(data, at)
        family = fields(data[at : at + size])
        found[dict(family)[1].decode()] = family
        at += size
    return found


def native(histogram: bytes) -> dict[float, int]:
    """Upper bound in seconds -> count."""
    given = fields(histogram)
    schema = _signed(next(value for number, value in given if number == 5))
    deltas = iter([_signed(value) for number, value in given if number == 13])
    found, at, count = {}, 0, 0
    for number, value in given:
        if number != 12:
            continue
        span = dict(fields(value))
        at += _signed(span[1])
        for _ in range(span[2]):
            count += next(deltas)
            found[2.0 ** (at / 2**schema)] = count
            at += 1
    assert next(deltas, None) is None
    return {bound: count for bound, count in found.items() if count}


@pytest.mark.parametrize(
    "seconds", [[], [0.001], [1e-6, 0.02, 0.0201, 0.0209, 0.03, 0.03, 5.0], [0.0] * 3, [1000.0]]
)
def test_native_buckets_are_the_kernels(tmp_path: Path, seconds: list[float]) -> None:
    row = request(1, status=200, seconds=seconds, untimed=1)
    snapshot = Aggregator(identity(tmp_path), since=1.6e9 + 0.25).update(drain({1: client()}, requests=[row]))
    found = families(proto.pieces(snapshot))
    assert dict(found["weir_requests_total"])[3] == 0
    (metric,) = (value for number, value in found["weir_request_duration_seconds"] if number == 4)
    labels = {tuple(v for _, v in fields(value)) for number, value in fields(metric) if number == 1}
    assert {(b"protocol", b"http"), (b"method", b"GET"), (b"outcome", b"success")} <= labels
    histogram = dict(fields(metric))[7]
    began = {1: 1_600_000_000, 2: 250_000_000}  # a google.protobuf.Timestamp
    assert dict(fields(dict(fields(histogram))[15])) == began
    counter = dict(fields(dict(found["weir_requests_total"])[4]))[3]
    assert dict(fields(dict(fields(counter))[3])) == began
    gauge = dict(fields(dict(found["weir_tcp_connections"])[4]))[2]
    assert 3 not in dict(fields(gauge))
    assert dict(fields(histogram))[1] == len(seconds)
    assert dict(fields(histogram))[2] == pytest.approx(sum(seconds))
    wanted: dict[float, int] = {}
    for value in seconds:
        bound = min(float(duration_bounds()[duration_bounds() > value][0]), 64.0)
        wanted[bound] = wanted.get(bound, 0) + 1
    assert native(histogram) == pytest.approx(wanted)
    classic = [fields(value) for number, value in fields(histogram) if number == 3]
    assert dict(classic[-1]) == {1: len(seconds), 2: float("inf")}


def test_families_of_the_library() -> None:
    summary = SummaryMetricFamily("stage_seconds", "s", labels=("stage",))
    summary.add_metric(("drain",), 3, 0.5)
    gauge = GaugeMetricFamily("up", "g", value=1)
    found = families(proto.families([summary, gauge]))
    assert (dict(found["stage_seconds"])[3], dict(found["up"])[3]) == (2, 1)
    metric = fields(dict(found["stage_seconds"])[4])
    assert dict(fields(dict(metric)[4])) == {1: 3, 2: 0.5}


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False), ("text/plain", False), ("application/vnd.google.protobuf", False),
        (f"{_KIND};encoding=delimited", True),
        (f"text/plain;q=0.1, {_KIND}; q=0.6", True),
        (f"{_KIND};encoding=text", False), (f"{_KIND};q=0", False),
    ],
)  # fmt: skip
def test_who_is_given_it(accept: str, wanted: bool) -> None:
    assert proto.wanted(accept) == wanted


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(found: dict[str, Fields]) -> Samples:
    """As the text format has them."""
    said: Samples = {}
    for name, family in found.items():
        for number, raw in family:
            if number != 4:
                continue
            metric = fields(raw)
            own = {
                dict(fields(v))[1].decode(): dict(fields(v)).get(2, b"").decode() for n, v in metric if n == 1
            }
            value = {n: v for n, v in metric if n != 1}
            for kind in (2, 3):
                if kind in value:
                    said[name, frozenset(own.items())] = dict(fields(value[kind]))[1]
            if 7 in value:
                histogram = fields(value[7])
                said[f"{name}_count", frozenset(own.items())] = dict(histogram)[1]
                said[f"{name}_sum", frozenset(own.items())] = dict(histogram)[2]
                for n, bucket in histogram:
                    if n == 3:
                        count, bound = dict(fields(bucket))[1], dict(fields(bucket))[2]
                        le = floatToGoString(bound)
                        said[f"{name}_bucket", frozenset({**own, "le": le}.items())] = count
    return said


def test_it_says_what_the_text_says(tmp_path: Path) -> None:
    """Every family, sample, label and value of a page, by the library's own text and its own parser."""
    rows = [
        request(1, status=200, seconds=[0.001, 0.3, 0.3]),
        request(2, status=503, seconds=[7.0], untimed=2),
    ]
    edges = {
        1: client(sent_bytes=5, opened=3, closed=1, live=2, retransmitted=4,
                  rtt=histogram([70, 900]), rtt_sum_us=970, connect=histogram([33]), connect_sum_us=33),
        2: server(received_bytes=5, resets_sent=2),
        3: slot(comm="größe", sent_bytes=1, failed=[1, 2, 3, 4, 5, 6]),
        4: slot(proto=UDP, sent_bytes=9, sent_datagrams=2),
    }  # fmt: skip
    snapshot = Aggregator(identity(tmp_path), since=1.6e9).update(drain(edges, requests=rows))
    registry = CollectorRegistry()
    registry.register(PairCollector(snapshot))
    text: Samples = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for one in family.samples:
            if not one.name.endswith("_created"):
                text[one.name, frozenset(one.labels.items())] = one.value
    assert samples(families(proto.pieces(snapshot))) == pytest.approx(text)
    assert len(text) > 150


@pytest.mark.parametrize(
    ("used", "runs"),
    [
        ([], []), ([0], [(0, 1)]), ([5, 6, 7], [(5, 8)]), ([1, 4], [(1, 5)]), ([1, 5], [(1, 2), (5, 6)]),
        ([0, 3, 6, 10, 11], [(0, 7), (10, 12)]), ([2, 9, 20], [(2, 3), (9, 10), (20, 21)]),
    ],
)  # fmt: skip
def test_runs_of_buckets(used: list[int], runs: list[tuple[int, int]]) -> None:
    """Gaps of one or two empty buckets are written, larger ones left out."""
    assert list(proto._runs(used)) == runs
