"""Reading and writing at positions."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import graphc as gc
from graphc.doors.onnx.rule import Int, Numbers
from graphc.dsl.array import Array


def gather(x: Array, indices: Array, *, axis: int = 0) -> Array:
    return gc.take(x, indices, axis)


def gather_elements(x: Array, indices: Array, *, axis: int = 0) -> Array:
    """Indices may be shorter than x on the other axes."""
    axis = axis % x.ndim
    part = tuple(slice(None) if i == axis or a == b else slice(0, b)
                 for i, (a, b) in enumerate(zip(x.shape, indices.shape)))
    return gc.take_along_axis(x[part], indices, axis)


def gather_nd(x: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    return gc.gather_nd(x, indices, batch_dims)


def scatter_elements(x: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none") -> Array:
    return gc.scatter_along_axis(x, indices, updates, axis, reduction, partial=True)


def scatter_nd(x: Array, indices: Array, updates: Array, *, reduction: str = "none") -> Array:
    return gc.scatter_nd(x, indices, updates, reduction)


def one_hot(indices: Array, depth: Int, values: Array, *, axis: int = -1) -> Array:
    """Negative positions count from the end; those outside are nowhere."""
    at = indices.astype(gc.i64)
    hot = gc.one_hot(gc.where(at < 0, at + depth, at), depth, gc.bool_)
    return gc.moveaxis(gc.where(hot, values[1], values[0]), -1, axis)


def compress(x: Array, condition: Numbers, *, axis: int | None = None) -> Array:
    """With a condition that is known while importing."""
    x, at = (x.flatten(), 0) if axis is None else (x, axis)
    chosen = [i for i, kept in enumerate(condition.reshape(-1).tolist()) if kept]
    return gc.take(x, chosen, at)


RULES: Mapping[str, Callable[..., Any]] = {
    "Gather": gather, "GatherElements": gather_elements, "GatherND": gather_nd, "ScatterElements": scatter_elements,
    "Scatter": scatter_elements, "ScatterND": scatter_nd, "OneHot": one_hot, "Compress": compress}
