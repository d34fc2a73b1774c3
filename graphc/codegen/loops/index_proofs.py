"""What can be proved about index expressions: bounds, by elimination of symbols, and what holds inside of a branch.

A symbol is replaced by what bounds it, the newest first, until a size is left. Where sizes are not numbers, different
bounds may be the right ones. Most proofs take always the last bound; of the others all are tried, and most of what does
not hold is refuted by trying some points first.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import gcd

from graphc.codegen.loops.index import Bound, Ix, Points, Sym, Term, combined
from graphc.ir import dims
from graphc.ir.dims import Dim, Poly, exact_quotient, quotient_and_rest
from graphc.ir.quotients import unrounded
from graphc.ir.size_proofs import SAMPLES, far, is_nonnegative, sampled, sign_of

UNBOUNDED = 1 << 62                 # stands for "nothing known" in ranges
TIMES = 2                           # as great as another is far greater
Bounds = dict[Sym, tuple[Bound, ...]]


class IndexFacts:
    """Bounds of symbols that hold in one place only, inside a branch: symbol -> (Ix, den) as in `Sym`. points: values
    of symbols with which proofs are refuted; limits: what `uppers` has found; first: the oldest symbol that something
    is known of; narrower: facts made of these and another one; proofs: of which expressions it was asked whether they
    are at most 0, with the answers.
    """
    __slots__ = ("uppers", "lowers", "points", "limits", "first", "narrower", "proofs")

    def __init__(self, uppers: Bounds | None = None, lowers: Bounds | None = None) -> None:
        self.uppers, self.lowers = uppers or {}, lowers or {}
        self.points: dict[Sym, Points] = {}
        self.limits: dict[tuple[Term, ...], list[Dim]] = {}
        self.first = min([symbol.id for bounds in (self.uppers, self.lowers) for symbol in bounds], default=UNBOUNDED)
        self.narrower: dict[Ix, IndexFacts] = {}
        self.proofs: dict[Ix, bool] = {}

    def limit(self, symbol: Sym, most: int) -> None:
        """From now on symbol <= most, a parameter of a function of which nothing was asked yet."""
        self.uppers[symbol] = ((Ix(most), 1),)
        self.first = min(self.first, symbol.id)

    def and_not_positive(self, ix: Ix) -> IndexFacts:
        """These facts, and ix <= 0."""
        if not ix.terms:
            return self
        if ix not in self.narrower:
            self.narrower[ix] = self._and_not_positive(ix)
        return self.narrower[ix]

    def _and_not_positive(self, ix: Ix) -> IndexFacts:
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
    if not facts.uppers and not facts.lowers and grows(excess):
        return False
    facts = IndexFacts() if facts is NO_FACTS else facts
    if excess not in facts.proofs:
        # most holds, and most of that is straight; of what does not hold nearly all is refuted
        facts.proofs[excess] = _is_straight(excess, facts) or (
            not is_refuted(excess, facts) and _is_at_most(excess, facts, set()))
    return facts.proofs[excess]


def _is_straight(excess: Ix, facts: IndexFacts) -> bool:
    """Whether excess <= 0 is proved with the last bound of each symbol."""
    while excess.terms:
        bounds = reversed(_bounds_of_newest(excess, facts))
        simpler = next(filter(None, (_with_bound(excess, bound, facts) for bound in bounds)), None)
        if simpler is None:
            return False
        excess, _ = simpler[-1]
    return is_nonnegative(-excess.const)


def at_least(ix: Ix, limit: Dim, facts: IndexFacts = NO_FACTS) -> bool:
    """Whether ix >= limit can be proved."""
    return at_most(-ix, -limit, facts)


def _is_never_positive(excess: Ix, facts: IndexFacts) -> bool:
    """Whether excess <= 0 can be proved, of numbers. Of several bounds those that some point refutes are not followed:
    there may be as many ways as there are orders of bounds."""
    if not excess.terms:
        return is_nonnegative(-excess.const)
    coefficient, rest = excess.terms[-1][1], Ix(excess.const, excess.terms[:-1])
    simpler: list[Ix] = []
    for bound, den in _bounds_of_newest(excess, facts):
        factor = coefficient if den == 1 else exact_quotient(coefficient, den)
        if factor is not None:
            simpler.append(rest + bound * factor)
    if any(not is_refuted(each, facts) and _is_never_positive(each, facts) for each in simpler[:-1]):
        return True
    if simpler and _is_never_positive(simpler[-1], facts):
        return True
    choices = _choices(excess)
    return bool(choices) and not is_refuted(excess, facts) and all(_is_never_positive(c, facts) for c in choices)


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


ROUNDS = 3                          # of points: with the greatest values of symbols, the least, and some between
NO_POINTS: Points = ((0,) * (ROUNDS * SAMPLES), 0)


def is_refuted(excess: Ix, facts: IndexFacts) -> bool:
    """Whether all that is known of the symbols also allows excess > 0: it is so at a point that is tried."""
    values, known = _at_points(excess, facts)
    return any([value > 0 and known >> point & 1 for point, value in enumerate(values)])


def _at_points(ix: Ix, facts: IndexFacts) -> Points:
    """The values at all points, and of which points these meet what is known."""
    values, known = sampled(ix.const) * ROUNDS, (1 << ROUNDS * SAMPLES) - 1
    for symbol, coefficient in ix.terms:
        theirs, valid = _symbol_at_points(symbol, facts)
        known &= valid
        if isinstance(coefficient, int):
            values = tuple([a + coefficient * b for a, b in zip(values, theirs)])
        else:
            values = tuple([a + c * b for a, b, c in zip(values, theirs, sampled(coefficient) * ROUNDS)])
    return values, known


def _symbol_at_points(symbol: Sym, facts: IndexFacts) -> Points:
    """A symbol at all points: its greatest value, its least, or one between, after the values of those before it."""
    if symbol.id < facts.first:                         # facts of newer symbols change nothing
        if symbol.points is None:
            symbol.points = _chosen(symbol, NO_FACTS)
        return symbol.points
    if symbol not in facts.points:
        facts.points[symbol] = _chosen(symbol, facts)
    return facts.points[symbol]


def _chosen(symbol: Sym, facts: IndexFacts) -> Points:
    above, below = (*symbol.uppers, *facts.uppers.get(symbol, ())), (*symbol.lowers, *facts.lowers.get(symbol, ()))
    most, fits = _quotients_at_points(above, facts, 1)
    least, reaches = _quotients_at_points(below, facts, -1)
    if not most or not least:
        return NO_POINTS
    values, known = list[int](), 0
    for point, (low, high) in enumerate(zip(least, most)):
        if symbol.choices:
            chosen = high if symbol.is_least else low
        else:
            chosen = (high, low, low + (high - low) * (symbol.id * 7 % 5) // 4)[point // SAMPLES]
        values.append(chosen)
        known |= (low <= high) << point
    return tuple(values), known & fits & reaches


def _quotients_at_points(bounds: Iterable[Bound], facts: IndexFacts, sign: int) -> Points:
    """The least of bounds above (`sign` 1) or the greatest of bounds below (-1), as whole numbers."""
    found: tuple[int, ...] = ()
    known = -1
    for ix, den in bounds:
        dividends, valid = _at_points(ix, facts)
        known &= valid
        divisors = (den,) * len(dividends) if isinstance(den, int) else sampled(den) * ROUNDS
        values = tuple([sign * (sign * n // d) for n, d in zip(dividends, divisors)])
        found = tuple(map(min if sign > 0 else max, found, values)) if found else values
    return found, known


def grows(ix: Ix, limit: int = 0) -> bool:
    """Whether all that is known of the symbols, but for branches, allows a value above the limit: it is so where all
    sizes are at their greatest. Seen at once, and mostly so of what does not hold."""
    value, is_known = _far_value(ix)
    return is_known and value > limit


def _far_value(ix: Ix) -> tuple[int, bool]:
    """The value at that point, and whether it is a possible one."""
    value, is_known = far(ix.const), True
    for symbol, coefficient in ix.terms:
        if symbol.far is None:
            symbol.far = _far_symbol(symbol)
        theirs, valid = symbol.far
        value += (coefficient if isinstance(coefficient, int) else far(coefficient)) * theirs
        is_known = is_known and valid
    return value, is_known


def _far_symbol(symbol: Sym) -> tuple[int, bool]:
    """The greatest value of a symbol there; of a maximum the least."""
    above, below = ([(*_far_value(ix), far(den)) for ix, den in bounds] for bounds in (symbol.uppers, symbol.lowers))
    if not above or not below or not all([valid and den > 0 for _, valid, den in (*above, *below)]):
        return 0, False
    most, least = min([value // den for value, _, den in above]), max([-(-value // den) for value, _, den in below])
    return least if symbol.choices and not symbol.is_least else most, least <= most


def upper(ix: Ix) -> int:
    """The least number that can be proved to be no less; UNBOUNDED if none."""
    if ix.is_sized and grows(ix, UNBOUNDED):
        return UNBOUNDED
    return _upper(ix)


def _upper(ix: Ix) -> int:
    if not ix.terms:
        return ix.const if isinstance(ix.const, int) else _number_above(ix.const)
    known = ix.terms[-1][0].numbers
    if ix not in known:
        known[ix] = min((_upper(simpler) for simpler in not_less(ix)), default=UNBOUNDED)
    return known[ix]


def lower(ix: Ix) -> int:
    """The greatest number that can be proved to be no more; -UNBOUNDED if none."""
    return -upper(-ix)


def uppers(ix: Ix, facts: IndexFacts = NO_FACTS) -> list[Dim]:
    """Sizes that can be proved to be no less, by all ways: which is the least may depend on the program's sizes. What
    is added to an index is added to them: they are found once for indices that differ by a size, and once for all
    places where nothing else is known of its symbols."""
    if not ix.terms:
        return [ix.const]
    newest = ix.terms[-1][0]
    known = newest.limits if newest.id < facts.first else facts.limits
    limits = known.get(ix.terms)
    if limits is None:
        limits = known[ix.terms] = _least(
            limit if times == 1 else limit // times for simpler, times in no_less(Ix(0, ix.terms), facts)
            for limit in uppers(simpler, facts))
    return limits if ix.const == 0 else [limit + ix.const for limit in limits]


def _least(sizes: Iterable[Dim]) -> list[Dim]:
    """Those that are not always at least as great as another. What is far greater for all sizes that are tried is left
    out without a proof: a bound more would not be wrong, but all that is made of it takes its time, too."""
    kept: list[tuple[Dim, tuple[int, ...]]] = []
    for size in dict.fromkeys(sizes):
        values = sampled(size)
        if not any(_is_no_less(size, values, *other) for other in kept):
            kept = [other for other in kept if not _is_no_less(*other, size, values)] + [(size, values)]
    return [size for size, _ in kept]


def _is_no_less(size: Dim, values: tuple[int, ...], other: Dim, others: tuple[int, ...]) -> bool:
    """Whether a size is far greater than another at all points, or is seen to be never less. Of two that are nearly
    equal, one may have the form with which a proof goes on."""
    pairs = list(zip(values, others))
    return all([a > max(b, TIMES * b) for a, b in pairs]) or (
        all([a >= b for a, b in pairs]) and is_nonnegative(size - other))


def quotient_above(dim: Dim, divisor: Dim) -> Dim | None:
    """A size that dim / divisor, rounded down, does not exceed; None if none is found."""
    if isinstance(divisor, int):
        return dim // divisor
    for size in dict.fromkeys((dim, unrounded(dim))):
        quotient, rest = quotient_and_rest(size, divisor)
        if is_nonnegative(-rest - 1):                   # as of n * divisor - 1
            return quotient - 1
        if is_nonnegative(divisor - 1 - rest):
            return quotient
    return dim if is_nonnegative(dim) else None


def _number_above(dim: Poly) -> int:
    """Few numbers are tried where no bound is known of the names: most such sizes are compared with 0 or 1."""
    known = dims.upper(dim)
    if known is not None:
        return known
    most = max(sampled(dim))
    return next((n for n in (-1, 0) if n >= most and is_nonnegative(n - dim)), UNBOUNDED)


def _is_positive(dim: Dim) -> bool:
    return dim > 0 if isinstance(dim, int) else is_nonnegative(dim - 1)


def not_less(ix: Ix, facts: IndexFacts = NO_FACTS) -> Iterator[Ix]:
    """Expressions without the newest symbol of `ix` that are never less than it."""
    return (simpler for simpler, times in no_less(ix, facts) if times == 1)


def no_less(ix: Ix, facts: IndexFacts = NO_FACTS) -> Iterator[tuple[Ix, int]]:
    """Expressions without the newest symbol of `ix`, each with a number: as many times `ix` is not greater."""
    for bound in _bounds_of_newest(ix, facts):
        yield from _with_bound(ix, bound, facts)


def _bounds_of_newest(ix: Ix, facts: IndexFacts) -> tuple[Bound, ...]:
    """What bounds the newest symbol on the side on which `ix` is great."""
    symbol, coefficient = ix.terms[-1]
    sign = coefficient if isinstance(coefficient, int) else sign_of(coefficient)
    if sign is None:
        return ()
    if sign > 0:
        return (*symbol.uppers, *facts.uppers.get(symbol, ()))
    return (*symbol.lowers, *facts.lowers.get(symbol, ()))


def _with_bound(ix: Ix, limit: Bound, facts: IndexFacts) -> list[tuple[Ix, int]]:
    """As `no_less`, with one bound of the newest symbol."""
    (symbol, coefficient), (bound, den) = ix.terms[-1], limit
    rest, found = Ix(ix.const, ix.terms[:-1]), list[tuple[Ix, int]]()
    factor = coefficient if den == 1 else exact_quotient(coefficient, den)
    if factor is not None:
        found.append((combined(rest, (bound,), (factor,)) if bound.terms else rest + bound.const * factor, 1))
    elif symbol.sized and isinstance(den, int) and isinstance(coefficient, int):
        times = den // gcd(coefficient, den)
        found.append((rest * times + bound * (coefficient * times // den), times))
    if den != 1 and symbol.sized and sign_of(coefficient) == 1:     # rounded, by what is known of the dividend here
        limits = [quotient_above(size, den) for size in uppers(bound, facts)]
        found += [(rest + coefficient * size, 1) for size in limits if size is not None]
    return found
