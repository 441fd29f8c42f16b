# SPDX-License-Identifier: Apache-2.0
"""Why the kernel, or what stands before it, refuses: from an errno and what the process is given.

The kernel answers EPERM to a missing capability, to lockdown and to a seccomp filter alike. What tells
them apart is read (:mod:`weir.kernel.sandbox`) or tried (:mod:`weir.kernel.trials`).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weir.kernel import sandbox, trials
from weir.kernel.sandbox import Sandbox
from weir.kernel.trials import Trial

_BPF = ("CAP_BPF", "CAP_SYS_ADMIN")
_PERFMON = ("CAP_PERFMON", "CAP_SYS_ADMIN")
_NET = ("CAP_NET_ADMIN", "CAP_SYS_ADMIN")
_ADMIN = ("CAP_SYS_ADMIN",)
#: Trial → capabilities it takes, one of each tuple (kernel/bpf/syscall.c, bpf_prog_load, link_create;
#: kernel/events/core.c, perf_kprobe_event_init; fs/namespace.c, may_mount).
NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "map": (_BPF,),
    "memlock": (_BPF,),
    "program": (_BPF, _PERFMON),
    "read": (_BPF, _PERFMON),
    "cmpxchg": (_BPF, _PERFMON),
    "typed program": (_BPF, _PERFMON),
    "iterator": (_BPF, _PERFMON),
    "kprobe program": (_BPF, _PERFMON),
    "kprobe": (_PERFMON,),
    "packet program": (_BPF,),
    "packet attachment": (_NET,),
    "sock_create program": (_BPF, _NET),
    "statistics": (_ADMIN,),
    "setns": (_ADMIN,),
    "mount bpf": (_ADMIN,),
    "mount cgroup2": (_ADMIN,),
}
_READ_HELPER = "bpf_probe_read_kernel#"


@dataclass(frozen=True)
class Cause:
    """Why something was refused. ``name`` is one word for scripts, ``mend`` what to do about it."""

    name: str
    why: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.why}; {self.mend}" if self.mend else self.why


def everything(box: Sandbox) -> Cause | None:
    """A reason that refuses all of BPF whatever is tried, or None."""
    if "user" in box.private:
        return _user_namespace(box)
    if not any(box.has(name) for name in _BPF):
        return without(_BPF, box)
    return None


def _user_namespace(box: Sandbox) -> Cause:
    return Cause(
        "user-namespace",
        f"uid {box.uid} is in a user namespace that is not the host's (a rootless or unprivileged container):"
        " its capabilities do not count for BPF",
        "run as the host's root: docker or podman without rootless mode and without --userns;"
        " Kubernetes: leave out spec.hostUsers: false",
    )


def explain(trial: Trial, box: Sandbox) -> Cause:
    """The cause of one trial's refusal."""
    missing = [one for one in NEEDS.get(trial.name, ()) if not any(box.has(name) for name in one)]
    if "user" in box.private:
        return _user_namespace(box)
    if missing:
        return without(missing[0], box, perf=trial.call == "perf_event_open")
    if trial.name in ("read", "kprobe") and _locked(trial, box):
        return _lockdown(trial)
    if trial.filtered:
        return _seccomp(trial)
    return _module(trial, box) or _last(trial, box)


def without(one: Sequence[str], box: Sandbox, perf: bool = False) -> Cause:
    """The cause where a process lacks every capability of ``one``; ``perf``: for perf_event_open(2)."""
    if box.uid != 0 and not any(box.has(name) for name in one):
        return Cause("not-root", f"not root (uid {box.uid})", "sudo, or docker run --user 0 --privileged")
    name = one[0]
    how = "not in the bounding set: the container runtime or service manager dropped it"
    if box.may_have(name):
        how = "in the bounding set, but not effective"
    return Cause("capability", f"{' or '.join(one)} is missing ({how}){_setting(name, box, perf)}", _add(one))


def _setting(name: str, box: Sandbox, perf: bool) -> str:
    """The sysctl that leaves those without the capability no way at all."""
    setting = "kernel.perf_event_paranoid" if perf else "kernel.unprivileged_bpf_disabled"
    value = box.sysctls.get(setting, "0")
    if value in ("0", "-1") or not (perf or name == "CAP_BPF"):
        return ""
    return f", and {setting}={value} leaves no way without it"


def _add(one: Sequence[str]) -> str:
    short = one[0].removeprefix("CAP_")
    return (
        f"docker or podman run --cap-add {short} (or --privileged); Kubernetes:"
        f" securityContext.capabilities.add: [{short}]; systemd: AmbientCapabilities=, CapabilityBoundingSet="
    )


def _locked(trial: Trial, box: Sandbox) -> bool:
    """Reading kernel memory and kprobes are forbidden in confidentiality mode, and only there.

    enum lockdown_reason (include/linux/security.h): LOCKDOWN_KPROBES and LOCKDOWN_BPF_READ_KERNEL come
    after LOCKDOWN_INTEGRITY_MAX. The helper is then unknown to the verifier: EINVAL, not EPERM.
    """
    if box.lockdown == "confidentiality":
        return True
    return not box.lockdown and trial.name == "read" and _READ_HELPER in trial.log


def _lockdown(trial: Trial) -> Cause:
    what = "kprobes" if trial.name == "kprobe" else "BPF programs to read kernel memory"
    return Cause(
        "lockdown",
        f"kernel lockdown in confidentiality mode forbids {what}",
        "boot with lockdown=integrity (which is enough for Secure Boot) or none;"
        " the mode cannot be lowered while the system runs",
    )


