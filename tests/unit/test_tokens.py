# SPDX-License-Identifier: Apache-2.0
"""Bearer tokens of a cluster: what is asked, what is remembered, what the guard answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from weir.aggregate import Snapshot
from weir.export.guard import Guard
from weir.health import Health
from weir.identity.kube.tokens import KEPT, MOST, Reviews, UnavailableError, User, bearer

PROMETHEUS = {
    "username": "system:serviceaccount:m:prometheus",
    "uid": "7",
    "groups": ["g"],
    "extra": {"k": ["v"]},
}


class Server:
    """Stands for the API server: who has which token, and what each may get."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status = 201
        self.broken = False

    def post(self, path: str, body: bytes) -> Server:
        if self.broken:
            raise OSError("no route to host")
        self.asked.append({"path": path, **json.loads(body)["spec"]})
        return self

    def read(self, _: int) -> bytes:
        spec = self.asked[-1]
        if "token" in spec:
            user = {"good": PROMETHEUS, "other": {"username": "other"}}.get(spec["token"])
            return json.dumps({"status": {"authenticated": bool(user), "user": user or {}}}).encode()
        allowed = (spec["user"], spec["nonResourceAttributes"]) == (
            PROMETHEUS["username"], {"path": "/metrics", "verb": "get"},
        )  # fmt: skip
        return json.dumps({"status": {"allowed": allowed}}).encode()

    def release_conn(self) -> None:
        pass


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Server:
    return Server()


def guard(server: Server, clock: Clock | None = None) -> tuple[Guard, Health[Snapshot]]:
    health: Health[Snapshot] = Health(5.0)
    return Guard(health, "", Reviews(server, clock or Clock())), health  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer a.b", "a.b"), ("bearer a", "a"), ("Basic a", ""), ("Bearer", ""), ("Bearer ", ""), ("", "")],
)
def test_headers(header: str, token: str) -> None:
    assert bearer(header) == token


def test_who_may_get_what(server: Server) -> None:
    asks, health = guard(server)
    assert asks.asks
    answers = {
        (header, path): (reply.status if (reply := asks.refusal(path, header)) else 200)
        for header in ("Bearer good", "Bearer other", "Bearer bad", "Bearer ", "Basic Z29vZDpnb29k", "")
        for path in ("/metrics", "/api/v1/edges", "/healthz")
    }
    assert answers == {
        (header, path): 200 if path == "/healthz" or (header, path) == ("Bearer good", "/metrics")
        else 403 if header in ("Bearer good", "Bearer other") else 401
        for header, path in answers
    }  # fmt: skip
    assert health.refused == {"authorization": 8, "forbidden": 3}
    reply = asks.refusal("/metrics", "")
    assert reply is not None
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="weir"'


def test_the_user_is_told_as_the_token_review_told_it(server: Server) -> None:
    asks, _ = guard(server)
    assert asks.refusal("/metrics", "Bearer good") is None
    first, second = server.asked
    assert first == {"path": "/apis/authentication.k8s.io/v1/tokenreviews", "token": "good"}
    assert second["path"] == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert (second["user"], second["uid"], second["groups"], second["extra"]) == tuple(PROMETHEUS.values())


def test_pages_are_no_urls_that_everybody_may_get(server: Server) -> None:
    """Every user may get /api/* (system:discovery): the JSON API has names of its own."""
    asks, _ = guard(server)
    for path in ("/metrics", "/", "/api/v1/edges", "/none", "/api/v1/pods"):
        asks.refusal(path, "Bearer good")
    asked = [spec["nonResourceAttributes"]["path"] for spec in server.asked if "user" in spec]
    assert asked == ["/metrics", "/weir/", "/weir/api/v1/edges", "/weir/none"]


def test_answers_are_remembered_for_a_minute(server: Server) -> None:
    clock = Clock()
    asks, _ = guard(server, clock)
    for _ in range(23):
        assert asks.refusal("/metrics", "Bearer good") is None
    assert len(server.asked) == 2
    clock.now += KEPT + 1
    assert asks.refusal("/metrics", "Bearer good") is None
    assert len(server.asked) == 4


def test_pages_that_are_none_cost_one_question(server: Server) -> None:
    """Else whoever has a token could have the API server asked as often as they like."""
    asks, _ = guard(server)
    for number in range(23):
        reply = asks.refusal(f"/no/such/page/{number}", "Bearer good")
        assert reply is not None
        assert reply.status == 403
    assert len(server.asked) == 2


@pytest.mark.parametrize("how", ["broken", "forbidden"])
def test_an_api_server_that_does_not_answer(server: Server, how: str) -> None:
    """Nobody is let in; who was known a moment ago still is."""
    clock = Clock()
    asks, health = guard(server, clock)
    assert asks.refusal("/metrics", "Bearer good") is None
    server.broken, server.status = how == "broken", 403
    assert asks.refusal("/metrics", "Bearer good") is None
    reply = asks.refusal("/metrics", "Bearer other")
    assert reply is not None
    assert reply.status == 503
    assert health.refused == {"unavailable": 1}
    clock.now += KEPT + 1
    reply = asks.refusal("/metrics", "Bearer good")
    assert reply is not None
    assert reply.status == 503


def test_what_is_remembered_has_a_bound(server: Server) -> None:
    reviews = Reviews(server, Clock())  # type: ignore[arg-type]
    for number in range(MOST + 7):
        assert reviews.user(f"bad{number}") is None
    assert reviews.user("bad8") is None
    assert len(server.asked) == MOST + 7
    assert reviews.user("bad0") is None
    assert len(server.asked) == MOST + 8


def test_a_token_without_a_name_is_nobodys(server: Server) -> None:
    server.read = lambda _: b'{"status":{"authenticated":true,"user":{}}}'  # type: ignore[method-assign]
    assert Reviews(server, Clock()).user("x") is None  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [b"", b"<html>", b'{"status":{"allowed":"yes"}}', b"[]"])
def test_answers_that_are_none(server: Server, text: bytes) -> None:
    server.read = lambda _: text  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        Reviews(server, Clock()).may_get(User("a"), "/metrics")  # type: ignore[arg-type]
