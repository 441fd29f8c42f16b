# SPDX-License-Identifier: Apache-2.0
"""Mixed traffic in namespaces that come and go, agents killed and held: at the end every byte is there.

WEIR_SOAK_SECONDS says how long (180).
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.kernel.agents import ASKING, Agent, Labels, Page
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get
from tests.kernel.peers.netns import Netns, cgroup_root, make_cgroup, make_netns
from tests.kernel.peers.tcp import attempt, tcp_pair
from tests.kernel.peers.udp import udp_pair

SECONDS = float(os.environ.get("WEIR_SOAK_SECONDS", "180"))
#: Of one namespace with its processes, until others take their place.
_LIFE = 5.0
_WAYS = ("send", "random", "writev", "sendmsg", "sendfile", "splice", "zerocopy", "partial", "threads")
_STATUSES = (200, 204, 404, 503)
_TCP = ("weir_tcp_sent_bytes_total", "weir_tcp_received_bytes_total")
_UDP = ("weir_udp_sent_bytes_total", "weir_udp_received_bytes_total", "weir_udp_sent_datagrams_total")
_OPENED, _CLOSED = "weir_tcp_connections_opened_total", "weir_tcp_connections_closed_total"
_REFUSED, _REQUESTS = "weir_tcp_connect_failures_total", "weir_requests_total"
_TROUBLE = ("WARNING:", "BUG:", "Oops", "rcu_sched self-detected", "general protection fault")


@dataclass
class Sums:
    """What counters came to over all pages, as Prometheus' increase has it: series end and begin again."""

    total: Counter[tuple[str, str]] = field(default_factory=Counter)
    _last: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def see(self, page: Page) -> None:
        now = {key: value for key, value in page.counters.items() if key[0].startswith("weir_")}
        for key, value in now.items():
            before = self._last.get(key, 0.0)
            labels = dict(key[1])
            told = labels.get("reporter", "")
            if key[0] == _REQUESTS:
                told += f" {labels['protocol']} {labels['status']}"
            self.total[key[0], told] += int(value - before if value >= before else value)
        self._last = now


class Street:
    """One namespace, and the processes in it: what each does is added to the truth, for both reporters."""

    def __init__(
        self, stack: ExitStack, cgroup: Path, truth: Counter[tuple[str, str]], rng: random.Random
    ) -> None:
        self._truth, self._rng = truth, rng
        self._netns: Netns = stack.enter_context(make_netns())
        family = rng.choice(("v4", "v6", "mapped"))
        self._tcp = stack.enter_context(
            tcp_pair(self._netns, self._netns, family, client_cgroup=cgroup, server_cgroup=cgroup)
        )
        family = rng.choice(("v4", "v6"))
        self._udp = stack.enter_context(
            udp_pair(self._netns, self._netns, family, client_cgroup=cgroup, server_cgroup=cgroup)
        )
        self._talks = stack.enter_context(Dialogues(self._netns))
        (cgroup / "cgroup.procs").write_text(str(self._talks._process.pid))
        self._port = self._talks.listen()
        self._long = self._tcp.open()
        self._add(_OPENED, 1)

    def _add(
        self, name: str, value: int, told: str = "", reporters: tuple[str, ...] = ("source", "destination")
    ) -> None:
        for reporter in reporters:
            self._truth[name, f"{reporter} {told}".rstrip()] += value

    def _bytes(self, sent: int, received: int) -> None:
        self._add(_TCP[0], sent)
        self._add(_TCP[1], received)

    def one(self) -> None:
        """Something."""
        often = (self._run, self._run, self._ask, self._ask)
        now_and_then = (self._more, self._burst, self._half, self._reset, self._datagrams, self._refused)
        self._rng.choice((*often, *now_and_then))()

    def _run(self) -> None:
        size, reply = self._rng.randrange(1, 300_000), self._rng.choice((0, self._rng.randrange(1, 50_000)))
        done = self._tcp.run(self._rng.choice(_WAYS), size, reply=reply)
        self._bytes(done.client.sent, done.server.sent)
        self._add(_OPENED, 1)
        self._add(_CLOSED, 1)

    def _more(self) -> None:
        """On the connection that stays."""
        size = self._rng.randrange(1, 100_000)
        self._long.move(size)
        self._bytes(size, 0)

    def _burst(self) -> None:
        done = self._tcp.churn(self._rng.randrange(10, 60))
        self._bytes(done.client_sent, done.server_sent)
        self._add(_OPENED, done.count)
        self._add(_CLOSED, done.count)

    def _half(self) -> None:
        done = self._tcp.half_close(1009, 503)
        self._bytes(done.client.sent, done.server.sent)
        self._add(_OPENED, 1)
        self._add(_CLOSED, 1)

    def _reset(self) -> None:
        done = self._tcp.reset(211)
        self._bytes(done.client.sent, done.server.sent)
        self._add(_OPENED, 1)
        self._add(_CLOSED, 1)

    def _datagrams(self) -> None:
        count, size, reply = (
            self._rng.randrange(1, 60),
            self._rng.randrange(1, 1200),
            self._rng.randrange(1, 100),
        )
        self._udp.move("send", count, size, reply=reply)

    def _refused(self) -> None:
        assert attempt(self._tcp.client, "v4", "127.0.0.1", 9).outcome == "ECONNREFUSED"
        self._add(_REFUSED, 1, reporters=("source",))

    def _ask(self) -> None:
        status = self._rng.choice(_STATUSES)
        asked, answered = get(), answer(status)
        self._talks.once(self._port, [(CLIENT, asked), (SERVER, answered)])
        self._bytes(len(asked), len(answered))
        self._add(_OPENED, 1)
        self._add(_CLOSED, 1)
        self._add(_REQUESTS, 1, f"http {status}")

    def end(self) -> None:
        self._long.close()
        self._add(_CLOSED, 1)
        talk = self._udp.now()
        moved = talk.client.sent, sum(server.sent for server in talk.servers), talk.client.sent_datagrams
        for name, value in zip(_UDP, moved, strict=True):
            self._add(name, value)


