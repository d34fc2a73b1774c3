"""Sizes as rows of numbers and texts, which JSON can hold: for what is kept of a program between processes."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.ir.dims import Dim, Poly
from graphc.ir.size_atoms import Atom, Largest, Named, Quotient, SizeName, Smallest

Row = list[Any]                     # of an atom: its kind and what it is made of; a polynomial is a list of [c, *rows]
BITS = 64


def rows_of(dim: Poly) -> list[Row]:
    """Rows of the atoms, each after those that it is made of, then one of the polynomial."""
    rows: list[Row] = []
    known: dict[Atom, int] = {}

    def poly(dim: Dim) -> Row:
        terms = dim.terms if isinstance(dim, Poly) else (((), dim),)
        return [[c, *(atom(name) for name in monomial)] for monomial, c in terms]

    def atom(name: str) -> int:
        if not isinstance(name, Atom):
            raise TypeError(f"nothing is known of {name}")
        if name not in known:
            rows.append(WRITE[type(name)](name, poly))
            known[name] = len(rows) - 1
        return known[name]
    last = poly(dim)
    return [*rows, last]


def dim_of(rows: Sequence[Row]) -> Poly:
    """What `rows_of` made the rows of. ValueError, TypeError or LookupError for others."""
    atoms: list[Atom] = []

    def poly(row: Row) -> Dim:
        total: Dim = 0
        for c, *names in row:
            product: Dim = _number(c)
            for at in names:
                product = product * Poly((((atoms[_number(at)],), 1),))
            total = total + product
        return total
    *inner, last = rows
    for kind, *parts in inner:
        atoms.append(READ[kind](poly, *parts))
    found = poly(last)
    if not isinstance(found, Poly):
        raise ValueError(f"{found} is a number")
    return found


def _number(value: object) -> int:
    if type(value) is not int or abs(value) >= 1 << BITS:
        raise TypeError(f"{value!r} is no number")
    return value


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError(f"{value!r} is no name")
    return value


def _poly(dim: Dim) -> Poly:
    if not isinstance(dim, Poly):
        raise TypeError(f"{dim} is a number")
    return dim


WritePoly = Callable[[Dim], Row]
ReadPoly = Callable[[Row], Dim]
WRITE: dict[type, Callable[[Any, WritePoly], Row]] = {
    SizeName: lambda a, poly: ["size", str(a), a.low, a.high, a.typical],
    Quotient: lambda a, poly: ["quotient", poly(a.dividend), a.divisor],
    Largest: lambda a, poly: ["largest", *map(poly, a.items)],
    Smallest: lambda a, poly: ["smallest", *map(poly, a.items)],
    Named: lambda a, poly: ["named", str(a), poly(a.size)],
}
READ: dict[str, Callable[..., Atom]] = {
    "size": lambda poly, name, low, high, usual: SizeName(
        _text(name), _number(low), None if high is None else _number(high), _number(usual)),
    "quotient": lambda poly, dividend, divisor: Quotient(_poly(poly(dividend)), max(1, _number(divisor))),
    "largest": lambda poly, *items: Largest(tuple(map(poly, items))),
    "smallest": lambda poly, *items: Smallest(tuple(map(poly, items))),
    "named": lambda poly, name, size: Named(_text(name), _poly(poly(size))),
}
