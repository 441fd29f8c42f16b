# SPDX-License-Identifier: Apache-2.0
"""UDP traffic of known size between one client socket and some server sockets.

``with udp_pair(wire.client, wire.server, "v4", servers=3) as pair: done = pair.run("sendmmsg", 99, 500)``
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kernel.peers.netns import Netns
from tests.kernel.peers.process import FAMILIES, Peer, address, plain

#: IPv4 and IPv6 groups that the multicast tests use.
GROUPS = {"v4": "239.211.0.1", "v6": "ff15::211"}


@dataclass(frozen=True)
class Heard:
    """From one peer."""

    datagrams: int
    bytes: int


@dataclass(frozen=True)
class Socket:
    """One UDP socket: bytes and datagrams that the application handed over and got.

    ``largest`` is the most datagrams that came in one call (above 1 with UDP_GRO).
    """

    local: tuple[str, int]
    sent: int
    sent_datagrams: int
    peers: Mapping[tuple[str, int], Heard]
    largest: int

    @property
    def read(self) -> int:
        return sum(heard.bytes for heard in self.peers.values())

    @property
    def read_datagrams(self) -> int:
        return sum(heard.datagrams for heard in self.peers.values())

    @staticmethod
    def of(answer: Mapping[str, Any]) -> Socket:
        peers = {plain([name, port]): Heard(n, size) for name, port, n, size in answer["peers"]}
        return Socket(
            plain(answer["local"]), answer["sent"], answer["sent_datagrams"], peers, answer["largest"]
        )


@dataclass(frozen=True)
class Talk:
    """What a run moved; ``servers`` in the order of their ports in ``UdpPair.ports``."""

    client: Socket
    servers: tuple[Socket, ...]


class UdpPair:
    """A client process with one socket, a server process with ``servers`` of them."""

    def __init__(
        self,
        client: Peer,
        server: Peer,
        family: str,
        *,
        servers: int,
        connected: bool,
        gro: bool,
        wildcard: bool,
    ) -> None:
        self.client, self.server = client, server
        target = address(server.netns, family)
        anywhere = {"v4": "0.0.0.0", "v6": "::", "mapped": "::"}[family]
        bind = anywhere if wildcard else target
        opened = [open_socket(server, family, bind=(bind, 0), gro=gro) for _ in range(servers)]
        self._servers = [number for number, _ in opened]
        self.ports = tuple(port for _, port in opened)
        self._peers = [(target, port) for port in self.ports]
        connect = self._peers[0] if connected else None
        self._client, _ = open_socket(client, family, connect=connect)
        self._to = [] if connected else self._peers

    def move(self, way: str, count: int, size: int, *, reply: int | None = None) -> None:
        """``count`` datagrams of ``size`` bytes round robin to the servers, all read; the sockets stay open.

        Ways: send, sendmsg, sendmmsg, gso (one server only). ``reply``: each datagram is answered by one of
        that size.
        """
        shares = [len(range(i, count, len(self._servers))) for i in range(len(self._servers))]
        self.client.ask("udp_send", id=self._client, way=way, peers=self._to, size=size, count=count)
        for number, share in zip(self._servers, shares, strict=True):
            self.server.ask("udp_read", id=number, count=share)
        if reply is not None:
            for number in self._servers:
                self.server.ask("udp_answer", id=number, size=reply)
            self.client.ask("udp_read", id=self._client, count=count)

    def now(self, *, close: bool = False) -> Talk:
        client = look(self.client, self._client, close=close)
        return Talk(client, tuple(look(self.server, number, close=close) for number in self._servers))

    def run(self, way: str, count: int, size: int, *, reply: int | None = None) -> Talk:
        """:meth:`move`, then closes the sockets (so once a pair)."""
        self.move(way, count, size, reply=reply)
        return self.now(close=True)


def open_socket(
    peer: Peer,
    family: str,
    *,
    bind: tuple[str, int] | None = None,
    connect: tuple[str, int] | None = None,
    gro: bool = False,
    join: tuple[str, str] | None = None,
    multicast: tuple[str, bool] | None = None,
    patience: float = 5.0,
) -> tuple[int, int]:
    """A UDP socket in ``peer``: its number for further commands, and its port.

    ``join``: group and interface to receive multicast from; ``multicast``: interface to send it to, and
    whether it loops back; ``patience``: seconds that a read waits for a datagram.
    """
    answer = peer.ask(
        "udp", family=FAMILIES[family], bind=bind, connect=connect, gro=gro, join=join, multicast=multicast,
        patience=patience,
    )  # fmt: skip
    return int(answer["id"]), int(answer["port"])


def look(peer: Peer, number: int, *, close: bool = False) -> Socket:
    """What the socket moved until now."""
    return Socket.of(peer.ask("udp_look", id=number, close=close))


@contextlib.contextmanager
def udp_pair(
    client: Netns,
    server: Netns,
    family: str = "v4",
    *,
    servers: int = 1,
    connected: bool = False,
    gro: bool = False,
    wildcard: bool = False,
    client_cgroup: Path | None = None,
    server_cgroup: Path | None = None,
) -> Iterator[UdpPair]:
    """``connected``: the client's socket (to the first server); ``wildcard``: servers bind no address."""
    with Peer(client, client_cgroup) as one, Peer(server, server_cgroup) as two:
        yield UdpPair(one, two, family, servers=servers, connected=connected, gro=gro, wildcard=wildcard)


def multicast(
    sender: Peer, receivers: list[Peer], family: str, *, count: int, size: int
) -> tuple[Socket, ...]:
    """``count`` datagrams to a group, looped back in the sender's namespace; gives sender, then receivers.

    The interface is that of each peer's namespace.
    """
    group = GROUPS[family]
    port = 0
    numbers = []
    for peer in receivers:
        number, port = open_socket(peer, family, bind=(group, port), join=(group, peer.netns.interface))
        numbers.append(number)
    talk, _ = open_socket(sender, family, multicast=(sender.netns.interface, True))
    sender.ask("udp_send", id=talk, way="send", peers=[(group, port)], size=size, count=count)
    for peer, number in zip(receivers, numbers, strict=True):
        peer.ask("udp_read", id=number, count=count)
    ends = [look(sender, talk, close=True)]
    ends += [look(peer, number, close=True) for peer, number in zip(receivers, numbers, strict=True)]
    return tuple(ends)
