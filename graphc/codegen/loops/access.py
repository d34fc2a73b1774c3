"""Which elements a load or store may touch, also as seen by the caller of a function."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphc.codegen.loops.conditions import facts_of
from graphc.codegen.loops.index import Ix, Sym
from graphc.codegen.loops.index_proofs import NO_FACTS, IndexFacts, not_less
from graphc.codegen.loops.loop_ir import (
    Body, Call, Compute, For, FunctionIR, If, Load, Parallel, Root, Store, Val, View, While, bodies)
from graphc.errors import Unsized
from graphc.ir.dims import static_dim
from graphc.ir.size_proofs import sign_of


@dataclass(frozen=True)
class Access:
    """`index` into `view`; along the last axis it reaches further by at most the least of `reach`."""
    view: View
    index: tuple[Ix, ...]
    reach: tuple[Ix, ...]

    def offset(self) -> Ix:
        return self.view.at(self.index)

    def lows(self) -> list[Ix]:
        """Each is not greater than any element offset touched."""
        return self._ends(negative=True)

    def highs(self) -> list[Ix]:
        """Each is not less than any element offset touched."""
        return self._ends(negative=False)

    def _ends(self, negative: bool) -> list[Ix]:
        stride = self.view.strides[-1] if self.index else 0
        sign = stride if isinstance(stride, int) else sign_of(stride)
        if sign is None:
            raise Unsized(f"the sign of the stride {stride} is not known")
        if (sign < 0) is not negative or stride == 0:
            return [self.offset()]
        return [self.offset() + r * stride for r in self.reach]

    def __str__(self) -> str:
        start = "" if self.view.start == 0 else f" from {self.view.start}"
        return f"{self.view.name}[{', '.join(map(str, self.index))}]{start}"


@dataclass(frozen=True)
class AccessRange:
    """Element offsets of a root that a callee touches, in terms of its caller: an Access by its ends only."""
    view: View
    least: list[Ix]
    greatest: list[Ix]

    def lows(self) -> list[Ix]:
        return self.least

    def highs(self) -> list[Ix]:
        return self.greatest

    def with_ends(self, least: Ix, greatest: Ix) -> AccessRange:
        """Together with another range whose ends differ from these by numbers."""
        return AccessRange(self.view, [min(self.least[0], least, key=_number)],
                           [max(self.greatest[0], greatest, key=_number)])

    def moved(self, root: Root, start: Ix) -> AccessRange:
        """The same seen from memory `root`, where the callee's root begins at `start`."""
        view = View(root, (0,), (1,), start + 1)        # a start that is not 0: the ends decide
        return AccessRange(view, [start + ix for ix in self.least], [start + ix for ix in self.greatest])

    def __str__(self) -> str:
        return (f"{self.view.name}[{self.least[0]} … {self.greatest[0]}]" if self.least and self.greatest
                else self.view.name)


def _number(ix: Ix) -> int:
    return static_dim(ix.const)


def accesses_of(s: Load | Store, definitions: dict[int, Compute]) -> Access:
    """What a load or store touches; a mask made by tail_mask, also conjoined with others, limits the reach."""
    lanes = s.dst.lanes if isinstance(s, Load) else s.value.lanes
    reach = [Ix(lanes - 1)]
    if s.mask is not None:
        reach += [count - 1 for count in _counts(s.mask, definitions)]
    return Access(s.view, s.index, tuple(reach))


def _counts(mask: Val, definitions: dict[int, Compute]) -> Iterator[Ix]:
    s = definitions.get(mask.id)
    if s is None:
        return
    if s.op == "tail_mask":
        yield s.attr
    if s.op == "and":
        for part in s.args:
            yield from _counts(part, definitions)


def parameter_accesses(f: FunctionIR, root: Root, integers: dict[Sym, Ix]) -> list[AccessRange]:
    """Ranges of the parameter `root` that `f` touches when its integer parameters are `integers`."""
    found: dict[object, AccessRange] = {}
    for view, least, greatest in _ranges(f, root, f.body, {}, NO_FACTS):
        if len(least) == len(greatest) == 1 and isinstance(least[0].const, int) and isinstance(greatest[0].const, int):
            key: object = least[0].terms, greatest[0].terms
            other = found.get(key)
            found[key] = AccessRange(view, least, greatest) if other is None else other.with_ends(least[0], greatest[0])
        else:
            found[len(found)] = AccessRange(view, least, greatest)
    return [AccessRange(r.view, [_substituted(ix, integers) for ix in r.least],
                        [_substituted(ix, integers) for ix in r.greatest]) for r in found.values()]


def _ranges(f: FunctionIR, root: Root, statements: Body, definitions: dict[int, Compute],
            facts: IndexFacts) -> Iterator[tuple[View, list[Ix], list[Ix]]]:
    keep = set(f.params)
    for s in statements:
        if type(s) is Compute:
            definitions[s.dst.id] = s
        elif isinstance(s, (Load, Store)):
            if s.view.root is root:
                a = accesses_of(s, definitions)
                yield s.view, _least(a.lows(), keep, facts), _greatest(a.highs(), keep, facts)
        elif type(s) is Call:
            yield from _inner_ranges(s, root, keep, facts)
        elif type(s) is If:
            for inner, holds in ((s.then, True), (s.otherwise, False)):
                yield from _ranges(f, root, inner, definitions, facts_of(s.condition, holds, definitions, facts))
        elif type(s) in (For, While, Parallel) and not (type(s) is For and s.trips() == 0):
            for inner in bodies(s):
                yield from _ranges(f, root, inner, definitions, facts)


def _inner_ranges(s: Call, root: Root, keep: set[Sym], facts: IndexFacts) -> Iterator[tuple[View, list[Ix], list[Ix]]]:
    for given, wanted in zip(s.views, s.callee.views):
        if given.root is root:
            for r in parameter_accesses(s.callee, wanted.root, dict(zip(s.callee.params, s.ints))):
                r = r.moved(root, given.start)
                yield given, _least(r.lows(), keep, facts), _greatest(r.highs(), keep, facts)


def _greatest(candidates: list[Ix], keep: set[Sym], facts: IndexFacts) -> list[Ix]:
    """Expressions in the symbols `keep` only, each not less than the offsets."""
    return list(dict.fromkeys(done for ix in candidates for done in _eliminated(ix, keep, facts)))


def _least(candidates: list[Ix], keep: set[Sym], facts: IndexFacts) -> list[Ix]:
    return [-ix for ix in _greatest([-ix for ix in candidates], keep, facts)]


def _eliminated(ix: Ix, keep: set[Sym], facts: IndexFacts) -> Iterator[Ix]:
    if not ix.terms or ix.terms[-1][0] in keep:
        yield ix
        return
    for simpler in not_less(ix, facts):
        yield from _eliminated(simpler, keep, facts)


def _substituted(ix: Ix, integers: dict[Sym, Ix]) -> Ix:
    total = Ix(ix.const)
    for symbol, coefficient in ix.terms:
        total = total + integers[symbol] * coefficient
    return total
