# SPDX-License-Identifier: Apache-2.0
"""HTTP/1 connections that an answer 101 makes HTTP/2 (RFC 7540 3.2), or what is not read."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues, Line
from tests.kernel.peers.http2_talk import Spoken
from tests.kernel.peers.http_text import answer, cut, get
from tests.kernel.peers.netns import Netns
from tests.kernel.test_http import counted, http
from tests.kernel.test_http2 import http2
from tests.kernel.test_http_servers import needed, running, served
from tests.kernel.watch import Watch, asking, nothing_lost

SWITCHES = b"HTTP/1.1 101 Switching Protocols\r\nServer: test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
_APACHE = 8088
_NAMES = {"HTTP/1.1": "http", "HTTP/2.0": "http2"}
APACHE_CONF = """
ServerName localhost
ServerRoot {home}
PidFile {home}/pid
ErrorLog {home}/error.log
Listen 127.0.0.1:{port}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule http2_module /usr/lib/apache2/modules/mod_http2.so
Protocols h2c http/1.1
H2Upgrade on
DocumentRoot {home}/html
Redirect 302 /moved /
Redirect 410 /gone
LogFormat "%H %m %>s" counts
CustomLog {home}/access.log counts
"""


def asks(spoken: Spoken, method: str = "GET", body: bytes = b"") -> bytes:
    """The request that asks for HTTP/2."""
    settings = f"HTTP2-Settings: {spoken.settings.decode()}"
    return get("/first", method, body, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", settings)


def upgraded(spoken: Spoken, status: int, switches: bytes = SWITCHES) -> list[Line]:
    """A connection from its first byte on: the first request's answer, three more requests."""
    (_, greeting), *rest = spoken.lines()
    spoken.answer(1, status, ("server", "h2"), body=b"first")
    for more in (200, 404, 201):
        spoken.answer(spoken.ask("PUT", "/more", ("x-a", "b" * 20), body=b"q" * 9), more, body=b"y" * 7)
    return [(CLIENT, asks(spoken)), (SERVER, switches), (SERVER, greeting), *rest, *spoken.lines()]


def together(lines: list[Line]) -> list[Line]:
    """What one end says at once is one piece."""
    joined: list[Line] = []
    for who, text in lines:
        if joined and joined[-1][0] == who:
            joined[-1] = who, joined[-1][1] + text
        else:
            joined.append((who, text))
    return joined


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("pieces", ["one by one", "together"])
def test_the_first_request(watch: Watch, place: Netns, talks: Dialogues, family: str, pieces: str) -> None:
    """It is HTTP/2's first stream: counted once, by the status that it gets there."""
    port, wanted = talks.listen(family), Counter[tuple[str, str, int]]()
    for status in (200, 204, 302, 404, 503):
        lines = upgraded(Spoken(upgrade=True), status)
        talks.once(port, together(lines) if pieces == "together" else lines)
        wanted += Counter(http2(PUT_200=1, PUT_404=1, PUT_201=1)) + Counter({("http2", "GET", status): 1})
    assert counted(watch, place, port) == wanted
    nothing_lost(watch)


@pytest.mark.parametrize(
    "switches",
    [
        SWITCHES.replace(b"Upgrade: h2c\r\n", b"").replace(
            b"101 ", b"101 x\r\nUPGRADE:H2C\r\nContent-Length: 0\r\nx: "
        ),
        SWITCHES.replace(b"Server: test", b"Server: " + b"t" * 300 + b"\r\nuser: u\r\nTransfer: t"),
    ],
)  # fmt: skip
def test_split_at_every_byte(watch: Watch, place: Netns, talks: Dialogues, switches: bytes) -> None:
    """However the head is written and cut."""
    lines, port = upgraded(Spoken(upgrade=True), 200, switches), talks.listen()
    said = switches + lines[2][1]
    for at in range(1, len(said)):
        talks.once(port, [lines[0], (SERVER, said[:at]), (SERVER, said[at:]), *lines[3:]])
    times = len(said) - 1
    assert counted(watch, place, port) == http2(GET_200=times, PUT_200=times, PUT_404=times, PUT_201=times)
    nothing_lost(watch)


