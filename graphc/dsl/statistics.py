"""Means, quantiles and counts, as in numpy. `axis`: an int, a tuple where several are meant, or None for all."""
from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

from graphc.dsl.array import Array, Axes, as_array, as_float, emit
from graphc.dsl.elementwise import isnan, where
from graphc.dsl.form import formed
from graphc.dsl.shape import stack
from graphc.errors import GraphError
from graphc.ir.convert import flag, integer, is_sequence, items, real
from graphc.ir.types import bool_, normalize_axis


@formed
def average(x: Array, axis: Axes = None, weights: Array | None = None, keepdims: bool = False) -> Array:
    """The mean, each element times its weight, divided by the sum of the weights; they broadcast to x (numpy also takes
    one weight for each element along a single axis: so does this)."""
    x = as_float(x)
    if weights is None:
        return x.mean(axis, keepdims)
    w = as_array(weights, x.dtype).astype(x.dtype)
    if w.ndim == 1 and isinstance(axis, int) and x.ndim > 1:
        w = w.reshape((-1, *(1,) * (x.ndim - 1 - normalize_axis(axis, x.ndim))))
    w = emit("broadcast_to", w, shape=x.shape)
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
    return nansum(x, axis, keepdims) / emit("bitnot", isnan(x)).astype(x.dtype).sum(axis, keepdims)


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
def cov(x: Array, ddof: int = 1) -> Array:
    """The covariances of the rows of x [variables, observations]: [variables, variables], divided by n - ddof."""
    x, ddof = as_float(x), integer(ddof, "cov: ddof")
    if x.ndim != 2:
        raise GraphError(f"cov takes [variables, observations], got {x.type}")
    centered = x - x.mean(1, True)
    if not isinstance(x.shape[1], int):
        raise GraphError(f"cov takes a known number of observations, got {x.type}")
    return centered @ centered.T / float(x.shape[1] - ddof)


@formed
def corrcoef(x: Array) -> Array:
    """The correlations of the rows of x [variables, observations]: [variables, variables]."""
    x = as_float(x)
    if x.ndim != 2:
        raise GraphError(f"corrcoef takes [variables, observations], got {x.type}")
    centered = x - x.mean(1, True)
    unit = centered * emit("rsqrt", (centered * centered).sum(1, True))
    return unit @ unit.T
