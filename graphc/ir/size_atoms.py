"""What a polynomial over sizes is made of besides numbers: names with bounds, rounded quotients, maxima and minima.

An atom is a text, as a plain name is, so that both stand in monomials. It knows its bounds, its typical value and how
its value is computed.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, ClassVar, Self, cast
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from graphc.ir.dims import Dim, Poly            # whose quotients are atoms

Monomial = tuple[str, ...]          # sorted names, with repetition: B*B*T -> ("B", "B", "T")
Term = tuple[Monomial, int]         # with its coefficient
NO_BOUND = 1 << 62


class Atom(str):
    """A size that is not a polynomial of others, or is a named one; its text says what it is. `parts`: the sizes that
    it is made of. `is_open`: bounds are known of all its names."""

    parts: tuple[Dim, ...] = ()
    is_open: bool = True

    low: int
    high: int | None                # None: no bound is known
    typical: int

    def evaluated(self, values: dict[Atom, int], sizes: Mapping[str, int]) -> int:
        """Its value where the names have these sizes; `values`: of atoms, each computed once."""
        raise NotImplementedError


class SizeName(Atom):
    """A named dimension of a program that serves all its sizes: from `low` to `high`, of which `typical` decides what
    is best."""

    def __new__(cls, name: str, low: int, high: int | None, typical: int) -> SizeName:
        made = super().__new__(cls, name)
        made.low, made.high, made.typical = low, high, typical
        return made

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, SizeName) and str.__eq__(self, other)
                                 and self._facts == other._facts)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    @property
    def _facts(self) -> tuple[int, int | None, int]:
        return self.low, self.high, self.typical

    def evaluated(self, values: dict[Atom, int], sizes: Mapping[str, int]) -> int:
        return sizes[str(self)]

    def __reduce__(self) -> tuple[type[SizeName], tuple[str, int, int | None, int]]:
        return SizeName, (str(self), *self._facts)


class Quotient(Atom):
    """`dividend // divisor`, rounded down."""

    def __new__(cls, dividend: Poly, divisor: int) -> Quotient:
        known = _QUOTIENTS.get((dividend, divisor))
        if known is not None:
            return known
        text = f"({dividend})" if len(dividend.terms) > 1 or "*" in str(dividend) else str(dividend)
        made = super().__new__(cls, f"({text}//{divisor})")
        made.dividend, made.divisor, made.parts, made.is_open = dividend, divisor, (dividend,), dividend.is_open
        _QUOTIENTS[dividend, divisor] = made
        if not made.is_open:
            made.low, made.high, made.typical = 0, None, 0
            return made
        high = dividend.high
        made.low, made.high = dividend.low // divisor, None if high is None else high // divisor
        made.typical = dividend.typical // divisor
        return made

    dividend: Poly
    divisor: int

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Quotient) and str.__eq__(self, other)
                                 and self.divisor == other.divisor and self.dividend == other.dividend)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def evaluated(self, values: dict[Atom, int], sizes: Mapping[str, int]) -> int:
        return self.dividend.evaluated(values, sizes) // self.divisor

    def __reduce__(self) -> tuple[type[Quotient], tuple[Poly, int]]:
        return Quotient, (self.dividend, self.divisor)


# those in use: polynomials are compared again and again, and the same quotient is so at a glance
_QUOTIENTS: WeakValueDictionary[tuple[Poly, int], Quotient] = WeakValueDictionary()


class OneOf(Atom):
    """One of some sizes, which of them depends on the names."""

    def __new__(cls, items: tuple[Dim, ...]) -> Self:
        made = super().__new__(cls, f"{cls.called}({', '.join(map(str, items))})")
        made.items = made.parts = items
        made.is_open = all([isinstance(item, int) or item.is_open for item in items])
        made.low, made.high, made.typical = made._known(*zip(*map(_facts, items)))
        return made

    called: ClassVar[str]
    items: tuple[Dim, ...]

    def one_of(self, numbers: Iterable[int]) -> int:
        """The greatest of numbers, or the least."""
        raise NotImplementedError

    def _known(self, lows: Sequence[int], highs: Sequence[int | None], usual: Sequence[int],
               ) -> tuple[int, int | None, int]:
        """Bounds and the typical value, from those of the items."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, OneOf) and str.__eq__(self, other) and self.items == other.items)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def evaluated(self, values: dict[Atom, int], sizes: Mapping[str, int]) -> int:
        return self.one_of([i if isinstance(i, int) else i.evaluated(values, sizes) for i in self.items])

    def __reduce__(self) -> tuple[type[OneOf], tuple[tuple[Dim, ...]]]:
        return type(self), (self.items,)


