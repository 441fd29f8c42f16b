# SPDX-License-Identifier: Apache-2.0
"""Conversations that went wrong: the parsers in the kernel, over real sockets.

``corpus/`` has a conversation for each protocol and what earlier runs found, one file each: who says what,
in hexadecimal. Each is said with bytes changed, left out, put in, said twice, or taken from another one, in
random pieces. Whatever is said: both ends count the same, every row has words, and the next connection is
read as if nothing had happened.
"""

from __future__ import annotations

import json
import os
import random
from functools import partial
from pathlib import Path

import pytest

from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues, Line
from tests.kernel.peers.http_text import answer, cut, get
from tests.kernel.peers.netns import Netns
from tests.kernel.watch import Watch
from weir.kernel.layout import DESTINATION, SOURCE

CORPUS = {path.stem: [(str(who), bytes.fromhex(text)) for who, text in json.loads(path.read_text())]
          for path in sorted((Path(__file__).parent / "corpus").glob("*.json"))}  # fmt: skip
#: Conversations made of each; WEIR_FUZZ=100000 for a night.
TIMES = int(os.environ.get("WEIR_FUZZ", "61"))
_BYTES = (0, 1, 0x0A, 0x0D, 0x20, 0x7F, 0x80, 0xFE, 0xFF)


def mutated(rng: random.Random, text: bytes, others: list[bytes]) -> bytes:
    """The text with up to four changes."""
    data = bytearray(text)
    for _ in range(rng.randrange(5)):
        at = rng.randrange(len(data) + 1)
        size = rng.choice((1, 1, 2, 4, rng.randrange(1, 60)))
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice(_BYTES)
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = rng.randbytes(size)
            case 4:
                data[at:at] = data[at : at + size]
            case _:
                other = rng.choice(others)
                begin = rng.randrange(len(other))
                data[at : at + size] = other[begin : begin + size]
    return bytes(data) or b"\0"


def ends(watch: Watch, place: Netns, port: int) -> list[dict[tuple[str, str, int], int]]:
    """What either end has counted, but for DNS queries without an answer, which count some seconds later."""
    found = [watch.requests(place, role, port) for role in (SOURCE, DESTINATION)]
    return [{what: n for what, n in end.items() if (what[0], what[2]) != ("dns", 0)} for end in found]


def same(watch: Watch, place: Netns, port: int) -> bool:
    """Whether both ends count the same."""
    client, server = ends(watch, place, port)
    return client == server


@pytest.mark.parametrize("name", CORPUS)
def test_what_goes_wrong_stays_there(watch: Watch, place: Netns, talks: Dialogues, name: str) -> None:
    rng = random.Random(os.environ.get("WEIR_FUZZ_SEED", name))
    texts = [text for lines in CORPUS.values() for _, text in lines]
    port, good = talks.listen(), talks.listen()
    watch.mark()
    for _ in range(TIMES):
        lines: list[Line] = [(who, mutated(rng, text, texts)) for who, text in CORPUS[name]]
        pieces = [(who, piece) for who, text in lines for piece in cut(rng, text)]
        number = talks.connect(port)
        talks.say(number, pieces)
        talks.close(number, (SERVER, CLIENT))
        watch.until(partial(same, watch, place, port))
        client, server = ends(watch, place, port)
        assert client == server, json.dumps([(who, text.hex()) for who, text in pieces])
    talks.once(good, [(CLIENT, get()), (SERVER, answer(200, b"x"))] * 7)
    assert watch.requests(place, DESTINATION, good) == {("http", "GET", 200): 7}
