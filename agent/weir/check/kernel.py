# SPDX-License-Identifier: Apache-2.0
"""What the kernel has, feature by feature as in docs/kernels.md, and what is lost where it has not."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from weir.check.finding import Finding, Judge
from weir.kernel import installed, refusal
from weir.kernel import machine as processor
from weir.kernel.btf import FUNC, KERNEL_BTF, STRUCT, Btf
from weir.kernel.features import Features
from weir.tls.watch import impossible

_TYPED = ("typed program", "read")
_ITERATOR = ("iterator", "read")
_RAW = ("program", "read")
_OWNER = ("sock_create program", "packet attachment", "read")
_COSTS = {
    "storage": "the kernel's own counters, by an iterator over socket storage: nothing on the data path",
    "tracepoint": "raw tracepoints and a hash by socket",
    "kprobe": "kprobes at each send and receive",
}
_NEEDS = {
    "storage": (*_TYPED, "iterator", "cmpxchg"),
    "tracepoint": _RAW,
    "kprobe": ("kprobe program", "kprobe", "read"),
}
_NO_TYPES = "nothing can be compiled"
_RESETS = {"tcp_send_reset": "sent", "tcp_receive_reset": "received"}


class _Told(Features):
    """Without BTF a feature is told by attaching to it; who may attach nothing cannot say it is missing."""

    def __init__(self, types: Btf | None, judge: Judge) -> None:
        super().__init__(types)
        self._blind = types is None and judge.refusal("program") is not None

    def tracepoint(self, name: str) -> bool:
        return self._blind or super().tracepoint(name)


def kernel(types: Btf | None, judge: Judge) -> Iterator[Finding]:
    """Every feature, by the kernel's BTF or without it, with the trials that each takes."""
    features = _Told(types, judge)
    yield from _tcp(types, features, judge)
    yield from _live(features, judge)
    for name, way in _RESETS.items():
        yield judge.finding(
            f"resets {way}", features.tracepoint(name), _TYPED, f"tracepoint {name}",
            f'weir_tcp_resets_total{{direction="{way}"}} stays 0 at the end that reports',
        )  # fmt: skip
    yield from _udp(types, features, judge)
    yield from _nat(features, judge)
    yield from _older(features, judge)
    yield from _small(types, judge)


def _variants(types: Btf | None, features: Features, judge: Judge) -> dict[str, tuple[bool, bool]]:
    """Variant → (the kernel has it as far as BTF tells, this process may and can use it)."""
    hooks = features.tracepoint("tcp_destroy_sock")
    storage = bool(types and types.find("bpf_sk_storage_get_tracing", FUNC)) and features.iterators and hooks
    there = {
        "storage": storage and not judge.failed("cmpxchg"),
        "tracepoint": hooks and (features.data_hooks or features.iterators),
        "kprobe": features.kprobes,
    }
    return {
        name: (has, has and not judge.refusal(*_NEEDS[name]) and not judge.failed(*_NEEDS[name]))
        for name, has in there.items()
    }


def _tcp(types: Btf | None, features: Features, judge: Judge) -> Iterator[Finding]:
    variants = _variants(types, features, judge)
    used = next((name for name, (_, usable) in variants.items() if usable), "")
    for name, (has, usable) in variants.items():
        if usable:
            how = "used" if name == used else f"--tcp {name}"
            yield Finding(f"TCP by {name}", "found", f"{_COSTS[name]} ({how})")
        else:
            yield judge.finding(
                f"TCP by {name}", has, _NEEDS[name], _COSTS[name], "",
                "CONFIG_KPROBES=y, Linux 5.15 or newer" if name == "kprobe" else "a newer kernel",
                instead=f"by {used}" if used else "",
            )  # fmt: skip
    if not used:
        cause = next((c for n in variants if variants[n][0] and (c := judge.refusal(*_NEEDS[n]))), None)
        yield Finding(
            "TCP", "refused" if cause else "missing", cause.why if cause else "no way to watch TCP",
            "no weir_tcp_ metrics", cause.mend if cause else "Linux 5.10 or newer", True,
            cause.name if cause else "",
        )  # fmt: skip


