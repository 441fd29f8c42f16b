# SPDX-License-Identifier: Apache-2.0
"""How a function returns: its return instructions, by disassembling all of it (capstone).

Probing these rather than asking the kernel for a return probe leaves the stack as it is. A return probe
writes another return address there: Go's runtime, which moves stacks, dies of it, unwinders lose their way,
and where seccomp filters system calls the return itself may be refused (uretprobe(2), since Linux 6.11).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from weir.errors import WeirError

#: Longest function that is looked at; bytes.
_LONGEST = 1 << 16
_RETURNS = {"x64": {"ret", "retf"}, "AArch64": {"ret", "retaa", "retab"}}
_JUMP = {
    "x64": re.compile(r"(?:bnd )?(?:notrack )?j\w+ 0x([0-9a-f]+)"),
    "AArch64": re.compile(r"(?:b|b\.\w+|cbn?z .*,|tbn?z .*,) #0x([0-9a-f]+)"),
}


class CodeError(WeirError):
    """A function whose instructions are not all understood; the text says why."""


@functools.cache
def _decoder(machine: str) -> Any:
    import capstone  # type: ignore[import-not-found,import-untyped,unused-ignore]

    if machine == "x64":
        return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)


@dataclass(frozen=True)
class Exits:
    """Addresses of the instructions that return, and where else execution goes by a jump."""

    returns: frozenset[int]
    jumps: frozenset[int]


def exits(code: bytes, address: int, machine: str) -> Exits:
    """How execution leaves a function whose code lies at an address.

    ``machine`` as pyelftools names it (``x64``, ``AArch64``). :class:`CodeError` where not every byte is of a
    known instruction: then a probe might be set within one. Jumps through a register or a table are not told.
    """
    if machine not in _RETURNS:
        raise CodeError(f"functions of {machine} are not read")
    if len(code) > _LONGEST:
        raise CodeError(f"the function is too long ({len(code)} bytes)")
    returns, jumps, end = set(), set(), address
    for at, size, mnemonic, operands in _decoder(machine).disasm_lite(code, address):
        if mnemonic.split()[-1] in _RETURNS[machine]:
            returns.add(at)
        elif target := _JUMP[machine].fullmatch(f"{mnemonic} {operands}"):
            jumps.add(int(target[1], 16))
        end = at + size
    if end != address + len(code):
        raise CodeError(f"an instruction is not known (byte {end - address} of {len(code)})")
    inside = range(address, end)
    return Exits(frozenset(returns), frozenset(to for to in jumps if to not in inside))
