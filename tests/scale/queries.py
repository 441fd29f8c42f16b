# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.scale.queries``: how long the dashboards' queries take at 5,000 pods.

The series are synthetic: what agents of 50 nodes would have been scraped for, written into a real Prometheus
by remote write. Queries and rules are those of ``dashboards/``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dashboards import recording
from dashboards.__main__ import files
from tests.bench.machine import describe
from tests.cluster.control import ROOT
from tests.kernel.agents import until
from weir import metrics

NODES, WORKLOADS, NAMESPACES = 50, 250, 25
#: Workloads with pods on one node, and workloads that each of them calls: a hundred pods a node.
HERE, CALLEES = 60, 3
STEP, POINTS = 30, 80
_BATCH = 4000


@dataclass(frozen=True)
class Series:
    """One series: its labels, and by how much it grows from scrape to scrape (a gauge: 0)."""

    labels: dict[str, str]
    growth: float
    begin: float = 0.0


def _buckets(name: str, labels: dict[str, str], bounds: Iterable[float], rate: float) -> Iterator[Series]:
    bounds = list(bounds)
    for number, bound in enumerate(bounds, 1):
        share = min(1.0, (number / (len(bounds) - 4)) ** 2)
        yield Series({**labels, "__name__": f"{name}_bucket", "le": f"{bound:.16g}"}, rate * share)
    yield Series({**labels, "__name__": f"{name}_bucket", "le": "+Inf"}, rate)
    yield Series({**labels, "__name__": f"{name}_count"}, rate)
    yield Series({**labels, "__name__": f"{name}_sum"}, rate / 100)


def _pair(labels: dict[str, str], rate: float) -> Iterator[Series]:
    """All that an agent shows of one pair that speaks HTTP."""
    for metric in metrics.PAIR_METRICS:
        if metric.name.startswith("weir_udp") or (
            "connect_" in metric.name and labels["reporter"] != "source"
        ):
            continue
        if metric.kind == "histogram":
            yield from _buckets(metric.name, labels, metric.bounds, rate)
            continue
        for value in metric.values or ("",):
            more = {metric.labels[0]: value} if value else {}
            gauge = metric.kind == "gauge"
            yield Series({**labels, **more, "__name__": metric.name}, 0 if gauge else rate * 100, 7)
    asked = {**labels, "protocol": "http", "method": "GET"}
    for status, outcome, share in (("200", "success", 0.999), ("503", "failure", 0.001)):
        yield Series(
            {**asked, "__name__": "weir_requests_total", "status": status, "outcome": outcome}, rate * share
        )
        if outcome == "success":
            name = metrics.DURATION_METRICS[0].name
            yield from _buckets(name, {**asked, "outcome": outcome}, metrics.DURATION_BOUNDS, rate)


def town() -> Iterator[Series]:
    """What 50 agents are scraped for: pairs by the workloads on each node, and the agents' own metrics."""

    def end(side: str, workload: int) -> dict[str, str]:
        return {f"{side}_namespace": f"team-{workload % NAMESPACES}", f"{side}_workload": f"app-{workload}"}

    for node in range(NODES):
        instance = {"instance": f"10.0.0.{node}:10435", "job": "weir"}
        for metric in metrics.AGENT_METRICS:
            if metric.kind != "summary" and not metric.labels:
                yield Series({**instance, "__name__": metric.name}, 1, 1)
        for here, number in itertools.product(range(HERE), range(CALLEES)):
            mine = (node * 7 + here * 4) % WORKLOADS
            for reporter, far in (
                ("source", mine * 3 + number * 17 + 1),
                ("destination", mine * 5 + number * 29 + 2),
            ):
                far %= WORKLOADS
                source, destination = (mine, far) if reporter == "source" else (far, mine)
                labels = {**instance, "reporter": reporter, **end("source", source),
                          **end("destination", destination), "destination_port": "8080",
                          "destination_service": "" if number else f"app-{destination}",
                          "network_name": "" if far % 10 else "infra/storage",
                          "attribution": "address"}  # fmt: skip
                yield from _pair({k: v for k, v in labels.items() if v}, 1 + (mine * far) % 97)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def written(labels: dict[str, str], times: Iterable[int], values: np.ndarray[Any, Any]) -> bytes:
    """One TimeSeries of Prometheus' remote write 1.0, times in milliseconds."""
    named = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, labels[name].encode())) for name in sorted(labels)
    )
    rows = np.zeros((len(values), 18), np.uint8)
    rows[:, :3] = 0x12, 16, 0x09
    rows[:, 3:11] = values.astype("<f8").view(np.uint8).reshape(-1, 8)
    rows[:, 11] = 0x10
    rows[:, 12:] = [list(_varint(when)) for when in times]
    return _field(1, named + rows.tobytes())


