# SPDX-License-Identifier: Apache-2.0
"""``weir run``: the pipeline in a writer thread, the server beside it, signals in between."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from typing import Any

from weir import log
from weir.aggregate import Snapshot
from weir.config import Settings
from weir.errors import ConfigError, PrivilegeError, WeirError
from weir.export.app import App
from weir.export.guard import Guard
from weir.export.prometheus import Exposition, installed_version
from weir.export.server import Server, parse_listen
from weir.health import Health
from weir.identity.cluster import reviewer
from weir.kernel import privileges
from weir.kernel.mounts import api_socket
from weir.kernel.side import KernelSide
from weir.pipeline import Pipeline, Writer, access, opened
from weir.views.graph import Recorder
from weir.views.page import html
from weir.views.requests import request_rows
from weir.views.rows import edge_rows

_log = logging.getLogger("weir.agent")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(settings: Settings, log_level: str = "info") -> None:
    """Run until SIGTERM or SIGINT. The kernel side goes on counting after it."""
    log.setup(log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    health: Health[Snapshot] = Health(settings.interval)
    pages = Pages(health)
    guard = _guard(health, settings)
    # the address is taken before the kernel is touched: a port in use must cost nothing
    server = Server(
        settings.listen, health,
        App(health, Exposition(health), pages.edges, pages.connections, pages.requests, pages.graph,
            html(index(), "Weir", asks=True)),
        guard, ended=stop.set,
    )  # fmt: skip
    server.listen()

    def settled(kernel: KernelSide, cluster: bool) -> None:
        _give_up(kernel, settings, cluster)
        server.start()

    try:
        with opened(settings, settled=settled) as pipeline:
            pages.pipeline = pipeline
            pipeline.failed = health.fail
            server.share(api_socket(settings.instance))
            _watch(pipeline, health, server, stop)
    finally:
        server.stop()
    if server.died:
        raise WeirError(f"the server ended: {server.died}; start again")


def _guard(health: Health[Snapshot], settings: Settings) -> Guard:
    """Who may read; ConfigError for files and settings that cannot be."""
    if not settings.kube_auth:
        return Guard(health, settings.web_config)
    guard = Guard(health, settings.web_config, reviewer(access(settings)))
    host, _ = parse_listen(settings.listen)
    if not guard.tls() and host not in _LOOPBACK:
        raise ConfigError(
            "--kube-auth: tokens must not be sent in the clear; give a certificate by --web-config,"
            " or listen on 127.0.0.1 only"
        )
    return guard


def _give_up(kernel: KernelSide, settings: Settings, cluster: bool) -> None:
    """What only attaching needed, before there is a second thread."""
    uses = privileges.Uses(
        tls=settings.tls and kernel.planes().get("tls") == "",
        waits="nat" in kernel.facts.get("waits", ()), scoped=bool(settings.netns),
        services=cluster and settings.services == "auto",
        files=bool(settings.web_config or settings.kubeconfig or settings.token_file or settings.ca_file),
    )  # fmt: skip
    try:
        kept = privileges.keep(privileges.needed(uses))
    except PrivilegeError as error:  # it counts all the same
        _log.warning("privileges that are not needed any more are kept: %s", error)
        return
    _log.info("privileges given up", extra={"fields": {"kept": ",".join(sorted(kept)) or "none"}})


def _watch(pipeline: Pipeline, health: Health[Snapshot], server: Server, stop: threading.Event) -> None:
    host, port = server.address
    writer = Writer(pipeline.step, health, stop)
    health.watch(writer.is_alive)
    writer.start()
    shown = f"[{host}]" if ":" in host else host
    _log.info("serving", extra={"fields": {"metrics": f"{server.scheme}://{shown}:{port}/metrics"}})
    stop.wait()
    writer.join(timeout=10)
    _log.info("stopped; the kernel side goes on counting until `weir unload`")


def index() -> dict[str, object]:
    """What the page at ``/`` is told: that it is live, of which host, and where else to look."""
    pages = {
        "metrics": "Metrics", "api/v1/edges": "Pairs, JSON", "api/v1/requests": "Requests, JSON",
        "api/v1/connections": "Connections, JSON", "healthz": "Health", "readyz": "Readiness",
    }  # fmt: skip
    return {
        "live": True,
        "about": f"{socket.gethostname()}, Weir {installed_version()}",
        "pages": [*pages.items()],
    }


class Pages:
    """Rows of the JSON API. Connections are read from the kernel on demand, once a second at most."""

    def __init__(self, health: Health[Snapshot]) -> None:
        self.pipeline: Pipeline | None = None
        self._health = health
        self._cached: tuple[float, list[dict[str, object]]] = (-1e9, [])
        self._lock = threading.Lock()
        self._drawn: tuple[int, dict[str, Any]] = (-1, {})
        self._drawing = threading.Lock()

    def edges(self) -> list[dict[str, object]]:
        """Pairs of the last snapshot."""
        snapshot = self._health.snapshot
        return [row.to_json() for row in edge_rows(snapshot)] if snapshot else []

    def requests(self) -> list[dict[str, object]]:
        """Requests of the last snapshot's pairs."""
        snapshot = self._health.snapshot
        return [row.to_json() for row in request_rows(snapshot)] if snapshot else []

    def graph(self) -> dict[str, Any]:
        """Who talks to whom, summed over all that was counted, and when; made once for each snapshot."""
        snapshot = self._health.snapshot
        if snapshot is None:
            return {}
        with self._drawing:
            if self._drawn[0] != snapshot.monotonic_ns:
                whole = Recorder.whole(edge_rows(snapshot), request_rows(snapshot))
                self._drawn = snapshot.monotonic_ns, {**whole, "time": snapshot.wall}
            return self._drawn[1]

    def connections(self) -> list[dict[str, object]]:
        """Live sockets now."""
        with self._lock:
            if self.pipeline and time.monotonic() - self._cached[0] > 1:
                rows = self.pipeline.connections()
                self._cached = time.monotonic(), [row.to_json() for row in rows]
            return self._cached[1]
