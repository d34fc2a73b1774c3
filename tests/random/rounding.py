"""How far rounding may move the results of an operator: in units in the last place, and where not at all.

IEEE arithmetic gives the exact result where the type holds it: 1 - 1 is 0, the half of a number is exact, and a sum
of small whole numbers is what it is in any order. No noise belongs there: behind a factor of 1e9, or before a floor
or a comparison, it would explain whatever comes out.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.image import SPATIAL_NAMES
from graphc.ir.op import Op
from graphc.ir.types import DType, f32


def every_rank(*names: str) -> frozenset[str]:
    """Operators on images, for each number of spatial axes."""
    return frozenset(name.format(axes) for name in names for axes in SPATIAL_NAMES)


EXACT = frozenset({                 # operators that choose, move or compare: no rounding
    "reshape", "transpose", "broadcast_to", "concat", "slice", "pad", "flip", "dynamic_slice", "dynamic_update_slice",
    "tile", "tril", "triu", "unequal",
    "stack", "constant", "iota", "dimension", "copy", "neg", "abs", "sign", "floor", "ceil", "round", "minimum",
    "maximum", "where", "max", "min",
    "sort", "topk", "take", "take_along_axis", "one_hot", "relu", "clip",
    "stop_gradient", "shard_sum", "eq",
    "ne", "lt", "le", "gt", "ge"}) | every_rank("max_pool{}d", "max_pool{}d_pick")
# the nearest number of the type to the exact result
CORRECT = frozenset({"add", "sub", "mul", "div", "sqrt", "cast"})
ROUNDED_ONCE = CORRECT | {          # the result alone
    "mod", "floordiv", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "pow", "rsqrt",
    "leaky_relu"}
# of products of their operands: those of the magnitudes are what partial sums can reach
SUMS = frozenset({
    "sum", "mean", "matmul", "einsum", "cumsum", "linear_scan", "scatter_add", "scatter_add_along_axis"}) | every_rank(
        "conv{}d", "conv{}d_input_grad", "conv{}d_weight_grad", "conv_transpose{}d", "avg_pool{}d", "avg_pool{}d_grad",
        "max_pool{}d_grad")
# of nothing but the terms, in any order
PLAIN_SUMS = frozenset({"sum", "matmul", "einsum", "cumsum", "scatter_add", "scatter_add_along_axis"})
# added up one after the other (docs/numerics.md, "Sums"): see `same_way`
RUNNING = frozenset({"cumsum", "linear_scan"})
CHOOSES = every_rank("max_pool{}d_grad")        # whose first operand says which terms

ULPS = 4                            # of others: docs/numerics.md promises 2 in f32, 4 in f64, 5 for composites
CORRECT_ULPS = 1                    # half a unit of the larger of the two sizes that a unit has in a binade
# sums whose units follow from how many terms they have
COUNTED = frozenset({"sum", "mean", "matmul", "einsum", "cumsum"})
# of each partial sum in `same_way`: half of the half unit that a rounding may be off, because one draw stands for all
# steps, and what noise does is allowed several times over
SAME_WAY = 0.25


def ulps(name: str, terms: float, in_loop: bool) -> float:
    """Units by which the result of this operator may be off; those of sums of so many `terms` are units of what the
    magnitudes add up to.

    Each of n additions is off by half a unit, all of them together by the root of n as much. What a loop adds up step
    by step may be one sum behind it, in another order.
    """
    if in_loop:
        return ULPS
    if name in COUNTED:
        roundings = terms - 1 if name in ("sum", "cumsum") else terms       # of the products or of the division, too
        return min(ULPS, 0.5 * float(np.sqrt(max(roundings, 0))))
    return CORRECT_ULPS if name in CORRECT else ULPS


def same_way(op: Op, ins: Sequence[np.ndarray], size: np.ndarray) -> np.ndarray:
    """In units in the last place of 1: how far a running sum is off where each step rounds the same way as the last.
    `size`: of the partial sums, 0 where they are exact.

    Adding x to a partial sum S gives the nearest multiple of a unit of S, and loses up to half a unit of S: u |S| with
    u = eps / 2. Where the terms are nearly equal, what is lost is not independent of what was lost before: S is a
    multiple of its unit, so the loss is that of x alone, the same in sign and in size until S doubles. Over n steps
    these errors make not the root of n but up to n u max|S|, and more precisely what the sum itself makes of them, as
    each error is carried on as the terms are: the operator, applied to u |S|.
    """
    *factors, _ = ins
    return SAME_WAY * np.asarray(op.reference(*map(np.abs, factors), size))


def exact_result(name: str, ins: Sequence[np.ndarray], y: np.ndarray, dtype: DType) -> np.ndarray | bool:
    """bool, where the type holds the exact result of an operator of CORRECT on numbers of that type."""
    if ins[0].dtype.kind != "f" or dtype is f32:        # f64 holds what two f32 give, or rounds it to the same f32
        return y.astype(dtype.np) == y
    a, b = np.broadcast_arrays(ins[0], ins[-1])
    if name in ("add", "sub"):
        b = -b if name == "sub" else b
        back = y - a
        return (a - (y - back)) + (b - back) == 0       # what rounding took away (Knuth's two-sum)
    if name in ("mul", "div"):
        return _power_of_two(b) | (_power_of_two(a) if name == "mul" else False)
    return name == "cast"


def exact_sum(name: str, ins: Sequence[np.ndarray], size: np.ndarray, dtype: DType) -> np.ndarray | bool:
    """bool, where all partial sums are numbers of the type: multiples of one power of two, none above its digits.
    `size`: sums of magnitudes."""
    if name not in PLAIN_SUMS:
        return False
    units = [_unit(x) for x in ins if x.dtype.kind == "f"]
    unit = sum(units) if name in ("matmul", "einsum") else min(units)
    return size <= 2.0 ** (np.finfo(dtype.np).nmant + 1 + unit)


def _unit(x: np.ndarray) -> float:
    """The exponent of the largest power of two of which all numbers are multiples; -inf where some are no numbers."""
    if not np.isfinite(x).all():
        return -np.inf
    mantissa, exponent = np.frexp(x[x != 0])
    whole = (mantissa * 2.0 ** 53).astype(np.int64)
    if not whole.size:
        return 0.0
    return float((exponent - 53 + np.frexp((whole & -whole).astype(np.float64))[1] - 1).min())


def _power_of_two(x: np.ndarray) -> np.ndarray:
    return (np.abs(np.frexp(x)[0]) == 0.5) | (x == 0)
