# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from tests.unit.synthetic import Clock, client, drain, histogram, identity, server, slot
from weir.aggregate import AgentValues, Aggregator, Snapshot
from weir.export.prometheus import Exposition, PairCollector
from weir.export.text import TextRenderer
from weir.flows.types import MapFill, ProgramStats
from weir.health import Health
from weir.kernel.layout import UDP
from weir.labels import PAIR_LABELS
from weir.metrics import COLUMNS, METRICS

GOLDEN = Path(__file__).parent / "golden" / "metrics.txt"
ODD = [
    "",
    "a",
    'quo"te',
    "back\\slash",
    "new\nline",
    "ünïcode ☃",
    "\\n",
    '\\"',
    "tab\t",
    "}{,=",
    "\u2028",
    " ",
]


def snapshot_of(
    pairs: int, rng: np.random.Generator, names: tuple[str, ...] = PAIR_LABELS, odd: bool = True
) -> Snapshot:
    words = ODD if odd else ["web"]
    labels = tuple(
        (*(str(rng.choice(words)) for _ in names[1:]), f"{words[n % len(words)]}{n}") for n in range(pairs)
    )
    size = pairs, COLUMNS
    values = (rng.random(size) * 10.0 ** rng.integers(0, 16, size)).astype(np.uint64)
    values[rng.random(size) < 0.5] = 0
    shapes = rng.choice([1, 2, 3, 4, 5, 7], pairs).astype(np.uint8)
    empty = drain({})
    return Snapshot(
        0.0,
        0,
        names,
        labels,
        values,
        shapes,
        AgentValues(),
        empty.slots,
        empty.indexes.astype(np.intp),
        (),
        since=np.zeros(pairs),
    )


def rendered(snapshot: Snapshot) -> bytes:
    return b"".join(TextRenderer(pytest.fail).pieces(snapshot))


def library(snapshot: Snapshot) -> bytes:
    registry = CollectorRegistry()
    registry.register(PairCollector(snapshot))
    return generate_latest(registry)


@pytest.mark.parametrize("extra", [(), ("process",), ("interface", "source_pod", "source_address")])
def test_same_bytes_as_the_library(extra: tuple[str, ...]) -> None:
    rng = np.random.default_rng(len(extra))
    for pairs in (0, 1, 700):
        snapshot = snapshot_of(pairs, rng, (*PAIR_LABELS, *extra))
        assert rendered(snapshot) == library(snapshot)


def test_labels_follow_the_snapshot() -> None:
    rng = np.random.default_rng(5)
    renderer = TextRenderer(pytest.fail)
    for pairs, names in ((20, PAIR_LABELS), (5, PAIR_LABELS), (5, (*PAIR_LABELS, "process"))):
        snapshot = snapshot_of(pairs, rng, names)
        assert b"".join(renderer.pieces(snapshot)) == library(snapshot)


def test_time_of_100k_series() -> None:
    """Not a timed test: prints what docs quote."""
    snapshot = snapshot_of(2000, np.random.default_rng(1), odd=False)
    snapshot.shapes[:] = 5
    renderer = TextRenderer(pytest.fail)
    for what in ("first", "again"):
        start = time.perf_counter()
        page = b"".join(renderer.pieces(snapshot))
        seconds = time.perf_counter() - start
        series = sum(not line.startswith(b"#") for line in page.splitlines())
        print(f"{series} series, {len(page) / 1e6:.0f} MB, {what}: {seconds:.2f} s")
    assert series == 108_000


def golden_health(tmp_path: Path) -> Health[Snapshot]:
    """The state behind the golden page: redis over loopback, DNS, and somebody outside."""
    clock = Clock()
    cidrs = ["resolver=192.0.2.0/24"]
    aggregator = Aggregator(identity(tmp_path, cidrs), since=1_600_000_000.0, clock=clock)
    health: Health[Snapshot] = Health(5.0, clock)
    rows = {
        1: client("worker", sent_bytes=23_000, received_bytes=5_000_000, opened=3, closed=1, live=2,
                  rtt=histogram([20, 70, 130, 2_000]), rtt_sum_us=2_220, connect=histogram([90, 95, 99]),
                  connect_sum_us=284, failed=[1, 0, 0, 0, 0, 0], resets_received=1),
        2: server(sent_bytes=5_000_000, received_bytes=23_000, opened=3, closed=1, live=2, resets_sent=1,
                  rtt=histogram([30]), rtt_sum_us=30),
        3: slot(remote="192.0.2.53", port=53, proto=UDP, comm='na"me\\', sent_bytes=64, sent_datagrams=2,
                received_bytes=128, received_datagrams=2),
        4: slot(sent_bytes=1, retransmitted=4),
    }  # fmt: skip
    health.publish(aggregator.update(drain(
        rows,
        events={"slot_overflow": 0, "late_close": 2},
        programs=(ProgramStats("tcp_state", 1_500_000, 1000, 0, 812),),
        maps=(MapFill("slots", 4, 16384),),
        planes={"socket": "", "packet": "no cgroup2 mount"},
        seconds={"counters": 0.25},
    )))  # fmt: skip
    health.fail("http")
    clock.now += 1.5
    return health


