# SPDX-License-Identifier: Apache-2.0
"""What a loaded BPF program can return and do, read from its instructions (RFC 9669).

A small abstract interpretation: each register and stack slot is a known number, the context, or anything.
Branches are all taken, so what is found to hold, holds on every path.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

ANY, CONTEXT = "any", "context"
Value = int | str

_LD, _LDX, _ST, _STX, _ALU, _JMP, _JMP32, _ALU64 = range(8)
_CALL, _EXIT, _JA = 0x8, 0x9, 0x0
#: What the kernel shows for a tail call (BPF_FUNC_tail_call).
TAIL_CALL = 12


@dataclass(frozen=True)
class State:
    """Registers r0 to r10 and the kernel's own, and known 8-byte stack slots by offset."""

    registers: tuple[Value, ...]
    stack: tuple[tuple[int, Value], ...] = ()

    def join(self, other: State) -> State:
        """What holds in both."""
        registers = tuple(a if a == b else ANY for a, b in zip(self.registers, other.registers, strict=True))
        theirs = dict(other.stack)
        return State(registers, tuple((k, v) for k, v in self.stack if theirs.get(k) == v))

    def put(self, register: int, value: Value) -> State:
        """With another value in a register."""
        registers = (*self.registers[:register], value, *self.registers[register + 1 :])
        return State(registers, self.stack)

    def store(self, offset: int, value: Value) -> State:
        """With a value on the stack (ANY forgets what overlapped)."""
        kept = tuple((k, v) for k, v in self.stack if abs(k - offset) >= 8)
        return State(self.registers, kept if value == ANY else (*kept, (offset, value)))


@dataclass(frozen=True)
class Finding:
    """What a program may do: values of r0 at its exits, kernel functions called, stores to the context."""

    returns: frozenset[Value]
    calls: frozenset[int]
    writes_context: bool


def analyse(code: bytes) -> Finding:
    """Follow every path of a program (subprograms are not used by Weir).

    A tail call ends the program, with the result of the one it calls, or goes on behind it.
    """
    instructions = list(struct.iter_unpack("<BBhi", code))
    start = State((ANY, CONTEXT, *[ANY] * 14))
    states: dict[int, State] = {}
    work = [(0, start)]
    returns: set[Value] = set()
    calls: set[int] = set()
    writes = False
    while work:
        at, state = work.pop()
        known = states.get(at)
        joined = known.join(state) if known else state
        if joined == known:
            continue
        states[at] = joined
        op, registers, offset, immediate = instructions[at]
        if op & 7 in (_JMP, _JMP32) and op >> 4 == _EXIT:
            returns.add(joined.registers[0])
            continue
        if op & 7 == _JMP and op >> 4 == _CALL:
            calls.add(immediate)
        if op & 7 in (_ST, _STX) and joined.registers[registers & 15] == CONTEXT:
            writes = True
        after = _step(joined, op, registers, offset, immediate)
        work += [(target, after) for target in _next(at, op, offset, immediate)]
    return Finding(frozenset(returns), frozenset(calls), writes)


def _next(at: int, op: int, offset: int, immediate: int) -> list[int]:
    if op == 0x18:  # 64-bit immediate: two slots
        return [at + 2]
    kind = op >> 4
    if op & 7 not in (_JMP, _JMP32) or kind == _CALL:
        return [at + 1]
    if kind == _JA:
        return [at + 1 + (immediate if op & 7 == _JMP32 else offset)]
    return [at + 1, at + 1 + offset]


def _step(state: State, op: int, registers: int, offset: int, immediate: int) -> State:
    to, source = registers & 15, registers >> 4
    kind = op & 7
    if kind in (_JMP, _JMP32):
        if op >> 4 != _CALL:
            return state
        return State((*[ANY] * 6, *state.registers[6:]), state.stack)
    if kind == _STX and to == 10:
        whole = op & 0x18 == 0x18 and op & 0xE0 == 0x60
        return state.store(offset, state.registers[source] if whole else ANY)
    if kind == _ST and to == 10:
        return state.store(offset, ANY)
    if kind in (_ST, _STX):
        return state
    if kind == _LDX and source == 10 and op & 0x18 == 0x18:
        return state.put(to, dict(state.stack).get(offset, ANY))
    if kind in (_ALU, _ALU64) and op & 0xF0 == 0xB0:  # mov
        if not op & 8:
            return state.put(to, immediate)
        value = state.registers[source]
        return state.put(to, value if kind == _ALU64 or isinstance(value, int) else ANY)
    if kind == _ALU64 and op & 0xF0 in (0x00, 0x10) and state.registers[to] == CONTEXT:
        return state  # the context plus something is still the context
    return state.put(to, ANY)


def kernel_functions(kallsyms: Path = Path("/proc/kallsyms")) -> tuple[int, dict[int, str]]:
    """Address of ``__bpf_call_base`` (calls are relative to it), and names by address."""
    base = 0
    names: dict[int, str] = {}
    with kallsyms.open(encoding="ascii") as lines:
        for line in lines:
            address, _, name = line.split()[:3]
            if name == "__bpf_call_base":
                base = int(address, 16)
            names.setdefault(int(address, 16), name)
    return base, names
