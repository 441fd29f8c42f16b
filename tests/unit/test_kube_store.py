# SPDX-License-Identifier: Apache-2.0
"""Packed pods: what comes out is what went in, and every key leads to just those who have it now."""

from __future__ import annotations

import random
import uuid

import pytest

from weir.identity.cidrs import packed
from weir.identity.kube.networks import Attachment
from weir.identity.kube.pods import Pod
from weir.identity.kube.stays import ALWAYS, NEVER, Stay
from weir.identity.kube.store import Kept, PodStore, Words

ADDRESSES = [("", packed(f"10.0.0.{n}")) for n in range(1, 8)] + [
    ("", packed("fd00::1")), ("prod/sriov-a", packed("10.0.0.1")), ("prod/sriov-b", packed("10.0.0.1")),
]  # fmt: skip
MACS = ["02:00:00:00:00:01", "02:00:00:00:00:02"]
TIMES = [0.0, 1_700_000_000.25, ALWAYS, NEVER]
KINDS = ["Deployment", "Job", "Pod", "CloneSet"]


def made_up(rng: random.Random, uid: str) -> Kept:
    workload = rng.choice(["web", "db", "backup-29100", "größe", ""])
    attachments = tuple(Attachment("prod/sriov-a", f"net{n}", (), mac) for n, mac in enumerate(MACS))
    pod = Pod(
        uid, rng.choice(["prod", "test"]), workload + rng.choice(["", "-6f7d-x2", "\0"]),
        rng.choice(["", "node-a", "node-b"]), rng.choice([workload, "other"]), rng.choice(KINDS),
        rng.random() < 0.5, rng.random() < 0.5, tuple(rng.sample(ADDRESSES, rng.choice([0, 1, 1, 1, 2, 3]))),
        attachments[: rng.choice([0, 0, 1, 2])], rng.choice([{}, {"app": "web", "x/y": ""}]),
        rng.choice(["", "0123"]), rng.choice(TIMES), rng.random() < 0.5, rng.choice(TIMES),
        rng.random() < 0.5,
    )  # fmt: skip
    return Kept(pod, Stay(1.5, *(rng.choice(TIMES[:2]), rng.random() < 0.5), *rng.choices(TIMES, k=2)))


class Model:
    """The same, as plainly as can be: (uid → pod) and, by key, uids in the order of their coming."""

    def __init__(self) -> None:
        self.pods: dict[str, Kept] = {}
        self.came: dict[object, list[str]] = {}

    @staticmethod
    def keys(pod: Pod) -> set[object]:
        jobs = {(pod.namespace, pod.workload)} if pod.kind == "Job" else set()
        return {*pod.addresses, *jobs, *((pod.node, a.mac) for a in pod.attachments)}

    def put(self, kept: Kept) -> None:
        uid = kept.pod.uid
        new = self.keys(kept.pod)
        for key, uids in self.came.items():
            if uid in uids and key not in new:
                uids.remove(uid)
        for key in new:
            if uid not in self.came.setdefault(key, []):
                self.came[key].append(uid)
        self.pods[uid] = kept

    def remove(self, uid: str) -> None:
        self.pods.pop(uid, None)
        for uids in self.came.values():
            if uid in uids:
                uids.remove(uid)


@pytest.mark.parametrize("seed", range(7))
def test_as_a_naive_model(seed: int) -> None:
    rng, store, model = random.Random(seed), PodStore(Words(3)), Model()
    uids = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(11)] + ["u1", "UPPER-" + "F" * 30]
    keys: set[object] = set()
    for _ in range(1009):
        uid = rng.choice(uids)
        if rng.random() < 0.3:
            store.remove(uid)
            model.remove(uid)
        else:
            kept = made_up(rng, uid)
            store.put(*kept)
            model.put(kept)
        keys |= model.came.keys()
        assert {kept.pod.uid: kept for kept in store} == model.pods
        assert store.get(uid) == model.pods.get(uid)
        for key in keys:
            assert isinstance(key, tuple)
            found = [kept.pod for kept in store.at(*key)] if isinstance(key[1], bytes) else store.named(key)
            assert [pod.uid for pod in found] == model.came.get(key, [])
    for uid in uids:
        store.remove(uid)
    assert (len(store), store.keys) == (0, 0)


def test_words_are_numbers_up_to_a_bound() -> None:
    words = Words(most=2)
    numbers = [words.number(word) for word in ("prod", "test", "prod", "more", "test")]
    assert numbers == [0, 1, 0, "more", 1]
    assert [words.word(number) for number in numbers] == ["prod", "test", "prod", "more", "test"]


def test_one_address_in_a_network_of_its_own() -> None:
    """Not taken for one in the default network, which has the same number."""
    store, at = PodStore(), packed("10.0.0.1")
    pod = Pod(str(uuid.UUID(int=1)), "prod", "web", "node-a", "web", "Pod", addresses=(("prod/sriov-a", at),))
    store.put(pod, Stay(1.5, 0.0, False, ALWAYS, ALWAYS))
    assert [kept.pod for kept in store.at("prod/sriov-a", at)] == [pod]
    assert not store.at("", at)
