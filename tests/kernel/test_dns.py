# SPDX-License-Identifier: Apache-2.0
"""DNS over UDP, query by query: type, response code, answers that never come."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.kernel.agents import ASKING, Agent
from tests.kernel.peers.netns import Netns
from tests.kernel.test_http_servers import needed, running
from tests.kernel.watch import Watch, nothing_lost
from weir.kernel.layout import DESTINATION, SOURCE

A, NS, PTR, TXT, AAAA, HTTPS, CAA = 1, 2, 12, 16, 28, 65, 257
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
#: What a row has as status.
_ANSWERED = 1


_SCRIPT = """
import socket, struct, sys
family = {family}
server = socket.socket(family, socket.SOCK_DGRAM); server.bind(({address!r}, 0))
port = server.getsockname()[1]
client = socket.socket(family, socket.SOCK_DGRAM)
if {connected}: client.connect(({address!r}, port))
def name(text): return b"".join(bytes([len(p)]) + p for p in text.encode().split(b".") if p) + b"\\0"
def query(number, kind, text="a.test", extra=b"", additional=0):
    head = struct.pack("!6H", number, 0x0100, 1, 0, 0, additional)
    return head + name(text) + struct.pack("!2H", kind, 1) + extra
def reply(asked, code, flags=0x8180): return asked[:2] + struct.pack("!H", flags | code) + asked[4:]
def ask(packet): client.send(packet) if {connected} else client.sendto(packet, ({address!r}, port))
def answer(packet, code=0, **more):
    data, peer = server.recvfrom(4096); server.sendto(reply(data, code, **more), peer); client.recv(4096)
def echo(): data, peer = server.recvfrom(99); server.sendto(data, peer); client.recv(99)
def talk(number, kind, code=0, **more): ask(query(number, kind, **more)); answer(None, code)
{body}
print(port)
"""


def run(place: Netns, body: str, family: str = "v4", connected: bool = True) -> int:
    """A client and a server that say what ``body`` tells; the server's port."""
    kinds = {"v4": ("socket.AF_INET", "127.0.0.1"), "v6": ("socket.AF_INET6", "::1")}
    kind, address = kinds[family]
    script = _SCRIPT.format(family=kind, address=address, connected=connected, body=body)
    return int(place.run(sys.executable, "-c", script))


def counted(watch: Watch, place: Netns, port: int) -> dict[tuple[str, int], int]:
    """Queries by type and response code (-1: no answer) as both ends counted them."""
    ends = [watch.requests(place, role, port) for role in (SOURCE, DESTINATION)]
    assert ends[0] == ends[1]
    assert {protocol for protocol, _, _ in ends[0]} <= {"dns"}
    return {(kind, status - _ANSWERED): n for (_, kind, status), n in ends[0].items()}


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_types_and_codes(watch: Watch, place: Netns, family: str, connected: bool) -> None:
    port = run(place, f"""
for n in range(23): talk(n, {A})
for n in range(7): talk(n, {AAAA}, {NXDOMAIN})
for kind in ({NS}, {PTR}, {TXT}, {HTTPS}, {CAA}): talk(3, kind)
for code in ({SERVFAIL}, {REFUSED}, 15): talk(4, {A}, code)
""", family, connected)  # fmt: skip
    assert counted(watch, place, port) == {
        ("A", NOERROR): 23, ("AAAA", NXDOMAIN): 7, ("NS", 0): 1, ("PTR", 0): 1, ("TXT", 0): 1,
        ("HTTPS", 0): 1, ("_OTHER", 0): 1, ("A", SERVFAIL): 1, ("A", REFUSED): 1, ("A", 15): 1,
    }  # fmt: skip
    nothing_lost(watch)


def test_names_of_every_length(watch: Watch, place: Netns) -> None:
    port = run(place, f"""
for n in range(0, 64): talk(n, {A}, text="x" * n)
for n in range(1, 4): talk(n, {TXT}, text=".".join(["y" * 63] * n))
talk(9, {AAAA}, text=".".join(["y" * 63] * 3 + ["z" * 61]))
talk(10, {A}, extra=b"\\0" + struct.pack("!HHIH", 41, 1232, 0, 0), additional=1)
""")  # fmt: skip
    assert counted(watch, place, port) == {("A", 0): 65, ("TXT", 0): 3, ("AAAA", 0): 1}


