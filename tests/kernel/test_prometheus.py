# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes a real agent; its linter and OpenMetrics readers have nothing to say."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import random
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.kernel.agents import ASKING, Agent, both, own_instance, until
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get
from tests.kernel.peers.netns import Netns, Wire, make_wire
from tests.kernel.peers.tcp import tcp_pair
from tests.kernel.peers.udp import udp_pair

_CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: weir
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """Debian's server with one target, in a folder of the test's own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, text: str) -> dict[str, float]:
        """Instant query: value of the label ``reporter`` (or "") -> value."""
        rows = self._get("query", query=text)["result"]
        return {row["metric"].get("reporter", ""): float(row["value"][1]) for row in rows}

    def targets(self) -> list[tuple[str, str]]:
        """Health and last error of each."""
        return [(t["health"], t["lastError"]) for t in self._get("targets")["activeTargets"]]

    def _get(self, what: str, **arguments: str) -> Any:
        with urllib.request.urlopen(
            f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(arguments)}", timeout=10
        ) as reply:
            return json.load(reply)["data"]

    def up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False


@contextlib.contextmanager
def prometheus(folder: Path, target: str, *options: str, config: str = _CONFIG) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    (folder / "prometheus.yml").write_text(config.format(target=target))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}", "--log.level=warn", *options,
    ]  # fmt: skip
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            server = Prometheus(f"http://{address}")
            until(server.up)
            yield server
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def road() -> Iterator[Wire]:
    with make_wire() as made:
        yield made


@pytest.fixture(scope="module")
def agent(road: Wire) -> Iterator[Agent]:
    """One agent for all tests here, with traffic behind it."""
    with own_instance() as name, Agent(name, (road.client, road.server)).ready() as started:
        yield started


def _traffic(road: Wire) -> tuple[int, int]:
    """23 connections and 97 datagrams, answered; the service ports."""
    with tcp_pair(road.client, road.server) as pair, udp_pair(road.client, road.server) as udp:
        for _ in range(23):
            pair.run("send", 1009, reply=503)
        udp.run("send", 97, 211, reply=13)
        return pair.port, udp.ports[0]


def test_totals_agree_by_query(agent: Agent, road: Wire, tmp_path: Path) -> None:
    with prometheus(tmp_path, agent.url.removeprefix("http://")) as server:
        until(lambda: server.query("up{job='weir'}") == {"": 1.0})
        tcp, udp = _traffic(road)
        expected = {
            f"sum by (reporter) (weir_tcp_sent_bytes_total{{destination_port='{tcp}'}})": 23 * 1009,
            f"sum by (reporter) (weir_tcp_received_bytes_total{{destination_port='{tcp}'}})": 23 * 503,
            f"sum by (reporter) (weir_tcp_connections_opened_total{{destination_port='{tcp}'}})": 23,
            f"sum by (reporter) (weir_tcp_connections_closed_total{{destination_port='{tcp}'}})": 23,
            f"sum by (reporter) (weir_udp_sent_bytes_total{{destination_port='{udp}'}})": 97 * 211,
            f"sum by (reporter) (weir_udp_received_bytes_total{{destination_port='{udp}'}})": 97 * 13,
            f"sum by (reporter) (weir_udp_sent_datagrams_total{{destination_port='{udp}'}})": 97,
        }
        wanted = {query: {"source": value, "destination": value} for query, value in expected.items()}
        until(lambda: {query: server.query(query) for query in wanted} == wanted, 10)
        assert {query: server.query(query) for query in wanted} == wanted
        durations = f"weir_tcp_connect_duration_seconds_count{{destination_port='{tcp}'}}"
        assert server.query(f"sum by (reporter) ({durations})") == {"source": 23}
        assert server.targets() == [("up", "")]


def test_native_histograms(instance: str, netns: Netns, tmp_path: Path) -> None:
    """Scraped by protobuf; a percentile that Prometheus makes of them is within 5 % of the exact one."""
    chance, took = random.Random(7), []
    with Dialogues(netns) as talks, Agent(instance, (netns,), env=ASKING).ready() as agent:
        port = talks.listen()
        number = talks.connect(port)
        for _ in range(101):
            talks.say(number, [(CLIENT, get())])
            began = time.monotonic()
            time.sleep(chance.choice([0.004, 0.01, 0.03]) * chance.uniform(1, 1.5))
            took.append(time.monotonic() - began)
            talks.say(number, [(SERVER, answer(200, b"x"))])
        target, options = agent.url.removeprefix("http://"), "--enable-feature=native-histograms"
        with prometheus(tmp_path, target, options) as server:
            buckets = f"weir_request_duration_seconds{{destination_port='{port}'}}"
            count = f"histogram_count(sum by (reporter) ({buckets}))"
            until(lambda: server.query(count) == {"source": 101, "destination": 101}, 10)
            assert server.query(count) == {"source": 101, "destination": 101}
            for q in (0.5, 0.9, 0.99):
                exact = sorted(took)[math.ceil(q * 101) - 1]
                found = server.query(f"histogram_quantile({q}, sum by (reporter) ({buckets}))")
                assert found["destination"] == pytest.approx(exact, rel=0.05), (q, found)
            totals = f"sum by (reporter) (weir_requests_total{{destination_port='{port}', status='200'}})"
            assert server.query(totals) == {"source": 101, "destination": 101}
            assert server.query("sum(weir_agent_stage_duration_seconds_count{stage='aggregate'})")[""] > 0
            assert server.query("weir_agent_plane_up{plane='http'}") == {"": 1}


def test_promtool_has_nothing_to_say(agent: Agent, road: Wire) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    _traffic(road)
    agent.fresh()
    text = agent.get("/metrics")[2]
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_openmetrics(agent: Agent, road: Wire) -> None:
    port, _ = _traffic(road)
    agent.page_when(lambda p: both(p, "weir_tcp_sent_bytes_total", port) == (23_207, 23_207))
    accept = "application/openmetrics-text; version=1.0.0"
    status, kind, text = agent.get("/metrics", Accept=accept)
    assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
    found = {family.name: family for family in text_string_to_metric_families(text)}
    sent = [s for s in found["weir_tcp_sent_bytes"].samples if s.labels["destination_port"] == str(port)]
    assert {s.labels["reporter"]: s.value for s in sent} == {"source": 23_207, "destination": 23_207}
    assert found["weir_tcp_sent_bytes"].unit == "bytes"


def test_a_packed_page_is_the_same(agent: Agent) -> None:
    request = urllib.request.Request(f"{agent.url}/metrics", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        assert reply.headers["Content-Encoding"] == "gzip"
        text = gzip.decompress(reply.read()).decode()
    names = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert names == [line for line in agent.get("/metrics")[2].splitlines() if line.startswith("# TYPE")]


def test_many_scrapes_at_once(agent: Agent) -> None:
    """More readers than the server has threads: all get a whole page."""
    command = ["curl", "-sf", "--parallel", "--parallel-immediate", "--max-time", "10"]
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    pages = [
        part
        for _ in range(23)
        for part in ("-o", "/dev/null", "-w", "%{http_code}\n", f"{agent.url}/metrics")
    ]
    done = subprocess.run([*command, *pages], text=True, capture_output=True, check=False, timeout=30)
    assert done.stdout.split() == ["200"] * 23


def test_an_agent_without_traffic_has_a_page(netns: Netns) -> None:
    with own_instance() as name, Agent(name, (netns,)).ready() as quiet:
        page = quiet.page()
        assert page.sum("weir_agent_edges") == 0
        assert page.sum("weir_agent_plane_up", plane="tcp") == 1
        assert page.sum("weir_agent_build_info") == 1


def test_the_first_bytes_of_a_pair_are_an_increase(instance: str, netns: Netns, tmp_path: Path) -> None:
    """By its creation time, as said in docs/serving.md; without it a new series begins with no increase."""
    told = subprocess.run(["prometheus", "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"version (\d+)\.(\d+)", told.stdout + told.stderr)
    assert version, told
    if (int(version[1]), int(version[2])) < (2, 50):
        pytest.skip(f"this host's Prometheus ({version[0]}) knows nothing of creation times: 2.50")
    flag = "--enable-feature=created-timestamp-zero-ingestion"
    with (
        Dialogues(netns) as talks, Agent(instance, (netns,), env=ASKING).ready() as agent,
        prometheus(tmp_path, agent.url.removeprefix("http://"), flag) as server,
    ):  # fmt: skip
        until(lambda: server.query("up") == {"": 1.0}, 20)
        talks.listen(address="127.0.0.1", port=7777)
        talks.once(7777, [(CLIENT, get()), (SERVER, answer(200))], "127.0.0.1")
        shown = 'min_over_time(weir_tcp_sent_bytes_total{destination_port="7777"}[1m])'
        zero = {"source": 0.0, "destination": 0.0}
        until(lambda: server.query(shown) == zero, 20)
        assert server.query(shown) == zero
