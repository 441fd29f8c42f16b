# SPDX-License-Identifier: Apache-2.0
"""``weir map``: the page of a cluster, from a real Prometheus that scrapes two agents of a town."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.conftest import Open, browser, opened
from tests.browser.test_report import tiles
from tests.cluster.test_dashboards import Asked, asked
from tests.kernel.agents import command, environment, until

__all__ = ["asked", "browser", "opened"]


@pytest.fixture(scope="module")
def served(asked: Asked) -> Iterator[str]:
    """The address of a map that asks every 2 s."""
    words = ["map", "--prometheus", asked.url, "--listen", "127.0.0.1:0", "--window", "10", "--step", "2"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command(*words), stderr=log, env=environment(), cwd="/")
        try:
            found: list[str] = []

            def ready() -> bool:
                log.seek(0)
                found[:] = re.findall(r"map=(http://\S+)/", log.read())
                return bool(found) or process.poll() is not None

            until(ready)
            assert found
            yield found[0]
        finally:
            process.terminate()
            assert process.wait(10) == 0


def graph(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/api/v1/graph?history=1", timeout=30) as reply:
        return dict(json.load(reply))


def links(picture: dict[str, Any]) -> dict[tuple[str, str, int], dict[str, Any]]:
    names = [node["name"] for node in picture["nodes"]]
    return {(names[one["source"]], names[one["destination"]], one["port"]): one for one in picture["links"]}


def test_what_the_town_does(served: str) -> None:
    """Each pair once, though two agents report it; success, networks, protocols and ports as they are."""
    found = links(graph(served))
    assert set(found) == {
        ("web", "api", 80), ("web", "dns", 53), ("web", "echo", 700), ("web", "cache", 9),
        ("api", "cache", 6379),
        ("web", "store", 80), ("web", "store", 800),
    }  # fmt: skip
    api = found["web", "api", 80]
    assert api["failures"] / (api["requests"] - api["unknown"]) == pytest.approx(0.25, abs=0.05)
    assert {name for name, _ in api["results"]} >= {"http GET 200", "http GET 503"}
    assert sum(api["durations"].values()) > 0
    dns = found["web", "dns", 53]
    assert (dns["protocol"], dns["network"]) == ("udp", "")
    assert dns["requests"] > 0
    assert found["web", "cache", 9]["failed"] > 0
    store = found["web", "store", 800]
    assert (store["protocol"], store["network"]) == ("tcp", "prod/storage")
    assert store["sent"] > 1_000_000


def test_totals_grow(served: str) -> None:
    before = graph(served)
    until(lambda: graph(served)["time"] > before["time"])
    now = graph(served)
    key = ("web", "store", 800)
    assert links(now)[key]["sent"] > links(before)[key]["sent"]
    assert len(now["history"]["steps"]) == 40


def test_the_page(served: str, opened: Open) -> None:
    """From the first moment there is something to see; a pair by its figures; the console is empty."""
    page = opened(served + "/")
    until(lambda: page.locator("#canvas .node").count() == 6, 30)
    assert set(page.locator("#canvas .node text").all_text_contents()) >= {"web", "store"}
    assert "the last " in page.locator("#about").inner_text()
    share = float(tiles(page)["Success rate"].removesuffix(" %"))
    assert 70 < share < 90
    assert page.locator("#charts path.plot").count() > 0
    if folder := os.environ.get("WEIR_PREVIEW"):
        page.screenshot(path=f"{folder}/map.png", full_page=True)
    page.locator("#network").select_option("prod/storage")
    assert page.locator("#canvas .node").count() == 2


def test_a_prometheus_that_is_not_there() -> None:
    """Is said on the page and in the log, and nothing ends."""
    words = ["map", "--prometheus", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command(*words), stderr=subprocess.PIPE, text=True, env=environment(), cwd="/"
    ) as process:
        assert process.stderr is not None
        (url,) = re.findall(r"map=(http://\S+)/", process.stderr.readline())
        with pytest.raises(urllib.error.HTTPError) as told:
            graph(url)
        assert told.value.code == 502
        assert "cannot be reached" in json.load(told.value)["error"]
        process.terminate()
        assert process.wait(10) == 0


def test_bad_input_is_one_line() -> None:
    words = command("map", "--prometheus", "ftp://x")
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment(), cwd="/")
    assert done.returncode == 2
    assert done.stderr == "weir: --prometheus ftp://x: an address such as http://127.0.0.1:9090 is needed\n"
