# SPDX-License-Identifier: Apache-2.0
"""The manifests on a real node: a DaemonSet that counts real pods on eth0 and net1, while it is rolled."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml

from tests.cluster.control import ROOT, programs
from tests.image.test_docker import CLIENT, PORT, RECEIVED, SENT, SERVER, SIZE, all_loaded
from tests.kernel.agents import Page, program_ids
from tests.kernel.peers.netns import run
from tests.node.conftest import NEXT, OTHER
from tests.node.machine import ADDRESS, NAME, Machine, until

MACVLAN = {"type": "macvlan", "master": "nic-storage", "mode": "bridge"}
NETWORKS, STATUS = "k8s.v1.cni.cncf.io/networks", "k8s.v1.cni.cncf.io/network-status"


def workload(name: str, script: str, **spec: Any) -> dict[str, Any]:
    """A Deployment of one pod, on the pod network and the storage network."""
    labels = {"app": name}
    container = {"name": "main", "image": "weir:test", "command": ["python3", "-c", script]}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 0, **spec}
    annotations = {} if spec.get("hostNetwork") else {NETWORKS: "storage"}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod}},
    }  # fmt: skip


def certificate(folder: Path) -> Path:
    """What the Secret ``weir-web`` has: web.yml with a user, tls.crt and tls.key of the node's address."""
    made = folder / "web"
    made.mkdir()
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    tls = {"cert_file": "tls.crt", "key_file": "tls.key"}
    (made / "web.yml").write_text(yaml.safe_dump({
        "tls_server_config": tls, "basic_auth_users": {"prometheus": hashed}}))  # fmt: skip
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "2", "-subj", "/CN=weir", "-addext", f"subjectAltName=IP:{ADDRESS}",
        "-keyout", str(made / "tls.key"), "-out", str(made / "tls.crt"))  # fmt: skip
    return made


class Shop:
    """Real pods: a server and clients, one of them on the host's network; ``bought`` is what they sent."""

    def __init__(self, node: Machine) -> None:
        self._node = node
        self.bought: Counter[tuple[str, str]] = Counter()
        ipam = {"type": "host-local", "subnet": "10.50.0.0/24", "dataDir": f"{node.folder}/ipam"}
        node.kubectl("create", "namespace", "shop")
        node.network("storage", {**MACVLAN, "ipam": ipam}, "shop")
        idle = "import time; time.sleep(1e6)"
        node.apply(
            workload("web", SERVER), workload("buyer", idle), workload("courier", idle, hostNetwork=True)
        )
        for name in ("web", "buyer", "courier"):
            node.kubectl("-n", "shop", "rollout", "status", f"deployment/{name}", "--timeout=60s")
        (web,) = node.objects("pods", "-n", "shop", "-l", "app=web")
        status = json.loads(web["metadata"]["annotations"][STATUS])
        self.address = {row["interface"]: row["ips"][0] for row in status}

    def pod(self, name: str) -> str:
        """The name of a deployment's pod."""
        (found,) = self._node.objects("pods", "-n", "shop", "-l", f"app={name}")
        return str(found["metadata"]["name"])

    def buy(self, client: str, times: int, network: str = "") -> None:
        """So many connections to the server's address in a network."""
        address = self.address["net1" if network else "eth0"]
        self._node.kubectl("-n", "shop", "exec", f"deployment/{client}", "--", "python3", "-c", CLIENT,
                           address, str(times))  # fmt: skip
        self.bought[client, network] += times


