# SPDX-License-Identifier: Apache-2.0
"""Translation seen through: a client's edge has the backend that was reached, and what was dialled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.peers.netns import Netns, run
from tests.kernel.peers.process import FAMILIES, Peer
from tests.kernel.peers.router import Routed, has_ipvs, make_routed
from tests.kernel.peers.tcp import Link, TcpPair, attempt, tcp_pair
from tests.kernel.peers.udp import open_socket
from tests.kernel.watch import Watch, watching
from weir.identity.cidrs import text
from weir.kernel import netns
from weir.kernel.btf import KERNEL_BTF, Btf
from weir.kernel.features import Features
from weir.kernel.layout import DESTINATION, SOURCE, TCP, UDP

PORT = 81


@pytest.fixture
def routed() -> Iterator[Routed]:
    with make_routed() as made:
        yield made


@pytest.fixture(params=["kprobe", "netfilter"])
def way(request: pytest.FixtureRequest) -> str:
    """How translations are learnt; a skip by name where this kernel has it not."""
    types = Btf.from_file() if KERNEL_BTF.exists() else None
    features = Features(types)
    there = {"kprobe": features.kprobes, "netfilter": features.netfilter_links}
    if not there[request.param]:
        pytest.skip(f"NAT by {request.param}: this kernel has it not")
    return str(request.param)


@dataclass(frozen=True)
class Seen:
    """One edge: whom it leads to, and what was dialled ("" where nothing was translated)."""

    remote: str
    port: int
    dialled: str
    sent: int
    received: int


def seen(watch: Watch, where: Netns, role: int, proto: int = TCP) -> set[Seen]:
    found = set()
    for row in watch.rows(where, role, None, proto):
        key = row["key"]
        port = int(key["dialled_port"])
        dialled = f"{text(bytes(key['dialled']))} {port}" if port else ""
        found.add(Seen(text(bytes(key["raddr"])), int(key["port"]), dialled, int(row["sent_bytes"]),
                       int(row["received_bytes"])))  # fmt: skip
    return found


def dial(client: Peer, pair: TcpPair, family: str, address: str, port: int) -> Link:
    """A connection to what is not the listener's own address."""
    pair.server.post("accept", listener=pair._listener)
    number = client.ask("connect", family=FAMILIES[family], address=address, port=port)
    return Link(
        {"client": client, "server": pair.server},
        {"client": number["id"], "server": pair.server.answer()["id"]},
    )


def test_tracking_that_begins_after_weir(routed: Routed, way: str, cgroup: Callable[..., Path]) -> None:
    """Nothing was tracked at the start, so nothing was hooked in; once it is, Weir sees through."""
    if way == "kprobe" and Path("/sys/module/nf_conntrack").exists():
        pytest.skip("nf_conntrack is loaded already, and built in or used by others: the kprobe is on it")
    ours = cgroup("a.service")

    def on_the_router() -> None:
        service, scope = routed.service["v4"], ((ours.stat().st_ino, str(ours)),)
        with (
            tcp_pair(routed.client, routed.server, client_cgroup=ours, server_cgroup=ours) as pair,
            watching(cgroups=scope, nat=way) as watch,
        ):
            watch.kernel.look_again()
            assert not [name for name in watch.kernel.links() if name.startswith("nat_")]
            routed.dnat(PORT, pair.port)
            before = dial(pair.client, pair, "v4", service, PORT)
            before.move(503)
            watch.kernel.look_again()
            after = dial(pair.client, pair, "v4", service, PORT)
            after.move(1009)
            assert seen(watch, routed.client, SOURCE) == {
                Seen(service, PORT, "", 503, 0),
                Seen(routed.server.v4, pair.port, f"{service} {PORT}", 1009, 0),
            }
            watch.kernel.look_again()
            expected = 4 if way == "netfilter" else 1
            assert len([name for name in watch.kernel.links() if name.startswith("nat_")]) == expected
            before.close()
            after.close()

    netns.each(on_the_router, [routed.router.inode])


