# SPDX-License-Identifier: Apache-2.0
"""Functions of an ELF file by name: where they lie in the file, and how long they are.

Sections and segments by pyelftools; symbols, of which there may be a hundred thousand, by numpy.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from weir.errors import WeirError

_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_ELF64 = b"\x7fELF\x02\x01"  # magic, 64 bits, little-endian
_FUNCTION = 2  # STT_FUNC
#: Version 1; DW_EH_PE_pcrel|sdata4, udata4, datarel|sdata4: what all linkers write.
_FRAMES = b"\x01\x1b\x03\x3b"
#: Bytes of one section that are read at most.
_SECTION_MAX = 1 << 26
_FILE_MAX = 1 << 40
#: Sections and segments of a file that anybody may have made.
_PARTS = 4096
#: What pyelftools raises at damaged files.
_DAMAGED = (ELFError, struct.error, ValueError, LookupError, AttributeError, ArithmeticError, MemoryError,
            RecursionError, TypeError, AssertionError)  # fmt: skip


class ElfError(WeirError):
    """Not an ELF file that Weir reads; the text says why."""


class NotElfError(ElfError):
    """No ELF file of a machine that Weir runs on."""


@dataclass(frozen=True)
class Function:
    """Where it is loaded, and its size in bytes."""

    address: int
    size: int


class Elf:
    """An open ELF file. :class:`NotElfError` where it is none, :class:`ElfError` where it is damaged."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        try:
            if file.read(6) != _ELF64:
                raise NotElfError("not a 64-bit little-endian ELF file")
            elf = ELFFile(file)
            self.machine: str = elf.get_machine_arch()
            if elf.num_sections() > _PARTS or elf.num_segments() > _PARTS:
                raise ElfError(f"it has more than {_PARTS} sections or segments")
            self._loads = [
                (s["p_vaddr"], s["p_filesz"], s["p_offset"])
                for s in elf.iter_segments()
                if s["p_type"] == "PT_LOAD"
            ]
            self._sections = {s.name: s for s in elf.iter_sections()}
        except _DAMAGED as error:
            raise ElfError(f"it is damaged ({type(error).__name__}: {error})") from None

    def offset(self, address: int) -> int:
        """Where in the file what is loaded at an address lies; :class:`ElfError` where it does not."""
        for start, size, at in self._loads:
            if start <= address < start + size:
                return int(at + address - start)
        raise ElfError(f"nothing of the file is loaded at {address:#x}")

    def has(self, name: str) -> bool:
        """Whether there is a section of this name."""
        return name in self._sections

    def section_address(self, name: str) -> int:
        """Where a section is loaded; :class:`ElfError` where it is missing."""
        if name not in self._sections:
            raise ElfError(f"it has no section {name}")
        return int(self._sections[name]["sh_addr"])

    def section(self, name: str) -> tuple[int, bytes] | None:
        """Address and content of a section; None where it is missing, too large, or not in the file."""
        found = self._sections.get(name)
        if found is None or found["sh_type"] == "SHT_NOBITS" or found["sh_size"] > _SECTION_MAX:
            return None
        return int(found["sh_addr"]), self.read(int(found["sh_offset"]), int(found["sh_size"]))

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file; :class:`ElfError` where it ends before."""
        if not (0 <= offset < _FILE_MAX and 0 <= size <= _SECTION_MAX):
            raise ElfError(f"a part of it is said to have {size} bytes, at {offset:#x}")
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise ElfError("it ends before its sections do")
        return data

    def code(self, function: Function) -> bytes:
        """A function's instructions."""
        return self.read(self.offset(function.address), function.size)

    def function_at(self, address: int) -> Function | None:
        """The function, or part of one, that begins at an address; None where unwinders know of none.

        By .eh_frame_hdr (Linux Standard Base 5.0, 10.6).
        """
        header = self.section(".eh_frame_hdr")
        if header is None or len(header[1]) < 12 or header[1][:4] != _FRAMES:
            return None
        base, data = header
        count = min(struct.unpack_from("<I", data, 8)[0], (len(data) - 12) // 8)
        table = np.frombuffer(data, "<i4", 2 * count, 12).reshape(-1, 2)
        index = int(np.searchsorted(table[:, 0], address - base))
        if index == count or table[index, 0] != address - base:
            return None
        # length, CIE, pc_begin, pc_range: four bytes each, as the header's table says of the addresses
        size = struct.unpack("<I", self.read(self.offset(base + int(table[index, 1])) + 12, 4))[0]
        return Function(address, int(size))

    def functions(self, names: Collection[str]) -> dict[str, Function]:
        """Those of these names that the file defines, by its dynamic symbols, else by all of its symbols."""
        found: dict[str, Function] = {}
        for symbols, strings in ((".dynsym", ".dynstr"), (".symtab", ".strtab")):
            missing = [name for name in names if name not in found]
            found |= self._named(symbols, strings, missing) if missing else {}
        return found

    def _named(self, symbols: str, strings: str, names: Collection[str]) -> dict[str, Function]:
        table, text = self.section(symbols), self.section(strings)
        if table is None or text is None:
            return {}
        rows = np.frombuffer(table[1][: len(table[1]) // _SYMBOL.itemsize * _SYMBOL.itemsize], _SYMBOL)
        rows = rows[(rows["info"] & 15 == _FUNCTION) & (rows["section"] != 0) & (rows["size"] > 0)]
        found = {}
        for name in names:
            for at in _starts(text[1], name):
                for row in rows[rows["name"] == at][:1]:
                    found[name] = Function(int(row["value"]), int(row["size"]))
        return found


def _starts(text: bytes, name: str) -> Iterator[int]:
    """Where a name stands in a string table, as a whole or as the end of a longer one."""
    wanted, at = name.encode() + b"\0", -1
    while (at := text.find(wanted, at + 1)) >= 0:
        yield at