class Weir:
    """The DaemonSet, and what it serves."""

    curl: tuple[str, ...] = ("curl", "-sf", f"http://{ADDRESS}:10435/metrics")

    def __init__(self, node: Machine, shop: Shop, folder: Path) -> None:
        self.node, self.shop, self._folder = node, shop, folder

    def overlay(self, base: str, **settings: Any) -> str:
        """A kustomization on one of the repository's: our image, and only our pods are counted."""
        folder = self._folder / base.replace("/", "-")
        folder.mkdir(exist_ok=True)
        (folder / "weir.yaml").write_text(yaml.safe_dump({**self.settings, **settings}))
        generated = {"name": "weir", "namespace": "weir", "behavior": "replace", "files": ["weir.yaml"]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump({
            "resources": [os.path.relpath(ROOT / "daemonset" / base, folder)],
            "images": [{"name": "weir", "newTag": "test"}], "configMapGenerator": [generated],
        }))  # fmt: skip
        return str(folder)

    @property
    def settings(self) -> dict[str, Any]:
        return {"interval": 1, "cgroup": [self.node.cgroup]}

    def deploy(self, base: str, **settings: Any) -> None:
        self.node.kubectl("apply", "-k", self.overlay(base, **settings))
        self.rolled_out()

    def rolled_out(self) -> None:
        done = self.node.kubectl("-n", "weir", "rollout", "status", "ds/weir", "--timeout=90s", code=None)
        assert done.returncode == 0, self.node.kubectl("-n", "weir", "describe", "pods").stdout[-6000:]

    def page(self) -> Page:
        return Page.of(self.node.netns.run(*self.curl))

    def helm(self, *arguments: str) -> None:
        """As a user at a shell of the API server's host."""
        own = ("--namespace", "weir", "--kubeconfig", str(self.node.control.kubeconfig), "--wait")
        self.node.run("env", f"HOME={self._folder}", programs("clients") / "helm", *arguments, *own)

    def created(self) -> float:
        """When the counters began, in seconds since 1970."""
        accept = "Accept: application/openmetrics-text; version=1.0.0"
        text = self.node.netns.run(*self.curl[:-1], f"{self.curl[-1]}?created=1", "-H", accept)
        return max(
            float(at) for at in re.findall(r"^weir_tcp_sent_bytes_created\{.*\} (\S+)$", text, re.MULTILINE)
        )

    def log(self, container: str = "agent") -> str:
        return self.node.kubectl("-n", "weir", "logs", "ds/weir", "-c", container).stdout

    def all_counted(self) -> None:
        """Both ends of every pair tell of all that was sent, under its names, and of no more."""
        wanted = {pair: [times * SIZE] * 4 for pair, times in self.shop.bought.items()}
        found: dict[tuple[str, str], list[int]] = {}

        def there() -> bool:
            page = self.page()
            for client, network in wanted:
                names = {
                    "source_namespace": "shop", "source_workload": client, "destination_namespace": "shop",
                    "destination_workload": "web", "destination_port": PORT, "network_name": network,
                }  # fmt: skip
                found[client, network] = [page.sum(name, reporter=end, **names) for name, end in COUNTS]
            return found == wanted

        until(there, lambda: f"{found}, not {wanted}", 20)

    def total(self) -> list[int]:
        """The same under whatever names."""
        page = self.page()
        return [page.sum(name, reporter=end, destination_port=PORT) for name, end in COUNTS]


COUNTS = [(name, end) for name in (SENT, RECEIVED) for end in ("source", "destination")]


@pytest.fixture(scope="module")
def weir(node: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weir]:
    """The base. Nothing of it is left in the kernel when it has been unloaded as the docs say."""
    before = program_ids()
    made = Weir(node, Shop(node), tmp_path_factory.mktemp("overlays"))
    made.deploy("base")
    yield made
    made.deploy("overlays/unload")
    until(lambda: not program_ids() - before, "programs are left")
    assert "weir" not in node.run("ls", "/sys/fs/bpf", "/run/weir").splitlines()
    node.kubectl("delete", "-k", made.overlay("overlays/unload"))


def test_real_pods_on_both_networks_by_name_to_the_byte(weir: Weir) -> None:
    weir.shop.buy("buyer", 23)
    weir.shop.buy("buyer", 13, "shop/storage")
    weir.shop.buy("courier", 7)
    assert weir.shop.address["net1"].startswith("10.50.0.")
    weir.all_counted()


def test_agents_that_are_killed(weir: Weir) -> None:
    """What is sent while there is none is counted all the same."""
    for pod in weir.node.objects("pods", "-n", "weir"):
        weir.node.kubectl(
            "-n", "weir", "delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0"
        )
    weir.shop.buy("buyer", 29)
    weir.rolled_out()
    weir.all_counted()


@pytest.mark.parametrize("overlay", ["least-privilege", "privileged", "prometheus-operator"])
def test_rolling_to_another_overlay(weir: Weir, overlay: str) -> None:
    """Each runs, and goes on with what the one before it counted."""
    profiles = weir.node.folder / "kubelet/seccomp/weir"
    profiles.mkdir(parents=True, exist_ok=True)
    (profiles / "agent.json").write_text((ROOT / "daemonset/seccomp/agent.json").read_text())
    if overlay == "prometheus-operator":
        weir.node.pod_monitors()
    weir.deploy(f"overlays/{overlay}")
    weir.shop.buy("buyer", 17)
    weir.all_counted()
    assert 'msg="using the pinned kernel side"' in weir.log()
    (pod,) = weir.node.objects("pods", "-n", "weir")
    assert ("initContainers" in pod["spec"]) == (overlay != "privileged")


def test_without_the_kubernetes_api(weir: Weir) -> None:
    """Pods by name and namespace, of what the node itself has of them."""
    weir.deploy("overlays/no-kubernetes-api")
    weir.shop.buy("buyer", 11)
    wanted = [sum(weir.shop.bought.values()) * SIZE] * 4
    until(lambda: weir.total() == wanted, lambda: f"{weir.total()}, not {wanted}", 20)
    buyer, web = weir.shop.pod("buyer"), weir.shop.pod("web")
    names = {"source_namespace": "shop", "source_workload": buyer, "destination_namespace": "shop"}
    names |= {"destination_workload": web}
    assert weir.page().sum(SENT, **names, destination_port=PORT) >= 11 * SIZE


