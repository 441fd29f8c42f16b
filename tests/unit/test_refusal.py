# SPDX-License-Identifier: Apache-2.0
"""The cause of a refusal, from errno and rights. The refusals themselves: tests/kernel/test_check.py."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from weir.check.finding import Finding, Judge
from weir.check.report import page, verdict
from weir.kernel.refusal import NEEDS, everything, explain
from weir.kernel.sandbox import CAPABILITIES, Sandbox
from weir.kernel.trials import Trial

ROOT = Sandbox(lockdown="none", modules=("lockdown", "capability"))
EPERM, EACCES, EINVAL, ENOSYS = errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS
UNKNOWN = "program of this type cannot use helper bpf_probe_read_kernel#113"


def without(*names: str, box: Sandbox = ROOT, bounding: bool = True) -> Sandbox:
    mask = ~sum(1 << CAPABILITIES[n] for n in names)
    return replace(
        box, effective=box.effective & mask, bounding=box.bounding & mask if bounding else box.bounding
    )


PLAIN = without("CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_NET_ADMIN")


@pytest.mark.parametrize(
    ("trial", "box", "name", "said"),
    [
        (Trial("map", error=EPERM), PLAIN, "capability", "CAP_BPF or CAP_SYS_ADMIN is missing (not in"),
        (Trial("map", error=EPERM), replace(PLAIN, uid=1000), "not-root", "not root (uid 1000)"),
        (
            Trial("map", error=EPERM),
            replace(PLAIN, sysctls={"kernel.unprivileged_bpf_disabled": "2"}),
            "capability",
            "kernel.unprivileged_bpf_disabled=2 leaves no way",
        ),
        (
            Trial("map", error=EPERM),
            without("CAP_BPF", "CAP_SYS_ADMIN", bounding=False),
            "capability",
            "in the bounding set, but not effective",
        ),
        (Trial("read", error=EPERM), without("CAP_PERFMON", "CAP_SYS_ADMIN"), "capability", "CAP_PERFMON"),
        (
            Trial("kprobe", "perf_event_open", EACCES),
            replace(without("CAP_PERFMON", "CAP_SYS_ADMIN"), sysctls={"kernel.perf_event_paranoid": "3"}),
            "capability",
            "kernel.perf_event_paranoid=3",
        ),
        (
            Trial("packet attachment", error=EPERM),
            without("CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
            "capability",
            "CAP_NET_ADMIN",
        ),
        (Trial("mount bpf", "mount", EPERM), without("CAP_SYS_ADMIN"), "capability", "CAP_SYS_ADMIN"),
        (Trial("map", error=EPERM), replace(ROOT, private=frozenset({"user"})), "user-namespace", "rootless"),
        (Trial("map", error=EPERM, filtered=EPERM), replace(ROOT, seccomp=2), "seccomp", "bpf(2) with EPERM"),
        (Trial("map", error=ENOSYS, filtered=ENOSYS), replace(ROOT, seccomp=2), "seccomp", "with ENOSYS"),
        (Trial("program", error=EPERM), replace(ROOT, seccomp=2), "seccomp", "bpf(2) with EPERM"),
        (Trial("map", error=ENOSYS), ROOT, "kernel", "this kernel has no bpf(2)"),
        (
            Trial("read", error=EINVAL, log=UNKNOWN),
            replace(ROOT, lockdown="confidentiality"),
            "lockdown",
            "confidentiality mode forbids BPF programs to read kernel memory",
        ),
        (Trial("read", error=EINVAL, log=UNKNOWN), replace(ROOT, lockdown=""), "lockdown", "kernel memory"),
        (
            Trial("kprobe", "perf_event_open", EPERM),
            replace(ROOT, lockdown="confidentiality"),
            "lockdown",
            "forbids kprobes",
        ),
        (Trial("program", error=EACCES), replace(ROOT, selinux="enforcing", selinux_type="container_t"),
         "selinux", "SELinux (enforcing) denies bpf(2) for container_t"),
        (Trial("program", error=EPERM), replace(ROOT, selinux="enforcing", seccomp=2), "selinux", "denies"),
        (Trial("program", error=EACCES), replace(ROOT, selinux="permissive"), "unknown", "EACCES"),
        (Trial("mount bpf", "mount", EACCES), replace(ROOT, apparmor="docker-default (enforce)"), "apparmor",
         "the AppArmor profile docker-default denies mount(2)"),
        (Trial("mount bpf", "mount", EACCES), replace(ROOT, apparmor="unconfined"), "unknown", "mount(2)"),
        (Trial("map", error=EPERM), ROOT, "unknown", "security modules: lockdown, capability"),
    ],
)  # fmt: skip
def test_cause(trial: Trial, box: Sandbox, name: str, said: str) -> None:
    cause = explain(trial, box)
    assert cause.name == name
    assert said in cause.why
    assert cause.mend
    assert "\n" not in str(cause)


def test_integrity_is_no_refusal() -> None:
    box = replace(ROOT, lockdown="integrity")
    assert everything(box) is None
    assert explain(Trial("program", error=EPERM), box).name == "unknown"


def test_everything() -> None:
    assert everything(ROOT) is None
    assert everything(without("CAP_BPF")) is None  # CAP_SYS_ADMIN stands for it
    for box, name in ((PLAIN, "capability"), (replace(PLAIN, uid=7), "not-root")):
        found = everything(box)
        assert found is not None
        assert found.name == name


def test_needs_are_known_capabilities() -> None:
    assert {name for needs in NEEDS.values() for one in needs for name in one} <= CAPABILITIES.keys()


def judge(*made: Trial, box: Sandbox = ROOT) -> Judge:
    return Judge({t.name: t for t in made}, box)


def test_states() -> None:
    """A refusal is no missing feature, and the other way round."""
    refused = judge(Trial("cmpxchg", error=EPERM), box=PLAIN)
    old = judge(Trial("cmpxchg", error=EINVAL, log="BPF_STX uses reserved fields"))
    fine = judge(Trial("cmpxchg"))
    states = [
        j.finding("x", True, ("cmpxchg",), "d", "", instead="a lock").state for j in (refused, old, fine)
    ]
    assert states == ["refused", "replaced", "found"]
    states = [j.finding("x", True, ("cmpxchg",), "d", "").state for j in (refused, old, fine)]
    assert states == ["refused", "missing", "found"]
    assert refused.finding("x", False, ("cmpxchg",), "d", "").state == "missing"


def test_lockdown_is_a_refusal_though_the_kernel_says_invalid() -> None:
    box = replace(ROOT, lockdown="confidentiality")
    row = judge(Trial("read", error=EINVAL, log=UNKNOWN), box=box).finding("x", True, ("read",), "d", "")
    assert (row.state, row.cause) == ("refused", "lockdown")


def test_page() -> None:
    rows = [
        Finding("a", "refused", "why", "an effect", "a cure", True, "seccomp"),
        Finding("bb", "refused", "why", "another effect", "a cure", False, "seccomp"),
        Finding("c", "found", "there"),
    ]
    assert page(rows).splitlines() == [
        "a   refused   why",
        "                effect: an effect",
        "                to mend: a cure",
        "bb  refused   as a",
        "                effect: another effect",
        "c   found     there",
        "",
        "Weir cannot run here: a",
    ]
    assert verdict(rows[1:]) == "Weir can run here."
