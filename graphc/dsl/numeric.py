"""Functions of numpy that are a few others here: parts of numbers, statistics, sorted lists, sequences. As in numpy
unless the docstring says otherwise; integers become f32 where numpy makes floats of them."""
from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from graphc.dsl.array import Array, Axes, as_array, as_float, common_dtype, divide, emit
from graphc.dsl.conv import conv1d
from graphc.dsl.elementwise import Operand, abs, ceil, floor, isfinite, isnan, maximum, minimum, sqrt, where
from graphc.dsl.form import formed
from graphc.dsl.index import broadcast, scatter_add, take
from graphc.dsl.reduce import sort
from graphc.errors import GraphError
from graphc.ir.convert import choice, flag, integer, is_sequence, items, real, shown
from graphc.ir.dim_text import as_dim
from graphc.ir.types import bool_, i64, normalize_axes, normalize_axis

MOST_COMPARED = 128                 # a list that `searchsorted` compares as a whole; a longer one is halved
MODES = ("full", "same", "valid")


@formed
def isinf(x: Operand) -> Array:
    """bool: whether each element is infinite."""
    x = as_array(x)
    return emit("bitnot", emit("bitor", isfinite(x), isnan(x)))


@formed
def nan_to_num(x: Operand, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Array:
    """x with `nan` for NaN, and the largest and least number of the dtype, or `posinf` and `neginf`, for infinities."""
    x = as_array(x)
    if not x.dtype.is_float:
        return x
    x = where(isnan(x), real(nan, "nan"), x)
    if posinf is None and neginf is None:
        limit = _largest(x)
        return x.clip(-limit, limit)
    high, low = (limit if given is None else real(given, "posinf and neginf")
                 for limit, given in ((_largest(x), posinf), (-_largest(x), neginf)))
    return where(x == float("inf"), high, where(x == -float("inf"), low, x))


@formed
def reciprocal(x: Operand) -> Array:
    """1 / x; of integers f32 (numpy: integers)."""
    return divide(1, as_array(x))


@formed
def hypot(x: Operand, y: Operand) -> Array:
    """sqrt(x² + y²) without overflow; infinite if one is. Gradient 0 at the origin."""
    dtype = common_dtype((x, y))
    x, y = abs(as_float(as_array(x, dtype))), abs(as_float(as_array(y, dtype)))
    large, small = maximum(x, y), minimum(x, y)
    ratio = small / where(large == 0, 1.0, large)
    result = large * sqrt(1 + ratio * ratio)
    return where(emit("bitor", isinf(x), isinf(y)), float("inf"), where(large == 0, 0.0, result))


@formed
def trunc(x: Operand) -> Array:
    """The whole number nearest to x towards 0; gradient 0."""
    x = as_array(x)
    return where(x < 0, ceil(x), floor(x))


@formed
def fmod(x: Operand, y: Operand) -> Array:
    """The remainder of x / y with the sign of x (C's and torch's fmod; `mod` has the sign of y)."""
    dtype = common_dtype((x, y))
    x, y = as_array(x, dtype), as_array(y, dtype)
    rest = emit("mod", abs(x), abs(y))
    return where(x < 0, -rest, rest)


@formed
def heaviside(x: Operand, at_zero: Operand) -> Array:
    """0 below 0, `at_zero` at 0, 1 above; NaN stays NaN."""
    dtype = common_dtype((x, at_zero))
    x = as_float(as_array(x, dtype))
    step = where(x < 0, as_array(0, x.dtype), where(x > 0, as_array(1, x.dtype), as_array(at_zero, x.dtype)))
    return where(isnan(x), x, step)


@formed
def nansum(x: Operand, axis: Axes = None, keepdims: bool = False) -> Array:
    """The sum of what is not NaN."""
    return _without_nan(x).sum(axis, keepdims)


@formed
def nanmean(x: Operand, axis: Axes = None, keepdims: bool = False) -> Array:
    """The mean of what is not NaN; NaN of nothing."""
    x = as_float(x)
    count = (~isnan(x)).sum(axis, keepdims).astype(x.dtype)
    return _without_nan(x).sum(axis, keepdims) / count


@formed
def count_nonzero(x: Operand, axis: Axes = None, keepdims: bool = False) -> Array:
    """How many elements are not 0 (True): i64."""
    return as_array(x).astype(bool_).sum(axis, keepdims)


@formed
def ptp(x: Operand, axis: Axes = None, keepdims: bool = False) -> Array:
    """The largest less the least."""
    x = as_array(x)
    return x.max(axis, keepdims) - x.min(axis, keepdims)


@formed
def average(x: Operand, weights: Operand | None = None, axis: int | None = None) -> Array:
    """The mean, each element counted `weights` times: of the shape of x, or one number for each place along `axis`."""
    x = as_float(x)
    if weights is None:
        return x.mean(axis)
    w = as_float(as_array(weights, x.dtype))
    if w.shape != x.shape:
        if axis is None or w.ndim != 1:
            raise GraphError(f"average: weights have the shape of x, {x.type}, or one axis and axis= says which; "
                             f"got {w.type}")
        at = normalize_axis(axis, x.ndim)
        w = w.reshape((-1,) + (1,) * (x.ndim - at - 1))
    if any(x.shape[a] == 0 for a in normalize_axes(axis, x.ndim)):
        raise GraphError(f"average of {x.type}: weights over an axis of size 0 add up to nothing")
    return (x * w).sum(axis) / broadcast(w, x.shape).sum(axis)


@formed
def quantile(x: Operand, q: float | Sequence[float], axis: int | None = None, keepdims: bool = False) -> Array:
    """The value below which the share q, a number from 0 to 1, of the elements lies, between two of them linearly;
    NaN if one is NaN. Of several q: one result each along a new first axis."""
    x = as_float(x)
    if is_sequence(q):
        shares = [quantile(x, share, axis, keepdims) for share in items(q, "q")]
        if not shares:
            raise GraphError("quantile: q has no numbers")
        return emit("stack", *shares, axis=0)
    share = real(q, "q")
    if not 0 <= share <= 1:
        raise GraphError(f"quantile: q is from 0 to 1, got {shown(q)}")
    at = None if axis is None else normalize_axis(axis, x.ndim)
    row, along = (x.flatten(), 0) if at is None else (x, at)
    n = row.shape[along]
    if not isinstance(n, int) or n == 0:
        raise GraphError(f"quantile needs the size of its axis as an int above 0, got {n}")
    ordered, place = sort(row, along), share * (n - 1)
    low = min(int(place), max(n - 2, 0))
    first, second = (take(ordered, as_array(min(i, n - 1)), along) for i in (low, low + 1))
    result = first + (second - first) * (place - low) if place != low else first
    result = where(isnan(take(ordered, as_array(n - 1), along)), float("nan"), result)
    if not flag(keepdims, "keepdims"):
        return result
    return result.reshape((1,) * x.ndim if at is None else (*x.shape[:at], 1, *x.shape[at + 1:]))


@formed
def median(x: Operand, axis: int | None = None, keepdims: bool = False) -> Array:
    """The middle of the elements in order, or the mean of the two (torch: the lower one); NaN if one is NaN."""
    return quantile(x, 0.5, axis, keepdims)


@formed
def percentile(x: Operand, q: float | Sequence[float], axis: int | None = None, keepdims: bool = False) -> Array:
    """`quantile` with q from 0 to 100."""
    shares = [real(v, "q") / 100 for v in items(q, "q")] if is_sequence(q) else real(q, "q") / 100
    return quantile(x, shares, axis, keepdims)


@formed
def searchsorted(a: Operand, v: Operand, side: str = "left") -> Array:
    """For each number of v its place in the sorted list a [n], i64: how many of a are smaller ("right": not larger).
    NaN counts as larger than all."""
    dtype = common_dtype((a, v))
    a, v = as_array(a, dtype), as_array(v, dtype)
    if a.ndim != 1:
        raise GraphError(f"searchsorted: a is a list with one axis, got {a.type}")
    compare = {"left": "lt", "right": "le"}[choice(side, "side", ("left", "right"))]

    def goes_before(x: Array, y: Array) -> Array:
        before = emit(compare, x, y)
        if not x.dtype.is_float:
            return before
        last = isnan(y) if compare == "le" else emit("bitand", isnan(y), emit("bitnot", isnan(x)))
        return emit("bitor", before, last)
    n = a.shape[0]
    if not isinstance(n, int) or n <= MOST_COMPARED:
        return goes_before(a, v.reshape((*v.shape, 1))).sum(-1)
    place = broadcast(as_array(0, i64), v.shape)
    for step in [1 << k for k in reversed(range(n.bit_length()))]:
        there = place + step
        inside = emit("le", there, n)
        element = take(a, emit("minimum", there, n) - 1)
        place = where(emit("bitand", inside, goes_before(element, v)), there, place)
    return place


@formed
def digitize(x: Operand, bins: Operand, right: bool = False) -> Array:
    """The number of the bin of each x, i64, for increasing bins [n]: i with bins[i - 1] <= x < bins[i]
    (right: < and <=)."""
    return searchsorted(bins, x, "left" if flag(right, "right") else "right")


@formed
def interp(x: Operand, xp: Operand, fp: Operand) -> Array:
    """Values at x of the line through the points (xp, fp), xp increasing; beyond its ends the last value."""
    dtype = common_dtype((x, xp, fp))
    x, xp, fp = (as_float(as_array(v, dtype)) for v in (x, xp, fp))
    n = xp.shape[0] if xp.ndim == 1 and fp.shape == xp.shape else 0
    if not isinstance(n, int) or n < 1:
        raise GraphError(f"interp: xp and fp are lists of one size, 1 or more, got {xp.type} and {fp.type}")
    if n == 1:
        return broadcast(fp, x.shape) if x.ndim else fp.reshape(())
    right = emit("minimum", emit("maximum", searchsorted(xp, x, "right"), 1), n - 1)
    x0, x1, y0, y1 = (take(v, at) for v in (xp, fp) for at in (right - 1, right))
    inside = y0 + (x - x0) * ((y1 - y0) / (x1 - x0))
    return where(x <= xp[0], fp[0], where(x >= xp[-1], fp[-1], inside))


@formed
def bincount(x: Operand, length: int, weights: Operand | None = None) -> Array:
    """How often each number 0 … length - 1 stands in x [n], i64, or the sum of `weights` there; another number is an
    error. (numpy finds the length by itself.)"""
    x, size = as_array(x, i64), as_dim(length)
    if weights is None:
        return scatter_add(broadcast(as_array(0, i64), (size,)), x, as_array(1, i64))
    w = as_array(weights)
    return scatter_add(broadcast(as_array(0, w.dtype), (size,)), x, w)


@formed
def diff(x: Operand, n: int = 1, axis: int = -1) -> Array:
    """Each element less the one before along `axis`, n times."""
    x = as_array(x)
    at, times = normalize_axis(axis, x.ndim), integer(n, "n", 0)
    size, front = x.shape[at], (slice(None),) * at
    if not isinstance(size, int) and times > 1:
        raise GraphError(f"diff: several times needs the size {size} of axis {at} as an int; bind it first")
    for _ in range(min(times, size) if isinstance(size, int) else times):
        x = x[(*front, slice(1, None))] - x[(*front, slice(None, -1))]
    return x


@formed
def convolve(x: Operand, y: Operand, mode: str = "full") -> Array:
    """sum over j of x[j] y[i - j] of lists x [m] and y [n]: all m + n - 1 ("full"), the middle max(m, n) ("same") or
    those where one lies inside the other ("valid")."""
    dtype = common_dtype((x, y))
    x, y = as_float(as_array(x, dtype)), as_float(as_array(y, dtype))
    choice(mode, "mode", MODES)
    m, n = (v.shape[0] if v.ndim == 1 else 0 for v in (x, y))
    if not isinstance(m, int) or not isinstance(n, int) or not m or not n:
        raise GraphError(f"convolve takes lists of one axis with one number or more, got {x.type} and {y.type}")
    if n > m:
        x, y, m, n = y, x, n, m
    padding = 0 if mode == "valid" else n - 1
    whole = conv1d(x.reshape((1, 1, m)), y[::-1].reshape((1, 1, n)), padding=padding)
    whole = whole.reshape((-1,))
    return whole[(n - 1) // 2:(n - 1) // 2 + m] if mode == "same" else whole


@formed
def polyval(p: Operand, x: Operand) -> Array:
    """p[0] x^(n-1) + … + p[n-1], for coefficients p [n]."""
    dtype = common_dtype((x, p))
    p, x = as_array(p, dtype), as_array(x, dtype)
    n = p.shape[0] if p.ndim == 1 else 0
    if not isinstance(n, int) or n == 0:
        raise GraphError(f"polyval: p is a list of one coefficient or more, got {p.type}")
    total = broadcast(p[0], x.shape)
    for i in range(1, n):
        total = total * x + p[i]
    return total


@formed
def unravel_index(x: Operand, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """Row-major numbers of elements as positions on each axis of `shape`."""
    x, sizes = as_array(x, i64), tuple(integer(d, "a size", 1) for d in items(shape, "a shape"))
    return tuple(x // prod(sizes[i + 1:]) % d for i, d in enumerate(sizes))


def _without_nan(x: Operand) -> Array:
    x = as_array(x)
    return where(isnan(x), as_array(0, x.dtype), x) if x.dtype.is_float else x


def _largest(x: Array) -> float:
    return float(np.finfo(x.dtype.np).max)
