# SPDX-License-Identifier: Apache-2.0
"""The index by uid and by (network, address), also against a naive model of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.unit.synthetic import Clock
from weir.identity.cidrs import packed
from weir.identity.kube.index import ClusterIndex
from weir.identity.kube.pods import Node, Pod, Service

IPS = [packed(f"10.0.0.{n}") for n in range(1, 12)]
NETWORKS = ["", "prod/sriov-a", "prod/macvlan-b"]


def pod(uid: str, *addresses: tuple[str, bytes], **more: object) -> Pod:
    made = Pod(uid, "prod", f"pod-{uid}", "node-a", "web", "Deployment", addresses=addresses)
    return replace(made, **more)  # type: ignore[arg-type]


def test_one_address_in_two_networks_is_two_pods() -> None:
    index = ClusterIndex(Clock())
    index.put_pod(pod("a", ("prod/sriov-a", IPS[0])))
    index.put_pod(pod("b", ("prod/macvlan-b", IPS[0])))
    found = [index.pod_at(network, IPS[0]) for network in NETWORKS]
    assert [p and p.uid for p in found] == [None, "a", "b"]


def test_a_pod_that_is_gone_can_be_found_for_the_grace_time() -> None:
    clock = Clock()
    index = ClusterIndex(clock, grace=300)
    index.put_pod(pod("a", ("", IPS[0])))
    index.delete_pod("a")
    clock.now += 299
    index.expire()
    assert index.pod("a") is not None
    assert index.pod_at("", IPS[0]) is not None
    clock.now += 2
    index.expire()
    assert (index.pod("a"), index.pod_at("", IPS[0])) == (None, None)
    assert index.sizes()["pods"] == 0


def test_a_reused_address_is_the_new_pods() -> None:
    index = ClusterIndex(Clock())
    index.put_pod(pod("a", ("", IPS[0])))
    index.delete_pod("a")
    index.put_pod(pod("b", ("", IPS[0])))
    found = index.pod_at("", IPS[0])
    assert found is not None
    assert found.uid == "b"


def test_a_job_that_has_ended_leaves_its_address_to_who_runs() -> None:
    index = ClusterIndex(Clock())
    index.put_pod(pod("b", ("", IPS[0])))
    index.put_pod(pod("a", ("", IPS[0]), running=False))
    found = index.pod_at("", IPS[0])
    assert found is not None
    assert found.uid == "b"


def test_a_static_pod_by_its_uid_on_the_node() -> None:
    index = ClusterIndex(Clock())
    index.put_pod(pod("api-uid", local_uid="0123456789abcdef0123456789abcdef"))
    found = index.pod("0123456789abcdef0123456789abcdef")
    assert found is not None
    assert found.uid == "api-uid"


def test_the_job_of_a_cron_job_whichever_comes_first() -> None:
    index = ClusterIndex(Clock())
    backup = pod("a", workload="backup-29100", kind="Job")
    assert index.workload(backup) == ("backup-29100", "Job")
    index.put_job("prod", "backup-29100", "backup")
    assert index.workload(backup) == ("backup", "CronJob")


def test_changes_name_what_must_be_looked_up_again() -> None:
    index = ClusterIndex(Clock())
    index.put_pod(pod("a", ("", IPS[0]), ("prod/sriov-a", IPS[1])))
    assert index.take_changes() == ({IPS[0], IPS[1]}, {"a"})
    index.put_pod(pod("a", ("", IPS[2])))
    assert index.take_changes()[0] == {IPS[0], IPS[1], IPS[2]}
    index.put_service(Service("s", "prod", "web", (IPS[3],)))
    index.put_node(Node("n", "node-a", (IPS[4],)))
    assert index.take_changes()[0] == {IPS[3], IPS[4]}
    index.put_service(Service("s", "prod", "web", (IPS[3],)))
    assert index.take_changes() == (set(), set())


def test_what_a_list_does_not_have_is_gone() -> None:
    clock = Clock()
    index = ClusterIndex(clock, grace=10)
    for uid, node in (("a", "node-a"), ("b", "node-a"), ("c", "node-b")):
        index.put_pod(pod(uid, node=node))
    index.keep_pods("node-a", {"a"})
    index.put_service(Service("s", "prod", "web", (IPS[3],)))
    index.keep_services(set())
    index.put_node(Node("n", "node-a", (IPS[4],)))
    index.keep_nodes(set())
    clock.now += 11
    index.expire()
    assert index.sizes() == {"pods": 2, "services": 0, "nodes": 0}
    assert (index.service_at(IPS[3]), index.node_at(IPS[4])) == (None, None)


def test_the_limit_is_kept_and_said() -> None:
    index = ClusterIndex(Clock(), limit=3)
    for number in range(7):
        index.put_pod(pod(str(number)))
    assert (index.sizes()["pods"], index.dropped) == (3, 4)


class Naive:
    """The same in the plainest way: a list of (pod, time it went), oldest first."""

    def __init__(self, clock: Clock, grace: float) -> None:
        self.clock, self.grace = clock, grace
        self.rows: list[tuple[Pod, float]] = []
        self.got: dict[tuple[str, tuple[str, bytes]], int] = {}
        self.turn = 0

    def put(self, new: Pod) -> None:
        old = next((p for p, _ in self.rows if p.uid == new.uid), None)
        for address in new.addresses:
            if old is None or address not in old.addresses:
                self.turn += 1
                self.got[new.uid, address] = self.turn
        self.rows = [(p, gone) for p, gone in self.rows if p.uid != new.uid] + [(new, float("inf"))]

    def delete(self, uid: str) -> None:
        now = self.clock.now
        self.rows = [(p, min(gone, now) if p.uid == uid else gone) for p, gone in self.rows]

    def expire(self) -> None:
        self.rows = [(p, gone) for p, gone in self.rows if gone + self.grace > self.clock.now]

    def at(self, address: tuple[str, bytes]) -> str | None:
        held = [(gone == float("inf"), p.running, self.got[p.uid, address], p.uid)
                for p, gone in self.rows if address in p.addresses]  # fmt: skip
        return max(held)[3] if held else None


@pytest.mark.parametrize("seed", range(23))
def test_like_the_naive_model(seed: int) -> None:
    rng, clock = random.Random(seed), Clock()
    index, naive = ClusterIndex(clock, grace=7), Naive(clock, 7)
    for _ in range(701):
        uid = f"u{rng.randrange(13)}"
        match rng.randrange(5):
            case 0 | 1 | 2:
                addresses = tuple({(rng.choice(NETWORKS), rng.choice(IPS)) for _ in range(rng.randrange(4))})
                made = pod(uid, *addresses, running=rng.random() < 0.8)
                index.put_pod(made)
                naive.put(made)
            case 3:
                index.delete_pod(uid)
                naive.delete(uid)
            case _:
                clock.now += rng.choice((0.5, 3.0))
        index.expire()
        naive.expire()
        where = rng.choice(NETWORKS), rng.choice(IPS)
        found = index.pod_at(*where)
        assert (found.uid if found else None) == naive.at(where)
    clock.now += 8
    for number in range(13):
        index.delete_pod(f"u{number}")
    clock.now += 8
    index.expire()
    assert index.sizes()["pods"] == 0
    assert index._pods.keys == 0
