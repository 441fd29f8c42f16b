# SPDX-License-Identifier: Apache-2.0
"""``weir run`` as a process: its pages, its end, what is counted between two agents."""

from __future__ import annotations

import random
import signal
import threading
import time
from http.client import HTTPException

import psutil
import pytest

from tests.kernel.agents import ASKING, Agent, Rising, both, own_instance, weir
from tests.kernel.peers.netns import Netns, Wire
from tests.kernel.peers.process import FAMILIES, Peer
from tests.kernel.peers.tcp import Link, tcp_pair
from tests.kernel.peers.udp import open_socket, udp_pair

SENT, RECEIVED = "weir_tcp_sent_bytes_total", "weir_tcp_received_bytes_total"
CLOSED = "weir_tcp_connections_closed_total"


def test_pages_of_a_running_agent(instance: str, wire: Wire) -> None:
    """Bytes, datagrams and connections to the digit, from both ends, on every page; then a clean end."""
    with Agent(instance, (wire.client, wire.server)).ready() as agent:
        with tcp_pair(wire.client, wire.server) as pair, udp_pair(wire.client, wire.server) as udp:
            for _ in range(23):
                pair.run("send", 1009, reply=503)
            link = pair.open()
            link.move(101)
            talk = udp.run("sendmmsg", 97, 211, reply=13)
            assert talk.client.sent == 97 * 211
            link.now()
            agent.page_when(lambda p: both(p, CLOSED, pair.port) == (23, 23))
            page = agent.fresh()  # the drain of that page may have been in the middle of the datagrams
            assert both(page, SENT, pair.port) == (23 * 1009 + 101,) * 2
            assert both(page, RECEIVED, pair.port) == (23 * 503,) * 2
            assert both(page, "weir_tcp_connections_opened_total", pair.port) == (24, 24)
            assert both(page, "weir_tcp_connections", pair.port) == (1, 1)
            for way, size in (("sent", 211), ("received", 13)):
                assert both(page, f"weir_udp_{way}_bytes_total", udp.ports[0]) == (97 * size,) * 2
                assert both(page, f"weir_udp_{way}_datagrams_total", udp.ports[0]) == (97, 97)
            assert agent.get("/healthz")[::2] == (200, "ok\n")
            edges = agent.json("/api/v1/edges")["edges"]
            assert str(pair.port) in str(edges)
            live = agent.json("/api/v1/connections")
            assert live["total"] >= 2
            link.close()
        assert agent.terminate() == 0
        assert 'msg="stopped; ' in agent.log[-1]
        assert [line for line in agent.log if " level=info " not in line] == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_counting_goes_on_between_two_agents(instance: str, wire: Wire, how: signal.Signals) -> None:
    rising = Rising()
    with tcp_pair(wire.client, wire.server) as pair:
        long = None
        for number in (1, 2):
            with Agent(instance, (wire.client, wire.server)).ready() as agent:
                rising.see(agent.page())
                long = long or pair.open()
                long.move(1009)
                pair.run("send", 503)
                long.now()
                page = agent.fresh()
                rising.see(page)
                assert both(page, SENT, pair.port) == (number * 1512 + (number - 1) * 10_016,) * 2
                agent.process.send_signal(how)
                assert agent.process.wait(30) == (0 if how == signal.SIGTERM else -9)
            assert number == 1 or "using the pinned kernel side" in agent.log[0]
            long.move(13)
            pair.run("send", 10_003)
        with Agent(instance, (wire.client, wire.server)).ready() as agent:
            page = agent.fresh()
            rising.see(page)
            assert both(page, SENT, pair.port) == (2 * (1512 + 10_016),) * 2
            assert both(page, "weir_tcp_connections", pair.port) == (1, 1)


class Street:
    """Seven addresses of one service in one namespace: seven edges at each end, one series."""

    PORT, HOUSES = 7001, 7

    def __init__(self, client: Peer, server: Peer) -> None:
        self._client, self._server = client, server
        self.sent = 0
        self._listeners = [
            server.ask("listen", family=FAMILIES["v4"], address=self._address(house), port=self.PORT)["id"]
            for house in range(self.HOUSES)
        ]

    @staticmethod
    def _address(house: int) -> str:
        return f"127.0.0.{house + 1}"

    def visit(self, house: int, size: int, *, stay: bool = False) -> Link:
        """One connection with ``size`` bytes; it is closed unless it is to ``stay``."""
        self._server.post("accept", listener=self._listeners[house])
        where = {"family": FAMILIES["v4"], "address": self._address(house), "port": self.PORT}
        number = self._client.ask("connect", **where)
        link = Link(
            {"client": self._client, "server": self._server},
            {"client": number["id"], "server": self._server.answer()["id"]},
        )
        link.move(size)
        self.sent += size
        if not stay:
            link.close()
        return link


