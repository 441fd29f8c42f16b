# SPDX-License-Identifier: Apache-2.0
"""DNS over TCP, query by query: pipelined, answered in any order, several messages for one answer."""

from __future__ import annotations

import random
import struct
from collections import Counter
from pathlib import Path

import pytest

from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues, Line
from tests.kernel.peers.http_text import cut
from tests.kernel.peers.netns import Netns
from tests.kernel.test_dns import (
    AAAA,
    CAA,
    HTTPS,
    NOERROR,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    A,
    counted,
    dnsperf,
)
from tests.kernel.test_http_servers import needed, running
from tests.kernel.watch import Watch, asking, nothing_lost

AXFR = 252


def message(number: int, flags: int, body: bytes) -> bytes:
    text = struct.pack("!6H", number, flags, 1, 0, 0, 0) + body
    return struct.pack("!H", len(text)) + text


def question(kind: int, name: str) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return labels + b"\0" + struct.pack("!2H", kind, 1)


def query(number: int, kind: int = A, name: str = "a.test") -> bytes:
    return message(number, 0x0100, question(kind, name))


def reply(number: int, code: int = NOERROR, more: int = 0, kind: int = A, name: str = "a.test") -> bytes:
    return message(number, 0x8180 | code, question(kind, name) + b"r" * more)


def test_in_turn(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    lines: list[Line] = []
    kinds = [(A, NOERROR), (AAAA, NXDOMAIN), (HTTPS, SERVFAIL), (CAA, NOERROR)] * 7
    for number, (kind, code) in enumerate(kinds):
        name = ".".join("x" * (1 + number % 9) for _ in range(1 + number % 7))
        lines += [(CLIENT, query(number, kind, name)), (SERVER, reply(number, code, 50 * number, kind, name))]
    transfer = [reply(9, 0, 3000, AXFR), reply(9, 0, 9000, AXFR), reply(9, 0, 70, AXFR)]
    lines += [(CLIENT, query(9, AXFR)), *((SERVER, part) for part in transfer)]
    talks.once(port, lines)
    assert counted(watch, place, port) == {
        ("A", NOERROR): 7, ("AAAA", NXDOMAIN): 7, ("HTTPS", SERVFAIL): 7, ("_OTHER", NOERROR): 7,
        ("AXFR", NOERROR): 1,
    }  # fmt: skip
    nothing_lost(watch)


@pytest.mark.parametrize("seed", range(3))
def test_many_at_once_in_any_order(watch: Watch, place: Netns, talks: Dialogues, seed: int) -> None:
    port, rng, total = talks.listen(), random.Random(seed), Counter[tuple[str, int]]()
    lines: list[Line] = []
    for _ in range(7):
        numbers = rng.sample(range(65536), rng.randrange(1, 30))
        kinds = {number: rng.choice([A, AAAA]) for number in numbers}
        asked = b"".join(query(number, kinds[number], "n" * rng.randrange(1, 60)) for number in numbers)
        rng.shuffle(numbers)
        said = b""
        for number in numbers:
            code = rng.choice([NOERROR, NXDOMAIN, SERVFAIL])
            said += reply(number, code, rng.randrange(600), kinds[number])
            total["A" if kinds[number] == A else "AAAA", code] += 1
        lines += [(CLIENT, piece) for piece in cut(rng, asked)] + [
            (SERVER, piece) for piece in cut(rng, said)
        ]
    talks.once(port, [(CLIENT, query(1)), (SERVER, reply(1)), *lines])
    total["A", NOERROR] += 1
    assert counted(watch, place, port) == total
    nothing_lost(watch)


def test_split_at_every_byte(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port, asked, said = talks.listen(), query(7, AAAA) + query(8), reply(8) + reply(7, NXDOMAIN)
    for at in range(14, len(asked)):
        talks.once(port, [(CLIENT, asked[:at]), (CLIENT, asked[at:]), (SERVER, said)])
    for at in range(1, len(said)):
        talks.once(port, [(CLIENT, asked), (SERVER, said[:at]), (SERVER, said[at:])])
    times = len(asked) + len(said) - 15
    assert counted(watch, place, port) == {("AAAA", NXDOMAIN): times, ("A", NOERROR): times}
    nothing_lost(watch)


def test_an_answer_that_nobody_asked_for(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """With the id of a query that an earlier connection left behind."""
    port = talks.listen()
    turn = [(CLIENT, query(7)), (SERVER, reply(7))]
    for _ in range(67):
        talks.once(port, [*turn, (CLIENT, query(9))])
        talks.once(port, [*turn, (SERVER, reply(9))])
    assert counted(watch, place, port) == {("A", NOERROR): 134}


def test_older_connections(place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    number, turn = talks.connect(port), [(CLIENT, query(7)), (SERVER, reply(7))]
    talks.say(number, turn * 2)
    with asking(place, nat="off", udp=False) as young:  # which needs nothing of UDP's
        talks.say(number, turn * 7)
        talks.close(number)
        assert counted(young, place, port) == {("A", NOERROR): 7}


_UNBOUND = """
server:
  interface: 127.0.0.1@5300
  do-daemonize: no
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  logfile: ""
  incoming-num-tcp: 20
  module-config: "iterator"
  local-zone: "test." static
  local-data: "a.test. A 10.0.0.1"
  local-data: "a.test. AAAA fd00::1"
  local-data: "b.test. A 10.0.0.2"
  local-zone: "refused." refuse
remote-control:
  control-enable: no
"""


def test_unbound_under_load(watch: Watch, place: Netns, tmp_path: Path) -> None:
    """As many as dnsperf sent, by response code as it counted them, and a few by dig."""
    needed("unbound", "dnsperf", "dig")
    (tmp_path / "unbound.conf").write_text(_UNBOUND)
    with running(place, 5300, "unbound", "-c", str(tmp_path / "unbound.conf")):
        told, sent = dnsperf(place, tmp_path, "-mtcp")
        for name, kind in (("a.test", "AAAA"), ("none.test", "TXT"), ("a.refused", "A")):
            place.run("dig", "+tcp", "+tries=1", "@127.0.0.1", "-p5300", name, kind)
    found: Counter[int] = Counter()
    for (_, code), n in counted(watch, place, 5300).items():
        found[code] += n
    assert found == told + Counter([NOERROR, NXDOMAIN, REFUSED])
    assert sum(found.values()) == sent + 3
    nothing_lost(watch, "reset_unmatched")