def test_many_at_once_in_any_order(watch: Watch, place: Netns) -> None:
    port = run(place, f"""
import random
for _ in range(11):
    for n in range(101): ask(query(n, {A} if n % 2 else {AAAA}))
    heard = [server.recvfrom(4096) for _ in range(101)]
    random.shuffle(heard)
    for data, peer in heard: server.sendto(reply(data, 0 if data[1] % 3 else {NXDOMAIN}), peer)
    for _ in range(101): client.recv(4096)
""")  # fmt: skip
    found = counted(watch, place, port)
    assert sum(found.values()) == 11 * 101
    assert found["A", NXDOMAIN] == 11 * len([n for n in range(101) if n % 2 and not n % 3])


def test_asked_again_and_answered_twice(watch: Watch, place: Netns) -> None:
    """A repeated query is one that was not answered; a second answer is nobody's."""
    port = run(place, f"""
ask(query(5, {A})); server.recv(4096); ask(query(5, {A})); answer(None)
ask(query(6, {A})); data, peer = server.recvfrom(4096)
for _ in range(3): server.sendto(reply(data, 0), peer); client.recv(4096)
""")  # fmt: skip
    assert counted(watch, place, port) == {("A", NOERROR): 2, ("A", -1): 1}


@pytest.mark.parametrize("body", [
    "for n in range(50): ask(b'x' * n); echo()", "for n in range(50): ask(bytes(n)); echo()",
    "for n in range(20): ask(reply(query(n, 1), 0)); server.recv(99)",
    "for n in range(20): ask(query(n, 1)[:-5]); server.recv(99)",
])  # fmt: skip
def test_what_is_no_dns(watch: Watch, place: Netns, body: str) -> None:
    port = run(place, body)
    assert counted(watch, place, port) == {}
    assert watch.udp(place, SOURCE, port).sent_datagrams >= 20


def test_never_answered(watch: Watch, place: Netns) -> None:
    """A query that waited for 10 s counts as one without an answer, once, and not before."""
    port = run(place, f"for n in range(7): ask(query(n, {A}))\ntalk(99, {A})")
    assert counted(watch, place, port) == {("A", NOERROR): 1}
    time.sleep(10.2)
    for _ in range(2):
        assert counted(watch, place, port) == {("A", NOERROR): 1, ("A", -1): 7}


def dnsperf(place: Netns, home: Path, *how: str) -> tuple[Counter[int], int]:
    """dnsperf against port 5300: answers by response code as it counted them, and how many it asked for."""
    lines = [f"{name} {kind}" for name in ("a.test", "b.test", "none.test") for kind in ("A", "AAAA", "TXT")]
    (home / "queries").write_text("\n".join([*lines, "other.refused A"]) + "\n")
    load = ["-s127.0.0.1", "-p5300", f"-d{home}/queries", "-n2003", "-c3", "-T1", *how]
    said = place.run("dnsperf", *load)
    codes = re.search(r"Response codes: (.*)", said)
    assert codes is not None, said
    names = {"NOERROR": NOERROR, "NXDOMAIN": NXDOMAIN, "REFUSED": REFUSED, "SERVFAIL": SERVFAIL}
    return Counter({names[name]: int(n) for name, n in re.findall(r"(\w+) (\d+) \(", codes[1])}), 20_030


def test_dnsmasq_under_load(watch: Watch, place: Netns, tmp_path: Path) -> None:
    """As many as dnsperf sent, by response code as it counted them."""
    needed("dnsmasq", "dnsperf")
    options = ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--port=5300", "--local=/test/",
               "--conf-file", "--host-record=a.test,10.0.0.1,fd00::1", "--host-record=b.test,10.0.0.2",
               "--user=root", "--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file"]  # fmt: skip
    with running(place, 5300, "dnsmasq", *options):
        told, sent = dnsperf(place, tmp_path)
    found: Counter[int] = Counter()
    for (_, code), n in counted(watch, place, 5300).items():
        found[code] += n
    assert found == told
    assert sum(found.values()) == sent
    assert counted(watch, place, 5300)["A", NXDOMAIN] == 2003
    nothing_lost(watch)


def test_metrics(instance: str, netns: Netns) -> None:
    with Agent(instance, (netns,), env=ASKING).ready() as agent:
        run(netns, f"for n in range(7): talk(n, {A})\nfor n in range(3): talk(n, {AAAA}, {SERVFAIL})")
        page = agent.fresh()
    for reporter in ("source", "destination"):
        mine = {"reporter": reporter, "protocol": "dns"}
        assert page.sum("weir_requests_total", **mine, method="A", status="NOERROR", outcome="success") == 7
        assert (
            page.sum("weir_requests_total", **mine, method="AAAA", status="SERVFAIL", outcome="failure") == 3
        )
        assert page.sum("weir_request_duration_seconds_count", **mine) == 10
    assert page.sum("weir_agent_plane_up", plane="dns") == 1
