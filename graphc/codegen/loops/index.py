"""Affine index expressions over loop variables and integer parameters, and what can be proved about them.

Constants and coefficients are sizes: numbers, or polynomials over the sizes of a program that serves all of them.
"""
from __future__ import annotations

from collections.abc import Iterable
from math import gcd

from graphc.errors import InternalError
from graphc.ir import dims
from graphc.ir.dims import Dim, Poly, content, exact_quotient, quotient_and_rest
from graphc.ir.size_proofs import SAMPLES, is_nonnegative, sampled, sign_of

UNBOUNDED = 1 << 62                 # stands for "nothing known" in ranges
ELEMENTS = 1 << 47                  # more than any memory has: no offset of an element that exists is above it


class Sym:
    """An integer that exists at run time: a loop variable, a parameter, a minimum, a quotient.

    `uppers` and `lowers` hold (Ix, den): the symbol is <= (>=) Ix / den, exactly and at every moment; den >= 1. They
    mention older symbols only. The symbol is a multiple of `multiple`. `parents` are the symbols that its value
    depends on. `sized`: its bounds depend on sizes that are not numbers; then `choices` are the indices of which it is
    the least (`is_least`) or the greatest.
    """
    __slots__ = ("name", "id", "uppers", "lowers", "multiple", "parents", "sized", "choices", "is_least")

    def __init__(self, name: str, number: int, lowers: Iterable[Bound] = (), uppers: Iterable[Bound] = (),
                 multiple: int = 1, parents: Iterable[Sym] = ()) -> None:
        self.name, self.id, self.multiple = name, number, multiple
        self.lowers, self.uppers, self.parents = tuple(lowers), tuple(uppers), tuple(parents)
        self.sized: bool = _any_sized(self.lowers) or _any_sized(self.uppers) or any([s.sized for s in self.parents])
        self.choices: tuple[Ix, ...] = ()
        self.is_least = False

    def __repr__(self) -> str:
        return self.name


class Ix:
    """const + sum of coefficient * symbol; immutable. Sizes mix freely: `i * 8 + 3`, `i * T`."""
    __slots__ = ("const", "terms")

    def __init__(self, const: Dim = 0, terms: tuple[Term, ...] = ()) -> None:
        self.const, self.terms = const, terms           # terms: ascending symbol id, no zero coefficient

    @property
    def is_const(self) -> bool:
        return not self.terms

    @property
    def is_sized(self) -> bool:
        """Whether sizes that are not numbers have to do with it."""
        if isinstance(self.const, Poly):
            return True
        for symbol, coefficient in self.terms:
            if symbol.sized or isinstance(coefficient, Poly):
                return True
        return False

    def __add__(self, other: Ix | Dim) -> Ix:
        if not isinstance(other, Ix):
            return Ix(self.const + as_size(other), self.terms) if other != 0 else self
        if not other.terms:
            return Ix(self.const + other.const, self.terms)
        if not self.terms:
            return Ix(self.const + other.const, other.terms)
        return Ix(self.const + other.const, _merge(self.terms, other.terms))

    __radd__ = __add__

    def __mul__(self, factor: Ix | Dim) -> Ix:
        if not isinstance(factor, int):
            return _product(self, factor)
        if factor == 1:
            return self
        if factor == 0:
            return Ix()
        return self._times(factor)

    __rmul__ = __mul__

    def _times(self, factor: Dim) -> Ix:
        return Ix(self.const * factor, tuple([(s, c * factor) for s, c in self.terms]))

    def __neg__(self) -> Ix:
        return self * -1

    def __sub__(self, other: Ix | Dim) -> Ix:
        return self + (-other)

    def __rsub__(self, other: Dim) -> Ix:
        return -self + other

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (int, Poly)):
            return not self.terms and self.const == other
        return isinstance(other, Ix) and self.const == other.const and self.terms == other.terms

    def __hash__(self) -> int:
        return hash((self.const, self.terms))

    def __repr__(self) -> str:
        parts = [_term_text(s, c) for s, c in self.terms]
        if self.const != 0 or not parts:
            parts.append(str(self.const))
        return " + ".join(parts).replace("+ -", "- ")

    def divisor(self) -> int:
        """The greatest number known to divide the expression always; 0 for the constant 0."""
        return gcd(content(self.const), *[content(c) * s.multiple for s, c in self.terms])


Term = tuple[Sym, Dim]
Bound = tuple[Ix, Dim]
Bounds = dict[Sym, tuple[Bound, ...]]


def _any_sized(bounds: Iterable[Bound]) -> bool:
    for ix, _ in bounds:
        if ix.is_sized:
            return True
    return False


