"""Sizes of dimensions: numbers, and polynomials over names, with what can be proved about them.

A name is a plain `str` while nothing is known of it. To compile one program for all its sizes, a graph is opened:
each name becomes a `SizeName`, which has bounds and a typical value. Rounded quotients and maxima of sizes are atoms of
polynomials as names are. A comparison that holds for some sizes within the bounds and not for others is `Unsized`.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import gcd, prod
from typing import NoReturn, cast

import numpy as np

from graphc.errors import GraphError, InternalError, Unsized
from graphc.ir.convert import integer, is_integer, shown

DIGITS = 19                         # of a number of 64 bits
TERMS = 128                         # of a dimension: products of shapes multiply the numbers of terms
Monomial = tuple[str, ...]          # sorted names, with repetition: B*B*T -> ("B", "B", "T")


class Atom(str):
    """A size that is not a polynomial of others, or is a named one; its text says what it is. `parts`: the sizes that it
    is made of. `is_open`: bounds are known of all its names."""

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
        return isinstance(other, SizeName) and str.__eq__(self, other) and self._facts == other._facts

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
        text = f"({dividend})" if len(dividend.terms) > 1 or "*" in str(dividend) else str(dividend)
        made = super().__new__(cls, f"({text}//{divisor})")
        made.dividend, made.divisor, made.parts, made.is_open = dividend, divisor, (dividend,), dividend.is_open
        if not made.is_open:
            made.low, made.high, made.typical = 0, None, 0
            return made
        high = upper(dividend)
        made.low, made.high = lower(dividend) // divisor, None if high is None else high // divisor
        made.typical = typical(dividend) // divisor
        return made

    dividend: Poly
    divisor: int

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Quotient) and self.divisor == other.divisor and self.dividend == other.dividend)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def evaluated(self, values: dict[Atom, int], sizes: Mapping[str, int]) -> int:
        return _evaluate(self.dividend, values, sizes) // self.divisor

    def __reduce__(self) -> tuple[type[Quotient], tuple[Poly, int]]:
        return Quotient, (self.dividend, self.divisor)


class Largest(Atom):
    """The greatest of some sizes."""

    def __new__(cls, items: tuple[Dim, ...]) -> Largest:
        made = super().__new__(cls, f"max({', '.join(map(str, items))})")
        made.items = made.parts = items
        highs = [upper(i) for i in items]
        made.low = max(map(lower, items))
        made.high = None if None in highs else max(cast(list[int], highs))
        made.typical = max(map(typical, items))
        return made

    items: tuple[Dim, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Largest) and self.items == other.items

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def evaluated(self, values: dict[Atom, int], sizes: Mapping[str, int]) -> int:
        return max([_evaluate(i, values, sizes) for i in self.items])

    def __reduce__(self) -> tuple[type[Largest], tuple[tuple[Dim, ...]]]:
        return Largest, (self.items,)


class Named(Atom):
    """A size under a name of its own, such as an offset in memory: long formulas are made of short ones. Itself and no
    other of that name."""

    def __new__(cls, name: str, size: Poly) -> Named:
        made = super().__new__(cls, name)
        made.size, made.parts = size, (size,)
        made.low, made.high, made.typical = lower(size), upper(size), typical(size)
        return made

    size: Poly

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = str.__hash__

    def evaluated(self, values: dict[Atom, int], sizes: Mapping[str, int]) -> int:
        return _evaluate(self.size, values, sizes)

    def __reduce__(self) -> tuple[type[Named], tuple[str, Poly]]:
        return Named, (str(self), self.size)


@dataclass(frozen=True)
class Poly:
    """A polynomial with integer coefficients over dimension names; never constant (that is an int)."""
    terms: tuple[tuple[Monomial, int], ...]

    def __hash__(self) -> int:
        found: int | None = self.__dict__.get("hash")
        if found is None:
            found = self.__dict__["hash"] = hash(self.terms)
        return found

    def __reduce__(self) -> tuple[type[Poly], tuple[tuple[tuple[Monomial, int], ...]]]:
        """Without the hash, which another process has otherwise."""
        return Poly, (self.terms,)

    def __add__(self, other: Dim) -> Dim:
        if isinstance(other, Poly):
            return _poly((*self.terms, *other.terms))
        if not isinstance(other, SIZES):
            return NotImplemented
        return self._plus(int(other)) if other else self

    __radd__ = __add__

    def _plus(self, number: int) -> Poly:
        """The number is the last term, if there is one."""
        *rest, (monomial, c) = self.terms
        if monomial:
            return Poly((*self.terms, ((), number)))
        return Poly((*rest, ((), c + number))) if c + number else Poly(tuple(rest))

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + other * -1

    def __rsub__(self, other: int) -> Dim:
        return self * -1 + other

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            return self if other == 1 else Poly(tuple([(m, c * other) for m, c in self.terms])) if other else 0
        if not isinstance(other, SIZES):
            return NotImplemented
        return _poly([(tuple(sorted(m + n)), c * d) for m, c in _terms(self) for n, d in _terms(other)])

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        quotient = exact_quotient(self, other)
        if quotient is None and isinstance(other, int):
            quotient = _rounded_quotient(self, other)
        if quotient is None:
            raise Unsized(f"cannot divide the symbolic dimension {self} by {other}; bind it first, or give it as an int")
        return quotient

    def __rfloordiv__(self, other: int) -> Dim:
        raise Unsized(f"cannot divide {other} by the symbolic dimension {self}; bind it first, or give it as an int")

    def __rmod__(self, other: int) -> Dim:
        raise Unsized(f"cannot tell {other} modulo {self} while it is symbolic; bind it first, or give it as an int")

    def __mod__(self, other: Dim) -> Dim:
        if exact_quotient(self, other) is not None:
            return 0
        if self.is_open and isinstance(other, int):
            return self - (self // other) * other
        raise Unsized(f"cannot tell {self} modulo {other} while it is symbolic; bind it first, or give it as an int")

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

    def __index__(self) -> NoReturn:
        raise Unsized(f"the dimension {self} is symbolic here; bind it first, or give it as an int")

    __int__ = __float__ = __index__

    def __truediv__(self, other: object) -> NoReturn:
        raise Unsized(f"cannot divide the symbolic dimension {self} by {other}; bind it first, or give it as an int")

    __rtruediv__ = __truediv__

    @cached_property
    def is_open(self) -> bool:
        """Whether bounds are known of all its names."""
        return all(isinstance(name, Atom) and name.is_open for monomial, _ in self.terms for name in monomial)

    @property
    def is_maximum(self) -> bool:
        """Whether it is the greatest of some sizes, and nothing else."""
        (monomial, c), *others = self.terms
        return not others and c == 1 and len(monomial) == 1 and isinstance(monomial[0], Largest)

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
        text = " + ".join(_term_text(m, c) for m, c in self.terms)
        return text.replace("+ -", "- ")

    __repr__ = __str__


SIZES = (int, np.integer, Poly)
Dim = int | Poly
Dims = tuple[Dim, ...]              # a shape
Sizes = tuple[int, ...]             # a shape without names


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
    value = usual if usual is not None else min(64, high) if high else 64
    return Poly((((SizeName(name, low, high, max(low, value)),), 1),))


def typical(dim: Dim) -> int:
    """The value where all names have their typical ones: what costs are estimated with."""
    if isinstance(dim, int):
        return dim
    return sum(c * prod(cast(Atom, name).typical for name in m) for m, c in dim.terms)


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The value where the names have these sizes."""
    return _evaluate(dim, {}, sizes)


