"""Products and diagonals of arrays, as in numpy."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.dsl.array import Array, as_array, common_dtype, emit
from graphc.dsl.form import formed
from graphc.dsl.linalg import LETTERS, einsum
from graphc.dsl.literal import as_dtype
from graphc.dsl.shape import concat, expand_dims, flip, iota, stack
from graphc.errors import GraphError
from graphc.ir.convert import integer, is_sequence, items, shown
from graphc.ir.types import Dim, DType, as_dim, bool_, f32, normalize_axis


@formed
def inner(x: Array, y: Array) -> Array:
    """The sum over the last axis of both: x [..., K] and y [..., K] give [*x's others, *y's others]; a scalar
    multiplies."""
    x, y = _pair(x, y)
    return x * y if not x.ndim or not y.ndim else tensordot(x, y, ((-1,), (-1,)))


@formed
def vdot(x: Array, y: Array) -> Array:
    """The sum of the products of all elements, a scalar."""
    x, y = _pair(x, y)
    return x.reshape(-1) @ y.reshape(-1)


@formed
def tensordot(x: Array, y: Array, axes: int | Sequence = 2) -> Array:
    """The sum over the last `axes` axes of x and the first of y, or over pairs of axes ((of x, …), (of y, …))."""
    x, y = _pair(x, y)
    if is_sequence(axes):
        both = items(axes, "tensordot: axes")
        if len(both) != 2:
            raise GraphError("tensordot: axes are a number, or a pair (axes of x, axes of y)")
        listed = [items(own, "tensordot: axes") if is_sequence(own) else (own,) for own in both]
        mine, theirs = ([normalize_axis(a, v.ndim) for a in own] for own, v in zip(listed, (x, y)))
    else:
        count = integer(axes, "tensordot: axes", 0, min(x.ndim, y.ndim))
        mine, theirs = list(range(x.ndim - count, x.ndim)), list(range(count))
    if len(mine) != len(theirs) or len(set(mine)) < len(mine) or len(set(theirs)) < len(theirs):
        raise GraphError(f"tensordot: as many axes of x as of y, each once; got {mine} and {theirs}")
    if x.ndim + y.ndim > len(LETTERS):
        raise GraphError(f"tensordot of arrays with {x.ndim} and {y.ndim} axes: einsum has {len(LETTERS)} letters")
    left, right = list(LETTERS[:x.ndim]), list(LETTERS[x.ndim:x.ndim + y.ndim])
    for a, b in zip(mine, theirs):
        right[b] = left[a]
    out = [c for i, c in enumerate(left) if i not in mine] + [c for i, c in enumerate(right) if i not in theirs]
    return einsum(f"{''.join(left)},{''.join(right)}->{''.join(out)}", x, y)


@formed
def kron(x: Array, y: Array) -> Array:
    """The Kronecker product: each element of x times the whole of y, side by side."""
    x, y = _pair(x, y)
    rank = max(x.ndim, y.ndim)
    x, y = (v.reshape((*(1,) * (rank - v.ndim), *v.shape)) for v in (x, y))
    wide = expand_dims(x, tuple(range(1, 2 * rank, 2))) * expand_dims(y, tuple(range(0, 2 * rank, 2)))
    return wide.reshape(tuple(a * b for a, b in zip(x.shape, y.shape)))


@formed
def cross(x: Array, y: Array, axis: int = -1) -> Array:
    """The vector product of vectors of three along `axis`; x and y broadcast."""
    x, y = _pair(x, y)
    rank = max(x.ndim, y.ndim)
    at = normalize_axis(axis, rank) - rank
    if any(v.ndim < -at or v.shape[at] != 3 for v in (x, y)):
        raise GraphError(f"cross takes vectors of 3 along axis {axis}, got {x.type} and {y.type}")
    (a, b, c), (d, e, f) = ([v.swapaxes(at, -1)[..., i] for i in range(3)] for v in (x, y))
    return stack([b * f - c * e, c * d - a * f, a * e - b * d], -1).swapaxes(at, -1)


@formed
def diagonal(x: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """The elements with index2 = index1 + offset of two axes, along a new last axis."""
    x, offset = as_array(x), integer(offset, "diagonal: offset")
    if x.ndim < 2:
        raise GraphError(f"diagonal takes an array with two axes or more, got {x.type}")
    a, b = normalize_axis(axis1, x.ndim), normalize_axis(axis2, x.ndim)
    rows, columns = x.shape[a], x.shape[b]
    if a == b or not isinstance(rows, int) or not isinstance(columns, int):
        raise GraphError(f"diagonal: two axes of known size, got {axis1} and {axis2} of {x.type}")
    x = x.transpose([i for i in range(x.ndim) if i not in (a, b)] + [a, b])
    top, left = max(-offset, 0), max(offset, 0)
    count = max(min(rows - top, columns - left), 0)
    flat = x.reshape((*x.shape[:-2], rows * columns))
    first = top * columns + left
    return flat[..., first:first + (count - 1) * (columns + 1) + 1:columns + 1] if count else flat[..., :0]


@formed
def trace(x: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """The sum of `diagonal`."""
    return diagonal(x, offset, axis1, axis2).sum(-1)


@formed
def diag(x: Array, k: int = 0) -> Array:
    """Of a vector the matrix with it on diagonal k, of a matrix its diagonal k."""
    x, k = as_array(x), integer(k, "diag: k")
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise GraphError(f"diag takes a vector or a matrix, got {x.type}")
    size = x.shape[0] + abs(k)
    none = as_array(False) if x.dtype == bool_ else as_array(0, x.dtype)
    around = emit("broadcast_to", none, shape=(abs(k),))
    wide = concat([around, x] if k > 0 else [x, around], 0) if k else x
    here = emit("eq", iota((size, size), 1), iota((size, size), 0) + k)
    return emit("where", here, emit("broadcast_to", wide, shape=(size, size)), none)


@formed
def tri(n: Dim, m: Dim | None = None, k: int = 0, dtype: DType = f32) -> Array:
    """[n, m]: 1 at and below diagonal k, else 0."""
    shape = (as_dim(n), as_dim(n if m is None else m))
    return emit("le", iota(shape, 1), iota(shape, 0) + integer(k, "tri: k")).astype(as_dtype(dtype))


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
def diff(x: Array, n: int = 1, axis: int = -1) -> Array:
    """Each element less the one before along `axis`, n times."""
    x, n = as_array(x), integer(n, "diff: n", 0)
    if n > 1000:
        raise GraphError(f"diff: n is at most 1000, got {n}")
    lead = (slice(None),) * normalize_axis(axis, x.ndim)
    for _ in range(n):
        ends = x[(*lead, slice(1, None))], x[(*lead, slice(0, -1))]
        x = emit("ne", *ends) if x.dtype == bool_ else ends[0] - ends[1]
    return x


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


def _pair(x: Array, y: Array) -> tuple[Array, Array]:
    dtype = common_dtype((x, y))
    return as_array(x, dtype), as_array(y, dtype)


def _list(name: str, arrays: Sequence[Array]) -> list[Array]:
    if isinstance(arrays, Array) or not isinstance(arrays, (tuple, list)) or not arrays:
        raise GraphError(f"{name} takes a list of arrays: gc.{name}([a, b])")
    dtype = common_dtype(arrays)
    return [as_array(a, dtype) for a in arrays]
