"""Products, diagonals and norms of arrays, and arrays made of numbers or of others, under numpy's names."""
from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from graphc.dsl.array import Array, as_array, as_float, common_dtype, emit
from graphc.dsl.elementwise import Operand, abs, isfinite, sqrt, where
from graphc.dsl.form import formed
from graphc.dsl.linalg import LETTERS, einsum
from graphc.dsl.literal import as_dtype
from graphc.dsl.shape import concat, expand_dims, flip, iota
from graphc.errors import GraphError
from graphc.ir.convert import choice, flag, integer, integers, is_sequence, items, real
from graphc.ir.types import DType, f32, normalize_axes, normalize_axis

MOST_NUMBERS = 1 << 24              # that a graph holds as a constant


@formed
def inner(x: Operand, y: Operand) -> Array:
    """The sum of products along the last axes of both: [..., K] and [..., K] give the axes of x, then of y; a scalar
    multiplies."""
    x, y = _both(x, y)
    return x * y if not x.ndim or not y.ndim else tensordot(x, y, (-1, -1))


@formed
def vdot(x: Operand, y: Operand) -> Array:
    """The sum of the products of all elements, a scalar."""
    x, y = _both(x, y)
    return emit("matmul", x.flatten(), y.flatten())


@formed
def tensordot(x: Operand, y: Operand, axes: int | Sequence = 2) -> Array:
    """The sum of products over axes of both: the last `axes` of x and the first of y, or a pair, which of x and which
    of y. The other axes of x, then those of y."""
    x, y = _both(x, y)
    if is_sequence(axes):
        pair = items(axes, "axes")
        if len(pair) != 2:
            raise GraphError(f"tensordot: axes is a number, or a pair, which of x and of y; got {len(pair)} items")
        left, right = (_axes_of(given, v.ndim) for given, v in zip(pair, (x, y)))
    else:
        count = integer(axes, "axes", 0)
        if count > min(x.ndim, y.ndim):
            raise GraphError(f"tensordot of {x.type} and {y.type}: there are no {count} axes in both")
        left, right = tuple(range(x.ndim - count, x.ndim)), tuple(range(count))
    if len(left) != len(right):
        raise GraphError(f"tensordot: {len(left)} axes of x and {len(right)} of y; there must be as many")
    if x.ndim + y.ndim > len(LETTERS):
        raise GraphError(f"tensordot of arrays with {x.ndim} and {y.ndim} axes: {len(LETTERS)} at most together")
    mine, others = list(LETTERS[:x.ndim]), list(LETTERS[x.ndim:x.ndim + y.ndim])
    for i, j in zip(left, right):
        if x.shape[i] != y.shape[j]:
            raise GraphError(f"tensordot: axis {i} of x is {x.shape[i]} and axis {j} of y is {y.shape[j]}")
        others[j] = mine[i]
    out = [c for i, c in enumerate(mine) if i not in left] + [c for j, c in enumerate(others) if j not in right]
    if not x.ndim or not y.ndim:
        return x * y
    return einsum(f"{''.join(mine)},{''.join(others)}->{''.join(out)}", x, y)


@formed
def kron(x: Operand, y: Operand) -> Array:
    """Kronecker's product: x with each element replaced by its product with y."""
    x, y = _both(x, y)
    rank = max(x.ndim, y.ndim)
    a, b = (v.reshape((1,) * (rank - v.ndim) + v.shape) for v in (x, y))
    wide = a.reshape(tuple(d for n in a.shape for d in (n, 1))) * b.reshape(tuple(d for n in b.shape for d in (1, n)))
    return wide.reshape(tuple(m * n for m, n in zip(a.shape, b.shape)))


@formed
def cross(x: Operand, y: Operand, axis: int = -1) -> Array:
    """The vector product along `axis`, which has size 3 in both."""
    x, y = _both(x, y)
    parts = []
    for v in (x, y):
        at = normalize_axis(axis, v.ndim)
        if v.shape[at] != 3:
            raise GraphError(f"cross takes vectors of 3 numbers, axis {axis} of {v.type} has {v.shape[at]}")
        parts.append([v[(slice(None),) * at + (i,)] for i in range(3)])
    a, b = parts
    made = [a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)]
    return emit("stack", *made, axis=normalize_axis(axis, made[0].ndim + 1))


