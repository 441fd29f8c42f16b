# SPDX-License-Identifier: Apache-2.0
"""Attaching a loaded program to its hook; every attachment is a link, which can be pinned."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from weir.errors import KernelError
from weir.kernel import bpf, machine
from weir.kernel.plan import Program

_CGROUP = {"ingress": bpf.CGROUP_INGRESS, "egress": bpf.CGROUP_EGRESS, "sock_create": bpf.CGROUP_SOCK_CREATE}
#: include/uapi/linux/netfilter.h: NFPROTO_IPV4 and _IPV6, NF_INET_LOCAL_IN and _POST_ROUTING; the priority is
#: behind all translation (NF_IP_PRI_NAT_SRC, 100) and before NF_IP_PRI_CONNTRACK_CONFIRM.
_FAMILIES, _HOOKS, _AFTER_NAT = (2, 10), (1, 4), 1000
_PERF_EVENT_LINK = 41  # enum bpf_attach_type BPF_PERF_EVENT, Linux 5.15
_KPROBE_TYPE = Path("/sys/bus/event_source/devices/kprobe/type")


def program_type(program: Program) -> tuple[int, int]:
    """``(program type, expected attach type)`` for the load."""
    if program.hook == "reader":
        return bpf.CGROUP_SKB, bpf.CGROUP_INGRESS  # as the program that calls it
    if program.hook in ("uprobe", "uprobe reader"):
        return bpf.KPROBE, 0
    if program.hook == "cgroup":
        attach = _CGROUP[program.targets[0]]
        kind = bpf.CGROUP_SOCK if attach == bpf.CGROUP_SOCK_CREATE else bpf.CGROUP_SKB
        return kind, attach
    return {
        "tp_btf": (bpf.TRACING, bpf.TRACE_RAW_TP),
        "iter": (bpf.TRACING, bpf.TRACE_ITER),
        "raw_tp": (bpf.RAW_TRACEPOINT, 0),
        "run": (bpf.RAW_TRACEPOINT, 0),
        "kprobe": (bpf.KPROBE, 0),
        "netfilter": (bpf.NETFILTER, bpf.NETFILTER_LINK),
        "kretprobe": (bpf.KPROBE, 0),
    }[program.hook]


def attach(program: Program, fd: int, map_fd: int, targets: tuple[str, ...]) -> list[int]:
    """Attach to every target; link fds. OSError or KernelError when a target is refused.

    ``targets`` are folders for cgroup programs, functions for kprobes (those that this kernel
    lacks are left out; all lacking is an error), else the one name.
    """
    if program.hook == "tp_btf":
        return [bpf.raw_tracepoint_open(fd)]
    if program.hook == "raw_tp":
        return [bpf.raw_tracepoint_open(fd, targets[0])]
    if program.hook in ("run", "reader", "uprobe", "uprobe reader"):  # uprobes: as processes come
        return []
    if program.hook == "iter":
        return [bpf.link_iterator(fd, map_fd if program.over else 0)]
    if program.hook == "cgroup":
        return [_cgroup(fd, folder, _CGROUP[kind]) for kind in program.targets for folder in targets]
    if program.hook == "netfilter":
        return [bpf.link_netfilter(fd, family, hook, _AFTER_NAT) for family in _FAMILIES for hook in _HOOKS]
    return _kprobes(fd, targets, program.hook == "kretprobe")


def _cgroup(fd: int, folder: str, kind: int) -> int:
    cgroup = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return bpf.link_cgroup(fd, cgroup, kind)
    finally:
        os.close(cgroup)


def _kprobes(fd: int, functions: tuple[str, ...], on_return: bool) -> list[int]:
    if not _KPROBE_TYPE.exists():
        raise KernelError("this kernel has no kprobes (CONFIG_KPROBES)")
    links = []
    for function in functions:
        try:
            links.append(kprobe_link(fd, function, on_return))
        except FileNotFoundError:
            continue
    if not links:
        raise KernelError(f"this kernel has none of {', '.join(functions)}")
    return links


def kprobe_link(fd: int, function: str, on_return: bool) -> int:
    """Link a program to a kprobe (``bpf_perf_link_attach``, Linux 5.15); ENOENT: no such function."""
    event = _perf_kprobe(function, on_return)
    try:
        return bpf.call(bpf.LINK_CREATE, struct.pack("<IIII", fd, event, _PERF_EVENT_LINK, 0))
    finally:
        os.close(event)


def _perf_kprobe(function: str, on_return: bool) -> int:
    """perf_event_open(2) of a kprobe by function name."""
    name = ctypes.create_string_buffer(function.encode())
    kind = int(_KPROBE_TYPE.read_text(encoding="ascii"))
    # struct perf_event_attr: type, size, config (bit 0: return), ..., config1 = name, config2 = offset
    attr = bytearray(112)
    struct.pack_into("<IIQ", attr, 0, kind, len(attr), int(on_return))
    struct.pack_into("<QQ", attr, 56, ctypes.addressof(name), 0)
    buffer = (ctypes.c_char * len(attr)).from_buffer(attr)
    try:
        return machine.syscall("perf_event_open", buffer, -1, 0, -1, 8)  # PERF_FLAG_FD_CLOEXEC
    except OSError as error:
        raise OSError(error.errno, f"kprobe {function}: {error.strerror}") from None
