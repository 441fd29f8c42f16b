# SPDX-License-Identifier: Apache-2.0
"""HPACK's Huffman code (RFC 7541, appendix B) as a table that reads four bits at once (bpf/http2_path.h)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

#: Bits of each symbol's code, 0 to 255 and EOS; the code is canonical, so that these are all of it.
_BITS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c"
    "060a0a0c0d06080b0a0a080b080606060505050606060606060607080f060c0a"
    "0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c"
    "1416141416161617161717171717181718181617181717171715161716171718"
    "1615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b"
    "14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
    "1e"
)
_EOS = 256


@dataclass(frozen=True)
class Step:
    """Where four bits lead: the place in the code's tree, and the byte whose code they end, if any."""

    place: int
    byte: int | None


def codes() -> Iterator[tuple[int, int, int]]:
    """Symbol, code, and how many bits it has: by length, then by symbol, one after the other."""
    code = last = 0
    for bits, symbol in sorted((bits, symbol) for symbol, bits in enumerate(_BITS)):
        code <<= bits - last
        last = bits
        yield symbol, code, bits
        code += 1


def table() -> list[Step]:
    """Steps by place and next four bits (16 * place + bits): 4096 of them; place 0 is between two codes.

    No code is shorter than five bits, so that no step ends two. What goes to EOS, which no string may have,
    leads to place 0.
    """
    tree: list[list[int]] = [[0, 0]]  # places from 0 on; ~symbol where a code ends
    for symbol, code, bits in codes():
        place = 0
        for shift in range(bits - 1, 0, -1):
            bit = code >> shift & 1
            if not tree[place][bit]:
                tree[place][bit] = len(tree)
                tree.append([0, 0])
            place = tree[place][bit]
        tree[place][code & 1] = ~symbol
    return [_step(tree, place, bits) for place in range(len(tree)) for bits in range(16)]


def _step(tree: list[list[int]], place: int, bits: int) -> Step:
    byte = None
    for shift in (3, 2, 1, 0):
        place = tree[place][bits >> shift & 1]
        if place < 0:
            byte, place = (~place if ~place != _EOS else None), 0
    return Step(place, byte)
