# SPDX-License-Identifier: Apache-2.0
"""``daemonset/``: what kustomize and helm make of it, and whether a real API server takes it.

``WEIR_GOLDEN=write`` writes tests/cluster/golden anew.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.control import POD_MONITORS, PROMETHEUS_RULES, ROOT, ControlPlane, programs
from weir.kernel.privileges import KEPT

GOLDEN = Path(__file__).parent / "golden"
CHART = ROOT / "daemonset/chart/weir"
OVERLAYS = sorted(path.name for path in (ROOT / "daemonset/overlays").iterdir())
_SECURED = {"webConfig": {"secretName": "weir-web"}, "kubeAuth": True}
#: Values of the chart by what is asked for.
CHARTS: dict[str, dict[str, Any]] = {
    "default": {},
    "secured": {
        **_SECURED,
        "agent": {"seccomp": "weir/agent.json"},
        "image": {"digest": "sha256:" + 64 * "7"},
    },
    "privileged": {"mode": "privileged", "settings": {"tls": True, "route": ["/users/{id}"]}},
    "no-api": {
        "kubernetesApi": False,
        "prometheus": {"podMonitor": {"enabled": True}},
        "networkPolicy": False,
    },
}
Objects = list[dict[str, Any]]


@pytest.fixture(scope="session")
def clients() -> Path:
    return programs("clients")


def run(*command: str | Path, code: int = 0) -> str:
    done = subprocess.run([*map(str, command)], text=True, capture_output=True, check=False)
    assert done.returncode == code, done
    return done.stdout if code == 0 else done.stderr


def kustomize(clients: Path, overlay: str) -> str:
    folder = ROOT / "daemonset" / (f"overlays/{overlay}" if overlay != "base" else "")
    return run(clients / "kustomize", "build", folder)


def helm(clients: Path, values: dict[str, Any], tmp_path: Path, code: int = 0) -> str:
    (tmp_path / "values.yaml").write_text(json.dumps(values))
    return run(
        clients / "helm", "template", "weir", CHART, "--namespace", "weir-chart",
        "--kube-version", "1.36.0", "--values", tmp_path / "values.yaml", code=code,
    )  # fmt: skip


def parsed(text: str) -> Objects:
    return [item for item in yaml.safe_load_all(text) if item]


def compared(name: str, text: str) -> None:
    """With the golden file, as parsed: the order of keys is the tools' own."""
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("WEIR_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump_all(parsed(text), sort_keys=True))
    assert parsed(text) == parsed(path.read_text())


def daemonset(objects: Objects) -> dict[str, Any]:
    (found,) = (item for item in objects if item["kind"] == "DaemonSet")
    return found


def containers(objects: Objects) -> dict[str, dict[str, Any]]:
    spec = daemonset(objects)["spec"]["template"]["spec"]
    return {c["name"]: c for c in [*spec.get("initContainers", []), *spec["containers"]]}


@pytest.fixture(scope="module")
def server(control: ControlPlane, clients: Path) -> ControlPlane:
    control.define(clients / POD_MONITORS)
    control.define(clients / PROMETHEUS_RULES)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "weir-chart"}}
    assert control.put(namespace)[0] in (200, 201)
    return control


def taken(server: ControlPlane, objects: Objects) -> None:
    """Dry, then really; what is not known to the API server is an error."""
    for dry in (True, False):
        for item in objects:
            status, said = server.put(item, dry=dry)
            assert status in (200, 201), said["message"]


def test_dashboards(server: ControlPlane, clients: Path) -> None:
    """Each in a ConfigMap small enough for ``kubectl apply``; the rules as the operator's CRD has them."""
    objects = parsed(run(clients / "kustomize", "build", ROOT / "dashboards"))
    maps = [item for item in objects if item["kind"] == "ConfigMap"]
    found = {name: text for item in maps for name, text in item["data"].items()}
    assert found == {path.name: path.read_text() for path in (ROOT / "dashboards").glob("weir-*.json")}
    assert {item["metadata"]["labels"]["grafana_dashboard"] for item in maps} == {"1"}
    assert max(len(json.dumps(item)) for item in maps) < 256 << 10
    taken(server, objects)


@pytest.mark.parametrize("overlay", ["base", *OVERLAYS])
def test_overlays(server: ControlPlane, clients: Path, overlay: str) -> None:
    text = kustomize(clients, overlay)
    compared(f"overlay-{overlay}", text)
    taken(server, parsed(text))


