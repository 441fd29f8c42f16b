# SPDX-License-Identifier: Apache-2.0
"""Pods come and go while traffic runs, and each address is used again at once: no byte on a wrong pod."""

from __future__ import annotations

import datetime as dt
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from tests.cluster import objects
from tests.cluster.nodes import Cluster, Node, Pod
from tests.cluster.test_names import Access
from tests.kernel.agents import Agent
from tests.kernel.peers.netns import run
from tests.kernel.peers.process import FAMILIES, Peer
from tests.kernel.peers.tcp import Link
from tests.kernel.peers.udp import open_socket

#: Pods in all, and addresses that they share; primes.
PODS, ADDRESSES = int(os.environ.get("WEIR_CHURN_PODS", "1009")), 53
TCP, UDP = "weir_tcp_sent_bytes_total", "weir_udp_sent_bytes_total"
#: Nobody's bytes are a multiple of another pod's size by chance: sizes are larger than any count of them.
SMALLEST = 1009


@dataclass
class Truth:
    """What was sent to whom, by pod and metric."""

    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    size: dict[str, int] = field(default_factory=dict)


class Street:
    """One client pod, and one process behind all the addresses, whoever has them."""

    def __init__(self, far: Node, client: Peer, server: Peer) -> None:
        self._client, self._server = client, server
        self.addresses = [f"{far.pod_network}.{number}" for number in range(100, 100 + ADDRESSES)]
        commands = "".join(f"addr add {address}/24 dev eth0\n" for address in self.addresses)
        run("ip", "-n", server.netns.name, "-batch", "-", stdin=commands)
        listening = server.ask("listen", family=FAMILIES["v4"], address="0.0.0.0", port=0, rcvbuf=0)
        self._listener, self.port = listening["id"], int(listening["port"])
        self._udp_server, self.udp_port = open_socket(server, "v4", bind=("0.0.0.0", 0))
        self._udp_client, _ = open_socket(client, "v4")

    def open(self, address: str) -> Link:
        self._server.post("accept", listener=self._listener)
        number = self._client.ask("connect", family=FAMILIES["v4"], address=address, port=self.port)
        return Link(
            {"client": self._client, "server": self._server},
            {"client": number["id"], "server": self._server.answer()["id"]},
        )

    def datagram(self, address: str, size: int) -> None:
        self._client.ask("udp_send", id=self._udp_client, way="send", peers=[(address, self.udp_port)],
                         size=size, count=1)  # fmt: skip
        self._server.ask("udp_read", id=self._udp_server, count=1)


class Life:
    """Generations of pods at one address; each step does something and says how long to wait."""

    def __init__(
        self, street: Street, node: Node, address: str, names: Iterator[int], truth: Truth, rng: random.Random
    ) -> None:
        self.street, self.node, self.address = street, node, address
        self.names, self.truth, self.rng = names, truth, rng
        self.api = node.cluster.control.api
        self.due = time.monotonic()
        self._steps = self._generations()

    def step(self) -> bool:
        wait = next(self._steps, None)
        self.due = time.monotonic() + (wait or 0)
        return wait is not None

    def _talk(self, pod: str, times: int) -> None:
        size = self.truth.size[pod]
        for _ in range(times):
            link = self.street.open(self.address)
            link.move(size)
            link.close()
            self.truth.sent[pod, TCP] += size
            self.street.datagram(self.address, size)
            self.truth.sent[pod, UDP] += size

    def _generations(self) -> Iterator[float]:
        before = ""

        def end() -> None:
            if before:
                self.api.delete_namespaced_pod(before, "prod", grace_period_seconds=0)

        for number in self.names:
            pod = f"p{number}"
            self.truth.size[pod] = SMALLEST + number
            made = objects.pod("prod", pod, self.node.name)
            self.api.create_namespaced_pod("prod", made)
            since = dt.datetime.now(dt.timezone.utc)
            late = self.rng.random() < 0.5  # the API tells of the old one's end after the new one has begun
            if not late:
                end()
            self._talk(pod, 1)
            if late:
                end()
            yield self.rng.uniform(0, 0.3)
            self.api.patch_namespaced_pod_status(pod, "prod", objects.status(self.address, since))
            stays = self.street.open(self.address)
            yield from self._live(pod, stays)
            before = pod
        end()

    def _live(self, pod: str, stays: Link) -> Iterator[float]:
        size = self.truth.size[pod]
        yield self.rng.uniform(1.0, 2.5)
        self._talk(pod, 2)
        stays.move(size)
        yield self.rng.uniform(0.5, 1.5)
        self._talk(pod, 1)
        self.api.delete_namespaced_pod(pod, "prod")
        self._talk(pod, 1)
        yield self.rng.uniform(0.1, 0.7)
        self._talk(pod, 1)
        stays.move(size)
        stays.close()
        self.truth.sent[pod, TCP] += 2 * size


