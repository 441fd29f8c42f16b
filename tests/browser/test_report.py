# SPDX-License-Identifier: Apache-2.0
"""``weir report``: the file of a real session, and of made-up ones, as its reader uses it."""

from __future__ import annotations

import random
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import Open
from tests.kernel.agents import ASKING, command, environment, until
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get
from tests.kernel.peers.netns import Netns
from tests.unit.test_views_graph import asked, edge
from weir.views.graph import Recorder
from weir.views.page import html

TIMES, PORT = 23, 7080
TILES = "#tiles div"


def made(names: list[str], links: list[tuple[int, int]], steps: int = 20, **more: Any) -> dict[str, Any]:
    """A picture; the first link has failed requests, the second failed connects."""
    rng, recorder = random.Random(1), Recorder()
    rows = [edge(str(n), names[a], names[b], **more) for n, (a, b) in enumerate(links)]
    load = [int(10 ** rng.uniform(2, 6)) for _ in rows]
    for step in range(steps + 1):
        now = [
            replace(row, sent_bytes=step * load[n], received_bytes=step, opened=step)
            for n, row in enumerate(rows)
        ]
        if len(now) > 1:
            now[1] = replace(now[1], failed={**now[1].failed, "refused": step})
        requests = [asked(row.id, "200", step * 7, durations={"0.002": step * 7}) for row in rows]
        requests.append(asked("0", "503", step))
        recorder.add(now, requests, float(step))
    return recorder.picture()


def written(folder: Path, picture: dict[str, Any], *notices: str) -> Path:
    path = folder / "report.html"
    text, _ = html({**picture, "about": "node-7, 20 s.", "notices": notices}, "Weir report")
    path.write_text(text, encoding="utf-8")
    return path


def small(folder: Path) -> Path:
    names = ["shop/buyer", "shop/web", "pay/till", "infra/db"]
    return written(folder, made(names, [(0, 1), (1, 2), (1, 3), (0, 3)]))


def tiles(page: Any) -> dict[str, str]:
    return {
        row.locator("dt").inner_text(): row.locator("dd").inner_text() for row in page.locator(TILES).all()
    }


def test_a_real_session(opened: Open, instance: str, netns: Netns, tmp_path: Path) -> None:
    """Requests and bytes of the file are those that were made while it watched."""
    path = tmp_path / "session.html"
    options = (
        "report",
        "--duration",
        "6",
        "--output",
        str(path),
        "--instance",
        instance,
        "--netns",
        str(netns.path),
    )
    with Dialogues(netns) as talks, subprocess.Popen(
        command(*options), stderr=subprocess.PIPE, text=True, env=environment(**ASKING)
    ) as session:  # fmt: skip
        assert session.stderr is not None
        assert session.stderr.readline().startswith("watching for 6 s (alone on ")
        time.sleep(1.5)
        talks.listen(address="127.0.0.1", port=PORT)
        for _ in range(TIMES):
            talks.once(PORT, [(CLIENT, get()), (SERVER, answer(200))], "127.0.0.1")
        assert session.wait(60) == 0, session.stderr.read()
        assert session.stderr.read().startswith(f"{path}: ")
    page = opened(path)
    assert tiles(page)["Requests"] == str(TIMES)
    assert tiles(page)["Connections opened"] == str(TIMES)
    assert tiles(page)["Success rate"] == "100.00 %"
    sent = TIMES * (len(get()) + len(answer(200)))
    assert tiles(page)["Bytes"] == (f"{sent} B" if sent < 1000 else f"{sent / 1000:.2f} kB")
    row = page.locator("#table tbody tr").first
    assert [row.locator("td").nth(at).inner_text() for at in (2, 3, 9)] == [str(PORT), "tcp", str(TIMES)]
    assert page.locator(".node").count() == 1  # a process that talks to itself


def test_filters_and_details(opened: Open, tmp_path: Path) -> None:
    page = opened(small(tmp_path))
    assert (page.locator(".node").count(), page.locator(".link").count()) == (4, 4)
    page.get_by_label("Namespace").select_option(label="infra")
    assert (page.locator(".node").count(), page.locator("#table tbody tr").count()) == (3, 2)
    page.get_by_label("Namespace").select_option(label="all")
    page.get_by_label("Name", exact=True).fill("TILL")
    assert page.locator("#table tbody tr").count() == 1
    page.get_by_label("Name", exact=True).fill("")
    page.get_by_role("button", name="shop/web, pod").click()
    assert page.locator("#details h3").inner_text() == "shop/web"
    assert page.locator("#details li").count() == 3
    assert "160 requests, success 87.50 %" in page.locator("#details").inner_text()


