# SPDX-License-Identifier: Apache-2.0
"""The peers without Weir: what they say they moved is what the kernel's own TCP_INFO says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.peers import ways
from tests.kernel.peers.datagrams import SENDS as UDP_SENDS
from tests.kernel.peers.netns import PREFIX, Netns, Wire, make_wire, run
from tests.kernel.peers.process import Peer, PeerError, address
from tests.kernel.peers.tcp import End, Side, attempt, tcp_pair
from tests.kernel.peers.udp import multicast, udp_pair

SIZE = 23 * 1000
CLOSE_WAIT, ESTABLISHED = 8, 1
families = pytest.mark.parametrize("family", ["v4", "v6", "mapped"])


def _agrees(end: End) -> None:
    """Without a FIN from the other side: a client's SYN is the one acknowledged byte that is no payload."""
    assert end.info.payload_sent == end.sent + end.overhead
    assert end.info.bytes_acked in (end.sent + end.overhead, end.sent + end.overhead + 1)
    assert end.info.bytes_received - end.read in (0, 1)


@families
@pytest.mark.parametrize("way", ways.SENDS)
def test_each_way_of_sending_moves_what_it_says(wire: Wire, family: str, way: str) -> None:
    with tcp_pair(wire.client, wire.server, family) as pair:
        done = pair.run(way, SIZE, reply=1009)
    assert done.client.sent == done.server.read == SIZE
    assert done.server.sent == done.client.read == 1009
    assert (
        done.client.remote
        == done.server.local
        == (address(wire.server, family)[-len(done.server.local[0]) :], pair.port)
    )
    _agrees(done.client)
    _agrees(done.server)


def test_ktls(wire: Wire) -> None:
    with tcp_pair(wire.client, wire.server) as pair:
        done = pair.run("tls", SIZE)
    assert done.client.sent == done.server.read == SIZE
    assert done.client.info.payload_sent == SIZE + 23 * ways.TLS_OVERHEAD


@pytest.mark.parametrize("read", ways.READS)
def test_each_way_of_reading(netns: Netns, read: str) -> None:
    with tcp_pair(netns, netns) as pair:
        done = pair.run("send", 1_000_003, read=read, chunk=65536)
    assert done.server.read == 1_000_003
    _agrees(done.server)


def test_partial_writes_against_a_slow_reader(wire: Wire) -> None:
    with tcp_pair(wire.client, wire.server, rcvbuf=8192) as pair:
        done = pair.run("partial", 1_000_003, read="slow", sndbuf=8192)
    assert done.client.calls > 20
    assert done.client.sent == done.server.read == 1_000_003
    _agrees(done.client)


@families
def test_half_close(wire: Wire, family: str) -> None:
    with tcp_pair(wire.client, wire.server, family) as pair:
        done = pair.half_close(SIZE, 1009)
    assert (done.client.sent, done.client.read) == (done.server.read, done.server.sent) == (SIZE, 1009)
    assert done.server.info.bytes_received == SIZE + 1
    assert done.server.info.state == CLOSE_WAIT


@pytest.mark.parametrize("first", ["client", "server"])
def test_reset(wire: Wire, first: Side) -> None:
    with tcp_pair(wire.client, wire.server) as pair:
        done = pair.reset(SIZE, first)
    assert done.client.info.payload_sent == done.server.info.bytes_received == SIZE


def test_unread_data_at_close(wire: Wire) -> None:
    with tcp_pair(wire.client, wire.server) as pair:
        done = pair.unread(SIZE, 1000)
    assert done.client.sent == SIZE
    assert done.server.read == 1000
    assert done.server.info.bytes_received == SIZE


def test_a_link_stays_open_and_tells_how_it_stands(wire: Wire) -> None:
    with tcp_pair(wire.client, wire.server) as pair:
        link = pair.open()
        for total in (1000, 2000, 3000):
            link.move(1000)
            now = link.now()
            assert now.client.info.payload_sent == now.server.info.bytes_received == total
            assert now.client.info.state == ESTABLISHED
        link.close()


@families
def test_twenty_thousand_short_connections(wire: Wire, family: str) -> None:
    with tcp_pair(wire.client, wire.server, family) as pair:
        done = pair.churn(20_000, request=100, reply=200)
    assert done.client_sent == done.server_read == 2_000_000
    assert done.server_sent == done.client_read == 4_000_000
    assert done.count / done.seconds >= 1000


def test_churn_keeps_its_rate(netns: Netns) -> None:
    with tcp_pair(netns, netns) as pair:
        assert pair.churn(400, rate=400).seconds >= 0.99


@families
def test_connect_refused(wire: Wire, family: str) -> None:
    with Peer(wire.client) as peer:
        assert attempt(peer, family, address(wire.server, family), 9).outcome == "ECONNREFUSED"


