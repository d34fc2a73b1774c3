"""Products and diagonals of arrays, as in numpy."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.dsl.array import Array, as_array, as_float, common_dtype, emit
from graphc.dsl.conv import conv1d
from graphc.dsl.form import formed
from graphc.dsl.linalg import LETTERS, einsum
from graphc.dsl.literal import as_dtype
from graphc.dsl.shape import concat, expand_dims, flip, iota, stack, whole
from graphc.errors import GraphError
from graphc.ir.convert import choice, flag, integer, is_number, is_sequence, items, real
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.types import DType, bool_, f32, normalize_axis


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
    for a, b in zip(mine, theirs):              # einsum would repeat an axis of size 1
        if x.shape[a] != y.shape[b]:
            raise GraphError(f"tensordot: axis {a} of x has size {x.shape[a]} and axis {b} of y has {y.shape[b]}")
    if x.ndim + y.ndim > len(LETTERS):
        raise GraphError(f"tensordot of arrays with {x.ndim} and {y.ndim} axes: einsum has {len(LETTERS)} letters")
    left, right = list(LETTERS[:x.ndim]), list(LETTERS[x.ndim:x.ndim + y.ndim])
    for a, b in zip(mine, theirs):
        right[b] = left[a]
    out = [c for i, c in enumerate(left) if i not in mine] + [c for i, c in enumerate(right) if i not in theirs]
    return einsum(f"{''.join(left)},{''.join(right)}->{''.join(out)}", x, y)


@formed
def convolve(x: Array, y: Array, mode: str = "full") -> Array:
    """The sum over j of x[j] y[i - j], of vectors x [M] and y [N]: all M + N - 1 ("full"), the middle max(M, N)
    ("same"), or those where the shorter lies inside the longer one ("valid")."""
    x, y = (whole(v) for v in _pair(x, y))
    choice(mode, "convolve: mode", ("full", "same", "valid"))
    m, n = (v.shape[0] if v.ndim == 1 else 0 for v in (x, y))
    if not isinstance(m, int) or not isinstance(n, int) or not m or not n:
        raise GraphError(f"convolve takes vectors of known size, of one number or more, got {x.type} and {y.type}")
    if n > m:
        x, y, m, n = y, x, n, m
    sums = conv1d(x.reshape((1, 1, m)), flip(y).reshape((1, 1, n)), padding=0 if mode == "valid" else n - 1)
    start = (n - 1) // 2
    return sums.reshape(-1)[start:start + m] if mode == "same" else sums.reshape(-1)


@formed
def correlate(x: Array, y: Array, mode: str = "valid") -> Array:
    """The sum over j of x[i + j] y[j], of vectors x [M] and y [N]: `convolve` with y backwards, and numpy's `mode`."""
    x, y = _pair(x, y)
    if x.ndim != 1 or y.ndim != 1:
        raise GraphError(f"correlate takes vectors, got {x.type} and {y.type}")
    if all(isinstance(v.shape[0], int) for v in (x, y)) and x.shape[0] < y.shape[0]:
        return flip(convolve(y, flip(x), mode))
    return convolve(x, flip(y), mode)


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
    """The vector product of vectors of three along `axis` of both; their other axes broadcast."""
    x, y = _pair(x, y)
    found = []
    for v in (x, y):
        at = normalize_axis(axis, v.ndim)
        if v.shape[at] != 3:
            raise GraphError(f"cross takes vectors of 3 along axis {axis}, got {x.type} and {y.type}")
        found.append([v[(*(slice(None),) * at, i)] for i in range(3)])
    (a, b, c), (d, e, f) = found
    parts = [b * f - c * e, c * d - a * f, a * e - b * d]
    return stack(parts, normalize_axis(axis, parts[0].ndim + 1))


