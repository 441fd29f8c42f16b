# SPDX-License-Identifier: Apache-2.0
"""Every label of both ends, from a real API and real traffic."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.cluster import objects
from tests.cluster.nodes import CGROUPS, V1, Cluster, Node, Pod
from tests.kernel.agents import Agent, Page
from tests.kernel.peers.netns import Netns
from tests.kernel.peers.tcp import tcp_pair

SENT = "weir_tcp_sent_bytes_total"
Access = Callable[..., list[str]]
Labels = dict[str, dict[str, str]]
PODS = ("--labels", "source_pod", "--labels", "destination_pod", "--labels", "interface")


def reports(page: Page, port: int) -> Labels:
    """Labels by reporter of the one pair that was seen on a port."""
    found: Labels = {}
    for name, has in page.samples:
        labels = dict(has)
        if name == SENT and labels["destination_port"] == str(port):
            assert labels["reporter"] not in found, (found, labels)
            found[labels["reporter"]] = labels
    return found


def both_ends(labels: dict[str, str]) -> tuple[str, ...]:
    """source namespace/workload/pod, destination namespace/workload/pod, attribution."""
    ends = ["/".join(labels[f"{end}_{part}"] for part in ("namespace", "workload", "pod"))
            for end in ("source", "destination")]  # fmt: skip
    return (*ends, labels["attribution"])


def talk(agent: Agent, client: Pod, server: Pod | None, to: Netns, reporters: int) -> Labels:
    """1009 bytes over one connection; the labels under which they were counted."""
    with tcp_pair(client.netns, to, client_cgroup=client.cgroup,
                  server_cgroup=server.cgroup if server else None) as pair:  # fmt: skip
        pair.run("send", 1009)
        page = agent.page_when(lambda p: p.sum(SENT, destination_port=pair.port) == reporters * 1009)
        assert page.sum(SENT, destination_port=pair.port) == reporters * 1009
        return reports(page, pair.port)


def namespaces(*pods: Pod) -> Iterable[Netns]:
    return {pod.netns.name: pod.netns for pod in pods}.values()


@pytest.fixture
def two(cluster: Cluster) -> tuple[Node, Node]:
    return cluster.node("node-a"), cluster.node("node-b")


@pytest.mark.parametrize("form", CGROUPS)
def test_pods_of_one_node(instance: str, two: tuple[Node, Node], access: Access, form: str) -> None:
    if form == "v1" and not (V1 / "tasks").exists():
        pytest.skip("cgroup v1: this host has it not")
    here, _ = two
    client = here.pod("web-6f7d9c-x2x4z", objects.owner("ReplicaSet", "web-6f7d9c"), form=form,
                      labels={"pod-template-hash": "6f7d9c"})  # fmt: skip
    server = here.pod("db-0", objects.owner("StatefulSet", "db"), form=form)
    with Agent(instance, namespaces(client, server), *access("node-a"), *PODS).ready() as agent:
        found = talk(agent, client, server, server.netns, 2)
    expected = ("prod/web/web-6f7d9c-x2x4z", "prod/db/db-0", "address")
    assert {reporter: both_ends(labels) for reporter, labels in found.items()} == {
        "source": expected, "destination": expected,
    }  # fmt: skip


def test_a_pod_of_another_node(instance: str, two: tuple[Node, Node], access: Access) -> None:
    here, there = two
    client = here.pod("one", namespace="test")
    server = there.pod("agent-7hj2k", objects.owner("DaemonSet", "agent"))
    with Agent(instance, namespaces(client), *access("node-a"), *PODS).ready() as agent:
        found = talk(agent, client, server, server.netns, 1)
    assert both_ends(found["source"]) == ("test/one/one", "prod/agent/agent-7hj2k", "address")


OWNERS = {
    "a Job's": (objects.owner("Job", "once"), {}, "once"),
    "a CronJob's": (objects.owner("Job", "backup-29100"), {}, "backup"),
    "a static pod": (objects.owner("Node", "node-a"), {"kubernetes.io/config.hash": "0f" * 16}, "etcd"),
    "of a kind that we never heard of": (objects.owner("CloneSet", "game"), {}, "game"),
}


@pytest.mark.parametrize("kind", OWNERS)
def test_owners(instance: str, two: tuple[Node, Node], access: Access, kind: str) -> None:
    here, _ = two
    owned, annotations, workload = OWNERS[kind]
    here.cluster.control.batch.create_namespaced_job("prod", objects.job("backup-29100", "backup"))
    name = "etcd-node-a" if annotations else "some-pod"
    client = here.pod(name, owned, annotations=annotations)
    server = here.pod("server", form="cgroupfs")
    with Agent(instance, namespaces(client, server), *access("node-a"), *PODS).ready() as agent:
        found = talk(agent, client, server, server.netns, 2)
    assert {both_ends(labels)[0] for labels in found.values()} == {f"prod/{workload}/{name}"}


def test_host_network_pods_have_their_own_workload(
    instance: str, two: tuple[Node, Node], access: Access
) -> None:
    """By cgroup on this node; on another one all that its address tells is the node."""
    here, there = two
    host = here.pod("node-exporter-2x4bb", objects.owner("DaemonSet", "node-exporter"), host_network=True)
    client = here.pod("prometheus-0", objects.owner("StatefulSet", "prometheus"))
    far = there.pod("node-exporter-9qqwz", objects.owner("DaemonSet", "node-exporter"), host_network=True)
    with Agent(instance, namespaces(client, host), *access("node-a"), *PODS).ready() as agent:
        near = talk(agent, client, host, host.netns, 2)
        outward = talk(agent, host, client, client.netns, 2)
        remote = talk(agent, client, far, far.netns, 1)
    prometheus, exporter = "prod/prometheus/prometheus-0", "prod/node-exporter/node-exporter-2x4bb"
    assert {both_ends(labels) for labels in near.values()} == {(prometheus, exporter, "address")}
    assert {both_ends(labels) for labels in outward.values()} == {(exporter, prometheus, "address")}
    assert both_ends(remote["source"]) == (prometheus, "/node/node-b/", "node")


def test_neither_pod_nor_node_is_external(instance: str, two: tuple[Node, Node], access: Access) -> None:
    here, there = two
    client = here.pod("client")
    outside = there.pod("outside")
    there.cluster.control.api.delete_namespaced_pod("outside", "prod", grace_period_seconds=0)
    with Agent(instance, namespaces(client), *access("node-a"), *PODS).ready() as agent:
        found = talk(agent, client, outside, outside.netns, 1)
    assert both_ends(found["source"]) == ("prod/client/client", "/external/", "none")


def test_two_networks_with_the_same_addresses(instance: str, two: tuple[Node, Node], access: Access) -> None:
    """Blue and red have the same CIDR; on both the client is .2 and the server .3, near and far."""
    here, there = two
    pods: dict[str, tuple[Pod, Pod]] = {}
    for colour in ("blue", "red"):
        at = here if colour == "blue" else there
        client = here.pod(f"client-{colour}", networks=[(colour, "192.168.77.2")])
        pods[colour] = client, at.pod(f"server-{colour}", networks=[(colour, "192.168.77.3")])
    watched = namespaces(*pods["blue"], pods["red"][0])
    with Agent(instance, watched, *access("node-a"), *PODS).ready() as agent:
        for colour, (client, server) in pods.items():
            found = talk(agent, client, server, server.on(colour), 2 if colour == "blue" else 1)
            for labels in found.values():
                names = tuple(f"prod/{end}-{colour}/{end}-{colour}" for end in ("client", "server"))
                assert both_ends(labels) == (*names, "address")
                assert (labels["network_name"], labels["interface"]) == (f"prod/{colour}", "net1")
        client, server = pods["blue"]
        found = talk(agent, client, server, server.netns, 2)
        assert {(at["network_name"], at["interface"]) for at in found.values()} == {("", "eth0")}


def test_labels_of_pods_and_pods_that_stand_for_the_outside(
    instance: str, two: tuple[Node, Node], access: Access
) -> None:
    here, there = two
    client = here.pod("client", labels={"app.kubernetes.io/name": "shop"})
    server = there.pod("server", labels={"isext": "true", "app.kubernetes.io/name": "bank"})
    options = ("--labels", "pod:app.kubernetes.io/name", "--external-label", "isext=true", *PODS)
    with Agent(instance, namespaces(client), *access("node-a"), *options).ready() as agent:
        labels = talk(agent, client, server, server.netns, 1)["source"]
    assert both_ends(labels) == ("prod/client/client", "/external/server", "address")
    assert labels["source_label_app_kubernetes_io_name"] == "shop"
    assert labels["destination_label_app_kubernetes_io_name"] == "bank"


def test_names_that_come_after_the_traffic(instance: str, two: tuple[Node, Node], access: Access) -> None:
    """What was counted before the API told of a pod's address goes under its name too."""
    here, there = two
    networks = [("blue", "192.168.78.3")]
    client = here.pod("client", networks=[("blue", "192.168.78.2")], announce=False)
    server = there.pod("server", networks=networks, announce=False)
    with (
        Agent(instance, namespaces(client), *access("node-a"), *PODS).ready() as agent,
        tcp_pair(client.netns, server.on("blue"), client_cgroup=client.cgroup) as pair,
    ):
        pair.run("send", 1009)
        page = agent.page_when(lambda p: p.sum(SENT, destination_port=pair.port) == 1009)
        before = reports(page, pair.port)["source"]
        assert both_ends(before) == ("prod/client/client", "/unknown/", "none")
        here.announce(client, [("blue", "192.168.78.2")])
        there.announce(server, networks)
        pair.run("send", 503)
        page = agent.page_when(
            lambda p: p.sum(SENT, destination_port=pair.port, destination_workload="server") == 1512
        )
        after = reports(page, pair.port)["source"]
        assert both_ends(after) == ("prod/client/client", "prod/server/server", "address")
        assert after["network_name"] == "prod/blue"
        assert page.sum(SENT, destination_port=pair.port) == 1512


def test_by_kubeconfig(instance: str, two: tuple[Node, Node], access: Access, tmp_path: Path) -> None:
    """The context that is named, not the current one, which leads nowhere."""
    here, there = two
    client, server = here.pod("client"), there.pod("server")
    control, token = here.cluster.control, access("node-a")[3]
    user = {"name": "weir", "user": {"token": Path(token).read_text()}}
    clusters = [
        {"name": "here", "cluster": {"server": control.url, "certificate-authority": str(control.ca)}},
        {"name": "nowhere", "cluster": {"server": "https://127.0.0.1:9"}},
    ]
    contexts = [{"name": name, "context": {"cluster": name, "user": "weir"}} for name in ("here", "nowhere")]
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "clusters": clusters, "users": [user],
        "contexts": contexts, "current-context": "nowhere",
    }))  # fmt: skip
    options = ("--kubeconfig", str(config), "--kube-context", "here", "--node-name", "node-a")
    with Agent(instance, namespaces(client), *options, *PODS).ready() as agent:
        found = talk(agent, client, server, server.netns, 1)
    assert both_ends(found["source"]) == ("prod/client/client", "prod/server/server", "address")
