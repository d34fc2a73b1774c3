"""Lengths and distances of vectors, which lie along one axis. Names and options as in torch.nn.functional."""
from __future__ import annotations

from math import inf

import numpy as np

from graphc.dsl.array import Array, Axes, as_array, as_float, common_dtype, emit
from graphc.dsl.elementwise import abs, maximum, where
from graphc.dsl.form import formed
from graphc.dsl.index import take
from graphc.dsl.shape import expand_dims
from graphc.errors import GraphError
from graphc.ir.convert import flag, real
from graphc.ir.types import normalize_axes, normalize_axis


@formed
def normalize(x: Array, p: float = 2.0, axis: int = 1, eps: float = 1e-12) -> Array:
    """x divided by the p-norm of its vectors along `axis`, which counts as at least eps."""
    x = as_float(x)
    return x / maximum(_norm(x, _power(p), axis, keepdims=True), real(eps, "normalize: eps"))


@formed
def norm(x: Array, ord: float | str | None = None, axis: Axes = None, keepdims: bool = False) -> Array:
    """The length of the vectors along `axis`, or of all elements as one vector: None, 2 or "fro" the root of the sum
    of squares, inf and -inf the largest and the least absolute value, 0 how many are not 0, otherwise
    (Σ |x|^ord)^(1/ord). Of nothing but zeros the gradient is 0. Along several axes None and "fro" alone: others would
    be numpy's norms of matrices."""
    x = as_float(x)
    power = 2.0 if ord is None or isinstance(ord, str) and ord == "fro" else real(ord, "norm: ord")
    if ord is not None and not isinstance(ord, str) and len(normalize_axes(axis, x.ndim)) > 1:
        raise GraphError(f"norm: ord {power:g} along several axes of {x.type} would be a norm of matrices; give one "
                         "axis, or flatten x")
    if power == -inf:
        return abs(x).min(axis, keepdims)
    if power == 0:
        return (x != 0).sum(axis, keepdims).astype(x.dtype)
    return _norm(x, power, axis, keepdims)


@formed
def cosine_similarity(x: Array, y: Array, axis: int = 1, eps: float = 1e-8) -> Array:
    """The cosine of the angle between vectors of x and y along `axis`, -1 to 1; a length counts as at least eps. x and
    y broadcast; the result has no such axis."""
    x, y = _pair(x, y)
    eps = real(eps, "cosine_similarity: eps")
    axis = normalize_axis(axis, max(x.ndim, y.ndim)) - max(x.ndim, y.ndim)      # counted from the end, for both
    lengths = [maximum(_norm(v, 2.0, axis, keepdims=True), eps) for v in (x, y)]
    return (x / lengths[0] * (y / lengths[1])).sum(axis)


@formed
def pairwise_distance(x: Array, y: Array, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False) -> Array:
    """The p-norm of x - y + eps along the last axis; x and y broadcast."""
    x, y = _pair(x, y)
    difference = x - y + real(eps, "pairwise_distance: eps")
    return _norm(difference, _power(p), -1, keepdims=flag(keepdims, "pairwise_distance: keepdims"))


@formed
def cdist(x: Array, y: Array, p: float = 2.0) -> Array:
    """The p-norms of all differences of rows: x [..., P, D] and y [..., R, D] give [..., P, R]."""
    x, y = _pair(x, y)
    if x.ndim < 2 or y.ndim < 2:
        raise GraphError(f"cdist takes rows, [..., P, D] and [..., R, D], got {x.type} and {y.type}")
    return _norm(expand_dims(x, -2) - expand_dims(y, -3), _power(p), -1)


@formed
def pdist(x: Array, p: float = 2.0) -> Array:
    """The p-norms of the differences of all pairs of rows of x [N, D], the first before the second: [N (N - 1) / 2]."""
    x = as_float(x)
    if x.ndim != 2 or not isinstance(x.shape[0], int):
        raise GraphError(f"pdist takes rows, [N, D], of which the number is known, got {x.type}")
    first, second = (take(x, as_array(rows), 0) for rows in np.triu_indices(x.shape[0], 1))
    return _norm(first - second, _power(p), -1)


def _pair(x: Array, y: Array) -> tuple[Array, Array]:
    """Two float arrays of one dtype."""
    dtype = common_dtype((x, y))
    return as_float(as_array(x, dtype)), as_float(as_array(y, dtype))


def _power(p: float) -> float:
    power = real(p, "a norm: p")
    if not power > 0:
        raise GraphError(f"a norm: p is a number > 0, inf included, got {power}")
    return power


def _norm(x: Array, p: float, axis: Axes, keepdims: bool = False) -> Array:
    """The p-norm, of nothing but zeros 0 with gradient 0, as in torch."""
    if p == inf:
        return abs(x).max(axis, keepdims)
    if p == 1:
        return abs(x).sum(axis, keepdims)
    total = (x * x if p == 2 else abs(x) ** p).sum(axis, keepdims)
    root = emit("sqrt", total) if p == 2 else total ** (1 / p)
    return where(total == 0, 0.0, root)
