"""Which elements of its parameters a function touches, as its caller sees them: by their ends.

What is found of a function serves all its calls; what it depends on besides its integers are branches by how many rows,
say, there are: each end says what the integers are at least where it is reached.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from graphc.codegen.loops.access import accesses_of
from graphc.codegen.loops.conditions import facts_of
from graphc.codegen.loops.index import Ix, Sym
from graphc.codegen.loops.index_proofs import NO_FACTS, IndexFacts, not_less
from graphc.codegen.loops.loop_ir import (
    Body, Call, Compute, For, FunctionIR, If, Load, Parallel, Root, Store, While, bodies)
from graphc.ir.dims import Dim, Poly, static_dim
from graphc.ir.size_proofs import is_nonnegative

Floors = tuple[tuple[Sym, int], ...]


class End(NamedTuple):
    """No element touched lies beyond any of the `limits`, where the integers are at least as `floors` say; without
    limits nothing is known."""
    limits: tuple[Ix, ...]
    floors: Floors = ()


class Reach(NamedTuple):
    """Of what a function touches of a parameter: ends below, and ends above."""
    lows: tuple[End, ...]
    highs: tuple[End, ...]


@dataclass
class Reaches:
    """What is known of functions that are finished."""
    found: dict[tuple[FunctionIR, Root], Reach] = field(default_factory=dict)

    def of(self, f: FunctionIR, root: Root) -> Reach:
        """In terms of the integers that `f` is called with."""
        known = self.found.get((f, root))
        if known is None:
            walk = _EndFinder(f, root, self)
            walk.body(f.body, {}, NO_FACTS)
            known = self.found[f, root] = Reach(_negated(_furthest(walk.lows)), _furthest(walk.highs))
        return known


class _EndFinder:
    """Through a function, for all ends. lows: negated, so that both kinds are bounds above."""

    def __init__(self, f: FunctionIR, root: Root, reaches: Reaches):
        self.root, self.reaches, self.keep = root, reaches, frozenset(f.params)
        self.lows: dict[End, None] = {}
        self.highs: dict[End, None] = {}

    def body(self, statements: Body, definitions: dict[int, Compute], facts: IndexFacts) -> None:
        for s in statements:
            if type(s) is Compute:
                definitions[s.dst.id] = s
            elif isinstance(s, (Load, Store)):
                if s.view.root is self.root:
                    a = accesses_of(s, definitions)
                    self._add([End(tuple(a.lows()))], [End(tuple(a.highs()))], facts)
            elif type(s) is Call:
                self._call(s, facts)
            elif type(s) is If:
                for inner, holds in ((s.then, True), (s.otherwise, False)):
                    self.body(inner, definitions, facts_of(s.condition, holds, definitions, facts))
            elif type(s) in (For, While, Parallel) and not (type(s) is For and s.trips() == 0):
                for inner in bodies(s):
                    self.body(inner, definitions, facts)

    def _call(self, s: Call, facts: IndexFacts) -> None:
        integers = dict(zip(s.callee.params, s.ints))
        for given, wanted in zip(s.views, s.callee.views):
            if given.root is self.root:
                lows, highs = ([end_at(end, given.start, integers) for end in ends]
                               for ends in self.reaches.of(s.callee, wanted.root))
                self._add(lows, highs, facts)

    def _add(self, lows: Iterable[End], highs: Iterable[End], facts: IndexFacts) -> None:
        here = {symbol: low for symbol in facts.lowers if symbol in self.keep
                for low in [_known_floor(symbol, facts)] if low is not None}
        for found, ends in ((self.lows, _negated(lows)), (self.highs, highs)):
            for limits, floors in ends:
                done = dict.fromkeys(x for ix in limits for x in _eliminated(ix, self.keep, facts))
                least = {**here, **{s: max(n, here.get(s, n)) for s, n in floors if s in self.keep}}
                found[End(tuple(done), tuple(least.items()))] = None


def end_at(end: End, start: Ix, integers: Mapping[Sym, Ix]) -> End:
    """The end as seen by a caller that passes these integers, and memory from `start` on. A floor is kept where it is
    one of a symbol of the caller."""
    floors = []
    for symbol, low in end.floors:
        given = integers[symbol]
        if len(given.terms) == 1 and given.terms[0][1] == 1 and isinstance(given.const, int):
            floors.append((given.terms[0][0], low - given.const))
    return End(tuple([start + substituted(ix, integers) for ix in end.limits]), tuple(floors))


def substituted(ix: Ix, integers: Mapping[Sym, Ix]) -> Ix:
    """With what is passed for the parameters."""
    total = Ix(ix.const)
    for symbol, coefficient in ix.terms:
        total = total + integers[symbol] * coefficient
    return total


def _known_floor(symbol: Sym, facts: IndexFacts) -> int | None:
    """The number that a symbol is at least in a branch."""
    return max((-(-ix.const // den) for ix, den in facts.lowers[symbol]
                if not ix.terms and isinstance(ix.const, int) and isinstance(den, int)), default=None)


def _negated(ends: Iterable[End]) -> tuple[End, ...]:
    return tuple([End(tuple([-ix for ix in end.limits]), end.floors) for end in ends])


def _furthest(ends: Iterable[End]) -> tuple[End, ...]:
    """Those that others do not make needless: an end that is never less, wherever this one is reached. Only ends that
    differ by numbers and symbols are compared: of the others nothing is seen at a glance."""
    groups: dict[object, list[End]] = {}
    for end in _greatest_numbers(ends):
        key = _sizes_of(end.limits[0]) if len(end.limits) == 1 else end.limits
        kept = groups.setdefault(key, [])
        if not any(_covers(other, end) for other in kept):
            kept[:] = [other for other in kept if not _covers(end, other)] + [end]
    return tuple([end for kept in groups.values() for end in kept])


def _sizes_of(ix: Ix) -> tuple[object, ...]:
    """What is no number of its constant and coefficients: equal where those of a difference are numbers."""
    return _products(ix.const), *[(symbol, _products(c)) for symbol, c in ix.terms if isinstance(c, Poly)]


def _products(size: Dim) -> tuple[object, ...]:
    return tuple([term for term in size.terms if term[0]]) if isinstance(size, Poly) else ()


def _greatest_numbers(ends: Iterable[End]) -> Iterable[End]:
    """Of ends that differ by numbers the greatest."""
    found: dict[object, End] = {}
    for end in ends:
        key: object = end
        if len(end.limits) == 1 and isinstance(end.limits[0].const, int):
            key = end.limits[0].terms, end.floors
            other = found.get(key)
            if other is not None and static_dim(other.limits[0].const) >= end.limits[0].const:
                continue
        found[key] = end
    return found.values()


def _covers(end: End, other: End) -> bool:
    """Whether a proof of `end` is one of `other`, as is seen at a glance."""
    if len(end.limits) != 1 or len(other.limits) != 1:
        return end.limits == other.limits and _is_implied(end.floors, other.floors)
    return _is_implied(end.floors, other.floors) and _is_plainly_nonnegative(end.limits[0] - other.limits[0])


def _is_implied(floors: Floors, others: Floors) -> bool:
    """Whether `floors` hold where the others do."""
    known = dict(others)
    return all(symbol in known and known[symbol] >= low for symbol, low in floors)


def _is_plainly_nonnegative(ix: Ix) -> bool:
    return isinstance(ix.const, int) and ix.const >= 0 and all(
        isinstance(c, int) and c > 0 and any(not low.terms and isinstance(low.const, int) and low.const >= 0
                                             for low, _ in symbol.lowers) for symbol, c in ix.terms)


def joined(ends: Sequence[End], integers: Mapping[Sym, Ix], sign: int) -> Iterator[tuple[End, list[End]]]:
    """The ends as they are to be proved, each with those that it stands for. Ends in equal steps outwards, reached
    where an integer is at least n, n + 1, n + 2, …, are one: the furthest is that of the integer itself. integers: what
    is passed; the ends are in terms of the caller. sign: 1 for ends above, -1 for ends below."""
    rows: dict[Sym, list[tuple[int, End]]] = {}
    for end in ends:
        if len(end.limits) == len(end.floors) == 1:
            symbol, low = end.floors[0]
            rows.setdefault(symbol, []).append((low, end))
        else:
            yield end, [end]
    for symbol, found in rows.items():
        found.sort(key=lambda each: each[0])
        lows, each = [low for low, _ in found], [end for _, end in found]
        steps = [b.limits[0] - a.limits[0] for a, b in zip(each, each[1:])]
        if (len(each) > 2 and lows == list(range(lows[0], lows[0] + len(lows))) and not steps[0].terms
                and all(step == steps[0] for step in steps[1:]) and is_nonnegative(steps[0].const * sign)):
            last = each[0].limits[0] + (integers[symbol] - lows[0]) * steps[0].const
            yield End((last,), each[0].floors), each
        else:
            yield from ((end, [end]) for end in each)


def _eliminated(ix: Ix, keep: frozenset[Sym], facts: IndexFacts) -> Iterator[Ix]:
    if not ix.terms or ix.terms[-1][0] in keep:
        yield ix
        return
    for simpler in not_less(ix, facts):
        yield from _eliminated(simpler, keep, facts)