def test_what_failed_is_not_told_by_colour_alone(opened: Open, tmp_path: Path) -> None:
    page = opened(small(tmp_path))
    assert sorted(page.locator("#canvas .failed").all_text_contents()) == ["12.50 % failed", "50.00 % failed"]
    dashes = page.locator(".failing .seen").first.evaluate("e => getComputedStyle(e).strokeDasharray")
    assert dashes == "7px, 4px"


def test_the_keyboard_is_enough(opened: Open, tmp_path: Path) -> None:
    page = opened(small(tmp_path))
    page.get_by_role("button", name="infra/db, pod").focus()
    page.keyboard.press("Enter")
    assert page.locator("#details h3").inner_text() == "infra/db"
    before = page.locator("#canvas > svg > g").get_attribute("transform")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    assert page.locator("#canvas > svg > g").get_attribute("transform") != before
    page.get_by_role("button", name="Whole map").press("Enter")
    assert page.locator("#canvas > svg > g").get_attribute("transform") == before


def test_sorting(opened: Open, tmp_path: Path) -> None:
    page = opened(small(tmp_path))
    names = page.locator("#table tbody tr td:first-child")
    page.get_by_role("button", name="Source").click()
    assert names.all_inner_texts() == ["shop/buyer", "shop/buyer", "shop/web", "shop/web"]
    page.get_by_role("button", name="Source").click()
    assert names.all_inner_texts() == ["shop/web", "shop/web", "shop/buyer", "shop/buyer"]
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(opened: Open, tmp_path: Path, scheme: str) -> None:
    """axe-core finds nothing."""
    page = opened(small(tmp_path), scheme)
    page.get_by_role("button", name="shop/web, pod").click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_hostile_names(opened: Open, tmp_path: Path) -> None:
    """HTML, quotes, 10 kB, right to left, emoji: shown as text, and nothing of the page is moved by them."""
    odd = ["x/<img src=x onerror=alert(1)>", "x/</script><script>alert(1)</script>", f"x/{'long' * 2500}",
           "x/\u202eevil\u202c עברית", "x/👩‍👩‍👧‍👦 \u0000 \u2028", "x/'\"&amp;`${alert(1)}`",
           "<b>{data}/{script}"]  # fmt: skip
    links = [(n, n + 1) for n in range(len(odd) - 1)]
    page = opened(written(tmp_path, made(odd, links), "<i>notice</i>"))
    assert page.locator("#notices").inner_text() == "<i>notice</i>"
    assert page.locator("img, b, i, #canvas script").count() == 0
    assert page.locator(".node").count() == len(odd)
    shown = page.locator("#table tbody td:first-child").all_inner_texts()
    assert "x/<img src=x onerror=alert(1)>" in shown
    assert max(map(len, shown)) <= 300
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_nothing_happened(opened: Open, tmp_path: Path) -> None:
    page = opened(written(tmp_path, Recorder().picture(), "Nothing was sent"))
    assert tiles(page)["Bytes"] == "0 B"
    assert page.locator(".node").count() == 0


def test_speed(opened: Open, tmp_path: Path) -> None:
    """200 nodes and 1,000 links: painted within a second, and 30 frames a second while the map is dragged."""
    rng = random.Random(2)
    names = [f"ns-{n % 9}/workload-{n}" for n in range(200)]
    pairs = [(a, b) for a in range(200) for b in range(200) if a < b]
    page = opened(written(tmp_path, made(names, rng.sample(pairs, 1000), 10)))
    until(lambda: page.evaluate("performance.getEntriesByType('paint').length") == 2, 10)
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted < 1000
    page.evaluate("""() => {
        window.frames_ = 0;
        const tick = () => { window.frames_ += 1; requestAnimationFrame(tick); };
        requestAnimationFrame(tick);
    }""")
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 400, box["y"] + 100)
    page.mouse.down()
    before, began = page.evaluate("window.frames_"), time.monotonic()
    for step in range(120):
        page.mouse.move(box["x"] + 400 + step, box["y"] + 100 + step / 2)
    frames = (page.evaluate("window.frames_") - before) / (time.monotonic() - began)
    page.mouse.up()
    print(f"first paint {painted:.0f} ms, {frames:.0f} frames a second")
    assert frames >= 30