@formed
def diagonal(x: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """The elements with index2 = index1 + offset of two axes, along a new last axis."""
    x, offset = as_array(x), integer(offset, "diagonal: offset")
    if x.ndim < 2:
        raise GraphError(f"diagonal takes an array with two axes or more, got {x.type}")
    a, b = normalize_axis(axis1, x.ndim), normalize_axis(axis2, x.ndim)
    rows, columns = x.shape[a], x.shape[b]
    if a == b:
        raise GraphError(f"diagonal takes two axes, got {axis1} and {axis2} of {x.type}")
    x = x.transpose([i for i in range(x.ndim) if i not in (a, b)] + [a, b])
    if rows == columns and not offset and not isinstance(rows, int):
        return einsum("...ii->...i", x)
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise GraphError(f"diagonal {offset} of axes {axis1} and {axis2} needs their sizes as ints, got {x.type}; bind "
                         "them first")
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
def diff(x: Array, n: int = 1, axis: int = -1) -> Array:
    """Each element less the one before along `axis`, n times."""
    x, n = as_array(x), integer(n, "diff: n", 0)
    axis = normalize_axis(axis, x.ndim)
    size, lead = x.shape[axis], (slice(None),) * axis
    n = min(n, size) if isinstance(size, int) else n
    if n > 1000:
        raise GraphError(f"diff: n is at most 1000, got {n}")
    for _ in range(n):
        ends = x[(*lead, slice(1, None))], x[(*lead, slice(0, -1))]
        x = emit("ne", *ends) if x.dtype == bool_ else ends[0] - ends[1]
    return x


@formed
def trapezoid(y: Array, x: Array | None = None, dx: float = 1.0, axis: int = -1) -> Array:
    """The integral along `axis` by the trapezoidal rule, of points `dx` apart, or at x: increasing or not, in the shape
    of y or [N] for the axis."""
    y = as_float(y)
    axis = normalize_axis(axis, y.ndim)
    if x is None:
        widths: Array | float = real(dx, "trapezoid: dx")
    else:
        at = as_array(x, y.dtype).astype(y.dtype)
        if at.ndim == 1:
            at = at.reshape([-1 if a == axis else 1 for a in range(y.ndim)])
        widths = diff(at, 1, axis)
    high, low = _neighbours(y, axis, 1)
    return ((high + low) * 0.5 * widths).sum(axis)


@formed
def gradient(x: Array, *spacing: float | Array, axis: int | Sequence[int] | None = None,
             edge_order: int = 1) -> Array | tuple[Array, ...]:
    """Differences of neighbours, by numpy's rule: central ones of second order inside, one-sided ones of `edge_order` 1
    or 2 at the ends. One array for each axis: for one axis the array, else a tuple. (The derivative of a graph is
    gc.grad.)

    spacing: the distance of neighbours for all axes, or one for each; a vector [N] has the coordinates along its axis.
    Source: numpy.gradient; the weights of uneven distances are those of its documentation.
    """
    if callable(x):
        raise GraphError("gradient takes differences of an array; the derivative of a graph is gc.grad(f)")
    x = as_float(x)
    order = integer(edge_order, "gradient: edge_order", 1, 2)
    listed: list[Any] = items(axis, "gradient: axis") if is_sequence(axis) else [axis]
    axes = list(range(x.ndim)) if axis is None else [normalize_axis(a, x.ndim) for a in listed]
    if len(spacing) not in (0, 1, len(axes)) or len(set(axes)) < len(axes):
        raise GraphError(f"gradient takes one distance, or one for each of {len(axes)} axes, each once")
    each: Sequence[float | Array] = spacing if len(spacing) == len(axes) else (*spacing, 1.0)[:1] * len(axes)
    found = tuple(_gradient(x, a, h, order) for a, h in zip(axes, each))
    return found[0] if len(found) == 1 else found


@formed
def vander(x: Array, n: int | None = None, increasing: bool = False) -> Array:
    """[N, n]: the powers n - 1 … 0 of each element of x [N], side by side; `increasing`: 0 … n - 1. n None: N, a
    number."""
    x = whole(as_array(x))
    count = (x.shape[0] if x.ndim == 1 else 0) if n is None else integer(n, "vander: n", 0)
    if x.ndim != 1 or not isinstance(count, int):
        raise GraphError(f"vander takes a vector x [N], and n= where N is not known, got {x.type}")
    ones = emit("broadcast_to", as_array(1, x.dtype), shape=(x.shape[0], min(count, 1)))
    rest = emit("broadcast_to", expand_dims(x, 1), shape=(x.shape[0], max(count - 1, 0)))
    powers = emit("cumprod", concat([ones, rest], 1), axis=1, reverse=False, exclusive=False)
    return powers if flag(increasing, "vander: increasing") else flip(powers, 1)


def _neighbours(x: Array, axis: int, apart: int) -> tuple[Array, Array]:
    """All elements that have one `apart` before them along `axis`, and those."""
    lead = (slice(None),) * axis
    return x[(*lead, slice(apart, None))], x[(*lead, slice(0, -apart))]


def _gradient(x: Array, axis: int, spacing: float | Array, order: int) -> Array:
    size = x.shape[axis]
    if isinstance(size, int) and size < order + 1:
        raise GraphError(f"gradient of edge_order {order} needs {order + 1} elements along axis {axis}, got {x.type}")
    steps = expand_dims(as_array(1, x.dtype), tuple(range(x.ndim))) * real(spacing, "gradient: spacing") if is_number(
        spacing) else diff(as_array(spacing, x.dtype).reshape([-1 if a == axis else 1 for a in range(x.ndim)]), 1, axis)
    lead = (slice(None),) * axis
    one = x.ndim and steps.shape[axis] == 1 and is_number(spacing)

    def at(v: Array, i: int) -> Array:
        i = 0 if one and v is steps else i
        return v[(*lead, slice(i, i + 1 or None))]
    slopes = diff(x, 1, axis) / steps
    before, after = (steps, steps) if one else (steps[(*lead, slice(0, -1))], steps[(*lead, slice(1, None))])
    later, earlier = _neighbours(slopes, axis, 1)
    inner = (earlier * after + later * before) / (before + after)
    ends = [at(slopes, 0), at(slopes, -1)]
    if order == 2:              # the parabola through the last three
        for end, (i, j) in enumerate(((0, 1), (-1, -2))):
            h, k = at(steps, i), at(steps, j)
            ends[end] = at(slopes, i) + (at(slopes, i) - at(slopes, j)) * h / (h + k)
    return concat([ends[0], inner, ends[1]], axis)


def _pair(x: Array, y: Array) -> tuple[Array, Array]:
    dtype = common_dtype((x, y))
    return as_array(x, dtype), as_array(y, dtype)
