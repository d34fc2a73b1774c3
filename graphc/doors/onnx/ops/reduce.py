"""Reductions, running sums, order."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import graphc as gc
from graphc.doors.onnx.known import count_of
from graphc.doors.onnx.rule import Int, Ints
from graphc.dsl.array import Array
from graphc.dsl.reduce import logsumexp
from graphc.errors import GraphError
from graphc.ir.types import bool_, normalize_axis

Axes = tuple[int, ...] | None
Reduction = Callable[[Array, Axes, bool], Array]


def reduction(function: Reduction, alone: Callable[[Array], Array] = lambda x: x) -> Callable[..., Array]:
    """A reduction over axes (none given: all). `alone`: what it is over no axes at all."""
    def rule(x: Array, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
        if not axes and noop_with_empty_axes:
            return alone(x)
        return function(x, tuple(axes) if axes else None, bool(keepdims)).astype(x.dtype)
    return rule


def arg_reduction(function: Callable[..., Array]) -> Callable[..., Array]:
    """The first of equals, or the last one."""
    def rule(x: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
        if not select_last_index:
            return function(x, axis=axis, keepdims=bool(keepdims))
        behind = function(gc.flip(x, axis), axis=axis, keepdims=bool(keepdims))
        return count_of(x.shape[normalize_axis(axis, x.ndim)] - 1) - behind
    return rule


def cumulative(function: Callable[..., Array]) -> Callable[..., Array]:
    def rule(x: Array, axis: Int, *, exclusive: int = 0, reverse: int = 0) -> Array:
        return function(x, axis=axis, exclusive=bool(exclusive), reverse=bool(reverse)).astype(x.dtype)
    return rule


def _l1(x: Array, axes: Axes, keepdims: bool) -> Array:
    return gc.sum(gc.abs(x), axes, keepdims)


def _l2(x: Array, axes: Axes, keepdims: bool) -> Array:
    total = gc.sum(x * x, axes, keepdims)
    return gc.sqrt(total if x.dtype.is_float else total.astype(gc.f64))


def _square(x: Array, axes: Axes, keepdims: bool) -> Array:
    return gc.sum(x * x, axes, keepdims)


def _log_sum(x: Array, axes: Axes, keepdims: bool) -> Array:
    return gc.log(gc.sum(x, axes, keepdims))


def _log_sum_exp(x: Array, axes: Axes, keepdims: bool) -> Array:
    return logsumexp(x if x.dtype.is_float else x.astype(gc.f64), axes, keepdims)


def _extreme(function: Callable[..., Array], of_bools: Callable[..., Array], empty: Callable[[Any], Any]) -> Reduction:
    """The largest or smallest; of nothing the type's own bound."""
    def rule(x: Array, axes: Axes, keepdims: bool) -> Array:
        if x.dtype == bool_:
            return of_bools(x, axes, keepdims)
        if 0 in x.shape:
            filled = [1 if d == 0 else d for d in x.shape]
            return function(gc.full(filled, empty(x.dtype), x.dtype), axes, keepdims)
        return function(x, axes, keepdims)
    return rule


def _lowest(dtype: gc.DType) -> Any:
    return float("-inf") if dtype.is_float else dtype.range[0]


def _highest(dtype: gc.DType) -> Any:
    return float("inf") if dtype.is_float else dtype.range[1]


def topk(x: Array, k: Int, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Array, Array]:
    """Of equals the first ones."""
    axis = normalize_axis(axis, x.ndim)
    if largest:
        return gc.topk(x, k, axis)
    size = x.shape[axis]
    if isinstance(k, int) and isinstance(size, int) and k > size:
        raise GraphError(f"the {k} smallest of {size}")
    lead = (slice(None),) * axis
    at = gc.argsort(x, axis)[(*lead, slice(0, k))]
    return gc.take_along_axis(x, at, axis), at


RULES: Mapping[str, Callable[..., Any]] = {
    "ReduceSum": reduction(gc.sum), "ReduceMean": reduction(gc.mean), "ReduceProd": reduction(gc.prod),
    "ReduceMax": reduction(_extreme(gc.max, gc.any, _lowest)),
    "ReduceMin": reduction(_extreme(gc.min, gc.all, _highest)),
    "ReduceL1": reduction(_l1, gc.abs), "ReduceL2": reduction(_l2, gc.abs),
    "ReduceSumSquare": reduction(_square, gc.square), "ReduceLogSum": reduction(_log_sum, gc.log),
    "ReduceLogSumExp": reduction(_log_sum_exp),
    "ArgMax": arg_reduction(gc.argmax), "ArgMin": arg_reduction(gc.argmin),
    "CumSum": cumulative(gc.cumsum), "CumProd": cumulative(gc.cumprod), "TopK": topk}
