# SPDX-License-Identifier: Apache-2.0
"""``weir edges``: pairs of both reporters as one line; JSON, CSV, and a drawing whatever names say."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest

from tests.unit.test_views_rows import edge
from weir.errors import ConfigError
from weir.kernel.layout import FAILURES
from weir.views.edges import Edge, print_edges
from weir.views.forms import Csv, form_of
from weir.views.requests import RequestRow
from weir.views.rows import EdgeRow

Sample = tuple[list[EdgeRow], list[RequestRow]]
HOSTILE = 'a"b\\N</b>\n\u202e=1'


class Script:
    """A source that gives one sample after the other, and the clock that sleeps between."""

    def __init__(self, *samples: Sample) -> None:
        self.samples = list(samples)
        self.now = 0.0

    def sample(self) -> Sample:
        return self.samples.pop(0) if len(self.samples) > 1 else self.samples[0]

    def describe(self) -> str:
        return "script"

    def losses(self) -> dict[str, int]:
        return {}

    def printed(self, form: str = "table", *, sort: str = "traffic", filter_text: str = "", limit: int = 50,
                interval: float = 10.0) -> str:  # fmt: skip
        out = io.StringIO()
        print_edges(self, sort, filter_text, limit, form, interval, False, out, lambda: self.now, self._sleep,
                    lambda: 1_700_000_000.5)  # fmt: skip
        return out.getvalue()

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


def asked(row: EdgeRow, n: int, failed: int) -> list[RequestRow]:
    base = RequestRow(
        f"{row.id}-ok", row.id, "http", "GET", "200", "", "success", n - failed, 0.0, {"0.001": n - failed}
    )
    bad = RequestRow(
        f"{row.id}-bad", row.id, "http", "GET", "503", "", "failure", failed, 0.0, {"0.001": failed}
    )
    return [base, bad]


def both(sent: int, received: int, **more: Any) -> list[EdgeRow]:
    """A pair as its two ends have it."""
    ends = {"namespace": "shop", "workload": "web", "remote_namespace": "shop", "remote_workload": "api"}
    far = {"namespace": "shop", "workload": "api", "remote_namespace": "shop", "remote_workload": "web"}
    common: dict[str, Any] = {"protocol": "tcp", "port": 80, "age_seconds": 100.0, **more}
    return [
        edge("one", role="source", kind="deployment", remote_kind="deployment", sent_bytes=sent,
             received_bytes=received, **ends, **common),
        edge("two", role="destination", kind="deployment", remote_kind="deployment", sent_bytes=received,
             received_bytes=sent, **far, **common),
    ]  # fmt: skip


def two() -> Script:
    before, now = both(1000, 5000), both(3000, 25_000, live=2)
    other = edge("three", role="source", namespace="shop", workload="web", remote_workload="external",
                 protocol="tcp", remote_kind="external", port=443, sent_bytes=10,
                 received_bytes=10)  # fmt: skip
    failing = replace(other, failed=dict.fromkeys(FAILURES, 0) | {"refused": 3})
    return Script((
        [*before, other], asked(before[0], 7, 0)),
        ([*now, failing], [*asked(now[0], 27, 5), *asked(now[1], 27, 5)]),
    )  # fmt: skip


def test_a_pair_of_two_reporters_is_one_line() -> None:
    lines = two().printed().splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:4] == ["FROM", "TO", "PORT", "PROT"]
    cells = lines[1].split()
    assert cells[:5] == ["shop/web", "→", "shop/api", "80", "tcp"]
    assert " ".join(cells[7:13]) == "200 B 2.00 kB 2.0 75.00%"
    assert "external" in lines[2]
    assert "3 fail" in lines[2]


def test_json_and_csv_say_the_same() -> None:
    answer = json.loads(two().printed("json"))
    assert {name: answer[name] for name in ("time", "seconds", "total", "truncated")} == {
        "time": 1_700_000_000.5, "seconds": 10.0, "total": 2, "truncated": False,
    }  # fmt: skip
    first, second = answer["edges"]
    assert list(first) == [field.name for field in fields(Edge)]
    wanted = {"sent_bytes": 2000, "received_bytes": 20_000, "requests": 20, "failures": 5,
              "success_rate": 0.75, "sent_bytes_per_second": 200.0, "requests_per_second": 2.0, "live": 2,
              "port": 80}  # fmt: skip
    assert {name: first[name] for name in wanted} == wanted
    assert (second["connect_failures"], second["destination_workload"]) == (3, "external")
    rows = list(csv.DictReader(io.StringIO(two().printed("csv"), newline="")))
    assert [row["destination_workload"] for row in rows] == ["api", "external"]
    assert (rows[0]["sent_bytes"], rows[0]["success_rate"], rows[1]["success_rate"]) == ("2000", "0.75", "")
    assert rows[0]["time"] == "1700000000.5"


def test_all_that_was_counted() -> None:
    answer = json.loads(two().printed("json", interval=0))
    assert answer["seconds"] == 0
    assert answer["edges"][0]["sent_bytes_per_second"] is None
    assert answer["edges"][0]["sent_bytes"] == 1000


@pytest.mark.parametrize(("sort", "first"), [("traffic", "api"), ("name", "external"), ("requests", "api")])
def test_order(sort: str, first: str) -> None:
    answer = json.loads(two().printed("json", sort=sort, limit=1))
    assert answer["edges"][0]["destination_workload"] == first
    assert (answer["total"], answer["truncated"]) == (2, True)


def test_a_filter_leaves_the_others_out() -> None:
    answer = json.loads(two().printed("json", filter_text="port:443"))
    assert [one["port"] for one in answer["edges"]] == [443]


def test_an_order_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="sort 'size': choose from traffic, requests"):
        two().printed(sort="size")


def _drawn(rows: Sequence[EdgeRow]) -> str:
    return Script((list(rows), [])).printed("dot", interval=0)


def test_a_drawing_by_graphviz() -> None:
    """The real one reads it; hostile names are names."""
    if shutil.which("dot") is None:
        pytest.skip("dot is not installed (scripts/setup --tests)")
    text = _drawn([*both(1000, 5000, live=1), edge("x", role="source", workload=HOSTILE, remote_workload="b",
                                                   sent_bytes=1, live=1, protocol="tcp")])  # fmt: skip
    done = subprocess.run(["dot", "-Tjson"], input=text, text=True, capture_output=True, check=True)
    drawn = json.loads(done.stdout)
    assert {node["label"] for node in drawn["objects"]} == {"shop/web", "shop/api", "b", 'a"b\\\\N</b>??=1'}
    (edge_,) = [one for one in drawn["edges"] if "6.00" in one["label"]]
    assert edge_["label"] == "tcp 80\\n6.00 kB"
    assert (
        subprocess.run(["dot", "-Tsvg"], input=text, text=True, capture_output=True, check=True).stderr == ""
    )


def test_formulas_stay_text() -> None:
    """A process may be called what a spreadsheet would run."""
    out = io.StringIO()
    Csv(out).write([{"name": "=cmd|' /C calc'!A0", "n": -3, "more": {"a": "@x", "b": 'say "hi", you'}}],
                   ["name", "n", "more_a", "more_b"])  # fmt: skip
    assert out.getvalue() == 'name,n,more_a,more_b\r\n\'=cmd|\' /C calc\'!A0,-3,\'@x,"say ""hi"", you"\r\n'


def test_one_form_at_a_time() -> None:
    with pytest.raises(ConfigError, match="--json and --dot: one of them"):
        form_of(as_json=True, as_csv=False, as_dot=True)
