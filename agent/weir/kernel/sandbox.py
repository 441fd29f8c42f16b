# SPDX-License-Identifier: Apache-2.0
"""What this process is given: user, namespaces, capabilities, filters, security modules. Read, never tried.

Sources: proc(5), namespaces(7), capabilities(7), seccomp(2), kernel_lockdown(7), selinux(8), apparmor(7).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from weir.kernel import machine

#: Bits of the capabilities that Weir uses (include/uapi/linux/capability.h).
CAPABILITIES = {
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
#: Inode numbers of the first namespaces (include/linux/proc_ns.h, PROC_USER_INIT_INO ...).
FIRST = {"user": 4026531837, "pid": 4026531836, "cgroup": 4026531835}
_WHOLE_MAP = ["0", "0", "4294967295"]
#: Settings of the kernel that change what Weir may or costs.
SYSCTLS = (
    "kernel.unprivileged_bpf_disabled",
    "kernel.perf_event_paranoid",
    "kernel.bpf_stats_enabled",
    "kernel.kptr_restrict",
    "net.core.bpf_jit_enable",
    "net.core.bpf_jit_harden",
    "net.core.bpf_jit_limit",
)
_KINDS = (
    (r"kubepods", "kubernetes"),
    (r"/docker[/-]", "docker"),
    (r"libpod-", "podman"),
    (r"/lxc[./]|/lxc$", "lxc"),
    (r"crio-|cri-containerd-|/containerd", "containerd"),
)


@dataclass(frozen=True)
class Sandbox:
    """One process's rights. "" and -1 mean that it could not be told.

    ``seccomp`` is the mode of /proc/self/status (0 none, 2 a filter); ``lockdown`` none, integrity or
    confidentiality; ``modules`` the security modules in force; ``selinux`` enforcing, permissive or,
    where the process has a context but the mode is hidden, unknown; ``selinux_type`` the type of that
    context; ``apparmor`` the profile with its mode; ``private`` the kinds of namespace (user, pid,
    cgroup, net) that are not the host's.
    """

    uid: int = 0
    effective: int = (1 << 41) - 1
    bounding: int = (1 << 41) - 1
    seccomp: int = 0
    lockdown: str = ""
    modules: tuple[str, ...] = ()
    selinux: str = ""
    selinux_type: str = ""
    apparmor: str = ""
    container: str = ""
    private: frozenset[str] = frozenset()
    sysctls: Mapping[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether a capability is effective."""
        return bool(self.effective >> CAPABILITIES[name] & 1)

    def may_have(self, name: str) -> bool:
        """Whether the bounding set still has it, so that a root process could."""
        return bool(self.bounding >> CAPABILITIES[name] & 1)

    @property
    def confined(self) -> str:
        """The AppArmor profile if it is enforced, without its mode."""
        profile, _, mode = self.apparmor.partition(" (")
        return profile if mode.startswith(("enforce", "kill")) else ""


def read(proc: Path = Path("/proc"), sys: Path = Path("/sys"), root: Path = Path("/")) -> Sandbox:
    """The rights of this process. Nothing raises: what cannot be read is not told."""
    status = dict(line.split(":\t", 1) for line in _text(proc / "self/status").splitlines() if ":\t" in line)
    context = _text(proc / "self/attr/current")
    apparmor = _text(proc / "self/attr/apparmor/current")
    if not apparmor and (context == "unconfined" or context.endswith(")")):  # before Linux 5.8
        apparmor = context
    modules = _security(sys, "lsm")
    return Sandbox(
        uid=int(status.get("Uid", "-1").split()[0]),
        effective=int(status.get("CapEff", "0"), 16),
        bounding=int(status.get("CapBnd", "0"), 16),
        seccomp=int(status.get("Seccomp", "-1")),
        lockdown=next(iter(re.findall(r"\[(\w+)\]", _security(sys, "lockdown"))), ""),
        modules=tuple(modules.split(",")) if modules else (),
        selinux=_selinux(sys, context),
        selinux_type=context.split(":")[2] if context.count(":") >= 2 else "",
        apparmor=apparmor,
        container=_container(proc, root),
        private=frozenset(_private(proc)),
        sysctls={n: v for n in SYSCTLS if (v := _text(proc / "sys" / n.replace(".", "/")))},
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip(" \n\0")
    except OSError:
        return ""


def _selinux(sys: Path, context: str) -> str:
    mode = _text(sys / "fs/selinux/enforce")
    if mode:
        return "enforcing" if mode == "1" else "permissive"
    return "unknown" if context.count(":") >= 2 and not context.startswith("kernel") else ""


def _private(proc: Path) -> list[str]:
    found = []
    for kind, first in FIRST.items():
        try:
            if os.readlink(proc / "self/ns" / kind) != f"{kind}:[{first}]":
                found.append(kind)
        except OSError:
            continue
    if "user" not in found and _text(proc / "self/uid_map").split() not in ([], _WHOLE_MAP):
        found.append("user")
    # net/core/sysctl_net_core.c registers net_core_table for the first network namespace only
    if (proc / "sys/net/core").is_dir() and not (proc / "sys/net/core/netdev_max_backlog").exists():
        found.append("net")
    return found


def _container(proc: Path, root: Path) -> str:
    """kubernetes, docker, podman, lxc ..., "" where nothing tells of a container.

    Marks: files that the runtimes leave, ``container`` in the first process's environment
    (systemd's container interface), names of cgroups.
    """
    if (root / "run/secrets/kubernetes.io").exists() or (root / "var/run/secrets/kubernetes.io").exists():
        return "kubernetes"
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    told = re.search(r"(?:^|\0)container=([\w.-]+)", _text(proc / "1/environ"))
    if told:
        return told[1]
    groups = _text(proc / "self/cgroup")
    return next((name for pattern, name in _KINDS if re.search(pattern, groups)), "")


def _security(sys: Path, name: str) -> str:
    """A file of securityfs; where that is not mounted, from a mount that nobody else sees (fsopen(2))."""
    path = sys / "kernel/security" / name
    if path.exists() or sys != Path("/sys"):
        return _text(path)
    opened: list[int] = []
    try:
        opened.append(machine.syscall("fsopen", b"securityfs", 1))
        machine.syscall("fsconfig", opened[0], 6, None, None, 0)  # FSCONFIG_CMD_CREATE
        opened.append(machine.syscall("fsmount", opened[0], 1, 0))
        return _read_at(opened[1], name)
    except OSError:
        return ""
    finally:
        for fd in opened:
            os.close(fd)


def _read_at(folder: int, name: str) -> str:
    try:
        fd = os.open(name, os.O_RDONLY, dir_fd=folder)
    except OSError:
        return ""
    try:
        return os.read(fd, 4096).decode("utf-8", "replace").strip()
    finally:
        os.close(fd)
