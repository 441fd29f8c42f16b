# SPDX-License-Identifier: Apache-2.0
"""Views alone, without an agent: load, show, unload at the end."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from weir.config import Settings
from weir.errors import WeirError
from weir.export.prometheus import installed_version
from weir.kernel.mounts import api_socket
from weir.kernel.side import KernelSide
from weir.kernel.tap import Tap
from weir.pipeline import Pipeline, loaded_side, opened
from weir.views.edges import print_edges
from weir.views.filters import parse
from weir.views.forms import TABLE
from weir.views.once import print_once
from weir.views.report import destination, write_report
from weir.views.requests import RequestRow, request_rows
from weir.views.rows import ConnectionRow, EdgeRow, edge_rows
from weir.views.source import ApiSource
from weir.views.stat import print_stat
from weir.views.tap import Names, Wanted, print_tap
from weir.views.top import run_top

#: Where an agent listens unless it is told; root asks at its instance's own socket before.
AGENT = "http://127.0.0.1:10435"


class LocalSource:
    """Rows from a pipeline in this process (a ``views.source.Source``)."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.kernel = pipeline.kernel
        self._losses: Mapping[str, int] = {}

    def edges(self) -> list[EdgeRow]:
        """Pairs now."""
        snapshot = self._pipeline.step()
        self._losses = snapshot.losses()
        return edge_rows(snapshot)

    def losses(self) -> Mapping[str, int]:
        """What the kernel side could not count."""
        return self._losses

    def connections(self) -> list[ConnectionRow]:
        """Live sockets now."""
        return self._pipeline.connections()

    def sample(self) -> tuple[list[EdgeRow], list[RequestRow]]:
        """Pairs and their requests now."""
        snapshot = self._pipeline.step()
        self._losses = snapshot.losses()
        return edge_rows(snapshot), request_rows(snapshot)

    def describe(self) -> str:
        """What the header shows as the source."""
        return f"alone on {socket.gethostname()}"

    def close(self) -> None:
        """Nothing: :func:`chosen` takes the kernel side away."""


@contextmanager
def chosen(settings: Settings, agent: str, alone: bool) -> Iterator[ApiSource | LocalSource]:
    """A running agent if there is one (and no scope was asked for), else a kernel side of our own."""
    source = None if alone else _agent(settings, agent)
    if source:
        yield source
        return
    own = replace(settings, instance=f"top-{os.getpid()}")
    with opened(own, temporary=True) as pipeline:
        yield LocalSource(pipeline)


def _agent(settings: Settings, url: str) -> ApiSource | None:
    """The agent there; None where a scope was asked for, or where there is none and root can do without."""
    if settings.netns or settings.cgroup or settings.port:
        return None
    own = api_socket(settings.instance)
    places: list[str | Path] = [own] if url == AGENT and os.access(own, os.W_OK) else []
    for where in (*places, url):
        source = ApiSource(where)
        try:
            source.edges()
        except WeirError:
            if where == url and os.geteuid() != 0:
                raise
        else:
            return source
    return None


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def show_top(
    settings: Settings,
    *,
    agent: str,
    alone: bool,
    connections: bool,
    sort: str,
    filter_text: str,
    limit: int,
    once: bool,
    form: str,
    watch: bool,
) -> None:
    """``weir top``."""
    signal.signal(signal.SIGTERM, _leave)  # so that the kernel side is removed
    what = "connections" if connections else "edges"
    with chosen(settings, agent, alone) as source:
        if once or watch or form != TABLE:
            print_once(source, what, sort, filter_text, limit, form, settings.interval, sys.stdout,
                       watch=watch)  # fmt: skip
        else:
            run_top(source, settings.interval, what=what, sort=sort, filter_text=filter_text)


def show_stat(
    settings: Settings,
    *,
    agent: str,
    alone: bool,
    by: str,
    sort: str,
    filter_text: str,
    limit: int,
    form: str,
    watch: bool,
) -> None:
    """``weir stat``."""
    signal.signal(signal.SIGTERM, _leave)
    with chosen(settings, agent, alone) as source:
        print_stat(source, by, sort, filter_text, limit, form, settings.interval, watch, sys.stdout)


def show_edges(
    settings: Settings,
    *,
    agent: str,
    alone: bool,
    sort: str,
    filter_text: str,
    limit: int,
    form: str,
    watch: bool,
) -> None:
    """``weir edges``."""
    signal.signal(signal.SIGTERM, _leave)
    with chosen(settings, agent, alone) as source:
        print_edges(source, sort, filter_text, limit, form, settings.interval, watch, sys.stdout)


def show_report(settings: Settings, *, agent: str, alone: bool, duration: float, output: str) -> None:
    """``weir report``."""
    signal.signal(signal.SIGTERM, _leave)
    path = destination(output)
    with chosen(settings, agent, alone) as source:
        write_report(source, duration, path, sys.stdout, sys.stderr, installed_version())


@contextmanager
def _told(settings: Settings, source: ApiSource | LocalSource) -> Iterator[KernelSide]:
    """The kernel side that counts for a source, and no other tap with it."""
    if isinstance(source, LocalSource):
        yield source.kernel
        return
    with loaded_side(settings.instance) as (instance, kernel), instance.claim("tap"):
        yield kernel


def show_tap(settings: Settings, *, agent: str, alone: bool, wanted: Wanted) -> None:
    """``weir tap``."""
    signal.signal(signal.SIGTERM, _leave)
    parse(wanted.filter_text)  # before anything is loaded
    with chosen(settings, agent, alone) as source, _told(settings, source) as kernel:
        tap = Tap(kernel)
        names = Names(kernel.maps.slots.mapped(kernel.maps.slots.count), source.edges)
        with suppress(KeyboardInterrupt):
            print_tap(tap, names, wanted, sys.stdout, sys.stderr)