def test_up_and_down_while_traffic_goes_on(weir: Weir) -> None:
    """The next version, of the same programs, goes on with the counters; so does the former after it."""
    weir.deploy("base")
    before = weir.page()
    for roll in (
        ("set", "image", "ds/weir", f"load={NEXT}", f"agent={NEXT}"),
        ("rollout", "undo", "ds/weir"),
    ):
        weir.node.kubectl("-n", "weir", *roll)
        weir.shop.buy("buyer", 211)
        weir.rolled_out()
        weir.all_counted()
        versions = weir.page().label("weir_agent_build_info", "version")
        assert versions == (
            {"0.1.1"} if roll[0] == "set" else before.label("weir_agent_build_info", "version")
        )


def test_another_layout_and_back(weir: Weir) -> None:
    """Counters begin again, with a new ``_created``, and nothing is counted twice; the old ones are gone."""
    weir.deploy("base")
    home = "/sys/fs/bpf/weir/host"
    (own,) = weir.node.run("ls", home).split()
    weir.shop.buy("buyer", 3)
    weir.all_counted()
    for roll in (
        ("set", "image", "ds/weir", f"load={OTHER}", f"agent={OTHER}"),
        ("rollout", "undo", "ds/weir"),
    ):
        created = weir.created()
        weir.node.kubectl("-n", "weir", *roll)
        weir.rolled_out()
        weir.shop.bought.clear()
        weir.shop.buy("buyer", 19)
        weir.all_counted()
        assert weir.created() > created
        (folder,) = weir.node.run("ls", home).split()
        assert (folder == own) == (roll[0] == "rollout")


def test_secured(weir: Weir) -> None:
    """TLS and a password by the overlay's Secret, then a token of the cluster; probes are answered."""
    secret = certificate(weir.node.folder)
    weir.node.kubectl("-n", "weir", "create", "secret", "generic", "weir-web", f"--from-file={secret}")
    reader = ("create", "clusterrolebinding", "reader", "--clusterrole=weir-metrics-reader")
    url, ca = f"https://{ADDRESS}:10435/metrics", ("--cacert", str(secret / "tls.crt"))
    for overlay in ("secured", "kube-auth"):
        weir.deploy(f"overlays/{overlay}")
        status = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *ca)
        assert weir.node.netns.run(*status, url) == "401"
        known = ("-u", "prometheus:secret")
        if overlay == "kube-auth":
            weir.node.kubectl(*reader, "--serviceaccount=shop:default")
            token = weir.node.kubectl("-n", "shop", "create", "token", "default").stdout
            other = weir.node.kubectl("-n", "weir", "create", "token", "weir").stdout
            assert weir.node.netns.run(*status, "-H", f"Authorization: Bearer {other}", url) == "403"
            known = ("-H", f"Authorization: Bearer {token}")
        weir.curl = ("curl", "-sf", *ca, *known, url)
        try:
            weir.shop.buy("buyer", 5)
            weir.all_counted()
        finally:
            weir.curl = Weir.curl


def test_a_chart_that_goes_on_where_kustomize_left(weir: Weir, tmp_path: Path) -> None:
    """helm install, upgrade, uninstall; the counters are the same all the way."""
    weir.deploy("base")
    weir.node.kubectl("delete", "-k", weir.overlay("base"))
    values = tmp_path / "values.yaml"
    settings = {"image": {"tag": "test"}, "settings": weir.settings}
    for command, mode in (("install", "split"), ("upgrade", "privileged")):
        values.write_text(yaml.safe_dump({**settings, "mode": mode}))
        weir.helm(
            command, "weir", str(ROOT / "daemonset/chart/weir"), "-f", str(values), "--create-namespace"
        )
        weir.rolled_out()
        weir.shop.buy("courier", 31)
        weir.all_counted()
    weir.helm("uninstall", "weir")
    until(lambda: not weir.node.objects("pods", "-n", "weir"), "pods are left")
    weir.shop.buy("courier", 37)
    weir.deploy("base")
    weir.all_counted()


def test_a_debugging_session(weir: Weir) -> None:
    """kubectl debug: one container on the node, of this image, beside the DaemonSet."""
    debug = ("debug", f"node/{NAME}", "--image=weir:test", "--profile=sysadmin", "--attach", "--quiet", "--")
    done = weir.node.kubectl(*debug, "weir", "check", code=None)
    assert "Weir can run here" in done.stdout, done
    own = ("--cgroup", weir.node.cgroup, "--once", "--json", "--interval", "12")
    before = program_ids()
    with ThreadPoolExecutor() as pool:
        session = pool.submit(weir.node.kubectl, *debug, "weir", "top", *own, code=None)
        all_loaded(before)
        weir.shop.buy("buyer", 29)
    rows = json.loads(session.result().stdout)["edges"]
    bought = [row for row in rows if row["port"] == PORT]
    assert {(row["namespace"], row["pod"]) for row in bought} == {
        ("shop", weir.shop.pod("buyer")), ("shop", weir.shop.pod("web"))}  # fmt: skip
    assert [row["sent_bytes"] for row in bought] == [29 * SIZE] * 2
    file = weir.node.folder / "report.html"
    weir.node.kubectl(*debug, "weir", "report", *own[:2], "--duration", "3", "--output", f"/host{file}")
    until(file.exists, "no report")
