# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.synthetic import client, drain, histogram, identity, server, slot
from weir.aggregate import Aggregator, Snapshot
from weir.errors import ConfigError
from weir.kernel.layout import RETIRING, UDP, Array
from weir.labels import PAIR_LABELS
from weir.metrics import BOUNDS_US, CONNECT, RTT


def shown(snapshot: Snapshot, column: str = "tcp_sent_bytes") -> dict[tuple[str, str, str], int]:
    """(reporter, source, destination) -> value of a column."""
    at = [PAIR_LABELS.index(name) for name in ("reporter", "source_workload", "destination_workload")]
    values = snapshot.column(column).tolist()
    return {(p[at[0]], p[at[1]], p[at[2]]): v for p, v in zip(snapshot.pairs, values, strict=True)}


def total(snapshot: Snapshot) -> Array:
    return snapshot.column("tcp_sent_bytes") + snapshot.column("tcp_received_bytes")


@pytest.fixture
def aggregator(tmp_path: Path) -> Aggregator:
    return Aggregator(identity(tmp_path))


def test_both_reporters_of_a_pair_agree(aggregator: Aggregator) -> None:
    snapshot = aggregator.update(drain({
        1: client(sent_bytes=100, received_bytes=7, resets_sent=1),
        2: server(sent_bytes=7, received_bytes=100, resets_received=1),
    }))  # fmt: skip
    ends = ("client", "redis-server")
    assert shown(snapshot) == {("source", *ends): 100, ("destination", *ends): 100}
    assert shown(snapshot, "tcp_received_bytes") == {("source", *ends): 7, ("destination", *ends): 7}
    assert shown(snapshot, "resets_sent") == {("source", *ends): 1, ("destination", *ends): 1}


def test_labels_in_their_order(tmp_path: Path) -> None:
    extra = ("process", "source_address", "destination_address")
    aggregator = Aggregator(identity(tmp_path, ["dc=10.0.0.0/8"]), extra)
    snapshot = aggregator.update(drain({1: slot("192.0.2.5", "10.9.8.0", bits=120, sent_bytes=1)}))
    assert snapshot.label_names == (*PAIR_LABELS, *extra)
    assert snapshot.pairs == (
        ("source", "", "curl", "", "dc", "", "443", "", "address", "curl", "192.0.2.5", "10.9.8.0/24"),
    )


def test_unnamed_near_end_means_no_attribution(aggregator: Aggregator) -> None:
    snapshot = aggregator.update(drain({1: client(comm=""), 2: server()}))
    by_reporter = {pair[0]: pair for pair in snapshot.pairs}
    assert by_reporter["source"][2] == "unknown"
    assert by_reporter["source"][-1] == "none"


def test_tcp_and_udp_of_one_pair_are_kept_apart(aggregator: Aggregator) -> None:
    snapshot = aggregator.update(drain({
        1: slot(port=53, sent_bytes=10, opened=1),
        2: slot(port=53, proto=UDP, sent_bytes=5, sent_datagrams=2, received_datagrams=1),
    }))  # fmt: skip
    (value,) = shown(snapshot).values()
    (udp,) = shown(snapshot, "udp_sent_bytes").values()
    (datagrams,) = shown(snapshot, "udp_sent_datagrams").values()
    assert (value, udp, datagrams) == (10, 5, 2)


def test_histograms_are_exact_at_the_published_bounds(aggregator: Aggregator) -> None:
    samples = [0, 63, 64, 127, 128, 1_048_575, 1_048_576, 4_194_303, 16_777_215, 16_777_216, 10**9]
    snapshot = aggregator.update(drain({1: slot(rtt=histogram(samples), connect=histogram([70]))}))
    cumulative = np.cumsum(snapshot.values[0, RTT]).tolist()
    expected = [sum(v < bound for v in samples) for bound in BOUNDS_US] + [len(samples)]
    assert cumulative == expected
    assert np.cumsum(snapshot.values[0, CONNECT]).tolist() == [0] + [1] * len(BOUNDS_US)


def test_edge_that_goes_leaves_its_sum_while_the_series_lives(aggregator: Aggregator) -> None:
    two = {1: slot(sent_bytes=100, live=1), 2: slot("10.0.0.2", sent_bytes=10, live=1)}
    (before,) = shown(aggregator.update(drain(two))).values()
    snapshot = aggregator.update(drain({2: two[2]}))
    assert before == 110
    assert list(shown(snapshot).values()) == [110]
    assert list(shown(snapshot, "live").values()) == [1]
    assert aggregator.update(drain({})).pairs == ()
    # the series ended: when it comes again it counts from the start
    assert list(shown(aggregator.update(drain({3: slot(sent_bytes=4)}))).values()) == [4]


