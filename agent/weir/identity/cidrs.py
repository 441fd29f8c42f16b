# SPDX-License-Identifier: Apache-2.0
"""Addresses as the kernel side writes them (16 bytes, IPv4 v4-mapped), CIDR names, own addresses."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable

import psutil

from weir.errors import ConfigError
from weir.identity.types import Owner

_V4 = bytes(10) + b"\xff\xff"
_RIGHT = "write --cidr NAME=CIDR, as in --cidr office=10.1.0.0/16 or --cidr lab=fd00:1::/32"


def packed(address: str) -> bytes:
    """16 bytes of a textual address (a zone, ``%eth0``, is dropped). ValueError when it is none."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return _V4 + parsed.packed if parsed.version == 4 else parsed.packed


def text(address: bytes) -> str:
    """Textual form of 16 bytes; v4-mapped ones as IPv4."""
    if address[:12] == _V4:
        return str(ipaddress.IPv4Address(address[12:]))
    return str(ipaddress.IPv6Address(address))


def is_loopback(address: bytes) -> bool:
    """127.0.0.0/8 or ::1."""
    return address[:13] == _V4 + b"\x7f" or address == bytes(15) + b"\x01"


class Cidrs:
    """The user's names of networks; the longest prefix wins."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        """Take ``NAME=CIDR`` texts. ConfigError, one line, where one is not."""
        self._by_length: dict[int, dict[int, Owner]] = {}
        for item in named:
            name, network = _parse(item)
            length = network.prefixlen + (96 if network.version == 4 else 0)
            value = int.from_bytes(packed(str(network.network_address)), "big") >> (128 - length)
            known = self._by_length.setdefault(length, {}).setdefault(
                value, Owner(name, "cidr", attribution="address")
            )
            if known.workload != name:
                raise ConfigError(f"--cidr {item}: {network} has the name {known.workload!r} already")
        self._lengths = sorted(self._by_length, reverse=True)

    def owner(self, address: bytes, bits: int = 128) -> Owner | None:
        """Return the owner of an address, or of a whole network of ``bits`` (128-bit form), or None."""
        value = int.from_bytes(address, "big")
        for length in self._lengths:
            if length <= bits:
                found = self._by_length[length].get(value >> (128 - length))
                if found is not None:
                    return found
        return None


def _parse(item: str) -> tuple[str, ipaddress.IPv4Network | ipaddress.IPv6Network]:
    name, equals, cidr = item.partition("=")
    if not equals or not name.strip() or not cidr.strip():
        raise ConfigError(f"--cidr {item!r}: a name and a network are needed; {_RIGHT}")
    try:
        return name.strip(), ipaddress.ip_network(cidr.strip())
    except ValueError:
        pass
    try:
        loose = ipaddress.ip_network(cidr.strip(), strict=False)
    except ValueError:
        raise ConfigError(f"--cidr {item!r}: {cidr.strip()!r} is not a network; {_RIGHT}") from None
    raise ConfigError(
        f"--cidr {item!r}: {cidr.strip()} has bits set behind its prefix; did you mean {loose}?"
    )


def host_addresses() -> frozenset[bytes]:
    """Addresses of the interfaces of our own network namespace (netlink, by psutil)."""
    internet = (socket.AF_INET, socket.AF_INET6)
    interfaces = psutil.net_if_addrs().values()
    return frozenset(packed(e.address) for entries in interfaces for e in entries if e.family in internet)


class OwnAddresses:
    """The host's own addresses, read again at most every ``every`` seconds of ``clock``."""

    def __init__(
        self,
        clock: Callable[[], float],
        read: Callable[[], frozenset[bytes]] = host_addresses,
        every: float = 30.0,
    ) -> None:
        self._clock = clock
        self._read = read
        self._every = every
        self._addresses: frozenset[bytes] = frozenset()
        self._due = float("-inf")

    def __contains__(self, address: object) -> bool:
        if self._clock() >= self._due:
            self._addresses = self._read()
            self._due = self._clock() + self._every
        return address in self._addresses
