"""Phases of contractions some of whose sizes are known only when they run, as choosers of schedules look at them."""
from __future__ import annotations

from typing import TypeGuard

from graphc.ir.dims import Dim, typical
from graphc.schedule.contraction_form import LinearMap, Phase


def is_closed(p: Phase[Dim]) -> TypeGuard[Phase[int]]:
    """Whether all sizes are numbers, and steps in memory are, too."""
    return not p.is_open


def at_typical(p: Phase[Dim], count: int = 0, counted: tuple[int, ...] = ()) -> Phase[int]:
    """The phase with the typical sizes of all names. count: of the dims `counted`, all together, about as many instead,
    if their number is open."""
    if is_closed(p):
        return p
    sizes = [typical(n) for n in p.sizes]
    first = next((d for d in counted if not isinstance(p.sizes[d], int)), None)
    if count and first is not None:
        others = [sizes[d] for d in counted if d != first]
        for size in others:
            count //= size
        sizes[first] = max(1, count)
    return Phase(tuple(sizes), p.batch, p.m, p.n, p.k, _linear(p.a), _linear(p.b), _linear(p.out), p.parts)


def _linear(t: LinearMap[Dim]) -> LinearMap[int]:
    return LinearMap(typical(t.base), tuple(map(typical, t.strides)))


def last_open(p: Phase[Dim], dims: tuple[int, ...]) -> int:
    """The number of the innermost of the dims whose size is open; 0 if none is."""
    return max((i for i, d in enumerate(dims) if not isinstance(p.sizes[d], int)), default=0)


def known(p: Phase[Dim], *groups: tuple[int, ...]) -> bool:
    """Whether all sizes of the groups of dims are numbers."""
    return all(isinstance(p.sizes[d], int) for dims in groups for d in dims)
