# SPDX-License-Identifier: Apache-2.0
"""Routes: requests told apart by the patterns their paths fit, at both ends, on /metrics, in `weir stat`."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.kernel.agents import ASKING, Agent, Page, weir
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http2_talk import GRPC, Spoken
from tests.kernel.peers.http_text import answer, cut, get
from tests.kernel.peers.netns import Netns
from tests.kernel.test_http_servers import NGINX, NGINX_CONF, needed, running
from tests.kernel.watch import Watch, asking, nothing_lost
from weir.kernel.layout import DESTINATION, SOURCE
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


def by_route(watch: Watch, place: Netns, port: int, role: int) -> Counter[tuple[str, int]]:
    """Requests by route and status, of one end."""
    found: Counter[tuple[str, int]] = Counter()
    for row in watch.request_rows(place, role, port):
        number = int(row["untimed"]) + int(row["duration"].sum())
        found[("", *ROUTES)[int(row["key"]["route"])], int(row["key"]["status"])] += number
    return +found


def test_http2(netns: Netns) -> None:
    """Paths as literals, plain and coded, and as indices of both tables; calls of gRPC."""
    paths = [
        "/", "/index.html", "/users/me", "/users/42", "/users/42/orders/7?q=/a", "/users/", "/static/a/b",
        "/a.B/Say", "/users/\N{LATIN SMALL LETTER E WITH ACUTE}", "/users/" + "x" * 90, "/users/" + "x" * 300,
    ]  # fmt: skip
    routes = compile_routes(ROUTES)
    wanted: Counter[tuple[str, int]] = Counter()
    spoken = Spoken()
    for status in (200, 404, 503):
        for path in paths:
            spoken.answer(spoken.ask("GET", path), status, body=b"x")
            spoken.answer(spoken.ask("PUT", path, ("x-a", path), body=b"q"), status)
            route = routes.of(path.partition("?")[0]) if len(path) < 128 else 0
            wanted[("", *ROUTES)[route], status] += 2
    lines = spoken.lines()
    with Dialogues(netns) as talks, asking(netns, nat="off", routes=ROUTES) as watch:
        port = talks.listen()
        talks.once(port, lines)
        for role in (SOURCE, DESTINATION):
            assert by_route(watch, netns, port, role) == wanted
        watch.mark()
        talks.once(port, lines[:-1])  # the last one is not answered
        for role in (SOURCE, DESTINATION):
            found = by_route(watch, netns, port, role)
            assert found == wanted - Counter({("", 503): 1}) + Counter({("", 0): 1})
        watch.mark()
        spoken = Spoken()
        for path in ("/users/me", "/a.B/Say"):
            spoken.answer(
                spoken.ask("POST", path, *GRPC, body=b"\0\0\0\0\1x"), 200, GRPC[0], ("grpc-status", "5")
            )
        talks.once(port, spoken.lines())
        for role in (SOURCE, DESTINATION):
            assert by_route(watch, netns, port, role) == {("/users/me", 6): 1, ("", 6): 1}
        nothing_lost(watch)


def test_segments_that_split_http2(netns: Netns) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    routes = compile_routes(ROUTES)
    with Dialogues(netns) as talks, asking(netns, nat="off", routes=ROUTES) as watch:
        port = talks.listen()
        right: Counter[str] = Counter()
        for _ in range(23):
            spoken = Spoken()
            for _ in range(7):
                path = "/" + "/".join(
                    chance.choices(["users", "me", "static", "7", ""], k=chance.randint(1, 5))
                )
                spoken.answer(spoken.ask("GET", path), 200, body=b"x")
                right[("", *ROUTES)[routes.of(path)]] += 1
            talks.once(port, [(who, part) for who, text in spoken.lines() for part in cut(chance, text)])
        for role in (SOURCE, DESTINATION):
            found = {route: n for (route, _), n in by_route(watch, netns, port, role).items()}
            assert sum(found.values()) == 23 * 7, f"seed {seed}"
            assert all(n <= right[route] for route, n in found.items() if route), (
                f"seed {seed}: {found} {right}"
            )
        nothing_lost(watch)


@pytest.mark.parametrize("how", [("--h1",), ("--h1", "-m13"), (), ("-m13",)])
def test_at_full_load(netns: Netns, tmp_path: Path, how: tuple[str, ...]) -> None:
    """nginx under h2load: by route and status as many as its own log has."""
    needed("nginx", "h2load")
    (tmp_path / "html").mkdir()
    (tmp_path / "html/index.html").write_text("x" * 612)
    conf, log = tmp_path / "nginx.conf", tmp_path / "access.log"
    protocol = "" if "--h1" in how else " http2"
    conf.write_text(
        NGINX_CONF.format(home=tmp_path, port=NGINX)
        .replace(f"listen {NGINX};", f"listen {NGINX}{protocol};")
        .replace("$request_method $status", "$request_uri $status")
    )
    paths = (
        "/",
        "/?a=/users/me",
        "/users/me",
        "/users/42",
        "/users/43/orders/1",
        "/static/x/y",
        "/gone",
        "/down",
    )
    routes, own = compile_routes(ROUTES), Counter[tuple[str, int]]()
    with asking(netns, nat="off", routes=ROUTES) as watch:
        with running(netns, NGINX, "nginx", "-c", str(conf), "-e", str(tmp_path / "error.log")):
            urls = (f"http://127.0.0.1:{NGINX}{path}" for path in paths)
            netns.run("h2load", "-n20011", "-c13", *how, *urls)
        for line in log.read_text().splitlines():
            path, status = line.split()
            own[("", *ROUTES)[routes.of(path.partition("?")[0])], int(status)] += 1
        assert own.total() == 20_011
        for role in (SOURCE, DESTINATION):
            assert by_route(watch, netns, NGINX, role) == own
        nothing_lost(watch, "reset_unmatched")


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
