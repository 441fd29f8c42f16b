# SPDX-License-Identifier: Apache-2.0
"""Translated connections that there are now, from the kernel's connection tracking by netlink.

Only the two tuples of each entry are decoded (include/uapi/linux/netfilter/nfnetlink_conntrack.h): a busy
node has some 100,000 entries, which the general decoders of netlink libraries take minutes for.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

#: Of bpf/nat.h: struct nat_key and struct nat_to.
KEY, TO = struct.Struct("<16s16sHHB3x"), struct.Struct("<16s16sHH4x")
_NETFILTER, _GET, _DONE, _ERROR = (
    12,
    0x101,
    3,
    2,
)  # NETLINK_NETFILTER, IPCTNL_MSG_CT_GET of NFNL_SUBSYS_CTNETLINK
_REQUEST, _DUMP = 1, 0x300
_ORIG, _REPLY, _IP, _PROTO = 1, 2, 1, 2  # CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_TUPLE_IP, CTA_TUPLE_PROTO
_NUMBER, _SRC_PORT, _DST_PORT = 1, 2, 3  # CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT
_KIND = 0x3FFF  # NLA_TYPE_MASK
_MAPPED = bytes(10) + b"\xff\xff"
_NOTHING = bytes(16)


@dataclass(frozen=True)
class Tuple:
    """One direction: addresses of 16 bytes, ports, IP protocol number."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    protocol: int


def translated() -> Iterator[tuple[bytes, bytes]]:
    """Entries of the map ``nat`` for this network namespace. OSError without ctnetlink."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for original, reply in dump(family):
            yield from entries(original, reply)


def entries(original: Tuple, reply: Tuple) -> Iterator[tuple[bytes, bytes]]:
    """How the sockets at both ends of a translated connection see it, as ``nat_begin`` in bpf/nat.h."""
    o, r = original, reply
    if o.protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return
    as_dialled = (o.destination, o.destination_port) == (r.source, r.source_port)
    if as_dialled and (o.source, o.source_port) == (r.destination, r.destination_port):
        return
    dialled = (_NOTHING, 0) if as_dialled else (o.destination, o.destination_port)
    if not as_dialled:
        key = KEY.pack(o.source, o.destination, o.source_port, o.destination_port, o.protocol)
        yield key, TO.pack(r.source, dialled[0], r.source_port, dialled[1])
    key = KEY.pack(r.source, r.destination, r.source_port, r.destination_port, r.protocol)
    yield key, TO.pack(o.source, dialled[0], o.source_port, dialled[1])


def dump(family: int) -> Iterator[tuple[Tuple, Tuple]]:
    """Original and reply tuple of every entry of an address family."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as netlink:
        netlink.settimeout(5)
        netlink.send(struct.pack("<IHHIIBBH", 20, _GET, _REQUEST | _DUMP, 1, 0, family, 0, 0))
        more = True
        while more:
            found, more = decoded(netlink.recv(1 << 20))
            yield from found


def decoded(data: bytes) -> tuple[list[tuple[Tuple, Tuple]], bool]:
    """Tuples of the messages of one reading, and whether more come. OSError for what the kernel refuses.

    A message that is cut, or is none, ends it as the last one does.
    """
    found: list[tuple[Tuple, Tuple]] = []
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("<IH", data, at)
        if kind == _DONE or not 16 <= length <= len(data) - at:
            return found, False
        if kind == _ERROR:
            code = -struct.unpack_from("<i", data[at : at + length].ljust(20, b"\0"), 16)[0]
            raise OSError(code, os.strerror(code))
        parts = dict(_attributes(data, at + 20, at + length))
        original, reply = (_tuple(data, *parts.get(way, (0, 0))) for way in (_ORIG, _REPLY))
        if original is not None and reply is not None:
            found.append((original, reply))
        at += (length + 3) & ~3
    return found, bool(data)


def _attributes(data: bytes, at: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Kind of each netlink attribute, and where its value lies."""
    while at + 4 <= end:
        length, kind = struct.unpack_from("<HH", data, at)
        if length < 4 or at + length > end:
            return
        yield kind & _KIND, (at + 4, at + length)
        at += (length + 3) & ~3


def _tuple(data: bytes, at: int, end: int) -> Tuple | None:
    """None for a protocol without ports."""
    parts = dict(_attributes(data, at, end))
    addresses = [data[a:b] for _, (a, b) in _attributes(data, *parts.get(_IP, (0, 0)))]
    numbers = {kind: data[a:b] for kind, (a, b) in _attributes(data, *parts.get(_PROTO, (0, 0)))}
    if len(addresses) < 2 or not {_NUMBER, _SRC_PORT, _DST_PORT} <= numbers.keys():
        return None
    if not {len(a) for a in addresses[:2]} <= {4, 16}:
        return None
    if (len(numbers[_NUMBER]), len(numbers[_SRC_PORT]), len(numbers[_DST_PORT])) != (1, 2, 2):
        return None
    source, destination = (a if len(a) == 16 else _MAPPED + a for a in addresses[:2])
    source_port, destination_port = (int.from_bytes(numbers[k], "big") for k in (_SRC_PORT, _DST_PORT))
    return Tuple(source, destination, source_port, destination_port, numbers[_NUMBER][0])
