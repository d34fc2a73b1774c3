"""Reading and writing at positions."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.known import number_of
from graphc.doors.onnx.rule import Int, Numbers, Unsupported
from graphc.dsl.array import Array, as_array
from graphc.ir.convert import choice


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
    hot = gc.one_hot(gc.where(at < 0, at + number_of(depth), at), depth, gc.bool_)
    return gc.moveaxis(gc.where(hot, values[1], values[0]), -1, axis)


def compress(x: Array, condition: Numbers, *, axis: int | None = None) -> Array:
    """With a condition that is known while importing."""
    x, at = (x.flatten(), 0) if axis is None else (x, axis)
    chosen = [i for i, kept in enumerate(condition.reshape(-1).tolist()) if kept]
    return gc.take(x, as_array(np.array(chosen, np.int64)), at)


def nonzero(x: Numbers) -> np.ndarray:
    """Of numbers that are known while importing, since they decide a size."""
    return np.array(np.nonzero(x), np.int64).reshape(x.ndim, -1)


def unique(x: Numbers, *, axis: int | None = None, sorted: int = 1) -> tuple[np.ndarray, ...]:
    """Of numbers that are known while importing; in order, or as they come first."""
    values, first, inverse, counts = np.unique(x, True, True, True, axis)
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        place = np.argsort(order)
        values, first, counts = np.take(values, order, axis or 0), first[order], counts[order]
        inverse = place[inverse]
    return values, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


def reverse_sequence(x: Array, lengths: Array, *, batch_axis: int = 1, time_axis: int = 0) -> Array:
    """The first `lengths` steps of each sequence in reverse order."""
    t = gc.iota(x.shape, time_axis)
    ends = lengths.reshape(tuple(-1 if i == batch_axis % x.ndim else 1 for i in range(x.ndim)))
    return gc.take_along_axis(x, gc.where(t < ends, ends - 1 - t, t), time_axis)


def tensor_scatter(past: Array, update: Array, starts: Array | None = None, *, axis: int = -2,
                   mode: str = "linear") -> Array:
    """`update` written along the axis, in each batch at a start of its own; circular: past the end at the front."""
    axis = axis % past.ndim
    at = gc.iota(update.shape, axis)
    if starts is not None:
        at = at + starts.reshape((-1, *(1,) * (past.ndim - 1)))
    if choice(mode, "mode", ("linear", "circular")) == "circular":
        size: Any = past.shape[axis]
        at = gc.mod(at, size)
    return gc.scatter_along_axis(past, at, update, axis, partial=True)


def tfidf(x: Array, *, max_gram_length: int, max_skip_count: int, min_gram_length: int, mode: str,
          ngram_counts: Sequence[int], ngram_indexes: Sequence[int], pool_int64s: Sequence[int] | None = None,
          weights: Sequence[float] | None = None) -> Array:
    """How often each n-gram of the pool stands in x [..., length], with up to so many elements left out between two."""
    if pool_int64s is None:
        raise Unsupported("strings")
    choice(mode, "mode", ("TF", "IDF", "TFIDF"))
    ends = [*ngram_counts[1:], len(pool_int64s)]
    grams = [tuple(pool_int64s[i:i + n]) for n, (start, end) in enumerate(zip(ngram_counts, ends), 1)
             for i in range(start, end, n)]
    columns: list[Array] = [gc.zeros(x.shape[:-1])] * (max(ngram_indexes, default=-1) + 1)
    for number, (gram, column) in enumerate(zip(grams, ngram_indexes)):
        if min_gram_length <= len(gram) <= max_gram_length:
            found = _occurrences(x, gram, max_skip_count if len(gram) > 1 else 0)
            scale = weights[number] if weights is not None and mode != "TF" else 1.0
            found = found if mode != "IDF" else gc.minimum(found, 1.0)
            columns[column] = columns[column] + found * scale
    return gc.stack(columns, x.ndim - 1)


def _occurrences(x: Array, gram: Sequence[int], skips: int) -> Array:
    total, length = gc.zeros(x.shape[:-1]), x.shape[-1]
    for step in range(1, skips + 2):
        starts = length - step * (len(gram) - 1)
        if isinstance(starts, int) and starts <= 0:
            break
        here = [gc.equal(x[..., k * step:k * step + starts], value) for k, value in enumerate(gram)]
        total = total + gc.sum(reduce(gc.logical_and, here).astype(gc.f32), -1)
    return total


RULES: Mapping[str, Callable[..., Any]] = {
    "Gather": gather, "GatherElements": gather_elements, "GatherND": gather_nd, "ScatterElements": scatter_elements,
    "Scatter": scatter_elements, "ScatterND": scatter_nd, "OneHot": one_hot, "Compress": compress,
    "NonZero": nonzero, "Unique": unique, "ReverseSequence": reverse_sequence, "TensorScatter": tensor_scatter,
    "TfIdfVectorizer": tfidf}
