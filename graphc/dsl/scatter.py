"""Reading and writing at positions of several axes at once, and writing with a rule for what stands there. Positions
are as in `index`: -1 is the last, one out of range is an error with the user's line.

Updates are written one after another, in row-major order of the positions: of several at one place the last one stays,
on every run and for any number of threads (numpy, torch and ONNX leave that open).
"""
from __future__ import annotations

from math import inf, prod

from graphc.dsl.array import Array, as_array, emit, from_front
from graphc.dsl.elementwise import Operand
from graphc.dsl.form import formed
from graphc.dsl.index import broadcast, replaced, scatter_add_along_axis
from graphc.dsl.index import scatter_add as added
from graphc.errors import GraphError
from graphc.ir.convert import choice, flag, integer, items, shown
from graphc.ir.dims import Dim, Dims
from graphc.ir.types import DType, broadcast_shapes, i64, normalize_axis, shape_text

REDUCTIONS = ("none", "add", "mul", "min", "max")
MEAN = (*REDUCTIONS, "mean")


@formed
def scatter(x: Array, indices: Operand, updates: Operand, axis: int = 0, reduction: str = "none") -> Array:
    """x with `updates` written at positions along `axis` (x[indices] = updates for axis 0): the transpose of `take`.

    updates: x.shape[:axis] + indices.shape + x.shape[axis+1:], or what broadcasts to it. reduction: "none", the last
    update at a position stays; "add", "mul", "min", "max", with what stands there. torch: index_copy, index_add,
    index_reduce, index_fill; its scatter is `scatter_along_axis`.
    """
    x = as_array(x)
    axis = normalize_axis(axis, x.ndim)
    if choice(reduction, "reduction", REDUCTIONS) == "add":
        return added(x, indices, updates, axis)
    at = from_front(indices, x.shape[axis], axis)
    updates = broadcast(as_array(updates, x.dtype), x.shape[:axis] + at.shape + x.shape[axis + 1:])
    return emit("scatter", x, at, updates, called="scatter", axis=axis, reduction=reduction)


@formed
def scatter_along_axis(x: Array, indices: Operand, updates: Operand, axis: int, reduction: str = "none",
                       include_self: bool = True, partial: bool = False) -> Array:
    """x with updates[i] written at position indices[i] along `axis`: the transpose of `take_along_axis` (in torch
    scatter, scatter_add and scatter_reduce; in ONNX ScatterElements).

    On other axes indices have the sizes of x, or 1, which broadcasts as in numpy. partial=True: any size up to that of
    x, also 1; only so many elements of x, the first ones, are written, and of longer updates the first are taken, as in
    torch and ONNX. reduction as of `scatter`, and "mean", of floats: the mean of all that meet at a place.
    include_self=False: where updates go, what x has there does not count.
    """
    x = as_array(x)
    axis = normalize_axis(axis, x.ndim)
    choice(reduction, "reduction", MEAN)
    at, updates = from_front(indices, x.shape[axis], axis), as_array(updates, x.dtype)
    if at.ndim != x.ndim:
        raise GraphError(f"scatter_along_axis: indices have {at.ndim} axes and x has {x.ndim}; they must be equal")
    if not flag(partial, "partial"):
        at = broadcast(at, replaced(x.shape, axis, at.shape[axis]))
        return _met(x, at, broadcast(updates, at.shape), axis, reduction, flag(include_self, "include_self"))
    updates = _cut(updates, at.shape) if updates.ndim == x.ndim else updates
    part = _cut(x, replaced(at.shape, axis, x.shape[axis]))
    part = _met(part, at, broadcast(updates, at.shape), axis, reduction, flag(include_self, "include_self"))
    starts = [as_array(0, i64)] * x.ndim
    return part if part.shape == x.shape else emit("dynamic_update_slice", x, part, *starts)


def _met(x: Array, at: Array, updates: Array, axis: int, reduction: str, include_self: bool) -> Array:
    def written(base: Array, what: Array, how: str) -> Array:
        return emit("scatter_along_axis", base, at, what, called="scatter_along_axis", axis=axis, reduction=how)
    if reduction == "none":
        return written(x, updates, "none")
    if reduction == "mean" and not x.dtype.is_float:
        raise GraphError(f"the mean of {x.dtype} is a float: convert x and updates with .astype(f32)")
    if not include_self:
        x = written(x, broadcast(as_array(_neutral(reduction, x.dtype), x.dtype), updates.shape), "none")
    if reduction in ("mul", "min", "max"):
        return written(x, updates, reduction)
    total = scatter_add_along_axis(x, at, updates, axis)
    if reduction == "add":
        return total
    ones, own = broadcast(as_array(1, x.dtype), at.shape), as_array(int(include_self), x.dtype)
    count = scatter_add_along_axis(broadcast(own, x.shape), at, ones, axis)
    return total / emit("maximum", count, 1)


def _neutral(reduction: str, dtype: DType) -> float | int | bool:
    """What is no larger (of min: no smaller) than any number, or changes no sum or product."""
    if reduction not in ("min", "max"):
        return int(reduction == "mul")
    if dtype.is_int:
        return dtype.range[reduction == "min"]
    least = -inf if reduction == "max" else inf
    return least if dtype.is_float else least > 0