def test_edge_that_goes_as_another_comes(aggregator: Aggregator) -> None:
    aggregator.update(drain({1: slot(sent_bytes=100)}))
    snapshot = aggregator.update(drain({1: slot("10.0.0.2", sent_bytes=3, generation=1)}))
    assert list(shown(snapshot).values()) == [103]


def test_series_tell_since_when_they_count(tmp_path: Path) -> None:
    """Since the kernel side does, what the first drain had; since the drain before, what came later."""
    aggregator = Aggregator(identity(tmp_path), since=5.0)

    def since(wall: float, *rows: Array) -> dict[str, float]:
        shown = aggregator.update(replace(drain(dict(enumerate(rows, 1))), wall=wall))
        sheet = dict(enumerate(shown.sheets()))[0][1]
        at = PAIR_LABELS.index("destination_workload")
        return {
            f"{pair[0]} {pair[at]}": when
            for pair, when in zip(sheet.pairs, sheet.since.tolist(), strict=True)
        }

    first, second = client(sent_bytes=100), slot("10.0.0.2", sent_bytes=5)
    assert since(100.0, first) == {"source node": 5.0}
    assert since(115.0, first, second) == {"source node": 5.0, "source external": 100.0}
    assert since(130.0, first, second) == {"source node": 5.0, "source external": 100.0}
    # all counts of a series move to one of another name: as old as they are
    assert since(145.0, first, second, server()) == {
        "source redis-server": 5.0, "destination redis-server": 130.0, "source external": 100.0,
    }  # fmt: skip


def test_kernel_moves_counts_of_a_freed_slot(aggregator: Aggregator) -> None:
    rows = {1: slot(sent_bytes=100, state=RETIRING), 2: slot("10.0.0.2", sent_bytes=10), 3: slot(proto=UDP)}
    first = aggregator.update(drain(rows))
    assert aggregator.survivor(1) == 2
    aggregator.folded(1, 2)
    second = aggregator.update(drain({2: slot("10.0.0.2", sent_bytes=111), 3: rows[3]}))
    assert (*shown(first).values(), *shown(second).values()) == (110, 111)
    assert second.agent.unattributed_bytes == (0, 111)


def test_survivor_has_the_same_protocol_and_is_not_freed(aggregator: Aggregator) -> None:
    rows = {n: slot(f"10.0.0.{n}", state=RETIRING, sent_bytes=1) for n in (1, 2)}
    aggregator.update(drain({**rows, 3: slot(proto=UDP)}))
    assert aggregator.survivor(1) == 2
    aggregator.folded(1, 2)
    assert aggregator.survivor(2) is None
    aggregator.folded(2, None)
    assert aggregator.survivor(99) is None
    assert list(shown(aggregator.update(drain({3: slot(proto=UDP)}))).values()) == [2]


def test_late_name_moves_all_counts_when_the_old_series_ends(aggregator: Aggregator) -> None:
    aggregator.update(drain({1: client(sent_bytes=100)}))
    snapshot = aggregator.update(drain({1: client(sent_bytes=150), 2: server()}))
    assert shown(snapshot) == {
        ("source", "client", "redis-server"): 150,
        ("destination", "client", "redis-server"): 0,
    }


def test_late_name_leaves_shown_counts_when_the_old_series_lives(aggregator: Aggregator) -> None:
    other = slot("127.0.0.2", "127.0.0.2", 6379, comm="client", sent_bytes=5)
    aggregator.update(drain({1: client(sent_bytes=100), 3: other}))
    rows = {1: client(sent_bytes=150), 2: server(), 3: other}
    snapshot = aggregator.update(drain(rows))
    old, new = ("source", "client", "node"), ("source", "client", "redis-server")
    assert (shown(snapshot)[old], shown(snapshot)[new]) == (105, 50)
    # idle edge gone, the rest as before
    rows[4] = client(sent_bytes=1, cgroup=9)
    snapshot = aggregator.update(drain(rows))
    del rows[1]
    snapshot = aggregator.update(drain(rows))
    assert (shown(snapshot)[old], shown(snapshot)[new]) == (105, 51)


