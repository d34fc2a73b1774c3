"""Functions that move, join and cut arrays, and arrays made of nothing."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.dsl.array import Array, Axes, as_array, as_dtype, common_dtype, emit
from graphc.dsl.sizes import as_shape
from graphc.errors import GraphError
from graphc.ir.types import Dim, DType, bool_, f32, i64, normalize_axes, normalize_axis

Shape = Dim | str | Sequence[Dim | str]


def reshape(x: Array, shape: Shape) -> Array:
    """The same elements in row-major order; one size may be -1."""
    return as_array(x).reshape(shape)


def transpose(x: Array, axes: Sequence[int] | None = None) -> Array:
    """Axis i of the result is axis axes[i] of x; reversed when None (torch's permute)."""
    return as_array(x).transpose(*(axes or ()))


def swapaxes(x: Array, axis1: int, axis2: int) -> Array:
    """Two axes exchanged (torch's transpose)."""
    return as_array(x).swapaxes(axis1, axis2)


def moveaxis(x: Array, source: int | Sequence[int], destination: int | Sequence[int]) -> Array:
    """Axes `source` moved to positions `destination`, the others in order."""
    x = as_array(x)
    sources = [normalize_axis(a, x.ndim) for a in _sequence(source)]
    targets = [normalize_axis(a, x.ndim) for a in _sequence(destination)]
    if len(sources) != len(targets):
        raise GraphError(f"moveaxis: {len(sources)} axes to {len(targets)} positions")
    order = [a for a in range(x.ndim) if a not in sources]
    for target, axis in sorted(zip(targets, sources)):
        order.insert(target, axis)
    return x.transpose(order)


def broadcast_to(x: Array, shape: Shape) -> Array:
    """x repeated to `shape` by numpy's rules."""
    return emit("broadcast_to", as_array(x), shape=as_shape(shape))


def squeeze(x: Array, axis: Axes = None) -> Array:
    """Without axes of size 1: those given, or all."""
    return as_array(x).squeeze(axis)


def expand_dims(x: Array, axis: int | tuple[int, ...]) -> Array:
    """With new axes of size 1 at these positions of the result (torch's unsqueeze)."""
    x = as_array(x)
    axes = normalize_axes(axis, x.ndim + len(_sequence(axis)))
    sizes = iter(x.shape)
    return x.reshape(tuple(1 if i in axes else next(sizes) for i in range(x.ndim + len(axes))))


def concat(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays one after another along `axis` (numpy's concatenate, torch's cat)."""
    xs = _several("concat", arrays)
    return emit("concat", *xs, axis=normalize_axis(axis, xs[0].ndim))


def stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays of one shape along a new axis."""
    xs = _several("stack", arrays)
    return emit("stack", *xs, axis=normalize_axis(axis, xs[0].ndim + 1))


def split(x: Array, parts: int | Sequence[int], axis: int = 0) -> tuple[Array, ...]:
    """Cut along `axis`: into `parts` equal parts, or at the given indices, as numpy's split (torch's takes sizes)."""
    x = as_array(x)
    axis = normalize_axis(axis, x.ndim)
    size = x.shape[axis]
    if isinstance(parts, int):
        if parts < 1 or size % parts:
            raise GraphError(f"split: axis {axis} of size {size} does not divide into {parts} equal parts; give the indices of the cuts")
        parts = [size // parts * i for i in range(1, parts)]
    cuts = [0, *parts, size]
    before = (slice(None),) * axis
    return tuple(x[(*before, slice(a, b))] for a, b in zip(cuts, cuts[1:]))


def dynamic_slice(x: Array, starts: Sequence[Array | int] | Array, sizes: Sequence[int]) -> Array:
    """x[s0:s0+sizes[0], …] for starts that are computed; a start is clamped so that the slice lies inside (as in XLA)."""
    x = as_array(x)
    return emit("dynamic_slice", x, *_starts("dynamic_slice", x, starts), sizes=as_shape(sizes))


def dynamic_update_slice(x: Array, update: Array, starts: Sequence[Array | int] | Array) -> Array:
    """x with `update` written at computed starts, clamped so that it lies inside (as in XLA)."""
    x = as_array(x)
    return emit("dynamic_update_slice", x, as_array(update, x.dtype), *_starts("dynamic_update_slice", x, starts))


def pad(x: Array, widths: int | Sequence, value: float = 0) -> Array:
    """With `value` around. widths: one int, (before, after) for every axis, or one such pair per axis, as in numpy
    (torch lists the last axis first)."""
    x = as_array(x)
    pairs = _pairs(widths, x.ndim)
    return emit("pad", x, low=tuple(a for a, _ in pairs), high=tuple(b for _, b in pairs), value=_number(value, x.dtype))


def flip(x: Array, axis: Axes = None) -> Array:
    """With the order of elements reversed along the axes (None: all)."""
    x = as_array(x)
    return emit("flip", x, axes=normalize_axes(axis, x.ndim))


def roll(x: Array, shift: int, axis: int) -> Array:
    """Moved by `shift` along `axis`; what leaves at one end enters at the other."""
    x = as_array(x)
    axis = normalize_axis(axis, x.ndim)
    size = x.shape[axis]
    cut = -shift % size if isinstance(size, int) and size else -shift if shift <= 0 else size - shift
    before = (slice(None),) * axis
    return x if cut == 0 else concat([x[(*before, slice(cut, None))], x[(*before, slice(None, cut))]], axis)


def repeat(x: Array, times: int, axis: int) -> Array:
    """Each element `times` times in a row along `axis` (torch's repeat_interleave)."""
    x = as_array(x)
    axis = normalize_axis(axis, x.ndim)
    head, size, tail = x.shape[:axis], x.shape[axis], x.shape[axis + 1:]
    wide = broadcast_to(expand_dims(x, axis + 1), (*head, size, times, *tail))
    return wide.reshape((*head, size * times, *tail))


def tile(x: Array, reps: int | Sequence[int]) -> Array:
    """The whole array repeated along each axis, as numpy's tile (torch's repeat)."""
    x = as_array(x)
    counts = tuple(_sequence(reps))
    return emit("tile", x, reps=(1,) * (x.ndim - len(counts)) + counts)


def resize(x: Array, shape: tuple[int, int], mode: str = "nearest") -> Array:
    """Images [N, C, H, W] scaled to [N, C, *shape]: "nearest" or "bilinear", as torch's interpolate with align_corners=False."""
    return emit("resize", as_array(x), shape=as_shape(shape), mode=mode)


def tril(x: Array, k: int = 0) -> Array:
    """The lower triangle of the last two axes: x[…, i, j] where j <= i + k, else 0."""
    return emit("tril", as_array(x), k=k)


def triu(x: Array, k: int = 0) -> Array:
    """The upper triangle of the last two axes: x[…, i, j] where j >= i + k, else 0."""
    return emit("triu", as_array(x), k=k)


def iota(shape: Shape, axis: int = 0, dtype: DType = i64) -> Array:
    """The array of `shape` whose elements are their own index along `axis`."""
    dims = as_shape(shape)
    return emit("iota", shape=dims, axis=normalize_axis(axis, len(dims)), dtype=as_dtype(dtype))


def arange(start: Dim | float, stop: Dim | float | None = None, step: int | float = 1, dtype: DType | None = None) -> Array:
    """start, start + step, … below stop; arange(n) counts 0 … n - 1. i64 for ints, f32 if a float is among the arguments.
    A named dimension may be the stop of a count by 1."""
    start, stop = (0, start) if stop is None else (start, stop)
    dtype = as_dtype(dtype or (f32 if any(isinstance(v, float) for v in (start, stop, step)) else i64))
    if not isinstance(start, (int, float)) or not isinstance(step, (int, float)) or isinstance(stop, Array):
        raise GraphError("arange takes Python numbers, they decide the shape: build gc.arange(n) and compute with it")
    if step == 0:
        raise GraphError("arange: the step cannot be 0")
    count = _count(start, stop, step)
    x = iota(count, 0, dtype)
    x = x if step == 1 else x * step
    return x if start == 0 else x + start


def full(shape: Shape, value: float | Array, dtype: DType | None = None) -> Array:
    """An array with every element `value`, a Python number or a scalar array. dtype: that of the value (floats f32, ints i64)."""
    x = as_array(value, as_dtype(dtype) if dtype else None)
    return emit("broadcast_to", x.astype(dtype) if dtype else x, shape=as_shape(shape))


def zeros(shape: Shape, dtype: DType = f32) -> Array:
    """Zeros; f32 unless told otherwise (numpy: f64)."""
    return full(shape, False if as_dtype(dtype) == bool_ else 0, dtype)


def ones(shape: Shape, dtype: DType = f32) -> Array:
    """Ones; f32 unless told otherwise (numpy: f64)."""
    return full(shape, True if as_dtype(dtype) == bool_ else 1, dtype)


def full_like(x: Array, value: float | Array, dtype: DType | None = None) -> Array:
    """`full` with the shape and, unless given, the dtype of x."""
    return full(x.shape, value, dtype or x.dtype)


def zeros_like(x: Array, dtype: DType | None = None) -> Array:
    """`zeros` with the shape and, unless given, the dtype of x."""
    return zeros(x.shape, dtype or x.dtype)


def ones_like(x: Array, dtype: DType | None = None) -> Array:
    """`ones` with the shape and, unless given, the dtype of x."""
    return ones(x.shape, dtype or x.dtype)


def eye(n: Dim, dtype: DType = f32) -> Array:
    """The identity matrix [n, n]."""
    return (iota((n, n), 0) == iota((n, n), 1)).astype(dtype)


def _several(name: str, arrays: Sequence[Array]) -> list[Array]:
    if isinstance(arrays, Array) or not isinstance(arrays, (tuple, list)):
        raise GraphError(f"{name} takes a list of arrays: gc.{name}([a, b])")
    if not arrays:
        raise GraphError(f"{name} of an empty list has no shape")
    dtype = common_dtype(arrays)
    return [as_array(a, dtype) for a in arrays]


def _sequence(value) -> Sequence:
    return value if isinstance(value, (tuple, list)) else (value,)


def _starts(name: str, x: Array, starts) -> list[Array]:
    items = [starts[i] for i in range(len(starts))] if isinstance(starts, Array) and starts.ndim == 1 else list(_sequence(starts))
    if len(items) != x.ndim:
        raise GraphError(f"{name} of an array with {x.ndim} axes needs {x.ndim} starts, got {len(items)}")
    return [as_array(s, i64) for s in items]


def _pairs(widths, rank: int) -> list[tuple[int, int]]:
    if isinstance(widths, int):
        return [(widths, widths)] * rank
    items = list(widths)
    if len(items) == 2 and all(isinstance(w, int) for w in items):
        return [(items[0], items[1])] * rank
    pairs = [(w, w) if isinstance(w, int) else tuple(w) for w in items]
    if len(pairs) != rank or any(len(p) != 2 for p in pairs):
        raise GraphError(f"pad: an array with {rank} axes needs {rank} pairs (before, after), got {widths}")
    return pairs


def _number(value, dtype: DType):
    return bool(value) if dtype.kind == "bool" else float(value) if dtype.is_float else int(value)


def _count(start, stop, step) -> Dim:
    if not isinstance(stop, (int, float)):
        if step != 1 or not isinstance(start, int):
            raise GraphError(f"arange up to the named dimension {stop} counts by 1 from an int; multiply the result for other steps")
        return stop - start
    return int(-((start - stop) // step)) if stop != start and (stop > start) == (step > 0) else 0
