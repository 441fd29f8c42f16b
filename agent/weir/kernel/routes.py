# SPDX-License-Identifier: Apache-2.0
"""Patterns of paths → the table by which ``bpf/routes.h`` finds the first one that a path fits.

``/users/{id}`` fits a path of two segments of which the first is ``users``; ``{name}`` (the name is for
people) fits any segment but an empty one, and ``**`` at the end whatever follows. The order of the patterns
decides where several fit: a node of the table is a set of patterns that may still fit (subset construction).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from weir.errors import ConfigError

#: A row of requests has a byte for its route.
MOST = 255
#: Entries of the table at most; many patterns that begin alike with ``{name}`` need most.
STEPS = 16384
#: Of a request's first line so many bytes are seen, the method among them.
_LENGTH = 80
_BASIS, _PRIME = 14695981039346656037, 1099511628211
_ANY = re.compile(r"\{[A-Za-z_][A-Za-z0-9_.-]*\}")
_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%-]*")  # RFC 3986 3.3: pchar

#: A place in a pattern: its number and how many of its segments are behind.
Place = tuple[int, int]


@dataclass(frozen=True)
class Step:
    """Where a segment leads: a node, and the pattern that fits if the path ends there, or goes on anyhow.

    Patterns have numbers from 1 on; 0: none.
    """

    node: int
    route: int
    rest: int


@dataclass(frozen=True)
class Routes:
    """The table: ``(node, word, other)`` → step.

    ``word`` is the hash of a segment, or 0 and ``other`` True for those without an entry.
    """

    steps: Mapping[tuple[int, int, bool], Step]

    def of(self, path: str) -> int:
        """What the kernel finds for a path without query: the number of a pattern from 1 on, 0 for none."""
        node, found = 0, 0
        for segment in path[1:].split("/"):
            word = hash_of(segment)
            step = self.steps.get((node, word, False)) or (
                self.steps.get((node, 0, True)) if segment else None
            )
            if step is None:
                return 0
            node, found = step.node, step.route
        return found


def hash_of(segment: str) -> int:
    """FNV-1a, 64 bits."""
    value = _BASIS
    for byte in segment.encode():
        value = (value ^ byte) * _PRIME % 2**64
    return value


def segments_of(pattern: str) -> list[str]:
    """A pattern's segments. ConfigError says what is wrong with it."""
    where = f"--route {pattern!r}:"
    if not pattern.startswith("/"):
        raise ConfigError(f"{where} a path is needed that begins with /, as /users/{{id}}")
    if len(pattern) > _LENGTH:
        raise ConfigError(f"{where} longer than {_LENGTH} characters, of which no more are looked at")
    segments = pattern[1:].split("/")
    for at, segment in enumerate(segments):
        last = at == len(segments) - 1
        if segment == "**" and not last:
            raise ConfigError(f"{where} ** can only be at the end")
        if segment != "**" and not _ANY.fullmatch(segment) and not _LITERAL.fullmatch(segment):
            raise ConfigError(
                f"{where} {segment!r} is neither a text as it is in a URL, nor {{name}}, nor **"
            )
    return segments


def compile_routes(patterns: Iterable[str]) -> Routes:
    """The table of these patterns. ConfigError for one that cannot be or is there twice, or for too many."""
    texts = list(patterns)
    parsed = [segments_of(text) for text in texts]
    if len(texts) > MOST:
        raise ConfigError(f"--route: {len(texts)} patterns; there can be {MOST}")
    if twice := next((text for at, text in enumerate(texts) if text in texts[:at]), ""):
        raise ConfigError(f"--route {twice!r} is there twice")
    start = frozenset((number, 0) for number in range(len(parsed)))
    nodes: dict[frozenset[Place], int] = {start: 0}
    steps: dict[tuple[int, int, bool], Step] = {}
    waiting = [start]
    while waiting:
        places = waiting.pop()
        node = nodes[places]
        for word in _words(parsed, places):
            reached = _after(parsed, places, word)
            if not reached:
                continue
            if reached not in nodes:
                nodes[reached] = len(nodes)
                waiting.append(reached)
            step = Step(nodes[reached], _ends(parsed, reached), _goes_on(parsed, reached))
            steps[(node, 0, True) if word is None else (node, hash_of(word), False)] = step
        if len(steps) > STEPS:
            raise ConfigError(f"--route: {len(texts)} patterns need a table of more than {STEPS} entries;"
                              " put fewer {{name}} before the texts that tell them apart")  # fmt: skip
    return Routes(steps)


def _words(parsed: list[list[str]], places: frozenset[Place]) -> list[str | None]:
    """Segments that make a difference here; None stands for all others, "" for an empty one."""
    texts = {parsed[number][at] for number, at in places if at < len(parsed[number])}
    return [None, *sorted({"", *(text for text in texts if text != "**" and not _ANY.fullmatch(text))})]


def _after(parsed: list[list[str]], places: frozenset[Place], word: str | None) -> frozenset[Place]:
    """Where that segment leads from all these places; behind ``**`` is where it stays."""
    reached = set()
    for number, at in places:
        segments = parsed[number]
        if at == len(segments):
            reached |= {(number, at)} if segments[-1] == "**" else set()
        elif segments[at] in (word, "**") or (word != "" and _ANY.fullmatch(segments[at])):
            reached.add((number, at + 1))
    return frozenset(reached)


def _ends(parsed: list[list[str]], places: frozenset[Place]) -> int:
    """The first pattern that is whole."""
    return 1 + min((number for number, at in places if at == len(parsed[number])), default=-1)


def _goes_on(parsed: list[list[str]], places: frozenset[Place]) -> int:
    """The pattern that fits whatever follows, if none before it may; else 0."""
    rest = {number for number, at in places if parsed[number][min(at, len(parsed[number]) - 1)] == "**"}
    others = {number for number, at in places if at < len(parsed[number])} - rest
    return 1 + min(rest) if rest and min(rest) < min(others, default=MOST) else 0
