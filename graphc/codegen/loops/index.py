"""Affine index expressions over loop variables and integer parameters.

Constants and coefficients are sizes: numbers, or polynomials over the sizes of a program that serves all of them.
"""
from __future__ import annotations

from collections.abc import Iterable
from math import gcd

from graphc.errors import InternalError
from graphc.ir.dims import Dim, Poly, content

ELEMENTS = 1 << 47                  # more than any memory has: no offset of an element that exists is above it


class Sym:
    """An integer that exists at run time: a loop variable, a parameter, a minimum, a quotient.

    `uppers` and `lowers` hold (Ix, den): the symbol is <= (>=) Ix / den, exactly and at every moment; den >= 1. They
    mention older symbols only. The symbol is a multiple of `multiple`. `parents` are the symbols that its value
    depends on. `sized`: its bounds depend on sizes that are not numbers. `choices`: the indices of which it is the
    least (`is_least`) or the greatest. `rest`: what a remainder is exactly, of what is divided and its quotient, the
    newest term. `limits` and `numbers`: what was found to be no less than sums of which it is the newest symbol,
    whatever else is known; `points`: values with which proofs are refuted; `far`: its value where sizes are at their
    greatest, and whether it is possible.
    """
    __slots__ = ("name", "id", "uppers", "lowers", "multiple", "parents", "sized", "choices", "is_least", "rest",
                 "limits", "numbers", "points", "far")

    def __init__(self, name: str, number: int, lowers: Iterable[Bound] = (), uppers: Iterable[Bound] = (),
                 multiple: int = 1, parents: Iterable[Sym] = ()) -> None:
        self.name, self.id, self.multiple = name, number, multiple
        self.lowers, self.uppers, self.parents = tuple(lowers), tuple(uppers), tuple(parents)
        self.sized: bool = _any_sized(self.lowers) or _any_sized(self.uppers) or any([s.sized for s in self.parents])
        self.choices: tuple[Ix, ...] = ()
        self.is_least = False
        self.rest: Ix | None = None
        self.limits: dict[tuple[Term, ...], list[Dim]] = {}
        self.numbers: dict[Ix, int] = {}
        self.points: Points | None = None
        self.far: tuple[int, bool] | None = None

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
Points = tuple[tuple[int, ...], int]    # values at some points, and which of these are possible, as bits


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
    return combined(Ix(), index, strides)


def undivided(ix: Ix) -> Ix:
    """The same without quotients and remainders that come to a multiple of what was divided: of rows that lie evenly,
    whatever the dims that they are made of."""
    for symbol, coefficient in reversed(ix.terms):
        if symbol.rest is not None:
            quotient = symbol.rest.terms[-1][0]
            whole = ix + (symbol.rest - Ix(0, ((symbol, 1),))) * coefficient
            if not any(s is quotient for s, _ in whole.terms):
                return undivided(whole)
    return ix


def depends_on(ix: Ix, symbol: Sym) -> bool:
    """Whether the value may change with `symbol`, directly or through the symbols it is made of."""
    return any(s is symbol or _descends(s, symbol) for s, _ in ix.terms)


def _descends(symbol: Sym, ancestor: Sym) -> bool:
    return any(p is ancestor or _descends(p, ancestor) for p in symbol.parents)


def combined(start: Ix, index: Iterable[Ix], factors: Iterable[Dim]) -> Ix:
    """start + sum of index * factor, at once: most indices are made by this."""
    const, sums = start.const, dict(start.terms)
    for ix, factor in zip(index, factors):
        if ix.const != 0:
            const = const + ix.const * factor
        for symbol, coefficient in ix.terms:
            product = coefficient * factor
            sums[symbol] = sums[symbol] + product if symbol in sums else product
    return Ix(const, _sorted(sums))


def _merge(a: tuple[Term, ...], b: tuple[Term, ...]) -> tuple[Term, ...]:
    if a[-1][0].id < b[0][0].id:
        return a + b
    sums = dict(a)
    for symbol, coefficient in b:
        sums[symbol] = sums[symbol] + coefficient if symbol in sums else coefficient
    return _sorted(sums)


def _sorted(sums: dict[Sym, Dim]) -> tuple[Term, ...]:
    kept = [item for item in sums.items() if item[1] != 0]
    if len(kept) > 1:
        kept.sort(key=_by_age)
    return tuple(kept)


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
