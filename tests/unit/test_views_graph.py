# SPDX-License-Identifier: Apache-2.0
"""Samples -> the graph of a report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from weir.views.graph import Recorder
from weir.views.requests import RequestRow
from weir.views.rows import EdgeRow

_TEXTS = {
    "protocol": "tcp",
    "attribution": "cgroup",
    "local_address": "10.0.0.1",
    "remote_address": "10.0.0.2",
}
_FAILED = dict.fromkeys(("refused", "timeout", "unreachable", "reset", "aborted", "local"), 0)


def edge(id_: str, near: str, far: str, role: str = "source", **more: Any) -> EdgeRow:
    """A row; names as NAMESPACE/NAME."""
    given: dict[str, Any] = {name: "" for name, kind in EdgeRow.__annotations__.items() if kind == "str"}
    given |= {name: 0 for name, kind in EdgeRow.__annotations__.items() if kind.startswith(("int", "float"))}
    ends = dict(zip(("namespace", "workload"), near.split("/", 1), strict=True))
    ends |= dict(zip(("remote_namespace", "remote_workload"), far.split("/", 1), strict=True))
    own = {"id": id_, "kind": "pod", "remote_kind": "pod", "role": role, "port": 80, "rtt_p50_us": None}
    return EdgeRow(**{**given, **_TEXTS, **ends, **own, "failed": _FAILED, "age_seconds": 500.0, **more})


def asked(edge_: str, status: str, requests: int, **more: Any) -> RequestRow:
    outcome = "failure" if status.startswith("5") else "success"
    return RequestRow(f"{edge_}/{status}", edge_, "http", "GET", status, "", outcome, requests, 0.0,
                      more.get("durations", {}))  # fmt: skip


def only(picture: dict[str, Any]) -> dict[str, Any]:
    (link,) = picture["links"]
    assert isinstance(link, dict)
    return link


def test_what_happened_in_between_and_not_before() -> None:
    recorder = Recorder()
    row = edge("a", "shop/buyer", "shop/web", sent_bytes=1000, received_bytes=50, opened=7, live=2)
    recorder.add([row], [asked("a", "200", 100)], 10.0)
    later = replace(row, sent_bytes=1500, received_bytes=60, opened=9, live=3, rtt_p50_us=200.0)
    recorder.add([later], [asked("a", "200", 110), asked("a", "503", 2)], 12.0)
    recorder.add([replace(later, sent_bytes=1501)], [asked("a", "200", 110), asked("a", "503", 2)], 14.0)
    picture = recorder.picture()
    link = only(picture)
    assert picture["seconds"] == [2.0, 4.0]
    assert [node["name"] for node in picture["nodes"]] == ["buyer", "web"]
    assert (link["sent"], link["received"], link["opened"], link["live"], link["rtt"]) == (
        501,
        10,
        2,
        3,
        0.0002,
    )
    assert (link["requests"], link["failures"]) == (12, 2)
    assert link["steps"] == [[0, 510, 12, 2], [1, 1, 0, 0]]
    assert link["results"] == [("http GET 200", 10), ("http GET 503", 2)]


def test_two_ends_of_one_link_are_one() -> None:
    """The source's account holds; both tell of the same direction."""
    recorder = Recorder()
    ends = [edge("a", "shop/buyer", "shop/web"), edge("b", "shop/web", "shop/buyer", "destination")]
    recorder.add(ends, [], 0.0)
    recorder.add([replace(ends[0], sent_bytes=100, received_bytes=7),
                  replace(ends[1], sent_bytes=7, received_bytes=100)], [], 1.0)  # fmt: skip
    link = only(recorder.picture())
    assert (link["sent"], link["received"]) == (100, 7)
    alone = Recorder()
    alone.add(ends[1:], [], 0.0)
    alone.add([replace(ends[1], sent_bytes=7, received_bytes=100)], [], 1.0)
    link = only(alone.picture())
    assert (link["sent"], link["received"]) == (100, 7)


@pytest.mark.parametrize(("age", "counted"), [(1.5, 900), (400.0, 0)])
def test_pairs_that_come_later(age: float, counted: int) -> None:
    """All of a new one counts; one that was only not listed before tells nothing of that time."""
    recorder = Recorder()
    recorder.add([], [], 0.0)
    recorder.add([edge("a", "shop/buyer", "shop/web", sent_bytes=900, age_seconds=age, live=1)], [], 2.0)
    assert only(recorder.picture())["sent"] == counted


def test_a_sample_that_is_the_same_is_none() -> None:
    recorder = Recorder()
    row = edge("a", "shop/buyer", "shop/web")
    assert recorder.add([row], [], 0.0)
    assert not recorder.add([row], [], 1.0)
    assert recorder.add([replace(row, sent_bytes=1)], [], 2.0)
    assert recorder.picture()["seconds"] == [2.0]


def test_links_beyond_the_limit_are_counted() -> None:
    recorder = Recorder(limit=3)
    rows = [edge(str(n), "shop/buyer", f"shop/web-{n}") for n in range(7)]
    recorder.add(rows, [], 0.0)
    recorder.add([replace(row, sent_bytes=n + 1) for n, row in enumerate(rows)], [], 1.0)
    picture = recorder.picture()
    assert [link["sent"] for link in picture["links"]] == [7, 6, 5]
    assert picture["links_not_shown"] == 4
    assert len(picture["nodes"]) == 4


def test_all_that_was_counted() -> None:
    """Whatever the age of a pair, with the buckets that a page needs for the time in between."""
    row = edge(
        "a", "shop/buyer", "shop/web", sent_bytes=1000, received_bytes=50, opened=7, live=2, age_seconds=None
    )
    whole = Recorder.whole([row], [asked("a", "200", 100, durations={"0.5": 99, "1": 0})])
    link = only(whole)
    assert (link["sent"], link["received"], link["opened"], link["live"], link["requests"]) == (
        1000,
        50,
        7,
        2,
        100,
    )
    assert link["durations"] == {"0.5": 99}
    assert whole["seconds"] == []


def test_results_that_two_samples_are_told_apart_by_are_all_there() -> None:
    """One that were left out at first and came later would count as new."""
    requests = [asked("a", str(200 + n), 50 - n) for n in range(40)]
    row = edge("a", "shop/buyer", "shop/web")
    recorder = Recorder()
    recorder.add([row], [], 0.0)
    recorder.add([replace(row, sent_bytes=1)], requests, 1.0)
    assert len(only(recorder.picture())["results"]) == 12
    assert len(only(Recorder.whole([row], requests))["results"]) == 40


def test_nothing() -> None:
    assert Recorder().picture() == {"seconds": [], "nodes": [], "links": [], "links_not_shown": 0}