def test_in_short(routed: Routed, way: str) -> None:
    """What virtual machines have time for, with one load: connections old and new, datagrams, all modes."""
    service, size, replies = routed.service["v4"], 101, 53 * (1 + 2 + 3)
    with tcp_pair(routed.client, routed.server) as pair:
        listener, port = open_socket(pair.server, "v4", bind=(routed.server.v4, 0))
        routed.dnat(PORT, pair.port, masquerade=True)
        routed.dnat(PORT + 1, port, masquerade=True)
        old = dial(pair.client, pair, "v4", service, PORT)
        with watching(routed.client, routed.router, routed.server, nat=way) as watch:
            new = dial(pair.client, pair, "v4", service, PORT)
            for link in (old, new):
                link.move(1009)
                link.close()
            sender, _ = open_socket(pair.client, "v4", connect=(service, PORT + 1))
            for number in range(1, 4):
                pair.client.ask("udp_send", id=sender, way="send", peers=[], size=size, count=1)
                pair.server.ask("udp_read", id=listener, count=1)
                pair.server.ask("udp_answer", id=listener, size=53)
                pair.client.ask("udp_read", id=sender, count=number)
            dialled = f"{service} {PORT}"
            client, server = routed.client.v4, routed.server.v4
            watch.until(lambda: {s.received for s in seen(watch, routed.server, DESTINATION)} == {2018})
            assert seen(watch, routed.client, SOURCE) == {Seen(server, pair.port, dialled, 2018, 0)}
            assert seen(watch, routed.server, DESTINATION) == {Seen(client, pair.port, dialled, 0, 2018)}
            dialled = f"{service} {PORT + 1}"
            assert seen(watch, routed.client, SOURCE, UDP) == {
                Seen(service, PORT + 1, "", size, 0), Seen(server, port, dialled, 2 * size, replies),
            }  # fmt: skip
            assert seen(watch, routed.server, DESTINATION, UDP) == {
                Seen(client, port, dialled, replies, 3 * size)
            }
            for mode in ("iptables", "ipvs") if has_ipvs() else ("iptables",):
                through(watch, routed, pair, mode)


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_kube_proxys_other_modes(routed: Routed, way: str, mode: str) -> None:
    if mode == "ipvs" and not has_ipvs():
        pytest.skip("IPVS: this kernel has it not")
    with (
        tcp_pair(routed.client, routed.server) as pair,
        watching(routed.client, routed.router, routed.server, nat=way) as watch,
    ):
        through(watch, routed, pair, mode)


def through(watch: Watch, routed: Routed, pair: TcpPair, mode: str) -> None:
    """A connection by that mode, seen at both ends."""
    port = {"iptables": 91, "ipvs": 92}[mode]
    getattr(routed, mode)(port, pair.port)
    link = dial(pair.client, pair, "v4", routed.service["v4"], port)
    link.move(503)
    link.move(211, sender="server")
    link.close()
    dialled = f"{routed.service['v4']} {port}"
    at_client = Seen(routed.server.v4, pair.port, dialled, 503, 211)
    at_server = Seen(routed.client.v4, pair.port, dialled, 211, 503)
    watch.until(lambda: at_server in seen(watch, routed.server, DESTINATION))
    assert at_client in seen(watch, routed.client, SOURCE)


@pytest.mark.parametrize("masquerade", [False, True])
@pytest.mark.parametrize("family", ["v4", "v6", "mapped"])
def test_a_service_with_a_backend(routed: Routed, way: str, family: str, masquerade: bool) -> None:
    scope = (routed.client, routed.router, routed.server)
    with (
        tcp_pair(routed.client, routed.server, family) as pair,
        watching(*scope, nat=way) as watch,
    ):
        routed.dnat(PORT, pair.port, masquerade=masquerade)
        service = routed.service[family]
        link = dial(pair.client, pair, family, service, PORT)
        link.move(1009)
        link.move(503, sender="server")
        link.close()
        v6 = family == "v6"
        plain = service.removeprefix("::ffff:")
        dialled = f"{plain} {PORT}"
        server = routed.server.v6 if v6 else routed.server.v4
        client = routed.client.v6 if v6 else routed.client.v4
        watch.until(lambda: {s.sent for s in seen(watch, routed.server, DESTINATION)} == {503})
        assert seen(watch, routed.client, SOURCE) == {Seen(server, pair.port, dialled, 1009, 503)}
        assert seen(watch, routed.server, DESTINATION) == {Seen(client, pair.port, dialled, 503, 1009)}