def _live(features: Features, judge: Judge) -> Iterator[Finding]:
    calls = "sock_send_length and sock_recv_length"
    instead = f"tracepoints {calls} at each call" if features.data_hooks else ""
    yield judge.finding(
        "bytes of live TCP connections", features.iterators, _ITERATOR, "read by an iterator at each drain",
        "" if instead else "weir_tcp_sent_bytes_total, weir_tcp_received_bytes_total move at the close only",
        instead=instead,
    )  # fmt: skip
    yield judge.finding(
        "hooks on the data path", features.data_hooks, _RAW, f"tracepoints {calls}, for --tcp tracepoint",
        "none: the iterator reads live connections", instead="the iterator" if features.iterators else "",
    )  # fmt: skip
    yield judge.finding(
        "kprobes", features.kprobes, _NEEDS["kprobe"], "perf_event_open(2), links of perf events",
        "no --tcp kprobe", "a kernel with CONFIG_KPROBES=y, Linux 5.15 or newer",
    )  # fmt: skip


def _udp(types: Btf | None, features: Features, judge: Judge) -> Iterator[Finding]:
    there = types is None or features.has_struct("bpf_cgroup_link")
    by_file = types is not None and "BPF_FUNC_sock_from_file" in types.enum("bpf_func_id")
    yield judge.finding(
        "UDP by cgroup_skb", there, ("packet program", "packet attachment", "read"),
        "bytes, datagrams and true addresses", "no weir_udp_ metrics (--no-udp leaves the plane out)",
    )  # fmt: skip
    yield judge.finding(
        "requests on TCP connections", there, ("packet program", "packet attachment", "read"),
        "turns, and HTTP by its messages", "no weir_request metrics (--no-requests leaves the plane out)",
    )  # fmt: skip
    yield judge.finding(
        "who opened a UDP socket", there, _OWNER, "cgroup/sock_create",
        "the owner of weir_udp_ metrics is known once the socket sends",
    )  # fmt: skip
    yield judge.finding(
        "UDP sockets older than Weir", by_file, _ITERATOR,
        "an iterator over files",
        "weir_udp_ metrics count them from the next datagram on; a server that is the first to send then"
        " is taken for the source",
    )  # fmt: skip


def _nat(features: Features, judge: Judge) -> Iterator[Finding]:
    why = features.conntrack
    way = "kprobe" if features.kprobes else "netfilter" if features.netfilter_links else ""
    does = {"kprobe": "a kprobe, once a connection", "netfilter": "a netfilter hook where NAT is done"}
    yield judge.finding(
        "translated connections (NAT)", bool(way) and not why,
        _NEEDS["kprobe"] if way == "kprobe" else _RAW, does.get(way, "kprobes or netfilter links"),
        why or "flows to a service have its name, not the backend's; masqueraded clients have their node's",
        "a kernel with CONFIG_KPROBES=y, Linux 5.15 or newer; or Linux 6.4",
    )  # fmt: skip


def _older(features: Features, judge: Judge) -> Iterator[Finding]:
    for target, feature, effect in (
        ("task_file", "connections and listeners older than Weir",
         "weir_tcp_connections leaves them out, and their role is a guess"),
        ("tcp", "connections that no process holds", "those older than Weir are not counted"),
        ("bpf_sk_storage_map", "live UDP sockets for weir top", "weir top shows none"),
        ("bpf_map_elem", "live TCP connections for --tcp tracepoint", "weir top shows none in that variant"),
    ):  # fmt: skip
        yield judge.finding(feature, features.iterator(target), _ITERATOR, f"iterator over {target}", effect)
    trial = judge.trials.get("setns")
    if trial and trial.error:
        cause = refusal.explain(trial, judge.box)
        yield Finding(
            "sockets of other network namespaces", "refused", cause.why,
            "those older than Weir that no process holds are not found", cause.mend, False, cause.name,
        )  # fmt: skip