class Prometheus:
    """A server of our own, that takes remote writes."""

    def __init__(self, folder: Path) -> None:
        (folder / "prometheus.yml").write_text("global: {}\n")
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{address}"
        log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={address}", "--web.enable-remote-write-receiver", "--log.level=warn",
             "--query.timeout=10m", "--query.max-samples=1000000000"],
            stdout=log, stderr=log)  # fmt: skip
        until(self._up)

    def _up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def write(self, series: Iterable[bytes]) -> None:
        """Snappy's block format may say all as it is (tag 63 << 2: a literal with four bytes of length)."""
        body = b"".join(series)
        packed = _varint(len(body)) + bytes([63 << 2]) + (len(body) - 1).to_bytes(4, "little") + body
        request = urllib.request.Request(f"{self.url}/api/v1/write", packed, {
            "Content-Encoding": "snappy", "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0"})  # fmt: skip
        urllib.request.urlopen(request, timeout=120).close()

    def ask(self, expr: str, **more: object) -> tuple[float, list[dict[str, Any]]]:
        """Seconds, and the series; with ``start`` it is a range."""
        what = "query_range" if "start" in more else "query"
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode({'query': expr, **more})}"
        began = time.monotonic()
        with urllib.request.urlopen(url, timeout=600) as reply:
            text = reply.read()
        return time.monotonic() - began, list(json.loads(text)["data"]["result"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)


def fill(server: Prometheus, times: list[int]) -> int:
    """Writes the town; how many series."""
    count = 0
    steps = np.arange(len(times), dtype=float)
    series = town()
    while batch := list(itertools.islice(series, _BATCH)):
        count += len(batch)
        server.write(written(one.labels, times, one.begin + one.growth * STEP * steps) for one in batch)
    return count


def record(server: Prometheus, times: list[int]) -> list[tuple[str, float, int]]:
    """What the recording rules would have made by now: (name, seconds of one evaluation, series)."""
    made = []
    for rule in recording.RULES:
        seconds = statistics.median(server.ask(rule.expr, time=times[-1] / 1000)[0] for _ in range(3))
        _, found = server.ask(rule.expr, start=times[0] / 1000, end=times[-1] / 1000, step=STEP)
        for at in range(0, len(found), _BATCH):
            server.write(
                written({**row["metric"], **rule.labels, "__name__": rule.record},
                        [round(when * 1000) for when, _ in row["values"]],
                        np.array([float(value) for _, value in row["values"]]))
                for row in found[at : at + _BATCH]
            )  # fmt: skip
        if found:
            made.append((rule.record, seconds, len(found)))
    return made


_CHOSEN = {
    "__rate_interval": "2m", "network": ".*", "workload": "app-9", "source_namespace": "team-9",
    "source_workload": "app-9", "destination_namespace": "team-3", "destination_workload": "app-28",
}  # fmt: skip


def asked(server: Prometheus, end: float) -> Iterator[tuple[str, str, float, int]]:
    """Each query of each panel: dashboard, panel, seconds (median of three), series."""
    for name, text in files().items():
        if not name.endswith(".json"):
            continue
        values = {**_CHOSEN, "namespace": "team-9" if "workload" in name else ".*",
                  "instance": "10.0.0.7:10435" if "node" in name else ".*"}  # fmt: skip
        for panel in json.loads(text)["panels"]:
            for target in panel.get("targets", ()):
                expr = target["expr"]
                for key in sorted(values, key=len, reverse=True):
                    expr = expr.replace(f"${key}", values[key])
                more: dict[str, object] = {"time": end}
                if not target.get("instant"):
                    more = {"start": end - STEP * POINTS, "end": end, "step": 15}
                tries = [server.ask(expr, **more) for _ in range(3)]
                took = statistics.median(seconds for seconds, _ in tries)
                yield name.removesuffix(".json"), panel["title"], took, len(tries[0][1])


def _page(count: int, rules: list[tuple[str, float, int]], queries: list[tuple[str, str, float, int]]) -> str:
    version = subprocess.run(["prometheus", "--version"], text=True, capture_output=True, check=True)
    found = re.search(r"version (\S+)", version.stdout + version.stderr)
    boards: dict[str, list[tuple[str, float, int]]] = {}
    for board, panel, seconds, rows in queries:
        boards.setdefault(board, []).append((panel, seconds, rows))
    text = [
        "# Queries at 5,000 pods",
        "",
        "Made by `python -m tests.scale.queries`, as root. The series are synthetic: what the agents of",
        f"{NODES} nodes with 100 pods each are scraped for, every {STEP} s, {POINTS * STEP // 60} minutes,",
        f"in {WORKLOADS} workloads that call {CALLEES} others each: {count:,} series in a real Prometheus",
        f"{found[1] if found else ''}. {', '.join(value for _, value in describe()[:3])}.",
        "",
        "| dashboard | queries | slowest | which |",
        "|---|---|---|---|",
    ]
    for board, panels in boards.items():
        panel, seconds, _ = max(panels, key=lambda row: row[1])
        text.append(f"| {board} | {len(panels)} | {seconds * 1000:.0f} ms | {panel} |")
    text += ["", "Each is the median of three; ranges are the whole time in steps of 15 s.", "",
             "What a rule takes each time that it is evaluated (every 30 s):", "",
             "| record | seconds | series |", "|---|---|---|"]  # fmt: skip
    text += [f"| `{name}` | {seconds:.2f} | {rows:,} |" for name, seconds, rows in rules]
    text += [
        f"| all | {sum(seconds for _, seconds, _ in rules):.2f} | {sum(rows for *_, rows in rules):,} |",
        "",
    ]
    return "\n".join(text)


def main() -> None:
    """Fills, records, asks, writes."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale.queries")
    parser.add_argument("--write", action="store_true", help="write docs/queries.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Prometheus(Path(folder))
        try:
            end = int(time.time())
            times = [(end - STEP * (POINTS - 1 - n)) * 1000 for n in range(POINTS)]
            count = fill(server, times)
            text = _page(count, record(server, times), list(asked(server, end)))
        finally:
            server.close()
    print(text)
    if options.write:
        (ROOT / "docs/queries.md").write_text(text)


if __name__ == "__main__":
    main()
