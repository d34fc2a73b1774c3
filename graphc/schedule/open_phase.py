"""Phases of contractions some of whose sizes are known only when they run, as choosers of schedules look at them."""
from __future__ import annotations

from dataclasses import replace

from graphc.ir.dims import typical
from graphc.schedule.contraction_form import LinearMap, Phase


def at_typical(p: Phase, rows: int = 0) -> Phase:
    """The phase with the typical sizes of all names. rows: of m, about as many instead, if their number is open."""
    if not p.is_open:
        return p
    sizes = [typical(n) for n in p.sizes]
    first = next((d for d in p.m if not isinstance(p.sizes[d], int)), None)
    if rows and first is not None:
        others = [sizes[d] for d in p.m if d != first]
        for size in others:
            rows //= size
        sizes[first] = max(1, rows)
    return replace(p, sizes=tuple(sizes), a=_linear(p.a), b=_linear(p.b), out=_linear(p.out))


def _linear(t: LinearMap) -> LinearMap:
    return LinearMap(typical(t.base), tuple(map(typical, t.strides)))


def last_open(p: Phase, dims: tuple[int, ...]) -> int:
    """The number of the innermost of the dims whose size is open; 0 if none is."""
    return max((i for i, d in enumerate(dims) if not isinstance(p.sizes[d], int)), default=0)


def known(p: Phase, *groups: tuple[int, ...]) -> bool:
    """Whether all sizes of the groups of dims are numbers."""
    return all(isinstance(p.sizes[d], int) for dims in groups for d in dims)
