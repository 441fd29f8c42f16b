# SPDX-License-Identifier: Apache-2.0
"""TCP traffic of known size between two peers.

``with tcp_pair(wire.client, wire.server, "v6") as pair: done = pair.run("sendfile", size=23_000)``
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.kernel.peers.info import TcpInfo
from tests.kernel.peers.netns import Netns
from tests.kernel.peers.process import FAMILIES, Peer, PeerError, address, plain

Side = Literal["client", "server"]
EVERYTHING = 1 << 62


@dataclass(frozen=True)
class End:
    """One end of a connection.

    ``sent`` and ``read`` are bytes of the application as its system calls gave them, ``calls`` the sending
    ones. ``overhead`` is what kernel TLS added to ``sent``. Addresses are plain: IPv4 also for v4-mapped.
    """

    local: tuple[str, int]
    remote: tuple[str, int]
    sent: int
    read: int
    calls: int
    overhead: int
    info: TcpInfo

    @staticmethod
    def of(answer: Mapping[str, Any]) -> End:
        rest = {name: answer[name] for name in ("sent", "read", "calls", "overhead")}
        return End(plain(answer["local"]), plain(answer["remote"]), **rest, info=TcpInfo(**answer["info"]))


@dataclass(frozen=True)
class Exchange:
    """Both ends as they stood at the same quiet moment, or just before each was closed."""

    client: End
    server: End


@dataclass(frozen=True)
class Churn:
    """Sums over ``count`` short connections; ``port`` is the server's."""

    count: int
    port: int
    client_sent: int
    client_read: int
    server_sent: int
    server_read: int
    seconds: float


@dataclass(frozen=True)
class Attempt:
    """A connect that failed: ``outcome`` is ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, …, or GAVE_UP."""

    outcome: str
    seconds: float
    local: tuple[str, int]


class Link:
    """One open connection, driven step by step."""

    def __init__(self, peers: Mapping[Side, Peer], numbers: Mapping[Side, int]) -> None:
        self._peers = peers
        self._numbers = numbers

    def _post(self, side: Side, do: str, **arguments: Any) -> None:
        self._peers[side].post(do, id=self._numbers[side], **arguments)

    def _ask(self, side: Side, do: str, **arguments: Any) -> Mapping[str, Any]:
        return self._peers[side].ask(do, id=self._numbers[side], **arguments)

    def move(
        self, size: int, way: str = "send", *, sender: Side = "client", read: str = "recv", chunk: int = 1000
    ) -> None:
        """Sends ``size`` bytes by ``way`` and reads all of them, by ``read``, at the other end."""
        reader = _other(sender)
        if way == "tls":
            self._tls(sender)
            way, chunk = "send", min(chunk, 1 << 14)
        self._post(reader, "read", way=read, size=size)
        try:
            self.push(size, way, sender=sender, chunk=chunk)
        except BaseException:
            self._peers[sender].kill()  # ends the reader's waiting too
            raise
        got = self._peers[reader].answer()["read"]
        assert got == size, f"{way}: {got} of {size} bytes arrived"

    def push(self, size: int, way: str = "send", *, sender: Side = "client", chunk: int = 1000) -> int:
        """Sends without reading; the socket's buffers must have room."""
        return int(self._ask(sender, "send", way=way, size=size, chunk=chunk)["sent"])

    def pull(self, size: int = EVERYTHING, *, reader: Side = "server", read: str = "recv") -> int:
        """Reads ``size`` bytes, or up to the end of the stream."""
        return int(self._ask(reader, "read", way=read, size=size)["read"])

    def arrived(self, size: int, *, reader: Side = "server") -> None:
        """Waits until ``size`` bytes since the start have reached the reader's socket, read or not."""
        self._ask(reader, "settle", bytes_received=size)

    def _tls(self, sender: Side) -> None:
        self._ask(_other(sender), "tls", transmit=False)
        self._ask(sender, "tls", transmit=True)

    def shutdown(self, side: Side = "client") -> None:
        """Half-close: no more sending from ``side``."""
        self._ask(side, "shutdown")

    def look(self, side: Side, *, drain: bool = True) -> End:
        """One end now; ``drain`` first waits until what it sent is acknowledged."""
        return End.of(self._ask(side, "look", drain=drain))

    def now(self) -> Exchange:
        return Exchange(self.look("client"), self.look("server"))

    def close_end(self, side: Side, *, drain: bool = True, reset: bool = False) -> End:
        """Closes one end; ``reset`` by RST (SO_LINGER 0)."""
        return End.of(self._ask(side, "close", drain=drain, reset=reset))

    def close(self, first: Side = "client", *, reset: bool = False) -> Exchange:
        """Closes ``first``, lets the other end read the end of the stream (or the reset), closes it."""
        drain = not reset
        ends = {first: self.close_end(first, drain=drain, reset=reset)}
        with contextlib.suppress(PeerError):  # ECONNRESET
            self.pull(reader=_other(first))
        ends[_other(first)] = self.close_end(_other(first), drain=False)
        return Exchange(ends["client"], ends["server"])


