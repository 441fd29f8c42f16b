# SPDX-License-Identifier: Apache-2.0
"""Which pod had an address at a time: addresses are used again, and the API tells of it late.

An address is a pod's from when its sandbox was ready until its node took the sandbox down. The API tells the
first to the second, and of the second only that it was after the pod's deletion was asked for and before the
pod was gone. So between these nobody knows, which is what is said then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from weir.identity.kube.pods import Pod

#: The API's times have whole seconds, and nodes' clocks differ a little.
_ROUNDING, _SKEW = 1.0, 0.5
#: So long after a pod is gone, nobody else having come, the address was its own to the end.
_SETTLED = 10.0
NEVER = float("-inf")
ALWAYS = float("inf")


@dataclass(slots=True)
class Stay:
    """When a pod had its addresses, in seconds of CLOCK_MONOTONIC; ``heard``: when this was first told."""

    heard: float
    since: float
    exact: bool
    leaving: float = ALWAYS
    gone: float = ALWAYS


class Holder(NamedTuple):
    """Who had an address; ``sure`` is False where two may have had it."""

    pod: Pod | None
    sure: bool


NOBODY = Holder(None, sure=True)
UNSURE = Holder(None, sure=False)


def holder(stays: Sequence[tuple[Pod, Stay]], born: float, now: float) -> Holder:
    """Whose address it was when something to it began, of all who had it lately."""
    had = [(pod, stay) for pod, stay in stays if stay.since - _SKEW <= born < stay.gone]
    if not had:
        return NOBODY
    pod, stay = max(had, key=lambda item: item[1].since)
    others = [item for item in had if item[0] is not pod]
    if others and not stay.exact:
        pod, stay = min(had, key=lambda item: item[1].heard)  # the others only waited for it then
    elif others and born < stay.since + _ROUNDING + _SKEW:
        return UNSURE
    if born < stay.leaving:
        return Holder(pod, sure=True)
    if not others and stay.gone + _SETTLED <= now:
        return Holder(pod, sure=True)
    return UNSURE


def settles(stay: Stay) -> float:
    """When more can be said than now: of a pod that is gone, that nobody came; else, that it has begun."""
    return stay.gone + _SETTLED if stay.gone < ALWAYS else stay.since + _ROUNDING + _SKEW
