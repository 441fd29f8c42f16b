# SPDX-License-Identifier: Apache-2.0
"""UDP payload and datagrams, with the addresses that were on the packets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from tests.kernel.peers.datagrams import SENDS
from tests.kernel.peers.netns import Wire, make_wire
from tests.kernel.peers.process import Peer
from tests.kernel.peers.udp import GROUPS, multicast, udp_pair
from tests.kernel.watch import Watch, nothing_lost, watching
from weir.kernel.layout import DESTINATION, SOURCE, UDP

families = pytest.mark.parametrize("family", ["v4", "v6", "mapped"])


@pytest.fixture(scope="module")
def road() -> Iterator[Wire]:
    with make_wire() as made:
        yield made


@pytest.fixture(scope="module")
def watch(road: Wire) -> Iterator[Watch]:
    with watching(road.client, road.server) as made:
        yield made
        nothing_lost(made)


@pytest.fixture(autouse=True)
def _mark(request: pytest.FixtureRequest) -> None:
    if "watch" in request.fixturenames:
        request.getfixturevalue("watch").mark()


def _both(watch: Watch, road: Wire, port: int, sent: tuple[int, int], answered: tuple[int, int]) -> None:
    """(datagrams, bytes) there and back, as both ends counted them."""
    client, server = watch.udp(road.client, SOURCE, port), watch.udp(road.server, DESTINATION, port)
    assert (
        (client.sent_datagrams, client.sent_bytes),
        (client.received_datagrams, client.received_bytes),
    ) == (
        sent,
        answered,
    )
    assert (
        (server.received_datagrams, server.received_bytes),
        (server.sent_datagrams, server.sent_bytes),
    ) == (
        sent,
        answered,
    )


@families
@pytest.mark.parametrize("way", SENDS)
@pytest.mark.parametrize("connected", [True, False])
def test_each_way_of_sending(watch: Watch, road: Wire, family: str, way: str, connected: bool) -> None:
    with udp_pair(road.client, road.server, family, connected=connected) as pair:
        pair.run(way, 97, 509, reply=211)
        _both(watch, road, pair.ports[0], (97, 97 * 509), (97, 97 * 211))


@families
def test_unconnected_to_many_peers(watch: Watch, road: Wire, family: str) -> None:
    """One socket, seven servers in turn: each flow has its own edge and exact counts."""
    with udp_pair(road.client, road.server, family, servers=7, wildcard=True) as pair:
        pair.run("send", 7 * 13, 101, reply=53)
        for port in pair.ports:
            _both(watch, road, port, (13, 13 * 101), (13, 13 * 53))


@families
def test_gso_and_gro(watch: Watch, road: Wire, family: str) -> None:
    with udp_pair(road.client, road.server, family, gro=True) as pair:
        pair.run("gso", 61, 1009)
        _both(watch, road, pair.ports[0], (61, 61 * 1009), (0, 0))


@families
def test_empty_datagrams(watch: Watch, road: Wire, family: str) -> None:
    with udp_pair(road.client, road.server, family) as pair:
        pair.run("send", 23, 0)
        _both(watch, road, pair.ports[0], (23, 0), (0, 0))


@families
def test_larger_than_the_mtu(watch: Watch, road: Wire, family: str) -> None:
    """IP fragments: one datagram, counted once and whole."""
    with udp_pair(road.client, road.server, family) as pair:
        pair.run("send", 7, 9001)
        _both(watch, road, pair.ports[0], (7, 7 * 9001), (0, 0))


@pytest.mark.parametrize("family", GROUPS)
def test_multicast(watch: Watch, road: Wire, family: str) -> None:
    """Sent once although it loops back; received once by each of two sockets, one of them near the sender."""
    with Peer(road.client) as sender, Peer(road.client) as near, Peer(road.server) as far:
        ends = multicast(sender, [near, far], family, count=29, size=307)
        port = ends[1].local[1]
        assert all(e.read_datagrams == 29 for e in ends[1:])
    sent = watch.udp(road.client, SOURCE, port)
    assert (sent.sent_datagrams, sent.sent_bytes, sent.received_datagrams) == (29, 29 * 307, 0)
    for netns in (road.client, road.server):
        got = watch.udp(netns, DESTINATION, port)
        assert (got.received_datagrams, got.received_bytes, got.sent_datagrams) == (29, 29 * 307, 0)


@families
def test_addresses_are_those_of_the_packets(watch: Watch, road: Wire, family: str) -> None:
    with udp_pair(road.client, road.server, family, wildcard=True) as pair:
        pair.run("send", 5, 11)
        (row,) = watch.rows(road.client, SOURCE, pair.ports[0], UDP)
        (other,) = watch.rows(road.server, DESTINATION, pair.ports[0], UDP)
    v6 = family == "v6"
    wanted = (
        [road.client.v6, road.server.v6] if v6 else [f"::ffff:{road.client.v4}", f"::ffff:{road.server.v4}"]
    )
    packed = [ipaddress.ip_address(w).packed for w in wanted]
    assert [row["key"]["laddr"].tobytes(), row["key"]["raddr"].tobytes()] == packed
    assert [other["key"]["raddr"].tobytes(), other["key"]["laddr"].tobytes()] == packed
    assert row["key"]["family"] == (6 if v6 else 4)
    assert other["key"]["comm"].decode().startswith("python")
