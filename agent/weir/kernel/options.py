# SPDX-License-Identifier: Apache-2.0
"""What the kernel side is asked to do; data for the loader, never text pasted into C."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from dataclasses import asdict, dataclass, replace

from weir.kernel import sources

VARIANTS = ("auto", "storage", "tracepoint", "kprobe")
NAT = ("auto", "kprobe", "netfilter", "off")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Networks whose addresses keep an edge each: RFC 1918, 6598, 3927, 4193, 4291, 1112, loopback.
PRIVATE = (
    "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.168.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "::/127", "fc00::/7", "fe80::/10", "ff00::/8",
)  # fmt: skip


@dataclass(frozen=True)
class Fold:
    """Remote addresses within ``network`` keep this many leading bits (of 128), by the local role."""

    network: str
    source_bits: int = 128
    destination_bits: int = 128


@dataclass(frozen=True)
class KernelOptions:
    """Options that are compiled or loaded into the kernel side.

    ``requests`` is how many rows of requests the kernel holds; 0: requests are not looked for.
    Of ``opaque_ports`` only the turns are counted, of ``skip_ports`` no requests at all.
    ``routes`` are patterns of paths (:mod:`weir.kernel.routes`), which rows are told apart by.
    ``tls`` is how many TLS sessions may be read where their processes call their libraries; 0: none.
    ``nat`` is how translated connections are learnt, ``translated`` how many are remembered.
    ``netns`` are inode numbers, ``cgroups`` pairs of cgroup id and path of the cgroup v2 folder,
    ``ports`` service ports; empty means everything.
    """

    variant: str = "auto"
    udp: bool = True
    requests: int = 4096
    opaque_ports: tuple[int, ...] = ()
    skip_ports: tuple[int, ...] = ()
    tls: int = 0
    routes: tuple[str, ...] = ()
    by_process: bool = True
    slots: int = 16384
    connections: int = 1_000_000
    listeners: int = 16384
    nat: str = "auto"
    translated: int = 65536
    folds: tuple[Fold, ...] = ()
    netns: tuple[int, ...] = ()
    cgroups: tuple[tuple[int, str], ...] = ()
    ports: tuple[int, ...] = ()

    def to_json(self) -> str:
        """A stable text form."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> KernelOptions:
        """The inverse of :meth:`to_json`."""
        raw = json.loads(text)
        return KernelOptions(
            **{
                **raw,
                "folds": tuple(Fold(**f) for f in raw["folds"]),
                "netns": tuple(raw["netns"]),
                "cgroups": tuple((i, p) for i, p in raw["cgroups"]),
                "ports": tuple(raw["ports"]),
                "routes": tuple(raw["routes"]),
                "opaque_ports": tuple(raw["opaque_ports"]),
                "skip_ports": tuple(raw["skip_ports"]),
            }
        )

    def digest(self) -> str:
        """Changes when the options or the BPF sources do: then pins of old must be replaced."""
        same = replace(
            self, cgroups=tuple((number, "") for number, _ in self.cgroups)
        )  # wherever that is mounted
        text = same.to_json() + sources.unit("weir.c") + (sources.unit("weir_tls.c") if self.tls else "")
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def default_folds(keep: tuple[Network, ...] = ()) -> tuple[Fold, ...]:
    """Private addresses and ``keep`` stay as they are; public clients become one edge.

    Public *servers* keep their address: a host calls a bounded number of them, while everybody may
    call the host.
    """
    kept = tuple(Fold(n) for n in PRIVATE) + tuple(Fold(str(n)) for n in keep)
    return (Fold("0.0.0.0/0", 128, 0), Fold("::/0", 128, 0), *kept)


def fold_prefix(network: str) -> tuple[int, bytes]:
    """Prefix length in the 128-bit form, and the 16 address bytes (IPv4 as v4-mapped)."""
    parsed = ipaddress.ip_network(network)
    if isinstance(parsed, ipaddress.IPv4Network):
        return 96 + parsed.prefixlen, bytes(10) + b"\xff\xff" + parsed.network_address.packed
    return parsed.prefixlen, parsed.network_address.packed
