# SPDX-License-Identifier: Apache-2.0
"""``weir kube-cache`` between the API server and agents: the same names, from a tenth of the bytes."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import objects
from tests.cluster.control import PATIENCE, ControlPlane, free_port
from tests.cluster.nodes import Cluster, Node, Pod
from tests.cluster.test_churn import TCP, UDP, Street, Town, street
from tests.cluster.test_names import PODS, both_ends, namespaces, talk
from tests.kernel.agents import Agent, command, environment, weir

__all__ = ["street"]
USER = "system:serviceaccount:weir:weir"
EVENTS = "weir_agent_kubernetes_events_total"

_PODS = "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-a"


class Cache:
    """A process of ``weir kube-cache`` beside the API server, with TLS and tokens."""

    def __init__(self, folder: Path, options: list[str], port: int, files: int = 0) -> None:
        self.port = port
        self.cert, key = folder / "cache.crt", folder / "cache.key"
        if not self.cert.exists():
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                 "-nodes", "-keyout", key, "-out", self.cert, "-subj", "/CN=weir-cache", "-days", "2",
                 "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True,
            )  # fmt: skip
        self.log = folder / f"cache-{self.port}.log"
        limited = ["prlimit", f"--nofile={files}:{files}"] if files else []
        with self.log.open("wb") as log:
            certificate = ["--tls-cert-file", str(self.cert), "--tls-key-file", str(key)]
            listen = ["--listen", f"127.0.0.1:{self.port}", "--allow", USER]
            self._process = subprocess.Popen(
                [*limited, *command("kube-cache", *listen, *certificate, *options)],
                stderr=log, env=environment(), cwd="/",
            )  # fmt: skip
        end = time.monotonic() + PATIENCE
        while self.get("/readyz")[0] != 200:
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def get(self, path: str, token: str = "") -> tuple[int, bytes]:
        """Status and body; 0 where nobody listens."""
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        context = ssl.create_default_context(cafile=str(self.cert))
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except (urllib.error.URLError, ConnectionError):
            return 0, b""

    def value(self, name: str, **labels: str) -> float:
        """A sample of its own metrics."""
        wanted = name + "{" + ",".join(f'{k}="{v}"' for k, v in sorted(labels.items())) + "} "
        page = self.get("/metrics")[1].decode()
        return sum(float(line[len(wanted) :]) for line in page.splitlines() if line.startswith(wanted))

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE) == 0, self.log.read_text()


Start = Callable[..., Cache]


@pytest.fixture
def start(control: ControlPlane, tmp_path: Path) -> Iterator[Start]:
    token = tmp_path / "cache-token"
    token.write_text(control.token("weir", "weir-kube-cache"))
    options = ["--api-server", control.url, "--token-file", str(token), "--ca-file", str(control.ca)]
    with contextlib.ExitStack() as stack:

        def begin(*more: str, port: int = 0, files: int = 0) -> Cache:
            made = Cache(tmp_path, [*options, *more], port or free_port(), files)
            stack.callback(made.close)
            return made

        yield begin


@pytest.fixture
def through(control: ControlPlane, tmp_path: Path) -> Callable[..., list[str]]:
    """Options of an agent that asks a cache."""
    token = tmp_path / "agents-token"
    token.write_text(control.token("weir", "weir"))

    def options(cache: Cache, node: str, *more: str) -> list[str]:
        return ["--api-server", f"https://127.0.0.1:{cache.port}", "--token-file", str(token),
                "--ca-file", str(cache.cert), "--node-name", node, *more]  # fmt: skip

    return options


def test_names_as_from_the_api_server(
    instance: str, cluster: Cluster, start: Start, through: Callable[..., list[str]]
) -> None:
    here, there = cluster.node("node-a"), cluster.node("node-b")
    client, server = here.pod("client"), there.pod("server", objects.owner("StatefulSet", "db"))
    cache = start("--labels", "pod:isext")
    with Agent(instance, namespaces(client), *through(cache, "node-a"), *PODS).ready() as agent:
        found = talk(agent, client, server, server.netns, 1)["source"]
        assert both_ends(found) == ("prod/client/client", "prod/db/server", "address")
        client_changed = {"metadata": {"labels": {"nobody": "asks"}}}
        cluster.control.api.patch_namespaced_pod("client", "prod", client_changed)
        cluster.control.stop()
        time.sleep(1.5)
        cluster.control.start()
        late = there.pod("late")
        agent.page_when(lambda p: p.sum("weir_agent_kubernetes_objects", kind="pods") == 3, 60)
        found = talk(agent, client, late, late.netns, 1)["source"]
        assert both_ends(found) == ("prod/client/client", "prod/late/late", "address")
        lists = agent.page().sum(EVENTS, event="lists")
    assert lists == 5  # one of each resource: the agent did not notice
    assert cache.value("weir_kube_cache_objects", resource="pods") == 3
    assert cache.value("weir_kube_cache_age_seconds", resource="pods") < PATIENCE
    with cluster.control.stalled():
        time.sleep(2.1)
        assert cache.value("weir_kube_cache_age_seconds", resource="pods") > 2
    assert cache.value("weir_kube_cache_events_held_back_total", resource="pods") > 0


def test_another_replica_goes_on_where_the_first_one_ended(
    instance: str, cluster: Cluster, start: Start, through: Callable[..., list[str]]
) -> None:
    client = cluster.node("node-a").pod("client")
    first = start()
    with Agent(instance, namespaces(client), *through(first, "node-a"), *PODS).ready() as agent:
        agent.page_when(lambda p: p.sum(EVENTS, event="lists") == 5)
        first.close()
        second = start(port=first.port)
        late = cluster.nodes[0].pod("late")
        agent.page_when(lambda p: p.sum("weir_agent_kubernetes_objects", kind="pods") == 2, 60)
        found = talk(agent, client, late, late.netns, 1)["source"]
        assert both_ends(found)[1] == "prod/late/late"
        assert agent.page().sum(EVENTS, event="lists") == 5
    assert second.value("weir_kube_cache_requests_total", resource="pods", outcome="lists") == 0


def test_who_may_read(cluster: Cluster, start: Start) -> None:
    cluster.node("node-a").pod("client")
    cache, control = start(), cluster.control
    control.api.create_namespaced_service_account("test", {"metadata": {"name": "nosy"}})
    try:
        assert cache.get(_PODS)[0] == 401
        assert cache.get(_PODS, "made-up")[0] == 401
        assert cache.get(_PODS, control.token("test", "nosy"))[0] == 401
        status, body = cache.get(_PODS, control.token("weir", "weir"))
    finally:
        control.api.delete_namespaced_service_account("nosy", "test")
    assert status == 200
    (found,) = json.loads(body)["items"]
    assert found["metadata"]["name"] == "client"
    assert found["spec"] == {"nodeName": "node-a"}
    assert cache.get("/api/v1/secrets", control.token("weir", "weir"))[0] == 404
    assert cache.value("weir_kube_cache_requests_total", resource="pods", outcome="unauthorized") == 3


def test_more_watches_than_files(
    instance: str, cluster: Cluster, start: Start, through: Callable[..., list[str]]
) -> None:
    """They are refused and told when to come again; the others go on."""
    client = cluster.node("node-a").pod("client")
    cache = start(files=203)
    with Agent(instance, namespaces(client), *through(cache, "node-a")).ready() as agent:
        page = agent.page_when(
            lambda p: p.sum(EVENTS, event="lists") == 3 and p.sum(EVENTS, event="http_429") >= 2
        )
        assert (page.sum(EVENTS, event="lists"), page.sum(EVENTS, event="http_429")) == (3, 2)


def test_questions_that_it_cannot_answer(cluster: Cluster, start: Start) -> None:
    cache = start()
    token = cluster.control.token("weir", "weir")
    for query, status in (
        ("watch=1&resourceVersion=1", 410), ("watch=1&resourceVersion=999999999999", 504),
        ("watch=1&resourceVersion=x", 400), ("limit=500", 400), ("watch=1&fieldSelector=a%3Db", 400),
        ("fieldSelector=status.phase%3DRunning", 400), ("watch=1&resourceVersion=", 400),
    ):  # fmt: skip
        found, body = cache.get(f"/api/v1/pods?{query}", token)
        assert (query, found) == (query, status)
        assert json.loads(body)["code"] == status


def test_no_byte_on_a_wrong_pod(
    instance: str, street: tuple[Street, Node, Pod], start: Start, through: Callable[..., list[str]]
) -> None:
    """The churn of test_churn, smaller, through a cache."""
    seed = random.randrange(1 << 32)
    town = Town(street[0], street[1], 211, seed)
    options = (*through(start(), "node-a"), "--interval", "1", "--labels", "destination_pod")
    with Agent(instance, (street[2].netns,), *options).ready() as agent:
        town.run()
        page = agent.fresh()
    truth, counted = town.truth, Counter[tuple[str, str]]()
    for (name, has), value in page.samples.items():
        if name in (TCP, UDP):
            counted[dict(has)["destination_pod"], name] += int(value)
    assert page.sum(TCP) + page.sum(UDP) == truth.sent.total(), f"seed {seed}"
    wrong = {
        key: (value, truth.sent[key], truth.size[key[0]])
        for key, value in counted.items()
        if key[0] and (value > truth.sent[key] or value % truth.size[key[0]])
    }
    assert not wrong, f"seed {seed}: {wrong}"
    nobodys = sum(value for (pod, _), value in counted.items() if not pod)
    assert nobodys < truth.sent.total() * 0.6, f"seed {seed}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "no cluster to watch; give --kubeconfig or --api-server, or run it in a pod"),
        (["--allow", USER], "--allow: tokens must not be sent in the clear; give --tls-cert-file as well"),
        (["--tls-cert-file", "/nowhere"], "--tls-cert-file and --tls-key-file: give both or none"),
        (["--listen", "nowhere"], "write --listen HOST:PORT"),
    ],
)
def test_bad_options(options: list[str], said: str) -> None:
    more = options if not options else [*options, "--api-server", "http://127.0.0.1:1"]
    done = weir("kube-cache", *more)
    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
