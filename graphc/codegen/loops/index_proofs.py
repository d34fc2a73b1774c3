"""What can be proved about index expressions: bounds, by elimination of symbols, and what holds inside of a branch.

A symbol is replaced by what bounds it, the newest first, until a size is left. Where sizes are not numbers, different
bounds may be the right ones. Most proofs take always the last bound, or always the first; of the others all are tried,
and most of what does not hold is refuted by trying some points first.
"""
from __future__ import annotations

from collections.abc import Iterable
from math import gcd

from graphc.codegen.loops.index import Bound, Ix, Sym, Term
from graphc.ir import dims
from graphc.ir.dims import Dim, Poly, exact_quotient, quotient_and_rest
from graphc.ir.size_proofs import SAMPLES, is_nonnegative, sampled, sign_of

UNBOUNDED = 1 << 62                 # stands for "nothing known" in ranges
Bounds = dict[Sym, tuple[Bound, ...]]


class IndexFacts:
    """Bounds of symbols that hold in one place only, inside a branch: symbol -> (Ix, den) as in `Sym`. points: values
    of symbols with which proofs are refuted; limits: what `uppers`
    has found; are_none: nothing is known besides what the symbols know.
    """
    __slots__ = ("uppers", "lowers", "points", "limits", "are_none")

    def __init__(self, uppers: Bounds | None = None, lowers: Bounds | None = None) -> None:
        self.uppers, self.lowers = uppers or {}, lowers or {}
        self.points: dict[tuple[Sym, int], int | None] = {}
        self.limits: dict[tuple[Term, ...], list[Dim]] = {}
        self.are_none = not self.uppers and not self.lowers

    def and_not_positive(self, ix: Ix) -> IndexFacts:
        """These facts, and ix <= 0."""
        if not ix.terms:
            return self
        symbol, coefficient = ix.terms[-1]
        rest = Ix(ix.const, ix.terms[:-1])
        if _is_positive(coefficient):
            return IndexFacts(_with(self.uppers, symbol, (-rest, coefficient)), self.lowers)
        if _is_positive(-coefficient):
            return IndexFacts(self.uppers, _with(self.lowers, symbol, (rest, -coefficient)))
        return self


def _with(bounds: Bounds, symbol: Sym, bound: Bound) -> Bounds:
    """`bounds` with another one; those that differ from it by a number only are replaced."""
    ix, den = bound
    kept = [(b, d) for b, d in bounds.get(symbol, ()) if d != den or b.terms != ix.terms
            or not isinstance(b.const, int) or not isinstance(ix.const, int)]
    return {**bounds, symbol: (*kept, bound)}


NO_FACTS = IndexFacts()


def at_most(ix: Ix, limit: Dim, facts: IndexFacts = NO_FACTS) -> bool:
    """Whether ix <= limit can be proved: eliminates symbols from the newest to the oldest (Fourier–Motzkin by
    substitution)."""
    excess = ix - limit
    if not excess.is_sized:
        return _is_never_positive(excess, facts)
    facts = IndexFacts() if facts is NO_FACTS else facts
    return (_is_straight(excess, facts, -1) or _is_straight(excess, facts, 0)
            or _is_at_most(excess, facts, set()))


def _is_straight(excess: Ix, facts: IndexFacts, which: int) -> bool:
    """Whether excess <= 0 is proved with the first (0) or the last (-1) bound of each symbol."""
    while excess.terms:
        simpler = no_less(excess, facts)
        if not simpler:
            return False
        excess, _ = simpler[which]
    return is_nonnegative(-excess.const)


def at_least(ix: Ix, limit: Dim, facts: IndexFacts = NO_FACTS) -> bool:
    """Whether ix >= limit can be proved."""
    return at_most(-ix, -limit, facts)


def _is_never_positive(excess: Ix, facts: IndexFacts) -> bool:
    """Whether excess <= 0 can be proved, of numbers: most proofs are found at once."""
    if not excess.terms:
        return is_nonnegative(-excess.const)
    for simpler in not_less(excess, facts):
        if _is_never_positive(simpler, facts):
            return True
    return False


def _is_at_most(excess: Ix, facts: IndexFacts, failed: set[Ix]) -> bool:
    """Whether excess <= 0 can be proved, of sizes. Different orders of bounds lead to the same expressions: `failed`
    has those that were tried."""
    if not excess.terms:
        return is_nonnegative(-excess.const)
    if excess in failed:
        return False
    if is_refuted(excess, facts):
        failed.add(excess)
        return False
    if any(_is_at_most(simpler, facts, failed) for simpler, _ in no_less(excess, facts)):
        return True
    choices = _choices(excess)
    if choices and all(_is_at_most(each, facts, failed) for each in choices):
        return True
    failed.add(excess)
    return False


def _choices(ix: Ix) -> list[Ix]:
    """The expressions of which `ix` is the greatest, where its newest symbol is such a minimum or maximum."""
    symbol, coefficient = ix.terms[-1]
    if not symbol.choices or sign_of(coefficient) != (-1 if symbol.is_least else 1):
        return []
    rest = Ix(ix.const, ix.terms[:-1])
    return [rest + item * coefficient for item in symbol.choices]


POINTS = 3 * SAMPLES                # with which a proof is refuted before it is tried


def is_refuted(excess: Ix, facts: IndexFacts) -> bool:
    """Whether all that is known of the symbols also allows excess > 0: it is so at a point that is tried."""
    return any(value is not None and value > 0 for value in (_at_point(excess, p, facts) for p in range(POINTS)))


