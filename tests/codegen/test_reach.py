"""Which ends of what a function touches are kept: those that no other makes needless, at any values."""
from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from graphc.codegen.loops.index import Ix, Sym
from graphc.codegen.loops.reach import End, _furthest
from graphc.ir.dims import Poly, evaluate, size_name

T = size_name("T")
ROW, COLUMN = (Sym(name, number, lowers=[(Ix(0), 1)]) for number, name in enumerate(("row", "column")))
SIGNED = Sym("signed", 2)


def value(limit: Ix, values: dict[Sym, int], size: int) -> int:
    return sum((evaluate(c, {"T": size}) * values[s] for s, c in limit.terms), evaluate(limit.const, {"T": size}))


@pytest.mark.parametrize("limits", (1, 2))
def test_ends_that_are_left_out_lie_within_one_that_is_kept(limits):
    """By any limit by which that is inside, so is one that was left out."""
    draw = np.random.default_rng(0)
    sizes = (0, 1, 3, T, T * 2, T * 8 + 1, T * 8 + 5)

    def limit() -> Ix:
        terms = (s * sizes[draw.integers(len(sizes) if limits == 1 else 3)]
                 for s in (Ix(0, ((ROW, 1),)), Ix(0, ((COLUMN, 1),)), Ix(0, ((SIGNED, 1),))))
        return sum(terms, Ix()) + sizes[draw.integers(len(sizes))] + int(draw.integers(9))

    def end() -> End:
        floors = ((ROW, int(draw.integers(4))),) if draw.integers(2) else ()
        return End(tuple([limit() for _ in range(limits)]), floors)
    ends = list(dict.fromkeys(end() for _ in range(400)))
    kept = _furthest(ends)
    assert len(kept) < len(ends) and any(isinstance(one.limits[0].const, Poly) for one in kept)
    points = [dict(zip((ROW, COLUMN, SIGNED), point)) for point in product((0, 1, 5), (0, 2), (-3, 0, 4))]
    for left_out in set(ends) - set(kept):
        assert any(all(value(a, at, size) >= value(b, at, size) for a, b in zip(one.limits, left_out.limits)
                       for at in points for size in (1, 2, 50))
                   and set(one.floors) <= set(left_out.floors) | {(s, n - 1 - i) for s, n in left_out.floors
                                                                  for i in range(4)} for one in kept)


def test_equal_steps_with_a_second_limit_are_one_end():
    """Of a kernel whose rows all have room for the most columns there may be."""
    ends = [End((Ix(-1, ((ROW, n), (COLUMN, 1))), Ix(1000, ((ROW, n),)))) for n in range(36)]
    assert _furthest(ends) == (ends[-1],)
    lone = End(tuple(reversed(ends[3].limits)))             # another order of limits: another end
    assert _furthest([*ends, lone]) == (ends[-1], lone)


def test_ends_of_other_polynomials_are_all_kept():
    ends = [End((Ix(T * n),)) for n in (1, 2, 3)]
    assert _furthest(ends) == tuple(ends)
