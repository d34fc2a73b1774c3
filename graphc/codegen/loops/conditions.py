"""What the condition of a branch says about indices."""
from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.loops.index import Ix
from graphc.codegen.loops.index_proofs import IndexFacts
from graphc.codegen.loops.loop_ir import Compute, Val

# comparison -> (a, b) -> index that is <= 0 exactly when it holds
HOLDS: dict[str, Callable[[Ix, Ix], Ix]] = {
    "lt": lambda a, b: a - b + 1, "le": lambda a, b: a - b, "gt": lambda a, b: b - a + 1, "ge": lambda a, b: b - a}
OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}


def facts_of(condition: Val, holds: bool, definitions: dict[int, Compute], facts: IndexFacts) -> IndexFacts:
    """`facts`, and what follows from the condition (or from its negation)."""
    s = definitions.get(condition.id)
    if s is None:
        return facts
    if s.op == "and" and holds or s.op == "or" and not holds:
        for part in s.args:
            facts = facts_of(part, holds, definitions, facts)
        return facts
    if s.op == "not":
        return facts_of(s.args[0], not holds, definitions, facts)
    return _comparison(s, holds, definitions, facts)


def _comparison(s: Compute, holds: bool, definitions: dict[int, Compute], facts: IndexFacts) -> IndexFacts:
    if len(s.args) != 2:
        return facts
    a, b = (affine_value(v, definitions) for v in s.args)
    if a is None or b is None:
        return facts
    if s.op == "eq" and holds or s.op == "ne" and not holds:
        return facts.and_not_positive(a - b).and_not_positive(b - a)
    op = s.op if holds else OPPOSITE.get(s.op)
    return facts.and_not_positive(HOLDS[op](a, b)) if op in HOLDS else facts


def affine_value(value: Val, definitions: dict[int, Compute]) -> Ix | None:
    """The index that an integer value is, if it is one."""
    if value.const is not None:
        return Ix(int(value.const)) if value.dtype.is_int else None
    s = definitions.get(value.id)
    if s is None or not value.dtype.is_int or value.lanes != 1:
        return None
    if s.op == "value":
        return s.attr
    if s.op not in ("add", "sub"):
        return None
    a, b = [affine_value(v, definitions) for v in s.args]
    return None if a is None or b is None else a + b if s.op == "add" else a - b
