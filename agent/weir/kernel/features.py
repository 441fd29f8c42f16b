# SPDX-License-Identifier: Apache-2.0
"""What this kernel has, by presence (BTF, files), never by version number."""

from __future__ import annotations

from pathlib import Path

from weir.errors import KernelError
from weir.kernel.btf import FUNC, STRUCT, TYPEDEF, Btf

_KPROBES = Path("/sys/bus/event_source/devices/kprobe")


class Features:
    """Answers from one kernel's BTF."""

    def __init__(self, types: Btf, kprobes: Path = _KPROBES) -> None:
        self._types = types
        self._kprobes = kprobes

    def tracepoint(self, name: str) -> bool:
        """Whether the tracepoint exists (as raw and as BTF-typed one)."""
        return bool(self._types.find(f"btf_trace_{name}", TYPEDEF))

    def iterator(self, target: str) -> bool:
        """Whether BPF iterators over ``target`` exist."""
        return bool(self._types.find(f"bpf_iter_{target}", FUNC))

    @property
    def iterators(self) -> bool:
        """All iterators that views and discovery use."""
        return all(self.iterator(t) for t in ("task_file", "bpf_sk_storage_map", "bpf_map_elem", "tcp"))

    @property
    def socket_storage(self) -> bool:
        """Socket storage from tracing programs, with atomics that return (Linux 5.12).

        ``bpf_sk_storage_get_tracing`` came with 5.11; BPF_CMPXCHG has no BTF trace of its own, the
        next thing of its release that has is ``bpf_iter_task_vma`` (5.12).
        """
        return self.iterators and self.iterator("task_vma")

    @property
    def data_hooks(self) -> bool:
        """``sock_send_length`` and ``sock_recv_length`` (Linux 6.3)."""
        return self.tracepoint("sock_send_length") and self.tracepoint("sock_recv_length")

    @property
    def kprobes(self) -> bool:
        """Whether kprobes can be attached through perf events."""
        return self._kprobes.exists()

    def tcp_variants(self) -> list[str]:
        """Variants of the TCP plane that this kernel can run, best first."""
        found = []
        if self.socket_storage and self.tracepoint("tcp_destroy_sock"):
            found.append("storage")
        if self.data_hooks:
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
        return bool(self._types.find(name, STRUCT))
