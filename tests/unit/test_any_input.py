# SPDX-License-Identifier: Apache-2.0
"""Whatever comes from outside, by hypothesis: no crash, no hang, no wrong total.

Settings, cgroup paths, conntrack messages, rows of BPF maps, requests to the agent's own server.

What a run finds is kept here as an example (``@example``), so that it is said again each time.
"""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.synthetic import identity
from tests.unit.test_export_server import Agent
from weir.aggregate import Aggregator
from weir.cli import cli
from weir.errors import WeirError
from weir.export.text import TextRenderer
from weir.flows.types import Drain
from weir.identity.containers import choose_path, parse_container, parse_pod, parse_unit
from weir.kernel import conntrack
from weir.kernel.layout import REQUESTS, SLOT, UDP, USED

_CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
THOROUGH = settings(
    max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=_CHECKS
)
SOME = settings(THOROUGH, max_examples=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_OPTIONS = st.sampled_from(
    [
        "listen",
        "interval",
        "netns",
        "labels",
        "max-series",
        "max-memory",
        "max-cpu",
        "udp",
        "route",
        "cidr",
        "slots",
        "log-level",
        "opaque-port",
        "tcp",
        "nothing",
        "kubeconfig",
        "<<",
        "*a",
    ]
)


def _arguments(path: Path) -> None:
    """Parses the settings; only what users are told may be raised."""
    try:
        cli.commands["run"].make_context("run", ["--config", str(path)])
    except (WeirError, click.ClickException) as error:
        line = error.format_message() if isinstance(error, click.ClickException) else str(error)
        assert "config" in line, line


@THOROUGH
@given(st.binary(max_size=200))
@example(b"a: &x [*x]\n")
@example(b"\xff\xfe")
@example(b"interval: 1e999\n")
@example(b"? [a, b]\n: c\n")
def test_any_bytes_are_settings_or_one_error(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "weir.yml"
    path.write_bytes(raw)
    _arguments(path)


@THOROUGH
@given(st.dictionaries(_OPTIONS, JSON, max_size=4))
def test_any_values_are_settings_or_one_error(tmp_path: Path, values: dict[str, Any]) -> None:
    path = tmp_path / "weir.yml"
    path.write_text(json.dumps(values), encoding="utf-8", errors="replace")
    _arguments(path)


@THOROUGH
@given(st.text(max_size=200))
@example("0::/kubepods.slice/" + "pod" * 60)
@example("/" + "a" * 64 + "/" + "0" * 64)
def test_any_path_of_a_cgroup(text: str) -> None:
    path = choose_path(text)
    found = parse_container(path)
    assert found is None or len(found.id) == 64
    assert len(parse_pod(path)) in (0, 32, 36)
    assert parse_unit(path) == "" or parse_unit(path).endswith(".service")


@THOROUGH
@given(st.binary(max_size=300))
@example(bytes(64))
@example(struct.pack("<IHHII", 20, 2, 0, 0, 0))
def test_any_message_of_conntrack(raw: bytes) -> None:
    try:
        found, _ = conntrack.decoded(raw)
    except OSError:
        return
    for original, reply in found:
        for key, to in conntrack.entries(original, reply):
            assert (len(key), len(to)) == (conntrack.KEY.size, conntrack.TO.size)


_ATTRIBUTE = st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 6), st.binary(max_size=40))


@THOROUGH
@given(st.lists(_ATTRIBUTE, max_size=6), st.integers(0, 400))
def test_any_attributes_of_conntrack(attributes: list[tuple[int, int, bytes]], cut: int) -> None:
    body = b"".join(struct.pack("<HH", length, kind) + value for length, kind, value in attributes)
    message = struct.pack("<IHHII4x", 20 + len(body), 0x100, 0, 0, 0) + body
    found, _ = conntrack.decoded((message * 2)[:cut])
    assert len(found) <= 2


def _rows(dtype: np.dtype[np.void], raw: bytes, count: int) -> Any:
    size = dtype.itemsize * count
    return np.frombuffer((raw * (size // max(1, len(raw)) + 1))[:size].ljust(size, b"\0"), dtype).copy()


@SOME
@given(
    st.binary(min_size=1, max_size=3000),
    st.binary(min_size=1, max_size=300),
    st.integers(1, 9),
    st.integers(0, 5),
)
def test_any_contents_of_maps(tmp_path: Path, raw: bytes, more: bytes, count: int, asked: int) -> None:
    """Totals are those of the rows, modulo 2^64 as the kernel's are; so are those of the next drain."""
    slots, requests = _rows(SLOT, raw, count), _rows(REQUESTS, more, asked)
    slots["state"] = USED
    who = identity(tmp_path)
    aggregator, renderer = Aggregator(who), TextRenderer(pytest.fail)
    for turn in range(2):
        drain = Drain(slots, np.arange(1, count + 1, dtype=np.uint32), 5 * 10**9, 1.7e9, requests=requests,
                      request_indexes=np.arange(asked, dtype=np.uint32))  # fmt: skip
        snapshot = aggregator.update(drain)
        page = b"".join(renderer.pieces(snapshot)).decode("utf-8")
        assert list(text_string_to_metric_families(page))
        tcp = slots[slots["key"]["proto"] != UDP]
        flows = [int(sum(map(int, tcp[name])) % 2**64) for name in ("sent_bytes", "received_bytes", "opened")]
        ways = [int(snapshot.column(f"tcp_{way}_bytes").sum()) for way in ("sent", "received")]
        assert sum(ways) % 2**64 == sum(flows[:2]) % 2**64, turn
        assert int(snapshot.column("opened").sum()) == flows[2], turn
        if asked:
            counted = sum(map(int, requests["untimed"])) + sum(map(int, requests["duration"].sum(axis=1)))
            assert int(snapshot.requests.values.sum()) == counted % 2**64


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Agent(tmp_path_factory.mktemp("agent"))
    made.publish()
    yield made
    made.server.stop()


_HEADS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\n",
        b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"A: b\r\n b\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET /%zz?%ff HTTP/1.1\r\n\r\n",
        b"Accept: a;q=" + b"9" * 400 + b"\r\n",
    ]
)


@SOME
@given(st.lists(_HEADS | st.binary(max_size=60), max_size=5))
def test_any_bytes_to_its_own_server(agent: Agent, parts: list[bytes]) -> None:
    with socket.create_connection(agent.server.address, 5) as one:
        one.settimeout(5)
        try:
            one.sendall(b"".join(parts))
            one.shutdown(socket.SHUT_WR)
            while one.recv(65536):
                pass
        except OSError:  # it may be told to go, but not kept waiting
            pass
    status, _, page = agent.get("/metrics")
    assert status == 200
    assert page.endswith(b"\n")