def test_without_translation_nothing_is_dialled(routed: Routed, way: str) -> None:
    with (
        tcp_pair(routed.client, routed.server) as pair,
        watching(routed.client, routed.router, routed.server, nat=way) as watch,
    ):
        routed.dnat(PORT, pair.port, masquerade=True)
        pair.run("send", 1009)
        assert seen(watch, routed.client, SOURCE) == {Seen(routed.server.v4, pair.port, "", 1009, 0)}
        watch.until(lambda: {s.received for s in seen(watch, routed.server, DESTINATION)} == {1009})
        assert seen(watch, routed.server, DESTINATION) == {Seen(routed.client.v4, pair.port, "", 0, 1009)}


def test_a_server_behind_masquerading_alone(routed: Routed, way: str) -> None:
    """The server sees the router; who is behind it is known here, where both are on one host."""
    with (
        tcp_pair(routed.client, routed.server) as pair,
        watching(routed.client, routed.router, routed.server, nat=way) as watch,
    ):
        routed.router.run("nft", "-f", "-", stdin="""add table inet weirt
            add chain inet weirt post { type nat hook postrouting priority srcnat; }
            add rule inet weirt post masquerade""")  # fmt: skip
        pair.run("send", 1009)
        watch.until(lambda: {s.received for s in seen(watch, routed.server, DESTINATION)} == {1009})
        assert seen(watch, routed.server, DESTINATION) == {Seen(routed.client.v4, pair.port, "", 0, 1009)}


def test_a_pod_that_dials_its_own_service(routed: Routed, way: str) -> None:
    """Hairpin: there and back over one wire, masqueraded on the way."""
    with (
        tcp_pair(routed.server, routed.server) as pair,
        watching(routed.router, routed.server, nat=way) as watch,
    ):
        routed.dnat(PORT, pair.port, masquerade=True)
        link = dial(pair.client, pair, "v4", routed.service["v4"], PORT)
        link.move(1009)
        link.close()
        dialled = f"{routed.service['v4']} {PORT}"
        expected = {Seen(routed.server.v4, pair.port, dialled, 1009, 0)}
        assert seen(watch, routed.server, SOURCE) == expected
        watch.until(lambda: {s.received for s in seen(watch, routed.server, DESTINATION)} == {1009})
        assert seen(watch, routed.server, DESTINATION) == {
            Seen(routed.server.v4, pair.port, dialled, 0, 1009)
        }


def test_the_translator_dials_itself(routed: Routed, way: str) -> None:
    """A process of the node's own: translated on its way out (OUTPUT)."""
    with (
        tcp_pair(routed.router, routed.server) as pair,
        watching(routed.router, routed.server, nat=way) as watch,
    ):
        run("ip", "-n", routed.router.name, "route", "add", "10.96.0.0/16", "dev", "wire2")
        service, backend = routed.service["v4"], f"{routed.server.v4}:{pair.port}"
        routed.router.run(
            "nft",
            "-f",
            "-",
            stdin=f"""add table ip weirt
            add chain ip weirt out {{ type nat hook output priority -100; }}
            add rule ip weirt out meta l4proto tcp ip daddr {service} dnat to {backend}""",
        )
        link = dial(pair.client, pair, "v4", routed.service["v4"], PORT)
        link.move(1009)
        link.close()
        dialled = f"{routed.service['v4']} {PORT}"
        assert seen(watch, routed.router, SOURCE) == {Seen(routed.server.v4, pair.port, dialled, 1009, 0)}


