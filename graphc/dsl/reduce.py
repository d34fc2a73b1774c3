"""Reductions and cumulative functions. `axis`: an int, a tuple, or None for all axes, as in numpy."""
from __future__ import annotations

from graphc.dsl.array import Array, Axes, as_array, as_float, cumulative, emit, emit_all, reduce_axes
from graphc.dsl.form import formed
from graphc.ir.convert import flag, integer
from graphc.ir.types import normalize_axis


@formed
def sum(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """The sum. Bools and integers of 8 and 16 bits count as i64, unsigned ones as u64; i32 stays i32 and u32 u32
    (numpy: 64 bits)."""
    return as_array(x).sum(axis, keepdims)


@formed
def mean(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """The mean; of integers f32 (numpy: f64)."""
    return as_array(x).mean(axis, keepdims)


@formed
def prod(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """The product, of integers as in `sum`; its gradient is right where factors are 0."""
    return as_array(x).prod(axis, keepdims)


@formed
def max(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """The largest element; NaN if there is one. The gradient is shared among equals."""
    return as_array(x).max(axis, keepdims)


@formed
def min(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """The smallest element; NaN if there is one. The gradient is shared among equals."""
    return as_array(x).min(axis, keepdims)


@formed
def var(x: Array, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Array:
    """The mean squared distance from the mean, divided by n - ddof (0 as in numpy; torch's default is 1)."""
    return as_array(x).var(axis, ddof, keepdims)


@formed
def std(x: Array, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Array:
    """The square root of `var`."""
    return as_array(x).std(axis, ddof, keepdims)


@formed
def all(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """bool: whether all elements are true (not 0)."""
    return as_array(x).all(axis, keepdims)


@formed
def any(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """bool: whether some element is true (not 0)."""
    return as_array(x).any(axis, keepdims)


@formed
def argmax(x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """i64 index of the first largest element along `axis`, or in the flattened array."""
    return as_array(x).argmax(axis, keepdims)


@formed
def argmin(x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """i64 index of the first smallest element along `axis`, or in the flattened array."""
    return as_array(x).argmin(axis, keepdims)


@formed
def logsumexp(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """log(sum(exp(x))), without overflow; -inf where all elements are -inf."""
    return reduce_axes("logsumexp", as_float(x), axis, keepdims)


@formed
def cumsum(x: Array, axis: int | None = None, reverse: bool = False, exclusive: bool = False) -> Array:
    """Sums of the first 1, 2, … elements along `axis` (None: of the flattened array); `exclusive`: of the first 0, 1,
    …;
    `reverse`: from the end."""
    return cumulative("cumsum", as_array(x), axis, reverse, exclusive)


@formed
def cumprod(x: Array, axis: int | None = None, reverse: bool = False, exclusive: bool = False) -> Array:
    """As `cumsum`, with products."""
    return cumulative("cumprod", as_array(x), axis, reverse, exclusive)


@formed
def linear_scan(a: Array | float, x: Array, axis: int = 0, reverse: bool = False) -> Array:
    """y[i] = a[i] * y[i-1] + x[i] along `axis`, starting from 0; `reverse`: from the end. `a` broadcasts to the shape
    of x.

    Moving averages, discounted returns, diagonal state-space models: one pass, where `scan` would take a step per
    element. What makes `a` and `x`, and what reads the result, runs in the same loops, unless `axis` is the last one:
    along that, elements come one after another.
    """
    x = as_array(x)
    factors = emit("broadcast_to", as_array(a, x.dtype), shape=x.shape)
    return emit("linear_scan", factors, x, axis=normalize_axis(axis, x.ndim),
                reverse=flag(reverse, "linear_scan: reverse"))


@formed
def sort(x: Array, axis: int = -1, descending: bool = False) -> Array:
    """Sorted along `axis`; NaN counts as the largest: last, or first if descending."""
    x = as_array(x)
    return emit("sort", x, axis=normalize_axis(axis, x.ndim), descending=flag(descending, "sort: descending"))


@formed
def argsort(x: Array, axis: int = -1, descending: bool = False) -> Array:
    """i64 indices that sort along `axis`; stable."""
    x = as_array(x)
    return emit("argsort", x, axis=normalize_axis(axis, x.ndim), descending=flag(descending, "argsort: descending"))


@formed
def topk(x: Array, k: int, axis: int = -1) -> tuple[Array, Array]:
    """The k largest elements along `axis`, largest first, and their i64 indices."""
    x = as_array(x)
    values, indices = emit_all("topk", x, k=integer(k, "topk: k", 0), axis=normalize_axis(axis, x.ndim))
    return values, indices