class Town:
    """All addresses at once, until their pods are used up."""

    def __init__(self, street: Street, far: Node, pods: int, seed: int) -> None:
        self.truth, rng = Truth(), random.Random(seed)
        names = iter(range(pods))
        self._lives = [Life(street, far, address, names, self.truth, rng) for address in street.addresses]

    def run(self, meanwhile: Callable[[int], None] = lambda _: None) -> float:
        """Seconds that it took; ``meanwhile`` is told how many pods there were until now."""
        began = time.monotonic()
        while self._lives:
            life = min(self._lives, key=lambda each: each.due)
            time.sleep(max(0.0, life.due - time.monotonic()))
            if not life.step():
                self._lives.remove(life)
            meanwhile(len(self.truth.size))
        return time.monotonic() - began


@pytest.fixture
def street(cluster: Cluster) -> Iterator[tuple[Street, Node, Pod]]:
    here, far = cluster.node("node-a"), cluster.node("node-b")
    client, host = here.pod("client"), far.pod("host")
    with Peer(client.netns, client.cgroup) as one, Peer(host.netns, host.cgroup) as two:
        yield Street(far, one, two), far, client


def test_no_byte_on_a_wrong_pod(instance: str, street: tuple[Street, Node, Pod], access: Access) -> None:
    seed = random.randrange(1 << 32)
    town = Town(street[0], street[1], PODS, seed)
    truth = town.truth
    options = (*access("node-a"), "--interval", "1", "--labels", "destination_pod")
    with Agent(instance, (street[2].netns,), *options).ready() as agent:
        took = town.run()
        page = agent.fresh()
    counted: Counter[tuple[str, str]] = Counter()
    for (name, has), value in page.samples.items():
        if name in (TCP, UDP):
            counted[dict(has)["destination_pod"], name] += int(value)
    nobodys = sum(value for (pod, _), value in counted.items() if not pod)
    total = truth.sent.total()
    print(f"{len(truth.size)} pods in {took:.0f} s: {nobodys / total:.1%} of {total} bytes without a"
          f" pod's name, seed {seed}")  # fmt: skip
    assert page.sum(TCP) + page.sum(UDP) == total, f"seed {seed}"
    wrong = {
        key: (value, truth.sent[key], truth.size[key[0]])
        for key, value in counted.items()
        if key[0] and (value > truth.sent[key] or value % truth.size[key[0]])
    }
    assert not wrong, f"seed {seed}: {wrong}"
    assert nobodys < total * 0.6, f"seed {seed}"  # most of a life of 3 s is its beginning and its end
    assert page.sum("weir_agent_series_folded") == 0


def test_memory_is_flat(instance: str, street: tuple[Street, Node, Pod], access: Access) -> None:
    """Where what is idle goes after 5 s: past the first third, more pods take no more memory."""
    town, pods = Town(street[0], street[1], PODS // 2, 7), PODS // 2
    options = (*access("node-a"), "--interval", "1", "--idle", "5", "--labels", "destination_pod")
    with Agent(instance, (street[2].netns,), *options).ready() as agent:
        process, memory = psutil.Process(agent.pid), [0, 0]

        def watch(count: int) -> None:
            late = count > pods * 2 // 3
            if count > pods // 3:
                memory[late] = max(memory[late], process.memory_info().rss)

        town.run(watch)
    print(f"agent {memory[0] >> 20} MB, then {memory[1] >> 20} MB at most")
    assert memory[1] < memory[0] + (8 << 20)