def evaluate_all(dims: Iterable[Dim], sizes: Mapping[str, int]) -> list[int]:
    """The values of several; what they share is computed once."""
    values: dict[Atom, int] = {}
    return [_evaluate(dim, values, sizes) for dim in dims]


def _evaluate(dim: Dim, values: dict[Atom, int], sizes: Mapping[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, product in dim.terms:
        for name in cast(tuple[Atom, ...], monomial):
            value = values.get(name)
            if value is None:
                value = values[name] = name.evaluated(values, sizes)
            product *= value
        total += product
    return total


def product_of(dims: Iterable[Dim]) -> Dim:
    """The product; 1 of none."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def ceil_div(dim: Dim, divisor: int) -> Dim:
    """The quotient rounded up."""
    return (dim + (divisor - 1)) // divisor


def round_up(dim: Dim, multiple: int) -> Dim:
    """The least multiple that is no less."""
    return ceil_div(dim, multiple) * multiple


def largest(*items: Dim) -> Dim:
    """The greatest; of sizes that are not known, an atom."""
    if all(isinstance(item, int) for item in items):
        return max(cast(tuple[int, ...], items))
    kept: list[Dim] = []
    for item in dict.fromkeys(items):
        if not any(_at_least(other, item) for other in kept):
            kept = [other for other in kept if not _at_least(item, other)] + [item]
    return kept[0] if len(kept) == 1 else Poly((((Largest(tuple(kept)),), 1),))


def named(name: str, size: Dim) -> Dim:
    """The size under a name, unless it is a number or short."""
    if isinstance(size, int) or len(size.terms) == 1 and not any(isinstance(n, Largest) for n in size.atoms):
        return size
    return Poly((((Named(name, size),), 1),))


def smallest(a: Dim, b: Dim) -> Dim:
    """The least of two."""
    return a + b - largest(a, b)


def lower(dim: Dim) -> int:
    """A bound below all values; atoms are at least 0, or their own bound."""
    return _bound(dim, below=True)


def upper(dim: Dim) -> int | None:
    """A bound above all values, None if none is known."""
    if isinstance(dim, int):
        return dim
    least = _bound(dim * -1, below=True)
    return None if least <= -NO_BOUND else -least


@lru_cache(maxsize=1 << 16)
def is_nonnegative(dim: Dim) -> bool:
    """Whether it can be proved that the value is never below 0."""
    if isinstance(dim, int):
        return dim >= 0
    if _is_refuted(dim):
        return False
    if _bound(dim, below=True) >= 0 or _is_sum_of_shifted(dim):
        return True
    atoms = sorted(dim.atoms, key=_is_last)
    for rule in (_by_names, _by_maxima):                # lose nothing: there is no need to look further
        found = rule(dim, atoms)
        if found is not None:
            return found
    return any(proof(dim, name) for name in atoms if (proof := PROOFS.get(type(name))) is not None)


def _is_last(atom: str) -> tuple[bool, int]:
    """The order in which atoms are replaced: names and maxima first, of which samples refute the wrong ones; bounds of
    quotients refute nothing."""
    return isinstance(atom, Quotient), -len(atom)


def size_names(dim: Dim) -> frozenset[SizeName]:
    """The names that the value depends on."""
    return cast(frozenset[SizeName], frozenset() if isinstance(dim, int) else dim.names)


FORMULAS = 8                        # among which a maximum is shown


def expanded(dim: Dim) -> list[Dim]:
    """Formulas without maxima and names for parts, of which the value is the greatest; `dim` alone if they are many."""
    found = _alternatives(dim)
    return found if len(found) <= FORMULAS else [dim]


def _alternatives(dim: Dim) -> list[Dim]:
    sums: list[Dim] = [0]
    for monomial, c in dim.terms if isinstance(dim, Poly) else (((), dim),):
        factor: Dim = c
        choices: list[Dim] = [1]
        for name in monomial:
            if c > 0 and len(choices) == 1 and isinstance(name, (Named, Largest)):
                choices = _alternatives(name.size) if isinstance(name, Named) else _greatest(
                    [a for item in name.items for a in _alternatives(item)])
            else:
                factor = factor * Poly((((name,), 1),))
        sums = _greatest([s + choice * factor for s in sums for choice in choices])
        if len(sums) > FORMULAS:
            return [dim]
    return sums


def _greatest(items: Sequence[Dim]) -> list[Dim]:
    """Those that may be the greatest."""
    best = largest(*items)
    return list(cast(Largest, next(iter(best.atoms))).items) if isinstance(best, Poly) and best.is_maximum else [best]


def allowed(dim: Dim) -> bool:
    """Whether a shape rule that wants `dim` to be at least 0 lets it pass: plain names do, of which nothing is known
    yet. Unsized, with `dim` as condition, where that depends on open sizes."""
    if isinstance(dim, int) or not dim.is_open:
        return not isinstance(dim, int) or dim >= 0
    if is_nonnegative(dim):
        return True
    if is_nonnegative(dim * -1 - 1):
        return False
    raise Unsized(f"{dim} must not be below 0, which depends on the sizes", condition=dim)


def sign_of(dim: Dim) -> int | None:
    """1 for what is never negative, -1 for what is never positive, 0 for 0; None where none of it can be proved."""
    if isinstance(dim, int):
        return (dim > 0) - (dim < 0)
    return 1 if is_nonnegative(dim) else -1 if is_nonnegative(-dim) else None


def content(dim: Dim) -> int:
    """A number that divides the value; 0 for 0."""
    return abs(dim) if isinstance(dim, int) else gcd(*[c for _, c in dim.terms])


def scaled_and_shifted(dim: Poly) -> tuple[Poly, int, int]:
    """(p, n, m), where dim = p * n + m and nothing but 1 divides p, which has no number and begins with a positive
    one."""
    number = next((c for m, c in dim.terms if not m), 0)
    rest = cast(Poly, dim - number)
    factor = content(rest) if rest.terms[0][1] > 0 else -content(rest)
    return cast(Poly, _poly([(m, c // factor) for m, c in rest.terms])), factor, number


def exact_quotient(dim: Dim, divisor: Dim) -> Dim | None:
    """dim / divisor where that is a number or a polynomial again, else None."""
    if isinstance(dim, int) and isinstance(divisor, int):
        return dim // divisor if divisor and dim % divisor == 0 else None
    quotient, rest = quotient_and_rest(dim, divisor)
    return quotient if rest == 0 else None


def quotient_and_rest(dim: Dim, divisor: Dim) -> tuple[Dim, Dim]:
    """dim = quotient * divisor + rest, by division of polynomials: no term of the rest is a multiple of the divisor's
    first. That does not say which of rest and divisor is greater."""
    first, scale = _terms(divisor)[0]
    quotient: Dim = 0
    rest: Dim = 0
    while dim != 0:
        monomial, c = _terms(dim)[0]
        over = _without(monomial, first)
        if over is None or scale == 0 or c % scale:
            term = _poly([(monomial, c)])
            rest, dim = rest + term, dim - term
        else:
            term = _poly([(over, c // scale)])
            quotient, dim = quotient + term, dim - term * divisor
    return quotient, rest


def _without(monomial: Monomial, part: Monomial) -> Monomial | None:
    """The monomial divided by another; None where it is no multiple."""
    rest = list(monomial)
    for name in part:
        if name not in rest:
            return None
        rest.remove(name)
    return tuple(rest)


SAMPLES = 4                         # assignments of sizes with which proofs are refuted before they are tried


def _is_refuted(dim: Poly) -> bool:
    """Whether the value is negative for some sizes that are tried: most of what is asked is."""
    return dim.is_open and any(sum(c * prod(_samples(name)[k] for name in m) for m, c in dim.terms) < 0
                               for k in range(SAMPLES))


@lru_cache(maxsize=1 << 14)
def _samples(atom: str) -> tuple[int, ...]:
    """Values of an atom: with all names at their least, at typical ones, and at some that differ from name to name."""
    if isinstance(atom, SizeName):
        apart = [atom.low + sum(atom.encode()) * step % 97 for step in (5, 1009)]
        tried = (atom.low, atom.typical, *apart)
        return tried if atom.high is None else tuple(min(n, atom.high) for n in tried)
    if isinstance(atom, Quotient):
        return tuple(n // atom.divisor for n in sampled(atom.dividend))
    if isinstance(atom, Largest):
        return tuple(map(max, *map(sampled, atom.items)))
    return sampled(cast(Named, atom).size)


def sampled(dim: Dim) -> tuple[int, ...]:
    """The values for the sizes that are tried."""
    if isinstance(dim, int):
        return (dim,) * SAMPLES
    return _sampled_sums(dim)


@lru_cache(maxsize=1 << 14)
def _sampled_sums(dim: Poly) -> tuple[int, ...]:
    return tuple(sum(c * prod(_samples(name)[k] for name in m) for m, c in dim.terms) for k in range(SAMPLES))


NO_BOUND = 1 << 62


def _bound(dim: Dim, below: bool) -> int:
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, c in dim.terms:
        atoms = [_interval(name) for name in monomial]
        if c > 0:
            total += c * prod(low for low, _ in atoms)
        elif any(high is None for _, high in atoms):
            return -NO_BOUND
        else:
            total += c * prod(cast(int, high) for _, high in atoms)
    return total


def _interval(name: str) -> tuple[int, int | None]:
    return (max(name.low, 0), name.high) if isinstance(name, Atom) else (0, None)


def _is_sum_of_shifted(dim: Poly) -> bool:
    """Whether no coefficient is negative when each name is written as its least value and the rest above it."""
    shifted: Dim = 0
    for monomial, c in dim.terms:
        product: Dim = c
        for name in monomial:
            product = product * (Poly((((name,), 1),)) + _interval(name)[0])
        shifted = shifted + product
    return isinstance(shifted, int) and shifted >= 0 or isinstance(shifted, Poly) and all(c >= 0 for _, c in
                                                                                       shifted.terms)


def _linear_in(dim: Poly, name: str) -> tuple[Dim, Dim] | None:
    """Factor and rest, if `dim` is factor * name + rest."""
    factor, rest = [], []
    for monomial, c in dim.terms:
        times = monomial.count(name)
        if times > 1:
            return None
        kept = list(monomial)
        if times:
            kept.remove(name)
        (factor if times else rest).append((tuple(kept), c))
    return _poly(factor), _poly(rest)


def _by_quotient(dim: Poly, name: str) -> bool:
    """The proof in which a quotient is replaced by what bounds it."""
    q, parts = cast(Quotient, name), _linear_in(dim, name)
    if parts is None:
        return False
    factor, rest = parts
    if is_nonnegative(factor):
        return is_nonnegative(factor * (q.dividend - (q.divisor - 1)) + rest * q.divisor)
    return is_nonnegative(-factor) and is_nonnegative(factor * q.dividend + rest * q.divisor)


def _by_names(dim: Poly, atoms: Sequence[str]) -> bool | None:
    """The proof in which a name is replaced by its formula: that of the greatest, which may be made of the others."""
    named = [name for name in atoms if isinstance(name, Named) and _linear_in(dim, name) is not None]
    if not named:
        return None
    name = max(named, key=lambda each: each.typical)
    factor, rest = cast(tuple[Dim, Dim], _linear_in(dim, name))
    return is_nonnegative(factor * name.size + rest)


def _by_maxima(dim: Poly, atoms: Sequence[str]) -> bool | None:
    """The proof in which a maximum that is subtracted is replaced by each of its items."""
    for name in atoms:
        if isinstance(name, Largest) and (parts := _linear_in(dim, name)) is not None and is_nonnegative(-parts[0]):
            return all(is_nonnegative(parts[0] * item + parts[1]) for item in name.items)
    return None


def _by_largest(dim: Poly, name: str) -> bool:
    """The proof in which a maximum is replaced by one of its items."""
    items, parts = cast(Largest, name).items, _linear_in(dim, name)
    if parts is None:
        return False
    factor, rest = parts
    return is_nonnegative(factor) and any(is_nonnegative(factor * item + rest) for item in items)


PROOFS: dict[type, Callable[[Poly, str], bool]] = {Quotient: _by_quotient, Largest: _by_largest}

def _at_least(a: Dim, b: Dim) -> bool:
    return is_nonnegative(a - b)


def _decided(difference: Dim, text: str) -> bool:
    """Whether the difference is at least 0; Unsized where that is so for some sizes and not for others."""
    if isinstance(difference, int):
        return difference >= 0
    if difference.is_open:
        if is_nonnegative(difference):
            return True
        if is_nonnegative(difference * -1 - 1):
            return False
    raise Unsized(f"whether {text} cannot be told while the size is symbolic; bind it first, or give it as an int")


def _rounded_quotient(dim: Poly, divisor: int) -> Dim | None:
    """The quotient rounded down: what divides exactly apart from the rest."""
    if divisor <= 0:
        return None
    whole = _poly([(m, c // divisor) for m, c in dim.terms])
    rest = _poly([(m, c % divisor) for m, c in dim.terms])
    if isinstance(rest, int):
        return whole
    number = next((c for m, c in rest.terms if not m), 0)
    common = gcd(divisor, *[c for m, c in rest.terms if m])     # (4 B + 7) // 8 = (B + 1) // 2
    rest = _poly([(m, c // common) for m, c in rest.terms if m]) + number // common
    return whole + Poly((((Quotient(cast(Poly, rest), divisor // common),), 1),))


# ---- text
def as_dim(value: object) -> Dim:
    """An int >= 0, a name or polynomial text such as "2*T + 1", or a Poly, as a Dim. GraphError otherwise."""
    if isinstance(value, Poly):
        return value
    if isinstance(value, str):
        value = parse_dim(value)
        return value if isinstance(value, Poly) else as_dim(value)
    if is_integer(value) or hasattr(value, "__index__"):
        size = integer(value, "a dimension")
        if size < 0:
            raise GraphError(f"a dimension must be >= 0, got {size}")
        return size
    raise GraphError(f"a dimension is an int >= 0, a name or a polynomial over names, got {shown(value)}")


WORDS = re.compile(r"\s*(//|[-+*()]|\w+)\s*")


def parse_dim(text: str) -> Dim:
    """Reads what `str(dim)` writes: sums and differences of products of names, ints and rounded quotients such as
    (H//2). The number alone may be negative: attributes hold such."""
    words = WORDS.findall(text)
    if "".join(words) != "".join(text.split()):
        raise _no_dim(text)
    reader = _DimReader(text, [*words, ""])
    dim = reader.sum()
    if reader.words[reader.at]:
        raise _no_dim(text)
    return dim


class _DimReader:
    """Walks along the words of a dimension."""

    def __init__(self, text: str, words: Sequence[str]) -> None:
        self.text, self.words, self.at = text, words, 0

    def accept(self, *words: str) -> str:
        word = self.words[self.at]
        self.at += word in words
        return word if word in words else ""

    def sum(self) -> Dim:
        sign = self.accept("+", "-") or "+"
        total: Dim = 0
        while sign:
            total = total + self.product() * (-1 if sign == "-" else 1)
            sign = self.accept("+", "-")
        return total

    def product(self) -> Dim:
        result = self.factor()
        while self.accept("*"):
            result = result * self.factor()
        return result

    def factor(self) -> Dim:
        word = self.words[self.at]
        self.at += 1
        if word == "(":
            return self.bracket()
        if word.isascii() and word.isdigit() and len(word) <= DIGITS:
            return int(word)
        if not word.isidentifier():
            raise _no_dim(self.text)
        return Poly((((word,), 1),))

    def bracket(self) -> Dim:
        """A sum in brackets, or a quotient."""
        inner = self.sum()
        if self.accept("//"):
            divisor = self.words[self.at]
            if not (divisor.isascii() and divisor.isdigit() and 0 < len(divisor) <= DIGITS and int(divisor)):
                raise _no_dim(self.text)
            self.at += 1
            inner = inner // int(divisor)
        if not self.accept(")"):
            raise _no_dim(self.text)
        return inner


def bind(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """`dim` with the named dimensions that `values` has replaced by what they stand for."""
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        product: Dim = coefficient
        for name in monomial:
            product = product * _bound_atom(name, values)
        total = total + product
    return total


def _bound_atom(name: str, values: Mapping[str, Dim]) -> Dim:
    if isinstance(name, Quotient) and name.dividend.names & values.keys():
        return bind(name.dividend, values) // name.divisor
    return values[name] if name in values else Poly((((name,), 1),))


def _terms(dim: Dim) -> list[tuple[Monomial, int]]:
    return [((), int(dim))] if isinstance(dim, (int, np.integer)) else list(dim.terms)


def _poly(terms: Sequence[tuple[Monomial, int]]) -> Dim:
    merged: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        merged[monomial] = merged.get(monomial, 0) + coefficient
    kept = {m: c for m, c in merged.items() if c}
    if len(kept) > TERMS:
        raise GraphError(f"a symbolic dimension has at most {TERMS} terms, this has {len(kept)}; give some of its "
                         "names as ints")
    if not kept.keys() - {()}:
        return kept.get((), 0)
    return Poly(tuple(sorted(kept.items(), key=lambda item: (-len(item[0]), item[0]))))


def _term_text(monomial: Monomial, coefficient: int) -> str:
    factors = [str(name) for name in monomial]
    if coefficient == -1 and factors:
        return "-" + "*".join(factors)
    if coefficient != 1 or not factors:
        factors.insert(0, str(coefficient))
    return "*".join(factors)


def _no_dim(text: str) -> GraphError:
    return GraphError(f"{shown(text)} is not a dimension: write an int, a name, or a polynomial such as \"2*T + 1\"")
