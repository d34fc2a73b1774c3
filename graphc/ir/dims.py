"""Sizes of dimensions: numbers, and polynomials over names.

A name is a plain `str` while nothing is known of it. To compile one program for all its sizes, a graph is opened:
each name becomes a `SizeName`, which has bounds and a typical value. Rounded quotients, maxima and minima of sizes are
atoms of polynomials as names are (`ir/size_atoms.py`). A comparison is decided by a proof (`ir/size_proofs.py`); one
that holds for some sizes within the bounds and not for others is `Unsized`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from math import gcd, prod
from typing import Any, TypeVar, cast, overload

import numpy as np

from graphc.errors import GraphError, InternalError, Unsized
from graphc.ir.no_number import NoNumber, unknown
from graphc.ir.size_atoms import (
    NO_BOUND, Atom, Largest, Monomial, OneOf, Quotient, SizeName, Smallest, Term, lowest, term_order, term_text,
    without)
from graphc.ir.size_proofs import is_nonnegative
from graphc.once import once_property
from graphc.records import dataclass

USUAL = 64                          # what a named dimension is taken to be where nothing is known of it
CACHED, MOST_KNOWN = 1 << 14, 1 << 16       # sums and quotients, and polynomials, that are kept
TERMS = 128                         # of a dimension: products of shapes multiply the numbers of terms
KNOWN: dict[tuple[Term, ...], Poly] = {}


@dataclass(frozen=True)
class Poly(NoNumber):
    """A polynomial with integer coefficients over dimension names; never constant (that is an int)."""
    terms: tuple[Term, ...]

    def __new__(cls, terms: tuple[Term, ...]) -> Poly:
        """One object for equal ones, as long as few are known: proofs make the same again and again."""
        found = KNOWN.get(terms)
        if found is None:
            if len(KNOWN) >= MOST_KNOWN:
                KNOWN.clear()
            found = super().__new__(cls)
            found.__dict__["terms"] = terms
            KNOWN[terms] = found
        return found

    def __init__(self, terms: tuple[Term, ...]) -> None: ...        # it has them

    def __eq__(self, other: Any) -> bool:
        """Without names of the module, which may be gone by then."""
        return self is other or (other.__class__ is self.__class__ and bool(self.terms == other.terms))

    @staticmethod
    def of(terms: Iterable[Term]) -> Dim:
        """The sum of the terms, in the order of a polynomial; GraphError if they are too many."""
        merged: dict[Monomial, int] = {}
        for monomial, coefficient in terms:
            merged[monomial] = merged.get(monomial, 0) + coefficient
        kept = {m: c for m, c in merged.items() if c}
        if len(kept) > TERMS:
            raise GraphError(f"a symbolic dimension has at most {TERMS} terms, this has {len(kept)}; give some of its "
                             "names as ints")
        if len(kept) > 1:
            return _known(tuple(sorted(kept.items(), key=term_order)))
        return kept.get((), 0) if not kept or () in kept else _known(tuple(kept.items()))

    def __hash__(self) -> int:
        found: int | None = self.__dict__.get("hash")
        if found is None:
            found = self.__dict__["hash"] = hash(self.terms)
        return found

    def __reduce__(self) -> tuple[type[Poly], tuple[tuple[Term, ...]]]:
        """Without the hash, which another process has otherwise."""
        return Poly, (self.terms,)

    def __add__(self, other: Dim) -> Dim:
        if isinstance(other, Poly):
            return _sum(self, other)
        if not isinstance(other, SIZES):
            return NotImplemented
        return self._plus(int(other)) if other else self

    __radd__ = __add__

    def _plus(self, number: int) -> Poly:
        """The number is the last term, if there is one."""
        *rest, (monomial, c) = self.terms
        if monomial:
            return _known((*self.terms, ((), number)))
        return _known((*rest, ((), c + number)) if c + number else tuple(rest))

    def __neg__(self) -> Poly:
        return self._times(-1)

    def __sub__(self, other: Dim) -> Dim:
        return _sum(self, other._times(-1)) if isinstance(other, Poly) else self + other * -1

    def __rsub__(self, other: int) -> Dim:
        return self * -1 + other

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            return self if other == 1 else self._times(other) if other else 0
        if not isinstance(other, SIZES):
            if isinstance(other, (float, np.floating)):
                raise unknown(f"{self} * {other}")
            return NotImplemented
        return Poly.of([(tuple(sorted(m + n)), c * d) for m, c in _terms(self) for n, d in _terms(other)])

    __rmul__ = __mul__

    def _times(self, number: int) -> Poly:
        """Kept with the polynomial: proofs ask for the same products again and again, most for the negative."""
        kept: dict[int, Poly] = self.__dict__.setdefault("multiples", {})
        found = kept.get(number)
        if found is None:
            found = kept[number] = _known(tuple([(m, c * number) for m, c in self.terms]))
        return found

    def __floordiv__(self, other: Dim) -> Dim:
        quotient = exact_quotient(self, other)
        if quotient is None and isinstance(other, int):
            quotient = _rounded_quotient(self, other)
        if quotient is None:
            raise unknown(f"{self} // {other}")
        return quotient

    def __mod__(self, other: Dim) -> Dim:
        if exact_quotient(self, other) is not None:
            return 0
        if self.is_open and isinstance(other, int):
            return self - (self // other) * other
        raise unknown(f"{self} % {other}")

    def __lt__(self, other: Dim) -> bool:
        return not self >= other

    def __gt__(self, other: Dim) -> bool:
        return not self <= other

    def __le__(self, other: Dim) -> bool:
        return _decided(other - self, f"{self} <= {other}")

    def __ge__(self, other: Dim) -> bool:
        return _decided(self - other, f"{self} >= {other}")

    def __bool__(self) -> bool:
        return not self.is_open or _decided(self - 1, f"{self} > 0")

    @once_property
    def is_open(self) -> bool:
        """Whether bounds are known of all its names."""
        return all(isinstance(name, Atom) and name.is_open for monomial, _ in self.terms for name in monomial)

    @once_property
    def low(self) -> int:
        """A bound below all values; names are at least 0, or their own bound."""
        return lowest(self.terms)

    @once_property
    def high(self) -> int | None:
        """A bound above all values, None if none is known."""
        least = lower(-self)
        return None if least <= -NO_BOUND else -least

    @once_property
    def typical(self) -> int:
        """The value where all names have their typical ones; a plain name has the usual one."""
        return sum([c * prod([name.typical if isinstance(name, Atom) else USUAL for name in m]) for m, c in self.terms])

    def evaluated(self, values: dict[Atom, int], sizes: Mapping[str, int]) -> int:
        """The value where the names have these sizes; `values`: of atoms, each computed once."""
        total = 0
        for monomial, product in self.terms:
            for name in cast(tuple[Atom, ...], monomial):
                value = values.get(name)
                if value is None:
                    value = values[name] = name.evaluated(values, sizes)
                product *= value
            total += product
        return total

    @property
    def atoms(self) -> frozenset[str]:
        """What the terms are products of."""
        return frozenset(name for monomial, _ in self.terms for name in monomial)

    @property
    def names(self) -> frozenset[str]:
        """The names that the value depends on."""
        found: set[str] = set()
        for atom in self.atoms:
            parts = atom.parts if isinstance(atom, Atom) else ()
            found |= frozenset().union(*(d.names for d in parts if isinstance(d, Poly))) if parts else {atom}
        return frozenset(found)

    def __str__(self) -> str:
        text = " + ".join(term_text(m, c) for m, c in self.terms)
        return text.replace("+ -", "- ")

    __repr__ = __str__


def _known(terms: tuple[Term, ...]) -> Poly:
    """The polynomial of sorted terms; this way where it is mostly known, as a class takes its time to be called."""
    found = KNOWN.get(terms)
    return Poly(terms) if found is None else found


SIZES = (int, np.integer, Poly)
Dim = int | Poly
Dims = tuple[Dim, ...]              # a shape
Sizes = tuple[int, ...]             # a shape without names
Size = TypeVar("Size", int, Dim, covariant=True)        # numbers stay numbers


def static_dim(dim: Dim) -> int:
    """The dimension as a number, for what runs once names are bound; InternalError for one that is still named,
    Unsized where a program is made for all sizes."""
    if isinstance(dim, Poly):
        if dim.is_open:
            raise Unsized(f"the dimension {dim} must be a number here")
        raise InternalError(f"the dimension {dim} is not bound")
    return dim


def static_shape(shape: Dims) -> Sizes:
    """The shape as numbers, for what runs once names are bound; errors as of `static_dim`."""
    return tuple([static_dim(d) for d in shape])


# ---- sizes of programs that serve all of them
def size_name(name: str, low: int = 1, high: int | None = None, usual: int | None = None) -> Poly:
    """The named dimension with what is known of it, as a dimension. `usual`: the typical value."""
    value = usual if usual is not None else min(USUAL, high) if high else USUAL
    return Poly((((SizeName(name, low, high, max(low, value)),), 1),))


def typical(dim: Dim) -> int:
    """The value where all names have their typical ones: what costs are estimated with."""
    return dim if isinstance(dim, int) else dim.typical


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The value where the names have these sizes."""
    return dim if isinstance(dim, int) else dim.evaluated({}, sizes)


