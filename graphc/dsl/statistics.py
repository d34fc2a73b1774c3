"""Means, quantiles and counts, as in numpy. `axis`: an int, a tuple where several are meant, or None for all."""
from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Any

from graphc.dsl.array import Array, Axes, as_array, as_float, emit
from graphc.dsl.elementwise import isnan, maximum, where
from graphc.dsl.form import formed
from graphc.dsl.index import broadcast
from graphc.dsl.shape import stack
from graphc.errors import GraphError
from graphc.ir.convert import flag, integer, is_sequence, items, real
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.types import bool_, i64, normalize_axis


@formed
def average(x: Array, axis: Axes = None, weights: Array | None = None, keepdims: bool = False) -> Array:
    """The mean, each element times its weight, divided by the sum of the weights. They have the shape of x, or that of
    its axes `axis` in this order."""
    x = as_float(x)
    if weights is None:
        return x.mean(axis, keepdims)
    w = as_float(as_array(weights, x.dtype)).astype(x.dtype)
    if w.shape != x.shape:
        axes: list[Any] = items(axis, "axis") if is_sequence(axis) else [] if axis is None else [axis]
        along = [normalize_axis(a, x.ndim) for a in axes]
        if not along or w.shape != tuple(x.shape[a] for a in along):
            raise GraphError(f"average: weights have the shape of x, {x.type}, or that of its axes axis=; got {w.type}")
        order = sorted(range(len(along)), key=lambda i: along[i])
        w = w.transpose(order).reshape([d if a in along else 1 for a, d in enumerate(x.shape)])
        w = broadcast(w, x.shape)
    return (x * w).sum(axis, keepdims) / w.sum(axis, keepdims)


@formed
def ptp(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """The largest element less the smallest."""
    x = as_array(x)
    return x.max(axis, keepdims) - x.min(axis, keepdims)


@formed
def count_nonzero(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """i64: how many elements are not 0."""
    return as_array(x).astype(bool_).sum(axis, keepdims)


@formed
def nansum(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """The sum of the elements that are no NaN."""
    x = as_array(x)
    return (where(isnan(x), 0, x) if x.dtype.is_float else x).sum(axis, keepdims)


@formed
def nanmean(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """The mean of the elements that are no NaN; NaN where there is none."""
    x = as_float(x)
    return nansum(x, axis, keepdims) / emit("bitnot", isnan(x)).sum(axis, keepdims).astype(x.dtype)


@formed
def median(x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """The middle element, or the mean of the two in the middle; NaN if there is one."""
    return quantile(x, 0.5, axis, keepdims)


@formed
def percentile(x: Array, q: float | Sequence[float], axis: int | None = None, keepdims: bool = False) -> Array:
    """`quantile` for q in percent."""
    shares = items(q, "percentile: q") if is_sequence(q) else [q]
    found = [real(share, "percentile: q") / 100 for share in shares]
    return quantile(x, found if is_sequence(q) else found[0], axis, keepdims)


@formed
def quantile(x: Array, q: float | Sequence[float], axis: int | None = None, keepdims: bool = False) -> Array:
    """The number below which the share q in [0, 1] of the elements lies, linear between neighbours, as in numpy; for
    several q one result each, along a new first axis. NaN if there is one. Its gradient goes to the elements that it
    lies between."""
    x, keepdims = as_float(x), flag(keepdims, "quantile: keepdims")
    if is_sequence(q):
        shares = items(q, "quantile: q")
        if not shares:
            raise GraphError("quantile: q is a number in [0, 1], or several")
        return stack([quantile(x, share, axis, keepdims) for share in shares], 0)
    share, rank = real(q, "quantile: q"), x.ndim
    if not 0 <= share <= 1:
        raise GraphError(f"quantile: q is a number in [0, 1], got {share}")
    flat = x.reshape(-1) if axis is None else x
    at = normalize_axis(-1 if axis is None else axis, flat.ndim)
    size = flat.shape[at]
    if not isinstance(size, int) or not size:
        raise GraphError(f"quantile takes a known number of elements, at least one, got {size} of {x.type}")
    ordered, lead, place = emit("sort", flat, axis=at, descending=False), (slice(None),) * at, share * (size - 1)
    low, high = ordered[(*lead, floor(place))], ordered[(*lead, ceil(place))]
    y, rest = low, place - floor(place)
    if rest:                    # from the nearer side, and not between two infinities, as in numpy
        step = high - low
        between = low + step * rest if rest < 0.5 else high - step * (1 - rest)
        y = where(emit("eq", low, high), low, between)
    y = where(isnan(flat).any(at), float("nan"), y)
    kept = (1,) * rank if axis is None else (*x.shape[:at], 1, *x.shape[at + 1:])
    return y.reshape(kept) if keepdims else y


@formed
def cov(x: Array, rowvar: bool = True, ddof: int = 1) -> Array:
    """The covariances of the rows of x [variables, observations]: [variables, variables], divided by the number of
    observations less ddof. rowvar=False: of the columns."""
    x, ddof = _observations("cov", x, rowvar), integer(ddof, "cov: ddof")
    centered, count = x - x.mean(1, True), x.shape[1]
    if isinstance(count, int):
        return centered @ centered.T / float(max(count - ddof, 0))
    return centered @ centered.T / maximum(emit("dimension", size=count, dtype=x.dtype) - ddof, 0)


@formed
def corrcoef(x: Array, rowvar: bool = True) -> Array:
    """The correlations of the rows of x [variables, observations]: [variables, variables], each from -1 to 1.
    rowvar=False: of the columns."""
    x = _observations("corrcoef", x, rowvar)
    centered = x - x.mean(1, True)
    unit = centered / emit("sqrt", (centered * centered).sum(1, True))
    return (unit @ unit.T).clip(-1.0, 1.0)


@formed
def bincount(x: Array, length: Dim, weights: Array | None = None) -> Array:
    """How often each number 0 … length - 1 is in x [N], i64, or the sum of its weights [N]. Another number is an
    error when the graph runs. (numpy finds the length by itself.)"""
    x, size = as_array(x, i64), as_dim(length)
    if x.ndim != 1 or not x.dtype.is_int:
        raise GraphError(f"bincount takes integers [N], got {x.type}")
    each = as_array(1, i64) if weights is None else as_array(weights)
    if weights is not None and each.shape != x.shape:
        raise GraphError(f"bincount: weights have the shape of x, {x.type}, got {each.type}")
    none = broadcast(as_array(0, each.dtype), (size,))
    return emit("scatter_add", none, x, broadcast(each, x.shape), axis=0)


def _observations(name: str, x: Array, rowvar: bool) -> Array:
    x = as_float(x)
    if x.ndim != 2:
        raise GraphError(f"{name} takes [variables, observations], got {x.type}")
    return x if flag(rowvar, f"{name}: rowvar") else x.T
