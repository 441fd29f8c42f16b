# SPDX-License-Identifier: Apache-2.0
"""The page that a real agent serves at ``/``: live, of real traffic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import Open
from tests.browser.test_report import tiles
from tests.kernel.agents import ASKING, Agent, until
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get
from tests.kernel.peers.netns import Netns
from weir.views.requests import percentile

PORT = 7081


def ask(talks: Dialogues, times: int, status: int = 200) -> None:
    for _ in range(times):
        talks.once(PORT, [(CLIENT, get()), (SERVER, answer(status))], "127.0.0.1")


def shows(page: Any, name: str, value: str) -> None:
    until(lambda: tiles(page)[name] == value, 30)
    assert tiles(page)[name] == value


@pytest.fixture
def talking(instance: str, netns: Netns) -> Iterator[tuple[Dialogues, Agent]]:
    """An agent of a namespace in which requests are made, of which it knows."""
    with Dialogues(netns) as talks, Agent(instance, (netns,), env=ASKING).ready() as agent:
        talks.listen(address="127.0.0.1", port=PORT)
        ask(talks, 5)
        agent.fresh()
        yield talks, agent


def test_what_happens_is_shown_as_it_happens(opened: Open, talking: tuple[Dialogues, Agent]) -> None:
    """First all that was counted, then what happened since; failures by number."""
    talks, agent = talking
    page = opened(agent.url + "/")
    shows(page, "Requests", "5")
    assert "since it is counted" in page.locator("#about").inner_text()
    ask(talks, 13)
    ask(talks, 3, 503)
    shows(page, "Requests", "16")
    shows(page, "Success rate", "81.25 %")
    assert "the last " in page.locator("#about").inner_text()
    assert page.locator("#canvas .failed").all_text_contents() == ["18.75 % failed"]


def test_place_focus_and_choice_stay(opened: Open, talking: tuple[Dialogues, Agent]) -> None:
    """While new snapshots come in; and it can be held."""
    talks, agent = talking
    page = opened(agent.url + "/")
    shows(page, "Requests", "5")
    page.locator(".node").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    place = page.locator("#canvas > svg > g").get_attribute("transform")
    ask(talks, 7)
    shows(page, "Requests", "7")
    assert page.evaluate("document.activeElement.matches('.node.picked')")
    assert page.locator("#canvas > svg > g").get_attribute("transform") == place
    assert "7 requests" in page.locator("#details").inner_text()
    page.get_by_role("button", name="Pause").click()
    ask(talks, 11)
    page.wait_for_timeout(6000)
    assert tiles(page)["Requests"] == "7"
    page.get_by_role("button", name="Go on").click()
    shows(page, "Requests", "18")


def test_percentiles_with_an_open_bucket(opened: Open, talking: tuple[Dialogues, Agent]) -> None:
    """As views.requests.percentile has it: what took longer than the last bound comes last."""
    page = opened(talking[1].url + "/")
    durations = {"inf": 3, "0.001": 4, "0.5": 3, "0.25": 2}
    shares = (0.1, 0.4, 0.7, 0.99)
    found = page.evaluate("([durations, shares]) => shares.map((q) => percentile(durations, q))",
                          [durations, list(shares)])  # fmt: skip
    assert found == pytest.approx([percentile(durations, share) for share in shares])


def test_colours_by_latency(opened: Open, talking: tuple[Dialogues, Agent]) -> None:
    """Each pair with requests has its figure; a colour says nothing alone."""
    talks, agent = talking
    page = opened(agent.url + "/")
    shows(page, "Requests", "5")
    ask(talks, 11, 503)
    shows(page, "Requests", "11")
    assert page.locator("#canvas .failed").count() == 1
    page.locator("#colour").select_option("latency")
    assert page.locator("#canvas .failed").count() == 0
    (figure,) = page.locator("#canvas .late").all_text_contents()
    assert figure.endswith("s")
    assert page.locator("#canvas [class*=took]").count() == 1
    label = page.locator("#canvas .link").first.get_attribute("aria-label")
    assert f"99 of 100 requests within {figure}" in label
    page.locator("#colour").select_option("failures")
    assert page.locator("#canvas .failed").count() == 1


def test_an_agent_that_goes_is_said(opened: Open, instance: str, netns: Netns) -> None:
    with Agent(instance, (netns,), env=ASKING).ready() as agent:
        page = opened(agent.url + "/", offline=True)
        until(lambda: "since it is counted" in page.locator("#about").inner_text())
        page.context.set_offline(True)
        until(lambda: "does not answer" in page.locator("#trouble").inner_text(), 20)
        assert "what is shown is from before" in page.locator("#trouble").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(opened: Open, talking: tuple[Dialogues, Agent], scheme: str) -> None:
    page = opened(talking[1].url + "/", scheme)
    shows(page, "Requests", "5")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
