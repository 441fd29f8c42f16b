# SPDX-License-Identifier: Apache-2.0
"""The BPF C files: where they are, and as the one text that BCC compiles."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from weir.errors import WeirError

_INCLUDE = re.compile(r'#include "(.+)"')


def folder() -> Path:
    """``bpf/`` of the checkout, or of the installed package."""
    for place in (Path(__file__).parents[3] / "bpf", Path(sys.prefix) / "share/weir/bpf"):
        if (place / "weir.c").is_file():
            return place
    raise WeirError("the BPF sources (bpf/weir.c) are not installed: install weir-agent again")


def unit(name: str) -> str:
    """A C file with its own includes in place: BCC rewrites nothing but the main text.

    Each is put in once, but for those in a part that may be compiled out: these may come again, and the
    files' guards let them count once.
    """
    return _inline(folder(), name, set())


def _inline(base: Path, name: str, seen: set[str]) -> str:
    seen.add(name)
    depth = 0 if name.endswith(".c") else -1  # a header's guard is not counted
    out = [f'#line 1 "bpf/{name}"']
    for number, line in enumerate((base / name).read_text(encoding="utf-8").splitlines(), 1):
        depth += line.startswith("#if") - line.startswith("#endif")
        include = _INCLUDE.match(line)
        if not include:
            out.append(line)
        elif include[1] not in seen:
            known = seen if depth <= 0 else set(seen)
            out += [_inline(base, include[1], known), f'#line {number + 1} "bpf/{name}"']
        else:
            out.append("")
    return "\n".join(out)
