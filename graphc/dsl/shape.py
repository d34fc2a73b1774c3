"""Functions that move, join and cut arrays, and arrays made of nothing."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import isfinite

from graphc.dsl.array import Array, Axes, as_array, common_dtype, emit
from graphc.dsl.form import formed
from graphc.dsl.literal import as_dtype, fitting
from graphc.dsl.sizes import as_shape
from graphc.errors import GraphError
from graphc.ir.convert import integer, is_sequence, items, number, shown
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim, Poly
from graphc.ir.op import uncut
from graphc.ir.types import DType, bool_, f32, i64, normalize_axes, normalize_axis

Shape = Dim | str | Sequence[Dim | str]


@formed
def reshape(x: Array, shape: Shape) -> Array:
    """The same elements in row-major order; one size may be -1."""
    return as_array(x).reshape(shape)


def whole(x: Array) -> Array:
    """x where its slices miss nothing at their ends, as functions of known sizes take it: a call whose axes are shorter
    is refused."""
    shape = tuple(map(uncut, x.shape))
    return x if shape == x.shape else x.reshape(shape)


@formed
def transpose(x: Array, axes: Sequence[int] | None = None) -> Array:
    """Axis i of the result is axis axes[i] of x; reversed when None (torch's permute)."""
    return as_array(x).transpose(*(() if axes is None else (axes,)))


@formed
def swapaxes(x: Array, axis1: int, axis2: int) -> Array:
    """Two axes exchanged (torch's transpose)."""
    return as_array(x).swapaxes(axis1, axis2)


@formed
def moveaxis(x: Array, source: int | Sequence[int], destination: int | Sequence[int]) -> Array:
    """Axes `source` moved to positions `destination`, the others in order."""
    x = as_array(x)
    sources = [normalize_axis(a, x.ndim) for a in _sequence(source)]
    targets = [normalize_axis(a, x.ndim) for a in _sequence(destination)]
    if len(sources) != len(targets):
        raise GraphError(f"moveaxis: {len(sources)} axes to {len(targets)} positions")
    if len(set(sources)) != len(sources) or len(set(targets)) != len(targets):
        raise GraphError(f"moveaxis: each axis moves once, to a position of its own; got {shown(source)} to "
                         f"{shown(destination)}")
    order = [a for a in range(x.ndim) if a not in sources]
    for target, axis in sorted(zip(targets, sources)):
        order.insert(target, axis)
    return x.transpose(order)


@formed
def broadcast_to(x: Array, shape: Shape) -> Array:
    """x repeated to `shape` by numpy's rules."""
    return emit("broadcast_to", as_array(x), shape=as_shape(shape))


@formed
def squeeze(x: Array, axis: Axes = None) -> Array:
    """Without axes of size 1: those given, or all."""
    return as_array(x).squeeze(axis)


@formed
def expand_dims(x: Array, axis: int | tuple[int, ...]) -> Array:
    """With new axes of size 1 at these positions of the result (torch's unsqueeze)."""
    x = as_array(x)
    axes = normalize_axes(axis, x.ndim + len(_sequence(axis)))
    sizes = iter(x.shape)
    return x.reshape(tuple(1 if i in axes else next(sizes) for i in range(x.ndim + len(axes))))


@formed
def concat(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays one after another along `axis` (numpy's concatenate, torch's cat)."""
    xs = _several("concat", arrays)
    return emit("concat", *xs, axis=normalize_axis(axis, xs[0].ndim))


@formed
def stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays of one shape along a new axis."""
    xs = _several("stack", arrays)
    return emit("stack", *xs, axis=normalize_axis(axis, xs[0].ndim + 1))


@formed
def split(x: Array, parts: int | Sequence[Dim] | None = None, axis: int = 0, *, sizes: Sequence[Dim] | None = None,
          points: Sequence[Dim] | None = None) -> tuple[Array, ...]:
    """Cut along `axis` into `parts` equal parts, into parts of the given `sizes` (torch's split), or at the indices
    `points` (numpy's).

    A list in the place of `parts` holds points, as in numpy: increasing ones inside the axis, so that no part is
    empty. GraphError for a list that could as well be meant as sizes, because it sums to the size of the axis.
    """
    x = as_array(x)
    axis = normalize_axis(axis, x.ndim)
    size = x.shape[axis]
    cuts = [0, *_cuts(axis, size, parts, sizes, points), size]
    before = (slice(None),) * axis
    return tuple([x[(*before, slice(a, b))] for a, b in zip(cuts, cuts[1:])])


@formed
def dynamic_slice(x: Array, starts: Sequence[Array | int] | Array, sizes: Sequence[Dim]) -> Array:
    """x[s0:s0+sizes[0], …] for starts that are computed; a start is clamped so that the slice lies inside (as in
    XLA)."""
    x = as_array(x)
    return emit("dynamic_slice", x, *_starts("dynamic_slice", x, starts), sizes=as_shape(sizes))


@formed
def dynamic_update_slice(x: Array, update: Array, starts: Sequence[Array | int] | Array) -> Array:
    """x with `update` written at computed starts, clamped so that it lies inside (as in XLA)."""
    x = as_array(x)
    return emit("dynamic_update_slice", x, as_array(update, x.dtype), *_starts("dynamic_update_slice", x, starts))


@formed
def flip(x: Array, axis: Axes = None) -> Array:
    """With the order of elements reversed along the axes (None: all)."""
    x = as_array(x)
    return emit("flip", x, axes=normalize_axes(axis, x.ndim))


@formed
def roll(x: Array, shift: int, axis: int) -> Array:
    """Moved by `shift` along `axis`; what leaves at one end enters at the other."""
    x = as_array(x)
    axis, shift = normalize_axis(axis, x.ndim), integer(shift, "roll: the shift")
    size = x.shape[axis]
    cut = -shift % size if isinstance(size, int) and size else -shift if shift <= 0 else size - shift
    before = (slice(None),) * axis
    return x if cut == 0 else concat([x[(*before, slice(cut, None))], x[(*before, slice(None, cut))]], axis)


@formed
def repeat(x: Array, times: int, axis: int) -> Array:
    """Each element `times` times in a row along `axis` (torch's repeat_interleave)."""
    x = as_array(x)
    axis, count = normalize_axis(axis, x.ndim), as_dim(times)
    head, size, tail = x.shape[:axis], x.shape[axis], x.shape[axis + 1:]
    wide = broadcast_to(expand_dims(x, axis + 1), (*head, size, count, *tail))
    return wide.reshape((*head, size * count, *tail))


@formed
def tile(x: Array, reps: int | Sequence[int]) -> Array:
    """The whole array repeated along each axis, as numpy's tile (torch's repeat)."""
    x = as_array(x)
    counts = tuple([integer(n, "tile: a number of repetitions", 0) for n in _sequence(reps)])
    return emit("tile", x, reps=(1,) * (x.ndim - len(counts)) + counts)


@formed
def tril(x: Array, k: int = 0) -> Array:
    """The lower triangle of the last two axes: x[…, i, j] where j <= i + k, else 0."""
    return emit("tril", as_array(x), k=integer(k, "tril: k"))


@formed
def triu(x: Array, k: int = 0) -> Array:
    """The upper triangle of the last two axes: x[…, i, j] where j >= i + k, else 0."""
    return emit("triu", as_array(x), k=integer(k, "triu: k"))


@formed
def iota(shape: Shape, axis: int = 0, dtype: DType = i64) -> Array:
    """The array of `shape` whose elements are their own index along `axis`."""
    dims = as_shape(shape)
    return emit("iota", shape=dims, axis=normalize_axis(axis, len(dims)), dtype=as_dtype(dtype))


@formed
def arange(start: Dim | float, stop: Dim | float | None = None, step: int | float = 1,
           dtype: DType | None = None) -> Array:
    """start, start + step, … below stop; arange(n) counts 0 … n - 1. i64 for ints, f32 if a float is among the
    arguments; floats of an integer
    `dtype` must be whole. A named dimension may be the stop of a count by 1."""
    start, stop = (0, start) if stop is None else (start, stop)
    if any(isinstance(v, Array) for v in (start, stop, step)):
        raise GraphError("arange takes Python numbers, they decide the shape: build gc.arange(n) and compute with it")
    end: Dim | float = as_dim(stop) if isinstance(stop, (str, Poly)) else number(stop, "arange: the stop")
    first, step = number(start, "arange: the start"), number(step, "arange: the step")
    floats = any(isinstance(v, float) for v in (first, end, step))
    dtype = (f32 if floats else i64) if dtype is None else as_dtype(dtype)
    if dtype.is_int and floats:
        first, end, step = _whole(first,
                                  dtype), end if isinstance(end, Poly) else _whole(end, dtype), _whole(step, dtype)
    count = _count(first, end, step)
    if dtype.is_int and isinstance(count, int) and count:
        fitting(first + (count - 1) * step, dtype, "arange: the last element")
    x = iota(count, 0, dtype)
    x = x if step == 1 else x * step
    return x if first == 0 else x + first


@formed
def full(shape: Shape, value: float | Array, dtype: DType | None = None) -> Array:
    """An array with every element `value`, a Python number or a scalar array. dtype: that of the value (floats f32,
    ints i64)."""
    dtype = None if dtype is None else as_dtype(dtype)
    x = as_array(value, dtype)
    return emit("broadcast_to", x if dtype is None else x.astype(dtype), shape=as_shape(shape))


@formed
def zeros(shape: Shape, dtype: DType = f32) -> Array:
    """Zeros; f32 unless told otherwise (numpy: f64)."""
    return full(shape, False if as_dtype(dtype) == bool_ else 0, dtype)


@formed
def ones(shape: Shape, dtype: DType = f32) -> Array:
    """Ones; f32 unless told otherwise (numpy: f64)."""
    return full(shape, True if as_dtype(dtype) == bool_ else 1, dtype)


@formed
def full_like(x: Array, value: float | Array, dtype: DType | None = None) -> Array:
    """`full` with the shape and, unless given, the dtype of x."""
    x = as_array(x)
    return full(x.shape, value, x.dtype if dtype is None else dtype)


@formed
def zeros_like(x: Array, dtype: DType | None = None) -> Array:
    """`zeros` with the shape and, unless given, the dtype of x."""
    x = as_array(x)
    return zeros(x.shape, x.dtype if dtype is None else dtype)


@formed
def ones_like(x: Array, dtype: DType | None = None) -> Array:
    """`ones` with the shape and, unless given, the dtype of x."""
    x = as_array(x)
    return ones(x.shape, x.dtype if dtype is None else dtype)


@formed
def eye(n: Dim, dtype: DType = f32) -> Array:
    """The identity matrix [n, n]."""
    return (iota((n, n), 0) == iota((n, n), 1)).astype(dtype)


def _several(name: str, arrays: Sequence[Array]) -> list[Array]:
    if isinstance(arrays, Array) or not isinstance(arrays, (tuple, list)):
        raise GraphError(f"{name} takes a list of arrays: gc.{name}([a, b])")
    if not len(arrays):
        raise GraphError(f"{name} of an empty list has no shape")
    dtype = common_dtype(arrays)
    return [as_array(a, dtype) for a in arrays]


def _sequence(value: object) -> Sequence:
    return value if is_sequence(value) else (value,)


def _starts(name: str, x: Array, starts: object) -> list[Array]:
    items = ([starts[i] for i in range(len(starts))] if isinstance(starts, Array) and starts.ndim == 1
             else list(_sequence(starts)))
    if len(items) != x.ndim:
        raise GraphError(f"{name} of an array with {x.ndim} axes needs {x.ndim} starts, got {len(items)}")
    return [as_array(s, i64) for s in items]


def _cuts(axis: int, size: Dim, parts: object, sizes: object, points: object) -> list[Dim]:
    """Where `split` cuts an axis of `size`."""
    if sum(given is not None for given in (parts, sizes, points)) != 1:
        raise GraphError("split takes one of: a number of equal parts, sizes=[…], points=[…]")
    if sizes is not None:
        return _ends(axis, size, [as_dim(n) for n in items(sizes, "split: sizes")])
    if points is not None or is_sequence(parts):
        listed = parts if points is None else points
        cuts = [p if isinstance(p, Poly) else integer(p, "split: a point") for p in items(listed, "split: points")]
        return _checked_points(axis, size, cuts, doubtful=points is None)
    count = integer(parts, "split: the number of parts", 1)
    if size % count:
        raise GraphError(f"split: axis {axis} of size {size} does not divide into {count} equal parts; "
                         "give sizes=[…] or points=[…]")
    return [size // count * i for i in range(1, count)]


def _ends(axis: int, size: Dim, sizes: list[Dim]) -> list[Dim]:
    ends = list(accumulate(sizes))
    if not ends or ends[-1] != size:
        raise GraphError(f"split: sizes={sizes} sum to {ends[-1] if ends else 0}, axis {axis} has {size}")
    return ends[:-1]


def _checked_points(axis: int, size: Dim, cuts: list[Dim], doubtful: bool) -> list[Dim]:
    """The points in order and inside; `doubtful`: nobody has said that they are points, so they are not read as such
    where sizes may be meant."""
    steps = [b - a for a, b in zip([0, *cuts], [*cuts, size])]
    if any(isinstance(step, int) and step < doubtful for step in steps):
        raise GraphError(f"split: {cuts} are no increasing points inside axis {axis} of size {size}: "
                         "points=[…] says where to cut, as in numpy, "
                         "sizes=[…] how long the parts are, as in torch")
    if doubtful and len(cuts) > 1 and sum(cuts) == size:
        raise GraphError(f"split: {cuts} may be where to cut (numpy) or how long the parts are (torch), "
                         f"since they sum to the size of axis {axis}: "
                         f"write points={cuts} or sizes={cuts}")
    return cuts


def _whole(value: int | float, dtype: DType) -> int:
    """A float that is a whole number as an int."""
    if isinstance(value, float):
        if not value.is_integer():
            raise GraphError(f"arange of {dtype} counts in whole numbers, got {value}; count in f32 and convert the "
                             "result with astype")
        return int(value)
    return value


def _count(start: int | float, stop: Dim | float, step: int | float) -> Dim:
    if step == 0:
        raise GraphError("arange: the step cannot be 0")
    if isinstance(stop, Poly):
        if step != 1 or not isinstance(start, int):
            raise GraphError(f"arange up to the named dimension {stop} counts by 1 from an int; multiply the result "
                             "for other steps")
        return stop - start
    if not all(map(isfinite, (start, stop, step))):
        raise GraphError(f"arange from {start} to {stop} by {step} has no end")
    return int(-((start - stop) // step)) if stop != start and (stop > start) == (step > 0) else 0
