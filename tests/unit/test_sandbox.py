# SPDX-License-Identifier: Apache-2.0
"""What /proc and /sys tell of a process's rights, from texts as kernels and container runtimes write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from weir.kernel.sandbox import Sandbox, read

STATUS = (
    "Name:\tweir\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapInh:\t0000000000000000\nCapPrm:\t{cap}\nCapEff:\t{cap}\n"
    "CapBnd:\t{bnd}\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t{seccomp}\nSeccomp_filters:\t0\n"
)
ALL, DOCKER = "000001ffffffffff", "00000000a80425fb"
FIRST = {"user": 4026531837, "pid": 4026531836, "cgroup": 4026531835, "net": 4026531840}


class Host:
    """Folders that stand for /proc, /sys and /, as the first namespaces of a host have them."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.sys, self.root = folder / "proc", folder / "sys", folder / "root"
        self.root.mkdir(parents=True)
        self.status()
        for kind, inode in FIRST.items():
            self.namespace(kind, inode)
        self.write("proc/self/uid_map", "         0          0 4294967295\n")
        self.write("proc/sys/net/core/netdev_max_backlog", "1000\n")

    def write(self, name: str, text: str) -> None:
        path = self.root.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def status(self, uid: int = 0, cap: str = ALL, bnd: str = ALL, seccomp: int = 0) -> None:
        self.write("proc/self/status", STATUS.format(uid=uid, cap=cap, bnd=bnd, seccomp=seccomp))

    def namespace(self, kind: str, inode: int) -> None:
        link = self.proc / "self/ns" / kind
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"{kind}:[{inode}]")

    def read(self) -> Sandbox:
        return read(self.proc, self.sys, self.root)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_root_of_a_host(host: Host) -> None:
    box = host.read()
    assert (box.uid, box.seccomp, box.private, box.container) == (0, 0, frozenset(), "")
    assert box.has("CAP_BPF")
    assert box.has("CAP_DAC_READ_SEARCH")
    assert (box.lockdown, box.modules, box.selinux, box.apparmor) == ("", (), "", "")


def test_a_plain_docker_container(host: Host) -> None:
    host.status(cap=DOCKER, bnd=DOCKER, seccomp=2)
    host.write("proc/self/attr/current", "docker-default (enforce)\n")
    host.write("root/.dockerenv", "")
    for kind in ("pid", "cgroup"):
        host.namespace(kind, 4026533001)
    (host.proc / "sys/net/core/netdev_max_backlog").unlink()
    box = host.read()
    assert box.private == {"pid", "cgroup", "net"}
    assert (box.container, box.seccomp, box.confined) == ("docker", 2, "docker-default")
    assert not [n for n in ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN") if box.has(n) or box.may_have(n)]


def test_dropped_and_not_effective_are_two_things(host: Host) -> None:
    host.status(uid=1000, cap="0000000000000000")
    box = host.read()
    assert (box.has("CAP_BPF"), box.may_have("CAP_BPF")) == (False, True)


@pytest.mark.parametrize("inode", [4026532841, FIRST["user"]])
def test_rootless(host: Host, inode: int) -> None:
    """The namespace's number tells, or the map where it does not."""
    host.namespace("user", inode)
    host.write("proc/self/uid_map", "         0       1000          1\n         1     100000      65536\n")
    assert host.read().private == {"user"}


def test_a_user_namespace_that_maps_everybody(host: Host) -> None:
    host.namespace("user", 4026532841)
    assert host.read().private == {"user"}


@pytest.mark.parametrize("mode", ["none", "integrity", "confidentiality"])
def test_lockdown(host: Host, mode: str) -> None:
    text = "none integrity confidentiality".replace(mode, f"[{mode}]")
    host.write("sys/kernel/security/lockdown", f"{text}\n")
    host.write("sys/kernel/security/lsm", "lockdown,capability,yama,apparmor")
    assert host.read().lockdown == mode
    assert host.read().modules == ("lockdown", "capability", "yama", "apparmor")


def test_selinux(host: Host) -> None:
    host.write("proc/self/attr/current", "system_u:system_r:container_t:s0:c123,c456\0")
    assert (host.read().selinux, host.read().selinux_type) == ("unknown", "container_t")
    host.write("sys/fs/selinux/enforce", "1")
    box = host.read()
    assert (box.selinux, box.selinux_type, box.apparmor) == ("enforcing", "container_t", "")
    host.write("sys/fs/selinux/enforce", "0")
    assert host.read().selinux == "permissive"


def test_selinux_without_a_policy(host: Host) -> None:
    """Nothing is denied before a policy is loaded."""
    host.write("proc/self/attr/current", "kernel\0")
    host.write("sys/fs/selinux/enforce", "0")
    box = host.read()
    assert (box.selinux, box.selinux_type, box.apparmor) == ("permissive", "", "")


@pytest.mark.parametrize(
    ("profile", "confined"),
    [
        ("unconfined", ""),
        ("docker-default (enforce)", "docker-default"),
        ("cri-containerd.apparmor.d (enforce)", "cri-containerd.apparmor.d"),
        ("/usr/bin/man (complain)", ""),
        ("snap.docker.dockerd (kill)", "snap.docker.dockerd"),
    ],
)
def test_apparmor(host: Host, profile: str, confined: str) -> None:
    host.write("proc/self/attr/apparmor/current", f"{profile}\n")
    assert (host.read().apparmor, host.read().confined) == (profile, confined)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("root/run/secrets/kubernetes.io/serviceaccount/namespace", "default", "kubernetes"),
        ("root/run/.containerenv", "engine=podman", "podman"),
        ("proc/1/environ", "PATH=/bin\0container=lxc\0TERM=x\0", "lxc"),
        ("proc/1/environ", "container=systemd-nspawn\0", "systemd-nspawn"),
        ("proc/1/environ", "XDG_container=no\0", ""),
        (
            "proc/self/cgroup",
            "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-ab.scope\n",
            "kubernetes",
        ),
        ("proc/self/cgroup", "12:pids:/docker/0123abcd\n0::/docker/0123abcd\n", "docker"),
        ("proc/self/cgroup", "0::/machine.slice/libpod-0123.scope\n", "podman"),
        ("proc/self/cgroup", "0::/user.slice/user-0.slice/session-1.scope\n", ""),
        ("proc/self/cgroup", "0::/init.scope\n", ""),
    ],
)
def test_container(host: Host, name: str, text: str, kind: str) -> None:
    host.write(name, text)
    assert host.read().container == kind


def test_sysctls(host: Host) -> None:
    host.write("proc/sys/kernel/unprivileged_bpf_disabled", "2\n")
    host.write("proc/sys/kernel/hostname", "somebody\n")
    assert host.read().sysctls == {"kernel.unprivileged_bpf_disabled": "2"}


def test_nothing_to_read(tmp_path: Path) -> None:
    """A /proc that hides everything: not told, no error."""
    box = read(tmp_path, tmp_path, tmp_path)
    assert (box.uid, box.effective, box.seccomp, box.private) == (-1, 0, -1, frozenset())