def test_connections_older_than_weir(routed: Routed, way: str) -> None:
    """Their translation is in the kernel's connection tracking."""
    with tcp_pair(routed.client, routed.server) as pair:
        routed.dnat(PORT, pair.port, masquerade=True)
        link = dial(pair.client, pair, "v4", routed.service["v4"], PORT)
        link.move(503)
        with watching(routed.client, routed.router, routed.server, nat=way) as watch:
            link.move(1009)
            dialled = f"{routed.service['v4']} {PORT}"
            watch.until(lambda: {s.sent for s in seen(watch, routed.client, SOURCE)} == {1009})
            assert seen(watch, routed.client, SOURCE) == {Seen(routed.server.v4, pair.port, dialled, 1009, 0)}
            assert seen(watch, routed.server, DESTINATION) == {
                Seen(routed.client.v4, pair.port, dialled, 0, 1009)
            }
            link.close()


def test_a_connect_that_fails_names_what_was_tried(routed: Routed, way: str) -> None:
    with (
        tcp_pair(routed.client, routed.server) as pair,
        watching(routed.client, routed.router, routed.server, nat=way) as watch,
    ):
        routed.dnat(PORT, 9)  # nobody listens there
        assert attempt(pair.client, "v4", routed.service["v4"], PORT).outcome == "ECONNREFUSED"
        (edge,) = seen(watch, routed.client, SOURCE)
        assert (edge.remote, edge.port, edge.dialled) == (
            routed.server.v4,
            9,
            f"{routed.service['v4']} {PORT}",
        )


@pytest.mark.parametrize("count", [1, 7])
def test_udp(routed: Routed, way: str, count: int) -> None:
    """A client's first datagram leaves before it is translated; all that follows has the backend's name."""
    size, reply = 101, 53
    with (
        Peer(routed.client) as client,
        Peer(routed.server) as server,
        watching(routed.client, routed.router, routed.server, nat=way) as watch,
    ):
        listener, port = open_socket(server, "v4", bind=(routed.server.v4, 0))
        routed.dnat(PORT, port, masquerade=True)
        service = routed.service["v4"]
        sender, _ = open_socket(client, "v4", connect=(service, PORT))
        for number in range(1, count + 1):
            client.ask("udp_send", id=sender, way="send", peers=[], size=size, count=1)
            server.ask("udp_read", id=listener, count=1)
            server.ask("udp_answer", id=listener, size=reply)  # all that came until now
            client.ask("udp_read", id=sender, count=number)
        back = reply * count * (count + 1) // 2
        dialled = f"{service} {PORT}"
        rest = Seen(routed.server.v4, port, dialled, size * (count - 1), back)
        assert seen(watch, routed.client, SOURCE, UDP) == {Seen(service, PORT, "", size, 0), rest}
        assert seen(watch, routed.server, DESTINATION, UDP) == {
            Seen(routed.client.v4, port, dialled, back, size * count)
        }


def test_many_translations_have_a_bound(routed: Routed, way: str) -> None:
    """The least recently used go; a connection keeps what it learnt when it began."""
    with (
        tcp_pair(routed.client, routed.server) as pair,
        watching(routed.client, routed.router, routed.server, nat=way, translated=64) as watch,
    ):
        routed.dnat(PORT, pair.port)
        first = dial(pair.client, pair, "v4", routed.service["v4"], PORT)
        for _ in range(211):
            dial(pair.client, pair, "v4", routed.service["v4"], PORT).close()
        first.move(1009)
        first.close()
        (edge,) = seen(watch, routed.client, SOURCE)
        assert (edge.remote, edge.sent) == (routed.server.v4, 1009)


def test_off(routed: Routed) -> None:
    with (
        tcp_pair(routed.client, routed.server) as pair,
        watching(routed.client, routed.router, routed.server, nat="off") as watch,
    ):
        routed.dnat(PORT, pair.port)
        dial(pair.client, pair, "v4", routed.service["v4"], PORT).close()
        assert {s.remote for s in seen(watch, routed.client, SOURCE)} == {routed.service["v4"]}
        assert "nat" not in watch.kernel.planes()
