"""Sizes with others in the place of their names."""
from __future__ import annotations

from collections.abc import Mapping

from graphc.ir.dims import Dim, Poly, largest, product_of, smallest
from graphc.ir.size_atoms import Largest, OneOf, Quotient


def bind(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """`dim` with the named dimensions that `values` has replaced by what they stand for."""
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        total = total + product_of((coefficient, *[_bound_atom(name, values) for name in monomial]))
    return total


def _bound_atom(name: str, values: Mapping[str, Dim]) -> Dim:
    if isinstance(name, Quotient) and name.dividend.names & values.keys():
        return bind(name.dividend, values) // name.divisor
    if isinstance(name, OneOf):
        bound = [bind(item, values) for item in name.items]
        return largest(*bound) if isinstance(name, Largest) else smallest(*bound)
    return values[name] if name in values else Poly((((name,), 1),))
