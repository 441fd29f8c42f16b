# SPDX-License-Identifier: Apache-2.0
"""The peer: a process that does with sockets what it is told, one JSON line in, one JSON line out.

``{"do": "connect", ...}`` answers ``{"ok": ...}``, ``{"error": "ECONNREFUSED"}`` or ``{"skip": "kTLS: .."}``.
Run as ``python -m tests.kernel.peers.actor``; :mod:`tests.kernel.peers.process` starts it.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import select
import socket
import struct
import sys
import termios
import time
from dataclasses import dataclass
from typing import Any

from tests.kernel.peers import datagrams, ways
from tests.kernel.peers.info import tcp_info
from tests.kernel.peers.native import UnsupportedError

#: No call on a socket waits longer than this (seconds).
PATIENCE = 20.0
Answer = dict[str, Any]


@dataclass
class Conn:
    """One socket and what the application moved through it."""

    sock: socket.socket
    sent: int = 0
    read: int = 0
    calls: int = 0
    tls: bool = False


@dataclass
class Talk:
    """One UDP socket."""

    sock: socket.socket
    heard: datagrams.Heard
    datagrams: int = 0
    bytes: int = 0


def _patience(sock: socket.socket, seconds: float) -> None:
    value = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, value)


def _open(family: int, kind: int) -> socket.socket:
    sock = socket.socket(family, kind)
    _patience(sock, PATIENCE)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def _buffers(sock: socket.socket, sndbuf: int, rcvbuf: int) -> None:
    if sndbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
    if rcvbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)


def _drain(sock: socket.socket) -> None:
    """Waits until the other side has acknowledged all bytes."""
    until = time.monotonic() + PATIENCE
    while struct.unpack("=i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]:
        if time.monotonic() > until:
            raise TimeoutError("unacknowledged bytes")
        time.sleep(0.0005)


class Actor:
    """Sockets by number; each ``do_`` method is one command."""

    def __init__(self) -> None:
        self.conns: dict[int, Conn] = {}
        self.talks: dict[int, Talk] = {}
        self.listeners: dict[int, socket.socket] = {}
        self._last = 0

    def _number(self) -> int:
        self._last += 1
        return self._last

    def do_hello(self) -> Answer:
        return {}

    def do_listen(self, family: int, address: str, port: int, rcvbuf: int = 0) -> Answer:
        sock = _open(family, socket.SOCK_STREAM)
        _buffers(sock, 0, rcvbuf)
        sock.bind((address, port))
        sock.listen(4096)
        number = self._number()
        self.listeners[number] = sock
        return {"id": number, "port": sock.getsockname()[1]}

    def do_accept(self, listener: int) -> Answer:
        sock, _ = self.listeners[listener].accept()
        return self._keep(sock)

    def do_connect(self, family: int, address: str, port: int, sndbuf: int = 0) -> Answer:
        sock = _open(family, socket.SOCK_STREAM)
        _buffers(sock, sndbuf, 0)
        try:
            sock.connect((address, port))
        except OSError:
            sock.close()
            raise
        return self._keep(sock)

    def _keep(self, sock: socket.socket) -> Answer:
        _patience(sock, PATIENCE)
        number = self._number()
        self.conns[number] = Conn(sock)
        return {"id": number}

    def do_attempt(
        self, family: int, address: str, port: int, give_up: float, syn_retries: int, user_timeout_ms: int
    ) -> Answer:
        """A connect that is expected to fail; ``give_up`` > 0 closes the socket after so many seconds."""
        began = time.monotonic()
        outcome = "OK"
        with _open(family, socket.SOCK_STREAM) as sock:
            if syn_retries:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, syn_retries)
            if user_timeout_ms:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_ms)
            sock.setblocking(not give_up)
            try:
                sock.connect((address, port))
            except BlockingIOError:
                select.select([], [sock], [], give_up)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                outcome = errno.errorcode[error] if error else "GAVE_UP"
            except OSError as failure:
                outcome = errno.errorcode[failure.errno or 0]
            local = sock.getsockname()[:2]
        return {"outcome": outcome, "seconds": time.monotonic() - began, "local": local}

    def do_send(self, id: int, way: str, size: int, chunk: int) -> Answer:  # noqa: A002
        conn = self.conns[id]
        before = conn.sent
        for n in ways.SENDS[way](conn.sock, memoryview(bytes(size)), chunk):
            conn.sent += n
            conn.calls += 1
        return {"sent": conn.sent - before}

    def do_read(self, id: int, way: str, size: int) -> Answer:  # noqa: A002
        conn = self.conns[id]
        before = conn.read
        for n in ways.READS[way](conn.sock, size):
            conn.read += n
        return {"read": conn.read - before}

    def do_tls(self, id: int, transmit: bool) -> Answer:  # noqa: A002
        conn = self.conns[id]
        ways.start_tls(conn.sock, transmit=transmit)
        conn.tls = True
        return {}

    def do_shutdown(self, id: int) -> Answer:  # noqa: A002
        self.conns[id].sock.shutdown(socket.SHUT_WR)
        return {}

    def do_settle(self, id: int, bytes_received: int) -> Answer:  # noqa: A002
        """Waits until so many bytes have arrived in the socket, read or not."""
        sock = self.conns[id].sock
        until = time.monotonic() + PATIENCE
        while tcp_info(sock).bytes_received < bytes_received:
            if time.monotonic() > until:
                raise TimeoutError("bytes did not arrive")
            time.sleep(0.0005)
        return {}

    def do_look(self, id: int, drain: bool) -> Answer:  # noqa: A002
        conn = self.conns[id]
        if drain:
            _drain(conn.sock)
        try:
            remote: Any = conn.sock.getpeername()[:2]
        except OSError:
            remote = ("", 0)
        return {
            "local": conn.sock.getsockname()[:2], "remote": remote, "sent": conn.sent, "read": conn.read,
            "calls": conn.calls, "overhead": ways.TLS_OVERHEAD * conn.calls if conn.tls else 0,
            "info": dataclasses.asdict(tcp_info(conn.sock)),
        }  # fmt: skip

    def do_close(self, id: int, drain: bool, reset: bool) -> Answer:  # noqa: A002
        """Says how the socket stands (as ``look``), then closes it; ``reset``: by RST (SO_LINGER 0)."""
        seen = self.do_look(id, drain)
        sock = self.conns.pop(id).sock
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        sock.close()
        return seen

    def do_serve(self, listener: int, count: int, request: int, reply: int) -> Answer:
        """Answers ``count`` short connections, one after the other."""
        sent = read = 0
        answer = bytes(reply)
        for _ in range(count):
            sock, _ = self.listeners[listener].accept()
            with sock:
                read += sum(ways.recv(sock, request))
                sent += sum(ways.send(sock, memoryview(answer), max(reply, 1)))
                read += len(sock.recv(1))
        return {"count": count, "sent": sent, "read": read}

    def do_churn(
        self, family: int, address: str, port: int, count: int, request: int, reply: int, rate: float
    ) -> Answer:
        """Makes ``count`` short connections, at most ``rate`` a second (0: as fast as it goes)."""
        sent = read = 0
        data = bytes(request)
        began = time.monotonic()
        for i in range(count):
            if rate and (ahead := began + i / rate - time.monotonic()) > 0.002:
                time.sleep(ahead)
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.connect((address, port))
                sent += sum(ways.send(sock, memoryview(data), max(request, 1)))
                read += sum(ways.recv(sock, reply))
        return {"count": count, "sent": sent, "read": read, "seconds": time.monotonic() - began}

    def do_udp(
        self, family: int, bind: Any, connect: Any, gro: bool, join: Any, multicast: Any, patience: float
    ) -> Answer:
        """One UDP socket; ``join`` = (group, interface), ``multicast`` = (interface, loop)."""
        sock = _open(family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, datagrams.SO_RCVBUFFORCE, 32 << 20)
        _patience(sock, patience)
        if bind:
            sock.bind(tuple(bind))
        if connect:
            sock.connect(tuple(connect))
        if gro:
            sock.setsockopt(socket.IPPROTO_UDP, datagrams.UDP_GRO, 1)
        if join:
            datagrams.join(sock, *join)
        if multicast:
            datagrams.multicast_from(sock, multicast[0], loop=multicast[1])
        number = self._number()
        self.talks[number] = Talk(sock, datagrams.Heard())
        return {"id": number, "port": sock.getsockname()[1]}

    def do_udp_send(self, id: int, way: str, peers: list[Any], size: int, count: int) -> Answer:  # noqa: A002
        talk = self.talks[id]
        to = [(peer[0], peer[1]) for peer in peers]
        for n, bytes_ in datagrams.SENDS[way](talk.sock, to, bytes(size), count):
            talk.datagrams += n
            talk.bytes += bytes_
        return {}

    def do_udp_read(self, id: int, count: int) -> Answer:  # noqa: A002
        talk = self.talks[id]
        datagrams.receive(talk.sock, talk.heard, count)
        return {}

    def do_udp_answer(self, id: int, size: int) -> Answer:  # noqa: A002
        """One datagram of ``size`` bytes back for each one heard."""
        talk = self.talks[id]
        for peer, count in talk.heard.datagrams.items():
            for _ in range(count):
                talk.bytes += talk.sock.sendto(bytes(size), peer)
                talk.datagrams += 1
        return {}

    def do_udp_look(self, id: int, close: bool) -> Answer:  # noqa: A002
        talk = self.talks[id]
        heard = talk.heard
        peers = [[*peer, heard.datagrams[peer], heard.bytes[peer]] for peer in heard.datagrams]
        answer = {
            "local": talk.sock.getsockname()[:2], "sent": talk.bytes, "sent_datagrams": talk.datagrams,
            "peers": peers, "largest": heard.largest,
        }  # fmt: skip
        if close:
            self.talks.pop(id).sock.close()
        return answer


def main() -> None:
    actor = Actor()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"ok": getattr(actor, "do_" + command.pop("do"))(**command)}
        except UnsupportedError as reason:
            answer = {"skip": str(reason)}
        except OSError as error:
            answer = {"error": errno.errorcode.get(error.errno or 0, str(error))}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