@formed
def diagonal(x: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """The elements i, i + offset of two axes, as the last axis of the result."""
    x = as_array(x)
    if x.ndim < 2:
        raise GraphError(f"diagonal takes arrays with two axes or more, got {x.type}")
    one, two = normalize_axis(axis1, x.ndim), normalize_axis(axis2, x.ndim)
    if one == two:
        raise GraphError(f"diagonal: axis1 and axis2 are both {one}")
    x = x.transpose([i for i in range(x.ndim) if i not in (one, two)] + [one, two])
    k = integer(offset, "offset")
    rows, columns = x.shape[-2:]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise GraphError(f"diagonal needs the sizes {rows} and {columns} as ints; bind them first")
    count = max(min(rows + min(k, 0), columns - max(k, 0)), 0)
    if not count:
        return x[..., :0, 0] if columns else x.reshape((*x.shape[:-2], 0))
    x = x[..., max(-k, 0):max(-k, 0) + count, max(k, 0):max(k, 0) + count]
    return x.reshape((*x.shape[:-2], count * count))[..., ::count + 1]


@formed
def diag(x: Array, k: int = 0) -> Array:
    """Of a matrix its diagonal number k; of a list [n] the matrix with it there, zeros elsewhere."""
    x, k = as_array(x), integer(k, "k")
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise GraphError(f"diag takes a matrix or a list, got {x.type}")
    n = x.shape[0] + max(k, -k)
    row = emit("pad", x, low=(max(-k, 0),), high=(max(k, 0),))
    there = iota((n, n), 1) == iota((n, n), 0) + k
    return where(there, row.reshape((n, 1)), as_array(0, x.dtype))


@formed
def trace(x: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """The sum of a diagonal."""
    return diagonal(x, offset, axis1, axis2).sum(-1)


@formed
def norm(x: Operand, ord: float | str | None = None, axis: int | tuple[int, ...] | None = None,
         keepdims: bool = False) -> Array:
    """The length of vectors along `axis`, or of all elements: by default and for 2, "fro": the root of the sum of
    squares, with gradient 0 at 0; inf, -inf: the largest and least absolute; 0: how many are not 0; else
    (Σ |x|^ord)^(1/ord). Norms of matrices as operators are not among them."""
    x = as_float(x)
    axes = normalize_axes(axis, x.ndim)
    root = ord is None or (ord == "fro" if isinstance(ord, str) else real(ord, "ord") == 2 and len(axes) < 2)
    if root:
        squares = (x * x).sum(axis, keepdims)
        return where(squares == 0, as_array(0, x.dtype), sqrt(squares))
    p = real(ord, "ord")
    if len(axes) > 1:
        raise GraphError(f"norm: ord {ord} of {len(axes)} axes would be that of a matrix; give one axis, or flatten x")
    size = abs(x)
    if p in (inf, -inf):
        return size.max(axis, keepdims) if p > 0 else size.min(axis, keepdims)
    if p == 0:
        return (x != 0).sum(axis, keepdims).astype(x.dtype)
    return size.sum(axis, keepdims) if p == 1 else (size ** p).sum(axis, keepdims) ** (1 / p)


@formed
def cov(x: Operand, rowvar: bool = True, ddof: int = 1) -> Array:
    """Covariances of the rows of x [n, m] (rowvar=False: columns), of m observations each: [n, n]. ddof: what is taken
    from m."""
    x = _observations("cov", x, rowvar)
    count = x.shape[1] - integer(ddof, "ddof")
    centred = x - x.mean(1, keepdims=True)
    return emit("matmul", centred, centred.T) / (count if isinstance(count, int) else
                                                 emit("dimension", size=count, dtype=x.dtype))


@formed
def corrcoef(x: Operand, rowvar: bool = True) -> Array:
    """Correlations of the rows of x [n, m] (rowvar=False: columns): [n, n]."""
    x = _observations("corrcoef", x, rowvar)
    centred = x - x.mean(1, keepdims=True)
    unit = centred / sqrt((centred * centred).sum(1, keepdims=True))
    return emit("matmul", unit, unit.T).clip(-1.0, 1.0)


@formed
def linspace(start: float, stop: float, num: int = 50, endpoint: bool = True, dtype: DType = f32) -> Array:
    """`num` numbers from start to stop, which is the last one, or with endpoint=False the one after."""
    count, kind = integer(num, "num", 0), as_dtype(dtype)
    if count > MOST_NUMBERS:
        raise GraphError(f"linspace makes at most {MOST_NUMBERS} numbers, got {count}; compute more from gc.arange")
    ends = real(start, "start"), real(stop, "stop")
    limit = float(np.iinfo(kind.np).max if kind.is_int else np.finfo(kind.np).max if kind.is_float else 1)
    if not all(-limit <= end <= limit for end in ends):
        raise GraphError(f"linspace: the ends {ends[0]} and {ends[1]} are not numbers that an array of {kind} may hold")
    with np.errstate(all="ignore"):
        line = np.linspace(*ends, count, flag(endpoint, "endpoint"))
    return as_array((np.floor(line) if kind.is_int else line).astype(kind.np))


@formed
def meshgrid(*arrays: Operand, indexing: str = "xy") -> tuple[Array, ...]:
    """Lists as coordinates of a grid: each with the shape of all sizes together; "xy": the first two axes exchanged."""
    given = [as_array(a) for a in arrays]
    if any(a.ndim != 1 for a in given):
        raise GraphError("meshgrid takes lists of one axis each")
    order = list(range(len(given)))
    if choice(indexing, "indexing", ("xy", "ij")) == "xy" and len(given) > 1:
        order[0], order[1] = 1, 0
    shape = [given[i].shape[0] for i in order]
    lines = [a.reshape([-1 if axis == i else 1 for axis in order]) for i, a in enumerate(given)]
    return tuple(emit("broadcast_to", line, shape=tuple(shape)) for line in lines)


@formed
def rot90(x: Array, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Array:
    """x turned k quarters from the first of two axes to the second."""
    x = as_array(x)
    one, two = (normalize_axis(a, x.ndim) for a in integers(axes, "axes", 2))
    if one == two:
        raise GraphError(f"rot90: the axes are both {one}")
    turns = integer(k, "k") % 4
    if turns == 0:
        return x
    if turns == 2:
        return flip(x, (one, two))
    return flip(x, two).swapaxes(one, two) if turns == 1 else flip(x.swapaxes(one, two), two)


@formed
def fliplr(x: Array) -> Array:
    """The second axis backwards."""
    return flip(x, 1)


@formed
def flipud(x: Array) -> Array:
    """The first axis backwards."""
    return flip(x, 0)


@formed
def hstack(arrays: Sequence[Array]) -> Array:
    """Arrays side by side: along their second axis, lists along their only one."""
    given = _several("hstack", arrays)
    given = [a.reshape((1,)) if not a.ndim else a for a in given]
    return concat(given, 0 if given[0].ndim == 1 else 1)


@formed
def vstack(arrays: Sequence[Array]) -> Array:
    """Arrays above each other: along their first axis, lists as rows."""
    return concat([expand_dims(a, 0) if a.ndim == 1 else a.reshape((1, 1)) if not a.ndim else a
                   for a in _several("vstack", arrays)], 0)


@formed
def select(conditions: Sequence[Array], choices: Sequence[Operand], default: Operand = 0) -> Array:
    """Where the first of `conditions` that holds is number i, choices[i]; where none does, `default`."""
    tests, values = items(conditions, "conditions"), items(choices, "choices")
    if len(tests) != len(values) or not tests:
        raise GraphError(f"select: {len(tests)} conditions and {len(values)} choices; as many are wanted, one or more")
    dtype = common_dtype(values)
    result: Operand = default
    for condition, value in zip(reversed(tests), reversed(values)):
        result = where(condition, as_array(value, dtype), result)
    return as_array(result)


@formed
def allclose(x: Operand, y: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Array:
    """bool, a scalar: whether |x - y| <= atol + rtol |y| everywhere; infinities are close to themselves alone."""
    x, y = (as_float(v) for v in _both(x, y))
    near = abs(x - y) <= real(atol, "atol") + real(rtol, "rtol") * abs(y)
    close = (near & isfinite(y)) | (x == y)
    if flag(equal_nan, "equal_nan"):
        close = close | ((x != x) & (y != y))
    return close.all()


def _both(x: Operand, y: Operand) -> tuple[Array, Array]:
    dtype = common_dtype((x, y))
    return as_array(x, dtype), as_array(y, dtype)


def _axes_of(given: object, rank: int) -> tuple[int, ...]:
    found = items(given, "axes") if is_sequence(given) else [given]
    return tuple(normalize_axis(integer(a, "an axis"), rank) for a in found)


def _several(name: str, arrays: object) -> list[Array]:
    given = items(arrays, f"what {name} joins")
    if not given:
        raise GraphError(f"{name} takes one array or more")
    dtype = common_dtype(given)
    return [as_array(a, dtype) for a in given]


def _observations(name: str, x: Operand, rowvar: bool) -> Array:
    x = as_float(x)
    if x.ndim != 2:
        raise GraphError(f"{name} takes a matrix [n, m], got {x.type}")
    return x if flag(rowvar, "rowvar") else x.T
