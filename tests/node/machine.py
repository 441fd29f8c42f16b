# SPDX-License-Identifier: Apache-2.0
"""A whole node: kubelet, containerd, CNI bridge, macvlan and Multus, and the control plane beside them.

It has a network, a mount namespace and a cgroup of its own; the kernel and its process table are the host's.
What a kubelet would set in the kernel is not set: it finds files with the values that it wants.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.control import PATIENCE, POD_MONITORS, ROOT, Completed, ControlPlane, programs
from tests.cluster.nodes import Fabric
from tests.image.engine import Docker
from tests.kernel.peers.netns import make_netns

NAME, ADDRESS = "node-1", "172.30.0.1"
PLUGINS = Path("/usr/lib/cni")  # of Debian's containernetworking-plugins
PAUSE = "weirt-pause:1"
#: What a kubelet sets, or wants to find (pkg/util/sysctl of Kubernetes).
_TUNABLES = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
_PAUSE_C = """
#include <signal.h>
#include <unistd.h>
static void end(int signal) { _exit(signal != SIGTERM); }
int main(void) { signal(SIGTERM, end); for (;;) pause(); }
"""


def until(done: Callable[[], Any], what: Callable[[], Any] | str, seconds: float = PATIENCE) -> Any:
    """What ``done`` gives once that is something; ``what`` is said where it never is."""
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, what if isinstance(what, str) else what()
        time.sleep(0.2)
    return found


def pause_image(engine: Docker, folder: Path) -> None:
    """What holds a pod's namespaces, as the registry's image of that name does."""
    binary, archive = folder / "pause", folder / "pause.tar"
    subprocess.run(["gcc", "-O2", "-static", "-xc", "-", "-o", binary], input=_PAUSE_C, text=True, check=True)
    with tarfile.open(archive, "w") as made:
        made.add(binary, "pause")
    engine.run("import", "--change", 'ENTRYPOINT ["/pause"]', str(archive), PAUSE)


def make_cgroups(name: str) -> None:
    """The node's, in every hierarchy, as a kubelet wants its root."""
    top = Path("/sys/fs/cgroup")
    for folder in [top, *top.glob("*/")]:
        if (folder / "cgroup.procs").exists():
            (folder / name).mkdir()