def _small(types: Btf | None, judge: Judge) -> Iterator[Finding]:
    yield judge.finding(
        "atomic hand-over of counters", True, ("cmpxchg",), "cmpxchg", "", instead="a hash entry as a lock"
    )
    info = types.find("bpf_prog_info", STRUCT) if types else 0
    for feature, member, metric in (
        ("verifier's count of instructions", "verified_insns", "weir_agent_bpf_verified_instructions"),
        ("count of runs left out", "recursion_misses", "weir_agent_bpf_recursion_misses_total"),
    ):
        if types is None:
            yield Finding(feature, "unknown", "not told without BTF")
        else:
            there = bool(info and types.member(info, member))
            yield judge.finding(feature, there, (), "bpf_prog_info", f"{metric} stays 0")
    why = impossible()
    yield Finding(
        "requests within TLS", "missing" if why else "found", why or "uprobes, for --tls",
        "--tls counts them as tcp" if why else "", "--pid=host, hostPID: true" if "process" in why else "",
    )  # fmt: skip
    yield judge.finding(
        "run-time statistics", True, ("statistics",), "--bpf-stats turns them on",
        "weir_agent_bpf_run_seconds_total and weir_agent_bpf_runs_total stay 0",
    )  # fmt: skip


def btf() -> tuple[Btf | None, Finding]:
    """The kernel's types, None where it has none that can be read, and the finding about them."""
    release = platform.release()
    try:
        return Btf.running(), Finding(
            "BTF", "found", f"{KERNEL_BTF}, Linux {release}: no kernel headers needed"
        )
    except PermissionError as error:
        why = f"{KERNEL_BTF}: {error.strerror}"
        return None, Finding("BTF", "refused", why, _NO_TYPES, "run as root", True, "not-root")
    except FileNotFoundError:
        return None, _headers(release)
    except (OSError, ValueError) as error:
        why, remedy = f"{KERNEL_BTF}: {error}", "boot a kernel with CONFIG_DEBUG_INFO_BTF=y"
        return None, Finding("BTF", "missing", why, _NO_TYPES, remedy, True)


def _headers(release: str) -> Finding:
    folder = installed.folder(release)
    if folder:
        effect = "sockets older than Weir are not found; live TCP bytes move at each call, not at each drain"
        return Finding("BTF", "replaced", f"{KERNEL_BTF} is not there: the headers in {folder}", effect)
    remedy = f"{installed.remedy(release)}; or boot a kernel with CONFIG_DEBUG_INFO_BTF=y"
    return Finding("BTF", "missing", f"{KERNEL_BTF}, and no kernel headers", _NO_TYPES, remedy, True)


def machine(judge: Judge) -> Iterator[Finding]:
    """JIT, memory for maps, CPUs."""
    yield _jit(judge)
    cause = refusal.memlock(judge.trials, judge.box)
    if cause:
        yield Finding("memory for maps", "refused", cause.why, "the maps cannot be made", cause.mend, True,
                      cause.name)  # fmt: skip
    elif refused := judge.refusal("map"):
        yield Finding("memory for maps", "unknown", refused.why, cause=refused.name)
    else:
        charged = bool(judge.trials["memlock"].error)
        yield Finding("memory for maps", "found", "locked memory, and its limit can be raised" if charged
                      else "not limited by ulimit -l")  # fmt: skip
    tested, why = platform.machine() in processor.TESTED, processor.refusal()
    cpus = _text(Path("/sys/devices/system/cpu/possible")), _text(Path("/sys/devices/system/cpu/online"))
    yield Finding(
        "processor", "missing" if why else "found" if tested else "unknown",
        f"{platform.machine()}, CPUs possible {cpus[0]}, online {cpus[1]}",
        "" if tested else "not tested", why, bool(why),
    )  # fmt: skip


def _jit(judge: Judge) -> Finding:
    value = judge.box.sysctls.get("net.core.bpf_jit_enable", "")
    if not value:
        return Finding("BPF JIT", "unknown", "net.core.bpf_jit_enable is only seen in the host's network"
                       " namespace, and by root")  # fmt: skip
    if value == "0":
        return Finding("BPF JIT", "missing", "net.core.bpf_jit_enable=0", "programs are interpreted, many"
                       " times slower", "sysctl -w net.core.bpf_jit_enable=1")  # fmt: skip
    return Finding("BPF JIT", "found", f"net.core.bpf_jit_enable={value}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return "not told"
