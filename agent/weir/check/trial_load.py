# SPDX-License-Identifier: Apache-2.0
"""``weir check --load``: the real kernel side, loaded under a name of its own and taken away again.

It is scoped to a network namespace that does not exist, so it counts nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from weir.check.finding import Finding
from weir.errors import LoadError, WeirError
from weir.kernel import side
from weir.kernel.options import KernelOptions

#: No namespace has this inode number: /proc and nsfs give theirs from another range.
_NOWHERE = 1
_NONE: Mapping[str, Any] = {"planes": {}, "verified": {}, "refused": {}, "missing": {}, "log": {}}


def load() -> Mapping[str, Any]:
    """``planes`` (name → "" or why it is down), ``verified`` (program → instructions), ``refused``,
    ``missing`` and ``log`` (program → why, why, the verifier's last lines), ``error``
    (why nothing could be loaded, or "").
    """
    options = KernelOptions(netns=(_NOWHERE,), slots=64, connections=64, listeners=64, tls=64)
    try:
        instance, cgroup2 = side.ready(f"check-{os.getpid()}")
        try:
            with instance.lock("run"):
                facts = side.load(instance, options, cgroup2)
        finally:
            instance.remove()
    except LoadError as error:
        return {**_NONE, **error.facts, "error": str(error)}
    except WeirError as error:
        return {**_NONE, "error": str(error)}
    kept = ("variant", *_NONE, "compile_seconds", "load_seconds")
    return {**{key: facts[key] for key in kept}, "error": ""}


def findings(loaded: Mapping[str, Any]) -> Iterator[Finding]:
    """A line for each plane and for each program."""
    if loaded["error"]:
        yield Finding("load", "refused", loaded["error"], "nothing can be counted", "", True, "load")
    for plane, why in loaded["planes"].items():
        if why:
            effect = f'weir_agent_plane_up{{plane="{plane}"}} is 0'
            yield Finding(f"load: plane {plane}", "refused", why, effect, cause="load")
        else:
            yield Finding(f"load: plane {plane}", "found", "loaded and attached")
    for name, count in loaded["verified"].items():
        if name not in loaded["refused"] and name not in loaded["missing"]:
            told = f"{count} instructions verified" if count else "loaded"
            yield Finding(f"load: {name}", "found", told)
    for name, why in loaded["missing"].items():
        yield Finding(f"load: {name}", "missing", why)
    for name, why in loaded["refused"].items():
        log = loaded["log"].get(name, "")
        tail = "".join(f"\n      {line}" for line in log.splitlines()[-8:])
        yield Finding(f"load: {name}", "refused", why + tail, cause="load")
