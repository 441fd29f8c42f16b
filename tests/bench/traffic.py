# SPDX-License-Identifier: Apache-2.0
"""Traffic of one kind, both ends in this process: ``python -m tests.bench.traffic KIND COUNT``."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack

_FLOWS = 16


def udp(count: int) -> None:
    """Datagrams of one flow."""
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        for _ in range(count):
            client.send(b"x" * 64)
            server.recv(64)


def udp_flows(count: int) -> None:
    """Datagrams that are of another flow than the one before, for the sender and for the receiver."""
    with ExitStack() as stack:
        servers, clients = (
            [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(_FLOWS)]
            for _ in range(2)
        )
        for number, (server, client) in enumerate(zip(servers, clients, strict=True)):
            server.bind(("127.0.0.1", 0))
            client.bind((f"127.0.1.{number + 1}", 0))
        addresses = [server.getsockname() for server in servers]
        for number in range(count):
            at = (number + number // _FLOWS) % _FLOWS
            clients[number % _FLOWS].sendto(b"x" * 64, addresses[at])
            servers[at].recv(64)


def udp_made(count: int) -> None:
    """Sockets that are opened and closed."""
    for _ in range(count):
        socket.socket(type=socket.SOCK_DGRAM).close()


def udp_edges(count: int) -> None:
    """One datagram to each of so many addresses: an edge each, at both ends."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        for number in range(count):
            with socket.socket(type=socket.SOCK_DGRAM) as server:
                server.bind((f"127.2.{number >> 8}.{number & 255}", 0))
                client.sendto(b"x", server.getsockname())


def tcp(count: int) -> None:
    """Requests and answers of one byte on one connection: four calls, four packets and more."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            client.send(b"x")
            server.recv(1)
            server.send(b"x")
            client.recv(1)


def tcp_connections(count: int) -> None:
    """Connections that carry one request and its answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        for _ in range(count):
            with socket.create_connection(address) as client, listener.accept()[0] as server:
                client.send(b"x")
                server.recv(1)
                server.send(b"x")
                client.recv(1)


KINDS: dict[str, Callable[[int], None]] = {
    f.__name__: f for f in (udp, udp_flows, udp_made, udp_edges, tcp, tcp_connections)
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](int(sys.argv[2]))
