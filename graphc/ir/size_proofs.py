"""Proofs that a size is never negative, whatever the names in it stand for.

A proof replaces atoms by what bounds them, one after the other. Most of what is asked does not hold: that is found by
trying some sizes first.
"""
from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import gcd, prod
from typing import TYPE_CHECKING, cast

from graphc.errors import Unsized
from graphc.ir.size_atoms import OneOf, Largest, Named, Quotient, SizeName, Term, interval

if TYPE_CHECKING:
    from graphc.ir.dims import Dim, Poly            # whose comparisons are such proofs


@lru_cache(maxsize=1 << 16)
def is_nonnegative(dim: Dim) -> bool:
    """Whether it can be proved that the value is never below 0."""
    if isinstance(dim, int):
        return dim >= 0
    if _is_refuted(dim):
        return False
    simpler = _without_factors(dim)
    if simpler is not dim:
        return is_nonnegative(simpler)
    if dim.low >= 0 or _is_sum_of_shifted(dim):
        return True
    atoms = sorted(dim.atoms, key=_is_last)
    for rule in (_by_names, _by_extrema):               # lose nothing: there is no need to look further
        found = rule(dim, atoms)
        if found is not None:
            return found
    quotients = [name for name in atoms if isinstance(name, Quotient)]
    return (any(_by_item(dim, name) for name in atoms if isinstance(name, OneOf))
            or any(_by_quotient(dim, name) for name in quotients[:len(quotients) if len(quotients) <= ORDERS else 1]))


def sign_of(dim: Dim) -> int | None:
    """1 for what is never negative, -1 for what is never positive, 0 for 0; None where none of it can be proved."""
    if isinstance(dim, int):
        return (dim > 0) - (dim < 0)
    return 1 if is_nonnegative(dim) else -1 if is_nonnegative(-dim) else None


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


ORDERS = 2                          # quotients, at most, that are replaced in any order: more have too many orders
SAMPLES = 4                         # of `_sampled_sums`: sizes with which proofs are refuted before they are tried


def _is_refuted(dim: Poly) -> bool:
    """Whether the value is negative for some sizes that are tried: most of what is asked is."""
    return dim.is_open and (min(_sampled_sums(dim)) < 0 or far(dim) < 0)


