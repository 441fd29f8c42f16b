# SPDX-License-Identifier: Apache-2.0
"""``--kube-auth`` with a real API server: tokens of service accounts, and what they may get."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from tests.cluster.control import ROOT, ControlPlane
from tests.kernel.agents import Agent, until, weir
from tests.kernel.peers.netns import Netns, make_netns
from tests.kernel.test_prometheus import prometheus
from tests.unit.test_export_guard import issued

Access = Callable[..., list[str]]
_CONFIG = """\
global: {{{{scrape_interval: 1s, scrape_timeout: 1s}}}}
scrape_configs:
  - job_name: weir
    scheme: https
    tls_config: {{{{ca_file: {ca}}}}}
    authorization: {{{{credentials_file: {token}}}}}
    static_configs: [{{{{targets: ["{{target}}"]}}}}]
"""


@pytest.fixture(scope="module")
def readers(control: ControlPlane) -> dict[str, str]:
    """Tokens: of Prometheus, of who may see the rest, and of somebody who may get nothing of Weir."""
    for item in yaml.safe_load_all((ROOT / "daemonset/overlays/kube-auth/rbac.yaml").read_text()):
        status, said = control.put(item)
        assert status in (200, 201), said
    for name in ("prometheus", "viewer", "somebody"):
        control.api.create_namespaced_service_account("prod", {"metadata": {"name": name}})
    control.bind("prometheus-weir", "weir-metrics-reader", "prod", "prometheus")
    control.bind("viewer-weir", "weir-api-reader", "prod", "viewer")
    return {name: control.token("prod", name) for name in ("prometheus", "viewer", "somebody")}


@pytest.fixture
def place() -> Iterator[Netns]:
    with make_netns() as made:
        yield made


@contextmanager
def asking(instance: str, place: Netns, folder: Path, options: list[str]) -> Iterator[Agent]:
    issued(folder, "ca")
    issued(folder, "server", "ca")
    (folder / "web.yml").write_text("tls_server_config: {cert_file: server.pem, key_file: server.key}\n")
    web = ("--web-config", str(folder / "web.yml"), "--kube-auth")
    with Agent(instance, (place,), *options, *web) as agent:
        until(lambda: any("msg=serving" in line for line in agent.log) or agent.process.poll() is not None)
        line = next((line for line in agent.log if "https://" in line and "msg=serving" in line), "")
        assert line, agent.log
        agent.url = "https://" + line.partition("metrics=https://")[2].split("/")[0]
        yield agent


def get(agent: Agent, folder: Path, path: str, token: str = "") -> int:
    """Status of a page."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(agent.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_who_may_get_what(
    instance: str, place: Netns, tmp_path: Path, access: Access, readers: dict[str, str]
) -> None:
    with asking(instance, place, tmp_path, access("node-a")) as agent:
        until(lambda: get(agent, tmp_path, "/readyz") == 200)
        found = {
            (who, path): get(agent, tmp_path, path, token)
            for who, token in {**readers, "nobody": "", "liar": "not.a.token"}.items()
            for path in ("/metrics", "/api/v1/edges", "/healthz", "/none")
        }
        expected = {"prometheus": (200, 403, 200, 403), "somebody": (403, 403, 200, 403),
                    "viewer": (403, 200, 200, 404),
                    "nobody": (401, 401, 200, 401), "liar": (401, 401, 200, 401)}  # fmt: skip
        assert {who: tuple(s for (w, _), s in found.items() if w == who) for who in expected} == expected


def test_a_prometheus_that_scrapes_by_its_service_account(
    instance: str, place: Netns, tmp_path: Path, access: Access, readers: dict[str, str]
) -> None:
    with asking(instance, place, tmp_path, access("node-a")) as agent:
        (tmp_path / "reader").write_text(readers["prometheus"])
        config = _CONFIG.format(ca=tmp_path / "ca.pem", token=tmp_path / "reader")
        with prometheus(tmp_path, agent.url.removeprefix("https://"), config=config) as server:
            until(lambda: server.query("up{job='weir'}") == {"": 1.0})
            assert server.query("up{job='weir'}") == {"": 1.0}
            (tmp_path / "reader").write_text(readers["somebody"])
            until(lambda: server.query("up{job='weir'}") == {"": 0.0})
            assert server.query("up{job='weir'}") == {"": 0.0}


def test_an_api_server_that_is_away(
    instance: str,
    place: Netns,
    tmp_path: Path,
    access: Access,
    control: ControlPlane,
    readers: dict[str, str],
) -> None:
    """Who is known still reads; nobody else does; afterwards all is as before."""
    with asking(instance, place, tmp_path, access("node-a")) as agent:
        until(lambda: get(agent, tmp_path, "/metrics", readers["prometheus"]) == 200)
        control.stop()
        try:
            assert get(agent, tmp_path, "/metrics", readers["prometheus"]) == 200
            assert get(agent, tmp_path, "/metrics", readers["somebody"]) == 503
        finally:
            control.start()
        until(lambda: get(agent, tmp_path, "/metrics", readers["somebody"]) == 403)
        assert get(agent, tmp_path, "/metrics", readers["somebody"]) == 403


def test_tokens_are_not_taken_in_the_clear(access: Access) -> None:
    done = weir("run", "--listen", "0.0.0.0:0", "--kube-auth", *access("node-a"))
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert "--kube-auth: tokens must not be sent in the clear; give a certificate by --web-config" in line


def test_no_cluster() -> None:
    done = weir("run", "--listen", "127.0.0.1:0", "--kube-auth")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--kube-auth: of which cluster? give --kubeconfig FILE or --api-server URL" in done.stderr


def test_the_roles_are_what_is_used(control: ControlPlane, readers: dict[str, str]) -> None:
    """Two verbs of the agent's, and they are enough: the tests above had no others."""
    assert readers
    rules = control.role("weir-auth").rules
    assert [(rule.resources, rule.verbs) for rule in rules] == [
        (["tokenreviews"], ["create"]), (["subjectaccessreviews"], ["create"]),
    ]  # fmt: skip
    assert isinstance(rules[0], client.V1PolicyRule)
