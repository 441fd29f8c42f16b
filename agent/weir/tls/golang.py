# SPDX-License-Identifier: Apache-2.0
"""Functions of a Go program, stripped or not: its runtime's own table of functions (pclntab) is always there.

The format is Go's src/runtime/symtab.go and src/internal/abi/symtab.go (pcHeader, functab, _func).
"""

from __future__ import annotations

import struct
from collections.abc import Collection

import numpy as np

from weir.tls.elf import Elf, ElfError, Function

_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
#: First words of the table since Go 1.18 and 1.20; before that, arguments may be on the stack.
_MAGIC = (0xFFFFFFF0, 0xFFFFFFF1)
_OLD = (0xFFFFFFFA, 0xFFFFFFFB)


def is_go(elf: Elf) -> bool:
    """Whether the file has Go's table of functions."""
    return any(elf.has(name) for name in _SECTIONS)


def functions(elf: Elf, names: Collection[str]) -> dict[str, Function]:
    """Those of these names that the program has; :class:`ElfError` where the table is not understood."""
    table = next((found for name in _SECTIONS if (found := elf.section(name))), None)
    if table is None:
        raise ElfError("it has no table of Go's functions")
    data = table[1]
    if len(data) < 72:
        raise ElfError("its table of Go's functions is cut off")
    magic, pointer = struct.unpack_from("<I", data)[0], data[7]
    if magic in _OLD:
        raise ElfError("it was built by Go before 1.18: build it anew to have its TLS read")
    if magic not in _MAGIC or pointer != 8:
        raise ElfError(f"its table of Go's functions is of a kind that is not known ({magic:#x})")
    count, _, start, name_at, _, _, _, at = struct.unpack_from("<8Q", data, 8)
    text = elf.section_address(".text") if not start else int(start)
    words = np.frombuffer(data[at : at + (len(data) - at) // 4 * 4], "<u4")
    if not 0 < count < 1 << 24 or len(words) < 2 * count + 1 or name_at >= at:
        raise ElfError("its table of Go's functions is damaged")
    entries, places = words[: 2 * count + 1 : 2].astype(np.int64), words[1 : 2 * count : 2] // 4 + 1
    if places.max() >= len(words):
        raise ElfError("its table of Go's functions is damaged")
    named = words[places]
    named_so: dict[str, Function] = {}
    for name in names:
        where = data.find(b"\0" + name.encode() + b"\0", name_at, at) + 1 - name_at
        for index in np.flatnonzero(named == where)[:1] if where > 0 else ():
            size = int(entries[index + 1] - entries[index])
            named_so[name] = Function(text + int(entries[index]), size)
    return named_so