@formed
def gather_nd(x: Array, indices: Operand, batch_axes: int = 0) -> Array:
    """x at positions given by tuples: indices[..., k] holds k numbers for the first k axes of x behind the first
    `batch_axes`, which both share. Shape indices.shape[:-1] + x.shape[batch_axes + k:]. (ONNX's GatherND.)"""
    x = as_array(x)
    batch = _batch_axes(batch_axes, x)
    places = _Places.of("gather_nd", x, indices, batch)
    rows = emit("take", places.rows(x), places.flat, axis=0, called="gather_nd")
    return rows.reshape(places.shape + places.rest)


@formed
def scatter_nd(x: Array, indices: Operand, updates: Operand, reduction: str = "none") -> Array:
    """x with updates written at positions given by tuples: indices[..., k] holds k numbers for the first k axes of x.
    updates: indices.shape[:-1] + x.shape[k:], or what broadcasts to it; reduction as of `scatter`. (ONNX's ScatterND.)
    """
    return _put("scatter_nd", as_array(x), indices, updates, reduction)


def _put(name: str, x: Array, indices: Operand, updates: Operand, reduction: str) -> Array:
    choice(reduction, "reduction", REDUCTIONS)
    places = _Places.of(name, x, indices, 0)
    updates = broadcast(as_array(updates, x.dtype), places.shape + places.rest)
    rows = updates.reshape((*places.shape, prod(places.rest)))
    return scatter(places.rows(x), places.flat, rows, 0, reduction).reshape(x.shape)


@formed
def index_put(x: Array, indices: tuple, values: Operand, reduction: str = "none") -> Array:
    """x with `values` written where x[indices] reads, for a tuple of integer arrays, one for each of the first axes of
    x, which broadcast together: numpy's x[i, j] = values as a new array. reduction as of `scatter` ("add": torch's
    accumulate=True)."""
    x = as_array(x)
    given = items(indices, "indices")
    if not 0 < len(given) <= x.ndim:
        raise GraphError(f"index_put takes 1 to {x.ndim} index arrays for x {x.type}, got {len(given)}")
    at = [from_front(i, x.shape[axis], axis) for axis, i in enumerate(given)]
    shape = broadcast_shapes(*(i.shape for i in at))
    at = [broadcast(i.astype(i64) if i.dtype.is_int else i, shape) for i in at]
    return _put("index_put", x, emit("stack", *at, axis=len(shape)), values, reduction)


class _Places:
    """Tuples of positions as row numbers: `flat` of `shape` into x seen as rows of what is not indexed, `rest`."""

    def __init__(self, flat: Array, indexed: Dims, rest: Dims) -> None:
        self.flat, self.indexed, self.rest = flat, indexed, rest
        self.shape: Dims = flat.shape

    @staticmethod
    def of(name: str, x: Array, indices: Operand, batch: int) -> _Places:
        at = as_array(indices, i64)
        count = at.shape[-1] if at.ndim else 0
        if not at.dtype.is_int or at.ndim <= batch or not isinstance(count, int) or not 0 < count <= x.ndim - batch:
            raise GraphError(f"{name}: indices are integers of shape [..., k], k from 1 to {x.ndim - batch} for x "
                             f"{x.type}, got {at.type}")
        if at.shape[:batch] != x.shape[:batch]:
            raise GraphError(f"{name}: the first {batch} axes of indices {shape_text(at.shape)} and x "
                             f"{shape_text(x.shape)} must agree")
        at = at.astype(i64)
        flat = as_array(0, i64)
        for k, size in enumerate(x.shape[batch:batch + count]):
            one = emit("check_rows", from_front(at[..., k], size, batch + k), called=name, size=size)
            flat = flat * _number(size) + one if k else one
        inner: Dim = prod(x.shape[batch:batch + count])
        for axis in reversed(range(batch)):                 # the row of the batch before
            own = emit("iota", shape=flat.shape, axis=axis, dtype=i64)
            flat, inner = flat + own * _number(inner), inner * x.shape[axis]
        return _Places(flat, x.shape[:batch + count], x.shape[batch + count:])

    def rows(self, x: Array) -> Array:
        return x.reshape((prod(self.indexed), prod(self.rest)))


def _batch_axes(batch_axes: int, x: Array) -> int:
    batch = integer(batch_axes, "batch_axes", 0)
    if batch >= x.ndim:
        raise GraphError(f"batch_axes is less than the {x.ndim} axes of x, got {shown(batch_axes)}")
    return batch


def _number(size: Dim) -> Array | int:
    return size if isinstance(size, int) else emit("dimension", size=size, dtype=i64)


def _cut(x: Array, shape: Dims) -> Array:
    """The first elements of x on each axis."""
    if x.shape == shape:
        return x
    if any(isinstance(d, int) and isinstance(n, int) and d > n for d, n in zip(shape, x.shape)):
        raise GraphError(f"scatter_along_axis: indices of shape {shape_text(shape)} reach beyond {shape_text(x.shape)}")
    return emit("slice", x, start=(0,) * x.ndim, stop=shape, step=(1,) * x.ndim)
