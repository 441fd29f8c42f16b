# SPDX-License-Identifier: Apache-2.0
"""What this kernel has, by presence (BTF, files), never by version number."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from weir.errors import KernelError
from weir.kernel import bpf
from weir.kernel.btf import FUNC, STRUCT, TYPEDEF, Btf

#: r0 = 0; *(u64 *)(r10 - 8) = r0; r0 = cmpxchg(*(u64 *)(r10 - 8), r0, r0); exit
_CMPXCHG = b"".join(
    struct.pack("<BBhi", *row)
    for row in ((0xB7, 0, 0, 0), (0x7B, 0x0A, -8, 0), (0xDB, 0x0A, -8, 0xF1), (0x95, 0, 0, 0))
)
#: r0 = 0; exit
_NOTHING = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
_KPROBES = Path("/sys/bus/event_source/devices/kprobe")


#: As bpf/nat.h reads it: (struct, member) and where it lies.
_TUPLE_OFFSETS = {
    "nf_conntrack_man.u3": 0, "nf_conntrack_man.u": 16, "nf_conntrack_man.l3num": 18,
    "nf_conntrack_tuple.src": 0, "nf_conntrack_tuple.dst": 20,
}  # fmt: skip
_TUPLE = [(name, member) for name, _, member in (key.partition(".") for key in _TUPLE_OFFSETS)]


class Features:
    """Answers from one kernel's BTF; of the running kernel, by trials, where it has none (None)."""

    def __init__(
        self, types: Btf | None, kprobes: Path = _KPROBES, conntrack: Path = Path("/sys/module/nf_conntrack")
    ) -> None:
        self._types = types
        self._kprobes = kprobes
        self._conntrack = conntrack

    def tracepoint(self, name: str) -> bool:
        """Whether the tracepoint exists (as raw and as BTF-typed one)."""
        if self._types is None:
            return _attaches(name)
        return bool(self._types.find(f"btf_trace_{name}", TYPEDEF))

    def iterator(self, target: str) -> bool:
        """Whether BPF iterators over ``target`` exist; the kernel attaches them by BTF only."""
        return bool(self._types and self._types.find(f"bpf_iter_{target}", FUNC))

    @property
    def iterators(self) -> bool:
        """All iterators that views and discovery use."""
        return all(self.iterator(t) for t in ("task_file", "bpf_sk_storage_map", "bpf_map_elem", "tcp"))

    @property
    def cmpxchg(self) -> bool:
        """Atomics that return a value (BPF_CMPXCHG, Linux 5.12), by a trial load."""
        try:
            os.close(bpf.prog_load(bpf.RAW_TRACEPOINT, 0, _CMPXCHG, "weir_trial"))
        except OSError:
            return False
        return True

    @property
    def conntrack(self) -> str:
        """Why connection tracking cannot be read; "" where it can."""
        types = self._types
        if types is None:
            return "this kernel has no BTF, which tells how connection tracking is laid out"
        if not (types.find("nf_conn", STRUCT) and types.find("sk_buff", STRUCT)):
            if self._conntrack.exists():
                return "the module nf_conntrack has no BTF, which tells how connection tracking is laid out"
            return "connection tracking (nf_conntrack) is not loaded: restart Weir once it is"
        found = {
            f"{name}.{member}": found.offset
            for name, member in _TUPLE
            if (found := types.member(types.find(name, STRUCT), member))
        }
        if found != _TUPLE_OFFSETS:
            return f"connection tracking is laid out in a way that Weir does not know: {found}"
        return ""

    @property
    def netfilter_links(self) -> bool:
        """BPF programs as netfilter hooks, by links (Linux 6.4)."""
        return self.has_struct("bpf_nf_link") and self.has_struct("bpf_nf_ctx")

    @property
    def socket_storage(self) -> bool:
        """Socket storage from tracing programs (``bpf_sk_storage_get_tracing``, Linux 5.11)."""
        if self._types is None or not self.iterators:
            return False
        return bool(self._types.find("bpf_sk_storage_get_tracing", FUNC)) and self.cmpxchg

    @property
    def data_hooks(self) -> bool:
        """``sock_send_length`` and ``sock_recv_length`` (Linux 6.3)."""
        return self.tracepoint("sock_send_length") and self.tracepoint("sock_recv_length")

    @property
    def kprobes(self) -> bool:
        """Whether kprobes can be attached through links, which can be pinned (Linux 5.15)."""
        return self._kprobes.exists() and (
            _perf_links() if self._types is None else self.has_struct("bpf_perf_link")
        )

    def tcp_variants(self) -> list[str]:
        """Variants of the TCP plane that this kernel can run, best first."""
        found = []
        if self.socket_storage and self.tracepoint("tcp_destroy_sock"):
            found.append("storage")
        if self.tracepoint("tcp_destroy_sock") and (self.data_hooks or self.iterators):
            found.append("tracepoint")
        if self.kprobes:
            found.append("kprobe")
        return found

    def tcp_variant(self, wanted: str) -> str:
        """The variant to use; KernelError when ``wanted`` ("auto" or a name) cannot be."""
        possible = self.tcp_variants()
        if wanted == "auto" and possible:
            return possible[0]
        if wanted in possible:
            return wanted
        have = ", ".join(possible) or "none"
        raise KernelError(
            f"TCP cannot be watched by {wanted!r} on this kernel (possible: {have});"
            " see `weir check` for what is missing"
        )

    def has_struct(self, name: str) -> bool:
        """Whether BTF knows the struct."""
        return bool(self._types and self._types.find(name, STRUCT))


def _attaches(tracepoint: str) -> bool:
    """Whether a program that does nothing can be attached to the raw tracepoint, for a moment."""
    with contextlib.suppress(OSError), _trial(bpf.RAW_TRACEPOINT) as program:
        os.close(bpf.raw_tracepoint_open(program, tracepoint))
        return True
    return False


def _perf_links() -> bool:
    """Whether a program that does nothing can be linked to a kprobe, for a moment."""
    from weir.kernel.attach import kprobe_link

    with contextlib.suppress(OSError), _trial(bpf.KPROBE) as program:
        os.close(kprobe_link(program, "tcp_set_state", on_return=False))
        return True
    return False


@contextlib.contextmanager
def _trial(kind: int) -> Iterator[int]:
    program = bpf.prog_load(kind, 0, _NOTHING, "weir_trial")
    try:
        yield program
    finally:
        os.close(program)
