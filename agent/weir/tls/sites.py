# SPDX-License-Identifier: Apache-2.0
"""Where in a function a probe costs least: at instructions that the kernel carries out by itself.

A probe is a trap. After it the kernel runs the instruction that it replaced: of some by doing what they do,
of all others by a single step, which is another trap (arch/x86/kernel/uprobes.c: push_setup_xol_ops and
branch_setup_xol_ops). Virtual machines whose hypervisor looks at debug traps pay most for that one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

#: Registers of a function's first four arguments, and of its result, with their parts (System V ABI; Go's).
_ARGUMENTS = frozenset(
    ("rdi", "edi", "di", "dil", "rsi", "esi", "si", "sil", "rdx", "edx", "dx", "dl", "dh", "rcx", "ecx", "cx",
     "cl", "ch", "r8", "r8d")
)  # fmt: skip
_GO_ARGUMENTS = frozenset(
    ("rax", "eax", "ax", "al", "ah", "rbx", "ebx", "bx", "bl", "bh", "rcx", "ecx", "cx", "cl", "ch", "r14")
)
_RESULT = frozenset(("rax", "eax", "ax", "al", "ah"))
#: Instructions that are looked at from a function's beginning, or back from its end.
_NEAR = 24


@functools.cache
def _decoder() -> Any:
    import capstone  # type: ignore[import-not-found,import-untyped,unused-ignore]

    made = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    made.detail = True
    return made


class Listing:
    """The instructions of one function of x86-64, all of which are known."""

    def __init__(self, code: bytes, address: int) -> None:
        self._rows: Sequence[Any] = list(_decoder().disasm(code, address))
        self._index = {row.address: number for number, row in enumerate(self._rows)}
        self._end = address + len(code)
        self._targets = {target for row in self._rows if (target := _target(row)) is not None}

    def beginning(self) -> int:
        """The address, on each way from the first instruction, that is cheapest and has all arguments yet."""
        first = int(self._rows[0].address)
        for row in self._rows[:_NEAR]:
            if row.address != first and row.address in self._targets:
                return first  # it may be come to again
            if _done_by_kernel(row):
                return int(row.address)
            if _writes(row) & _ARGUMENTS or _leaves(row):
                return first
        return first

    def behind_stack_check(self) -> int | None:
        """Of Go: where a call comes to once, with all arguments yet: at its frame's first push.

        What is in front may be come to again, once the stack was made larger (runtime.morestack).
        """
        first = self._rows[0].address
        for row in self._rows[:_NEAR]:
            if (row.address != first and row.address in self._targets) or _writes(row) & _GO_ARGUMENTS:
                return None
            if row.mnemonic == "push" and _done_by_kernel(row):
                return int(row.address)
        return None

    def ending(self, at: int) -> int:
        """The address, on every way to this return, that is cheapest and has the result already.

        What else there is to be passed is a check of the stack, which ends the process where it fails.
        """
        number = self._index[at]
        for row in reversed(self._rows[max(0, number - _NEAR) : number]):
            following = self._rows[self._index[row.address] + 1]
            if following.address in self._targets or _writes(row) & _RESULT:
                return at
            if _done_by_kernel(row) and (_target(row) is None or self._is_fatal(row)):
                return int(row.address)
            if _leaves(row):
                return at
        return at

    def _is_fatal(self, jump: Any) -> bool:
        """Whether a jump on a condition leads to a call that never returns: there is nothing behind it."""
        number = self._index.get(_target(jump), -1)
        if jump.bytes[0] in (0xEB, 0xE9, 0xE8) or number < 0:
            return False
        call = self._rows[number]
        after = call.address + call.size
        return bool(call.bytes[0] == 0xE8 and (after == self._end or self._fills(after)))

    def _fills(self, at: int) -> bool:
        row = self._rows[self._index[at]]
        filling = row.mnemonic in ("nop", "int3") or bytes(row.bytes) == b"\x66\x90"  # xchg ax, ax
        return filling and at not in self._targets


def _done_by_kernel(row: Any) -> bool:
    """push of a register (Linux 4.17), nop, jumps and calls by a distance."""
    code = bytes(row.bytes)
    if code[0] == 0x41:
        return len(code) == 2 and 0x50 <= code[1] <= 0x57
    if code[0] == 0x0F:
        return 0x80 <= code[1] <= 0x8F
    return 0x50 <= code[0] <= 0x57 or 0x70 <= code[0] <= 0x7F or code[0] in (0x90, 0xE8, 0xE9, 0xEB)


def _target(row: Any) -> int | None:
    """Where a jump or call by a distance leads; None for all else."""
    code = bytes(row.bytes).lstrip(b"\xf2\x3e\x2e\x66")
    jumps = code[:1] and (
        0x70 <= code[0] <= 0x7F or code[0] in (0xE8, 0xE9, 0xEB) or code[0] in range(0xE0, 0xE4)
    )
    if not jumps and not (code[:1] == b"\x0f" and 0x80 <= code[1] <= 0x8F):
        return None
    return int(row.operands[0].imm)


def _leaves(row: Any) -> bool:
    return _target(row) is not None or row.mnemonic.split()[-1] in (
        "ret",
        "retf",
        "jmp",
        "ud2",
        "hlt",
        "int3",
    )


def _writes(row: Any) -> frozenset[str]:
    _, written = row.regs_access()
    return frozenset(row.reg_name(register) for register in written)