def test_golden_page(tmp_path: Path) -> None:
    """WEIR_GOLDEN=write writes it anew: read the difference before you commit it."""
    kind, pieces = Exposition(golden_health(tmp_path), "1.2.3", []).render()
    page = b"".join(pieces).decode()
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    if os.environ.get("WEIR_GOLDEN") == "write":
        GOLDEN.write_text(page, encoding="utf-8")
    assert page == GOLDEN.read_text(encoding="utf-8")


def test_golden_page_is_what_the_library_reads() -> None:
    families = {family.name: family for family in parse_text(GOLDEN.read_text(encoding="utf-8"))}
    assert {m.name.removesuffix("_total") for m in METRICS} == set(families)
    sent = {s.labels["reporter"]: s.value for s in families["weir_tcp_sent_bytes"].samples
            if s.labels["destination_port"] == "6379"}  # fmt: skip
    assert sent == {"source": 23_000, "destination": 23_000}


def test_promtool_finds_nothing_to_say() -> None:
    promtool = Path("/usr/bin/promtool")
    if not promtool.exists():
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=GOLDEN.read_bytes(), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_openmetrics_when_asked(tmp_path: Path) -> None:
    exposition = Exposition(golden_health(tmp_path), "1.2.3", [])
    kind, pieces = exposition.render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    page = b"".join(pieces).decode()
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert page.endswith("# EOF\n")
    names = {family.name for family in text_string_to_metric_families(page)}
    assert "weir_tcp_rtt_seconds" in names


def test_created_when_asked(tmp_path: Path) -> None:
    """One for each series of a counter, each after the samples it belongs to; otherwise none."""
    exposition = Exposition(golden_health(tmp_path), "1.2.3", [])
    asked = exposition.render("application/openmetrics-text;version=1.0.0", created=True)
    page = b"".join(asked[1]).decode()
    plain = b"".join(exposition.render("application/openmetrics-text;version=1.0.0")[1]).decode()
    assert "_created{" not in plain
    families = {family.name: family for family in text_string_to_metric_families(page)}
    for name, ending in (("weir_tcp_sent_bytes", "_total"), ("weir_tcp_resets", "_total"),
                         ("weir_tcp_rtt_seconds", "_sum")):  # fmt: skip
        samples = families[name].samples
        counted = [s.labels for s in samples if s.name == name + ending]
        created = [(s.labels, s.value) for s in samples if s.name == f"{name}_created"]
        assert created == [(labels, 1_600_000_000.0) for labels in counted]
        assert created
    assert not any(s.name.endswith("_created") for s in families["weir_tcp_connections"].samples)


def test_page_before_the_first_snapshot() -> None:
    health: Health[Snapshot] = Health(5.0, Clock())
    page = b"".join(Exposition(health, "1.2.3").render()[1]).decode()
    assert 'weir_agent_build_info{version="1.2.3"} 1.0' in page
    assert "process_resident_memory_bytes" in page
    assert "weir_agent_snapshot_age_seconds 0" not in page


class Broken(Collector):
    def collect(self) -> Iterator[Family]:
        yield Family("fine_until_here", "", "gauge")
        raise RuntimeError("broken on purpose")


def test_a_collector_that_fails_costs_only_itself(tmp_path: Path) -> None:
    health = golden_health(tmp_path)
    exposition = Exposition(health, "1.2.3", [Broken()])
    for accept in ("", "application/openmetrics-text"):
        page = b"".join(exposition.render(accept)[1])
        assert b"weir_tcp_sent_bytes_total{" in page
        assert b"fine_until_here" not in page
    assert health.errors == {"http": 1, "export": 2}


def test_a_family_that_fails_costs_only_itself() -> None:
    snapshot = snapshot_of(3, np.random.default_rng(1))
    snapshot.shapes[:] = 7
    object.__setattr__(snapshot, "values", snapshot.values[:, :20])  # histograms have no columns
    failed: list[str] = []
    page = b"".join(TextRenderer(failed.append).pieces(snapshot))
    assert b"weir_tcp_sent_bytes_total{" in page
    assert b"weir_tcp_resets_total{" in page
    assert failed == ["export", "export"]
