# SPDX-License-Identifier: Apache-2.0
"""The index by uid and by (network, address), also against a naive model of it."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from tests.unit.synthetic import Clock
from weir.identity.cidrs import packed
from weir.identity.kube.index import Changes, ClusterIndex
from weir.identity.kube.pods import Node, Pod, Service, Slice, pack
from weir.identity.kube.stays import UNSURE

IPS = [packed(f"10.0.0.{n}") for n in range(1, 12)]
NETWORKS = ["", "prod/sriov-a", "prod/macvlan-b"]


def pod(uid: str, *addresses: tuple[str, bytes], **more: object) -> Pod:
    made = Pod(uid, "prod", f"pod-{uid}", "node-a", "web", "Deployment", addresses=addresses)
    return replace(made, **more)


#: What the clocks of nodes show when CLOCK_MONOTONIC is 0.
EPOCH = 1_700_000_000.0


def index_of(clock: Clock | None = None, **more: float) -> ClusterIndex:
    clock = clock or Clock()
    return ClusterIndex(clock, wall=lambda: clock.now + EPOCH, **more)  # type: ignore[arg-type]


def uid_at(index: ClusterIndex, address: bytes = IPS[0], born: float | None = None) -> str | None:
    """Uid, None for nobody; "?" where it could be two."""
    found = index.pod_at("", address, born)
    if found == UNSURE:
        return "?"
    return found.pod.uid if found.pod else None


def test_one_address_in_two_networks_is_two_pods() -> None:
    index = index_of()
    index.put_pod(pod("a", ("prod/sriov-a", IPS[0])))
    index.put_pod(pod("b", ("prod/macvlan-b", IPS[0])))
    found = [index.pod_at(network, IPS[0]).pod for network in NETWORKS]
    assert [p and p.uid for p in found] == [None, "a", "b"]


def test_a_pod_that_is_gone_can_be_found_for_the_grace_time() -> None:
    clock = Clock()
    index = index_of(clock, grace=300)
    index.put_pod(pod("a", ("", IPS[0])))
    born = clock.now
    clock.now += 1
    index.delete_pod("a")
    clock.now += 299
    index.expire()
    assert index.pod("a") is not None
    assert (uid_at(index, born=born), uid_at(index)) == ("a", None)
    clock.now += 2
    index.expire()
    assert (index.pod("a"), uid_at(index, born=born)) == (None, None)
    assert index.sizes()["pods"] == 0


def test_what_began_before_is_the_old_pods_and_what_began_after_the_new_ones() -> None:
    clock = Clock(1000)
    index = index_of(clock)
    index.put_pod(pod("a", ("", IPS[0]), since=EPOCH + 900, exact=True))
    clock.now = 1010
    index.delete_pod("a")
    clock.now = 1020
    index.put_pod(pod("b", ("", IPS[0]), since=EPOCH + 1018, exact=True))
    assert [uid_at(index, born=born) for born in (899, 1000, 1009, 1011, 1019, 1020)] == [
        None, "a", "a", None, "b", "b",
    ]  # fmt: skip
    assert uid_at(index) == "b"


def test_nobody_knows_between_the_deletion_and_the_end() -> None:
    clock = Clock(1000)
    index = index_of(clock)
    index.put_pod(pod("a", ("", IPS[0])))
    clock.now = 1010
    index.put_pod(pod("a", ("", IPS[0]), leaving=EPOCH + 1010))
    clock.now = 1020
    index.delete_pod("a")
    assert [uid_at(index, born=born) for born in (1005, 1015)] == ["a", "?"]
    clock.now = 1031  # nobody else came
    assert uid_at(index, born=1015) == "a"
    index = index_of(clock)
    clock.now = 1000
    index.put_pod(pod("a", ("", IPS[0])))
    clock.now = 1010
    index.put_pod(pod("a", ("", IPS[0]), leaving=EPOCH + 1010))
    clock.now = 1016
    index.put_pod(pod("b", ("", IPS[0]), since=EPOCH + 1014, exact=True))
    clock.now = 1018
    index.delete_pod("a")
    clock.now = 1060
    assert [uid_at(index, born=born) for born in (1005, 1012, 1014.7, 1015.9)] == ["a", "a", "?", "b"]


def test_a_pod_that_waited_for_the_address_has_it_after_the_one_before() -> None:
    """An API that only tells when the node took the pod on (before Kubernetes 1.29)."""
    clock = Clock(1000)
    index = index_of(clock)
    index.put_pod(pod("a", ("", IPS[0]), since=EPOCH + 900))
    index.put_pod(pod("b", since=EPOCH + 950))  # no address yet
    clock.now = 1010
    index.delete_pod("a")
    clock.now = 1020
    index.put_pod(pod("b", ("", IPS[0]), since=EPOCH + 950))
    assert [uid_at(index, born=born) for born in (1005, 1019)] == ["a", "b"]


def test_an_address_that_changes_hands_is_told_at_once() -> None:
    clock = Clock(1000)
    index, calls = index_of(clock), []
    index.hurry = lambda: calls.append(clock.now)
    index.put_pod(pod("a", ("", IPS[0])))
    index.put_pod(pod("c", ("", IPS[1])))
    assert index.take_lost() == frozenset()
    clock.now = 1010
    index.put_pod(pod("a", ("", IPS[0]), leaving=EPOCH + 1010))
    assert index.take_lost() == {IPS[0]}
    index.delete_pod("a")
    index.put_pod(pod("b", ("", IPS[0]), since=EPOCH + 1011))
    assert index.take_lost() == frozenset()
    index.put_pod(pod("c", ("", IPS[2])))
    assert index.take_lost() == {IPS[1]}
    assert calls == [1010, 1010]


def test_a_job_that_had_ended_before_says_nothing_of_its_address() -> None:
    index = index_of()
    index.put_pod(pod("a", ("", IPS[0]), running=False))
    assert uid_at(index) is None
    index.put_pod(pod("b", ("", IPS[0])))
    index.put_pod(pod("a", ("", IPS[0]), running=False, labels={"x": "y"}))
    assert uid_at(index) == "b"


def test_a_static_pod_by_its_uid_on_the_node() -> None:
    index = index_of()
    index.put_pod(pod("api-uid", local_uid="0123456789abcdef0123456789abcdef"))
    found = index.pod("0123456789abcdef0123456789abcdef")
    assert found is not None
    assert found.uid == "api-uid"


def test_the_job_of_a_cron_job_whichever_comes_first() -> None:
    index = index_of()
    backup = pod("a", workload="backup-29100", kind="Job")
    index.put_pod(backup)
    index.take_changes()
    assert index.workload(backup) == ("backup-29100", "Job")
    index.put_job("prod", "backup-29100", "backup")
    assert index.workload(backup) == ("backup", "CronJob")
    assert index.take_changes().uids == {"a"}


def test_changes_name_what_must_be_looked_up_again() -> None:
    index = index_of()
    index.put_pod(pod("a", ("", IPS[0]), ("prod/sriov-a", IPS[1])))
    assert index.take_changes() == Changes(frozenset(IPS[:2]), frozenset("a"))
    index.put_pod(pod("a", ("", IPS[2])))
    assert index.take_changes().addresses == set(IPS[:3])
    index.put_node(Node("n", "node-a", (IPS[4],)))
    assert index.take_changes().addresses == {IPS[4]}
    index.put_service(Service("c", "prod", "inner", (IPS[5],)))
    assert index.take_changes().addresses == {IPS[5]}
    index.put_service(Service("s", "prod", "web", (IPS[3],), ((6, 30080),)))  # can be dialled at the node
    assert index.take_changes().addresses == {IPS[3], IPS[4]}
    index.put_service(Service("s", "prod", "web", (IPS[3],), ((6, 30080),)))
    assert index.take_changes() == Changes(frozenset(), frozenset())
    found = index.service_at((6, 30080))
    assert found is not None
    assert found.name == "web"


def test_what_is_deleted_is_gone() -> None:
    clock = Clock()
    index = index_of(clock, grace=10)
    for uid, node in (("a", "node-a"), ("b", "node-a"), ("c", "node-b")):
        index.put_pod(pod(uid, node=node))
    assert index.known_pods() == {"a", "b", "c"}
    index.delete_pod("b")
    assert index.known_pods() == {"a", "c"}
    index.put_service(Service("s", "prod", "web", (IPS[3],)))
    index.put_node(Node("n", "node-a", (IPS[4],)))
    assert (index.known_services(), index.known_nodes()) == ({"s"}, {"n"})
    index.delete_service("s")
    index.delete_node("n")
    clock.now += 11
    index.expire()
    assert index.sizes() == {"pods": 2, "services": 0, "nodes": 0, "endpointslices": 0}
    assert (index.service_at(IPS[3]), index.node_at(IPS[4])) == (None, None)


def test_the_limit_is_kept_and_said() -> None:
    index = index_of(limit=3)
    for number in range(7):
        index.put_pod(pod(str(number)))
    assert (index.sizes()["pods"], index.dropped) == (3, 4)


Told = list[tuple[float, int, Pod | str]]
Life = tuple[float, float, str]


def lives(rng: random.Random, exact: bool) -> tuple[list[Life], Told]:
    """Pods that have one address one after the other, and what the API tells of them, each a little late."""
    truth: list[Life] = []
    told: Told = []
    start = 1000.0
    for number in range(37):
        leaving = start + rng.uniform(0.5, 20)
        end = leaving + rng.uniform(0.3, 5)
        took_on = start - rng.uniform(0, 9)
        bare = pod(f"u{number}", since=EPOCH + int(took_on))
        made = replace(bare, addresses=(("", IPS[0]),))
        if exact:
            made = replace(made, since=EPOCH + int(start), exact=True)
        news = ((took_on, bare), (start, made), (leaving, replace(made, leaving=EPOCH + int(leaving))))
        heard = 0.0
        for when, what in (*news, (end, f"u{number}")):
            heard = max(heard, when + rng.uniform(0, 0.25))  # a watch tells of one pod in its order
            told.append((heard, len(told), what))
        truth.append((start, end, f"u{number}"))
        start = end + rng.choice((0, 0, 0.1, 3))
    return truth, sorted(told, key=lambda item: item[:2])


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("seed", range(23))
def test_never_a_wrong_pod(seed: int, exact: bool) -> None:
    rng, clock = random.Random(seed), Clock(900.0)
    index = index_of(clock)
    truth, told = lives(rng, exact)
    moments = [rng.uniform(1000, truth[-1][1]) for _ in range(499)]
    named = asked = 0
    for when, _, what in told:
        clock.now = when
        if isinstance(what, str):
            index.delete_pod(what)
        else:
            index.put_pod(what)
        index.expire()
        for born in moments:
            right = [uid for start, end, uid in truth if start <= born < end]
            if right and when - 60 < born <= when:
                found = index.pod_at("", IPS[0], born).pod
                assert found is None or [found.uid] == right, (born, when)
                asked += 1
                named += found is not None
    assert named > asked * 0.6


def test_the_one_service_of_a_pods_port() -> None:
    index = index_of()
    index.put_pod(pod("a", ("", IPS[0])))
    index.put_pod(pod("b", ("", IPS[1])))
    index.put_slice(Slice("s1", "prod", "web", pack({"a", "b"}), ((6, 8080),)))
    index.put_slice(Slice("s2", "prod", "dns", pack({"a"}), ((17, 53), (6, 53))))
    index.put_slice(Slice("s3", "test", "web2", pack({"a"}), ((6, 8080),)))  # not of the pod's namespace
    asked = [("a", 6, 8080), ("a", 17, 53), ("b", 6, 53), ("b", 6, 8081), ("c", 6, 8080)]
    assert [index.served_by(*key) for key in asked] == ["web", "dns", "", "", ""]
    index.put_slice(Slice("s4", "prod", "canary", pack({"a"}), ((6, 8080),)))
    assert [index.served_by(uid, 6, 8080) for uid in ("a", "b")] == ["", "web"]  # two: nobody knows which
    index.take_changes()
    index.label_by_endpoint()
    assert index.take_changes().everything
    index.delete_slice("s4")
    assert index.take_changes().addresses == {IPS[0]}
    assert index.served_by("a", 6, 8080) == "web"
    index.put_slice(Slice("s1", "prod", "web", pack({"b"}), ((6, 8080),)))
    assert index.take_changes().addresses == {IPS[0]}
    index.put_slice(Slice("s1", "prod", "web", pack({"b"}), ((6, 8081),)))
    assert index.take_changes().addresses == {IPS[1]}


def test_endpoints_that_are_no_pods() -> None:
    index = index_of()
    index.put_slice(Slice("s1", "prod", "database", b"", ((6, 5432),), (IPS[3],)))
    assert index.take_changes().addresses == {IPS[3]}
    found = index.endpoint_at(IPS[3], 6, 5432)
    assert found is not None
    assert found.service == "database"
    assert index.endpoint_at(IPS[3], 17, 5432) is None
    assert index.endpoint_at(IPS[4], 6, 5432) is None
    index.delete_slice("s1")
    assert index.endpoint_at(IPS[3], 6, 5432) is None


@pytest.mark.parametrize("seed", range(3))
def test_pods_among_endpoints(seed: int) -> None:
    """Numbers that lie across two others are none of them."""
    rng = random.Random(seed)
    few = [bytes(rng.choices(b"\0\1", k=16)) for _ in range(5)]
    item = Slice("s", "prod", "web", b"".join(few))
    for at in range(65):
        number = item.packed[at : at + 16]
        assert item.has(int.from_bytes(number, "big")) == (number in few)


def test_too_much_news_is_told_as_everything() -> None:
    index = index_of()
    for number in range(4999):
        index.put_pod(pod(str(number), ("", packed(f"10.1.{number // 250}.{number % 250}"))))
    changes = index.take_changes()
    assert (changes.everything, changes.uids) == (True, frozenset())
    index.put_pod(pod("x", ("", IPS[0])))
    assert index.take_changes() == Changes(frozenset(IPS[:1]), frozenset("x"))