def evaluate_all(dims: Iterable[Dim], sizes: Mapping[str, int]) -> list[int]:
    """The values of several; what they share is computed once."""
    values: dict[Atom, int] = {}
    return [dim if isinstance(dim, int) else dim.evaluated(values, sizes) for dim in dims]


def product_of(dims: Iterable[Size]) -> Size:
    """The product; 1 of none."""
    total: Size = 1
    for dim in dims:
        total = total * dim
    return total


def ceil_div(dim: Size, divisor: int) -> Size:
    """The quotient rounded up."""
    return (dim + (divisor - 1)) // divisor


def round_up(dim: Size, multiple: int) -> Size:
    """The least multiple that is no less."""
    return ceil_div(dim, multiple) * multiple


@overload
def largest(*items: int) -> int: ...


@overload
def largest(*items: Dim) -> Dim: ...


def largest(*items: Dim) -> Dim:
    """The greatest; of sizes that are not known, an atom."""
    if all(isinstance(item, int) for item in items):
        return max(cast(tuple[int, ...], items))
    return largest_by(is_nonnegative, items)


def largest_by(is_above: Callable[[Dim], bool], items: Iterable[Dim]) -> Dim:
    """The greatest; `is_above(difference)` finds which are never so."""
    return _one_of(Largest, _perhaps_greatest(is_above, items))


