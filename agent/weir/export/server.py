# SPDX-License-Identifier: Apache-2.0
"""The agent's HTTP server: metrics, health, JSON. Bounded in threads, queue and reply size."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from cheroot import wsgi

from weir.aggregate import Snapshot
from weir.errors import ListenError
from weir.export.app import App, Rows
from weir.export.prometheus import Exposition
from weir.health import Health

_THREADS = 4
_QUEUE = 32
_TIMEOUT = 10
_RIGHT = "write --listen HOST:PORT, as in --listen 127.0.0.1:10435 or --listen [::1]:10435"


def parse_listen(listen: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPV6]:PORT`` -> (host, port); port 0 takes any. ListenError, one line."""
    host, colon, port = listen.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare and bare == host):
        raise ListenError(f"--listen {listen!r}: {_RIGHT}")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ListenError(f"--listen {listen!r}: {port!r} is not a port; {_RIGHT}")
    return bare, int(port)


_log = logging.getLogger(__name__)


class _Wsgi(wsgi.Server):
    """Cheroot's server, with its errors where ours are."""

    failed: Callable[[str], None]

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        _log.log(level, "http: %s", msg, exc_info=traceback)
        if level >= logging.ERROR:
            self.failed("http")


class Server:
    """Serves until stopped; ``edges`` and ``connections`` give the rows of the JSON API."""

    def __init__(
        self,
        listen: str,
        health: Health[Snapshot],
        exposition: Exposition,
        edges: Callable[[], Rows],
        connections: Callable[[], Rows],
    ) -> None:
        """ListenError when ``listen`` is no address."""
        self._listen = listen
        app = App(health, exposition, edges, connections)
        self._server = _Wsgi(
            parse_listen(listen),
            app,
            numthreads=_THREADS,
            max=_THREADS,
            server_name="weir",
            request_queue_size=_QUEUE,
            accepted_queue_size=_QUEUE,
            accepted_queue_timeout=1,
            timeout=_TIMEOUT,
            shutdown_timeout=2,
        )
        self._server.failed = health.fail
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, and serve from a thread. ListenError when the address cannot be had."""
        try:
            self._server.prepare()
        except OSError as error:
            raise ListenError(
                f"cannot listen on {self._listen}: {_reason(error)}; choose another address with --listen"
            ) from error
        self._thread = threading.Thread(target=self._server.serve, name="weir-http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait; again is harmless."""
        if self._thread is not None:
            self._server.stop()
            self._thread.join()
            self._thread = None

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) that it listens on, once started."""
        bound: Any = self._server.bind_addr
        return str(bound[0]), int(bound[1])


def _reason(error: OSError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return str(error)