def as_ix(value: Ix | Dim) -> Ix:
    """`value` as an Ix; InternalError for anything that is not an integer, a size or an index expression."""
    if isinstance(value, Ix):
        return value
    if isinstance(value, Poly):
        return Ix(value)
    try:
        return Ix(value.__index__())
    except AttributeError:
        raise InternalError(f"an index must be an int or an Ix, got {value!r}", "loops") from None


def as_size(value: object) -> Dim:
    """`value` as a number or a size; InternalError for anything else."""
    if isinstance(value, (int, Poly)):
        return value
    raise InternalError(f"an index must be an int or an Ix, got {value!r}", "loops")


def linear(index: Iterable[Ix], strides: Iterable[Dim]) -> Ix:
    """sum of index * stride."""
    total = Ix()
    for ix, stride in zip(index, strides):
        total = total + ix * stride
    return total


class IndexFacts:
    """Bounds of symbols that hold in one place only, inside a branch: symbol -> (Ix, den) as in `Sym`. points: values
    of symbols with which proofs are refuted; quotients: what was found about (dividend, divisor); limits: what `uppers`
    has found.
    """
    __slots__ = ("uppers", "lowers", "points", "quotients", "limits")

    def __init__(self, uppers: Bounds | None = None, lowers: Bounds | None = None) -> None:
        self.uppers, self.lowers = uppers or {}, lowers or {}
        self.points: dict[tuple[Sym, int], int | None] = {}
        self.quotients: dict[tuple[Ix, Dim], list[Dim]] = {}
        self.limits: dict[Ix, list[Dim]] = {}

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
    return _is_at_most(excess, IndexFacts() if facts is NO_FACTS else facts, set())


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


def _choices(ix: Ix) -> list[Ix]:
    """The expressions of which `ix` is the greatest, where its newest symbol is such a minimum or maximum."""
    symbol, coefficient = ix.terms[-1]
    if not symbol.choices or sign_of(coefficient) != (-1 if symbol.is_least else 1):
        return []
    rest = Ix(ix.const, ix.terms[:-1])
    return [rest + item * coefficient for item in symbol.choices]


def at_least(ix: Ix, limit: Dim, facts: IndexFacts = NO_FACTS) -> bool:
    """Whether ix >= limit can be proved."""
    return at_most(-ix, -limit, facts)


def upper(ix: Ix) -> int:
    """The least number that can be proved to be no less; UNBOUNDED if none."""
    if not ix.terms:
        return ix.const if isinstance(ix.const, int) else _number_above(ix.const)
    return min((upper(simpler) for simpler in not_less(ix)), default=UNBOUNDED)


def lower(ix: Ix) -> int:
    """The greatest number that can be proved to be no more; -UNBOUNDED if none."""
    return -upper(-ix)


def uppers(ix: Ix, facts: IndexFacts = NO_FACTS) -> list[Dim]:
    """Sizes that can be proved to be no less, by all ways: which is the least may depend on the program's sizes."""
    if not ix.terms:
        return [ix.const]
    known = facts.limits.get(ix)
    if known is None:
        known = _least(limit if times == 1 else limit // times for simpler, times in no_less(ix, facts)
                       for limit in uppers(simpler, facts))
        if facts is not NO_FACTS:
            facts.limits[ix] = known
    return known


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


def depends_on(ix: Ix, symbol: Sym) -> bool:
    """Whether the value may change with `symbol`, directly or through the symbols it is made of."""
    return any(s is symbol or _descends(s, symbol) for s, _ in ix.terms)


def _descends(symbol: Sym, ancestor: Sym) -> bool:
    return any(p is ancestor or _descends(p, ancestor) for p in symbol.parents)


def _merge(a: tuple[Term, ...], b: tuple[Term, ...]) -> tuple[Term, ...]:
    sums = dict(a)
    for symbol, coefficient in b:
        sums[symbol] = sums.get(symbol, 0) + coefficient
    return tuple(sorted([item for item in sums.items() if item[1] != 0], key=_by_age))


def _by_age(term: Term) -> int:
    return term[0].id


def _product(a: Ix, b: Ix | Poly) -> Ix:
    if isinstance(b, Poly):
        return a._times(b)
    if not b.terms:
        return a * b.const
    if not a.terms:
        return b * a.const
    raise InternalError(f"({a}) * ({b}) is not affine; f.product makes a new index of it", "loops")


def _term_text(symbol: Sym, coefficient: Dim) -> str:
    if isinstance(coefficient, Poly):
        return f"{symbol.name}*({coefficient})"
    if coefficient == 1:
        return symbol.name
    return (f"{symbol.name}*{coefficient}" if coefficient > 0 else f"-{symbol.name}*{-coefficient}" if coefficient != -1
            else f"-{symbol.name}")
