# SPDX-License-Identifier: Apache-2.0
"""What the kernel says about programs and maps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProgramStats:
    """Run-time statistics of one BPF program (``bpf_prog_info``; ns and runs need bpf_stats)."""

    name: str
    run_ns: int
    runs: int
    recursion_misses: int
    instructions: int


@dataclass(frozen=True)
class MapFill:
    """Entries used and room of one BPF map."""

    name: str
    used: int
    size: int
