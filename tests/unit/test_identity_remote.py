# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tests.unit.synthetic import client, drain, identity, server, slot
from weir.identity.cidrs import packed
from weir.identity.types import OVERFLOW
from weir.kernel.layout import DESTINATION, UDP


def test_both_ends_of_a_loopback_connection(tmp_path: Path) -> None:
    who = identity(tmp_path)
    seen = who.observe(drain({1: client(), 2: server()}))
    assert seen.new.tolist() == [0, 1]
    local, remote, *_ = who.at(1)
    assert (local.workload, remote.workload, remote.attribution) == ("client", "redis-server", "address")
    assert who.at(2)[1].workload == "client"


def test_port_protocol_and_role_must_fit(tmp_path: Path) -> None:
    who = identity(tmp_path)
    who.observe(drain({1: client(), 2: server(port=6380), 3: server(proto=UDP), 4: client("other")}))
    assert who.at(1)[1].workload == "node"


def test_several_candidates_are_local(tmp_path: Path) -> None:
    who = identity(tmp_path)
    who.observe(drain({1: client("a"), 2: client("b"), 3: server()}))
    remote = who.at(3)[1]
    assert (remote.workload, remote.kind, remote.attribution) == ("local", "node", "node")
    assert who.at(1)[1].workload == who.at(2)[1].workload == "redis-server"


def test_a_second_candidate_makes_it_local_for_good(tmp_path: Path) -> None:
    who = identity(tmp_path)
    who.observe(drain({1: client("a"), 3: server()}))
    assert who.at(3)[1].workload == "a"
    seen = who.observe(drain({1: client("a"), 2: client("b"), 3: server()}))
    assert seen.relabelled.tolist() == [3]
    assert who.at(3)[1].workload == "local"
    # a is gone, but the server's counts are of both
    assert who.observe(drain({2: client("b"), 3: server()})).relabelled.size == 0
    assert who.at(3)[1].workload == "local"
    # b came after a had gone: what was counted was a's
    who = identity(tmp_path)
    who.observe(drain({1: client("a"), 3: server()}))
    who.observe(drain({3: server()}))
    who.observe(drain({2: client("b"), 3: server()}))
    assert who.at(3)[1].workload == "local"


def test_counterpart_that_comes_later(tmp_path: Path) -> None:
    who = identity(tmp_path)
    who.observe(drain({1: client()}))
    assert who.at(1)[1].workload == "node"
    seen = who.observe(drain({1: client(), 2: server()}))
    assert (seen.new.tolist(), seen.relabelled.tolist()) == ([1], [1])
    assert who.at(1)[1].workload == "redis-server"
    # the name stays when the counterpart's edge was idle and is gone
    assert who.observe(drain({1: client()})).relabelled.size == 0
    assert who.at(1)[1].workload == "redis-server"


def test_same_addresses_in_another_namespace_are_another_thing(tmp_path: Path) -> None:
    who = identity(tmp_path)
    who.observe(drain({1: client(netns=1), 2: server(netns=2)}))
    assert who.at(1)[1].workload == "node"


def test_far_end_of_a_veth(tmp_path: Path) -> None:
    near = slot("10.7.0.1", "10.7.0.2", 80, comm="wget", netns=1)
    far = slot("10.7.0.2", "10.7.0.1", 80, comm="nginx", role=DESTINATION, netns=2)
    who = identity(tmp_path)
    who.observe(drain({1: near, 2: far}))
    assert (who.at(1)[1].workload, who.at(2)[1].workload) == ("nginx", "wget")
    # two namespaces with these addresses: nobody knows which
    twin = slot("10.7.0.2", "10.7.0.1", 80, comm="apache", role=DESTINATION, netns=3)
    who = identity(tmp_path)
    who.observe(drain({1: near, 2: far, 3: twin}))
    assert who.at(1)[1].workload == "external"
    # but one in our own namespace goes first
    mine = slot("10.7.0.2", "10.7.0.1", 80, comm="lighttpd", role=DESTINATION, netns=1)
    who = identity(tmp_path)
    who.observe(drain({1: near, 2: far, 3: twin, 4: mine}))
    assert who.at(1)[1].workload == "lighttpd"


def test_node_cidr_and_external(tmp_path: Path) -> None:
    who = identity(tmp_path, ["office=10.1.0.0/16", "all=0.0.0.0/0"], lambda: frozenset([packed("10.1.0.7")]))
    who.observe(drain({
        1: slot(remote="10.1.0.7"),
        2: slot(remote="10.1.2.3"),
        3: slot(remote="10.1.0.0", bits=112),
        4: slot("2001:db8::1", "2001:db8::2"),
        5: slot(remote="127.0.0.53", proto=UDP, port=53),
        6: slot(remote="10.0.0.1", bits=128, port=1),
    }))  # fmt: skip
    found = [(who.at(n)[1].workload, who.at(n)[1].kind, who.at(n)[1].attribution) for n in range(1, 7)]
    assert found == [
        ("node", "node", "node"),
        ("office", "cidr", "address"),
        ("office", "cidr", "address"),
        ("external", "external", "none"),
        ("node", "node", "node"),
        ("node", "node", "node"),  # another edge of this namespace has that address
    ]


def test_slot_that_is_used_again_is_gone_and_new(tmp_path: Path) -> None:
    who = identity(tmp_path)
    who.observe(drain({1: client("a"), 9: server()}))
    seen = who.observe(drain({1: client("b", generation=1, port=1), 9: server()}))
    assert (seen.new.tolist(), seen.gone.tolist()) == ([0], [1])
    assert who.at(1)[0].workload == "b"
    assert who.observe(drain({})).gone.tolist() == [1, 9]
    assert who.observe(drain({})).gone.tolist() == []


def test_overflow_slot_and_edges_by_key(tmp_path: Path) -> None:
    who = identity(tmp_path)
    rows = drain({0: np.zeros((), client().dtype), 1: client(), 2: server()})
    who.observe(rows)
    assert who.at(0)[:2] == (OVERFLOW, OVERFLOW)
    assert who.ends(rows.slots["key"][1], 0)[1].workload == "redis-server"
    late = drain({1: client("late")}).slots["key"][0]
    assert who.ends(late, 0)[1].workload == "redis-server"


def test_an_idle_drain_of_16k_edges_is_cheap(tmp_path: Path) -> None:
    rows = {n: slot(f"10.0.{n >> 8}.{n & 255}", port=1 + n % 60000) for n in range(1, 16385)}
    who = identity(tmp_path)
    full = drain(rows)
    who.observe(full)
    start = time.perf_counter()
    seen = who.observe(full)
    print(f"idle observe of 16384 edges: {(time.perf_counter() - start) * 1e3:.2f} ms")
    assert [seen.new.size, seen.gone.size, seen.relabelled.size] == [0, 0, 0]
