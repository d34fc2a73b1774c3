"""Arrays side by side, turned and mirrored, and coordinates of grids, as in numpy."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.dsl.array import Array, as_array, common_dtype, emit
from graphc.dsl.form import formed
from graphc.dsl.shape import concat, flip
from graphc.errors import GraphError
from graphc.ir.convert import choice, integer, items, shown
from graphc.ir.types import normalize_axis


@formed
def hstack(arrays: Sequence[Array]) -> Array:
    """Arrays side by side: along axis 1, vectors along axis 0."""
    found = _list("hstack", arrays)
    found = [a.reshape(1) if not a.ndim else a for a in found]
    return concat(found, 0 if found[0].ndim == 1 else 1)


@formed
def vstack(arrays: Sequence[Array]) -> Array:
    """Arrays one below the other: along axis 0; vectors are rows."""
    return concat([a.reshape((1, -1)) if a.ndim < 2 else a for a in _list("vstack", arrays)], 0)


@formed
def dstack(arrays: Sequence[Array]) -> Array:
    """Arrays one behind the other: along axis 2; vectors are [1, N, 1], matrices [M, N, 1]."""
    found = _list("dstack", arrays)
    found = [a.reshape((1, -1, 1)) if a.ndim < 2 else a for a in found]
    return concat([a.reshape((*a.shape, 1)) if a.ndim == 2 else a for a in found], 2)


@formed
def column_stack(arrays: Sequence[Array]) -> Array:
    """Vectors as columns of a matrix, and matrices, side by side."""
    return concat([a.reshape((-1, 1)) if a.ndim < 2 else a for a in _list("column_stack", arrays)], 1)


@formed
def rot90(x: Array, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Array:
    """Turned by 90 degrees k times in the plane of two axes, from the first towards the second."""
    x, k = as_array(x), integer(k, "rot90: k") % 4
    plane = [normalize_axis(axis, x.ndim) for axis in items(axes, "rot90: axes")]
    if len(plane) != 2 or plane[0] == plane[1]:
        raise GraphError(f"rot90 takes two axes, got {shown(axes)}")
    a, b = plane
    if k == 2:
        return flip(x, (a, b))
    return flip(x, b).swapaxes(a, b) if k == 1 else flip(x.swapaxes(a, b), b) if k == 3 else x


@formed
def fliplr(x: Array) -> Array:
    """The second axis backwards."""
    return flip(x, 1)


@formed
def flipud(x: Array) -> Array:
    """The first axis backwards."""
    return flip(x, 0)


@formed
def meshgrid(*arrays: Array, indexing: str = "xy") -> tuple[Array, ...]:
    """Vectors as coordinates of a grid: of each its numbers along an axis of their own, repeated along the others'.
    "ij": the axes in the order of the vectors; "xy": the first two exchanged."""
    given = [as_array(a) for a in arrays]
    if any(a.ndim != 1 for a in given):
        raise GraphError(f"meshgrid takes vectors, got {', '.join(str(a.type) for a in given)}")
    order = list(range(len(given)))
    if choice(indexing, "meshgrid: indexing", ("xy", "ij")) == "xy":
        order[:2] = order[:2][::-1]
    shape = tuple(given[i].shape[0] for i in order)
    lines = [a.reshape([-1 if axis == i else 1 for axis in order]) for i, a in enumerate(given)]
    return tuple(emit("broadcast_to", line, shape=shape) for line in lines)



def _list(name: str, arrays: Sequence[Array]) -> list[Array]:
    if isinstance(arrays, Array) or not isinstance(arrays, (tuple, list)) or not arrays:
        raise GraphError(f"{name} takes a list of arrays: gc.{name}([a, b])")
    dtype = common_dtype(arrays)
    return [as_array(a, dtype) for a in arrays]
