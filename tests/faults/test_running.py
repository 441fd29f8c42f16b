# SPDX-License-Identifier: Apache-2.0
"""Every system call of an agent fails once: it ends with a line, or lives, and all is exact after it."""

from __future__ import annotations

import random
import threading
import time
from http.client import HTTPException

import pytest

from tests.faults.inject import Call, Faults
from tests.faults.test_loading import chosen, told
from tests.kernel.agents import ASKING, Agent, Page, own_instance, until, weir
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get
from tests.kernel.peers.netns import Netns

PORT = 8080
ASKED, ANSWERED = get(), answer(200, b"x" * 307)
PAGES = (
    "/metrics", "/api/v1/edges", "/api/v1/connections", "/api/v1/requests", "/healthz", "/readyz", "/",
    "/api/v1/graph",
)  # fmt: skip
SENT, RECEIVED = "weir_tcp_sent_bytes_total", "weir_tcp_received_bytes_total"
OPENED = "weir_tcp_connections_opened_total"


class Visits:
    """Conversations with a server of the test's, each of one request."""

    def __init__(self, talks: Dialogues) -> None:
        self._talks, self.times = talks, 0
        talks.listen(address="127.0.0.1", port=PORT)

    def some(self, times: int = 3) -> None:
        """Half of them at an address that nobody visits again, so that its edge folds into the other one."""
        for _ in range(times):
            address = f"127.0.{1 + self.times // 200}.{1 + self.times % 200}"
            self._talks.listen(address=address, port=PORT)
            for one in ("127.0.0.1", address):
                self._talks.once(PORT, [(CLIENT, ASKED), (SERVER, ANSWERED)], one)
                self.times += 1

    def wrong(self, page: Page) -> str:
        """What a page has that is not so."""
        for reporter in ("source", "destination"):
            has = {"reporter": reporter, "destination_port": PORT}
            found = [page.sum(name, **has) for name in (SENT, RECEIVED, OPENED, "weir_requests_total")]
            wanted = [self.times * n for n in (len(ASKED), len(ANSWERED), 1, 1)]
            if found != wanted:
                return f"{reporter}: {found} instead of {wanted}"
        return ""


class Each:
    """While it is armed, the first call at each site fails."""

    def __init__(self) -> None:
        self.armed, self.sites, self.news = False, set[str](), time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> int:
        with self._lock:
            if not self.armed or call.site in self.sites:
                return 0
            self.sites.add(call.site)
            self.news = time.monotonic()
            return call.error


def look(agent: Agent) -> None:
    """At every page; what fails meanwhile may."""
    for page in PAGES:
        try:
            agent.get(page)
        except (OSError, HTTPException):  # half a page is told from a whole one
            time.sleep(0.02)


def test_each_call_of_a_running_agent_fails_once(netns: Netns) -> None:
    each = Each()
    with own_instance() as instance, Dialogues(netns) as talks, Faults(each) as faults:
        visits = Visits(talks)
        with Agent(instance, (netns,), "--idle", "1", wrap=faults.wrap, env=ASKING).ready() as agent:
            visits.some()
            each.armed, each.news = True, time.monotonic()
            while time.monotonic() - each.news < 5:
                visits.some()
                look(agent)
                assert agent.process.poll() is None, agent.log
            each.armed = False
            failed = sorted(call.site for call in faults.failed)
            print(f"{len(failed)} calls failed:", *failed, sep="\n")
            assert len(failed) > 20
            assert {"bpf PROG_TEST_RUN", "bpf ITER_CREATE", "bpf MAP_DELETE"} <= set(failed)
            visits.some(7)
            page = agent.page_when(lambda page: not visits.wrong(page))
            assert not visits.wrong(page)
            assert agent.get("/healthz")[0] == 200
            assert agent.get("/readyz")[0] == 200
            assert len(agent.log) < 400
            assert agent.terminate() == 0, agent.log


def start(site: str, netns: Netns, visits: Visits, instance: str) -> str:
    """What is wrong with an agent one of whose first calls fails; "" if all is well."""
    fired = threading.Event()

    def once(call: Call) -> int:
        if call.site != site or fired.is_set():
            return 0
        fired.set()
        return call.error

    with Faults(once) as faults, Agent(instance, (netns,), wrap=faults.wrap, env=ASKING) as agent:
        until(lambda: "msg=serving" in "\n".join(agent.log) or agent.process.poll() is not None)
        if not fired.is_set():
            return "it was not called"
        if agent.process.poll() is None:
            agent.ready()
            visits.some()
            page = agent.page_when(lambda page: not visits.wrong(page))
            return visits.wrong(page) or (
                "" if agent.terminate() == 0 else f"it does not end well: {agent.log}"
            )
        if not agent.process.returncode:
            return f"it ends with 0: {agent.log}"
        why = told("\n".join(agent.log))
        return f"{why}: {agent.log}" if why else ""


def test_each_call_of_a_start_fails_once(netns: Netns) -> None:
    """On what an agent before it left pinned, which counts all the time."""
    sites: dict[str, int] = {}

    def watch(call: Call) -> int:
        if not done.is_set():
            sites[call.site] = 1
        return 0

    done = threading.Event()
    with own_instance() as instance, Dialogues(netns) as talks:
        visits = Visits(talks)
        loaded = weir("load", "--instance", instance, "--netns", netns.name, env=ASKING)
        assert loaded.returncode == 0, loaded
        with Faults(watch) as faults, Agent(instance, (netns,), wrap=faults.wrap, env=ASKING) as agent:
            agent.ready()
            done.set()
            agent.terminate()
        seed = random.randrange(1 << 32)
        wrong = {}
        for site in (tried := chosen(list(sites), seed)):
            visits.some(1)
            if why := start(site, netns, visits, instance):
                wrong[site] = why
                print(f"{site}: {why}", flush=True)
        print(f"{len(tried)} of {len(sites)} calls, seed {seed}")
        with Agent(instance, (netns,), env=ASKING).ready() as agent:
            page = agent.page_when(lambda page: not visits.wrong(page))
            assert not visits.wrong(page)
    assert not wrong, "\n".join(f"{site}: {why}" for site, why in wrong.items())


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_there(netns: Netns, instance: str, page: str) -> None:
    """What is asked for above is answered where nothing fails."""
    with Agent(instance, (netns,), env=ASKING).ready() as agent:
        assert agent.get(page)[0] == 200