def _at_point(ix: Ix, point: int, facts: IndexFacts) -> int | None:
    """The value at a point; None where the point does not meet what is known."""
    total = sampled(ix.const)[point % SAMPLES]
    for symbol, coefficient in ix.terms:
        value = _symbol_at(symbol, point, facts)
        if value is None:
            return None
        total += value * sampled(coefficient)[point % SAMPLES]
    return total


def _symbol_at(symbol: Sym, point: int, facts: IndexFacts) -> int | None:
    """A symbol at a point: its greatest value, its least, or one between, after the values of those before it."""
    key = symbol, point
    if key not in facts.points:
        facts.points[key] = _chosen(symbol, point, facts)
    return facts.points[key]


def _chosen(symbol: Sym, point: int, facts: IndexFacts) -> int | None:
    ends: list[int] = []
    for bounds, rounds_up in (((*symbol.lowers, *facts.lowers.get(symbol, ())), True),
                              ((*symbol.uppers, *facts.uppers.get(symbol, ())), False)):
        values = []
        for ix, den in bounds:
            value, divisor = _at_point(ix, point, facts), sampled(den)[point % SAMPLES]
            if value is None:
                return None
            values.append(-(-value // divisor) if rounds_up else value // divisor)
        if not values:
            return None
        ends.append(max(values) if rounds_up else min(values))
    least, greatest = ends
    if least > greatest:
        return None
    if symbol.choices:
        return greatest if symbol.is_least else least
    return (greatest, least, least + (greatest - least) * (symbol.id * 7 % 5) // 4)[point // SAMPLES]


def upper(ix: Ix) -> int:
    """The least number that can be proved to be no less; UNBOUNDED if none."""
    if not ix.terms:
        return ix.const if isinstance(ix.const, int) else _number_above(ix.const)
    return min((upper(simpler) for simpler in not_less(ix)), default=UNBOUNDED)


def lower(ix: Ix) -> int:
    """The greatest number that can be proved to be no more; -UNBOUNDED if none."""
    return -upper(-ix)


def uppers(ix: Ix, facts: IndexFacts = NO_FACTS) -> list[Dim]:
    """Sizes that can be proved to be no less, by all ways: which is the least may depend on the program's sizes. What
    is added to an index is added to them: they are found once for indices that differ by a size, and where no facts
    are known of its place once for all places."""
    if not ix.terms:
        return [ix.const]
    known = ix.terms[-1][0].limits if facts.are_none else facts.limits
    limits = known.get(ix.terms)
    if limits is None:
        limits = known[ix.terms] = _least(
            limit if times == 1 else limit // times for simpler, times in no_less(Ix(0, ix.terms), facts)
            for limit in uppers(simpler, facts))
    return limits if ix.const == 0 else [limit + ix.const for limit in limits]


def _least(sizes: Iterable[Dim]) -> list[Dim]:
    """Those that are not always at least as great as another."""
    kept: list[Dim] = []
    for size in dict.fromkeys(sizes):
        if not any(is_nonnegative(size - other) for other in kept):
            kept = [other for other in kept if not is_nonnegative(other - size)] + [size]
    return kept


def quotient_above(dim: Dim, divisor: Dim) -> Dim | None:
    """A size that dim / divisor, rounded down, does not exceed; None if none is found."""
    if isinstance(divisor, int):
        return dim // divisor
    quotient, rest = quotient_and_rest(dim, divisor)
    if is_nonnegative(-rest - 1):                       # as of n * divisor - 1
        return quotient - 1
    if is_nonnegative(divisor - 1 - rest):
        return quotient
    return dim if is_nonnegative(dim) else None


def _number_above(dim: Poly) -> int:
    """Few numbers are tried where no bound is known of the names: most such sizes are compared with 0 or 1."""
    known = dims.upper(dim)
    return known if known is not None else next((n for n in (-1, 0) if is_nonnegative(n - dim)), UNBOUNDED)


def _is_positive(dim: Dim) -> bool:
    return dim > 0 if isinstance(dim, int) else is_nonnegative(dim - 1)


def not_less(ix: Ix, facts: IndexFacts = NO_FACTS) -> list[Ix]:
    """Expressions without the newest symbol of `ix` that are never less than it."""
    return [simpler for simpler, times in no_less(ix, facts) if times == 1]


def no_less(ix: Ix, facts: IndexFacts = NO_FACTS) -> list[tuple[Ix, int]]:
    """Expressions without the newest symbol of `ix`, each with a number: as many times `ix` is not greater."""
    symbol, coefficient = ix.terms[-1]
    rest = Ix(ix.const, ix.terms[:-1])
    sign = coefficient if isinstance(coefficient, int) else sign_of(coefficient)
    if sign is None:
        return []
    if sign > 0:
        bounds = (*symbol.uppers, *facts.uppers.get(symbol, ()))
    else:
        bounds = (*symbol.lowers, *facts.lowers.get(symbol, ()))
    found = []
    for bound, den in bounds:
        factor = coefficient if den == 1 else exact_quotient(coefficient, den)
        if factor is not None:
            simpler = rest + bound * factor if bound.terms else Ix(rest.const + bound.const * factor, rest.terms)
            found.append((simpler, 1))
        elif symbol.sized and isinstance(den, int) and isinstance(coefficient, int):
            times = den // gcd(coefficient, den)
            found.append((rest * times + bound * (coefficient * times // den), times))
        if symbol.sized and sign > 0 and den != 1:      # rounded, by what is known of the dividend here
            limits = [quotient_above(limit, den) for limit in uppers(bound, facts)]
            found += [(rest + coefficient * limit, 1) for limit in limits if limit is not None]
    return found
