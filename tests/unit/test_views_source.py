# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.unit.synthetic import drain, identity, slot
from tests.unit.test_views_rows import connection, edge
from weir.aggregate import Aggregator, Snapshot
from weir.errors import WeirError
from weir.export.app import App
from weir.export.prometheus import Exposition
from weir.export.server import Server
from weir.health import Health
from weir.views.rows import edge_rows
from weir.views.source import ApiSource, Lossy


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that says ``body`` to everything; its address and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class's name
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_rows_of_an_agent() -> None:
    row = edge("a", sent_bytes=23_000, failed={"refused": 2})
    answer = {"edges": [row.to_json()], "total": 1, "truncated": False}
    with answering(json.dumps(answer).encode()) as (url, asked):
        source = ApiSource(url + "/")
        assert source.edges() == [row]
        assert asked == ["/api/v1/edges?limit=20000"]
        assert source.describe() == f"agent at {url[7:]}"
        assert source.losses() == {}
    with answering(json.dumps({"connections": [connection().to_json()]}).encode()) as (url, _):
        assert ApiSource(url[7:]).connections() == [connection()]


def test_losses_and_rows_not_listed_are_told() -> None:
    answer = {
        "edges": [edge().to_json()],
        "total": 30,
        "truncated": True,
        "losses": {"slot_overflow": 4, "x": 0},
    }
    with answering(json.dumps(answer).encode()) as (url, _):
        source = ApiSource(url)
        source.edges()
        assert isinstance(source, Lossy)
        assert source.losses() == {"slot_overflow": 4, "not listed": 29}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'{"error": "no snapshot yet"}', 503, r"no snapshot yet \(HTTP 503\)"),
        (b"<html>", 404, r"Not Found \(HTTP 404\)"),
        (b"<html>", 200, "is this a Weir agent"),
        (b"[]", 200, "is this a Weir agent"),
        (b"{}", 200, "cannot read: 'edges'"),
        (b'{"edges": [{"id": 1}]}', 200, "cannot read: EdgeRow: id is 1, not a text"),
        (b'{"edges": null}', 200, "cannot read"),
    ],
)
def test_a_strange_answer_is_one_clear_line(body: bytes, status: int, said: str) -> None:
    with answering(body, status) as (url, _), pytest.raises(WeirError, match=said) as caught:
        ApiSource(url).edges()
    assert "\n" not in str(caught.value)


def test_no_agent_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(WeirError, match=r"cannot reach the agent at 127\.0\.0\.1:\d+ \(.*refused\)"):
        ApiSource(f"http://127.0.0.1:{port}").edges()


def test_a_silent_agent_is_given_up() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(WeirError, match="timed out"):
            ApiSource(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout=0.05).edges()


@pytest.mark.parametrize("url", ["ftp://host", "http://", "file:///etc/passwd"])
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(WeirError, match="an address such as"):
        ApiSource(url)


def test_against_the_real_server(tmp_path: Path) -> None:
    health: Health[Snapshot] = Health(5.0)

    def rows() -> list[dict[str, Any]]:
        assert health.snapshot is not None
        return [row.to_json() for row in edge_rows(health.snapshot)]

    server = Server("127.0.0.1:0", health, App(health, Exposition(health, "1"), rows, list))
    server.start()
    try:
        host, port = server.address
        source = ApiSource(f"http://{host}:{port}")
        with pytest.raises(WeirError, match=r"HTTP 503"):
            source.edges()
        health.publish(Aggregator(identity(tmp_path)).update(drain({1: slot(sent_bytes=23_000)})))
        assert [(row.process, row.sent_bytes) for row in source.edges()] == [("curl", 23_000)]
        assert source.connections() == []
    finally:
        server.stop()
