# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.synthetic import Clock, drain, identity, slot
from weir.aggregate import Aggregator, Snapshot
from weir.errors import ListenError
from weir.export.app import App
from weir.export.prometheus import Exposition
from weir.export.server import Server
from weir.health import Health


class Agent:
    """A server on a free port, and what a test changes behind it."""

    def __init__(self, tmp: Path) -> None:
        self.clock = Clock()
        self.health: Health[Snapshot] = Health(5.0, self.clock)
        self.aggregator = Aggregator(identity(tmp))
        self.rows: list[dict[str, Any]] = [{"n": n} for n in range(12_000)]
        self.server = Server(
            "127.0.0.1:0", self.health,
            App(self.health, Exposition(self.health, "1"), lambda: self.rows, self.connections,
                graph=lambda: {"links": []}, page=("<p>the page</p>", "default-src 'none'")),
        )  # fmt: skip
        self.server.start()

    def connections(self) -> list[dict[str, Any]]:
        raise RuntimeError("broken on purpose")

    def publish(self) -> None:
        self.health.publish(self.aggregator.update(drain({1: slot(sent_bytes=23_000)})))

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(*self.server.address, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            reply = connection.getresponse()
            return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
        finally:
            connection.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    yield made
    made.server.stop()


def test_metrics_plain_and_packed(agent: Agent) -> None:
    agent.publish()
    status, headers, body = agent.get("/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b'destination_workload="external"' in body
    assert b"} 23000.0\n" in body
    status, headers, packed = agent.get("/metrics", **{"Accept-Encoding": "gzip"})
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert b"} 23000.0\n" in gzip.decompress(packed)
    assert "content-encoding" not in agent.get("/metrics", **{"Accept-Encoding": "gzip;q=0"})[1]


def test_openmetrics_by_accept(agent: Agent) -> None:
    agent.publish()
    _, headers, body = agent.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_ready_once_the_first_snapshot_is_out(agent: Agent) -> None:
    assert agent.get("/readyz")[::2] == (503, b"no snapshot yet\n")
    assert agent.get("/api/v1/edges")[0] == 503
    agent.publish()
    assert agent.get("/readyz")[::2] == (200, b"ok\n")


def test_health_needs_a_young_snapshot_and_the_writer(agent: Agent) -> None:
    assert agent.get("/healthz")[0] == 200
    agent.clock.now += 16
    assert agent.get("/healthz")[::2] == (503, b"no snapshot yet after 16.0 s; more than 15 s is too much\n")
    agent.publish()
    agent.clock.now += 15
    assert agent.get("/healthz")[0] == 200
    agent.clock.now += 1
    assert agent.get("/healthz")[::2] == (
        503, b"the last snapshot is 16.0 s old; more than 15 s is too much\n",
    )  # fmt: skip
    agent.publish()
    writer = threading.Thread(target=lambda: None)
    writer.start()
    writer.join()
    agent.health.watch(writer.is_alive)
    assert agent.get("/healthz")[::2] == (503, b"the writer thread has ended\n")


def test_rows_and_their_limit(agent: Agent) -> None:
    agent.publish()
    status, headers, body = agent.get("/api/v1/edges")
    reply = json.loads(body)
    assert (status, headers["content-type"]) == (200, "application/json; charset=utf-8")
    assert (len(reply["edges"]), reply["total"], reply["truncated"]) == (10_000, 12_000, True)
    reply = json.loads(agent.get("/api/v1/edges?limit=20000")[2])
    assert (len(reply["edges"]), reply["truncated"]) == (12_000, False)
    assert json.loads(agent.get("/api/v1/edges?limit=0")[2])["edges"] == []
    for bad in ("-1", "x", "", "1e3", "9" * 30):
        status, _, body = agent.get(f"/api/v1/edges?limit={bad}")
        assert status == 400
        assert "whole number" in json.loads(body)["error"]


def test_a_broken_page_is_a_500_and_counted(agent: Agent) -> None:
    agent.publish()
    status, _, body = agent.get("/api/v1/connections")
    assert (status, "error" in json.loads(body)) == (500, True)
    assert agent.health.errors == {"api": 1}
    assert agent.get("/api/v1/edges")[0] == 200


def test_other_pages_and_methods_answer_in_json(agent: Agent) -> None:
    status, headers, body = agent.get("/nothing")
    assert (status, json.loads(body)) == (404, {"error": "no such page: /nothing"})
    status, headers, body = agent.get("/metrics", "POST")
    assert (status, headers["allow"], "error" in json.loads(body)) == (405, "GET, HEAD", True)
    assert agent.get("/nothing%ff")[0] == 404


def test_index_and_head(agent: Agent) -> None:
    status, headers, body = agent.get("/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (headers["content-security-policy"], body) == ("default-src 'none'", b"<p>the page</p>")
    assert agent.get("/", "HEAD")[::2] == (200, b"")


def test_graph(agent: Agent) -> None:
    """What the page asks for: nothing before the first snapshot."""
    assert agent.get("/api/v1/graph")[0] == 503
    agent.publish()
    status, _, body = agent.get("/api/v1/graph")
    assert (status, json.loads(body)) == (200, {"links": [], "losses": {}, "time": 1_700_000_000.0})


def test_many_scrapes_at_once(agent: Agent) -> None:
    agent.publish()
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(agent.get("/metrics")[0])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 20


def listening_on(address: str) -> None:
    health: Health[Snapshot] = Health(5.0)
    server = Server(address, health, App(health, Exposition(health, "1"), list, list))
    server.start()
    server.stop()


def test_port_in_use_is_one_clear_line(agent: Agent) -> None:
    taken = "{}:{}".format(*agent.server.address)
    with pytest.raises(ListenError) as error:
        listening_on(taken)
    assert str(error.value) == (
        f"cannot listen on {taken}: Address already in use; choose another address with --listen"
    )


@pytest.mark.parametrize(
    "address", ["", "nowhere", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "::1:80"]
)
def test_bad_address_is_one_clear_line(address: str) -> None:
    with pytest.raises(ListenError) as error:
        listening_on(address)
    assert repr(address) in str(error.value)
    assert "--listen" in str(error.value)
    assert "\n" not in str(error.value)


def test_address_that_is_not_ours() -> None:
    with pytest.raises(
        ListenError, match=r"cannot listen on 192\.0\.2\.1:80: Cannot assign requested address; .*--listen"
    ):
        listening_on("192.0.2.1:80")
    with pytest.raises(ListenError, match=r"cannot listen on no\.such\.host\.invalid:80: .*--listen"):
        listening_on("no.such.host.invalid:80")


def test_stop_frees_the_port_and_may_come_twice(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    address = agent.server.address
    agent.server.stop()
    agent.server.stop()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(address)


def test_ipv6() -> None:
    health: Health[Snapshot] = Health(5.0)
    server = Server("[::1]:0", health, App(health, Exposition(health, "1"), list, list))
    try:
        server.start()
    except ListenError:
        pytest.skip("no IPv6 loopback here")
    try:
        connection = http.client.HTTPConnection(*server.address, timeout=10)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.stop()
