# SPDX-License-Identifier: Apache-2.0
"""What this process is allowed: user, capabilities, filters, security modules, namespaces, mounts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from weir.check.finding import Finding, Judge
from weir.kernel import mounts, refusal, trials
from weir.kernel.sandbox import Sandbox

#: Capability → what it is for, and what is lost without it ("": Weir cannot run).
_USES = {
    "CAP_BPF": ("maps, programs", ""),
    "CAP_PERFMON": ("programs that read kernel memory", ""),
    "CAP_NET_ADMIN": ("cgroup_skb", "no weir_udp_ metrics"),
    "CAP_SYS_ADMIN": ("sockets of other network namespaces at the start; mounts",
                      "connections older than Weir that no process holds are first seen when they move"),
    "CAP_SYS_PTRACE": ("names of other users' processes", "owners of other users' sockets may have no name"),
    "CAP_DAC_READ_SEARCH": ("names of containers", "containers may show under their id"),
}  # fmt: skip
_STANDS_FOR = {"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"}


def rights(judge: Judge) -> Iterator[Finding]:
    """User and capabilities, then what stands before the kernel, then what is the container's own."""
    box = judge.box
    yield _user(box)
    yield from _capabilities(box)
    yield _map(judge)
    yield from _before_the_kernel(judge)
    yield from _namespaces(judge)


def _user(box: Sandbox) -> Finding:
    if "user" in box.private:
        cause = refusal.everything(box)
        assert cause is not None
        return Finding("user", "refused", cause.why, "nothing can be counted", cause.mend, True, cause.name)
    if box.uid == 0:
        return Finding("user", "found", "root")
    able = box.has("CAP_BPF") or box.has("CAP_SYS_ADMIN")
    return Finding(
        "user", "refused", f"not root (uid {box.uid})", "nothing can be counted",
        "sudo weir check; Weir pins under bpffs and writes under /run, as root", True,
        "not-root" if not able else "not-root-files",
    )  # fmt: skip


def _capabilities(box: Sandbox) -> Iterator[Finding]:
    if "user" in box.private or box.uid != 0:
        return  # said already, and these would not count
    lacking = [name for name in _USES if not box.has(name)]
    gone = [n for n in lacking if not (n in _STANDS_FOR and box.has("CAP_SYS_ADMIN"))]
    if not gone:
        yield Finding("capabilities", "found", "all that Weir uses")
    for name in gone:
        use, effect = _USES[name]
        cause = refusal.without((name,), box)
        yield Finding(
            name, "refused", f"for {use}: {cause.why}", effect or "nothing can be counted", cause.mend,
            fatal=not effect, cause=cause.name,
        )  # fmt: skip


def _map(judge: Judge) -> Finding:
    effect, detail = "nothing can be counted", "a map and a program could be made"
    return judge.finding("bpf(2)", True, ("map", "program"), detail, effect,
                         "a kernel with CONFIG_BPF_SYSCALL=y", fatal=True)  # fmt: skip


def _before_the_kernel(judge: Judge) -> Iterator[Finding]:
    box = judge.box
    filters = {0: "no filter", 1: "strict mode", 2: "a filter, which lets Weir's calls pass", -1: "not told"}
    held = [t for t in judge.trials.values() if t.error and _is(judge, t.name, "seccomp")]
    if held:
        cause = refusal.explain(held[0], box)
        what = ", ".join(sorted({t.call + "(2)" for t in held}))
        yield Finding(
            "seccomp",
            "refused",
            f"{cause.why} ({what})",
            "what the findings that name it say",
            cause.mend,
            False,
            "seccomp",
        )
    else:
        yield Finding("seccomp", "found" if box.seccomp >= 0 else "unknown", filters[box.seccomp])
    yield _lockdown(judge)
    yield _modules(judge)


def _is(judge: Judge, name: str, cause: str) -> bool:
    found = judge.refusal(name)
    return found is not None and found.name == cause


def _lockdown(judge: Judge) -> Finding:
    mode = judge.box.lockdown
    cause = judge.refusal("read", "kprobe")
    if cause and cause.name == "lockdown":
        return Finding(
            "lockdown", "refused", cause.why, "nothing can be counted", cause.mend, True, "lockdown"
        )
    said = {
        "": "not told (securityfs cannot be read), but kernel memory may be read",
        "none": "none",
        "integrity": "integrity mode: BPF may read, which is all that Weir does",
        "confidentiality": "confidentiality mode",
    }
    if not mode and judge.refusal("read"):
        return Finding("lockdown", "unknown", "securityfs cannot be read (CAP_SYS_ADMIN)")
    return Finding("lockdown", "found", said.get(mode, mode))