@pytest.mark.parametrize("name", CHARTS)
def test_chart(server: ControlPlane, clients: Path, name: str, tmp_path: Path) -> None:
    text = helm(clients, CHARTS[name], tmp_path)
    compared(f"chart-{name}", text)
    taken(server, parsed(text))


def test_chart_is_clean(clients: Path) -> None:
    assert "0 chart(s) failed" in run(clients / "helm", "lint", "--strict", CHART)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mode": "sidecar"}, "mode"),
        ({"lissten": {}}, "lissten"),
        ({"listen": {"port": 70000}}, "port"),
        ({"agent": {"capabilities": ["ALL"]}}, "capabilities"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"settings": {"listen": ":1"}}, "invalid propertyName 'listen'"),
        ({"kubeAuth": True}, "tokens must not be sent in the clear"),
    ],
)
def test_values_that_cannot_be(clients: Path, values: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in helm(clients, values, tmp_path, code=1)


def test_the_chart_is_the_base(clients: Path, tmp_path: Path) -> None:
    """Both ways of installing give the same containers and the same rights."""
    ours, charts = parsed(kustomize(clients, "base")), parsed(helm(clients, {}, tmp_path))
    for name, container in containers(ours).items():
        other = copy.deepcopy(containers(charts)[name])
        for key in ("args", "resources", "ports", "startupProbe", "readinessProbe"):
            if name == "load" or key not in ("startupProbe", "readinessProbe"):
                assert container.get(key) == other.get(key), (name, key)
        one, two = container["securityContext"], other["securityContext"]
        assert {**one, "seccompProfile": {"type": "RuntimeDefault"}} == two
        mounts = [{mount["mountPath"]: mount for mount in c["volumeMounts"]} for c in (container, other)]
        assert mounts[0] == mounts[1]
    rules = [
        [item["rules"] for item in objects if item["kind"] == "ClusterRole"] for objects in (ours, charts)
    ]
    assert rules[0] == rules[1]


def test_privileges(clients: Path) -> None:
    """``privileged: true`` in its overlay only; the agent's capabilities are among those with a reason."""
    for overlay in ["base", *OVERLAYS]:
        found = containers(parsed(kustomize(clients, overlay)))
        contexts = {name: container["securityContext"] for name, container in found.items()}
        if overlay == "privileged":
            assert contexts == {"agent": {"privileged": True, "runAsUser": 0}}
            continue
        for context in contexts.values():
            assert not context.get("privileged")
            assert context["readOnlyRootFilesystem"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
        assert contexts["agent"]["capabilities"]["add"] == ["BPF"]
        assert {f"CAP_{name}" for name in contexts["agent"]["capabilities"]["add"]} <= KEPT.keys()
        assert ("SYS_ADMIN" in contexts["load"]["capabilities"]["add"]) == (overlay != "least-privilege")


def test_pod_security_levels(server: ControlPlane, clients: Path) -> None:
    """Level privileged, as docs/deploy.md says; a namespace of another level refuses the pods."""
    objects = parsed(kustomize(clients, "base"))
    taken(server, objects)
    for level, expected in (("privileged", 201), ("baseline", 403), ("restricted", 403)):
        name = f"weir-{level}"
        labels = {"pod-security.kubernetes.io/enforce": level}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        assert server.put(namespace)[0] in (200, 201)
        template = copy.deepcopy(daemonset(objects)["spec"]["template"])
        pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "weir"}}
        pod["spec"].pop("serviceAccountName")
        pod["spec"].pop("priorityClassName")
        status, said = server.put(pod, name, dry=True)
        assert status == expected, said
        if status == 403:
            assert "hostPID=true" in said["message"] or "host namespaces" in said["message"]


def test_seccomp_profile() -> None:
    """The seccomp profile allows nothing that only attaching or an escape would need."""
    profile = json.loads((ROOT / "daemonset/seccomp/agent.json").read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = {name for rule in profile["syscalls"] for name in rule["names"]}
    assert "bpf" in allowed
    assert not allowed & {
        "mount", "umount2", "setns", "unshare", "pivot_root", "chroot", "ptrace", "process_vm_readv",
        "kexec_load", "init_module", "finit_module", "perf_event_open", "open_by_handle_at", "keyctl",
        "add_key", "reboot", "swapon", "userfaultfd", "io_uring_setup", "move_mount", "fsopen", "fsmount",
        "mknod", "mknodat", "settimeofday",
    }  # fmt: skip
