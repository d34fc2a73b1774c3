"""Routines as flat code: a list of operations on numbered registers, with jumps, for `routine_machine`."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from graphc.codegen.routines.routine import Branch, Instruction, Repeat, RoutineBody, StatementList
from graphc.codegen.routines.values import Ptr


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 and bits > 1 else value


PURE = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "udiv": lambda a, b: a // b, "urem": lambda a, b: a % b, "smin": min, "smax": max,
    "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b, "shl": lambda a, b: a << b,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "slt": lambda a, b: a < b, "sle": lambda a, b: a <= b,
    "sgt": lambda a, b: a > b, "sge": lambda a, b: a >= b, "select": lambda c, a, b: a if c else b,
    "offset": lambda a, b: a + b, "sext": lambda a: a, "trunc": lambda a: a, "ptrtoint": lambda a: a}
UNSIGNED = ("lshr", "zext")
UPDATES = {"xchg": lambda old, new: new, "add": PURE["add"], "sub": PURE["sub"], "and": PURE["and"]}


@dataclass(eq=False)
class Op:
    """An instruction of flat code: operands and result are numbers of registers."""
    kind: str
    result: int = -1
    operands: tuple[int, ...] = ()
    how: object = None
    function: Callable | None = None
    bits: int = 64


@dataclass(eq=False)
class Code:
    """A routine as a list with jumps. `registers`: how they are at its start; `live[pc]`: those that are read later."""
    name: str
    ops: list[Op] = field(default_factory=list)
    registers: list[int] = field(default_factory=list)
    live: list[tuple[int, ...]] = field(default_factory=list)


class Flatten:
    """Code of a routine's body."""

    def __init__(self, body: RoutineBody, addresses: Callable[[object], int]):
        self.code, self._numbers, self._breaks, self._addresses = Code(body.owner.name), {}, [], addresses
        for param in body.params:
            self._register(param.text)
        self._list(body.root)
        self.code.live = _live(self.code.ops)

    def _register(self, text: str, start: int = 0) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.code.registers)
            self.code.registers.append(start)
        return self._numbers[text]

    def _operand(self, value) -> int:
        if value.text.startswith("@"):
            return self._register(value.text, self._addresses(value.text[1:]))
        if value.const is not None:
            return self._register(f"{value.llvm} {value.text}", value.const)
        return self._numbers[value.text]

    def _list(self, block: StatementList) -> None:
        for statement in block.statements:
            {Branch: self._branch, Repeat: self._repeat, Instruction: self._instruction}[type(statement)](statement)

    def _branch(self, s: Branch) -> None:
        branch = self._add(Op("branch", operands=(self._operand(s.condition),)))
        self._list(s.then)
        over = self._add(Op("jump"))
        branch.how = len(self.code.ops)
        self._list(s.otherwise)
        over.how = len(self.code.ops)

    def _repeat(self, s: Repeat) -> None:
        start = len(self.code.ops)
        self._breaks.append([])
        self._list(s.body)
        self._add(Op("jump", how=start))
        for op in self._breaks.pop():
            op.how = len(self.code.ops)

    def _instruction(self, s: Instruction) -> None:
        if s.op == "break":
            self._breaks[-1].append(self._add(Op("jump")))
            return
        kind, _, update = s.op.partition(" ")
        operands = [self._operand(o) for o in s.operands]
        if kind == "call" and isinstance(s.how, Ptr):
            operands.insert(0, self._operand(s.how))
        bits = _bits(s, kind)
        function = UPDATES[update] if update else PURE.get(kind) or _unsigned(kind, bits)
        result = -1 if s.result is None else self._register(s.result.text)
        is_pure = kind in PURE or kind in UNSIGNED
        self._add(Op("pure" if is_pure else kind, result, tuple(operands), s.how, function, bits))

    def _add(self, op: Op) -> Op:
        self.code.ops.append(op)
        return op


def _bits(s: Instruction, kind: str) -> int:
    """Of the value that is computed, or stored; of what an operation takes as unsigned."""
    values = [s.operands[0]] if kind in UNSIGNED else [s.result] if s.result is not None else s.operands[-1:]
    return 64 if not values else 1 if values[0].llvm == "i1" else 8 * values[0].bytes


def _unsigned(kind: str, bits: int) -> Callable | None:
    mask = (1 << bits) - 1
    return {"lshr": lambda a, b: (a & mask) >> b, "zext": lambda a: a & mask}.get(kind)


def _live(ops: list[Op]) -> list[tuple[int, ...]]:
    """By going backwards until nothing changes."""
    live: list[set[int]] = [set() for _ in range(len(ops) + 1)]
    changed = True
    while changed:
        changed = False
        for pc in reversed(range(len(ops))):
            op = ops[pc]
            after = {"jump": [op.how], "branch": [pc + 1, op.how], "ret": []}.get(op.kind, [pc + 1])
            now = set().union(*(live[n] for n in after)) - {op.result} | set(op.operands)
            if now != live[pc]:
                live[pc], changed = now, True
    return [tuple(sorted(s)) for s in live]