class Largest(OneOf):
    """The greatest of some sizes."""
    called = "max"

    def one_of(self, numbers: Iterable[int]) -> int:
        return max(numbers)

    def _known(self, lows: Sequence[int], highs: Sequence[int | None], usual: Sequence[int],
               ) -> tuple[int, int | None, int]:
        ends = [high for high in highs if high is not None]
        return max(lows), max(ends) if len(ends) == len(highs) else None, max(usual)


class Smallest(OneOf):
    """The least of some sizes."""
    called = "min"

    def one_of(self, numbers: Iterable[int]) -> int:
        return min(numbers)

    def _known(self, lows: Sequence[int], highs: Sequence[int | None], usual: Sequence[int],
               ) -> tuple[int, int | None, int]:
        return min(lows), min([high for high in highs if high is not None], default=None), min(usual)


class Named(Atom):
    """A size under a name of its own, such as an offset in memory: long formulas are made of short ones. Itself and no
    other of that name."""

    def __new__(cls, name: str, size: Poly) -> Named:
        made = super().__new__(cls, name)
        made.size, made.parts = size, (size,)
        made.low, made.high, made.typical = size.low, size.high, size.typical
        return made

    size: Poly

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = str.__hash__

    def evaluated(self, values: dict[Atom, int], sizes: Mapping[str, int]) -> int:
        return self.size.evaluated(values, sizes)

    def __reduce__(self) -> tuple[type[Named], tuple[str, Poly]]:
        return Named, (str(self), self.size)


def _facts(dim: Dim) -> tuple[int, int | None, int]:
    """A bound below, one above, and the typical value."""
    return (dim, dim, dim) if isinstance(dim, int) else (dim.low, dim.high, dim.typical)


def interval(name: str) -> tuple[int, int | None]:
    """Bounds of an atom or a plain name; None for one above that is not known."""
    return (max(name.low, 0), name.high) if isinstance(name, Atom) else (0, None)


def lowest(terms: Iterable[Term]) -> int:
    """A bound below their sum; -NO_BOUND where none is known."""
    total = 0
    for monomial, c in terms:
        atoms = [interval(name) for name in monomial]
        if c > 0:
            total += c * prod([low for low, _ in atoms])
        elif any([high is None for _, high in atoms]):
            return -NO_BOUND
        else:
            total += c * prod([cast(int, high) for _, high in atoms])
    return total


def without(monomial: Monomial, part: Monomial) -> Monomial | None:
    """The monomial divided by another; None where it is no multiple."""
    rest = list(monomial)
    for name in part:
        if name not in rest:
            return None
        rest.remove(name)
    return tuple(rest)


def term_order(term: Term) -> tuple[int, Monomial]:
    """By which the terms of a polynomial are sorted: products of many first, numbers last."""
    return -len(term[0]), term[0]


def term_text(monomial: Monomial, coefficient: int) -> str:
    """The product as people write it."""
    factors = [str(name) for name in monomial]
    if coefficient == -1 and factors:
        return "-" + "*".join(factors)
    if coefficient != 1 or not factors:
        factors.insert(0, str(coefficient))
    return "*".join(factors)
