# SPDX-License-Identifier: Apache-2.0
"""The page of a cluster, served: it asks Prometheus only while somebody looks."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from weir import log
from weir.clustermap.client import Client, Where
from weir.clustermap.totals import Totals
from weir.errors import WeirError
from weir.export.app import Page, Reply, Request, Site, json_reply
from weir.export.guard import Guard
from weir.export.prometheus import installed_version
from weir.export.server import Server
from weir.health import Health
from weir.views.page import html

_log = logging.getLogger("weir.map")


class Cluster:
    """The picture of now; one question at a time, however many look."""

    def __init__(self, totals: Totals, clock: Callable[[], float] = time.time) -> None:
        self._totals, self._clock = totals, clock
        self._lock = threading.Lock()
        self._said = ""

    def graph(self, request: Request) -> Reply:
        """``/api/v1/graph``; ``?history=1`` for what a page begins with."""
        history = parse_qs(request.query).get("history", ["0"])[-1] == "1"
        with self._lock:
            try:
                self._totals.advance(self._clock())
            except WeirError as error:
                if str(error) != self._said:  # not at each question of each page
                    _log.warning("%s", error)
                self._said = str(error)
                return json_reply(502, {"error": str(error)})
            self._said = ""
            return json_reply(200, self._totals.picture(history=history))


def start(where: Where, listen: str, web_config: str, window: float, step: float, log_level: str) -> None:
    """Serve until SIGTERM or SIGINT. ConfigError for settings that cannot be."""
    log.setup(log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    client = Client(where)
    health: Health[Any] = Health(step)
    about = {
        "live": True,
        "about": f"{client.url}, Weir {installed_version()}",
        "pages": [],
        "asked": "Prometheus",
    }
    cluster = Cluster(Totals(client, window, step))
    routes = {"/": Page(*html(about, "Weir: the cluster", asks=True)).reply, "/api/v1/graph": cluster.graph}
    server = Server(listen, health, Site(health, routes), Guard(health, web_config))
    server.listen()
    try:
        server.start()
        host, port = server.address
        shown = f"[{host}]" if ":" in host else host
        _log.info("serving", extra={"fields": {"map": f"{server.scheme}://{shown}:{port}/"}})
        stop.wait()
    finally:
        server.stop()
