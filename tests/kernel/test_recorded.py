# SPDX-License-Identifier: Apache-2.0
"""Conversations of real clients and servers (record.py), said again, and in other pieces."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.kernel.peers.dialogue import Dialogues
from tests.kernel.peers.http_text import cut
from tests.kernel.peers.netns import Netns
from tests.kernel.test_http import counted
from tests.kernel.watch import Watch, nothing_lost

RECORDED = {path.stem: json.loads(path.read_text())
            for path in sorted((Path(__file__).parent / "recorded").glob("*.json"))}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_recorded(watch: Watch, place: Netns, talks: Dialogues, name: str) -> None:
    """As many as the client was told of, by status."""
    rng, port = random.Random(name), talks.listen()
    times = 13
    for time in range(times):
        for lines in RECORDED[name]["connections"]:
            texts = [(who, bytes.fromhex(text)) for who, text in lines]
            if time:  # but for an end's first one, which tells what is spoken
                whole = dict(reversed(texts))
                texts = [(who, piece) for who, text in texts
                         for piece in ([text] if text is whole[who] else cut(rng, text))]  # fmt: skip
            talks.once(port, texts)
    wanted = {
        (protocol, method, status): times * n for protocol, method, status, n in RECORDED[name]["counts"]
    }
    assert counted(watch, place, port) == wanted
    nothing_lost(watch)
