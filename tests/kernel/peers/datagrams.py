# SPDX-License-Identifier: Apache-2.0
"""Every way to send and receive UDP datagrams; runs inside the peers.

A way to send gives (datagrams, bytes) as the kernel took them, one pair a call.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.kernel.peers.native import mmsg_send

UDP_SEGMENT, UDP_GRO = 103, 104
SO_RCVBUFFORCE = 33
#: The kernel takes at most 64 segments and 65,507 bytes in one GSO send.
GSO_BYTES, GSO_SEGMENTS = 64_000, 64

Address = tuple[str, int]
Send = Callable[[socket.socket, Sequence[Address], bytes, int], Iterator[tuple[int, int]]]


@dataclass
class Heard:
    """What a socket received, and from whom."""

    datagrams: Counter[Address] = field(default_factory=Counter)
    bytes: Counter[Address] = field(default_factory=Counter)
    #: Most datagrams that came in one call: above 1 only with GRO.
    largest: int = 0

    def add(self, peer: Address, datagrams: int, size: int) -> None:
        self.datagrams[peer] += datagrams
        self.bytes[peer] += size
        self.largest = max(self.largest, datagrams)


def send(sock: socket.socket, peers: Sequence[Address], data: bytes, count: int) -> Iterator[tuple[int, int]]:
    """Plain send on a connected socket, else sendto round robin."""
    for i in range(count):
        yield 1, sock.sendto(data, peers[i % len(peers)]) if peers else sock.send(data)


def sendmsg(
    sock: socket.socket, peers: Sequence[Address], data: bytes, count: int
) -> Iterator[tuple[int, int]]:
    """Two buffers a datagram."""
    half = len(data) // 2
    for i in range(count):
        to = (peers[i % len(peers)],) if peers else ()
        yield 1, sock.sendmsg([data[:half], data[half:]], [], 0, *to)


def sendmmsg(
    sock: socket.socket, peers: Sequence[Address], data: bytes, count: int
) -> Iterator[tuple[int, int]]:
    yield mmsg_send(sock, peers, data, count)


def gso(sock: socket.socket, peers: Sequence[Address], data: bytes, count: int) -> Iterator[tuple[int, int]]:
    """UDP_SEGMENT: one call hands over many datagrams of ``len(data)`` bytes, to one peer a call."""
    segment = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", len(data)))]
    most = max(1, min(GSO_SEGMENTS, GSO_BYTES // len(data)))
    call = 0
    while count:
        n = min(count, most)
        to = (peers[call % len(peers)],) if peers else ()
        yield n, sock.sendmsg([data * n], segment, 0, *to)
        count, call = count - n, call + 1


SENDS: dict[str, Send] = {"send": send, "sendmsg": sendmsg, "sendmmsg": sendmmsg, "gso": gso}


def receive(sock: socket.socket, heard: Heard, datagrams: int) -> None:
    """Reads until ``datagrams`` more have come or none came for the socket's time-out."""
    left = datagrams
    while left > 0:
        try:
            data, controls, _, peer = sock.recvmsg(1 << 16, 64)
        except BlockingIOError:
            return
        size = len(data)
        pieces = 1
        for level, kind, value in controls:
            if level == socket.IPPROTO_UDP and kind == UDP_GRO:
                segment = struct.unpack_from("=i", value)[0]
                pieces = -(-size // segment)
        heard.add((peer[0], peer[1]), pieces, size)
        left -= pieces


def join(sock: socket.socket, group: str, interface: str) -> None:
    """Receives the multicast ``group`` at ``interface``."""
    index = socket.if_nametoindex(interface)
    if sock.family == socket.AF_INET6:
        mreq = socket.inet_pton(socket.AF_INET6, group) + struct.pack("=I", index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, mreq)
    else:
        mreqn = socket.inet_pton(socket.AF_INET, group) + bytes(4) + struct.pack("=i", index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreqn)


def multicast_from(sock: socket.socket, interface: str, *, loop: bool) -> None:
    """Sends multicast out of ``interface``; ``loop`` also gives it to receivers of this namespace."""
    index = socket.if_nametoindex(interface)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, int(loop))
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + struct.pack("=i", index))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(loop))
