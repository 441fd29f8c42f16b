# SPDX-License-Identifier: Apache-2.0
"""What one drain of the kernel side hands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from weir.kernel.layout import REQUESTS, Array
from weir.kernel.stats import MapFill, ProgramStats

__all__ = ["Drain", "MapFill", "ProgramStats"]


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
    #: Request rows (dtype layout.REQUESTS, or REQUEST_HEADS) and their numbers, as ``slots`` and ``indexes``.
    requests: Array = field(default_factory=lambda: np.empty(0, REQUESTS))
    request_indexes: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    events: Mapping[str, int] = field(default_factory=dict)
    programs: tuple[ProgramStats, ...] = ()
    maps: tuple[MapFill, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    #: Planes that work and those that do not: name -> "" or the reason why not.
    planes: Mapping[str, str] = field(default_factory=dict)
