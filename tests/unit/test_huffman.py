# SPDX-License-Identifier: Apache-2.0
"""HPACK's Huffman code, against python-hyper's."""

from __future__ import annotations

import random

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from weir.kernel.huffman import codes, table


def test_codes() -> None:
    found = {symbol: (code, bits) for symbol, code, bits in codes()}
    wanted = enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True))
    assert found == dict(wanted)


def test_any_text() -> None:
    seed = random.randrange(1 << 32)
    chance, steps = random.Random(seed), table()
    encoder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    assert len(steps) == 4096
    for _ in range(500):
        text = bytes(
            chance.choices(range(256) if chance.random() < 0.3 else b"/usersid42-_.", k=chance.randint(0, 60))
        )
        place, found = 0, bytearray()
        for byte in encoder.encode(text):
            for bits in (byte >> 4, byte & 15):
                step = steps[16 * place + bits]
                place = step.place
                if step.byte is not None:
                    found.append(step.byte)
        assert bytes(found) == text, seed
