# SPDX-License-Identifier: Apache-2.0
"""Two clients' and servers' namespaces with a router between them that translates, as kube-proxy does."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from tests.kernel.peers.netns import Netns, make_netns, run


@dataclass(frozen=True)
class Routed:
    """``client`` and ``server`` (10.212.1.2 and 10.212.2.2, also fd00:212:1::2, …) on a router's wires."""

    client: Netns
    router: Netns
    server: Netns
    #: What a client may dial.
    service: ClassVar = {"v4": "10.96.7.7", "v6": "fd00:96::7", "mapped": "::ffff:10.96.7.7"}

    def dnat(self, port: int, to: int, *, masquerade: bool = False) -> None:
        """The service's ``port`` leads to the server's port ``to``, TCP and UDP."""
        dialled = f"add rule inet weirt pre meta l4proto {{ tcp, udp }} th dport {port}"
        rules = f"""add table inet weirt
            add chain inet weirt pre {{ type nat hook prerouting priority dstnat; }}
            add chain inet weirt post {{ type nat hook postrouting priority srcnat; }}
            {dialled} ip daddr {self.service["v4"]} dnat ip to {self.server.v4}:{to}
            {dialled} ip6 daddr {self.service["v6"]} dnat ip6 to [{self.server.v6}]:{to}
            """
        if masquerade:
            rules += "add rule inet weirt post ct status dnat masquerade\n"
        self.router.run("nft", "-f", "-", stdin=rules)

    def iptables(self, port: int, to: int) -> None:
        """As kube-proxy in iptables mode: IPv4, TCP, by chains of its own."""
        dialled = f"-d {self.service['v4']}/32 -p tcp -m tcp --dport {port}"
        rules = f"""*nat
            :KUBE-SERVICES - [0:0]
            :KUBE-SVC-X - [0:0]
            :KUBE-SEP-X - [0:0]
            -A PREROUTING -j KUBE-SERVICES
            -A OUTPUT -j KUBE-SERVICES
            -A KUBE-SERVICES {dialled} -j KUBE-SVC-X
            -A KUBE-SVC-X -j KUBE-SEP-X
            -A KUBE-SEP-X -p tcp -m tcp -j DNAT --to-destination {self.server.v4}:{to}
            COMMIT
            """
        lines = "\n".join(line.strip() for line in rules.splitlines())
        self.router.run("iptables-restore", "--noflush", stdin=lines)

    def ipvs(self, port: int, to: int) -> None:
        """As kube-proxy in IPVS mode: the service's address is the node's own, on a dummy; IPv4, TCP.

        Masquerading is iptables' there, too, which is what has connections tracked in the namespace.
        """
        self.router.sysctl("net.ipv4.vs.conntrack", "1")
        masquerade = "-m mark --mark 0x4000/0x4000 -j MASQUERADE"
        self.router.run("iptables", "-t", "nat", "-A", "POSTROUTING", *masquerade.split())
        run("ip", "-n", self.router.name, "link", "add", "kube-ipvs0", "type", "dummy")
        run("ip", "-n", self.router.name, "addr", "add", f"{self.service['v4']}/32", "dev", "kube-ipvs0")
        self.router.run(sys.executable, "-c", _IPVS, self.service["v4"], str(port), self.server.v4, str(to))


_IPVS = """
import sys
from pyroute2 import IPVS, IPVSDest, IPVSService
address, port, to_address, to_port = sys.argv[1:]
with IPVS() as ipvs:
    service = IPVSService(addr=address, port=int(port), protocol=6, sched_name="rr")
    ipvs.service("add", service=service)
    ipvs.dest("add", service=service, dest=IPVSDest(addr=to_address, port=int(to_port), fwd_method=0))
"""


def has_ipvs() -> bool:
    """Whether this kernel can: the module is loaded where it is not built in."""
    subprocess.run(["modprobe", "-q", "ip_vs_rr"], check=False)
    return Path("/proc/net/ip_vs").exists()


@contextlib.contextmanager
def make_routed() -> Iterator[Routed]:
    """Both ends have a default route by the router."""
    with ExitStack() as stack:
        bare = [stack.enter_context(make_netns()) for _ in range(3)]
        client, server = (
            replace(netns, v4=f"10.212.{n}.2", v6=f"fd00:212:{n}::2", interface="eth0")
            for n, netns in ((1, bare[0]), (2, bare[2]))
        )
        router = bare[1]
        for n, end in ((1, client), (2, server)):
            veth = f"link add wire{n} type veth peer name eth0 netns {end.name}"
            run("ip", "-n", router.name, *veth.split())
            here = (
                f"addr add 10.212.{n}.1/24 dev wire{n}\naddr add fd00:212:{n}::1/64 dev wire{n}\n"
                f"link set wire{n} up\n"
            )
            run("ip", "-n", router.name, "-batch", "-", stdin=here)
            there = (
                f"addr add {end.v4}/24 dev eth0\naddr add {end.v6}/64 dev eth0\nlink set eth0 up\n"
                f"route add default via 10.212.{n}.1\nroute add default via fd00:212:{n}::1\n"
            )
            run("ip", "-n", end.name, "-batch", "-", stdin=there)
        router.sysctl("net.ipv4.ip_forward", "1")
        router.sysctl("net.ipv6.conf.all.forwarding", "1")
        yield Routed(client, router, server)
