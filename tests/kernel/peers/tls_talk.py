# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 within TLS between servers and clients of one Python process, by OpenSSL. Run as ``python -m``.

``tls_talk FOLDER WAY``: key and certificate lie in FOLDER; WAY is how both ends call the library:
``blocking`` (a thread a connection, the library reads and writes the socket itself), ``waiting`` (sockets
that do not block and take little at once: calls are made again), ``memory`` (asyncio: the library writes into
memory, one thread sends for all connections), ``late`` (as blocking, but twice a line is read
once every connection has come so far). It begins with a line on standard input, and prints how many requests
were answered by port, method and status, since it waited last.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

CONNECTIONS, REQUESTS = 13, 37
#: Requests behind which ``late`` waits.
PAUSES = (0, 6)
_STATUSES = (200, 201, 404, 503)
_METHODS = ("GET", "POST", "PUT", "DELETE")
_counts: Counter[tuple[int, str, int]] = Counter()
_lock = threading.Lock()


def _body(n: int) -> bytes:
    return b"b" * (n * 4_001 % 70_000)


def _question(n: int, house: int) -> bytes:
    body = b"" if n % 4 == 0 else _body(n)
    return b"%s /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (
        _METHODS[n % 4].encode(), _STATUSES[(n + house) % 4], len(body)) + body  # fmt: skip


def _served(port: int, head: bytes) -> bytes:
    """An answer, which is counted."""
    method, path, _ = head.split(b" ", 2)
    status = int(path[1:])
    with _lock:
        _counts[port, method.decode(), status] += 1
    body = _body(status)
    return b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def _length(head: bytes) -> int:
    return int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])


class _Patient:
    """A TLS socket that does not block, and whose calls are made again until they are done."""

    def __init__(self, inner: ssl.SSLSocket, blocking: bool) -> None:
        self._inner, self._kept = inner, b""
        inner.setblocking(blocking)
        self._until(inner.do_handshake)

    def _until(self, call: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            try:
                return call(*arguments)
            except ssl.SSLWantReadError:
                select.select([self._inner], [], [])
            except ssl.SSLWantWriteError:
                select.select([], [self._inner], [])

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._until(self._inner.write, view) :]

    def read(self) -> bytes:
        """Head of the next message, whose body goes with it; empty at the end."""
        while b"\r\n\r\n" not in self._kept and self._more():
            pass
        head, _, self._kept = self._kept.partition(b"\r\n\r\n")
        left = _length(head + b"\r\n") if head else 0
        while len(self._kept) < left and self._more():
            pass
        self._kept = self._kept[left:]
        return head

    def _more(self) -> bool:
        try:
            piece: bytes = self._until(self._inner.read, 16_411)
        except (OSError, ssl.SSLError):
            piece = b""
        self._kept += piece
        return bool(piece)

    def close(self) -> None:
        self._inner.close()


def _context(folder: str, server: bool) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if server:
        made.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    else:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def _serve(listener: socket.socket, context: ssl.SSLContext, blocking: bool) -> None:
    while True:
        plain, _ = listener.accept()
        threading.Thread(target=_serve_one, args=(plain, context, blocking), daemon=True).start()


def _serve_one(plain: socket.socket, context: ssl.SSLContext, blocking: bool) -> None:
    port = plain.getsockname()[1]
    if not blocking:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    wrapped = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
    peer = _Patient(wrapped, blocking)
    while head := peer.read():
        peer.write(_served(port, head))
    peer.close()


def _ask(
    port: int, house: int, context: ssl.SSLContext, blocking: bool, pause: threading.Barrier | None
) -> None:
    plain = socket.create_connection(("127.0.0.1", port))
    if not blocking:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer = _Patient(context.wrap_socket(plain, do_handshake_on_connect=False), blocking)
    for n in range(REQUESTS):
        peer.write(_question(n, house))
        assert peer.read()
        if pause and n in PAUSES:
            pause.wait()  # all have asked
            pause.wait()  # and may go on
    peer.close()


def _by_threads(folder: str, blocking: bool, late: bool) -> None:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    for listener in listeners:
        threading.Thread(
            target=_serve, args=(listener, _context(folder, True), blocking), daemon=True
        ).start()
    pause = threading.Barrier(CONNECTIONS + 1) if late else None
    context = _context(folder, False)
    clients = [
        threading.Thread(target=_ask, args=(listeners[i % 2].getsockname()[1], i, context, blocking, pause))
        for i in range(CONNECTIONS)
    ]
    for client in clients:
        client.start()
    for _ in PAUSES if pause else ():
        assert pause
        pause.wait()
        _counts.clear()
        print("asked", flush=True)
        sys.stdin.readline()
        pause.wait()
    for client in clients:
        client.join()


async def _by_memory(folder: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            await reader.readexactly(_length(head))
            writer.write(_served(port, head))
            await writer.drain()
        writer.close()

    async def ask(port: int, house: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_context(folder, False))
        for n in range(REQUESTS):
            writer.write(_question(n, house))
            await reader.readexactly(_length(await reader.readuntil(b"\r\n\r\n")))
        writer.close()
        await writer.wait_closed()

    servers = [
        await asyncio.start_server(serve, "127.0.0.1", 0, ssl=_context(folder, True)) for _ in range(2)
    ]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    await asyncio.gather(*(ask(ports[i % 2], i) for i in range(CONNECTIONS)))
    await asyncio.sleep(0.2)


def _main(folder: str, way: str) -> None:
    sys.stdin.readline()
    if way == "memory":
        asyncio.run(_by_memory(folder))
    else:
        _by_threads(folder, way != "waiting", way == "late")
    print(json.dumps([[*key, n] for key, n in _counts.items()]), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
