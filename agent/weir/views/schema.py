# SPDX-License-Identifier: Apache-2.0
"""Checks plain JSON values against the fields of a row."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, get_type_hints

#: Field type -> (Python types that JSON gives for it, what to call it).
_KINDS: dict[object, tuple[tuple[type, ...], str]] = {
    str: ((str,), "a text"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    int | None: ((int, type(None)), "a whole number or null"),
    float | None: ((int, float, type(None)), "a number or null"),
}


@lru_cache(maxsize=8)
def _hints(row: type) -> dict[str, Any]:
    return get_type_hints(row)


def from_plain(row: type, value: object) -> dict[str, Any]:
    """Arguments of a row class from a JSON object; ValueError names the key that is missing or wrong."""
    if not isinstance(value, dict):
        raise ValueError(f"{row.__name__}: an object is needed, not {value!r:.40}")
    return {name: _checked(row, name, hint, value) for name, hint in _hints(row).items()}


def _checked(row: type, name: str, hint: object, value: dict[str, Any]) -> Any:
    if name not in value:
        raise ValueError(f"{row.__name__}: no key {name!r}")
    found = value[name]
    if hint not in _KINDS:
        return _counts(row, name, found)
    types, called = _KINDS[hint]
    finite = not isinstance(found, float) or math.isfinite(found)
    if not isinstance(found, types) or isinstance(found, bool) or not finite:
        raise ValueError(f"{row.__name__}: {name} is {found!r:.40}, not {called}")
    return found


def _counts(row: type, name: str, found: object) -> dict[str, int]:
    if isinstance(found, dict) and all(type(v) is int for v in found.values()):
        return {str(k): v for k, v in found.items()}
    raise ValueError(f"{row.__name__}: {name} is {found!r:.40}, not counts by name")
