# SPDX-License-Identifier: Apache-2.0
"""The agent's HTTP server: metrics, health, JSON. Bounded in connections, sizes, times, threads and queue.

Connections are waited for in one thread (tornado's loop), so one that says nothing, or says it slowly, keeps
nobody from being served; pages are made by a few others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.client import responses
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tornado import httputil
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_unix_socket

from weir.errors import ListenError, WeirError
from weir.export.app import Reply, Request, Site
from weir.export.guard import Guard
from weir.health import Health

_THREADS = 4  # pages that are made at once
_QUEUE = 32  # requests that wait for that
_CONNECTIONS = 256
#: Seconds: for a request to be whole, for a kept connection's next one, for a piece to be taken.
_TIMEOUT = 10.0
_HEAD = 16 << 10  # bytes of a request's head
_RIGHT = "write --listen HOST:PORT, as in --listen 127.0.0.1:10435 or --listen [::1]:10435"

_log = logging.getLogger(__name__)


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


class _Http(HTTPServer):
    """Tornado's server with a bound of connections."""

    guard: Guard
    health: Health[Any]

    def handle_stream(self, stream: Any, address: Any) -> None:
        """Refuse what is over the bound: at once, without a word."""
        if len(self._connections) >= _CONNECTIONS:
            self.health.refuse("connections")
            stream.close()
            return
        super().handle_stream(stream, address)

    def _handle_connection(self, connection: socket.socket, address: Any) -> None:
        self.ssl_options = self.guard.tls()
        super()._handle_connection(connection, address)


