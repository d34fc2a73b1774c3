"""Sizes as formulas that people read: without maxima and parts under names."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dims import Dim, Poly, largest
from graphc.ir.size_atoms import Largest, Named

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
    atom = next(iter(best.atoms)) if isinstance(best, Poly) and len(best.atoms) == 1 else None
    return list(atom.items) if isinstance(atom, Largest) and best == Poly((((atom,), 1),)) else [best]


def named(name: str, size: Dim) -> Dim:
    """The size under a name, unless it is a number or short."""
    if isinstance(size, int) or len(size.terms) == 1 and not any(isinstance(n, Largest) for n in size.atoms):
        return size
    return Poly((((Named(name, size),), 1),))