@families
def test_connect_unreachable(wire: Wire, family: str) -> None:
    wire.server.refuse(9, "reject with icmpx host-unreachable")
    with Peer(wire.client) as peer:
        assert attempt(peer, family, wire.unroutable[family], 9).outcome == "ENETUNREACH"
        assert attempt(peer, family, address(wire.server, family), 9).outcome == "EHOSTUNREACH"


def test_connect_to_a_silent_neighbour(wire: Wire) -> None:
    with Peer(wire.client) as peer:
        assert attempt(peer, "v4", wire.silent["v4"], 9, syn_retries=3).outcome == "EHOSTUNREACH"


@families
def test_connect_times_out_or_is_given_up(wire: Wire, family: str) -> None:
    wire.server.refuse(9)
    with Peer(wire.client) as peer:
        given_up = attempt(peer, family, address(wire.server, family), 9, give_up=0.2)
        assert given_up.outcome == "GAVE_UP"
        assert given_up.local[1] > 0
        assert attempt(peer, family, address(wire.server, family), 9).outcome == "ETIMEDOUT"
        wire.server.accept_all()
        assert attempt(peer, family, address(wire.server, family), 9).outcome == "ECONNREFUSED"


def test_a_killed_peer_closes_its_connections(wire: Wire) -> None:
    with tcp_pair(wire.client, wire.server) as pair:
        link = pair.open()
        link.move(SIZE)
        pair.client.kill()
        assert link.pull() == 0
        with pytest.raises(PeerError):
            link.push(1)


@families
@pytest.mark.parametrize("way", UDP_SENDS)
@pytest.mark.parametrize("connected", [True, False])
def test_each_way_of_sending_datagrams(wire: Wire, family: str, way: str, connected: bool) -> None:
    with udp_pair(wire.client, wire.server, family, connected=connected) as pair:
        done = pair.run(way, 97, 499, reply=211)
    (server,) = done.servers
    assert done.client.sent == server.read == 97 * 499
    assert done.client.sent_datagrams == server.read_datagrams == 97
    assert server.sent == done.client.read == 97 * 211
    assert [port for _, port in server.peers] == [done.client.local[1]]


@families
@pytest.mark.parametrize("way", ["send", "sendmsg", "sendmmsg"])
def test_one_socket_to_several_peers(wire: Wire, family: str, way: str) -> None:
    with udp_pair(wire.client, wire.server, family, servers=3, wildcard=True) as pair:
        done = pair.run(way, 100, 101, reply=53)
    assert [server.read_datagrams for server in done.servers] == [34, 33, 33]
    assert {port: heard.bytes for (_, port), heard in done.client.peers.items()} == dict(
        zip(pair.ports, (34 * 53, 33 * 53, 33 * 53), strict=True)
    )


@families
@pytest.mark.parametrize("way", ["send", "sendmmsg"])
def test_empty_datagrams(wire: Wire, family: str, way: str) -> None:
    with udp_pair(wire.client, wire.server, family) as pair:
        done = pair.run(way, 23, 0)
    assert done.client.sent == done.servers[0].read == 0
    assert done.client.sent_datagrams == done.servers[0].read_datagrams == 23


@families
def test_gso_meets_gro(wire: Wire, family: str) -> None:
    with udp_pair(wire.client, wire.server, family, gro=True) as pair:
        done = pair.run("gso", 300, 1000)
    assert done.servers[0].read == done.client.sent == 300_000
    assert done.servers[0].read_datagrams == 300
    assert done.servers[0].largest > 1, "GRO never joined two datagrams"


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_multicast_is_heard_in_the_same_namespace_and_across(wire: Wire, family: str) -> None:
    with Peer(wire.client) as sender, Peer(wire.client) as near, Peer(wire.server) as far:
        sent, *heard = multicast(sender, [near, far], family, count=23, size=1000)
    assert sent.sent_datagrams == 23
    assert [(end.read_datagrams, end.read) for end in heard] == [(23, 23_000)] * 2


def test_a_peer_can_live_in_a_cgroup(netns: Netns, cgroup: Callable[..., Path]) -> None:
    folder = cgroup("docker/" + "a" * 64)
    with Peer(netns, folder) as peer:
        assert Path(f"/proc/{peer.pid}/cgroup").read_text().rstrip().endswith("/docker/" + "a" * 64)
        assert str(peer.pid) in (folder / "cgroup.procs").read_text().split()


def test_a_failed_test_leaves_no_namespace() -> None:
    seen = []
    with contextlib.suppress(ZeroDivisionError), make_wire() as wire:
        seen = [wire.client.name, wire.server.name]
        _ = 1 / 0
    assert all(name.startswith(PREFIX) for name in seen)
    assert not set(seen) & set(run("ip", "netns", "list").split())
