"""Bytes that a compiled graph needs, by purpose."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from math import prod

from graphc.ir.dims import Dim, Poly, evaluate_all, typical
from graphc.memory.formula import expanded
from graphc.ir.graph import Value
from graphc.ir.shown import Pictured
from graphc.memory.plan import ProgramPlan
from graphc.records import dataclass

UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True)
class Memory(Pictured):
    """All in bytes. `scratch` is per thread; `arena` is what one call in flight needs besides; `derived` is made from
    the state (packed or folded weights) and kept while that does not change. `recomputed`: of values that are computed
    again instead of being kept (`memory=` of `gc.train_step`), which takes `more_work` percent of the cycles of the
    rest, by the model of costs; neither is part of the total.

    Of a program for sizes that come with each call these are formulas in the names of the sizes, which print as such:
    `at(B=8, T=128)` are the bytes of a call with these sizes.
    """
    arena: Dim
    scratch: Dim
    consts: Dim
    state: Dim
    inputs: Dim
    outputs: Dim
    derived: Dim = 0
    recomputed: Dim = 0
    more_work: int = 0

    @staticmethod
    def of(plan: ProgramPlan, scratch: Dim, state: Sequence[Value], derived: Dim) -> Memory:
        """Of a program with these bytes of scratch for each thread, whose own state arrays are `state`, and from which
        it makes and keeps so many bytes."""
        graph = plan.main.graph
        return Memory(plan.arena_bytes, scratch, plan.constants.nbytes, _size(state), _size(graph.inputs),
                      _size(graph.outputs), derived, *_again(plan))

    def at(self, **sizes: int) -> Memory:
        """The bytes for these sizes of the named dimensions."""
        return Memory(*evaluate_all([getattr(self, f.name) for f in fields(self)], sizes))

    @property
    def total(self) -> Dim:
        """With one thread and one call in flight."""
        return self.arena + self.scratch + self.consts + self.state + self.derived + self.inputs + self.outputs

    def __str__(self) -> str:
        rows = ((name, getattr(self, name))
                for name in ("arena", "scratch", "consts", "state", "derived", "inputs", "outputs", "total"))
        again = (f"; recomputed {human(self.recomputed)}, {self.more_work} % more work" if self.recomputed != 0 else "")
        return "memory: " + ", ".join(f"{name} {human(n)}" for name, n in rows) + again


def human(nbytes: Dim | float) -> str:
    """1536 -> "1.5 KB"; 1536 * B + 64 -> "1.5 KB · B + 64 B"; "max(…)" of formulas of which each may be the largest."""
    if isinstance(nbytes, Poly):
        return formula(nbytes, human)
    unit = 0
    while nbytes >= 1024 and unit < len(UNITS) - 1:
        nbytes, unit = nbytes / 1024, unit + 1
    return f"{nbytes:.0f} {UNITS[unit]}" if unit == 0 else f"{nbytes:.1f} {UNITS[unit]}"


def formula(dim: Poly, amount: Callable[[int], str]) -> str:
    """A size as people read it; `amount` writes its numbers."""
    sums = [" + ".join(_term(amount(c), m) for m, c in _by_weight(s)) for s in expanded(dim)]
    return sums[0] if len(sums) == 1 else f"max({', '.join(sums)})"


def _by_weight(dim: Dim) -> Iterable[tuple[tuple[str, ...], int]]:
    """The terms, those first that weigh most for typical sizes."""
    terms = dim.terms if isinstance(dim, Poly) else (((), dim),)
    return sorted(terms, key=lambda term: -abs(term[1]) * prod(typical(_alone(n)) for n in term[0]))


def _alone(name: str) -> Poly:
    return Poly((((name,), 1),))


def _term(coefficient: str, names: tuple[str, ...]) -> str:
    return " · ".join([coefficient, *map(str, names)])


def _size(values: Iterable[Value]) -> Dim:
    return sum(v.type.nbytes for v in values)


def _again(plan: ProgramPlan) -> tuple[int, int]:
    found = plan.recomputed
    return (found.nbytes, round(100 * found.work)) if found else (0, 0)
