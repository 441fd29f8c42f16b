#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""runc for a machine that may give less than it asks for; elsewhere it changes nothing.

Capabilities outside of this process's bounding set are not asked for, nor limits above the hard ones.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any

_RUNC = "/usr/sbin/runc"
#: What such a machine may lack, by bit (include/uapi/linux/capability.h).
_MAY_LACK = {"CAP_SYS_RESOURCE": 24}


def fit(process: dict[str, Any]) -> None:
    """Take from a process of the OCI runtime specification what cannot be had."""
    found = re.search(r"^CapBnd:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    bounding = int(found[1], 16) if found else 0
    lacking = {name for name, bit in _MAY_LACK.items() if not bounding >> bit & 1}
    for kind, names in (process.get("capabilities") or {}).items():
        process["capabilities"][kind] = [name for name in names if name not in lacking]
    for limit in process.get("rlimits") or []:
        hard = resource.getrlimit(getattr(resource, limit["type"]))[1]
        if hard != resource.RLIM_INFINITY:
            limit["hard"] = min(limit["hard"], hard)
            limit["soft"] = min(limit["soft"], limit["hard"])


def option(arguments: list[str], *names: str) -> str:
    """Value of an option, as ``--name value`` or ``--name=value``."""
    for at, text in enumerate(arguments):
        name, equals, value = text.partition("=")
        if name in names:
            return value if equals else arguments[at + 1]
    return ""


def main(arguments: list[str]) -> None:
    """Mend the file, go on as runc."""
    if "create" in arguments or "run" in arguments:
        path = Path(option(arguments, "--bundle", "-b") or ".", "config.json")
        config = json.loads(path.read_text())
        fit(config["process"])
        path.write_text(json.dumps(config))
    elif "exec" in arguments and option(arguments, "--process", "-p"):
        path = Path(option(arguments, "--process", "-p"))
        process = json.loads(path.read_text())
        fit(process)
        path.write_text(json.dumps(process))
    os.execv(_RUNC, ["runc", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