class Server:
    """Serves a site until stopped, to those whom the guard lets."""

    def __init__(
        self,
        listen: str,
        health: Health[Any],
        site: Site,
        guard: Guard | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """ListenError when ``listen`` is no address. ``ended`` is called if it ends by an error."""
        self._ended = ended
        #: Why it ended by itself; "" while it did not.
        self.died = ""
        self._listen = listen
        parse_listen(listen)
        self._health = health
        self.guard = guard or Guard(health)
        self._site = site
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="weir-page")
        self._tasks: set[asyncio.Task[None]] = set()
        self._https: list[_Http] = []
        self._waiting = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: socket.socket | None = None
        self._shared: tuple[Path, int] | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    def listen(self) -> None:
        """Take the address; who asks waits from now on. ListenError when it cannot be had."""
        self._listener = listening(self._listen)
        self._listener.setblocking(False)

    def start(self) -> None:
        """Listen, and serve from a thread. ListenError when the address cannot be had or served."""
        if self._listener is None:
            self.listen()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="weir-http", daemon=True)
        self._thread.start()
        started.wait()
        if self.died:
            raise ListenError(f"cannot serve: {self.died}")

    def _run(self, started: threading.Event) -> None:
        serving = self._serve(started)
        try:
            asyncio.run(serving)
        except Exception as error:  # noqa: BLE001 whatever it is, nobody is served any more
            self.died = str(error) or type(error).__name__
            self._ended()
        finally:
            serving.close()
            started.set()

    def share(self, path: Path) -> None:
        """Serve root of this host, too, at a socket in the file system: in plain text, without a password.

        It takes the place of one that an agent left there. WeirError where it cannot be made.
        """
        assert self._loop is not None
        fresh = path.with_name(f"{path.name}.new")
        try:
            fresh.unlink(missing_ok=True)
            listener = bind_unix_socket(str(fresh), mode=0o600, backlog=_QUEUE)
            fresh.rename(path)
        except (OSError, ValueError) as error:
            raise WeirError(f"cannot listen at {path}: {error}") from None
        self._shared = path, path.stat().st_ino
        self._loop.call_soon_threadsafe(self._http(Guard(self._health)).add_socket, listener)

    def stop(self) -> None:
        """Stop and wait; again is harmless."""
        if self._thread is None and self._listener is not None:
            self._listener.close()
        if self._thread is None or self._loop is None or self._stop is None:
            return
        if not self.died:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None
        self._pool.shutdown(cancel_futures=True)
        if self._shared:
            _unlink(*self._shared)

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return "https" if self.guard.tls() else "http"

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) that it listens on, once started."""
        assert self._listener is not None
        bound = self._listener.getsockname()
        return str(bound[0]), int(bound[1])

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        assert self._listener is not None
        self._http(self.guard).add_socket(self._listener)
        started.set()
        await self._stop.wait()
        for http in self._https:
            http.stop()
            await http.close_all_connections()
        for task in self._tasks:
            task.cancel()

    def _http(self, guard: Guard) -> _Http:
        made = _Http(
            partial(self._begin, guard), idle_connection_timeout=_TIMEOUT, body_timeout=_TIMEOUT,
            max_header_size=_HEAD, max_body_size=_HEAD,
        )  # fmt: skip
        made.guard, made.health = guard, self._health
        self._https.append(made)
        return made

    def _begin(self, guard: Guard, request: httputil.HTTPServerRequest) -> None:
        assert self._loop is not None
        task = self._loop.create_task(self._answer(guard, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, guard: Guard, request: httputil.HTTPServerRequest) -> None:
        self._waiting += 1
        try:
            if self._waiting > _THREADS + _QUEUE:
                self._health.refuse("requests")
                reply = Reply(503, "text/plain; charset=utf-8", [b"too many requests at once\n"])
            else:
                reply = await self._page(guard, request)
            await self._send(request, reply)
        except (StreamClosedError, TimeoutError, asyncio.TimeoutError):
            _close(request)
        except Exception:  # noqa: BLE001 one connection's failure must not end the server
            _log.exception("http: %s failed", request.path)
            self._health.fail("http")
            _close(request)
        finally:
            self._waiting -= 1

    async def _page(self, guard: Guard, request: httputil.HTTPServerRequest) -> Reply:
        assert self._loop is not None
        asked = Request(
            request.method or "", unquote(request.path, errors="replace"), request.query,
            request.headers.get("Accept", ""), request.headers.get("Accept-Encoding", ""),
        )  # fmt: skip
        authorization = request.headers.get("Authorization", "")
        certificate = request.get_ssl_certificate() if guard.asks_certificates else None

        def page() -> Reply:
            refused = guard.refusal(asked.path, authorization, certificate)
            return refused or self._site.reply(asked, trusted=not guard.asks)

        return await self._loop.run_in_executor(self._pool, page)

    async def _send(self, request: httputil.HTTPServerRequest, reply: Reply) -> None:
        assert self._loop is not None
        connection = request.connection
        assert connection is not None
        headers = httputil.HTTPHeaders(dict(reply.all_headers()))
        line = httputil.ResponseStartLine("", reply.status, responses[reply.status])
        await asyncio.wait_for(connection.write_headers(line, headers), _TIMEOUT)
        if request.method != "HEAD":
            pieces = iter(reply.body)
            while piece := await self._loop.run_in_executor(self._pool, _next, pieces):
                await asyncio.wait_for(connection.write(piece), _TIMEOUT)
        connection.finish()


def _unlink(path: Path, inode: int) -> None:
    """Unless the next agent's socket is there by now."""
    with suppress(OSError):
        if path.stat().st_ino == inode:
            path.unlink()


def _next(pieces: Iterator[bytes]) -> bytes:
    """The next piece that is not empty; nothing at the end."""
    return next((piece for piece in pieces if piece), b"")


def _close(request: httputil.HTTPServerRequest) -> None:
    stream = getattr(request.connection, "stream", None)
    if stream is not None:
        stream.close()


def listening(listen: str, backlog: int = _QUEUE) -> socket.socket:
    """A socket that listens there. ListenError when the text is no address, or it cannot be had."""
    try:
        return _bound(*parse_listen(listen), backlog)
    except OSError as error:
        # create_server adds words of its own to those of the system
        known = error.errno is not None and not isinstance(error, socket.gaierror)
        reason = os.strerror(error.errno or 0) if known else error.strerror or str(error)
        raise ListenError(
            f"cannot listen on {listen}: {reason}; choose another address with --listen"
        ) from error


def _bound(host: str, port: int, backlog: int) -> socket.socket:
    found: Iterable[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = next(iter(found))
    both = host == "::" and socket.has_dualstack_ipv6()
    listener = socket.create_server(where[:2], family=family, backlog=backlog, dualstack_ipv6=both)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
