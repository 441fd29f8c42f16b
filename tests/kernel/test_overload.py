# SPDX-License-Identifier: Apache-2.0
"""What is left out while the agent has too much to do, and that all is right again after it."""

from __future__ import annotations

import threading
import time

import pytest

from tests.kernel.agents import ASKING, Agent, Page, weir
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get
from tests.kernel.peers.netns import Netns
from tests.kernel.watch import Watch
from weir.kernel.layout import DESTINATION, SOURCE
from weir.kernel.shed import KernelShed
from weir.kernel.tap import Tap

TALK = [(CLIENT, get()), (SERVER, answer(200, b"x" * 301))]


def counted(watch: Watch, place: Netns, port: int) -> dict[tuple[str, str, int], int]:
    client, server = watch.requests(place, SOURCE, port), watch.requests(place, DESTINATION, port)
    assert client == server
    return client


def pause(watch: Watch, lease: float = 60.0) -> KernelShed:
    shed = KernelShed(watch.kernel.maps, lease)
    shed.without(tap=True, requests=True)
    return shed


def test_requests_in_a_pause_are_not_counted(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    old = talks.connect(port)
    talks.say(old, TALK * 7)
    before = watch.tcp(place, SOURCE, port).payload
    shed = pause(watch)
    talks.say(old, TALK * 13)
    new = talks.connect(port)
    talks.say(new, TALK * 3)
    assert counted(watch, place, port) == {("http", "GET", 200): 7}
    after = watch.tcp(place, SOURCE, port).payload
    said = len(TALK[0][1]), len(TALK[1][1])
    assert (after[0] - before[0], after[1] - before[1]) == (16 * said[0], 16 * said[1]), "bytes are"
    shed.without(tap=False, requests=False)
    talks.say(old, TALK * 5)
    talks.say(new, TALK * 11)
    talks.close(old)
    talks.close(new)
    assert counted(watch, place, port) == {("http", "GET", 200): 7 + 5 + 11}


def test_who_waits_as_it_begins(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """Its answer comes within the pause: no other request's answer is taken for it."""
    port = talks.listen()
    number = talks.connect(port)
    talks.say(number, [*TALK, (CLIENT, get("/waits"))])
    events = watch.drain().events["request_unparsed"]
    shed = pause(watch)
    talks.say(number, [(SERVER, answer(404)), (CLIENT, get("/within"))])
    shed.without(tap=False, requests=False)
    talks.say(number, [(SERVER, answer(500)), *TALK, *TALK])
    talks.close(number)
    assert counted(watch, place, port) == {("http", "GET", 200): 3}
    assert watch.drain().events["request_unparsed"] - events == 2, "told by each end"


@pytest.mark.parametrize("ends", ["client", "server"])
def test_it_begins_within_a_message(watch: Watch, place: Netns, talks: Dialogues, ends: str) -> None:
    port = talks.listen()
    number = talks.connect(port)
    whole = answer(200, b"x" * 997)
    talks.say(number, [(CLIENT, get()), (SERVER, whole[:500])])
    shed = pause(watch)
    talks.say(number, [(SERVER, whole[500:]), *TALK, (CLIENT, get()[:10])])
    if ends == "server":
        talks.say(number, [(CLIENT, get()[10:]), (SERVER, whole[:500])])
    shed.without(tap=False, requests=False)
    talks.say(
        number, [(CLIENT, get()[10:]), (SERVER, whole)] if ends == "client" else [(SERVER, whole[500:])]
    )
    talks.say(number, TALK * 5)
    talks.close(number)
    found = counted(watch, place, port)
    assert found.pop(("http", "GET", 200)) == 1 + 5
    assert not found, "what was cut is nothing else"


def test_several_pauses(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    number = talks.connect(port)
    for _ in range(5):
        talks.say(number, TALK * 3)
        shed = pause(watch)
        talks.say(number, TALK)
        shed.without(tap=False, requests=False)
    talks.close(number)
    assert counted(watch, place, port) == {("http", "GET", 200): 15}


def test_more_than_half_of_the_sequence_space(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """2.3 GB go by in the pause: what comes after it is not taken for something that comes again."""
    size, port = 2_300_000_003, talks.listen()
    number = talks.connect(port)
    talks.say(number, TALK)
    shed = pause(watch)
    talks.pour(number, size)
    shed.without(tap=False, requests=False)
    talks.say(number, TALK * 7)
    talks.close(number)
    assert counted(watch, place, port) == {("http", "GET", 200): 8}
    assert watch.tcp(place, SOURCE, port).payload[0] == size + 8 * len(TALK[0][1])


def test_the_lease_ends(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """An agent that was killed takes nothing away for good."""
    port = talks.listen()
    number = talks.connect(port)
    pause(watch, lease=0.5)
    talks.say(number, TALK)
    time.sleep(0.6)
    talks.say(number, TALK * 3)
    talks.close(number)
    assert counted(watch, place, port) == {("http", "GET", 200): 3}


def test_a_pause_after_a_lease_that_ended(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """An agent that was held longer than its lease goes on with a pause of its own number."""
    port = talks.listen()
    number = talks.connect(port)
    talks.say(number, TALK)
    shed = pause(watch, lease=0.5)
    time.sleep(0.6)
    talks.say(number, [*TALK * 3, (CLIENT, get("/waits"))])
    shed.without(tap=False, requests=True)
    talks.say(number, [(SERVER, answer(404)), (CLIENT, get("/within"))])
    shed.without(tap=False, requests=False)
    talks.say(number, [(SERVER, answer(500)), *TALK, *TALK])
    talks.close(number)
    assert counted(watch, place, port) == {("http", "GET", 200): 6}


def test_nobody_is_told(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    tap, shed = Tap(watch.kernel), KernelShed(watch.kernel.maps, 60)
    shed.without(tap=True, requests=False)
    tap.ask(100, time.monotonic_ns())
    assert tap.held_back()
    assert shed.tapped()
    talks.once(port, TALK * 3)
    assert len(tap.read()) == 0
    shed.without(tap=False, requests=False)
    talks.once(port, TALK * 3)
    assert not tap.held_back()
    assert {int(one["key"]["status"]) for one in tap.read()} == {200}
    tap.stop()
    assert counted(watch, place, port) == {("http", "GET", 200): 6}


class Storm:
    """Scrapes without a pause, by several at once."""

    def __init__(self, agent: Agent) -> None:
        self._agent, self._on = agent, True
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def _run(self) -> None:
        while self._on:
            self._agent.get("/metrics")

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._on = False
        for thread in self._threads:
            thread.join()


def shed(page: Page, plane: str) -> int:
    return page.sum("weir_agent_shed", plane=plane)


def test_an_agent_over_its_cap(instance: str, netns: Netns) -> None:
    """It does without requests while it is scraped too often, says so, and takes them up again."""
    port, total, sent = 8080, "weir_requests_total", "weir_tcp_sent_bytes_total"
    with (
        Dialogues(netns) as talks,
        Agent(instance, (netns,), "--max-cpu", "0.3", env=ASKING).ready() as agent,
    ):
        talks.listen(address="127.0.0.1", port=port)
        number = talks.connect(port, "127.0.0.1")
        talks.say(number, TALK * 7)
        page = agent.fresh()
        assert page.sum(total, reporter="source") == 7
        assert shed(page, "requests") == 0
        with Storm(agent):
            page = agent.page_when(lambda page: shed(page, "requests") == 1, 60)
            assert shed(page, "tap") == shed(page, "requests") == 1
            assert not page.label(total, "reporter"), "what is not known is not shown"
            talks.say(number, TALK * 5)
        page = agent.page_when(lambda page: shed(page, "requests") == 0, 120)
        talks.say(number, TALK * 3)
        page = agent.fresh()
        assert page.sum(total, reporter="source") == page.sum(total, reporter="destination") == 7 + 3
        assert page.sum(sent, reporter="source", destination_port=port) == 15 * len(TALK[0][1])
        assert page.sum("weir_agent_shed_seconds_total", plane="requests") >= 5
        talks.close(number)
    said = "\n".join(agent.log)
    assert 'msg="over the cap: the agent does without a plane"' in said, said
    assert "max_cpu=0.3" in said
    assert 'msg="below the cap: a plane is back"' in said


def test_nothing_is_enough(instance: str, netns: Netns) -> None:
    """All that is optional goes, what is counted is exact all the same, and the page stays."""
    with (
        Dialogues(netns) as talks,
        Agent(instance, (netns,), "--max-memory", "48Mi", "--max-cpu", "0.001", env=ASKING).ready() as agent,
    ):
        port = talks.listen(address="127.0.0.1")
        talks.once(port, TALK * 31, "127.0.0.1")
        page = agent.page_when(lambda page: shed(page, "interval") == 1, 60)
        assert shed(page, "interval") == shed(page, "rtt") == 1
        page = agent.fresh()
        assert page.sum("weir_tcp_sent_bytes_total", reporter="source") == 31 * len(TALK[0][1])
        assert not page.label("weir_tcp_rtt_seconds_count", "reporter")
        assert agent.get("/healthz")[0] == 200


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--max-memory", "12"), "'12' is too little: at least 48Mi are needed"),
        (("--max-memory", "lots"), "'lots' is no size; write it as 128Mi, 128M or 134217728"),
        (("--max-cpu", "-1"), "-1"),
    ],
)
def test_caps_that_cannot_be(given: tuple[str, ...], said: str) -> None:
    done = weir("run", *given)
    assert done.returncode == 2
    assert said in done.stderr
