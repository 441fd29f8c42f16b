# SPDX-License-Identifier: Apache-2.0
"""An API server that goes away, forgets, stalls or refuses: counting goes on, and names come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import objects
from tests.cluster.nodes import Cluster, Pod
from tests.cluster.test_names import PODS, SENT, Access, both_ends, namespaces, talk
from tests.kernel.agents import Agent, Page, weir

EVENTS, AGE = "weir_agent_kubernetes_events_total", "weir_agent_kubernetes_age_seconds"


def happened(event: str, resource: str = "pods") -> Callable[[Page], bool]:
    return lambda page: page.sum(EVENTS, resource=resource, event=event) > 0


@pytest.fixture
def pods(cluster: Cluster) -> tuple[Pod, Pod]:
    here, there = cluster.node("node-a"), cluster.node("node-b")
    return here.pod("client"), there.pod("server", objects.owner("StatefulSet", "db"))


def test_restart_of_the_api_server(
    instance: str, cluster: Cluster, pods: tuple[Pod, Pod], access: Access
) -> None:
    """While it is away names stay; what changed meanwhile is known afterwards."""
    client, server = pods
    with Agent(instance, namespaces(client), *access("node-a"), *PODS).ready() as agent:
        cluster.control.stop()
        found = talk(agent, client, server, server.netns, 1)["source"]
        assert both_ends(found) == ("prod/client/client", "prod/db/server", "address")
        page = agent.page_when(happened("unreachable"))
        assert page.sum(EVENTS, resource="pods", event="unreachable") > 0
        assert sum("cannot be asked for pods" in line for line in agent.log) == 1
        assert agent.get("/readyz")[0] == agent.get("/healthz")[0] == 200
        cluster.control.start()
        late = cluster.nodes[1].pod("late")
        agent.page_when(lambda p: p.sum("weir_agent_kubernetes_objects", kind="pods") == 3, 60)
        found = talk(agent, client, late, late.netns, 1)["source"]
        assert both_ends(found) == ("prod/client/client", "prod/late/late", "address")


def test_a_version_that_was_compacted_away(
    instance: str, cluster: Cluster, pods: tuple[Pod, Pod], access: Access
) -> None:
    """410 Gone: all is listed again."""
    client, _ = pods
    with Agent(instance, namespaces(client), *access("node-a"), *PODS).ready() as agent:
        page = agent.page_when(lambda p: p.sum(EVENTS, resource="pods", event="lists") == 1)
        assert page.sum(EVENTS, resource="pods", event="lists") == 1  # else it has no version to go on from
        cluster.control.stop()
        with cluster.control.elsewhere():
            late = cluster.nodes[1].pod("late")
            for number in range(3):
                labels = {"metadata": {"labels": {"n": str(number)}}}
                cluster.control.api.patch_namespaced_pod("late", "prod", labels)
            cluster.control.compact()
        cluster.control.start()
        page = agent.page_when(lambda p: p.sum(EVENTS, resource="pods", event="lists") > 1, 60)
        assert page.sum(EVENTS, resource="pods", event="expired") > 0
        found = talk(agent, client, late, late.netns, 1)["source"]
        assert both_ends(found) == ("prod/client/client", "prod/late/late", "address")


def test_a_server_that_cannot_stream_lists(
    instance: str, cluster: Cluster, pods: tuple[Pod, Pod], access: Access
) -> None:
    """Kubernetes 1.33 and older ones than 1.32: lists in pages."""
    client, server = pods
    cluster.control.stop()
    cluster.control.start("--feature-gates", "WatchList=false")
    try:
        with Agent(instance, namespaces(client), *access("node-a"), *PODS).ready() as agent:
            found = talk(agent, client, server, server.netns, 1)["source"]
            assert both_ends(found) == ("prod/client/client", "prod/db/server", "address")
            late = cluster.nodes[1].pod("late")
            agent.page_when(lambda p: p.sum("weir_agent_kubernetes_objects", kind="pods") == 3)
            found = talk(agent, client, late, late.netns, 1)["source"]
            assert both_ends(found)[1] == "prod/late/late"
            page = agent.page()
            assert page.sum(EVENTS, event="lists") == 5
            assert page.sum(EVENTS, event="http_422") == 0
            assert not [line for line in agent.log if "level=warning" in line]
    finally:
        cluster.control.stop()
        cluster.control.start()


def test_a_server_that_stalls_at_the_start(
    instance: str, cluster: Cluster, pods: tuple[Pod, Pod], access: Access
) -> None:
    """The first snapshot does not wait for it, and its bytes get their names when it speaks."""
    client, server = pods
    options = access("node-a", *PODS)
    with cluster.control.stalled():
        agent = Agent(instance, namespaces(client), *options).ready()
        try:
            found = talk(agent, client, server, server.netns, 1)["source"]
            assert found["destination_workload"] in ("unknown", "external")
            assert agent.page().sum("weir_agent_kubernetes_objects", kind="pods") == 0
        except BaseException:
            agent.__exit__(None, None, None)
            raise
    with agent:
        page = agent.page_when(lambda p: p.sum(SENT, destination_workload="db") == 1009, 60)
        assert page.sum(SENT, destination_workload="db") == page.sum(SENT) == 1009


def test_an_account_without_rights(
    instance: str, cluster: Cluster, pods: tuple[Pod, Pod], access: Access, tmp_path: Path
) -> None:
    """One line names the verbs and the resource; names come from the cgroup alone."""
    client, server = pods
    api = cluster.control.api
    api.create_namespaced_service_account("test", {"metadata": {"name": "nobody"}})
    token = tmp_path / "nobody"
    token.write_text(cluster.control.token("test", "nobody"))
    options = [*access("node-a"), "--token-file", str(token)]
    with Agent(instance, namespaces(client), *options, *PODS).ready() as agent:
        found = talk(agent, client, server, server.netns, 1)["source"]
        page = agent.page_when(happened("http_403"))
        assert page.sum(EVENTS, resource="pods", event="http_403") > 0
        assert found["source_pod"] == client.uid
        lines = [line for line in agent.log if "forbids to list and watch pods" in line]
        assert len(lines) == 1, agent.log
    api.delete_namespaced_service_account("nobody", "test")


def test_rights_are_exactly_those_that_are_used(
    instance: str, cluster: Cluster, pods: tuple[Pod, Pod], access: Access
) -> None:
    """With the ClusterRole of daemonset/ nothing is refused, and each rule of it is used."""
    client, _ = pods
    rules = cluster.control.role("weir").rules
    granted = {resource for rule in rules for resource in rule.resources}
    assert {verb for rule in rules for verb in rule.verbs} == {"list", "watch"}
    with Agent(instance, namespaces(client), *access("node-a")).ready() as agent:
        page = agent.page_when(
            lambda p: all(p.sum(EVENTS, resource=name, event="lists") == 1 for name in granted)
        )
    assert page.label(EVENTS, "resource", event="lists") == granted
    assert not {event for event in page.label(EVENTS, "event") if event.startswith(("http", "unre"))}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--kubeconfig", "/no/such"), "--kubeconfig /no/such"),
        (("--api-server", "127.0.0.1:6443"), "write it as https://HOST:PORT"),
        (("--token-file", "/x"), "--token-file /x: it goes with --api-server"),
        (("--kubeconfig", "/x", "--api-server", "https://127.0.0.1"), "give one of them"),
        (("--external-label", "isext"), "write it as KEY=VALUE"),
        (("--labels", "pod:-"), "cannot be a label of a pod"),
    ],
)
def test_settings_that_cannot_be(instance: str, options: tuple[str, ...], words: str) -> None:
    done = weir("run", "--instance", instance, "--listen", "127.0.0.1:0", *options)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert words in done.stderr
