"""Arithmetic of formulas in sizes, as routines."""
from __future__ import annotations

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import I64
from graphc.runtime.system import I64s

MOST = 1 << 54                  # of a product: sums of 128 terms still fit into an i64


@routine
def times(f: RoutineBody, a: I64, b: I64, small: I64s) -> I64:
    """The product; where it is too large, 0, and `small` says so."""
    with f.if_((a > 0) & (b > 0)):
        with f.if_(a > f.given(MOST, I64) // b.at_least(1)):
            small[0].value = 0
            f.return_(0)
    return a * b


@routine
def rounded_down(f: RoutineBody, a: I64, b: I64) -> I64:
    """The quotient of an integer and one above 0, rounded down."""
    f.return_if(a >= 0, a // b)
    return (b - 1 - a) // b * -1
