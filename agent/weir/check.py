# SPDX-License-Identifier: Apache-2.0
"""``weir check``: what this kernel offers, what Weir will use, and what to mend."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from weir.kernel import mounts
from weir.kernel.btf import KERNEL_BTF, Btf, BtfError
from weir.kernel.features import Features

#: Capabilities that the loader needs, by bit (include/uapi/linux/capability.h).
_CAPABILITIES = {12: "CAP_NET_ADMIN", 21: "CAP_SYS_ADMIN", 38: "CAP_PERFMON", 39: "CAP_BPF"}


@dataclass(frozen=True)
class Finding:
    """One line: ``state`` is found, replaced or missing; ``fatal`` when Weir cannot run so."""

    feature: str
    state: str
    detail: str
    effect: str = ""
    remedy: str = ""
    fatal: bool = False


def findings(proc: Path = Path("/proc")) -> list[Finding]:
    """All findings for this host, in the order of the page."""
    return [*_rights(proc), *_file_systems(), *_kernel(), *_tools()]


def _rights(proc: Path) -> Iterator[Finding]:
    root = os.geteuid() == 0
    yield Finding("root", "found" if root else "missing", f"uid {os.geteuid()}", fatal=not root,
                  remedy="" if root else "sudo weir check")  # fmt: skip
    status = (proc / "self/status").read_text(encoding="ascii")
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
    missing = [name for bit, name in _CAPABILITIES.items() if not effective >> bit & 1]
    yield Finding(
        "capabilities", "missing" if missing else "found", ", ".join(missing) or "all that Weir needs",
        fatal=bool(missing), remedy="docker run --privileged, or add these capabilities" if missing else "",
    )  # fmt: skip
    lockdown = Path("/sys/kernel/security/lockdown")
    if lockdown.exists() and "[confidentiality]" in lockdown.read_text(encoding="ascii"):
        yield Finding(
            "lockdown", "missing", "confidentiality mode forbids reading kernel memory",
            "no program loads", "boot with lockdown=integrity or none", fatal=True,
        )  # fmt: skip


def _file_systems() -> Iterator[Finding]:
    for kind, use in (("bpf", "pins that outlive the agent"), ("cgroup2", "UDP flows, containers")):
        point = mounts.find(kind)
        if point:
            yield Finding(f"{kind} mount", "found", str(point))
        else:
            yield Finding(f"{kind} mount", "replaced", f"Weir mounts its own under {mounts.RUN}/mnt", use)


def _kernel() -> Iterator[Finding]:
    release = platform.release()
    try:
        types = Btf.from_file()
    except (OSError, BtfError) as error:
        yield Finding(
            "BTF", "missing", f"{KERNEL_BTF}: {error}", "no program compiles without kernel headers",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y", fatal=True,
        )  # fmt: skip
        return
    yield Finding("BTF", "found", f"{KERNEL_BTF}, Linux {release}: no kernel headers needed")
    features = Features(types)
    yield from _tcp(features)
    for name, use in (("tcp_receive_reset", "resets received"), ("tcp_send_reset", "resets sent")):
        there = features.tracepoint(name)
        yield Finding(name, "found" if there else "missing", "tracepoint",
                      "" if there else f"weir_tcp_resets_total stays 0 for {use}")  # fmt: skip
    yield Finding("cgroup_skb", "found" if features.has_struct("bpf_cgroup_link") else "missing",
                  "UDP flows with true addresses")  # fmt: skip


def _tcp(features: Features) -> Iterator[Finding]:
    variants = features.tcp_variants()
    used = variants[0] if variants else ""
    costs = {
        "storage": "the kernel's own counters by an iterator: nothing on the data path",
        "tracepoint": "raw tracepoints"
        + (" at each send and receive" if features.data_hooks else ", live sockets by an iterator"),
        "kprobe": "kprobes at each send and receive",
    }
    for name, text in costs.items():
        if name == used:
            yield Finding(f"TCP by {name}", "found", f"{text} (used)")
        elif name in variants:
            yield Finding(f"TCP by {name}", "found", f"{text} (--tcp {name})")
        else:
            yield Finding(f"TCP by {name}", "replaced" if used else "missing", text,
                          f"{used} is used instead" if used else "")  # fmt: skip
    if not used:
        yield Finding("TCP", "missing", "no way to watch TCP", "no TCP metrics", "a newer kernel", fatal=True)


def _tools() -> Iterator[Finding]:
    there = find_spec("bcc") is not None
    yield Finding("bcc", "found" if there else "missing", "python3-bpfcc", fatal=not there,
                  remedy="" if there else "apt-get install python3-bpfcc")  # fmt: skip


def page(rows: list[Finding]) -> str:
    """The findings as aligned text, with a verdict last."""
    width = max(len(r.feature) for r in rows)
    lines = [f"{r.feature:<{width}}  {r.state:<8}  {_sentence(r)}" for r in rows]
    bad = [r.feature for r in rows if r.fatal]
    verdict = f"Weir cannot run here: {', '.join(bad)}" if bad else "Weir can run here."
    return "\n".join([*lines, "", verdict])


def _sentence(row: Finding) -> str:
    return "; ".join(
        part for part in (row.detail, row.effect, row.remedy and f"to mend: {row.remedy}") if part
    )


def as_json(rows: list[Finding]) -> Mapping[str, object]:
    """The findings for scripts and bug reports."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "ok": not any(r.fatal for r in rows),
        "findings": [asdict(r) for r in rows],
    }