def _other(side: Side) -> Side:
    return "server" if side == "client" else "client"


class TcpPair:
    """A client process and a listening server process; each method makes connections of its own."""

    def __init__(self, client: Peer, server: Peer, family: str, rcvbuf: int) -> None:
        self.client, self.server = client, server
        self._family: int = FAMILIES[family]
        self._address = address(server.netns, family)
        listening = server.ask("listen", family=self._family, address=self._address, port=0, rcvbuf=rcvbuf)
        self._listener = listening["id"]
        #: The server's, which is the service port.
        self.port = int(listening["port"])

    @property
    def _target(self) -> dict[str, Any]:
        return {"family": self._family, "address": self._address, "port": self.port}

    def open(self, *, sndbuf: int = 0) -> Link:
        self.server.post("accept", listener=self._listener)
        client = self.client.ask("connect", **self._target, sndbuf=sndbuf)
        return Link(
            {"client": self.client, "server": self.server},
            {"client": client["id"], "server": self.server.answer()["id"]},
        )

    def run(
        self, way: str, size: int, *, reply: int = 0, read: str = "recv", chunk: int = 1000, sndbuf: int = 0
    ) -> Exchange:
        """One connection: ``size`` bytes by ``way`` to the server, ``reply`` bytes the same way back, close.

        Ways: those of ``ways.SENDS`` and ``tls``; reads: ``ways.READS``. ``chunk`` is the size of one call.
        """
        link = self.open(sndbuf=sndbuf)
        link.move(size, way, read=read, chunk=chunk)
        if reply:
            link.move(reply, way, sender="server", read=read, chunk=chunk)
        return link.close()

    def half_close(self, size: int, reply: int) -> Exchange:
        """The client sends, shuts down its side, and only then the server answers."""
        link = self.open()
        link.move(size)
        link.shutdown()
        assert link.pull() == 0
        link.move(reply, sender="server")
        return link.close("server")

    def reset(self, size: int, first: Side = "client") -> Exchange:
        """All bytes are read, then ``first`` closes by RST (SO_LINGER 0)."""
        link = self.open()
        link.move(size)
        link.look("client")
        return link.close(first, reset=True)

    def unread(self, size: int, read: int) -> Exchange:
        """The server reads only ``read`` of ``size`` bytes and closes, which makes the kernel send a RST."""
        link = self.open()
        assert link.push(size) == size
        link.arrived(size)
        link.pull(read)
        link.look("client")
        return link.close("server")

    def churn(self, count: int, *, request: int = 100, reply: int = 200, rate: float = 0) -> Churn:
        """``count`` connections one after the other, at most ``rate`` a second; the client closes first."""
        self.server.post("serve", listener=self._listener, count=count, request=request, reply=reply)
        client = self.client.ask(
            "churn", **self._target, count=count, request=request, reply=reply, rate=rate
        )
        server = self.server.answer()
        return Churn(
            count,
            self.port,
            client["sent"],
            client["read"],
            server["sent"],
            server["read"],
            client["seconds"],
        )


@contextlib.contextmanager
def tcp_pair(
    client: Netns,
    server: Netns,
    family: str = "v4",
    *,
    client_cgroup: Path | None = None,
    server_cgroup: Path | None = None,
    rcvbuf: int = 0,
) -> Iterator[TcpPair]:
    """``family`` is v4, v6 or mapped (IPv6 sockets that speak IPv4). The namespaces may be the same one."""
    with Peer(client, client_cgroup) as one, Peer(server, server_cgroup) as two:
        yield TcpPair(one, two, family, rcvbuf)


def attempt(
    peer: Peer,
    family: str,
    target: str,
    port: int,
    *,
    give_up: float = 0,
    syn_retries: int = 1,
    user_timeout_ms: int = 0,
) -> Attempt:
    """A connect that fails: by itself (``syn_retries`` 1: ETIMEDOUT in 3 s), or after ``give_up`` seconds."""
    answer = peer.ask(
        "attempt", family=FAMILIES[family], address=target, port=port, give_up=give_up,
        syn_retries=syn_retries, user_timeout_ms=user_timeout_ms,
    )  # fmt: skip
    return Attempt(answer["outcome"], answer["seconds"], plain(answer["local"]))