def _modules(judge: Judge) -> Finding:
    box = judge.box
    parts = [", ".join(box.modules)] if box.modules else []
    if box.selinux:
        parts.append(f"SELinux {box.selinux}" + (f" as {box.selinux_type}" if box.selinux_type else ""))
    if box.apparmor:
        parts.append(f"AppArmor profile {box.apparmor}")
    for name in judge.trials:
        cause = judge.refusal(name)
        if cause and cause.name in ("selinux", "apparmor"):
            return Finding("security modules", "refused", "; ".join([cause.why, *parts]),
                           "what the findings that name it say", cause.mend, False, cause.name)  # fmt: skip
    if not parts:
        return Finding("security modules", "unknown", "securityfs cannot be read")
    return Finding("security modules", "found", "; ".join(parts))


_PRIVATE = {
    "pid": ("a PID namespace of its own",
            "owners have no name: source_workload and destination_workload are process names at best",
            "docker or podman run --pid=host; Kubernetes: spec.hostPID: true"),
    "net": ("a network namespace of its own",
            "all of them are counted all the same, but /metrics is served inside this one only",
            "docker or podman run --network=host; Kubernetes: spec.hostNetwork: true"),
}  # fmt: skip


def _namespaces(judge: Judge) -> Iterator[Finding]:
    box = judge.box
    if box.container:
        shared = "" if box.private else ", all of its namespaces that matter are the host's"
        yield Finding("container", "found", f"marks of {box.container}{shared}")
    for kind, (what, effect, remedy) in _PRIVATE.items():
        if kind in box.private:
            yield Finding(
                f"host's {kind} namespace", "refused", what, effect, remedy, False, f"{kind}-namespace"
            )


def file_systems(judge: Judge) -> Iterator[Finding]:
    """Where Weir writes and pins, and where it sees the host's cgroups."""
    yield _run(judge)
    yield _mount(judge, "bpf", "pins that outlive the agent")
    yield _mount(judge, "cgroup2", "UDP flows and container names")
    yield from _cgroup_root(judge)


def _run(judge: Judge) -> Finding:
    where = mounts.RUN if mounts.RUN.exists() else mounts.RUN.parent
    if os.access(where, os.W_OK):
        return Finding(str(mounts.RUN), "found", "writable")
    read_only = bool(os.statvfs(where).f_flag & os.ST_RDONLY)
    cause = "read-only" if read_only else "not-root" if judge.box.uid else "capability"
    return Finding(
        str(mounts.RUN), "refused", f"{where} is {'read-only' if read_only else 'not writable'}",
        "locks and the kernel side's facts have no place",
        "docker run --tmpfs /run, or -v /run/weir:/run/weir; Kubernetes: an emptyDir or hostPath there"
        if read_only else "run as root", True, cause,
    )  # fmt: skip


def _mount(judge: Judge, kind: str, use: str) -> Finding:
    point = mounts.find(kind)
    usual = {"bpf": "/sys/fs/bpf", "cgroup2": "/sys/fs/cgroup"}[kind]
    if point and kind == "bpf" and not os.access(point, os.W_OK) and judge.box.uid == 0:
        return Finding(
            f"{kind} mount", "refused", f"{point} is read-only", f"no {use}",
            f"mount -o remount,rw {point}; docker run -v {usual}:{usual}; Kubernetes: a hostPath of {usual}",
            True, "read-only",
        )  # fmt: skip
    if point:
        return Finding(f"{kind} mount", "found", str(point))
    cause = judge.refusal(f"mount {kind}")
    if cause is None:
        return Finding(f"{kind} mount", "replaced", f"Weir mounts its own under {mounts.RUN}/mnt, for {use}")
    return Finding(
        f"{kind} mount", "refused", f"none is mounted, and Weir may not: {cause.why}", f"no {use}",
        f"mount it on the host (mount -t {kind} {kind} {usual}) and give it to the container"
        f" (-v {usual}:{usual}), or: {cause.mend}", True, cause.name,
    )  # fmt: skip


def _cgroup_root(judge: Judge) -> Iterator[Finding]:
    point = mounts.find("cgroup2")
    trial = judge.trials["mount cgroup2"]
    if point and trials.root_of_cgroup2(point):
        beside = "" if point == Path("/sys/fs/cgroup") else " (cgroup v1 beside it)"
        yield Finding("host's cgroup root", "found", f"{point}{beside}")
    elif not trial.error and not trial.log:
        seen = "replaced" if point else "found"
        yield Finding("host's cgroup root", seen, f"seen by a mount of Weir's own under {mounts.RUN}/mnt")
    elif point or not trial.error:  # else the mount's finding has said it
        yield Finding(
            "host's cgroup root", "refused", f"{point or trial.log} shows this container's cgroups only (a"
            " cgroup namespace of its own)", "UDP of everything else on the host is not counted (weir_udp_"
            " metrics), and containers have no names",
            "docker or podman run --cgroupns=host, or --pid=host with --privileged; Kubernetes: spec.hostPID:"
            " true with securityContext.privileged: true", False, "cgroup-namespace",
        )  # fmt: skip
