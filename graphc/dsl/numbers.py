"""Elementwise functions that numpy has besides, and looking up in sorted numbers."""
from __future__ import annotations

import numpy as np

from graphc.dsl.array import Array, as_array, as_float, common_dtype, emit
from graphc.dsl.elementwise import Operand, abs, isfinite, isnan, maximum, minimum, where
from graphc.dsl.form import formed
from graphc.dsl.index import take
from graphc.dsl.shape import expand_dims, iota
from graphc.errors import GraphError
from graphc.ir.convert import choice, flag, integer, real
from graphc.ir.types import Dim, DType, f32, i64


@formed
def isinf(x: Operand) -> Array:
    """bool: whether each element is infinite."""
    x = as_array(x)
    return emit("bitand", emit("bitnot", isfinite(x)), emit("bitnot", isnan(x)))


@formed
def nan_to_num(x: Operand, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Array:
    """x with other numbers in the place of NaN and of the infinities: unless given the largest numbers of the dtype."""
    x = as_float(x)
    most = float(np.finfo(x.dtype.np).max)
    high = most if posinf is None else real(posinf, "nan_to_num: posinf")
    low = -most if neginf is None else real(neginf, "nan_to_num: neginf")
    x = where(isnan(x), real(nan, "nan_to_num: nan"), x)
    return where(x == float("inf"), high, where(x == float("-inf"), low, x))


@formed
def reciprocal(x: Operand) -> Array:
    """1 / x."""
    return 1 / as_float(x)


@formed
def hypot(x: Operand, y: Operand) -> Array:
    """sqrt(x² + y²), without overflow; gradient 0 where both are 0."""
    dtype = common_dtype((x, y))
    a, b = (abs(as_float(as_array(v, dtype))) for v in (x, y))
    high, low = maximum(a, b), minimum(a, b)
    ratio = low / where(high == 0, 1.0, high)
    return high * emit("sqrt", ratio * ratio + 1)


@formed
def fmod(x: Operand, y: Operand) -> Array:
    """The remainder of x / y with the sign of x (gc.mod: of y)."""
    dtype = common_dtype((x, y))
    x, y = as_array(x, dtype), as_array(y, dtype)
    return emit("sign", x) * emit("mod", abs(x), abs(y))


@formed
def trunc(x: Operand) -> Array:
    """x without its fraction, towards 0; gradient 0."""
    x = as_float(x)
    return where(x < 0, emit("ceil", x), emit("floor", x))


@formed
def isclose(x: Operand, y: Operand, rtol: float = 1e-5, atol: float = 1e-8) -> Array:
    """bool: |x - y| <= atol + rtol |y|; infinities of one sign are close, NaN to nothing."""
    dtype = common_dtype((x, y))
    x, y = as_float(as_array(x, dtype)), as_float(as_array(y, dtype))
    near = abs(x - y) <= abs(y) * real(rtol, "isclose: rtol") + real(atol, "isclose: atol")
    return emit("bitor", emit("eq", x, y), emit("bitand", near, isfinite(y)))


@formed
def allclose(x: Operand, y: Operand, rtol: float = 1e-5, atol: float = 1e-8) -> Array:
    """bool scalar: whether all elements are close."""
    return isclose(x, y, rtol, atol).all()


@formed
def linspace(start: float, stop: float, num: Dim = 50, endpoint: bool = True, dtype: DType = f32) -> Array:
    """`num` numbers from start to stop, equally far apart; without `endpoint` up to one step before stop."""
    first, last, count = real(start, "linspace: start"), real(stop, "linspace: stop"), integer(num, "linspace: num", 0)
    steps = count - flag(endpoint, "linspace: endpoint")
    x = iota(count, 0, dtype)
    return x * ((last - first) / max(steps, 1)) + first


@formed
def searchsorted(a: Array, v: Array, side: str = "left") -> Array:
    """i64: where each v belongs in the increasing numbers a [N]: the number of elements below v (side "left"), or not
    above it ("right")."""
    dtype = common_dtype((a, v))
    a, v = as_array(a, dtype), as_array(v, dtype)
    if a.ndim != 1:
        raise GraphError(f"searchsorted takes increasing numbers [N], got {a.type}")
    below = emit("lt" if choice(side, "searchsorted: side", ("left", "right")) == "left" else "le", a,
                 expand_dims(v, -1))
    return below.astype(i64).sum(-1)


@formed
def interp(x: Array, xp: Array, fp: Array) -> Array:
    """The line through the points (xp, fp), both [N] with xp increasing, at x; outside the first or the last fp."""
    dtype = common_dtype((x, xp, fp))
    x, xp, fp = (as_float(as_array(v, dtype)) for v in (x, xp, fp))
    if xp.ndim != 1 or xp.shape != fp.shape or not isinstance(xp.shape[0], int) or xp.shape[0] < 2:
        raise GraphError(f"interp takes two or more points, xp [N] and fp [N], got {xp.type} and {fp.type}")
    at = minimum(maximum(searchsorted(xp, x, "right"), 1), xp.shape[0] - 1)
    x0, x1, y0, y1 = (take(v, at - back) for v in (xp, fp) for back in (1, 0))
    inside = minimum(maximum(x, xp[0]), xp[-1])
    return y0 + (y1 - y0) * ((inside - x0) / (x1 - x0))