def _kernel_says() -> list[str]:
    """Lines of the kernel's log that tell of trouble."""
    lines = []
    try:
        file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        while True:
            lines.append(os.read(file, 8192).decode(errors="replace"))
    except BlockingIOError:
        return [line for line in lines if any(word in line for word in _TROUBLE)]
    finally:
        os.close(file)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    root = cgroup_root()
    if root is None:
        pytest.skip("no cgroup v2 on this host")
    with make_cgroup(root) as made:
        yield made


class Watched:
    """One agent after the other, and what their pages come to."""

    def __init__(self, start: Callable[[], Agent], rng: random.Random) -> None:
        self._start, self._rng = start, rng
        self.agent, self.sums, self.ends = start().ready(), Sums(), Counter[str]()
        self.memory: list[tuple[int, int]] = []

    def look(self) -> None:
        self.sums.see(self.agent.page())
        process = psutil.Process(self.agent.pid)
        self.memory.append((process.memory_info().rss, process.num_fds()))

    def trouble(self) -> None:
        """Killed, ended, or held for a while."""
        what = self._rng.choice(("kill", "terminate", "stop"))
        self.ends[what] += 1
        if what == "stop":
            os.kill(self.agent.pid, signal.SIGSTOP)
            time.sleep(2)
            os.kill(self.agent.pid, signal.SIGCONT)
            return
        self.look()
        if what == "kill":
            self.agent.kill()
        else:
            assert self.agent.terminate() == 0
        self.agent.__exit__(None, None, None)
        self.agent = self._start().ready()
        self.memory.clear()


def test_nothing_is_lost_for_long(instance: str, cgroup: Path) -> None:
    """In the first half agents come and go; in the second one lives, and its memory, files and log stay."""
    seed = random.randrange(1 << 32)
    rng, truth = random.Random(seed), Counter[tuple[str, str]]()
    options = ("--cgroup", str(cgroup), "--interval", "0.5", "--idle", "10")
    before = _kernel_says()
    watched = Watched(lambda: Agent(instance, (), *options, env=ASKING), rng)
    began = time.monotonic()
    streets = 0
    try:
        while (now := time.monotonic() - began) < SECONDS:
            with ExitStack() as stack:
                here = [Street(stack, cgroup, truth, rng) for _ in range(3)]
                streets += len(here)
                end = time.monotonic() + _LIFE
                while time.monotonic() < end:
                    for street in here:
                        street.one()
                    watched.look()
                for street in here:
                    street.end()
                if now < SECONDS / 2:
                    watched.trouble()
                # what is counted when a namespace goes must be seen before its series ends
                watched.sums.see(watched.agent.fresh())
        time.sleep(2)  # the kernel's last timers of closed connections
        watched.sums.see(watched.agent.fresh())
        log, memory = watched.agent.log, watched.memory
        losses = {name: value for (name, _), value in watched.agent.page().counters.items()
                  if "overflow" in name and value}  # fmt: skip
    finally:
        watched.agent.__exit__(None, None, None)
    counted = {key: watched.sums.total[key] for key in truth}
    told = f"seed {seed}: {streets} streets, {truth.total():,} in all, agents {dict(watched.ends)}"
    print(told)
    assert counted == dict(truth), told
    assert losses == {}
    third = len(memory) // 3
    assert max(memory[2 * third :])[0] < 1.05 * max(memory[third : 2 * third])[0], told
    assert memory[-1][1] <= memory[third][1] + 1, told
    assert len(log) < 40, log
    assert _kernel_says() == before
