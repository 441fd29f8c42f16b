# SPDX-License-Identifier: Apache-2.0
"""What one drain of the kernel side hands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from weir.kernel.layout import Array


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


@dataclass(frozen=True)
class Drain:
    """One reading of the kernel side.

    ``slots`` has dtype ``layout.SLOT`` and one row for every slot in use, ``indexes`` the
    slot numbers of these rows; row order is that of the slot numbers. Slot 0 (overflow) is
    in it only once something was counted there.
    """

    slots: Array
    indexes: NDArray[np.uint32]
    monotonic_ns: int
    wall: float
    events: Mapping[str, int] = field(default_factory=dict)
    programs: tuple[ProgramStats, ...] = ()
    maps: tuple[MapFill, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    #: Planes that work and those that do not: name -> "" or the reason why not.
    planes: Mapping[str, str] = field(default_factory=dict)
