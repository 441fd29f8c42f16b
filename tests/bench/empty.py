# SPDX-License-Identifier: Apache-2.0
"""Programs that return at once, attached beside Weir's: what the statistics themselves cost."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weir.kernel import bpf
from weir.kernel.btf import TYPEDEF, Btf

#: r0 = 1; exit
_CODE = struct.pack("<BBhi", 0xB7, 0, 0, 1) + struct.pack("<BBhi", 0x95, 0, 0, 0)


class Empty:
    """One attached program that does nothing."""

    def __init__(self, prog: int, link: int) -> None:
        self._prog, self._link = prog, link
        self._ns, self._runs = 0, 0
        self.mark()

    def mark(self) -> None:
        """Count from here on."""
        info = bpf.program_info(self._prog)
        self._ns, self._runs = info.run_ns, info.runs

    def ns(self) -> float:
        """Mean ns that the statistics tell of one run since the mark; 0 without any."""
        info = bpf.program_info(self._prog)
        return (info.run_ns - self._ns) / max(1, info.runs - self._runs)

    def run(self) -> None:
        """Run it from user space, as slot_fold is (raw tracepoint programs only)."""
        bpf.run_raw(self._prog, 0, 0)

    def repeat(self, times: int) -> None:
        """Run it in a loop in the kernel, as an iterator runs (cgroup programs only)."""
        packet = ctypes.create_string_buffer(64)
        attr = struct.pack("<IIIIQQI", self._prog, 0, 64, 0, ctypes.addressof(packet), 0, times)
        bpf.call(bpf.PROG_TEST_RUN, attr)

    def close(self) -> None:
        """Detach."""
        for fd in (self._link, self._prog):
            if fd >= 0:
                os.close(fd)


@contextmanager
def empty(hook: str, target: str = "", folder: Path | None = None) -> Iterator[Empty]:
    """An empty program on ``tp_btf`` or ``raw_tp`` TARGET, ``cgroup`` (egress) of a folder; or on none.

    ``run`` and ``repeat`` are for the methods of these names.
    """
    link = -1
    if hook in ("cgroup", "repeat"):
        prog = bpf.prog_load(bpf.CGROUP_SKB, bpf.CGROUP_EGRESS, _CODE, "weirb_empty")
        if folder:
            cgroup = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            link = bpf.link_cgroup(prog, cgroup, bpf.CGROUP_EGRESS)
            os.close(cgroup)
    elif hook == "tp_btf":
        identity = Btf.from_file().find("btf_trace_" + target, TYPEDEF)
        prog = bpf.prog_load(bpf.TRACING, bpf.TRACE_RAW_TP, _CODE, "weirb_empty", identity or 0)
        link = bpf.raw_tracepoint_open(prog)
    else:
        prog = bpf.prog_load(bpf.RAW_TRACEPOINT, 0, _CODE, "weirb_empty")
        link = bpf.raw_tracepoint_open(prog, target) if hook == "raw_tp" else link
    made = Empty(prog, link)
    try:
        yield made
    finally:
        made.close()
