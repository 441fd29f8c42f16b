# SPDX-License-Identifier: Apache-2.0
"""Waiting for the next sample: an agent takes its snapshots at its own pace."""

from __future__ import annotations

from collections.abc import Callable

#: So long do we wait for the next one (seconds), and so long between two looks.
PATIENCE = 15.0
_PAUSE = 0.2


def later(
    fresh: Callable[[], bool], interval: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    """Sleep for ``interval`` seconds, then look until ``fresh`` says that there was something new."""
    end = clock() + interval + PATIENCE
    sleep(interval)
    while not fresh() and clock() < end:
        sleep(_PAUSE)