@lru_cache(maxsize=1 << 14)
def _samples(atom: str) -> tuple[int, ...]:
    """Values of an atom: with all names at their least, at typical ones, and at some that differ from name to name."""
    if isinstance(atom, SizeName):
        apart = [atom.low + sum(atom.encode()) * step % 97 for step in (5, 1009)]
        tried = (atom.low, atom.typical, *apart)
        return tried if atom.high is None else tuple(min(n, atom.high) for n in tried)
    if isinstance(atom, Quotient):
        return tuple(n // atom.divisor for n in sampled(atom.dividend))
    if isinstance(atom, OneOf):
        return tuple(map(atom.one_of, zip(*map(sampled, atom.items))))
    return sampled(cast(Named, atom).size)


def sampled(dim: Dim) -> tuple[int, ...]:
    """The values for the sizes that are tried."""
    if isinstance(dim, int):
        return (dim,) * SAMPLES
    return _sampled_sums(dim)


@lru_cache(maxsize=1 << 14)
def _sampled_sums(dim: Poly) -> tuple[int, ...]:
    a = b = c = d = 0
    for monomial, factor in dim.terms:
        w = x = y = z = factor
        for name in monomial:
            first, second, third, fourth = _samples(name)
            w, x, y, z = w * first, x * second, y * third, z * fourth
        a, b, c, d = a + w, b + x, c + y, d + z
    return a, b, c, d


FAR = 1 << 62                       # of a name that has no bound


@lru_cache(maxsize=1 << 14)
def far(dim: Dim) -> int:
    """The value where all names are at their greatest."""
    if isinstance(dim, int):
        return dim
    return sum([c * prod([_far_atom(name) for name in m]) for m, c in dim.terms])


@lru_cache(maxsize=1 << 14)
def _far_atom(atom: str) -> int:
    if isinstance(atom, SizeName):
        return FAR if atom.high is None else atom.high
    if isinstance(atom, Quotient):
        return far(atom.dividend) // atom.divisor
    if isinstance(atom, OneOf):
        return atom.one_of(map(far, atom.items))
    return far(cast(Named, atom).size)


def _is_last(atom: str) -> tuple[bool, int]:
    """The order in which atoms are replaced: names and maxima first, of which samples refute the wrong ones; bounds of
    quotients refute nothing."""
    return isinstance(atom, Quotient), -len(atom)


def _without_factors(dim: Poly) -> Dim:
    """A size that is negative where `dim` is, and nowhere else: without numbers and positive sizes that divide all
    products of sizes in it, and a number rounded down."""
    products = [(m, c) for m, c in dim.terms if m]
    factor = gcd(*[c for _, c in products])
    common = Counter(name for name in products[0][0] if interval(name)[0] > 0)
    for monomial, _ in dim.terms[1:]:
        if not common:
            break
        common &= Counter(monomial)
    if factor == 1 and not common:
        return dim
    if not common:
        return dim.of([(m, c // factor) for m, c in dim.terms])
    return dim.of([(tuple((Counter(m) - common).elements()), c // factor) for m, c in dim.terms])


def _is_sum_of_shifted(dim: Poly) -> bool:
    """Whether no coefficient is negative when each name is written as its least value and the rest above it."""
    shifted: Dim = 0
    for monomial, c in dim.terms:
        product: Dim = c
        for name in monomial:
            product = product * dim.of([((name,), 1), ((), interval(name)[0])])
        shifted = shifted + product
    return shifted >= 0 if isinstance(shifted, int) else all(c >= 0 for _, c in shifted.terms)


def _linear_in(dim: Poly, name: str) -> tuple[Dim, Dim] | None:
    """Factor and rest, if `dim` is factor * name + rest."""
    factor: list[Term] = []
    rest: list[Term] = []
    for monomial, c in dim.terms:
        times = monomial.count(name)
        if times > 1:
            return None
        kept = list(monomial)
        if times:
            kept.remove(name)
        (factor if times else rest).append((tuple(kept), c))
    return dim.of(factor), dim.of(rest)


def _by_quotient(dim: Poly, name: str) -> bool:
    """The proof in which a quotient is replaced by what bounds it. `dim`, a whole number, is then known to be at least
    some size / divisor, so that it is not negative if that is more than -1."""
    q, parts = cast(Quotient, name), _linear_in(dim, name)
    if parts is None:
        return False
    factor, rest = parts
    others = rest * q.divisor + (q.divisor - 1)
    if is_nonnegative(factor):
        return is_nonnegative(factor * (q.dividend - (q.divisor - 1)) + others)
    return is_nonnegative(-factor) and is_nonnegative(factor * q.dividend + others)


def _by_item(dim: Poly, name: OneOf) -> bool:
    """The proof in which a maximum, or a minimum that is subtracted, is replaced by one of its items."""
    parts = _linear_in(dim, name)
    if parts is None:
        return False
    factor, rest = parts
    if not is_nonnegative(factor if isinstance(name, Largest) else -factor):
        return False
    left = [factor * item + rest for item in name.items]    # the shortest first: there most has cancelled
    return any(is_nonnegative(each) for each in sorted(left, key=_length))


def _length(dim: Dim) -> int:
    return 0 if isinstance(dim, int) else len(dim.terms)


def _by_names(dim: Poly, atoms: Sequence[str]) -> bool | None:
    """The proof in which a name is replaced by its formula: that of the greatest, which may be made of the others."""
    if _is_stacked(dim, atoms):
        return True
    named = [(name, parts) for name in atoms
             if isinstance(name, Named) and (parts := _linear_in(dim, name)) is not None]
    if not named:
        return None
    name, (factor, rest) = max(named, key=lambda each: each[0].typical)
    return is_nonnegative(factor * name.size + rest)


def _is_stacked(dim: Poly, atoms: Sequence[str]) -> bool:
    """Whether `dim` is upper - lower - rest, or upper - rest, for names of which the upper one is made of the lower
    one, step by step, and of no less than `rest` besides: such as offsets in memory of two buffers that lie on each
    other. That is found by walking through the formulas once, where a proof would try the steps in all orders."""
    names = [name for name in atoms if isinstance(name, Named)]
    if not 1 <= len(names) <= 2:
        return False
    pairs: list[tuple[Named, Named | None]] = [(names[0], None)] if len(names) == 1 else [
        (names[0], names[1]), (names[1], names[0])]
    for upper, lower in pairs:
        rest = dim - dim.of([((upper,), 1), *([] if lower is None else [((lower,), -1)])])
        if isinstance(rest, int) or not rest.atoms & set(names):
            return any(is_nonnegative(step + rest) for each in _beneath(upper)
                       for step in _steps(each).get(lower, ()))
    return False


@lru_cache(maxsize=1 << 14)
def _steps(name: Named) -> dict[Named | None, tuple[Dim, ...]]:
    """Of the formula of a name, each other name in it, and by how much at least the name is greater; under None what it
    is at least, without other names."""
    (monomial, c), *others = name.size.terms
    whole = not others and c == 1 and len(monomial) == 1 and isinstance(monomial[0], Largest)
    found: dict[Named | None, tuple[Dim, ...]] = {}
    for item in cast(Largest, monomial[0]).items if whole else (name.size,):
        inner = [] if isinstance(item, int) else [atom for atom in item.atoms if isinstance(atom, Named)]
        for atom in inner:
            found[atom] = *found.get(atom, ()), item - cast("Poly", item).of([((atom,), 1)])
        if not inner:
            found[None] = *found.get(None, ()), item
    return found


def _beneath(name: Named) -> Iterator[Named]:
    """The name, and those that its formula leads to and that are never greater; the nearest first."""
    found = {name: None}
    waiting = deque(found)
    while waiting:
        yield (each := waiting.popleft())
        for other, steps in _steps(each).items():
            if other is not None and other not in found and any(is_nonnegative(step) for step in steps):
                found[other] = None
                waiting.append(other)


def _by_extrema(dim: Poly, atoms: Sequence[str]) -> bool | None:
    """The proof in which a minimum, or a maximum that is subtracted, is replaced by each of its items."""
    for name in atoms:
        if isinstance(name, OneOf) and (parts := _linear_in(dim, name)) is not None and is_nonnegative(
                -parts[0] if isinstance(name, Largest) else parts[0]):
            return all(is_nonnegative(parts[0] * item + parts[1]) for item in name.items)
    return None
