# SPDX-License-Identifier: Apache-2.0
"""The file of a report: how long is watched, what it holds, where it is written."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_views_graph import edge
from weir.errors import ConfigError, WeirError
from weir.views.page import html
from weir.views.report import destination, record, write_report
from weir.views.requests import RequestRow
from weir.views.rows import EdgeRow

ROW = edge("a", "shop/buyer", "shop/web")


class Script:
    """A source whose pair sends 100 bytes a second; it is read anew every ``pace`` seconds only."""

    def __init__(self, pace: float = 0.0) -> None:
        self.now, self._pace, self.read, self.interrupt = 0.0, pace, 0, float("inf")

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.interrupt:
            raise KeyboardInterrupt

    def sample(self) -> tuple[list[EdgeRow], list[RequestRow]]:
        self.read += 1
        at = self.now if not self._pace else self.now // self._pace * self._pace
        return [replace(ROW, sent_bytes=int(100 * at), age_seconds=500 + at)], []

    def describe(self) -> str:
        return "a script"

    def losses(self) -> Mapping[str, int]:
        return {"untracked": 1003}


@pytest.mark.parametrize(("duration", "reads"), [(5.0, 6), (60.0, 61), (3600.0, 121)])
def test_as_long_as_asked(duration: float, reads: int) -> None:
    script = Script()
    picture = record(script, duration, script.clock, script.sleep)
    assert picture["seconds"][-1] == pytest.approx(duration)
    assert picture["links"][0]["sent"] == 100 * duration
    assert script.read == reads


def test_an_agent_that_takes_its_time() -> None:
    """What it gives twice counts once; where its first new snapshot comes late, that is waited for."""
    script = Script(pace=15.0)
    picture = record(script, 2.0, script.clock, script.sleep)
    assert picture["seconds"] == [pytest.approx(15.0, abs=0.3)]
    assert picture["links"][0]["sent"] == 1500


def test_ended_early() -> None:
    script = Script()
    script.interrupt = 4.0
    assert record(script, 60.0, script.clock, script.sleep)["links"][0]["sent"] == 300


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def test_all_within_one_file() -> None:
    """Its policy lets in just the script and the style that are in it."""
    name = "</script><script>{csp}{script}\u2028"
    page, told = html({"nodes": [name], "notices": [name]}, "<i>Weir</i>")
    assert data_of(page) == {"nodes": [name], "notices": [name]}
    assert "<title>&lt;i&gt;Weir" in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1] == told
    assert "connect-src 'none'" in told
    assert "connect-src 'self'" in html({}, "Weir", asks=True)[1]
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    for tag in ("style", "script"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert text
        digest = base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert "//" not in re.sub(
        r"http://www.w3.org/2000/svg|^//.*|(?<=[{;]) // .*", "", page, flags=re.MULTILINE
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr("weir.views.report.record", lambda source, duration: record(
        source, duration, script.clock, script.sleep))  # fmt: skip
    return script


def test_to_a_file_and_to_standard_output(quick: Script, tmp_path: Path) -> None:
    path, said, out = tmp_path / "report.html", io.StringIO(), io.StringIO()
    path.write_text("older")
    write_report(quick, 5.0, path, out, said, "1.2.3")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # it names what runs here
    data = data_of(path.read_text(encoding="utf-8"))
    assert data["about"].endswith("5 s, a script. Weir 1.2.3.")
    assert data["notices"] == ["Not counted or not listed: untracked, 1,003 times."]
    assert said.getvalue().splitlines() == [
        "watching for 5 s (a script); Ctrl-C ends it early",
        f"{path}: {path.stat().st_size / 1e3:.0f} kB",
    ]
    write_report(quick, 5.0, None, out, io.StringIO(), "")
    assert out.getvalue().startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be(quick: Script, tmp_path: Path) -> None:
    assert destination("-") is None
    assert str(destination("")).startswith("weir-report-")
    for output in (str(tmp_path), str(tmp_path / "none/report.html")):
        with pytest.raises(ConfigError, match="cannot be written"):
            destination(output)
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeirError, match="Is a directory"):
        write_report(quick, 1.0, tmp_path / "folder", io.StringIO(), io.StringIO(), "")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]  # nothing half made
    with pytest.raises(WeirError, match="No such file"):
        write_report(quick, 1.0, tmp_path / "gone/report.html", io.StringIO(), io.StringIO(), "")