def test_counters_never_go_down(instance: str, netns: Netns) -> None:
    """Connections come and go, idle edges are retired into others, the agent is killed in between."""
    seed = random.randrange(1 << 32)
    chance, rising = random.Random(seed), Rising()
    with Peer(netns) as client, Peer(netns) as server:
        street = Street(client, server)
        for kind in (signal.SIGKILL, signal.SIGTERM):
            with Agent(instance, (netns,), "--idle", "1").ready() as agent, _scraping(agent, rising):
                stays = street.visit(chance.randrange(7), 1009, stay=True)
                end = time.monotonic() + chance.uniform(2.0, 3.5)
                while time.monotonic() < end:
                    street.visit(chance.randrange(7), chance.randrange(1, 10_007))
                    time.sleep(chance.choice((0.001, 0.01, 0.7)))
                stays.close()
                agent.process.send_signal(kind)
        with Agent(instance, (netns,), "--idle", "1").ready() as agent:
            street.visit(0, 23, stay=True)
            page = agent.page_when(  # two edges alone may be those of before the visit
                lambda p: (
                    p.sum("weir_agent_edges") == 2 and both(p, "weir_tcp_connections", Street.PORT) == (1, 1)
                )
            )
            rising.see(page)
            assert page.sum("weir_agent_edges") == 2, f"seed {seed}"
            assert both(page, SENT, Street.PORT) == (street.sent, street.sent), f"seed {seed}"
            assert both(page, "weir_tcp_connections", Street.PORT) == (1, 1)
    assert rising.pages > 20


class _scraping:  # noqa: N801 used as a context manager only
    """Scrapes in a thread as often as it can until the agent is gone; errors show at the end."""

    def __init__(self, agent: Agent, rising: Rising) -> None:
        self._agent, self._rising = agent, rising
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while True:
            try:
                self._rising.see(self._agent.page())
            except (OSError, HTTPException):
                return  # the agent was stopped
            except BaseException as error:  # noqa: BLE001 shown where the test is
                self._error = error
                return

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._error:
            raise self._error


def test_a_second_agent_of_an_instance_is_refused(instance: str, netns: Netns) -> None:
    with Agent(instance, (netns,)).ready() as agent:
        scope = ("--netns", netns.name)
        for arguments in (("run", "--listen", "127.0.0.1:0", *scope), ("load", *scope), ("unload",)):
            done = weir(*arguments, "--instance", instance)
            assert done.returncode == 5
            assert done.stderr.splitlines()[-1:] == done.stderr.splitlines()
            assert f"already runs for instance '{instance}' (pid {agent.pid})" in done.stderr
        assert agent.get("/readyz")[0] == 200
        assert agent.terminate() == 0


def test_two_instances_count_side_by_side(instance: str, wire: Wire) -> None:
    with (
        own_instance() as other,
        Agent(instance, (wire.client,)).ready() as one,
        Agent(other, (wire.client, wire.server), "--tcp", "tracepoint").ready() as two,
    ):
        with tcp_pair(wire.client, wire.server) as pair:
            pair.run("send", 100_003, reply=1009)
        for agent, sent in ((one, (100_003, 0)), (two, (100_003, 100_003))):
            page = agent.page_when(lambda p, sent=sent: both(p, SENT, pair.port) == sent)  # type: ignore[misc]
            assert both(page, SENT, pair.port) == sent
            assert page.sum(RECEIVED, reporter="source", destination_port=pair.port) == 1009
        two.kill()
    with tcp_pair(wire.client, wire.server) as pair:  # the other one's end was not ours
        pair.run("send", 1009)
        with Agent(instance, (wire.client,)).ready() as again:
            assert both(again.fresh(), SENT, pair.port) == (1009, 0)
            assert "using the pinned kernel side" in again.log[0]


def test_more_edges_than_are_mapped_at_first(instance: str, netns: Netns) -> None:
    """Of a process that calls many ports; and until there are some, little memory is taken."""
    ports = range(20_000, 21_511)
    with Agent(instance, (netns,), env=ASKING).ready() as agent:
        before = psutil.Process(agent.pid).memory_info().rss
        with Peer(netns) as peer:
            number, _ = open_socket(peer, "v4")
            to = [("127.0.0.1", port) for port in ports]
            peer.ask("udp_send", id=number, way="send", peers=to, size=7, count=len(to))
        name = "weir_udp_sent_datagrams_total"
        page = agent.page_when(lambda p: p.sum(name, reporter="source") == len(to))
        assert page.sum(name, reporter="source") == len(to)
        assert page.sum("weir_udp_sent_bytes_total", reporter="source") == 7 * len(to)
        assert len(page.label(name, "destination_port", reporter="source")) == len(to)
        assert page.sum("weir_agent_map_entries", map="slots") >= len(to)
    assert before < 80 << 20  # of which all slots and rows would be 44 MB
