"""Results whose number depends on values: so many at most (`size`), padded, and a count of how many there are.

A graph knows the shape of every array, so the caller says how many results there may be. The count is the true number:
where it is above `size`, results are left out, the last ones.
"""
from __future__ import annotations

from math import prod
from typing import NamedTuple

from graphc.dsl.array import Array, as_array, cumulative, emit
from graphc.dsl.elementwise import Operand
from graphc.dsl.form import formed
from graphc.dsl.index import broadcast
from graphc.dsl.shape import iota
from graphc.errors import GraphError
from graphc.ir.convert import is_number, shown
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.types import bool_, i64, normalize_axis, shape_text


class Unique(NamedTuple):
    """What `unique` gives: `values` [size] in order, `indices` [size] of their first places in x (row-major), `inverse`
    of the shape of x with the place of each element in values, `counts` [size] of how often each occurs, and how many
    there are, `number`, a scalar."""
    values: Array
    indices: Array
    inverse: Array
    counts: Array
    number: Array


@formed
def nonzero(x: Operand, size: int, fill: int = 0) -> tuple[tuple[Array, ...], Array]:
    """Where x is not 0 (True): for each axis of x an i64 array [size] of positions, in row-major order, and the count,
    an i64 scalar: `(i, j), n = gc.nonzero(x > 0, size=10)`. From the count on, positions are `fill`.

    Examples:
        >>> @gc.graph
        ... def positive(x: gc.f64["N"]):
        ...     (i,), count = gc.nonzero(x > 0, size=3)
        ...     return i, count
        >>> positive(np.array([-1.0, 2.0, 3.0, -4.0]))
        (array([1, 2, 0]), array(2))
    """
    x = as_array(x)
    if not x.ndim:
        raise GraphError("nonzero of a scalar: compare it, x != 0")
    flat, count = _places(x.flatten().astype(bool_), _size(size))
    filled = as_array(_fill(fill, i64), i64)
    there, indices = _first(count, flat), []
    for axis, n in enumerate(x.shape):
        step, whole = _number(prod(x.shape[axis + 1:])), _number(n)
        indices.append(emit("where", there, flat // step % whole, filled))
    return tuple(indices), count


@formed
def compress(mask: Operand, x: Array, size: int, axis: int = 0, fill: float | int | bool = 0) -> tuple[Array, Array]:
    """numpy's x[mask] with room for `size` elements: those of x along `axis` where the bool array `mask` holds, in
    order, and the count, an i64 scalar. mask may have several axes, those of x from `axis` on (all of
    them: single elements).

    Shape x.shape[:axis] + (size,) + x.shape[axis + mask.ndim:]; from the count on it holds `fill`, without gradient.
    """
    x, mask = as_array(x), as_array(mask, bool_)
    axis = normalize_axis(axis, x.ndim)
    before, masked, rest = x.shape[:axis], x.shape[axis:axis + mask.ndim], x.shape[axis + mask.ndim:]
    if mask.dtype != bool_:
        raise GraphError(f"the mask must be bool, got {mask.dtype}; compare it, for example x > 0")
    if not mask.ndim or mask.shape != masked:
        raise GraphError(f"the mask has the shape of x from axis {axis} on, {shape_text(x.shape[axis:])} or a part, "
                         f"got {shape_text(mask.shape)}")
    at, count = _places(mask.flatten(), _size(size))
    filled = as_array(_fill(fill, x.dtype), x.dtype)
    if prod(masked) == 0:
        return broadcast(filled, (*before, at.shape[0], *rest)), count
    source = x.reshape((*before, prod(masked), *rest))
    if not isinstance(prod(masked), int):                   # it may become 0: one element more, which is never chosen
        high = tuple(int(i == axis) for i in range(source.ndim))
        source = emit("pad", source, low=(0,) * source.ndim, high=high)
    found = emit("take", source, at, called="compress", axis=axis)
    there = _first(count, at).reshape(at.shape + (1,) * len(rest))
    return emit("where", there, found, filled), count


@formed
def unique(x: Operand, size: int, fill: float | int | bool = 0) -> Unique:
    """The distinct elements of x in order, of at most `size`: values, indices, inverse, counts, number; see `Unique`.
    NaN counts as one value, the last; bools must be converted. From there on values are `fill`, indices and counts
    0. (numpy.unique with all that it can return; ONNX's Unique; torch.unique.) inverse is at most size - 1."""
    x, room = as_array(x), _size(size)
    flat, n = x.flatten(), prod(x.shape)
    filled = as_array(_fill(fill, x.dtype), x.dtype)
    if n == 0:
        nothing = as_array(0, i64)
        return Unique(broadcast(filled, (room,)), broadcast(nothing, (room,)), broadcast(nothing, x.shape),
                      broadcast(nothing, (room,)), nothing)
    order = emit("argsort", flat, axis=0)
    ordered = emit("take", flat, order, axis=0)
    rank = cumulative("cumsum", _is_new(ordered).astype(i64), 0) - 1
    count = rank[-1] + 1
    to = emit("minimum", rank, _number(room))               # those without room share one place, which is cut off
    first = _written(broadcast(as_array(_number(n), i64), (room + 1,)), to, order, "min")[:room]
    there = _first(count, first)
    indices = emit("where", there, first, as_array(0, i64))
    zeros, ones = broadcast(as_array(0, i64), (room + 1,)), broadcast(as_array(1, i64), to.shape)
    counts = emit("scatter_add", zeros, to, ones, axis=0)
    inverse = _written(broadcast(as_array(0, i64), (n,)), order, emit("minimum", rank, _number(room - 1)), "none")
    values = emit("where", there, emit("take", flat, indices, axis=0), filled)
    return Unique(values, indices, inverse.reshape(x.shape), counts[:room], count)


def _is_new(ordered: Array) -> Array:
    """Whether each element differs from the one before; a NaN equals a NaN."""
    before, after = ordered[:-1], ordered[1:]
    differs = emit("ne", before, after)
    if ordered.dtype.is_float:
        differs = emit("bitand", differs, emit("bitnot", emit("isnan", before)))
    return emit("concat", broadcast(as_array(True, bool_), (1,)), differs, axis=0)


def _places(mask: Array, size: Dim) -> tuple[Array, Array]:
    """The positions where a mask of one axis holds, i64[size], 0 from the count on; the count."""
    n = mask.shape[0]
    if n == 0:
        return broadcast(as_array(0, i64), (size,)), as_array(0, i64)
    rank = cumulative("cumsum", mask.astype(i64), 0)
    count = mask.sum()
    to = emit("where", emit("bitand", mask, emit("le", rank, _number(size))), rank - 1, as_array(_number(size), i64))
    places = _written(broadcast(as_array(0, i64), (size + 1,)), to, iota((n,), 0), "none")[:size]
    return emit("where", _first(count, places), places, as_array(0, i64)), count


def _written(base: Array, at: Array, updates: Array, reduction: str) -> Array:
    return emit("scatter", base, at, updates, axis=0, reduction=reduction)


def _first(count: Array, like: Array) -> Array:
    """bool[size]: the first `count`."""
    return emit("lt", iota(like.shape, 0), count)


def _number(size: Dim) -> Array | int:
    return size if isinstance(size, int) else emit("dimension", size=size, dtype=i64)


def _size(size: object) -> Dim:
    found = as_dim(size)
    if isinstance(found, int) and found < 1:
        raise GraphError(f"size is the number of results that there is room for, 1 or more, got {found}")
    return found


def _fill(fill: object, dtype: object) -> object:
    if isinstance(fill, bool) or is_number(fill):
        return fill
    raise GraphError(f"fill is a number, got {shown(fill)}")
