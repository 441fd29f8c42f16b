# SPDX-License-Identifier: Apache-2.0
"""Routes: requests told apart by the patterns their paths fit, at both ends, on /metrics and in `weir stat`."""

from __future__ import annotations

import json
import random
from collections import Counter

from tests.kernel.agents import ASKING, Agent, Page, weir
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get
from tests.kernel.peers.netns import Netns
from weir.kernel.routes import compile_routes

PORT = 8080
ROUTES = ("/", "/users/me", "/users/{id}", "/users/{id}/orders/{order}", "/static/**")
OPTIONS = [part for route in ROUTES for part in ("--route", route)]
TOTAL, DURATION = "weir_requests_total", "weir_request_duration_seconds_count"


def shown(page: Page, reporter: str) -> Counter[tuple[str, str]]:
    """Requests by route and status."""
    found: Counter[tuple[str, str]] = Counter()
    for (name, labels), value in page.samples.items():
        has = dict(labels)
        if name == TOTAL and has["reporter"] == reporter:
            found[has["route"], has["status"]] += int(value)
    return found


def test_paths(instance: str, netns: Netns) -> None:
    """What is not within a path makes no difference; each pipelined request has its own."""
    paths = {
        "/": "/", "/?q=/users/me": "/", "/users/me": "/users/me", "/users/42": "/users/{id}",
        "/users/42?x=/a/b": "/users/{id}", "/users/42#x": "/users/{id}", "/users/": "", "/users": "",
        "/users/me/orders/7": "/users/{id}/orders/{order}", "/users/42/orders": "",
        "/static/": "/static/**", "/static/css/a.css": "/static/**", "/statics": "",
        "http://a.test/users/42": "/users/{id}", "http://me:pw@a.test:80/users/me?x": "/users/me",
        "http://a.test": "", "*": "", "/static/" + "x/" * 100: "/static/**", "/users/" + "x" * 200: "",
    }  # fmt: skip
    wanted: Counter[tuple[str, str]] = Counter()
    lines = []
    for at, (path, route) in enumerate(paths.items()):
        lines += [(CLIENT, get(path)), (SERVER, answer(200 + at, b"x"))]
        wanted[route, str(200 + at)] += 1
    with Dialogues(netns) as talks, Agent(instance, (netns,), *OPTIONS, env=ASKING).ready() as agent:
        talks.listen(address="127.0.0.1", port=PORT)
        talks.once(PORT, lines, "127.0.0.1")
        number = talks.connect(PORT, "127.0.0.1")
        burst = [f"/users/{'me' if at % 3 else at}" for at in range(13)]
        talks.say(number, [(CLIENT, b"".join(map(get, burst))), (SERVER, answer(302) * 13)], together=True)
        wanted["/users/me", "302"], wanted["/users/{id}", "302"] = 8, 5
        talks.say(number, [(CLIENT, get("/users/me", "POST"))])
        talks.close(number)
        wanted["/users/me", ""] = 1
        page = agent.fresh()
        for reporter in ("source", "destination"):
            assert shown(page, reporter) == wanted
        assert page.sum(DURATION, route="/users/{id}") == 2 * (5 + 3 + 1)
        told = weir("stat", "--agent", agent.url, "--interval", "0", "--by", "route", "--json").stdout
        rows = {(row["direction"], row["name"]): row["requests"] for row in json.loads(told)["rows"]}
        assert rows["in", "python GET /users/me"] == rows["out", "python GET /users/me"] == 8 + 2
        assert rows["in", "python POST /users/me"] == 1
        assert page.sum("weir_agent_kernel_events_total", event="request_unparsed") == 0


def test_segments_that_split_a_path(instance: str, netns: Netns) -> None:
    """A path of which a part comes later has its route, or none; never another one's."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    routes = compile_routes(ROUTES)
    right: Counter[str] = Counter()
    with Dialogues(netns) as talks, Agent(instance, (netns,), *OPTIONS, env=ASKING).ready() as agent:
        talks.listen(address="127.0.0.1", port=PORT)
        for _ in range(101):
            words = ["users", "me", "static", "orders", "", "x" * chance.randint(1, 30)]
            path = "/" + "/".join(chance.choices(words, k=chance.randint(1, 5)))
            said = get(path)
            cut = chance.randint(1, len(path) + 12)
            number = talks.connect(PORT, "127.0.0.1")
            talks.say(number, [(CLIENT, said[:cut]), (CLIENT, said[cut:]), (SERVER, answer(200))])
            talks.close(number)
            right[("", *ROUTES)[routes.of(path)]] += 1
        page = agent.fresh()
    for reporter in ("source", "destination"):
        found: Counter[str] = Counter()
        for (route, _), n in shown(page, reporter).items():
            found[route] += n
        assert found.total() == 101, f"seed {seed}"
        assert all(found[route] <= right[route] for route in ROUTES), f"seed {seed}: {found} {right}"


def test_without_routes_there_is_no_label(instance: str, netns: Netns) -> None:
    with Dialogues(netns) as talks, Agent(instance, (netns,), env=ASKING).ready() as agent:
        talks.listen(address="127.0.0.1", port=PORT)
        talks.once(PORT, [(CLIENT, get()), (SERVER, answer(200))], "127.0.0.1")
        page = agent.fresh()
    assert all("route" not in dict(labels) for name, labels in page.samples if name == TOTAL)
    wrong = weir("run", "--route", "users")
    assert (wrong.returncode, wrong.stderr) == (
        2, "weir: --route 'users': a path is needed that begins with /, as /users/{id}\n"
    )  # fmt: skip