@pytest.mark.parametrize("freed_by_kernel", [False, True])
def test_published_counters_never_go_down(tmp_path: Path, freed_by_kernel: bool) -> None:
    """Random edges come, count, are named late and go: no series goes down, no byte is lost."""
    rng = np.random.default_rng(7)
    aggregator = Aggregator(identity(tmp_path))
    edges: dict[int, Array] = {}
    generation = dict.fromkeys(range(1, 40), 0)
    before: dict[tuple[str, ...], int] = {}
    for _ in range(300):
        for number in generation:
            if number not in edges and rng.random() < 0.1:
                row = (client, server)[rng.integers(2)](cgroup=number, generation=generation[number])
                row["key"]["laddr"][-1] = row["key"]["raddr"][-1] = rng.integers(1, 4)
                edges[number] = row
            elif number in edges and rng.random() < 0.05:
                into = aggregator.survivor(number) if freed_by_kernel else None
                if freed_by_kernel:
                    aggregator.folded(number, into)
                if into is not None:
                    edges[into]["sent_bytes"] += edges[number]["sent_bytes"]
                del edges[number]
                generation[number] += 1
        for row in edges.values():
            row["sent_bytes"] += np.uint64(rng.integers(100))
        snapshot = aggregator.update(drain(edges))
        now = dict(zip(snapshot.pairs, total(snapshot).tolist(), strict=True))
        assert all(now[pair] >= value for pair, value in before.items() if pair in now)
        assert sum(now.values()) >= sum(int(row["sent_bytes"]) for row in edges.values())
        before = now


def test_moves_alone_neither_lose_nor_double(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    aggregator = Aggregator(identity(tmp_path))
    rows = {}
    for number in rng.permutation(np.arange(1, 60)).tolist():
        row = (client if number % 2 else server)(f"p{number % 3}", cgroup=number)
        row["key"]["laddr"][-1] = row["key"]["raddr"][-1] = number % 7
        rows[number] = row
        for each in rows.values():
            each["sent_bytes"] += np.uint64(rng.integers(1000))
        snapshot = aggregator.update(drain(rows))
        assert int(total(snapshot).sum()) == sum(int(each["sent_bytes"]) for each in rows.values())


def test_budget_folds_and_says_so(tmp_path: Path) -> None:
    aggregator = Aggregator(identity(tmp_path), max_series=1000)
    rows = {n: slot(port=n, sent_bytes=1) for n in range(1, 101)}
    snapshot = aggregator.update(drain(rows))
    values = shown(snapshot)
    assert snapshot.agent.series <= 1000
    assert values["source", "other", "other"] == 100 - (len(snapshot.pairs) - 1)
    assert snapshot.agent.series + snapshot.agent.series_folded == 54 * 101
    assert int(snapshot.column("tcp_sent_bytes").sum()) == 100
    # an admitted pair goes: there is room for a new one, and the folded ones stay where they are
    kept = [int(pair[6]) for pair in snapshot.pairs if pair[6]]
    del rows[kept[0]]
    snapshot = aggregator.update(drain({**rows, 200: slot(port=200)}))
    assert shown(snapshot)["source", "other", "other"] == values["source", "other", "other"]
    assert "200" in [pair[6] for pair in snapshot.pairs]


def test_overflow_slot_has_its_own_pair_and_counter(aggregator: Aggregator) -> None:
    row = np.zeros((), client().dtype)
    row["sent_bytes"], row["received_bytes"] = 30, 12
    snapshot = aggregator.update(drain({0: row, 1: slot(sent_bytes=1)}))
    assert shown(snapshot)["source", "overflow", "overflow"] == 30
    assert snapshot.agent.overflow_bytes == (30, 12)
    assert snapshot.agent.unattributed_bytes == (0, 1)


def test_unattributed_bytes_stay_when_edges_go_or_get_names(aggregator: Aggregator) -> None:
    first = aggregator.update(drain({1: slot(sent_bytes=100, received_bytes=1), 2: client("", sent_bytes=9)}))
    assert first.agent.unattributed_bytes == (9, 101)
    second = aggregator.update(drain({2: client("", sent_bytes=10)}))
    assert second.agent.unattributed_bytes == (10, 101)


def test_stages_add_up(tmp_path: Path) -> None:
    ticks = iter(range(100))
    aggregator = Aggregator(identity(tmp_path), clock=lambda: float(next(ticks)))
    aggregator.update(drain({}, seconds={"copy": 0.5}))
    snapshot = aggregator.update(drain({}, seconds={"copy": 0.25}))
    assert snapshot.agent.stages == {"copy": (2, 0.75), "identity": (2, 2.0), "aggregate": (2, 2.0)}


def test_long_and_odd_names(aggregator: Aggregator, tmp_path: Path) -> None:
    aggregator = Aggregator(identity(tmp_path, [f"{'n' * 300}=203.0.113.0/24"]))
    snapshot = aggregator.update(drain({1: slot()}))
    assert snapshot.pairs[0][4] == "n" * 200
    assert snapshot.agent.labels_truncated > 0


def test_bad_settings_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'colour' is not a label; choose from .*process"):
        Aggregator(identity(tmp_path), ["colour"])
    with pytest.raises(ConfigError, match="twice"):
        Aggregator(identity(tmp_path), ["process", "process"])
    with pytest.raises(ConfigError, match="max-series 10: at least"):
        Aggregator(identity(tmp_path), max_series=10)
