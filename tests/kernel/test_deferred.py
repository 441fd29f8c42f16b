# SPDX-License-Identifier: Apache-2.0
"""Requests that come before their connection has a socket (TCP_DEFER_ACCEPT): both ends count the same."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http2_talk import Spoken
from tests.kernel.peers.http_text import answer, conversation, cut, get
from tests.kernel.peers.netns import Netns
from tests.kernel.test_http import counted, http
from tests.kernel.test_http2 import http2
from tests.kernel.test_postgres import BEGUN, OK, READY, done, query
from tests.kernel.test_redis import command
from tests.kernel.watch import Watch, asking, nothing_lost
from weir.kernel.layout import DESTINATION, SOURCE


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_keep_alive(watch: Watch, place: Netns, talks: Dialogues, family: str) -> None:
    port = talks.listen(family, defer=True)
    for status in (200, 204, 404, 503, 301):
        empty = None if status == 204 else b"y"
        talks.once(port, [(CLIENT, get()), (SERVER, answer(status, empty))])
    talks.once(port, [(CLIENT, get("/", "PUT")), (SERVER, answer(200, b"x"))] * 31)
    assert counted(watch, place, port) == http(
        GET_200=1, GET_204=1, GET_404=1, GET_503=1, GET_301=1, PUT_200=31
    )
    nothing_lost(watch)


@pytest.mark.parametrize("size", [1, 1500, 3000, 60000])
def test_a_body_behind_it(watch: Watch, place: Netns, talks: Dialogues, size: int) -> None:
    """Bytes of a body that were not kept are stepped over."""
    port = talks.listen(defer=True)
    talks.once(port, [(CLIENT, get("/", "POST", b"q" * size)), (SERVER, answer(201, b"x"))] * 7)
    assert counted(watch, place, port) == http(POST_201=7)
    nothing_lost(watch)


def test_cut_at_every_byte(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """The first piece makes the connection; what it has not comes in the second one."""
    text, port = get("/path", "POST", b"body", "X-Long: " + "l" * 150), talks.listen(defer=True)
    for at in range(1, len(text)):
        talks.once(port, [(CLIENT, text[:at]), (CLIENT, text[at:]), (SERVER, answer(200, b"x"))])
    assert counted(watch, place, port) == http(POST_200=len(text) - 1)
    nothing_lost(watch)


def test_pipelined(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen(defer=True)
    for _ in range(7):
        talks.once(port, [(CLIENT, (get() + get("/", "POST", b"q" * 9)) * 5),
                          (SERVER, (answer(200, b"x") + answer(404, b"yy")) * 5)])  # fmt: skip
    assert counted(watch, place, port) == http(GET_200=35, POST_404=35)
    nothing_lost(watch)


def test_other_protocols(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """Whoever is asked first."""
    web, store, base, odd = (talks.listen(defer=True) for _ in range(4))
    for _ in range(7):
        spoken = Spoken()
        spoken.answer(spoken.ask("PUT", "/x", ("x-a", "b" * 40), body=b"q" * 9), 404, body=b"x" * 5)
        lines = spoken.lines()
        asked = b"".join(text for who, text in lines if who == CLIENT)
        talks.once(web, [(CLIENT, asked), *[line for line in lines if line[0] == SERVER]])
        talks.once(store, [(CLIENT, command("GET", "a")), (SERVER, b"$1\r\nx\r\n")] * 3)
        talks.once(base, [*BEGUN, (CLIENT, query("SELECT 1")), (SERVER, done("SELECT 1") + READY)])
        talks.once(odd, [(CLIENT, b"\x01\x02hello\n"), (SERVER, b"\x03\x04you\n")] * 3)
    assert counted(watch, place, web) == http2(PUT_404=7)
    assert counted(watch, place, store) == {("redis", "GET", 1): 21}
    assert watch.statements(place, base, "postgresql") == {("SELECT", OK): 7}
    assert counted(watch, place, odd) == {("tcp", "", 0): 21}
    nothing_lost(watch)


def test_never_answered(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen(defer=True)
    for order in ((SERVER, CLIENT), (CLIENT, SERVER)):
        for _ in range(7):
            number = talks.connect(port)
            talks.say(number, [(CLIENT, get())])
            talks.close(number, order)
    assert counted(watch, place, port) == http(GET_0=14)
    nothing_lost(watch)


def test_reset_at_once(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """A server that has said nothing is closed before its reset is seen: the client's end tells."""
    port = talks.listen(defer=True)
    for _ in range(7):
        number = talks.connect(port)
        talks.say(number, [(CLIENT, get())])
        talks.close(number, (SERVER, CLIENT), reset=True)
    assert watch.requests(place, SOURCE, port) == http(GET_0=7)
    assert watch.requests(place, DESTINATION, port) == {}
    nothing_lost(watch, "reset_unmatched")


@pytest.mark.parametrize("seed", range(4))
def test_any_conversation(watch: Watch, place: Netns, talks: Dialogues, seed: int) -> None:
    rng, port, total = random.Random(seed), talks.listen(defer=True), Counter[tuple[str, str, int]]()
    for _ in range(60):
        asked, said, counts = conversation(rng)
        number = talks.connect(port)
        for request, reply in zip(asked, said, strict=True):
            talks.say(number, [(CLIENT, piece) for piece in cut(rng, request)])
            talks.say(number, [(SERVER, piece) for piece in cut(rng, reply)])
        talks.close(number)
        total += counts
    assert counted(watch, place, port) == dict(total), f"seed {seed}"
    nothing_lost(watch)


def test_more_than_is_kept(place: Netns, talks: Dialogues) -> None:
    """A head that goes on behind 2 kB of its first segment: the request is right, its end is lost."""
    port, long = talks.listen(defer=True), [f"X-{n}: {'v' * 90}" for n in range(40)]
    with asking(place, nat="off") as watch:
        for _ in range(7):
            talks.once(port, [(CLIENT, get("/", "GET", b"", *long)), (SERVER, answer(200, b"x"))] * 3)
        assert counted(watch, place, port) == http(GET_200=21)
        assert watch.drain().events["request_unparsed"] == 7
