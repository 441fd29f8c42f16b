# SPDX-License-Identifier: Apache-2.0
"""The agent's HTTP server: metrics, health, JSON. Bounded in threads, queue and reply size."""

from __future__ import annotations

import logging
import os
import socket
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
    """``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` (all of IPv4) -> (host, port). ListenError, one line.

    Port 0 takes any that is free.
    """
    host, colon, port = listen.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host or "0.0.0.0"
    if not colon or not bare or (":" in bare and bare == host):
        raise ListenError(f"--listen {listen!r}: {_RIGHT}")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ListenError(f"--listen {listen!r}: {port!r} is not a port; {_RIGHT}")
    return bare, int(port)


_log = logging.getLogger(__name__)


class _Wsgi(wsgi.Server):
    """Cheroot's server on a socket that listens already, with its errors where ours are."""

    failed: Callable[[str], None]
    listener: socket.socket

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:  # noqa: A002, ARG002
        self.socket = self.listener
        self.bind_addr = self.listener.getsockname()[:2]
        return self.listener

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        _log.log(level, "http: %s", msg, exc_info=traceback)
        if level >= logging.ERROR:
            self.failed("http")


class Server:
    """Serves until stopped; ``edges``, ``connections`` and ``requests`` give the rows of the JSON API."""

    def __init__(
        self,
        listen: str,
        health: Health[Snapshot],
        exposition: Exposition,
        edges: Callable[[], Rows],
        connections: Callable[[], Rows],
        requests: Callable[[], Rows] = list,
    ) -> None:
        """ListenError when ``listen`` is no address."""
        self._listen = listen
        self._address = parse_listen(listen)
        app = App(health, exposition, edges, connections, requests)
        self._server = _Wsgi(
            self._address,
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
        self._server.listener = listening(self._listen)
        self._server.prepare()
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


def listening(listen: str, backlog: int = _QUEUE) -> socket.socket:
    """A socket that listens there. ListenError when the text is no address, or it cannot be had."""
    try:
        return _listen(*parse_listen(listen), backlog)
    except OSError as error:
        # create_server adds words of its own to those of the system
        known = error.errno is not None and not isinstance(error, socket.gaierror)
        reason = os.strerror(error.errno or 0) if known else error.strerror or str(error)
        raise ListenError(
            f"cannot listen on {listen}: {reason}; choose another address with --listen"
        ) from error


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    both = host == "::" and socket.has_dualstack_ipv6()
    listener = socket.create_server(where[:2], family=family, backlog=backlog, dualstack_ipv6=both)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
