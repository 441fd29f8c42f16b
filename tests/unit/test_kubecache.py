# SPDX-License-Identifier: Apache-2.0
"""Shelves of ``weir kube-cache``: whoever lists, whenever, and follows, has what the API server has."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

import msgspec
import pytest

from tests.unit.synthetic import Clock
from weir.identity.kube.objects import PodObject, SliceObject
from weir.kubecache import slim
from weir.kubecache.shelf import PARTS, GoneError, Shelf, TooNewError, bookmark
from weir.kubecache.tokens import Tokens, UnavailableError

UID = "12345678-9abc-4ef0-8234-56789abcde{:02x}"


def pod(number: int, version: int = 1, address: str = "10.0.0.1", **more: Any) -> PodObject:
    value = {
        "metadata": {"name": f"p{number}", "namespace": "prod", "uid": UID.format(number),
                     "resourceVersion": str(version), "labels": {"pod-template-hash": "x", "big": "y" * 99},
                     "annotations": {"note": "z" * 999}, "ownerReferences": [{"kind": "Node", "name": "n"}]},
        "spec": {"nodeName": f"node-{number % 2}", "hostNetwork": False},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                   "startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True"}]},
        **more,
    }  # fmt: skip
    return msgspec.json.decode(json.dumps(value), type=PodObject)


class Client:
    """What an agent knows: uid → address, and where it is in the stream."""

    def __init__(self) -> None:
        self.pods: dict[str, str] = {}
        self.part = 0
        self.version = self.at = -1

    def take(self, packed: bytes) -> None:
        for line in gzip.decompress(packed).splitlines() if packed else ():
            event = json.loads(line)
            meta = event["object"]["metadata"]
            if event["type"] == "DELETED":
                self.pods.pop(meta["uid"], None)
            else:
                self.pods[meta["uid"]] = event["object"]["status"]["podIP"]

    def list_some(self, shelf: Shelf, parts: int) -> None:
        """Go on with the list; at its end, what happened since it began."""
        if self.part == 0:
            self.version = shelf.version
        for _ in range(min(parts, PARTS - self.part)):
            self.take(shelf.some(self.part))
            self.part += 1
        if self.part == PARTS and self.at < 0:
            data, self.at = shelf.since(self.version)
            self.take(data)

    def follow(self, shelf: Shelf) -> None:
        if self.at >= 0:
            data, self.at = shelf.after(self.at)
            self.take(data)


@pytest.mark.parametrize("seed", range(11))
def test_whoever_lists_and_follows_has_it_all(seed: int) -> None:
    rng, shelf, truth = random.Random(seed), Shelf(slim.pods(())), dict[str, str]()
    clients: list[Client] = []
    version = 100
    shelf.at(str(version))
    for _ in range(503):
        version += rng.choice([1, 1, 7])
        for _ in range(rng.choice([1, 1, 1, 5])):
            number = rng.randrange(53)
            if rng.random() < 0.3:
                shelf.delete(UID.format(number))
                truth.pop(UID.format(number), None)
            else:
                address = f"10.0.0.{rng.randrange(3)}"
                shelf.put(pod(number, version, address))
                truth[UID.format(number)] = address
        shelf.at(str(version))
        assert shelf.known() == truth.keys()
        if rng.random() < 0.1:
            clients.append(Client())
        for client in clients:
            client.list_some(shelf, rng.randrange(60))
            if rng.random() < 0.5:
                client.follow(shelf)
    for client in clients:
        client.list_some(shelf, PARTS)
        client.follow(shelf)
        assert client.pods == truth
    _, found = shelf.on_node("node-1")
    assert {json.loads(blob)["metadata"]["uid"] for blob in found} == {
        uid for uid in truth if int(uid[-2:], 16) % 2
    }


def test_what_agents_need_not_know_is_no_news() -> None:
    shelf, told = Shelf(slim.pods(("team",))), list[int]()
    shelf.changed = lambda: told.append(shelf.version)
    shelf.put(pod(1, 5))
    shelf.at("5")
    shelf.put(pod(1, 6))
    shelf.at("6")
    assert (told, shelf.same, shelf.version) == ([5], 1, 6)
    shelf.put(pod(1, 7, "10.0.0.2"))
    shelf.at("7")
    shelf.delete(UID.format(1))
    shelf.delete(UID.format(2))
    shelf.at("8")
    assert (told, len(shelf), shelf._by_node) == ([5, 7, 8], 0, {})


def test_slim_objects() -> None:
    annotations = {"kubernetes.io/config.hash": "h", "note": "n", "k8s.v1.cni.cncf.io/networks": "x" * 99999}
    meta = {"name": "p", "uid": "u", "labels": {"team": "a", "pod-template-hash": "x", "app": "b"},
            "annotations": annotations}  # fmt: skip
    found = json.loads(slim.pods(("team",))(pod(1, metadata=meta)))
    assert found == {
        "metadata": {"name": "p", "uid": "u", "labels": {"team": "a", "pod-template-hash": "x"},
                     "annotations": {"kubernetes.io/config.hash": "h"}},
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "startTime": "2026-01-01T00:00:00Z"},
    }  # fmt: skip
    endpoints = [
        {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "uid": "u"}},
        {"addresses": ["1.2.3.4"]},
    ]
    value = {"metadata": {"name": "s", "uid": "v"}, "endpoints": endpoints, "ports": [{"port": 80}]}
    item = msgspec.json.decode(json.dumps(value), type=SliceObject)
    assert json.loads(slim.slices(item))["endpoints"] == [
        {"targetRef": {"kind": "Pod", "uid": "u"}}, {"addresses": ["1.2.3.4"]},
    ]  # fmt: skip
    assert json.loads(slim.versioned(slim.pods(())(pod(1, 5)), 77))["metadata"]["resourceVersion"] == "77"


def test_only_so_much_is_remembered() -> None:
    shelf = Shelf(slim.pods(()), events=7)
    shelf.at("10")
    _, at = shelf.since(10)
    for number in range(11):
        shelf.put(pod(number))
        shelf.at(str(11 + number))
    with pytest.raises(GoneError):
        shelf.since(10)
    with pytest.raises(GoneError):
        shelf.after(at)
    with pytest.raises(TooNewError):
        shelf.since(99)
    data, _ = shelf.since(14)
    assert len(gzip.decompress(data).splitlines()) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        shelf.at("not a number")


def test_bookmarks() -> None:
    plain, end = (json.loads(gzip.decompress(bookmark(7, end=end))) for end in (False, True))
    assert plain == {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}
    assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


class Reviews:
    """Stands for the API server's answer to a TokenReview."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 201

    def post(self, path: str, body: bytes) -> Reviews:
        assert path == "/apis/authentication.k8s.io/v1/tokenreviews"
        self.asked.append(json.loads(body)["spec"]["token"])
        return self

    def read(self, _: int) -> bytes:
        user = {"good": "me", "other": "you"}.get(self.asked[-1], "")
        return json.dumps({"status": {"authenticated": bool(user), "user": {"username": user}}}).encode()

    def release_conn(self) -> None:
        pass


def test_tokens() -> None:
    reviews, clock = Reviews(), Clock()
    tokens = Tokens(reviews, ("me",), clock)  # type: ignore[arg-type]
    for header in ("Bearer good", "bearer good"):
        assert tokens.allowed(header)
    for header in ("Bearer other", "Bearer bad", "Basic good", "", "Bearer "):
        assert not tokens.allowed(header)
    assert reviews.asked == ["good", "other", "bad"]
    reviews.status = 500
    assert tokens.allowed("Bearer good")
    clock.now += 61
    with pytest.raises(UnavailableError):
        tokens.allowed("Bearer good")
