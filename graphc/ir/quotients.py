"""Sizes with rounded quotients: those of quotients, as steps over images give them, and bounds without rounding."""
from __future__ import annotations

from graphc.ir.dims import Dim, Poly
from graphc.ir.size_atoms import Quotient


def flattened(quotient: Quotient) -> Dim:
    """The quotient of a quotient as the one that it is: ((x // m) + n) // d = (x + m n) // (m d). As written, proofs
    have an easier time."""
    dividend = quotient.dividend
    inner = [m[0] for m, c in dividend.terms if len(m) == 1 and c == 1 and isinstance(m[0], Quotient)]
    if len(inner) != 1 or sum(bool(m) for m, _ in dividend.terms) != 1:
        return Poly((((quotient,), 1),))
    within = flattened(inner[0])
    if not isinstance(within, Poly) or len(within.terms) != 1 or not isinstance(within.terms[0][0][0], Quotient):
        return Poly((((quotient,), 1),))
    number, last = dividend - Poly((((inner[0],), 1),)), within.terms[0][0][0]
    return (last.dividend + number * last.divisor) // (last.divisor * quotient.divisor)


def unrounded(dim: Dim) -> Dim:
    """A size that is no less: without the rounding of quotients that are multiplied by their divisors again."""
    found = dim
    for monomial, c in dim.terms if isinstance(dim, Poly) else ():
        atom = monomial[0] if len(monomial) == 1 else None
        if isinstance(atom, Quotient) and c > 0 and c % atom.divisor == 0:
            found = found - Poly(((monomial, c),)) + atom.dividend * (c // atom.divisor)
    return found
