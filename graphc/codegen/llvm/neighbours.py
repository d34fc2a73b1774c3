"""Divisions of indices that follow each other by a size that comes with the call.

The rows of a micro-tile are neighbours in an image, and where each lies takes a division for each dim. A processor
takes as long for ten of them as for a fifth of the micro-tile's sums. Of the next row's quotient and remainder are
those of the row before, or one more, and 0 where a line is full: additions. (By numbers LLVM multiplies.)
"""
from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.loops.index import Ix, Sym
from graphc.codegen.loops.index_proofs import at_least, at_most
from graphc.codegen.loops.loop_ir import Define

TRIED = 2                           # of the last divisions by a size: those of two dims of one size take turns


class Division:
    """One that was written: what is divided, its text, and those of the quotient and the remainder, "" where nobody
    has asked for it; `symbol`: the quotient's; `before`: that of the division whose quotient it follows."""
    __slots__ = ("ix", "divisor", "text", "quotient", "rest", "symbol", "before")

    def __init__(self, ix: Ix, divisor: Ix, text: str, symbol: Sym):
        self.ix, self.divisor, self.text, self.symbol = ix, divisor, text, symbol
        self.quotient = self.rest = ""
        self.before: Sym | None = None


def quotient(b: BodyEmitter, s: Define, ix: Ix, divisor: Ix, divide: str) -> str:
    """The quotient of an index that is not negative. divide: the instruction that needs no other division."""
    made = Division(ix, divisor, b.value(ix), s.symbol)
    before = next((d for d in islice(_by(b, divisor), TRIED) if d.rest and _follows(b, ix, d.ix)), None)
    if before is None:
        made.quotient = b.emit(divide)
    else:
        made.before, size = before.symbol, b.value(divisor)
        step = b.emit(f"sub {b.ix} {made.text}, {before.text}")
        rest = b.emit(f"add {b.ix} {before.rest}, {step}")
        is_full = b.emit(f"icmp uge {b.ix} {rest}, {size}")
        made.rest = b.emit(f"select i1 {is_full}, {b.ix} 0, {b.ix} {rest}")
        made.quotient = b.emit(f"add {b.ix} {before.quotient}, {b.emit(f'zext i1 {is_full} to {b.ix}')}")
    b.scopes[-1].divisions.append(made)
    return made.quotient


def remainder(b: BodyEmitter, ix: Ix, divisor: Ix, divide: str) -> str:
    """The same of the remainder, whose quotient has been written before."""
    made = next((d for d in _by(b, divisor) if d.ix == ix), None)
    if made is None:
        return b.emit(divide)
    made.rest = made.rest or b.emit(divide)
    return made.rest


def _by(b: BodyEmitter, divisor: Ix) -> Iterator[Division]:
    """Those by a size that are known here, the last first."""
    return (d for scope in reversed(b.scopes) for d in reversed(scope.divisions) if d.divisor == divisor)


def _follows(b: BodyEmitter, ix: Ix, before: Ix) -> bool:
    """Whether an index is another one, or one more."""
    step = ix - before
    if not step.terms:
        return step.const in (0, 1)
    new, old = _alone(ix), _alone(before)
    if new is not None and old is not None and (_is_next_minimum(new, old) or _is_next_quotient(b, new, old)):
        return True
    return at_least(step, 0) and at_most(step, 1)


def _alone(ix: Ix) -> Sym | None:
    """The symbol that the index is."""
    return ix.terms[0][0] if ix.const == 0 and len(ix.terms) == 1 and ix.terms[0][1] == 1 else None


def _is_next_minimum(new: Sym, old: Sym) -> bool:
    """Whether both are minima whose items are equal, or one more."""
    if not (new.choices and new.is_least and old.is_least and len(new.choices) == len(old.choices)):
        return False
    steps = [a - b for a, b in zip(new.choices, old.choices)]
    return all(not step.terms and step.const in (0, 1) for step in steps)


def _is_next_quotient(b: BodyEmitter, new: Sym, old: Sym) -> bool:
    """Whether one is the quotient of what follows the other's dividend."""
    return any(d.symbol is new and d.before is old for scope in b.scopes for d in scope.divisions)
