"""Means, quantiles, extremes and counts, as in numpy. `axis`: an int, a tuple where several are meant, or None for
all."""
from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, isfinite
from typing import Any

from graphc.dsl.array import Array, Axes, as_array, as_float, common_dtype, emit
from graphc.dsl.elementwise import isnan, maximum, minimum, where
from graphc.dsl.form import formed
from graphc.dsl.index import broadcast, take_along_axis
from graphc.dsl.numbers import linspace, searchsorted
from graphc.dsl.shape import iota, squeeze, stack
from graphc.errors import GraphError
from graphc.ir.convert import flag, integer, is_integer, is_sequence, items, real, shown
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.types import bool_, f64, i64, normalize_axis


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
def nanprod(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """The product of the elements that are no NaN."""
    x = as_array(x)
    return (where(isnan(x), 1, x) if x.dtype.is_float else x).prod(axis, keepdims)


@formed
def nanmax(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """The largest element that is no NaN; NaN where there is none."""
    return _known_extreme(as_array(x), axis, keepdims, False)


@formed
def nanmin(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """The smallest element that is no NaN; NaN where there is none."""
    return _known_extreme(as_array(x), axis, keepdims, True)


@formed
def nanvar(x: Array, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Array:
    """The mean squared distance from the mean of the elements that are no NaN, n of them, divided by n - ddof; NaN
    where that is not above 0."""
    x, ddof = as_float(x), integer(ddof, "nanvar: ddof")
    known = emit("bitnot", isnan(x))
    apart = where(known, x - nanmean(x, axis, True), 0)
    count = known.sum(axis, keepdims).astype(x.dtype) - ddof
    return where(count > 0, (apart * apart).sum(axis, keepdims) / maximum(count, 1), float("nan"))


@formed
def nanstd(x: Array, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Array:
    """The square root of `nanvar`; of equal numbers 0, and so is its gradient."""
    square = nanvar(x, axis, ddof, keepdims)
    return where(emit("eq", square, 0), 0, emit("sqrt", square))


@formed
def cummax(x: Array, axis: int = -1) -> tuple[Array, Array]:
    """Of each element the largest one up to it along `axis`, and its i64 position there, of equals the last: (values,
    indices), as in torch. From a NaN on all are NaN. The gradient goes to the elements at the indices. (numpy's
    maximum.accumulate gives the values.)"""
    return _running_extreme(x, axis, False)


@formed
def cummin(x: Array, axis: int = -1) -> tuple[Array, Array]:
    """As `cummax`, with the smallest."""
    return _running_extreme(x, axis, True)


@formed
def array_equal(x: Array, y: Array) -> Array:
    """bool scalar: whether shapes and all elements are equal; NaN equals nothing. GraphError where it depends on sizes
    that have names whether shapes are equal."""
    dtype = common_dtype((x, y))
    x, y = as_array(x, dtype), as_array(y, dtype)
    if x.shape == y.shape:
        return emit("eq", x, y).all()
    differ = [isinstance(m, int) and isinstance(n, int) and m != n for m, n in zip(x.shape, y.shape)]
    if x.ndim == y.ndim and not any(differ):
        raise GraphError(f"array_equal: whether {x.type} and {y.type} have the same shape is not known while the graph "
                         "is traced; give both the same names of sizes, or bind them first")
    return as_array(False)


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
def nanquantile(x: Array, q: float | Sequence[float], axis: int | None = None, keepdims: bool = False) -> Array:
    """As `quantile`, of the elements that are no NaN; NaN where there is none."""
    x, keepdims = as_float(x), flag(keepdims, "nanquantile: keepdims")
    if is_sequence(q):
        return stack([nanquantile(x, share, axis, keepdims) for share in items(q, "nanquantile: q")], 0)
    share = real(q, "nanquantile: q")
    if not 0 <= share <= 1:
        raise GraphError(f"nanquantile: q is a number in [0, 1], got {share}")
    flat = x.reshape(-1) if axis is None else x
    at = normalize_axis(-1 if axis is None else axis, flat.ndim)
    if flat.shape[at] == 0:
        raise GraphError(f"nanquantile takes at least one element, got {x.type}")
    ordered = emit("sort", flat, axis=at, descending=False)
    last = emit("bitnot", isnan(flat)).sum(at, True) - 1        # NaN comes last in order: -1 where all are
    place = maximum(last, 0).astype(f64) * share
    low, high = (take_along_axis(ordered, emit(name, place).astype(i64), at) for name in ("floor", "ceil"))
    rest = (place - emit("floor", place)).astype(x.dtype)
    step = high - low
    between = where(rest < 0.5, low + step * rest, high - step * (1 - rest))
    y = where(emit("eq", low, high), low, between)
    if keepdims:
        return y.reshape((1,) * x.ndim) if axis is None else y
    return squeeze(y, at)


@formed
def nanmedian(x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """`nanquantile` for q = 0.5."""
    return nanquantile(x, 0.5, axis, keepdims)


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


@formed
def histogram(x: Array, bins: int | Array = 10, range: tuple[float, float] | None = None,
              weights: Array | None = None, density: bool = False) -> tuple[Array, Array]:
    """(counts [N] in i64, edges [N + 1]): how many elements of x lie in each of N intervals, lower ends included, and
    of the last one the upper end too.

    bins: their number N, of equal width over `range` (None: from the smallest element to the largest one), or N + 1
    increasing edges. What lies outside counts nowhere, as does NaN, of which without a range all edges are NaN (numpy:
    an error). `weights`, in the shape of x, are added up instead. density: divided by the sum and by the widths.
    Gradients reach the weights, and the edges if these are the ends of x.

    Examples:
        >>> @gc.graph
        ... def f(x: gc.f32[5]):
        ...     return gc.histogram(x, 2, (0, 4))[0]
        >>> f(np.array([0, 1, 2, 4, 9], np.float32))
        array([2, 2])
    """
    x = as_array(x)
    edges = _edges(x, bins, range)
    count = as_dim(edges.shape[0]) - 1
    flat = x.reshape(-1).astype(edges.dtype)
    nowhere, place = _number(count), searchsorted(edges, flat, "right") - 1
    place = where(flat == edges[-1], nowhere - 1, where(place < 0, nowhere, place))
    given = None if weights is None else as_array(weights)
    if given is not None and given.shape != x.shape:
        raise GraphError(f"histogram: weights have the shape of x, {x.type}, got {given.type}")
    found = bincount(minimum(place, nowhere), count + 1, None if given is None else given.reshape(-1))[:-1]
    if flag(density, "histogram: density"):
        each = found.astype(edges.dtype)
        return each / each.sum() / (edges[1:] - edges[:-1]), edges
    return found, edges


@formed
def histc(x: Array, bins: int = 100, min: float = 0.0, max: float = 0.0) -> Array:
    """The counts of `histogram` in the dtype of x, as in torch: of `bins` intervals from min to max, or of the elements
    from the smallest to the largest one where both are 0."""
    x, low, high = as_array(x), real(min, "histc: min"), real(max, "histc: max")
    counts, _ = histogram(x, integer(bins, "histc: bins", 1), None if low == high == 0 else (low, high))
    return counts.astype(x.dtype)


def _edges(x: Array, bins: int | Array, given: tuple[float, float] | None) -> Array:
    """The edges of a histogram, in the dtype of x, of integers in f64."""
    dtype = x.dtype if x.dtype.is_float else f64
    if not is_integer(bins):
        edges = as_array(bins)
        if edges.ndim != 1 or edges.shape[0] in (0, 1):
            raise GraphError(f"histogram: bins are a number, or edges [N + 1] of an interval or more, got {edges.type}")
        return edges.astype(dtype)
    count = integer(bins, "histogram: bins", 1)
    if given is not None:
        ends = [real(end, "histogram: range") for end in items(given, "histogram: range")]
        if len(ends) != 2 or not isfinite(ends[1] - ends[0]) or ends[0] > ends[1]:
            raise GraphError(f"histogram: range is a pair of finite numbers (low, high), got {shown(given)}")
        wide = 0.5 * (ends[0] == ends[1])
        return linspace(ends[0] - wide, ends[1] + wide, count + 1, dtype=dtype)
    if x.size == 0:
        return linspace(0.0, 1.0, count + 1, dtype=dtype)
    values = x.astype(dtype)
    low, high = values.min(), values.max()
    apart = where(low == high, 0.5, 0.0)
    low, high = low - apart, high + apart
    return where(iota(count + 1) == count, high, low + (high - low) * linspace(0.0, 1.0, count + 1, dtype=dtype))


def _number(size: Dim) -> Array:
    """A size as an i64 scalar."""
    return as_array(size, i64) if isinstance(size, int) else emit("dimension", size=size, dtype=i64)


def _known_extreme(x: Array, axis: Axes, keepdims: bool, least: bool) -> Array:
    if not x.dtype.is_float:
        return x.min(axis, keepdims) if least else x.max(axis, keepdims)
    none = isnan(x)
    known = where(none, float("inf" if least else "-inf"), x)
    found = known.min(axis, keepdims) if least else known.max(axis, keepdims)
    return where(none.all(axis, keepdims), float("nan"), found)


def _running_extreme(x: Array, axis: int, least: bool) -> tuple[Array, Array]:
    x = as_array(x)
    at = normalize_axis(axis, x.ndim)
    places = emit("running_arg_extremum", x, axis=at, least=least)
    return take_along_axis(x, places, at), places


def _observations(name: str, x: Array, rowvar: bool) -> Array:
    x = as_float(x)
    if x.ndim != 2:
        raise GraphError(f"{name} takes [variables, observations], got {x.type}")
    return x if flag(rowvar, f"{name}: rowvar") else x.T
