"""Patterns of operators, as declarations: `match(v, Is(EXP, Is(SUB, "s", "shift")))` finds exp(s - shift) and names its
parts."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field

from graphc.ir.graph import Node, Value
from graphc.ir.op import Opcode
from graphc.ir.ops.constant import splat
from graphc.records import dataclass


class Is:
    """What an operator of this opcode makes of operands that match: a name is any value, the same one wherever it
    stands; a number, a constant filled with it; another `Is` is looked into. Commutative operators are tried both ways
    round."""

    def __init__(self, opcode: Opcode, *operands: "Pattern"):
        self.opcode, self.operands = opcode, operands


Pattern = Is | str | float


@dataclass(frozen=True)
class Match:
    """The values by their names in the pattern, and the nodes that it describes, the outermost first."""
    values: Mapping[str, Value] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()

    def __getitem__(self, name: str) -> Value:
        return self.values[name]


def match(v: Value, *patterns: Pattern) -> Match | None:
    """The first way in which one of the patterns, in their order, describes v."""
    return next(matches(v, *patterns), None)


def matches(v: Value, *patterns: Pattern) -> Iterator[Match]:
    """All ways in which the patterns describe v."""
    for pattern in patterns:
        yield from _one(v, pattern, Match())


def _one(v: Value, pattern: Pattern, found: Match) -> Iterator[Match]:
    if isinstance(pattern, str):
        if found.values.get(pattern, v) is v:
            yield Match({**found.values, pattern: v}, found.nodes)
    elif not isinstance(pattern, Is):
        if splat(v) == pattern:
            yield found
    elif v.node is not None and v.node.op.opcode is pattern.opcode:
        ins = v.node.inputs
        for operands in (ins, ins[::-1])[:2 if v.node.op.is_commutative else 1]:
            yield from _all(operands, pattern.operands, Match(found.values, (*found.nodes, v.node)))


def _all(operands: Sequence[Value], patterns: Sequence[Pattern], found: Match) -> Iterator[Match]:
    if len(operands) != len(patterns):
        return
    if not operands:
        yield found
        return
    for first in _one(operands[0], patterns[0], found):
        yield from _all(operands[1:], patterns[1:], first)
