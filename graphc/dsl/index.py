"""Reading and adding at positions given by integer arrays, where -1 is the last, as in numpy. A position out of range
is an error that names the user's line; ids of an embedding are numbers from 0 on and no positions, so a negative one
is out of range."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, emit, from_front
from graphc.dsl.elementwise import Operand
from graphc.dsl.form import formed
from graphc.dsl.literal import as_dtype
from graphc.errors import GraphError
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.types import DType, broadcast_shapes, f32, i64, normalize_axis


@formed
def take(x: Array, indices: Array, axis: int = 0) -> Array:
    """x at integer positions along `axis`: shape x.shape[:axis] + indices.shape + x.shape[axis+1:]. numpy's default
    axis is the flattened array."""
    x = as_array(x)
    axis = normalize_axis(axis, x.ndim)
    return emit("take", x, from_front(indices, x.shape[axis], axis), axis=axis)


@formed
def take_along_axis(x: Array, indices: Array, axis: int) -> Array:
    """One position per result element; x and indices broadcast against each other except along `axis`."""
    x = as_array(x)
    axis = normalize_axis(axis, x.ndim)
    return along_axis(x, from_front(indices, x.shape[axis], axis), axis)


def along_axis(x: Array, indices: Array, axis: int, called: str = "") -> Array:
    """`take_along_axis`, which the user calls so, at positions that are counted from 0 already."""
    if indices.ndim != x.ndim:
        raise GraphError(f"take_along_axis: indices have {indices.ndim} axes and x has {x.ndim}; they must be equal")
    around = broadcast_shapes(replaced(x.shape, axis, 1), replaced(indices.shape, axis, 1))
    x, indices = (broadcast(a, replaced(around, axis, a.shape[axis])) for a in (x, indices))
    return emit("take_along_axis", x, indices, axis=axis, called=called)


@formed
def gather(x: Array, indices: Array, axis: int) -> Array:
    """torch's gather (with numpy's broadcasting): the same as `take_along_axis`."""
    x = as_array(x)
    axis = normalize_axis(axis, x.ndim)
    return along_axis(x, from_front(indices, x.shape[axis], axis), axis, "gather")


@formed
def embedding(table: Array, ids: Array) -> Array:
    """Rows of table [V, D] at ids [...]: [..., D]. Ids are 0 … V - 1; a negative one is an error."""
    return emit("take", as_array(table), as_array(ids, i64), axis=0, called="embedding")


@formed
def scatter_add(x: Array, indices: Operand, updates: Operand, axis: int = 0) -> Array:
    """x with `updates` added at positions along `axis`, in row-major order of the positions; equal positions add up.

    updates: x.shape[:axis] + indices.shape + x.shape[axis+1:], or what broadcasts to it (the transpose of `take`).
    """
    x = as_array(x)
    axis = normalize_axis(axis, x.ndim)
    indices = from_front(indices, x.shape[axis], axis)
    updates = as_array(updates, x.dtype)
    return emit("scatter_add", x, indices, broadcast(updates, x.shape[:axis] + indices.shape + x.shape[axis + 1:]),
                axis=axis)


@formed
def scatter_add_along_axis(x: Array, indices: Array, updates: Array, axis: int) -> Array:
    """x with updates[i] added at position indices[i] along `axis` (torch's scatter_add, the transpose of
    `take_along_axis`)."""
    x = as_array(x)
    axis = normalize_axis(axis, x.ndim)
    indices = from_front(indices, x.shape[axis], axis)
    shape = replaced(x.shape, axis, indices.shape[axis]) if indices.ndim == x.ndim else indices.shape
    return emit("scatter_add_along_axis", x, broadcast(indices, shape), broadcast(as_array(updates, x.dtype), shape),
                axis=axis)


@formed
def one_hot(ids: Array, depth: int, dtype: DType = f32) -> Array:
    """1 where a new last axis of size `depth` equals the class id, else 0; an id outside [0, depth) gives zeros."""
    return emit("one_hot", as_array(ids, i64), depth=as_dim(depth), dtype=as_dtype(dtype))


def broadcast(x: Array, shape: tuple[Dim, ...]) -> Array:
    return x if x.shape == shape else emit("broadcast_to", x, shape=shape)


def replaced(shape: tuple[Dim, ...], axis: int, size: Dim) -> tuple[Dim, ...]:
    return shape[:axis] + (size,) + shape[axis + 1:]