class Machine:
    """The node and its control plane; everything ends with ``stack``."""

    def __init__(self, folder: Path, stack: ExitStack, cgroup: str) -> None:
        self.folder, self.cgroup, self._stack = folder, cgroup, stack
        self._programs = programs("node")
        fabric = Fabric(stack)
        self.netns = stack.enter_context(make_netns())
        fabric.plug("nodes", self.netns, "eth0")
        fabric.plug("storage", self.netns, "nic-storage")
        self.netns.run("ip", "address", "add", f"{ADDRESS}/24", "dev", "eth0")
        self._enter = self._mounts()
        self._containerd()
        self.control = ControlPlane(programs(), folder, self.netns)
        stack.callback(self.control.close)
        self.control.start("--kubelet-preferred-address-types", "InternalIP")
        self._controllers()
        self._kubelet()

    def _mounts(self) -> list[str]:
        """A mount namespace with bpffs, a /run of its own, and the kernel's settings as files."""
        lines = ["mount --make-rshared /", "mount -t bpf bpf /sys/fs/bpf"]
        for path in ("/run/weir", "/run/containerd", "/var/log/pods", "/var/log/containers"):
            if not Path(path).exists():
                Path(path).mkdir()
                self._stack.callback(Path(path).rmdir)
            lines.append(f"mount -t tmpfs tmpfs {path}")
        for name, value in _TUNABLES.items():
            file = self.folder / name.replace("/", "-")
            file.write_text(f"{value}\n")
            lines.append(f"mount --bind {file} /proc/sys/{name}")
        holder = self.start(
            "mounts", "unshare", "-m", "sh", "-ec", "\n".join([*lines, "echo up", "exec sleep infinity"])
        )
        until(lambda: "up" in self.log("mounts"), "no mount namespace")
        return ["nsenter", f"--net={self.netns.path}", f"--mount=/proc/{holder.pid}/ns/mnt", "--"]

    def start(self, name: str, *command: str | Path) -> subprocess.Popen[bytes]:
        """A process of the node's, that ends with it; what it says is :meth:`log`."""
        enter = getattr(self, "_enter", ["nsenter", f"--net={self.netns.path}", "--"])
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([*enter, *command], stdout=log, stderr=log)

        def end() -> None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        self._stack.callback(end)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def run(self, *command: str | Path, code: int | None = 0, stdin: bytes | None = None) -> str:
        """A command on the node; its output."""
        done = subprocess.run([*self._enter, *command], input=stdin, capture_output=True, check=False)
        assert code is None or done.returncode == code, f"{command}: {done.stderr.decode()[-2000:]}"
        return done.stdout.decode()

    def kubectl(self, *arguments: str, stdin: str = "", code: int | None = 0) -> Completed:
        return self.control.kubectl(*arguments, stdin=stdin, code=code)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def objects(self, kind: str, *options: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, *options, "-o", "json").stdout)[
            "items"
        ]
        return found

    # -- containerd

    def _containerd(self) -> None:
        (self.folder / "cni").mkdir()
        runtime = "io.containerd.cri.v1.runtime"
        settings = f"""
version = 3
root = '{self.folder}/containerd'
state = '{self.folder}/containerd-state'
[grpc]
  address = '{self._socket}'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'docker.io/library/{PAUSE}'
[plugins.'{runtime}']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins.'{runtime}'.cni]
    bin_dirs = ['{PLUGINS}', '{self._programs}']
    conf_dir = '{self.folder}/cni'
  [plugins.'{runtime}'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'{runtime}'.containerd.runtimes.runc.options]
      BinaryName = '{ROOT}/tests/image/runtime.py'
"""
        (self.folder / "containerd.toml").write_text(settings)
        path = f"PATH={self._programs}:/usr/sbin:/usr/bin:/sbin:/bin"
        self.start("containerd", "env", path, "containerd", "--config", self.folder / "containerd.toml")
        until(lambda: self.ctr("version", code=None), lambda: self.log("containerd")[-2000:])

    @property
    def _socket(self) -> Path:
        return self.folder / "containerd.sock"

    def ctr(self, *arguments: str | Path, code: int | None = 0) -> str:
        return self.run(self._programs / "ctr", "-a", self._socket, "-n", "k8s.io", *arguments, code=code)

    def load(self, engine: Docker, *images: str) -> None:
        """Images of an engine, as if pulled."""
        archive = self.folder / "images.tar"
        engine.run("save", "-o", str(archive), *images)
        self.ctr("images", "import", archive)
        archive.unlink()

    def _end_pods(self) -> None:
        """By the kubelet, as their end wants it: what containerd runs goes on without it."""
        everything = "daemonsets,deployments,replicasets,jobs,pods"
        self.kubectl("delete", everything, "--all", "-A", "--force", "--grace-period=0", code=None)
        until(lambda: not self.ctr("tasks", "ls", "-q"), lambda: f"do not end: {self.ctr('tasks', 'ls')}")

    # -- networks

    def network(self, name: str, config: dict[str, Any], namespace: str) -> None:
        """A NetworkAttachmentDefinition."""
        self.apply({
            "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"config": json.dumps({"cniVersion": "1.0.0", **config})},
        })  # fmt: skip

    def _multus(self) -> None:
        bridge = {
            "cniVersion": "1.0.0", "name": "pods", "type": "bridge", "bridge": "cni0", "isGateway": True,
            "ipam": {"type": "host-local", "subnet": "10.244.1.0/24", "routes": [{"dst": "0.0.0.0/0"}],
                     "dataDir": f"{self.folder}/ipam"},
        }  # fmt: skip
        config = {
            "cniVersion": "1.0.0", "name": "multus", "type": "multus", "delegates": [bridge],
            "kubeconfig": str(self.control.kubeconfig), "cniDir": f"{self.folder}/multus",
            "confDir": f"{self.folder}/cni", "binDir": str(PLUGINS), "logFile": f"{self.folder}/multus.log",
            "logLevel": "verbose",
        }  # fmt: skip
        (self.folder / "cni/00-multus.conf").write_text(json.dumps(config))
        names = {"plural": "network-attachment-definitions", "singular": "network-attachment-definition",
                 "kind": "NetworkAttachmentDefinition", "shortNames": ["net-attach-def"]}  # fmt: skip
        spec = {"type": "object", "properties": {"config": {"type": "string"}}}
        schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
        self.apply({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{names['plural']}.k8s.cni.cncf.io"},
            "spec": {"group": "k8s.cni.cncf.io", "scope": "Namespaced", "names": names,
                     "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}]},
        })  # fmt: skip

    def pod_monitors(self) -> None:
        """The Prometheus Operator's kind of object, without the operator."""
        self.kubectl("apply", "--server-side", "-f", str(programs("clients") / POD_MONITORS))
        self.kubectl("wait", "--for=condition=established", "crd/podmonitors.monitoring.coreos.com")

    # -- Kubernetes

    def _controllers(self) -> None:
        wanted = ("daemonset-controller", "deployment-controller", "replicaset-controller", "job-controller",
                  "namespace-controller", "garbage-collector-controller", "node-lifecycle-controller",
                  "serviceaccount-controller", "root-ca-certificate-publisher-controller")  # fmt: skip
        common = ("--kubeconfig", self.control.kubeconfig, "--leader-elect=false", "--secure-port=0")
        self.start("controllers", self._programs / "kube-controller-manager", *common,
                   "--controllers", ",".join(wanted), "--root-ca-file", self.control.ca,
                   "--service-account-private-key-file", self.folder / "service-account.key")  # fmt: skip
        self.start("scheduler", self._programs / "kube-scheduler", *common)

    def _kubelet(self) -> None:
        self._multus()
        (self.folder / "resolv.conf").write_text("")
        none = {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%",
                "nodefs.inodesFree": "0%", "imagefs.inodesFree": "0%"}  # fmt: skip
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"}, "healthzPort": 0,
            "cgroupDriver": "cgroupfs", "cgroupRoot": self.cgroup, "failCgroupV1": False, "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{self._socket}", "protectKernelDefaults": True,
            "makeIPTablesUtilChains": False, "resolvConf": str(self.folder / "resolv.conf"),
            "evictionHard": none,
            "imageGCHighThresholdPercent": 100, "volumePluginDir": str(self.folder / "volume-plugins"),
            "syncFrequency": "5s", "nodeStatusUpdateFrequency": "5s",
        }  # fmt: skip
        (self.folder / "kubelet.yaml").write_text(yaml.safe_dump(config))
        self.start("kubelet", self._programs / "kubelet", "--config", self.folder / "kubelet.yaml",
                   "--kubeconfig", self.control.kubeconfig, "--root-dir", self.folder / "kubelet",
                   "--hostname-override", NAME, "--node-ip", ADDRESS)  # fmt: skip
        self._stack.callback(self._end_pods)
        until(self._ready, "the node does not become ready")

    def _ready(self) -> bool:
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        return self.kubectl("get", "node", NAME, "-o", f"jsonpath={path}", code=None).stdout == "True"


def needed() -> str:
    """What is missing for this ring, with the way to get it."""
    missing = [] if (PLUGINS / "macvlan").exists() else ["containernetworking-plugins"]
    missing += [name for name in ("runc", "gcc") if not shutil.which(name, path="/usr/sbin:/usr/bin")]
    return f"{', '.join(missing)}: scripts/setup --tests --image" if missing else ""