def test_with_a_body(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port, spoken = talks.listen(), Spoken(upgrade=True)
    lines = upgraded(spoken, 201)
    before = [(CLIENT, get()), (SERVER, answer(200, b"x"))]
    talks.once(port, [*before, (CLIENT, asks(spoken, "POST", b"q" * 9000)), *lines[1:]])
    wanted = Counter(http2(POST_201=1)) + Counter(http2(PUT_200=1, PUT_404=1, PUT_201=1))
    assert counted(watch, place, port) == wanted + Counter(http(GET_200=1))
    nothing_lost(watch)


def test_it_takes_time(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """From the HTTP/1 request to the answer on its stream."""
    port = talks.listen()
    number, lines = talks.connect(port), upgraded(Spoken(upgrade=True), 200)
    at = next(i for i, (who, text) in enumerate(lines) if who == SERVER and text.endswith(b"first"))
    talks.say(number, lines[:at])
    time.sleep(0.3)
    talks.say(number, lines[at:])
    talks.close(number)
    counted(watch, place, port)
    for role in (1, 2):
        rows = watch.request_rows(place, role, port)
        (took,) = (int(row["sum_ns"]) for row in rows if row["key"]["method"] == 2)
        assert 0.3e9 < took < 2e9


def test_never_answered(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    lines = upgraded(Spoken(upgrade=True), 200)
    for number in range(2, 5):
        talks.once(port, lines[:number])
    assert counted(watch, place, port) == {("http2", "GET", 0): 3}
    nothing_lost(watch)


@pytest.mark.parametrize("other", ["websocket", "h2cx", "h2", ""])
def test_other_protocols(watch: Watch, place: Netns, talks: Dialogues, other: str) -> None:
    """The request is answered by 101; after it, turns."""
    port = talks.listen()
    upgrade = f"Upgrade: {other}".encode() if other else b"X: y"
    switches = SWITCHES.replace(b"Upgrade: h2c", upgrade)
    lines = [(CLIENT, get()), (SERVER, answer(200, b"x")), (CLIENT, get("/ws", "GET", b"", "Upgrade: a"))]
    for cut_at in range(1, len(switches), 7):
        talks.once(port, [*lines, (SERVER, switches[:cut_at]), (SERVER, switches[cut_at:]),
                          *[(CLIENT, b"\x81\x85abcdefghi"), (SERVER, b"\x81\x05hello")] * 3])  # fmt: skip
    times = len(range(1, len(switches), 7))
    assert counted(watch, place, port) == {**http(GET_200=times, GET_101=times), ("tcp", "", 0): 3 * times}
    nothing_lost(watch)


def test_an_upgrade_that_is_not_taken(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port, spoken = talks.listen(), Spoken(upgrade=True)
    talks.once(port, [(CLIENT, asks(spoken)), (SERVER, answer(200, b"no", "Upgrade: h2c"))] * 7)
    assert counted(watch, place, port) == http(GET_200=7)
    nothing_lost(watch)


@pytest.mark.parametrize("seed", range(4))
def test_any_pieces(watch: Watch, place: Netns, talks: Dialogues, seed: int) -> None:
    rng, port, wanted = random.Random(seed), talks.listen(), Counter[tuple[str, str, int]]()
    for _ in range(40):
        status = rng.choice([200, 204, 404, 503])
        lines = together(upgraded(Spoken(upgrade=True), status))
        talks.once(port, [(who, piece) for who, text in lines for piece in cut(rng, text)])
        wanted += Counter(http2(PUT_200=1, PUT_404=1, PUT_201=1)) + Counter({("http2", "GET", status): 1})
    assert counted(watch, place, port) == wanted, f"seed {seed}"
    nothing_lost(watch)


@pytest.fixture
def apache(place: Netns, tmp_path: Path) -> Iterator[Path]:
    """Its log."""
    needed("apache2", "curl")
    (tmp_path / "html").mkdir()
    (tmp_path / "html/index.html").write_text("x" * 612)
    conf = tmp_path / "apache.conf"
    conf.write_text(APACHE_CONF.format(home=tmp_path, port=_APACHE))
    with running(place, _APACHE, "apache2", "-X", "-f", str(conf)):
        yield tmp_path / "access.log"


def test_apache(watch: Watch, place: Netns, apache: Path) -> None:
    """As its log has it. What it redirects it does not upgrade."""
    url = f"http://127.0.0.1:{_APACHE}"
    for _ in range(31):
        for path in ("/index.html", "/none", "/moved", "/gone", "/index.html"):
            place.run("curl", "-s", "--http2", url + path)
    place.run("curl", "-so/dev/null", "--http1.1", url + "/index.html")
    lines = apache.read_text().split("\n")[:-1]
    own = Counter((_NAMES[line.split()[0]], line.split()[1], int(line.split()[2])) for line in lines)
    assert own.pop(("http", "GET", 101)) == 31 * 3  # and each of them once more, as HTTP/2's
    assert own["http2", "GET", 200] == 31 * 2
    assert served(watch, place, _APACHE) == own
    nothing_lost(watch, "reset_unmatched")


def test_an_answer_that_cannot_be_read(place: Netns, talks: Dialogues) -> None:
    """The preface tells all the same; what the first request was answered is not known, and said."""
    port, odd = talks.listen(), SWITCHES.replace(b"Server: test", b"Content-Length: many")
    with asking(place, nat="off") as watch:
        for _ in range(17):
            talks.once(port, upgraded(Spoken(upgrade=True), 200, odd))
        assert counted(watch, place, port) == http2(PUT_200=17, PUT_404=17, PUT_201=17)
        assert watch.drain().events["request_unparsed"] == 2 * 17
