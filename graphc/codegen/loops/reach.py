"""Which elements of its parameters a function touches, as its caller sees them: by their ends.

What is found of a function serves all its calls; what it depends on besides its integers are branches by how many rows,
say, there are: each end says what the integers are at least where it is reached.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSet, Sequence
from dataclasses import field
from typing import NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from graphc.codegen.loops.access import accesses_of
from graphc.codegen.loops.conditions import facts_of
from graphc.codegen.loops.index import Ix, Sym, combined
from graphc.codegen.loops.index_proofs import NO_FACTS, IndexFacts, not_less
from graphc.codegen.loops.loop_ir import (
    Body, Call, Compute, For, FunctionIR, If, Load, MatrixMove, Parallel, Root, Store, While, bodies)
from graphc.ir.dims import Dim, static_dim
from graphc.ir.size_proofs import is_nonnegative
from graphc.records import dataclass

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


# of functions that are finished; micro-kernels are those of other programs, too
FOUND: MutableMapping[FunctionIR, dict[Root, Reach]] = WeakKeyDictionary()
PROVED: MutableSet[FunctionIR] = WeakSet()


@dataclass
class Reaches:
    """What is known of the functions of a program that are finished."""
    parallel: dict[FunctionIR, bool] = field(default_factory=dict)      # which have parallel loops, or call such

    def of(self, f: FunctionIR, root: Root) -> Reach:
        """In terms of the integers that `f` is called with."""
        known = FOUND.setdefault(f, {})
        if root not in known:
            walk = _EndFinder(f, root, self)
            walk.body(f.body, {}, NO_FACTS)
            known[root] = Reach(_negated(_furthest(walk.lows)), _furthest(walk.highs))
        return known[root]


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
            elif isinstance(s, (Load, Store, MatrixMove)):
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
    return combined(Ix(ix.const), [integers[symbol] for symbol, _ in ix.terms], [c for _, c in ix.terms])


def _known_floor(symbol: Sym, facts: IndexFacts) -> int | None:
    """The number that a symbol is at least in a branch."""
    return max((-(-ix.const // den) for ix, den in facts.lowers[symbol]
                if not ix.terms and isinstance(ix.const, int) and isinstance(den, int)), default=None)


def _negated(ends: Iterable[End]) -> tuple[End, ...]:
    return tuple([End(tuple([-ix for ix in end.limits]), end.floors) for end in ends])


def _furthest(ends: Iterable[End]) -> tuple[End, ...]:
    """Those that others do not make needless: an end that is never less, wherever this one is reached."""
    kept: dict[object, list[tuple[int, _Glance]]] = {}      # with the places where they stand
    found = list(_greatest_numbers(ends))
    for place, end in enumerate(found):
        glance = _Glance.of(end)
        alike = kept.setdefault(glance.exact, [])
        if not any(other.covers(glance) for _, other in alike):
            alike[:] = [(at, other) for at, other in alike if not glance.covers(other)]
            alike.append((place, glance))
    return tuple([found[place] for place in sorted(at for alike in kept.values() for at, _ in alike)])


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


class _Limit(NamedTuple):
    """A limit in parts: `exact` is what is a polynomial, or may be negative. `number` and `counts`, how many times it
    has symbols that are never negative, are integers."""
    exact: object
    number: int
    counts: Mapping[Sym, int]

    @staticmethod
    def of(limit: Ix) -> _Limit:
        number, rest = _parted(limit.const)
        counts, exact = {}, []
        for symbol, coefficient in limit.terms:
            count, symbolic = _parted(coefficient) if _is_plainly_nonnegative(symbol) else (0, coefficient)
            if count:
                counts[symbol] = count
            if symbolic != 0:
                exact.append((symbol, symbolic))
        return _Limit((rest, tuple(exact)), number, counts)

    def covers(self, other: _Limit) -> bool:
        """Whether it is never less. Of two with the same `exact` parts."""
        return (self.number >= other.number
                and all(self.counts.get(symbol, 0) >= n for symbol, n in other.counts.items())
                and all(n >= 0 for symbol, n in self.counts.items() if symbol not in other.counts))


class _Glance(NamedTuple):
    """An end as far as it is seen at a glance whether a proof of it, by any of its limits, is one of another. Two can
    be compared where they have the same `exact` parts."""
    exact: object
    limits: tuple[_Limit, ...]
    floors: Mapping[Sym, int]

    @staticmethod
    def of(end: End) -> _Glance:
        limits = tuple([_Limit.of(limit) for limit in end.limits])
        return _Glance(tuple([limit.exact for limit in limits]), limits, dict(end.floors))

    def covers(self, other: _Glance) -> bool:
        """Of two with the same `exact` parts."""
        return (all(own.covers(theirs) for own, theirs in zip(self.limits, other.limits))
                and all(other.floors.get(symbol, low - 1) >= low for symbol, low in self.floors.items()))


def _parted(size: Dim) -> tuple[int, Dim]:
    """(the number in it, the rest)."""
    if isinstance(size, int):
        return size, 0
    number = next((c for monomial, c in size.terms if not monomial), 0)
    return number, size - number


def _is_plainly_nonnegative(symbol: Sym) -> bool:
    return any(not low.terms and isinstance(low.const, int) and low.const >= 0 for low, _ in symbol.lowers)


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