def _perhaps_greatest(is_above: Callable[[Dim], bool], items: Iterable[Dim]) -> list[Dim]:
    kept: list[Dim] = []
    for item in dict.fromkeys(items):
        if not any(is_above(other - item) for other in kept):
            kept = [other for other in kept if not is_above(item - other)] + [item]
    return kept


def _one_of(kind: type[OneOf], items: list[Dim]) -> Dim:
    return items[0] if len(items) == 1 else Poly((((kind(tuple(items)),), 1),))


def smallest(*items: Dim) -> Dim:
    """The least; of sizes that are not known, an atom, the same in whatever order they are given: a number is last."""
    inner = [part for item in items for part in _parts_of_least(item)]
    kept = _perhaps_greatest(lambda over: is_nonnegative(-over), inner)
    return _one_of(Smallest, sorted(kept, key=lambda item: (isinstance(item, int), str(item))))


def _parts_of_least(dim: Dim) -> tuple[Dim, ...]:
    atom = dim.terms[0][0][0] if isinstance(dim, Poly) and len(dim.terms) == 1 else None
    return atom.items if isinstance(atom, Smallest) and dim == Poly((((atom,), 1),)) else (dim,)


def lower(dim: Dim) -> int:
    """A bound below all values; atoms are at least 0, or their own bound."""
    return dim if isinstance(dim, int) else dim.low


def upper(dim: Dim) -> int | None:
    """A bound above all values, None if none is known."""
    return dim if isinstance(dim, int) else dim.high


def size_names(dim: Dim) -> frozenset[SizeName]:
    """The names that the value depends on."""
    return cast(frozenset[SizeName], frozenset() if isinstance(dim, int) else dim.names)


def content(dim: Dim) -> int:
    """A number that divides the value; 0 for 0."""
    return abs(dim) if isinstance(dim, int) else gcd(*[c for _, c in dim.terms])


def exact_quotient(dim: Dim, divisor: Dim) -> Dim | None:
    """dim / divisor where that is a number or a polynomial again, else None."""
    if isinstance(dim, int) and isinstance(divisor, int):
        return dim // divisor if divisor and dim % divisor == 0 else None
    quotient, rest = quotient_and_rest(dim, divisor)
    return quotient if rest == 0 else None


@lru_cache(maxsize=CACHED)
def quotient_and_rest(dim: Dim, divisor: Dim) -> tuple[Dim, Dim]:
    """dim = quotient * divisor + rest, by division of polynomials: no term of the rest is a multiple of the divisor's
    first. That does not say which of rest and divisor is greater."""
    first, scale = _terms(divisor)[0]
    quotient: Dim = 0
    rest: Dim = 0
    while dim != 0:
        monomial, c = _terms(dim)[0]
        over = without(monomial, first)
        if over is None or scale == 0 or c % scale:
            term = Poly.of([(monomial, c)])
            rest, dim = rest + term, dim - term
        else:
            term = Poly.of([(over, c // scale)])
            quotient, dim = quotient + term, dim - term * divisor
    return quotient, rest


def _decided(difference: Dim, text: str) -> bool:
    """Whether the difference is at least 0; Unsized where that is so for some sizes and not for others."""
    if isinstance(difference, int):
        return difference >= 0
    if difference.is_open:
        if is_nonnegative(difference):
            return True
        if is_nonnegative(difference * -1 - 1):
            return False
    raise unknown(f"whether {text}")


@lru_cache(maxsize=CACHED)
def _rounded_quotient(dim: Poly, divisor: int) -> Dim | None:
    """The quotient rounded down: what divides exactly apart from the rest."""
    if divisor <= 0:
        return None
    whole = Poly.of([(m, c // divisor) for m, c in dim.terms])
    rest = Poly.of([(m, c % divisor) for m, c in dim.terms])
    if isinstance(rest, int):
        return whole
    number = next((c for m, c in rest.terms if not m), 0)
    common = gcd(divisor, *[c for m, c in rest.terms if m])     # (4 B + 7) // 8 = (B + 1) // 2
    rest = Poly.of([(m, c // common) for m, c in rest.terms if m]) + number // common
    return whole + Poly((((Quotient(cast(Poly, rest), divisor // common),), 1),))


@lru_cache(maxsize=CACHED)
def _sum(a: Poly, b: Poly) -> Dim:
    """a + b: proofs add the same ones again and again."""
    return Poly.of((*a.terms, *b.terms))


def _terms(dim: Dim) -> list[Term]:
    return [((), int(dim))] if isinstance(dim, (int, np.integer)) else list(dim.terms)