_CALLS = {
    "bpf": "bpf(2)",
    "perf_event_open": "perf_event_open(2)",
    "mount": "mount(2)",
    "setns": "setns(2)",
}


def _seccomp(trial: Trial) -> Cause:
    call = _CALLS[trial.call]
    error = errno.errorcode.get(trial.filtered or trial.error, "an error")
    return Cause(
        "seccomp",
        f"a seccomp filter answers {call} with {error}, though the capabilities are there",
        "docker or podman run --security-opt seccomp=unconfined (or --privileged); Kubernetes:"
        " securityContext.seccompProfile.type: Unconfined; systemd: SystemCallFilter=",
    )


def _module(trial: Trial, box: Sandbox) -> Cause | None:
    """A security module: SELinux's own denial is EACCES, that of a capability (both modules) EPERM."""
    call = _CALLS[trial.call]
    if trial.error not in (errno.EACCES, errno.EPERM):
        return None
    if box.selinux in ("enforcing", "unknown"):
        who = f" for {box.selinux_type}" if box.selinux_type else ""
        return Cause(
            "selinux",
            f"SELinux ({box.selinux}) denies {call}{who}",
            "ausearch -m avc -ts recent shows the denial (class bpf); docker or podman run --security-opt"
            " label=disable (or --privileged); Kubernetes: securityContext.seLinuxOptions.type: spc_t",
        )
    if box.confined:
        return Cause(
            "apparmor",
            f"the AppArmor profile {box.confined} denies {call}",
            "docker run --security-opt apparmor=unconfined (or --privileged); Kubernetes:"
            " securityContext.appArmorProfile.type: Unconfined",
        )
    return None


def _last(trial: Trial, box: Sandbox) -> Cause:
    """What is left: a filter that looks at the call's arguments, a kernel without it, or not known."""
    if box.seccomp == 2:
        return _seccomp(trial)
    call = _CALLS[trial.call]
    if trial.error == errno.ENOSYS:
        return Cause("kernel", f"this kernel has no {call}", "boot one with CONFIG_BPF_SYSCALL=y")
    if trial.call == "bpf" and trials.memlock_is_tiny() and not trials.memlock_can_grow():
        return _locked_memory()
    modules = ", ".join(box.modules) or "not told"
    return Cause(
        "unknown",
        f"{call} is answered with {trial.text} though the capabilities are there, no seccomp filter is"
        f" seen and lockdown is {box.lockdown or 'not told'} (security modules: {modules})",
        "look for a denial in dmesg and the audit log",
    )


def memlock(made: Mapping[str, Trial], box: Sandbox) -> Cause | None:
    """The cause where maps count as locked memory (before Linux 5.11) and the limit cannot be raised.

    ``made`` has the trials ``map`` and ``memlock``. kernel/bpf/syscall.c, bpf_charge_memlock: EPERM.
    """
    usual, none = made["map"], made["memlock"]
    if none.error != errno.EPERM or none.filtered or not any(map(box.has, _BPF)) or "user" in box.private:
        return None
    if usual.error and (box.seccomp == 2 or box.confined or not trials.memlock_is_tiny()):
        return None  # something else refuses all maps
    return None if trials.memlock_can_grow() else _locked_memory()


def _locked_memory() -> Cause:
    return Cause(
        "memlock",
        "BPF maps count as locked memory on this kernel, and the limit (ulimit -l) cannot be raised"
        " without CAP_SYS_RESOURCE",
        "docker or podman run --ulimit memlock=-1 or --cap-add SYS_RESOURCE; systemd: LimitMEMLOCK=infinity",
    )


def of_load(error: OSError, log: str) -> Cause | None:
    """Why a program's load was refused to this process; None where the program itself was refused.

    ``log`` is the verifier's: empty when the kernel did not come to look at the program.
    """
    box = sandbox.read()
    if _READ_HELPER in "\n".join(log.splitlines()[-3:]) and "func" in log:
        if any(map(box.has, _PERFMON)):
            return _lockdown(Trial("read"))
        return without(_PERFMON, box)
    if log or error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        return None
    return of_call(error, box)


def of_everything() -> Cause | None:
    """Why this process may load no program at all, by the smallest trials; None where it may."""
    box, made = sandbox.read(), trials.smallest()
    if locked := memlock(made, box):
        return locked
    for name in ("map", "program", "read"):
        trial = made[name]
        if trial.refused or (trial.error and (name == "read" or trial.error == errno.ENOSYS)):
            return explain(trial, box)
    return None


def of_call(error: OSError, box: Sandbox | None = None) -> Cause:
    """Why bpf(2) was refused to this process: the first of the smallest trials that fails tells."""
    box = box or sandbox.read()
    made = trials.smallest()
    if locked := memlock(made, box):
        return locked
    for name in ("map", "program", "packet program", "packet attachment", "sock_create program"):
        trial = made.get(name)
        if trial and trial.error:
            return explain(trial, box)
    return explain(Trial("program", "bpf", error.errno or errno.EPERM), box)


def of_mount(kind: str, error: int) -> Cause:
    """Why a mount of ``kind`` (bpf, cgroup2) was refused with this errno."""
    return explain(Trial(f"mount {kind}", "mount", error, "", trials.filtered("mount")), sandbox.read())
