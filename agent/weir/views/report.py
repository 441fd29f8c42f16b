# SPDX-License-Identifier: Apache-2.0
"""``weir report``: one self-contained HTML file of what happened in some time, for a ticket."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, TextIO

from weir.errors import ConfigError, WeirError
from weir.views.graph import Recorder
from weir.views.page import html
from weir.views.requests import RequestRow
from weir.views.rows import EdgeRow
from weir.views.waiting import PATIENCE

#: Points in time of a plot.
_POINTS = 120


class Sampled(Protocol):
    """Where rows come from (a ``views.source.Source``)."""

    def sample(self) -> tuple[Sequence[EdgeRow], Sequence[RequestRow]]:
        """Pairs and their requests now."""

    def describe(self) -> str:
        """The source, short."""

    def losses(self) -> Mapping[str, int]:
        """Losses by name, as of the last rows."""


def record(
    source: Sampled,
    duration: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """The picture (``views.graph``) of so many seconds; Ctrl-C ends it early."""
    recorder = Recorder()
    pause = max(1.0, duration / _POINTS)
    began = clock()
    recorder.add(*source.sample(), clock())
    with suppress(KeyboardInterrupt):
        seen = 0
        while (over := clock() - began - duration) < 0 or (not seen and over < PATIENCE):
            sleep(min(pause, -over) if over < 0 else 0.2)
            seen += recorder.add(*source.sample(), clock())
    return recorder.picture()


def destination(output: str) -> Path | None:
    """The file to write (``output``, or a name of its own for ""), None for standard output ("-").

    ConfigError where it cannot be written: before anything is loaded.
    """
    if output == "-":
        return None
    named = f"weir-report-{socket.gethostname()}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.html"
    path = Path(output or named)
    there = path.exists()
    if path.is_dir() or not os.access(path if there else path.parent, os.W_OK):
        raise ConfigError(
            f"--output {path}: cannot be written; name a file in a folder that can, or - for stdout"
        )
    return path


def write_report(
    source: Sampled, duration: float, path: Path | None, out: TextIO, said: TextIO, version: str
) -> None:
    """Watch for ``duration`` seconds, then write the file, or to ``out``; ``said`` is told of both."""
    now = datetime.now(timezone.utc)
    said.write(f"watching for {duration:g} s ({source.describe()}); Ctrl-C ends it early\n")
    said.flush()
    picture = record(source, duration)
    seconds = picture["seconds"][-1] if picture["seconds"] else 0.0
    where = f"{socket.gethostname()}, {now:%Y-%m-%d %H:%M:%S} UTC"
    about = f"{where}, {seconds:.0f} s, {source.describe()}. Weir {version}."
    notices = _notices(picture, source.losses())
    text, _ = html({**picture, "about": about, "notices": notices}, "Weir report")
    if path is None:
        out.write(text)
        return
    _replace(path, text)
    said.write(f"{path}: {len(text.encode()) / 1e3:.0f} kB\n")


def _notices(picture: Mapping[str, Any], losses: Mapping[str, int]) -> list[str]:
    found = [f"Not counted or not listed: {name}, {times:,} times." for name, times in losses.items()]
    if more := picture["links_not_shown"]:
        found.append(f"The {more:,} pairs with the fewest bytes are not shown.")
    if not picture["links"]:
        found.append("Nothing was sent or received in that time by what is watched.")
    return found


def _replace(path: Path, text: str) -> None:
    """All of it or nothing; hosts' names are for their owner."""
    made = ""
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            made = file.name
            file.write(text)
        Path(made).replace(path)
    except OSError as error:
        if made:
            Path(made).unlink(missing_ok=True)
        raise WeirError(f"--output {path}: {error.strerror}") from None
